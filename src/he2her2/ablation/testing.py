"""Several methods decide on the slides of a test cohort, as prediction does; what is done is kept, slide by slide."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from he2her2.ablation.cohorts import Cohort
from he2her2.ablation.methods import METHODS, Method
from he2her2.ablation.results import Results
from he2her2.ablation.tables import as_csv
from he2her2.config import Config
from he2her2.errors import AnnotationError, SlideError
from he2her2.files import digest, json_text, read_json, write_json, write_text
from he2her2.labels import Her2Status, Policy
from he2her2.manifest import PATIENTS_FILE, SlideRow, label_of, patients_used
from he2her2.method.decision import decide_on
from he2her2.method.tiles import score_tiles
from he2her2.models import Aggregator, Engine, load_aggregator, load_cnn
from he2her2.slides import open_slide
from he2her2.timing import Progress, silent
from he2her2.training.slides.bags import TumourTiler

_FAILURE_COLUMNS = ("slide_id", "path", "stage", "reason", "remedy")


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A method ready to decide.

    Attributes:
        config: The settings with its aggregator.
        tile_cnn: Scores tiles.
        aggregator: Decides.
        marks: Of the patients who had a say in it (`manifest.used_patients`).
    """

    config: Config
    tile_cnn: Engine
    aggregator: Aggregator
    marks: frozenset[str]

    @property
    def tile_weights(self) -> str:
        """What tells its tile CNN from another."""
        return digest(self.tile_cnn.card.summary)

    @property
    def notices(self) -> tuple[str, ...]:
        """What every output must say of its weights."""
        cards = (self.tile_cnn.card, self.aggregator.card)
        return tuple(dict.fromkeys(card.notice for card in cards if card.notice))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one method says of one slide."""

    status: Her2Status
    probability: float
    n_tiles: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a slide has no verdict."""

    stage: str
    reason: str
    remedy: str


def load_trained(weights: Path, config: Config, teachers: Sequence[Path]) -> Trained:
    """Load a method's networks.

    Args:
        weights: Their folder.
        config: The settings with the method's aggregator.
        teachers: Folders of the weights that it started from.

    Raises:
        WeightsError: They are missing, damaged or of another network.
    """
    marks = frozenset(mark for folder in (weights, *teachers) for mark in patients_used(folder).hashes)
    return Trained(config, load_cnn(str(weights), "tile_cnn", config), load_aggregator(str(weights), config), marks)


def decide_cohort(
    cohort: Cohort,
    trained: Mapping[Method, Trained],
    recipe: TumourTiler,
    folder: Path,
    *,
    policy: Policy,
    progress: Progress = silent,
) -> Results:
    """Let every method decide on every slide of a cohort; a slide that fails is a row of `failures.csv`.

    A slide's tiles are found once for all methods, and seen once by every tile CNN that differs from the others. What
    is found is kept in `folder/slides/<slide_id>.json`; a slide that lies there, made of the same, is not looked at.

    Args:
        cohort: The slides.
        trained: The methods.
        recipe: How tiles are found.
        folder: Takes bags, verdicts, and tables for each method that `he2her2 evaluate` reads.
        policy: Decides a status that the manifest does not state.
        progress: Told how many slides are done.

    Raises:
        OutputError: The folder cannot be written.
    """
    found: dict[str, Mapping[Method, Verdict] | Failure] = {}
    for row in cohort.rows:
        found[row.slide_id] = _kept_or_decided(row, trained, recipe, folder)
        progress(f"deciding on {cohort.name}", len(found), len(cohort.rows))
    failures = {slide_id: what for slide_id, what in found.items() if isinstance(what, Failure)}
    verdicts = {slide_id: what for slide_id, what in found.items() if not isinstance(what, Failure)}
    rows = [row for row in cohort.rows if row.slide_id in verdicts]
    truth = [label_of(row, "her2_status", policy) == Her2Status.POSITIVE for row in rows]
    for method, one in trained.items():
        _write_run(folder / method.key, rows, {s: found[method] for s, found in verdicts.items()}, one)
        _write_failures(folder / method.key / "failures.csv", cohort.rows, failures)
    return Results(
        cohort.name,
        cohort.paper,
        np.array([row.patient_id for row in rows], dtype=np.str_),
        np.array(truth, dtype=np.bool_),
        {
            method: np.array([verdicts[row.slide_id][method].status == Her2Status.POSITIVE for row in rows], np.bool_)
            for method in METHODS
        },
        {method: np.array([verdicts[row.slide_id][method].probability for row in rows], float) for method in METHODS},
        len(failures),
    )


def _kept_or_decided(
    row: SlideRow, trained: Mapping[Method, Trained], recipe: TumourTiler, folder: Path
) -> Mapping[Method, Verdict] | Failure:
    """What the methods say of a slide, or why they say nothing."""
    file = folder / "slides" / f"{row.slide_id}.json"
    made_of = _made_of(row, trained, recipe)
    kept = _read(file, made_of)
    if kept is not None:
        return kept
    try:
        verdicts = _decide(row, trained, recipe, folder / "bags")
    except SlideError as error:
        return Failure(error.stage, error.reason, error.remedy)
    except AnnotationError as error:
        return Failure("annotations", str(error), "give its regions, or leave the slide out")
    record = {
        "slide_id": row.slide_id,
        "made_of": made_of,
        "methods": {
            method.key: {"status": one.status.value, "probability": one.probability, "tiles": one.n_tiles}
            for method, one in verdicts.items()
        },
    }
    write_json(file, record)
    return verdicts


def _decide(row: SlideRow, trained: Mapping[Method, Trained], recipe: TumourTiler, bag: Path) -> dict[Method, Verdict]:
    """Find a slide's tiles, score them once with every tile CNN, and let each method decide as prediction does."""
    (task,), ledger = recipe.tasks([row]), recipe.ledger(bag)
    made_of = ledger.made_of(task.inputs)
    grid = ledger.find(task.slide_id, made_of)
    if grid is None:
        grid = ledger.keep(task.slide_id, made_of, recipe(task))
    seen = {}
    verdicts = {}
    with open_slide(row.path, mpp=row.mpp, backend=recipe.config.runtime.backend) as slide:
        for method, one in trained.items():
            if one.tile_weights not in seen:
                seen[one.tile_weights] = score_tiles(slide, grid, one.tile_cnn, one.config)
            readable, logits = seen[one.tile_weights]
            decision = decide_on(grid.take(readable), logits, one.aggregator, one.config.threshold)
            verdicts[method] = Verdict(decision.status, decision.probability, len(decision.grid))
    return verdicts


def _made_of(row: SlideRow, trained: Mapping[Method, Trained], recipe: TumourTiler) -> str:
    """SHA-256 of all that the methods' verdicts on a slide depend on."""
    methods = {
        method.key: [one.config.digest(), one.tile_weights, one.aggregator.card.summary]
        for method, one in trained.items()
    }
    return digest(recipe.configuration, asdict(recipe.tasks([row])[0].inputs), methods)


def _read(file: Path, made_of: str) -> dict[Method, Verdict] | None:
    """Verdicts that lie there; None where there are none, or they are damaged or made of something else."""
    try:
        record = read_json(file)
        if record["made_of"] != made_of:
            return None
        return {method: _verdict(record["methods"][method.key]) for method in METHODS}
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _verdict(fields: Mapping[str, Any]) -> Verdict:
    return Verdict(Her2Status(fields["status"]), float(fields["probability"]), int(fields["tiles"]))


def _write_run(folder: Path, rows: Sequence[SlideRow], verdicts: Mapping[str, Verdict], trained: Trained) -> None:
    """Write a method's `predictions.csv` as `he2her2 predict` does, and who must not be evaluated with it."""
    records = [
        {
            "slide_id": row.slide_id,
            "path": row.path,
            "status": verdicts[row.slide_id].status.value,
            "probability": verdicts[row.slide_id].probability,
            "threshold": trained.config.threshold,
            "tiles": verdicts[row.slide_id].n_tiles,
            "notices": "; ".join(trained.notices),
        }
        for row in rows
    ]
    write_if_new(folder / "predictions.csv", as_csv(records))
    write_if_new(folder / PATIENTS_FILE, json_text({"training_patients": sorted(trained.marks)}))


def _write_failures(file: Path, rows: Sequence[SlideRow], failures: Mapping[str, Failure]) -> None:
    heading = ",".join(_FAILURE_COLUMNS) + "\n"
    records = [
        {"slide_id": row.slide_id, "path": row.path, "stage": why.stage, "reason": why.reason, "remedy": why.remedy}
        for row in rows
        if (why := failures.get(row.slide_id)) is not None
    ]
    write_if_new(file, as_csv(records) or heading)


def write_if_new(file: Path, text: str) -> None:
    """Write a file unless it says this already."""
    if not (file.is_file() and file.read_text("utf-8") == text):
        write_text(file, text)
