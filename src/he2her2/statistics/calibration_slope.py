"""Calibration on the logit scale: intercept, slope, observed over expected positives, and a smooth curve.

The intercept is that of a logistic regression of the outcome with the logit of the probability as offset
(calibration in the large: 0 is right, above 0 the probabilities are too low); the slope that of a regression on the
logit (1 is right, below 1 the probabilities are too extreme): Cox, Biometrika 1958;45:562-565; Van Calster et al., BMC
Medicine 2019;17:230. Intervals are by profile likelihood, which also holds where one end is infinite, as for a score
that separates the classes. One case a patient.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import chi2, norm

from he2her2.rules import logit_of
from he2her2.statistics.intervals import LEVEL, Estimate, exact_binomial
from he2her2.statistics.outcomes import outcomes_and_probabilities

_Floats = NDArray[np.float64]

_METHOD = "profile likelihood"
_FARTHEST = 1e4
"""A limit beyond is infinite."""

_KNOTS = (0.1, 0.5, 0.9)
"""Quantiles of the logit (Harrell, Regression Modeling Strategies, 2nd edition, table 2.3)."""

_POINTS = 41
_STEPS = 50


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of a smooth calibration curve, with its pointwise interval.

    Attributes:
        predicted: Probability.
        observed: Share of positives at it.
        low: Lower end.
        high: Upper end.
    """

    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """Calibration of probabilities on the logit scale.

    Attributes:
        intercept: Calibration in the large, in logits; 0 is right.
        slope: 1 is right; below it probabilities are too extreme.
        ratio: Observed over expected number of positives; 1 is right.
        curve: Share of positives over the probability, by restricted cubic spline; empty where cases are too few.
    """

    intercept: Estimate
    slope: Estimate
    ratio: Estimate
    curve: tuple[CurvePoint, ...]


def calibration_line(truth: ArrayLike, probability: ArrayLike, *, level: float = LEVEL) -> CalibrationLine:
    """Intercept, slope, observed over expected, and smooth curve of probabilities, each with its interval.

    Args:
        truth: (n,) bool, one value a patient.
        probability: (n,) in [0, 1]; 0 and 1 count as 1e-6 away from them.
        level: Confidence level.

    Raises:
        ValueError: The lists differ in length, or a probability is nan or outside [0, 1].
    """
    true, p = outcomes_and_probabilities(truth, probability)
    logits = logit_of(p)
    return CalibrationLine(
        _intercept(true, logits, level),
        _slope(true, logits, level),
        observed_over_expected(true, p, level),
        _curve(true, logits, level),
    )


def _intercept(truth: NDArray[np.bool_], logits: _Floats, level: float) -> Estimate:
    name, n = "calibration intercept", len(truth)
    if not n:
        return Estimate(name, math.nan, -math.inf, math.inf, 0, "no cases", level)

    def likelihood(shift: float) -> float:
        return log_likelihood(truth, logits + shift)

    if 0 < truth.sum() < n:
        best = _best_shift(truth, logits)
        low, high = _limits(likelihood, best, likelihood(best), level)
        return Estimate(name, best, low, high, n, _METHOD, level)
    end = _FARTHEST if truth.all() else -_FARTHEST
    low, high = _limits(likelihood, end, 0.0, level)
    low, high = (low, math.inf) if truth.all() else (-math.inf, high)
    return Estimate(name, math.nan, low, high, n, _METHOD, level)


def _slope(truth: NDArray[np.bool_], logits: _Floats, level: float) -> Estimate:
    name, n = "calibration slope", len(truth)
    if not 0 < truth.sum() < n or np.ptp(logits) == 0:
        return Estimate(name, math.nan, -math.inf, math.inf, n, "a class is absent, or all scores equal", level)
    spread = float(logits.std())
    scaled = (logits - logits.mean()) / spread

    def likelihood(slope: float) -> float:
        return log_likelihood(truth, slope * scaled + _best_shift(truth, slope * scaled))

    separated = 1 if scaled[truth].min() >= scaled[~truth].max() else 0
    separated -= scaled[truth].max() <= scaled[~truth].min()
    fitted = None if separated else fit_logistic(np.stack([np.ones(n), scaled], axis=1), truth)
    if fitted is None:  # separated, or so nearly that no steepest slope can be computed
        separated = separated or (1 if scaled[truth].mean() > scaled[~truth].mean() else -1)
        far = separated * _FARTHEST
        inner = _limits(likelihood, far, likelihood(far), level)[0 if separated > 0 else 1] / spread
        low, high = (inner, math.inf) if separated > 0 else (-math.inf, inner)
        return Estimate(name, math.nan, low, high, n, _METHOD, level)
    best = float(fitted[0][1])
    low, high = _limits(likelihood, best, likelihood(best), level)
    return Estimate(name, best / spread, low / spread, high / spread, n, _METHOD, level)


def observed_over_expected(truth: NDArray[np.bool_], probability: _Floats, level: float = LEVEL) -> Estimate:
    """Positive cases over those that the probabilities expect, with the exact interval of the observed share.

    Args:
        truth: (n,)
        probability: (n,) in [0, 1].
        level: Of the interval.
    """
    name, n, expected = "observed / expected", len(truth), float(probability.sum())
    if not expected:
        return Estimate(name, math.nan, 0.0, math.inf, n, "nothing is expected", level)
    share = exact_binomial(int(truth.sum()), n, level=level)
    value, low, high = (end * n / expected for end in (share.value, share.low, share.high))
    return Estimate(name, value, low, high, n, share.method, level)


def _curve(truth: NDArray[np.bool_], logits: _Floats, level: float) -> tuple[CurvePoint, ...]:
    """Logistic regression on a restricted cubic spline of the logit (Van Calster et al., J Clin Epidemiol 2016;74:167).

    Drawn from the 5th smallest to the 5th largest probability; empty where knots coincide or no one curve fits best.
    """
    knots = np.quantile(logits, _KNOTS) if len(logits) else np.zeros(3)
    if len(logits) < 20 or np.diff(knots).min() <= 0:
        return ()
    fitted = fit_logistic(_spline(logits, knots), truth)
    if fitted is None:
        return ()
    coefficients, covariance = fitted
    ordered = np.sort(logits)
    at = np.linspace(ordered[4], ordered[-5], _POINTS)
    columns = _spline(at, knots)
    line = columns @ coefficients
    half = norm.ppf(0.5 + level / 2) * np.sqrt(np.einsum("ij,jk,ik->i", columns, covariance, columns))
    ends = zip(expit(at), expit(line), expit(line - half), expit(line + half), strict=True)
    return tuple(CurvePoint(*map(float, four)) for four in ends)


def _spline(x: _Floats, knots: _Floats) -> _Floats:
    """(n, 3) columns of a restricted cubic spline of three knots: 1, x, and one that is linear beyond the knots."""
    first, middle, last = knots
    above = [np.maximum(x - knot, 0) ** 3 for knot in (first, middle, last)]
    inner = above[0] - above[1] * (last - first) / (last - middle) + above[2] * (middle - first) / (last - middle)
    return np.stack([np.ones(len(x)), x, inner / (last - first) ** 2], axis=1)


def fit_logistic(columns: _Floats, truth: NDArray[np.bool_]) -> tuple[_Floats, _Floats] | None:
    """Logistic regression without penalty, by Newton's method.

    Args:
        columns: (n, k) with the constant.
        truth: (n,) bool.

    Returns:
        (k,) coefficients and (k, k) covariance; None where the likelihood has no maximum (the classes separate), or
        many (the columns depend on each other, as a spline's do over two values).
    """
    if np.linalg.matrix_rank(columns) < columns.shape[1]:
        return None
    coefficients, before = np.zeros(columns.shape[1]), -math.inf
    scale = float(np.linalg.eigvalsh(columns.T @ columns)[0])
    for _ in range(_STEPS):
        line = columns @ coefficients
        p = expit(line)
        information = (columns * (p * (1 - p))[:, None]).T @ columns
        if np.linalg.eigvalsh(information)[0] < 1e-7 * scale:
            return None
        reached = log_likelihood(truth, line)
        if abs(reached - before) < 1e-10 * (1 + abs(reached)):
            return coefficients, np.linalg.inv(information)
        step, before = np.linalg.solve(information, columns.T @ (truth - p)), reached
        while log_likelihood(truth, columns @ (coefficients + step)) < reached - 1e-9:
            step = step / 2
        coefficients = coefficients + step
    return None


def log_likelihood(truth: NDArray[np.bool_], logits: _Floats) -> float:
    """Logarithm of the likelihood of outcomes (n,) under logits (n,)."""
    return -float(np.logaddexp(0, np.where(truth, -logits, logits)).sum())


def _best_shift(truth: NDArray[np.bool_], logits: _Floats) -> float:
    """The shift of all logits at which as many positives are expected as there are, of both classes."""
    reach = float(np.abs(logits).max()) + math.log(len(truth)) + 1
    return float(brentq(lambda shift: float(expit(logits + shift).sum() - truth.sum()), -reach, reach, xtol=1e-10))


def _limits(likelihood: Callable[[float], float], best: float, most: float, level: float) -> tuple[float, float]:
    """Both values at which twice the log likelihood has fallen by chi-squared's quantile; infinite if none is near."""
    least = most - float(chi2.ppf(level, 1)) / 2

    def excess(value: float) -> float:
        return likelihood(value) - least

    ends = []
    for way in (-1, 1):
        step = 0.1
        while excess(best + way * step) > 0 and step < 4 * _FARTHEST:
            step *= 2
        found = step < 4 * _FARTHEST
        ends.append(float(brentq(excess, best, best + way * step, xtol=1e-8)) if found else way * math.inf)
    return ends[0], ends[1]
