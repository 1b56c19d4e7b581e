"""Masks and maps as PNG, and the tiles' scores as a raster."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.geometry import Map, Mask, Size, TileGrid

PNG_LEVEL = 3
"""Of zlib: the usual 6 takes twice as long, and saves a tenth at most of a picture of tissue."""


def write_mask(path: Path, mask: Mask) -> None:
    """Write a mask as a one-bit PNG: white is inside."""
    Image.fromarray(mask).save(path, "PNG", optimize=True)


def write_map(path: Path, values: Map) -> None:
    """Write a map in [0, 1] as a 16-bit grey PNG: 65 535 is 1."""
    Image.fromarray(np.rint(values * 65_535).astype(np.uint16)).save(path, "PNG", compress_level=PNG_LEVEL)


def score_raster(grid: TileGrid, scores: NDArray[np.float64], size: Size, px_l0: float) -> NDArray[np.float64]:
    """Mean score of the tiles over each mask pixel: (h, w), NaN where there is no tile.

    Args:
        grid: (n) tiles on the lattice of the mask.
        scores: (n,) their scores.
        size: Width and height of the mask.
        px_l0: Level-0 px per mask pixel.
    """
    side = round(grid.side_l0 / px_l0)
    corners = np.rint(grid.origins_l0 / px_l0).astype(np.int64)  # (n, 2)
    # Each tile adds its score at its corners; running sums spread it over the tile (a 2-D difference array).
    total, count = (np.zeros((size.h + side + 1, size.w + side + 1)) for _ in range(2))
    for dx, dy, sign in ((0, 0, 1), (side, 0, -1), (0, side, -1), (side, side, 1)):
        at = (corners[:, 1] + dy, corners[:, 0] + dx)
        np.add.at(total, at, sign * scores)
        np.add.at(count, at, sign)
    total, count = (raster.cumsum(0).cumsum(1)[: size.h, : size.w] for raster in (total, count))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0.5)
