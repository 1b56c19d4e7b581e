"""Decision rules, chosen on validation patients and kept beside the weights in `decision_rules.json`.

Calibration corrects a probability, an operating point calls a patient positive or negative, a triage refers some to
IHC. Here they are defined and applied; `he2her2.evaluation` chooses them.
"""

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from statistics import fmean
from typing import Annotated, Literal, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from he2her2.labels import Her2Status

RULES_FILE = "decision_rules.json"
RULES_VERSION = 1
DIGITS = 6
"""Decimals of a probability as predictions write it; rules are chosen and applied on rounded probabilities."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Share = Annotated[float, Ge(0), Le(1)]
_Inner = Annotated[float, Gt(0), Lt(1)]

Threshold: TypeAlias = Annotated[float, Gt(0), Le(1)]
"""Probability from which a slide, or a place of a map, is called: in settings and in the cards of weights."""

_NEARLY_1 = 1 - 1e-6  # above it fifteen digits would change a logit

PatientRule: TypeAlias = Literal["mean", "max"]
_PATIENT_RULES: Mapping[PatientRule, Callable[[list[float]], float]] = {"mean": fmean, "max": max}


def is_called(probability: float, threshold: float) -> bool:
    """True if a probability calls a slide positive, both rounded as predictions write them.

    Example:
        >>> is_called(0.4999997, 0.5), is_called(0.4999994, 0.5), is_called(3 / 7, 3 / 7)
        (True, False, True)
    """
    return round(probability, DIGITS) >= round(threshold, DIGITS)


def are_called(probabilities: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """`is_called` of each of many probabilities, in their shape."""
    return np.asarray(np.vectorize(is_called, otypes=[np.bool_])(probabilities, threshold))


def combine(rule: PatientRule, probabilities: ArrayLike) -> float:
    """A patient's probability from those of the slides; evaluation chooses rules on it, prediction applies them to it.

    `max` calls a patient positive as soon as one slide is, so more slides mean more calls; `mean` does not depend on
    their number. Digits beyond the fifteenth are those of the machine's sums: by them patients of equal slides in
    another order would rank apart.

    Args:
        rule: Mean or greatest of the slides'.
        probabilities: (n,) of the patient's slides, as predictions write them; at least one.

    Example:
        >>> combine("mean", [0.1, 0.2, 0.3]), combine("max", [0.25, 0.75])
        (0.2, 0.75)
    """
    combined = _PATIENT_RULES[rule](np.asarray(probabilities, dtype=np.float64).ravel().tolist())
    return combined if combined > _NEARLY_1 else float(f"{combined:.15g}")


def patient_caution(rule: PatientRule) -> str:
    """Caution at a slide's own call, where the stored rules hold for patients.

    Example:
        >>> patient_caution("mean")
        'the stored rules are for patients, by the mean of their slides: with several see patients.csv'
    """
    return f"the stored rules are for patients, by the {rule} of their slides: with several see patients.csv"


@dataclass(frozen=True, config=_STRICT)
class ShareEstimate:
    """A share of patients with its interval."""

    value: _Share
    low: _Share
    high: _Share
    level: _Inner = 0.95


def slides_in_words(slides: tuple[int, int]) -> str:
    """Fewest and most slides of a patient.

    Example:
        >>> slides_in_words((1, 1)), slides_in_words((2, 2)), slides_in_words((1, 3))
        ('one slide each', '2 slides each', '1 to 3 slides each')
    """
    fewest, most = slides
    if most == 1:
        return "one slide each"
    return f"{most} slides each" if fewest == most else f"{fewest} to {most} slides each"


def _guaranteed_for(rule: PatientRule | None, slides: tuple[int, int] | None) -> str:
    """Patients for whom a guarantee holds, in words.

    Example:
        >>> _guaranteed_for("mean", (1, 4))
        'patients like the validation patients: 1 to 4 slides each, by the mean over their slides'
    """
    like = "patients like the validation patients"
    if rule is None:
        return f"{like}, of one slide each (how several were joined is not recorded)"
    return like + (f": {slides_in_words(slides)}," if slides else ":") + f" by the {rule} over their slides"


@dataclass(frozen=True, config=_STRICT)
class OperatingPoint:
    """Threshold on the probability, with its guarantee.

    The guarantee: with `confidence` over the choice of validation patients, at most `budget` of the HER2-positive
    patients like them are called negative. It holds for patients, not for slides: for the probability that `combine`
    makes of a patient's slides by `patient_rule`, from about as many slides as the validation patients have. It does
    not extend to patients of another site.

    Attributes:
        threshold: Positive from this probability on; 0 calls every patient positive.
        budget: Share of positives that may be missed.
        confidence: Confidence of the guarantee.
        n_fresh: Positives of the cohort for which the guarantee is given; None for the whole population.
        n_positive: Positive validation patients.
        n_negative: Negative validation patients.
        missed: Validation positives below the threshold.
        miss_upper_bound: Upper bound of the share of positives missed, at `confidence`.
        saved: Share of patients called negative, who need no IHC, at `prevalence`.
        ppv: Positive predictive value at `prevalence`; None where nobody is called positive.
        npv: Negative predictive value at `prevalence`; None where nobody is called negative.
        prevalence: Share of positives for which `saved`, `ppv` and `npv` hold.
        chosen_on: The validation patients, in words.
        patient_rule: A patient's probability from those of the slides, see `combine`; None where the file is from
            before it was recorded.
        slides_per_patient: Fewest and most slides of a validation patient; None likewise.
    """

    threshold: _Share
    budget: _Inner
    confidence: _Inner
    n_fresh: NonNegativeInt | None
    n_positive: NonNegativeInt
    n_negative: NonNegativeInt
    missed: NonNegativeInt
    miss_upper_bound: _Share
    saved: ShareEstimate
    ppv: ShareEstimate | None
    npv: ShareEstimate | None
    prevalence: _Share
    chosen_on: str
    patient_rule: PatientRule | None = None
    slides_per_patient: tuple[PositiveInt, PositiveInt] | None = None

    @property
    def guaranteed_for(self) -> str:
        """The patients for whom the guarantee holds; said wherever the guarantee is."""
        return _guaranteed_for(self.patient_rule, self.slides_per_patient)

    def is_positive(self, probability: float) -> bool:
        """True if a patient of this (uncalibrated) probability is called positive; nan is."""
        return math.isnan(probability) or is_called(probability, self.threshold)

    def status(self, probability: float) -> Her2Status:
        """HER2 status of a patient of this (uncalibrated) probability; nan is positive."""
        return Her2Status.POSITIVE if self.is_positive(probability) else Her2Status.NEGATIVE


class Arm(StrEnum):
    """Outcome of a triage for a patient."""

    RULE_OUT = "rule out"
    REFER = "refer to IHC"
    RULE_IN = "rule in"


@dataclass(frozen=True, config=_STRICT)
class Arms:
    """Share of patients in each arm of a triage."""

    rule_out: ShareEstimate
    refer: ShareEstimate
    rule_in: ShareEstimate


@dataclass(frozen=True, config=_STRICT)
class Triage:
    """Two thresholds: below the lower a patient is ruled out, from the higher on ruled in, between them sent to IHC.

    Attributes:
        rule_out_below: HER2-negative without IHC below this probability.
        rule_in_from: HER2-positive without IHC from this probability on; above 1 nobody is.
        miss_budget: Share of positives that may be ruled out.
        false_budget: Share of negatives that may be ruled in.
        confidence: Confidence of both guarantees; None where they hold on average (conformal risk control).
        n_positive: Positive validation patients.
        n_negative: Negative validation patients.
        arms: Share of patients in each arm, at `prevalence`.
        prevalence: Share of positives for which `arms` holds.
        chosen_on: The validation patients, in words.
        patient_rule: A patient's probability from those of the slides, see `combine`; the guarantees hold for it
            only. None where the file is from before it was recorded.
        slides_per_patient: Fewest and most slides of a validation patient; None likewise.
        clipped: True if a limit was moved to the threshold that calls, which lies between them.
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
    patient_rule: PatientRule | None = None
    slides_per_patient: tuple[PositiveInt, PositiveInt] | None = None
    clipped: bool = False

    def __post_init__(self) -> None:
        """Check that the thresholds do not cross."""
        if self.rule_in_from < self.rule_out_below:
            raise ValueError("rule_in_from lies below rule_out_below")

    @property
    def guaranteed_for(self) -> str:
        """The patients for whom the guarantees hold; said wherever the guarantee is."""
        return _guaranteed_for(self.patient_rule, self.slides_per_patient)

    def holds(self, threshold: float) -> bool:
        """True if a threshold lies between both limits, so that nobody is called against the arm."""
        low, written, high = (round(end, DIGITS) for end in (self.rule_out_below, threshold, self.rule_in_from))
        return low <= written <= high

    def arm(self, probability: float) -> Arm:
        """The arm of a patient of this (uncalibrated) probability; nan is referred."""
        if is_called(probability, self.rule_in_from):
            return Arm.RULE_IN
        return Arm.REFER if math.isnan(probability) or is_called(probability, self.rule_out_below) else Arm.RULE_OUT


@dataclass(frozen=True, config=_STRICT)
class LogitCalibration:
    """Probabilities corrected on the logit scale: logit p' = slope · logit p + shift.

    Attributes:
        slope: 1 / temperature; at least 0, so that the order of patients stays.
        shift: 0 for temperature scaling.
        chosen_on: The validation patients, in words.
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
    """Probabilities corrected by a rising piecewise linear curve, constant beyond its ends.

    Attributes:
        x: Probabilities, rising.
        y: Corrected probabilities, not falling.
        chosen_on: The validation patients, in words.
    """

    x: tuple[_Share, ...]
    y: tuple[_Share, ...]
    chosen_on: str
    kind: Literal["isotonic"] = "isotonic"

    def __post_init__(self) -> None:
        """Check that the curve rises."""
        if not self.x or len(self.x) != len(self.y):
            raise ValueError("x and y must be equally many knots, at least one")
        if list(self.x) != sorted(set(self.x)) or list(self.y) != sorted(self.y):
            raise ValueError("x must rise and y must not fall")

    def __call__(self, probability: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities, of the shape of `probability`."""
        return np.asarray(np.interp(np.asarray(probability, dtype=np.float64), self.x, self.y), dtype=np.float64)


Calibration: TypeAlias = LogitCalibration | IsotonicCalibration

_MOST_LOGIT = 14.0
"""About the logit of 1 - 1e-6, the highest probability below 1 that predictions write."""


def logit_of(probability: ArrayLike) -> NDArray[np.float64]:
    """Logit of probabilities, kept within ± 14."""
    p = np.asarray(probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        odds: NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return np.clip(odds, -_MOST_LOGIT, _MOST_LOGIT)


@dataclass(frozen=True, config=_STRICT)
class DecisionRules:
    """Decision rules of a folder of weights.

    Attributes:
        weights: By role, the SHA-256 of the network.
        operating_point: Threshold on the uncalibrated probability.
        triage: Thresholds on the uncalibrated probability.
        calibration: Correction of the probability.
        version: Of this format.
    """

    weights: Mapping[str, str]
    operating_point: OperatingPoint | None = None
    triage: Triage | None = None
    calibration: Calibration | None = None
    version: PositiveFloat = RULES_VERSION

    @property
    def patient_rule(self) -> PatientRule | None:
        """Rule that makes a patient's probability of the slides'; None where it was not recorded."""
        parts = (self.operating_point, self.triage)
        return next((part.patient_rule for part in parts if part is not None), None)
