"""Comparison of two images of one file at a few spots: is the one a reduction of the other, and a whole one?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Mask, Rgb, Size
from he2her2.slides.codecs import DecodeError
from he2her2.slides.levels import Rect, stained, whole_downsample

_SPOT_PX = 32
_CELLS = 8
_FAR = 25.0
_NEAR = 8.0
_LEAST_CORRELATION, _CLOSE_CORRELATION = 0.3, 0.9
_TEXTURE = 4.0
_COLOUR = 3.0  # grey levels by which one order of channels must agree better than another
_ORDERS = tuple(map(list, permutations(range(3))))[1:]
_ASPECT_TOLERANCE = 0.03
_STAINED_SHARE = 0.5
_LEAST_SHARE = 0.25
_UNLIKE_BLANK = 16.0  # mean grey levels between stained tissue and what is blank
N_CELLS = 4
"""Rows and columns of the cells, in each of which an image is looked at for parts that are blank."""


class Picture(Protocol):
    """An image whose regions can be read."""

    @property
    def size(self) -> Size:
        """Width and height in px."""

    def region(self, rect: Rect) -> Rgb:
        """(h, w, 3) pixels of a rectangle inside, or raise DecodeError or UnreadableRegionError."""

    def spots(self) -> Sequence[tuple[float, float]]:
        """Positions that hold much detail, as shares of width and height."""

    def cells(self) -> Sequence[tuple[float, float]]:
        """Positions all over the image, those of most detail in each part of it that may hold tissue."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of comparing two images.

    Attributes:
        n_compared: Spots that both can show.
        n_different: Of these, the spots that show different pictures.
        n_exchanged: Of these, the spots that show one picture with colour channels exchanged.
        n_blank: Parts of the coarse image that are blank where the fine one is stained.
    """

    n_compared: int
    n_different: int
    n_exchanged: int = 0
    n_blank: int = 0

    @property
    def shows_another(self) -> bool:
        """True if half of the spots differ."""
        return self.n_compared > 0 and 2 * self.n_different >= self.n_compared

    @property
    def same(self) -> bool:
        """True unless half of the spots differ, colour channels are exchanged, or tissue is missing."""
        return not (self.shows_another or self.n_exchanged or self.n_blank)


def is_reduction(size_l0: Size, size: Size) -> bool:
    """Check if a size is smaller, and of the same shape but for rounding."""
    across, down = size_l0.w / size.w, size_l0.h / size.h
    slack = 1 / size.w + 1 / size.h + _ASPECT_TOLERANCE
    return min(across, down) >= 1 and (across > 1 or down > 1) and abs(across / down - 1) <= slack


def compare(fine: Picture, coarse: Picture) -> Comparison:
    """Compare two images of one shape; one that shows another picture is not looked at for what it lacks."""
    downsample = whole_downsample(fine.size, coarse.size)
    compared = _compared_at_spots(fine, coarse, downsample)
    return replace(compared, n_blank=_n_blank(fine, coarse, downsample)) if compared.same else compared


def _n_blank(fine: Picture, coarse: Picture, downsample: float) -> int:
    """Number of parts in which the coarse image is blank (a pyramid whose writing was interrupted) where tissue is."""
    n = 0
    for x, y in fine.cells():
        theirs = _coarse_cells(coarse, x, y)
        if theirs is None or _stained(theirs).any():
            continue
        both = _cells_at(fine, coarse, downsample, x, y)
        if both is not None and _stained(both[0]).mean() >= _STAINED_SHARE:
            n += bool(np.abs(both[0] - both[1]).mean() >= _UNLIKE_BLANK)
    return n


def _compared_at_spots(fine: Picture, coarse: Picture, downsample: float) -> Comparison:
    """Compare two images where either holds most detail, and in the middle.

    One spot whose detail and colour agree closely is enough, so that a sound slide opens without delay.
    """
    n_compared = n_different = n_exchanged = 0
    agrees = False
    for x, y in _spots(fine, coarse):
        both = _cells_at(fine, coarse, downsample, x, y)
        cells = both and _without_missing(*both)
        if not cells:
            continue
        distance, correlation = _difference(*cells)
        close = correlation is not None and correlation >= _CLOSE_CORRELATION
        exchanged = _exchanged_distance(*cells)
        n_compared += 1
        if close and exchanged <= _NEAR and distance > 2 * exchanged + _COLOUR:
            n_exchanged += 1
            continue
        if close and distance <= _FAR:
            if exchanged > distance + _COLOUR:
                return Comparison(1, 0)
            agrees = True  # but in grey, in which nothing is seen of its colours
        low = correlation is not None and correlation < _LEAST_CORRELATION
        n_different += distance > _FAR or (distance > _NEAR and low)
    if agrees and not n_exchanged:
        return Comparison(1, 0)
    return Comparison(n_compared, n_different, n_exchanged)


def mismatch(comparison: Comparison | None) -> str:
    """Reason why an image is no level, in words.

    Args:
        comparison: With a finer level; None where it has another shape.
    """
    if comparison is None:
        return "has another shape than level 0"
    if comparison.n_blank:
        return "is blank in part where a finer level shows tissue"
    if comparison.n_exchanged:
        return "has colour channels exchanged against level 0, so that the colours of one of them are wrong"
    return "shows another picture than level 0"


def _spots(fine: Picture, coarse: Picture) -> Iterator[tuple[float, float]]:
    """Spots of the coarse image, which are found at less cost, then the others."""
    first = coarse.spots()
    yield from first
    yield from (spot for spot in dict.fromkeys((*fine.spots(), (0.5, 0.5))) if spot not in first)


def _cells_at(
    fine: Picture, coarse: Picture, downsample: float, x: float, y: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(8, 8, 3) averages of both at one spot; None where one of them cannot be read."""
    theirs = _coarse_cells(coarse, x, y)
    if theirs is None:
        return None
    left, top, w, h = _spot(coarse.size, x, y)
    x0, y0 = round(left * downsample), round(top * downsample)
    x1, y1 = round((left + w) * downsample), round((top + h) * downsample)
    try:
        return _cells(fine.region(Rect(x0, y0, x1 - x0, y1 - y0).clipped(fine.size))), theirs
    except (DecodeError, UnreadableRegionError):
        return None


def _coarse_cells(coarse: Picture, x: float, y: float) -> NDArray[np.float64] | None:
    """(8, 8, 3) averages of the coarse image at one spot; None where it cannot be read."""
    try:
        return _cells(coarse.region(_spot(coarse.size, x, y)))
    except (DecodeError, UnreadableRegionError):
        return None


def _spot(size: Size, x: float, y: float) -> Rect:
    """Rectangle of an image around a position, moved inside."""
    w, h = min(_SPOT_PX, size.w), min(_SPOT_PX, size.h)
    left = min(max(0, round(x * size.w) - w // 2), size.w - w)
    top = min(max(0, round(y * size.h) - h // 2), size.h - h)
    return Rect(left, top, w, h)


def _difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float | None]:
    """Mean absolute difference, and correlation of grey values; None where one is without texture."""
    grey, other = ours.mean(axis=-1), theirs.mean(axis=-1)
    distance = float(np.abs(ours - theirs).mean())
    if min(grey.std(), other.std()) < _TEXTURE:
        return distance, None
    return distance, float(np.corrcoef(grey.ravel(), other.ravel())[0, 1])


def _exchanged_distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Mean absolute difference once the channels of one are put into that other order in which they agree best."""
    return min(float(np.abs(ours - theirs[..., order]).mean()) for order in _ORDERS)


def _without_missing(
    ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(n, 3) averages but those stained on the coarse image alone; None where too few are left.

    The fine level may lack them (`blank_tissue`), and the coarse one be right.
    """
    there = _stained(ours) | ~_stained(theirs)
    return (ours[there], theirs[there]) if there.mean() >= _LEAST_SHARE else None


def _stained(cells: NDArray[np.float64]) -> Mask:
    return stained(cells.astype(np.uint8))


def _cells(pixels: Rgb) -> NDArray[np.float64]:
    """(8, 8, 3) averages."""
    small = Image.fromarray(pixels).resize((_CELLS, _CELLS), Image.Resampling.BOX)
    return np.asarray(small, np.float64)
