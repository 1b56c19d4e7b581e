"""The coarse anatomy of a slide: where tissue, tumour, ink, folds and blur lie, at 8 µm per px."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.errors import PhantomError
from he2her2.geometry import Mask
from he2her2.phantom.chance import Floats, key_of
from he2her2.phantom.noise import Noise, Raster
from he2her2.phantom.sites import SITES
from he2her2.phantom.spec import PhantomSpec

PX_UM = 8.0
"""Side of a layout pixel; at 0.25 µm/px these are the pixels of the 32x thumbnail."""

_Axes: TypeAlias = tuple[NDArray[Any], NDArray[Any]]

_MARGIN = 0.04
"""Share of the slide's sides that tissue leaves free."""

_LAYOUTS = 10
"""Layouts of the foci that are tried."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Layout:
    """Signed distances in µm, positive inside.

    Attributes:
        tissue: Distance to the edge of the tissue.
        tumour: Distance to the edge of the invasive tumour.
        axes: Centres in µm of the layout's columns and rows.
    """

    tissue: Raster
    tumour: Raster
    axes: _Axes


def draw_layout(spec: PhantomSpec) -> Layout:
    """Draw the anatomy of a slide.

    Raises:
        PhantomError: The dials leave no room for tissue or tumour.
    """
    w, h = (max(2, int(np.ceil(side / PX_UM))) for side in spec.size_um)
    axes: _Axes = ((np.arange(w) + 0.5) * PX_UM, (np.arange(h) + 0.5) * PX_UM)
    tissue = _tissue(spec, axes)
    tumour = _tumour(spec, axes, tissue)
    return Layout(signed_distance(tissue), signed_distance(tumour), axes)


def _tissue(spec: PhantomSpec, axes: _Axes) -> Mask:
    """One or two pieces with ragged outlines that together cover the wanted share of the slide."""
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
        score += amplitude * Noise(key_of(spec.seed, "outline", k), side * share).grid(*axes)
    edge = np.minimum(0.5 - np.abs(x)[None, :], 0.5 - np.abs(y)[:, None])
    score[edge < _MARGIN] = -np.inf
    free = int(np.isfinite(score).sum())
    wanted = round(extent * score.size)
    if not 0 < wanted <= free:
        raise PhantomError(f"phantom: tissue_extent {extent} leaves no room on a slide of {spec.size_px} px; lower it")
    return np.asarray(score > _cut(score, wanted))


def _tumour(spec: PhantomSpec, axes: _Axes, tissue: Mask) -> Mask:
    """`foci` separate patches that together cover the wanted share of the tissue.

    Where the foci happen to lie too close to each other for that, others are drawn.
    """
    if spec.tumour_share == 0:
        return np.zeros_like(tissue)
    rng = np.random.default_rng(key_of(spec.seed, "tumour"))
    inside = ndimage.distance_transform_edt(np.pad(tissue, 1))[1:-1, 1:-1].astype(np.float32) * PX_UM
    for _ in range(_LAYOUTS):
        tumour = _foci_around(_spread_points(inside, spec.foci, rng), spec, axes, tissue)
        if tumour is not None:
            return tumour
    raise PhantomError(
        f"phantom: {spec.foci} foci cannot cover {spec.tumour_share:.0%} of the tissue; lower foci or tumour_share"
    )


def _foci_around(centres: list[tuple[float, float]], spec: PhantomSpec, axes: _Axes, tissue: Mask) -> Mask | None:
    """A focus around each centre; none where the gaps between them leave too little tissue."""
    distances = np.stack([np.hypot(axes[0][None, :] - x, axes[1][:, None] - y).astype(np.float32) for x, y in centres])
    side = float(np.sqrt(tissue.sum() / spec.foci)) * PX_UM
    for k, distance in enumerate(distances):  # so that the border between two foci is not straight
        np.add(distance, 0.12 * side * Noise(key_of(spec.seed, "focus", k), 0.5 * side).grid(*axes), out=distance)
    owner = distances.argmin(axis=0)
    nearest = distances.min(axis=0)
    score = -nearest / side
    for k, (share, amplitude) in enumerate(((0.7, 0.10), (0.25, 0.05))):
        score += amplitude * Noise(key_of(spec.seed, "tumour outline", k), side * share).grid(*axes)
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
    """The score that `wanted` pixels exceed."""
    rank = score.size - wanted - 1
    return float(np.partition(score, rank, axis=None)[rank])


def _spread_points(inside: Floats, n: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """`n` points deep in the tissue and far from each other, in µm (the best of 30 candidates each)."""
    ys, xs = np.nonzero(inside >= 0.35 * inside.max())
    points: list[tuple[float, float]] = []
    for _ in range(n):
        pick = rng.integers(len(xs), size=30)
        candidates = np.stack([(xs[pick] + 0.5) * PX_UM, (ys[pick] + 0.5) * PX_UM], axis=1)
        if points:
            apart = np.linalg.norm(candidates[:, None] - np.array(points)[None], axis=2).min(axis=1)
        else:
            apart = inside[ys[pick], xs[pick]]
        best = candidates[int(apart.argmax())]
        points.append((float(best[0]), float(best[1])))
    return points


def _whole_foci(mask: Mask, owner: NDArray[np.int64], n: int, tissue: Mask) -> Mask:
    """Each focus's largest piece, with its holes filled but for glass."""
    whole = np.zeros_like(mask)
    for k in range(n):
        pieces, count = ndimage.label(mask & (owner == k))
        if count:
            sizes = np.bincount(pieces.ravel())[1:]
            whole |= ndimage.binary_fill_holes(pieces == 1 + int(sizes.argmax())) & tissue
    return whole


def signed_distance(mask: Mask) -> Raster:
    """Signed distance in µm to the edge of `mask`, positive inside."""
    if not mask.any():
        return Raster(np.full(mask.shape, -1e4, np.float32), PX_UM)
    padded = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~padded)[1:-1, 1:-1]
    half = np.where(mask, inside - 0.5, 0.5 - outside) * PX_UM
    return Raster(half.astype(np.float32), PX_UM)
