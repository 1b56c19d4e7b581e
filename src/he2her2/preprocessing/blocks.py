"""Overlapping tiles in larger squares, so that what they have in common is read and convolved once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import TileGrid

BLOCK_PX = 768
"""Side of a square at most: larger ones share more, and take more memory in every thread."""

WORTH = 0.8
"""Squares are used where their area is at most this share of their tiles'."""


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
    """Group tiles that overlap into squares.

    Args:
        grid: Tiles of native level-0 px.
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
    in_a_row = max(1, (BLOCK_PX - grid.side_px) // stride + 1)
    pitch = in_a_row * stride
    places = offsets // pitch  # (n, 2) column and row of each tile's square
    squares, square_of = np.unique(places[:, ::-1], axis=0, return_inverse=True)  # in raster order
    side_px = grid.side_px + pitch - stride
    if len(squares) * side_px**2 > WORTH * len(grid) * grid.side_px**2:
        return None
    members = np.split(np.argsort(square_of, kind="stable"), np.bincount(square_of).cumsum()[:-1])
    return Blocks(
        TileGrid(first + squares[:, ::-1] * pitch, float(side_px), side_px, grid.mpp),
        tuple(members),
        tuple((offsets - places * pitch)[positions] for positions in members),
    )
