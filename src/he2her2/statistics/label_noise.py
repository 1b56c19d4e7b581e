"""Sensitivity of figures to wrong labels.

If a share e of the labels in each class, as labelled, is wrong at random, the observed AUC is pulled towards 0.5 by the
factor 1 - 2 e (mutually contaminated classes: Menon et al., ICML 2015), and sensitivity and specificity mix; the
figures of the true labels follow by solving for them. If the wrong labels may lie anywhere, bounds follow: for given
numbers of swapped labels the AUC is a function of the positives' rank sum, so the extreme swaps are those of the
extreme ranks, and only the numbers are tried.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from he2her2.statistics.intervals import Estimate, Patients, decision_interval
from he2her2.statistics.metrics import BinaryCounts, sensitivity, specificity
from he2her2.statistics.missing import Bounds
from he2her2.statistics.outcomes import outcomes
from he2her2.statistics.roc import auc_interval

SHARES = (0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class WrongLabels:
    """Figures if a share of the labels in each class were wrong.

    Attributes:
        share: Of the labelled positives, and of the labelled negatives.
        auc: Of the true labels, if the wrong ones lie at random.
        sensitivity: Likewise.
        specificity: Likewise.
        auc_bounds: From the worst to the best places of at most so many wrong labels.
    """

    share: float
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    auc_bounds: Bounds


def if_labels_were_wrong(
    truth: ArrayLike, score: ArrayLike, decided: ArrayLike, patients: Patients = None, *, share: float, seed: int = 0
) -> WrongLabels:
    """Figures of the true labels if a share of the given ones in each class were wrong.

    Args:
        truth: (n,) bool, the given labels, of both classes.
        score: (n,) higher means more likely positive.
        decided: (n,) bool, called positive.
        patients: (n,) their patients.
        share: In [0, 0.5).
        seed: Of the draws.
    """
    true, called = outcomes(truth), outcomes(decided, "decided")
    seen = auc_interval(true, score, patients)
    value, low, high = (
        min(1.0, max(0.0, 0.5 + (end - 0.5) / (1 - 2 * share))) for end in (seen.value, seen.low, seen.high)
    )
    rates = [
        decision_interval(partial(_of_true_labels, of, share), true, called, patients, name=name, seed=seed)
        for name, of in (("sensitivity", 0), ("specificity", 1))
    ]
    return WrongLabels(
        share,
        replace(seen, value=value, low=low, high=high),
        rates[0],
        rates[1],
        swapped_auc_bounds(true, score, share),
    )


def _of_true_labels(of: int, share: float, counts: BinaryCounts) -> float:
    """Sensitivity (0) or specificity (1) of the true labels, between 0 and 1."""
    found, right = sensitivity(counts), specificity(counts)
    seen, other = (found, right) if of == 0 else (right, found)
    solved = ((1 - share) * seen - share * (1 - other)) / (1 - 2 * share)
    clipped: float = np.clip(solved, 0.0, 1.0) if np.ndim(solved) else min(1.0, max(0.0, float(solved)))
    return clipped


def swapped_auc_bounds(truth: ArrayLike, score: ArrayLike, share: float) -> Bounds:
    """Least and greatest AUC if at most a share of the labels in each class is swapped, wherever they lie.

    Args:
        truth: (n,) bool, of both classes.
        score: (n,) higher means more likely positive.
        share: In [0, 1).

    Example:
        >>> swapped_auc_bounds([True, True, False, False], [0.9, 0.6, 0.7, 0.1], 0.5)
        Bounds(low=0.0, high=1.0)
    """
    true, ranks = outcomes(truth), rankdata(np.asarray(score, dtype=np.float64))
    m, n = int(true.sum()), int((~true).sum())
    lost, gained = math.floor(share * m + 1e-9), math.floor(share * n + 1e-9)
    least, rest = (
        _least_area(np.sort(places[true])[::-1], np.sort(places[~true]), lost, gained)
        for places in (ranks, m + n + 1 - ranks)
    )
    return Bounds(least, 1 - rest)


def _least_area(
    positive: NDArray[np.float64], negative: NDArray[np.float64], most_lost: int, most_gained: int
) -> float:
    """The least AUC if at most so many of the highest positives are negative, and of the lowest negatives positive.

    For each number of positives in the end, pairs change places while the next positive is above the next negative:
    the former fall, the latter rise, so that the first pair that is not is found by halving.

    Args:
        positive: (m,) ranks, falling.
        negative: (n,) ranks, rising.
        most_lost: At most m.
        most_gained: At most n.
    """
    m, n = len(positive), len(negative)
    more = np.arange(-most_lost, most_gained + 1)  # positives in the end, less m
    lost, last = np.maximum(0, -more), np.minimum(most_lost, most_gained - more)
    while (lost < last).any():
        middle = (lost + last) // 2
        next_positive, next_negative = np.minimum(middle, m - 1), np.minimum(middle + more, n - 1)
        is_above = (lost < last) & (positive[next_positive] > negative[next_negative])
        lost, last = np.where(is_above, middle + 1, lost), np.where(is_above, last, middle)
    k = m + more
    total = positive.sum() - _sums(positive, most_lost)[lost] + _sums(negative, most_gained)[lost + more]
    possible = (k > 0) & (k < m + n)
    return float(((total - k * (k + 1) / 2)[possible] / (k * (m + n - k))[possible]).min())


def _sums(values: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """(most + 1,) sums of the first 0 to `most` values."""
    return np.concatenate([[0.0], np.cumsum(values[:most])])


def share_to_chance(truth: ArrayLike, score: ArrayLike) -> float:
    """Smallest share of wrong labels in each class, at the worst places, with which the AUC could be 0.5 or less.

    Args:
        truth: (n,) bool, of both classes.
        score: (n,) higher means more likely positive.
    """
    true = outcomes(truth)
    steps = np.unique(np.concatenate([np.arange(1, int(k) + 1) / k for k in (true.sum(), (~true).sum())]))
    shares: list[float] = steps.tolist()
    lost = partial(_may_be_chance, true, score)
    return shares[bisect_left(shares, x=True, hi=len(shares) - 1, key=lost)]


def _may_be_chance(truth: NDArray[np.bool_], score: ArrayLike, share: float) -> bool:
    """True if wrong labels, so many, could leave an AUC of 0.5."""
    return swapped_auc_bounds(truth, score, share).low <= 0.5
