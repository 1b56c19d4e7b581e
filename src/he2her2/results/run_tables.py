"""Tables of a run that grow as slides end, whoever ends them: this process, or others that work on the same folder."""

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from he2her2.csv_files import cell_text, read_filled, write_csv
from he2her2.manifest import patient_key
from he2her2.results.failure_records import FailureRecords
from he2her2.results.patients import PatientResult, read_patient_results, write_patient_results
from he2her2.results.slide_folder import PREDICTION, SlideFolders
from he2her2.results.slide_result import SlideResult
from he2her2.results.tables import Failure, ResultRow, read_failures, write_failures, write_results
from he2her2.rules import DecisionRules

FAILURES_FILE = "failures.csv"
PREDICTIONS_FILE = "predictions.csv"
_SEGMENTATIONS_FILE = "segmentations.csv"
PATIENT_TABLE = "patients.csv"
_PLANNED_FILE = "planned.csv"

_EVERY_S = 2.0
_SHARE = 0.02  # of the time may go into writing tables that will be written again


@dataclass(frozen=True, slots=True)
class PlannedSlide:
    """A row of `planned.csv`.

    Attributes:
        path: Its file.
        patient_id: Whose slide it is, by the manifest; "" where none says so.
    """

    path: str
    patient_id: str = ""


@dataclass(slots=True)
class RunTables:
    """Rows of the slides of a run that have ended.

    Attributes:
        slides: The folders of its slides.
        configuration: SHA-256 of all that can change a result.
        rules: To be applied to patients; None without any.
        patient_of: Patient of each slide whose manifest names one.
    """

    slides: SlideFolders
    configuration: str
    rules: DecisionRules | None = None
    patient_of: Mapping[str, str] = field(default_factory=dict)
    _given: dict[str, PlannedSlide] = field(default_factory=dict)
    _rows: dict[str, ResultRow] = field(default_factory=dict)
    _failures: dict[str, Failure] = field(default_factory=dict)
    _due: float = 0.0
    _changed: bool = False

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.slides.run

    @property
    def patients(self) -> tuple[PatientResult, ...]:
        """The patients of the table as it was last written; none where no rules are applied to patients."""
        return () if self.rules is None else read_patient_results(self.folder / PATIENT_TABLE)

    def add(self, outcome: SlideResult | Failure) -> None:
        """Take the outcome of a slide; a failure that is on record will be found there, while it is true.

        The failure of another file of the name, which the run was not made for, is in no table: the result stays.
        """
        slide_id, self._changed = outcome.slide_id, True
        if not isinstance(outcome, Failure):
            self._rows[slide_id] = ResultRow.of(outcome)
            self._failures.pop(slide_id, None)
            return
        self._rows.pop(slide_id, None)
        if not FailureRecords(self.folder).has(slide_id) and not self._has_another(outcome):
            self._failures[slide_id] = outcome

    def _has_another(self, failure: Failure) -> bool:
        """True if the run holds the result of another file of the name."""
        result = self.slides.sound(failure.slide_id)
        if result is None or result.run_digest != self.configuration:
            return False
        return result.inputs.path not in (failure.path, str(Path(failure.path).absolute()))

    def plan(self, slides: Mapping[str, str]) -> None:
        """Note slides, with their files and patients, in `planned.csv`; others that are there stay.

        A patient whom an earlier command named stays, too, where this one names none, and is written as it did.

        Raises:
            OutputError: It cannot be written.
        """
        planned = read_planned(self.folder)
        written = {patient_key(one.patient_id): one.patient_id for one in planned.values()}
        known = {name: one.patient_id for name, one in planned.items()}
        known |= {name: written.get(patient_key(patient), patient) for name, patient in self.patient_of.items()}
        self._given = {name: PlannedSlide(path, known.get(name, "")) for name, path in slides.items()}
        if not self._given.items() <= planned.items():
            self._write_planned(planned | self._given)

    def _plan_again(self) -> None:
        """Note what another command that began at the same moment did not see, and left out of its table."""
        planned = read_planned(self.folder)
        lost = {
            name: one
            for name, one in self._given.items()
            if name not in planned or (one.patient_id and not planned[name].patient_id)
        }
        if lost:
            self._write_planned(planned | lost)

    def _write_planned(self, planned: Mapping[str, PlannedSlide]) -> None:
        rows = [(name, one.path, one.patient_id) for name, one in sorted(planned.items())]
        write_csv(self.folder / _PLANNED_FILE, ("slide_id", "path", "patient_id"), rows, line_end="\r\n")

    def forget(self) -> None:
        """Remove the tables of another run: its slides were not planned by this one, and did not end in it."""
        for name in (_PLANNED_FILE, PREDICTIONS_FILE, _SEGMENTATIONS_FILE, FAILURES_FILE, PATIENT_TABLE):
            (self.folder / name).unlink(missing_ok=True)

    def write_when_due(self) -> None:
        """Write the tables if they changed, but not at once again: a fixed small share of the time goes into it."""
        if not self._changed or monotonic() < self._due:
            return
        start = monotonic()
        self._write_once()
        now = monotonic()
        self._due = now + max(_EVERY_S, (now - start) / _SHARE)

    def write(self, others_go_on: Callable[[], bool] = lambda: False) -> None:
        """Write the tables of all that has ended; again, where another process ended a slide meanwhile.

        Args:
            others_go_on: Whether commands work on the run that will write its tables after this one.

        Raises:
            OutputError: They cannot be written.
        """
        while self._write_once() and not others_go_on():
            pass

    def _write_once(self) -> bool:
        """Write the tables; True where another process ended a slide meanwhile."""
        self._changed = False
        self._read_others(self._others())
        records = FailureRecords(self.folder)
        failed = records.slide_ids()
        self._write()
        return bool(self._read_others(self._others())) or records.slide_ids() != failed

    def _others(self) -> set[str]:
        """Slides with a folder whose outcome is unknown here."""
        try:
            with os.scandir(self.folder / "slides") as entries:
                names = {entry.name for entry in entries if not entry.name.startswith(".")}
        except FileNotFoundError:
            return set()
        return names - self._rows.keys() - self._failures.keys()

    def _read_others(self, slide_ids: Iterable[str]) -> int:
        """Read the results of other processes and of earlier commands; gives their number."""
        n, failures = 0, FailureRecords(self.folder)
        for slide_id in slide_ids:
            result = self.slides.sound(slide_id)
            if result is not None and result.run_digest == self.configuration and not failures.outranks(result):
                self._rows[slide_id] = ResultRow.of(result)
                n += 1
        return n

    def _write(self) -> None:
        self._plan_again()
        rows = [self._rows[slide_id] for slide_id in sorted(self._rows)]
        predictions = all(row.probability is not None for row in rows) and self.slides.result_file == PREDICTION
        write_results(
            self.folder / (PREDICTIONS_FILE if predictions else _SEGMENTATIONS_FILE), rows, predictions=predictions
        )
        failures = self._all_failures()
        write_failures(self.folder / FAILURES_FILE, failures)
        if self.rules is not None and self.rules.patient_rule is not None and (patient_of := self._all_patients()):
            results = self._patient_results(self.rules, patient_of, failures)
            write_patient_results(self.folder / PATIENT_TABLE, results)

    def _all_patients(self) -> dict[str, str]:
        """Patient of each slide that a manifest of this command or of another on the run names, by slide."""
        planned = {name: one.patient_id for name, one in read_planned(self.folder).items() if one.patient_id}
        return dict(sorted((dict(self.patient_of) | planned).items()))

    def _all_failures(self) -> list[Failure]:
        """Of this command, of other processes and of earlier commands, by slide."""
        failures = dict(self._failures)
        known = self._rows.keys() | failures.keys()
        failures |= {one.slide_id: one for one in FailureRecords(self.folder).of(self.configuration, known)}
        earlier = read_failures(self.folder / FAILURES_FILE)
        failures = {name: one for name, one in earlier.items() if name not in known} | failures
        return [failures[slide_id] for slide_id in sorted(failures)]

    def _patient_results(
        self, rules: DecisionRules, patient_of: Mapping[str, str], failures: Sequence[Failure]
    ) -> list[PatientResult]:
        """The stored rules applied to every patient whose slides have all ended."""
        ended = self._rows.keys() | {failure.slide_id for failure in failures}
        unfinished = {patient for slide_id, patient in patient_of.items() if slide_id not in ended}
        probabilities: dict[str, list[float]] = {
            patient: [] for patient in patient_of.values() if patient not in unfinished
        }
        unlike = Counter[str]()
        for slide_id, row in sorted(self._rows.items()):
            patient = patient_of.get(slide_id)
            if row.probability is not None and patient in probabilities:
                probabilities[patient].append(row.probability)
                unlike[patient] += row.unlike
        failed = Counter(patient_of[one.slide_id] for one in failures if one.slide_id in patient_of)
        return [
            PatientResult.of(patient, rules, found, failed[patient], unlike[patient])
            for patient, found in probabilities.items()
        ]


def read_planned(run: Path) -> dict[str, PlannedSlide]:
    """Slides that the commands of a run were given; none where it is not known."""
    try:
        rows = read_filled(run / _PLANNED_FILE)
        return {row["slide_id"]: PlannedSlide(row["path"], row.get("patient_id") or "") for row in rows}
    except (OSError, ValueError, KeyError):
        return {}


def slides_with_result(run: Path) -> set[str]:
    """Slides in the tables of a run that have a result."""
    found: set[str] = set()
    for name in (PREDICTIONS_FILE, _SEGMENTATIONS_FILE):
        with suppress(OSError, ValueError, csv.Error), (run / name).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            if next(rows, [])[:1] == ["slide_id"]:  # else somebody has changed it, and its lines are no names
                found.update(cell_text(row[0]) for row in rows if any(row))
    return found
