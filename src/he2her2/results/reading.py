"""A predict run as evaluation sees it: its tables, and what lies beside each slide."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from he2her2.config import Config
from he2her2.errors import EvaluationError
from he2her2.files import read_csv, read_json
from he2her2.results.slide_folder import PREDICTION
from he2her2.results.tiles_h5 import ScoredTiles, read_tiles

_NEEDED = ("slide_id", "status", "probability", "threshold")


@dataclass(frozen=True)
class RunFolder:
    """The results of `he2her2 predict`.

    Attributes:
        path: The folder.
        description: What `run.json` says; empty where it is missing.
        predictions: Rows of `predictions.csv`, by slide.
        failures: Rows of `failures.csv`, by slide.
    """

    path: Path
    description: Mapping[str, Any]
    predictions: Mapping[str, Mapping[str, str]]
    failures: Mapping[str, Mapping[str, str]]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @cached_property
    def threshold(self) -> float:
        """The probability from which a slide was called positive.

        Raises:
            EvaluationError: The slides were not all decided by the same one.
        """
        found = {row["threshold"] for row in self.predictions.values()}
        if len(found) > 1:
            raise EvaluationError(
                f"{self.path}: its slides were decided by several thresholds ({', '.join(sorted(found))}); "
                "predict them again into one folder"
            )
        return float(next(iter(found)))

    @cached_property
    def config(self) -> Config:
        """The settings of the run.

        Raises:
            EvaluationError: `run.json` does not hold them, or those of another version.
        """
        try:
            return TypeAdapter(Config).validate_python(self.description["config"])
        except (KeyError, ValidationError):
            raise EvaluationError(
                f"{self.path / 'run.json'}: holds no settings that this version knows; predict again with it"
            ) from None

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """What the run's weights and slides demand to be said, each once."""
        rows = self.predictions.values()
        texts = [text for row in rows for text in row.get("notices", "").split("; ") if text]
        return tuple(dict.fromkeys(texts))

    def record(self, slide_id: str) -> Mapping[str, Any]:
        """A slide's `prediction.json`; empty where it is gone."""
        return _json(self.path / "slides" / slide_id / PREDICTION)

    def tiles(self, slide_id: str) -> ScoredTiles | None:
        """A slide's scored tiles; None where they are gone."""
        file = self.path / "slides" / slide_id / "tiles.h5"
        return read_tiles(file) if file.is_file() else None

    def probabilities(
        self, slide_ids: NDArray[np.str_], column: Literal["probability", "calibrated_probability"] = "probability"
    ) -> NDArray[np.float64]:
        """(n,) probability of each slide, as it is or as kept rules correct it; nan where there is none."""
        rows = (self.predictions.get(slide_id, {}) for slide_id in slide_ids.tolist())
        return np.array([float(row.get(column) or math.nan) for row in rows])


def open_run(path: Path) -> RunFolder:
    """Open a predict run.

    Raises:
        EvaluationError: It is none, holds no prediction, or a row of its table is not whole.
    """
    table = path / "predictions.csv"
    if not table.is_file():
        raise EvaluationError(f"{path}: holds no predictions.csv; give the --out folder of he2her2 predict")
    predictions = _by_slide(table)
    if not predictions:
        raise EvaluationError(f"{table}: holds no slide; see failures.csv beside it")
    for slide_id, row in predictions.items():
        _check(table, slide_id, row)
    return RunFolder(path, _json(path / "run.json"), predictions, _by_slide(path / "failures.csv"))


def _check(table: Path, slide_id: str, row: Mapping[str, str]) -> None:
    missing = [column for column in _NEEDED if not row.get(column)]
    if missing:
        raise EvaluationError(f"{table}: slide {slide_id} has no {', '.join(missing)}; predict it again")
    try:
        sound = 0 <= float(row["probability"]) <= 1 and math.isfinite(float(row["threshold"]))
    except ValueError:
        sound = False
    if not sound:
        found = f"probability {row['probability']!r}, threshold {row['threshold']!r}"
        raise EvaluationError(f"{table}: slide {slide_id} has {found}; give numbers, the probability from 0 to 1")


def _by_slide(table: Path) -> dict[str, Mapping[str, str]]:
    """Rows of a table by their slide; none where there is no table.

    Raises:
        EvaluationError: It cannot be read, or names a slide twice.
    """
    if not table.is_file():
        return {}
    try:
        rows = read_csv(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{table}: cannot be read as CSV ({error}); predict again") from None
    found: dict[str, Mapping[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        slide_id = row.get("slide_id") or ""
        if not slide_id or slide_id in found:
            what = f"names slide {slide_id} twice" if slide_id else "has a row without slide_id"
            raise EvaluationError(f"{table}, line {line}: {what}; predict again into a new folder")
        found[slide_id] = row
    return found


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}
