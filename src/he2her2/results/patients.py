"""Patients of a run: the stored rules applied to each (`patients.csv`), and the slides that are theirs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from he2her2.csv_files import read_filled, write_csv
from he2her2.errors import EvaluationError
from he2her2.labels import Her2Status
from he2her2.results.tables import Failure, PredictedSlide
from he2her2.rules import DIGITS, DecisionRules, PatientRule, combine, is_called

_RULE: TypeAdapter[PatientRule] = TypeAdapter(PatientRule)


@dataclass(frozen=True, slots=True)
class PatientResult:
    """A row of `patients.csv`: the stored rules applied to a patient, by all slides that have a result.

    Attributes:
        patient_id: Of the manifest.
        status: HER2 status by the stored operating point; None without one, or where no slide has a result.
        probability: Of the slides, combined; NaN where no slide has a result.
        threshold: Of the operating point; None without one.
        calibrated_probability: Of `probability`; None without a stored calibration.
        triage: Arm of the stored triage; None without one.
        combined_by: Rule that combines the slides' probabilities: mean or max.
        slides: Slides with a result.
        failed: Slides without.
        guaranteed: Whether the guarantees of the rules hold: no slide failed or is unlike the training slides, and
            there are as many as the patients had on whom the rules were chosen.
        unlike: Slides with a result that are unlike the training slides of the weights; None in tables of runs that did
            not count them.
    """

    patient_id: str
    status: Her2Status | None
    probability: float
    threshold: float | None
    calibrated_probability: float | None
    triage: str | None
    combined_by: PatientRule
    slides: int
    failed: int
    guaranteed: bool
    unlike: int | None = 0

    @classmethod
    def of(
        cls, patient_id: str, rules: DecisionRules, probabilities: Sequence[float], failed: int, unlike: int = 0
    ) -> Self:
        """Apply stored rules to a patient.

        Args:
            patient_id: The patient.
            rules: With an operating point or a triage that says how slides are combined.
            probabilities: Of the slides that have a result.
            failed: Number of the other slides.
            unlike: Number of slides with a result that are unlike the training slides.
        """
        rule = rules.patient_rule
        assert rule is not None, "rules without it are not applied to patients"
        known = bool(probabilities)
        probability = round(combine(rule, probabilities), DIGITS) if known else math.nan
        point, triage, calibration = rules.operating_point, rules.triage, rules.calibration
        return cls(
            patient_id,
            point.status(probability) if point and known else None,
            probability,
            point.threshold if point else None,
            round(float(calibration(probability)), DIGITS) if calibration and known else None,
            str(triage.arm(probability)) if triage and known else None,
            rule,
            len(probabilities),
            failed,
            known and not failed and not unlike and _usual_number(rules, len(probabilities)),
            unlike,
        )

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> Self:
        """The patient of a row of text.

        Raises:
            KeyError: A cell is missing.
            ValueError: One makes no sense.
        """
        threshold, calibrated = (row[column] for column in ("threshold", "calibrated_probability"))
        status = Her2Status(row["status"]) if row["status"] else None
        probability = float(row["probability"] or math.nan)
        if status and threshold and (status == Her2Status.POSITIVE) != is_called(probability, float(threshold)):
            raise ValueError(f"it was changed: {row['patient_id']} is {status} with {probability:g} of {threshold}")
        return cls(
            row["patient_id"],
            status,
            probability,
            float(threshold) if threshold else None,
            float(calibrated) if calibrated else None,
            row["triage"] or None,
            _RULE.validate_python(row["combined_by"]),
            int(row["slides"]),
            int(row["failed"]),
            row["guaranteed"] == "yes",
            int(row["unlike"]) if row.get("unlike") else None,
        )


def _usual_number(rules: DecisionRules, n_slides: int) -> bool:
    """True if the patients on whom all rules were chosen had about so many slides."""
    ranges = [part.slides_per_patient for part in (rules.operating_point, rules.triage) if part is not None]
    return all(slides is not None and slides[0] <= n_slides <= slides[1] for slides in ranges)


def write_patient_results(file: Path, patients: Iterable[PatientResult]) -> None:
    """Write `patients.csv`; what is unknown is an empty cell.

    Raises:
        OutputError: It cannot be written.
    """
    rows = (tuple(_cell(value) for value in astuple(patient)) for patient in patients)
    write_csv(file, tuple(column.name for column in fields(PatientResult)), rows, line_end="\r\n")


def read_patient_results(file: Path) -> tuple[PatientResult, ...]:
    """The patients of a `patients.csv`; none where there is no such file.

    Raises:
        EvaluationError: It cannot be read.
    """
    if not file.is_file():
        return ()
    try:
        return tuple(PatientResult.of_row(row) for row in read_filled(file))
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"{file}: cannot be read ({error}); predict again") from None


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class RunPatient:
    """A patient with the slides that the run has of them.

    Attributes:
        patient_id: Of the manifest.
        slides: Outcome of each slide, by name, None where it has not ended or was segmented only; empty where the run
            did not note whose slides they are.
        result: The stored rules applied to these; None without rules, or while a slide has not ended.
    """

    patient_id: str
    slides: Mapping[str, PredictedSlide | Failure | None]
    result: PatientResult | None

    @property
    def disagree(self) -> bool:
        """True if the slides are not all called alike, each by itself."""
        return len({one.call for one in self.slides.values() if isinstance(one, PredictedSlide)}) > 1
