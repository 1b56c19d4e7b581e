"""Shares, counts, means and kappa with confidence intervals; their coverage: experiments/results/coverage.md."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm, t

from he2her2.statistics.metrics import BinaryCounts, confusion_cells, quadratic_kappa, quadratic_kappas
from he2her2.statistics.outcomes import outcomes, require_share
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
_SAME_SHARE = 1e-9

Patients: TypeAlias = Sequence[str] | NDArray[np.str_] | NDArray[np.intp] | None
"""The patient of every case; None when each case is a patient of its own."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its confidence interval.

    Attributes:
        name: Of the figure.
        value: The figure; nan where it is undefined (0/0).
        low: Lower end; the lowest possible value where nothing is known.
        high: Upper end.
        n: Cases that the figure rests on (for a sensitivity: the positives).
        method: Of the interval.
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
        interval = f"{100 * self.level:g} % interval {self.low:.2f} to {self.high:.2f}"
        return f"{self._value_text(2)} ({interval}, n = {self.n})"

    @property
    def is_defined(self) -> bool:
        """False where the figure is 0/0."""
        return not math.isnan(self.value)

    def text(self, digits: int = 2) -> str:
        """The figure with its interval; "undefined" where it is nan. A share is shown as 0 or 1 only if it is.

        Example:
            >>> Estimate("AUC", 0.714, 0.6, 0.8, 10, "").text(), Estimate("AUC", 0.998, 0.99, 1, 900, "").text()
            ('0.71 (0.60 to 0.80)', '0.998 (0.99 to 1.00)')
        """
        if not self.is_defined:
            return "undefined"
        return f"{self._value_text(digits)} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    def percent(self, digits: int = 0) -> str:
        """A share with its interval in per cent; "undefined" where it is nan. It is shown as 0 or 100 % only if it is.

        Example:
            >>> Estimate("sensitivity", 0.875, 0.47, 1, 8, "").percent()
            '88 % (47 to 100 %)'
            >>> Estimate("sensitivity", 0.9975, 0.986, 1, 400, "").percent()
            '99.8 % (99 to 100 %)'
        """
        if not self.is_defined:
            return "undefined"
        low, high = (f"{100 * number:.{digits}f}" for number in (self.low, self.high))
        return f"{self._value_text(digits, 100)} % ({low} to {high} %)"

    def _value_text(self, digits: int, whole: int = 1) -> str:
        """The figure with so many digits; a share of a whole with as many as tell it from 0 and from the whole."""
        is_between = self.low >= 0 and self.high <= 1 and _SAME_SHARE < self.value < 1 - _SAME_SHARE
        while is_between and float(f"{whole * self.value:.{digits}f}") in (0, whole):
            digits += 1
        return f"{round(whole * self.value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"

    @property
    def negated(self) -> "Estimate":
        """A difference with its sides exchanged."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)


def exact_binomial(k: float, n: float, *, name: str = "rate", level: float = LEVEL) -> Estimate:
    """A share with its Clopper-Pearson interval, which covers at least `level` whatever the truth is.

    Args:
        k: Hits.
        n: Independent cases; 0 gives nan in [0, 1].
        name: Of the figure.
        level: Confidence level.

    Raises:
        ValueError: k is outside [0, n], or the level is no share.

    Example:
        >>> print(exact_binomial(7, 8))
        0.88 (95 % interval 0.47 to 1.00, n = 8)
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    low, high = _clopper_pearson(k, n, level)
    return Estimate(name, k / n if n else math.nan, low, high, round(n), "Clopper-Pearson", level)


def _clopper_pearson(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share; k and n may be fractions (effective counts of clustered cases)."""
    require_share(level, "level")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def wilson_limits(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a share (Wilson, 1927): right on average only; [0, 1] without cases."""
    if n == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + level / 2))
    centre, half = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    return max(0.0, (centre - half) / (n + z * z)), min(1.0, (centre + half) / (n + z * z))


def rate(hits: ArrayLike, patients: Patients = None, *, name: str = "rate", level: float = LEVEL) -> Estimate:
    """A share of cases: exact when every patient has one case, else exact on the effective number of cases.

    Several cases of a patient are not independent. Their number is divided by the design effect that the data
    shows, at best 1 and at worst that of patients whose cases are all alike (Rao and Scott, 1992; Korn and Graubard,
    1998); the worst is taken when all hits are equal, since then the data shows nothing.

    Args:
        hits: (n,) bool.
        patients: (n,) their patients.
        name: Of the figure.
        level: Confidence level.
    """
    hit = outcomes(hits, "hits")
    index = patient_index(patients, len(hit))
    sizes = np.bincount(index)
    if len(sizes) == len(hit):
        return exact_binomial(int(hit.sum()), len(hit), name=name, level=level)
    share = float(hit.mean())
    effective = _effective_cases(sum_by_patient(hit.astype(float), index), sizes, level)
    low, high = _clopper_pearson(share * effective, effective, level)
    return Estimate(name, share, low, high, len(hit), "Clopper-Pearson on effective cases (Korn-Graubard)", level)


def _effective_cases(hits: NDArray[np.float64], sizes: NDArray[np.intp], level: float) -> float:
    """Number of independent cases with the same information, from (p,) hits and (p,) cases of each patient."""
    n, p = int(sizes.sum()), len(sizes)
    share = float(hits.sum()) / n
    least = n * n / float((sizes.astype(float) ** 2).sum())
    residuals = hits - share * sizes
    clustered = float(residuals @ residuals) * p / max(1, p - 1) / n**2
    shown = share * (1 - share) / clustered if clustered > 0 else least
    adjust = float(t.ppf(0.5 + level / 2, n - 1) / t.ppf(0.5 + level / 2, p - 1)) ** 2 if p > 1 else 1.0
    return min(float(n), max(least, shown)) * adjust


def counts_interval(
    metric: Callable[[BinaryCounts], float], counts: BinaryCounts, *, name: str | None = None
) -> Estimate:
    """A figure of four counts, every case being a patient of its own, with its bootstrap interval (`resampling`).

    Args:
        metric: Such as `metrics.mcc`.
        counts: Whole numbers.
        name: Of the figure; the metric's own name by default.
    """
    cells = [round(count) for count in (counts.tp, counts.fp, counts.tn, counts.fn)]
    tables = np.repeat(np.eye(4), cells, axis=0)
    return interval_of_draws(name or _name(metric), metric(counts), draw_counts(metric, tables), sum(cells))


def decision_interval(
    metric: Callable[[BinaryCounts], float],
    truth: ArrayLike,
    decided: ArrayLike,
    patients: Patients = None,
    *,
    name: str | None = None,
    seed: int = 0,
) -> Estimate:
    """A figure of decisions with its interval by patient (`resampling`).

    Args:
        metric: Such as `metrics.balanced_accuracy`.
        truth: (n,) bool.
        decided: (n,) bool.
        patients: (n,) their patients.
        name: Of the figure; the metric's own name by default.
        seed: Of the draws.
    """
    counts = BinaryCounts.of(truth, decided)
    tables = cells_by_patient(truth, decided, patient_index(patients, int(counts.n)))
    values = draw_counts(metric, tables, seed=seed)
    return interval_of_draws(name or _name(metric), metric(counts), values, int(counts.n))


def _name(metric: Callable[[BinaryCounts], float]) -> str:
    return str(getattr(metric, "__name__", "figure")).replace("_", " ")


_BOOTSTRAP = "Bayesian bootstrap by patient"


def interval_of_draws(name: str, value: float, values: NDArray[np.float64], n: int, level: float = LEVEL) -> Estimate:
    """The middle `level` of the draws, widened to hold the figure itself."""
    low, high = middle_of_draws(values, value, level)
    return Estimate(name, value, float(low), float(high), n, _BOOTSTRAP, level)


def middle_of_draws(
    draws: NDArray[np.float64], value: ArrayLike, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the middle `level` of draws along their first axis, widened to hold the figure itself, if it has one."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    defined = ~np.isnan(value)
    return np.where(defined, np.minimum(low, value), low), np.where(defined, np.maximum(high, value), high)


def mean_interval(
    values: ArrayLike,
    patients: Patients = None,
    *,
    name: str = "mean",
    between: tuple[float, float] | None = None,
    level: float = LEVEL,
) -> Estimate:
    """A mean over cases with its interval by patient (`resampling`).

    Args:
        values: (n,) of the cases, at least one.
        patients: (n,) their patients.
        name: Of the figure.
        between: The least and the greatest value that can be; half a patient with each keeps the interval of few cases
            that are all alike from being a point.
        level: Confidence level.

    Example:
        >>> print(mean_interval([0.1, 0.4, 0.2], ["a", "b", "b"], between=(0, 1)))
        0.23 (95 % interval 0.08 to 0.73, n = 3)
    """
    own = np.asarray(values, dtype=np.float64)
    every = np.append(own, between or ())
    index = patient_index(patients, len(own))
    blocks = draw_weights(index, pseudo_cases=len(every) - len(own), n_draws=N_DRAWS // 2, seed=0)
    draws = np.concatenate([weights @ every / weights.sum(axis=1) for weights in blocks])
    return interval_of_draws(name, float(own.mean()), draws, len(own), level)


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

    Raises:
        ValueError: A class is no whole number in 0 .. k - 1, or the lists differ in length.
    """
    cells = confusion_cells(truth, decided, k)
    index = patient_index(patients, len(cells))
    p = int(index.max()) + 1 if len(index) else 0
    tables = np.bincount(index * k * k + cells, minlength=p * k * k).reshape(p, k * k).astype(float)
    # Two priors: a pseudo-patient of agreement and half a one without, or one of random scores. Each shifts the kappa
    # of few patients its own way, so the interval spans both of theirs.
    agrees = np.where(np.eye(k, dtype=bool), 1 / k, 0.5 / (k * (k - 1))).ravel()
    random = np.full(k * k, 1 / k**2)
    value = quadratic_kappa(tables.sum(axis=0).reshape(k, k))
    ends = []
    for prior in (agrees, random):
        draws = draw_tables(tables, prior=prior, n_draws=N_DRAWS, seed=seed).reshape(-1, k, k)
        ends.append(interval_of_draws("quadratic kappa", value, quadratic_kappas(draws), len(cells), level))
    return replace(ends[0], low=min(end.low for end in ends), high=max(end.high for end in ends))
