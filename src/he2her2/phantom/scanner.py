"""The scanner: focus, optics, sharpening, sensor noise, and the colours that reach the file."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.phantom.outlines import Artefacts
from he2her2.phantom.random_fields import Floats, GridPoints, RasterField, texture, texture_view
from he2her2.phantom.sites import Dyes, Optics

_TABLE_STEPS = 512
_TABLE_LIMIT = 4.0
"""Largest optical density of the colour table; higher ones look the same."""

DEFOCUS_UM = 2.6
"""Standard deviation of the blur in regions out of focus."""

FOLD_SHIFT_UM = 9.0
"""Distance between the two layers of tissue in a fold that overlap."""


class ColourTable:
    """Colours of all pairs of optical densities (Beer-Lambert), for one brightness of the lamp."""

    def __init__(self, dyes: Dyes, brightness: float) -> None:
        od = np.arange(_TABLE_STEPS, dtype=np.float32) * np.float32(_TABLE_LIMIT / _TABLE_STEPS)
        rgbx = np.zeros((_TABLE_STEPS, _TABLE_STEPS, 4), np.uint8)
        for c in range(3):
            first = np.exp(-od * dyes.first[c] * dyes.first_strength)[:, None]
            second = np.exp(-od * dyes.second[c] * dyes.second_strength)[None, :]
            light = (first * second) ** dyes.gamma
            rgbx[..., c] = np.rint(np.clip(dyes.glass[c] * brightness * light, 0, 255))
        self._table = rgbx.reshape(-1, 4).view(np.uint32).ravel()

    def rgbx(self, first: Floats, second: Floats) -> NDArray[np.uint8]:
        """Look up the colours, (h, w, 4) RGBX, of (h, w) optical densities, which are overwritten."""
        scale = np.float32(_TABLE_STEPS / _TABLE_LIMIT)
        for plane in (first, second):
            np.multiply(plane, scale, out=plane)
            np.clip(plane, 0, _TABLE_STEPS - 1, out=plane)
        index = first.astype(np.int32)
        index *= _TABLE_STEPS
        index += second.astype(np.int32)
        return np.take(self._table, index).view(np.uint8).reshape(*first.shape, 4)


def apply_optics(
    planes: tuple[Floats, Floats], grid: GridPoints, optics: Optics, artefacts: Artefacts, px_um: float
) -> None:
    """Apply folds, defocus, blur and sharpening to two planes of optical density, in place.

    Args:
        planes: (h, w) optical densities of the two dyes.
        grid: Centres of the px, µm.
        optics: The scanner.
        artefacts: Folds and regions out of focus.
        px_um: µm per px.
    """
    fold = _weight(artefacts.folds, grid, 6.0)
    shift = round(FOLD_SHIFT_UM / px_um), round(0.6 * FOLD_SHIFT_UM / px_um)
    blur = _weight(artefacts.blur, grid, 30.0)
    for plane in planes:
        if fold is not None:
            np.add(plane, fold * (np.roll(plane, shift, axis=(0, 1)) + 0.25 * plane), out=plane)
        if blur is not None:
            np.add(plane, blur * (_defocused(plane, px_um) - plane), out=plane)
        plane[...] = _through_optics(plane, optics, px_um)


def _defocused(plane: Floats, px_um: float) -> Floats:
    """Blur by three box filters, nearly a Gaussian."""
    side = 2 * round(DEFOCUS_UM / px_um) + 1
    for _ in range(3):
        plane = ndimage.uniform_filter(plane, side, mode="nearest")
    return plane


def _through_optics(plane: Floats, optics: Optics, px_um: float) -> Floats:
    """Blur by the optics and sharpen by unsharp masking."""
    variance = (optics.psf_um / px_um) ** 2
    sharp = _blurred(plane, variance)
    if optics.sharpening:
        sharp += np.float32(optics.sharpening) * (sharp - _blurred(sharp, 1.44 * variance))
    return sharp


def _blurred(plane: Floats, variance_px2: float) -> Floats:
    """Blur by repeated windows of three px, nearly a Gaussian of this variance; the border px repeat.

    SciPy's Gaussian is as fast, but would change the bytes of every phantom.
    """
    passes = int(np.ceil(variance_px2 / 0.9))
    side = np.float32(variance_px2 / (2 * passes))
    for _ in range(passes):
        for axis in (0, 1):
            plane = _window_of_three(plane, side, axis)
    return plane


def _window_of_three(plane: Floats, side: np.float32, axis: int) -> Floats:
    """Mix each px with its two neighbours along `axis`, weight `side` each."""
    out = plane * (1 - 2 * side)
    scaled = plane * side
    first, last, rest, ahead = (
        tuple(part if k == axis else slice(None) for k in (0, 1))
        for part in (slice(0, 1), slice(-1, None), slice(1, None), slice(0, -1))
    )
    out[rest] += scaled[ahead]
    out[ahead] += scaled[rest]
    out[first] += scaled[first]
    out[last] += scaled[last]
    return out


def scan(
    planes: tuple[Floats, Floats],
    grid: GridPoints,
    table: ColourTable,
    optics: Optics,
    artefacts: Artefacts,
    origin_px: tuple[int, int],
    px_um: float,
) -> NDArray[np.uint8]:
    """Scan two planes of optical density to RGBX; ink lies on top of the glass.

    Args:
        planes: (h, w) optical densities of the two dyes; overwritten.
        grid: Centres of the px, µm.
        table: Colours of the slide's dyes.
        optics: The scanner.
        artefacts: Marker ink.
        origin_px: Position (x, y) of the planes on the slide, level-0 px.
        px_um: µm per px.

    Returns:
        (h, w, 4) red, green, blue and an empty channel.
    """
    first, second = planes
    h, w = first.shape
    grain = texture_view(texture("sensor", px_um, 0.4 * px_um, 1e3), *origin_px, w, h)
    first += np.float32(optics.grain) * grain * (0.35 + np.minimum(second + first, 1))
    rgbx = table.rgbx(first, second)
    ink = _weight(artefacts.pen, grid, 10.0)
    if ink is not None:
        streaks = 0.85 + 0.12 * texture_view(texture("ink", px_um, 8.0, 60.0), *origin_px, w, h)
        for c in range(3):
            rgbx[..., c] = rgbx[..., c] * np.exp(-np.float32(artefacts.ink[c]) * ink * streaks)
    return rgbx


def _weight(raster: RasterField | None, grid: GridPoints, soft_um: float) -> Floats | None:
    """Weight of an artefact: 1 inside, 0 outside, a ramp of `soft_um` across the border; None if all are 0."""
    if raster is None:
        return None
    weight = np.clip(raster.grid(grid.xs, grid.ys) / np.float32(soft_um) + np.float32(0.5), 0, 1)
    return np.asarray(weight, np.float32) if weight.any() else None
