"""The variance of an AUC by DeLong, DeLong and Clarke-Pearson (1988), with patients as clusters (Obuchowski, 1997).

Placements come from midranks (Sun and Xu, 2014), in O(n log n).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from he2her2.evaluation.resampling import sum_by_patient


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
    of_positives = sum_by_patient(np.where(truth, pull, 0.0), index)
    of_negatives = sum_by_patient(np.where(truth, 0.0, pull), index)
    n_positive, n_negative = len(np.unique(index[truth])), len(np.unique(index[~truth]))
    if min(n_positive, n_negative) < 2:
        return float("nan")
    within = _unbiased(of_positives, of_positives, n_positive) + _unbiased(of_negatives, of_negatives, n_negative)
    return within + 2 * _unbiased(of_positives, of_negatives, len(of_positives))


def _unbiased(one: NDArray[np.float64], two: NDArray[np.float64], k: int) -> float:
    return float(one @ two) * k / (k - 1)
