"""Labels of a public cohort: its patients, those that were left out by reason, and contradictions in its table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from he2her2.csv_files import write_csv
from he2her2.labels import Her2Status, IhcScore, Ish, Stratum

COLUMN_REMEDY = "name it by --column {field}=NAME"
"""Advice where a table lacks a column."""

_LABEL_COLUMNS = ("patient_id", "site", "ihc_score", "ish", "her2_status", "stratum", "rule")
_CONFLICT_COLUMNS = ("line", "patient_id", "conflict", "found", "resolution")


@dataclass(frozen=True, slots=True)
class LabelledPatient:
    """A patient of a cohort's table with the labels that follow from its tests.

    Attributes:
        patient_id: Its name in the manifest.
        case: What its slides' names are matched with.
        line: Line of the table.
        ihc_score: IHC score, where one was stated.
        ish: ISH result, where one could be used.
        status: HER2 status.
        stratum: HER2 stratum.
        rule: The rule behind the status.
        site: Laboratory or hospital.
    """

    patient_id: str
    case: str
    line: int
    ihc_score: IhcScore | None
    ish: Ish | None
    status: Her2Status
    stratum: Stratum
    rule: str
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two fields of a patient that cannot both be right.

    Attributes:
        line: Line of the table.
        patient_id: The patient.
        conflict: Its kind.
        found: The fields' values.
        resolution: How it was resolved.
    """

    line: int
    patient_id: str
    conflict: str
    found: str
    resolution: str


@dataclass(frozen=True, slots=True)
class ExcludedPatients:
    """Patients that were left out for one reason.

    Attributes:
        reason: The reason.
        patients: Their names.
    """

    reason: str
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CohortLabels:
    """A cohort's table with its contradictions resolved.

    Attributes:
        name: Name of the cohort.
        n_patients: Patients in the table.
        patients: Those that are labelled.
        exclusions: The others, by reason, in the order of the rules.
        conflicts: Every contradiction met.
        notes: Columns found under other names, columns about HER2 that are not read, lines that are no rows.
    """

    name: str
    n_patients: int
    patients: tuple[LabelledPatient, ...]
    exclusions: tuple[ExcludedPatients, ...]
    conflicts: tuple[Conflict, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        left_out = sum(len(exclusion.patients) for exclusion in self.exclusions)
        assert self.n_patients == len(self.patients) + left_out, "a patient was lost on the way"

    def funnel(self) -> tuple[str, ...]:
        """Lines that count the patients after each exclusion; they add up to the patients of the table."""
        lines = [f"{self.n_patients:6d} patients in the table"]
        left = self.n_patients
        for exclusion in self.exclusions:
            left -= len(exclusion.patients)
            lines.append(f"{-len(exclusion.patients):6d} {exclusion.reason}, {left} left")
        lines.append(f"{left:6d} labelled patients")
        for status in Her2Status:
            n = sum(patient.status == status for patient in self.patients)
            lines += [f"{n:6d} HER2 {status}"] if n else []
        return tuple(lines)


def exclusions_in_order(reasons: Sequence[str], found: Mapping[str, Sequence[str]]) -> tuple[ExcludedPatients, ...]:
    """Return the exclusions in the order of the rules, also those without a patient."""
    return tuple(ExcludedPatients(reason, tuple(found.get(reason, ()))) for reason in reasons)


def write_conflicts(conflicts: Iterable[Conflict], out: Path) -> None:
    """Write the log of conflicts as CSV.

    Raises:
        OutputError: It cannot be written.
    """
    rows = [(c.line, c.patient_id, c.conflict, c.found, c.resolution) for c in conflicts]
    write_csv(out, _CONFLICT_COLUMNS, rows)


def write_labels(patients: Iterable[LabelledPatient], out: Path) -> None:
    """Write the patients' labels as CSV.

    Raises:
        OutputError: It cannot be written.
    """
    rows = [
        (
            p.patient_id,
            p.site or "",
            p.ihc_score or "",
            "" if p.ish is None else str(p.ish),
            p.status,
            p.stratum,
            p.rule,
        )
        for p in patients
    ]
    write_csv(out, _LABEL_COLUMNS, rows)
