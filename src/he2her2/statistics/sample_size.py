"""Patients that a study needs, before it begins.

External evaluation: Riley et al., Stat Med 2021;40:4230-4251 (calibration, c-statistic, net benefit). Development:
Riley et al., Stat Med 2019;38:1276-1296, with the R-squared that an AUC implies (Riley et al., Stat Med
2021;40:859-864). AUC against a value or a rival: Hanley and McNeil, Radiology 1982;143:29-36 and 1983;148:839-843.
Scores are taken to be normal in each class with one variance (binormal), so that the true logit is so, too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom, norm

from he2her2.statistics.intervals import LEVEL, exact_binomial
from he2her2.statistics.operating_point import positives_needed
from he2her2.statistics.outcomes import require_share

_MOST = 10_000_000
_GRID = 4001
_TEETH = 3
_SMALLEST_SHARE = 1e-3
_REACH = 9.0
_SHRINKAGE, _OPTIMISM, _RISK_MARGIN = 0.9, 0.05, 0.05


@dataclass(frozen=True, slots=True)
class Needed:
    """Patients that one goal needs.

    Attributes:
        goal: In words.
        n: Patients; None where no number reaches it.
        n_positive: Of them, the expected positives.
    """

    goal: str
    n: int | None
    n_positive: int | None

    @classmethod
    def of_all(cls, goal: str, n: float | None, prevalence: float) -> "Needed":
        """Of a number of patients, of whom a share is positive."""
        if n is None or not math.isfinite(n):
            return cls(goal, None, None)
        return cls(goal, math.ceil(n - 1e-9), math.ceil(n * prevalence - 1e-9))

    @classmethod
    def of_class(cls, goal: str, k: int | None, share: float, prevalence: float) -> "Needed":
        """Of a number of patients of a class that has a share."""
        return cls.of_all(goal, None if k is None else k / share, prevalence)


@dataclass(frozen=True, slots=True)
class Expected:
    """Expectations of a study.

    Attributes:
        prevalence: Share of positives.
        auc: Of the model.
    """

    prevalence: float
    auc: float

    def __post_init__(self) -> None:
        if not (0 < self.prevalence < 1 and 0.5 < self.auc < 1):
            raise ValueError("a prevalence lies between 0 and 1, an AUC between 0.5 and 1")

    @property
    def distance(self) -> float:
        """Distance of the classes' mean scores in standard deviations."""
        return math.sqrt(2) * float(norm.ppf(self.auc))

    def mean(self, of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
        """Expectation of a function of the true logit."""
        z = np.linspace(-_REACH, _REACH, _GRID)
        weight = norm.pdf(z) / norm.pdf(z).sum()
        share = math.log(self.prevalence / (1 - self.prevalence))
        d = self.distance
        means = [float(weight @ of(share + d * (z + shift) - d * d / 2)) for shift in (d, 0.0)]
        return self.prevalence * means[0] + (1 - self.prevalence) * means[1]

    @property
    def r_squared(self) -> float:
        """Cox and Snell's R-squared that the AUC implies."""
        likelihood = self.mean(lambda line: expit(line) * line - np.logaddexp(0, line))
        return 1 - math.exp(-2 * (likelihood - self._null))

    @property
    def most_r_squared(self) -> float:
        """The greatest R-squared at this prevalence."""
        return 1 - math.exp(2 * self._null)

    @property
    def _null(self) -> float:
        p = self.prevalence
        return p * math.log(p) + (1 - p) * math.log(1 - p)


def for_observed_expected(expected: Expected, width: float = 0.2) -> Needed:
    """For an interval of observed over expected so wide, if it is 1."""
    z = float(norm.ppf(0.5 + LEVEL / 2))
    error = math.asinh(width / 2) / z  # exp(z e) - exp(-z e) = width
    n = (1 - expected.prevalence) / (expected.prevalence * error**2)
    return Needed.of_all(f"observed / expected within ± {width / 2:g}", n, expected.prevalence)


def for_calibration_slope(expected: Expected, width: float = 0.2) -> Needed:
    """For an interval of the calibration slope so wide, if it is 1."""
    error = width / (2 * float(norm.ppf(0.5 + LEVEL / 2)))
    a = expected.mean(lambda line: expit(line) * expit(-line))
    b = expected.mean(lambda line: line**2 * expit(line) * expit(-line))
    ab = expected.mean(lambda line: line * expit(line) * expit(-line))
    n = a / (error**2 * (a * b - ab**2))
    return Needed.of_all(f"calibration slope within ± {width / 2:g}", n, expected.prevalence)


def for_auc_width(expected: Expected, width: float = 0.1) -> Needed:
    """For an interval of the AUC so wide (Newcombe's standard error, method 4)."""
    z, c, p = float(norm.ppf(0.5 + LEVEL / 2)), expected.auc, expected.prevalence

    def wide(n: int) -> bool:
        more = (n / 2 - 1) * ((1 - c) / (2 - c) + c / (1 + c))
        return 2 * z * math.sqrt(c * (1 - c) * (1 + more) / (n * n * p * (1 - p))) > width

    return Needed.of_all(f"AUC within ± {width / 2:g}", _fewest(lambda n: not wide(n)), p)


def for_net_benefit(
    expected: Expected, sensitivity: float, specificity: float, threshold: float, width: float = 0.2
) -> Needed:
    """For an interval of the standardised net benefit (1: all positives found, no needless test) so wide."""
    for value, name in ((sensitivity, "sensitivity"), (specificity, "specificity"), (threshold, "threshold")):
        require_share(value, name)
    p = expected.prevalence
    worth = (1 - p) / p * threshold / (1 - threshold)
    error = width / (2 * float(norm.ppf(0.5 + LEVEL / 2)))
    spread = sensitivity * (1 - sensitivity) / p
    spread += worth**2 * specificity * (1 - specificity) / (1 - p)
    spread += worth**2 * (1 - specificity) ** 2 / (p * (1 - p))
    return Needed.of_all(f"standardised net benefit at {threshold:g} within ± {width / 2:g}", spread / error**2, p)


def _auc_error(area: float, n_positive: float, n_negative: float) -> float:
    """Standard error of an AUC by Hanley and McNeil (1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (n_positive - 1) * (q1 - area**2) + (n_negative - 1) * (q2 - area**2)
    return math.sqrt(spread / (n_positive * n_negative))


def for_auc_above(expected: Expected, other: float, *, correlation: float | None = None, power: float = 0.8) -> Needed:
    """To show that the AUC is above another value, or above that of a rival on the same patients.

    Args:
        expected: With the model's AUC.
        other: The value, or the rival's AUC.
        correlation: Of both AUCs on the same patients; None where the other is a fixed value.
        power: Chance to show it.
    """
    p, gap = expected.prevalence, expected.auc - other
    z_alpha, z_power = float(norm.ppf(0.5 + LEVEL / 2)), float(norm.ppf(power))
    goal = f"AUC shown to be above {other:g}" if correlation is None else f"AUC shown to be above a rival's {other:g}"

    def enough(n: int) -> bool:
        own, rival = (_auc_error(area, n * p, n * (1 - p)) for area in (expected.auc, other))
        if correlation is None:
            return gap >= z_alpha * rival + z_power * own
        return gap >= (z_alpha + z_power) * math.sqrt(own**2 + rival**2 - 2 * correlation * own * rival)

    return Needed.of_all(goal, _fewest(enough) if gap > 0 else None, p)


def for_threshold(expected: Expected, budget: float, confidence: float = LEVEL) -> Needed:
    """Validation patients, to choose a threshold that misses at most a share of the positives."""
    goal = f"validation: a threshold that misses at most {100 * budget:g} % ({100 * confidence:g} % sure)"
    return Needed.of_class(goal, positives_needed(budget, confidence), expected.prevalence, expected.prevalence)


def for_sensitivity(
    expected: Expected, budget: float, true_missed: float, *, power: float = 0.8, confidence: float = LEVEL
) -> Needed:
    """Test patients, to show that at most a share of the positives is missed (exact one-sided limit).

    Args:
        expected: With the prevalence.
        budget: The share to be excluded.
        true_missed: The share that is truly missed; below the budget.
        power: Chance to show it.
        confidence: Of the limit.
    """
    goal = f"test: at most {100 * budget:g} % missed is shown, if {100 * true_missed:g} % are"

    def enough(k: int) -> bool:
        allowed = _most_misses(k, budget, confidence)
        return allowed >= 0 and float(binom.cdf(allowed, k, true_missed)) >= power

    k = _fewest(enough, tooth=1 / budget) if true_missed < budget else None
    return Needed.of_class(goal, k, expected.prevalence, expected.prevalence)


def _most_misses(k: int, budget: float, confidence: float) -> int:
    """Most misses among k positives whose one-sided upper limit does not exceed the budget; -1 if none may be."""
    found = int(binom.ppf(1 - confidence, k, budget))
    while found >= 0 and binom.cdf(found, k, budget) > 1 - confidence + 1e-12:
        found -= 1
    return found


def for_specificity(expected: Expected, specificity: float, width: float = 0.1) -> Needed:
    """For an exact interval of the specificity so wide, and with it of the tests saved."""

    def enough(k: int) -> bool:
        found = exact_binomial(round(specificity * k), k)
        return found.high - found.low <= width

    share, k = 1 - expected.prevalence, _fewest(enough, tooth=1 / max(1 - specificity, _SMALLEST_SHARE))
    return Needed.of_class(f"specificity of {specificity:g} within ± {width / 2:g}", k, share, expected.prevalence)


def for_development(expected: Expected, parameters: int, r_squared: float | None = None) -> tuple[Needed, ...]:
    """To develop a regression with so many parameters: shrinkage of 0.9, optimism and risk within 0.05.

    Args:
        expected: Prevalence, and the AUC that implies an R-squared.
        parameters: Candidate predictors' parameters.
        r_squared: Cox and Snell's, in place of that of the AUC.
    """
    r2, p = expected.r_squared if r_squared is None else r_squared, expected.prevalence
    loose = r2 / (r2 + _OPTIMISM * expected.most_r_squared)

    def for_shrinkage(shrinkage: float) -> float:
        return parameters / ((shrinkage - 1) * math.log(1 - r2 / shrinkage))

    z = 1.96  # as the authors print it
    goals = (
        (f"development: {parameters} parameters shrunk by at most 10 %", for_shrinkage(_SHRINKAGE)),
        ("development: optimism of R² at most 0.05", for_shrinkage(loose)),
        ("development: overall risk within ± 0.05", p * (1 - p) * (z / _RISK_MARGIN) ** 2),
    )
    return tuple(Needed.of_all(goal, n, p) for goal, n in goals)


def _fewest(enough: Callable[[int], bool], *, tooth: float = 0) -> int | None:
    """The smallest number from which on all are enough; None beyond ten million.

    Args:
        enough: Of a number.
        tooth: Numbers after which what is enough may rise again, as with the next whole miss: few more, then not.
    """
    low, high = 3, 4
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    reach = math.ceil(_TEETH * tooth)
    while short := next((k for k in range(high + reach, high, -1) if not enough(k)), 0):
        high = short + 1
    return high
