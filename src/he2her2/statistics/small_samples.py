"""Exact tests of ranking and decisions for few patients, where intervals of a large-sample kind may mislead."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import fisher_exact, rankdata

from he2her2.statistics.outcomes import outcomes

_FEW = 50
_FEW_OF_A_CLASS = 10
_MOST = 500


@dataclass(frozen=True, slots=True)
class ExactTests:
    """Exact two-sided p-values of chance.

    Attributes:
        mann_whitney: Of the ranking: positives have no other scores than negatives.
        fisher: Of the decisions: positives are not called positive more or less often than negatives.
    """

    mann_whitney: float
    fisher: float


def exact_tests(truth: ArrayLike, score: ArrayLike, decided: ArrayLike) -> ExactTests | None:
    """Exact tests where patients are few: at most 50, or under 10 of a class among at most 500.

    Args:
        truth: (n,) bool, one value a patient.
        score: (n,) of HER2-positive.
        decided: (n,) bool, called positive.

    Returns:
        The p-values; None where patients are many, or one class is absent.
    """
    true, called = outcomes(truth), outcomes(decided, "decided")
    n, of_class = len(true), min(int(true.sum()), int((~true).sum()))
    few = n <= _FEW or (of_class < _FEW_OF_A_CLASS and n <= _MOST)
    if not few or not of_class:
        return None
    table = [[int((true & called).sum()), int((true & ~called).sum())]]
    table += [[int((~true & called).sum()), int((~true & ~called).sum())]]
    return ExactTests(mann_whitney_p(true, score), float(fisher_exact(table).pvalue))


def mann_whitney_p(truth: ArrayLike, score: ArrayLike) -> float:
    """Exact two-sided p-value of the rank sum test over all ways to choose the positives, ties and all.

    `scipy.stats.mannwhitneyu` is exact without ties only.

    Args:
        truth: (n,) bool.
        score: (n,) numbers.

    Raises:
        ValueError: Truth is no outcomes, lengths differ, or a score is nan.

    Example:
        >>> round(mann_whitney_p([1, 1, 1, 1, 1, 0, 0, 0], [9, 8, 7, 6, 4, 5, 2, 1]), 3)
        0.071
    """
    true, scores = outcomes(truth), np.asarray(score, dtype=np.float64)
    if true.shape != scores.shape or np.isnan(scores).any():
        raise ValueError(f"each outcome needs a score that is a number, got shapes {true.shape} and {scores.shape}")
    chosen = true if 2 * true.sum() <= len(true) else ~true  # the smaller class: fewer sums
    k = int(chosen.sum())
    if k == 0:
        return math.nan
    ranks = np.rint(2 * rankdata(scores)).astype(np.int64)  # twice, so that ties are whole
    shares = _rank_sums(ranks, k)
    expected = k * (len(true) + 1)
    distance = np.abs(np.arange(len(shares)) - expected)
    return min(1.0, float(shares[distance >= abs(int(ranks[chosen].sum()) - expected)].sum()))


def _rank_sums(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Probability of each sum of k ranks drawn without replacement."""
    most = int(np.sort(ranks)[-k:].sum())
    shares = np.zeros((k + 1, most + 1))  # [chosen so far, sum]
    shares[0, 0] = 1.0
    for seen, rank in enumerate(ranks.tolist()):
        # Drawn so that every way to choose k of n is equally likely: the share of those that hold this one.
        left = len(ranks) - seen
        take = ((k - np.arange(k + 1)) / left)[:, None]
        moved = np.zeros_like(shares)
        moved[1:, rank:] = (shares * take)[:-1, : most + 1 - rank]
        shares = shares * np.clip(1 - take, 0, 1) + moved
    return np.asarray(shares[k], np.float64)
