"""The figures of a classifier, as pure functions of counts or of arrays.

What is undefined (0/0: no positives, nothing called positive) is nan, never a silent 0 or 1. The one exception are the
support-weighted means of the paper's tables, which follow scikit-learn's `zero_division=0`, as the paper did.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class BinaryCounts:
    """The four cells of truth against decision; counts of cases, or sums of their weights.

    Every figure of them may also be asked for of arrays, of sums above 0 that were drawn (`resampling.draw_counts`).

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
            decided: (n,) bool, what the classifier said.

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
        """Whether every case was given the same answer."""
        return self.called_positive == 0 or self.called_negative == 0

    @property
    def swapped(self) -> "BinaryCounts":
        """The same decisions with the negative class in the place of the positive one."""
        return BinaryCounts(tp=self.tn, fp=self.fn, tn=self.tp, fn=self.fp)

    def at_prevalence(self, prevalence: float) -> "BinaryCounts":
        """The same sensitivity and specificity among patients of whom another share is positive.

        Args:
            prevalence: Share of positives, in [0, 1].

        Returns:
            Shares of all patients; nan where a class is absent here.

        Example:
            >>> round(ppv(BinaryCounts(tp=9, fp=2, tn=8, fn=1).at_prevalence(0.15)), 3)
            0.443
        """
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
    """Share of those called positive that are (precision); nan when none is called so."""
    return _ratio(counts.tp, counts.called_positive)


def npv(counts: BinaryCounts) -> float:
    """Share of those called negative that are; nan when none is called so."""
    return _ratio(counts.tn, counts.called_negative)


def called_negative(counts: BinaryCounts) -> float:
    """Share of cases called negative, who need no further test; nan without cases."""
    return _ratio(counts.called_negative, counts.n)


def f1(counts: BinaryCounts) -> float:
    """Harmonic mean of PPV and sensitivity, 2 TP / (2 TP + FP + FN); nan when nothing is positive nor called so."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def mcc(counts: BinaryCounts) -> float:
    """Matthews correlation coefficient in [-1, 1]; nan for a constant predictor or an absent class.

    Scikit-learn gives 0 there; we keep "undefined" apart from "no better than chance".
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
    rows, columns = np.asarray(truth, dtype=float), np.asarray(decided, dtype=float)
    if rows.ndim != 1 or rows.shape != columns.shape:
        raise ValueError(f"truth and decided must be equally long lists, got shapes {rows.shape} and {columns.shape}")
    for classes in (rows, columns):
        if not np.isin(classes, np.arange(k)).all():
            raise ValueError(f"classes must be whole numbers in 0 .. {k - 1}")
    cells = (rows * k + columns).astype(np.int64)
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def accuracy_of(matrix: NDArray[np.integer | np.floating]) -> float:
    """Share of right decisions in a (k, k) confusion matrix; nan without cases."""
    return _ratio(float(np.trace(matrix)), float(matrix.sum()))


def quadratic_kappa(matrix: NDArray[np.integer | np.floating]) -> float:
    """Cohen's kappa with quadratic weights, for ordered classes such as the four IHC scores.

    Args:
        matrix: (k, k) counts or weights, row = truth, column = decision.

    Returns:
        1 is agreement, 0 is chance; nan without cases, or when all lie in one and the same class twice.
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


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Ranking:
    """Cases ordered by score once, so that many weightings of them are cheap.

    Attributes:
        order: (n,) indices of the cases, from the lowest score to the highest.
        truth: (n,) bool, in that order.
        last: (g,) position of the last case of every group of equal scores, ascending.
    """

    order: NDArray[np.intp]
    truth: NDArray[np.bool_]
    last: NDArray[np.intp]

    @classmethod
    def of(cls, truth: ArrayLike, scores: ArrayLike) -> "Ranking":
        """Rank cases.

        Args:
            truth: (n,) bool.
            scores: (n,) higher means more likely positive.

        Raises:
            ValueError: Truth is not bool, lengths differ, or a score is nan.
        """
        true, score = np.asarray(truth), np.asarray(scores, dtype=np.float64)
        if true.ndim != 1 or true.shape != score.shape:
            raise ValueError(f"truth and scores must be equally long lists, got shapes {true.shape} and {score.shape}")
        if true.size and true.dtype != np.bool_:
            raise ValueError(f"truth must be bool, got {true.dtype}")
        if np.isnan(score).any():
            raise ValueError("a score is nan")
        order = np.argsort(score, kind="stable")
        ranked = score[order]
        last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(min(1, len(ranked)), bool)))
        return cls(order, true[order].astype(np.bool_), last)

    def masses(self, weights: NDArray[np.float64] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight of the positives and of the negatives in every group of equal scores, ascending.

        Args:
            weights: (..., n) of the cases; None weighs each 1.

        Returns:
            (..., g) and (..., g).
        """
        ranked = np.ones(len(self.order)) if weights is None else weights[..., self.order]
        groups = (
            np.diff(np.cumsum(w, axis=-1)[..., self.last], prepend=0.0)
            for w in (ranked * self.truth, ranked * ~self.truth)
        )
        positive, negative = groups
        return positive, negative


def auc_of(ranking: Ranking, weights: NDArray[np.float64] | None = None) -> float:
    """Area under the ROC curve of ranked cases, each with a weight; nan when a class has none."""
    positive, negative = ranking.masses(weights)
    below = np.cumsum(negative) - negative / 2  # a tie counts half
    return _ratio(float(positive @ below), float(positive.sum() * negative.sum()))


def auc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive case scores above a negative one, ties counting half.

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.

    Returns:
        In [0, 1]; nan when a class is absent.

    Example:
        >>> auc([True, False, False], [0.5, 0.5, 0.1])
        0.75
    """
    return auc_of(Ranking.of(truth, scores))


def average_precision_of(ranking: Ranking, weights: NDArray[np.float64] | None = None) -> float:
    """Average precision of ranked cases, each with a weight; nan without positives."""
    return float(average_precisions(ranking, (np.ones(len(ranking.order)) if weights is None else weights)[None])[0])


def average_precisions(ranking: Ranking, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b,) average precisions of ranked cases under (b, n) weightings."""
    ranked = weights[:, ranking.order[::-1]]  # from the highest score down
    starts = np.append(0, ranking.last + 1)[: len(ranking.last)]  # of the groups of equal scores, from the lowest up
    ends = len(ranking.order) - 1 - starts[::-1]
    hits = np.cumsum(ranked * ranking.truth[::-1], axis=1)[:, ends]
    called = np.cumsum(ranked, axis=1)[:, ends]
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    gained = np.diff(hits, prepend=0.0)
    total, means = gained.sum(axis=1), np.full(len(weights), np.nan)
    np.divide((precision * gained).sum(axis=1), total, out=means, where=total > 0)
    return means


def average_precision(truth: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: the precision at each threshold, weighted by the recall that it adds (no interpolation).

    A useless classifier has the share of positives, not 0.5. Nan without positives (scikit-learn gives 0).

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.
    """
    return average_precision_of(Ranking.of(truth, scores))
