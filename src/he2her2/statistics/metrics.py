"""Figures of a classifier's decisions, as pure functions of counts or of confusion matrices.

What is undefined (0/0: no positives, nothing called positive) is nan, never a silent 0 or 1. The one exception are the
support-weighted means of the paper's tables, which follow scikit-learn's `zero_division=0`, as the paper did.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.statistics.outcomes import require_share


@dataclass(frozen=True, slots=True)
class BinaryCounts:
    """True and false positives and negatives; counts of cases, or sums of their weights.

    Each may also be an array of drawn sums above 0 (`resampling.draw_counts`); every figure is then an array, too.

    Attributes:
        tp: Positive cases called positive.
        fp: Negative cases called positive.
        tn: Negative cases called negative.
        fn: Positive cases called negative.
    """

    tp: float
    fp: float
    tn: float
    fn: float

    @classmethod
    def of(cls, truth: ArrayLike, decided: ArrayLike) -> "BinaryCounts":
        """Count cases.

        Args:
            truth: (n,) bool, True is positive.
            decided: (n,) bool, True is called positive.

        Raises:
            ValueError: They are not bool, not one-dimensional or not equally long.

        Example:
            >>> BinaryCounts.of([True, True, False], [True, False, False])
            BinaryCounts(tp=1, fp=0, tn=1, fn=1)
        """
        true, said = np.asarray(truth), np.asarray(decided)
        if true.ndim != 1 or true.shape != said.shape:
            raise ValueError(f"truth and decided must be equally long lists, got shapes {true.shape} and {said.shape}")
        if true.size and not true.dtype == said.dtype == np.bool_:
            raise ValueError(f"truth and decided must be bool, got {true.dtype} and {said.dtype}")
        hits = int(np.count_nonzero(true & said))
        positives, called = int(np.count_nonzero(true)), int(np.count_nonzero(said))
        return cls(hits, called - hits, len(true) - positives - called + hits, positives - hits)

    @property
    def positives(self) -> float:
        """Positive cases."""
        return self.tp + self.fn

    @property
    def negatives(self) -> float:
        """Negative cases."""
        return self.tn + self.fp

    @property
    def called_positive(self) -> float:
        """Cases called positive."""
        return self.tp + self.fp

    @property
    def called_negative(self) -> float:
        """Cases called negative."""
        return self.tn + self.fn

    @property
    def n(self) -> float:
        """All cases."""
        return self.positives + self.negatives

    @property
    def constant(self) -> bool:
        """True if every case was called the same."""
        return self.called_positive == 0 or self.called_negative == 0

    @property
    def swapped(self) -> "BinaryCounts":
        """The same decisions with the classes exchanged."""
        return BinaryCounts(tp=self.tn, fp=self.fn, tn=self.tp, fn=self.fp)

    def at_prevalence(self, prevalence: float) -> "BinaryCounts":
        """The same sensitivity and specificity at another prevalence.

        Args:
            prevalence: Share of positives, in [0, 1].

        Returns:
            Shares of all patients; nan where a class is absent here.

        Raises:
            ValueError: The prevalence is no share.

        Example:
            >>> round(ppv(BinaryCounts(tp=9, fp=2, tn=8, fn=1).at_prevalence(0.15)), 3)
            0.443
        """
        require_share(prevalence, "prevalence")
        found, right = prevalence * sensitivity(self), (1 - prevalence) * specificity(self)
        return BinaryCounts(tp=found, fp=1 - prevalence - right, tn=right, fn=prevalence - found)


def _ratio(part: float, whole: float) -> float:
    return part / whole if np.all(whole) else math.nan


def accuracy(counts: BinaryCounts) -> float:
    """Share of right decisions (plain accuracy); nan without cases."""
    return _ratio(counts.tp + counts.tn, counts.n)


def balanced_accuracy(counts: BinaryCounts) -> float:
    """Mean of sensitivity and specificity; nan when a class is absent (scikit-learn would average the other alone)."""
    return (sensitivity(counts) + specificity(counts)) / 2


def sensitivity(counts: BinaryCounts) -> float:
    """Share of positives called positive; nan without positives."""
    return _ratio(counts.tp, counts.positives)


def specificity(counts: BinaryCounts) -> float:
    """Share of negatives called negative; nan without negatives."""
    return _ratio(counts.tn, counts.negatives)


def ppv(counts: BinaryCounts) -> float:
    """Positive predictive value (precision); nan when no case is called positive."""
    return _ratio(counts.tp, counts.called_positive)


def npv(counts: BinaryCounts) -> float:
    """Negative predictive value; nan when no case is called negative."""
    return _ratio(counts.tn, counts.called_negative)


def called_negative(counts: BinaryCounts) -> float:
    """Share of cases called negative, who need no further test; nan without cases."""
    return _ratio(counts.called_negative, counts.n)


def positive_likelihood_ratio(counts: BinaryCounts) -> float:
    """Odds of being positive after a positive call over those before it; nan when no negative is called positive."""
    return _ratio(sensitivity(counts), 1 - specificity(counts))


def negative_likelihood_ratio(counts: BinaryCounts) -> float:
    """Odds of being positive after a negative call over those before it; nan when no negative is called negative.

    Example:
        >>> round(negative_likelihood_ratio(BinaryCounts(tp=9, fp=2, tn=8, fn=1)), 3)
        0.125
    """
    return _ratio(1 - sensitivity(counts), specificity(counts))


def f1(counts: BinaryCounts) -> float:
    """Harmonic mean of PPV and sensitivity, 2 TP / (2 TP + FP + FN); nan when nothing is positive nor called so."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def mcc(counts: BinaryCounts) -> float:
    """Matthews correlation coefficient in [-1, 1]; nan for a constant predictor or an absent class.

    Scikit-learn gives 0 there; undefined is not the same as no better than chance.
    """
    margins = [counts.positives, counts.negatives, counts.called_positive, counts.called_negative]
    root = math.prod(margin**0.5 for margin in margins)
    return _ratio(counts.tp * counts.tn - counts.fp * counts.fn, root)


def _weighted(counts: BinaryCounts, of_positive: float, of_negative: float) -> float:
    """Mean of a figure over both classes, weighted by support; a class where it is 0/0 counts as 0."""
    terms = ((counts.positives, of_positive), (counts.negatives, of_negative))
    return _ratio(sum(support * (0.0 if np.all(np.isnan(value)) else value) for support, value in terms), counts.n)


def weighted_precision(counts: BinaryCounts) -> float:
    """Support-weighted mean of both classes' precision, the paper's "precision".

    A class that is never called has precision 0 (scikit-learn's `zero_division=0`).
    """
    return _weighted(counts, ppv(counts), npv(counts))


def weighted_recall(counts: BinaryCounts) -> float:
    """Support-weighted mean of both classes' recall, the paper's "recall"; it always equals plain accuracy."""
    return _weighted(counts, sensitivity(counts), specificity(counts))


def weighted_f1(counts: BinaryCounts) -> float:
    """Support-weighted mean of both classes' F1, the paper's "F1-score"; a class that is never called has F1 0."""
    return _weighted(counts, f1(counts), f1(counts.swapped))


def confusion_matrix(truth: ArrayLike, decided: ArrayLike, k: int) -> NDArray[np.int64]:
    """Count truth against decision for k classes.

    Args:
        truth: (n,) classes in 0 .. k - 1.
        decided: (n,) classes in 0 .. k - 1.
        k: Number of classes.

    Returns:
        (k, k); row = truth, column = decision (the paper's Table 1 is its transpose).

    Raises:
        ValueError: A class is no whole number in 0 .. k - 1, or the lists differ in length.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0], 2).tolist()
        [[1, 0], [1, 1]]
    """
    return np.bincount(confusion_cells(truth, decided, k), minlength=k * k).reshape(k, k)


def confusion_cells(truth: ArrayLike, decided: ArrayLike, k: int) -> NDArray[np.int64]:
    """(n,) cell of each case in the flattened (k, k) confusion matrix; arguments and errors are those of the matrix."""
    rows, columns = np.asarray(truth, dtype=float), np.asarray(decided, dtype=float)
    if rows.ndim != 1 or rows.shape != columns.shape:
        raise ValueError(f"truth and decided must be equally long lists, got shapes {rows.shape} and {columns.shape}")
    for classes in (rows, columns):
        if not np.isin(classes, np.arange(k)).all():
            raise ValueError(f"classes must be whole numbers in 0 .. {k - 1}")
    cells: NDArray[np.int64] = (rows * k + columns).astype(np.int64)
    return cells


def quadratic_kappa(matrix: NDArray[np.integer | np.floating]) -> float:
    """Cohen's kappa with quadratic weights, for ordered classes such as the four IHC scores.

    Args:
        matrix: (k, k) counts or weights, row = truth, column = decision.

    Returns:
        1 is full agreement, 0 that expected by chance; nan without cases, or in a single cell of the diagonal.
    """
    return float(quadratic_kappas(matrix[None])[0])


def quadratic_kappas(matrices: NDArray[np.integer | np.floating]) -> NDArray[np.float64]:
    """(b,) quadratic kappas of (b, k, k) confusion matrices."""
    k = matrices.shape[-1]
    distance = (np.arange(k)[:, None] - np.arange(k)[None, :]) ** 2.0  # (k, k)
    rows, columns = matrices.sum(axis=2), matrices.sum(axis=1)
    chance = np.einsum("bi,ij,bj->b", rows, distance, columns)
    seen = (distance * matrices).sum(axis=(1, 2)) * matrices.sum(axis=(1, 2))
    kappas = np.full(len(matrices), np.nan)
    np.divide(chance - seen, chance, out=kappas, where=chance > 0)
    return kappas
