"""`he2her2 train tiles`: the tile CNN, from tiles that inherit their slide's IHC score (paper, 3.2 and 4.2)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from he2her2.config import Config
from he2her2.errors import ConfigError, ManifestError
from he2her2.manifest import SlideRow
from he2her2.manifest.provenance import patient_mark, write_patients
from he2her2.models.scoring import soft_argmax
from he2her2.models.zoo import CnnSpec, network, stage_sides
from he2her2.training.classifier import Batch, CnnClassifier
from he2her2.training.execution import Execution
from he2her2.training.export import Provenance, export
from he2her2.training.fit import fit, load_checkpoint
from he2her2.training.run import begin_run, give_up, is_first_process
from he2her2.training.sampling import EpochSampler, Order, in_sequence, shuffled
from he2her2.training.settings import TileTraining
from he2her2.training.tiles.data import Drawn, SlideTiles, TileDataset, draw, find_tiles, readable
from he2her2.training.tiles.parts import Parts, TileData, inputs, load_start, notices, part_rows
from he2her2.training.tiles.report import Judged, card_metrics, write_report

_RESEARCH = "research use only: not validated for diagnosis"
_WEAK_LABELS = "every tile of a slide was taught the slide's score, also those that show none of it"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is trained, and how."""

    spec: CnnSpec
    config: Config
    settings: TileTraining
    start: dict[str, NDArray[np.float32]] | None
    execution: Execution


def train_tiles(
    data: TileData, out: Path, config: Config, settings: TileTraining, execution: Execution, *, folds: int = 0
) -> Path:
    """Train a tile CNN; `out/weights/tile_cnn` holds it and `out/report.md` tells how good it is.

    Without folds, slides of the split `val` choose the epoch, and those of `test`, if any, are judged besides. With
    folds, K networks each judge patients that they never saw, and the network that is kept learns from all of them:
    the patients without a split are left out in turn, or, where every slide has one, those of train and val.

    Args:
        data: What it is trained on.
        out: Run folder.
        config: The method's settings; `networks.tile_cnn` is trained.
        settings: Of the training.
        execution: How it is carried out.
        folds: Cross-validation in so many; 0 for none.

    Returns:
        The report.

    Raises:
        He2Her2Error: The data, the settings, the hardware or the folder cannot be used. Manifest and slides are looked
            at before any training starts, and all that is wrong with either is told at once.
    """
    spec = _spec(config, settings, folds)
    parts = part_rows(data, folds, settings.seed)
    plan = Plan(spec, config, settings, load_start(data, spec, parts), execution)
    begin_run(
        out, "tiles", execution, config=config, settings=settings, inputs=inputs(data, folds), patients=_patients(parts)
    )
    tiles = _find(plan, parts.rows, out)
    module, trained_on, sets = (_cross_validated if folds else _validated)(plan, parts, tiles, out)
    if not is_first_process():
        return out / "report.md"
    limits = (_RESEARCH, _WEAK_LABELS, *(f"never saw a tile of {score}" for score in trained_on.missing))
    provenance = Provenance(
        data=f"{data.stain} tiles: {trained_on.in_words()} ({data.manifest.name}); {data.licence}",
        licence=data.licence,
        recipe=_recipe(data, config, settings, folds),
        metrics=card_metrics(sets),
        limits=limits,
        notice="; ".join(notices(data)),
    )
    export(module.cnn, spec, out / "weights" / "tile_cnn", provenance)
    write_patients(out / "weights", _patients(parts), [data.init] if data.init else [])
    return write_report(out, sets, provenance)


def _find(plan: Plan, rows: Sequence[SlideRow], out: Path) -> dict[str, SlideTiles]:
    """Each slide's tiles, by its name.

    Raises:
        ManifestError: All that is wrong with the slides; the folder is left as if it had never been opened.
    """
    plan.execution.say(f"looking for tiles on {len(rows)} slides")
    by_score, progress = plan.settings.tissue_by_score, plan.execution.progress
    try:
        found = find_tiles(rows, plan.spec.input, plan.config, tissue_by_score=by_score, progress=progress)
    except ManifestError:
        give_up(out)
        raise
    return {slide.row.slide_id: slide for slide in found}


def judge(
    plan: Plan, module: CnnClassifier, drawn: Drawn, *, name: str, how: str, remarks: Sequence[str] = ()
) -> Judged:
    """What a trained network says of tiles."""
    dataset = TileDataset(drawn.slides, plan.spec.input, plan.config)
    module.eval().to("cpu")
    with torch.inference_mode():
        batches = _loader(dataset, in_sequence(len(dataset)), plan.settings, share=False)
        parts = [module(batch.pixels) for batch in batches]
    logits = torch.cat(parts).numpy()
    return Judged(
        name,
        how,
        tuple(slide.row for slide in drawn.slides),
        dataset.slide,
        dataset.labels,
        logits.argmax(axis=1),
        soft_argmax(logits, plan.config.scoring.beta),
        tuple(remarks),
    )


def _validated(
    plan: Plan, parts: Parts, tiles: dict[str, SlideTiles], out: Path
) -> tuple[CnnClassifier, Drawn, list[Judged]]:
    """The network of the best epoch; validation and test slides are judged."""
    settings = plan.settings
    train = _draw(plan, tiles, parts.train, settings.tiles_per_class, "training")
    val = _draw(plan, tiles, parts.val, settings.val_tiles_per_class, "validation")
    test = _draw(plan, tiles, parts.test, settings.val_tiles_per_class, "test") if parts.test else None
    module = _learn(plan, train, val, out)
    remarks = _never_taught(train)
    how = "who also chose the epoch: the figures flatter"
    sets = [judge(plan, module, val, name="validation", how=how, remarks=remarks)]
    if test is not None:
        how = "whom neither training nor the choice of the epoch saw"
        sets.append(judge(plan, module, test, name="test", how=how, remarks=remarks))
    return module, train, sets


def _cross_validated(
    plan: Plan, parts: Parts, tiles: dict[str, SlideTiles], out: Path
) -> tuple[CnnClassifier, Drawn, list[Judged]]:
    """A network that learned from all patients, and what K others say of patients that they never saw."""
    settings, n_folds = plan.settings, len(parts.folds)
    pool = parts.pool
    judged = _draw(plan, tiles, pool, settings.val_tiles_per_class, "left out in turn")
    val = _draw(plan, tiles, parts.val, settings.val_tiles_per_class, "validation") if parts.val else None
    found = []
    for k, left_out in enumerate(parts.folds):
        plan.execution.say(f"fold {k + 1} of {n_folds}")
        names = {row.slide_id for row in left_out}
        rows = parts.train + tuple(row for row in pool if row.slide_id not in names)
        train = _draw(plan, tiles, rows, settings.tiles_per_class, "training")
        module = _learn(plan, train, val, out / "folds" / str(k + 1))
        mine = replace(judged, slides=tuple(slide for slide in judged.slides if slide.row.slide_id in names))
        remarks = [f"Fold {k + 1}: {text}" for text in _never_taught(train)]
        found.append(judge(plan, module, mine, name="left out", how="", remarks=remarks))
    plan.execution.say("all patients")
    train = _draw(plan, tiles, parts.train + pool, settings.tiles_per_class, "training")
    module = _learn(plan, train, val, out)
    epoch = "whose epoch validation patients chose" if val else "after its last epoch"
    how = f"cross-validated by patient in {n_folds} folds, each network {epoch}"
    return module, train, [replace(_joined(found), how=how)]


def _joined(parts: Sequence[Judged]) -> Judged:
    """What several networks said of different slides, as one set."""
    offsets = np.cumsum([0, *(len(part.rows) for part in parts)])
    return Judged(
        parts[0].name,
        parts[0].how,
        tuple(row for part in parts for row in part.rows),
        np.concatenate([part.slide + offset for part, offset in zip(parts, offsets, strict=False)]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.decided for part in parts]),
        np.concatenate([part.score for part in parts]),
        tuple(remark for part in parts for remark in part.remarks),
    )


def _draw(plan: Plan, tiles: dict[str, SlideTiles], rows: Sequence[Any], per_class: int, use: str) -> Drawn:
    """Draw tiles of some slides, try them, and say how many there are."""
    chosen = draw([tiles[row.slide_id] for row in rows], per_class, plan.settings.seed)
    drawn = readable(chosen, plan.config, plan.execution.progress)
    plan.execution.say(f"{use}: {drawn.in_words()}")
    return drawn


def _never_taught(train: Drawn) -> tuple[str, ...]:
    """What the network cannot say."""
    return tuple(f"no slide of {score} to train on, so that it cannot be found" for score in train.missing)


def _learn(plan: Plan, train: Drawn, val: Drawn | None, folder: Path) -> CnnClassifier:
    """Train one network: that of the best epoch where there is validation, else that of the last."""
    settings, spec = plan.settings, plan.spec
    module = CnnClassifier(spec, settings, plan.start)
    workers = plan.execution.hardware.workers
    learned = TileDataset(train.slides, spec.input, plan.config)
    learning = _loader(learned, shuffled(len(learned)), settings, workers=workers)
    judging = None
    if val is not None:
        judged = TileDataset(val.slides, spec.input, plan.config)
        judging = _loader(judged, in_sequence(len(judged)), settings, share=False, workers=workers)
    fitted = fit(
        module,
        learning,
        judging,
        folder,
        plan.execution,
        epochs=settings.epochs,
        seed=settings.seed,
        keep=settings.keep,
    )
    load_checkpoint(module, fitted.best)
    return module


def _loader(
    dataset: TileDataset, order: Order, settings: TileTraining, *, share: bool = True, workers: int = 0
) -> DataLoader[Batch]:
    sampler = EpochSampler(order, settings.batch_size, settings.seed, share=share)
    return DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)


def _spec(config: Config, settings: TileTraining, folds: int) -> CnnSpec:
    """The network to train.

    Raises:
        ConfigError: There is none of that name, or it cannot be trained so.
    """
    spec = network(config.networks.tile_cnn, "tile_cnn")
    assert isinstance(spec, CnnSpec)
    side, crop = spec.input.network_px, settings.crop_px
    if crop is not None and crop != side:
        if not spec.global_pool or spec.input.side_px != side:
            raise ConfigError(
                f"training.crop_px: a {spec.name} eats {side} px and nothing else; use training.crop_px={side}"
            )
        try:
            stage_sides(replace(spec, input=replace(spec.input, network_px=crop)))
        except ValueError:
            raise ConfigError(f"training.crop_px: {crop} px are too few for a {spec.name}; use 64 or more") from None
        if crop > side:
            raise ConfigError(f"training.crop_px: {crop} px are more than the {side} px of a tile")
    if folds == 1:
        raise ConfigError("--folds 1: one fold leaves nobody to train on; use 2 or more, or 0 for none")
    return spec


def _patients(parts: Parts) -> dict[str, list[str]]:
    """Who has a say in the weights, as `manifest.provenance` names them."""
    trained = (*parts.train, *parts.pool)
    uses = {"training_patients": trained, "validation_patients": parts.val}
    return {use: sorted({patient_mark(row.patient_id) for row in rows}) for use, rows in uses.items()}


def _recipe(data: TileData, config: Config, settings: TileTraining, folds: int) -> str:
    """The training in words."""
    start = f"from the weights in {data.init.name}" if data.init else f"from random weights (seed {settings.seed})"
    kept = "the last epoch" if folds else "the epoch of the best validation accuracy"
    return (
        f"he2her2 train tiles, preset {config.preset}, {start}, cross-entropy, {kept} kept; "
        f"{json.dumps(asdict(settings), sort_keys=True)}"
    )
