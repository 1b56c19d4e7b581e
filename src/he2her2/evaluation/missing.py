"""Patients without outcome or prediction, and the figures over everything that these could be."""

from collections.abc import Sequence
from dataclasses import dataclass

from he2her2.evaluation.cases import ExcludedSlide, ExclusionReason, Joined, call_of_slides
from he2her2.labels import Her2Status
from he2her2.manifest import patient_key
from he2her2.results import RunFolder
from he2her2.rules import combine
from he2her2.statistics import BinaryCounts, Bounds, Unpredicted, auc_bounds, rate_bounds

_WITHOUT_OUTCOME = (ExclusionReason.UNLABELLED, ExclusionReason.UNDETERMINED)
_CONCERNED = (*_WITHOUT_OUTCOME, ExclusionReason.FAILED, ExclusionReason.MISSING, ExclusionReason.CONFLICT)


@dataclass(frozen=True, slots=True)
class MissingData:
    """Patients of whom outcome or prediction is missing, and bounds of the figures over all that these could be.

    Attributes:
        n: All patients who should have been evaluated.
        without_outcome: Those with a prediction but without a known HER2 status: without label, undetermined, or with
            slides of different labels.
        without_prediction: Those with a known status but without a prediction.
        without_both: Those with neither.
        sensitivity: From the worst to the best case.
        specificity: Likewise.
        auc: Likewise.
    """

    n: int
    without_outcome: int
    without_prediction: int
    without_both: int
    sensitivity: Bounds
    specificity: Bounds
    auc: Bounds

    @property
    def n_missing(self) -> int:
        """Patients who are not evaluated."""
        return self.without_outcome + self.without_prediction + self.without_both


def missing_data(run: RunFolder, joined: Joined) -> MissingData:
    """Count the patients who should have been evaluated and were not, and bound the figures."""
    evaluated = {patient_key(name) for name in joined.patients.ids.tolist()}
    slides: dict[str, list[ExcludedSlide]] = {}
    for slide in joined.exclusions:
        if slide.reason in _CONCERNED and patient_key(slide.patient_id) not in evaluated:
            slides.setdefault(patient_key(slide.patient_id), []).append(slide)
    scores: list[float] = []
    called = 0
    lost = {Her2Status.POSITIVE: 0, Her2Status.NEGATIVE: 0, None: 0}
    for of_patient in slides.values():
        predicted = [run.predictions[s.slide_id] for s in of_patient if s.slide_id in run.predictions]
        if not predicted:
            lost[_outcome(of_patient)] += 1
            continue
        scores.append(combine(joined.rule, [slide.probability for slide in predicted]))
        calls = [slide.status is Her2Status.POSITIVE for slide in predicted]
        called += call_of_slides(calls, scores[-1], joined.patients.threshold)
    unpredicted = Unpredicted(lost[Her2Status.POSITIVE], lost[Her2Status.NEGATIVE], lost[None])
    patients = joined.patients
    counts = BinaryCounts.of(patients.truth, patients.decided)
    rates = rate_bounds(counts, called, len(scores) - called, unpredicted)
    return MissingData(
        len(patients) + len(slides),
        len(scores),
        unpredicted.positive + unpredicted.negative,
        unpredicted.unknown,
        *rates,
        auc_bounds(patients.truth, patients.probability, scores, unpredicted),
    )


def _outcome(slides: Sequence[ExcludedSlide]) -> Her2Status | None:
    """The HER2 status that a patient's slides agree on; None where they do not, or none has one."""
    known = {slide.truth for slide in slides if slide.truth in (Her2Status.POSITIVE, Her2Status.NEGATIVE)}
    return known.pop() if len(known) == 1 else None
