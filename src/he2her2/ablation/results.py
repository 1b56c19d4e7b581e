"""What the six methods came to on each test cohort: every figure with its interval, ours and the paper's."""

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
class Results:
    """What the six methods said of one test cohort; all arrays are (n,).

    Attributes:
        name: Of the cohort.
        paper: The paper's cohort that stands beside it; None for none.
        patients: The slides' patients.
        truth: Whether they are HER2-positive.
        decided: Whether each method called them positive.
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
        """The cohort in half a line."""
        failed = f"; {self.n_failed} more failed and are not counted" if self.n_failed else ""
        n_patients = len(np.unique(self.patients))
        return f"{self.name}: {len(self.truth)} slides of {n_patients} patients, {self.truth.sum()} positive{failed}"

    def counts(self, method: Method) -> BinaryCounts:
        """Truth against what a method said."""
        return BinaryCounts.of(self.truth, self.decided[method])

    def estimates(self, method: Method) -> dict[str, Estimate]:
        """Every figure of a method with its interval, by patient."""
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
class Line:
    """One row of a table: a method's figures on a cohort, ours or the paper's.

    Attributes:
        cohort: Where.
        method: Which.
        source: "ours" or "paper".
        counts: Truth against decision.
        estimates: Figures by name; the paper has no AUC.
        printed: What the paper printed, by figure.
        note: What a reader must be told.
    """

    cohort: str
    method: Method
    source: str
    counts: BinaryCounts
    estimates: Mapping[str, Estimate]
    printed: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The proposed method against another on the same slides.

    Attributes:
        cohort: Where.
        method: The other.
        only_proposed: Slides that only the proposed method has right.
        only_other: Slides that only the other has right.
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


def our_line(results: Results, method: Method) -> Line:
    """A method's row of our own."""
    counts = results.counts(method)
    return Line(results.name, method, "ours", counts, results.estimates(method), note=constant_note(counts))


def paper_line(cohort: PaperCohort, method: Method) -> Line:
    """A method's row of the paper's Table 3 or 4, from its decoded confusion matrix."""
    row = paper_row(cohort, method.aggregation, pretrained=method.pretrained)
    counts = row.counts
    right = exact_binomial(counts.tp + counts.tn, row.n)
    estimates = {name: counts_interval(metric, counts) for name, metric in _OF_COUNTS.items()}
    estimates |= {"plain accuracy": right, "recall": right}
    return Line(cohort, method, "paper", counts, estimates, _printed(row), constant_note(counts))


def _printed(row: PaperRow) -> dict[str, str]:
    named: dict[str, PaperColumn] = {
        f"{row.accuracy_kind} accuracy": "accuracy",
        "F1": "f1",
        "precision": "precision",
        "recall": "recall",
    }
    return {name: row.printed[column] for name, column in named.items()}


def constant_note(counts: BinaryCounts) -> str:
    """Says when a method gives every slide the same answer.

    Example:
        >>> constant_note(BinaryCounts(tp=14, fp=36, tn=0, fn=0))
        'constant: calls all 50 slides positive'
    """
    if not (counts.constant and counts.n):
        return ""
    return f"constant: calls all {counts.n:.0f} slides {'positive' if counts.called_positive else 'negative'}"


def lines_of(results: Results) -> list[Line]:
    """All rows of one cohort: each method's, with the paper's below where there is one."""
    lines = []
    for method in METHODS:
        lines.append(our_line(results, method))
        if results.paper:
            lines.append(paper_line(results.paper, method))
    return lines


def compare(results: Results) -> list[Comparison]:
    """The proposed method against each of the others on the same slides."""
    rights = {method: results.decided[method] == results.truth for method in METHODS}
    found = []
    for method in METHODS[1:]:
        test = mcnemar(rights[PROPOSED], rights[method], results.patients)
        difference = rate_difference(rights[PROPOSED], rights[method], results.patients)
        found.append(
            Comparison(results.name, method, test.only_first, test.only_second, test.exact, test.mid_p, difference)
        )
    return found
