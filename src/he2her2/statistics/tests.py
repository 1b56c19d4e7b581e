"""Tests and intervals of the difference between two models on the same patients; Holm's correction."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, chi2, fisher_exact, t

from he2her2.statistics.intervals import LEVEL, Estimate, Patients, mean_interval, wilson_limits
from he2her2.statistics.outcomes import outcomes
from he2her2.statistics.resampling import patient_index
from he2her2.statistics.roc import auc_covariance, auc_freedom, auc_influence, auc_interval, auc_variance

_HALVINGS = 40  # of the level, to a p-value of 1e-12
_SAME_AUC = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of the first model less that of the second, with its test.

    Attributes:
        estimate: The difference with its interval.
        p_value: Two-sided, under no difference; nan where it is undefined.
    """

    estimate: Estimate
    p_value: float

    def is_gain(self, alpha: float) -> bool:
        """True if test and interval show that the first is greater; False where the p-value is unknown.

        Of few patients with many cases each, the test alone is wrong more often than it says.
        """
        return self.p_value < alpha and self.estimate.low > 0


def delong_difference(
    truth: ArrayLike, first: ArrayLike, second: ArrayLike, patients: Patients = None, *, level: float = LEVEL
) -> Difference:
    """Difference of two AUCs on the same cases: DeLong's paired test, and an interval that also holds for few cases.

    The interval comes from both AUCs' own (`auc_interval`) and DeLong's correlation of the two (Zou and Donner,
    Statistics in Medicine 27:1693, 2008): for many patients it is DeLong's, for few it is wider, also where both
    AUCs are 1 and DeLong's variance is 0. So p-value and interval may disagree slightly. Where that variance is 0 and
    the AUCs differ, as of a perfect ranking and of none, the p-value is that of the intervals.

    Args:
        truth: (n,) bool; without both classes nothing is known: nan in [-1, 1].
        first: (n,) scores of a model.
        second: (n,) scores of another.
        patients: (n,) their patients.
        level: Confidence level.
    """
    true, name = outcomes(truth), "AUC difference"
    if not true.any() or true.all():
        return Difference(Estimate(name, math.nan, -1.0, 1.0, len(true), "a class is absent", level), math.nan)
    index = patient_index(patients, len(true))
    one, two = (auc_interval(true, scores, index, level=level) for scores in (first, second))
    of_one, of_two = (auc_influence(true, scores).values for scores in (first, second))
    value = one.value - two.value
    low, high = _by_limits(one, two, _correlation(true, of_one, of_two, index))
    p_value = _p_value(value, true, of_one - of_two, index)
    if auc_variance(true, of_one - of_two, index) == 0 and value:
        p_value = _p_by_intervals(true, first, second, index)
    return Difference(Estimate(name, value, low, high, len(true), "DeLong, paired", level), p_value)


def aucs_equal(truth: ArrayLike, scores: ArrayLike, patients: Patients = None) -> float:
    """P-value of several AUCs on the same cases being equal: DeLong's chi-squared test of all contrasts.

    Args:
        truth: (n,) bool.
        scores: (k, n) of k models.
        patients: (n,) their patients.

    Returns:
        Nan where a class has one patient only, or AUCs differ whose difference has no variance.
    """
    true, of_models = outcomes(truth), np.asarray(scores, dtype=np.float64)
    if not true.any() or true.all():
        return math.nan
    index = patient_index(patients, len(true))
    influences = [auc_influence(true, one) for one in of_models]
    gaps = np.array([one.auc - influences[0].auc for one in influences[1:]])
    moved = [one.values - influences[0].values for one in influences[1:]]
    covariance = np.array([[auc_covariance(true, a, b, index) for b in moved] for a in moved])
    if not np.isfinite(covariance).all() or not covariance.any():
        return math.nan
    rank = int(np.linalg.matrix_rank(covariance, hermitian=True))
    inverse = np.linalg.pinv(covariance, hermitian=True)
    if not np.allclose(covariance @ inverse @ gaps, gaps, rtol=0, atol=_SAME_AUC):
        return math.nan
    return float(chi2.sf(gaps @ inverse @ gaps, rank))


def _p_by_intervals(truth: NDArray[np.bool_], first: ArrayLike, second: ArrayLike, index: NDArray[np.intp]) -> float:
    """1 less the greatest level at which the interval of two uncorrelated AUCs' difference excludes 0."""
    excluded, held = 0.0, 1.0
    for _ in range(_HALVINGS):
        level = (excluded + held) / 2
        one, two = (auc_interval(truth, scores, index, level=level) for scores in (first, second))
        low, high = _by_limits(one, two, 0.0)
        excluded, held = (level, held) if low > 0 or high < 0 else (excluded, level)
    return 1 - excluded


def _correlation(
    truth: NDArray[np.bool_], one: NDArray[np.float64], two: NDArray[np.float64], index: NDArray[np.intp]
) -> float:
    """DeLong's correlation of two AUCs; 0 where it is undefined."""
    covariance = auc_covariance(truth, one, two, index)
    spread = auc_variance(truth, one, index) * auc_variance(truth, two, index)
    return min(1.0, max(-1.0, covariance / math.sqrt(spread))) if spread > 0 else 0.0


def _by_limits(one: Estimate, two: Estimate, correlation: float) -> tuple[float, float]:
    """Interval of a difference from those of its parts (MOVER)."""
    down, up = (one.value - one.low, two.high - two.value), (one.high - one.value, two.value - two.low)
    low, high = (_root(a * a - 2 * correlation * a * b + b * b) for a, b in (down, up))
    value = one.value - two.value
    return max(-1.0, value - low), min(1.0, value + high)


def _p_value(value: float, truth: NDArray[np.bool_], influence: NDArray[np.float64], index: NDArray[np.intp]) -> float:
    """Two-sided, of no difference; nan where a class has one patient only, and where the seen variance is 0."""
    variance = auc_variance(truth, influence, index)
    if value == 0:
        return 1.0
    if not variance > 0:
        return math.nan
    return float(2 * t.sf(abs(value) / math.sqrt(variance), auc_freedom(truth, influence, index)))


@dataclass(frozen=True, slots=True)
class McNemar:
    """Test of a difference between two models in the number of right decisions.

    Attributes:
        only_first: Cases that only the first has right.
        only_second: Cases that only the second has right.
        exact: Two-sided exact p-value; conservative.
        mid_p: Two-sided mid-P value; less conservative, right on average (Fagerland et al., 2013). 1 where no patient
            tells the two apart.
    """

    only_first: int
    only_second: int
    exact: float
    mid_p: float


def mcnemar(first_right: ArrayLike, second_right: ArrayLike, patients: Patients = None) -> McNemar:
    """McNemar's test; with several cases a patient, the exact sign-flip test over patients that generalises it.

    Under no difference each patient's surplus (cases only the first has right, less those only the second has) is as
    likely to have the other sign. The distribution of the sum over patients is computed exactly.

    Args:
        first_right: (n,) bool.
        second_right: (n,) bool.
        patients: (n,) their patients.
    """
    one, two = outcomes(first_right, "first_right"), outcomes(second_right, "second_right")
    index = patient_index(patients, len(one))
    surplus = np.bincount(index, one.astype(float) - two).astype(int) if len(one) else np.zeros(0, int)
    only = int((one & ~two).sum()), int((two & ~one).sum())
    sums, shares = _sign_flips(np.abs(surplus))
    extreme = np.abs(sums) > abs(surplus.sum())
    equal = np.abs(sums) == abs(surplus.sum())
    beyond, at = float(shares[extreme].sum()), float(shares[equal].sum())
    return McNemar(*only, exact=min(1.0, beyond + at), mid_p=min(1.0, beyond + at / 2) if surplus.any() else 1.0)


def _sign_flips(sizes: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Every sum of `sizes` with random signs, and its probability."""
    shares = np.ones(1)
    for size in np.unique(sizes[sizes > 0]):
        count = int((sizes == size).sum())
        flips = np.zeros(2 * size * count + 1)
        flips[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        shares = np.convolve(shares, flips)
    reach = len(shares) // 2
    return np.arange(-reach, reach + 1), shares


def rate_difference(
    first: ArrayLike, second: ArrayLike, patients: Patients = None, *, name: str = "difference", level: float = LEVEL
) -> Estimate:
    """Difference of two shares on the same cases: Newcombe's paired interval; by patient when one has several.

    Args:
        first: (n,) bool, such as "the first model is right".
        second: (n,) bool.
        patients: (n,) their patients.
        name: Of the figure.
        level: Confidence level.
    """
    one, two = outcomes(first, "first"), outcomes(second, "second")
    index = patient_index(patients, len(one))
    if len(np.unique(index)) == len(one):
        both, only_first, only_second = (int(x.sum()) for x in (one & two, one & ~two, two & ~one))
        return newcombe_paired(both, only_first, only_second, len(one), name=name, level=level)
    return mean_interval(one.astype(float) - two, index, name=name, between=(-1, 1), level=level)


def newcombe_paired(
    both: int, only_first: int, only_second: int, n: int, *, name: str = "difference", level: float = LEVEL
) -> Estimate:
    """Difference of two paired shares (Newcombe, Statistics in Medicine 17:2635, 1998, method 10).

    Args:
        both: Cases where both hold.
        only_first: Cases where only the first holds.
        only_second: Cases where only the second holds.
        n: All cases.
        name: Of the figure.
        level: Confidence level.
    """
    if n == 0:
        return Estimate(name, math.nan, -1.0, 1.0, 0, "no cases", level)
    k1, k2, neither = both + only_first, both + only_second, n - both - only_first - only_second
    p1, p2 = k1 / n, k2 / n
    (l1, u1), (l2, u2) = wilson_limits(k1, n, level), wilson_limits(k2, n, level)
    margins = k1 * (n - k1) * k2 * (n - k2)
    cross = both * neither - only_first * only_second
    corrected = max(0.0, cross - n / 2) if cross > 0 else float(cross)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    low = _root((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = _root((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    return Estimate(name, p1 - p2, max(-1.0, p1 - p2 - low), min(1.0, p1 - p2 + high), n, "Newcombe, paired", level)


def _root(square: float) -> float:
    return math.sqrt(max(0.0, square))


def two_rates_p(first: ArrayLike, second: ArrayLike) -> float:
    """Fisher's exact two-sided p-value of two shares of different patients; nan where one has no cases.

    Args:
        first: (m,) bool, one value a patient.
        second: (n,) bool.

    Example:
        >>> round(two_rates_p([True] * 8, [True] * 3 + [False] * 5), 3)
        0.026
    """
    one, two = outcomes(first, "first"), outcomes(second, "second")
    if not len(one) or not len(two):
        return math.nan
    return float(fisher_exact([[one.sum(), (~one).sum()], [two.sum(), (~two).sum()]]).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """P-values adjusted for their number by Holm (Scandinavian J Stat 1979;6:65-70); nan stays and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted((k for k, p in enumerate(p_values) if not math.isnan(p)), key=lambda k: p_values[k])
    adjusted, greatest = [math.nan] * len(p_values), 0.0
    for rank, k in enumerate(order):
        greatest = max(greatest, min(1.0, (len(order) - rank) * p_values[k]))
        adjusted[k] = greatest
    return adjusted
