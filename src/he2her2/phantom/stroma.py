"""What lies between the cells: wavy collagen, loose ground substance, fat, necrosis."""

from functools import lru_cache

import numpy as np

from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.cells import Box, Kind, make_cells
from he2her2.phantom.chance import Floats, key_of, normal, uniform
from he2her2.phantom.places import GridPlace
from he2her2.phantom.populations import jittered
from he2her2.phantom.territories import draw_territories

_ALONG_UM, _ACROSS_UM = 1.0, 0.4
_SHAPE = (2048, 512)  # across, along: 819 µm x 512 µm
_FAT_CELL_UM = 62.0


def collagen(anatomy: Anatomy, grid: GridPlace) -> tuple[Floats, Floats]:
    """Fibres on a grid: their density (mean about 0, sd about 1) and the share of each px that is empty cleft."""
    along, across = anatomy.fibres(grid)
    i = (across * np.float32(1 / _ACROSS_UM)).astype(np.int32) & (_SHAPE[0] - 1)
    j = (along * np.float32(1 / _ALONG_UM)).astype(np.int32) & (_SHAPE[1] - 1)
    index = i * _SHAPE[1] + j
    fibre = _fibre_tile().ravel()[index]
    return fibre, np.clip((-fibre - 1.15) * 1.6, 0, 1)


def paint_stroma(anatomy: Anatomy, grid: GridPlace) -> tuple[Floats, Floats]:
    """Haematoxylin and eosin of fibrous stroma on a grid."""
    fibre, cleft = collagen(anatomy, grid)
    myxoid = anatomy.myxoid(grid)
    hyaline = np.clip(grid.read(anatomy.noise("hyaline", 240)) - 0.6, 0, 1)
    eosin = 0.60 + 0.19 * fibre + 0.3 * hyaline
    eosin *= 1 - 0.62 * myxoid
    eosin *= 1 - cleft * (0.45 + 0.5 * myxoid)
    bubbles = grid.grain("bubbles", 8.0) + 0.5 * grid.grain("bubbles fine", 3.5)
    holes = np.clip((bubbles - 1.5 + 0.9 * myxoid) * 1.5, 0, 1) * np.clip(0.6 - 0.5 * fibre, 0, 1)
    eosin *= (1 - 0.85 * holes) * (1 - 0.10 * bubbles)
    haematoxylin = (0.09 + 0.2 * myxoid * np.clip(0.6 - 0.3 * fibre, 0, 1)) * (1 - 0.8 * cleft) * (1 - 0.85 * holes)
    return haematoxylin.astype(np.float32), np.maximum(eosin, 0.01).astype(np.float32)


def paint_fat(anatomy: Anatomy, grid: GridPlace, haematoxylin: Floats, eosin: Floats) -> None:
    """Put clear fat cells with thin membranes over the stroma, in place, where there is fat."""
    if anatomy.fat(grid).max() < -0.5:
        return
    box = Box(grid.xs[0], grid.ys[0], grid.xs[-1], grid.ys[-1]).grown(_FAT_CELL_UM)
    place, h = jittered(key_of(anatomy.seed, "fat cells"), box, _FAT_CELL_UM, jitter=0.75)
    keep = anatomy.fat(place) > 0
    h = h[keep]
    cells = make_cells(
        Kind.STROMAL,
        place.x[keep],
        place.y[keep],
        h,
        long_um=1.0 + 0.5 * uniform(h, 2),
        short_um=1.0,
        angle=6.28 * uniform(h, 1),
        reach_um=0.62 * _FAT_CELL_UM + 5 * normal(h, 0),
    )
    bodies = draw_territories(cells, grid)
    edge = np.minimum(0.6 * bodies.border, bodies.depth) + 0.3 * grid.read(anatomy.noise("fat wall", 25))
    cover = np.clip(bodies.depth / 0.8 + 0.5, 0, 1) * (bodies.owner >= 0)
    wall = np.clip(1.2 - edge / 1.1, 0, 1)
    eosin += cover * (0.5 * wall - eosin)
    haematoxylin += cover * (0.1 * wall - haematoxylin)


def paint_necrosis(anatomy: Anatomy, grid: GridPlace, haematoxylin: Floats, eosin: Floats) -> None:
    """Put the pink rubble of necrosis over everything, in place, where there is some."""
    amount = np.clip(anatomy.necrosis(grid) * 10 + 0.5, 0, 1)
    if not amount.any():
        return
    lumps = grid.grain("rubble", 7.0) + 0.7 * grid.grain("rubble fine", 2.5)
    clumps = grid.read(anatomy.noise("clumps", 22)) + 0.8 * grid.read(anatomy.noise("clumps far", 90))
    gaps = np.clip(-lumps - 1.1 - 0.5 * clumps, 0, 1)
    remains = (0.55 + 0.13 * lumps + 0.14 * clumps) * (1 - 0.85 * gaps)
    eosin += amount * (np.maximum(remains, 0.02) - eosin)
    haematoxylin += amount * (np.maximum(0.16 + 0.05 * lumps - 0.05 * clumps, 0.02) * (1 - gaps) - haematoxylin)


@lru_cache(maxsize=1)
def _fibre_tile() -> Floats:
    """Density of fibres, across x along: streaks of several widths; it repeats itself on all sides."""
    rng = np.random.default_rng(11)
    fv = np.fft.fftfreq(_SHAPE[0], _ACROSS_UM)[:, None]
    fu = np.fft.rfftfreq(_SHAPE[1], _ALONG_UM)[None, :]
    total = np.zeros(_SHAPE)
    for width, length, strength in ((1.0, 14.0, 0.8), (2.6, 30.0, 1.0), (7.0, 60.0, 0.8)):
        spectrum = np.fft.rfft2(rng.standard_normal(_SHAPE))
        band = np.exp(-((fv * width) ** 2) - (fu * length) ** 2) * (1 - np.exp(-((fv * width * 4) ** 2)))
        streaks = np.fft.irfft2(spectrum * band, _SHAPE)
        total += strength * streaks / streaks.std()
    return np.asarray(total / total.std(), np.float32)
