"""Other ways to read tiles, each written as fast as its library allows."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile

from he2her2.geometry import Rgb, TileGrid


def in_threads(work: Callable[[range], object], n: int, threads: int) -> None:
    """Read positions 0 to n, a contiguous part in each thread."""
    parts = [range(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))


def read_with_openslide(path: Path, grid: TileGrid) -> Callable[[range], None]:
    """Make a reader by `read_region`, tile by tile; one open slide for all threads, as OpenSlide recommends."""
    slide = openslide.OpenSlide(path)
    return partial(_read_regions, slide, grid.origins_l0.tolist(), grid.side_px)


def _read_regions(slide: openslide.OpenSlide, origins: Sequence[tuple[int, int]], side: int, positions: range) -> None:
    for i in positions:
        region(slide, origins[i], side)


def region(slide: openslide.OpenSlide, origin: tuple[int, int], side: int) -> Rgb:
    """Read a tile as RGB."""
    return np.asarray(slide.read_region((origin[0], origin[1]), 0, (side, side)).convert("RGB"))


def decode_bare(path: Path, grid: TileGrid) -> Callable[[range], None]:
    """Make a reader that decodes, by simplejpeg, the compressed tiles at a grid's corners from memory."""
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tables = page.jpegtables or b"\xff\xd8\xff\xd9"
        columns, (x, y) = -(-page.imagewidth // page.tilewidth), (grid.origins_l0 // page.tilewidth).T
        spans = [(page.dataoffsets[i], page.databytecounts[i]) for i in (y * columns + x).tolist()]
    jpegs = [tables[:-2] + data[start + 2 : start + count] for start, count in spans]

    def decode(positions: range) -> None:
        for i in positions:
            simplejpeg.decode_jpeg(jpegs[i])

    return decode
