"""Losses of JPEG: what it does to the pixels of its blocks, without the bytes. Functions of tensors, on any device."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from he2her2.training.constants import constants

_SIDE = 8  # of a block, in px
_MACROBLOCK = 2 * _SIDE  # of luminance, for a block of halved colour
_MIDDLE = 128

# Quantisation of luminance and colour (ITU-T T.81, annex K).
_LIGHT = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_COLOUR = np.full((_SIDE, _SIDE), 99)
_COLOUR[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# Luminance and colour differences of RGB (JFIF).
_YCC_FROM_RGB = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

# Cosine transform (DCT-II) of a block's side, orthonormal.
_COSINES = np.cos(np.pi / _SIDE * (np.arange(_SIDE) + 0.5) * np.arange(_SIDE)[:, None]) * math.sqrt(2 / _SIDE)
_COSINES[0] /= math.sqrt(2)

_constant = constants(
    {
        "light": _LIGHT,
        "colour": _COLOUR,
        "ycc from rgb": _YCC_FROM_RGB.T,
        "rgb from ycc": np.linalg.inv(_YCC_FROM_RGB.T),
        "cosines": _COSINES,
    }
)


def as_jpeg(rgb: Tensor, quality: Tensor) -> Tensor:
    """Pixels as a JPEG of a quality gives them back, colour at half the resolution (4:2:0).

    Args:
        rgb: (n, h, w, 3) in [0, 1].
        quality: (n,) from 1 to 100, in libjpeg's scale.

    Returns:
        (n, h, w, 3) in [0, 1].
    """
    height, width = rgb.shape[1:3]
    planes = (rgb * 255 @ _constant("ycc from rgb", rgb)).permute(0, 3, 1, 2)
    planes = functional.pad(planes, (0, -width % _MACROBLOCK, 0, -height % _MACROBLOCK), mode="replicate")
    light = _quantised(planes[:, :1] - _MIDDLE, "light", quality) + _MIDDLE
    colour = _quantised(functional.avg_pool2d(planes[:, 1:], 2), "colour", quality)
    colour = functional.interpolate(colour, scale_factor=2, mode="bilinear")
    ycc = torch.cat([light, colour], dim=1)[:, :, :height, :width].permute(0, 2, 3, 1)
    found: Tensor = ycc @ _constant("rgb from ycc", rgb) / 255
    return found.clamp(0, 1)


def _quantised(planes: Tensor, table: str, quality: Tensor) -> Tensor:
    """(n, c, h, w) with the cosines of each block rounded to multiples of a table that the (n,) quality scales."""
    n, c, height, width = planes.shape
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)  # libjpeg's
    steps = (_constant(table, planes) * scale[:, None, None] + 50) / 100
    steps = steps.floor().clamp(1, 255)[:, None, None, None]
    dct = _constant("cosines", planes)
    blocks = planes.reshape(n, c, height // _SIDE, _SIDE, width // _SIDE, _SIDE).transpose(3, 4)
    rounded = (dct @ blocks @ dct.T / steps).round() * steps
    return (dct.T @ rounded @ dct).transpose(3, 4).reshape(n, c, height, width)
