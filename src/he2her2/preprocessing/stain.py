"""Stain of H&E and IHC pictures: amounts of each dye, another stain, and normalisation to a reference.

Pictures are (..., 3) uint8: one, (h, w, 3), or many, (n, h, w, 3). Optical density is the natural logarithm of white
(255) over the pixel, so that the densities of dyes add up (Beer and Lambert).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import skimage
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter

from he2her2.geometry import Mask, Rgb

Normalisation: TypeAlias = Literal["none", "reinhard", "macenko"]
"""Way of bringing a slide's colours to the reference."""

ColourChange: TypeAlias = Callable[[Rgb], Rgb]
"""From pictures (..., 3) to the same pictures in other colours."""

RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""(3, 3) density in red, green, blue of haematoxylin, eosin, DAB (Ruifrok and Johnston, 2001), as scikit-image's."""

LANDINI = np.array([[0.644, 0.717, 0.267], [0.093, 0.954, 0.283], [0.268, 0.570, 0.776]])
"""The same by Landini's "H&E 2" set."""

_TABLE_SIDE = 33  # Pillow takes at most 65
_DARKEST = 1.0  # of 255: a black pixel has a finite density
_LEAST_DENSITY = 0.15  # of stained pixels, as a mean over the channels (Macenko et al., 2009)
_ANGLE_PERCENTILES = 1, 99
_FULL_AMOUNT_PERCENTILE = 99
_LEAST_SPREAD = 1e-3
_DENSITY: NDArray[np.float32] = -np.log(np.maximum(np.arange(256), _DARKEST) / 255).astype(np.float32)


@dataclass(frozen=True, slots=True)
class LabStatistics:
    """Colour of tissue in CIE LAB: mean and standard deviation of L, a and b (Reinhard et al., 2001)."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StainPair:
    """Haematoxylin and eosin of a slide (Macenko et al., 2009).

    Attributes:
        haematoxylin: Its density in red, green and blue, of length 1.
        eosin: The same.
        amounts: 99th percentile of the amount of each.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    amounts: tuple[float, float]

    @property
    def vectors(self) -> NDArray[np.float64]:
        """(2, 3) densities of both."""
        return np.array([self.haematoxylin, self.eosin])


REFERENCE_LAB = LabStatistics((64.27, 27.56, -8.02), (12.08, 9.65, 6.83))
"""Colour of the tissue in the IDC patches (Cruz-Roa et al., 2014; CC0), averaged to 8 µm/px."""

REFERENCE_STAINS = StainPair((0.5352, 0.7316, 0.4223), (0.1308, 0.8196, 0.5579), (1.619, 1.258))
"""Dyes of the same pixels."""


def stained_pixels(rgb: Rgb) -> Mask:
    """(...) pixels whose mean optical density is that of stained tissue (Macenko et al., 2009)."""
    return np.asarray(optical_density(rgb).mean(axis=-1) > _LEAST_DENSITY)


def optical_density(rgb: Rgb) -> NDArray[np.float32]:
    """Optical density of each channel, (..., 3) float32; 0 is white, and black counts as 1 of 255.

    Example:
        >>> optical_density(np.array([254, 94, 1], np.uint8)).round(2).tolist()
        [0.0, 1.0, 5.539999961853027]
    """
    return _DENSITY[rgb]


def from_density(density: NDArray[np.floating]) -> Rgb:
    """Pixels (..., 3) uint8 of optical densities; the inverse of `optical_density` but for black."""
    return eight_bits(255 * np.exp(-density))


def stain_amounts(rgb: Rgb) -> NDArray[np.float32]:
    """Amounts (..., 3) of haematoxylin, eosin and DAB; negative where a pixel has none of a dye's colour.

    They are those of scikit-image's `rgb2hed` before it cuts what is negative, in units of density.

    Example:
        >>> brown = from_density(0.8 * RUIFROK[2])
        >>> stain_amounts(brown).round(1).tolist()[2]
        0.800000011920929
    """
    found: NDArray[np.float32] = optical_density(rgb) @ skimage.color.hed_from_rgb.astype(np.float32)
    return found


def restained(
    rgb: Rgb, *, vectors: ArrayLike = RUIFROK, amounts: ArrayLike = (1, 1, 1), base: NDArray[np.float64] = RUIFROK
) -> Rgb:
    """The same tissue with other dyes, or other amounts of them.

    Args:
        rgb: (..., 3).
        vectors: (3, 3) densities of the new dyes.
        amounts: (3,) factors of the amounts.
        base: (3, 3) densities of the dyes that it has.

    Example:
        >>> pale = restained(np.array([[[150, 80, 150]]], np.uint8), amounts=(0.5, 0.5, 0.5))
        >>> pale.tolist()
        [[[196, 143, 196]]]
    """
    change = np.linalg.inv(base) @ np.diag(np.asarray(amounts, float)) @ np.asarray(vectors, float)
    return from_density(optical_density(rgb) @ change.astype(np.float32))


def lab_statistics(rgb: Rgb, tissue: Mask | None = None) -> LabStatistics:
    """Mean and spread of a picture's colours in CIE LAB.

    Args:
        rgb: (..., 3).
        tissue: (...) pixels that count; None counts all.

    Raises:
        ValueError: No pixel counts.
    """
    pixels = rgb.reshape(-1, 3) if tissue is None else rgb[tissue]
    if not len(pixels):
        raise ValueError("no tissue to take colours from")
    lab = _lab(pixels)
    return LabStatistics(_three(lab.mean(axis=0, dtype=float)), _three(lab.std(axis=0, dtype=float)))


def reinhard_normalised(rgb: Rgb, source: LabStatistics, target: LabStatistics) -> Rgb:
    """Colours moved and spread in CIE LAB so that tissue of `source` gets the mean and spread of `target`.

    Args:
        rgb: (..., 3).
        source: Colours of the slide's tissue.
        target: Colours wanted.
    """
    spread = np.maximum(source.spread, _LEAST_SPREAD)
    scale = (np.asarray(target.spread) / spread).astype(np.float32)
    return _from_lab((_lab(rgb) - np.array(source.mean, np.float32)) * scale + np.array(target.mean, np.float32))


def lab_shifted(
    rgb: Rgb, *, mean: ArrayLike = (0, 0, 0), spread: ArrayLike = (1, 1, 1), about: ArrayLike | None = None
) -> Rgb:
    """Mean of each picture moved in CIE LAB, and its deviations from it scaled.

    Args:
        rgb: (h, w, 3) or (n, h, w, 3).
        mean: (3,) added to the means of L, a and b.
        spread: (3,) factors of the deviations.
        about: (3,) colour from which deviations are scaled; None is each picture's own mean.
    """
    lab = _lab(rgb)
    centre = lab.mean(axis=(-3, -2), keepdims=True) if about is None else np.asarray(about, np.float32)
    return _from_lab((lab - centre) * np.asarray(spread, np.float32) + centre + np.asarray(mean, np.float32))


def macenko_stains(rgb: Rgb, tissue: Mask | None = None) -> StainPair:
    """Haematoxylin and eosin of a picture: the outermost directions of its densities (Macenko et al., 2009).

    The densities of stained pixels are seen in the plane of their two strongest components; the 1st and 99th percentile
    of their direction there are the two dyes, and haematoxylin is the one that absorbs more red.

    Args:
        rgb: (..., 3).
        tissue: (...) pixels that count; None counts all.

    Raises:
        ValueError: Fewer than two stained pixels, or all of one colour.
    """
    density = optical_density(rgb.reshape(-1, 3) if tissue is None else rgb[tissue]).astype(np.float64)
    density = density[density.mean(axis=1) > _LEAST_DENSITY]
    if len(density) < 2 or np.ptp(density, axis=0).max() == 0:
        raise ValueError("no two dyes to be seen: too little stained tissue")
    plane = np.linalg.eigh(density.T @ density / len(density))[1][:, [2, 1]]  # through white, which is no dye
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    x, y = (density @ plane).T
    angles = np.deg2rad(np.percentile(np.rad2deg(np.arctan2(y, x)), _ANGLE_PERCENTILES))
    pair = np.maximum(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T, 0)
    pair /= np.linalg.norm(pair, axis=1, keepdims=True)
    pair = pair[np.argsort(-pair[:, 0])]
    if np.linalg.cond(pair) > 1e3:
        raise ValueError("no two dyes to be seen: all tissue has one hue")
    amounts = np.percentile(density @ np.linalg.pinv(pair), _FULL_AMOUNT_PERCENTILE, axis=0)
    return StainPair(_three(pair[0]), _three(pair[1]), (float(amounts[0]), float(amounts[1])))


def macenko_normalised(rgb: Rgb, source: StainPair, target: StainPair) -> Rgb:
    """The amounts of a slide's two dyes, scaled to those of `target` and shown in its dyes; white stays white.

    What neither dye explains (ink, pigment) is lost, as in the original method.

    Args:
        rgb: (..., 3).
        source: Dyes of the slide.
        target: Dyes wanted.
    """
    scale = np.asarray(target.amounts) / np.maximum(source.amounts, _LEAST_SPREAD)
    to_amounts = np.linalg.pinv(source.vectors).astype(np.float32)  # (3, 2)
    amounts = np.maximum(optical_density(rgb) @ to_amounts, 0)
    return from_density(amounts @ (scale[:, None] * target.vectors).astype(np.float32))


def tabulated(change: ColourChange) -> ColourChange:
    """The same change of colours, looked up in a table and interpolated: fast, and off by a level or two of 255.

    Args:
        change: Of each pixel by its own colour alone.
    """
    steps = np.rint(np.linspace(0, 255, _TABLE_SIDE)).astype(np.uint8)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    colours = change(np.stack([red, green, blue], axis=-1).reshape(-1, 3))
    table = ImageFilter.Color3DLUT(_TABLE_SIDE, (colours / 255).ravel().tolist())

    def looked_up(rgb: Rgb) -> Rgb:
        if not rgb.size:
            return rgb
        flat = np.ascontiguousarray(rgb).reshape(-1, rgb.shape[-2], 3)
        return np.asarray(Image.fromarray(flat).filter(table)).reshape(rgb.shape)

    return looked_up


def normalisation_of(rgb: Rgb, tissue: Mask, kind: Normalisation) -> ColourChange | None:
    """The change that brings a slide's colours to the reference; None for `none`.

    Args:
        rgb: (h, w, 3) thumbnail of about 8 µm/px, as the reference.
        tissue: (h, w).
        kind: Of the normalisation.

    Raises:
        ValueError: The tissue does not show enough stain to tell its colours.
    """
    if kind == "none":
        return None
    if kind == "reinhard":
        return tabulated(partial(reinhard_normalised, source=lab_statistics(rgb, tissue), target=REFERENCE_LAB))
    return tabulated(partial(macenko_normalised, source=macenko_stains(rgb, tissue), target=REFERENCE_STAINS))


def _lab(rgb: Rgb) -> NDArray[np.float32]:
    """CIE LAB (D65) of (..., 3) pixels."""
    lab: NDArray[np.float32] = skimage.color.rgb2lab(rgb.astype(np.float32) / 255)
    return lab


def _from_lab(lab: NDArray[np.float32]) -> Rgb:
    """Pixels (..., 3) of CIE LAB; colours that no screen can show are cut to the nearest channel values."""
    light = np.clip(lab[..., :1], 0, 100)
    # A blue beyond what exists would have a negative Z, of which scikit-image warns before it cuts it.
    yellow = np.minimum(lab[..., 2:], 199.9 * (light + 16) / 116)
    return eight_bits(255 * skimage.color.lab2rgb(np.concatenate([light, lab[..., 1:2], yellow], axis=-1)))


def eight_bits(values: NDArray[np.floating]) -> Rgb:
    """Values in [0, 255] rounded to uint8; what lies beyond is cut."""
    rounded: Rgb = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return rounded


def _three(values: NDArray[np.floating]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
