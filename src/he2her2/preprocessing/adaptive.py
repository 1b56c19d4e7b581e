"""HASHI: a whole slide's map from a few thousand samples, taken where the map is steepest.

Cruz-Roa et al. (2018), "High-throughput adaptive sampling for whole-slide histopathology image analysis (HASHI) via
convolutional neural networks", PLoS ONE 13(5); as used by Oliveira et al. (2020), 3.1.2. The first round scores
quasi-random points; every later one draws candidates and scores those where the interpolated map is steepest.

The surface through the samples is never rastered in full: the slope is asked of it at the candidates alone, and the
final map is drawn on a coarse grid and enlarged once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from he2her2.config import Adaptive
from he2her2.geometry import Map, Mask, Size

SamplePoints: TypeAlias = NDArray[np.float64]
"""(n, 2) points (x, y) in mask px; the centre of the mask's first pixel is (0.5, 0.5)."""

SampleValues: TypeAlias = NDArray[np.float64]
"""(n,) values in [0, 1]; NaN where a point could not be scored."""

_Surface: TypeAlias = Callable[[SamplePoints], SampleValues]
"""A map that can be evaluated anywhere."""

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

_PREVIEW_COARSE = 32
"""Mask px per node of the grid on which rounds are compared."""

_BAND_NODES = 1 << 22
"""Nodes of a grid that are drawn at a time: a map of every pixel of a large slide needs no more memory than this."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class AdaptiveMap:
    """A map and the samples it was made of.

    Attributes:
        map: (h, w) in [0, 1].
        points: (n, 2) centres (x, y) of the scored mask px, in the order of scoring; none twice.
        values: (n,) their scores.
        changes: Mean absolute change of the map by each round but the first.
    """

    map: Map
    points: SamplePoints
    values: SampleValues
    changes: tuple[float, ...]


def adaptive_map(
    score: Callable[[SamplePoints], SampleValues], size: Size, settings: Adaptive, density: float = 1.0
) -> AdaptiveMap:
    """Sample a score adaptively and interpolate it to a map.

    Deterministic: the same arguments give the same map.

    Args:
        score: Gives the values of (n, 2) points; called once a round. NaN drops a point, which is not scored again.
        size: Width and height of the mask.
        settings: Rounds, points, candidates, corners, surface, coarseness, seed, and when to stop early.
        density: Points and candidates of a round, as a multiple of those of the settings.

    Raises:
        ValueError: `size` is empty, or `score` does not return one value a point.

    Example:
        >>> found = adaptive_map(lambda points: points[:, 0] / 40, Size(40, 30), Adaptive(iterations=3))
        >>> found.map.shape, round(float(found.map[15, 20]), 2), len(found.changes)
        ((30, 40), 0.51, 2)
    """
    if min(size) < 1:
        raise ValueError(f"a map needs at least one pixel, got {size}")
    halton = scipy.stats.qmc.Halton(d=2, scramble=True, rng=settings.seed)
    # The interpolation solves thousands of tiny systems, where BLAS threads only wait for each other: on a busy machine
    # a hundred times longer than the work takes. SciPy's own BLAS is there by now: what loads later has no limit.
    with threadpool_limits(limits=1, user_api="blas"):
        return _sampled(score, size, settings, density, halton)


def _sampled(
    score: Callable[[SamplePoints], SampleValues],
    size: Size,
    settings: Adaptive,
    density: float,
    halton: "scipy.stats.qmc.Halton",
) -> AdaptiveMap:
    """Sample round by round."""
    n_points, n_candidates = round(settings.points * density), round(settings.candidates * density)
    seen: Mask = np.zeros((size.h, size.w), np.bool_)
    points, values, changes = np.empty((0, 2)), np.empty(0), list[float]()
    surface = interpolate(points, values, settings.surface)
    preview = _heights(surface, size, _PREVIEW_COARSE)
    for iteration in range(settings.iterations):
        if iteration:
            candidates = _fresh(halton.random(n_candidates), seen)
            wanted = _steepest(surface, candidates, size)[:n_points]
        else:
            corners = _CORNERS if settings.corners else _CORNERS[:0]
            wanted = _fresh(np.concatenate([corners, halton.random(n_points - len(corners))]), seen)
        seen[_rows_columns(wanted)] = True
        points, values = _with_scores(points, values, wanted, score)
        surface = interpolate(points, values, settings.surface)
        before, preview = preview, _heights(surface, size, _PREVIEW_COARSE)
        if iteration:
            changes.append(float(np.abs(preview - before).mean()))
            if changes[-1] < settings.stop_change:
                break
    return AdaptiveMap(
        raster(surface, size, _between_nodes(settings.coarse, size, len(points))), points, values, tuple(changes)
    )


def _between_nodes(most: int, size: Size, n_points: int) -> int:
    """Mask px between the map's nodes: no more than between samples on average, of which a small slide would lose most.

    Example:
        >>> [_between_nodes(8, Size(side, side), 2000) for side in (65, 260, 3000)]
        [1, 5, 8]
    """
    return max(1, min(most, math.isqrt(size.w * size.h // max(1, n_points))))


def interpolate(points: SamplePoints, values: SampleValues, surface: Literal["cubic", "linear"]) -> _Surface:
    """The surface through scattered values, clipped to [0, 1]; 0 beyond the points' convex hull.

    Args:
        points: (n, 2), none twice. Where they span no area, the nearest one's value holds; where there are none, 0.
        values: (n,)
        surface: Clough and Tocher's cubic, smooth but overshooting beside steps, or linear in each Delaunay triangle.

    Example:
        >>> corners = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
        >>> height = interpolate(corners, np.array([0.0, 1.0, 0.0, 1.0]), "cubic")
        >>> height(np.array([[2.0, 2.0], [9.0, 9.0]])).round(3).tolist()
        [0.5, 0.0]
    """
    if not len(points):
        return _ground
    through = (
        scipy.interpolate.CloughTocher2DInterpolator if surface == "cubic" else scipy.interpolate.LinearNDInterpolator
    )
    try:
        height = through(scipy.spatial.Delaunay(points), values)
    except (scipy.spatial.QhullError, ValueError):  # fewer than three points, or all on one line
        height = scipy.interpolate.NearestNDInterpolator(points, values)
    return lambda at: np.clip(np.nan_to_num(np.asarray(height(at), np.float64)), 0.0, 1.0)


def raster(surface: _Surface, size: Size, coarse: int) -> Map:
    """Draw a surface on a grid about `coarse` times coarser than the mask, and enlarge it bilinearly.

    The grid's outermost nodes are the mask's outermost pixel centres, so nothing is extrapolated.

    Args:
        surface: What to draw.
        size: Width and height of the mask.
        coarse: Mask px between nodes, at most; 1 draws every pixel.

    Returns:
        (h, w) float32.
    """
    heights = _heights(surface, size, coarse)
    return _stretched(_stretched(heights.T, size.w).T, size.h)


def _heights(surface: _Surface, size: Size, coarse: int) -> Map:
    """A surface at the nodes of a grid over the mask, at most `coarse` px apart."""
    across, down = (np.linspace(0.5, side - 0.5, -(-(side - 1) // coarse) + 1) for side in size)
    heights = np.empty((len(down), len(across)), np.float32)
    n_rows = max(1, _BAND_NODES // len(across))
    for first in range(0, len(down), n_rows):
        columns, rows = np.meshgrid(across, down[first : first + n_rows])
        heights[first : first + n_rows] = surface(np.column_stack([columns.ravel(), rows.ravel()])).reshape(rows.shape)
    return heights


def _ground(at: SamplePoints) -> SampleValues:
    return np.zeros(len(at))


def _fresh(unit: SamplePoints, seen: Mask) -> SamplePoints:
    """Points of the unit square as pixel centres of the mask: the unseen ones, each once, in their order."""
    height, width = seen.shape
    pixels = np.minimum((unit * [width, height]).astype(np.int64), [width - 1, height - 1])
    _, first = np.unique(pixels, axis=0, return_index=True)
    pixels = pixels[np.sort(first)]
    return np.asarray(pixels[~seen[pixels[:, 1], pixels[:, 0]]] + 0.5, np.float64)


def _rows_columns(points: SamplePoints) -> tuple[NDArray[Any], NDArray[Any]]:
    columns, rows = points.astype(np.int64).T
    return rows, columns


def _steepest(surface: _Surface, candidates: SamplePoints, size: Size) -> SamplePoints:
    """Candidates by falling slope, by central differences over one mask px; equals keep their order."""
    squared = np.zeros(len(candidates))
    for axis, length in enumerate(size):
        low, high = candidates.copy(), candidates.copy()
        low[:, axis] = np.maximum(low[:, axis] - 1, 0.5)
        high[:, axis] = np.minimum(high[:, axis] + 1, length - 0.5)
        run = np.maximum(high[:, axis] - low[:, axis], 1.0)
        squared += ((surface(high) - surface(low)) / run) ** 2
    return candidates[np.argsort(-squared, kind="stable")]


def _with_scores(
    points: SamplePoints, values: SampleValues, wanted: SamplePoints, score: Callable[[SamplePoints], SampleValues]
) -> tuple[SamplePoints, SampleValues]:
    """Score the wanted points in one call and add those that have a score."""
    if not len(wanted):
        return points, values
    scores = np.asarray(score(wanted), np.float64)
    if scores.shape != (len(wanted),):
        raise ValueError(f"score must return one value for each of {len(wanted)} points, got shape {scores.shape}")
    readable = ~np.isnan(scores)
    return np.concatenate([points, wanted[readable]]), np.concatenate([values, scores[readable]])


def _stretched(heights: Map, length: int) -> Map:
    """Interpolate rows (along axis 0) linearly to `length` rows, the outermost ones stay."""
    if len(heights) == length:
        return heights
    position = np.linspace(0, len(heights) - 1, length)
    low = np.minimum(position.astype(np.int64), len(heights) - 2)
    share = (position - low).astype(np.float32)[:, None]
    stretched = heights[low]
    stretched += (heights[low + 1] - stretched) * share
    return stretched
