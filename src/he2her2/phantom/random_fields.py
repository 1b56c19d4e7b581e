"""Random numbers, smooth fields and textures that depend on nothing but the position on the slide.

The random numbers are hashes of grid positions (the finaliser of SplitMix64; Steele, Lea & Flood, 2014). NumPy's
generators draw in sequence; here any region can be drawn alone, in any order, by any process, and still meets its
neighbours without a seam.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[Any]
"""Real numbers, float32 wherever pixels are meant."""

Hashes: TypeAlias = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key_of(*parts: int | str) -> int:
    """64-bit key of one purpose on one slide; seeds a generator or a field.

    Example:
        >>> key_of(1, "nests") == key_of(1, "nests"), key_of(1, "nests") == key_of(2, "nests")
        (True, False)
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def position_hashes(key: int, i: NDArray[Any], j: NDArray[Any]) -> Hashes:
    """Hash of every integer position (i, j); `i` and `j` broadcast."""
    with np.errstate(over="ignore"):
        h = _mix(np.uint64(key) + np.asarray(i, np.int64).astype(np.uint64) * _GOLDEN)
        hashes: Hashes = _mix(h ^ (np.asarray(j, np.int64).astype(np.uint64) * _MIX_2 + _GOLDEN))
    return hashes


def uniform(hashes: Hashes, stream: int) -> Floats:
    """Uniform number in [0, 1) of each hash; streams are independent of each other."""
    with np.errstate(over="ignore"):
        mixed = _mix(hashes + np.uint64(stream + 1) * _GOLDEN)
    share: Floats = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return share


def normal(hashes: Hashes, stream: int) -> Floats:
    """Nearly normal number (mean 0, sd 1, within ±3.5) of each hash: the sum of four uniform numbers."""
    total = sum((uniform(hashes, 1000 + 4 * stream + k) for k in range(4)), np.float32(0))
    return ((np.asarray(total) - 2.0) * np.float32(np.sqrt(3.0))).astype(np.float32)


def _mix(z: Any) -> Any:  # noqa: ANN401  (uint64 scalar or array)
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


_SPLINE_SD = 0.2768
"""Standard deviation of a cubic B-spline surface over grid heights that are uniform in [-1, 1]."""

TEXTURE_PX = 768
"""Period of a texture in px."""

_TEXTURE_REACH_PX = 1_152
"""Largest window cut from a texture in one piece, px: a block and its margins."""


class _Field(Protocol):
    """A smooth function of the position on the slide, in µm."""

    def grid(self, xs_um: NDArray[Any], ys_um: NDArray[Any]) -> Floats:
        """Sample the field on a grid: (h, w) values at all `ys_um` and `xs_um`."""

    def at(self, x_um: NDArray[Any], y_um: NDArray[Any]) -> Floats:
        """Sample the field at n points: (n,) values."""


@dataclass(frozen=True, slots=True)
class NoiseField:
    """Smooth random field of one wavelength: mean 0, sd about 1, defined everywhere, without seams."""

    key: int
    wavelength_um: float

    def grid(self, xs_um: NDArray[Any], ys_um: NDArray[Any]) -> Floats:
        """Sample the field on a grid: (h, w) values at all `ys_um` and `xs_um`."""
        step = self.wavelength_um / 2
        ix, wx = _spline_weights(np.asarray(xs_um) / step)
        iy, wy = _spline_weights(np.asarray(ys_um) / step)
        i0, j0 = int(ix[0].min()), int(iy[0].min())
        heights = self._heights(
            np.arange(i0, int(ix[0].max()) + 4)[None, :], np.arange(j0, int(iy[0].max()) + 4)[:, None]
        )
        return _dense(iy[0] - j0, wy, heights.shape[0]) @ heights @ _dense(ix[0] - i0, wx, heights.shape[1]).T

    def at(self, x_um: NDArray[Any], y_um: NDArray[Any]) -> Floats:
        """Sample the field at n points: (n,) values."""
        step = self.wavelength_um / 2
        ix, wx = _spline_weights(np.asarray(x_um) / step)
        iy, wy = _spline_weights(np.asarray(y_um) / step)
        heights = self._heights(ix[None, :, :], iy[:, None, :])  # (4, 4, n)
        return np.asarray(np.einsum("ban,an,bn->n", heights, wx, wy), np.float32)

    def _heights(self, i: NDArray[Any], j: NDArray[Any]) -> Floats:
        return (uniform(position_hashes(self.key, i, j), 0) * 2 - 1) / np.float32(_SPLINE_SD)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class RasterField:
    """Coarse raster of the whole slide, interpolated by cubic B-splines; its border px continue outwards.

    Attributes:
        values: (h, w) floats, one for each px.
        px_um: Side of a px in µm; px i covers [i, i + 1) * px_um.
    """

    values: Floats
    px_um: float

    def grid(self, xs_um: NDArray[Any], ys_um: NDArray[Any]) -> Floats:
        """Sample the field on a grid: (h, w) values at all `ys_um` and `xs_um`."""
        ix, wx = _spline_weights(np.asarray(xs_um) / self.px_um - 0.5, centred=True)
        iy, wy = _spline_weights(np.asarray(ys_um) / self.px_um - 0.5, centred=True)
        i0, j0 = int(ix[0].min()), int(iy[0].min())
        i = np.clip(np.arange(i0, int(ix[0].max()) + 4), 0, self.values.shape[1] - 1)
        j = np.clip(np.arange(j0, int(iy[0].max()) + 4), 0, self.values.shape[0] - 1)
        near = self.values[j[:, None], i]
        return _dense(iy[0] - j0, wy, len(j)) @ near @ _dense(ix[0] - i0, wx, len(i)).T

    def at(self, x_um: NDArray[Any], y_um: NDArray[Any]) -> Floats:
        """Sample the field at n points: (n,) values."""
        ix, wx = _spline_weights(np.asarray(x_um) / self.px_um - 0.5, centred=True)
        iy, wy = _spline_weights(np.asarray(y_um) / self.px_um - 0.5, centred=True)
        ix = np.clip(ix, 0, self.values.shape[1] - 1)
        iy = np.clip(iy, 0, self.values.shape[0] - 1)
        return np.asarray(np.einsum("ban,an,bn->n", self.values[iy[:, None], ix[None]], wx, wy), np.float32)


def _spline_weights(t: NDArray[Any], *, centred: bool = False) -> tuple[NDArray[np.int64], Floats]:
    """Indices of the four knots around each `t`, (4, n), and their cubic B-spline weights, (4, n)."""
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
    """Write `weights` (4, m) as an (m, n) matrix, each row from column `first` (m,) on."""
    matrix = np.zeros((len(first), n), np.float32)
    rows = np.arange(len(first))
    for k in range(4):
        matrix[rows, first + k] += weights[k]
    return matrix


@lru_cache(maxsize=48)
def texture(name: str, px_um: float, short_um: float, long_um: float) -> Floats:
    """Draw a random texture that repeats every `TEXTURE_PX` px: mean 0, sd 1.

    Args:
        name: Purpose of the texture; each name is another draw.
        px_um: µm per px.
        short_um: Size of the finest grain.
        long_um: Size of the coarsest grain.

    Returns:
        Read-only (h, w) array, larger than one period by the largest window.
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
    """Part of a texture, (h, w), at position (x, y) of the slide."""
    x, y = x_px % TEXTURE_PX, y_px % TEXTURE_PX
    if max(x + w, y + h) > len(tile):  # a window larger than any block
        return tile[((y + np.arange(h)) % TEXTURE_PX)[:, None], (x + np.arange(w)) % TEXTURE_PX]
    return tile[y : y + h, x : x + w]


class Positions(Protocol):
    """Positions in µm at which fields are sampled; `x` and `y` broadcast to the shape of the samples."""

    @property
    def x(self) -> NDArray[Any]:
        """Horizontal positions."""

    @property
    def y(self) -> NDArray[Any]:
        """Vertical positions."""

    def sample(self, field: _Field) -> Floats:
        """Values of a field at these positions."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class GridPoints:
    """Points of a regular grid, w columns `xs` by h rows `ys`."""

    xs: NDArray[Any]
    ys: NDArray[Any]

    @property
    def x(self) -> NDArray[Any]:
        """Horizontal positions, (1, w)."""
        return self.xs[None, :]

    @property
    def y(self) -> NDArray[Any]:
        """Vertical positions, (h, 1)."""
        return self.ys[:, None]

    def sample(self, field: _Field) -> Floats:
        """Values of a field, (h, w)."""
        return field.grid(self.xs, self.ys)

    def grain(self, name: str, size_um: float) -> Floats:
        """Texture with grains of about `size_um`, (h, w): mean 0, sd 1; cheaper than a field at small sizes."""
        px_um = round(float(self.xs[1] - self.xs[0]), 6)
        tile = texture(name, px_um, 0.6 * size_um, 1.6 * size_um)
        x, y = (round(float(axis[0]) / px_um - 0.5) for axis in (self.xs, self.ys))
        return texture_view(tile, x, y, len(self.xs), len(self.ys))


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class ScatteredPoints:
    """n points anywhere on the slide."""

    x: NDArray[Any]
    y: NDArray[Any]

    def sample(self, field: _Field) -> Floats:
        """Values of a field, (n,)."""
        return field.at(self.x, self.y)

    def moved(self, dx: float, dy: float) -> Self:
        """Shift all points."""
        return type(self)(self.x + dx, self.y + dy)
