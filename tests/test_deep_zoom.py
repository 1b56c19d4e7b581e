"""Tiles for a zooming viewer: exact at full resolution, averages above it, the same for every kind of file."""

import io
from itertools import pairwise
from threading import Thread

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Point, Size
from he2her2.slides import DeepZoom, Level, hatched, open_slide
from he2her2.slides.deep_zoom import zoom_levels
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, synthetic_pixels, write_slide
from tests.test_slides_memory import peak_bytes, write_tall_slide


def decoded(tile):
    """The pixels that a browser makes of a tile."""
    return np.asarray(Image.open(io.BytesIO(tile.data)).convert("RGB"))


def whole_level(zoom, level):
    """A level put together from its tiles."""
    here = zoom.levels[level]
    out = np.zeros((here.size.h, here.size.w, 3), np.uint8)
    columns, rows = here.n_tiles
    for row in range(rows):
        for column in range(columns):
            rect = here.tile_rect(column, row)
            out[rect.y : rect.y + rect.h, rect.x : rect.x + rect.w] = decoded(zoom.tile(level, column, row))
    return out


SPECS = [
    SlideSpec(tile=256, codec="jpeg"),
    SlideSpec(tile=240, codec="jpeg-rgb"),
    SlideSpec(tile=256, codec="jpeg", tables=True),
    SlideSpec(tile=64, codec="jpeg"),
    SlideSpec(tile=256, codec="lzw"),
    SlideSpec(tile=256, codec="jpeg2000"),
]
ONLY_OURS = [SlideSpec(tile=128, codec="jpeg", layout="ome"), SlideSpec(tile=256, codec="webp")]
FILES = [*((spec, "openslide") for spec in SPECS), *((spec, "tiff") for spec in (*SPECS, *ONLY_OURS))]


@pytest.mark.parametrize(("spec", "backend"), FILES, ids=lambda one: getattr(one, "codec", one))
def test_full_resolution_is_what_the_reader_gives(tmp_path, spec, backend):
    """Bit for bit, whether the file's own JPEG is passed on or a PNG is made."""
    name = "slide.ome.tif" if spec.layout == "ome" else "slide.svs"
    path = write_slide(tmp_path / name, pyramid(synthetic_pixels(700, 520), (1, 4)), spec)

    with open_slide(path, mpp=0.25, backend=backend) as slide:
        found = whole_level(DeepZoom(slide), 0)

        assert np.array_equal(slide.read(Point(0, 0), slide.size_l0, slide.mpp), found)


def test_the_files_own_jpegs_are_passed_on(tmp_path):
    """Inner tiles cost no encoding and lose nothing; those over the border are cut."""
    path = write_slide(tmp_path / "slide.svs", [synthetic_pixels(700, 520)], SlideSpec(tile=256, codec="jpeg"))

    with open_slide(path) as slide:
        kinds = {DeepZoom(slide).tile(0, column, row).media_type for column in (0, 1) for row in (0, 1)}

        assert kinds == {"image/jpeg"}
        assert DeepZoom(slide).tile(0, 2, 0).media_type == "image/png"


def test_computed_levels_are_averages(tmp_path):
    """Each px is the mean of 2 x 2 of the next finer level, up to what JPEG changes."""
    smooth = np.asarray(Image.fromarray(synthetic_pixels(640, 512)).resize((640, 512)).reduce(4).resize((640, 512)))
    path = write_slide(tmp_path / "slide.svs", [smooth], SlideSpec(tile=256, codec="lzw"))

    with open_slide(path) as slide:
        found = whole_level(DeepZoom(slide), 1)

    expected = smooth.reshape(256, 2, 320, 2, 3).mean(axis=(1, 3))
    assert np.abs(found - expected).mean() < 2
    assert np.abs(found - expected).max() < 24


@given(
    side=st.integers(1, 300_000),
    ratio=st.floats(0.05, 20),
    downsamples=st.sampled_from([(1,), (1, 4), (1, 4, 16, 32), (1, 2, 4, 8), (1, 3.9), (1, 10), (1, 1.2)]),
)
def test_levels_have_no_gaps(side, ratio, downsamples):
    """Each is a reduction by less than 3 of the one before; the last is one tile; those of the file are among them."""
    height = max(1, round(side * ratio))
    files = [
        Level(Size(max(1, round(side / n)), max(1, round(height / n))), float(n), Size(256, 256), "JPEG")
        for n in downsamples
    ]

    levels = list(zoom_levels(files))

    steps = [b.downsample / a.downsample for a, b in pairwise(levels)]
    assert all(1 < step < 3 for step in steps)
    assert levels[-1].n_tiles == (1, 1)
    assert [level.native for level in levels if level.native is not None] == list(range(len(files)))


@pytest.mark.parametrize("tile", [256, 64])
def test_what_cannot_be_decoded_is_hatched(tmp_path, tile):
    """A browser would show half of a damaged JPEG without a word; all around it is there, on every level."""
    pixels = synthetic_pixels(768, 512)
    path = write_slide(tmp_path / "slide.svs", [pixels], SlideSpec(tile=tile, codec="jpeg"))
    corrupt_tile(path, 1)

    with open_slide(path) as slide:
        levels = [whole_level(DeepZoom(slide), level) for level in (0, 1)]
        with pytest.raises(UnreadableRegionError):
            slide.read(Point(tile, 0), Size(1, 1), slide.mpp)

    assert np.array_equal(levels[0][:tile, tile : 2 * tile], hatched(Size(tile, tile)))
    assert np.abs(levels[0][tile:].astype(int) - pixels[tile:]).mean() < 15
    reduced = pixels.reshape(256, 2, 384, 2, 3).mean(axis=(1, 3))
    red = levels[1][: tile // 2, tile // 2 : tile].astype(int)
    assert (red[..., 0] - red[..., 1]).mean() > 15
    assert np.abs(levels[1][tile // 2 :].astype(int) - reduced[tile // 2 :]).mean() < 15


@pytest.mark.parametrize("asked", [(-1, 0, 0), (99, 0, 0), (0, 3, 0), (0, 0, 3), (0, -1, 0), (0, 10**30, 0)])
def test_a_tile_that_is_not_there(tmp_path, asked):
    """An unknown level or tile is an error, never another tile."""
    path = write_slide(tmp_path / "slide.svs", [synthetic_pixels(700, 520)], SlideSpec(tile=256, codec="jpeg"))

    with open_slide(path) as slide, pytest.raises(IndexError, match="no "):
        DeepZoom(slide).tile(*asked)


def test_threads_get_the_same_tiles(tmp_path):
    """Computed tiles are shared between threads, and are those of one thread."""
    path = write_slide(tmp_path / "slide.svs", [synthetic_pixels(1500, 1200)], SlideSpec(tile=256, codec="jpeg"))
    with open_slide(path) as slide:
        expected = [DeepZoom(slide).tile(level, 0, 0).data for level in range(4)]
        zoom, found = DeepZoom(slide), []
        threads = [Thread(target=lambda: found.append([zoom.tile(i, 0, 0).data for i in range(4)])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == [expected] * 4


def test_memory_does_not_grow_with_the_slide(tmp_path):
    """Computed tiles are kept up to 48 MB, and the file's own up to 32 MB, however many are asked for."""
    path = write_tall_slide(tmp_path / "slide.svs", n_columns=12, n_rows=120)  # 280 MB of pixels, 70 of level 1

    with open_slide(path) as slide:
        zoom = DeepZoom(slide)
        columns, rows = zoom.levels[1].n_tiles

        def ask_for_all():
            for row in range(rows):
                for column in range(columns):
                    zoom.tile(1, column, row)

        peak = peak_bytes(ask_for_all)

    assert columns * rows * 256 * 256 * 3 > 70e6
    assert 50e6 < peak < 88e6


def test_a_png_is_lossless():
    """The encoder of exact tiles."""
    pixels = synthetic_pixels(100, 70)

    assert np.array_equal(pixels, imagecodecs.png_decode(imagecodecs.png_encode(pixels, level=1)))
