"""Pyramid arithmetic: rectangles, whole downsamples, and how a region at a wanted mpp is sampled from one level."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.geometry import Mask, Point, Rgb, Size
from he2her2.slides.slide import Level
from he2her2.units import is_close_mpp


class Rect(NamedTuple):
    """A rectangle in px of one level: left, top, width, height."""

    x: int
    y: int
    w: int
    h: int

    def clipped(self, size: Size) -> "Rect":
        """The part inside (0, 0)-`size`; width or height 0 where there is none."""
        if self.x >= 0 and self.y >= 0 and self.x + self.w <= size.w and self.y + self.h <= size.h:
            return self
        x0, y0 = min(max(self.x, 0), size.w), min(max(self.y, 0), size.h)
        x1, y1 = min(max(self.x + self.w, 0), size.w), min(max(self.y + self.h, 0), size.h)
        return Rect(x0, y0, x1 - x0, y1 - y0)

    def overlaps(self, other: "Rect") -> bool:
        """True if the two share a px."""
        return (
            self.x < other.x + other.w
            and other.x < self.x + self.w
            and self.y < other.y + other.h
            and other.y < self.y + self.h
        )

    def cells(self, cell: Size) -> tuple[range, range]:
        """Columns and rows of the grid of `cell`s that the rectangle touches."""
        if not self.w or not self.h:
            return range(0), range(0)
        columns = range(self.x // cell.w, -(-(self.x + self.w) // cell.w))
        return columns, range(self.y // cell.h, -(-(self.y + self.h) // cell.h))


_Fetch: TypeAlias = Callable[[Rect], Rgb]
"""Pixels of a rectangle of one level, white beyond the border."""

WHITE = 255

_STAINED_FROM = 20
"""HSV saturation, of 255, from which averaged pixels are stained; glass stays under 12."""


def copy_overlap(source: Rgb, source_rect: Rect, out: Rgb, out_rect: Rect) -> None:
    """Copy what two rectangles share from the pixels of one to those of the other."""
    x0, y0 = max(source_rect.x, out_rect.x), max(source_rect.y, out_rect.y)
    x1 = min(source_rect.x + source_rect.w, out_rect.x + out_rect.w)
    y1 = min(source_rect.y + source_rect.h, out_rect.y + out_rect.h)
    out[y0 - out_rect.y : y1 - out_rect.y, x0 - out_rect.x : x1 - out_rect.x] = source[
        y0 - source_rect.y : y1 - source_rect.y, x0 - source_rect.x : x1 - source_rect.x
    ]


def stained(pixels: Rgb) -> Mask:
    """(h, w) where averaged pixels (h, w, 3) have the colour of a stain.

    Example:
        >>> stained(np.array([[[200, 100, 150], [240, 236, 240]]], np.uint8)).tolist()
        [[True, False]]
    """
    least, most = (channel.astype(np.int32) for channel in least_and_most(pixels))
    return np.asarray(255 * (most - least) > _STAINED_FROM * most)


def least_and_most(pixels: Rgb) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(h, w) smallest and greatest of R, G and B, in a twentieth of the time of `min` and `max` along the last axis."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def whole_downsample(size_l0: Size, size_lv: Size) -> float:
    """Level-0 px per px of a level: whole where the level's size is that of a whole reduction, however rounded.

    Example:
        >>> whole_downsample(Size(1001, 803), Size(250, 200)), whole_downsample(Size(100, 100), Size(40, 40))
        (4.0, 2.5)
    """
    ratio = (size_l0.w / size_lv.w + size_l0.h / size_lv.h) / 2
    n = max(1, round(ratio))
    fits = abs(size_l0.w / n - size_lv.w) < 1 and abs(size_l0.h / n - size_lv.h) < 1
    return float(n) if fits else ratio


_BITS = 12
_MAX_BITS = 18
_FLOAT32_BITS = 24
_BLOCK_BOXES = 3072
_SOURCE_PX = 1 << 24
_LANCZOS_SUPPORT = 3


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling of a level at a wanted mpp; the same for every region, so that neighbours are seamless.

    Native pixels are copied, from the level position nearest to the origin. Otherwise the level is resampled once by
    Pillow's antialiased Lanczos filter: it keeps the sharpness of nuclear texture, which networks trained on native
    pixels expect, where a triangle filter takes a fifth of the contrast at half the Nyquist frequency. Reductions
    of 8 and more first average whole boxes, on a grid that starts at the slide's corner.

    Pillow takes positions as 32-bit floats. `step` and origins are therefore rounded to a grid on which these are
    exact (13 significant bits, so `scale` is within 0.02 % of what was asked), and any region is computed from
    the same weights: cutting it out of the whole resampled slide gives the same bits.

    Attributes:
        level: Index of the level that is read.
        downsample: Level-0 px per px of that level.
        box: Side in level px of the boxes that are averaged first; 1 is none.
        step: Boxes per output px; exactly 1 when native.
        bits: Positions, in boxes, are multiples of 2 ** -bits.
        native: True where level px are delivered unchanged.
    """

    level: int
    downsample: float
    box: int
    step: float
    bits: int
    native: bool

    @property
    def scale(self) -> float:
        """Level-0 px per output px."""
        return self.downsample * self.box * self.step

    def rect(self, origin_l0: Point, size_px: Size) -> Rect:
        """Largest rectangle of the level that `read` fetches."""
        if self.native:
            x_lv, y_lv = (_nearest(v / self.downsample) for v in origin_l0)
            return Rect(x_lv, y_lv, *size_px)
        x, y = self._origin(origin_l0)
        return _times(self._boxes(x, y, *size_px), self.box)

    def read(self, fetch: _Fetch, origin_l0: Point, size_px: Size) -> Rgb:
        """Compute a region from the level's pixels, in memory bounded by the result.

        Args:
            fetch: Returns pixels of the level.
            origin_l0: Top-left corner (x, y) in level-0 px.
            size_px: Width and height in output px.

        Returns:
            (h, w, 3) uint8.
        """
        if self.native:
            return fetch(self.rect(origin_l0, size_px))
        x, y = self._origin(origin_l0)
        out = np.empty((size_px.h, size_px.w, 3), np.uint8)
        exact = 1 << (_FLOAT32_BITS - self.bits)
        side = max(1, int(min(_BLOCK_BOXES, 0.7 * exact) / self.step))
        for top in range(0, size_px.h, side):
            for left in range(0, size_px.w, side):
                block = out[top : top + side, left : left + side]
                self._resample(fetch, x + left * self.step, y + top * self.step, block)
        return out

    def _origin(self, origin_l0: Point) -> tuple[float, float]:
        """Exact position of an origin on the grid of positions, in boxes."""
        per_box = 1 << self.bits
        x, y = (_nearest(v / (self.downsample * self.box) * per_box) / per_box for v in origin_l0)
        return x, y

    def _boxes(self, x: float, y: float, w: int, h: int) -> Rect:
        """The boxes that `w` x `h` output px at (x, y) depend on, and one more on each side."""
        margin = _LANCZOS_SUPPORT * max(self.step, 1.0) + 1
        x0, y0 = math.floor(x - margin), math.floor(y - margin)
        return Rect(x0, y0, math.ceil(x + w * self.step + margin) - x0, math.ceil(y + h * self.step + margin) - y0)

    def _resample(self, fetch: _Fetch, x: float, y: float, out: Rgb) -> None:
        """Fill `out` with the output px that start at box position (x, y)."""
        h, w = out.shape[:2]
        boxes = self._boxes(x, y, w, h)
        source = Image.fromarray(_averaged(fetch, boxes, self.box))
        x0, y0 = x - boxes.x, y - boxes.y
        lanczos = Image.Resampling.LANCZOS
        # One direction at a time: in one call, Pillow chooses by the sizes which it rounds first.
        across = source.resize((w, boxes.h), lanczos, box=(x0, 0, x0 + w * self.step, boxes.h))
        out[...] = np.asarray(across.resize((w, h), lanczos, box=(0, y0, w, y0 + h * self.step)))


def choose_sampling(levels: Sequence[Level], mpp_l0: float, mpp: float) -> Sampling:
    """Choose the sampling for `mpp`: a level within 10 % of it unchanged, else resampled from the next finer level.

    Args:
        levels: The pyramid, finest first.
        mpp_l0: µm per level-0 px.
        mpp: µm per output px that are wanted; level 0 is enlarged when it is coarser.

    Raises:
        ValueError: `mpp` is not a positive number.
    """
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp must be a positive number, got {mpp}")
    mpps = [mpp_l0 * level.downsample for level in levels]
    close = [i for i, level_mpp in enumerate(mpps) if is_close_mpp(level_mpp, mpp)]
    if close:
        best = min(close, key=lambda i: abs(math.log(mpps[i] / mpp)))
        return Sampling(best, levels[best].downsample, box=1, step=1.0, bits=0, native=True)
    finer = [i for i, level_mpp in enumerate(mpps) if level_mpp < mpp]
    best = max(finer, key=lambda i: mpps[i]) if finer else 0
    ratio = mpp / mpps[best]
    box = 1 << max(0, math.floor(math.log2(ratio)) - 2)
    bits = min(_MAX_BITS, _BITS - math.floor(math.log2(ratio / box)))
    step = max(1, _nearest(ratio / box * (1 << bits))) / (1 << bits)
    return Sampling(best, levels[best].downsample, box, step, bits, native=False)


def _averaged(fetch: _Fetch, boxes: Rect, box: int) -> Rgb:
    """(h, w, 3) averages of square boxes of `box` level px, fetched in strips."""
    if box == 1:
        return fetch(boxes)
    rows = max(1, _SOURCE_PX // (boxes.w * box * box))
    out = np.empty((boxes.h, boxes.w, 3), np.uint8)
    for top in range(0, boxes.h, rows):
        strip = Rect(boxes.x, boxes.y + top, boxes.w, min(rows, boxes.h - top))
        out[top : top + strip.h] = np.asarray(Image.fromarray(fetch(_times(strip, box))).reduce(box))
    return out


def _times(rect: Rect, n: int) -> Rect:
    return Rect(rect.x * n, rect.y * n, rect.w * n, rect.h * n)


def _nearest(value: float) -> int:
    """The nearest whole number; halves go up, so that it is the same everywhere on the slide."""
    return math.floor(value + 0.5)
