"""Tiles of a slide for a viewer that zooms: levels of the file, and reductions by 2 between and above them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import RLock

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Rgb, Size
from he2her2.slides.base import BaseSlide
from he2her2.slides.levels import WHITE, Rect, copy_overlap
from he2her2.slides.recent_tiles import RecentTiles
from he2her2.slides.slide import Level

_TILE = Size(256, 256)
_SIDES = range(128, 1025)
"""Sides of the file's own tiles that are passed on as they are."""

_CLOSE = 1.5
"""A level of the file follows the next reduction by 2 if it is reduced so many times more."""

_HATCH_PX = 16
_LOST_PAPER, _LOST_INK = (235, 235, 235), (170, 60, 60)
_QUALITY = 90
_RECENT_BYTES = 48 << 20


@dataclass(frozen=True, slots=True)
class ZoomLevel:
    """A level that a viewer asks for.

    Attributes:
        size: Width and height in px of this level.
        downsample: Level-0 px per px of this level.
        tile: Width and height of its tiles; the last ones of a row or column may be smaller.
        native: Index of the level of the file; None where it is computed from the next finer one.
    """

    size: Size
    downsample: float
    tile: Size
    native: int | None

    @property
    def n_tiles(self) -> Size:
        """Columns and rows of tiles."""
        return Size(-(-self.size.w // self.tile.w), -(-self.size.h // self.tile.h))

    def tile_rect(self, column: int, row: int) -> Rect:
        """Rectangle of a tile, in px of this level.

        Raises:
            IndexError: There is no such tile.
        """
        columns, rows = self.n_tiles
        if not (0 <= column < columns and 0 <= row < rows):
            raise IndexError(f"no tile ({column}, {row}) among {columns} x {rows}")
        return Rect(column * self.tile.w, row * self.tile.h, *self.tile).clipped(self.size)


@dataclass(frozen=True, slots=True)
class ZoomTile:
    """An encoded tile.

    Attributes:
        data: Its bytes.
        media_type: Of the bytes.
    """

    data: bytes
    media_type: str


class DeepZoom:
    """A slide as a zooming viewer reads it; safe to use from several threads, in bounded memory.

    Level 0 is exact: its tiles are the file's own JPEGs, or PNGs of what `Slide.read` gives. Computed levels are
    averages of 2 x 2 px of the next finer one, in JPEG. What cannot be decoded is hatched, on every level.

    Attributes:
        slide: The slide.
        levels: Finest first; the last one fits into one tile.
    """

    def __init__(self, slide: BaseSlide) -> None:
        self.slide = slide
        self._recent = RecentTiles(_RECENT_BYTES)
        self._lock = RLock()
        self.levels = tuple(zoom_levels(slide.levels))

    def tile(self, level: int, column: int, row: int) -> ZoomTile:
        """An encoded tile.

        Raises:
            IndexError: There is no such level or tile.
        """
        if not 0 <= level < len(self.levels):
            raise IndexError(f"no level {level} among {len(self.levels)}")
        here = self.levels[level]
        rect = here.tile_rect(column, row)
        if here.native is not None and here.tile == self.slide.levels[here.native].tile:
            with suppress(UnreadableRegionError):
                own = self.slide.jpeg_tile(here.native, column, row)
                if own is not None:
                    return ZoomTile(own, "image/jpeg")
        pixels = self._pixels(level, column, row, rect)
        if level == 0:
            return ZoomTile(bytes(imagecodecs.png_encode(pixels, level=1)), "image/png")
        return ZoomTile(encoded_jpeg(pixels), "image/jpeg")

    def overview(self, longest_px: int) -> Rgb:
        """A picture of the whole slide, of at most so many px on its longer side."""
        fine_enough = [i for i, level in enumerate(self.levels) if max(level.size) >= longest_px]
        level = fine_enough[-1] if fine_enough else 0
        size = self.levels[level].size
        scale = min(1.0, longest_px / max(size))
        whole = Image.fromarray(self._region(level, Rect(0, 0, *size)))
        return np.asarray(whole.resize((max(1, round(size.w * scale)), max(1, round(size.h * scale)))))

    def _pixels(self, level: int, column: int, row: int, rect: Rect) -> Rgb:
        """(h, w, 3) px of a tile."""
        native = self.levels[level].native
        if native is not None:
            return self._read(native, rect)
        key = (level, column, row)
        found = self._recent.get(key)
        if found is not None:
            return found
        with self._lock:  # the same tile, and those below it, are computed once
            found = self._recent.get(key)
            if found is None:
                finer = self._region(level - 1, Rect(2 * rect.x, 2 * rect.y, 2 * rect.w, 2 * rect.h))
                found = np.asarray(Image.fromarray(finer).reduce(2))
                self._recent.put(key, found)
        return found

    def _read(self, native: int, rect: Rect) -> Rgb:
        """(h, w, 3) px of a level of the file, hatched where they cannot be decoded."""
        lost: set[Rect] = set()
        pixels = self.slide.read_what_can_be(native, rect, lost)
        for tile in lost:
            copy_overlap(hatched(Size(tile.w, tile.h)), tile, pixels, rect)
        return pixels

    def _region(self, level: int, rect: Rect) -> Rgb:
        """(h, w, 3) px of a rectangle of a level; white beyond its border."""
        here = self.levels[level]
        if here.native is not None:
            return self._read(here.native, rect)
        out = np.full((rect.h, rect.w, 3), WHITE, np.uint8)
        columns, rows = rect.clipped(here.size).cells(here.tile)
        for row in rows:
            for column in columns:
                tile = here.tile_rect(column, row)
                copy_overlap(self._pixels(level, column, row, tile), tile, out, rect)
        return out


def zoom_levels(levels: Sequence[Level]) -> Iterator[ZoomLevel]:
    """The levels that a viewer needs for a file that has `levels`, finest first.

    Example:
        >>> files = [Level(Size(4096 // n, 2048 // n), n, Size(256, 256), "JPEG") for n in (1.0, 4.0)]
        >>> [(level.downsample, level.native) for level in zoom_levels(files)]
        [(1.0, 0), (2.0, None), (4.0, 1), (8.0, None), (16.0, None)]
    """
    for i, level in enumerate(levels):
        own = level.tile
        yield ZoomLevel(level.size, level.downsample, own if own and set(own) <= set(_SIDES) else _TILE, i)
        next_downsample = levels[i + 1].downsample if i + 1 < len(levels) else math.inf
        size, downsample = level.size, level.downsample
        while _CLOSE * 2 * downsample <= next_downsample and (next_downsample < math.inf or max(size) > _TILE.w):
            size, downsample = Size(-(-size.w // 2), -(-size.h // 2)), 2 * downsample
            yield ZoomLevel(size, downsample, _TILE, None)


def hatched(size: Size) -> Rgb:
    """(h, w, 3) px in the place of those that cannot be decoded: nobody takes them for tissue or glass."""
    y, x = np.indices((size.h, size.w), sparse=True)
    pixels = np.full((size.h, size.w, 3), _LOST_PAPER, np.uint8)
    pixels[(x + y) % _HATCH_PX < _HATCH_PX // 4] = _LOST_INK
    return pixels


def encoded_jpeg(pixels: Rgb) -> bytes:
    """(h, w, 3) px as JPEG, colours at full resolution."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY, colorsubsampling="444"))
