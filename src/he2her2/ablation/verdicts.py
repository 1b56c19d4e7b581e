"""Verdicts of the six methods on the slides of a test cohort, decided as in prediction and kept slide by slide."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np

from he2her2.ablation.manifests import TestCohort
from he2her2.ablation.methods import METHODS, Method
from he2her2.ablation.results import CohortResults
from he2her2.cohort import Ledger, SlideEngine, SlideTask
from he2her2.config import Config
from he2her2.csv_files import csv_text
from he2her2.files import digest, json_text, read_json, write_json, write_text
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status, Policy
from he2her2.manifest import PATIENTS_FILE, SlideRow, label_of, patients_used
from he2her2.method import decide_on, score_tiles
from he2her2.models import Aggregator, Engine, load_aggregator, load_cnn
from he2her2.results import Failure, MadeOf
from he2her2.slides import open_slide
from he2her2.timing import Progress, silent
from he2her2.training import distinct_notices
from he2her2.training.slides import TumourTiler

_PREDICTION_COLUMNS = ("slide_id", "path", "status", "probability", "threshold", "tiles", "notices")


@dataclass(frozen=True, slots=True, eq=False)
class _TrainedMethod:
    """A method with its networks.

    Attributes:
        config: The settings with its aggregator.
        tile_cnn: Scores tiles.
        aggregator: From scores to a probability.
        patients: Hashed ids of the patients used in training.
    """

    config: Config
    tile_cnn: Engine
    aggregator: Aggregator
    patients: frozenset[str]

    @property
    def tile_weights(self) -> str:
        """SHA-256 that identifies its tile CNN."""
        return digest(self.tile_cnn.card.summary)

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices of its weights."""
        return distinct_notices(self.tile_cnn.card.notice, self.aggregator.card.notice)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Decision of one method on one slide."""

    status: Her2Status
    probability: float
    n_tiles: int


_Verdicts: TypeAlias = Mapping[Method, _Verdict]
"""Decisions of all methods on one slide."""


def load_trained(weights: Path, config: Config, parents: Sequence[Path]) -> _TrainedMethod:
    """Load a method's networks.

    Args:
        weights: Their folder.
        config: The settings with the method's aggregator.
        parents: Folders of the initial weights of its training.

    Raises:
        WeightsError: They are missing, damaged or of another network.
    """
    patients = frozenset(patient for folder in (weights, *parents) for patient in patients_used(folder).hashes)
    aggregator = load_aggregator(str(weights), config)
    return _TrainedMethod(config, load_cnn(str(weights), "tile_cnn", config), aggregator, patients)


def decide_cohort(
    cohort: TestCohort,
    trained: Mapping[Method, _TrainedMethod],
    tiler: TumourTiler,
    folder: Path,
    *,
    policy: Policy,
    progress: Progress = silent,
) -> CohortResults:
    """Decide on every slide of a cohort by every method; a slide that fails is a row of `failures.csv`.

    A slide's tiles are found once for all methods, and scored once by every distinct tile CNN. Tiles are kept in
    `folder/bags/<slide_id>.h5`, verdicts in `folder/slides/<slide_id>.json`; neither is computed again for the same
    slide, settings and weights.

    Args:
        cohort: The slides.
        trained: The methods.
        tiler: Finds tiles.
        folder: Takes tiles, verdicts, and tables for each method that `he2her2 evaluate` reads.
        policy: Derives a status that the manifest does not state.
        progress: Called after every slide.

    Raises:
        OutputError: The folder cannot be written.
    """
    engine = SlideEngine(progress)
    failures: dict[str, Failure] = {}
    grids: dict[str, TileGrid] = {}
    tasks = tiler.tasks(cohort.rows)
    stage = f"finding tumour tiles of {cohort.name}"
    for task, tiles in engine.run(tasks, tiler, tiler.ledger(folder / "bags"), stage=stage):
        if isinstance(tiles, Failure):
            failures[task.slide_id] = tiles
        else:
            grids[task.slide_id] = tiles.grid
    verdicts: dict[str, _Verdicts] = {}
    ledger = Ledger(_VerdictStore(folder / "slides"), _configuration(trained, tiler))
    tiled = [task for task in tasks if task.slide_id in grids]
    for task, found in engine.run(tiled, _MethodsWorker(trained, grids), ledger, stage=f"deciding on {cohort.name}"):
        if isinstance(found, Failure):
            failures[task.slide_id] = found
        else:
            verdicts[task.slide_id] = found
    rows = [row for row in cohort.rows if row.slide_id in verdicts]
    failed = [failures[row.slide_id] for row in cohort.rows if row.slide_id in failures]
    for method, one in trained.items():
        _write_method(folder / method.key, one, rows, [verdicts[row.slide_id][method] for row in rows], failed)
    return _results(cohort, rows, [verdicts[row.slide_id] for row in rows], len(failed), policy)


def _configuration(trained: Mapping[Method, _TrainedMethod], tiler: TumourTiler) -> str:
    """SHA-256 of all that the verdicts depend on, but for the slides."""
    methods = {
        method.key: [one.config.digest(), one.tile_weights, one.aggregator.card.summary]
        for method, one in trained.items()
    }
    return digest(tiler.configuration, methods)


@dataclass(frozen=True, slots=True, eq=False)
class _MethodsWorker:
    """Decides on a slide by every method.

    Attributes:
        trained: The methods.
        grids: Tiles by slide_id.
    """

    trained: Mapping[Method, _TrainedMethod]
    grids: Mapping[str, TileGrid]

    def __call__(self, task: SlideTask) -> _Verdicts:
        """Score a slide's tiles once by every distinct tile CNN, and decide by each method as prediction does."""
        grid = self.grids[task.slide_id]
        backend = next(iter(self.trained.values())).config.runtime.backend
        scored = {}
        verdicts = {}
        with open_slide(task.path, mpp=task.mpp, backend=backend) as slide:
            for method, one in self.trained.items():
                if one.tile_weights not in scored:
                    n_needed = one.config.selection.n_tiles
                    scored[one.tile_weights] = score_tiles(slide, grid, one.tile_cnn, one.config.runtime, n_needed)
                readable, logits = scored[one.tile_weights]
                decision = decide_on(
                    task.slide_id, grid.take(readable), logits, one.aggregator, one.config.positive_from
                )
                verdicts[method] = _Verdict(decision.status, decision.probability, len(decision.grid))
        return verdicts


@dataclass(frozen=True, slots=True)
class _VerdictStore:
    """Verdicts on disk, a JSON file for each slide.

    Attributes:
        folder: Of the files.
    """

    folder: Path

    def read(self, slide_id: str, made_of: MadeOf) -> _Verdicts | None:
        """Verdicts on a slide; None where there are none, or they are damaged or made of something else."""
        try:
            record = read_json(self._file(slide_id))
            if record["made_of"] != digest(made_of):
                return None
            verdicts = {method: record["methods"][method.key] for method in METHODS}
            return {
                method: _Verdict(Her2Status(one["status"]), float(one["probability"]), int(one["tiles"]))
                for method, one in verdicts.items()
            }
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, slide_id: str, made_of: MadeOf, product: _Verdicts) -> _Verdicts:
        """Write the verdicts on a slide."""
        methods = {
            method.key: {"status": one.status.value, "probability": one.probability, "tiles": one.n_tiles}
            for method, one in product.items()
        }
        write_json(self._file(slide_id), {"slide_id": slide_id, "made_of": digest(made_of), "methods": methods})
        return product

    def discard(self, slide_id: str) -> None:
        """Remove the verdicts on a slide."""
        self._file(slide_id).unlink(missing_ok=True)

    def _file(self, slide_id: str) -> Path:
        return self.folder / f"{slide_id}.json"


def _results(
    cohort: TestCohort, rows: Sequence[SlideRow], verdicts: Sequence[_Verdicts], n_failed: int, policy: Policy
) -> CohortResults:
    """Verdicts as arrays beside the labels."""
    truth = [label_of(row, "her2_status", policy) == Her2Status.POSITIVE for row in rows]
    return CohortResults(
        cohort.name,
        cohort.paper,
        np.array([row.patient for row in rows], dtype=np.str_),
        np.array(truth, dtype=np.bool_),
        {
            method: np.array([one[method].status == Her2Status.POSITIVE for one in verdicts], np.bool_)
            for method in METHODS
        },
        {method: np.array([one[method].probability for one in verdicts], float) for method in METHODS},
        n_failed,
    )


def _write_method(
    folder: Path,
    trained: _TrainedMethod,
    rows: Sequence[SlideRow],
    verdicts: Sequence[_Verdict],
    failures: Sequence[Failure],
) -> None:
    """Write `predictions.csv` and `failures.csv` as `he2her2 predict` does, and the patients used in training."""
    notices = "; ".join(trained.notices)
    predictions = [
        (row.slide_id, row.path, one.status.value, one.probability, trained.config.positive_from, one.n_tiles, notices)
        for row, one in zip(rows, verdicts, strict=True)
    ]
    write_if_changed(folder / "predictions.csv", csv_text(_PREDICTION_COLUMNS, predictions))
    write_if_changed(folder / PATIENTS_FILE, json_text({"training_patients": sorted(trained.patients)}))
    columns = [column.name for column in fields(Failure)]
    write_if_changed(folder / "failures.csv", csv_text(columns, map(astuple, failures)))


def write_if_changed(file: Path, text: str) -> None:
    """Write a file unless it holds this text already."""
    if not (file.is_file() and file.read_text("utf-8") == text):
        write_text(file, text)
