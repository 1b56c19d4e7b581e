"""`he2her2 train tiles`: the tile CNN, from tiles that inherit their slide's IHC score (paper, 3.2 and 4.2)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.cohort import SlideTask, annotation_lines
from he2her2.config import Config
from he2her2.evaluation import TABLE_1
from he2her2.manifest import SlideRow, write_patients
from he2her2.models import soft_argmax
from he2her2.results import RESEARCH_USE_NOTICE
from he2her2.statistics import exact_binomial
from he2her2.training.classifier import CnnClassifier
from he2her2.training.cross_validation import CnnTraining, TileSets, trainable_cnn
from he2her2.training.report import REPORT, Provenance, estimate_rows, export, write_report
from he2her2.training.run import Execution, begin_run, fingerprint_slides, is_first_process, undone_if_refused
from he2her2.training.settings import TileTraining
from he2her2.training.tiles.data import TileData, TileSplit, load_weights, read_split
from he2her2.training.tiles.dataset import (
    DrawnTiles,
    SlideTiles,
    TileDataset,
    draw_tiles,
    few_of_many,
    find_tiles,
    readable_tiles,
)
from he2her2.training.tiles.judgement import CONFUSION_COLUMNS, JudgedTiles, confusion_rows, join_sets, write_tables

__all__ = ["train_tiles"]

_WEAK_LABELS = "every tile of a slide was labelled with the slide's score, also tiles that do not show it"


def train_tiles(
    data: TileData, out: Path, config: Config, settings: TileTraining, execution: Execution, *, folds: int = 0
) -> Path:
    """Train a tile CNN; weights go to `out/weights/tile_cnn`, figures to `out/report.md`.

    Without folds, slides of the split `val` pick the epoch, and those of `test`, if any, are evaluated besides. With
    folds, K networks are each evaluated on patients that they never saw, and the network that is kept is trained on all
    of them: the folds hold the patients without a split, or, where every slide has one, those of train and val.

    Args:
        data: Training data.
        out: Folder of the run.
        config: The method's settings; `networks.tile_cnn` is trained.
        settings: Of the training.
        execution: Hardware, resuming, messages.
        folds: Number of folds of a cross-validation; 0 for none.

    Returns:
        The report.

    Raises:
        He2Her2Error: The data, the settings, the hardware or the folder cannot be used. Manifest and slides are checked
            before any training, and all problems of either come in one message.
    """
    spec = trainable_cnn(config.networks.tile_cnn, "tile_cnn", settings.crop_px, folds)
    split = read_split(data, folds, settings.seed)
    weights = load_weights(data, spec, split)
    tasks = [*map(SlideTask.of_row, split.rows)]
    inputs = data.inputs(folds) | {"slides": fingerprint_slides(tasks)}
    begin_run(out, "tiles", execution, config=config, settings=settings, inputs=inputs, patients=split.patients)
    training = CnnTraining(spec, settings, execution, weights, keep=settings.keep)
    for line in annotation_lines(tasks, data.annotation_classes):
        execution.say(line)
    harvest = _harvest(training, settings, config, split.rows, out, data.annotation_classes)
    module, trained_on, sets = (_cross_validated if folds else _validated)(harvest, split, out)
    if not is_first_process():
        return out / REPORT
    provenance = Provenance(
        data=f"{data.stain} tiles: {trained_on.in_words()} ({data.manifest.name}); {data.licence}",
        licence=data.licence,
        recipe=_recipe(data, config, settings, folds),
        metrics=tuple(metric for judged in sets for metric in judged.metrics),
        limits=(RESEARCH_USE_NOTICE, _WEAK_LABELS, *(f"never saw a tile of {score}" for score in trained_on.missing)),
        notices=data.notices,
    )
    export(module.cnn, spec, out / "weights" / "tile_cnn", provenance)
    write_patients(out / "weights", split.patients, [data.init] if data.init else [])
    return _write_report(out, sets, provenance)


def _write_report(out: Path, sets: Sequence[JudgedTiles], provenance: Provenance) -> Path:
    """Write `report.md`, and the tables of each set."""
    for judged in sets:
        write_tables(out, judged)
    return write_report(
        out,
        "tile_training.md",
        provenance,
        sets=sets,
        columns=CONFUSION_COLUMNS,
        confusion=confusion_rows,
        estimate_rows=estimate_rows,
        paper=exact_binomial(int(TABLE_1.trace()), int(TABLE_1.sum())),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Harvest:
    """The tiles of all slides of a training, and its settings.

    Attributes:
        training: The network and its training.
        settings: Of the training.
        config: The method's settings.
        tiles: Tiles by slide_id.
    """

    training: CnnTraining
    settings: TileTraining
    config: Config
    tiles: Mapping[str, SlideTiles]

    def draw(self, rows: Sequence[SlideRow], per_class: int, use: str) -> DrawnTiles:
        """Draw tiles of some slides and check that they can be read."""
        execution = self.training.execution
        chosen = draw_tiles([self.tiles[row.slide_id] for row in rows], per_class, self.settings.seed)
        drawn = readable_tiles(chosen, self.config, execution.progress)
        execution.say(f"{use}: {drawn.in_words()}")
        return drawn

    def dataset(self, slides: Sequence[SlideTiles]) -> TileDataset:
        """Tiles of some slides, for the network."""
        return TileDataset(slides, self.training.spec.input, self.config)

    def judged(
        self, dataset: TileDataset, logits: NDArray[np.float32], name: str, split: str, remarks: Sequence[str]
    ) -> JudgedTiles:
        """Tiles with their predictions from (n, 4) logits."""
        return JudgedTiles(
            name,
            split,
            tuple(slide.row for slide in dataset.slides),
            dataset.slide,
            dataset.labels,
            logits.argmax(axis=1),
            soft_argmax(logits, self.config.scoring.beta),
            tuple(remarks),
        )


def _harvest(
    training: CnnTraining,
    settings: TileTraining,
    config: Config,
    rows: Sequence[SlideRow],
    out: Path,
    annotation_classes: Sequence[str],
) -> _Harvest:
    """Find the tiles of every slide.

    Raises:
        ManifestError: Slides without tiles, all of them; `out` is left as if no training had begun.
    """
    training.execution.say(f"looking for tiles on {len(rows)} slides")
    by_score, progress = settings.tissue_by_score, training.execution.progress
    with undone_if_refused(out):
        found = find_tiles(
            rows,
            training.spec.input,
            config,
            tissue_by_score=by_score,
            annotation_classes=annotation_classes,
            progress=progress,
        )
    if line := few_of_many(found):
        training.execution.say(line)
    return _Harvest(training, settings, config, {slide.row.slide_id: slide for slide in found})


def _validated(harvest: _Harvest, split: TileSplit, out: Path) -> tuple[CnnClassifier, DrawnTiles, list[JudgedTiles]]:
    """Train to the best epoch; evaluate validation and test slides."""
    training, settings = harvest.training, harvest.settings
    train = harvest.draw(split.train, settings.tiles_per_class, "training")
    val = harvest.dataset(harvest.draw(split.val, settings.val_tiles_per_class, "validation").slides)
    sets = [("validation", val, "who also picked the epoch: the figures flatter")]
    if split.test:
        test = harvest.dataset(harvest.draw(split.test, settings.val_tiles_per_class, "test").slides)
        sets.append(("test", test, "used neither for training nor to pick the epoch"))
    module = training.learn(TileSets(harvest.dataset(train.slides), val), out)
    remarks = _missing_scores(train)
    judged = [harvest.judged(tiles, training.logits(module, tiles), name, how, remarks) for name, tiles, how in sets]
    return module, train, judged


def _cross_validated(
    harvest: _Harvest, split: TileSplit, out: Path
) -> tuple[CnnClassifier, DrawnTiles, list[JudgedTiles]]:
    """Train on all patients, and evaluate K networks on the patients that each never saw."""
    training, settings = harvest.training, harvest.settings
    per_class, n_folds = settings.tiles_per_class, len(split.folds)
    left_out = harvest.draw(split.pool, settings.val_tiles_per_class, "left out in turn")
    val = None
    if split.val:
        val = harvest.dataset(harvest.draw(split.val, settings.val_tiles_per_class, "validation").slides)
    trained: list[DrawnTiles] = []
    judged: list[TileDataset] = []

    def tiles_of(fold: Sequence[SlideRow]) -> TileSets:
        names = {row.slide_id for row in fold}
        rows = [*split.train, *(row for row in split.pool if row.slide_id not in names)]
        trained.append(harvest.draw(rows, per_class, "training"))
        judged.append(harvest.dataset([slide for slide in left_out.slides if slide.row.slide_id in names]))
        return TileSets(harvest.dataset(trained[-1].slides), val, judged[-1])

    module, logits = training.cross_validate(
        [partial(tiles_of, fold) for fold in split.folds], partial(tiles_of, ()), out
    )
    epoch = "whose epoch validation patients picked" if val else "after its last epoch"
    how = f"cross-validated by patient in {n_folds} folds, each network {epoch}"
    sets = [
        harvest.judged(tiles, found, "left out", how, [f"Fold {k}: {text}" for text in _missing_scores(train)])
        for k, (tiles, found, train) in enumerate(zip(judged, logits, trained, strict=False), start=1)
    ]
    return module, trained[-1], [join_sets(sets)]


def _missing_scores(train: DrawnTiles) -> tuple[str, ...]:
    """Remarks on scores that the network cannot predict."""
    return tuple(f"no slide of {score} to train on, so that it cannot be found" for score in train.missing)


def _recipe(data: TileData, config: Config, settings: TileTraining, folds: int) -> str:
    """The training in words."""
    start = f"from the weights in {data.init.name}" if data.init else f"from random weights (seed {settings.seed})"
    last = folds or settings.keep == "last-epoch"
    kept = "the last epoch" if last else "the epoch of the best validation accuracy"
    return (
        f"he2her2 train tiles, preset {config.preset}, {start}, cross-entropy, {kept} kept; "
        f"{json.dumps(asdict(settings), sort_keys=True)}"
    )
