"""Compressed tiles that a whole grid needs: each decoded once, kept while a later tile of the grid needs it."""

from collections.abc import Sequence
from threading import Lock
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import Rgb, Size
from he2her2.slides.levels import WHITE, Rect, Sampling, copy_overlap
from he2her2.slides.slide import Level

_MAX_SPARE = 64


@runtime_checkable
class TiledSlide(Protocol):
    """A slide whose compressed tiles can be decoded one by one."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest first."""

    def sampling(self, mpp: float) -> Sampling:
        """Return the sampling with which `read` delivers `mpp`."""

    def tile_rect(self, level: int, index: int) -> Rect:
        """Rectangle of compressed tile `index` (in raster order) of `level`, in px of that level."""

    def decode_tile(self, level: int, index: int, out: Rgb) -> None:
        """Decode one compressed tile into `out`, or raise UnreadableRegionError."""


class _Entry:
    """One compressed tile: `lock` is held while it is decoded; then it has `pixels`, or an `error`."""

    __slots__ = ("error", "lock", "pixels")

    def __init__(self) -> None:
        self.lock = Lock()
        self.pixels: Rgb | None = None
        self.error: BaseException | None = None


class TileStore:
    """Decoded tiles of one level, shared by threads, counted down by their planned users.

    Attributes:
        n_decoded: Tiles decoded so far; no tile counts twice.
    """

    def __init__(self, slide: TiledSlide, level: int, rects: Sequence[Rect]) -> None:
        """Plan the reading of `rects` (level px), each of which must then be held exactly once."""
        self._slide = slide
        self._level = level
        self._size = slide.levels[level].size
        tile = slide.levels[level].tile
        assert tile is not None
        self._tile = tile
        self._n_columns = -(-self._size.w // tile.w)
        self._users = _count_users([rect.clipped(self._size) for rect in rects], self._size, tile)
        self._entries: dict[int, _Entry] = {}
        self._spare: list[Rgb] = []
        self._lock = Lock()
        self.n_decoded = 0

    def holding(self, rect: Rect) -> "_Hold":
        """Return a `with` block for the use of one planned rectangle, which releases its tiles."""
        columns, rows = rect.clipped(self._size).cells(self._tile)
        return _Hold(self, [row * self._n_columns + column for row in rows for column in columns])

    def pixels(self, index: int) -> Rgb:
        """Return a tile; the first thread that asks decodes it, others wait.

        Raises:
            UnreadableRegionError: The tile is damaged.
        """
        with self._lock:
            entry = self._entries.get(index)
            if first := entry is None:
                entry = self._entries[index] = _Entry()
                entry.lock.acquire()
                self.n_decoded += 1
        assert entry is not None
        if first:
            try:
                self._decode(index, entry)
            finally:
                entry.lock.release()
        with entry.lock:
            if entry.error:
                raise entry.error
            assert entry.pixels is not None
            return entry.pixels

    def decode_alone(self, index: int, rect: Rect, out: Rgb) -> bool:
        """Decode straight into `out` if `rect` is exactly this tile and no other needs it; return True if so.

        Raises:
            UnreadableRegionError: The tile is damaged.
        """
        with self._lock:
            if self._users[index] != 1 or index in self._entries or self.tile_rect(index) != rect:
                return False
            self.n_decoded += 1
        self._slide.decode_tile(self._level, index, out)
        return True

    def release(self, index: int) -> None:
        """Count one planned user less; the last one frees the pixels."""
        with self._lock:
            self._users[index] -= 1
            entry = self._entries.pop(index, None) if self._users[index] == 0 else None
            if entry and entry.pixels is not None and len(self._spare) < _MAX_SPARE:
                self._spare.append(entry.pixels)

    def tile_rect(self, index: int) -> Rect:
        """Rectangle of a compressed tile, in px of the level."""
        return self._slide.tile_rect(self._level, index)

    def inside(self, rect: Rect) -> Rect:
        """The part of a rectangle that the level has."""
        return rect.clipped(self._size)

    def _decode(self, index: int, entry: _Entry) -> None:
        tile = self.tile_rect(index)
        shape = (tile.h, tile.w, 3)
        with self._lock:
            buffer = self._spare.pop() if self._spare else None
        if buffer is None or buffer.shape != shape:
            buffer = np.empty(shape, np.uint8)
        try:
            self._slide.decode_tile(self._level, index, buffer)
        except BaseException as error:  # noqa: BLE001 - it is raised in every thread that waits for this tile
            entry.error = error
        else:
            entry.pixels = buffer


class _Hold:
    """The compressed tiles of one planned rectangle, for as long as its `with` block lasts."""

    def __init__(self, store: TileStore, indices: list[int]) -> None:
        self._store = store
        self._indices = indices

    def copy(self, rect: Rect, out: Rgb) -> None:
        """Fill `out` with a rectangle that the planned one contains; white beyond the level's border.

        Raises:
            UnreadableRegionError: A tile that the planned rectangle touches is damaged.
        """
        inside = self._store.inside(rect)
        if len(self._indices) == 1 and inside == rect and self._store.decode_alone(self._indices[0], rect, out):
            return
        if inside != rect:
            out[...] = WHITE
        view = out[inside.y - rect.y :, inside.x - rect.x :][: inside.h, : inside.w]
        for index in self._indices:
            tile = self._store.tile_rect(index)
            pixels = self._store.pixels(index)
            if tile.overlaps(inside):
                copy_overlap(pixels, tile, view, inside)

    def fetch(self, rect: Rect) -> Rgb:
        """`copy` into a new array."""
        out = np.empty((rect.h, rect.w, 3), np.uint8)
        self.copy(rect, out)
        return out

    def __enter__(self) -> Self:
        """Use the tiles."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the tiles."""
        for index in self._indices:
            self._store.release(index)


def _count_users(rects: Sequence[Rect], size: Size, tile: Size) -> NDArray[np.int32]:
    """Count the `rects` that touch each compressed tile, in raster order, by an integral image of their corners."""
    n_columns, n_rows = -(-size.w // tile.w), -(-size.h // tile.h)
    steps = np.zeros((n_rows + 1, n_columns + 1), np.int32)
    corners = [(c.start, r.start, c.stop, r.stop) for c, r in (rect.cells(tile) for rect in rects)]
    touched = np.array(corners, np.int64)
    x0, y0, x1, y1 = touched.reshape(-1, 4).T
    for x, y, sign in ((x0, y0, 1), (x1, y0, -1), (x0, y1, -1), (x1, y1, 1)):
        np.add.at(steps, (y, x), sign)
    counts: NDArray[np.int32] = steps.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)[:-1, :-1].ravel()
    return counts
