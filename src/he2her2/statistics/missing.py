"""Bounds of figures over everything that missing outcomes and missing predictions could be."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.statistics.metrics import BinaryCounts
from he2her2.statistics.outcomes import outcomes


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least and greatest value of a figure over all that is missing; not an interval of sampling."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Unpredicted:
    """Number of patients without a prediction, by their outcome."""

    positive: int = 0
    negative: int = 0
    unknown: int = 0


def rate_bounds(counts: BinaryCounts, called: int, cleared: int, lost: Unpredicted) -> tuple[Bounds, Bounds]:
    """Bounds of sensitivity and specificity.

    Args:
        counts: Patients with outcome and prediction.
        called: Patients without outcome that are called positive.
        cleared: Those that are called negative.
        lost: Patients without prediction.

    Example:
        >>> rate_bounds(BinaryCounts(tp=8, fp=2, tn=18, fn=2), called=2, cleared=5, lost=Unpredicted())[0]
        Bounds(low=0.5333333333333333, high=0.8333333333333334)
    """
    sensitivity = _bounds(counts.tp, counts.fn, called, cleared, lost.positive, lost.unknown)
    return sensitivity, _bounds(counts.tn, counts.fp, cleared, called, lost.negative, lost.unknown)


def _bounds(hit: float, missed: float, hits: int, misses: int, lost: int, unknown: int) -> Bounds:
    """Worst: those who would be misses are of the class and the others not; best: the other way round."""
    worst, best = hit + missed + misses + lost + unknown, hit + missed + hits + lost + unknown
    return Bounds(hit / worst if worst else 0.0, (hit + hits + lost + unknown) / best if best else 1.0)


def auc_bounds(truth: ArrayLike, score: ArrayLike, without_outcome: ArrayLike, lost: Unpredicted) -> Bounds:
    """Bounds of the AUC over all outcomes and predictions that are missing.

    For a given number of positives among those without outcome the AUC is least where these have the lowest scores and
    greatest where they have the highest, so only their number is tried.

    Args:
        truth: (n,) bool, of the patients with outcome and prediction.
        score: (n,) theirs.
        without_outcome: (m,) scores of the patients without outcome.
        lost: Patients without prediction.

    Returns:
        Bounds; [0, 1] where a class may be absent.
    """
    true, scores = outcomes(truth), np.asarray(score, dtype=np.float64)
    free = np.sort(np.asarray(without_outcome, dtype=np.float64))
    if not true.any() or true.all():
        return Bounds(0.0, 1.0)
    least = _least_auc(scores[true], scores[~true], free, lost)
    return Bounds(least, 1 - _least_auc(-scores[true], -scores[~true], -free[::-1], lost))


def _least_auc(
    positive: NDArray[np.float64], negative: NDArray[np.float64], free: NDArray[np.float64], lost: Unpredicted
) -> float:
    """The least AUC over the number of positives among the free scores, ascending, and among the unknown."""
    m = len(free)
    below, above = np.sort(negative), np.sort(positive)
    # k free ones of the lowest scores are positive, the others negative; a tie counts half.
    as_positive = _wins(below, free)  # (m,) against the known negatives
    as_negative = len(above) - _wins(above, free)  # (m,) positives that win against each
    known = float(_wins(below, above).sum())
    k = np.arange(m + 1)
    wins = known + _sums_of_first(as_positive) + (as_negative.sum() - _sums_of_first(as_negative)) + _ties(free)
    n_positive, n_negative = len(above) + k, len(below) + m - k
    least = 1.0
    for unknown_positive in range(lost.unknown + 1):  # all of them at the worst end: they win nothing
        p = n_positive + lost.positive + unknown_positive
        n = n_negative + lost.negative + lost.unknown - unknown_positive
        least = min(least, float((wins / (p * n)).min()))
    return least


def _wins(others: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Number of sorted others below each score, ties as halves."""
    below, not_above = np.searchsorted(others, scores, side="left"), np.searchsorted(others, scores, side="right")
    return np.asarray(below + not_above, np.float64) / 2


def _sums_of_first(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m + 1,) sums of the first 0 to m values."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _ties(free: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m + 1,) half the number of equal pairs across the cut, for a cut after the first k scores."""
    k = np.arange(len(free) + 1)
    if not len(free):
        return np.zeros(1)
    at = free[np.clip(k, 0, len(free) - 1)]
    low, high = np.searchsorted(free, at, side="left"), np.searchsorted(free, at, side="right")
    return np.where((k > 0) & (k < len(free)), np.maximum(k - low, 0) * (high - k) / 2, 0.0)
