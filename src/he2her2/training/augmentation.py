"""Random augmentation of training tiles: turns, crops, colour, sharpness, compression; by pixels and random numbers."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from he2her2.models import RGB_FROM_HED, YUV_FROM_RGB, Colour
from he2her2.models.torch_engine import haematoxylin_dab_on_device, prepare_on_device, yuv_uint8_on_device
from he2her2.training.compression import as_jpeg
from he2her2.training.constants import constants
from he2her2.training.settings import Augmentation

_HED_FROM_RGB = np.linalg.inv(RGB_FROM_HED)
_DARKEST = 1 / 255
_LEAST_DENSITY = 0.01  # of a stain in any channel: no stain makes a slide brighter
_UNCHANGED = Augmentation()
_TURN, _CROP_X, _CROP_Y, _BRIGHTNESS, _CONTRAST = range(5)
_STAIN = slice(5, 8)
_ZOOM, _BLURRED, _BLUR, _GREY = range(8, 12)
_VECTORS, _LAB_MEAN, _LAB_SPREAD = slice(12, 21), slice(21, 24), slice(24, 27)
_COMPRESSED, _QUALITY, _COARSE = range(27, 30)
_QUALITIES = (20.0, 95.0)
_LAB_SHIFT = (12.0, 9.0, 9.0)
_LAB_SCALE = 0.25
_BLUR_REACH = 3  # standard deviations

# sRGB (IEC 61966-2-1) to CIE XYZ, and the white of D65: as skimage.color.
_XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_constant = constants(
    {
        "hed from rgb": _HED_FROM_RGB,
        "rgb from hed": RGB_FROM_HED,
        "xyz from rgb": _XYZ_FROM_RGB.T / _WHITE,
        "rgb from xyz": np.linalg.inv(_XYZ_FROM_RGB).T * _WHITE[:, None],
        "lab shift": np.array(_LAB_SHIFT),
    }
)


def augmented_channels(
    pixels: Tensor, uniform: Tensor, settings: Augmentation, colour: Colour, crop_px: int | None = None
) -> Tensor:
    """Input of a network from tiles, each augmented by its own random numbers, in single precision whatever trains.

    Args:
        pixels: (n, s, s, 3) uint8.
        uniform: (n, 30) random numbers in [0, 1), of `sampling.Draw`.
        settings: Kinds and strengths of augmentation.
        colour: The network's channels.
        crop_px: Side of a random crop; none for the whole tile.

    Returns:
        (n, c, crop_px, crop_px) float32.
    """
    pixels = pixels if crop_px is None else _crops(pixels, uniform, crop_px)
    pixels = _turned(pixels, uniform) if settings.dihedral else pixels
    if settings == replace(_UNCHANGED, dihedral=settings.dihedral):
        return prepare_on_device(pixels, colour)
    with torch.autocast(pixels.device.type, enabled=False):
        return _augmented(pixels.float() / 255, uniform, settings, colour)


def _augmented(rgb: Tensor, uniform: Tensor, settings: Augmentation, colour: Colour) -> Tensor:
    """Channels of (n, h, w, 3) pixels in [0, 1] with sharpness, colour and compression changed: (n, c, h, w)."""
    if settings.zoom:
        rgb = _zoomed(rgb, (_signed(uniform[:, _ZOOM]) * settings.zoom).exp())
    if settings.stain or settings.stain_vectors:
        turn = _signed(uniform[:, _VECTORS]).view(-1, 3, 3) * settings.stain_vectors if settings.stain_vectors else None
        rgb = _restained(rgb, _signed(uniform[:, _STAIN]) * settings.stain, turn)
    if settings.lab:
        shift = _signed(uniform[:, _LAB_MEAN]) * _constant("lab shift", rgb) * settings.lab
        rgb = _recoloured(rgb, shift, (_signed(uniform[:, _LAB_SPREAD]) * _LAB_SCALE * settings.lab).exp())
    if settings.grey:
        grey = uniform[:, _GREY, None, None, None] < settings.grey
        rgb = torch.where(grey, rgb.mean(dim=3, keepdim=True).expand_as(rgb), rgb)
    if settings.blur:
        rgb = _blurred(rgb, uniform[:, _BLUR] * settings.blur * (uniform[:, _BLURRED] < 1 / 2), settings.blur)
    if settings.jpeg:
        rgb = _compressed(rgb, uniform, settings.jpeg)
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
    n, side = pixels.shape[:2]
    which = (uniform[:, _TURN] * 8).long()[:, None, None]  # (n, 1, 1)
    quarters = which % 4
    y, x = torch.meshgrid(*[torch.arange(side, device=pixels.device)] * 2, indexing="ij")  # of the result: (s, s)
    x = torch.where(which >= 4, side - 1 - x, x)  # (n, s, s)
    sideways = quarters % 2 == 1
    row, column = torch.where(sideways, x, y), torch.where(sideways, y, x)
    row = torch.where(quarters >= 2, side - 1 - row, row)
    column = torch.where((quarters == 1) | (quarters == 2), side - 1 - column, column)
    return pixels[torch.arange(n, device=pixels.device)[:, None, None], row, column]


def _zoomed(rgb: Tensor, factor: Tensor) -> Tensor:
    """Enlarge (below 1) or reduce (above 1) (n, h, w, 3) tiles by (n,) factors, mirrored at their borders."""
    n, height, width = rgb.shape[:3]
    theta = rgb.new_zeros((n, 2, 3))
    theta[:, 0, 0] = theta[:, 1, 1] = factor
    grid = functional.affine_grid(theta, [n, 3, height, width], align_corners=False)
    channels = rgb.permute(0, 3, 1, 2)
    zoomed = functional.grid_sample(channels, grid, padding_mode="reflection", align_corners=False)
    return zoomed.permute(0, 2, 3, 1)


def _blurred(rgb: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Blur each tile by a Gaussian of its own standard deviation in px: (n, h, w, 3) by (n,); 0 changes nothing."""
    n, height, width = rgb.shape[:3]
    reach = max(1, min(round(_BLUR_REACH * largest), height - 1, width - 1))
    steps = torch.arange(-reach, reach + 1, device=rgb.device)
    kernel = (-0.5 * (steps / sigma.clamp_min(1e-3)[:, None]) ** 2).exp()
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)  # (3 n, k)
    planes = functional.pad(rgb.permute(0, 3, 1, 2), (reach,) * 4, mode="reflect")
    planes = planes.reshape(1, 3 * n, height + 2 * reach, width + 2 * reach)
    planes = functional.conv2d(planes, kernel[:, None, None, :], groups=3 * n)
    planes = functional.conv2d(planes, kernel[:, None, :, None], groups=3 * n)
    return planes.view(n, 3, height, width).permute(0, 2, 3, 1)


def _compressed(rgb: Tensor, uniform: Tensor, share: float) -> Tensor:
    """Compress a share of (n, h, w, 3) tiles as JPEG, half of them at half the resolution, as of a coarser picture."""
    low, high = _QUALITIES
    quality = low + uniform[:, _QUALITY] * (high - low)
    coarse = functional.interpolate(rgb.permute(0, 3, 1, 2), scale_factor=0.5, mode="area").permute(0, 2, 3, 1)
    coarse = as_jpeg(coarse, quality).permute(0, 3, 1, 2)
    coarse = functional.interpolate(coarse, size=rgb.shape[1:3], mode="bilinear").permute(0, 2, 3, 1)
    is_coarse = uniform[:, _COARSE, None, None, None] < 1 / 2
    found = torch.where(is_coarse, coarse, as_jpeg(rgb, quality))
    return torch.where(uniform[:, _COMPRESSED, None, None, None] < share, found, rgb)


def _recoloured(rgb: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Move each tile's mean in LAB and scale its spread: (n, h, w, 3) by (n, 3) and (n, 3)."""
    lab = _lab_of(rgb)
    mean = lab.mean(dim=(1, 2), keepdim=True)
    return _rgb_of((lab - mean) * scale[:, None, None] + mean + shift[:, None, None])


def _lab_of(rgb: Tensor) -> Tensor:
    """CIE LAB of sRGB in [0, 1]: (..., 3)."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ _constant("xyz from rgb", rgb)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def _rgb_of(lab: Tensor) -> Tensor:
    """CIE LAB to sRGB in [0, 1], cut at its ends: (..., 3)."""
    light, red_green, blue_yellow = lab.unbind(dim=-1)
    y = (light + 16) / 116
    f = torch.stack([y + red_green / 500, y, y - blue_yellow / 200], dim=-1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    linear = (xyz @ _constant("rgb from xyz", lab)).clamp(0, 1)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)


def _restained(rgb: Tensor, change: Tensor, turn: Tensor | None = None) -> Tensor:
    """Scale each stain's concentration by 1 + change (Tellez et al., 2018), and change its colour.

    Args:
        rgb: (n, h, w, 3) in [0, 1].
        change: (n, 3) of haematoxylin, eosin and DAB.
        turn: (n, 3, 3) what is added to their unit vectors; none for nothing.

    Returns:
        (n, h, w, 3) in [0, 1].
    """
    to_hed, to_rgb = _constant("hed from rgb", rgb), _constant("rgb from hed", rgb)
    change_rgb = to_hed @ (change[:, :, None] * to_rgb)  # (n, 3, 3): times density: the density to add
    if turn is not None:
        length = to_rgb.norm(dim=1, keepdim=True)  # (3, 1)
        vectors = (to_rgb / length + turn).clamp_min(_LEAST_DENSITY)
        vectors = vectors / vectors.norm(dim=2, keepdim=True) * length
        change_rgb = to_hed @ ((1 + change[:, :, None]) * vectors - to_rgb)
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
