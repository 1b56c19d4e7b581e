"""A study planned before it begins: the patients that each of its goals needs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from he2her2.errors import EvaluationError
from he2her2.pages import render
from he2her2.statistics import (
    Estimate,
    Expected,
    Needed,
    auc_limits,
    exact_binomial,
    for_auc_above,
    for_auc_width,
    for_calibration_slope,
    for_development,
    for_net_benefit,
    for_observed_expected,
    for_sensitivity,
    for_specificity,
    for_threshold,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Expectations and goals of a study.

    Attributes:
        prevalence: Share of positives.
        auc: Expected AUC.
        auc_width: Width of its interval.
        above: A value that it is to be shown to exceed.
        rival: AUC of a rival on the same patients that it is to be shown to exceed; None without one.
        correlation: Of both AUCs.
        miss: Share of positives that may be missed.
        true_miss: Share that is expected to be missed; None is half of `miss`.
        threshold: Threshold probability of the net benefit.
        parameters: Of a regression to be developed; None where none is.
        power: Chance to show what is to be shown.
        confidence: Of guarantees.
        n: Patients that there are; None where the number is asked for.
    """

    prevalence: float = 0.15
    auc: float = 0.8
    auc_width: float = 0.1
    above: float = 0.5
    rival: float | None = None
    correlation: float = 0.5
    miss: float = 0.05
    true_miss: float | None = None
    threshold: float = 0.1
    parameters: int | None = None
    power: float = 0.8
    confidence: float = 0.95
    n: int | None = None

    @property
    def expected(self) -> Expected:
        """Prevalence and AUC, checked.

        Raises:
            EvaluationError: One of them is impossible.
        """
        try:
            return Expected(self.prevalence, self.auc)
        except ValueError as error:
            raise EvaluationError(f"{error}; got {self.prevalence:g} and {self.auc:g}") from None

    @property
    def missed(self) -> float:
        """Share of positives that is expected to be missed."""
        return self.miss / 2 if self.true_miss is None else self.true_miss

    @property
    def specificity(self) -> float:
        """Specificity where as many positives are missed, if scores are normal in each class with one variance.

        Example:
            >>> round(Plan(auc=0.8, miss=0.1).specificity, 2)
            0.32
        """
        return float(norm.cdf(norm.ppf(self.missed) + self.expected.distance))


def needed(plan: Plan) -> tuple[Needed, ...]:
    """The patients that each goal of a plan needs.

    Raises:
        EvaluationError: An expectation is impossible.
    """
    return tuple(_needed(plan))


def _needed(plan: Plan) -> Iterator[Needed]:
    expected = plan.expected
    yield for_auc_width(expected, plan.auc_width)
    yield for_auc_above(expected, plan.above, power=plan.power)
    if plan.rival is not None:
        yield for_auc_above(expected, plan.rival, correlation=plan.correlation, power=plan.power)
    yield for_threshold(expected, plan.miss, plan.confidence)
    yield for_sensitivity(expected, plan.miss, plan.missed, power=plan.power, confidence=plan.confidence)
    yield for_specificity(expected, round(plan.specificity, 2))
    yield for_observed_expected(expected)
    yield for_calibration_slope(expected)
    yield for_net_benefit(expected, *_at_threshold(expected, plan.threshold), plan.threshold)
    if plan.parameters is not None:
        yield from for_development(expected, plan.parameters)


def _at_threshold(expected: Expected, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of calling those whose true probability reaches a threshold."""
    d, line = expected.distance, float(np.log(threshold / (1 - threshold)))
    share = float(np.log(expected.prevalence / (1 - expected.prevalence)))
    cut = (line - share + d * d / 2) / d  # on the scale of the scores, where negatives have mean 0
    return float(norm.sf(cut - d)), float(norm.cdf(cut))


def shown_by(plan: Plan) -> tuple[Estimate, ...]:
    """Intervals that a study of a given number of patients would have, if all is as expected.

    Raises:
        EvaluationError: No number is given, it leaves a class without patients, or an expectation is impossible.
    """
    n = plan.n or 0
    m = round(n * plan.prevalence)
    if not 0 < m < n:
        raise EvaluationError(f"{n} patients of whom {100 * plan.prevalence:g} % are positive leave a class empty")
    low, high = auc_limits(plan.auc, math.nan, m, n - m)  # with the variance that is expected
    return (
        Estimate("AUC", plan.auc, low, high, n, "score interval"),
        exact_binomial(round(m * plan.missed), m, name="share of positives missed"),
        exact_binomial(round((n - m) * plan.specificity), n - m, name="specificity"),
    )


def plan_lines(plan: Plan) -> str:
    """Lines to print of a plan."""
    shown = shown_by(plan) if plan.n is not None else ()
    return render("plan.txt", plan=plan, needed=needed(plan), shown=shown).rstrip("\n")
