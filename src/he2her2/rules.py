"""What is decided from a probability, chosen on validation patients and kept beside the weights: `decision_rules.json`.

Calibration says what a probability is worth, an operating point which patients are called negative, a triage whom IHC
must still decide. Here they are applied and read; `he2her2.evaluation` chooses them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass

from he2her2.files import json_text
from he2her2.labels import Her2Status

RULES_FILE = "decision_rules.json"
RULES_VERSION = 1
DIGITS = 6
"""Of a probability, as predictions write it; rules are chosen on such and compare such."""

_STRICT = ConfigDict(extra="forbid")
_Share = Annotated[float, Ge(0), Le(1)]
_Inner = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True, config=_STRICT)
class Share:
    """A share of patients with its interval."""

    value: _Share
    low: _Share
    high: _Share
    level: _Inner = 0.95


@dataclass(frozen=True, config=_STRICT)
class OperatingPoint:
    """From which probability a patient is called positive, and what that promises.

    The promise: with `confidence` in the choice, at most `budget` of the HER2-positive patients of the same kind as the
    validation patients are called negative. It says nothing of patients from another site.

    Attributes:
        threshold: Positive from here on; a rule that calls everybody positive has 0.
        budget: Share of positives that may be missed.
        confidence: How sure the promise is.
        n_fresh: Positives of the cohort for which it is made; None for the whole population.
        n_positive: Validation patients it rests on.
        n_negative: Likewise.
        missed: Validation positives below the threshold.
        miss_upper_bound: Of the share of positives missed, at `confidence`.
        saved: Share of patients called negative, who need no IHC, at `prevalence`.
        ppv: Share of those called positive who are, at `prevalence`; None where nobody is.
        npv: Share of those called negative who are, at `prevalence`; None where nobody is.
        prevalence: Share of positives for which `saved`, `ppv` and `npv` hold.
        chosen_on: The patients it was chosen on, in words.
    """

    threshold: _Share
    budget: _Inner
    confidence: _Inner
    n_fresh: NonNegativeInt | None
    n_positive: NonNegativeInt
    n_negative: NonNegativeInt
    missed: NonNegativeInt
    miss_upper_bound: _Share
    saved: Share
    ppv: Share | None
    npv: Share | None
    prevalence: _Share
    chosen_on: str

    def status(self, probability: float) -> Her2Status:
        """HER2 status of a patient of this (uncalibrated) probability.

        A patient whose probability is no number is positive: the rule may only spare an IHC test where it knows.
        """
        return Her2Status.NEGATIVE if round(probability, DIGITS) < self.threshold else Her2Status.POSITIVE


class Arm(StrEnum):
    """What a triage does with a patient."""

    RULE_OUT = "rule out"
    REFER = "refer to IHC"
    RULE_IN = "rule in"


@dataclass(frozen=True, config=_STRICT)
class Arms:
    """Share of patients in each arm of a triage."""

    rule_out: Share
    refer: Share
    rule_in: Share


@dataclass(frozen=True, config=_STRICT)
class Triage:
    """Below one probability a patient is ruled out, from another on ruled in, in between IHC decides.

    Attributes:
        rule_out_below: HER2-negative without IHC below this probability.
        rule_in_from: HER2-positive without IHC from this probability on; above 1 nobody is.
        miss_budget: Share of positives that may be ruled out.
        false_budget: Share of negatives that may be ruled in.
        confidence: How sure both promises are; None where they hold on average over choices (conformal risk control).
        n_positive: Validation patients it rests on.
        n_negative: Likewise.
        arms: Share of patients in each arm, at `prevalence`.
        prevalence: Share of positives for which `arms` holds.
        chosen_on: The patients it was chosen on, in words.
    """

    rule_out_below: _Share
    rule_in_from: Annotated[float, Ge(0), Le(1.01)]
    miss_budget: _Inner
    false_budget: _Inner
    confidence: _Inner | None
    n_positive: NonNegativeInt
    n_negative: NonNegativeInt
    arms: Arms
    prevalence: _Share
    chosen_on: str

    def __post_init__(self) -> None:
        """Check that no patient is ruled in and out at once."""
        if self.rule_in_from < self.rule_out_below:
            raise ValueError("rule_in_from lies below rule_out_below")

    def arm(self, probability: float) -> Arm:
        """The arm of a patient of this (uncalibrated) probability; one that is no number is referred."""
        written = round(probability, DIGITS)
        if written < self.rule_out_below:
            return Arm.RULE_OUT
        return Arm.RULE_IN if written >= self.rule_in_from else Arm.REFER


@dataclass(frozen=True, config=_STRICT)
class LogitCalibration:
    """Probabilities corrected on the logit scale: logit p' = slope · logit p + shift.

    Attributes:
        slope: 1 / temperature; at least 0, so that the order of patients stays.
        shift: 0 for temperature scaling alone.
        chosen_on: The patients it was chosen on, in words.
    """

    slope: Annotated[float, Ge(0)]
    shift: float
    chosen_on: str
    kind: Literal["logit"] = "logit"

    def __call__(self, probability: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities, of the shape of `probability`."""
        z = self.slope * logit_of(probability) + self.shift
        return np.asarray(0.5 * (1 + np.tanh(z / 2)), dtype=np.float64)


@dataclass(frozen=True, config=_STRICT)
class IsotonicCalibration:
    """Probabilities corrected by a rising curve through knots, level beyond the outer ones.

    Attributes:
        x: Probabilities, rising.
        y: What they are worth, not falling.
        chosen_on: The patients it was chosen on, in words.
    """

    x: tuple[_Share, ...]
    y: tuple[_Share, ...]
    chosen_on: str
    kind: Literal["isotonic"] = "isotonic"

    def __post_init__(self) -> None:
        """Check that the knots make a rising curve."""
        if not self.x or len(self.x) != len(self.y):
            raise ValueError("x and y must be equally many knots, at least one")
        if list(self.x) != sorted(set(self.x)) or list(self.y) != sorted(self.y):
            raise ValueError("x must rise and y must not fall")

    def __call__(self, probability: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities, of the shape of `probability`."""
        return np.asarray(np.interp(np.asarray(probability, dtype=np.float64), self.x, self.y), dtype=np.float64)


MOST_LOGIT = 14.0
"""About the logit of 1 - 1e-6, the surest probability that predictions write."""


def logit_of(probability: ArrayLike) -> NDArray[np.float64]:
    """Logit of probabilities, kept within ± `MOST_LOGIT` where they are 0 or 1."""
    p = np.asarray(probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        odds: NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return np.clip(odds, -MOST_LOGIT, MOST_LOGIT)


@dataclass(frozen=True, config=_STRICT)
class DecisionRules:
    """Everything that is decided from these weights' probability.

    Attributes:
        weights: By role, the SHA-256 of the network that the probabilities came from.
        operating_point: Whom to call positive.
        triage: Whom to send to IHC.
        calibration: What a probability is worth; the other two look at the uncalibrated one.
        version: Of this format.
    """

    weights: Mapping[str, str]
    operating_point: OperatingPoint | None = None
    triage: Triage | None = None
    calibration: LogitCalibration | IsotonicCalibration | None = None
    version: PositiveFloat = RULES_VERSION


def rules_to_json(rules: DecisionRules) -> str:
    """Rules as JSON text, readable by people."""
    return json_text(rules)
