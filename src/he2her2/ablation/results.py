"""Results of the six methods on each test cohort: every figure with its interval, ours and the paper's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from he2her2.ablation.methods import METHODS, PROPOSED, Method
from he2her2.evaluation import PaperCohort, PaperColumn, PaperRow, paper_row
from he2her2.statistics import (
    BinaryCounts,
    Estimate,
    auc_interval,
    balanced_accuracy,
    counts_interval,
    decision_interval,
    exact_binomial,
    mcnemar,
    rate,
    rate_difference,
    weighted_f1,
    weighted_precision,
)

FIGURES = ("balanced accuracy", "plain accuracy", "F1", "precision", "recall", "AUC")
_OF_COUNTS = {"balanced accuracy": balanced_accuracy, "F1": weighted_f1, "precision": weighted_precision}


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class CohortResults:
    """Decisions of the six methods on one test cohort; all arrays are (n,).

    Attributes:
        name: Of the cohort.
        paper: The paper's cohort to compare with; None for none.
        patients: The slides' patients.
        truth: True for HER2-positive slides.
        decided: Each method's calls, true for positive.
        probability: Each method's probability of HER2-positive.
        n_failed: Labelled slides without a result.
    """

    name: str
    paper: PaperCohort | None
    patients: NDArray[np.str_]
    truth: NDArray[np.bool_]
    decided: Mapping[Method, NDArray[np.bool_]]
    probability: Mapping[Method, NDArray[np.float64]]
    n_failed: int

    @property
    def about(self) -> str:
        """Numbers of slides and patients of the cohort."""
        failed = f"; {self.n_failed} more failed and are not counted" if self.n_failed else ""
        n_patients = len(np.unique(self.patients))
        return f"{self.name}: {len(self.truth)} slides of {n_patients} patients, {self.truth.sum()} positive{failed}"

    def counts(self, method: Method) -> BinaryCounts:
        """Confusion matrix of a method."""
        return BinaryCounts.of(self.truth, self.decided[method])

    def estimates(self, method: Method) -> dict[str, Estimate]:
        """Figures of a method with their intervals, by patient."""
        decided = self.decided[method]
        right = rate(self.truth == decided, self.patients)
        return {
            "balanced accuracy": decision_interval(balanced_accuracy, self.truth, decided, self.patients),
            "plain accuracy": right,
            "F1": decision_interval(weighted_f1, self.truth, decided, self.patients),
            "precision": decision_interval(weighted_precision, self.truth, decided, self.patients),
            "recall": right,
            "AUC": auc_interval(self.truth, self.probability[method], self.patients),
        }


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One row of a table: figures of a method on a cohort, ours or the paper's.

    Attributes:
        cohort: The test cohort.
        method: The method.
        source: "ours" or "paper".
        counts: Confusion matrix.
        estimates: Figures by name; the paper has no AUC.
        printed: The paper's digits, by figure.
        note: Remark on the row.
    """

    cohort: str
    method: Method
    source: str
    counts: BinaryCounts
    estimates: Mapping[str, Estimate]
    printed: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class _MethodComparison:
    """Comparison of the proposed method with another on the same slides.

    Attributes:
        cohort: The test cohort.
        method: The other method.
        only_proposed: Slides that only the proposed method calls right.
        only_other: Slides that only the other calls right.
        exact: McNemar's exact two-sided p-value.
        mid_p: Its mid-P value.
        difference: Of plain accuracy, proposed less other.
    """

    cohort: str
    method: Method
    only_proposed: int
    only_other: int
    exact: float
    mid_p: float
    difference: Estimate


def _our_row(results: CohortResults, method: Method) -> MethodRow:
    """Row of our own figures of a method."""
    counts = results.counts(method)
    return MethodRow(results.name, method, "ours", counts, results.estimates(method), note=_constant_note(counts))


def _paper_row(cohort: PaperCohort, method: Method) -> MethodRow:
    """Row of the paper's Table 3 or 4, from its decoded confusion matrix."""
    row = paper_row(cohort, method.aggregation, pretrained=method.pretrained)
    counts = row.counts
    right = exact_binomial(counts.tp + counts.tn, row.n)
    estimates = {name: counts_interval(metric, counts) for name, metric in _OF_COUNTS.items()}
    estimates |= {"plain accuracy": right, "recall": right}
    return MethodRow(cohort, method, "paper", counts, estimates, _printed(row), _constant_note(counts))


def _printed(row: PaperRow) -> dict[str, str]:
    named: dict[str, PaperColumn] = {
        f"{row.accuracy_kind} accuracy": "accuracy",
        "F1": "f1",
        "precision": "precision",
        "recall": "recall",
    }
    return {name: row.printed[column] for name, column in named.items()}


def _constant_note(counts: BinaryCounts) -> str:
    """Note where a method gives every slide the same answer.

    Example:
        >>> _constant_note(BinaryCounts(tp=14, fp=36, tn=0, fn=0))
        'constant: calls all 50 slides positive'
    """
    if not (counts.constant and counts.n):
        return ""
    return f"constant: calls all {counts.n:.0f} slides {'positive' if counts.called_positive else 'negative'}"


def method_rows(results: CohortResults) -> list[MethodRow]:
    """Rows of one cohort: each method's, followed by the paper's where there is one."""
    rows = []
    for method in METHODS:
        rows.append(_our_row(results, method))
        if results.paper:
            rows.append(_paper_row(results.paper, method))
    return rows


def compare_methods(results: CohortResults) -> list[_MethodComparison]:
    """Compare the proposed method with each of the others on the same slides."""
    rights = {method: results.decided[method] == results.truth for method in METHODS}
    found = []
    for method in METHODS[1:]:
        test = mcnemar(rights[PROPOSED], rights[method], results.patients)
        difference = rate_difference(rights[PROPOSED], rights[method], results.patients)
        found.append(
            _MethodComparison(
                results.name, method, test.only_first, test.only_second, test.exact, test.mid_p, difference
            )
        )
    return found
