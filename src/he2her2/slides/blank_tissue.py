"""Pixels without a picture (absent, or filled by a converter) where a coarser level of the slide shows tissue.

Masks are found on coarse levels, tiles are read from fine ones: tissue that is missing from the fine level alone would
be scored as glass. A reader may know which tiles of a file are absent (`absent_tiles`, `gaps`); here pixels are
compared, so that it holds for every format. Glass, lumina and fat are bright on both levels.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Mask, Point, Rgb, Size
from he2her2.slides.levels import stained
from he2her2.slides.slide import Slide

_SHOWING_MPP = 4.0
"""µm/px of the level that shows tissue, where there are several: near that of masks, finer than the holes in tissue."""

_COARSER = 1.5
_CELL_PX = 16
_LEAST_CELLS = 5
_SAMPLES = 4  # px along a cell that are looked at
_FLAT = 4  # grey levels; what is scanned has more noise, or is glass
_UNLIKE = 20.0  # grey levels between tissue on one level and the blank on the other
_TEXTURE = 12.0
_MOST = 0.6  # of the 3 x 3 px around
_LOST_SHARE = 0.02
_AROUND = np.ones((3, 3))


def is_blank_in_tissue(slide: Slide, pixels: Rgb, origin_l0: Point, mpp: float) -> bool:
    """Check if a part of a region is blank (of one colour throughout) where a coarser level shows tissue.

    Regions without a blank part are not compared, and cost next to nothing.

    Args:
        slide: The slide.
        pixels: (h, w, 3) the region as it was read.
        origin_l0: Its top-left corner (x, y).
        mpp: Its µm per pixel.
    """
    h, w = pixels.shape[:2]
    cell_least = min(_CELL_PX, min(h, w) // 8) * mpp
    coarser = (slide.mpp * level.downsample for level in slide.levels[1:])
    showing = [
        own for own in coarser if own >= _COARSER * mpp and min(h, w) * mpp >= _LEAST_CELLS * max(own, cell_least)
    ]
    if not showing:
        return False
    level_mpp = min(showing, key=lambda own: abs(math.log(own / _SHOWING_MPP)))
    side = round(max(level_mpp, cell_least) / mpp)
    cells = _samples(pixels, side)
    flat = (cells.max(axis=0) - cells.min(axis=0) <= _FLAT).all(axis=2)
    blank = ndimage.binary_erosion(flat, _AROUND, border_value=1)
    if blank.mean() < _LOST_SHARE:
        return False
    y, x = (((np.arange(n) + 0.5) * side * mpp / level_mpp).astype(np.int64) for n in flat.shape)
    try:
        shown = slide.read(origin_l0, Size(int(x[-1]) + 1, int(y[-1]) + 1), level_mpp)[np.ix_(y, x)]
    except UnreadableRegionError:
        return False
    return bool((blank & _tissue(shown, cells[0].mean(axis=2))).mean() >= _LOST_SHARE)


def _tissue(shown: Rgb, blank: NDArray[np.float64]) -> Mask:
    """(h, w) where a coarse level shows colour or texture, unlike the brightness of what is blank, and all around."""
    grey = shown.mean(axis=2)
    textured = ndimage.maximum_filter(grey, 3) - ndimage.minimum_filter(grey, 3) >= _TEXTURE  # IHC averages to grey
    unlike = np.abs(grey - blank) >= _UNLIKE
    return np.asarray(unlike & (ndimage.uniform_filter(np.float64(unlike), 3) > _MOST) & (stained(shown) | textured))


def _samples(pixels: Rgb, side: int) -> Rgb:
    """(16, h, w, 3) pixels spread over each whole cell of a region."""
    h, w = (n // side * side for n in pixels.shape[:2])
    offsets = range(side // (2 * _SAMPLES), side, -(-side // _SAMPLES))
    return np.stack([pixels[y:h:side, x:w:side] for y in offsets for x in offsets])
