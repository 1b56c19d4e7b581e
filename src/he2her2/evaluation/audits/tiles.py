"""The audits of tiles, on a random sample of slides, since reading every tiles.h5 of a large run takes hours."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Config
from he2her2.errors import EvaluationError
from he2her2.evaluation.audits.audit import Audit
from he2her2.evaluation.audits.heterogeneity import Heterogeneity, grid_cells, heterogeneity, heterogeneity_audit
from he2her2.evaluation.audits.stability import (
    BLOCK_TILES,
    SAME_PROBABILITY,
    Redrawn,
    not_redrawn,
    redraw,
    square_blocks,
    stability_audit,
)
from he2her2.evaluation.cases import Cases
from he2her2.models import Aggregated, Aggregator, Bag, aggregator_for, load_aggregator
from he2her2.results import RunFolder, ScoredTiles
from he2her2.rules import are_called, is_called

N_SLIDES = 200
_NO_WEIGHTS = "an MLP decided, so give its weights (--weights) to redraw the tiles"


@dataclass(frozen=True, slots=True, eq=False)
class _SampledSlide:
    """Tiles of a sampled slide, and the distance of neighbouring tiles in output px."""

    slide_id: str
    tiles: ScoredTiles
    stride_px: int


def run_aggregator(config: Config, weights: str | None) -> Aggregator | None:
    """Load the run's aggregator; None where it has weights and none are given, or sees features that no run keeps.

    Raises:
        WeightsError: The weights cannot be loaded.
        ConfigError: They are for other settings than the run's.
    """
    if weights is None and aggregator_for(config).has_weights:
        return None
    aggregator = load_aggregator(weights or "untrained:0", config)
    return None if aggregator.card.encoder is not None else aggregator


def tile_audits(
    run: RunFolder, slides: Cases, aggregator: Aggregator | None, *, n_slides: int = N_SLIDES, seed: int = 0
) -> tuple[Audit, Audit]:
    """Stability under other tiles, and heterogeneity, of a random sample of the slides.

    Args:
        run: The predict run.
        slides: Evaluated slides.
        aggregator: As in the run; None leaves stability out.
        n_slides: Most slides of the sample.
        seed: Of the sample and of all draws.

    Raises:
        EvaluationError: The aggregator does not give the run's own probabilities.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(slides))[:n_slides]
    redrawn: list[Redrawn] = []
    spread: dict[str, Heterogeneity] = {}
    owners: list[str] = []
    for k in np.sort(order):
        slide = _read(run, str(slides.ids[k]))
        if slide is None:
            continue
        if aggregator is not None:
            redrawn.append(_redrawn(run, slide, float(slides.probability[k]), aggregator, rng))
            owners.append(str(slides.patients[k]))
        index = heterogeneity(slide.tiles.grid, slide.tiles.scores, slide.stride_px, rng)
        if index is not None:
            spread[slide.slide_id] = index
    patient_of = dict(zip(slides.ids.tolist(), slides.patients.tolist(), strict=True))
    if aggregator is None:
        stability = not_redrawn(_NO_WEIGHTS)
    else:
        stability = stability_audit(redrawn, np.array(owners), len(slides))
    return stability, heterogeneity_audit(spread, np.array([patient_of[name] for name in spread]), len(slides))


def _read(run: RunFolder, slide_id: str) -> _SampledSlide | None:
    tiles, result = run.tiles(slide_id), run.result(slide_id)
    if tiles is None or result is None or result.her2 is None:
        return None
    return _SampledSlide(slide_id, tiles, result.her2.tiles.stride_px)


def _redrawn(
    run: RunFolder, slide: _SampledSlide, probability: float, aggregator: Aggregator, rng: np.random.Generator
) -> Redrawn:
    bag, at_least = Bag.of(slide.tiles.grid, slide.tiles.logits), aggregator.least_tiles
    again = aggregator(bag).probability
    if abs(again - probability) > SAME_PROBABILITY:
        raise EvaluationError(
            f"{run.path}: slide {slide.slide_id} was predicted with probability {probability:.4f}, these weights make "
            f"{again:.4f} of its tiles; pass the --weights of the run"
        )
    by_tile = redraw(bag, None, at_least, aggregator, rng)
    by_block = redraw_blocks(slide.tiles, slide.stride_px, at_least, aggregator, rng)
    flips = float((are_called(by_block, run.threshold) != is_called(probability, run.threshold)).mean())
    return Redrawn(slide.slide_id, probability, float(by_tile.std()), float(by_block.std()), flips)


def redraw_blocks(
    tiles: ScoredTiles,
    stride_px: int,
    at_least: int,
    aggregator: Callable[[Bag], Aggregated],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """(100,) probabilities of a slide whose tiles are redrawn in square blocks of neighbours.

    Args:
        tiles: The slide's tiles.
        stride_px: Distance of neighbouring tiles in output px.
        at_least: Tiles that the aggregator needs.
        aggregator: As in the run.
        rng: Draws the blocks.
    """
    side = BLOCK_TILES * tiles.grid.side_px // stride_px  # in steps of the grid, shorter than a tile with overlap
    blocks = square_blocks(grid_cells(tiles.grid, stride_px), side)
    return redraw(Bag.of(tiles.grid, tiles.logits), blocks, at_least, aggregator, rng)
