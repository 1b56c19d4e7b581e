"""Benign ducts and lobules with their two cell layers, and small blood vessels: rings of cells around a lumen."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.cells import Box, Cells, Kind, join_cells, make_cells
from he2her2.phantom.chance import Floats, Hashes, key_of, lattice_hashes, normal, uniform
from he2her2.phantom.places import PointPlace
from he2her2.phantom.populations import jittered

_LOBULE_SPACING_UM = 620.0
_LOBULE_REACH_UM = 190.0
_VESSEL_SPACING_UM = 230.0
_VESSEL_REACH_UM = 45.0
_ACINI = 19


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Rings:
    """n elliptic rings.

    Attributes:
        x: Centre in µm.
        y: Centre in µm.
        radius_um: Outer radius, geometric mean of the axes.
        stretch: Long axis over short axis.
        angle: Direction of the long axis, radians.
        hashes: One number a ring for all further chance.
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
        """The rings that reach into `box`."""
        reach = self.radius_um * self.stretch + 4
        inside = (self.x + reach > box.x0) & (self.x - reach < box.x1)
        inside &= (self.y + reach > box.y0) & (self.y - reach < box.y1)
        return Rings(*(getattr(self, f.name)[inside] for f in fields(self)))


def acini(anatomy: Anatomy, box: Box) -> Rings:
    """Acini of lobules, and single ducts, in the tissue beside the tumour."""
    place, h = jittered(key_of(anatomy.seed, "lobules"), box.grown(_LOBULE_REACH_UM), _LOBULE_SPACING_UM, jitter=0.7)
    away = (anatomy.tissue(place) > _LOBULE_REACH_UM) & (anatomy.tumour(place) < -_LOBULE_REACH_UM)
    keep = away & (uniform(h, 0) < 0.6)
    x, y, h = place.x[keep], place.y[keep], h[keep]
    k = np.arange(_ACINI)
    sub = lattice_hashes(key_of(anatomy.seed, "acini"), h.astype(np.int64)[:, None], k[None, :])
    duct = uniform(h, 1) < 0.3  # a duct: one large ring in place of many small ones
    count = np.where(duct, 1, 7 + (uniform(h, 2) * (_ACINI - 6)).astype(int))
    turn = k[None, :] * np.float32(2.39996) + 6.28 * uniform(h, 3)[:, None]  # sunflower seeds: evenly spread
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


def vessels(anatomy: Anatomy, box: Box) -> Rings:
    """Capillaries and small veins in the stroma."""
    place, h = jittered(key_of(anatomy.seed, "vessels"), box.grown(_VESSEL_REACH_UM), _VESSEL_SPACING_UM, jitter=0.9)
    keep = (anatomy.tissue(place) > _VESSEL_REACH_UM) & (anatomy.nests(place) < -0.02) & (anatomy.necrosis(place) < 0)
    keep &= (uniform(h, 0) < 0.7) & (anatomy.fat(place) < 0)
    place, h = PointPlace(place.x[keep], place.y[keep]), h[keep]
    radius = 6 + 16 * uniform(h, 1) ** 3
    angle = anatomy.fibre_angle(place) + 0.3 * normal(h, 2)
    return Rings(place.x, place.y, radius, 1.2 + 1.1 * uniform(h, 3), angle, h).near(box)


def gland_cells(rings: Rings) -> Cells:
    """The two layers of an acinus: luminal cells inside, flat myoepithelial cells on the outside."""
    inner, outer = _around(rings, inset_um=8.2, spacing_um=6.6), _around(rings, inset_um=1.6, spacing_um=13.0)
    luminal = make_cells(
        Kind.LUMINAL,
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
        Kind.MYOEPITHELIAL,
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


def vessel_cells(rings: Rings) -> Cells:
    """Endothelium around red cells."""
    wall = _around(rings, inset_um=1.0, spacing_um=11.0)
    endothelium = make_cells(
        Kind.STROMAL,
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
    h = lattice_hashes(77, rings.hashes.astype(np.int64)[:, None], k[None, :])
    away = 5.2 * np.sqrt(k + 0.3)[None, :] * (1 + 0.1 * normal(h, 0))
    turn = k[None, :] * np.float32(2.39996) + normal(h, 1)
    full = uniform(rings.hashes, 20)[:, None]
    keep = (away < rings.radius_um[:, None] - 4) & (uniform(h, 2) < full)
    dx, dy = _turned(away * np.cos(turn), away * np.sin(turn), rings.stretch[:, None], rings.angle[:, None])
    x, y, h = (rings.x[:, None] + dx)[keep], (rings.y[:, None] + dy)[keep], h[keep]
    return make_cells(
        Kind.RED_CELL,
        x,
        y,
        h,
        long_um=2.9 + 0.3 * normal(h, 3),
        short_um=2.4 + 0.3 * normal(h, 4),
        angle=6.28 * uniform(h, 5),
        dark=0.1,
    )


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _Ring:
    """Points around rings and the direction in which each faces outwards."""

    x: NDArray[Any]
    y: NDArray[Any]
    angle: Floats
    hashes: Hashes


def _around(rings: Rings, *, inset_um: float, spacing_um: float) -> _Ring:
    radius = rings.radius_um - inset_um
    count = np.where(radius > 1.5, np.maximum(3, np.rint(2 * np.pi * np.maximum(radius, 0) / spacing_um)), 0)
    most = int(count.max(initial=0))
    k = np.arange(most)
    h = lattice_hashes(int(inset_um * 1000), rings.hashes.astype(np.int64)[:, None], k[None, :])
    turn = (k[None, :] + 0.3 * normal(h, 0)) * (2 * np.pi / np.maximum(count, 1))[:, None]
    r = radius[:, None] + 0.6 * normal(h, 1)
    keep = k[None, :] < count[:, None]
    dx, dy = _turned(r * np.cos(turn), r * np.sin(turn), rings.stretch[:, None], rings.angle[:, None])
    outward = np.arctan2(dy, dx)
    return _Ring(
        (rings.x[:, None] + dx)[keep], (rings.y[:, None] + dy)[keep], outward[keep].astype(np.float32), h[keep]
    )


def _turned(u: Floats, v: Floats, stretch: Floats, angle: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
    """Stretch a circle's points along x, keeping its area, and turn them."""
    u, v = u * np.sqrt(stretch), v / np.sqrt(stretch)
    c, s = np.cos(angle), np.sin(angle)
    return (u * c - v * s).astype(np.float64), (u * s + v * c).astype(np.float64)
