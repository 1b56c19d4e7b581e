"""Reading tiles: the tile stream against OpenSlide's `read_region` and against bare JPEG decoding of the same tiles."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import openslide

from benchmarks.baselines import decode_bare, in_threads, read_with_openslide, region
from benchmarks.measuring import Timings, alternate
from benchmarks.phantom_slide import phantom_slide, tile_grid
from benchmarks.results import Found, Setting, Table
from he2her2.geometry import Size, TileGrid
from he2her2.phantom import TILE_PX
from he2her2.slides import TileBatch, map_tiles, open_slide, stream_tiles

SHIFT = 100
"""Start of an unaligned grid, px: every tile touches four compressed ones."""


def measure(setting: Setting) -> Found:
    """Measure tiles per second, aligned and not, on one thread and on two, and the tiles decoded twice."""
    side = setting.pick(36, 3)
    path = phantom_slide(setting, Size((side + 1) * TILE_PX, (side + 1) * TILE_PX))
    aligned, shifted = tile_grid(side, side), tile_grid(side, side, shift=SHIFT)
    check_pixels(path, shifted)
    candidates = {
        f"{name}, {place}, {threads}": candidate
        for place, grid in (("aligned", aligned), ("unaligned", shifted))
        for threads in (1, 2)
        for name, candidate in _readers(path, grid, threads).items()
        if not (name == "bare simplejpeg" and grid is shifted)
    }
    timings = alternate(candidates, setting.pick(5, 1), warm_up=not setting.quick)
    figures = {
        "stream_vs_openslide": timings.times_faster("stream, aligned, 1", "OpenSlide, aligned, 1"),
        "stream_vs_bare": timings.times_faster("stream, aligned, 1", "bare simplejpeg, aligned, 1"),
        "decoded_twice": float(decoded_twice(path, side)),
    }
    return Found(figures, (_table(timings, len(aligned)),), {"tiles": len(aligned), "seconds": dict(timings.seconds)})


def _readers(path: Path, grid: TileGrid, threads: int) -> dict[str, Callable[[], object]]:
    n = len(grid)
    return {
        "OpenSlide": partial(in_threads, read_with_openslide(path, grid), n, threads),
        "stream": partial(read_stream, path, grid, threads),
        "bare simplejpeg": partial(in_threads, decode_bare(path, grid), n, threads),
    }


def read_stream(path: Path, grid: TileGrid, threads: int) -> None:
    """Read every tile through the stream, as in prediction."""
    with open_slide(path) as slide, map_tiles(slide, grid, count, threads=threads) as stream:
        assert sum(stream) == len(grid)


def count(batch: TileBatch) -> int:
    """Number of tiles in a batch."""
    return len(batch.pixels)


def check_pixels(path: Path, grid: TileGrid) -> None:
    """Check that all candidates deliver the same pixels."""
    peer = openslide.OpenSlide(path)
    with open_slide(path) as slide, stream_tiles(slide, grid.take(np.arange(4))) as stream:
        for origin, pixels in zip(grid.origins_l0.tolist(), next(stream).pixels, strict=False):
            assert np.array_equal(pixels, region(peer, origin, grid.side_px))


def decoded_twice(path: Path, side: int) -> int:
    """Count the compressed tiles decoded more than once when tiles overlap by half."""
    grid = tile_grid(2 * side - 1, 2 * side - 1, stride=TILE_PX // 2)
    with open_slide(path) as slide, stream_tiles(slide, grid, threads=2) as stream:
        for _ in stream:
            pass
        return stream.n_decoded - side * side


def _table(timings: Timings, n: int) -> Table:
    columns = [(place, threads) for place in ("aligned", "unaligned") for threads in (1, 2)]
    rows = []
    for reader in ("OpenSlide", "stream", "bare simplejpeg"):
        names = [f"{reader}, {place}, {threads}" for place, threads in columns]
        rows.append((reader, *(timings.rate(name, n) if name in timings.seconds else "" for name in names)))
    header = ("tiles/s", *(f"{place}, {threads} thread{'s' * (threads > 1)}" for place, threads in columns))
    return Table(f"Reading {n} tiles of 256 px at level 0, medians", header, tuple(rows))
