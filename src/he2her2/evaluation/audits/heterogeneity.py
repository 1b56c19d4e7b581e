"""Heterogeneity: spatial order of a tumour's tile scores, from mixed at random to high tiles in clusters.

Index: Moran's I of the tile scores over the eight neighbours of each tile,

    I = n / W * sum_ij w_ij (x_i - m)(x_j - m) / sum_i (x_i - m)^2,    w_ij = 1 for neighbours, W = sum_ij w_ij,

whose expectation without spatial order is -1 / (n - 1) (Moran, Biometrika 1950;37:17-23; Cliff & Ord, Spatial
Processes, 1981). Its p-value comes from permuting the scores over the tiles. Beside it stands the share of high tiles
(2+ and 3+) that lie in clusters, with the share expected by chance: HER2 heterogeneity is read by pathologists as
aggregates of amplified cells (Vance et al., Arch Pathol Lab Med 2009;133:611-612).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.evaluation.audits.audit import Audit, AuditRow, not_done
from he2her2.geometry import TileGrid
from he2her2.models import POSITIVE_FROM
from he2her2.statistics import mean_interval, rate

_NAME = "heterogeneity"
_MIN_CLUSTER = 5
"""Tiles of a cluster, at least: 5 tiles of 64 µm are about 0.02 mm² of tumour."""

_MIN_TILES = 20
_DRAWS = 199
_SIGNIFICANT = 0.05
_METHOD = (
    f"Moran's I of the tile scores over each tile's eight neighbours (Moran 1950), p-value by {_DRAWS} permutations "
    f"over the tiles; clusters are groups of at least {_MIN_CLUSTER} touching tiles that score 2+ or 3+. Overlapping "
    "tiles are thinned first."
)
_HALF_OF_THE_NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))
_ALL_NEIGHBOURS = np.ones((3, 3), np.int8)


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """The index of one slide.

    Attributes:
        n_tiles: Tiles without overlap.
        moran: Moran's I; nan where all scores are equal.
        p: Permutation p-value of positive autocorrelation; nan where I is.
        high_share: Share of tiles that score 2+ or 3+.
        clustered: Share of these that lie in a cluster; nan without any.
        clustered_by_chance: The same share, averaged over the permutations.
    """

    n_tiles: int
    moran: float
    p: float
    high_share: float
    clustered: float
    clustered_by_chance: float


def heterogeneity(
    grid: TileGrid, scores: NDArray[np.float64], stride_px: int, rng: np.random.Generator, draws: int = _DRAWS
) -> Heterogeneity | None:
    """The heterogeneity index of a slide's tiles.

    Tiles that overlap share pixels and would look alike for that reason alone, so columns and rows are left out until
    none overlap.

    Args:
        grid: (n) tiles.
        scores: (n,) in [0, 3].
        stride_px: Distance of neighbouring tiles in output px.
        rng: Draws the permutations.
        draws: Permutations.

    Returns:
        The index; None with fewer than 20 tiles or without any neighbours.
    """
    step = math.ceil(grid.side_px / stride_px)
    fine = grid_cells(grid, stride_px)
    kept = _without_overlap(fine, step)
    cells, values = fine[kept] // step, scores[kept]
    pairs = _neighbours(cells)
    if len(cells) < _MIN_TILES or not len(pairs):
        return None
    shuffled = np.stack([values, *(rng.permutation(values) for _ in range(draws))])  # (draws + 1, n), what is, first
    index = _moran(shuffled, pairs)
    clustered = np.array([_clustered_share(cells, row) for row in shuffled])
    chance = clustered[1:].mean()
    p = math.nan if math.isnan(index[0]) else float((1 + np.count_nonzero(index[1:] >= index[0] - 1e-12)) / (draws + 1))
    high_share = float((values >= POSITIVE_FROM).mean())
    return Heterogeneity(len(cells), float(index[0]), p, high_share, float(clustered[0]), float(chance))


def grid_cells(grid: TileGrid, stride_px: int) -> NDArray[np.int64]:
    """(n, 2) column and row of each tile on the grid that it was cut on, from 0.

    Example:
        >>> grid = TileGrid(np.array([[64, 0], [96, 32]]), side_l0=64.0, side_px=64, mpp=0.25)
        >>> grid_cells(grid, stride_px=32).tolist()
        [[0, 0], [1, 1]]
    """
    stride_l0 = grid.side_l0 * stride_px / grid.side_px
    cells = np.rint(grid.origins_l0 / stride_l0).astype(np.int64)
    return cells - cells.min(axis=0) if len(cells) else cells


def _without_overlap(cells: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Positions of the tiles on every `step`-th column and row, from the offset that keeps most tiles; all at step 1.

    Example:
        >>> _without_overlap(np.array([[0, 0], [1, 0], [2, 0]]), 2).tolist()
        [0, 2]
    """
    phase = (cells[:, 0] % step) * step + cells[:, 1] % step
    return np.flatnonzero(phase == np.bincount(phase, minlength=1).argmax())


def _neighbours(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, 2) positions of tiles that touch by side or corner, each pair once; cells lie at equal steps."""
    raster = _raster(cells, np.arange(len(cells)), -1)
    height, width = raster.shape
    found = []
    for dy, dx in _HALF_OF_THE_NEIGHBOURS:
        here = raster[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = raster[dy:, max(0, dx) : width + min(0, dx)]
        both = (here >= 0) & (there >= 0)
        found.append(np.stack([here[both], there[both]], axis=1))
    return np.concatenate(found)


def _moran(values: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Moran's I of each row of values.

    Args:
        values: (r, n) values.
        pairs: (m, 2) neighbours, each pair once.

    Returns:
        (r,) indices; nan where all values of a row are equal.
    """
    centred = values - values.mean(axis=1, keepdims=True)
    spread = (centred**2).sum(axis=1)
    products = np.einsum("rm,rm->r", centred[:, pairs[:, 0]], centred[:, pairs[:, 1]])
    flat = spread <= 1e-12 * values.shape[1]
    index: NDArray[np.float64] = values.shape[1] / len(pairs) * products / np.where(flat, np.nan, spread)
    return index


def _clustered_share(cells: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Share of the high tiles that touch at least four others, directly or through each other; nan without any."""
    high = scores >= POSITIVE_FROM
    if not high.any():
        return math.nan
    groups, _ = ndimage.label(_raster(cells, high, fill=False), structure=_ALL_NEIGHBOURS)
    sizes = np.bincount(groups.ravel())[1:]
    return float(sizes[sizes >= _MIN_CLUSTER].sum() / sizes.sum())


def _raster(cells: NDArray[np.int64], values: NDArray[Any], fill: Any) -> NDArray[Any]:  # noqa: ANN401  (as the values)
    """Values at their cells, `fill` elsewhere."""
    x, y = cells.T
    raster = np.full((int(y.max()) + 1, int(x.max()) + 1), fill)
    raster[y, x] = values
    return raster


def heterogeneity_audit(found: dict[str, Heterogeneity], patients: NDArray[np.str_], n_slides: int) -> Audit:
    """Summarise the index over slides; it describes the slides, so it never alarms.

    Args:
        found: Index of each slide that has one.
        patients: (n,) their patients.
        n_slides: Number of evaluated slides.
    """
    known = {slide_id: index for slide_id, index in found.items() if not math.isnan(index.moran)}
    if not known:
        return not_done(_NAME, "no slide has 20 tiles of differing scores side by side", _METHOD)
    kept = np.array([slide_id in known for slide_id in found])
    values = np.array([index.moran for index in known.values()])
    ordered = np.array([index.p <= _SIGNIFICANT for index in known.values()])
    mean = mean_interval(values, patients[kept], name="mean Moran's I")
    share = rate(ordered, patients[kept], name="slides with spatial order")
    sampled = "" if len(found) == n_slides else f" (drawn from {n_slides})"
    sentence = (
        f"Tile scores lie together in space more than by chance in {int(ordered.sum())} of {len(known)} "
        f"slides{sampled}, {share.percent()} (5 % expected of unordered ones); Moran's I is {mean.text()} on average."
    )
    rows: list[AuditRow] = [
        {
            "slide_id": slide_id,
            "tiles": index.n_tiles,
            "moran": _rounded(index.moran),
            "p": _rounded(index.p),
            "high_share": _rounded(index.high_share),
            "clustered": _rounded(index.clustered),
            "clustered_by_chance": _rounded(index.clustered_by_chance),
        }
        for slide_id, index in found.items()
    ]
    return Audit(_NAME, sentence, alarm=False, rows=tuple(rows), method=_METHOD)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
