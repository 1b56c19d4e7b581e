"""Random augmentation of training tiles: flips, crops, brightness, stain. Functions of pixels and random numbers."""

import numpy as np
import torch
from torch import Tensor

from he2her2.models import YUV_FROM_RGB, Colour
from he2her2.models.torch_engine import haematoxylin_dab_on_device, prepare_on_device, yuv_uint8_on_device
from he2her2.training.settings import Augmentation

# Ruifrok and Johnston (2001): optical density in R, G, B of haematoxylin, eosin and DAB; as skimage.color.rgb_from_hed.
_RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_HED_FROM_RGB = np.linalg.inv(_RGB_FROM_HED)
_DARKEST = 1 / 255
_TURN, _CROP_X, _CROP_Y, _BRIGHTNESS, _CONTRAST = range(5)
_STAIN = slice(5, 8)


def augmented_channels(
    pixels: Tensor, uniform: Tensor, settings: Augmentation, colour: Colour, crop_px: int | None = None
) -> Tensor:
    """Input of a network from tiles, each augmented by its own random numbers.

    Args:
        pixels: (n, s, s, 3) uint8.
        uniform: (n, 8) random numbers in [0, 1), of `sampling.Draw`.
        settings: Kinds and strengths of augmentation.
        colour: The network's channels.
        crop_px: Side of a random crop; none for the whole tile.

    Returns:
        (n, c, crop_px, crop_px) float32.
    """
    pixels = pixels if crop_px is None else _crops(pixels, uniform, crop_px)
    pixels = _turned(pixels, uniform) if settings.dihedral else pixels
    if not (settings.brightness or settings.contrast or settings.stain):
        return prepare_on_device(pixels, colour)
    rgb = pixels.float() / 255  # (n, h, w, 3)
    if settings.stain:
        rgb = _restained(rgb, _signed(uniform[:, _STAIN]) * settings.stain)
    channels = _channels(rgb, colour)  # (n, c, h, w)
    shift = _signed(uniform[:, _BRIGHTNESS]) * settings.brightness
    scale = 1 + _signed(uniform[:, _CONTRAST]) * settings.contrast
    return _relit(channels, shift, scale)


def _crops(pixels: Tensor, uniform: Tensor, side: int) -> Tensor:
    """A random square of each tile: (n, h, w, 3) to (n, side, side, 3)."""
    n, height, width = pixels.shape[:3]
    if side > min(height, width):
        raise ValueError(f"crops of {side} px do not fit into tiles of {width} x {height} px")
    steps = torch.arange(side, device=pixels.device)
    x = (uniform[:, _CROP_X] * (width - side + 1)).long()[:, None] + steps  # (n, side)
    y = (uniform[:, _CROP_Y] * (height - side + 1)).long()[:, None] + steps  # (n, side)
    rows = torch.arange(n, device=pixels.device)[:, None, None]
    return pixels[rows, y[:, :, None], x[:, None, :]]


def _turned(pixels: Tensor, uniform: Tensor) -> Tensor:
    """Turn each square tile to one of its eight flips and quarter turns: (n, s, s, 3)."""
    which = (uniform[:, _TURN] * 8).long()  # (n,)
    out = torch.empty_like(pixels)
    for turn in range(8):
        chosen = which == turn
        tiles = pixels[chosen].rot90(turn % 4, (1, 2))
        out[chosen] = tiles.flip(2) if turn >= 4 else tiles
    return out


def _restained(rgb: Tensor, change: Tensor) -> Tensor:
    """Scale each stain's concentration by 1 + change (Tellez et al., 2018).

    Args:
        rgb: (n, h, w, 3) in [0, 1].
        change: (n, 3) of haematoxylin, eosin and DAB.

    Returns:
        (n, h, w, 3) in [0, 1].
    """
    to_hed = torch.as_tensor(_HED_FROM_RGB, dtype=rgb.dtype, device=rgb.device)
    to_rgb = torch.as_tensor(_RGB_FROM_HED, dtype=rgb.dtype, device=rgb.device)
    change_rgb = to_hed @ (change[:, :, None] * to_rgb)  # (n, 3, 3): times density: the density to add
    density = -rgb.clamp_min(_DARKEST).log()  # (n, h, w, 3)
    added = (density.flatten(1, 2) @ change_rgb).view_as(density)
    return (-(density + added)).exp().clamp(0, 1)


def _relit(channels: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale each tile's contrast about its mean and shift its brightness: (n, c, h, w) by (n,) and (n,)."""
    mean = channels.mean(dim=(2, 3), keepdim=True)  # (n, c, 1, 1)
    shift, scale = shift.view(-1, 1, 1, 1), scale.view(-1, 1, 1, 1)
    return (channels - mean) * scale + mean + shift


def _signed(uniform: Tensor) -> Tensor:
    """Map uniform in [0, 1) to uniform in [-1, 1)."""
    return 2 * uniform - 1


def _channels(rgb: Tensor, colour: Colour) -> Tensor:
    """Do what `prepare_on_device` does, for floats: (n, h, w, 3) in [0, 1] to (n, c, h, w)."""
    if colour == "rgb":
        return rgb.permute(0, 3, 1, 2)
    if colour == "yuv":
        return (rgb @ torch.from_numpy(YUV_FROM_RGB.T).to(rgb)).permute(0, 3, 1, 2)
    if colour == "haematoxylin-dab":
        return haematoxylin_dab_on_device(rgb * 255)
    if colour == "yuv-uint8":
        return (yuv_uint8_on_device(rgb * 255) / 255).permute(0, 3, 1, 2)
    light = ((rgb.amax(dim=3) + rgb.amin(dim=3)) / 2).unsqueeze(1)
    return (light * 255).round() / 255 if colour == "lightness-uint8" else light
