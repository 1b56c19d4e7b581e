"""The folder of a run: its description (`run.json`), its tables and its slides.

Prediction writes it and goes on in it; evaluation, reports and audits read it, checked at the door.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from he2her2 import __version__
from he2her2.config import Config, with_later_settings
from he2her2.errors import EvaluationError, OutputError
from he2her2.files import check_writable, digest, read_json, sweep_drafts, write_json
from he2her2.results.failure_records import FailureRecords
from he2her2.results.made_of import FileStamp
from he2her2.results.notes import NetworkNote, describe_environment
from he2her2.results.other_folders import RUN_FILE, other_run_in_words, refuse_other_folder
from he2her2.results.patients import PatientResult, RunPatient, read_patient_results
from he2her2.results.rasters import SlideRasters
from he2her2.results.run_tables import (
    FAILURES_FILE,
    PATIENT_TABLE,
    PREDICTIONS_FILE,
    PlannedSlide,
    RunTables,
    read_planned,
)
from he2her2.results.slide_folder import PREDICTION, SEGMENTATION, SlideFolders
from he2her2.results.slide_result import SlideResult
from he2her2.results.tables import Failure, PredictedSlide, read_failures, read_predictions
from he2her2.results.tiles_h5 import TILES_FILE, ScoredTiles
from he2her2.rules import DecisionRules


@dataclass(frozen=True, slots=True)
class Run:
    """A run of `predict` or `segment` that is being made.

    Attributes:
        description: Content of `run.json`: command, settings, weights, versions, hardware.
        tables: Of the slides that have ended.
    """

    description: Mapping[str, Any]
    tables: RunTables

    @property
    def slides(self) -> SlideFolders:
        """The folders of its slides."""
        return self.tables.slides

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return self.slides.run

    @property
    def digest(self) -> str:
        """SHA-256 of all that can change a result: settings, weights and what the user overrode."""
        return self.tables.configuration

    @property
    def failures(self) -> FailureRecords:
        """The failures on record."""
        return FailureRecords(self.folder)

    @property
    def is_begun(self) -> bool:
        """True if the folder holds results of this configuration."""
        return (self.folder / RUN_FILE).is_file() and not _other_run(self.folder / RUN_FILE, self.digest)

    @property
    def takes_over(self) -> bool:
        """True if the folder holds a run of another configuration, in whose place this one comes."""
        return self.slides.overwrite and _other_run(self.folder / RUN_FILE, self.digest)

    def for_patients(self, rules: DecisionRules | None, patient_of: Mapping[str, str]) -> Self:
        """The same run, whose stored rules are applied to patients.

        Args:
            rules: Stored beside the weights; None without any.
            patient_of: Patient of each slide whose manifest names one.
        """
        return replace(self, tables=replace(self.tables, rules=rules, patient_of=patient_of))

    def write_description(self) -> None:
        """Write `run.json`; tables of another configuration, whose folder is taken over, go."""
        if self.takes_over:
            self.tables.forget()
        write_json(self.folder / RUN_FILE, self.description, ascii_only=True)


def plan_run(
    folder: Path,
    *,
    command: Sequence[str],
    config: Config,
    weights: Sequence[NetworkNote],
    overrides: Mapping[str, object],
    told: Mapping[str, Any] = MappingProxyType({}),
    overwrite: bool = False,
    result_file: str = PREDICTION,
) -> Run:
    """Describe a run and check that its folder can take it: new, or with results of the same configuration.

    Args:
        folder: Where to.
        command: The command line.
        config: The settings.
        weights: The networks.
        overrides: What else the user chose that can change a result (mpp, annotations).
        told: What `run.json` tells beside these: the folder of the weights, and the patients used in them.
        overwrite: Take over a folder that holds results of another configuration.
        result_file: Name of each slide's result.

    Raises:
        OutputError: The folder cannot be written, or holds results of another configuration.
    """
    networks = [asdict(note) for note in weights]
    made_of = digest(__version__, config.digest(), networks, overrides)
    check_writable(folder)
    for place in (folder, *(folder / name for name in ("slides", "failures", "claims"))):
        sweep_drafts(place)
    description = {"digest": made_of, "config": asdict(config), "weights": networks, "overrides": dict(overrides)}
    description = describe_environment(command) | description | dict(told)
    if not overwrite and _other_run(folder / RUN_FILE, made_of):
        found = other_run_in_words(folder / RUN_FILE, description)
        raise OutputError(f"{folder}: holds results {found}; choose another --out, or --overwrite")
    slides = SlideFolders(folder, result_file, overwrite)
    tables = RunTables(slides, made_of)
    return Run(description, tables)


def _other_run(file: Path, made_of: str) -> bool:
    """True where a run of another configuration lies, or something that cannot be read."""
    try:
        return read_json(file).get("digest") != made_of
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


@validated(frozen=True, config=ConfigDict(extra="ignore"))
class RunDescription:
    """Description of a run as read from `run.json`.

    Attributes:
        digest: SHA-256 of its configuration.
        config: The settings as they were written, and later ones as they were then; `RunFolder.config` reads them.
        weights: The networks.
        weights_folder: Where they lay, or their name.
        versions: Of Python and the libraries.
        command: The command line.
        started: When it began, in UTC.
        hardware: The machine.
        overrides: What else the user chose that can change a result, such as annotations.
    """

    digest: str | None = None
    config: Annotated[Mapping[str, Any], AfterValidator(with_later_settings)] | None = None
    weights: tuple[NetworkNote, ...] = ()
    weights_folder: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    started: str = ""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """A finished run of `predict`, or a folder with the same tables by another program.

    Attributes:
        path: The folder.
        description: Content of `run.json`; empty where there is none.
        predictions: Rows of `predictions.csv`, by slide.
        failures: Rows of `failures.csv`, by slide.
    """

    path: Path
    description: RunDescription
    predictions: Mapping[str, PredictedSlide]
    failures: Mapping[str, Failure]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @cached_property
    def planned(self) -> Mapping[str, PlannedSlide]:
        """The slides that its commands were given, by name; none where it is not known."""
        return read_planned(self.path)

    @cached_property
    def unfinished(self) -> str:
        """That slides which its commands were given have not ended yet, in words; empty where all have."""
        planned = self.planned.keys()
        n_left = len(planned - self.predictions.keys() - self.failures.keys())
        if not n_left:
            return ""
        return f"unfinished run: {len(planned) - n_left} of its {len(planned)} slides have ended"

    @cached_property
    def segmented(self) -> tuple[str, ...]:
        """Names of the slides that were segmented only."""
        found = {file.parent.name for file in self.path.glob(f"slides/[!.]*/{SEGMENTATION}")}
        return tuple(sorted(found - self.failures.keys()))

    @cached_property
    def threshold(self) -> float:
        """The probability from which a slide was called positive.

        Raises:
            EvaluationError: The slides were not all decided by the same one.
        """
        found = {row.threshold for row in self.predictions.values()}
        if len(found) > 1:
            raise EvaluationError(
                f"{self.path}: its slides were decided by several thresholds "
                f"({', '.join(f'{threshold:g}' for threshold in sorted(found))}); predict them again into one folder"
            )
        return next(iter(found))

    @cached_property
    def config(self) -> Config:
        """The settings of the run.

        Raises:
            EvaluationError: `run.json` does not hold them, or those of another version.
        """
        try:
            return TypeAdapter(Config).validate_python(self.description.config)
        except ValidationError:
            raise EvaluationError(
                f"{self.path / RUN_FILE}: holds no settings that this version knows; predict again with it"
            ) from None

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """Notices of the run's weights and slides, each once."""
        return tuple(dict.fromkeys(notice for row in self.predictions.values() for notice in row.notices))

    @cached_property
    def patients(self) -> tuple[PatientResult, ...]:
        """The stored rules applied to patients; none where the weights hold no rules, or the slides have no patients.

        Raises:
            EvaluationError: Their table is damaged.
        """
        return read_patient_results(self.path / PATIENT_TABLE)

    @cached_property
    def slides_of_patients(self) -> Mapping[str, RunPatient]:
        """Each patient that its manifest named or its rules decided, with all slides, by name.

        Raises:
            EvaluationError: The table of patients is damaged.
        """
        results = {result.patient_id: result for result in self.patients}
        slides: dict[str, dict[str, PredictedSlide | Failure | None]] = {name: {} for name in results}
        for slide_id, planned in sorted(self.planned.items()):
            if planned.patient_id:
                outcome = self.predictions.get(slide_id) or self.failures.get(slide_id)
                slides.setdefault(planned.patient_id, {})[slide_id] = outcome
        return {name: RunPatient(name, slides[name], results.get(name)) for name in sorted(slides)}

    def patient_id(self, slide_id: str) -> str:
        """Patient of a slide; "" where the run does not know."""
        planned = self.planned.get(slide_id)
        return "" if planned is None else planned.patient_id

    def patient(self, slide_id: str) -> RunPatient | None:
        """The patient whose slide it is; None where the run does not know.

        Raises:
            EvaluationError: The table of patients is damaged.
        """
        return self.slides_of_patients.get(self.patient_id(slide_id))

    def result(self, slide_id: str) -> SlideResult | None:
        """A slide's result; None where its folder is gone, or there is none: the slide failed.

        Raises:
            EvaluationError: It is damaged, or `predictions.csv` says otherwise.
        """
        if slide_id in self.failures and slide_id not in self.predictions:
            return None
        result_file = SEGMENTATION if slide_id in self.segmented else PREDICTION
        try:
            result = SlideFolders(self.path, result_file).load(slide_id)
            if slide_id in self.predictions:
                self.predictions[slide_id].require_of(result)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{self.path}: the result of slide {slide_id} {error}; predict it again") from None
        return result

    def slide_file(self, result: SlideResult) -> Path:
        """Path of a result's slide: as it was, or where a later command was given the same file, moved."""
        path, planned = Path(result.inputs.path or result.path), self.planned.get(result.slide_id)
        if planned is None or result.inputs.slide is None or path.is_file():
            return path
        return moved if FileStamp.of_slide(moved := Path(planned.path)) == result.inputs.slide else path

    def tiles(self, slide_id: str) -> ScoredTiles | None:
        """A slide's scored tiles; None where they are gone.

        Raises:
            EvaluationError: Their file is damaged.
        """
        try:
            return SlideFolders(self.path).tiles(slide_id)
        except ValueError as error:
            raise EvaluationError(str(error)) from None

    def evidence(self, slide_id: str) -> Path | None:
        """The folder of a slide's evidence; None where there is none."""
        folder = SlideFolders(self.path).of(slide_id)
        failure = None if slide_id in self.predictions else self.failures.get(slide_id)
        return folder if folder.is_dir() and (failure is None or failure.evidence) else None

    def changed_evidence(self, result: SlideResult) -> str:
        """A sentence on files of a result's evidence that somebody changed; empty without any.

        Tiles may get columns of other programs; whether they still give the prediction a report checks.
        """
        names = [name for name in SlideFolders(self.path).changed(result) if name != TILES_FILE]
        return f"files that the prediction wrote were changed since: {', '.join(names)}" if names else ""

    def rasters(self, slide_id: str) -> SlideRasters:
        """A slide's masks and maps.

        Raises:
            EvaluationError: A file of them is damaged.
        """
        try:
            return SlideFolders(self.path).rasters(slide_id)
        except ValueError as error:
            raise EvaluationError(str(error)) from None

    def probabilities(
        self, slide_ids: NDArray[np.str_], column: Literal["probability", "calibrated_probability"] = "probability"
    ) -> NDArray[np.float64]:
        """(n,) probability of each slide, as it is or as stored rules correct it; NaN where there is none."""
        rows = (self.predictions.get(slide_id) for slide_id in slide_ids.tolist())
        return np.array([np.nan if row is None else getattr(row, column) for row in rows], np.float64)


def open_run(path: Path, *, needs_predictions: bool = True) -> RunFolder:
    """Open the run in a folder.

    Args:
        path: The folder.
        needs_predictions: Refuse a run without any, such as one of `segment` or one whose slides all failed.

    Raises:
        EvaluationError: There is none, no slide of it has ended, it holds no prediction, a file of it is damaged, or
            the folder is that of another command.
    """
    refuse_other_folder(path)
    table = path / PREDICTIONS_FILE
    others = () if needs_predictions else (RUN_FILE, FAILURES_FILE)
    if not any((path / name).is_file() for name in (PREDICTIONS_FILE, *others)):
        raise EvaluationError(f"{path}: holds no {PREDICTIONS_FILE}; give the --out folder of he2her2 predict")
    predictions = read_predictions(table) if table.is_file() else {}
    if not predictions and needs_predictions:
        raise EvaluationError(f"{table}: holds no slide; see failures.csv beside it")
    failures = FailureRecords(path).located(read_failures(path / FAILURES_FILE))
    run = RunFolder(path, read_description(path), predictions, failures)
    if not (run.predictions or run.failures or run.segmented):
        raise EvaluationError(f"{path}: no slide of this run has ended; he2her2 status {path} says how far it is")
    return run


def read_description(run: Path) -> RunDescription:
    """Description of the run in a folder; empty where there is none.

    Raises:
        EvaluationError: It is damaged.
    """
    file = run / RUN_FILE
    try:
        return TypeAdapter(RunDescription).validate_python(read_json(file))
    except FileNotFoundError:
        return RunDescription()
    except (OSError, ValueError) as error:  # pydantic's error is a ValueError
        reason = "; ".join(str(error).splitlines()[1:3]) if isinstance(error, ValidationError) else error
        raise EvaluationError(f"{file}: does not describe a run ({reason}); predict again") from None
