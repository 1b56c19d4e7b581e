"""`he2her2 weights adapt`: new weights for another laboratory, from slides of which nobody knows the status.

The tile CNN's batch norms move to their tiles, and a threshold is chosen on their scores. Prediction with the new
weights is as it was: each slide by itself, without torch.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from he2her2.cohort import SlideEngine, SlideTask, TaskOutcome
from he2her2.config import Config
from he2her2.errors import ConfigError, EvaluationError, OutputError, WeightsError
from he2her2.files import atomic, check_writable
from he2her2.geometry import Rgb, TileGrid
from he2her2.manifest import hashed_patient, patient_key, write_patients
from he2her2.method import cut_tumour, decide_on, score_tiles
from he2her2.models import Card, Engine, SlideModel, load_slide_model, load_tensors, recoloured
from he2her2.models.export import engine_of, save_weights
from he2her2.pipeline import RegionUse, segment
from he2her2.preprocessing import ColourChange
from he2her2.results import Failure
from he2her2.rules import are_called, combine
from he2her2.slides import Slide, open_slide
from he2her2.statistics import share_by_em, threshold_at_prior, threshold_at_share, threshold_in_valley
from he2her2.timing import Progress, silent
from he2her2.training.slides.batch_norms import fused_weights, has_norms, some_tiles

__all__ = ["Adaptation", "Adapted", "ThresholdRule", "adapt_weights"]

ThresholdRule: TypeAlias = Literal["keep", "share", "valley", "prior-shift"]
"""Threshold: that of the given weights, or one by the scores of the slides; see `statistics.unlabelled`."""

_LEAST_SLIDES = 8
_EVEN = 0.5  # share of positives for which the probabilities hold: training shows both classes equally often
_NOT_MEASURED = "adapted to slides of unknown status: how well it does there has not been measured"

_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Adaptation:
    """Request for an adaptation.

    Attributes:
        weights: Folder of weights whose aggregator reads the tile CNN.
        alpha: Share of the slides in the batch norms' statistics; 0 leaves them.
        threshold: Rule of the threshold.
        share: Share of positives among the slides; for the rule `share`.
        region_use: Purpose of annotated regions.
        annotation_classes: Classes of annotations that are tumour; by their names if empty.
    """

    weights: Path
    alpha: float
    threshold: ThresholdRule = "keep"
    share: float | None = None
    region_use: RegionUse = "intersect"
    annotation_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adapted:
    """Outcome of an adaptation.

    Attributes:
        n_slides: Slides that were adapted to.
        n_patients: Their patients.
        n_tiles: Tiles behind the batch norms' statistics.
        threshold: Of the new weights.
        share_before: Share of patients called positive by the given weights.
        share_after: The same of the new ones.
        failures: Slides that could not be used.
    """

    n_slides: int
    n_patients: int
    n_tiles: int
    threshold: float
    share_before: float
    share_after: float
    failures: tuple[Failure, ...]


def adapt_weights(
    asked: Adaptation,
    tasks: Sequence[SlideTask],
    patients: Mapping[str, str],
    out: Path,
    config: Config,
    progress: Progress = silent,
) -> Adapted:
    """Write weights that are adapted to slides; their order changes nothing.

    Args:
        asked: What to adapt, and how.
        tasks: The slides.
        patients: Patient of each slide, where known; else a slide is a patient.
        out: New folder of weights.
        config: The method's settings, which find the tumour as prediction does.
        progress: Called after each slide.

    Raises:
        WeightsError: The weights are missing or damaged, or have no batch norm that could be adapted.
        ConfigError: The settings do not fit the weights, or each other.
        EvaluationError: Too few slides can be used, or their scores tell no threshold.
        OutputError: The folder exists, or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out")
    check_writable(out)
    model = load_slide_model(str(asked.weights), config, "cpu")
    kept = model.threshold(config)
    _require_adaptable(asked, model, kept)
    tasks, engine = sorted(tasks, key=lambda task: task.slide_id), SlideEngine(progress)
    samples, failures = _read_samples(engine, tasks, _Sampler(model, config, asked, len(tasks)))
    tensors, tile_cnn = _moved_cnn(asked, model, samples)
    judge = _Judge(replace(model, tile_cnn=tile_cnn), config, samples)
    judged, unscored = _parted(engine.run([task for task in tasks if task.slide_id in samples], judge, stage="scoring"))
    if unscored:
        raise EvaluationError(str(unscored[0]))
    names = {slide_id: patient_key(patients.get(slide_id, slide_id)) for slide_id in samples}
    before = _patient_scores({slide_id: sample.probability for slide_id, sample in samples.items()}, names)
    after = _patient_scores(judged, names)
    threshold = _chosen_threshold(asked, after, kept)
    found = Adapted(
        n_slides=len(samples),
        n_patients=len(after),
        n_tiles=sum(len(sample.tiles) for sample in samples.values()),
        threshold=threshold,
        share_before=float(are_called(before, kept).mean()),
        share_after=float(are_called(after, threshold).mean()),
        failures=tuple(failures),
    )
    _write(asked, model, tensors, found, sorted(set(names.values())), out)
    return found


def _require_adaptable(asked: Adaptation, model: SlideModel, kept: float) -> None:
    """Refuse what cannot be adapted, or has a threshold that no card can state.

    Raises:
        WeightsError: The networks have nothing that this adaptation changes.
        ConfigError: The request asks for nothing, or leaves the share open.
    """
    if model.encoder is not None:
        raise WeightsError(
            f"{asked.weights}: its aggregator reads features of {model.encoder.card.name}, not the tile CNN's logits; "
            "only weights of the latter can be adapted"
        )
    cnn, aggregator = model.tile_cnn.card.cnn, model.aggregator.spec
    if asked.alpha and not has_norms(cnn):
        raise WeightsError(
            f"{asked.weights}: its {cnn.name} has no batch norm, so that only the threshold can be adapted; "
            "pass --alpha 0 with --threshold"
        )
    if asked.threshold != "keep" and not (aggregator.has_weights and aggregator.gives_probability):
        raise WeightsError(f"{asked.weights}: the {aggregator.name} aggregator has no threshold; pass --threshold keep")
    if not asked.alpha and asked.threshold == "keep":
        raise ConfigError("--alpha 0 with --threshold keep changes nothing; choose another of either")
    if asked.threshold == "keep" and not kept:
        raise ConfigError("--threshold keep: the kept threshold, 0, calls every slide positive; choose another rule")
    if (asked.threshold == "share") != (asked.share is not None):
        raise ConfigError("--share and --threshold share belong together: the share of positives among the slides")


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """A slide's tumour tiles, and the pixels of some of them.

    Attributes:
        grid: Tiles that can be read.
        tiles: (n, h, w, 3) evenly drawn from them.
        recolour: Normalisation of the slide, as the settings ask.
        probability: Of HER2-positive, by the given weights.
    """

    grid: TileGrid
    tiles: Rgb
    recolour: ColourChange | None
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class _Sampler:
    """Worker that predicts a slide, and reads some of the tumour's tiles."""

    model: SlideModel
    config: Config
    asked: Adaptation
    n_slides: int

    def __call__(self, task: SlideTask) -> _Sample:
        """Sample of a slide.

        Raises:
            SlideError: The slide cannot be predicted.
            AnnotationError: Its annotation cannot be used.
        """
        config, model = self.config, self.model
        annotation = task.read_annotation(self.asked.annotation_classes)
        with open_slide(task.path, mpp=task.mpp, backend=config.runtime.backend) as slide:
            found = segment(slide, model, config, annotation=annotation, region_use=self.asked.region_use)
            fixed = model.aggregator.fixes_n_tiles
            cut = cut_tumour(slide, found, model.tile, config.tiling, config.selection, n_tiles_fixed=fixed)
            grid, probability = _scored(slide, cut.grid, model, config, found.recolour)
            tiles = some_tiles(slide, grid, self.n_slides, config.runtime)
        seen = tiles if found.recolour is None else found.recolour(tiles)
        return _Sample(grid, seen, found.recolour, probability)


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """Worker that gives the probability of a slide whose tumour is found."""

    model: SlideModel
    config: Config
    samples: Mapping[str, _Sample]

    def __call__(self, task: SlideTask) -> float:
        """Probability of HER2-positive."""
        sample = self.samples[task.slide_id]
        with open_slide(task.path, mpp=task.mpp, backend=self.config.runtime.backend) as slide:
            return _scored(slide, sample.grid, self.model, self.config, sample.recolour)[1]


def _scored(
    slide: Slide, grid: TileGrid, model: SlideModel, config: Config, recolour: ColourChange | None
) -> tuple[TileGrid, float]:
    """Tumour tiles of a slide that can be read, and its probability of HER2-positive."""
    tile_cnn = recoloured(model.tile_cnn, recolour)
    readable, logits = score_tiles(slide, grid, tile_cnn, config.runtime, config.selection.n_tiles)
    grid = grid.take(readable)
    decision = decide_on(slide.slide_id, grid, logits, model.aggregator, model.threshold(config))
    return grid, decision.probability


def _read_samples(
    engine: SlideEngine, tasks: Sequence[SlideTask], sampler: _Sampler
) -> tuple[dict[str, _Sample], list[Failure]]:
    """Samples of the slides that can be used, by slide_id, and the failures of the others.

    Raises:
        EvaluationError: Too few can be used.
    """
    samples, failures = _parted(engine.run(tasks, sampler, stage="reading tiles"))
    if len(samples) < _LEAST_SLIDES:
        first = f"; the first that failed: {failures[0]}" if failures else ""
        raise EvaluationError(
            f"{len(samples)} of {len(tasks)} slides can be used, and {_LEAST_SLIDES} are the fewest to adapt to{first}"
        )
    return samples, failures


def _moved_cnn(
    asked: Adaptation, model: SlideModel, samples: Mapping[str, _Sample]
) -> tuple[Mapping[str, NDArray[np.float32]], Engine]:
    """Weights of the tile CNN with its batch norms moved to the samples, and the network; as given at alpha 0."""
    card = model.tile_cnn.card
    tensors = load_tensors(asked.weights / card.role, card)
    if not asked.alpha:
        return tensors, model.tile_cnn
    tensors = fused_weights(card.cnn, tensors, [sample.tiles for sample in samples.values()], asked.alpha)
    return tensors, engine_of(card, tensors)


def _patient_scores(judged: Mapping[str, float], names: Mapping[str, str]) -> list[float]:
    """Mean probability of each patient, by name.

    Args:
        judged: Probability of each slide.
        names: Patient of each.
    """
    slides: dict[str, list[float]] = defaultdict(list)
    for slide_id, probability in judged.items():
        slides[names[slide_id]].append(probability)
    return [combine("mean", slides[name]) for name in sorted(slides)]


def _parted(outcomes: Iterable[TaskOutcome[_R]]) -> tuple[dict[str, _R], list[Failure]]:
    """Results by slide_id, and failures."""
    results: dict[str, _R] = {}
    failures = []
    for task, found in outcomes:
        if isinstance(found, Failure):
            failures.append(found)
        else:
            results[task.slide_id] = found
    return results, failures


def _chosen_threshold(asked: Adaptation, scores: Sequence[float], kept: float) -> float:
    """The threshold by the rule that was asked for."""
    if asked.threshold == "share":
        assert asked.share is not None
        return threshold_at_share(scores, asked.share)
    if asked.threshold == "valley":
        return threshold_in_valley(scores)
    if asked.threshold == "prior-shift":
        return threshold_at_prior(_EVEN, share_by_em(scores, _EVEN))
    return kept


def _write(
    asked: Adaptation,
    model: SlideModel,
    tensors: Mapping[str, NDArray[np.float32]],
    found: Adapted,
    patients: Sequence[str],
    out: Path,
) -> None:
    """Write the new weights with their cards and their record of patients, whole or not at all."""
    seen = f"{found.n_slides} unlabelled slides of {found.n_patients} patients"
    tile_card, card = model.tile_cnn.card, model.aggregator.card
    with atomic(out) as draft:
        draft.mkdir()
        copytree(asked.weights / "tumour_cnn", draft / "tumour_cnn")
        if asked.alpha:
            words = f"batch norms moved by alpha {asked.alpha:g} to {found.n_tiles} tiles"
            tile_card = _adapted_card(tile_card, seen, words)
        save_weights(draft / "tile_cnn", tile_card, tensors)
        if model.aggregator.spec.has_weights:
            rule = asked.threshold if asked.share is None else f"{asked.threshold} {asked.share:g}"
            words = f"tile CNN at alpha {asked.alpha:g}, threshold {found.threshold:.4g} ({rule})"
            card = replace(_adapted_card(card, seen, words), threshold=found.threshold)
            save_weights(draft / "aggregator", card, load_tensors(asked.weights / "aggregator", card))
        own = {"training_patients": sorted(map(hashed_patient, patients)), "validation_patients": list[str]()}
        write_patients(draft, own, [asked.weights])


def _adapted_card(card: Card, seen: str, change: str) -> Card:
    """The card of an adapted network: its measured figures are of the one before, and go."""
    return replace(
        card,
        metrics=(),
        training_data=f"{card.training_data}; adapted to {seen}",
        recipe=f"{card.recipe}; he2her2 weights adapt: {change}",
        limits=tuple(dict.fromkeys((*card.limits, _NOT_MEASURED))),
    )
