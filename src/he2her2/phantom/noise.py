"""Smooth random fields of given wavelength, and fine textures, at any place of a slide."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.chance import Floats, lattice_hashes, uniform

_SPLINE_SD = 0.2768
"""Standard deviation of a cubic B-spline surface over a lattice of uniform [-1, 1] heights."""

TEXTURE_PX = 768
"""Period of a texture in px."""

_TEXTURE_REACH_PX = 1_152
"""A view of a texture may be this large: a block and its margins."""


class Field(Protocol):
    """A smooth function of the position on the slide, in µm."""

    def grid(self, xs_um: NDArray[Any], ys_um: NDArray[Any]) -> Floats:
        """(h, w) values on the grid of all `ys_um` and `xs_um`."""

    def at(self, x_um: NDArray[Any], y_um: NDArray[Any]) -> Floats:
        """(n,) values at n points."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Random hills of one wavelength: mean 0, sd about 1, no seams, endless in every direction."""

    key: int
    wavelength_um: float

    def grid(self, xs_um: NDArray[Any], ys_um: NDArray[Any]) -> Floats:
        """(h, w) values on the grid of all `ys_um` and `xs_um`."""
        step = self.wavelength_um / 2
        ix, wx = _spline_weights(np.asarray(xs_um) / step)
        iy, wy = _spline_weights(np.asarray(ys_um) / step)
        i0, j0 = int(ix[0].min()), int(iy[0].min())
        heights = self._heights(
            np.arange(i0, int(ix[0].max()) + 4)[None, :], np.arange(j0, int(iy[0].max()) + 4)[:, None]
        )
        return _dense(iy[0] - j0, wy, heights.shape[0]) @ heights @ _dense(ix[0] - i0, wx, heights.shape[1]).T

    def at(self, x_um: NDArray[Any], y_um: NDArray[Any]) -> Floats:
        """(n,) values at n points."""
        step = self.wavelength_um / 2
        ix, wx = _spline_weights(np.asarray(x_um) / step)
        iy, wy = _spline_weights(np.asarray(y_um) / step)
        heights = self._heights(ix[None, :, :], iy[:, None, :])  # (4, 4, n)
        return np.asarray(np.einsum("ban,an,bn->n", heights, wx, wy), np.float32)

    def _heights(self, i: NDArray[Any], j: NDArray[Any]) -> Floats:
        return (uniform(lattice_hashes(self.key, i, j), 0) * 2 - 1) / np.float32(_SPLINE_SD)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class Raster:
    """A coarse picture of the whole slide, read smoothly between its pixels; its border continues outwards.

    Attributes:
        values: (h, w) floats, one for each px.
        px_um: Side of a px in µm; px i covers [i, i + 1) * px_um.
    """

    values: Floats
    px_um: float

    def grid(self, xs_um: NDArray[Any], ys_um: NDArray[Any]) -> Floats:
        """(h, w) values on the grid of all `ys_um` and `xs_um`."""
        ix, wx = _spline_weights(np.asarray(xs_um) / self.px_um - 0.5, centred=True)
        iy, wy = _spline_weights(np.asarray(ys_um) / self.px_um - 0.5, centred=True)
        i0, j0 = int(ix[0].min()), int(iy[0].min())
        i = np.clip(np.arange(i0, int(ix[0].max()) + 4), 0, self.values.shape[1] - 1)
        j = np.clip(np.arange(j0, int(iy[0].max()) + 4), 0, self.values.shape[0] - 1)
        near = self.values[j[:, None], i]
        return _dense(iy[0] - j0, wy, len(j)) @ near @ _dense(ix[0] - i0, wx, len(i)).T

    def at(self, x_um: NDArray[Any], y_um: NDArray[Any]) -> Floats:
        """(n,) values at n points."""
        ix, wx = _spline_weights(np.asarray(x_um) / self.px_um - 0.5, centred=True)
        iy, wy = _spline_weights(np.asarray(y_um) / self.px_um - 0.5, centred=True)
        ix = np.clip(ix, 0, self.values.shape[1] - 1)
        iy = np.clip(iy, 0, self.values.shape[0] - 1)
        return np.asarray(np.einsum("ban,an,bn->n", self.values[iy[:, None], ix[None]], wx, wy), np.float32)


def _spline_weights(t: NDArray[Any], *, centred: bool = False) -> tuple[NDArray[np.int64], Floats]:
    """The four lattice points around each `t`, (4, n), and their cubic B-spline weights, (4, n)."""
    base = np.floor(t)
    f = (t - base).astype(np.float32)
    g = np.float32(1) - f
    f2, g2 = f * f, g * g
    weights = np.empty((4, *f.shape), np.float32)
    weights[0], weights[3] = g2 * g, f2 * f
    weights[1] = 3 * weights[3] - 6 * f2 + 4
    weights[2] = 3 * weights[0] - 6 * g2 + 4
    weights *= np.float32(1 / 6)
    first = base.astype(np.int64) - (1 if centred else 0)
    return first[None] + np.arange(4).reshape(-1, *[1] * first.ndim), weights


def _dense(first: NDArray[np.int64], weights: Floats, n: int) -> Floats:
    """The (m, n) matrix that applies `weights` (4, m) from column `first` (m,) on."""
    matrix = np.zeros((len(first), n), np.float32)
    rows = np.arange(len(first))
    for k in range(4):
        matrix[rows, first + k] += weights[k]
    return matrix


@lru_cache(maxsize=48)
def texture(name: str, px_um: float, short_um: float, long_um: float) -> Floats:
    """A texture that repeats itself every `TEXTURE_PX` px: mean 0, sd 1.

    Args:
        name: What it is for; each name is another draw.
        px_um: µm per px.
        short_um: Finest grain.
        long_um: Coarsest grain.

    Returns:
        Read-only array that covers any window up to a block's size from any offset below `TEXTURE_PX`.
    """
    rng = np.random.default_rng([*name.encode(), 7])
    spectrum = np.fft.rfft2(rng.standard_normal((TEXTURE_PX, TEXTURE_PX), np.float32))
    fy = np.fft.fftfreq(TEXTURE_PX, px_um)[:, None]
    fx = np.fft.rfftfreq(TEXTURE_PX, px_um)[None, :]
    f2 = fx**2 + fy**2
    band = np.exp(-f2 * short_um**2) * (1 - np.exp(-f2 * long_um**2))
    tile = np.fft.irfft2(spectrum * band, (TEXTURE_PX, TEXTURE_PX))
    tile = ((tile - tile.mean()) / tile.std()).astype(np.float32)
    around = np.arange(TEXTURE_PX + _TEXTURE_REACH_PX) % TEXTURE_PX
    wide = np.ascontiguousarray(tile[around][:, around])
    wide.setflags(write=False)
    return wide


def texture_view(tile: Floats, x_px: int, y_px: int, w: int, h: int) -> Floats:
    """The (h, w) part of a texture that lies at (x, y) of the slide."""
    x, y = x_px % TEXTURE_PX, y_px % TEXTURE_PX
    if max(x + w, y + h) > len(tile):  # a window larger than any block
        return tile[((y + np.arange(h)) % TEXTURE_PX)[:, None], (x + np.arange(w)) % TEXTURE_PX]
    return tile[y : y + h, x : x + w]
