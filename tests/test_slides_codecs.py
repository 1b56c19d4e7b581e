"""Tile decoders: strict about damage and size, true to the TIFF's colour, no larger than a tile."""

from contextlib import suppress
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from he2her2.geometry import Point, Size
from he2her2.slides import open_slide
from he2her2.slides.codecs import DecodeError, _rgb_from_ycbcr, jpeg2000_header, make_decoder
from tests.slide_files import split_tables, synthetic_pixels

TILE = synthetic_pixels(64, 64)
ENCODED = {
    1: TILE.tobytes(),
    5: bytes(imagecodecs.lzw_encode(TILE.tobytes())),
    7: simplejpeg.encode_jpeg(TILE, quality=90),
    8: bytes(imagecodecs.zlib_encode(TILE.tobytes())),
    33005: bytes(imagecodecs.jpeg2k_encode(TILE, level=0, codecformat="j2k")),
    50000: bytes(imagecodecs.zstd_encode(TILE.tobytes())),
    50001: bytes(imagecodecs.webp_encode(TILE, lossless=True)),
    34925: bytes(imagecodecs.lzma_encode(TILE.tobytes())),
}
YCBCR, RGB = 6, 2


def decoded(compression, data, photometric=RGB, shape=(64, 64, 3)):
    """A tile by its decoder."""
    out = np.zeros(shape, np.uint8)
    make_decoder(compression, photometric, 1, None)(data, out)
    return out


@pytest.mark.parametrize("compression", [code for code in ENCODED if code != 7])
def test_lossless_codecs_invert(compression):
    """What was packed comes out."""
    assert np.array_equal(TILE, decoded(compression, ENCODED[compression]))


def test_jpeg_is_simplejpegs_accurate_decoding():
    """The exact inverse transform and smooth chroma, not the fast ones."""
    assert np.array_equal(simplejpeg.decode_jpeg(ENCODED[7]), decoded(7, ENCODED[7], YCBCR))


@pytest.mark.parametrize("photometric", [YCBCR, RGB])
def test_the_tiff_outranks_a_jpegs_own_colour_marker(photometric):
    """A JFIF marker says YCbCr; the TIFF's word is taken, as OpenSlide takes it."""
    plain = ENCODED[7]
    assert plain[2:4] == b"\xff\xe0"  # JFIF
    space = {YCBCR: "ycbcr", RGB: "rgb"}[photometric]

    expected = imagecodecs.jpeg8_decode(plain, colorspace=space, outcolorspace="rgb")

    assert np.array_equal(expected, decoded(7, plain, photometric))


def test_tables_from_the_tiff_complete_abbreviated_tiles():
    """Scanners store quantisation and Huffman tables once."""
    tables, (short,) = split_tables([ENCODED[7]])
    out = np.zeros((64, 64, 3), np.uint8)

    make_decoder(7, YCBCR, 1, tables)(short, out)

    assert len(short) < len(ENCODED[7])
    assert np.array_equal(simplejpeg.decode_jpeg(ENCODED[7]), out)


def test_horizontal_differences_are_summed():
    """Predictor 2 wraps around at 256."""
    differences = np.diff(TILE.astype(np.int16), axis=1, prepend=0).astype(np.uint8)
    out = np.zeros((64, 64, 3), np.uint8)

    make_decoder(8, RGB, 2, None)(bytes(imagecodecs.zlib_encode(differences.tobytes())), out)

    assert np.array_equal(TILE, out)


@pytest.mark.parametrize(
    ("compression", "shape"),
    [
        *product(ENCODED, [(128, 128, 3), (64, 65, 3)]),
        *product((7, 8, 33005, 50000, 50001), [(64, 32, 3), (32, 64, 3)]),  # the others stop where a tile is full
    ],
)
def test_a_tile_of_another_size_is_refused(compression, shape):
    """A tile must be what the TIFF says, so that no file decides how much memory is taken."""
    with pytest.raises(DecodeError):
        decoded(compression, ENCODED[compression], shape=shape)


@pytest.mark.parametrize("compression", ENCODED)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_tile_cut_short_is_refused(compression, share):
    """Half a tile is no tile."""
    data = ENCODED[compression]

    with pytest.raises(DecodeError):
        decoded(compression, data[: int(len(data) * share)])


@given(data=st.binary(max_size=300), compression=st.sampled_from([*ENCODED, 33003]))
def test_rubbish_is_refused_or_decoded_but_never_crashes(data, compression):
    """Any bytes give a tile or a DecodeError."""
    with suppress(DecodeError):
        decoded(compression, data, shape=(8, 8, 3))


@given(position=st.integers(0, len(ENCODED[7]) - 1), value=st.integers(0, 255))
def test_a_damaged_jpeg_never_crashes(position, value):
    """One wrong byte anywhere, header included, gives pixels or a DecodeError."""
    damaged = bytearray(ENCODED[7])
    damaged[position] = value
    with suppress(DecodeError):
        decoded(7, bytes(damaged))


def test_zeros_inside_a_jpeg_are_refused():
    """What a lost disk sector leaves is found, where lenient decoders paint grey."""
    data = ENCODED[7]
    third = len(data) // 3

    with pytest.raises(DecodeError):
        decoded(7, data[:third] + bytes(third) + data[2 * third :])


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_ycbcr_is_the_jfif_conversion(y, cb, cr):
    """Within one step of the real-valued formula of ITU-R BT.601."""
    red = y + 1.402 * (cr - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    blue = y + 1.772 * (cb - 128)

    rgb = _rgb_from_ycbcr(np.array([[[y, cb, cr]]], np.uint8))[0, 0]

    assert np.abs(np.clip([red, green, blue], 0, 255) - rgb).max() <= 1


def test_a_jpeg2000_header_is_read_before_its_pixels():
    """Size and components stand in the codestream."""
    assert jpeg2000_header(ENCODED[33005]) == ((64, 64), True)
    assert jpeg2000_header(bytes(imagecodecs.jpeg2k_encode(TILE[..., 0], level=0, codecformat="j2k"))) == (
        (64, 64),
        False,
    )


@pytest.mark.parametrize(
    ("compression", "photometric", "predictor"), [(6, 2, 1), (2, 2, 1), (5, 2, 3), (5, YCBCR, 1), (99_999, 2, 1)]
)
def test_what_cannot_be_decoded_is_said_before_decoding(compression, photometric, predictor):
    """Unknown codes and combinations have no decoder."""
    with pytest.raises(ValueError, match="compression"):
        make_decoder(compression, photometric, predictor, None)


def jfif(path, levels, ycbcr):
    """A TIFF whose tags say RGB and whose JPEG tiles carry a JFIF marker, which stands for YCbCr."""

    def tiles(pixels):
        colours: dict[str, Any] = {} if ycbcr else {"colorspace": "rgb", "outcolorspace": "rgb"}
        for y in range(0, pixels.shape[0], 64):
            for x in range(0, pixels.shape[1], 64):
                tile = imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(pixels[y : y + 64, x : x + 64]), level=95, **colours
                )
                yield tile if ycbcr else b"\xff\xd8" + JFIF + tile[tile.index(b"\xff\xdb") :]

    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            options: dict[str, Any] = {"shape": level.shape, "dtype": np.uint8, "tile": (64, 64), "photometric": "rgb"}
            tiff.write(tiles(level), compression="jpeg", subfiletype=bool(i), metadata=None, **options)
    with tifffile.TiffFile(path, mode="r+") as written:
        for page in written.pages:
            page.aspage().tags[262].overwrite(2)
    return path


JFIF = bytes.fromhex("ffe000104a46494600010100000100010000")


@pytest.mark.parametrize("ycbcr", [True, False])
def test_glass_tells_the_colours_where_tags_and_tiles_contradict_each_other(tmp_path, ycbcr):
    """Grey glass is grey under one reading only; which was taken is told."""
    pixels = np.full((384, 512, 3), 240, np.uint8)
    pixels[128:256, 128:384] = np.array((200, 120, 170)) + np.random.default_rng(0).integers(-9, 10, (128, 256, 1))

    with open_slide(jfif(tmp_path / "a.tif", [pixels, pixels[::2, ::2]], ycbcr), mpp=0.25) as slide:
        assert np.abs(slide.read(Point(0, 0), Size(512, 384), 0.25).astype(int) - pixels).mean() < 4
        assert len(slide.levels) == 2
        name = "YCbCr" if ycbcr else "RGB"
        assert f"say RGB and its JPEG tiles YCbCr; {name} is read" in slide.metadata.cautions[0]


def test_without_glass_colours_may_be_false(tmp_path):
    """Nothing decides: the tags are followed, as OpenSlide does, and it is told."""
    pixels = np.full((128, 128, 3), (200, 120, 170), np.uint8)

    with open_slide(jfif(tmp_path / "a.tif", [pixels], ycbcr=True), mpp=0.25) as slide:
        assert "look at its colours, which may be false" in slide.metadata.cautions[0]
