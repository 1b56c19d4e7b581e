"""Tiles of a grid as a stream of batches: each compressed tile decoded once, in bounded memory, ahead of the consumer.

Where tiles overlap, or straddle compressed tiles, `Slide.read` decodes the same bytes again and again. The stream
knows the whole grid beforehand: it keeps a decoded tile until the last grid tile that needs it. For a grid in raster
order that is about one row of compressed tiles, whatever the number of tiles.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import perf_counter, thread_time
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Point, Rgb, Size, TileGrid
from he2her2.slides.blank_tissue import BlankTissue
from he2her2.slides.slide import Slide
from he2her2.slides.tile_store import TiledSlide, TileStore
from he2her2.timing import StreamTimes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class TileBatch:
    """Some tiles of a grid with their pixels.

    Attributes:
        index: (m,) positions in the grid, ascending.
        pixels: (m, side, side, 3) uint8; what `Slide.read` returns for each.
    """

    index: NDArray[np.int64]
    pixels: Rgb


class TileMapping(Iterator[T], Generic[T]):
    """An iterator over the batches' results in grid order; closing or dropping it stops its threads."""

    def __init__(self, reader: "_Reader", results: Generator[tuple[T, ...], None, None], clock: "_Clock") -> None:
        self._reader = reader
        self._results = results
        self._clock = clock

    @property
    def n_decoded(self) -> int:
        """Compressed tiles decoded so far; stays 0 for a slide that hides its compressed tiles."""
        return self._reader.n_decoded

    @property
    def unreadable(self) -> NDArray[np.int64]:
        """Positions in the grid, ascending, of tiles unreadable or blank in the tissue; complete at the end."""
        return np.sort(np.array(self._reader.unreadable, np.int64))

    @property
    def times(self) -> StreamTimes:
        """Times of the threads so far."""
        return self._clock.times

    def __next__(self) -> T:
        """The next batch's result; a batch of which no tile can be read has none."""
        for results in self._results:
            for result in results:
                return result
        raise StopIteration

    def close(self) -> None:
        """Stop the threads; closing twice does nothing."""
        self._results.close()

    def __enter__(self) -> Self:
        """Use the stream in a `with` block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        self.close()


def map_tiles(
    slide: Slide, grid: TileGrid, apply: Callable[[TileBatch], T], *, batch_size: int = 32, threads: int = 1
) -> TileMapping[T]:
    """Read a grid's tiles in batches and apply a function to each, both in the same thread.

    Results do not depend on `threads`, and a tile's pixels not on `batch_size`: they are those of `slide.read`.

    Args:
        slide: The slide.
        grid: The tiles; raster order keeps memory small.
        apply: Called once for each batch, from several threads at once when `threads` is above 1.
        batch_size: Tiles in a batch at most. Batches are made even, so that no thread waits for another's last one, and
            hold fewer where tiles cannot be read.
        threads: Symmetric workers; batches are worked on at most `threads` + 1 ahead of the consumer. One is the
            consumer's own thread, and nothing is ahead: another would only carry the work from core to core.

    Returns:
        An iterator over the results in grid order. An exception in `apply` is raised from it in its place.
    """
    return _mapped(slide, grid, apply, batch_size, threads, in_order=_in_order if threads > 1 else _at_once)


def stream_tiles(slide: Slide, grid: TileGrid, *, batch_size: int = 32, threads: int = 1) -> TileMapping[TileBatch]:
    """Read a grid's tiles in batches, ahead of the consumer, also where there is one thread; see `map_tiles`."""
    return _mapped(slide, grid, _as_it_is, batch_size, threads, in_order=_in_order)


def _mapped(
    slide: Slide,
    grid: TileGrid,
    apply: Callable[[TileBatch], T],
    batch_size: int,
    threads: int,
    *,
    in_order: Callable[[Callable[[int], tuple[T, ...]], int, int], Generator[tuple[T, ...], None, None]],
) -> TileMapping[T]:
    if batch_size < 1 or threads < 1:
        raise ValueError(f"batch_size and threads must be at least 1, got {batch_size} and {threads}")
    batch_size = _even(len(grid), batch_size, threads)
    n_blocks = -(-len(grid) // batch_size)
    threads = max(1, min(threads, n_blocks))
    clock = _Clock(threads)
    reader = _StoreReader(slide, slide, grid) if isinstance(slide, TiledSlide) else _PlainReader(slide, grid)

    def work(block: int) -> tuple[T, ...]:
        start = clock.start()
        batch = reader.batch(range(block * batch_size, min((block + 1) * batch_size, len(grid))))
        read = clock.read(start, len(batch.index))
        results = (apply(batch),) if len(batch.index) else ()
        clock.applied(read)
        return results

    return TileMapping(reader, in_order(work, n_blocks, threads), clock)


def _at_once(work: Callable[[int], T], n_jobs: int, _threads: int) -> Generator[T, None, None]:
    """Yield `work(0)`, `work(1)`, ... each computed here when it is asked for."""
    for job in range(n_jobs):
        yield work(job)


def _in_order(work: Callable[[int], T], n_jobs: int, threads: int) -> Generator[T, None, None]:
    """Yield `work(0)`, `work(1)`, ... computed by `threads` threads, at most `threads` + 1 jobs ahead.

    An exception in `work` is raised here, after all results before it; in any case, also when the consumer stops
    early, no thread is left behind.
    """
    ahead = threads + 1
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
    try:
        waiting = deque(pool.submit(work, job) for job in range(min(ahead, n_jobs)))
        for job in range(ahead, n_jobs + ahead):
            result = waiting.popleft().result()
            if job < n_jobs:
                waiting.append(pool.submit(work, job))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _even(n: int, at_most: int, threads: int) -> int:
    """Tiles in a batch, such that every thread gets about as many of `n` tiles.

    Example:
        >>> _even(100, 32, threads=2), _even(1000, 32, threads=2), _even(3, 32, threads=2)
        (25, 32, 2)
    """
    n_rounds = -(-n // (at_most * threads))
    return max(1, -(-n // max(1, n_rounds * threads)))


def _as_it_is(batch: TileBatch) -> TileBatch:
    return batch


class _Clock:
    """Sums the times of worker threads; a few calls a batch."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = Lock()
        self._begin: float | None = None
        self._end = 0.0
        self._tiles = 0
        self._reading = self._waiting = self._applying = 0.0

    @property
    def times(self) -> StreamTimes:
        """Times so far."""
        with self._lock:
            wall = 0.0 if self._begin is None else max(0.0, self._end - self._begin)
            return StreamTimes(self._tiles, wall, wall * self._threads, self._reading, self._waiting, self._applying)

    def start(self) -> tuple[float, float]:
        """Start a batch; return the time on the clock and the thread's own processor time."""
        now = perf_counter(), thread_time()
        with self._lock:
            self._begin = now[0] if self._begin is None else min(self._begin, now[0])
        return now

    def read(self, start: tuple[float, float], n: int) -> float:
        """Record that its tiles were read; return the time on the clock."""
        now, busy = perf_counter(), thread_time() - start[1]
        with self._lock:
            self._tiles += n
            self._reading += busy
            self._waiting += max(0.0, now - start[0] - busy)
        return now

    def applied(self, read: float) -> None:
        """Record that the function was applied to it."""
        now = perf_counter()
        with self._lock:
            self._applying += now - read
            self._end = max(self._end, now)


class _Reader(ABC):
    """Reads single tiles of a grid into place, from several threads."""

    def __init__(self, slide: Slide, grid: TileGrid) -> None:
        self.slide = slide
        self.grid = grid
        self._blank = BlankTissue(slide, Size(grid.side_px, grid.side_px), grid.mpp)
        self.unreadable: list[int] = []

    @property
    @abstractmethod
    def n_decoded(self) -> int:
        """Compressed tiles decoded so far."""

    @abstractmethod
    def _read_into(self, position: int, out: Rgb) -> None:
        """Fill `out` (side, side, 3) with a tile, or raise UnreadableRegionError."""

    def batch(self, positions: range) -> TileBatch:
        """The readable tiles among `positions`; one that is blank where the slide has tissue is not."""
        side = self.grid.side_px
        pixels = np.empty((len(positions), side, side, 3), np.uint8)
        read: list[int] = []
        for position in positions:
            try:
                self._read_into(position, pixels[len(read)])
            except UnreadableRegionError:
                self.unreadable.append(position)
            else:
                read.append(position)
        index, pixels = np.array(read, np.int64), pixels[: len(read)]
        hidden = self._blank.hidden(pixels, self.grid.origins_l0[index])
        if not hidden.any():
            return TileBatch(index, pixels)
        self.unreadable += index[hidden].tolist()
        return TileBatch(index[~hidden], pixels[~hidden])

    def _origin(self, position: int) -> Point:
        x, y = self.grid.origins_l0[position]
        return Point(int(x), int(y))


class _PlainReader(_Reader):
    """For slides that hide their compressed tiles: each tile by `Slide.read`."""

    n_decoded = 0

    def _read_into(self, position: int, out: Rgb) -> None:
        size = Size(self.grid.side_px, self.grid.side_px)
        out[...] = self.slide.read(self._origin(position), size, self.grid.mpp)


class _StoreReader(_Reader):
    """For slides with accessible compressed tiles: each is decoded once."""

    def __init__(self, slide: Slide, tiled: TiledSlide, grid: TileGrid) -> None:
        super().__init__(slide, grid)
        self._sampling = tiled.sampling(grid.mpp)
        self._size = Size(grid.side_px, grid.side_px)
        self._rects = [self._sampling.rect(Point(x, y), self._size) for x, y in grid.origins_l0.tolist()]
        self._store = TileStore(tiled, self._sampling.level, self._rects)

    @property
    def n_decoded(self) -> int:
        """Compressed tiles decoded so far."""
        return self._store.n_decoded

    def _read_into(self, position: int, out: Rgb) -> None:
        rect = self._rects[position]
        with self._store.holding(rect) as hold:
            if self._sampling.native:
                hold.copy(rect, out)
            else:
                out[...] = self._sampling.read(hold.fetch, self._origin(position), self._size)
