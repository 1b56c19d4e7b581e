"""Design of the study: its sizes, cohorts, studies and trainings; everything that is not a size is the paper's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from he2her2.ablation import load_ablation
from he2her2.ablation.methods import METHODS, AblationSettings, Method
from he2her2.phantom import CohortSpec, load_cohort

PAPER_RATE = 1e-5
MAX_RATE = 6e-4
"""No more than a rate at which IHC tiles were seen to be learned: the network has no norms."""

PAPER_TILE_STEPS = 200 * math.ceil(4 * 7591 / 128)
PAPER_SLIDE_STEPS = 150 * 30
"""48 H&E slides without ink, 8 of them to test; 30 of the other 40 are taken to train, since the paper does not say."""

NOTICE = "phantoms: this proves the machinery, never the medicine"
LICENCE = "phantoms of this project, Apache-2.0"


@dataclass(frozen=True)
class Size:
    """Sizes of the study, the only thing in which it differs from the paper.

    Attributes:
        ihc: IHC slides, 10 of 13 to train (the paper: 40 and 12).
        ihc_px: Side of an IHC slide.
        tiles_per_class: IHC tiles of a score to train (the paper: 7 591).
        val_tiles_per_class: To validate (624).
        tile_epochs: Epochs on IHC tiles (200).
        train: H&E slides to train.
        val: To validate.
        test: To test, at each site.
        he_px: Side of an H&E slide.
        epochs: Epochs on slides (150).
        n_tiles: Tiles that decide, M (300), of at least M / 0.15.
    """

    ihc: int
    ihc_px: int
    tiles_per_class: int
    val_tiles_per_class: int
    tile_epochs: int
    train: int
    val: int
    test: int
    he_px: int
    epochs: int
    n_tiles: int = 300

    @property
    def tile_rate(self) -> float:
        """Adam's rate on tiles."""
        steps = self.tile_epochs * math.ceil(4 * self.tiles_per_class / 128)
        return _rate(PAPER_TILE_STEPS, steps)

    @property
    def slide_rate(self) -> float:
        """Adam's rate on slides."""
        return _rate(PAPER_SLIDE_STEPS, self.epochs * self.train)


SIZES: Mapping[str, Size] = {
    "gpu": Size(52, 6144, 500, 100, 50, 30, 10, 24, 5120, 8),
    "cpu": Size(52, 4096, 250, 60, 16, 16, 8, 16, 4096, 5),
    "small": Size(26, 4096, 128, 20, 15, 10, 6, 8, 4096, 4),
    "tiny": Size(12, 3072, 20, 4, 1, 4, 4, 4, 3072, 1, n_tiles=20),
}
"""Minutes on a GPU and 16 cores; three hours on two cores; half an hour on one for the first rows; all steps, once."""


@dataclass(frozen=True)
class Study:
    """Trainings that differ in aggregator and initial weights alone.

    Attributes:
        beta: Sharpness of soft-argmax in prediction.
        beta_start: In the first epoch of training; None: always `beta`.
        train: Cohort to train on; none decides with the IHC network as it is.
        tests: Cohorts to test on.
        methods: The rows of the paper that are trained.
        what: Description, for the page.
    """

    beta: float
    beta_start: float | None
    train: str | None
    tests: tuple[str, ...]
    methods: tuple[Method, ...]
    what: str


_SITES = ("her2sc-like", "brca-like")
_MLP = METHODS[:2]
STUDIES: Mapping[str, Study] = {
    "paper": Study(1000, None, "train", _SITES, METHODS, "the paper's way: β = 1000, the CNN free"),
    "finite": Study(1, None, "train", _SITES, _MLP, "the same at β = 1, where every selected tile has a gradient"),
    "annealed": Study(1000, 1, "train", _SITES, _MLP, "the same with β rising from 1 to 1000 over the epochs"),
    "control": Study(
        1000,
        None,
        "control-train",
        ("control",),
        (METHODS[0], METHODS[5]),
        "the paper's way where HER2 does not show in H&E",
    ),
    "untouched": Study(
        1000, None, None, _SITES, (METHODS[3], METHODS[5]), "the IHC network on H&E as it is, nothing learned there"
    ),
}
ORDER = (
    *(f"paper/{key}" for key in ("mlp-pretrained", "mlp-from-scratch")),
    *(f"{study}/mlp-pretrained" for study in ("finite", "annealed", "control")),
    *(f"paper/{key}" for key in ("mean-pretrained", "median-pretrained", "mean-from-scratch", "median-from-scratch")),
    *(f"untouched/{key}" for key in ("mean-pretrained", "median-pretrained")),
    "control/mean-pretrained",
    *(f"{study}/mlp-from-scratch" for study in ("finite", "annealed")),
)
"""Trainings, the most telling first: where time runs out the others are missing."""


def cohorts_of(size: Size) -> Mapping[str, CohortSpec]:
    """Settings of every cohort."""
    n = size.train + size.val
    learning = {"n": n, "splits": (size.train / n, size.val / n, 0)}
    testing = {"n": size.test, "splits": (0, 0, 1)}
    shown, hidden = ({"slide": _tumour(size.he_px, signal=signal)} for signal in (1.0, 0.0))
    he: dict[str, Any] = {"scores": (0.2, 0.2, 0.3, 0.3), "sites": ("her2sc-like",)}
    ihc: dict[str, Any] = {"n": size.ihc, "splits": (10 / 13, 3 / 13, 0), "stains": ("IHC",), "sites": _SITES}
    found: dict[str, dict[str, Any]] = {
        "ihc": {**ihc, "seed": 80, "slide": _tumour(size.ihc_px)},
        "train": {**he, **learning, **shown, "seed": 81},
        "her2sc-like": {**he, **testing, **shown, "seed": 82},
        "brca-like": {**he, **testing, **shown, "seed": 83, "sites": ("brca-like",)},
        "control-train": {**he, **learning, **hidden, "seed": 84},
        "control": {**he, **testing, **hidden, "seed": 85},
    }
    return {name: load_cohort(**settings) for name, settings in found.items()}


def _tumour(side_px: int, **more: float) -> dict[str, Any]:
    """Settings of a slide that tissue and one large tumour fill: 2 000 tiles take 0.42 mm² of it."""
    return {"size_px": (side_px, side_px), "tissue_extent": 0.75, "tumour_share": 0.85, "foci": 1, **more}


def settings_of(size: Size, study: Study, threads: int) -> AblationSettings:
    """The paper's settings with the study's sizes and β."""
    overrides = [
        f"selection.n_tiles={size.n_tiles}",
        f"scoring.beta={study.beta}",
        f"runtime.threads={threads}",
        f"training.tiles.epochs={size.tile_epochs}",
        f"training.tiles.learning_rate={size.tile_rate}",
        f"training.tiles.tiles_per_class={size.tiles_per_class}",
        f"training.tiles.val_tiles_per_class={size.val_tiles_per_class}",
        f"training.slides.epochs={size.epochs}",
        f"training.slides.learning_rate={size.slide_rate}",
    ]
    if study.beta_start is not None:
        overrides.append(f"training.slides.beta_start={study.beta_start}")
    return load_ablation("paper", None, overrides)


def manifest_of(work: Path, cohort: str) -> Path:
    """Manifest of a cohort, all its slides."""
    return work / "cohorts" / cohort / "manifest.csv"


def usable_of(work: Path, cohort: str) -> Path:
    """Manifest of those of its slides that hold enough tumour."""
    return work / "cohorts" / cohort / "usable.csv"


def _rate(paper_steps: int, steps: int) -> float:
    """Adam's rate for fewer steps: rate times steps, about the way that a weight can go, is the paper's."""
    return float(f"{min(MAX_RATE, PAPER_RATE * paper_steps / steps):.1e}")
