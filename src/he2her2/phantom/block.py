"""One block of a slide: from anatomy to optical densities."""

from dataclasses import dataclass

import numpy as np

from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.cells import Box, Cells, Kind, join_cells
from he2her2.phantom.chance import Floats, normal, uniform
from he2her2.phantom.glands import Rings, acini, gland_cells, vessel_cells, vessels
from he2her2.phantom.membranes import Expression, completeness, stain_strength
from he2her2.phantom.noise import texture, texture_view
from he2her2.phantom.nuclei import stamp_nuclei
from he2her2.phantom.places import GridPlace
from he2her2.phantom.populations import debris, lymphocytes, stromal_cells, tumour_cells
from he2her2.phantom.stroma import paint_fat, paint_necrosis, paint_stroma
from he2her2.phantom.territories import Territories, draw_territories

_CELL_REACH_UM = 18.0
"""No cell is drawn further than this from its centre."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of level 0 in px; `x` and `y` are even where `coarse` is 2."""

    x: int
    y: int
    w: int
    h: int
    mpp: float

    @property
    def coarse(self) -> int:
        """Level-0 px per px of the grid on which everything but nuclei and grain is drawn."""
        return 2 if self.mpp < 0.4 else 1

    @property
    def box(self) -> Box:
        """The rectangle in µm."""
        m = self.mpp
        return Box(self.x * m, self.y * m, (self.x + self.w) * m, (self.y + self.h) * m)

    @property
    def grid(self) -> GridPlace:
        """Centres of the coarse px in µm."""
        return self._centres(self.coarse)

    @property
    def fine_grid(self) -> GridPlace:
        """Centres of the level-0 px in µm."""
        return self._centres(1)

    def _centres(self, k: int) -> GridPlace:
        m = self.mpp
        xs = (self.x + (np.arange(self.w // k) + 0.5) * k) * m
        ys = (self.y + (np.arange(self.h // k) + 0.5) * k) * m
        return GridPlace(xs, ys)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Densities:
    """Optical densities of a window, (h, w), and the cells in and around it.

    Attributes:
        first: Haematoxylin.
        second: Eosin, or DAB.
        cells: Every cell that may show in the window.
    """

    first: Floats
    second: Floats
    cells: Cells


def draw_block(anatomy: Anatomy, expression: Expression, window: Window, stain: str) -> Densities:
    """Draw everything biological in a window."""
    grid, box = window.grid, window.box.grown(_CELL_REACH_UM)
    glands, pipes = acini(anatomy, box), vessels(anatomy, box)
    cells = _outside(_all_cells(anatomy, expression, box, glands, pipes), glands)
    bodies = cells.take(cells.reach_um > 0)
    territories = draw_territories(bodies, grid)
    first, second = paint_stroma(anatomy, grid)
    paint_fat(anatomy, grid, first, second)
    _paint_lumina(anatomy, grid, glands, pipes, first, second)
    paint_necrosis(anatomy, grid, first, second)
    _paint_bodies(anatomy, grid, bodies, territories, first, second)
    inside = np.clip(anatomy.tissue(grid) / 1.5 + 0.5, 0, 1)
    first *= inside
    second *= inside
    dab = np.zeros_like(second) if stain == "HE" else _dab(grid, bodies, territories, first, second) * inside
    fine_first, fine_second = _grained(window, first, 0.22, "ground"), _grained(window, second, 0.18, "fibre")
    stamp_nuclei(fine_first, fine_second, cells, window.box.x0, window.box.y0, window.mpp)
    if stain == "IHC":
        return Densities(fine_first, _grained(window, dab, 0.12, "dab"), cells)
    return Densities(fine_first, fine_second, cells)


def _all_cells(anatomy: Anatomy, expression: Expression, box: Box, glands: Rings, pipes: Rings) -> Cells:
    return join_cells(
        [
            stromal_cells(anatomy, box),
            vessel_cells(pipes),
            gland_cells(glands),
            tumour_cells(anatomy, expression, box),
            lymphocytes(anatomy, box),
            debris(anatomy, box),
        ]
    ).within(box)


def _outside(cells: Cells, glands: Rings) -> Cells:
    """Leave out cells that do not belong to a gland but lie within one."""
    keep = np.ones(len(cells), bool)
    free = (cells.kind != Kind.LUMINAL) & (cells.kind != Kind.MYOEPITHELIAL)
    for k in range(len(glands)):
        keep &= ~(free & (_ring_radius(glands, k, cells.x, cells.y) < glands.radius_um[k] + 1))
    return cells.take(keep)


def _ring_radius(rings: Rings, k: int, x: Floats, y: Floats) -> Floats:
    """Distance from a ring's centre in the ring's own metric, in µm."""
    c, s, stretch = np.cos(rings.angle[k]), np.sin(rings.angle[k]), np.sqrt(rings.stretch[k])
    dx, dy = x - rings.x[k], y - rings.y[k]
    return np.asarray(np.hypot((dx * c + dy * s) / stretch, (dy * c - dx * s) * stretch), np.float32)


def _paint_lumina(
    anatomy: Anatomy, grid: GridPlace, glands: Rings, pipes: Rings, first: Floats, second: Floats
) -> None:
    """Empty the lumina of glands and vessels, in place; glands lie in pale, loose stroma."""
    for rings, inset, secretion in ((glands, 8.0, 0.12), (pipes, 1.5, 0.05)):
        for k in range(len(rings)):
            near = rings.radius_um[k] * rings.stretch[k] + 12
            column = np.flatnonzero(np.abs(grid.xs - rings.x[k]) < near)
            row = np.flatnonzero(np.abs(grid.ys - rings.y[k]) < near)
            if not len(column) or not len(row):
                continue
            window = (slice(row[0], row[-1] + 1), slice(column[0], column[-1] + 1))
            r = _ring_radius(rings, k, grid.x[:, window[1]], grid.y[window[0]])
            halo = np.clip((rings.radius_um[k] + 9 - r) / 6, 0, 1) * np.float32(0.35)
            second[window] *= 1 - halo
            empty = np.clip((rings.radius_um[k] - inset - r) / 1.2 + 0.5, 0, 1)
            second[window] += empty * (secretion * uniform(rings.hashes[k : k + 1], 30) - second[window])
            first[window] *= 1 - empty
    tubule = np.clip(anatomy.tubules(grid) * 6, 0, 1) * np.clip(anatomy.tumour(grid) / 10, 0, 1)
    second *= 1 - 0.9 * tubule
    first *= 1 - 0.9 * tubule


def _paint_bodies(
    anatomy: Anatomy, grid: GridPlace, bodies: Cells, territories: Territories, first: Floats, second: Floats
) -> None:
    """Paint cytoplasm, cell borders and the gap that opens around nests, in place."""
    if not len(bodies):
        return
    h = bodies.hashes
    owner = np.maximum(territories.owner, 0)
    tumour = (bodies.kind == Kind.TUMOUR) | (bodies.kind == Kind.MITOSIS)
    blue = np.where(tumour, 0.30, 0.22) * np.exp(0.2 * normal(h, 70))
    pink = np.where(tumour, 0.46, 0.40) * np.exp(0.2 * normal(h, 71))
    loose = np.clip(grid.read(anatomy.noise("discohesion", 60)) * 0.6 + 2 * anatomy.biology.discohesion - 1, 0, 1)
    cleft = 1.8 * np.clip(grid.read(anatomy.noise("cleft", 24)) + loose - 0.4, 0, 1)  # nests shrink from the stroma
    inside = territories.owner >= 0
    depth = territories.depth + np.minimum(0.8 * grid.grain("body edge", 6.0), 0.5) - cleft
    cover = np.clip(depth / 0.9 + 0.15, 0, 1) * inside
    empty = np.clip(territories.depth / 0.8, 0, 1) * inside * 0.85
    mottle = 0.24 * grid.grain("mottle", 3.5) + 0.10 * grid.read(anatomy.noise("mottle far", 26))
    gap = np.clip(1 - territories.border / 1.3, 0, 1) * loose
    vacuoles = np.clip(3 * (grid.grain("vacuoles", 6.0) - 2.4), 0, 1)
    clear = 1 - 0.85 * np.maximum(gap, vacuoles)
    for plane, amount, sign in ((first, blue, 1), (second, pink, -1)):
        body = amount.astype(np.float32)[owner] * np.exp(sign * mottle) * clear
        np.multiply(plane, 1 - np.maximum(empty, cover), out=plane)
        np.add(plane, cover * body, out=plane)


def _dab(grid: GridPlace, bodies: Cells, territories: Territories, first: Floats, second: Floats) -> Floats:
    """DAB on membranes, with a little in the cytoplasm and the background; fades the counterstain, in place."""
    first *= 0.5
    first += 0.3 * second
    background = 0.03 * second + 0.012
    if not len(bodies):
        return np.asarray(background, np.float32)
    owner = np.maximum(territories.owner, 0)
    strength, complete = stain_strength(bodies.level, bodies.hashes), completeness(bodies.level, bodies.hashes)
    band = np.clip(1.6 - np.minimum(territories.border * 0.5, territories.depth) / 0.55, 0, 1)
    share = _share_of(grid.grain("membrane", 8.0))
    stained = np.clip((complete[owner] - share) * 12 + 0.5, 0, 1)
    inside = (territories.owner >= 0) & (territories.depth > 0)
    uneven = np.exp(0.3 * grid.grain("deposit", 3.0))
    dab = strength[owner] * (band * stained * uneven + 0.08) * inside
    return np.asarray(background + dab, np.float32)


def _share_of(noise: Floats) -> Floats:
    """Uniform [0, 1) of a normal noise."""
    return np.asarray(1 / (1 + np.exp(-1.7 * noise)), np.float32)


def _grained(window: Window, plane: Floats, contrast: float, name: str) -> Floats:
    """Enlarge a coarse plane to level 0 and give it its finest grain."""
    fine = plane if window.coarse == 1 else _doubled(plane)
    tile = texture(name, window.mpp, 0.5, 1.8)
    fine *= 1 + np.float32(contrast) * texture_view(tile, window.x, window.y, window.w, window.h)
    return fine


def _doubled(plane: Floats) -> Floats:
    """Twice the size, bilinear; the border px repeat."""
    rows = np.empty((2 * plane.shape[0], plane.shape[1]), np.float32)
    _interleave(plane, rows)
    both = np.empty((rows.shape[0], 2 * plane.shape[1]), np.float32)
    _interleave(rows.T, both.T)
    return both


def _interleave(plane: Floats, out: Floats) -> None:
    quarter, rest = np.float32(0.25) * plane, np.float32(0.75) * plane
    out[0], out[-1] = plane[0], plane[-1]
    np.add(rest[1:], quarter[:-1], out=out[2::2])
    np.add(rest[:-1], quarter[1:], out=out[1:-1:2])
