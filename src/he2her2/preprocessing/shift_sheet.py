"""The shift sheet: named changes of pictures that another laboratory, scanner or file would make.

A network that sees tissue loses little under them; one that sees a laboratory's colours loses much. All are fixed: the
same pictures give the same shifted pictures.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import scipy
import skimage
from PIL import Image

from he2her2.geometry import Rgb
from he2her2.preprocessing.stain import (
    LANDINI,
    REFERENCE_LAB,
    REFERENCE_STAINS,
    RUIFROK,
    ColourChange,
    eight_bits,
    lab_shifted,
    restained,
    tabulated,
)

_PictureChange: TypeAlias = Callable[[Rgb, float], Rgb]
"""From pictures (n, h, h, 3) and their µm per px to the changed pictures, of the same shape."""

_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
_MIDDLE = 128


@dataclass(frozen=True, slots=True)
class Shift:
    """One row of the shift sheet.

    Attributes:
        name: Such as "hue +18°".
        group: Kind of change: stain, colour, light, focus, file or scale.
        change: Of the pictures.
    """

    name: str
    group: str
    change: _PictureChange


def hue_turned(rgb: Rgb, turn: float) -> Rgb:
    """Hue of HSV turned by this share of a full circle: (..., 3)."""
    hsv = skimage.color.rgb2hsv(rgb.astype(np.float32) / 255)
    hsv[..., 0] = (hsv[..., 0] + turn) % 1
    return eight_bits(255 * skimage.color.hsv2rgb(hsv))


def relit(rgb: Rgb, *, brightness: float = 0.0, contrast: float = 1.0) -> Rgb:
    """Values moved by a share of 255, and their distance from middle grey scaled: (..., 3)."""
    values = (rgb.astype(np.float32) - _MIDDLE) * contrast + _MIDDLE + 255 * brightness
    return eight_bits(values)


def grey(rgb: Rgb) -> Rgb:
    """Luma (BT.601) in all three channels: (..., 3)."""
    return np.repeat(eight_bits(rgb @ _GREY_WEIGHTS)[..., None], 3, axis=-1)


def blurred(rgb: Rgb, mpp: float, sigma_um: float) -> Rgb:
    """Out of focus: a Gaussian of this standard deviation in µm over (n, h, w, 3), mirrored at the edges."""
    sigma_px = sigma_um / mpp
    wide = scipy.ndimage.gaussian_filter(rgb.astype(np.float32), (0, sigma_px, sigma_px, 0), mode="reflect")
    return eight_bits(wide)


def recompressed(rgb: Rgb, quality: int) -> Rgb:
    """Each of (n, h, w, 3) pictures written as a JPEG of this quality and read again."""
    return np.stack([_recompressed(picture, quality) for picture in rgb]) if len(rgb) else rgb


def _recompressed(picture: Rgb, quality: int) -> Rgb:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file))


def magnified(rgb: Rgb, factor: float) -> Rgb:
    """Tissue of (n, h, h, 3) pictures larger by a factor about the centre; below 1 the edges are filled by mirroring.

    A slide whose µm per px are stated too large by the factor looks so.
    """
    if not len(rgb):
        return rgb
    side = rgb.shape[1]
    margin = max(0, round(side * (1 / factor - 1) / 2) + 1) if factor < 1 else 0
    wide = np.pad(rgb, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    centre, half = wide.shape[1] / 2, side / factor / 2
    box = (centre - half, centre - half, centre + half, centre + half)
    size = (side, side)
    return np.stack([_resized(picture, size, box) for picture in wide])


def _resized(picture: Rgb, size: tuple[int, int], box: tuple[float, float, float, float]) -> Rgb:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box=box))


def _of_colour(change: ColourChange) -> _PictureChange:
    """A change of each pixel by its colour alone."""
    table: list[ColourChange] = []

    def changed(rgb: Rgb, _: float) -> Rgb:
        if not table:  # made when first used: the sheet is only listed as a rule
            table.append(tabulated(change))
        return table[0](rgb)

    return changed


def _restain(**how: object) -> _PictureChange:
    return _of_colour(partial(restained, **how))  # type: ignore[arg-type]


def _lab(*, mean: tuple[float, float, float] = (0, 0, 0), spread: float = 1.0) -> _PictureChange:
    return _of_colour(partial(lab_shifted, mean=mean, spread=(spread,) * 3, about=REFERENCE_LAB.mean))


_MACENKO = np.vstack([REFERENCE_STAINS.vectors, RUIFROK[2:]])

SHIFT_SHEET: tuple[Shift, ...] = (
    Shift("Landini's stain vectors", "stain", _restain(vectors=LANDINI)),
    Shift("stain vectors with an orange eosin", "stain", _restain(vectors=_MACENKO)),
    Shift("haematoxylin x 0.6", "stain", _restain(amounts=(0.6, 1, 1))),
    Shift("haematoxylin x 1.5", "stain", _restain(amounts=(1.5, 1, 1))),
    Shift("eosin x 0.6", "stain", _restain(amounts=(1, 0.6, 1))),
    Shift("eosin x 1.5", "stain", _restain(amounts=(1, 1.5, 1))),
    Shift("both stains x 0.6", "stain", _restain(amounts=(0.6, 0.6, 0.6))),
    Shift("both stains x 1.5", "stain", _restain(amounts=(1.5, 1.5, 1.5))),
    Shift("hue +18°", "colour", _of_colour(partial(hue_turned, turn=0.05))),
    Shift("hue -18°", "colour", _of_colour(partial(hue_turned, turn=-0.05))),
    Shift("LAB a and b +10", "colour", _lab(mean=(0, 10, 10))),
    Shift("LAB a and b -10", "colour", _lab(mean=(0, -10, -10))),
    Shift("LAB spread x 0.7", "colour", _lab(spread=0.7)),
    Shift("LAB spread x 1.4", "colour", _lab(spread=1.4)),
    Shift("grey only", "colour", lambda rgb, _: grey(rgb)),
    Shift("brightness +15 %", "light", _of_colour(partial(relit, brightness=0.15))),
    Shift("brightness -15 %", "light", _of_colour(partial(relit, brightness=-0.15))),
    Shift("contrast x 0.7", "light", _of_colour(partial(relit, contrast=0.7))),
    Shift("contrast x 1.4", "light", _of_colour(partial(relit, contrast=1.4))),
    Shift("blur, sigma 1 µm", "focus", partial(blurred, sigma_um=1.0)),
    Shift("blur, sigma 2 µm", "focus", partial(blurred, sigma_um=2.0)),
    Shift("JPEG quality 50", "file", lambda rgb, _: recompressed(rgb, 50)),
    Shift("JPEG quality 20", "file", lambda rgb, _: recompressed(rgb, 20)),
    Shift("mpp stated 10 % too large", "scale", lambda rgb, _: magnified(rgb, 1.1)),
    Shift("mpp stated 10 % too small", "scale", lambda rgb, _: magnified(rgb, 1 / 1.1)),
)
"""All shifts, by group."""
