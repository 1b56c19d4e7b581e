"""Every figure with its interval, by the method that keeps its promise; experiments/results/coverage.md measures it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

from he2her2.evaluation.delong import placements, pull_freedom, pull_variance
from he2her2.evaluation.metrics import (
    BinaryCounts,
    Ranking,
    auc,
    average_precision,
    average_precisions,
    quadratic_kappa,
    quadratic_kappas,
)
from he2her2.evaluation.resampling import (
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
    # A pseudo-patient with agreement, half a one without: equal cells would draw the kappa of few patients towards 0.
    prior = np.where(np.eye(k, dtype=bool), 1 / k, 0.5 / (k * (k - 1))).ravel()
    draws = draw_tables(tables, prior=prior, n_draws=N_DRAWS, seed=seed).reshape(-1, k, k)
    value = quadratic_kappa(tables.sum(axis=0).reshape(k, k))
    return _from_draws("quadratic kappa", value, quadratic_kappas(draws), len(cells), level)


FEW_PATIENTS = 10
"""With fewer patients in a class DeLong's variance is too uncertain."""


def delong(
    truth: ArrayLike, scores: ArrayLike, patients: Patients = None, *, name: str = "AUC", level: float = LEVEL
) -> Estimate:
    """AUC with its interval: DeLong's on the logit scale, Newcombe's score interval where DeLong's cannot be trusted.

    DeLong's variance is that of two samples, so Student's t with Welch and Satterthwaite's degrees of freedom is used.

    DeLong's is not used when a class has fewer than `FEW_PATIENTS` patients or its variance is 0 (an AUC of 0 or 1,
    where it would be a point). Newcombe's (2006, method 5) needs the AUC and the class sizes only and never collapses.
    Several cases of a patient are a cluster (Obuchowski, 1997); Newcombe's then counts patients.

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
    index = patient_index(patients, len(true))
    pull = placements(true, scores).pull
    variance = pull_variance(true, pull, index)
    sizes = len(np.unique(index[true])), len(np.unique(index[~true]))
    if min(sizes) < FEW_PATIENTS or not variance > 0:
        low, high = newcombe_auc(area, *sizes, level)
        return Estimate(name, area, low, high, len(true), "Newcombe's score interval", level)
    spread = float(t.ppf(0.5 + level / 2, pull_freedom(true, pull, index))) * math.sqrt(variance)
    half = spread / (area * (1 - area))
    low, high = expit(logit(area) - half), expit(logit(area) + half)
    return Estimate(name, area, float(low), float(high), len(true), "DeLong on the logit scale", level)


def newcombe_auc(area: float, m: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of an AUC from class sizes alone (Newcombe, Statistics in Medicine 25:559, 2006, method 5)."""
    z, star = float(norm.ppf(0.5 + level / 2)), (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + star * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (area - theta) ** 2 - z * z * theta * (1 - theta) * spread / (m * n)

    tiny = 1e-9
    low = brentq(excess, 0.0, min(area, 1 - tiny)) if area > tiny else 0.0
    high = brentq(excess, max(area, tiny), 1.0) if area < 1 - tiny else 1.0
    return float(low), float(high)
