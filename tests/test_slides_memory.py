"""Memory is bounded by the slide's width at most, never by its area or by the number of tiles."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile

from he2her2.geometry import Point, Size, TileGrid
from he2her2.slides import open_slide, stream_tiles
from tests.slide_files import APERIO, synthetic_pixels

TILE = 256


def write_tall_slide(path, n_columns, n_rows):
    """A slide of one repeated compressed tile: large to read, small on disk, quick to write."""
    jpeg = simplejpeg.encode_jpeg(synthetic_pixels(TILE, TILE), quality=50, colorsubsampling="420")
    w, h = n_columns * TILE, n_rows * TILE
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            (jpeg for _ in range(n_columns * n_rows)),
            shape=(h, w, 3),
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression=7,
            photometric="ycbcr",
            subsampling=(2, 2),
            description=APERIO.format(w=w, h=h, t=TILE, mpp=0.25, mag=40),
            metadata=None,
        )
    return path


def peak_bytes(work):
    """The most that Python and NumPy hold at once while working."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def stream_all(path, n_rows, threads):
    """Read an overlapping grid over the slide's first rows."""
    with open_slide(path) as slide:
        origins = [(x, y) for y in range(0, n_rows * TILE, TILE // 2) for x in range(0, slide.size_l0.w, TILE // 2)]
        grid = TileGrid(np.array(origins, np.int64), TILE, TILE, 0.25)
        assert sum(len(batch.index) for batch in stream_tiles(slide, grid, batch_size=8, threads=threads)) == len(grid)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_streams_memory_does_not_grow_with_the_slides_height(tmp_path, threads):
    """Five times the rows, the same memory; and that is a few rows of tiles and batches.

    How many batches are in flight at once is the scheduler's luck; five times the rows would be 38 MB more.
    """
    path = write_tall_slide(tmp_path / "tall.svs", n_columns=6, n_rows=40)
    stream_all(path, 2, threads)

    low, high = (peak_bytes(lambda rows=rows: stream_all(path, rows, threads)) for rows in (8, 40))

    batch = 8 * TILE * TILE * 3

    assert high < 1.15 * low + threads * batch
    assert high < (3 * 6 + 8 * (threads + 3)) * TILE * TILE * 3 * 1.3


def test_a_thumbnails_memory_does_not_grow_with_the_slides_area(tmp_path):
    """A slide without reduced levels is read in strips: far less memory than its 126 MB of pixels."""
    path = write_tall_slide(tmp_path / "tall.svs", n_columns=16, n_rows=40)

    with open_slide(path) as slide:
        thumbnail = []
        peak = peak_bytes(lambda: thumbnail.append(slide.thumbnail(8.0)))

        assert thumbnail[0].shape == (320, 128, 3)
        assert peak < 0.75 * 3 * slide.size_l0.w * slide.size_l0.h


def test_a_hundred_slides_leave_nothing_open(tmp_path):
    """Opened, read and closed again: file handles and memory stay as they were."""
    path = write_tall_slide(tmp_path / "tall.svs", n_columns=2, n_rows=2)
    handles = Path("/dev/fd")
    before = len(list(handles.iterdir()))

    for i in range(100):
        with open_slide(path, backend=("tiff", "openslide")[i % 2]) as slide:
            slide.read(Point(0, 0), Size(300, 300), 0.25)

    assert len(list(handles.iterdir())) == before


def test_regions_read_one_by_one_keep_few_tiles_decoded(tmp_path):
    """Tiles are kept for the next region, up to 32 MB however tall the slide is, and a caller cannot change them."""
    path = write_tall_slide(tmp_path / "slide.svs", n_columns=4, n_rows=100)  # 79 MB of pixels

    with open_slide(path) as slide:
        whole = slide.read(Point(100, 0), Size(512, 512), 0.25)
        expected = whole.copy()
        whole[...] = 0

        def read_all():
            for y in range(128, 99 * TILE, TILE):
                slide.read(Point(100, y), Size(512, TILE), 0.25)

        peak = peak_bytes(read_all)

        assert np.array_equal(expected, slide.read(Point(100, 0), Size(512, 512), 0.25))
    assert 30e6 < peak < 38e6
