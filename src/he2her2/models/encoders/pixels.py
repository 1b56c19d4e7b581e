"""Input of a CNN: its pixel size, tile size and colour, and how tiles are brought into it."""

from typing import Annotated, Literal, TypeAlias

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.geometry import Rgb

Colour: TypeAlias = Literal["lightness", "lightness-uint8", "rgb", "yuv", "yuv-uint8", "haematoxylin-dab"]

# BT.601, rows Y, U, V; the same numbers as skimage.color.rgb2yuv.
YUV_FROM_RGB = np.array(
    [[0.299, 0.587, 0.114], [-0.14714119, -0.28886916, 0.43601035], [0.61497538, -0.51496512, -0.10001026]],
    np.float32,
)

YUV_UINT8_FROM_RGB = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.1]], np.float32)
"""The rounded numbers of the released code; there U and V have no offset, and what is negative becomes 0."""

RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density in R, G and B of haematoxylin, eosin and DAB (Ruifrok and Johnston, 2001), as scikit-image's."""

STAINS_FROM_DENSITY = np.linalg.inv(RGB_FROM_HED)[:, [0, 2]].astype(np.float32)
"""(3, 2) from the natural density of R, G and B to the amounts of haematoxylin and DAB."""

_DENSITY: NDArray[np.float32] = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)

_Side: TypeAlias = Annotated[int, Ge(1), Le(1 << 14)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class InputSpec:
    """Input of a network: pixel size, tile size, colour.

    Attributes:
        mpp: µm per pixel of the tile that is read from the slide.
        side_px: Side of that tile.
        network_px: Side after antialiased resizing; equal to `side_px` for none.
        colour: The channels, all as float32: `lightness` (max + min) / 2 in [0, 1]; `lightness-uint8` the same after
            rounding to 8 bits; `rgb` in [0, 1]; `yuv` by BT.601, Y in [0, 1], U and V around 0; `yuv-uint8` the same
            after rounding to 8 bits, before resizing (Lanczos) and without negative values; `haematoxylin-dab` the
            amounts of both dyes (`haematoxylin_dab`), which tells brown from blue as lightness cannot.
    """

    mpp: Annotated[float, Ge(0.05), Le(64)]
    side_px: _Side
    network_px: _Side
    colour: Colour

    @property
    def n_channels(self) -> int:
        """Channels that reach the network."""
        if self.colour == "haematoxylin-dab":
            return 2
        return 1 if self.colour.startswith("lightness") else 3


def lightness(rgb: Rgb) -> NDArray[np.float32]:
    """HSL lightness (max + min) / 2 of each pixel (paper, section 3.1.1).

    Args:
        rgb: (..., 3) uint8.

    Returns:
        (...) float32 in [0, 1].

    Example:
        >>> lightness(np.array([[255, 0, 0], [255, 255, 255]], np.uint8)).tolist()
        [0.5, 1.0]
    """
    total = np.add(*_extremes(rgb), dtype=np.uint16)
    light: NDArray[np.float32] = np.multiply(total, np.float32(1 / 510), dtype=np.float32)
    return light


def lightness_uint8(rgb: Rgb) -> NDArray[np.float32]:
    """HSL lightness in 8 bits over 255: the released code's input, which is OpenCV's lightness to the last bit.

    OpenCV computes in float32, where a pixel's maximum and minimum over 255 are rounded first, so that of two equal
    halves one goes up and the other down.

    Example:
        >>> (255 * lightness_uint8(np.array([[4, 1, 0], [13, 8, 0]], np.uint8))).round(3).tolist()
        [2.0, 7.0]
    """
    highest, lowest = _extremes(rgb)
    light: NDArray[np.float32] = _OPENCV_LIGHTNESS[highest, lowest]
    return light


def _opencv_lightness(highest: NDArray[np.float32], lowest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lightness as OpenCV computes it, in [0, 1], of the maximum and minimum of R, G and B in [0, 255]."""
    unit = np.float32(1 / 255)
    eight_bits = np.rint((highest * unit + lowest * unit) * np.float32(0.5) * np.float32(255))
    return np.asarray(eight_bits / np.float32(255), np.float32)


def yuv_uint8(rgb: Rgb) -> Rgb:
    """Y, U and V of (h, w, 3) pixels in 8 bits, by Pillow as in the released code: halves up, below 0 is 0.

    Example:
        >>> yuv_uint8(np.array([[[200, 100, 150]]], np.uint8)).tolist()
        [[[136, 7, 57]]]
    """
    matrix = np.pad(YUV_UINT8_FROM_RGB, ((0, 0), (0, 1)))  # no offsets
    return np.asarray(Image.fromarray(rgb).convert("RGB", tuple(map(float, matrix.ravel()))))


def haematoxylin_dab(rgb: Rgb) -> NDArray[np.float32]:
    """Amounts of haematoxylin and of DAB in each pixel, in units of density; black counts as 1 of 255.

    Args:
        rgb: (..., 3) uint8.

    Returns:
        (..., 2) float32; negative where a pixel has less than none of a dye's colour.

    Example:
        >>> brown, blue = [188, 130, 102], [154, 148, 204]
        >>> np.abs(haematoxylin_dab(np.array([brown, blue], np.uint8))).round(1).tolist()
        [[0.0, 1.2000000476837158], [0.800000011920929, 0.0]]
    """
    amounts: NDArray[np.float32] = _DENSITY[rgb] @ STAINS_FROM_DENSITY
    return amounts


def _extremes(rgb: Rgb) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The greatest and the least of the last axis, channel by channel: 50 times as fast as `max(axis=-1)`."""
    red, green, blue = (np.ascontiguousarray(rgb[..., channel]) for channel in range(3))
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def prepare_input(pixels: Rgb, spec: InputSpec) -> NDArray[np.float32]:
    """Resize tiles and convert their colour to a network's input.

    Args:
        pixels: (n, h, w, 3) uint8 tiles, h = w = `spec.side_px`.
        spec: The network's input.

    Returns:
        (n, c, s, s) float32, s = `spec.network_px`.

    Raises:
        ValueError: The tiles are not of the size that the network was made for.
    """
    small, colour = network_pixels(pixels, spec)
    network_input = np.empty((len(small), spec.n_channels, spec.network_px, spec.network_px), np.float32)
    for tile, out in zip(small, network_input, strict=True):  # one by one: a tile stays in the cache
        match colour:
            case "lightness":
                out[0] = lightness(tile)
            case "lightness-uint8":
                out[0] = lightness_uint8(tile)
            case "rgb":
                np.multiply(tile.transpose(2, 0, 1), np.float32(1 / 255), out=out)
            case "yuv":
                np.matmul(YUV_FROM_RGB / 255, tile.reshape(-1, 3).T.astype(np.float32), out=out.reshape(3, -1))
            case "haematoxylin-dab":
                out[...] = haematoxylin_dab(tile).transpose(2, 0, 1)
            case "yuv-uint8":  # `network_pixels` has converted it
                raise AssertionError(colour)
    return network_input


def network_pixels(pixels: Rgb, spec: InputSpec) -> tuple[Rgb, Colour]:
    """Tiles at the network's side, in 8 bits, and the conversion of colour that they still need.

    Raises:
        ValueError: The tiles are not of the size that the network was made for.
    """
    if spec.colour != "yuv-uint8":
        return resize(pixels, spec), spec.colour
    _require_size(pixels, spec)
    converted = np.stack([yuv_uint8(tile) for tile in pixels]) if len(pixels) else pixels
    return resize(converted, spec), "rgb"


def resize(pixels: Rgb, spec: InputSpec) -> Rgb:
    """Resize (n, h, w, 3) tiles to the network's side, antialiased, rounded to uint8: bilinear, Lanczos for yuv-uint8.

    Raises:
        ValueError: The tiles are not of the size that the network was made for.
    """
    _require_size(pixels, spec)
    if spec.network_px == spec.side_px:
        return pixels
    size = (spec.network_px, spec.network_px)
    method = Image.Resampling.LANCZOS if spec.colour == "yuv-uint8" else Image.Resampling.BILINEAR
    small = [np.asarray(Image.fromarray(tile).resize(size, method)) for tile in pixels]
    return np.stack(small) if small else np.empty((0, *size, 3), np.uint8)


def _require_size(pixels: Rgb, spec: InputSpec) -> None:
    tile = (spec.side_px, spec.side_px, 3)
    if pixels.shape[1:] != tile or pixels.dtype != np.uint8:
        raise ValueError(f"tiles must be (n, {', '.join(map(str, tile))}) uint8, got {pixels.shape} {pixels.dtype}")


_OPENCV_LIGHTNESS = _opencv_lightness(*np.meshgrid(*[np.arange(256, dtype=np.float32)] * 2, indexing="ij"))
"""(256, 256) by maximum and minimum."""
