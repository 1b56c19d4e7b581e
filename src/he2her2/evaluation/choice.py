"""What is chosen on validation patients, and what becomes of it on those of the test.

The test has no say: operating point, triage and calibration are chosen here on other patients, and then looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from he2her2.errors import EvaluationError
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.summary import CLINIC_PREVALENCE
from he2her2.rules import Arm, DecisionRules, IsotonicCalibration, LogitCalibration, OperatingPoint, Triage
from he2her2.statistics.calibration import (
    ReliabilityBin,
    brier_interval,
    calibration_error_interval,
    fit_isotonic,
    fit_temperature,
    reliability_curve,
)
from he2her2.statistics.intervals import LEVEL, Estimate, rate
from he2her2.statistics.operating_point import Outcome, choose_operating_point, outcome_of
from he2her2.statistics.triage import arm_counts, choose_triage

Calibration: TypeAlias = LogitCalibration | IsotonicCalibration
CalibrationKind: TypeAlias = Literal["temperature", "isotonic", "none"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What may go wrong how often.

    Attributes:
        miss: Share of positives that may be missed, and ruled out.
        false: Share of negatives that may be ruled in.
        confidence: How sure the operating point's promise must be.
        prevalence: Share of positives in the clinic.
        calibration: How probabilities are corrected.
    """

    miss: float = 0.05
    false: float = 0.05
    confidence: float = LEVEL
    prevalence: float = CLINIC_PREVALENCE
    calibration: CalibrationKind = "temperature"


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why the rest was not.

    Attributes:
        chosen_on: The validation patients in words.
        n: How many.
        n_positive: Of these.
        point: Whom to call positive.
        triage: Whom to send to IHC.
        calibration: What a probability is worth.
        refusals: Why something could not be chosen, a sentence each.
    """

    chosen_on: str
    n: int
    n_positive: int
    point: OperatingPoint | None
    triage: Triage | None
    calibration: Calibration | None
    refusals: tuple[str, ...]

    def rules(self, weights: Mapping[str, str]) -> DecisionRules:
        """As it is kept beside the weights, whose hashes are given by role."""
        return DecisionRules(weights, self.point, self.triage, self.calibration)


def choose(validation: Cases, chosen_on: str, wishes: Wishes) -> Choice:
    """Choose operating point, triage and calibration on validation patients; what they are too few for is refused.

    Args:
        validation: Patients that the test does not know.
        chosen_on: What to call them.
        wishes: What may go wrong how often.
    """
    refusals: list[str] = []

    def attempt(make: Callable[[], _T]) -> _T | None:
        try:
            return make()
        except EvaluationError as error:
            refusals.append(str(error))
            return None

    truth, probability = validation.truth, validation.probability
    point = attempt(
        lambda: choose_operating_point(
            truth,
            probability,
            budget=wishes.miss,
            chosen_on=chosen_on,
            confidence=wishes.confidence,
            prevalence=wishes.prevalence,
        )
    )
    triage = attempt(
        lambda: choose_triage(
            truth,
            probability,
            miss_budget=wishes.miss,
            false_budget=wishes.false,
            chosen_on=chosen_on,
            prevalence=wishes.prevalence,
        )
    )
    calibration: Calibration | None = None
    if wishes.calibration == "isotonic":
        calibration = attempt(lambda: fit_isotonic(truth, probability, chosen_on=chosen_on))
    elif wishes.calibration == "temperature":
        calibration = attempt(lambda: fit_temperature(truth, probability, chosen_on=chosen_on))
    return Choice(
        chosen_on, len(validation), validation.n_positive, point, triage, calibration, tuple(dict.fromkeys(refusals))
    )


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What one arm of a triage got.

    Attributes:
        arm: Which.
        share: Of the test patients.
        n_positive: Positives in it.
        n_negative: Negatives in it.
    """

    arm: Arm
    share: Estimate
    n_positive: int
    n_negative: int


@dataclass(frozen=True, slots=True)
class TriageResult:
    """What a triage did to the test patients.

    Attributes:
        arms: Every arm.
        missed: Share of positives ruled out.
        alarmed: Share of negatives ruled in.
    """

    arms: tuple[ArmResult, ...]
    missed: Estimate
    alarmed: Estimate


@dataclass(frozen=True, slots=True)
class Reliability:
    """What probabilities were worth.

    Attributes:
        brier: Brier score.
        error: Calibration error, less what chance alone makes.
        bins: Share of positives over the probability.
    """

    brier: Estimate
    error: Estimate
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a choice did to the test patients.

    Attributes:
        choice: Made on others.
        here: Outcome of the operating point among these patients.
        in_clinic: The same at the clinic's prevalence.
        triage: Of the triage.
        calibrated: Reliability of the corrected probabilities.
    """

    choice: Choice
    here: Outcome | None
    in_clinic: Outcome | None
    triage: TriageResult | None
    calibrated: Reliability | None


def apply(choice: Choice, tested: Cases, prevalence: float) -> Applied:
    """Look at what a choice does to patients that had no part in it."""
    truth, probability, patients = tested.truth, tested.probability, tested.patients
    here = in_clinic = None
    if choice.point is not None:
        here = outcome_of(choice.point, truth, probability, patients)
        if 0 < tested.n_positive < len(tested):
            in_clinic = outcome_of(choice.point, truth, probability, patients, prevalence=prevalence)
    return Applied(
        choice,
        here,
        in_clinic,
        None if choice.triage is None else triage_result(choice.triage, tested),
        None if choice.calibration is None else reliability(tested, choice.calibration),
    )


def triage_result(triage: Triage, tested: Cases) -> TriageResult:
    """Who went where."""
    positive, negative = (arm_counts(triage, tested.probability[kept]) for kept in (tested.truth, ~tested.truth))
    arms = []
    for arm in Arm:
        inside = [triage.arm(p) is arm for p in tested.probability.tolist()]
        share = rate(inside, tested.patients, name=f"share to {arm}")
        arms.append(ArmResult(arm, share, positive[arm], negative[arm]))
    return TriageResult(
        tuple(arms),
        _share_of(tested, triage, Arm.RULE_OUT, positives=True),
        _share_of(tested, triage, Arm.RULE_IN, positives=False),
    )


def _share_of(tested: Cases, triage: Triage, arm: Arm, *, positives: bool) -> Estimate:
    cases = tested.take(tested.truth == positives)
    hits = [triage.arm(p) is arm for p in cases.probability.tolist()]
    return rate(hits, cases.patients, name="positives ruled out" if positives else "negatives ruled in")


def reliability(cases: Cases, calibration: Calibration | None = None) -> Reliability:
    """What probabilities are worth, corrected where a calibration is given."""
    p = cases.probability if calibration is None else calibration(cases.probability)
    return Reliability(
        brier_interval(cases.truth, p, cases.patients),
        calibration_error_interval(cases.truth, p, cases.patients),
        reliability_curve(cases.truth, p, cases.patients),
    )
