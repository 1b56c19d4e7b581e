"""Optical densities of one window of a slide: stroma, fat, glands, necrosis, cell bodies, DAB and nuclei."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from he2her2.manifest import Stain
from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.cell_populations import Rings, draw_cells, gland_rings, jittered_points, vessel_rings
from he2her2.phantom.cells import Box, CellBodies, CellKind, Cells, draw_cell_bodies, make_cells, paint_nuclei
from he2her2.phantom.expression import Her2Expression, dab_density, stained_share
from he2her2.phantom.random_fields import Floats, GridPoints, key_of, normal, texture, texture_view, uniform

_CELL_REACH_UM = 18.0
"""Largest distance from a cell's centre to anything drawn of it."""

_FIBRE_ALONG_UM, _FIBRE_ACROSS_UM = 1.0, 0.4
_FIBRE_SHAPE = (2048, 512)  # across, along: 819 µm x 512 µm
_FAT_CELL_UM = 62.0


@dataclass(frozen=True, slots=True)
class Window:
    """Rectangle of level 0 in px; `x` and `y` are even if `coarse` is 2."""

    x: int
    y: int
    w: int
    h: int
    mpp: float

    @property
    def coarse(self) -> int:
        """Level-0 px per px of the coarse grid, on which all but nuclei and grain is drawn."""
        return 2 if self.mpp < 0.4 else 1

    @property
    def box(self) -> Box:
        """Rectangle in µm."""
        m = self.mpp
        return Box(self.x * m, self.y * m, (self.x + self.w) * m, (self.y + self.h) * m)

    @property
    def grid(self) -> GridPoints:
        """Centres of the coarse px in µm."""
        return self._centres(self.coarse)

    @property
    def fine_grid(self) -> GridPoints:
        """Centres of the level-0 px in µm."""
        return self._centres(1)

    def _centres(self, k: int) -> GridPoints:
        m = self.mpp
        xs = (self.x + (np.arange(self.w // k) + 0.5) * k) * m
        ys = (self.y + (np.arange(self.h // k) + 0.5) * k) * m
        return GridPoints(xs, ys)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _OpticalDensities:
    """Optical densities of a window and the cells in and around it.

    Attributes:
        first: (h, w) haematoxylin.
        second: (h, w) eosin, or DAB.
        cells: All cells that may reach into the window.
    """

    first: Floats
    second: Floats
    cells: Cells


def draw_tissue(anatomy: Anatomy, expression: Her2Expression, window: Window, stain: Stain) -> _OpticalDensities:
    """Draw the tissue in a window, stained with "HE" or "IHC"."""
    grid, box = window.grid, window.box.grown(_CELL_REACH_UM)
    glands, vessels = gland_rings(anatomy, box), vessel_rings(anatomy, box)
    cells = draw_cells(anatomy, expression, box, glands, vessels)
    epithelium = cells.take(cells.reach_um > 0)
    bodies = draw_cell_bodies(epithelium, grid)
    first, second = _paint_stroma(anatomy, grid)
    _paint_fat(anatomy, grid, first, second)
    _paint_lumina(anatomy, grid, glands, vessels, first, second)
    _paint_necrosis(anatomy, grid, first, second)
    _paint_bodies(anatomy, grid, epithelium, bodies, first, second)
    inside = np.clip(anatomy.tissue(grid) / 1.5 + 0.5, 0, 1)
    first *= inside
    second *= inside
    dab = np.zeros_like(second) if stain == "HE" else _dab(grid, epithelium, bodies, first, second) * inside
    fine_first, fine_second = _grained(window, first, 0.22, "ground"), _grained(window, second, 0.18, "fibre")
    paint_nuclei(fine_first, fine_second, cells, window.box.x0, window.box.y0, window.mpp)
    if stain == "IHC":
        return _OpticalDensities(fine_first, _grained(window, dab, 0.12, "dab"), cells)
    return _OpticalDensities(fine_first, fine_second, cells)


def _paint_lumina(
    anatomy: Anatomy, grid: GridPoints, glands: Rings, vessels: Rings, first: Floats, second: Floats
) -> None:
    """Empty the lumina of glands and vessels, in place; glands lie in pale, loose stroma."""
    for rings, inset, secretion in ((glands, 8.0, 0.12), (vessels, 1.5, 0.05)):
        for k in range(len(rings)):
            near = rings.radius_um[k] * rings.stretch[k] + 12
            column = np.flatnonzero(np.abs(grid.xs - rings.x[k]) < near)
            row = np.flatnonzero(np.abs(grid.ys - rings.y[k]) < near)
            if not len(column) or not len(row):
                continue
            window = (slice(row[0], row[-1] + 1), slice(column[0], column[-1] + 1))
            r = rings.distance(k, grid.x[:, window[1]], grid.y[window[0]])
            halo = np.clip((rings.radius_um[k] + 9 - r) / 6, 0, 1) * np.float32(0.35)
            second[window] *= 1 - halo
            empty = np.clip((rings.radius_um[k] - inset - r) / 1.2 + 0.5, 0, 1)
            second[window] += empty * (secretion * uniform(rings.hashes[k : k + 1], 30) - second[window])
            first[window] *= 1 - empty
    tubule = np.clip(anatomy.tubules(grid) * 6, 0, 1) * np.clip(anatomy.tumour(grid) / 10, 0, 1)
    second *= 1 - 0.9 * tubule
    first *= 1 - 0.9 * tubule


def _paint_bodies(
    anatomy: Anatomy, grid: GridPoints, epithelium: Cells, bodies: CellBodies, first: Floats, second: Floats
) -> None:
    """Paint cytoplasm, cell borders and the gaps around nests, in place."""
    if not len(epithelium):
        return
    h = epithelium.hashes
    owner = np.maximum(bodies.owner, 0)
    tumour = (epithelium.kind == CellKind.TUMOUR) | (epithelium.kind == CellKind.MITOSIS)
    blue = np.where(tumour, 0.30, 0.22) * np.exp(0.2 * normal(h, 70))
    pink = np.where(tumour, 0.46, 0.40) * np.exp(0.2 * normal(h, 71))
    loose = np.clip(grid.sample(anatomy.noise("discohesion", 60)) * 0.6 + 2 * anatomy.histology.discohesion - 1, 0, 1)
    cleft = 1.8 * np.clip(grid.sample(anatomy.noise("cleft", 24)) + loose - 0.4, 0, 1)  # nests shrink from the stroma
    inside = bodies.owner >= 0
    depth = bodies.depth + np.minimum(0.8 * grid.grain("body edge", 6.0), 0.5) - cleft
    cover = np.clip(depth / 0.9 + 0.15, 0, 1) * inside
    empty = np.clip(bodies.depth / 0.8, 0, 1) * inside * 0.85
    mottle = 0.24 * grid.grain("mottle", 3.5) + 0.10 * grid.sample(anatomy.noise("mottle far", 26))
    gap = np.clip(1 - bodies.border / 1.3, 0, 1) * loose
    vacuoles = np.clip(3 * (grid.grain("vacuoles", 6.0) - 2.4), 0, 1)
    clear = 1 - 0.85 * np.maximum(gap, vacuoles)
    for plane, amount, sign in ((first, blue, 1), (second, pink, -1)):
        body = amount.astype(np.float32)[owner] * np.exp(sign * mottle) * clear
        np.multiply(plane, 1 - np.maximum(empty, cover), out=plane)
        np.add(plane, cover * body, out=plane)


def _dab(grid: GridPoints, epithelium: Cells, bodies: CellBodies, first: Floats, second: Floats) -> Floats:
    """DAB on membranes, a little in cytoplasm and background, (h, w); weakens the counterstain `first` in place."""
    first *= 0.5
    first += 0.3 * second
    background = 0.03 * second + 0.012
    if not len(epithelium):
        return np.asarray(background, np.float32)
    owner = np.maximum(bodies.owner, 0)
    strength, complete = (
        dab_density(epithelium.level, epithelium.hashes),
        stained_share(epithelium.level, epithelium.hashes),
    )
    band = np.clip(1.6 - np.minimum(bodies.border * 0.5, bodies.depth) / 0.55, 0, 1)
    share = _share_of(grid.grain("membrane", 8.0))
    stained = np.clip((complete[owner] - share) * 12 + 0.5, 0, 1)
    inside = (bodies.owner >= 0) & (bodies.depth > 0)
    uneven = np.exp(0.3 * grid.grain("deposit", 3.0))
    dab = strength[owner] * (band * stained * uneven + 0.08) * inside
    return np.asarray(background + dab, np.float32)


def _share_of(noise: Floats) -> Floats:
    """Map normal noise to nearly uniform values in (0, 1)."""
    return np.asarray(1 / (1 + np.exp(-1.7 * noise)), np.float32)


def _grained(window: Window, plane: Floats, contrast: float, name: str) -> Floats:
    """Enlarge a coarse plane to level 0 and add the finest grain."""
    fine = plane if window.coarse == 1 else _doubled(plane)
    tile = texture(name, window.mpp, 0.5, 1.8)
    fine *= 1 + np.float32(contrast) * texture_view(tile, window.x, window.y, window.w, window.h)
    return fine


def _doubled(plane: Floats) -> Floats:
    """Enlarge twofold by bilinear interpolation; the border px repeat.

    SciPy's zoom would change the bytes of every phantom.
    """
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


def _collagen(anatomy: Anatomy, grid: GridPoints) -> tuple[Floats, Floats]:
    """Collagen on a grid: density of fibres (mean about 0, sd about 1), and the empty share of each px."""
    along, across = anatomy.fibres(grid)
    i = (across * np.float32(1 / _FIBRE_ACROSS_UM)).astype(np.int32) & (_FIBRE_SHAPE[0] - 1)
    j = (along * np.float32(1 / _FIBRE_ALONG_UM)).astype(np.int32) & (_FIBRE_SHAPE[1] - 1)
    index = i * _FIBRE_SHAPE[1] + j
    fibre = _fibre_tile().ravel()[index]
    return fibre, np.clip((-fibre - 1.15) * 1.6, 0, 1)


def _paint_stroma(anatomy: Anatomy, grid: GridPoints) -> tuple[Floats, Floats]:
    """Haematoxylin and eosin of fibrous stroma, (h, w) each."""
    fibre, cleft = _collagen(anatomy, grid)
    myxoid = anatomy.myxoid(grid)
    hyaline = np.clip(grid.sample(anatomy.noise("hyaline", 240)) - 0.6, 0, 1)
    eosin = 0.60 + 0.19 * fibre + 0.3 * hyaline
    eosin *= 1 - 0.62 * myxoid
    eosin *= 1 - cleft * (0.45 + 0.5 * myxoid)
    bubbles = grid.grain("bubbles", 8.0) + 0.5 * grid.grain("bubbles fine", 3.5)
    holes = np.clip((bubbles - 1.5 + 0.9 * myxoid) * 1.5, 0, 1) * np.clip(0.6 - 0.5 * fibre, 0, 1)
    eosin *= (1 - 0.85 * holes) * (1 - 0.10 * bubbles)
    haematoxylin = (0.09 + 0.2 * myxoid * np.clip(0.6 - 0.3 * fibre, 0, 1)) * (1 - 0.8 * cleft) * (1 - 0.85 * holes)
    return haematoxylin.astype(np.float32), np.maximum(eosin, 0.01).astype(np.float32)


def _paint_fat(anatomy: Anatomy, grid: GridPoints, haematoxylin: Floats, eosin: Floats) -> None:
    """Paint clear fat cells with thin membranes over the stroma, in place."""
    if anatomy.fat(grid).max() < -0.5:
        return
    box = Box(grid.xs[0], grid.ys[0], grid.xs[-1], grid.ys[-1]).grown(_FAT_CELL_UM)
    points, h = jittered_points(key_of(anatomy.seed, "fat cells"), box, _FAT_CELL_UM, jitter=0.75)
    keep = anatomy.fat(points) > 0
    h = h[keep]
    cells = make_cells(
        CellKind.STROMAL,
        points.x[keep],
        points.y[keep],
        h,
        long_um=1.0 + 0.5 * uniform(h, 2),
        short_um=1.0,
        angle=6.28 * uniform(h, 1),
        reach_um=0.62 * _FAT_CELL_UM + 5 * normal(h, 0),
    )
    bodies = draw_cell_bodies(cells, grid)
    edge = np.minimum(0.6 * bodies.border, bodies.depth) + 0.3 * grid.sample(anatomy.noise("fat wall", 25))
    cover = np.clip(bodies.depth / 0.8 + 0.5, 0, 1) * (bodies.owner >= 0)
    wall = np.clip(1.2 - edge / 1.1, 0, 1)
    eosin += cover * (0.5 * wall - eosin)
    haematoxylin += cover * (0.1 * wall - haematoxylin)


def _paint_necrosis(anatomy: Anatomy, grid: GridPoints, haematoxylin: Floats, eosin: Floats) -> None:
    """Paint pink necrotic debris over everything else, in place."""
    amount = np.clip(anatomy.necrosis(grid) * 10 + 0.5, 0, 1)
    if not amount.any():
        return
    lumps = grid.grain("rubble", 7.0) + 0.7 * grid.grain("rubble fine", 2.5)
    clumps = grid.sample(anatomy.noise("clumps", 22)) + 0.8 * grid.sample(anatomy.noise("clumps far", 90))
    gaps = np.clip(-lumps - 1.1 - 0.5 * clumps, 0, 1)
    remains = (0.55 + 0.13 * lumps + 0.14 * clumps) * (1 - 0.85 * gaps)
    eosin += amount * (np.maximum(remains, 0.02) - eosin)
    haematoxylin += amount * (np.maximum(0.16 + 0.05 * lumps - 0.05 * clumps, 0.02) * (1 - gaps) - haematoxylin)


@lru_cache(maxsize=1)
def _fibre_tile() -> Floats:
    """Density of fibres, (across, along): streaks of several widths; repeats on all sides."""
    rng = np.random.default_rng(11)
    fv = np.fft.fftfreq(_FIBRE_SHAPE[0], _FIBRE_ACROSS_UM)[:, None]
    fu = np.fft.rfftfreq(_FIBRE_SHAPE[1], _FIBRE_ALONG_UM)[None, :]
    total = np.zeros(_FIBRE_SHAPE)
    for width, length, strength in ((1.0, 14.0, 0.8), (2.6, 30.0, 1.0), (7.0, 60.0, 0.8)):
        spectrum = np.fft.rfft2(rng.standard_normal(_FIBRE_SHAPE))
        band = np.exp(-((fv * width) ** 2) - (fu * length) ** 2) * (1 - np.exp(-((fv * width * 4) ** 2)))
        streaks = np.fft.irfft2(spectrum * band, _FIBRE_SHAPE)
        total += strength * streaks / streaks.std()
    return np.asarray(total / total.std(), np.float32)
