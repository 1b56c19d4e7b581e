"""Decision rules chosen on validation patients, their results on the evaluated ones, and those that a run has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias, TypeVar

from annotated_types import Gt, Lt
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from he2her2.errors import EvaluationError
from he2her2.evaluation.cases import Cases, Joined
from he2her2.evaluation.summary import CLINIC_PREVALENCE, Reliability, reliability
from he2her2.results import RunFolder
from he2her2.rules import Arm, Calibration, DecisionRules, OperatingPoint, PatientRule, Triage, slides_in_words
from he2her2.statistics import (
    LEVEL,
    Estimate,
    OperatingPointResult,
    arm_counts,
    choose_operating_point,
    choose_triage,
    fit_isotonic,
    fit_temperature,
    operating_point_result,
    rate,
)

CalibrationMethod: TypeAlias = Literal["temperature", "isotonic", "none"]

_FITS: Mapping[CalibrationMethod, Callable[..., Calibration]] = {
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
}
_Share: TypeAlias = Annotated[float, Gt(0), Lt(1)]
_T = TypeVar("_T")


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Budgets:
    """Error budgets of the decision rules.

    Attributes:
        miss: Share of positives that may be missed, and ruled out.
        false: Share of negatives that may be ruled in.
        confidence: Confidence of the operating point's guarantee.
        prevalence: Share of positives in the clinic.
        calibration: Method that corrects probabilities.
    """

    miss: _Share = 0.05
    false: _Share = 0.05
    confidence: _Share = LEVEL
    prevalence: _Share = CLINIC_PREVALENCE
    calibration: CalibrationMethod = "temperature"


@dataclass(frozen=True, slots=True)
class ChosenRules:
    """Decision rules chosen on validation patients.

    Attributes:
        chosen_on: The validation patients in words.
        n: Their number.
        n_positive: The number of positive ones.
        point: Operating point; None if the patients are too few for it.
        triage: Likewise.
        calibration: Correction of the probability; None if it was not asked for or the patients are too few.
        refusals: Reasons why a rule could not be chosen, a sentence each.
    """

    chosen_on: str
    n: int
    n_positive: int
    point: OperatingPoint | None
    triage: Triage | None
    calibration: Calibration | None
    refusals: tuple[str, ...]

    def rules(self, weights: Mapping[str, str]) -> DecisionRules:
        """The rules as they are kept beside the weights, whose hashes are given by role."""
        return DecisionRules(weights, self.point, self.triage, self.calibration)


def choose_rules(
    validation: Cases,
    chosen_on: str,
    budgets: Budgets,
    patient_rule: PatientRule = "mean",
    slides_per_patient: tuple[int, int] = (1, 1),
) -> ChosenRules:
    """Choose operating point, triage and calibration on validation patients, each only if there are enough of them.

    The triage's limits hold the threshold that calls between them: the operating point's, or without one the run's.

    Args:
        validation: Patients that are not evaluated.
        chosen_on: Their name.
        budgets: Error budgets.
        patient_rule: That made their probabilities from those of the slides; kept with the rules.
        slides_per_patient: Fewest and most slides of one of them; likewise.
    """
    refusals: list[str] = []

    def attempt(choose: Callable[[], _T]) -> _T | None:
        try:
            return choose()
        except EvaluationError as error:
            refusals.append(str(error))
            return None

    truth, probability = validation.truth, validation.probability
    joined_by = f"{chosen_on}, by the {patient_rule} over their slides ({slides_in_words(slides_per_patient)})"
    point = attempt(
        lambda: choose_operating_point(
            truth,
            probability,
            budget=budgets.miss,
            chosen_on=joined_by,
            confidence=budgets.confidence,
            prevalence=budgets.prevalence,
        )
    )
    triage = attempt(
        lambda: choose_triage(
            truth,
            probability,
            miss_budget=budgets.miss,
            false_budget=budgets.false,
            chosen_on=joined_by,
            prevalence=budgets.prevalence,
            threshold=validation.threshold if point is None else point.threshold,
        )
    )
    fit = _FITS.get(budgets.calibration)
    calibration = None if fit is None else attempt(lambda: fit(truth, probability, chosen_on=chosen_on))
    if point is not None:
        point = replace(point, patient_rule=patient_rule, slides_per_patient=slides_per_patient)
    if triage is not None:
        triage = replace(triage, patient_rule=patient_rule, slides_per_patient=slides_per_patient)
    return ChosenRules(
        chosen_on, len(validation), validation.n_positive, point, triage, calibration, tuple(dict.fromkeys(refusals))
    )


@dataclass(frozen=True, slots=True)
class ArmResult:
    """Evaluated patients in one arm of a triage.

    Attributes:
        arm: The arm.
        share: Of the evaluated patients.
        n_positive: Positives in it.
        n_negative: Negatives in it.
    """

    arm: Arm
    share: Estimate
    n_positive: int
    n_negative: int


@dataclass(frozen=True, slots=True)
class TriageResult:
    """Result of a triage on the evaluated patients.

    Attributes:
        arms: Every arm.
        missed: Share of positives ruled out.
        alarmed: Share of negatives ruled in.
    """

    arms: tuple[ArmResult, ...]
    missed: Estimate
    alarmed: Estimate


@dataclass(frozen=True, slots=True)
class AppliedRules:
    """Results of chosen rules on the evaluated patients.

    Attributes:
        choice: The rules, chosen on other patients.
        here: Result of the operating point on these patients.
        in_clinic: The same at the clinic's prevalence.
        triage: Result of the triage.
        calibrated: Reliability of the corrected probabilities.
    """

    choice: ChosenRules
    here: OperatingPointResult | None
    in_clinic: OperatingPointResult | None
    triage: TriageResult | None
    calibrated: Reliability | None


def apply_rules(choice: ChosenRules, tested: Cases, prevalence: float) -> AppliedRules:
    """Apply chosen rules to patients on whom they were not chosen.

    Args:
        choice: The rules.
        tested: The patients.
        prevalence: Share of positives in the clinic.
    """
    truth, probability, patients = tested.truth, tested.probability, tested.patients
    here = in_clinic = None
    if choice.point is not None:
        here = operating_point_result(choice.point, truth, probability, patients)
        if 0 < tested.n_positive < len(tested):
            in_clinic = operating_point_result(choice.point, truth, probability, patients, prevalence=prevalence)
    return AppliedRules(
        choice,
        here,
        in_clinic,
        None if choice.triage is None else _triage_result(choice.triage, tested),
        None if choice.calibration is None else reliability(tested, choice.calibration),
    )


def _triage_result(triage: Triage, tested: Cases) -> TriageResult:
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


def check_patient_rule(run: RunFolder, joined: Joined) -> None:
    """Raise where a run's threshold was chosen for another probability of a patient than the one that is evaluated.

    Only patients of several slides are concerned: for the others all rules give the same.

    Raises:
        EvaluationError: The run's operating point was chosen by another rule.
    """
    chosen = stored_patient_rule(run, joined)
    if chosen not in ("unrecorded", None, joined.rule):
        raise EvaluationError(
            f"{run.path}: was predicted with an operating point chosen on the {chosen} over a patient's slides, and "
            f"patients are joined by the {joined.rule} here; pass --patient {chosen}, or predict with "
            "--set stored_rules=false"
        )


def stored_patient_rule(run: RunFolder, joined: Joined) -> PatientRule | Literal["unrecorded"] | None:
    """The rule that the run's stored operating point was chosen for; None without one, or without several slides."""
    if joined.slides_per_patient[1] == 1:
        return None
    results = (run.result(slide_id) for slide_id in joined.slides.ids.tolist())
    her2 = next((result.her2 for result in results if result is not None), None)
    if her2 is None or her2.operating_point is None:
        return None
    return her2.operating_point.patient_rule or "unrecorded"
