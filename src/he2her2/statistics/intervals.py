"""Every figure with its interval, by the method that keeps its promise; experiments/results/coverage.md measures it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import comb
from scipy.stats import beta, norm, t

from he2her2.statistics.delong import placements, pull_variance
from he2her2.statistics.metrics import (
    BinaryCounts,
    Ranking,
    auc,
    average_precision,
    average_precisions,
    quadratic_kappa,
    quadratic_kappas,
)
from he2her2.statistics.resampling import (
    N_DRAWS,
    cells_by_patient,
    draw_counts,
    draw_tables,
    draw_weights,
    patient_index,
    sum_by_patient,
)

LEVEL = 0.95

Patients: TypeAlias = Sequence[str] | NDArray[np.str_] | NDArray[np.intp] | None
"""The patient of every case; None when each case is a patient of its own."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its confidence interval.

    Attributes:
        name: What was measured.
        value: The figure; nan where it is undefined (0/0).
        low: Lower end; the lowest possible value where nothing is known.
        high: Upper end.
        n: Cases that the figure rests on (for a sensitivity: the positives).
        method: How the interval was made.
        level: Confidence level.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = LEVEL

    def __str__(self) -> str:
        """Such as "0.88 (95 % interval 0.47 to 1.00, n = 8)"."""
        return f"{self.value:.2f} ({100 * self.level:g} % interval {self.low:.2f} to {self.high:.2f}, n = {self.n})"


def exact_binomial(k: float, n: float, *, name: str = "rate", level: float = LEVEL) -> Estimate:
    """A share with its Clopper-Pearson interval, which covers at least `level` whatever the truth is.

    Args:
        k: Hits.
        n: Independent cases; 0 gives nan in [0, 1].
        name: What was measured.
        level: Confidence level.

    Raises:
        ValueError: k is outside [0, n].

    Example:
        >>> print(exact_binomial(7, 8))
        0.88 (95 % interval 0.47 to 1.00, n = 8)
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    low, high = clopper_pearson(k, n, level)
    return Estimate(name, k / n if n else math.nan, low, high, round(n), "Clopper-Pearson", level)


def clopper_pearson(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share; k and n may be fractions (effective counts of clustered cases)."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def wilson(k: float, n: float, *, name: str = "rate", level: float = LEVEL) -> Estimate:
    """A share with its score interval (Wilson, 1927): shorter than the exact one, right on average only."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    low, high = wilson_limits(k, n, level)
    return Estimate(name, k / n if n else math.nan, low, high, round(n), "Wilson", level)


def wilson_limits(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a share; [0, 1] without cases."""
    if n == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + level / 2))
    centre, half = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    return max(0.0, (centre - half) / (n + z * z)), min(1.0, (centre + half) / (n + z * z))


def rate(hits: ArrayLike, patients: Patients = None, *, name: str = "rate", level: float = LEVEL) -> Estimate:
    """A share of cases: exact when every patient has one case, else exact on the effective number of cases.

    Several cases of a patient are no independent evidence. Their number is divided by the design effect that the data
    shows, at best 1 and at worst that of patients whose cases are all alike (Rao and Scott, 1992; Korn and Graubard,
    1998); the worst is taken when all hits are equal, since then the data shows nothing.

    Args:
        hits: (n,) bool.
        patients: (n,) their patients.
        name: What was measured.
        level: Confidence level.
    """
    hit = np.asarray(hits, dtype=bool)
    index = patient_index(patients, len(hit))
    sizes = np.bincount(index)
    if len(sizes) == len(hit):
        return exact_binomial(int(hit.sum()), len(hit), name=name, level=level)
    share = float(hit.mean())
    effective = _effective_cases(sum_by_patient(hit.astype(float), index), sizes)
    low, high = clopper_pearson(share * effective, effective, level)
    return Estimate(name, share, low, high, len(hit), "Clopper-Pearson on effective cases (Korn-Graubard)", level)


def _effective_cases(hits: NDArray[np.float64], sizes: NDArray[np.intp]) -> float:
    """Cases that would be worth as much if they were independent, from (p,) hits and (p,) cases of each patient."""
    n, p = int(sizes.sum()), len(sizes)
    share = float(hits.sum()) / n
    least = n * n / float((sizes.astype(float) ** 2).sum())
    residuals = hits - share * sizes
    clustered = float(residuals @ residuals) * p / max(1, p - 1) / n**2
    shown = share * (1 - share) / clustered if clustered > 0 else least
    adjust = (float(t.ppf(0.975, n - 1)) / float(t.ppf(0.975, p - 1))) ** 2 if p > 1 else 1.0
    return min(float(n), max(least, shown)) * adjust


def counts_interval(
    metric: Callable[[BinaryCounts], float],
    counts: BinaryCounts,
    *,
    name: str | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """A figure of four counts, every case being a patient of its own, with its bootstrap interval (`resampling`).

    Args:
        metric: Such as `metrics.mcc`.
        counts: Whole numbers.
        name: What was measured; the metric's own name by default.
        level: Confidence level.
        seed: Of the draws.
    """
    cells = [round(count) for count in (counts.tp, counts.fp, counts.tn, counts.fn)]
    tables = np.repeat(np.eye(4), cells, axis=0)
    values = draw_counts(metric, tables, seed=seed)
    return _from_draws(name or _name(metric), metric(counts), values, sum(cells), level)


def decision_interval(
    metric: Callable[[BinaryCounts], float],
    truth: ArrayLike,
    decided: ArrayLike,
    patients: Patients = None,
    *,
    name: str | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """A figure of decisions with its interval by patient (`resampling`).

    Args:
        metric: Such as `metrics.balanced_accuracy`.
        truth: (n,) bool.
        decided: (n,) bool.
        patients: (n,) their patients.
        name: What was measured; the metric's own name by default.
        level: Confidence level.
        seed: Of the draws.
    """
    counts = BinaryCounts.of(truth, decided)
    tables = cells_by_patient(truth, decided, patient_index(patients, int(counts.n)))
    values = draw_counts(metric, tables, seed=seed)
    return _from_draws(name or _name(metric), metric(counts), values, int(counts.n), level)


def _name(metric: Callable[[BinaryCounts], float]) -> str:
    return str(getattr(metric, "__name__", "figure")).replace("_", " ")


BOOTSTRAP = "Bayesian bootstrap by patient"


def _from_draws(name: str, value: float, values: NDArray[np.float64], n: int, level: float) -> Estimate:
    """The middle `level` of the draws, widened to hold the figure itself."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    if not math.isnan(value):
        low, high = min(low, value), max(high, value)
    return Estimate(name, value, low, high, n, BOOTSTRAP, level)


def mean_interval(
    values: ArrayLike,
    patients: Patients = None,
    *,
    name: str = "mean",
    between: tuple[float, float] | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """A mean over cases with its interval by patient (`resampling`).

    Args:
        values: (n,) of the cases, at least one.
        patients: (n,) their patients.
        name: What was measured.
        between: The least and the greatest value that can be; half a patient with each keeps the interval of few cases
            that are all alike from being a point.
        level: Confidence level.
        seed: Of the draws.

    Example:
        >>> print(mean_interval([0.1, 0.4, 0.2], ["a", "b", "b"], between=(0, 1)))
        0.23 (95 % interval 0.08 to 0.73, n = 3)
    """
    own = np.asarray(values, dtype=np.float64)
    every = np.append(own, between or ())
    index = patient_index(patients, len(own))
    blocks = draw_weights(index, pseudo_cases=len(every) - len(own), n_draws=N_DRAWS // 2, seed=seed)
    draws = np.concatenate([weights @ every / weights.sum(axis=1) for weights in blocks])
    return _from_draws(name, float(own.mean()), draws, len(own), level)


def average_precision_interval(
    truth: ArrayLike, scores: ArrayLike, patients: Patients = None, *, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """Average precision with its interval by patient.

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.
        patients: (n,) their patients.
        level: Confidence level.
        seed: Of the draws.
    """
    true, score, name = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=float), "average precision"
    if not true.any():
        return Estimate(name, math.nan, 0.0, 1.0, len(true), "no positives", level)
    worst_and_best = Ranking.of(np.append(true, [True, False]), np.append(score, [-np.inf, np.inf]))
    index = patient_index(patients, len(true))
    blocks = draw_weights(index, pseudo_cases=2, n_draws=N_DRAWS // 2, seed=seed)
    values = np.concatenate([average_precisions(worst_and_best, block) for block in blocks])
    return _from_draws(name, average_precision(true, score), values, len(true), level)


def kappa_interval(
    truth: ArrayLike, decided: ArrayLike, k: int, patients: Patients = None, *, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """Quadratic kappa of k ordered classes with its interval by patient.

    Args:
        truth: (n,) classes in 0 .. k - 1.
        decided: (n,) classes in 0 .. k - 1.
        k: Number of classes.
        patients: (n,) their patients.
        level: Confidence level.
        seed: Of the draws.
    """
    cells = np.asarray(truth, dtype=np.int64) * k + np.asarray(decided, dtype=np.int64)
    index = patient_index(patients, len(cells))
    p = int(index.max()) + 1 if len(index) else 0
    tables = np.bincount(index * k * k + cells, minlength=p * k * k).reshape(p, k * k).astype(float)
    # A pseudo-patient of agreement and half a one without, or one scored anyhow: each prior draws the kappa of few
    # patients its own way, so the interval reaches from the lower of both lower ends to the higher of both higher ends.
    agrees = np.where(np.eye(k, dtype=bool), 1 / k, 0.5 / (k * (k - 1))).ravel()
    anyhow = np.full(k * k, 1 / k**2)
    value = quadratic_kappa(tables.sum(axis=0).reshape(k, k))
    ends = []
    for prior in (agrees, anyhow):
        draws = draw_tables(tables, prior=prior, n_draws=N_DRAWS, seed=seed).reshape(-1, k, k)
        ends.append(_from_draws("quadratic kappa", value, quadratic_kappas(draws), len(cells), level))
    return replace(ends[0], low=min(end.low for end in ends), high=max(end.high for end in ends))


FEW_PATIENTS = 20
"""Patients in the smaller class with whom a seen variance of an AUC counts as much as the expected one."""


def auc_interval(
    truth: ArrayLike, scores: ArrayLike, patients: Patients = None, *, name: str = "AUC", level: float = LEVEL
) -> Estimate:
    """AUC with its interval: `auc_limits` of DeLong's variance, with patients as clusters (Obuchowski, 1997).

    Several cases of a patient are worth as many as the design effect that the data shows leaves of them, at worst one;
    the worst is the more believed the fewer patients there are.

    Args:
        truth: (n,) bool; without one of the classes the AUC is nan in [0, 1].
        scores: (n,) higher means more likely positive.
        patients: (n,) their patients.
        name: What was measured.
        level: Confidence level.
    """
    area, true = auc(truth, scores), np.asarray(truth, dtype=bool)
    if math.isnan(area):
        return Estimate(name, area, 0.0, 1.0, len(true), "a class is absent", level)
    index, pull = patient_index(patients, len(true)), placements(true, scores).pull
    variance, alone = (pull_variance(true, pull, each) for each in (index, np.arange(len(true))))
    cases = np.array([true.sum(), (~true).sum()])
    clusters = np.array([len(np.unique(index[kind])) for kind in (true, ~true)])
    worst = cases / clusters
    seen = np.clip(variance / alone, 1.0, worst) if alone > 0 and variance > 0 else worst
    effect = seen + (worst - seen) * _doubt(clusters.min())
    low, high = auc_limits(area, variance, *(cases / effect).tolist(), level=level)
    return Estimate(name, area, low, high, len(true), AUC_METHOD, level)


def _doubt(patients: float) -> float:
    """How much what was seen of so many patients gives way to what is expected, in (0, 1)."""
    return FEW_PATIENTS / (FEW_PATIENTS + patients)


AUC_METHOD = "score interval on DeLong's variance"


def auc_limits(area: float, variance: float, m: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Ends of an AUC's score interval (Newcombe, Statistics in Medicine 25:559, 2006, method 5), on the variance seen.

    Newcombe expects the variance that Hanley and McNeil (1982) give an AUC, in a symmetric form; here it is scaled by
    how much of it DeLong's is. The variance seen on few patients is uncertain, and 0 for a perfect ranking: where it is
    below the expected one it is raised towards that, the more the fewer patients there are. Where chance alone ranks
    patients perfectly, one way or the other, more often than the level allows (2 against 6: in 7 % of all orders), 0.5
    is never excluded.

    Args:
        area: The AUC.
        variance: DeLong's; nan where it is unknown.
        m: Patients of a class; of several cases each, as many as they are worth.
        n: Patients of the other.
        level: Confidence level.
    """
    z = float(norm.ppf(0.5 + level / 2))

    def expected(theta: float) -> float:
        spread = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return theta * (1 - theta) * (1 + ((m + n) / 2 - 1) * spread) / (m * n)

    seen = variance / expected(area) if variance > 0 and 0 < area < 1 else 1.0
    ratio = seen + max(0.0, 1 - seen) * _doubt(min(m, n))

    def excess(theta: float) -> float:
        return (area - theta) ** 2 - z * z * ratio * expected(theta)

    tiny = 1e-9
    low = float(brentq(excess, 0.0, min(area, 1 - tiny))) if area > tiny else 0.0
    high = float(brentq(excess, max(area, tiny), 1.0)) if area < 1 - tiny else 1.0
    if 2 / comb(m + n, m) > 1 - level:
        low, high = min(low, 0.5), max(high, 0.5)
    return low, high
