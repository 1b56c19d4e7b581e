"""The populations that a jittered lattice places: tumour, stroma, lymphocytes, debris of necrosis."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.cells import Box, Cells, Kind, make_cells
from he2her2.phantom.chance import Hashes, key_of, lattice_hashes, normal, uniform
from he2her2.phantom.membranes import Expression, membrane_levels
from he2her2.phantom.places import PointPlace

_STROMAL = 0.62
"""Share of the stroma's lattice that fibroblasts take at most."""

_TWO_PI = np.float32(2 * np.pi)


def tumour_cells(anatomy: Anatomy, expression: Expression, box: Box) -> Cells:
    """Invasive tumour cells; HER2 moves their nuclei by the biology's `effect`."""
    b = anatomy.biology
    place, h = jittered(key_of(anatomy.seed, "tumour cells"), box, b.spacing_um, jitter=0.5)
    place, h = _some(place, h, anatomy.tumour(place) > 0)
    keep = (anatomy.nests(place) > 0) & (anatomy.tubules(place) < 0) & (anatomy.necrosis(place) < 0)
    place, h = _some(place, h, keep & (anatomy.tissue(place) > 2))
    level = membrane_levels(anatomy, expression, place, h)
    shift = b.effect * (0.55 + 0.45 * (level >= 2))
    spread = b.pleomorphism * (1 + 0.5 * shift)
    size = b.nucleus_um * (1 + 0.24 * shift) * np.exp(spread * normal(h, 1))
    ratio = 1.12 + np.abs(normal(h, 2)) * 0.33
    dense = uniform(h, 3) < 0.18 + 0.35 * b.chromatin  # shrunken, dark nuclei beside pale, vesicular ones
    size = np.where(dense, 0.86 * size, size)
    cells = make_cells(
        Kind.TUMOUR,
        place.x,
        place.y,
        h,
        long_um=np.sqrt(ratio) * size / 2,
        short_um=size / np.sqrt(ratio) / 2,
        angle=anatomy.fibre_angle(place) + 0.8 * normal(h, 4),
        ragged=0.05 + 0.06 * uniform(h, 5) + 0.04 * shift,
        dark=np.where(dense, 1.95, 1.1 + 0.4 * b.chromatin) * (1 + 0.18 * normal(h, 6)),
        coarse=np.where(dense, 0.25, 0.55 + 0.4 * uniform(h, 7)),
        nucleolus=(uniform(h, 8) < b.nucleoli + 0.25 * shift) * (~dense) * (0.5 + 0.5 * uniform(h, 10)),
        reach_um=0.78 * b.spacing_um + 0.22 * size,
    )
    dividing = uniform(h, 11) < b.mitoses * (1 + shift)
    return replace(cells, level=level, kind=np.where(dividing, np.uint8(Kind.MITOSIS), cells.kind))


def stromal_cells(anatomy: Anatomy, box: Box) -> Cells:
    """Fibroblasts along the fibres, and the few flat nuclei of fat cells."""
    place, h = jittered(key_of(anatomy.seed, "stromal cells"), box, 14.5, jitter=0.95)
    place, h = _some(place, h, uniform(h, 0) < _STROMAL)
    fat = anatomy.fat(place) > 0
    here = uniform(h, 0) < np.where(fat, 0.02, _STROMAL - 0.2 * anatomy.myxoid(place))
    keep = here & (anatomy.tissue(place) > 2) & (anatomy.necrosis(place) < 0) & (anatomy.nests(place) < 0.02)
    place, h = _some(place, h, keep)
    plump = uniform(h, 1) ** 3
    return make_cells(
        Kind.STROMAL,
        place.x,
        place.y,
        h,
        long_um=4.6 + 2.6 * uniform(h, 2),
        short_um=1.0 + 1.5 * plump,
        angle=anatomy.fibre_angle(place) + 0.16 * normal(h, 3),
        ragged=0.1,
        dark=2.0 - 0.8 * plump + 0.2 * normal(h, 4),
        coarse=0.15 + 0.6 * plump,
    )


def lymphocytes(anatomy: Anatomy, box: Box) -> Cells:
    """Lymphocytes, crowded near the tumour's edge and scattered elsewhere."""
    place, h = jittered(key_of(anatomy.seed, "lymphocytes"), box, 7.4, jitter=0.7)
    place, h = _some(place, h, uniform(h, 0) < anatomy.lymphocytes(place))
    place, h = _some(place, h, (anatomy.nests(place) < 0) | (uniform(h, 6) < 0.12))
    keep = (anatomy.tissue(place) > 2) & (anatomy.fat(place) < 0) & (anatomy.necrosis(place) < 0.1)
    place, h = _some(place, h, keep)
    size = 2.45 + 0.3 * normal(h, 1)
    return make_cells(
        Kind.LYMPHOCYTE,
        place.x,
        place.y,
        h,
        long_um=size * 1.08,
        short_um=size * (0.92 - 0.12 * uniform(h, 5)),
        angle=_TWO_PI * uniform(h, 2),
        dark=2.3 + 0.25 * normal(h, 3),
        coarse=0.35,
    )


def debris(anatomy: Anatomy, box: Box) -> Cells:
    """Nuclear dust and red cells in necrosis."""
    place, h = jittered(key_of(anatomy.seed, "debris"), box, 9.0, jitter=0.95)
    place, h = _some(place, h, anatomy.tumour(place) > 0)
    necrosis = anatomy.necrosis(place)
    dust = np.clip(place.read(anatomy.noise("dust", 140)), 0, 1)
    here = uniform(h, 0) < 0.08 + 0.3 * dust + 0.35 * np.exp(-np.maximum(necrosis, 0) / 0.15)
    place, h = _some(place, h, here & (necrosis > 0) & (anatomy.tissue(place) > 2))
    size = 0.8 + 1.7 * uniform(h, 1) ** 2
    cells = make_cells(
        Kind.DEBRIS,
        place.x,
        place.y,
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
    kind = np.where(bleeding, np.uint8(Kind.RED_CELL), cells.kind)
    return replace(cells, kind=kind, long_um=red[0], short_um=red[1])


def jittered(key: int, box: Box, spacing_um: float, *, jitter: float) -> tuple[PointPlace, Hashes]:
    """Points of a hexagonal lattice, each moved by up to half of `jitter` spacings, that may fall into `box`."""
    step_y = spacing_um * np.sqrt(3) / 2
    i = np.arange(int(np.floor(box.x0 / spacing_um)) - 2, int(np.ceil(box.x1 / spacing_um)) + 2)
    j = np.arange(int(np.floor(box.y0 / step_y)) - 1, int(np.ceil(box.y1 / step_y)) + 2)
    h = lattice_hashes(key, i[None, :], j[:, None])
    x = (i[None, :] + 0.5 * (j[:, None] % 2) + jitter * (uniform(h, 900) - 0.5)) * spacing_um
    y = (j[:, None] + jitter * (uniform(h, 901) - 0.5)) * step_y
    inside = (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)
    return PointPlace(x[inside].astype(np.float64), y[inside].astype(np.float64)), h[inside]


def _some(place: PointPlace, hashes: Hashes, keep: NDArray[np.bool_]) -> tuple[PointPlace, Hashes]:
    return PointPlace(place.x[keep], place.y[keep]), hashes[keep]
