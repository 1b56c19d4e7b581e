"""Both backends behind one protocol: equal pixels, damage that stays where it is, files let go."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from he2her2.errors import DamagedSlideError, UnreadableRegionError
from he2her2.geometry import Point, Size, mask_size
from he2her2.slides import open_slide
from he2her2.slides.levels import Rect
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, synthetic_pixels, write_slide

W, H = 704, 528
BOTH = ("tiff", "openslide")
MPPS = (0.25, 0.23, 0.5, 1.0, 0.2, 0.4, 0.8, 3.0, 8.0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """One slide opened by both backends; three levels, a border of partial tiles."""
    path = tmp_path_factory.mktemp("pair") / "pair.svs"
    write_slide(path, pyramid(synthetic_pixels(W, H), (1, 2, 4)), SlideSpec(tables=True))
    with open_slide(path, backend="tiff") as tiff, open_slide(path, backend="openslide") as openslide:
        yield tiff, openslide


@given(
    x=st.integers(-200, W + 200),
    y=st.integers(-200, H + 200),
    w=st.integers(1, 150),
    h=st.integers(1, 150),
    mpp=st.sampled_from(MPPS),
)
@settings(max_examples=120)
def test_both_backends_read_the_same_bits(pair, x, y, w, h, mpp):
    """Aligned or not, at or beyond the border, native or resampled, at every level."""
    tiff, openslide = (slide.read(Point(x, y), Size(w, h), mpp) for slide in pair)

    assert tiff.shape == (h, w, 3)
    assert np.array_equal(tiff, openslide)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("column", [0, 1, 10])
def test_whole_compressed_tiles_are_the_same(pair, level, column):
    """The aligned fast path gives what OpenSlide gives, also for the last column."""
    rect = Rect(column * 64, 64, 64, 64)
    tiff, openslide = (slide.read_level(level, rect) for slide in pair)

    assert np.array_equal(tiff, openslide)


@pytest.mark.parametrize("mpp", MPPS)
def test_thumbnails_are_the_same_and_are_reads(pair, mpp):
    """A thumbnail, made in strips, is `read` from the corner over the mask's size, with either backend."""
    tiff, openslide = pair
    size = mask_size(tiff.size_l0, tiff.effective_mpp(mpp) / tiff.mpp)

    thumbnail = tiff.thumbnail(mpp)

    assert np.array_equal(thumbnail, tiff.read(Point(0, 0), size, mpp))
    assert np.array_equal(thumbnail, openslide.thumbnail(mpp))


@pytest.mark.parametrize(
    ("layout", "codec", "more"),
    [
        *[("aperio", codec, {}) for codec in ("jpeg", "jpeg-rgb", "jpeg2000", "jpeg2000-ycbcr", "lzw", "zlib", "none")],
        *[("generic", codec, {}) for codec in ("jpeg", "jpeg-rgb", "lzw", "zlib", "none")],
        *[("aperio", codec, {"predictor": True}) for codec in ("lzw", "zlib")],
        *[("aperio", codec, {"tables": True}) for codec in ("jpeg", "jpeg-rgb")],
        ("generic", "jpeg", {"bigtiff": True, "tile": 96, "tables": True}),
    ],
)
def test_every_codec_gives_openslides_bits(tmp_path, layout, codec, more):
    """Every kind of file that both open has the same pixels at every level."""
    path = write_slide(
        tmp_path / "slide.svs", pyramid(synthetic_pixels(208, 144), (1, 2)), SlideSpec(codec, layout, **more)
    )

    with open_slide(path) as ours, open_slide(path, backend="openslide") as theirs:
        assert ours.backend == "tiff"
        for level, size in enumerate(slide_level.size for slide_level in theirs.levels):
            rect = Rect(-7, -9, size.w + 20, size.h + 20)
            assert np.array_equal(ours.read_level(level, rect), theirs.read_level(level, rect))


@pytest.mark.parametrize(
    ("layout", "codec", "tile"),
    [
        *product(("subifd", "ome"), ("jpeg", "lzw", "jpeg2000", "webp"), (64,)),
        *product(("generic",), ("none", "zlib"), (0,)),
    ],
)
def test_files_that_openslide_cannot_open_are_read(tmp_path, layout, codec, tile):
    """Sub-directories, OME-TIFF, WebP and strips: lossless codecs give the very pixels, others nearly."""
    levels = pyramid(synthetic_pixels(208, 144), (1, 2))
    path = write_slide(tmp_path / "slide.tif", levels, SlideSpec(codec, layout, tile=tile))

    with open_slide(path) as slide:
        for i, level in enumerate(slide.levels):
            difference = slide.read_level(i, Rect(0, 0, *level.size)).astype(int) - levels[i]
            assert np.abs(difference).mean() < (12 if codec in ("jpeg", "jpeg2000", "webp") else 1e-9)
        assert len(slide.levels) == (2 if tile else 1)


def test_opening_many_at_a_time_leaves_the_error_stream(pair):
    """Each closes it for a moment; whoever came second took the closed one for that of the process."""
    path, before = pair[0].path, os.fstat(2)

    def look(_):
        with open_slide(path, backend="openslide") as slide:
            return slide.size_l0

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(look, range(100)))) == 1

    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)


def test_the_border_is_white_not_padding(pair):
    """The black that fills the last compressed tiles never shows."""
    corner = pair[0].read(Point(W - 2, H - 2), Size(4, 4), 0.25)

    assert (corner[2:] == 255).all()
    assert (corner[:, 2:] == 255).all()
    assert not (corner[:2, :2] == 255).all()


@pytest.mark.parametrize("backend", BOTH)
def test_a_damaged_tile_is_an_error_and_the_rest_stays_readable(tmp_path, backend):
    """The read that touches it says so; every other region is as before, in any order."""
    path = write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(320, 256)))
    with open_slide(path) as intact:
        expected = intact.read(Point(128, 128), Size(128, 128), 0.25)
    corrupt_tile(path, index=0)

    with open_slide(path, backend=backend) as slide:
        for _ in range(2):
            with pytest.raises(UnreadableRegionError, match=r"d: level 0.* cannot be decoded"):
                slide.read(Point(10, 10), Size(30, 30), 0.25)
            assert np.array_equal(expected, slide.read(Point(128, 128), Size(128, 128), 0.25))


@pytest.mark.parametrize("backend", BOTH)
def test_a_damaged_tile_does_not_disturb_other_threads(tmp_path, backend):
    """While some threads hit the damage, the others get their pixels."""
    path = write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(320, 256)))
    with open_slide(path) as intact:
        expected = [intact.read(Point(64 * i, 64), Size(64, 64), 0.25) for i in range(5)]
    corrupt_tile(path, index=0)

    def read(i):
        if i % 6 == 5:
            with pytest.raises(UnreadableRegionError):
                slide.read(Point(0, 0), Size(64, 64), 0.25)
            return True
        return np.array_equal(expected[i % 6], slide.read(Point(64 * (i % 6), 64), Size(64, 64), 0.25))

    with open_slide(path, backend=backend) as slide, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(60)))


@pytest.mark.parametrize("backend", BOTH)
def test_thumbnails_forgive_one_percent(tmp_path, backend):
    """One damaged tile of 130 is white in the thumbnail; all else is as it was."""
    path = write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(832, 640)))
    with open_slide(path) as intact:
        expected = intact.thumbnail(4.0)
    corrupt_tile(path, index=0)

    with open_slide(path, backend=backend) as slide:
        thumbnail = slide.thumbnail(4.0)

    assert (thumbnail[:2, :2] > 250).all()
    assert np.array_equal(expected[8:], thumbnail[8:])


@pytest.mark.parametrize("backend", BOTH)
def test_thumbnails_refuse_more_damage(tmp_path, backend):
    """Two of 130 tiles are more than 1 %: the slide fails with the share."""
    path = write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(832, 640)))
    for index in (0, 70):
        corrupt_tile(path, index)

    with open_slide(path, backend=backend) as slide, pytest.raises(DamagedSlideError, match=r"d: 1\.5 % of its pixels"):
        slide.thumbnail(4.0)


@pytest.mark.parametrize("backend", BOTH)
def test_a_closed_slide_is_the_callers_bug(tmp_path, backend):
    """Reading after closing raises ValueError; closing twice does nothing."""
    slide = open_slide(write_slide(tmp_path / "s.svs", pyramid(synthetic_pixels(128, 128))), backend=backend)
    slide.close()
    slide.close()

    with pytest.raises(ValueError, match="closed"):
        slide.read(Point(0, 0), Size(10, 10), 0.25)


def test_an_empty_region_is_the_callers_bug(pair):
    """A region has at least one px."""
    with pytest.raises(ValueError, match="at least 1 x 1"):
        pair[0].read(Point(0, 0), Size(0, 5), 0.25)


@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", None), ("tcga-cr-7395-01a-01-ts1.svs", 0.5)])
@settings(max_examples=15)
@given(
    x=st.integers(-300, 2300),
    y=st.integers(-300, 3000),
    side=st.integers(1, 400),
    factor=st.sampled_from([1, 0.5, 1.7]),
)
def test_real_slides_have_openslides_bits(data_dir, name, mpp, x, y, side, factor):
    """JPEG and JPEG 2000 slides from scanners, native and resampled from level 0."""
    path = data_dir / "slides" / name

    with open_slide(path, mpp=mpp) as ours, open_slide(path, mpp=mpp, backend="openslide") as theirs:
        region = Point(x, y), Size(side, side), ours.mpp * factor
        assert ours.backend == "tiff"
        assert np.array_equal(ours.read(*region), theirs.read(*region))


def test_real_pictures_are_the_same(data_dir, tmp_path, monkeypatch):
    """Label, macro and thumbnail of an Aperio slide, in JPEG and LZW strips, from another working folder, too."""
    monkeypatch.chdir(data_dir / "slides")
    path = "CMU-1-Small-Region.svs"

    with open_slide(path) as ours, open_slide(path, backend="openslide") as theirs:
        monkeypatch.chdir(tmp_path)
        assert set(ours.associated) == set(theirs.associated) == {"label", "macro", "thumbnail"}
        assert all(np.array_equal(ours.associated[name], theirs.associated[name]) for name in ours.associated)


def test_a_real_ome_tiff_is_read(data_dir):
    """OpenSlide cannot open this one; its mpp stands in OME-XML."""
    with open_slide(data_dir / "slides" / "OS-1-detail.ome.tif") as slide:
        assert (slide.vendor, slide.size_l0) == ("ome", Size(1101, 1101))
        assert slide.mpp == pytest.approx(0.2271, abs=1e-4)
        pixels = slide.read(Point(0, 0), Size(1101, 1101), 0.25)

    theirs = tifffile.imread(data_dir / "slides" / "OS-1-detail.ome.tif")
    assert np.abs(pixels.astype(int) - theirs).max() <= 1  # the TIFF says RGB, its JFIF tiles are YCbCr, and right
