"""The figures of one group of cases: the paper's and the field's, each with its interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.cases import UNKNOWN_SCORE, Cases
from he2her2.labels import IhcScore
from he2her2.statistics import metrics as m
from he2her2.statistics.intervals import (
    Estimate,
    auc_interval,
    average_precision_interval,
    decision_interval,
    kappa_interval,
    rate,
)

Family: TypeAlias = Literal["paper", "field"]

OF_COUNTS: Mapping[str, tuple[Family, Callable[[m.BinaryCounts], float]]] = {
    "balanced accuracy": ("paper", m.balanced_accuracy),
    "support-weighted F1": ("paper", m.weighted_f1),
    "support-weighted precision": ("paper", m.weighted_precision),
    "F1 of the positive class": ("field", m.f1),
    "Matthews correlation": ("field", m.mcc),
}
N_SCORES = len(IhcScore)
CLINIC_PREVALENCE = 0.15
"""About 15 % of invasive breast cancers are HER2-positive (Wolff et al., J Clin Oncol 2018;36:2105-2122)."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, and whose it is: the paper's tables name it, or the field does."""

    family: Family
    estimate: Estimate


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class Summary:
    """All figures of a group of cases.

    Attributes:
        title: Which cases, such as "patients".
        n: How many.
        n_patients: Of how many patients.
        counts: Truth against decision.
        threshold: The probability from which a case is called positive.
        figures: By name, in the order of reading.
        score_matrix: (4, 4) IHC score against predicted score, row = truth; None where no score was predicted, or
            all cases have the same one.
    """

    title: str
    n: int
    n_patients: int
    counts: m.BinaryCounts
    threshold: float
    figures: Mapping[str, Figure]
    score_matrix: NDArray[np.int64] | None

    @property
    def n_positive(self) -> int:
        """HER2-positive cases."""
        return round(self.counts.positives)

    def __getitem__(self, name: str) -> Estimate:
        return self.figures[name].estimate


def summarise(cases: Cases, title: str, prevalence: float | None = None) -> Summary:
    """Every figure of the cases; what is undefined (a class is absent) is nan with an interval that says so.

    Args:
        cases: What to measure.
        title: What to call them.
        prevalence: Share of positives in the clinic, at which predictive values are computed once more; None does not,
            as for a subgroup in which another share is positive.
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
        for name, (family, metric) in OF_COUNTS.items()
    ]
    found += [
        Figure("field", decision_interval(metric, truth, decided, patients, name=name))
        for name, metric in (at_prevalence(prevalence) if prevalence else {}).items()
    ]
    matrix = None
    scored = (cases.true_score != UNKNOWN_SCORE) & (cases.predicted_score != UNKNOWN_SCORE)
    if len(np.unique(cases.true_score[scored])) > 1:
        pair = cases.true_score[scored], cases.predicted_score[scored]
        matrix = m.confusion_matrix(*pair, N_SCORES)
        found.append(Figure("field", kappa_interval(*pair, N_SCORES, patients[scored])))
    return Summary(
        title,
        len(cases),
        len(np.unique(patients)),
        m.BinaryCounts.of(truth, decided),
        cases.threshold,
        {figure.estimate.name: figure for figure in found},
        matrix,
    )


def at_prevalence(prevalence: float) -> dict[str, Callable[[m.BinaryCounts], float]]:
    """What follows from sensitivity and specificity where another share of patients is positive (Bayes' theorem).

    Example:
        >>> counts = m.BinaryCounts(tp=9, fp=2, tn=8, fn=1)
        >>> [round(figure(counts), 3) for figure in at_prevalence(0.15).values()]
        [0.443, 0.978, 0.695]
    """
    where = f"if {100 * prevalence:g} % are positive"
    figures = {"PPV": m.ppv, "NPV": m.npv, "share called negative": m.called_negative}
    return {f"{name} {where}": partial(_elsewhere, figure, prevalence) for name, figure in figures.items()}


def _elsewhere(figure: Callable[[m.BinaryCounts], float], prevalence: float, counts: m.BinaryCounts) -> float:
    return figure(counts.at_prevalence(prevalence))


def equivocal(cases: Cases) -> Cases:
    """The cases with IHC 2+, whom the guideline sends to in situ hybridisation: where help is needed most."""
    return cases.take(cases.true_score == list(IhcScore).index(IhcScore.TWO))
