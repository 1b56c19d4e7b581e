"""What goes wrong on real slides: marker ink, folded tissue, regions out of focus."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.geometry import Mask
from he2her2.phantom.chance import Floats, key_of
from he2her2.phantom.layout import PX_UM, Layout, signed_distance
from he2her2.phantom.noise import Raster
from he2her2.phantom.spec import PhantomSpec

_Path: TypeAlias = NDArray[np.float64]

_INKS = ((2.2, 1.3, 0.35), (1.9, 0.5, 1.7), (0.12, 2.2, 1.8), (1.9, 1.9, 1.8))
"""Optical density of blue, green, red and black marker in red, green and blue; over glass they look as real ones do."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Artefacts:
    """Signed distances in µm, positive inside; None where there is nothing of the kind.

    Attributes:
        pen: Marker ink.
        folds: Tissue that lies double.
        blur: Out of focus.
        ink: Optical density of the ink in red, green and blue.
    """

    pen: Raster | None
    folds: Raster | None
    blur: Raster | None
    ink: tuple[float, float, float]


def draw_artefacts(spec: PhantomSpec, layout: Layout) -> Artefacts:
    """Draw the artefacts that the dials ask for; a section has its own, so the IHC twin's differ."""
    rng = np.random.default_rng(key_of(spec.seed, "artefacts", spec.stain))
    ink = _INKS[int(rng.integers(len(_INKS)))]
    tissue = layout.tissue.values > 0
    strokes = [_stroke(tissue, rng) for _ in range(spec.pen)]
    creases = [_crease(layout, tissue, rng) for _ in range(spec.folds)]
    blurred = _blurred(tissue, spec.blur, rng) if spec.blur else None
    return Artefacts(
        _near(strokes, layout) if strokes else None,
        _and(_near(creases, layout), layout.tissue) if creases else None,
        signed_distance(blurred) if blurred is not None else None,
        ink,
    )


def _stroke(tissue: Mask, rng: np.random.Generator) -> tuple[_Path, float]:
    """A marker's line, drawn beside or over the edge of the tissue: points in µm and half its width."""
    edge = np.argwhere(tissue & ~ndimage.binary_erosion(tissue))
    y, x = edge[int(rng.integers(len(edge)))] * PX_UM
    side = float(np.sqrt(tissue.sum())) * PX_UM
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-1.5, 1.5)
    t = np.linspace(-0.5, 0.5, 60)
    length = side * rng.uniform(0.25, 0.5)
    direction = angle + bend * t
    steps = np.stack([np.cos(direction), np.sin(direction)], axis=1) * (length / len(t))
    return np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2 + (x, y), float(np.clip(0.03 * side, 30, 350))


def _crease(layout: Layout, tissue: Mask, rng: np.random.Generator) -> tuple[_Path, float]:
    """A fold: a gently bent line that starts deep in the tissue."""
    inside = np.argwhere(layout.tissue.values > 0.3 * layout.tissue.values.max())
    y, x = inside[int(rng.integers(len(inside)))] * PX_UM
    side = float(np.sqrt(tissue.sum())) * PX_UM
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8)
    t = np.linspace(-0.5, 0.5, 80)
    direction = angle + bend * t
    steps = np.stack([np.cos(direction), np.sin(direction)], axis=1) * (side * rng.uniform(0.2, 0.5) / len(t))
    return np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2 + (x, y), float(rng.uniform(18, 40))


def _near(lines: list[tuple[_Path, float]], layout: Layout) -> Raster:
    """Signed distance to the area that lies within each line's half width."""
    xs, ys = layout.axes
    far = np.full((len(ys), len(xs)), np.float32(-1e4))
    for points, half_um in lines:
        reach = half_um + 60
        column = np.flatnonzero((xs > points[:, 0].min() - reach) & (xs < points[:, 0].max() + reach))
        row = np.flatnonzero((ys > points[:, 1].min() - reach) & (ys < points[:, 1].max() + reach))
        if not len(column) or not len(row):
            continue
        window = (slice(row[0], row[-1] + 1), slice(column[0], column[-1] + 1))
        distance = np.full((len(row), len(column)), np.inf, np.float32)
        for a, b in pairwise(points):
            np.minimum(distance, _to_segment(xs[column], ys[row], a, b), out=distance)
        np.maximum(far[window], half_um - distance, out=far[window])
    return Raster(far, PX_UM)


def _to_segment(xs: _Path, ys: _Path, a: _Path, b: _Path) -> Floats:
    """(h, w) distance of every grid point to the segment from `a` to `b`."""
    d = b - a
    px, py = xs[None, :] - a[0], ys[:, None] - a[1]
    t = np.clip((px * d[0] + py * d[1]) / max(float(d @ d), 1e-9), 0, 1)
    return np.asarray(np.hypot(px - t * d[0], py - t * d[1]), np.float32)


def _and(one: Raster, other: Raster) -> Raster:
    return Raster(np.minimum(one.values, other.values), one.px_um)


def _blurred(tissue: Mask, share: float, rng: np.random.Generator) -> Mask:
    """Discs of tissue until `share` of it is covered."""
    ys, xs = np.nonzero(tissue)
    wanted = round(share * len(ys))
    mask = np.zeros_like(tissue)
    gy, gx = np.arange(tissue.shape[0])[:, None], np.arange(tissue.shape[1])[None, :]
    while (missing := wanted - int((mask & tissue).sum())) > 0.02 * wanted:
        k = int(rng.integers(len(ys)))
        radius = np.sqrt(missing / np.pi) * rng.uniform(0.5, 1.0) + 1
        mask |= (gx - xs[k]) ** 2 + (gy - ys[k]) ** 2 <= radius**2
    return mask & tissue
