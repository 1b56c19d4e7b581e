"""Overlapping tiles in larger squares, so that what they have in common is read and convolved once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import TileGrid

_BLOCK_PX = 1024
"""Largest side of a square: larger ones share more, and take more memory in every thread."""

_WORTH = 0.6
"""Largest area of squares, as a share of their tiles' area, at which they are used."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Blocks:
    """Squares that hold all tiles of a grid between them.

    Attributes:
        grid: The squares, as larger tiles.
        positions: Of each square, the (m,) positions of its tiles in their own grid.
        corners_px: Of each square, the (m, 2) top-left (x, y) of these tiles in it.
    """

    grid: TileGrid
    positions: tuple[NDArray[np.int64], ...]
    corners_px: tuple[NDArray[np.int64], ...]


def share_blocks(grid: TileGrid, step_px: int) -> Blocks | None:
    """Group tiles that overlap into squares, of the size at which these are least area in all.

    Args:
        grid: Tiles; those of level-0 px, which are read as they are, can be cut out of a larger square.
        step_px: Tiles of a square must lie whole multiples of so many px apart.

    Returns:
        The squares; None where tiles do not overlap, lie otherwise or are not of level-0 px, or where so few of them
        overlap so little that squares would be more work.
    """
    if not len(grid):
        return None
    first = grid.origins_l0.min(axis=0)
    offsets = grid.origins_l0 - first
    stride = int(np.gcd.reduce(offsets, axis=None))
    if grid.side_l0 != grid.side_px or not 0 < stride < grid.side_px or stride % step_px:
        return None
    most = max(1, (_BLOCK_PX - grid.side_px) // stride + 1)  # tiles in a row
    pitches = [stride * in_a_row for in_a_row in range(1, most + 1)]
    areas = [len(np.unique(_keys(offsets, pitch))) * (grid.side_px + pitch - stride) ** 2 for pitch in pitches]
    if min(areas) > _WORTH * len(grid) * grid.side_px**2:
        return None
    pitch = pitches[np.argmin(areas)]
    keys = _keys(offsets, pitch)
    counts = np.unique(keys, return_counts=True)[1]
    members = np.split(np.argsort(keys, kind="stable"), counts.cumsum()[:-1])
    corners = offsets % pitch
    side_px = grid.side_px + pitch - stride
    origins = np.stack([(grid.origins_l0 - corners)[positions[0]] for positions in members])
    return Blocks(
        TileGrid(origins, float(side_px), side_px, grid.mpp),
        tuple(members),
        tuple(corners[positions] for positions in members),
    )


def _keys(offsets: NDArray[np.int64], pitch: int) -> NDArray[np.int64]:
    """(n,) number of the square of `pitch` px that each tile begins in, in raster order."""
    columns, rows = (offsets // pitch).T
    keys: NDArray[np.int64] = rows * (columns.max() + 1) + columns
    return keys
