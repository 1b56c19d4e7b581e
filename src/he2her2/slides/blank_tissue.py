"""Pixels without a picture (absent, or filled by a converter) where a coarser level of the slide shows tissue.

Masks are found on coarse levels, tiles are read from fine ones: tissue that is missing from the fine level alone would
be scored as glass. A reader may know which tiles of a file are absent (`absent_tiles`, `gaps`); here pixels are
compared, so that it holds for every format. Glass, lumina and fat are bright on both levels.
"""

import math
from functools import cache, partial

import numpy as np
import scipy
from numpy.typing import NDArray

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
        self._slide, least = slide, min(size)
        self._of_picture = cache(lambda whole: BlankTissue(slide, whole, mpp))
        cell_least = min(_CELL_PX, least // 8) * mpp
        coarser = (slide.mpp * level.downsample for level in slide.levels[1:])
        fits = (own for own in coarser if own >= _COARSER * mpp and least * mpp >= _LEAST_CELLS * max(own, cell_least))
        self._level_mpp = min(fits, key=lambda own: abs(math.log(own / _SHOWING_MPP)), default=None)
        if self._level_mpp is not None:
            side = round(max(self._level_mpp, cell_least) / mpp)
            self._positions = cache(partial(_positions, size, side))
            per_px = side * mpp / self._level_mpp
            x, y = (((np.arange(n // side) + 0.5) * per_px).astype(np.int64) for n in size)
            self._middles, self._shown = np.ix_(y, x), Size(int(x[-1]) + 1, int(y[-1]) + 1)

    def hidden(self, pixels: Rgb, origins_l0: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell the regions that hide tissue: (n,).

        Args:
            pixels: (n, h, w, 3) regions as they were read.
            origins_l0: (n, 2) their top-left corners (x, y).
        """
        n, h, w = pixels.shape[:3]
        return self._hidden(pixels.reshape(-1), 3 * h * w * np.arange(n), w, origins_l0)

    def hidden_parts(
        self, picture: Rgb, origin_l0: NDArray[np.int64], corners_px: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell the regions that hide tissue of those that lie in one picture of level-0 px: (m,).

        Args:
            picture: (h, w, 3).
            origin_l0: (2,) its top-left corner (x, y).
            corners_px: (m, 2) the same of each region, in the picture.
        """
        height, width = picture.shape[:2]
        n_lost = self._of_picture(Size(width, height)).n_unlike(picture, origin_l0)
        if self._level_mpp is None or n_lost < _LOST_SHARE / 2 * self._middles[0].size * self._middles[1].size:
            return np.zeros(len(corners_px), bool)
        starts = 3 * (corners_px[:, 1] * width + corners_px[:, 0])
        return self._hidden(picture.reshape(-1), starts, width, origin_l0 + corners_px)

    def n_unlike(self, pixels: Rgb, origin_l0: NDArray[np.int64]) -> float:
        """Number of cells of a region (h, w, 3) that are flat and unlike the coarser level, as those that hide tissue.

        Half of those that a part of the region needs are left if its cells do not begin where these do.
        """
        if self._level_mpp is None:
            return math.inf
        _, many = self._positions(pixels.shape[1])
        cells = pixels.reshape(-1).take(many)  # (16, h, w, 3)
        flat = _are_flat(cells)
        if not flat.any():
            return 0
        shown = self._seen(origin_l0)
        return math.inf if shown is None else (flat & (_difference(shown, cells[0]) >= _UNLIKE - _FLAT)).sum()

    def _hidden(
        self, values: NDArray[np.uint8], starts: NDArray[np.int64], width: int, origins_l0: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell the regions that hide tissue: (n,), by values among which those at (n,) are their first.

        Args:
            values: R, G and B of pixels, row by row.
            starts: (n,) positions.
            width: Pixels from a row to the next.
            origins_l0: (n, 2).
        """
        hidden = np.zeros(len(starts), bool)
        if self._level_mpp is None:
            return hidden
        few, many = self._positions(width)
        index = np.flatnonzero(_are_flat_somewhere(values.take(starts[:, None, None] + few)))
        if not len(index):
            return hidden
        cells = np.stack([values.take(starts[k] + many) for k in index])  # (k, 16, h, w, 3)
        blank = scipy.ndimage.binary_erosion(_are_flat(cells), _AROUND[None], border_value=1)
        for k in np.flatnonzero(blank.mean(axis=(1, 2)) >= _LOST_SHARE):
            shown = self._seen(origins_l0[index[k]])
            hidden[index[k]] = shown is not None and _shows_tissue(shown, blank[k], cells[k, 0])
        return hidden

    def _seen(self, origin_l0: NDArray[np.int64]) -> Rgb | None:
        """(h, w, 3) middles of a region's cells on the coarser level; None where it cannot be read."""
        assert self._level_mpp is not None
        x, y = origin_l0.tolist()
        try:
            return self._slide.read(Point(x, y), self._shown, self._level_mpp)[self._middles]
        except UnreadableRegionError:
            return None


def _shows_tissue(shown: Rgb, blank: Mask, pixels: Rgb) -> bool:
    """Check if the coarser level (h, w, 3) has tissue where cells of these pixels (h, w, 3) are blank."""
    unlike = _difference(shown, pixels) >= _UNLIKE
    if (blank & unlike).mean() < _LOST_SHARE:  # glass on both
        return False
    return bool((blank & _tissue(shown, unlike)).mean() >= _LOST_SHARE)


def _difference(one: Rgb, other: Rgb) -> NDArray[np.float64]:
    """(h, w) difference of the means of the channels."""
    return np.asarray(np.abs(one.mean(axis=2) - other.mean(axis=2)))


def _positions(size: Size, side: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of a region's values that are looked at, from its first: of a few px, and in each whole cell.

    Args:
        size: Of the region in px.
        side: Of a cell.
        width: Pixels from a row to the next.

    Returns:
        (3 h, 3 w) of one channel, about half a cell apart; (n, h, w, 3) of n px of each cell, at most 16.
    """
    x, y = (np.linspace(0, n - 1, 3 * math.ceil(n / (1.5 * side))).astype(np.int64) for n in size)
    few = 3 * (y[:, None] * width + x) + 1
    offsets = range(side // (2 * _SAMPLES), side, -(-side // _SAMPLES))
    x, y = (np.arange(n // side) * side for n in size)
    inside = np.array([dy * width + dx for dy in offsets for dx in offsets])
    return few, 3 * (inside[:, None, None, None] + (y[:, None] * width + x)[..., None]) + np.arange(3)


def _are_flat(cells: Rgb) -> Mask:
    """(..., h, w) cells whose px (..., n, h, w, 3) are of one colour."""
    return np.asarray((cells.max(axis=-4) - cells.min(axis=-4) <= _FLAT).all(axis=-1))


def _are_flat_somewhere(few: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """False where no three cells side by side, or two at the border, are flat: (n,), by (n, 3 h, 3 w) values."""
    rows = few[:, 0::3], few[:, 1::3], few[:, 2::3]
    most, least = (of(of(rows[0], rows[1]), rows[2]) for of in (np.maximum, np.minimum))
    most = np.maximum(np.maximum(most[:, :, 0::3], most[:, :, 1::3]), most[:, :, 2::3])
    least = np.minimum(np.minimum(least[:, :, 0::3], least[:, :, 1::3]), least[:, :, 2::3])
    return np.asarray((most - least <= _FLAT).any(axis=(1, 2)))


def _tissue(shown: Rgb, unlike: Mask) -> Mask:
    """(h, w) where a coarse level shows colour or texture, unlike what is blank there and all around."""
    grey = shown.mean(axis=2)
    contrast = scipy.ndimage.maximum_filter(grey, 3) - scipy.ndimage.minimum_filter(grey, 3)
    around = scipy.ndimage.uniform_filter(np.float64(unlike), 3)
    coloured_or_textured = stained(shown) | (contrast >= _TEXTURE)  # IHC averages to grey
    return np.asarray(unlike & (around > _MOST) & coloured_or_textured)
