"""Figures with their intervals, as people read them."""

from dataclasses import replace

from he2her2.statistics.intervals import Estimate


def span(estimate: Estimate, digits: int = 2) -> str:
    """A figure with its interval.

    Example:
        >>> span(Estimate("AUC", 0.714, 0.6, 0.8, 10, ""))
        '0.71 (0.60 to 0.80)'
    """
    value, low, high = (f"{number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def negated(estimate: Estimate) -> Estimate:
    """A difference the other way round."""
    return replace(estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low)


def percent(estimate: Estimate, digits: int = 0) -> str:
    """A share with its interval.

    Example:
        >>> percent(Estimate("sensitivity", 0.875, 0.47, 1, 8, ""))
        '88 % (47 to 100 %)'
    """
    value, low, high = (f"{100 * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} % ({low} to {high} %)"
