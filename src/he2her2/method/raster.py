"""The raster of a slide's masks and maps: so coarse that a tile is a whole number of its pixels."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.config import Tiling
from he2her2.errors import ConfigError, MppError
from he2her2.geometry import Mask, Rgb, Size
from he2her2.models import InputSpec
from he2her2.slides import Slide

_MAX_ENLARGEMENT = 4.0


def tile_side_mask(spec: InputSpec, tiling: Tiling) -> int:
    """Side of a tile in mask px.

    Raises:
        ConfigError: It is not a whole number.
    """
    side_px, downsample = spec.side_px, tiling.mask_downsample
    if side_px % downsample:
        raise ConfigError(f"tiling.mask_downsample: {downsample} does not divide a tile's {side_px} px; use 32")
    return side_px // downsample


def native_mpp(slide: Slide, spec: InputSpec, tiling: Tiling) -> float:
    """µm per pixel at which a network sees this slide: its own, or the slide's where that is close or asked for.

    Raises:
        MppError: The slide is so coarse that there is nothing to see.
    """
    if tiling.raw_pixels:
        return slide.mpp
    if slide.mpp > _MAX_ENLARGEMENT * spec.mpp:
        found = f"its {slide.mpp:g} µm/px are too coarse for a network made for {spec.mpp:g}"
        raise MppError(slide.slide_id, found, "scan it at 20x or finer, or correct --mpp")
    return slide.effective_mpp(spec.mpp)


def thumbnail_on_raster(slide: Slide, px_l0: float, size: Size) -> Rgb:
    """(h, w, 3) picture of the slide with pixels of exactly `px_l0` level-0 px, whatever levels there are.

    Args:
        slide: An open slide.
        px_l0: Level-0 px per pixel of the picture.
        size: Width and height of the picture; white beyond the slide.
    """
    px_mpp = px_l0 * slide.mpp
    thumbnail = slide.thumbnail(px_mpp)
    step = px_mpp / slide.effective_mpp(px_mpp)  # thumbnail px per picture px
    if step == 1.0 and thumbnail.shape[:2] == (size.h, size.w):
        return thumbnail
    sheet = Image.new("RGB", (math.ceil(size.w * step), math.ceil(size.h * step)), "white")
    sheet.paste(Image.fromarray(thumbnail))
    window = (0.0, 0.0, size.w * step, size.h * step)
    return np.array(sheet.resize(size, Image.Resampling.BILINEAR, box=window))


def blocks_with(mask: Mask, side: int) -> NDArray[np.int64]:
    """(n, 2) corners (x, y) of the blocks of `side` px that hold any of the mask, in raster order."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % side), (0, -width % side)))
    any_in_block = padded.reshape(len(padded) // side, side, -1, side).any(axis=(1, 3))
    rows, columns = np.nonzero(any_in_block)
    return np.stack([columns, rows], axis=1) * side
