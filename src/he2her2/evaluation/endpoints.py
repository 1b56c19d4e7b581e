"""Endpoints beside HER2-positive: HER2-low and ultralow, and the model's calls at each IHC score.

The model is made for HER2-positive; what its score says of the other endpoints is measured, not promised. Strata after
DESTINY-Breast04 and DESTINY-Breast06, see `labels.guideline`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.cases import UNKNOWN_SCORE, Cases
from he2her2.labels import Her2Status, IhcScore, Policy, Stratum, stratum_of
from he2her2.manifest import YES_OR_NO, Manifest, SlideRow, bare_name
from he2her2.statistics import Estimate, auc_interval, rate

_ZERO = frozenset({Stratum.NULL, Stratum.ULTRALOW, Stratum.ZERO_OR_ULTRALOW})
_ENDPOINTS: tuple[tuple[str, frozenset[Stratum], frozenset[Stratum]], ...] = (
    ("HER2-low or positive, against IHC 0", frozenset({Stratum.LOW, Stratum.POSITIVE}), _ZERO),
    ("HER2-low, against IHC 0", frozenset({Stratum.LOW}), _ZERO),
    (
        "HER2-ultralow, low or positive, against no staining",
        frozenset({Stratum.ULTRALOW, Stratum.LOW, Stratum.POSITIVE}),
        frozenset({Stratum.NULL}),
    ),
    ("HER2-ultralow, against no staining", frozenset({Stratum.ULTRALOW}), frozenset({Stratum.NULL})),
)
_FAINT_COLUMNS = frozenset({"faintstaining", "faint", "faintstain", "ultralow"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The ranking of one endpoint.

    Attributes:
        name: In words.
        n: Patients of both sides.
        n_positive: Patients who have it.
        by_probability: AUC of the probability of HER2-positive.
        by_score: AUC of the predicted IHC score; None where the run has none.
    """

    name: str
    n: int
    n_positive: int
    by_probability: Estimate
    by_score: Estimate | None


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The model at one IHC score.

    Attributes:
        name: IHC score, 2+ with its status.
        n: Patients.
        called: Share called positive.
        probability: Median probability, or score on its own scale.
        recall: Share of those with a predicted IHC score for whom it is this one; None without any, or where the row is
            one of 2+.
    """

    name: str
    n: int
    called: Estimate
    probability: float
    recall: Estimate | None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The model at endpoints beside HER2-positive.

    Attributes:
        endpoints: Those of which both sides have patients.
        scores: Each IHC score that patients have.
        macro_recall: Mean of the recalls; None where the run predicts no score.
        strata: Number of patients in each stratum.
    """

    endpoints: tuple[Endpoint, ...]
    scores: tuple[ScoreRow, ...]
    macro_recall: float | None
    strata: Mapping[Stratum, int]


def strata_of(manifest: Manifest, policy: Policy) -> dict[str, Stratum]:
    """Stratum of each slide, by IHC score, status by the policy, and faint staining where a column states it."""
    status = {row.slide_id: row.status(policy) or Her2Status.UNDETERMINED for row in manifest.rows}
    return {
        row.slide_id: stratum_of(row.ihc_score, status[row.slide_id], faint_staining=_faint(row))
        for row in manifest.rows
    }


def _faint(row: SlideRow) -> bool | None:
    """True where an IHC 0 is stated to have faint staining: in a column of its own, or as a stratum of `labels`."""
    for heading, text in row.extra.items():
        name, cell = bare_name(heading), text.strip().lower()
        if name in _FAINT_COLUMNS and cell in YES_OR_NO:
            return YES_OR_NO[cell]
        if name == "stratum" and cell in (Stratum.ULTRALOW, Stratum.NULL):
            return cell == Stratum.ULTRALOW
    return None


def measure_endpoints(patients: Cases, slides: Cases, strata: Mapping[str, Stratum]) -> Endpoints:
    """Measure the endpoints that the labels allow.

    Args:
        patients: Evaluated patients.
        slides: Their slides.
        strata: Of each slide; a patient whose slides differ has none.
    """
    of_patient: dict[str, set[Stratum]] = {}
    for slide_id, patient in zip(slides.ids.tolist(), slides.patients.tolist(), strict=True):
        of_patient.setdefault(patient, set()).add(strata[slide_id])
    sets = [of_patient[name] for name in patients.ids.tolist()]
    found = np.array([min(one) if len(one) == 1 else Stratum.UNDETERMINED for one in sets], object)
    rows = tuple(_score_rows(patients))
    recalls = [row.recall.value for row in rows if row.recall is not None]
    return Endpoints(
        tuple(_endpoints(patients, found)),
        rows,
        float(np.mean(recalls)) if recalls else None,
        {stratum: int((found == stratum).sum()) for stratum in Stratum if (found == stratum).any()},
    )


def _endpoints(patients: Cases, strata: NDArray[np.object_]) -> Iterator[Endpoint]:
    for name, having, lacking in _ENDPOINTS:
        has, lacks = (np.array([s in side for s in strata.tolist()], bool) for side in (having, lacking))
        if not has.any() or not lacks.any():
            continue
        inside = has | lacks
        predicted = patients.predicted_score[inside]
        by_score = None
        if (predicted != UNKNOWN_SCORE).all():
            by_score = auc_interval(has[inside], predicted.astype(float), patients.patients[inside])
        yield Endpoint(
            name,
            int(inside.sum()),
            int(has.sum()),
            auc_interval(has[inside], patients.probability[inside], patients.patients[inside]),
            by_score,
        )


def _score_rows(patients: Cases) -> Iterator[ScoreRow]:
    is_predicted = patients.predicted_score != UNKNOWN_SCORE
    for k, score in enumerate(IhcScore):
        here = patients.true_score == k
        if here.any():
            recall, judged = None, here & is_predicted
            if judged.any():
                hits = patients.predicted_score[judged] == k
                recall = rate(hits, patients.patients[judged], name=f"recall of {score}")
            yield _row(f"IHC {score}", patients, here, recall)
        if score is IhcScore.TWO and here.any():
            for kind, status in ((False, "negative"), (True, "positive")):
                if (here & (patients.truth == kind)).any():
                    yield _row(f"IHC 2+, HER2-{status}", patients, here & (patients.truth == kind), None)


def _row(name: str, patients: Cases, here: NDArray[np.bool_], recall: Estimate | None) -> ScoreRow:
    middle = float(np.median(patients.probability[here]))
    called = rate(patients.decided[here], patients.patients[here], name=f"called positive, {name}")
    return ScoreRow(name, int(here.sum()), called, patients.scale.score(middle), recall)
