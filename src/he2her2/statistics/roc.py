"""AUC and average precision with their intervals, and DeLong's variance of an AUC.

The variance is that of DeLong, DeLong and Clarke-Pearson (1988), with patients as clusters (Obuchowski, 1997), computed
from midranks in O(n log n) (Sun and Xu, 2014).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import comb
from scipy.stats import norm, rankdata

from he2her2.statistics.intervals import LEVEL, Estimate, Patients, exact_binomial, interval_of_draws
from he2her2.statistics.outcomes import outcomes
from he2her2.statistics.resampling import N_DRAWS, draw_weights, patient_index, sum_by_patient


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class RankedScores:
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
    def of(cls, truth: ArrayLike, scores: ArrayLike) -> "RankedScores":
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

    def auc(self, weights: NDArray[np.float64] | None = None) -> float:
        """Area under the ROC curve with (n,) weights; nan when a class has no weight."""
        positive, negative = self.masses(weights)
        below = np.cumsum(negative) - negative / 2  # a tie counts half
        pairs = float(positive.sum() * negative.sum())
        return float(positive @ below) / pairs if pairs else math.nan

    def average_precisions(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(b,) average precisions under (b, n) weights; nan when the positives have no weight."""
        ranked = weights[:, self.order[::-1]]  # from the highest score down
        starts = np.append(0, self.last + 1)[: len(self.last)]  # of the groups of equal scores, from the lowest up
        ends = len(self.order) - 1 - starts[::-1]
        hits = np.cumsum(ranked * self.truth[::-1], axis=1)[:, ends]
        called = np.cumsum(ranked, axis=1)[:, ends]
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        gained = np.diff(hits, prepend=0.0)
        total, means = gained.sum(axis=1), np.full(len(weights), np.nan)
        np.divide((precision * gained).sum(axis=1), total, out=means, where=total > 0)
        return means


def auc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: share of pairs in which the positive case scores above the negative, ties half.

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.

    Returns:
        In [0, 1]; nan when a class is absent.

    Example:
        >>> auc([True, False, False], [0.5, 0.5, 0.1])
        0.75
    """
    return RankedScores.of(truth, scores).auc()


def average_precision(truth: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: the precision at each threshold, weighted by the recall that it adds (no interpolation).

    A useless classifier has the share of positives, not 0.5. Nan without positives (scikit-learn gives 0).

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.
    """
    ranked = RankedScores.of(truth, scores)
    return float(ranked.average_precisions(np.ones((1, len(ranked.order))))[0])


def average_precision_interval(
    truth: ArrayLike, scores: ArrayLike, patients: Patients = None, *, seed: int = 0
) -> Estimate:
    """Average precision with its interval by patient.

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.
        patients: (n,) their patients.
        seed: Of the draws.
    """
    true, score, name = outcomes(truth), np.asarray(scores, dtype=float), "average precision"
    if not true.any():
        return Estimate(name, math.nan, 0.0, 1.0, len(true), "no positives")
    worst_and_best = RankedScores.of(np.append(true, [True, False]), np.append(score, [-np.inf, np.inf]))
    index = patient_index(patients, len(true))
    blocks = draw_weights(index, pseudo_cases=2, n_draws=N_DRAWS // 2, seed=seed)
    values = np.concatenate([worst_and_best.average_precisions(block) for block in blocks])
    return interval_of_draws(name, average_precision(true, score), values, len(true))


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class AucInfluence:
    """Influence of every case on an AUC, from which its variance follows.

    Attributes:
        auc: The AUC.
        truth: (n,) bool.
        values: (n,) the case's placement (the share of the other class that it is ordered rightly against) less the
            AUC, over the size of its class; they sum to 0 in each class.
    """

    auc: float
    truth: NDArray[np.bool_]
    values: NDArray[np.float64]


def auc_influence(truth: ArrayLike, scores: ArrayLike) -> AucInfluence:
    """Place every case among those of the other class.

    Args:
        truth: (n,) bool with both classes.
        scores: (n,) higher means more likely positive.
    """
    true, score = outcomes(truth), np.asarray(scores, dtype=np.float64)
    m, n = int(true.sum()), int((~true).sum())
    ranks = rankdata(score)
    placed = np.empty(len(score))
    placed[true] = (ranks[true] - rankdata(score[true])) / n
    placed[~true] = 1 - (ranks[~true] - rankdata(score[~true])) / m
    area = float(placed[true].mean())
    return AucInfluence(area, true, (placed - area) / np.where(true, m, n))


def auc_variance(truth: NDArray[np.bool_], influence: NDArray[np.float64], index: NDArray[np.intp]) -> float:
    """Variance of an AUC, or of a difference of two AUCs from the difference of their influences.

    Args:
        truth: (n,) bool.
        influence: (n,) values of `auc_influence`.
        index: (n,) number of each case's patient, 0 .. p - 1.

    Returns:
        DeLong's variance when every patient has one case, else Obuchowski's; nan when a class has one patient only.
    """
    return auc_covariance(truth, influence, influence, index)


def auc_covariance(
    truth: NDArray[np.bool_], one: NDArray[np.float64], two: NDArray[np.float64], index: NDArray[np.intp]
) -> float:
    """Covariance of two AUCs of the same cases; see `auc_variance`."""
    of_one, of_two = _by_class(truth, one, index), _by_class(truth, two, index)
    patients = _patients_by_class(truth, index)
    if min(patients) < 2:
        return float("nan")
    within = sum(_unbiased(a, b, k) for a, b, k in zip(of_one, of_two, patients, strict=True))
    across = (float(of_one[0] @ of_two[1]) + float(of_one[1] @ of_two[0])) * _correction(len(of_one[0]))
    return within + across


def auc_freedom(truth: NDArray[np.bool_], influence: NDArray[np.float64], index: NDArray[np.intp]) -> float:
    """Degrees of freedom of `auc_variance` (Welch and Satterthwaite), with both classes' variances unequal.

    Infinite when the variance is 0.
    """
    parts = zip(_by_class(truth, influence, index), _patients_by_class(truth, index), strict=True)
    variances = [(_unbiased(sums, sums, k), k) for sums, k in parts]
    spread = sum(variance**2 / (k - 1) for variance, k in variances)
    return sum(variance for variance, _ in variances) ** 2 / spread if spread else math.inf


def _by_class(
    truth: NDArray[np.bool_], influence: NDArray[np.float64], index: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(p,) sums over each patient's positive and negative cases."""
    return sum_by_patient(np.where(truth, influence, 0.0), index), sum_by_patient(
        np.where(truth, 0.0, influence), index
    )


def _patients_by_class(truth: NDArray[np.bool_], index: NDArray[np.intp]) -> tuple[int, int]:
    """Number of patients with positive cases, and of those with negative ones."""
    return len(np.unique(index[truth])), len(np.unique(index[~truth]))


def _unbiased(one: NDArray[np.float64], two: NDArray[np.float64], k: int) -> float:
    return float(one @ two) * _correction(k)


def _correction(k: int) -> float:
    return k / (k - 1)


AUC_METHOD = "score interval on DeLong's variance"
_FEW_PATIENTS = 20
"""Patients in the smaller class with whom an observed variance of an AUC counts as much as the expected one."""


def auc_interval(
    truth: ArrayLike, scores: ArrayLike, patients: Patients = None, *, name: str = "AUC", level: float = LEVEL
) -> Estimate:
    """AUC with its interval: `auc_limits` of DeLong's variance, with patients as clusters (Obuchowski, 1997).

    The number of cases is divided by the design effect of several cases a patient: the observed one, or with few
    patients nearly the greatest possible one, which leaves one case a patient.

    Args:
        truth: (n,) bool; without one of the classes the AUC is nan in [0, 1].
        scores: (n,) higher means more likely positive.
        patients: (n,) their patients.
        name: The figure's name.
        level: Confidence level.
    """
    area, true = auc(truth, scores), outcomes(truth)
    if math.isnan(area):
        return Estimate(name, area, 0.0, 1.0, len(true), "a class is absent", level)
    index, influence = patient_index(patients, len(true)), auc_influence(true, scores).values
    variance, alone = (auc_variance(true, influence, each) for each in (index, np.arange(len(true))))
    cases = np.array([true.sum(), (~true).sum()])
    clusters = np.array([len(np.unique(index[kind])) for kind in (true, ~true)])
    worst = cases / clusters
    seen = np.clip(variance / alone, 1.0, worst) if alone > 0 and variance > 0 else worst
    effect = seen + (worst - seen) * _weight_of_expected(clusters.min())
    low, high = auc_limits(area, variance, *(cases / effect).tolist(), level=level)
    return Estimate(name, area, low, high, len(true), AUC_METHOD, level)


def _weight_of_expected(patients: float) -> float:
    """Weight, in (0, 1), of an expected variance against the one observed in so many patients."""
    return _FEW_PATIENTS / (_FEW_PATIENTS + patients)


def auc_limits(area: float, variance: float, m: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Ends of an AUC's score interval (Newcombe, Statistics in Medicine 25:559, 2006, method 5).

    Newcombe expects the variance that Hanley and McNeil (1982) give an AUC, in a symmetric form; here it is scaled to
    DeLong's. The variance observed in few patients is uncertain, and 0 for a perfect ranking: where it is below the
    expected one it is raised towards that, the more the fewer patients there are. Where random scores would order all
    patients perfectly, one way or the other, more often than the level allows (2 against 6: in 7 % of all orders), 0.5
    is never excluded. A class of one patient is one draw from [0, 1], the share of the others that it is ordered
    rightly against: the interval is no shorter than the exact one of a share of one case.

    Args:
        area: The AUC.
        variance: DeLong's; nan where it is unknown.
        m: Effective number of cases of a class.
        n: Of the other.
        level: Confidence level.
    """
    z = float(norm.ppf(0.5 + level / 2))

    def expected(theta: float) -> float:
        spread = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return theta * (1 - theta) * (1 + ((m + n) / 2 - 1) * spread) / (m * n)

    seen = variance / expected(area) if variance > 0 and 0 < area < 1 else 1.0
    ratio = seen + max(0.0, 1 - seen) * _weight_of_expected(min(m, n))

    def excess(theta: float) -> float:
        return (area - theta) ** 2 - z * z * ratio * expected(theta)

    tiny = 1e-9
    low = float(brentq(excess, 0.0, min(area, 1 - tiny))) if area > tiny else 0.0
    high = float(brentq(excess, max(area, tiny), 1.0)) if area < 1 - tiny else 1.0
    if 2 / comb(m + n, m) > 1 - level:
        low, high = min(low, 0.5), max(high, 0.5)
    if (fewest := min(m, n)) < 2:
        exact = exact_binomial(area * fewest, fewest, level=level)
        low, high = min(low, exact.low), max(high, exact.high)
    return low, high
