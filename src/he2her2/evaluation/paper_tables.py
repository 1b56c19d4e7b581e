"""Tables 1-4 of the paper, decoded: the confusion matrix behind every row, and the figures as printed.

The column "accuracy" changes its meaning from row to row: balanced accuracy in some, plain accuracy in others. F1,
precision and recall are support-weighted means over both classes. Two digits are misprints (`PaperRow.misprints`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.statistics import (
    BinaryCounts,
    Estimate,
    accuracy,
    balanced_accuracy,
    counts_interval,
    exact_binomial,
    weighted_f1,
    weighted_precision,
    weighted_recall,
)

AccuracyKind: TypeAlias = Literal["balanced", "plain"]
PaperColumn: TypeAlias = Literal["accuracy", "f1", "precision", "recall"]
PaperCohort: TypeAlias = Literal["HER2SC", "BRCA"]
PaperAggregation: TypeAlias = Literal["mlp", "median", "mean"]


TABLE_1: NDArray[np.int64] = np.array([[490, 132, 2, 0], [176, 384, 64, 0], [45, 159, 419, 1], [0, 0, 1, 623]])
"""(4, 4) IHC scores of tiles, row = truth, column = decision (the paper prints the transpose)."""

TABLE_1_ACCURACY = "76.8"


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One row of Table 2, 3 or 4.

    Attributes:
        table: Its number.
        cohort: The test set.
        aggregation: From tiles to a slide.
        pretrained: True if the tile CNN started from the IHC weights.
        counts: The confusion matrix of its slides.
        accuracy_kind: Meaning of its column "accuracy".
        printed: Its digits in per cent, as printed, by column.
        misprints: Correct digits of a misprinted column, by column.
    """

    table: Literal[2, 3, 4]
    cohort: PaperCohort
    aggregation: PaperAggregation
    pretrained: bool
    counts: BinaryCounts
    accuracy_kind: AccuracyKind
    printed: Mapping[PaperColumn, str]
    misprints: Mapping[PaperColumn, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Slides of the test set."""
        return int(self.counts.n)

    @property
    def proposed(self) -> bool:
        """True for the paper's own method."""
        return self.pretrained and self.aggregation == "mlp"

    def value(self, column: PaperColumn) -> float:
        """Figure of a column from the confusion matrix, as a share."""
        return _figure(self.accuracy_kind, column)(self.counts)

    def text(self, column: PaperColumn) -> str:
        """Figure of a column from the confusion matrix, in per cent with as many digits as the paper prints."""
        _, _, decimals = self.printed[column].partition(".")
        digit = Decimal(1).scaleb(-len(decimals))
        return str(Decimal(f"{100 * self.value(column):.9f}").quantize(digit, ROUND_HALF_UP))

    def estimate(self, column: PaperColumn) -> Estimate:
        """A column with its interval; a patient is taken to have one slide."""
        figure, name = _figure(self.accuracy_kind, column), self.column_name(column)
        if figure in (accuracy, weighted_recall):
            return exact_binomial(int(self.counts.tp + self.counts.tn), self.n, name=name)
        return counts_interval(figure, self.counts, name=name)

    def column_name(self, column: PaperColumn) -> str:
        """True name of a column, such as "balanced accuracy"."""
        return f"{self.accuracy_kind if column == 'accuracy' else 'weighted'} {column.replace('f1', 'F1')}"


def _figure(kind: AccuracyKind, column: PaperColumn) -> Callable[[BinaryCounts], float]:
    accuracies = {"balanced": balanced_accuracy, "plain": accuracy}
    return {
        "accuracy": accuracies[kind],
        "f1": weighted_f1,
        "precision": weighted_precision,
        "recall": weighted_recall,
    }[column]


def _printed(accuracy: str, f1: str, precision: str, recall: str) -> dict[PaperColumn, str]:
    return {"accuracy": accuracy, "f1": f1, "precision": precision, "recall": recall}


_HER2SC_PROPOSED = BinaryCounts(tp=5, fp=1, tn=2, fn=0)
_HER2SC_UNTRAINED = BinaryCounts(tp=5, fp=3, tn=0, fn=0)
_HER2SC_BASELINE = BinaryCounts(tp=1, fp=0, tn=3, fn=4)
_BRCA_PROPOSED = BinaryCounts(tp=14, fp=37, tn=3, fn=0)
_BRCA_UNTRAINED_MLP = BinaryCounts(tp=0, fp=0, tn=36, fn=14)
_BRCA_BASELINE = BinaryCounts(tp=14, fp=36, tn=0, fn=0)
_BRCA_UNTRAINED = BinaryCounts(tp=1, fp=1, tn=35, fn=13)

_HER2SC_BEST = _printed("83.3", "86.7", "89.6", "87.5")
_HER2SC_HIGH = _printed("62.5", "48.1", "39.1", "62.5")
_HER2SC_LOW = _printed("50.0", "43.3", "78.6", "50.0")
_BRCA_LOW = _printed("50.0", "12.3", "7.8", "28.0")
_BRCA_HIGH = _printed("52.2", "63.5", "66.5", "72.0")
_F1: dict[PaperColumn, str] = {"f1": "86.8"}
_ACCURACY: dict[PaperColumn, str] = {"accuracy": "53.8"}

PAPER_ROWS: tuple[PaperRow, ...] = (
    PaperRow(2, "HER2SC", "mlp", True, _HER2SC_PROPOSED, "balanced", _HER2SC_BEST, _F1),
    PaperRow(2, "BRCA", "mlp", True, _BRCA_PROPOSED, "balanced", _printed("53.8", "21.5", "81.2", "31.5")),
    PaperRow(3, "HER2SC", "mlp", True, _HER2SC_PROPOSED, "balanced", _HER2SC_BEST, _F1),
    PaperRow(3, "HER2SC", "mlp", False, _HER2SC_UNTRAINED, "plain", _HER2SC_HIGH),
    PaperRow(3, "HER2SC", "median", False, _HER2SC_UNTRAINED, "plain", _HER2SC_HIGH),
    PaperRow(3, "HER2SC", "median", True, _HER2SC_BASELINE, "plain", _HER2SC_LOW),
    PaperRow(3, "HER2SC", "mean", False, _HER2SC_UNTRAINED, "plain", _HER2SC_HIGH),
    PaperRow(3, "HER2SC", "mean", True, _HER2SC_BASELINE, "plain", _HER2SC_LOW),
    PaperRow(4, "BRCA", "mlp", True, _BRCA_PROPOSED, "balanced", _printed("53.3", "21.5", "81.2", "31.5"), _ACCURACY),
    PaperRow(4, "BRCA", "mlp", False, _BRCA_UNTRAINED_MLP, "balanced", _printed("50.0", "60.3", "51.8", "72")),
    PaperRow(4, "BRCA", "median", False, _BRCA_UNTRAINED, "balanced", _BRCA_HIGH),
    PaperRow(4, "BRCA", "median", True, _BRCA_BASELINE, "balanced", _BRCA_LOW),
    PaperRow(4, "BRCA", "mean", False, _BRCA_UNTRAINED, "balanced", _BRCA_HIGH),
    PaperRow(4, "BRCA", "mean", True, _BRCA_BASELINE, "balanced", _BRCA_LOW),
)
"""Every row of Tables 2, 3 and 4, in print order."""


def paper_row(cohort: PaperCohort, aggregation: PaperAggregation, *, pretrained: bool) -> PaperRow:
    """The row of Table 3 (HER2SC) or 4 (BRCA) for a method.

    Example:
        >>> paper_row("BRCA", "mlp", pretrained=True).text("accuracy")
        '53.8'
    """
    wanted = (3 if cohort == "HER2SC" else 4, aggregation, pretrained)
    return next(row for row in PAPER_ROWS if (row.table, row.aggregation, row.pretrained) == wanted)
