"""Cases of an evaluation: predictions joined with labels by slide, and by patient; every other slide has a reason."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import PureWindowsPath
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import EvaluationError
from he2her2.evaluation.score_scale import PROBABILITIES, ScoreScale
from he2her2.evaluation.slide_properties import SEVERAL, shared
from he2her2.labels import Her2Status, IhcScore, Policy
from he2her2.manifest import (
    Manifest,
    SlideRow,
    Split,
    Stain,
    named_as,
    names_of_patients,
    near_misses,
    pairs_in_words,
)
from he2her2.results import RunFolder
from he2her2.rules import PatientRule, are_called, combine, is_called

CaseLevel: TypeAlias = Literal["slide", "patient"]

UNKNOWN_SCORE = -1


class ExclusionReason(StrEnum):
    """Reason for leaving out a slide of the manifest or of the run; the first that applies."""

    OTHER_STAIN = "another stain"
    OTHER_SPLIT = "another split"
    UNLABELLED = "no label"
    UNDETERMINED = "label undetermined (equivocal without in situ hybridisation)"
    FAILED = "failed in the run"
    MISSING = "not in the run"
    NOT_IN_MANIFEST = "in the run, not in the manifest"
    CONFLICT = "its patient's slides have different labels"


@dataclass(frozen=True, slots=True)
class ExcludedSlide:
    """A slide that is not evaluated.

    Attributes:
        slide_id: The slide.
        patient_id: Its patient; empty where the manifest does not know it.
        reason: The first that applies.
        detail: More, such as the run's own reason for a failure.
        truth: Its label where there is one.
    """

    slide_id: str
    patient_id: str
    reason: ExclusionReason
    detail: str = ""
    truth: Her2Status | None = None


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Cases:
    """Labelled and predicted slides, or their patients; all arrays are (n,).

    Attributes:
        level: Slide or patient.
        ids: Name of the slide or patient.
        patients: Its patient.
        sites: Its site; empty where unknown, `SEVERAL` where a patient's slides differ.
        truth: True if HER2-positive.
        probability: Of HER2-positive.
        decided: True if called positive.
        true_score: IHC score 0 to 3; -1 where unknown.
        predicted_score: Predicted IHC score 0 to 3; -1 where the run has none.
        threshold: The probability from which a case is called positive.
        scale: Of the scores that the probabilities are made of; for the reader they are what they were.
    """

    level: CaseLevel
    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    sites: NDArray[np.str_]
    truth: NDArray[np.bool_]
    probability: NDArray[np.float64]
    decided: NDArray[np.bool_]
    true_score: NDArray[np.int64]
    predicted_score: NDArray[np.int64]
    threshold: float
    scale: ScoreScale = PROBABILITIES

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_positive(self) -> int:
        """Number of HER2-positive cases."""
        return int(np.count_nonzero(self.truth))

    def take(self, index: NDArray[Any]) -> "Cases":
        """The cases at `index` (positions or a bool mask), in its order."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: of[index] for name, of in values.items() if isinstance(of, np.ndarray)})

    def decided_at(self, threshold: float) -> "Cases":
        """The same cases, called positive from another probability."""
        return replace(self, decided=are_called(self.probability, threshold), threshold=threshold)


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A run joined with its labels.

    Attributes:
        slides: Evaluated slides, in the manifest's order.
        patients: Evaluated patients, in the order of their first slide.
        n_rows: Rows of the manifest.
        exclusions: Every other slide, with its reason.
        lost_patients: Labelled patients of the evaluated split of whom no slide was predicted.
        rule: A patient's probability from those of the slides.
        near_names: Slides and patients that manifest and run name almost alike, as both do; none is evaluated.
        other_files: Evaluated slides with the name of their file in the manifest and in the run, where these differ.
    """

    slides: Cases
    patients: Cases
    n_rows: int
    exclusions: tuple[ExcludedSlide, ...]
    lost_patients: tuple[str, ...]
    rule: PatientRule
    near_names: tuple[tuple[str, str], ...] = ()
    other_files: tuple[tuple[str, str, str], ...] = ()

    def count(self, reason: ExclusionReason) -> int:
        """Number of slides left out for a reason."""
        return sum(exclusion.reason is reason for exclusion in self.exclusions)

    @property
    def left_out(self) -> str:
        """Slides that are left out, counted by their reason; empty where there are none."""
        return _reasons(self.exclusions)

    @property
    def slides_per_patient(self) -> tuple[int, int]:
        """Fewest and most slides of an evaluated patient; (1, 1) without patients."""
        _, counts = np.unique(
            self.slides.patients[np.isin(self.slides.patients, self.patients.ids)], return_counts=True
        )
        return (int(counts.min()), int(counts.max())) if len(counts) else (1, 1)

    @property
    def unpredicted(self) -> tuple[ExcludedSlide, ...]:
        """Labelled slides that the run should have predicted and did not."""
        return tuple(e for e in self.exclusions if e.reason in (ExclusionReason.FAILED, ExclusionReason.MISSING))

    @property
    def flow(self) -> tuple[tuple[str, int], ...]:
        """Flow of slides: the manifest's rows, those left out by reason (negative), those evaluated; it adds up."""
        steps = [r for r in ExclusionReason if r not in (ExclusionReason.NOT_IN_MANIFEST, ExclusionReason.CONFLICT)]
        taken = [(str(reason), -self.count(reason)) for reason in steps]
        return (("slides in the manifest", self.n_rows), *taken, ("slides evaluated", len(self.slides)))


def join(
    run: RunFolder,
    manifest: Manifest,
    *,
    split: Split | None = None,
    stain: Stain = "HE",
    policy: Policy = Policy.GUIDELINE,
    rule: PatientRule = "mean",
    scale: ScoreScale = PROBABILITIES,
) -> Joined:
    """Join predictions with labels by slide; every slide that is left out is listed with its reason.

    Args:
        run: A predict run.
        manifest: The labels.
        split: Only slides of this split; None takes all.
        stain: Only slides of this stain, or of none stated.
        policy: For an equivocal 2+ without in situ hybridisation.
        rule: A patient's probability from those of the slides.
        scale: Of the scores that the run's probabilities are made of.

    Raises:
        EvaluationError: The manifest names a slide twice, or not one slide can be evaluated.
    """
    _raise_if_named_twice(manifest)
    manifest = named_as_in_run(manifest, run)
    names = names_of_patients(manifest.rows)
    kept: list[tuple[SlideRow, Her2Status]] = []
    out: list[ExcludedSlide] = []
    for row in (replace(row, patient_id=names[row.patient]) for row in manifest.rows):
        status = row.status(policy)
        reason = _reason(row, status, run, split, stain)
        if reason is None:
            assert status is not None
            kept.append((row, status))
        else:
            out.append(ExcludedSlide(row.slide_id, row.patient_id, reason, _detail(run, row.slide_id, reason), status))
    known = {row.slide_id for row in manifest.rows}
    out += [ExcludedSlide(s, "", ExclusionReason.NOT_IN_MANIFEST) for s in run.predictions if s not in known]
    if not kept:
        near = near_names_in_words(_near_names(manifest.rows, out))
        first = {e.reason: e.slide_id for e in reversed(out)}
        if not near and {ExclusionReason.MISSING, ExclusionReason.NOT_IN_MANIFEST} <= first.keys():
            near = f"such as {first[ExclusionReason.MISSING]!r} and {first[ExclusionReason.NOT_IN_MANIFEST]!r}"
        reasons = (_reasons(out) or "the manifest is empty") + (f"; {near}" if near else "")
        raise EvaluationError(f"{run.path}: none of its slides can be evaluated with {manifest.path} ({reasons})")
    slides = _slides(run, kept, scale)
    patients, in_conflict = by_patient(slides, rule)
    seen = set(slides.patients.tolist())
    lost = dict.fromkeys(e.patient_id for e in out if e.reason in (ExclusionReason.FAILED, ExclusionReason.MISSING))
    return Joined(
        slides,
        patients,
        n_rows=len(manifest.rows),
        exclusions=(*out, *_conflicts(slides, in_conflict)),
        lost_patients=tuple(p for p in lost if p not in seen),
        rule=rule,
        near_names=_near_names(manifest.rows, out),
        other_files=tuple(_other_files(run, (row for row, _ in kept))),
    )


def _conflicts(slides: Cases, patients: frozenset[str]) -> Iterator[ExcludedSlide]:
    """The slides of patients whose slides have different labels."""
    for slide_id, patient in zip(slides.ids.tolist(), slides.patients.tolist(), strict=True):
        if patient in patients:
            detail = "kept among slides, left out among patients"
            yield ExcludedSlide(slide_id, patient, ExclusionReason.CONFLICT, detail)


def named_as_in_run(manifest: Manifest, run: RunFolder) -> Manifest:
    """Give slides that differ from the run's in the ending of a slide file only the run's names; see `named_as`."""
    return named_as(manifest, run.predictions.keys() | run.failures.keys())


def _raise_if_named_twice(manifest: Manifest) -> None:
    counts = Counter(row.slide_id for row in manifest.rows)
    if twice := [slide_id for slide_id, n in counts.items() if n > 1]:
        raise EvaluationError(f"{manifest.path}: names slide {', '.join(twice)} more than once; keep one row of each")


def _reason(
    row: SlideRow, status: Her2Status | None, run: RunFolder, split: Split | None, stain: str
) -> ExclusionReason | None:
    if row.stain not in (None, stain):
        return ExclusionReason.OTHER_STAIN
    if split is not None and row.split != split:
        return ExclusionReason.OTHER_SPLIT
    if status is None:
        return ExclusionReason.UNLABELLED
    if status is Her2Status.UNDETERMINED:
        return ExclusionReason.UNDETERMINED
    if row.slide_id in run.predictions:
        return None
    return ExclusionReason.FAILED if row.slide_id in run.failures else ExclusionReason.MISSING


def _detail(run: RunFolder, slide_id: str, reason: ExclusionReason) -> str:
    if reason is not ExclusionReason.FAILED:
        return ""
    failure = run.failures[slide_id]
    return f"{failure.stage}: {failure.reason}"


def _near_names(rows: Sequence[SlideRow], exclusions: Sequence[ExcludedSlide]) -> tuple[tuple[str, str], ...]:
    """Pairs of a name that the run lacks and one that the manifest lacks, if written almost alike.

    The run's may be that of a slide, of its file or of its patient.
    """
    missing = {e.slide_id for e in exclusions if e.reason is ExclusionReason.MISSING}
    unknown = [e.slide_id for e in exclusions if e.reason is ExclusionReason.NOT_IN_MANIFEST]
    named = near_misses(missing, unknown)
    files = {row.path.name: row.slide_id for row in rows if row.slide_id in missing - dict(named).keys()}
    filed = [(files[file], other) for file, other in near_misses(files, unknown)]
    left = [name for name in unknown if name not in {other for _, other in (*named, *filed)}]
    patients = dict.fromkeys(row.patient_id for row in rows if row.slide_id in missing)
    return tuple(sorted((*named, *filed, *near_misses(patients, left))))


def near_names_in_words(pairs: Sequence[tuple[str, str]]) -> str:
    """Name slides and patients that manifest and run write almost alike; empty where there are none."""
    if not pairs:
        return ""
    return (
        f"{len(pairs)} names are written almost alike in manifest and run ({pairs_in_words(pairs)}): if they are the "
        "same, give them the run's names in the manifest"
    )


def _other_files(run: RunFolder, rows: Iterable[SlideRow]) -> Iterator[tuple[str, str, str]]:
    """Slides whose file has another name in the manifest than in the run: a label may be that of another slide."""
    for row in rows:
        named, predicted = row.path.name, PureWindowsPath(run.predictions[row.slide_id].path).name
        if predicted and named.casefold() != predicted.casefold():
            yield row.slide_id, named, predicted


def _reasons(exclusions: Iterable[ExcludedSlide]) -> str:
    counts = Counter(exclusion.reason for exclusion in exclusions)
    return ", ".join(f"{reason} ({n})" for reason, n in counts.items())


def _slides(run: RunFolder, kept: Sequence[tuple[SlideRow, Her2Status]], scale: ScoreScale) -> Cases:
    rows = [row for row, _ in kept]
    predictions = [run.predictions[row.slide_id] for row in rows]
    scores = list(IhcScore)
    true_score = [UNKNOWN_SCORE if row.ihc_score is None else scores.index(row.ihc_score) for row in rows]
    predicted = [prediction.tile_score for prediction in predictions]
    ids = np.array([row.slide_id for row in rows])
    return Cases(
        level="slide",
        ids=ids,
        patients=np.array([row.patient_id for row in rows]),
        sites=np.array([row.site or "" for row in rows]),
        truth=np.array([status is Her2Status.POSITIVE for _, status in kept]),
        probability=run.probabilities(ids),
        decided=np.array([prediction.status is Her2Status.POSITIVE for prediction in predictions]),
        true_score=np.array(true_score),
        predicted_score=np.array([UNKNOWN_SCORE if score is None else scores.index(score) for score in predicted]),
        threshold=run.threshold,
        scale=scale,
    )


def call_of_slides(calls: Collection[bool], probability: float, threshold: float) -> bool:
    """True if a patient is called positive: as all slides are, or else by the patient's probability.

    Mean and maximum lie on the side of a threshold where all slides lie; a table's decisions may be by no threshold.
    """
    return next(iter(calls)) if len(set(calls)) == 1 else is_called(probability, threshold)


def by_patient(slides: Cases, rule: PatientRule) -> tuple[Cases, frozenset[str]]:
    """Join slides to patients; those whose slides have different labels are left out and named.

    Site and IHC score are those that all of a patient's slides have which have one; a predicted score is the greatest
    of the slides'.

    Args:
        slides: Evaluated slides.
        rule: A patient's probability from those of the slides.

    Returns:
        Patients in the order of their first slide, and the names of those left out.
    """
    names, first, group = np.unique(slides.patients, return_index=True, return_inverse=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    conflict = np.array([len(set(slides.truth[m].tolist())) > 1 for m in members])
    order = [int(k) for k in np.argsort(first, kind="stable") if not conflict[k]]
    index = [members[k] for k in order]
    probability = np.array([combine(rule, slides.probability[m]) for m in index], np.float64)
    patients = replace(
        slides,
        level="patient",
        ids=names[order],
        patients=names[order],
        sites=np.array([shared(slides.sites[m].tolist(), "", SEVERAL) for m in index], np.str_),
        truth=np.array([slides.truth[m[0]] for m in index], np.bool_),
        probability=probability,
        decided=np.array(
            [
                call_of_slides(slides.decided[m].tolist(), p, slides.threshold)
                for m, p in zip(index, probability.tolist(), strict=True)
            ],
            np.bool_,
        ),
        true_score=np.array(
            [shared(slides.true_score[m].tolist(), UNKNOWN_SCORE, UNKNOWN_SCORE) for m in index], np.int64
        ),
        predicted_score=np.array([slides.predicted_score[m].max() for m in index], np.int64),
    )
    return patients, frozenset(names[conflict].tolist())
