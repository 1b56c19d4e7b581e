"""The scanner: optics, focus, sharpening, sensor grain, and the light that reaches the file."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.phantom.artefacts import Artefacts
from he2her2.phantom.chance import Floats
from he2her2.phantom.noise import Raster, texture, texture_view
from he2her2.phantom.places import GridPlace
from he2her2.phantom.sites import Optics
from he2her2.phantom.stains import LightTable

DEFOCUS_UM = 2.6
"""Standard deviation of the blur in regions out of focus."""

FOLD_SHIFT_UM = 9.0
"""How far away the tissue comes from that lies on top in a fold."""


def see(planes: tuple[Floats, Floats], grid: GridPlace, optics: Optics, artefacts: Artefacts, px_um: float) -> None:
    """Fold, defocus and blur two planes of optical density, in place.

    Args:
        planes: (h, w) optical densities of the two dyes.
        grid: Centres of their px.
        optics: The microscope and its software.
        artefacts: Where folds and blur lie.
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
    """Three boxes, which are nearly a Gaussian."""
    side = 2 * round(DEFOCUS_UM / px_um) + 1
    for _ in range(3):
        plane = ndimage.uniform_filter(plane, side, mode="nearest")
    return plane


def _through_optics(plane: Floats, optics: Optics, px_um: float) -> Floats:
    """The optics' blur and the software's sharpening."""
    variance = (optics.psf_um / px_um) ** 2
    sharp = _blurred(plane, variance)
    if optics.sharpening:
        sharp += np.float32(optics.sharpening) * (sharp - _blurred(sharp, 1.44 * variance))
    return sharp


def _blurred(plane: Floats, variance_px2: float) -> Floats:
    """Nearly a Gaussian blur: as many passes of a window of three as its variance needs; the border px repeat."""
    passes = int(np.ceil(variance_px2 / 0.9))
    side = np.float32(variance_px2 / (2 * passes))
    for _ in range(passes):
        for axis in (0, 1):
            plane = _window_of_three(plane, side, axis)
    return plane


def _window_of_three(plane: Floats, side: np.float32, axis: int) -> Floats:
    """Each px mixed with its two neighbours along `axis`, `side` of each."""
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


def expose(
    planes: tuple[Floats, Floats],
    grid: GridPlace,
    table: LightTable,
    optics: Optics,
    artefacts: Artefacts,
    origin_px: tuple[int, int],
    px_um: float,
) -> NDArray[np.uint8]:
    """(h, w, 4) RGBX of two planes of optical density, which are used up; ink lies on top of the glass."""
    first, second = planes
    h, w = first.shape
    grain = texture_view(texture("sensor", px_um, 0.4 * px_um, 1e3), *origin_px, w, h)
    first += np.float32(optics.grain) * grain * (0.35 + np.minimum(second + first, 1))
    light = table.develop(first, second)
    ink = _weight(artefacts.pen, grid, 10.0)
    if ink is not None:
        streaks = 0.85 + 0.12 * texture_view(texture("ink", px_um, 8.0, 60.0), *origin_px, w, h)
        for c in range(3):
            light[..., c] = light[..., c] * np.exp(-np.float32(artefacts.ink[c]) * ink * streaks)
    return light


def _weight(raster: Raster | None, grid: GridPlace, soft_um: float) -> Floats | None:
    """1 inside, 0 outside, a ramp of `soft_um` across the border; None where all is 0."""
    if raster is None:
        return None
    weight = np.clip(raster.grid(grid.xs, grid.ys) / np.float32(soft_um) + np.float32(0.5), 0, 1)
    return np.asarray(weight, np.float32) if weight.any() else None
