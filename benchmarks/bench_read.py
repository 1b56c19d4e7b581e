"""How fast tiles are read: our stream against OpenSlide's `read_region` and against bare JPEG decoding.

Run: `python benchmarks/bench_read.py [--json FILE]`. Candidates alternate within each round, over the same tiles of a
generated JPEG slide (quality 75, 4:2:0, tiles of 256 px); medians over the rounds, ratios of medians. Bars: at least
6 times OpenSlide on one thread, at least 0.80 of bare simplejpeg.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile

from he2her2.geometry import TileGrid
from he2her2.slides import open_slide
from he2her2.slides.stream import TileBatch, map_tiles, stream_tiles

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.slide_files import SlideSpec, pyramid, synthetic_pixels, tile_spans, write_slide

TILE_PX = 256
SPEC = SlideSpec(tile=TILE_PX, tables=True)
BARS = {"aligned, 1 thread: stream / OpenSlide": 6.0, "aligned, 1 thread: stream / bare": 0.80}


def main() -> None:
    """Generate a slide, measure, print a table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tiles", type=int, default=1600, help="tiles read by each candidate in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder) / "bench.svs", arguments.tiles, arguments.rounds)
    print(f"{result.hardware}; {result.n_tiles} tiles a round")
    for name, rate in result.tiles_per_s.items():
        print(f"  {name:<44}{rate:>9.0f} tiles/s")
    for name, ratio in result.ratios.items():
        bar = BARS.get(name)
        verdict = "" if bar is None else f"  bar {bar:g}: {'reached' if ratio >= bar else 'MISSED'}"
        print(f"  {name:<44}{ratio:>9.2f}{verdict}")
    print(f"  decoded twice on a grid of half-tile stride: {result.decoded_twice} (bar 0)")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")


@dataclass(frozen=True)
class Result:
    """Medians over the rounds, and their ratios."""

    hardware: str
    n_tiles: int
    tiles_per_s: dict[str, float]
    ratios: dict[str, float]
    decoded_twice: int


def measure(path: Path, n_tiles: int, rounds: int) -> Result:
    """Rates, ratios and the count of repeated decodes on a slide of `n_tiles` tiles, written to `path`."""
    side = round(n_tiles**0.5)
    repeats = side // 4 + 2
    pixels = np.tile(synthetic_pixels(4 * TILE_PX, 4 * TILE_PX), (repeats, repeats, 1))
    write_slide(path, pyramid(pixels[: (side + 1) * TILE_PX, : (side + 1) * TILE_PX]), SPEC)
    candidates = {
        f"{name}, {threads} thread{'s' * (threads > 1)}: {who}": candidate
        for name, shift in (("aligned", 0), ("unaligned", 100))
        for threads in (1, 2)
        for who, candidate in _candidates(path, _grid(side, shift), threads).items()
        if not (who == "bare" and shift)
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            times[name].append(time.perf_counter() - start)
    rates = {name: side * side / statistics.median(seconds) for name, seconds in times.items()}
    ratios = {
        f"{name} / {peer}": rates[name] / rates[other]
        for name in rates
        if name.endswith("stream")
        for peer in ("OpenSlide", "bare")
        if (other := name.replace("stream", peer)) in rates
    }
    hardware = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return Result(hardware, side * side, rates, ratios, _decoded_twice(path, side))


def _grid(side: int, shift: int, stride: int = TILE_PX) -> TileGrid:
    """`side` x `side` tiles in raster order."""
    steps = shift + stride * np.arange(side)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    return TileGrid(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64), float(TILE_PX), TILE_PX, 0.25)


def _candidates(path: Path, grid: TileGrid, threads: int) -> dict[str, Callable[[], None]]:
    return {
        "stream": lambda: _stream(path, grid, threads),
        "OpenSlide": lambda: _shared(_openslide_reader(path, grid), len(grid), threads),
        "bare": lambda: _shared(_bare_reader(path, len(grid)), len(grid), threads),
    }


def _stream(path: Path, grid: TileGrid, threads: int) -> None:
    """Every tile through the stream, as prediction reads them."""
    with open_slide(path) as slide, map_tiles(slide, grid, _count, threads=threads) as stream:
        assert sum(stream) == len(grid)


def _count(batch: TileBatch) -> int:
    return len(batch.pixels)


def _openslide_reader(path: Path, grid: TileGrid) -> Callable[[range], None]:
    slide = openslide.OpenSlide(path)
    origins = grid.origins_l0.tolist()

    def read(positions: range) -> None:
        for i in positions:
            np.asarray(slide.read_region(tuple(origins[i]), 0, (TILE_PX, TILE_PX)).convert("RGB"))

    return read


def _bare_reader(path: Path, n: int) -> Callable[[range], None]:
    """The slide's own tiles as complete JPEGs in memory, decoded by simplejpeg into fresh arrays."""
    with tifffile.TiffFile(path) as tiff:
        tables = tiff.pages.first.jpegtables or b"\xff\xd8\xff\xd9"
    data = path.read_bytes()
    jpegs = [tables[:-2] + data[offset + 2 : offset + count] for offset, count in tile_spans(path)[:n]]

    def read(positions: range) -> None:
        for i in positions:
            simplejpeg.decode_jpeg(jpegs[i])

    return read


def _shared(read: Callable[[range], None], n: int, threads: int) -> None:
    """Cut the positions into one contiguous part for each thread."""
    parts: Sequence[range] = [range(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, parts))


def _decoded_twice(path: Path, side: int) -> int:
    """Compressed tiles decoded more than once when tiles overlap by half."""
    grid = _grid(2 * side - 1, 0, TILE_PX // 2)
    with open_slide(path) as slide, stream_tiles(slide, grid, threads=2) as stream:
        for _ in stream:
            pass
        return stream.n_decoded - side * side


if __name__ == "__main__":
    main()
