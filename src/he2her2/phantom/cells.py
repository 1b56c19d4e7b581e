"""Cells of a region: their properties, the area that each body covers, and their nuclei drawn one by one."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.random_fields import TEXTURE_PX, Floats, GridPoints, Hashes, texture, uniform

_BODIES_PER_BATCH = 64
"""Cell bodies drawn at a time: as many as the processor's cache holds."""

_NUCLEI_PX_PER_BATCH = 40_000
_NUCLEUS_SIDES_PX = (12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128)


class CellKind(IntEnum):
    """Kind of a cell."""

    TUMOUR = 0
    STROMAL = 1
    LYMPHOCYTE = 2
    LUMINAL = 3
    MYOEPITHELIAL = 4
    DEBRIS = 5
    RED_CELL = 6
    MITOSIS = 7


class Box(NamedTuple):
    """Rectangle of the slide in µm."""

    x0: float
    y0: float
    x1: float
    y1: float

    def grown(self, by_um: float) -> "Box":
        """Extend the box by `by_um` on every side."""
        return Box(self.x0 - by_um, self.y0 - by_um, self.x1 + by_um, self.y1 + by_um)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Cells:
    """Properties of n cells, one array each.

    Attributes:
        x: Centre of the nucleus, µm.
        y: Centre of the nucleus, µm.
        kind: `CellKind` as uint8.
        long_um: Half the long axis of the nucleus.
        short_um: Half the short axis of the nucleus.
        angle: Direction of the long axis, radians.
        ragged: Irregularity of the nuclear outline, relative to its radius.
        dark: Optical density of haematoxylin in the nucleus.
        coarse: Contrast of the chromatin, 0 to 1; high is vesicular with a rim.
        nucleolus: Strength of the nucleolus; 0 for none.
        reach_um: Radius of the cell's body; 0 for cells drawn as nuclei only.
        level: HER2 staining of the membrane: 0 none, 1 faint, 2 weak to moderate, 3 intense.
        hashes: Hash of each cell, for further random numbers.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    kind: NDArray[np.uint8]
    long_um: Floats
    short_um: Floats
    angle: Floats
    ragged: Floats
    dark: Floats
    coarse: Floats
    nucleolus: Floats
    reach_um: Floats
    level: NDArray[np.uint8]
    hashes: Hashes

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Select cells by index or bool mask."""
        return type(self)(*(getattr(self, f.name)[which] for f in fields(self)))

    def within(self, box: Box) -> Self:
        """Select the cells whose centre lies in `box` (left and upper edges included)."""
        return self.take((self.x >= box.x0) & (self.x < box.x1) & (self.y >= box.y0) & (self.y < box.y1))


def join_cells(parts: list[Cells]) -> Cells:
    """Concatenate groups of cells."""
    return Cells(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Cells)))


def make_cells(  # noqa: PLR0913  (a cell's properties)
    kind: CellKind,
    x: NDArray[Any],
    y: NDArray[Any],
    hashes: Hashes,
    *,
    long_um: Floats | float,
    short_um: Floats | float,
    angle: Floats | float = 0.0,
    ragged: Floats | float = 0.05,
    dark: Floats | float = 1.4,
    coarse: Floats | float = 0.3,
    nucleolus: Floats | float = 0.0,
    reach_um: Floats | float = 0.0,
) -> Cells:
    """Make cells of one kind; a single number holds for all of them."""

    def each(value: Floats | float) -> Floats:
        return np.broadcast_to(np.asarray(value, np.float32), x.shape).copy()

    return Cells(
        np.asarray(x, np.float64),
        np.asarray(y, np.float64),
        np.full(x.shape, kind, np.uint8),
        each(long_um),
        each(short_um),
        each(angle),
        each(ragged),
        each(dark),
        each(coarse),
        each(nucleolus),
        each(reach_um),
        np.zeros(x.shape, np.uint8),
        hashes,
    )


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class CellBodies:
    """Areas of cell bodies on a grid.

    Attributes:
        border: (h, w) difference in distance between the second nearest and the nearest cell, µm: 0 on a border.
        depth: (h, w) signed distance to the outer edge of the cell, µm; positive inside.
        owner: (h, w) index of the nearest cell; -1 outside all of them.
    """

    border: Floats
    depth: Floats
    owner: NDArray[np.int32]


def draw_cell_bodies(cells: Cells, grid: GridPoints) -> CellBodies:
    """Assign each px to the nearest of `cells` within its reach; long cells have an elliptic metric."""
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
    for part in np.array_split(seen, len(seen) // _BODIES_PER_BATCH + 1):
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
    return CellBodies(first[core] - second[core], first[core], owner[core])


def _depths(cells: Cells, column: NDArray[np.int64], row: NDArray[np.int64], grid: GridPoints, half: int) -> Floats:
    """Depth of each window's pixels inside the cell's reach, (n, 2 half, 2 half), µm; at most 0 outside."""
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


_EOSIN = {CellKind.DEBRIS: 0.5, CellKind.RED_CELL: 1.75, CellKind.LYMPHOCYTE: 0.35}


def paint_nuclei(haematoxylin: Floats, eosin: Floats, cells: Cells, x0_um: float, y0_um: float, px_um: float) -> None:
    """Draw the nuclei of `cells` over the optical densities of a region, in place.

    Args:
        haematoxylin: (h, w) optical density.
        eosin: (h, w) optical density of the counterstain.
        cells: Cells to draw; those outside the region are skipped.
        x0_um: Left edge of the region, µm.
        y0_um: Upper edge of the region, µm.
        px_um: µm per px.
    """
    h, w = haematoxylin.shape
    span = 2.3 * np.maximum(cells.long_um, cells.short_um) / px_um + 4
    sides = np.array(_NUCLEUS_SIDES_PX)[
        np.minimum(np.searchsorted(_NUCLEUS_SIDES_PX, span), len(_NUCLEUS_SIDES_PX) - 1)
    ]
    column = np.floor((cells.x - x0_um) / px_um).astype(np.int64) - sides // 2
    row = np.floor((cells.y - y0_um) / px_um).astype(np.int64) - sides // 2
    seen = (column > -sides) & (column < w) & (row > -sides) & (row < h)
    for side in np.unique(sides[seen]):
        chosen = np.flatnonzero(seen & (sides == side))
        for part in np.array_split(chosen, max(1, int(len(chosen) * side * side / _NUCLEI_PX_PER_BATCH))):
            x = ((column[part] + 0.5) * px_um + x0_um - cells.x[part]).astype(np.float32)
            y = ((row[part] + 0.5) * px_um + y0_um - cells.y[part]).astype(np.float32)
            alpha, dark, pink = _draw_nuclei(cells.take(part), x, y, int(side), px_um)
            for k, (top, left) in enumerate(zip(row[part], column[part], strict=True)):
                window = (slice(max(top, 0), top + side), slice(max(left, 0), left + side))
                own = (k, slice(max(-top, 0), h - top), slice(max(-left, 0), w - left))
                a = alpha[own]
                for plane, paint in ((haematoxylin, dark), (eosin, pink)):
                    under = plane[window]
                    under += a * (paint[own] - under)


def _draw_nuclei(cells: Cells, x: Floats, y: Floats, side: int, px_um: float) -> tuple[Floats, Floats, Floats]:
    """Coverage, haematoxylin and eosin of nuclei, (n, side, side); `x`, `y` are the first px of their windows, µm."""
    h = cells.hashes
    axis = np.arange(side, dtype=np.float32) * np.float32(px_um)
    gx, gy = (x[:, None] + axis)[:, None, :], (y[:, None] + axis)[:, :, None]
    c, s = _column(np.cos(cells.angle)), _column(np.sin(cells.angle))
    u = (gx * c + gy * s) / _column(cells.long_um)
    v = (gy * c - gx * s) / _column(cells.short_um)
    q = np.sqrt(u * u + v * v) * _outline(cells, side, px_um)  # 1 on the outline
    alpha = np.clip((1 - q) * _column(cells.short_um / (1.3 * px_um)) + 0.5, 0, 1)
    coarse = _column(cells.coarse)
    grain = _windows(texture("chromatin", px_um, 1.0, 3.0), h, 62, side)
    rim = np.maximum(0, 1 - np.abs(q - 0.9) * 6)
    body = 1 - 0.4 * coarse + (0.07 + 0.13 * coarse) * grain + 0.65 * coarse * rim
    with_spot = np.flatnonzero(cells.nucleolus > 0)
    if len(with_spot):
        spot = _spot(h[with_spot], u[with_spot], v[with_spot], _column(cells.long_um[with_spot]))
        body[with_spot] += 1.2 * _column(cells.nucleolus[with_spot]) * spot
    dividing = cells.kind == CellKind.MITOSIS
    if dividing.any():
        alpha[dividing] *= np.clip((0.42 - np.abs(v[dividing]) - 0.12 * grain[dividing]) * 5, 0, 1)
        body[dividing] = 1.7
    dark = np.maximum(body, 0.12) * _column(cells.dark)
    eosin = np.full(len(cells), 0.42, np.float32)
    for kind, strength in _EOSIN.items():
        eosin[cells.kind == kind] = strength
    pink = _column(eosin) * (1 + np.float32(0.25) * grain)
    return alpha, dark.astype(np.float32), pink.astype(np.float32)


def _outline(cells: Cells, side: int, px_um: float) -> Floats:
    """Ratio of the ellipse's radius to the outline's at each px, (n, side, side)."""
    bumps = _windows(texture("outline", px_um, 6.0, 16.0), cells.hashes, 60, side)
    return np.float32(1) + _column(cells.ragged) * bumps


def _windows(tile: Floats, hashes: Hashes, stream: int, side: int) -> Floats:
    """Cut windows from random positions of a texture, (n, side, side)."""
    top = (uniform(hashes, stream) * TEXTURE_PX).astype(np.int64)
    left = (uniform(hashes, stream + 1) * TEXTURE_PX).astype(np.int64)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(tile, (side, side))[top, left])


def _spot(hashes: Hashes, u: Floats, v: Floats, long_um: Floats) -> Floats:
    """Draw a round nucleolus of about 1.8 µm at a random position inside each nucleus."""
    su, sv = 0.7 * (_column(uniform(hashes, 64)) - 0.5), 0.7 * (_column(uniform(hashes, 65)) - 0.5)
    d2 = ((u - su) ** 2 + (v - sv) ** 2) * (long_um / 0.95) ** 2
    return np.maximum(0, 1 - 0.55 * d2 * d2)


def _column(values: Floats) -> Floats:
    return np.asarray(values, np.float32)[:, None, None]
