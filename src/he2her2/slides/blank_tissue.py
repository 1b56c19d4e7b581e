"""Pixels without a picture (absent, or filled by a converter) where a coarser level of the slide shows tissue.

Masks are found on coarse levels, tiles are read from fine ones: tissue that is missing from the fine level alone would
be scored as glass. A reader may know which tiles of a file are absent (`absent_tiles`, `gaps`); here pixels are
compared, so that it holds for every format. Glass, lumina and fat are bright on both levels.
"""

import math

import numpy as np
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


class BlankTissue:
    """Finds regions of one size that are blank (in part, of one colour) where a coarser level shows tissue.

    Regions without a blank part are not compared, and cost next to nothing; it may be asked from several threads.
    """

    def __init__(self, slide: Slide, size: Size, mpp: float) -> None:
        """Choose the level to compare with.

        Args:
            slide: The slide.
            size: Width and height of the regions in px.
            mpp: Their µm per pixel.
        """
        self._slide, self._mpp, least = slide, mpp, min(size)
        cell_least = min(_CELL_PX, least // 8) * mpp
        coarser = (slide.mpp * level.downsample for level in slide.levels[1:])
        fits = (own for own in coarser if own >= _COARSER * mpp and least * mpp >= _LEAST_CELLS * max(own, cell_least))
        self._level_mpp = min(fits, key=lambda own: abs(math.log(own / _SHOWING_MPP)), default=None)
        if self._level_mpp is not None:
            self._side = round(max(self._level_mpp, cell_least) / mpp)
            self._x, self._y = (
                np.linspace(0, n - 1, 3 * math.ceil(n / (1.5 * self._side))).astype(np.int64) for n in size
            )

    def hides(self, pixels: Rgb, origin_l0: Point) -> bool:
        """Check if a region hides tissue.

        Args:
            pixels: (h, w, 3) the region as it was read.
            origin_l0: Its top-left corner (x, y).
        """
        if self._level_mpp is None or not self._is_flat_somewhere(pixels):
            return False
        cells = _samples(pixels, self._side)
        flat = (cells.max(axis=0) - cells.min(axis=0) <= _FLAT).all(axis=2)
        blank = ndimage.binary_erosion(flat, _AROUND, border_value=1)
        if blank.mean() < _LOST_SHARE:
            return False
        per_px = self._side * self._mpp / self._level_mpp
        y, x = (((np.arange(n) + 0.5) * per_px).astype(np.int64) for n in flat.shape)
        size = Size(int(x[-1]) + 1, int(y[-1]) + 1)
        try:
            shown = self._slide.read(origin_l0, size, self._level_mpp)[np.ix_(y, x)]
        except UnreadableRegionError:
            return False
        unlike = np.abs(shown.mean(axis=2) - cells[0].mean(axis=2)) >= _UNLIKE
        if (blank & unlike).mean() < _LOST_SHARE:  # glass on both
            return False
        return bool((blank & _tissue(shown, unlike)).mean() >= _LOST_SHARE)

    def _is_flat_somewhere(self, pixels: Rgb) -> bool:
        """False where no three cells side by side, or two at the border, are flat: a few px of one channel tell."""
        few = pixels[self._y[:, None], self._x, 1]
        rows = few[0::3], few[1::3], few[2::3]
        most, least = (of(of(rows[0], rows[1]), rows[2]) for of in (np.maximum, np.minimum))
        most = np.maximum(np.maximum(most[:, 0::3], most[:, 1::3]), most[:, 2::3])
        least = np.minimum(np.minimum(least[:, 0::3], least[:, 1::3]), least[:, 2::3])
        return bool((most - least <= _FLAT).any())


def _tissue(shown: Rgb, unlike: Mask) -> Mask:
    """(h, w) where a coarse level shows colour or texture, unlike what is blank there and all around."""
    grey = shown.mean(axis=2)
    textured = ndimage.maximum_filter(grey, 3) - ndimage.minimum_filter(grey, 3) >= _TEXTURE  # IHC averages to grey
    return np.asarray(unlike & (ndimage.uniform_filter(np.float64(unlike), 3) > _MOST) & (stained(shown) | textured))


def _samples(pixels: Rgb, side: int) -> Rgb:
    """(n, h, w, 3) pixels, at most 16, spread over each whole cell of a region."""
    h, w = (n // side * side for n in pixels.shape[:2])
    offsets = range(side // (2 * _SAMPLES), side, -(-side // _SAMPLES))
    return np.stack([pixels[y:h:side, x:w:side] for y in offsets for x in offsets])
