"""Figures of a group of cases with their intervals: the paper's, the field's, and the reliability of probabilities."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.cases import UNKNOWN_SCORE, Cases
from he2her2.labels import IhcScore
from he2her2.rules import Calibration
from he2her2.statistics import (
    BinaryCounts,
    CalibrationLine,
    Estimate,
    ExactTests,
    PartialAuc,
    RateAt,
    ReliabilityBin,
    auc_interval,
    average_precision_interval,
    balanced_accuracy,
    brier_interval,
    calibration_error_interval,
    calibration_line,
    called_negative,
    confusion_matrix,
    decision_interval,
    exact_tests,
    f1,
    kappa_interval,
    mcc,
    negative_likelihood_ratio,
    npv,
    parts_of_roc,
    positive_likelihood_ratio,
    ppv,
    rate,
    reliability_curve,
    weighted_f1,
    weighted_precision,
)

Family: TypeAlias = Literal["paper", "field"]

_OF_COUNTS: Mapping[str, tuple[Family, Callable[[BinaryCounts], float]]] = {
    "balanced accuracy": ("paper", balanced_accuracy),
    "support-weighted F1": ("paper", weighted_f1),
    "support-weighted precision": ("paper", weighted_precision),
    "positive likelihood ratio": ("field", positive_likelihood_ratio),
    "negative likelihood ratio": ("field", negative_likelihood_ratio),
    "F1 of the positive class": ("field", f1),
    "Matthews correlation": ("field", mcc),
}
_PARTS_OF_ROC = (
    *(RateAt("sensitivity", 0.9), RateAt("sensitivity", 0.95), PartialAuc("sensitivity", 0.9)),  # of a test to rule out
    *(RateAt("specificity", 0.9), RateAt("specificity", 0.95), PartialAuc("specificity", 0.9)),  # to rule in
)
_N_SCORES = len(IhcScore)
CLINIC_PREVALENCE = 0.15
"""About 15 % of invasive breast cancers are HER2-positive (Wolff et al., J Clin Oncol 2018;36:2105-2122)."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, reported in the paper's tables or in the field in general."""

    family: Family
    estimate: Estimate


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class Summary:
    """All figures of a group of cases.

    Attributes:
        title: Name of the cases, such as "patients".
        n: Number of cases.
        n_patients: Number of their patients.
        counts: Truth against decision.
        threshold: Positive from this on, on the scale of the scores.
        figures: By name, in the order of reading.
        score_matrix: (4, 4) IHC score against predicted score, row = truth; None where no score was predicted, or
            all cases have the same one.
        exact: Exact tests of chance; None where cases are many or a class is absent, or for slides of fewer patients.
    """

    title: str
    n: int
    n_patients: int
    counts: BinaryCounts
    threshold: float
    figures: Mapping[str, Figure]
    score_matrix: NDArray[np.int64] | None
    exact: ExactTests | None = None

    @property
    def n_positive(self) -> int:
        """HER2-positive cases."""
        return round(self.counts.positives)

    def __getitem__(self, name: str) -> Estimate:
        return self.figures[name].estimate

    def text(self, name: str) -> str:
        """A figure with its interval and, where it rests on fewer cases than the group has, its n; "-" without it."""
        if name not in self.figures or not self.n:
            return "-"
        estimate = self[name]
        return estimate.text() + ("" if estimate.n == self.n else f", n = {estimate.n}")


def summarise(cases: Cases, title: str, prevalence: float | None = None) -> Summary:
    """Every figure of the cases; one that is undefined (a class is absent) is nan in the widest interval.

    Args:
        cases: The cases.
        title: Their name.
        prevalence: Share of positives in the clinic, at which predictive values are computed once more; None omits
            them, and parts of the ROC, as for a subgroup.
    """
    truth, decided, patients = cases.truth, cases.decided, cases.patients
    right = truth == decided
    found = [
        Figure("field", auc_interval(truth, cases.probability, patients)),
        Figure("field", average_precision_interval(truth, cases.probability, patients)),
        Figure("field", rate(decided[truth], patients[truth], name="sensitivity")),
        Figure("field", rate(~decided[~truth], patients[~truth], name="specificity")),
        Figure("field", rate(truth[decided], patients[decided], name="PPV")),
        Figure("field", rate(~truth[~decided], patients[~decided], name="NPV")),
        Figure("paper", rate(right, patients, name="plain accuracy (= support-weighted recall)")),
    ]
    found += [
        Figure(family, decision_interval(metric, truth, decided, patients, name=name))
        for name, (family, metric) in _OF_COUNTS.items()
    ]
    if prevalence:
        found += [
            Figure("field", decision_interval(metric, truth, decided, patients, name=name))
            for name, metric in _figures_at_prevalence(prevalence).items()
        ]
        found += [Figure("field", part) for part in parts_of_roc(truth, cases.probability, _PARTS_OF_ROC, patients)]
    matrix = None
    scored = (cases.true_score != UNKNOWN_SCORE) & (cases.predicted_score != UNKNOWN_SCORE)
    if len(np.unique(cases.true_score[scored])) > 1:
        pair = cases.true_score[scored], cases.predicted_score[scored]
        matrix = confusion_matrix(*pair, _N_SCORES)
        found.append(Figure("field", kappa_interval(*pair, _N_SCORES, patients[scored])))
    return Summary(
        title,
        len(cases),
        len(np.unique(patients)),
        BinaryCounts.of(truth, decided),
        cases.scale.score(cases.threshold),
        {figure.estimate.name: figure for figure in found},
        matrix,
        exact_tests(truth, cases.probability, decided) if len(np.unique(patients)) == len(cases) else None,
    )


def _figures_at_prevalence(prevalence: float) -> dict[str, Callable[[BinaryCounts], float]]:
    """Figures at another prevalence, by name, from sensitivity and specificity (Bayes' theorem).

    Example:
        >>> counts = BinaryCounts(tp=9, fp=2, tn=8, fn=1)
        >>> [round(figure(counts), 3) for figure in _figures_at_prevalence(0.15).values()]
        [0.443, 0.978, 0.695]
    """
    where = f"if {100 * prevalence:g} % are positive"
    figures = {"PPV": ppv, "NPV": npv, "share called negative": called_negative}
    return {f"{name} {where}": partial(_moved_to, figure, prevalence) for name, figure in figures.items()}


def _moved_to(figure: Callable[[BinaryCounts], float], prevalence: float, counts: BinaryCounts) -> float:
    return figure(counts.at_prevalence(prevalence))


def equivocal(cases: Cases) -> Cases:
    """The cases with IHC 2+, which the guideline refers to in situ hybridisation."""
    return cases.take(cases.true_score == list(IhcScore).index(IhcScore.TWO))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Reliability of probabilities.

    Attributes:
        brier: Brier score.
        error: Calibration error, less the part expected by chance.
        bins: Share of positives over the probability.
        line: Intercept, slope, observed over expected, and the smooth curve.
    """

    brier: Estimate
    error: Estimate
    bins: tuple[ReliabilityBin, ...]
    line: CalibrationLine


def reliability(cases: Cases, calibration: Calibration | None = None) -> Reliability:
    """Reliability of the patients' probabilities, corrected if a calibration is given."""
    p = cases.probability if calibration is None else calibration(cases.probability)
    return Reliability(
        brier_interval(cases.truth, p, cases.patients),
        calibration_error_interval(cases.truth, p, cases.patients),
        reliability_curve(cases.truth, p, cases.patients),
        calibration_line(cases.truth, p),
    )
