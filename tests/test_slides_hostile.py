"""Files that ask for more time or memory than a slide does, and pixels that no reader takes for a stained slide."""

import os
import struct
import time
import tracemalloc
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from he2her2.errors import SlideError, UnreadableRegionError
from he2her2.geometry import Point, Size
from he2her2.slides import open_slide
from he2her2.slides.backend_openslide import OpenSlideSlide
from he2her2.slides.codecs import DecodeError, make_decoder
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, synthetic_pixels, write_slide

PIXELS = synthetic_pixels(256, 192)
JPEG, JPEG_2000, DEFLATE, RGB = 7, 34712, 8, 2
VMS = b"[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile=a.jpg\nMapFile=b.jpg\n"


def refusal(path, **how):
    """The line that opening ends with, soon and in little memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(SlideError) as caught:
            open_slide(path, **how)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5
    assert str(caught.value).isprintable()
    return str(caught.value)


def header(path, w, h, tile_w, tile_h, n=1):
    """A TIFF whose directory claims a size and lists `n` tiles of a few bytes."""
    tags = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, 1, 8), (259, 3, 1, DEFLATE), (262, 3, 1, RGB), (277, 3, 1, 3)]
    tags += [(322, 4, 1, tile_w), (323, 4, 1, tile_h)]
    data = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags += [(324, 4, n, data), (325, 4, n, data + 4 * n)] if n > 1 else [(324, 4, 1, 8), (325, 4, 1, 4)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    tables = struct.pack("<I", 8) * n + struct.pack("<I", 4) * n if n > 1 else b""
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(4) + tables)
    return path


def test_tiles_that_are_too_large_to_read_regions(tmp_path):
    """8192 x 8192 px are 200 MB for each tile and thread."""
    path = header(tmp_path / "a.tif", 100_000, 100_000, 8192, 8192, 169)

    assert "a: has tiles of 8192 x 8192 px, too large" in refusal(path, mpp=0.25)


@pytest.mark.parametrize(("w", "h"), [(1, 2_000_000_000), (67_000_000, 1000)])
def test_images_longer_than_any_slide(tmp_path, w, h):
    """One px wide, or one row of a kilometre."""
    assert "more than any slide has" in refusal(header(tmp_path / "a.tif", w, h, 256, 256), mpp=0.25)


def test_a_slide_whose_smallest_level_cannot_be_seen_as_a_whole(tmp_path):
    """10^11 px without a pyramid, whose tiles are absent but for one."""
    path = header(tmp_path / "a.tif", 300_000, 300_000, 512, 512, 586 * 586)

    assert "a: has 300000 x 300000 px on its smallest level" in refusal(path, mpp=0.25)


def xml(**sizes):
    """OME-XML that claims sizes."""
    claimed = {"SizeX": 256, "SizeY": 192, "SizeC": 3, "SizeZ": 1, "SizeT": 1} | sizes
    text = " ".join(f'{name}="{size}"' for name, size in claimed.items())
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="P" DimensionOrder="XYCZT" Type="uint8" {text} PhysicalSizeX="0.25" PhysicalSizeY="0.25">'
        '<Channel ID="C" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({"SizeX": 999_999_999, "SizeY": 999_999_999}, "claim 999999999 x 999999999 px for an image of 256 x 192"),
        ({"SizeZ": 50_000_000}, "claim 50000000 planes, where the file has 1"),
        ({"SizeC": 300_000_000}, "claim 100000000 planes, where the file has 1"),
        ({"SizeT": "1" * 400}, ""),
    ],
)
def test_sizes_in_ome_xml_are_not_believed(tmp_path, sizes, found):
    """They are held against the directories before anything is allocated; numbers of 400 digits are none."""
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS, tile=(64, 64), photometric="rgb", description=xml(**sizes), metadata=None)

    if found:
        assert found in refusal(path)
    else:
        open_slide(path).close()


def test_ome_xml_that_names_directories_which_are_not_there(tmp_path):
    """IFD 999 999 of one."""
    text = xml().replace('IFD="0"', 'IFD="999999"')
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, tile=(64, 64), photometric="rgb", description=text, metadata=None)

    assert "name no image in it" in refusal(tmp_path / "a.ome.tif")


def test_a_thousand_directories_are_no_slide(tmp_path):
    """Counts are bounded."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for _ in range(1001):
            tiff.write(PIXELS[:16, :16], tile=(16, 16), photometric="rgb", metadata=None)

    assert "holds 1001 images, more than any slide" in refusal(tmp_path / "a.tif", mpp=0.25)


def test_control_characters_do_not_reach_messages(tmp_path):
    """Names in the XML are shown as escapes."""
    names = "".join(f'<Channel ID="C{i}" Name="a\x85b{i}"/>' for i in range(3))
    text = xml().replace('<Channel ID="C" SamplesPerPixel="3"/>', names).replace('PlaneCount="1"', 'PlaneCount="3"')
    path = tmp_path / "a.ome.tif"
    how: dict[str, Any] = {"tile": (64, 64), "photometric": "minisblack", "metadata": None}
    tifffile.imwrite(path, np.moveaxis(PIXELS, 2, 0), description=text.encode(), **how)

    assert "its channels are a\\x85b0" in refusal(path)


def test_a_header_in_the_wrong_place_is_no_header():
    """A decoy before the codestream: the decoder would allocate what the real one claims."""
    decoy = bytes(imagecodecs.jpeg2k_encode(PIXELS[:64, :64], codecformat="j2k"))
    huge = bytearray(imagecodecs.jpeg2k_encode(PIXELS[:64, :64], codecformat="jp2"))
    start = huge.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">2I", huge, start + 8, 60_000, 60_000)
    box = struct.pack(">I4s", 8 + len(decoy), b"free") + decoy
    data = bytes(huge[:12]) + box + bytes(huge[12:])
    out = np.empty((64, 64, 3), np.uint8)

    with pytest.raises(DecodeError, match="a JPEG 2000 of 60000 x 60000 px"):
        make_decoder(JPEG_2000, RGB, 1, None)(data, out)
    with pytest.raises(DecodeError, match="not a JPEG 2000 codestream"):
        make_decoder(JPEG_2000, RGB, 1, None)(b"xx" + decoy, out)


def test_a_jpeg_of_thousands_of_scans_is_damaged():
    """Each scan goes over the whole tile again."""
    jpeg = bytes(imagecodecs.jpeg8_encode(PIXELS[:64, :64]))
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    out = np.empty((64, 64, 3), np.uint8)

    with pytest.raises(DecodeError, match="a JPEG of 3001 scans"):
        make_decoder(JPEG, 6, 1, None)(jpeg[:-2] + scan * 3000 + b"\xff\xd9", out)


def test_pictures_after_a_damaged_tile(tmp_path):
    """OpenSlide's handle is dead then; the names of its pictures were read before."""
    path = corrupt_tile(write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(320, 256))), index=0)

    with open_slide(path, backend="openslide") as slide:
        with pytest.raises(UnreadableRegionError):
            slide.read(Point(0, 0), Size(64, 64), 0.25)
        assert list(slide.associated) == []


# Kinds of pixels


def with_fourth(value):
    """RGB and a fourth sample."""
    return np.concatenate([PIXELS, np.full((*PIXELS.shape[:2], 1), value, np.uint8)], axis=2)


@pytest.mark.parametrize(
    ("pixels", "how", "kind"),
    [
        (PIXELS[..., 0], {"photometric": "minisblack"}, "grey (1 sample of 8 bits), not RGB"),
        (PIXELS.astype(np.uint16) * 16, {"photometric": "rgb"}, "3 samples of 16 bits, not RGB"),
        (PIXELS.astype(np.float32) / 255, {"photometric": "rgb"}, "floating-point numbers of 32 bits, not RGB"),
        (PIXELS.astype(np.int8), {"photometric": "rgb"}, "signed numbers (int8), not RGB"),
        (
            with_fourth(0)[..., [0, 1, 2, 3, 0]],
            {"photometric": "minisblack", "planarconfig": "contig"},
            "5 channels of 8",
        ),
        (
            with_fourth(0),
            {"photometric": "rgb", "extrasamples": ["unassalpha"]},
            "all transparent: their fourth sample",
        ),
        (
            with_fourth(0),
            {"photometric": "rgb", "extrasamples": ["unspecified"]},
            "all transparent: their fourth sample",
        ),
        (
            with_fourth(90),
            {"photometric": "rgb", "extrasamples": ["unspecified"]},
            "half transparent: their fourth sample",
        ),
    ],
)
def test_pixels_that_are_no_rgb_are_named_at_opening(tmp_path, pixels, how, kind):
    """Not by a slide that looks blank; and copying it again is not what helps."""
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), metadata=None, **how)

    message = refusal(tmp_path / "a.tif", mpp=0.25)

    assert kind in message
    assert "convert it" in message
    assert "copy" not in message


def test_an_opaque_fourth_sample_is_read(tmp_path):
    """RGBA of QuPath and others."""
    how: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", with_fourth(255), tile=(64, 64), metadata=None, **how)

    with open_slide(tmp_path / "a.tif", mpp=0.25) as slide:
        assert np.array_equal(slide.read(Point(0, 0), Size(256, 192), 0.25), PIXELS)


def test_a_compression_that_nobody_reads_wants_converting(tmp_path):
    """Copying the file again would not help."""
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(64, 64), metadata=None, compression="jpegxl", photometric="rgb")

    message = refusal(tmp_path / "a.tif", mpp=0.25)

    assert "50002" in message
    assert message.endswith("; convert it to a tiled RGB TIFF")


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0" + bytes(500)])
def test_an_mrxs_without_its_folder(tmp_path, content):
    """The file itself is small; the pixels lie in the folder of its name."""
    (tmp_path / "a.mrxs").write_bytes(content)

    assert refusal(tmp_path / "a.mrxs") == (
        "a: its folder a, which holds the pixels, is not beside it; copy the folder, too"
    )


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        (
            "a.MRXS",
            ["Slidedat.ini"],
            "its ending is .MRXS, which OpenSlide reads in small letters only; rename it to a",
        ),
        ("a.mrxs", ["Data0000.dat"], "its folder a holds no Slidedat.ini; copy the folder again"),
        ("a.mrxs", ["Slidedat.ini"], "OpenSlide cannot open it (Can't find GENERAL group)"),
    ],
)
def test_an_mrxs_whose_files_are_wrong(tmp_path, name, files, words):
    """Each has a remedy of its own; the file itself may be a small picture, or empty, as it holds no pixels."""
    (tmp_path / "a").mkdir()
    for file in files:
        (tmp_path / "a" / file).touch()

    for content in (b"", b"\xff\xd8\xff\xe0"):
        (tmp_path / name).write_bytes(content)
        assert refusal(tmp_path / name).startswith(f"a: {words}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.isyntax", b'<DataObject ObjectType="DPUfsImport">', "is not read: it is a Philips slide (iSyntax); export"),
        ("a.VSI", b"II*\0\x08\0\0\0", "is not read: it is an Olympus slide (VSI), which holds label and overview; its"),
        ("a.ndpis", b"[NanoZoomer Digital Pathology Image Set]", "is not read: it is a list of Hamamatsu slides"),
        ("a.vms", VMS, "a file that belongs to it is missing (Couldn't open "),
    ],
)
def test_formats_that_are_not_read_have_their_own_remedy(tmp_path, name, content, words):
    """Not "text", or "of a format that neither reader knows"; and the label of a VSI is no slide."""
    (tmp_path / name).write_bytes(content)

    assert refusal(tmp_path / name).startswith(f"a: {words}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("Attribute TotalPixelMatrixFocalPlanes value 3 != 1", "it has several focal planes, which OpenSlide does not"),
        ("Unsupported transfer syntax 1.2.840.10008.1.2.4.80", "its DICOM frames are compressed in a way that"),
        ('Unrecognized subblock dimension "Z"', "its CZI has focal planes, times or views, which OpenSlide does not"),
        ("whatever", "OpenSlide cannot open it (whatever); copy the file again, or convert"),
    ],
)
def test_what_openslide_does_not_read_has_its_own_remedy(tmp_path, monkeypatch, error, words):
    """As its errors word it; to copy the file again would not help."""

    def fail(*_):
        raise openslide.OpenSlideError(error)

    monkeypatch.setattr(openslide, "OpenSlide", fail)
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")

    assert refusal(tmp_path / "a.czi").startswith(f"a: {words}")


def test_zeros_after_a_header_are_damage(tmp_path):
    """A copy that broke off on a disk that fills up with zeros."""
    (tmp_path / "a.svs").write_bytes(b"II*\0\x08\0\0\0" + bytes(5000))

    assert refusal(tmp_path / "a.svs") == "a: has a first directory without an image; copy the file again"


def test_layouts_still_have_what_they_had(tmp_path):
    """The checks leave sound slides alone: the same levels, no caution."""
    for layout in ("aperio", "generic", "subifd", "ome"):
        path = write_slide(
            tmp_path / f"{layout}.tif", pyramid(synthetic_pixels(448, 320), (1, 4)), SlideSpec(layout=layout)
        )
        with open_slide(path) as slide:
            assert (len(slide.levels), slide.cautions) == (2, ())


def test_warnings_of_openslide_s_own_library_are_not_lines_of_ours(tmp_path, capfd):
    """GLib would print that the levels are in disorder, before our one line."""
    path = tmp_path / "disorder.svs"
    with tifffile.TiffWriter(path) as file:
        for k, side in enumerate((512, 32, 256)):
            file.write(
                np.zeros((side, side, 3), np.uint8),
                photometric="rgb",
                tile=(16, 16),
                subfiletype=int(k > 0),
                description="Aperio Image Library\n512x512|AppMag = 40|MPP = 0.25",
                metadata=None,
            )

    with pytest.raises(openslide.OpenSlideError):
        OpenSlideSlide(path)

    assert capfd.readouterr().err == ""
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
