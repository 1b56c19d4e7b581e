"""`he2her2 train slides`: tile CNN and aggregator, from H&E slides with a HER2 status each (paper, 3.3 and 4.3)."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from he2her2.cohort import annotation_lines
from he2her2.config import Config
from he2her2.csv_files import write_csv
from he2her2.domain import LEAST_SLIDES
from he2her2.errors import ConfigError
from he2her2.files import atomic
from he2her2.labels import Policy
from he2her2.manifest import (
    SlideRow,
    patients_among,
    patients_record,
    patients_used,
    read_manifest,
    require_usable,
    write_patients,
)
from he2her2.models import CnnSpec
from he2her2.results import RESEARCH_USE_NOTICE
from he2her2.training.fit import Fitted, fit, load_checkpoint
from he2her2.training.report import (
    REPORT,
    Provenance,
    card_metrics,
    estimate_rows,
    export,
    write_report,
)
from he2her2.training.run import Execution, begin_run, fingerprint_slides, is_first_process, undone_if_refused
from he2her2.training.sampling import Draw, EpochSampler, Order, alternating, in_sequence, shuffled
from he2her2.training.settings import Hardware, SlideTraining
from he2her2.training.slides.bags import LabelledSlide, TumourTiler, build_bags
from he2her2.training.slides.batch_norms import has_norms, with_moved_norms
from he2her2.training.slides.data import SlideData, initial_networks, load_texture_encoder, load_tumour_cnn
from he2her2.training.slides.judgement import describe_training_slides, judge_slides, slide_figures
from he2her2.training.slides.module import KeptLogits, SlideModule

__all__ = ["KeptLogits", "train_slides"]

_LIMITS = (RESEARCH_USE_NOTICE, "the validation figures flatter: these slides picked the epoch")
_MIXED = ("16-mixed", "16-true", "16")
_PREDICTIONS = "val_predictions.csv"
_COLUMNS = ("slide_id", "patient_id", "site", "her2_status", "predicted", "probability", "tiles")
_STILL = 1e-6  # relative change of a CNN's weights below which it has not been trained


def train_slides(
    data: SlideData,
    out: Path,
    config: Config,
    settings: SlideTraining,
    execution: Execution,
    *,
    kept: KeptLogits | None = None,
) -> Path:
    """Train on slides; `out/weights` then serves `predict --weights`, figures go to `out/report.md`.

    Args:
        data: Slides, and the weights to begin with.
        out: Folder of the run.
        config: The method's settings; validation decides by them as prediction does.
        settings: Of the training.
        execution: Hardware, resuming, messages.
        kept: Shared by trainings, one after the other, that begin with the same CNN on the same slides.

    Returns:
        The report.

    Raises:
        ManifestError: All problems of manifest and slides, before any training.
        ConfigError: Settings or hardware that do not fit.
        WeightsError: The weights to begin with cannot be used.
        OutputError: The folder cannot be written, or holds something else.
    """
    _check_precision(execution.hardware)
    manifest = read_manifest(data.manifest)
    require_usable(manifest, stain="HE", label="her2_status", splits=("train", "val"), policy=data.policy)
    networks = initial_networks(data, config, settings)
    _check_norms(networks.tile_spec, settings)
    tumour_cnn = load_tumour_cnn(data.weights, data.annotations_use, config)
    patients = patients_record(manifest)
    tile, texture = networks.tile_spec.input, load_texture_encoder(data.weights)
    tiler = TumourTiler(tile, config, tumour_cnn, data.annotations_use, data.annotation_classes, texture)
    rows = [*manifest.select(stain="HE", split="train"), *manifest.select(stain="HE", split="val")]
    inputs = data.inputs | {"slides": fingerprint_slides(tiler.tasks(rows))}
    begin_run(out, "slides", execution, config=config, settings=settings, inputs=inputs, patients=patients)
    for line in _known_validation(data, rows):
        execution.say(f"CAUTION {line}")
    with undone_if_refused(out):
        train, val = _tiled_slides(rows, tiler, data.bags or out / "bags", data.policy, execution)
    if settings.move_norms:
        networks = with_moved_norms(networks, train, config, execution.progress)
    module = SlideModule(networks, settings, config, train, val, kept)
    fitted = _fit_by_slide(module, train, val, out, execution)
    if is_first_process():
        load_checkpoint(module, fitted.best)
        _finish(data, out, module, fitted, val, patients)
    return out / REPORT


def _known_validation(data: SlideData, rows: Iterable[SlideRow]) -> tuple[str, ...]:
    """A line on validation patients with whom the weights to begin with were trained; none where there are none."""
    trained = frozenset[str]() if data.weights is None else patients_used(data.weights).trained
    known = patients_among((row for row in rows if row.split == "val"), trained)
    said = f"the weights to begin with were trained with {len(known)} of the validation patients: their figures flatter"
    return (said,) if known else ()


def _tiled_slides(
    rows: Sequence[SlideRow], tiler: TumourTiler, folder: Path, policy: Policy, execution: Execution
) -> tuple[list[LabelledSlide], list[LabelledSlide]]:
    """Slides of training and of validation with the tiles of their tumour, which `folder` keeps.

    Raises:
        ManifestError: All slides without tiles, each with its reason.
        OutputError: The folder cannot be written.
    """
    for line in annotation_lines(tiler.tasks(rows), tiler.annotation_classes):
        execution.say(line)
    slides = build_bags(rows, tiler, folder, policy=policy, progress=execution.progress)
    train, val = ([slide for slide in slides if slide.row.split == split] for split in ("train", "val"))
    return train, val


def _fit_by_slide(
    module: SlideModule, train: Sequence[LabelledSlide], val: Sequence[LabelledSlide], out: Path, execution: Execution
) -> Fitted:
    """Fit the networks slide by slide; all of `val` validates them after every epoch."""
    settings = module.settings
    return fit(
        module,
        _slide_loader(_order(train, settings), settings.accumulate, settings.seed),
        _slide_loader(in_sequence(len(val)), 1, settings.seed, share=False),
        out,
        execution,
        epochs=settings.epochs,
        seed=settings.seed,
        keep=settings.keep,
    )


def _slide_loader(order: Order, batch_size: int, seed: int, *, share: bool = True) -> "DataLoader[Any]":
    """Loader of draws of slides; the module itself reads their tiles."""
    sampler = EpochSampler(order, batch_size, seed, share=share)
    as_is: Any = _as_is  # torch's types know no loader without batches
    return DataLoader(_Draws(), sampler=sampler, batch_size=None, collate_fn=as_is)


class _Draws(Dataset[Draw]):
    """Returns the draw it is given."""

    def __getitem__(self, draw: Draw) -> Draw:
        return draw


def _as_is(draw: Draw) -> Draw:
    return draw


def _order(train: Sequence[LabelledSlide], settings: SlideTraining) -> Order:
    return alternating(np.array([slide.target for slide in train])) if settings.alternate else shuffled(len(train))


def _check_precision(hardware: Hardware) -> None:
    if hardware.precision in _MIXED:
        raise ConfigError(
            f"precision {hardware.precision}: a slide's gradient passes its tiles in pieces, which 16 bits would round "
            "to zero; use 32-true or bf16-mixed"
        )


def _check_norms(tile_spec: CnnSpec, settings: SlideTraining) -> None:
    if settings.move_norms and not has_norms(tile_spec):
        raise ConfigError(f"training.move_norms: the {tile_spec.name} has no batch norm; leave it off")


@dataclass(frozen=True, slots=True)
class _GradientSummary:
    """Gradient that reached the tile CNN; means over the epochs.

    Attributes:
        share: Of the selected tiles, those with any gradient at their logits.
        ratio: Norm of the gradient at the logits by that at the scores.
        beta_first: Sharpness of soft-argmax in the first epoch.
        beta_last: In the last epoch.
        movement: Relative change of the CNN's weights up to the epoch that is kept.
        aggregator_movement: The same of the aggregator's.
        selection_mismatch: Share of the continuous selection beside the tiles that prediction takes, there; None where
            both are one.
        probability_mismatch: Mean difference of the two probabilities; None likewise.
        frozen: True where the settings froze the CNN.
    """

    share: float
    ratio: float
    beta_first: float
    beta_last: float
    movement: float
    aggregator_movement: float
    selection_mismatch: float | None
    probability_mismatch: float | None
    frozen: bool

    @classmethod
    def of(cls, fitted: Fitted, settings: SlideTraining) -> "_GradientSummary":
        """Summary of a training."""
        history = fitted.history
        share, at_scores, at_logits = (
            sum(row[name] for row in history) / len(history)
            for name in ("gradient_share", "gradient_at_scores", "gradient_at_logits")
        )
        ratio = at_logits / at_scores if at_scores else 0.0
        first, last = history[0]["beta"], history[-1]["beta"]
        kept = fitted.kept
        return cls(
            share,
            ratio,
            first,
            last,
            kept["cnn_movement"],
            kept["aggregator_movement"],
            kept.get("selection_mismatch"),
            kept.get("probability_mismatch"),
            settings.freeze_cnn,
        )

    @property
    def still(self) -> bool:
        """True where the CNN's weights did not change."""
        return self.movement < _STILL


def _finish(
    data: SlideData,
    out: Path,
    module: SlideModule,
    fitted: Fitted,
    val: Sequence[LabelledSlide],
    patients: Mapping[str, Any],
) -> None:
    """Write the weights, decide with them on the validation slides as prediction does, and write the report."""
    config, settings = module.config, module.settings
    provenance = Provenance(
        data=_data_in_words(data, module.bags),
        licence=data.licence,
        recipe=_recipe(data, config, settings, len(fitted.history)),
        limits=(*_LIMITS, *_known_validation(data, [slide.row for slide in val])),
        notices=data.notices,
    )
    weights = out / "weights"
    _save(module, weights, provenance)
    train = [slide for slide in module.bags if slide.row.split == "train"]
    judged = judge_slides(val, weights, config)
    figures = slide_figures(judged)
    metrics = card_metrics(figures, f"the {len(judged)} validation slides, which picked the epoch")
    _save(module, weights, replace(provenance, metrics=metrics))
    complete = _copy_tumour_cnn(data, weights)
    n_described = describe_training_slides([*train, *val], judged, weights, data.manifest.name, config)
    write_patients(weights, patients, [] if data.weights is None else [data.weights])
    write_csv(out / _PREDICTIONS, _COLUMNS, (slide.cells for slide in judged), line_end="\r\n")
    write_report(
        out,
        "slide_training.md",
        provenance,
        fitted=fitted,
        figures=estimate_rows(figures),
        columns=_COLUMNS,
        judged=judged,
        statuses=sorted({slide.decision.status.value for slide in judged}),
        has_tumour_cnn=complete,
        n_described=n_described,
        n_slides=len(module.bags),
        least_described=LEAST_SLIDES,
        gradient=_GradientSummary.of(fitted, settings),
        beta=config.scoring.beta,
    )


def _save(module: SlideModule, weights: Path, provenance: Provenance) -> None:
    """Write both networks, as far as they have weights."""
    networks, config = module.networks, module.config
    export(module.cnn, networks.tile_spec, weights / "tile_cnn", provenance)
    if networks.aggregator_spec.has_weights:
        ranking = networks.aggregator_spec.ranking_of(config.selection, config.scoring)
        export(module.aggregator, networks.aggregator_spec, weights / "aggregator", provenance, ranking)


def _copy_tumour_cnn(data: SlideData, weights: Path) -> bool:
    """Copy the tumour CNN beside the trained networks; False where there is none."""
    source = None if data.weights is None else data.weights / "tumour_cnn"
    if source is None or not source.is_dir():
        return False
    with atomic(weights / "tumour_cnn") as draft:
        shutil.copytree(source, draft)
    return True


def _data_in_words(data: SlideData, slides: Sequence[LabelledSlide]) -> str:
    """Numbers of training and validation slides."""
    parts = []
    for split, use in (("train", "trained on"), ("val", "validated on")):
        chosen = [slide for slide in slides if slide.row.split == split]
        patients = len({slide.row.patient for slide in chosen})
        positive = sum(slide.target for slide in chosen)
        tiles = sum(len(slide.grid) for slide in chosen)
        parts.append(f"{use} {len(chosen)} H&E slides ({positive} positive) of {patients} patients, {tiles} tiles")
    sites = sorted({slide.row.site for slide in slides if slide.row.site})
    return f"{data.manifest.name}: {'; '.join(parts)}" + (f"; sites {', '.join(sites)}" if sites else "")


def _recipe(data: SlideData, config: Config, settings: SlideTraining, n_epochs: int) -> str:
    """The training in words."""
    begin = "the given tile CNN" if data.pretrained else f"random weights (seed {settings.seed})"
    return (
        f"he2her2 train slides, preset {config.preset}, {config.networks.aggregator} aggregator, from {begin}; "
        f"{n_epochs} epochs; {json.dumps(asdict(settings), sort_keys=True)}"
    )
