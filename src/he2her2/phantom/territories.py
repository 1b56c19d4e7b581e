"""Which cell owns each pixel: bodies of epithelial cells, and how far it is to their borders."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.cells import Cells
from he2her2.phantom.chance import Floats
from he2her2.phantom.places import GridPlace

_BATCH = 64
"""Cells whose windows are held at a time: as many as the processor's cache takes."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Territories:
    """Cell bodies on a grid.

    Attributes:
        nearest: (h, w) distance in µm to the nearest cell's centre.
        border: (h, w) difference in µm between the second nearest and the nearest: 0 on a cell border.
        depth: (h, w) µm to the outer edge of the cell's reach; positive inside a cell.
        owner: (h, w) position of the nearest cell, -1 outside all of them.
    """

    nearest: Floats
    border: Floats
    depth: Floats
    owner: NDArray[np.int32]


def draw_territories(cells: Cells, grid: GridPlace) -> Territories:
    """Divide the grid among `cells` (all with a reach): each px to the nearest within reach, in its own metric."""
    px = float(grid.xs[1] - grid.xs[0])
    h, w = len(grid.ys), len(grid.xs)
    reach = float(cells.reach_um.max(initial=0.0))
    half = int(np.ceil(reach * 1.17 / px)) + 1
    # A frame of `half` px lets every window lie inside the arrays.
    first, second = (np.zeros((h + 2 * half, w + 2 * half), np.float32) for _ in range(2))
    owner = np.full(first.shape, -1, np.int32)
    column = np.floor((cells.x - grid.xs[0]) / px + 0.5).astype(np.int64)
    row = np.floor((cells.y - grid.ys[0]) / px + 0.5).astype(np.int64)
    seen = np.flatnonzero((column > -half) & (column < w + half) & (row > -half) & (row < h + half))
    for part in np.array_split(seen, len(seen) // _BATCH + 1):
        depths = _depths(cells.take(part), column[part], row[part], grid, half)
        for k, d in zip(part, depths, strict=True):
            top, left = int(row[k]), int(column[k])
            window = (slice(max(top, 0), top + 2 * half), slice(max(left, 0), left + 2 * half))
            f, s = first[window], second[window]
            d_seen = d[max(-top, 0) :, max(-left, 0) :][: f.shape[0], : f.shape[1]]
            np.copyto(owner[window], np.int32(k), where=d_seen > f)
            np.maximum(s, np.minimum(f, d_seen), out=s)
            np.maximum(f, d_seen, out=f)
    core = (slice(half, half + h), slice(half, half + w))
    return Territories(reach - first[core], first[core] - second[core], first[core], owner[core])


def _depths(cells: Cells, column: NDArray[np.int64], row: NDArray[np.int64], grid: GridPlace, half: int) -> Floats:
    """(n, 2 half, 2 half) how deep each window's pixels lie inside the cell's reach, in µm, at most 0 outside."""
    px = float(grid.xs[1] - grid.xs[0])
    offset = (np.arange(2 * half) - half).astype(np.float32) * np.float32(px)
    x0 = (grid.xs[0] + column * px - cells.x).astype(np.float32)
    y0 = (grid.ys[0] + row * px - cells.y).astype(np.float32)
    gx = (x0[:, None] + offset[None, :])[:, None, :]
    gy = (y0[:, None] + offset[None, :])[:, :, None]
    stretch = np.sqrt(np.clip(np.sqrt(cells.long_um / cells.short_um), 1.0, 1.35))[:, None, None]
    c, s = np.cos(cells.angle)[:, None, None], np.sin(cells.angle)[:, None, None]
    u = (gx * c + gy * s) / stretch
    v = (gy * c - gx * s) * stretch
    return np.asarray(cells.reach_um[:, None, None] - np.sqrt(u * u + v * v), np.float32)
