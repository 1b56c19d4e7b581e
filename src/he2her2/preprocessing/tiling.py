"""Cut a mask into tiles: wholly inside it, overlapping only as far as their number demands (paper, 3.1 and 3.3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import He2Her2Error
from he2her2.geometry import Mask, Size, TileGrid


class TooFewTilesError(He2Her2Error):
    """The mask is too small for the tiles that are needed, however much they overlap.

    Attributes:
        found: Tiles at the densest stride, one mask pixel.
        needed: Tiles asked for.
    """

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(f"{found} tiles fit into the mask at the densest overlap, {needed} are needed")
        self.found = found
        self.needed = needed


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class CutTiles:
    """A mask cut into tiles.

    Attributes:
        grid: The tiles, in raster order.
        stride_mask: Distance of neighbouring tiles in mask px; the tile's side where none overlap.
        n_plain: Number of tiles without overlap.
    """

    grid: TileGrid
    stride_mask: int
    n_plain: int


def coverage(mask: Mask, side_mask: int) -> NDArray[np.float64]:
    """Compute the share of every square of `side_mask` px that lies in the mask, by integral image.

    Args:
        mask: (h, w) raster.
        side_mask: Side of the squares in mask px.

    Returns:
        (h - side_mask + 1, w - side_mask + 1) shares in [0, 1], indexed by the squares' top-left px; of length 0 along
        an axis that is shorter than a square.

    Raises:
        ValueError: `side_mask` is under 1.

    Example:
        >>> coverage(np.array([[True, True, False], [True, True, False]]), 2).tolist()
        [[1.0, 0.5]]
    """
    if side_mask < 1:
        raise ValueError(f"side_mask must be at least 1, got {side_mask}")
    height, width = (max(0, length - side_mask + 1) for length in mask.shape)
    # Sums over a vast mask may wrap round; their differences come out right all the same.
    total = np.pad(mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32), ((1, 0), (1, 0)))
    low, high = total[:height], total[side_mask:][:height]
    area: NDArray[np.int32] = high[:, side_mask:] - high[:, :width] - low[:, side_mask:] + low[:, :width]
    return area / float(side_mask * side_mask)


def cut_tiles(
    mask: Mask, size_l0: Size, *, px_l0: float, side_mask: int = 8, side_px: int = 256, mpp: float, min_tiles: int
) -> CutTiles:
    """Cut a mask into tiles that lie wholly inside it and inside the slide.

    Origins lie on the grid of mask px, from the slide's corner at a stride. The stride is the tile's side, or else
    the largest smaller one that gives `min_tiles` tiles: the paper overlaps tiles "to guarantee that M tiles can be
    selected" (3.3). Deterministic; at most `side_mask` strides are tried.

    Args:
        mask: (h, w) raster of the whole slide; its last px may reach over the slide's border.
        size_l0: Width and height of the slide in level-0 px.
        px_l0: Level-0 px per mask px; may be fractional, origins are then rounded to whole level-0 px.
        side_mask: Side of a tile in mask px.
        side_px: Side of a tile in output px.
        mpp: µm per output px.
        min_tiles: Overlap tiles until there are so many.

    Raises:
        TooFewTilesError: Even a stride of one mask px gives fewer than `min_tiles` tiles, or there is none at all.

    Example:
        >>> tile = {"px_l0": 32, "side_mask": 2, "side_px": 64, "mpp": 0.5}
        >>> tiling = cut_tiles(np.ones((2, 3), bool), Size(96, 64), **tile, min_tiles=2)
        >>> tiling.grid.origins_l0.tolist(), tiling.stride_mask, tiling.n_plain
        ([[0, 0], [32, 0]], 1, 1)
    """
    inside = (coverage(mask, side_mask) == 1) & _on_slide(mask, size_l0, px_l0, side_mask)
    needed = max(1, min_tiles)
    stride = next((stride for stride in range(side_mask, 0, -1) if _count(inside, stride) >= needed), None)
    if stride is None:
        raise TooFewTilesError(_count(inside, 1), needed)
    origins_mask = np.argwhere(inside[::stride, ::stride])[:, ::-1] * stride  # (n, 2) as (x, y), in raster order
    side_l0 = side_mask * px_l0
    last_l0 = np.floor(np.asarray(size_l0) - side_l0 + _EPSILON_L0)  # rounding never pushes a tile over the border
    origins_l0 = np.minimum(np.rint(origins_mask * px_l0), last_l0).astype(np.int64)
    return CutTiles(TileGrid(origins_l0, side_l0, side_px, mpp), stride, _count(inside, side_mask))


def _count(inside: Mask, stride: int) -> int:
    """Tiles that a stride gives."""
    return int(np.count_nonzero(inside[::stride, ::stride]))


_EPSILON_L0 = 1e-6
"""Level-0 px; px_l0 comes out of a division."""


def _on_slide(mask: Mask, size_l0: Size, px_l0: float, side_mask: int) -> Mask:
    """Find the tiles that end before the slide's right and lower border; indexed as `coverage`."""
    fits = [
        (np.arange(max(0, length - side_mask + 1)) + side_mask) * px_l0 <= side_l0 + _EPSILON_L0
        for length, side_l0 in zip(mask.shape, reversed(size_l0), strict=True)
    ]
    return fits[0][:, None] & fits[1][None, :]
