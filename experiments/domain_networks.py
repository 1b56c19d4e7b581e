"""Networks of `experiments.domain_ladder`: slides drawn, trainings, batch norms moved to each site, and scores."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from he2her2.cohort import SlideTask
from he2her2.config import Config, load_config
from he2her2.csv_files import write_csv
from he2her2.files import atomic
from he2her2.geometry import Point, Rgb, Size, TileGrid
from he2her2.labels import Her2Status
from he2her2.manifest import SlideRow, label_of, read_manifest
from he2her2.method import cut_tumour, infer, segment_slide
from he2her2.models import (
    CNNS,
    Bag,
    Card,
    Engine,
    load_aggregator,
    load_cnn,
    load_tensors,
    read_card,
    recoloured,
)
from he2her2.models.export import engine_of
from he2her2.preprocessing import ColourChange, normalisation_of
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.training.slides.batch_norms import fused_weights

HERE = Path(__file__).resolve().parent
SPEC = CNNS["strided-tile-cnn"]
SITES = {"her2sc": "her2sc-like (home)", "brca": "brca-like", "bcss": "stained as BCSS", "mixed": "stained as by many"}
FAR = ("brca", "bcss", "mixed")
N_UNLABELLED = 24
TILES_A_SLIDE = 32
ALPHAS = (0.5, 1.0)
SHARED = (
    *("training.augment.dihedral=true", "training.augment.brightness=0.1", "training.augment.contrast=0.2"),
    *("training.crop_px=128", "training.epochs=12", "training.learning_rate=1e-3"),
    *("training.tiles_per_class=300", "training.val_tiles_per_class=100"),
)
STRONG = (
    *("training.augment.stain=0.5", "training.augment.stain_vectors=0.1", "training.augment.lab=1"),
    *("training.augment.grey=0.1", "training.augment.blur=1", "training.augment.zoom=0.08"),
)
FROZEN = ("training.freeze_cnn=true", "selection.n_tiles=30")
SHORT = ("training.epochs=8", "training.learning_rate=2e-3")  # every tile is seen anew in each epoch


@dataclass(frozen=True)
class Network:
    """A tile CNN with its aggregator, as they are trained.

    Attributes:
        name: Of the network.
        normalisation: Of its training slides and of the slides that it sees.
        strong: The tile CNN learns under strong augmentation.
        aggregator_strong: So does the aggregator.
        moved: Batch norms are moved to the training slides' tumour before the aggregator learns.
        tiles: Network whose tile CNN it shares, or starts from where its batch norms are moved; its own if empty.
    """

    name: str
    normalisation: str = "none"
    strong: bool = False
    aggregator_strong: bool = False
    moved: bool = False
    tiles: str = ""

    @property
    def cnn(self) -> str:
        """Name of its tile CNN."""
        return self.name if self.moved or not self.tiles else self.tiles


NETWORKS = (
    Network("source"),
    Network("augmented", strong=True),
    Network("augmented-twice", strong=True, aggregator_strong=True, tiles="augmented"),
    Network("moved", moved=True, tiles="source"),
    Network("macenko", normalisation="macenko"),
    Network("reinhard", normalisation="reinhard"),
    Network("macenko-augmented", normalisation="macenko", strong=True),
)
MOVED = ("source", "augmented", "moved", "macenko-augmented")
"""Networks whose batch norms are moved to each site."""


def draw(work: Path) -> None:
    """Draw the missing cohorts."""
    for name, folder in {"train": "reduced", **dict.fromkeys(SITES, "ladder")}.items():
        out = work / "cohorts" / name
        if not (out / "manifest.csv").exists():
            run("phantom", out, "--config", HERE / folder / f"{name}.toml", "--threads", 1)


def normalise(work: Path, kind: str) -> None:
    """Write the training slides in normalised colours, beside a manifest of their own."""
    source, out = work / "cohorts" / "train", work / "cohorts" / f"train-{kind}"
    if (out / "manifest.csv").exists():
        return
    (out / "slides").mkdir(parents=True, exist_ok=True)
    rows = [row for row in read_manifest(source / "manifest.csv").rows if row.stain == "HE"]
    for row in rows:
        file = out / "slides" / row.path.name
        if file.exists():
            continue
        with open_slide(row.path) as slide:
            found = segment_slide(slide, SPEC.input, settings(), tumour_cnn=None)
            change = normalisation_of(found.thumbnail, found.usable, kind)  # type: ignore[arg-type]
            assert change is not None
            pixels = change(slide.read(Point(0, 0), Size(*slide.size_l0), slide.mpp))
            draft = file.with_suffix(".part.tif")
            how: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 90}}
            tifffile.imwrite(draft, pixels, tile=(256, 256), photometric="rgb", **how)
        draft.rename(file)
    columns = ("slide_id", "path", "patient_id", "stain", "ihc_score", "her2_status", "split", "mpp", "annotations")
    cells = (
        (row.slide_id, f"slides/{row.path.name}", row.patient_id, "HE", row.ihc_score, row.her2_status, row.split,
         row.mpp, row.annotations and row.annotations.absolute())
        for row in rows
    )  # fmt: skip
    write_csv(out / "manifest.csv", columns, cells)


def train(work: Path, network: Network, seed: int) -> None:
    """Train a network, as far as it is not trained yet."""
    cohort = "train" if network.normalisation == "none" else f"train-{network.normalisation}"
    manifest, nets = work / "cohorts" / cohort / "manifest.csv", work / "nets"
    shared = ("--manifest", manifest, "--accelerator", "cpu", "--threads", 1, "--resume")
    strong = STRONG if network.strong else ()
    tiles = nets / f"he-{network.tiles or network.name}-{seed}"
    if not (tiles / "report.md").exists():
        words = setting_words(*SHARED, *strong, f"training.seed={seed}")
        run("train", "tiles", "--stain", "HE", "--init", "bundled-ihc", *shared, *words, "--out", tiles)
    out = nets / f"{network.name}-{seed}"
    if not (out / "report.md").exists():
        varied = (*SHARED[:4], *STRONG, *SHORT) if network.aggregator_strong else ()
        moved = ("training.move_norms=true",) if network.moved else ()
        words = setting_words(*FROZEN, *varied, *moved, f"training.seed={seed}")
        use = ("--annotations-use", "replace", "--bags", work / f"bags-{cohort}", "--weights", tiles / "weights")
        run("train", "slides", *use, *shared, *words, "--out", out)


def setting_words(*settings: str) -> list[str]:
    """Options of settings."""
    return [word for setting in settings for word in ("--set", setting)]


def run(*words: object) -> None:
    """Run `he2her2`."""
    print("he2her2", *words, flush=True)
    subprocess.run([sys.executable, "-m", "he2her2", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def settings() -> Config:
    """Settings of the method."""
    return load_config(overrides=["selection.n_tiles=30", "runtime.threads=1"])


@dataclass(frozen=True)
class Scorer:
    """A tile CNN.

    Attributes:
        key: Its name, with "@alpha" where its batch norms were moved.
        engine: At work.
        normalisation: Of the slides that it sees.
    """

    key: str
    engine: Engine
    normalisation: str


class Together:
    """Several tile CNNs of one architecture as one engine, so that a tile is read once."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        card = engines[0].card
        classes = tuple(f"{k}: {name}" for k in range(len(engines)) for name in card.cnn.classes)
        self.card = replace(card, network=replace(card.cnn, classes=classes))

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Logits (n, 4 k) of tiles."""
        return np.concatenate([engine(pixels) for engine in self._engines], axis=1)

    def windows(self, picture: Rgb, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (n, 4 k) of the tiles of a picture."""
        return np.concatenate([engine.windows(picture, corners) for engine in self._engines], axis=1)


@dataclass(frozen=True)
class Site:
    """A site's slides and what is known of them: an NPZ a slide, with colours, tiles and their logits by tile CNN."""

    work: Path
    name: str

    @cached_property
    def rows(self) -> list[SlideRow]:
        """All its H&E slides."""
        return list(read_manifest(self.work / "cohorts" / self.name / "manifest.csv").select(stain="HE"))

    def of_split(self, split: str) -> list[SlideRow]:
        """Slides of a split."""
        return [row for row in self.rows if row.split == split]

    @property
    def unlabelled(self) -> list[SlideRow]:
        """Slides to adapt to; at home, where nothing has to be adapted, as many of the training."""
        return (self if self.name in FAR else Site(self.work, "train")).of_split("train")[:N_UNLABELLED]

    def read(self, row: SlideRow, seed: int) -> dict[str, NDArray[Any]]:
        """What is known of a slide."""
        file = self.file(row, seed)
        if not file.exists():
            return {}
        with np.load(file) as found:
            return dict(found)

    def file(self, row: SlideRow, seed: int) -> Path:
        """File of a slide."""
        return self.work / "scores" / str(seed) / self.name / f"{row.slide_id}.npz"


def scorers_of(work: Path, site: Site, seed: int) -> Iterator[Scorer]:
    """Tile CNNs: as trained, and with batch norms moved to the site."""
    for network in NETWORKS:
        weights = work / "nets" / f"{network.name}-{seed}" / "weights"
        if network.cnn != network.name:
            continue
        kind = network.normalisation
        yield Scorer(network.name, load_cnn(str(weights), "tile_cnn", settings(), "cpu"), kind)
        for alpha in ALPHAS if network.name in MOVED else ():
            yield Scorer(f"{network.name}@{alpha:g}", moved_engine(work, site, weights, kind, alpha, seed), kind)


def moved_engine(work: Path, site: Site, weights: Path, normalisation: str, alpha: float, seed: int) -> Engine:
    """A tile CNN whose batch norms are moved to the site's slides without labels; kept as NPZ."""
    card = read_card(weights / "tile_cnn", "tile_cnn")
    file = work / "moved" / str(seed) / site.name / f"{weights.parent.name}-{alpha:g}.npz"
    if not file.exists():
        tensors = load_tensors(weights / "tile_cnn", card)
        moved = fused_weights(SPEC, tensors, sampled_tiles(work, site, normalisation), alpha)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **moved)  # type: ignore[arg-type]
    with np.load(file) as found:
        return engine_of(Card(SPEC, trained=True, notice=""), dict(found))


def sampled_tiles(work: Path, site: Site, normalisation: str) -> list[Rgb]:
    """Some tiles of each of a site's slides to adapt to."""
    file = work / "moved" / f"{site.name}-{normalisation}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, *[sample(row, normalisation) for row in site.unlabelled])
    with np.load(file) as found:
        return [found[name] for name in found.files]


def sample(row: SlideRow, normalisation: str) -> Rgb:
    """Some tiles of a slide's tumour, evenly spread."""
    with open_slide(row.path) as slide:
        grid, changes, _ = tumour_of(slide, row)
        some = np.unique(np.linspace(0, len(grid) - 1, TILES_A_SLIDE).round().astype(np.int64))
        tiles = np.concatenate([*map_tiles(slide, grid.take(some), lambda batch: batch.pixels, threads=1)])
    change = changes[normalisation]
    return tiles if change is None else change(tiles)


def tumour_of(slide: Slide, row: SlideRow) -> tuple[TileGrid, dict[str, ColourChange | None], Rgb]:
    """Tiles of a slide's true tumour, its normalisations, and (n, 3) colours of the tumour's px."""
    annotation = SlideTask.of_row(row).read_annotation()
    found = segment_slide(slide, SPEC.input, settings(), tumour_cnn=None, annotation=annotation)
    grid = cut_tumour(slide, found, SPEC.input, settings().tiling, settings().selection).grid
    kinds = {network.normalisation for network in NETWORKS}
    changes = {kind: normalisation_of(found.thumbnail, found.usable, kind) for kind in kinds}  # type: ignore[arg-type]
    return grid, changes, found.thumbnail[found.tumour]


def score(work: Path, site: Site, seed: int) -> None:
    """Score the tiles of every slide of a site by every tile CNN that has not scored them yet."""
    scorers = list(scorers_of(work, site, seed))
    for row in site.rows:
        known = site.read(row, seed)
        todo = [one for one in scorers if one.key not in known]
        if not todo:
            continue
        with open_slide(row.path) as slide:
            grid, changes, colours = tumour_of(slide, row)
            known |= {"origins_l0": grid.origins_l0, "side_l0": np.array(grid.side_l0)} | colours_of(colours)
            for kind, change in changes.items():
                chosen = [one for one in todo if one.normalisation == kind]
                if chosen:
                    known |= logits_of(slide, grid, chosen, change)
        file = site.file(row, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as draft, draft.open("wb") as out:
            np.savez(out, **known)  # type: ignore[arg-type]


def logits_of(
    slide: Slide, grid: TileGrid, scorers: Sequence[Scorer], change: ColourChange | None
) -> dict[str, NDArray[np.float32]]:
    """Logits (n, 4) of a slide's tiles by tile CNNs that see it in the same colours."""
    together = recoloured(Together([one.engine for one in scorers]), change)
    readable, logits = infer(slide, grid, together, settings().runtime)
    assert len(readable) == len(grid), f"{slide.slide_id}: not all tiles can be decoded"
    parts = np.split(logits, len(scorers), axis=1)
    return {one.key: part for one, part in zip(scorers, parts, strict=True)}


@dataclass(frozen=True)
class Probabilities:
    """Probabilities of slides by networks whose tile CNNs have scored their tiles."""

    work: Path
    seed: int

    def __call__(self, site: Site, rows: Sequence[SlideRow], key: str) -> list[float] | None:
        """Probabilities by a network, with "@alpha" where its batch norms were moved; None where it has not scored."""
        name, at, alpha = key.partition("@")
        network = next(one for one in NETWORKS if one.name == name)
        cnn = f"{network.cnn}{at}{alpha}"
        known = [site.read(row, self.seed) for row in rows]
        folder = self.work / "nets" / f"{name}-{self.seed}" / "weights"
        if not folder.exists() or not all(cnn in one for one in known):
            return None
        aggregator = load_aggregator(str(folder), settings())
        side, mpp = SPEC.input.side_px, SPEC.input.mpp
        grids = [TileGrid(one["origins_l0"], float(one["side_l0"]), side, mpp) for one in known]
        return [aggregator(Bag.of(grid, one[cnn])).probability for grid, one in zip(grids, known, strict=True)]


def colours_of(colours: Rgb) -> dict[str, NDArray[np.float64]]:
    """Mean red of (n, 3) px, and roots of the shares of px in 64 cells of RGB."""
    cells = (colours // 64).astype(int) @ (16, 4, 1)
    shares = np.bincount(cells, minlength=64) / len(cells)
    return {"mean red": np.array([colours[:, 0].mean()]), "colour histogram": np.sqrt(shares)}


def colour_rivals(work: Path) -> dict[str, Any]:
    """Logistic regressions on mean red and on the colour histogram of the training slides' tumour."""
    site = Site(work, "train")
    seen = [of_training(site, row) for row in site.rows]
    truth = [is_positive(row) for row in site.rows]
    rivals = {}
    for name in ("mean red", "colour histogram"):
        rivals[name] = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        rivals[name].fit([one[name] for one in seen], truth)
    return rivals


def of_training(site: Site, row: SlideRow) -> dict[str, NDArray[Any]]:
    """Colours of a training slide's tumour; kept."""
    file = site.file(row, 0)
    if not file.exists():
        with open_slide(row.path) as slide:
            _, _, colours = tumour_of(slide, row)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **colours_of(colours))  # type: ignore[arg-type]
    return site.read(row, 0)


def is_positive(row: SlideRow) -> bool:
    """True status of a slide."""
    return label_of(row, "her2_status") == Her2Status.POSITIVE
