"""Absent compressed tiles: glass on glass, lost and counted inside the tissue."""

from typing import Any

import numpy as np
import pytest
import tifffile

from he2her2.errors import DamagedSlideError, SlideOpenError, UnreadableRegionError
from he2her2.geometry import Point, Size, TileGrid
from he2her2.slides import inspect_slide, open_slide, stream_tiles
from tests.slide_files import SlideSpec, drop_tiles, pyramid, write_dicom, write_packbits, write_slide

SIDE = 64
GLASS = (243, 240, 243)
ON_GLASS, IN_TISSUE = [0, 1, 8, 79], [34, 35, 44, 45]


def section(w=640, h=512, box=(160, 128, 480, 384)):
    """(h, w, 3) glass with a stained rectangle `box` (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box
    pixels = np.full((h, w, 3), GLASS, np.uint8)
    grain = np.random.default_rng(0).integers(-20, 21, (y1 - y0, x1 - x0, 1))
    pixels[y0:y1, x0:x1] = np.clip(np.array((190, 110, 160)) + grain, 0, 255)
    return pixels


def slide_at(path, downsamples=(1, 4), codec="jpeg", absent=(), pixels=None, **dropped):
    """A slide of a section with tiles of level 0 (and of further pages) left out."""
    write_slide(path, pyramid(section() if pixels is None else pixels, downsamples), SlideSpec(codec))
    drop_tiles(path, absent)
    for page, indices in dropped.items():
        drop_tiles(path, indices, page=int(page.removeprefix("level_")))
    return path


def tile_at(slide, index, columns=10):
    """Read one compressed tile of level 0."""
    row, column = divmod(index, columns)
    return slide.read(Point(column * SIDE, row * SIDE), Size(SIDE, SIDE), slide.mpp)


@pytest.mark.parametrize("downsamples", [(1, 4), (1, 2, 4), (1,)])
@pytest.mark.parametrize("codec", ["jpeg", "zlib"])
def test_absent_tiles_are_glass_on_glass_and_unreadable_in_tissue(tmp_path, downsamples, codec):
    """Another level tells which; on a slide of one level, what surrounds the gap."""
    path = slide_at(tmp_path / "a.svs", downsamples, codec, absent=ON_GLASS + IN_TISSUE)

    with open_slide(path) as slide:
        assert slide.metadata.absent_tiles == 8
        assert all((tile_at(slide, index) == 255).all() for index in ON_GLASS)
        for index in IN_TISSUE:
            with pytest.raises(UnreadableRegionError, match="absent inside the tissue"):
                tile_at(slide, index)
        assert slide.cautions == ("4 compressed tiles are absent inside the tissue; copy or scan the file again",)


@pytest.mark.parametrize("downsamples", [(1, 4), (1,)])
def test_a_stream_counts_absent_tissue_as_unreadable(tmp_path, downsamples):
    """Prediction reads by streams: the tiles are missing there by their number, not white."""
    path = slide_at(tmp_path / "a.svs", downsamples, absent=ON_GLASS + IN_TISSUE)
    origins = np.array([(column * SIDE, row * SIDE) for row in range(8) for column in range(10)])

    with open_slide(path) as slide, stream_tiles(slide, TileGrid(origins, SIDE, SIDE, slide.mpp)) as stream:
        read = np.concatenate([batch.index for batch in stream])

        assert stream.unreadable.tolist() == IN_TISSUE
        assert len(read) == 76


def test_a_gap_that_is_larger_than_what_surrounds_it(tmp_path):
    """Half of the section is gone on a slide of one level: the gap as a whole is lost, the glass beside it too."""
    gone = [row * 10 + column for row in range(2, 6) for column in range(3, 6)]
    path = slide_at(tmp_path / "a.svs", (1,), absent=gone)

    with open_slide(path) as slide:
        assert len(slide.lost_rects(0)) == len(gone)


def test_glass_that_a_scanner_left_out_around_a_section(tmp_path):
    """Everything but the tiles of the tissue is absent: a good slide, without a word."""
    stored = {row * 10 + column for row in range(2, 6) for column in range(2, 8)}
    pixels = section(box=(150, 140, 500, 372))
    path = slide_at(tmp_path / "a.svs", (1,), absent=sorted(set(range(80)) - stored), pixels=pixels)

    with open_slide(path) as slide:
        assert slide.cautions == ()
        assert (slide.thumbnail(4.0)[:5] == 255).all()


def test_a_thumbnail_without_its_tissue_is_refused(tmp_path):
    """A small section on much glass: its tiles are under 1 % of the slide, and a quarter of the tissue."""
    path = write_slide(tmp_path / "a.svs", [section(2560, 2048, (640, 640, 896, 768))])
    drop_tiles(path, [411, 412])

    with open_slide(path) as slide, pytest.raises(DamagedSlideError, match=r"a: 2\d\.\d % of its tissue is absent"):
        slide.thumbnail(4.0)


def test_absent_tiles_of_the_level_that_masks_are_read_from(tmp_path):
    """Level 0 is whole, a reduced level is not: it is refused where it would be used."""
    path = slide_at(tmp_path / "a.svs", level_1=[4])

    with open_slide(path) as slide, pytest.raises(DamagedSlideError, match="cannot be decoded"):
        slide.thumbnail(4.0)


def test_a_slide_without_any_tile_is_refused(tmp_path):
    """There are no pixels, and it is not blank glass."""
    path = slide_at(tmp_path / "a.svs", absent=range(80))

    with pytest.raises(SlideOpenError, match="a: holds no pixels: all 80 compressed tiles of its level 0 are absent"):
        open_slide(path)


def test_inspect_tells_lost_tiles_from_glass(tmp_path):
    """Both numbers, and what to do about each."""
    report = inspect_slide(slide_at(tmp_path / "a.svs", absent=ON_GLASS + IN_TISSUE))

    assert [(problem.found, problem.remedy) for problem in report.problems] == [
        ("4 compressed tiles are absent inside the tissue", "copy or scan the file again"),
        ("8 compressed tiles are absent, 4 of them on glass", "none needed: they are read as white"),
    ]


# Files that only OpenSlide reads, which makes absent tiles transparent


def test_openslide_alone_tells_lost_tissue_from_glass(tmp_path):
    """By what surrounds a gap; and it says so."""
    path = drop_tiles(write_packbits(tmp_path / "a.tif", section()), ON_GLASS + IN_TISSUE)

    with open_slide(path, mpp=0.25) as slide:
        assert slide.backend == "openslide"
        assert all((tile_at(slide, index) == 255).all() for index in ON_GLASS)
        for index in IN_TISSUE:
            with pytest.raises(UnreadableRegionError, match="absent inside the tissue"):
                tile_at(slide, index)
        assert slide.cautions == ("4 compressed tiles are absent inside the tissue; copy or scan the file again",)
        with pytest.raises(DamagedSlideError, match=r"of its tissue is absent|cannot be decoded"):
            slide.thumbnail(0.5)


def test_openslide_alone_looks_at_the_coarse_level(tmp_path):
    """A gap of level 0 at its border is lost where the coarse level shows tissue, and glass where that shows glass."""
    pixels = section(box=(0, 0, 320, 512))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(pyramid(pixels, (1, 4))):
            how: dict[str, Any] = {"subfiletype": 1} if i else {}
            tiff.write(level, tile=(64, 64), photometric="rgb", compression="packbits", metadata=None, **how)
    drop_tiles(path, [20, 19])

    with open_slide(path, mpp=0.25) as slide:
        assert (slide.backend, len(slide.levels), slide.cautions) == ("openslide", 2, ())
        assert (tile_at(slide, 19) == 255).all()
        with pytest.raises(UnreadableRegionError, match="absent inside the tissue"):
            tile_at(slide, 20)


def test_openslide_alone_reads_sound_slides_as_before(tmp_path):
    """All but the tiles of the tissue are absent, as some scanners write; and nothing is said."""
    stored = {row * 10 + column for row in range(2, 6) for column in range(2, 8)}
    pixels = section(box=(150, 140, 500, 372))
    path = drop_tiles(write_packbits(tmp_path / "a.tif", pixels), sorted(set(range(80)) - stored))

    with open_slide(path, mpp=0.25) as slide:
        assert slide.cautions == ()
        assert (slide.thumbnail(4.0)[:5] == 255).all()
        assert not (tile_at(slide, 34) == 255).any()


# Pixels that are stored, but are blank: as converters fill what they lack, and as OpenSlide shows what is absent


def whole_grid(slide, side=128):
    """Tiles side by side."""
    w, h = slide.size_l0
    origins = np.array([(x, y) for y in range(0, h, side) for x in range(0, w, side)])
    return TileGrid(origins, side, side, slide.mpp)


def unreadable(path, backend="auto"):
    """Positions of the tiles of 128 px that a stream leaves out."""
    with open_slide(path, backend=backend) as slide, stream_tiles(slide, whole_grid(slide)) as stream:
        read = np.concatenate([batch.index for batch in stream])
        assert len(read) + len(stream.unreadable) == len(whole_grid(slide))
        return stream.unreadable.tolist()


def blanked(path, colour, downsamples=(1, 4), codec="jpeg"):
    """A slide whose level 0 alone is of one colour in one tile inside the tissue and in one on glass."""
    levels = pyramid(section(), downsamples)
    levels[0] = levels[0].copy()
    levels[0][256:384, 256:384] = levels[0][:128, :128] = colour
    return write_slide(path, levels, SlideSpec(codec))


@pytest.mark.parametrize("backend", ["tiff", "openslide"])
@pytest.mark.parametrize("colour", [255, 240, 0])
def test_tissue_that_only_coarse_levels_show_is_unreadable(tmp_path, backend, colour):
    """It would be scored as glass; what is blank on glass stays readable."""
    assert unreadable(blanked(tmp_path / "a.svs", colour), backend) == [12]


def test_frames_that_dicom_lacks_in_the_tissue_are_unreadable(tmp_path):
    """OpenSlide shows them as glass, and leaves none out of the coarse level."""
    levels = pyramid(section(), (1, 4))
    for name, absent in (("sound", ON_GLASS), ("lossy", [*ON_GLASS, 44, 45, 54, 55])):
        path = write_dicom(tmp_path / name / "0.dcm", levels[0], 0.25, absent=absent)
        write_dicom(tmp_path / name / "1.dcm", levels[1], 1.0, instance=2)

        assert unreadable(path) == ([12] if name == "lossy" else [])


@pytest.mark.parametrize("downsamples", [(1, 2), (1, 16), (1, 2, 4, 8)])
def test_any_coarser_level_shows_it(tmp_path, downsamples):
    """One that is hardly coarser, and one whose px are as large as nuclei."""
    assert unreadable(blanked(tmp_path / "a.svs", 255, downsamples)) == [12]


def test_tissue_in_grey_is_tissue(tmp_path):
    """Brown and blue of IHC average to grey on a coarse level: there, its texture tells it from glass."""
    levels = [np.repeat(level.mean(axis=2, keepdims=True), 3, axis=2) for level in pyramid(section(), (1, 4))]
    y, x = np.mgrid[:128, :160]
    levels[1] += np.where((levels[1] < 200) & ((y + x) % 4 < 2)[..., None], 60, 0)
    levels[0][256:384, 256:384] = 255

    assert unreadable(write_slide(tmp_path / "a.svs", [level.astype(np.uint8) for level in levels])) == [12]


@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_a_level_0_without_most_of_its_tissue_keeps_the_levels_that_show_it(tmp_path, backend):
    """They are right, though most of level 0 contradicts them; without them, nothing would tell."""
    levels = pyramid(section(), (1, 4))
    levels[0] = levels[0].copy()
    levels[0][:, :384] = 255
    path = write_slide(tmp_path / "a.svs", levels)

    assert unreadable(path, backend) == [6, 7, 11, 12]


def test_what_is_blank_on_every_level_is_no_loss(tmp_path):
    """Lumina, fat and glass beside tissue, clear at level 0: nothing contradicts them; nor do pale tissue and ink."""
    pixels = section()
    pixels[140:250, 170:290] = 255
    pixels[256:300, 256:300] = pixels[320:340, 300:330] = 250
    pixels[300:380, 400:480] = (235, 225, 233)
    pixels[200:240, 400:440] = (20, 40, 90)
    write_slide(tmp_path / "a.svs", pyramid(pixels, (1, 2, 4, 8)), SlideSpec(quality=30))

    assert unreadable(tmp_path / "a.svs") == []


def test_glass_that_a_scanner_left_out_is_no_loss(tmp_path):
    """It is white where it was left out, and grey on the coarse level."""
    levels = pyramid(section(), (1, 4))
    grey = np.where((levels[1] == GLASS).all(axis=2, keepdims=True), np.uint8(215), levels[1])
    path = write_slide(tmp_path / "a.svs", [levels[0], grey], SlideSpec())
    drop_tiles(path, ON_GLASS)

    assert unreadable(path) == []


def test_inspect_finds_blank_tissue(tmp_path):
    """Among the tiles that it decodes."""
    levels = pyramid(section(), (1, 4))
    whole = write_slide(tmp_path / "b.svs", levels, SlideSpec(tile=128))
    levels[0][256:384, 256:384] = 255
    path = write_slide(tmp_path / "a.svs", levels, SlideSpec(tile=128))

    assert inspect_slide(whole, n_check=None).problems == ()
    (problem,) = inspect_slide(path, n_check=None).problems
    assert problem.found == "1 of 22 compressed tiles are blank where a coarser level shows tissue"
