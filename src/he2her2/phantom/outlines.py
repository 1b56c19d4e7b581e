"""Outlines of tissue, tumour and artefacts on the whole slide, at 8 µm per px."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.errors import PhantomError
from he2her2.geometry import Mask
from he2her2.phantom.random_fields import Floats, NoiseField, RasterField, key_of
from he2her2.phantom.sites import SITES
from he2her2.phantom.spec import PhantomSpec

OUTLINE_PX_UM = 8.0
"""Side of an outline pixel; at 0.25 µm/px these are the pixels of the 32x thumbnail."""

_Path: TypeAlias = NDArray[np.float64]
_Axes: TypeAlias = tuple[NDArray[Any], NDArray[Any]]

_MARGIN = 0.04
"""Share of the slide's width and height without tissue, at each edge."""

_INKS = ((2.2, 1.3, 0.35), (1.9, 0.5, 1.7), (0.12, 2.2, 1.8), (1.9, 1.9, 1.8))
"""Optical density of blue, green, red and black marker in red, green and blue; over glass they look as real ones do."""

_TRIES = 10
"""Attempts at placing the foci."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Outlines:
    """Outlines of tissue and tumour, as signed distances in µm, positive inside.

    Attributes:
        tissue: Distance to the edge of the tissue.
        tumour: Distance to the edge of the invasive tumour.
        axes: Centres in µm of the columns and rows.
    """

    tissue: RasterField
    tumour: RasterField
    axes: _Axes


def draw_outlines(spec: PhantomSpec) -> Outlines:
    """Draw the outlines of tissue and tumour of a slide.

    Raises:
        PhantomError: The settings leave no room for tissue or tumour.
    """
    w, h = (max(2, int(np.ceil(side / OUTLINE_PX_UM))) for side in spec.size_um)
    axes: _Axes = ((np.arange(w) + 0.5) * OUTLINE_PX_UM, (np.arange(h) + 0.5) * OUTLINE_PX_UM)
    tissue = _tissue_mask(spec, axes)
    tumour = _tumour_mask(spec, axes, tissue)
    return Outlines(_signed_distance(tissue), _signed_distance(tumour), axes)


def _tissue_mask(spec: PhantomSpec, axes: _Axes) -> Mask:
    """Draw one or two pieces with ragged outlines that together cover the requested share of the slide."""
    extent = spec.tissue_extent or SITES[spec.site].tissue_extent
    rng = np.random.default_rng(key_of(spec.seed, "tissue"))
    x, y = (axis / size - 0.5 for axis, size in zip(axes, spec.size_um, strict=True))
    pieces = 1 + int(rng.random() < 0.35)
    score = np.full((len(y), len(x)), -np.inf, np.float32)
    for k in range(pieces):
        offset = (k - (pieces - 1) / 2) * 0.46
        cx, cy = offset + rng.uniform(-0.03, 0.03), rng.uniform(-0.05, 0.05)
        ax, ay = (0.42 if pieces == 1 else 0.22), rng.uniform(0.34, 0.44)
        turn = rng.uniform(-0.3, 0.3)
        u = (x[None, :] - cx) * np.cos(turn) + (y[:, None] - cy) * np.sin(turn)
        v = (y[:, None] - cy) * np.cos(turn) - (x[None, :] - cx) * np.sin(turn)
        np.maximum(score, 1 - np.sqrt((u / ax) ** 2 + (v / ay) ** 2), out=score)
    side = min(spec.size_um)
    for k, (share, amplitude) in enumerate(((0.5, 0.10), (0.17, 0.05), (0.06, 0.02))):
        score += amplitude * NoiseField(key_of(spec.seed, "outline", k), side * share).grid(*axes)
    edge = np.minimum(0.5 - np.abs(x)[None, :], 0.5 - np.abs(y)[:, None])
    score[edge < _MARGIN] = -np.inf
    free = int(np.isfinite(score).sum())
    wanted = round(extent * score.size)
    if not 0 < wanted <= free:
        raise PhantomError(f"phantom: tissue_extent {extent} leaves no room on a slide of {spec.size_px} px; lower it")
    return np.asarray(score > _cut(score, wanted))


def _tumour_mask(spec: PhantomSpec, axes: _Axes, tissue: Mask) -> Mask:
    """Draw `foci` separate regions that together cover the requested share of the tissue.

    Foci that lie too close to each other for that are drawn again.
    """
    if spec.tumour_share == 0:
        return np.zeros_like(tissue)
    rng = np.random.default_rng(key_of(spec.seed, "tumour"))
    inside = ndimage.distance_transform_edt(np.pad(tissue, 1))[1:-1, 1:-1].astype(np.float32) * OUTLINE_PX_UM
    for _ in range(_TRIES):
        tumour = _foci_around(_spread_points(inside, spec.foci, rng), spec, axes, tissue)
        if tumour is not None:
            return tumour
    raise PhantomError(
        f"phantom: {spec.foci} foci cannot cover {spec.tumour_share:.0%} of the tissue; lower foci or tumour_share"
    )


def _foci_around(centres: list[tuple[float, float]], spec: PhantomSpec, axes: _Axes, tissue: Mask) -> Mask | None:
    """Draw a focus around each centre; None if the gaps between them leave too little tissue."""
    distances = np.stack([np.hypot(axes[0][None, :] - x, axes[1][:, None] - y).astype(np.float32) for x, y in centres])
    side = float(np.sqrt(tissue.sum() / spec.foci)) * OUTLINE_PX_UM
    for k, distance in enumerate(distances):  # so that the border between two foci is not straight
        np.add(distance, 0.12 * side * NoiseField(key_of(spec.seed, "focus", k), 0.5 * side).grid(*axes), out=distance)
    owner = distances.argmin(axis=0)
    nearest = distances.min(axis=0)
    score = -nearest / side
    for k, (share, amplitude) in enumerate(((0.7, 0.10), (0.25, 0.05))):
        score += amplitude * NoiseField(key_of(spec.seed, "tumour outline", k), side * share).grid(*axes)
    allowed = tissue.copy()
    if spec.foci > 1:
        second = np.partition(distances, 1, axis=0)[1]
        allowed &= second - nearest > min(0.25 * side, 200.0)
    wanted = round(spec.tumour_share * int(tissue.sum()))
    if wanted > allowed.sum():
        return None
    score[~allowed] = -np.inf
    return _whole_foci(np.asarray(score > _cut(score, wanted)), owner, spec.foci, tissue)


def _cut(score: Floats, wanted: int) -> float:
    """Score that `wanted` pixels exceed."""
    rank = score.size - wanted - 1
    return float(np.partition(score, rank, axis=None)[rank])


def _spread_points(inside: Floats, n: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draw `n` points deep in the tissue and far from each other, in µm (the best of 30 candidates each)."""
    ys, xs = np.nonzero(inside >= 0.35 * inside.max())
    points: list[tuple[float, float]] = []
    for _ in range(n):
        pick = rng.integers(len(xs), size=30)
        candidates = np.stack([(xs[pick] + 0.5) * OUTLINE_PX_UM, (ys[pick] + 0.5) * OUTLINE_PX_UM], axis=1)
        if points:
            apart = np.linalg.norm(candidates[:, None] - np.array(points)[None], axis=2).min(axis=1)
        else:
            apart = inside[ys[pick], xs[pick]]
        best = candidates[int(apart.argmax())]
        points.append((float(best[0]), float(best[1])))
    return points


def _whole_foci(mask: Mask, owner: NDArray[np.int64], n: int, tissue: Mask) -> Mask:
    """Keep each focus's largest piece and fill its holes, except glass."""
    whole = np.zeros_like(mask)
    for k in range(n):
        pieces, count = ndimage.label(mask & (owner == k))
        if count:
            sizes = np.bincount(pieces.ravel())[1:]
            whole |= ndimage.binary_fill_holes(pieces == 1 + int(sizes.argmax())) & tissue
    return whole


def _signed_distance(mask: Mask) -> RasterField:
    """Signed distance in µm to the edge of `mask`, positive inside."""
    if not mask.any():
        return RasterField(np.full(mask.shape, -1e4, np.float32), OUTLINE_PX_UM)
    padded = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~padded)[1:-1, 1:-1]
    half = np.where(mask, inside - 0.5, 0.5 - outside) * OUTLINE_PX_UM
    return RasterField(half.astype(np.float32), OUTLINE_PX_UM)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Artefacts:
    """Outlines of the artefacts, as signed distances in µm, positive inside; None if there are none of a kind.

    Attributes:
        pen: Marker ink.
        folds: Folded tissue.
        blur: Tissue out of focus.
        ink: Optical density of the ink in red, green and blue.
    """

    pen: RasterField | None
    folds: RasterField | None
    blur: RasterField | None
    ink: tuple[float, float, float]


def draw_artefacts(spec: PhantomSpec, outlines: Outlines) -> Artefacts:
    """Draw the artefacts of a section; those of the IHC twin differ."""
    rng = np.random.default_rng(key_of(spec.seed, "artefacts", spec.stain))
    ink = _INKS[int(rng.integers(len(_INKS)))]
    tissue = outlines.tissue.values > 0
    strokes = [_stroke(tissue, rng) for _ in range(spec.pen)]
    creases = [_crease(outlines, tissue, rng) for _ in range(spec.folds)]
    blurred = _blurred(tissue, spec.blur, rng) if spec.blur else None
    return Artefacts(
        _within_lines(strokes, outlines) if strokes else None,
        _overlap(_within_lines(creases, outlines), outlines.tissue) if creases else None,
        _signed_distance(blurred) if blurred is not None else None,
        ink,
    )


def _stroke(tissue: Mask, rng: np.random.Generator) -> tuple[_Path, float]:
    """Draw a marker's line beside or over the edge of the tissue: points in µm and half its width."""
    edge = np.argwhere(tissue & ~ndimage.binary_erosion(tissue))
    y, x = edge[int(rng.integers(len(edge)))] * OUTLINE_PX_UM
    side = float(np.sqrt(tissue.sum())) * OUTLINE_PX_UM
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-1.5, 1.5)
    t = np.linspace(-0.5, 0.5, 60)
    length = side * rng.uniform(0.25, 0.5)
    direction = angle + bend * t
    steps = np.stack([np.cos(direction), np.sin(direction)], axis=1) * (length / len(t))
    return np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2 + (x, y), float(np.clip(0.03 * side, 30, 350))


def _crease(outlines: Outlines, tissue: Mask, rng: np.random.Generator) -> tuple[_Path, float]:
    """Draw a fold: a gently bent line that starts deep in the tissue."""
    inside = np.argwhere(outlines.tissue.values > 0.3 * outlines.tissue.values.max())
    y, x = inside[int(rng.integers(len(inside)))] * OUTLINE_PX_UM
    side = float(np.sqrt(tissue.sum())) * OUTLINE_PX_UM
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8)
    t = np.linspace(-0.5, 0.5, 80)
    direction = angle + bend * t
    steps = np.stack([np.cos(direction), np.sin(direction)], axis=1) * (side * rng.uniform(0.2, 0.5) / len(t))
    return np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2 + (x, y), float(rng.uniform(18, 40))


def _within_lines(lines: list[tuple[_Path, float]], outlines: Outlines) -> RasterField:
    """Signed distance to the area within half the width of each line."""
    xs, ys = outlines.axes
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
    return RasterField(far, OUTLINE_PX_UM)


def _to_segment(xs: _Path, ys: _Path, a: _Path, b: _Path) -> Floats:
    """Distance of every grid point to the segment from `a` to `b`, (h, w)."""
    d = b - a
    px, py = xs[None, :] - a[0], ys[:, None] - a[1]
    t = np.clip((px * d[0] + py * d[1]) / max(float(d @ d), 1e-9), 0, 1)
    return np.asarray(np.hypot(px - t * d[0], py - t * d[1]), np.float32)


def _overlap(one: RasterField, other: RasterField) -> RasterField:
    return RasterField(np.minimum(one.values, other.values), one.px_um)


def _blurred(tissue: Mask, share: float, rng: np.random.Generator) -> Mask:
    """Draw discs until they cover `share` of the tissue."""
    ys, xs = np.nonzero(tissue)
    wanted = round(share * len(ys))
    mask = np.zeros_like(tissue)
    gy, gx = np.arange(tissue.shape[0])[:, None], np.arange(tissue.shape[1])[None, :]
    while (missing := wanted - int((mask & tissue).sum())) > 0.02 * wanted:
        k = int(rng.integers(len(ys)))
        radius = np.sqrt(missing / np.pi) * rng.uniform(0.5, 1.0) + 1
        mask |= (gx - xs[k]) ** 2 + (gy - ys[k]) ** 2 <= radius**2
    return mask & tissue
