"""Cells of every kind, placed by the anatomy: tumour, stroma, lymphocytes, necrotic debris, glands and vessels."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.cells import Box, CellKind, Cells, join_cells, make_cells
from he2her2.phantom.expression import Her2Expression, membrane_levels
from he2her2.phantom.random_fields import Floats, Hashes, ScatteredPoints, key_of, normal, position_hashes, uniform

_FIBROBLASTS = 0.62
"""Largest share of the stroma's grid points with a fibroblast."""

_TWO_PI = np.float32(2 * np.pi)

_LOBULE_SPACING_UM = 620.0
_LOBULE_REACH_UM = 190.0
_VESSEL_SPACING_UM = 230.0
_VESSEL_REACH_UM = 45.0
_MAX_ACINI = 19


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Rings:
    """n elliptic rings of cells around a lumen.

    Attributes:
        x: Centre, µm.
        y: Centre, µm.
        radius_um: Outer radius, geometric mean of the axes.
        stretch: Long axis over short axis.
        angle: Direction of the long axis, radians.
        hashes: Hash of each ring, for further random numbers.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    radius_um: Floats
    stretch: Floats
    angle: Floats
    hashes: Hashes

    def __len__(self) -> int:
        return len(self.x)

    def near(self, box: Box) -> "Rings":
        """Select the rings that reach into `box`."""
        reach = self.radius_um * self.stretch + 4
        inside = (self.x + reach > box.x0) & (self.x - reach < box.x1)
        inside &= (self.y + reach > box.y0) & (self.y - reach < box.y1)
        return Rings(*(getattr(self, f.name)[inside] for f in fields(self)))

    def distance(self, k: int, x: NDArray[Any], y: NDArray[Any]) -> Floats:
        """Elliptic distance from the centre of ring `k`, µm: `radius_um` on the ring."""
        c, s, stretch = np.cos(self.angle[k]), np.sin(self.angle[k]), np.sqrt(self.stretch[k])
        dx, dy = x - self.x[k], y - self.y[k]
        return np.asarray(np.hypot((dx * c + dy * s) / stretch, (dy * c - dx * s) * stretch), np.float32)


def gland_rings(anatomy: Anatomy, box: Box) -> Rings:
    """Draw the acini of lobules, and single ducts, in the tissue beside the tumour."""
    points, h = jittered_points(
        key_of(anatomy.seed, "lobules"), box.grown(_LOBULE_REACH_UM), _LOBULE_SPACING_UM, jitter=0.7
    )
    away = (anatomy.tissue(points) > _LOBULE_REACH_UM) & (anatomy.tumour(points) < -_LOBULE_REACH_UM)
    keep = away & (uniform(h, 0) < 0.6)
    x, y, h = points.x[keep], points.y[keep], h[keep]
    k = np.arange(_MAX_ACINI)
    sub = position_hashes(key_of(anatomy.seed, "acini"), h.astype(np.int64)[:, None], k[None, :])
    duct = uniform(h, 1) < 0.3  # a duct: one large ring in place of many small ones
    count = np.where(duct, 1, 7 + (uniform(h, 2) * (_MAX_ACINI - 6)).astype(int))
    turn = k[None, :] * np.float32(2.39996) + 6.28 * uniform(h, 3)[:, None]  # the golden angle spreads points evenly
    apart = 30 + 12 * uniform(h, 4)[:, None]
    away_um = np.where(duct[:, None], 0.0, apart * np.sqrt(k)[None, :] * (1 + 0.06 * normal(sub, 0)))
    present = k[None, :] < count[:, None]
    radius = np.where(duct[:, None], 45 + 35 * uniform(h, 5)[:, None], apart * (0.40 + 0.10 * uniform(sub, 1)))
    stretch = 1.05 + np.where(duct[:, None], 0.7, 0.35) * uniform(sub, 2)
    rings = Rings(
        (x[:, None] + away_um * np.cos(turn))[present],
        (y[:, None] + away_um * np.sin(turn))[present],
        radius[present].astype(np.float32),
        stretch[present].astype(np.float32),
        (6.28 * uniform(sub, 3))[present],
        sub[present],
    )
    return rings.near(box)


def vessel_rings(anatomy: Anatomy, box: Box) -> Rings:
    """Draw capillaries and small veins in the stroma."""
    points, h = jittered_points(
        key_of(anatomy.seed, "vessels"), box.grown(_VESSEL_REACH_UM), _VESSEL_SPACING_UM, jitter=0.9
    )
    keep = (
        (anatomy.tissue(points) > _VESSEL_REACH_UM) & (anatomy.nests(points) < -0.02) & (anatomy.necrosis(points) < 0)
    )
    keep &= (uniform(h, 0) < 0.7) & (anatomy.fat(points) < 0)
    points, h = _select(points, h, keep)
    radius = 6 + 16 * uniform(h, 1) ** 3
    angle = anatomy.fibre_angle(points) + 0.3 * normal(h, 2)
    return Rings(points.x, points.y, radius, 1.2 + 1.1 * uniform(h, 3), angle, h).near(box)


def draw_cells(anatomy: Anatomy, expression: Her2Expression, box: Box, glands: Rings, vessels: Rings) -> Cells:
    """Draw all cells whose centre lies in `box`; `glands` and `vessels` are the rings that reach into it."""
    cells = join_cells(
        [
            _stromal_cells(anatomy, box),
            _vessel_cells(vessels),
            _gland_cells(glands),
            _tumour_cells(anatomy, expression, box),
            _lymphocytes(anatomy, box),
            _debris(anatomy, box),
        ]
    ).within(box)
    return cells.take(_outside_glands(cells, glands))


def _outside_glands(cells: Cells, glands: Rings) -> NDArray[np.bool_]:
    """Select the cells of glands and those that lie outside all glands, (n,)."""
    keep = np.ones(len(cells), bool)
    free = (cells.kind != CellKind.LUMINAL) & (cells.kind != CellKind.MYOEPITHELIAL)
    for k in range(len(glands)):
        keep &= ~(free & (glands.distance(k, cells.x, cells.y) < glands.radius_um[k] + 1))
    return keep


def _tumour_cells(anatomy: Anatomy, expression: Her2Expression, box: Box) -> Cells:
    """Draw invasive tumour cells; HER2 changes their nuclei by the histology's `her2_effect`."""
    b = anatomy.histology
    points, h = jittered_points(key_of(anatomy.seed, "tumour cells"), box, b.spacing_um, jitter=0.5)
    points, h = _select(points, h, anatomy.tumour(points) > 0)
    keep = (anatomy.nests(points) > 0) & (anatomy.tubules(points) < 0) & (anatomy.necrosis(points) < 0)
    points, h = _select(points, h, keep & (anatomy.tissue(points) > 2))
    level = membrane_levels(anatomy, expression, points, h)
    shift = b.her2_effect * (0.55 + 0.45 * (level >= 2))
    spread = b.pleomorphism * (1 + 0.5 * shift)
    size = b.nucleus_um * (1 + 0.24 * shift) * np.exp(spread * normal(h, 1))
    ratio = 1.12 + np.abs(normal(h, 2)) * 0.33
    dense = uniform(h, 3) < 0.18 + 0.35 * b.chromatin  # shrunken, dark nuclei beside pale, vesicular ones
    size = np.where(dense, 0.86 * size, size)
    cells = make_cells(
        CellKind.TUMOUR,
        points.x,
        points.y,
        h,
        long_um=np.sqrt(ratio) * size / 2,
        short_um=size / np.sqrt(ratio) / 2,
        angle=anatomy.fibre_angle(points) + 0.8 * normal(h, 4),
        ragged=0.05 + 0.06 * uniform(h, 5) + 0.04 * shift,
        dark=np.where(dense, 1.95, 1.1 + 0.4 * b.chromatin) * (1 + 0.18 * normal(h, 6)),
        coarse=np.where(dense, 0.25, 0.55 + 0.4 * uniform(h, 7)),
        nucleolus=(uniform(h, 8) < b.nucleoli + 0.25 * shift) * (~dense) * (0.5 + 0.5 * uniform(h, 10)),
        reach_um=0.78 * b.spacing_um + 0.22 * size,
    )
    dividing = uniform(h, 11) < b.mitoses * (1 + shift)
    return replace(cells, level=level, kind=np.where(dividing, np.uint8(CellKind.MITOSIS), cells.kind))


def _stromal_cells(anatomy: Anatomy, box: Box) -> Cells:
    """Draw fibroblasts along the fibres, and the few flat nuclei of fat cells."""
    points, h = jittered_points(key_of(anatomy.seed, "stromal cells"), box, 14.5, jitter=0.95)
    points, h = _select(points, h, uniform(h, 0) < _FIBROBLASTS)
    fat = anatomy.fat(points) > 0
    here = uniform(h, 0) < np.where(fat, 0.02, _FIBROBLASTS - 0.2 * anatomy.myxoid(points))
    keep = here & (anatomy.tissue(points) > 2) & (anatomy.necrosis(points) < 0) & (anatomy.nests(points) < 0.02)
    points, h = _select(points, h, keep)
    plump = uniform(h, 1) ** 3
    return make_cells(
        CellKind.STROMAL,
        points.x,
        points.y,
        h,
        long_um=4.6 + 2.6 * uniform(h, 2),
        short_um=1.0 + 1.5 * plump,
        angle=anatomy.fibre_angle(points) + 0.16 * normal(h, 3),
        ragged=0.1,
        dark=2.0 - 0.8 * plump + 0.2 * normal(h, 4),
        coarse=0.15 + 0.6 * plump,
    )


def _lymphocytes(anatomy: Anatomy, box: Box) -> Cells:
    """Draw lymphocytes, dense near the tumour's edge and scattered elsewhere."""
    points, h = jittered_points(key_of(anatomy.seed, "lymphocytes"), box, 7.4, jitter=0.7)
    points, h = _select(points, h, uniform(h, 0) < anatomy.lymphocytes(points))
    points, h = _select(points, h, (anatomy.nests(points) < 0) | (uniform(h, 6) < 0.12))
    keep = (anatomy.tissue(points) > 2) & (anatomy.fat(points) < 0) & (anatomy.necrosis(points) < 0.1)
    points, h = _select(points, h, keep)
    size = 2.45 + 0.3 * normal(h, 1)
    return make_cells(
        CellKind.LYMPHOCYTE,
        points.x,
        points.y,
        h,
        long_um=size * 1.08,
        short_um=size * (0.92 - 0.12 * uniform(h, 5)),
        angle=_TWO_PI * uniform(h, 2),
        dark=2.3 + 0.25 * normal(h, 3),
        coarse=0.35,
    )


def _debris(anatomy: Anatomy, box: Box) -> Cells:
    """Draw nuclear debris and red cells in necrosis."""
    points, h = jittered_points(key_of(anatomy.seed, "debris"), box, 9.0, jitter=0.95)
    points, h = _select(points, h, anatomy.tumour(points) > 0)
    necrosis = anatomy.necrosis(points)
    dust = np.clip(points.sample(anatomy.noise("dust", 140)), 0, 1)
    here = uniform(h, 0) < 0.08 + 0.3 * dust + 0.35 * np.exp(-np.maximum(necrosis, 0) / 0.15)
    points, h = _select(points, h, here & (necrosis > 0) & (anatomy.tissue(points) > 2))
    size = 0.8 + 1.7 * uniform(h, 1) ** 2
    cells = make_cells(
        CellKind.DEBRIS,
        points.x,
        points.y,
        h,
        long_um=size * 1.15,
        short_um=size * 0.85,
        angle=_TWO_PI * uniform(h, 2),
        ragged=0.15,
        dark=1.7 + 0.3 * normal(h, 3),
        coarse=0.1,
    )
    bleeding = uniform(h, 4) < 0.12
    red = np.where(bleeding, np.float32(2.6), cells.long_um), np.where(bleeding, np.float32(2.1), cells.short_um)
    kind = np.where(bleeding, np.uint8(CellKind.RED_CELL), cells.kind)
    return replace(cells, kind=kind, long_um=red[0], short_um=red[1])


def jittered_points(key: int, box: Box, spacing_um: float, *, jitter: float) -> tuple[ScatteredPoints, Hashes]:
    """Draw the points of a hexagonal grid, each moved at random by up to half of `jitter` spacings, inside `box`."""
    step_y = spacing_um * np.sqrt(3) / 2
    i = np.arange(int(np.floor(box.x0 / spacing_um)) - 2, int(np.ceil(box.x1 / spacing_um)) + 2)
    j = np.arange(int(np.floor(box.y0 / step_y)) - 1, int(np.ceil(box.y1 / step_y)) + 2)
    h = position_hashes(key, i[None, :], j[:, None])
    x = (i[None, :] + 0.5 * (j[:, None] % 2) + jitter * (uniform(h, 900) - 0.5)) * spacing_um
    y = (j[:, None] + jitter * (uniform(h, 901) - 0.5)) * step_y
    inside = (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)
    return ScatteredPoints(x[inside].astype(np.float64), y[inside].astype(np.float64)), h[inside]


def _select(points: ScatteredPoints, hashes: Hashes, keep: NDArray[np.bool_]) -> tuple[ScatteredPoints, Hashes]:
    return ScatteredPoints(points.x[keep], points.y[keep]), hashes[keep]


def _gland_cells(rings: Rings) -> Cells:
    """Draw the two layers of an acinus: luminal cells inside, flat myoepithelial cells outside."""
    inner, outer = _points_on(rings, inset_um=8.2, spacing_um=6.6), _points_on(rings, inset_um=1.6, spacing_um=13.0)
    luminal = make_cells(
        CellKind.LUMINAL,
        inner.x,
        inner.y,
        inner.hashes,
        long_um=3.7 + 0.35 * normal(inner.hashes, 10),
        short_um=2.7 + 0.2 * normal(inner.hashes, 11),
        angle=inner.angle + 0.25 * normal(inner.hashes, 12),
        dark=1.45 + 0.12 * normal(inner.hashes, 13),
        coarse=0.3,
        reach_um=7.8,
    )
    flat = make_cells(
        CellKind.MYOEPITHELIAL,
        outer.x,
        outer.y,
        outer.hashes,
        long_um=3.4,
        short_um=1.3 + 0.3 * uniform(outer.hashes, 10),
        angle=outer.angle + np.float32(np.pi / 2),
        dark=1.6 + 0.15 * normal(outer.hashes, 11),
        coarse=0.2,
    )
    return join_cells([luminal, flat])


def _vessel_cells(rings: Rings) -> Cells:
    """Draw endothelium around red cells."""
    wall = _points_on(rings, inset_um=1.0, spacing_um=11.0)
    endothelium = make_cells(
        CellKind.STROMAL,
        wall.x,
        wall.y,
        wall.hashes,
        long_um=3.8,
        short_um=1.15,
        angle=wall.angle + np.float32(np.pi / 2),
        dark=1.7 + 0.15 * normal(wall.hashes, 11),
        coarse=0.2,
    )
    return join_cells([endothelium, _red_cells(rings)])


def _red_cells(rings: Rings) -> Cells:
    k = np.arange(40)
    h = position_hashes(77, rings.hashes.astype(np.int64)[:, None], k[None, :])
    away = 5.2 * np.sqrt(k + 0.3)[None, :] * (1 + 0.1 * normal(h, 0))
    turn = k[None, :] * np.float32(2.39996) + normal(h, 1)
    full = uniform(rings.hashes, 20)[:, None]
    keep = (away < rings.radius_um[:, None] - 4) & (uniform(h, 2) < full)
    dx, dy = _ellipse_points(away * np.cos(turn), away * np.sin(turn), rings.stretch[:, None], rings.angle[:, None])
    x, y, h = (rings.x[:, None] + dx)[keep], (rings.y[:, None] + dy)[keep], h[keep]
    return make_cells(
        CellKind.RED_CELL,
        x,
        y,
        h,
        long_um=2.9 + 0.3 * normal(h, 3),
        short_um=2.4 + 0.3 * normal(h, 4),
        angle=6.28 * uniform(h, 5),
        dark=0.1,
    )


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _RingPoints:
    """Points on rings and the outward direction at each."""

    x: NDArray[Any]
    y: NDArray[Any]
    angle: Floats
    hashes: Hashes


def _points_on(rings: Rings, *, inset_um: float, spacing_um: float) -> _RingPoints:
    radius = rings.radius_um - inset_um
    count = np.where(radius > 1.5, np.maximum(3, np.rint(2 * np.pi * np.maximum(radius, 0) / spacing_um)), 0)
    most = int(count.max(initial=0))
    k = np.arange(most)
    h = position_hashes(int(inset_um * 1000), rings.hashes.astype(np.int64)[:, None], k[None, :])
    turn = (k[None, :] + 0.3 * normal(h, 0)) * (2 * np.pi / np.maximum(count, 1))[:, None]
    r = radius[:, None] + 0.6 * normal(h, 1)
    keep = k[None, :] < count[:, None]
    dx, dy = _ellipse_points(r * np.cos(turn), r * np.sin(turn), rings.stretch[:, None], rings.angle[:, None])
    outward = np.arctan2(dy, dx)
    return _RingPoints(
        (rings.x[:, None] + dx)[keep], (rings.y[:, None] + dy)[keep], outward[keep].astype(np.float32), h[keep]
    )


def _ellipse_points(u: Floats, v: Floats, stretch: Floats, angle: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
    """Stretch circles along x at equal area, then rotate them."""
    u, v = u * np.sqrt(stretch), v / np.sqrt(stretch)
    c, s = np.cos(angle), np.sin(angle)
    return (u * c - v * s).astype(np.float64), (u * s + v * c).astype(np.float64)
