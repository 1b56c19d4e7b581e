"""Calibration of probabilities: Brier score, calibration error, reliability curve, and its correction."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, isotonic_regression, minimize, minimize_scalar

from he2her2.errors import EvaluationError
from he2her2.rules import IsotonicCalibration, LogitCalibration, logit_of
from he2her2.statistics.calibration_slope import log_likelihood
from he2her2.statistics.intervals import LEVEL, Estimate, Patients, mean_interval, rate
from he2her2.statistics.outcomes import outcomes_and_probabilities
from he2her2.statistics.resampling import patient_index, sum_by_patient

_N_BINS = 10
_FEWEST_IN_BIN = 10
_NOISE_DRAWS = 2000
_LUCKY = 0.25
"""Quantile of the errors that perfect probabilities show; the upper limit is never that of a smaller error."""


def brier_interval(truth: ArrayLike, probability: ArrayLike, patients: Patients = None) -> Estimate:
    """Brier score (mean squared distance of probability and truth; 0 is best) with its interval by patient.

    Nan without cases.

    Args:
        truth: (n,) bool.
        probability: (n,) in [0, 1].
        patients: (n,) their patients.
    """
    true, p = outcomes_and_probabilities(truth, probability)
    if not len(p):
        return Estimate("Brier score", math.nan, 0.0, 1.0, 0, "no cases")
    return mean_interval((p - true) ** 2, patients, name="Brier score", between=(0, 1))


def _equal_mass_bins(probability: NDArray[np.float64], n_bins: int | None = None) -> NDArray[np.intp]:
    """Sort cases into bins of about equally many, equal probabilities always together.

    Args:
        probability: (n,) in [0, 1].
        n_bins: Most bins; by default 10, or fewer so that each holds about 10.

    Returns:
        (n,) bin of each case, 0 .. b - 1, rising with the probability, none empty.
    """
    n = len(probability)
    wanted = max(1, min(_N_BINS, n // _FEWEST_IN_BIN)) if n_bins is None else n_bins
    below = np.searchsorted(np.sort(probability), probability, side="left")
    return np.unique(below * wanted // max(1, n), return_inverse=True)[1].reshape(-1).astype(np.intp)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Cases of similar probability.

    Attributes:
        predicted: Their mean probability.
        observed: The share of them that is positive.
    """

    predicted: float
    observed: Estimate


def reliability_curve(
    truth: ArrayLike, probability: ArrayLike, patients: Patients = None
) -> tuple[ReliabilityBin, ...]:
    """Share of positives over the probability, in bins of about equally many cases.

    Args:
        truth: (n,) bool.
        probability: (n,) in [0, 1].
        patients: (n,) their patients.
    """
    true, p = outcomes_and_probabilities(truth, probability)
    bins, index = _equal_mass_bins(p), patient_index(patients, len(p))
    members = [bins == k for k in range(int(bins.max()) + 1)] if len(p) else []
    return tuple(
        ReliabilityBin(float(p[inside].mean()), rate(true[inside], index[inside], name="share of positives"))
        for inside in members
    )


def calibration_error(truth: ArrayLike, probability: ArrayLike, *, n_bins: int | None = None) -> float:
    """Expected calibration error: mean distance of the share of positives from the probability over the bins.

    This plain figure is too large for few cases, even for perfect probabilities; `calibration_error_interval` corrects
    it. Nan without cases.

    Args:
        truth: (n,) bool.
        probability: (n,) in [0, 1].
        n_bins: Most bins; see `_equal_mass_bins`.
    """
    true, p = outcomes_and_probabilities(truth, probability)
    if not len(p):
        return math.nan
    return float(np.abs(np.bincount(_equal_mass_bins(p, n_bins), true - p)).sum()) / len(p)


def calibration_error_interval(
    truth: ArrayLike,
    probability: ArrayLike,
    patients: Patients = None,
    *,
    n_bins: int | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Calibration error less the part expected by chance, with its interval.

    A gap in a bin is a true gap plus binomial noise, and noise adds up in a mean of distances. So the true gaps are
    assumed to be a multiple of those that a smooth correction closes (`recalibrate_site`; the observed gaps contain the
    noise already). The interval holds the errors under which the observed plain figure lies in the middle `level` of
    its distribution; the value is the error under which it is the median. It is 0 where perfect probabilities show as
    much in half of all samples. Several cases of a patient widen the noise by their design effect.

    Args:
        truth: (n,) bool.
        probability: (n,) in [0, 1].
        patients: (n,) their patients.
        n_bins: Most bins; see `_equal_mass_bins`.
        level: Confidence level.
        seed: Of the noise.
    """
    true, p = outcomes_and_probabilities(truth, probability)
    if not len(p):
        return Estimate("calibration error", math.nan, 0.0, 1.0, 0, "no cases", level)
    bins = _equal_mass_bins(p, n_bins)
    smooth = np.bincount(bins, recalibrate_site(true, p, chosen_on="these cases")(p) - p)
    noise = np.sqrt(_gap_variance(true, bins) * _design_effect(true - p, patient_index(patients, len(p))))
    draws = np.random.default_rng(seed).standard_normal((_NOISE_DRAWS, len(smooth))) * noise
    seen, total = calibration_error(true, p, n_bins=n_bins), float(np.abs(smooth).sum())
    direction = smooth / total if total else np.full(len(smooth), 1 / len(smooth))
    tail = (1 - level) / 2
    lucky = float(np.quantile(np.abs(draws).sum(axis=1), _LUCKY))
    value, low = (_error_showing(seen, direction, draws, quantile) for quantile in (0.5, 1 - tail))
    high = _error_showing(max(seen, lucky), direction, draws, tail)
    return Estimate("calibration error", value, low, high, len(p), "noise taken off by inversion", level)


def _gap_variance(truth: NDArray[np.bool_], bins: NDArray[np.intp]) -> NDArray[np.float64]:
    """(b,) binomial variance of each bin's part in the mean gap, from shares that are never 0 or 1 (Laplace's rule)."""
    sizes = np.bincount(bins)
    shares = (np.bincount(bins, truth.astype(float)) + 1) / (sizes + 2)
    variance: NDArray[np.float64] = sizes * shares * (1 - shares) / len(truth) ** 2
    return variance


def _design_effect(residuals: NDArray[np.float64], index: NDArray[np.intp]) -> float:
    """Ratio of the variance of sums by patient to that of independent cases; at least 1."""
    alone = float(residuals @ residuals)
    together = sum_by_patient(residuals, index)
    return max(1.0, float(together @ together) / alone) if alone else 1.0


def _error_showing(seen: float, direction: NDArray[np.float64], noise: NDArray[np.float64], quantile: float) -> float:
    """The error in [0, 1] under which `seen` is a quantile of the plain figure; 0 when even no error shows more."""

    def excess(error: float) -> float:
        shown = np.abs(error * direction + noise).sum(axis=1)
        return float(np.quantile(shown, quantile)) - seen

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, 1.0, xtol=1e-4)) if excess(1.0) > 0 else 1.0


def fit_temperature(truth: ArrayLike, probability: ArrayLike, *, chosen_on: str) -> LogitCalibration:
    """Temperature scaling (Guo et al., ICML 2017): one factor on all logits.

    Args:
        truth: (n,) bool, validation patients of both classes.
        probability: (n,) in [0, 1].
        chosen_on: The patients, in words.

    Raises:
        EvaluationError: A class is absent.
    """
    true, p = _both_classes(truth, probability, chosen_on)
    logits = logit_of(p)
    best = minimize_scalar(
        lambda log_slope: -log_likelihood(true, math.exp(log_slope) * logits), bounds=_LOG_SLOPES, method="bounded"
    )
    return LogitCalibration(math.exp(best.x), 0.0, chosen_on)


_LOG_SLOPES = (-4.0, 4.0)


def fit_isotonic(truth: ArrayLike, probability: ArrayLike, *, chosen_on: str) -> IsotonicCalibration:
    """Isotonic regression: any rising curve. It needs some hundred patients; with few it fits their noise.

    Args:
        truth: (n,) bool, validation patients of both classes.
        probability: (n,) in [0, 1].
        chosen_on: The patients, in words.

    Raises:
        EvaluationError: A class is absent.
    """
    true, p = _both_classes(truth, probability, chosen_on)
    x, group, sizes = np.unique(p, return_inverse=True, return_counts=True)
    shares = np.bincount(group, true) / sizes
    y = np.clip(isotonic_regression(shares, weights=sizes).x, 0, 1)
    level = np.diff(y) == 0
    kept = ~(np.append(False, level) & np.append(level, False))  # inside a level stretch a knot says nothing
    return IsotonicCalibration(tuple(x[kept].tolist()), tuple(y[kept].tolist()), chosen_on)


_SLOPE_SPREAD = 0.5
"""Of the logarithm of the slope between sites: most sites need a temperature between 0.4 and 2.7."""

_SHIFT_SPREAD = 1.5
"""Of the shift between sites, in logits: odds a few times higher or lower are common."""


def recalibrate_site(truth: ArrayLike, probability: ArrayLike, *, chosen_on: str) -> LogitCalibration:
    """Fit probabilities to a new site from a few labelled patients, as few as 8 and of one class only.

    Platt scaling with normal priors around no change, of spread 0.5 of the log slope and 1.5 logits of the shift: the
    fewer patients, the smaller the change. Thresholds are not moved: their guarantee needs validation patients of the
    new site.

    Args:
        truth: (k,) bool.
        probability: (k,) in [0, 1].
        chosen_on: The patients, in words.
    """
    true, p = outcomes_and_probabilities(truth, probability)
    logits = logit_of(p)

    def loss(parameters: NDArray[np.float64]) -> float:
        log_slope, shift = parameters.tolist()
        prior: float = (log_slope / _SLOPE_SPREAD) ** 2 / 2 + (shift / _SHIFT_SPREAD) ** 2 / 2
        return prior - log_likelihood(true, math.exp(log_slope) * logits + shift)

    log_slope, shift = minimize(loss, np.zeros(2), bounds=[_LOG_SLOPES, (-10.0, 10.0)]).x.tolist()
    return LogitCalibration(math.exp(log_slope), shift, chosen_on)


def _both_classes(
    truth: ArrayLike, probability: ArrayLike, chosen_on: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    true, p = outcomes_and_probabilities(truth, probability)
    if not 0 < true.sum() < len(true):
        raise EvaluationError(f"{chosen_on}: calibration needs patients of both classes, there is only one")
    return true, p
