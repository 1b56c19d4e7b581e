"""Geometry of the charts of a page, in px of their drawing; templates draw them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.report.checks import Removal
from he2her2.results import ScoredTiles, score_colours

_BINS = 60
_HIGHEST_SCORE = 3.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: left edge and height as shares of the chart, its colour, and its count."""

    x: float
    height: float
    colour: str
    count: int


@dataclass(frozen=True, slots=True)
class ScoreChart:
    """Distribution of tile scores.

    Attributes:
        width: Of a bar, as a share of the chart.
        every: Bars of all tiles.
        selected: Bars of the selected tiles, on a scale of their own.
        most: Tiles in the highest bar.
        most_selected: Selected tiles in the highest bar of theirs.
        median: Median score of all tiles.
        lowest_selected: Least score of a selected tile.
        highest_selected: Greatest.
    """

    width: float
    every: tuple[Bar, ...]
    selected: tuple[Bar, ...]
    most: int
    most_selected: int
    median: float
    lowest_selected: float
    highest_selected: float


def score_chart(tiles: ScoredTiles) -> ScoreChart:
    """Draw the scores of all tiles above those of the selected ones."""
    edges = np.linspace(0, _HIGHEST_SCORE, _BINS + 1)
    every = np.histogram(tiles.scores, edges)[0]
    chosen = tiles.scores[tiles.selected]
    selected = np.histogram(chosen, edges)[0]
    return ScoreChart(
        1 / _BINS,
        _bars(every),
        _bars(selected),
        int(every.max()),
        int(selected.max()),
        float(np.median(tiles.scores)),
        float(chosen.min()),
        float(chosen.max()),
    )


def _bars(counts: NDArray[np.int64]) -> tuple[Bar, ...]:
    """Bars of the bins that hold any tile; the smallest stays visible."""
    centres = (np.arange(_BINS) + 0.5) * _HIGHEST_SCORE / _BINS
    colours = [f"rgb({r}, {g}, {b})" for r, g, b in score_colours(centres).tolist()]
    top = max(int(counts.max()), 1)
    return tuple(Bar(k / _BINS, max(n / top, 0.012), colours[k], n) for k, n in enumerate(counts.tolist()) if n)


@dataclass(frozen=True, slots=True)
class RemovalChart:
    """Lines of a removal, each as points of an SVG polyline; x is the share removed, y the probability.

    Attributes:
        most: Share at the right end.
        highest: The highest scores are removed first.
        lowest: The lowest.
        random: At random.
    """

    most: float
    highest: str
    lowest: str
    random: str


def removal_chart(removal: Removal, width: float, height: float) -> RemovalChart | None:
    """Draw the curve of a removal; None where it has no step."""
    steps = removal.curve
    if len(steps) < 2:
        return None
    most = steps[-1].share

    def points(values: Sequence[float]) -> str:
        pairs = zip(steps, values, strict=True)
        return " ".join(f"{step.share / most * width:.1f},{(1 - p) * height:.1f}" for step, p in pairs)

    lines = ([step.highest for step in steps], [step.lowest for step in steps], [step.random for step in steps])
    return RemovalChart(most, *map(points, lines))
