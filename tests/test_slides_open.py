"""Opening: who reads what, µm per pixel from every source, and one clear line for every file that is no sound slide."""

import os
import pickle
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from he2her2.errors import MppError, SlideError, SlideOpenError
from he2her2.geometry import Point, Size
from he2her2.slides import open_slide, slides_in
from he2her2.slides.tiff_header import FileBytes, TiffDamageError, check_directories
from tests.slide_files import (
    SlideSpec,
    pyramid,
    synthetic_pixels,
    truncated,
    write_huge_header,
    write_packbits,
    write_planar,
    write_slide,
)

LEVELS = pyramid(synthetic_pixels(208, 144), (1, 2))


def failure(path, **how):
    """The message of the error that opening raises; it is one line that names the slide."""
    with pytest.raises(SlideError) as caught:
        open_slide(path, **how)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{caught.value.slide_id}: ")
    assert caught.value.reason
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("layout", ["aperio", "generic", "subifd", "ome"])
def test_metadata_of_the_tiff_family(tmp_path, layout, byteorder, bigtiff):
    """Vendor, mpp and levels come out of every layout, classic and big, in both byte orders."""
    spec = SlideSpec(layout=layout, mpp=0.2498, byteorder=byteorder, bigtiff=bigtiff)
    path = write_slide(tmp_path / "a.tif", LEVELS, spec)

    with open_slide(path) as slide:
        assert slide.backend == "tiff"
        assert slide.vendor == {"aperio": "aperio", "ome": "ome"}.get(layout, "generic-tiff")
        assert slide.mpp == pytest.approx(0.2498, rel=1e-4)
        assert [(level.size, level.downsample) for level in slide.levels] == [(Size(208, 144), 1), (Size(104, 72), 2)]
        assert {(level.tile, level.codec) for level in slide.levels} == {(Size(64, 64), "JPEG")}


def test_the_users_mpp_outranks_the_files(tmp_path):
    """`mpp` is taken where it is given, as a number of Python whatever it was."""
    path, short = write_slide(tmp_path / "a.svs", LEVELS), np.float16(0.4)

    with open_slide(path, mpp=float(short)) as slide, open_slide(path, mpp=short) as half:  # type: ignore[arg-type]
        assert type(half.mpp) is float
        assert half.mpp == slide.mpp


@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_an_open_slide_stays_in_its_process(tmp_path, backend):
    """It is said what to do, in place of "cannot pickle '_thread.lock' object"."""
    path = write_slide(tmp_path / "a.svs", LEVELS)

    with open_slide(path, backend=backend) as slide, pytest.raises(TypeError, match=r"another process; open .*a\.svs"):
        pickle.dumps(slide)


@pytest.mark.parametrize("layout", ["aperio", "generic", "ome"])
def test_no_mpp_is_refused_with_the_option_that_helps(tmp_path, layout):
    """The message names --mpp and usual values."""
    path = write_slide(tmp_path / "a.tif", LEVELS, SlideSpec(layout=layout, mpp=None))

    message = failure(path)

    assert message == "a: no µm per pixel in its metadata; pass --mpp (a 40x scan is about 0.25, 20x about 0.5)"


@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_an_absurd_mpp_in_the_file_is_refused(tmp_path, backend):
    """250 µm a pixel is no microscope's (nm were written where µm belong)."""
    path = write_slide(tmp_path / "a.svs", LEVELS, SlideSpec(mpp=250))

    assert failure(path, backend=backend).startswith("a: its metadata say 250 x 250 µm per pixel, which no microscope")


@pytest.mark.parametrize("mpp", [0.0, -0.25, 250.0, float("nan"), float("inf")])
def test_an_absurd_given_mpp_is_refused(tmp_path, mpp):
    """The option's value is checked like the file's."""
    path = write_slide(tmp_path / "a.svs", LEVELS)

    assert "--mpp" in failure(path, mpp=mpp)


def test_a_screens_resolution_is_no_mpp(tmp_path):
    """72 dpi in resolution tags means that nobody knows."""
    path = write_slide(tmp_path / "a.tif", LEVELS, SlideSpec(layout="generic", mpp=25_400 / 72))

    assert "no µm per pixel" in failure(path)


def test_pixels_that_are_not_square_are_refused(tmp_path):
    """OME-XML states both directions; 0.25 x 0.5 µm has no single mpp."""
    path = write_slide(tmp_path / "a.ome.tif", LEVELS, SlideSpec(layout="ome"))
    path.write_bytes(path.read_bytes().replace(b'PhysicalSizeY="0.25"', b'PhysicalSizeY="0.50"'))

    message = failure(path)

    assert message.startswith("a: its pixels are not square (0.25 x 0.5 µm)")


def test_units_of_ome_are_converted(tmp_path):
    """Nanometres are µm / 1000."""
    path = write_slide(tmp_path / "a.ome.tif", LEVELS, SlideSpec(layout="ome"))
    old = b'PhysicalSizeX="0.25" PhysicalSizeY="0.25"'
    new = b'PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="250" PhysicalSizeYUnit="nm"'
    data = path.read_bytes()
    start = data.index(b"<?xml")
    text = data[start : data.index(b"</OME>") + 6]
    longer = text.replace(old, new)
    moved = len(data) + len(data) % 2
    data = data.ljust(moved, b"\0") + longer + b"\0"
    entry = data.index(struct.pack("<HHI", 270, 2, len(text) + 1))
    path.write_bytes(data[:entry] + struct.pack("<HHII", 270, 2, len(longer) + 1, moved) + data[entry + 12 :])

    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.25)


def test_hostile_ome_xml_is_refused(tmp_path):
    """Entity expansion in the description never runs."""
    path = write_slide(tmp_path / "a.ome.tif", LEVELS, SlideSpec(layout="ome"))
    bomb = b'<?xml version="1.0"?><!DOCTYPE O [<!ENTITY a "aaaa">]><OME>&a;</OME>'
    data = path.read_bytes()
    start, end = data.index(b"<?xml"), data.index(b"</OME>") + 6
    path.write_bytes(data[:start] + bomb[:-6] + b" " * (end - start - len(bomb)) + bomb[-6:] + data[end:])

    assert "OME metadata that cannot be read" in failure(path)


def test_a_missing_path(tmp_path):
    """The path is named."""
    assert failure(tmp_path / "gone.svs").startswith(f"gone: no file {tmp_path / 'gone.svs'}")


def test_a_folder_is_no_slide(tmp_path):
    """A folder of slides is for commands that take folders."""
    assert "is a folder" in failure(tmp_path)


def test_an_empty_file(tmp_path):
    """Copying failed."""
    (tmp_path / "a.svs").touch()

    assert failure(tmp_path / "a.svs") == "a: the file is empty; copy it again"


@pytest.mark.parametrize("backend", ["auto", "tiff", "openslide"])
def test_text_named_svs(tmp_path, backend):
    """Renamed text is called text, whoever is asked."""
    (tmp_path / "a.svs").write_text("slide_id,path\n1,b.svs\n")

    assert failure(tmp_path / "a.svs", backend=backend).startswith("a: is not a slide: it is text; ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a pointer of Git LFS, which stands for it; fetch it with git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html><body>Please log in</body></html>", "a web page; download it again"),
        (b"PK\x03\x04" + bytes(600), "a ZIP archive; unpack it"),
        (b"\x1f\x8b\x08" + bytes(600), "a gzip archive; unpack it"),
        (b"\xff\xd8\xff\xe0" + bytes(600), "a JPEG picture; convert it to a tiled RGB TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), "a PNG picture; convert it to a tiled RGB TIFF"),
    ],
)
def test_what_often_lies_where_a_slide_should_be(tmp_path, content, words):
    """Each has a remedy of its own, which is not to copy the file again."""
    (tmp_path / "a.svs").write_bytes(content)

    assert failure(tmp_path / "a.svs").startswith(f"a: is not a slide: it is {words}")


def test_a_link_to_nothing(tmp_path):
    """As git-annex leaves them, and disks that are not mounted."""
    (tmp_path / "a.svs").symlink_to("annex/objects/a.svs")

    assert failure(tmp_path / "a.svs") == (
        f"a: {tmp_path / 'a.svs'} is a link to annex/objects/a.svs, which is not there; copy or mount what it leads to"
    )


def test_a_big_tiff_ending_is_a_slides(tmp_path):
    """Bio-Formats names BigTIFF files .btf."""
    path = write_slide(tmp_path / "a.ome.btf", LEVELS, SlideSpec(layout="ome", bigtiff=True))

    assert slides_in(tmp_path) == [path]
    with open_slide(path) as slide:
        assert slide.slide_id == "a"


@pytest.mark.parametrize("backend", ["auto", "tiff", "openslide"])
def test_binary_rubbish(tmp_path, backend):
    """Bytes of no known format."""
    (tmp_path / "a.svs").write_bytes(bytes(range(256)) * 40)

    assert failure(tmp_path / "a.svs", backend=backend).startswith("a: ")


@pytest.mark.parametrize("backend", ["auto", "tiff", "openslide"])
def test_the_broken_real_slide(data_dir, backend):
    """The corrupt file of the field's test data."""
    assert failure(data_dir / "slides" / "broken.svs", backend=backend).startswith("broken: ")


@pytest.mark.parametrize("layout", ["aperio", "generic", "subifd", "ome"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.6, 0.95])
def test_a_file_cut_off_anywhere(tmp_path, layout, share):
    """Directories before the data or after them: the cut is found at once, and said."""
    path = write_slide(tmp_path / "a.tif", LEVELS, SlideSpec(layout=layout))

    assert "is cut short" in failure(truncated(path, share))


def test_a_real_slide_cut_off(data_dir, tmp_path):
    """A scanner's file, whose directories lie between the levels."""
    cut = tmp_path / "cut.svs"
    data = (data_dir / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    cut.write_bytes(data[: int(len(data) * 0.6)])

    assert "cut: is cut short" in failure(cut)


def test_how_much_is_missing_is_said(tmp_path):
    """Directories intact, tiles gone: the share of tiles is named."""
    path = write_slide(tmp_path / "a.svs", pyramid(synthetic_pixels(640, 640)), SlideSpec(codec="none"))
    cut = truncated(path, 0.6)

    assert failure(cut) == "cut: is cut short: 41 % of its tiles lie beyond its end; copy the file again"


@pytest.mark.parametrize("backend", ["auto", "tiff"])
def test_a_header_that_claims_a_terapixel(tmp_path, backend):
    """10^6 x 10^6 px are refused at once, by their number, before anything is allocated."""
    path = write_huge_header(tmp_path / "huge.tif")
    start = time.process_time()

    assert failure(path, backend=backend).startswith("huge: claims 1000000 x 1000000 px, more than any slide has; ")
    assert time.process_time() - start < 1


@pytest.mark.parametrize("backend", ["auto", "tiff"])
def test_a_header_that_claims_tiles_it_does_not_list(tmp_path, backend):
    """A size that passes for a slide's still needs its tile tables."""
    path = write_huge_header(tmp_path / "huge.tif", side=200_000)

    assert "its table lists 1 tiles" in failure(path, backend=backend)


def test_directories_that_lead_in_a_circle_end(tmp_path):
    """The last directory points to the first: the walk stops, and nothing is wrong with what was seen."""
    path = write_slide(tmp_path / "a.tif", LEVELS[:1], SlideSpec(layout="generic", codec="none"))
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (n,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * n, first)
    path.write_bytes(data)
    file = FileBytes(path)

    check_directories(file)

    file.close()


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_no_cut_of_a_header_escapes(tmp_path, cut):
    """However short the file, the walk ends in its own error."""
    path = write_slide(tmp_path / "a.tif", LEVELS[:1], SlideSpec(layout="generic"))
    (tmp_path / "b.tif").write_bytes(path.read_bytes()[:cut])
    file = FileBytes(tmp_path / "b.tif")

    with pytest.raises(TiffDamageError):
        check_directories(file)

    file.close()


def test_flipped_bytes_in_the_header_never_crash(tmp_path):
    """Any single damaged byte of the directory gives a slide, or one of our errors: never another exception."""
    path = write_slide(tmp_path / "a.tif", LEVELS[:1], SlideSpec(layout="aperio"))
    data = path.read_bytes()
    (first,) = struct.unpack_from("<I", data, 4)
    for position in range(first, first + 230, 3):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            open_slide(path).close()
        except (SlideOpenError, MppError):
            continue


@pytest.mark.parametrize("pixels", [LEVELS[0][..., 0], LEVELS[0].astype(np.uint16)], ids=["grey", "16-bit"])
def test_what_is_no_rgb_of_8_bits_is_refused(tmp_path, pixels):
    """The TIFF reader says what it found."""
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), metadata=None)

    assert failure(tmp_path / "a.tif", backend="tiff", mpp=0.25).startswith("a: the TIFF reader does not understand it")


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_planar_colour_has_the_stored_pixels(tmp_path, compression, predictor):
    """Red, green and blue apart are read by the fast reader, as OpenSlide reads them."""
    path = write_planar(tmp_path / "a.tif", LEVELS[0], compression, predictor=predictor and compression is not None)

    with open_slide(path, mpp=0.25) as ours, open_slide(path, mpp=0.25, backend="openslide") as theirs:
        assert ours.backend == "tiff"
        for slide in (ours, theirs):
            assert (slide.read(Point(0, 0), Size(208, 144), 0.25) == LEVELS[0]).all()


def test_auto_leaves_to_openslide_what_the_tiff_reader_refuses(tmp_path):
    """PackBits is read by OpenSlide."""
    path = write_packbits(tmp_path / "a.tif", LEVELS[0])

    assert "it is stored as compression 32773" in failure(path, backend="tiff", mpp=0.25)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.backend == "openslide"
        assert (slide.read(Point(0, 0), Size(208, 144), 0.25) == LEVELS[0]).all()


def test_an_unknown_backend_is_the_callers_bug(tmp_path):
    """There are two, and auto."""
    path = write_slide(tmp_path / "a.svs", LEVELS)

    with pytest.raises(ValueError, match="backend must be"):
        open_slide(path, backend="vips")  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["um", "\\u00B5m", "micron", "mm"])
def test_the_scale_that_imagej_states(tmp_path, unit):
    """In its description, where the tag of the unit has none."""
    per_unit = 4000 if unit == "mm" else 4
    pixels = np.full((300, 400, 3), 200, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})

    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp == pytest.approx(0.25)


@pytest.mark.parametrize("backend", ["auto", "openslide"])
@pytest.mark.parametrize("first", [3, 4])
def test_openslide_does_not_take_a_small_first_image_for_the_slide(tmp_path, backend, first):
    """Neither of another picture nor of an overview; the same file with the slide first is opened."""
    slide = synthetic_pixels(512, 384)
    small = pyramid(slide, (first,))[0] if first == 4 else synthetic_pixels(128, 128, seed=5)
    how: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "extrasamples": ["unassalpha"], "metadata": None}
    for name, images in (("a.tif", (small, slide)), ("b.tif", (slide, small))):
        with tifffile.TiffWriter(tmp_path / name) as tiff:
            for image in images:
                tiff.write(np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]), **how)

    with pytest.raises(SlideOpenError, match=r"a: its first image, .* and another 512 x 384; convert"):
        open_slide(tmp_path / "a.tif", mpp=0.25, backend=backend)
    with open_slide(tmp_path / "b.tif", mpp=0.25, backend=backend) as opened:
        assert opened.size_l0 == (512, 384)


def test_a_folder_whose_name_is_no_text_is_named(tmp_path):
    """Of an archive in another encoding: the slide's own name is all right, and renaming it would not help."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Gr\xf6\xdfe"))
    folder.mkdir()
    (folder / "a.svs").write_text("a slide")

    said = failure(folder / "a.svs")

    assert "the name of its folder '" in said
    assert "Gr\\udcf6\\udcdfe' cannot be written" in said
    assert said.isprintable()
