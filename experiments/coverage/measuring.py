"""One row of the page: an interval, drawn again and again, and how often it held the truth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from he2her2.statistics import Estimate

Interval: TypeAlias = tuple[float, float]

MANY = 200_000
"""Cases that stand for a population where its truth has no formula."""

OWN = "Bayesian bootstrap, Jeffreys' prior"
OWN_KAPPA = "Bayesian bootstrap, two priors"


@dataclass(frozen=True)
class Names:
    """Subject of a row.

    Attributes:
        figure: What was estimated.
        method: How.
        cases: From how many.
        truth: Under which truth.
    """

    figure: str
    method: str
    cases: str
    truth: str

    @property
    def seed(self) -> list[int]:
        """The seed of its draws: other rows have others, and a study alone draws what it draws among all."""
        return list(f"{self.figure}{self.method}{self.cases}{self.truth}".encode())


@dataclass(frozen=True)
class Row:
    """One measured coverage.

    Attributes:
        names: What it is about.
        coverage: Share of the intervals that hold the truth.
        width: Their mean width.
    """

    names: Names
    coverage: float
    width: float


def measured(names: Names, truth: float, draws: int, draw: Callable[[np.random.Generator], Estimate]) -> Row:
    """Coverage by simulation: draw cohorts, make the interval of each, count those that hold the truth."""
    rng = np.random.default_rng(names.seed)
    limits = np.array([ends(draw(rng)) for _ in range(draws)])
    inside = (limits[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= limits[:, 1])
    return Row(names, float(inside.mean()), float((limits[:, 1] - limits[:, 0]).mean()))


def ends(estimate: Estimate) -> Interval:
    """Lower and upper end."""
    return estimate.low, estimate.high
