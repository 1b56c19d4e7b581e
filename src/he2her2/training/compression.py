"""Losses of JPEG: what it does to the pixels of its blocks, without the bytes. Functions of tensors, on any device."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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


def as_jpeg(rgb: Tensor, quality: Tensor) -> Tensor:
    """Pixels as a JPEG of a quality gives them back, colour at half the resolution (4:2:0).

    Args:
        rgb: (n, h, w, 3) in [0, 1].
        quality: (n,) from 1 to 100, in libjpeg's scale.

    Returns:
        (n, h, w, 3) in [0, 1].
    """
    height, width = rgb.shape[1:3]
    to_ycc = torch.as_tensor(_YCC_FROM_RGB.T, dtype=rgb.dtype, device=rgb.device)
    planes = (rgb * 255 @ to_ycc).permute(0, 3, 1, 2)
    planes = functional.pad(planes, (0, -width % _MACROBLOCK, 0, -height % _MACROBLOCK), mode="replicate")
    light = _quantised(planes[:, :1] - _MIDDLE, _LIGHT, quality) + _MIDDLE
    colour = _quantised(functional.avg_pool2d(planes[:, 1:], 2), _COLOUR, quality)
    colour = functional.interpolate(colour, scale_factor=2, mode="bilinear")
    ycc = torch.cat([light, colour], dim=1)[:, :, :height, :width].permute(0, 2, 3, 1)
    found: Tensor = ycc @ torch.linalg.inv(to_ycc) / 255
    return found.clamp(0, 1)


def _quantised(planes: Tensor, table: np.ndarray, quality: Tensor) -> Tensor:
    """(n, c, h, w) with the cosines of each block rounded to multiples of a table that the (n,) quality scales."""
    n, c, height, width = planes.shape
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)  # libjpeg's
    steps = torch.as_tensor(table, dtype=planes.dtype, device=planes.device)
    steps = ((steps * scale[:, None, None] + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    dct = _cosines(planes)
    blocks = planes.reshape(n, c, height // _SIDE, _SIDE, width // _SIDE, _SIDE).transpose(3, 4)
    rounded = (dct @ blocks @ dct.T / steps).round() * steps
    return (dct.T @ rounded @ dct).transpose(3, 4).reshape(n, c, height, width)


def _cosines(like: Tensor) -> Tensor:
    """Orthonormal cosine transform (DCT-II) of a block's side."""
    k = np.arange(_SIDE)
    dct = np.cos(np.pi / _SIDE * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / _SIDE)
    dct[0] /= math.sqrt(2)
    return torch.as_tensor(dct, dtype=like.dtype, device=like.device)
