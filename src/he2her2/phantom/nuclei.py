"""Nuclei drawn one by one: outline, rim, chromatin, nucleolus; many at once for speed."""

import numpy as np

from he2her2.phantom.cells import Cells, Kind
from he2her2.phantom.chance import Floats, Hashes, uniform
from he2her2.phantom.noise import TEXTURE_PX, texture

_SIDES_PX = (12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128)
_EOSIN = {Kind.DEBRIS: 0.5, Kind.RED_CELL: 1.75, Kind.LYMPHOCYTE: 0.35}
_BATCH_PX = 40_000


def stamp_nuclei(haematoxylin: Floats, eosin: Floats, cells: Cells, x0_um: float, y0_um: float, px_um: float) -> None:
    """Draw the nuclei of `cells` over the optical densities of a region, in place.

    Args:
        haematoxylin: (h, w) optical density.
        eosin: (h, w) optical density of the counterstain.
        cells: Whose nuclei; those outside the region are left out.
        x0_um: Left edge of the region.
        y0_um: Upper edge of the region.
        px_um: µm per px.
    """
    h, w = haematoxylin.shape
    span = 2.3 * np.maximum(cells.long_um, cells.short_um) / px_um + 4
    sides = np.array(_SIDES_PX)[np.minimum(np.searchsorted(_SIDES_PX, span), len(_SIDES_PX) - 1)]
    column = np.floor((cells.x - x0_um) / px_um).astype(np.int64) - sides // 2
    row = np.floor((cells.y - y0_um) / px_um).astype(np.int64) - sides // 2
    seen = (column > -sides) & (column < w) & (row > -sides) & (row < h)
    for side in np.unique(sides[seen]):
        chosen = np.flatnonzero(seen & (sides == side))
        for part in np.array_split(chosen, max(1, int(len(chosen) * side * side / _BATCH_PX))):
            x = ((column[part] + 0.5) * px_um + x0_um - cells.x[part]).astype(np.float32)
            y = ((row[part] + 0.5) * px_um + y0_um - cells.y[part]).astype(np.float32)
            alpha, dark, pink = _draw(cells.take(part), x, y, int(side), px_um)
            for k, (top, left) in enumerate(zip(row[part], column[part], strict=True)):
                window = (slice(max(top, 0), top + side), slice(max(left, 0), left + side))
                own = (k, slice(max(-top, 0), h - top), slice(max(-left, 0), w - left))
                a = alpha[own]
                for plane, paint in ((haematoxylin, dark), (eosin, pink)):
                    under = plane[window]
                    under += a * (paint[own] - under)


def _draw(cells: Cells, x: Floats, y: Floats, side: int, px_um: float) -> tuple[Floats, Floats, Floats]:
    """Cover, haematoxylin and eosin of each nucleus, (n, side, side); `x`, `y` are its window's first px, in µm."""
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
    dividing = cells.kind == Kind.MITOSIS
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
    """(n, side, side) how much nearer than the ellipse's the outline is at each px: 1 where they agree."""
    bumps = _windows(texture("outline", px_um, 6.0, 16.0), cells.hashes, 60, side)
    return np.float32(1) + _column(cells.ragged) * bumps


def _windows(tile: Floats, hashes: Hashes, stream: int, side: int) -> Floats:
    """(n, side, side) windows at random places of a texture."""
    top = (uniform(hashes, stream) * TEXTURE_PX).astype(np.int64)
    left = (uniform(hashes, stream + 1) * TEXTURE_PX).astype(np.int64)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(tile, (side, side))[top, left])


def _spot(hashes: Hashes, u: Floats, v: Floats, long_um: Floats) -> Floats:
    """One round nucleolus of about 1.8 µm at a random place well inside."""
    su, sv = 0.7 * (_column(uniform(hashes, 64)) - 0.5), 0.7 * (_column(uniform(hashes, 65)) - 0.5)
    d2 = ((u - su) ** 2 + (v - sv) ** 2) * (long_um / 0.95) ** 2
    return np.maximum(0, 1 - 0.55 * d2 * d2)


def _column(values: Floats) -> Floats:
    return np.asarray(values, np.float32)[:, None, None]
