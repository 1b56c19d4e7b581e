"""The variance of an AUC by DeLong, DeLong and Clarke-Pearson (1988), with patients as clusters (Obuchowski, 1997).

Placements come from midranks (Sun and Xu, 2014), in O(n log n).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from he2her2.statistics.resampling import sum_by_patient


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class Placements:
    """How much every case pulls at the AUC.

    Attributes:
        auc: The AUC.
        truth: (n,) bool.
        pull: (n,) the case's placement (the share of the other class that it is ordered rightly against) less the AUC,
            over the size of its class; they sum to 0 in each class.
    """

    auc: float
    truth: NDArray[np.bool_]
    pull: NDArray[np.float64]


def placements(truth: ArrayLike, scores: ArrayLike) -> Placements:
    """Place every case among those of the other class.

    Args:
        truth: (n,) bool with both classes.
        scores: (n,) higher means more likely positive.
    """
    true, score = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=np.float64)
    m, n = int(true.sum()), int((~true).sum())
    ranks = rankdata(score)
    placed = np.empty(len(score))
    placed[true] = (ranks[true] - rankdata(score[true])) / n
    placed[~true] = 1 - (ranks[~true] - rankdata(score[~true])) / m
    area = float(placed[true].mean())
    return Placements(area, true, (placed - area) / np.where(true, m, n))


def pull_variance(truth: NDArray[np.bool_], pull: NDArray[np.float64], index: NDArray[np.intp]) -> float:
    """Variance of an AUC, or of a difference of two when `pull` is the difference of theirs.

    Args:
        truth: (n,) bool.
        pull: (n,) of `placements`.
        index: (n,) number of each case's patient, 0 .. p - 1.

    Returns:
        DeLong's variance when every patient has one case, else Obuchowski's; nan when a class has one patient only.
    """
    return pull_covariance(truth, pull, pull, index)


def pull_covariance(
    truth: NDArray[np.bool_], one: NDArray[np.float64], two: NDArray[np.float64], index: NDArray[np.intp]
) -> float:
    """Covariance of two AUCs of the same cases; see `pull_variance`."""
    of_one, of_two = _by_class(truth, one, index), _by_class(truth, two, index)
    patients = _patients(truth, index)
    if min(patients) < 2:
        return float("nan")
    within = sum(_unbiased(a, b, k) for a, b, k in zip(of_one, of_two, patients, strict=True))
    across = (float(of_one[0] @ of_two[1]) + float(of_one[1] @ of_two[0])) * _correction(len(of_one[0]))
    return within + across


def pull_freedom(truth: NDArray[np.bool_], pull: NDArray[np.float64], index: NDArray[np.intp]) -> float:
    """Degrees of freedom of `pull_variance` (Welch and Satterthwaite), with both classes' variances unequal.

    Infinite when the variance is 0.
    """
    parts = zip(_by_class(truth, pull, index), _patients(truth, index), strict=True)
    variances = [(_unbiased(sums, sums, k), k) for sums, k in parts]
    spread = sum(variance**2 / (k - 1) for variance, k in variances)
    return sum(variance for variance, _ in variances) ** 2 / spread if spread else math.inf


def _by_class(
    truth: NDArray[np.bool_], pull: NDArray[np.float64], index: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(p,) sums over each patient's positive and negative cases."""
    return sum_by_patient(np.where(truth, pull, 0.0), index), sum_by_patient(np.where(truth, 0.0, pull), index)


def _patients(truth: NDArray[np.bool_], index: NDArray[np.intp]) -> tuple[int, int]:
    """How many patients have positive cases, and how many negative ones."""
    return len(np.unique(index[truth])), len(np.unique(index[~truth]))


def _unbiased(one: NDArray[np.float64], two: NDArray[np.float64], k: int) -> float:
    return float(one @ two) * _correction(k)


def _correction(k: int) -> float:
    return k / (k - 1)
