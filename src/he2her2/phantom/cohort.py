"""Cohort of phantom patients: labels, slides and manifest."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Ge, Le
from pydantic import PositiveInt, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from he2her2.csv_files import write_csv
from he2her2.errors import PhantomError
from he2her2.files import read_toml, sweep_drafts
from he2her2.labels import IhcScore
from he2her2.manifest import MANIFEST_COLUMNS, Stain
from he2her2.phantom.processes import drawing_processes
from he2her2.phantom.random_fields import key_of
from he2her2.phantom.slide import write_phantom
from he2her2.phantom.spec import STRICT, PhantomSpec, Share, SiteName, make_spec, validated
from he2her2.phantom.truth import PhantomTruth, save_truth

_SPLITS = ("train", "val", "test")
_DRAWN = {
    "seed": "seed (--seed)",
    "stain": "stains (--stain)",
    "site": "sites (--site)",
    "ihc_score": "scores, such as scores = [0, 0, 0, 1] for 3+ alone, in the file of --config",
    "ish": "ish_positive in the file of --config",
}  # settings of a slide that differ from patient to patient, and those of the cohort that they are drawn from


@dataclass(frozen=True, config=STRICT)
class CohortSpec:
    """Settings of a phantom cohort.

    Attributes:
        n: Number of patients.
        seed: Seed of labels, splits and patients.
        stains: Stains of each patient; one slide each.
        sites: Laboratories, assigned to patients in turn.
        scores: Relative frequency of the IHC scores 0, 1+, 2+ and 3+.
        ish_positive: Share of the 2+ patients with a positive in situ hybridisation.
        splits: Relative sizes of train, val and test.
        slide: Settings of every slide, by the names of `PhantomSpec`, except those drawn for each patient.
    """

    n: PositiveInt = 4
    seed: Annotated[int, Ge(0), Le(2**31)] = 0
    stains: tuple[Stain, ...] = ("HE",)
    sites: tuple[SiteName, ...] = ("her2sc-like",)
    scores: tuple[Share, Share, Share, Share] = (0.25, 0.25, 0.25, 0.25)
    ish_positive: Share = 0.5
    splits: tuple[Share, Share, Share] = (0.6, 0.2, 0.2)
    slide: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("stains", "sites", "scores", "splits"):
            values = getattr(self, name)
            if not any(values):
                raise ValueError(f"{name} has nothing to choose from")
        if len(set(self.stains)) < len(self.stains):
            raise ValueError("stains names a stain twice")
        if drawn := _DRAWN.keys() & self.slide.keys():
            name = min(drawn)
            raise ValueError(f"slide.{name} is drawn for each patient; set the cohort's {_DRAWN[name]}")
        return self


@plain_dataclass(frozen=True, slots=True)
class PhantomSlide:
    """One slide of a patient: a row of the manifest."""

    slide_id: str
    patient_id: str
    split: str
    spec: PhantomSpec


def load_cohort(file: Path | None = None, **settings: Any) -> CohortSpec:  # noqa: ANN401  (values from the command line)
    """Load a cohort's settings from a TOML file; `settings` that are not None override the file.

    Raises:
        PhantomError: One line that names every wrong setting.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = read_toml(file)
        except OSError as error:
            raise PhantomError(f"{file}: cannot be read ({error.strerror}); give a TOML file") from None
        except ValueError as error:
            raise PhantomError(f"{file}: is not TOML: {error}") from None
    merged = values | {name: value for name, value in settings.items() if name != "slide" and value is not None}
    if isinstance(of_file := values.get("slide", {}), dict):  # otherwise validation names the fault
        merged["slide"] = of_file | settings.get("slide", {})
    cohort: CohortSpec = validated(TypeAdapter(CohortSpec), merged, file)
    make_spec(**cohort.slide)  # raises before any slide is drawn
    return cohort


def _plan_slides(cohort: CohortSpec) -> tuple[PhantomSlide, ...]:
    """Draw labels, splits and tissue seeds, independently of each other; scores and splits in fixed shares.

    Raises:
        PhantomError: A setting of `slide` is wrong.
    """
    rng = np.random.default_rng(key_of(cohort.seed, "cohort"))
    scores = rng.permutation(_indices_in_shares(cohort.n, cohort.scores))
    splits = rng.permutation(_indices_in_shares(cohort.n, cohort.splits))
    amplified = rng.permutation(
        _indices_in_shares(int((scores == 2).sum()), (1 - cohort.ish_positive, cohort.ish_positive))
    )
    ish = iter(np.array(("negative", "positive"))[amplified])
    slides = []
    for k in range(cohort.n):
        score = list(IhcScore)[int(scores[k])]
        base = make_spec(
            **cohort.slide,
            seed=key_of(cohort.seed, "patient", k) >> 1,
            ihc_score=score,
            ish=str(next(ish)) if score == IhcScore.TWO else None,
            site=cohort.sites[k % len(cohort.sites)],
        )
        patient = f"phantom-{cohort.seed}-{k:04d}"
        slides += [
            PhantomSlide(f"{patient}-{stain}", patient, _SPLITS[int(splits[k])], replace(base, stain=stain))
            for stain in cohort.stains
        ]
    return tuple(slides)


def write_cohort(
    out: Path,
    cohort: CohortSpec,
    *,
    workers: int = 1,
    truth: bool = True,
    on_slide: Callable[[PhantomSlide, PhantomTruth], None] = lambda _slide, _truth: None,
) -> Path:
    """Write a cohort: `slides/`, `truth/` and, last, `manifest.csv`.

    Args:
        out: Folder to write; created if missing.
        cohort: Settings; the same settings give the same bytes.
        workers: Processes that draw at the same time, each a slide, or blocks where there are fewer slides; does not
            change the bytes. A script that uses more than one needs the usual `if __name__ == "__main__":`.
        truth: Write each slide's truth, too.
        on_slide: Called after each slide.

    Returns:
        Path of the manifest.

    Raises:
        PhantomError: The settings leave no room for tissue or tumour, or the folder holds another cohort.
        OutputError: The folder cannot be written.
        ValueError: `workers` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    slides = _plan_slides(cohort)
    manifest = out / "manifest.csv"
    if manifest.exists():
        raise PhantomError(f"{manifest}: exists; choose another folder or remove it")
    with closing(_draw_slides(out, slides, workers, truth=truth)) as drawn:
        for slide, found in zip(slides, drawn, strict=True):
            on_slide(slide, found)
    write_csv(manifest, MANIFEST_COLUMNS, _manifest_rows(slides, truth=truth))
    return manifest


def _draw_slides(
    out: Path, slides: tuple[PhantomSlide, ...], workers: int, *, truth: bool
) -> Generator[PhantomTruth, None, None]:
    """Write all slides and yield their truths, in order."""
    draw = partial(_draw_slide, out, truth=truth)
    if len(slides) < workers or workers == 1:
        yield from (draw(slide, workers=workers) for slide in slides)
        return
    try:
        with drawing_processes(workers) as pool:  # started once, not once a slide
            yield from pool.map(draw, slides)
    finally:
        for folder in ("slides", "truth"):
            sweep_drafts(out / folder)  # of processes that were ended in mid-slide


def _draw_slide(out: Path, slide: PhantomSlide, *, truth: bool, workers: int = 1) -> PhantomTruth:
    """Write a slide, and its truth where wanted."""
    drawn = write_phantom(out / "slides" / f"{slide.slide_id}.tif", slide.spec, workers=workers)
    if truth:
        save_truth(drawn, out / "truth" / slide.slide_id)
    return drawn


def _manifest_rows(slides: tuple[PhantomSlide, ...], *, truth: bool) -> Iterator[dict[str, object]]:
    for slide in slides:
        yield {
            "slide_id": slide.slide_id,
            "path": f"slides/{slide.slide_id}.tif",
            "patient_id": slide.patient_id,
            "stain": slide.spec.stain,
            "ihc_score": slide.spec.ihc_score.value,
            "ish": slide.spec.ish or "",
            "her2_status": slide.spec.her2_status.value,
            "site": slide.spec.site,
            "split": slide.split,
            "mpp": slide.spec.mpp,
            "annotations": f"truth/{slide.slide_id}/tumour.png" if truth else "",
        }


def _indices_in_shares(n: int, shares: tuple[float, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Repeat each index of `shares` in proportion to its share: `n` sorted indices."""
    edges = np.cumsum(shares) / max(sum(shares), 1e-9)
    return np.searchsorted(edges, (np.arange(n) + 0.5) / max(n, 1), side="right").clip(max=len(shares) - 1)
