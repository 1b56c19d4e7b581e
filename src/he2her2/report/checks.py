"""Checks of one prediction from its tiles alone: that they give its probability, and that the selected ones decide.

The heatmap is drawn from `tiles.h5`. Here the same file goes through the aggregator again: it must give the
probability of the run; without the selected tiles it must move more than without as many drawn at random
(deletion test: Samek et al., IEEE TNNLS 2017;28:2660-2673); redrawn in blocks, its spread says how sure it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation import SAME_PROBABILITY, redraw_blocks
from he2her2.models import Aggregated, Bag
from he2her2.results import ScoredTiles
from he2her2.rules import are_called, is_called

_DRAWS = 99  # the slide's own value is the hundredth
_CURVE_DRAWS = 20
_CURVE_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Spread:
    """Probability of a slide over redrawn tiles.

    Attributes:
        low: 2.5 % of the redraws lie below.
        high: 2.5 % lie above.
        flips: Redraws that decide otherwise.
        draws: Number of redraws.
    """

    low: float
    high: float
    flips: int
    draws: int


@dataclass(frozen=True, slots=True)
class RemovalStep:
    """Probability after a share of the tiles was removed.

    Attributes:
        share: Of the tiles.
        highest: Those with the highest scores were removed.
        lowest: Those with the lowest scores.
        random: Mean over random removals.
    """

    share: float
    highest: float
    lowest: float
    random: float


@dataclass(frozen=True, slots=True)
class Removal:
    """Effect of removing tiles on the probability.

    Attributes:
        removed: Number of selected tiles.
        without_selected: Probability without them.
        random: (low, median, high) probability without as many drawn at random; low and high are those of all draws.
        draws: Random removals.
        as_large: Of these, those that move the probability at least as much as removing the selected tiles.
        curve: The same for growing shares of the tiles, from none.
    """

    removed: int
    without_selected: float
    random: tuple[float, float, float]
    draws: int
    as_large: int
    curve: tuple[RemovalStep, ...]

    @property
    def p_value(self) -> float:
        """Share of random removals, the real one among them, that move the probability as much."""
        return (1 + self.as_large) / (1 + self.draws)

    @property
    def faithful(self) -> bool:
        """True if the selected tiles matter more than others."""
        return self.p_value <= _ALPHA


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks of a slide's probability against its tiles.

    Attributes:
        again: Probability that they give again.
        same: It is that of the run.
        spread: Over redrawn tiles; None where the probability is not that of the run.
        removal: Of the selected tiles; None likewise, and where too few tiles would be left.
    """

    again: float
    same: bool
    spread: Spread | None = None
    removal: Removal | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DecidedTiles:
    """A prediction as it is checked.

    Attributes:
        tiles: Its tiles, as they are on disk.
        stride_px: Distance of neighbouring tiles in output px.
        probability: Of HER2-positive.
        threshold: Positive from here on.
        at_least: Tiles that the aggregator needs.
    """

    tiles: ScoredTiles
    stride_px: int
    probability: float
    threshold: float
    at_least: int


def check_prediction(prediction: DecidedTiles, aggregator: Callable[[Bag], Aggregated], seed: int = 0) -> Checks:
    """Check a prediction by its tiles; the same seed gives the same figures."""
    rng = np.random.default_rng(seed)
    bag = Bag.of(prediction.tiles.grid, prediction.tiles.logits)
    again = aggregator(bag).probability
    if abs(again - prediction.probability) > SAME_PROBABILITY:
        return Checks(again, same=False)
    spread = _spread(prediction, aggregator, rng)
    return Checks(again, same=True, spread=spread, removal=_removal(prediction, bag, aggregator, rng))


def _spread(prediction: DecidedTiles, aggregator: Callable[[Bag], Aggregated], rng: np.random.Generator) -> Spread:
    found = redraw_blocks(prediction.tiles, prediction.stride_px, prediction.at_least, aggregator, rng)
    low, high = np.quantile(found, (0.025, 0.975))
    threshold = prediction.threshold
    flips = int((are_called(found, threshold) != is_called(prediction.probability, threshold)).sum())
    return Spread(float(low), float(high), flips, len(found))


def _removal(
    prediction: DecidedTiles, bag: Bag, aggregator: Callable[[Bag], Aggregated], rng: np.random.Generator
) -> Removal | None:
    """Remove the selected tiles, as many at random, and growing shares; None where too few tiles would be left."""
    selected = np.flatnonzero(prediction.tiles.selected)
    if not len(selected) or len(bag) - len(selected) < prediction.at_least:
        return None

    def without(removed: NDArray[np.int64]) -> float:
        return aggregator(bag.take(np.delete(np.arange(len(bag)), removed))).probability

    def at_random(n: int) -> float:
        return without(rng.choice(len(bag), n, replace=False))

    own = without(selected)
    drawn = np.array([at_random(len(selected)) for _ in range(_DRAWS)])
    moved = abs(own - prediction.probability) - SAME_PROBABILITY  # rounding is no move
    as_large = int((np.abs(drawn - prediction.probability) >= moved).sum())
    ranked = _by_importance(prediction.tiles)
    curve = [RemovalStep(0.0, *3 * (prediction.probability,))]
    for share in _CURVE_SHARES:
        n = round(share * len(bag))
        if len(bag) - n < prediction.at_least:
            break
        random = float(np.mean([at_random(n) for _ in range(_CURVE_DRAWS)]))
        curve.append(RemovalStep(share, without(ranked[:n]), without(ranked[len(bag) - n :]), random))
    bounds = (float(drawn.min()), float(np.median(drawn)), float(drawn.max()))
    return Removal(len(selected), own, bounds, _DRAWS, as_large, tuple(curve))


def _by_importance(tiles: ScoredTiles) -> NDArray[np.int64]:
    """Positions of the tiles by falling attention, or by score where the selected ones share it equally."""
    chosen = tiles.attention[tiles.selected]
    if np.allclose(chosen, chosen.mean()):
        return np.argsort(-tiles.scores, kind="stable")
    return np.lexsort((-tiles.scores, -tiles.attention))
