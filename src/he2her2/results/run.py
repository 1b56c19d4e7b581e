"""The run folder: what was run, with what, and the tables of results and failures."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from he2her2 import __version__
from he2her2.config import Config
from he2her2.errors import OutputError, SlideError
from he2her2.files import check_writable, digest, read_csv, read_json, write_csv, write_json
from he2her2.results.environment import describe_environment
from he2her2.results.slide_folder import PREDICTION
from he2her2.results.slide_result import Record

_FAILURE_COLUMNS = ("slide_id", "path", "stage", "reason", "remedy")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a slide has no result."""

    slide_id: str
    path: str
    stage: str
    reason: str
    remedy: str

    @classmethod
    def of(cls, path: Path, error: SlideError) -> "Failure":
        """The row of `failures.csv` for an error."""
        return cls(error.slide_id, str(path), error.stage, error.reason, error.remedy)


@dataclass(slots=True)
class Run:
    """One execution over one or many slides.

    Attributes:
        folder: Where everything goes.
        description: What `run.json` says: command, settings, weights, versions, hardware.
        records: Results so far.
        failures: Slides without a result so far.
    """

    folder: Path
    description: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of all that can change a result: settings, weights and what the user overrode."""
        return str(self.description["digest"])

    def slide_folder(self, slide_id: str) -> Path:
        """Where a slide's evidence goes."""
        return self.folder / "slides" / slide_id

    def finished(self, slide_id: str, inputs: Mapping[str, object]) -> Record | None:
        """The slide's result, when this very run configuration has made it already, of these very input files."""
        record = _read_json(self.slide_folder(slide_id) / PREDICTION)
        same = (record.get("run_digest"), record.get("inputs")) == (self.digest, inputs)
        return record if same else None

    def discard(self, slide_id: str) -> None:
        """Remove what an earlier run left of a slide: should it fail now, nothing must pass for its result."""
        shutil.rmtree(self.slide_folder(slide_id), ignore_errors=True)

    def write_description(self) -> None:
        """Write `run.json`."""
        write_json(self.folder / "run.json", self.description, ascii_only=True)

    def write_tables(self) -> None:
        """Write `predictions.csv` (`segmentations.csv` where nothing was predicted) and `failures.csv`.

        Rows that an earlier command of this run made of other slides stay.
        """
        rows = [_row(record) for record in self._all_records()]
        predicted = not rows or "status" in rows[0]
        name, columns = ("predictions", _PREDICTION_COLUMNS) if predicted else ("segmentations", _SEGMENTATION_COLUMNS)
        write_csv(self.folder / f"{name}.csv", columns, rows, line_end="\r\n")
        now = {row["slide_id"] for row in rows} | {failure.slide_id for failure in self.failures}
        failures = self.folder / "failures.csv"
        earlier = [row for row in (read_csv(failures) if failures.exists() else ()) if row["slide_id"] not in now]
        rows = [*earlier, *map(asdict, self.failures)]
        write_csv(failures, _FAILURE_COLUMNS, rows, line_end="\r\n")

    def _all_records(self) -> list[Record]:
        """This command's records, and those of the same run's other slides."""
        now = {record["slide_id"] for record in self.records} | {failure.slide_id for failure in self.failures}
        files = sorted((self.folder / "slides").glob(f"[!.]*/{PREDICTION}"))
        found = [record for record in map(_read_json, files) if record.get("run_digest") == self.digest]
        earlier = [record for record in found if record["slide_id"] not in now]
        return sorted([*earlier, *self.records], key=lambda record: str(record["slide_id"]))


def plan_run(
    folder: Path,
    *,
    command: Sequence[str],
    config: Config,
    weights: Sequence[Mapping[str, Any]],
    overrides: Mapping[str, Any],
    patients: Mapping[str, Any] = MappingProxyType({}),
    overwrite: bool = False,
) -> Run:
    """Describe a run and check that its folder can take it: new, or with results of the same configuration.

    Args:
        folder: Where to.
        command: The command line.
        config: The settings.
        weights: Summaries of the networks' cards.
        overrides: What else the user chose that can change a result (mpp, annotations).
        patients: Who had a say in the weights, by `manifest.provenance`.
        overwrite: Take over a folder that holds results of another configuration.

    Raises:
        OutputError: The folder cannot be written, or holds results of another configuration.
    """
    made_of = digest(__version__, config.digest(), weights, overrides)
    check_writable(folder)
    path = folder / "run.json"
    if path.exists() and not overwrite and _read_json(path).get("digest") != made_of:
        raise OutputError(f"{folder}: holds results of other settings or weights; choose another --out, or --overwrite")
    description = {
        "digest": made_of,
        "config": asdict(config),
        "weights": list(weights),
        "overrides": dict(overrides),
    }
    return Run(folder, describe_environment(command) | description | dict(patients))


_SEGMENTATION_COLUMNS = ("slide_id", "path", "mpp", "tissue_mm2", "tumour_mm2", "pen_share", "blur_share", "notices")
_PREDICTION_COLUMNS = (
    "slide_id", "path", "status", "probability", "threshold", "calibrated_probability", "triage", "tile_score", "mpp",
    "tissue_mm2", "tumour_mm2", "pen_share", "blur_share", "tiles", "unreadable", "selected", "warnings", "notices",
)  # fmt: skip


def _row(record: Record) -> dict[str, Any]:
    """A slide's row of the run's table."""
    area, quality = record["area_mm2"], record["quality"]
    row = {
        "slide_id": record["slide_id"],
        "path": record["path"],
        "mpp": record["slide"]["mpp"],
        "tissue_mm2": area["tissue"],
        "tumour_mm2": area["tumour"],
        "pen_share": quality["pen_share"],
        "blur_share": quality["blur_share"],
        "notices": "; ".join(record["notices"]),
    }
    if "status" in record:
        row |= {key: record[key] for key in ("status", "probability", "threshold")}
        row |= {key: record.get(key, "") for key in ("calibrated_probability", "tile_score")}
        row["triage"] = record.get("triage", {}).get("arm", "")
        row |= {key: record["counts"][key] for key in ("tiles", "unreadable", "selected")}
        row["warnings"] = "; ".join(record["warnings"])
    return row


def _read_json(path: Path) -> Record:
    """What a file of the run says; nothing where it is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}
