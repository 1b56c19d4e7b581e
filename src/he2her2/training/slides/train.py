"""`he2her2 train slides`: tile CNN and aggregator, from H&E slides with a HER2 status each (paper, 3.3 and 4.3)."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from he2her2.config import Config
from he2her2.errors import ConfigError
from he2her2.files import atomic
from he2her2.manifest import patients_record, read_manifest, require_usable, write_patients
from he2her2.method.decision import decide_on
from he2her2.method.tiles import score_tiles
from he2her2.models.card import Ranking
from he2her2.models.slide_model import load_aggregator, load_cnn
from he2her2.training.fit import Fitted, fit, load_checkpoint
from he2her2.training.report import Provenance, export
from he2her2.training.run import Execution, begin_run, is_first_process
from he2her2.training.sampling import Draw, EpochSampler, Order, alternating, in_sequence, shuffled
from he2her2.training.settings import Hardware, SlideTraining
from he2her2.training.slides.bags import Bag, BagRecipe, build_bags
from he2her2.training.slides.module import KeptLogits, SlideModule
from he2her2.training.slides.report import REPORT, Judged, Story, metrics, write_report
from he2her2.training.slides.start import (
    SlideData,
    data_in_words,
    inputs,
    load_start,
    load_tumour_cnn,
    notices,
    recipe_in_words,
)

_LIMITS = (
    "research use only: not validated for diagnosis",
    "the validation figures flatter: these slides chose the epoch",
)
_MIXED = ("16-mixed", "16-true", "16")


def train_slides(
    data: SlideData,
    out: Path,
    config: Config,
    settings: SlideTraining,
    execution: Execution,
    *,
    kept: KeptLogits | None = None,
) -> Path:
    """Train on slides; `out/weights` then serves `predict --weights` and `out/report.md` tells how good it is.

    Args:
        data: What is trained on, and what the training starts from.
        out: Folder of the run.
        config: The method's settings; validation decides by them as prediction does.
        settings: The training's.
        execution: How it is carried out.
        kept: Shared by trainings, one after the other, that start from the same CNN on the same slides.

    Returns:
        The report.

    Raises:
        ManifestError: All that is wrong with manifest and slides, before any training.
        ConfigError: Settings or hardware that do not fit.
        WeightsError: The weights to start from cannot be used.
        OutputError: The folder cannot be written, or holds something else.
    """
    _check_precision(execution.hardware)
    manifest = read_manifest(data.manifest)
    require_usable(manifest, stain="HE", label="her2_status", splits=("train", "val"), policy=data.policy)
    start, tumour_cnn = load_start(data, config, settings), load_tumour_cnn(data, config)
    begin_run(
        out,
        "slides",
        execution,
        config=config,
        settings=settings,
        inputs=inputs(data),
        patients=patients_record(manifest),
    )
    rows = [*manifest.select(stain="HE", split="train"), *manifest.select(stain="HE", split="val")]
    bags = build_bags(
        rows,
        BagRecipe(start.tile_spec.input, config, tumour_cnn, data.annotations_use),
        data.bags or out / "bags",
        policy=data.policy,
        on_bag=lambda n: execution.progress("finding tumour tiles", n, len(rows)),
    )
    train, val = ([bag for bag in bags if bag.row.split == split] for split in ("train", "val"))
    module = SlideModule(start, settings, config, train, val, kept)
    fitted = fit(
        module,
        slide_loader(_order(train, settings), settings.accumulate, settings.seed),
        slide_loader(in_sequence(len(val)), 1, settings.seed, share=False),
        out,
        execution,
        epochs=settings.epochs,
        seed=settings.seed,
        keep=settings.keep,
    )
    if is_first_process():
        load_checkpoint(module, fitted.best)
        _finish(data, out, module, fitted, val)
    return out / REPORT


def slide_loader(order: Order, batch_size: int, seed: int, *, share: bool = True) -> "DataLoader[Any]":
    """Draws of slides; the module itself reads their tiles."""
    sampler = EpochSampler(order, batch_size, seed, share=share)
    as_is: Any = _as_is  # torch's types know no loader without batches
    return DataLoader(_Draws(), sampler=sampler, batch_size=None, collate_fn=as_is)


class _Draws(Dataset[Draw]):
    """Gives back what it is asked for."""

    def __getitem__(self, draw: Draw) -> Draw:
        return draw


def _as_is(draw: Draw) -> Draw:
    return draw


def _order(train: Sequence[Bag], settings: SlideTraining) -> Order:
    return alternating(np.array([bag.target for bag in train])) if settings.alternate else shuffled(len(train))


def _check_precision(hardware: Hardware) -> None:
    if hardware.precision in _MIXED:
        raise ConfigError(
            f"precision {hardware.precision}: a slide's gradient passes its tiles piece by piece, which 16 bits would "
            "round to nothing; use 32-true or bf16-mixed"
        )


def _finish(data: SlideData, out: Path, module: SlideModule, fitted: Fitted, val: Sequence[Bag]) -> None:
    """Write the weights, let them decide on the validation slides as prediction does, and tell of it."""
    config, settings = module.config, module.settings
    provenance = Provenance(
        data=data_in_words(data, module.bags),
        licence=data.licence,
        recipe=recipe_in_words(data, config, settings, len(fitted.history)),
        limits=_LIMITS,
        notices=notices(data),
    )
    weights = out / "weights"
    _save(module, weights, provenance)
    judged = judge(val, weights, config)
    measured = metrics(judged, f"the {len(judged)} validation slides, which chose the epoch")
    _save(module, weights, replace(provenance, metrics=measured))
    gaps = _copy_tumour_cnn(data, weights)
    teachers = [] if data.weights is None else [data.weights]
    write_patients(weights, patients_record(read_manifest(data.manifest)), teachers)
    story = Story(
        data=provenance.data,
        recipe=provenance.recipe,
        beta=config.scoring.beta,
        history=fitted.history,
        keep=settings.keep,
        notices=notices(data),
        gaps=gaps,
        frozen=settings.freeze_cnn,
    )
    write_report(out, story, judged)


def _save(module: SlideModule, weights: Path, provenance: Provenance) -> None:
    """Write both networks; a baseline aggregator has no weights."""
    start, config = module.start, module.config
    export(module.cnn, start.tile_spec, weights / "tile_cnn", provenance)
    if start.aggregator_spec.rule == "mlp":
        ranking = Ranking(config.selection.top_fraction, config.scoring.beta)
        export(module.aggregator, start.aggregator_spec, weights / "aggregator", provenance, ranking)


def judge(bags: Sequence[Bag], weights: Path, config: Config) -> list[Judged]:
    """Decide on slides with saved weights, as `predict` does.

    Raises:
        WeightsError: The weights cannot be used.
        SlideError: A slide cannot be read any more.
    """
    tile_cnn = load_cnn(str(weights), "tile_cnn", config)
    aggregator = load_aggregator(str(weights), config)
    judged = []
    for bag in bags:
        with bag.open(config) as slide:
            readable, logits = score_tiles(slide, bag.grid, tile_cnn, config)
        decision = decide_on(bag.grid.take(readable), logits, aggregator, config.threshold)
        judged.append(Judged(bag.row, bag.status, decision))
    return judged


def _copy_tumour_cnn(data: SlideData, weights: Path) -> tuple[str, ...]:
    """Complete the weights for prediction; else say what they lack."""
    source = None if data.weights is None else data.weights / "tumour_cnn"
    if source is None or not source.is_dir():
        return (
            "`weights/` has no `tumour_cnn/`: tumour came from annotations; `predict` needs one beside the others.",
        )
    with atomic(weights / "tumour_cnn") as draft:
        shutil.copytree(source, draft)
    return ()
