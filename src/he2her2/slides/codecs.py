"""Decoders of compressed TIFF tiles: strict (a damaged tile raises), and never larger than a tile of the TIFF.

They agree bit for bit with OpenSlide's: the accurate inverse DCT and chroma upsampling of libjpeg-turbo, colour as the
TIFF states it whatever markers the tile carries, and the rounding of OpenSlide's YCbCr tables for JPEG 2000.
"""

import struct
from collections.abc import Callable
from typing import TypeAlias

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from he2her2.geometry import Rgb, Size

Decode: TypeAlias = Callable[[bytes, Rgb], None]
"""Decode one compressed tile into a C-contiguous (h, w, 3) array of the tile's size, or raise DecodeError."""

NAMES = {
    1: "none",
    5: "LZW",
    7: "JPEG",
    8: "deflate",
    32946: "deflate",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34925: "LZMA",
    50000: "zstd",
    50001: "WebP",
    34927: "WebP",
}
"""TIFF compression codes that are read, in words."""

_YCBCR = 6
_APERIO_YCBCR_J2K = 33003
_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS = 64
"""Scans of a JPEG that are decoded; encoders write 1, or about 10 when progressive. Thousands take minutes a tile."""

_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2 = b"\0\0\0\x0cjP  "
_MAX_BOXES = 100


class DecodeError(Exception):
    """A compressed tile is damaged, or contradicts the TIFF."""


def make_decoder(
    compression: int, photometric: int, predictor: int, jpeg_tables: bytes | None, *, samples: int = 3
) -> Decode:
    """Return the decoder of one TIFF image's tiles.

    Args:
        compression: TIFF tag 259, a key of `NAMES`.
        photometric: TIFF tag 262: 2 is RGB, 6 is YCbCr.
        predictor: TIFF tag 317: 1 is none, 2 is horizontal differences.
        jpeg_tables: TIFF tag 347.
        samples: Colours in a tile: 3, or 1 where each colour has tiles of its own; it decodes to (h, w, samples).

    Raises:
        ValueError: There is no decoder for this combination.
    """
    if compression not in NAMES or predictor not in (1, 2):
        raise ValueError(f"compression {compression} with predictor {predictor}")
    if NAMES[compression] == "JPEG":
        return _jpeg_decoder(photometric, jpeg_tables) if samples > 1 else _grey_jpeg_decoder(jpeg_tables)
    if NAMES[compression] == "JPEG 2000" and samples > 1:
        return _jpeg2000_decoder(ycbcr=compression == _APERIO_YCBCR_J2K)
    if photometric == _YCBCR:
        raise ValueError(f"YCbCr with compression {compression}")
    if NAMES[compression] in ("JPEG 2000", "WebP") and samples == 1:
        raise ValueError(f"{NAMES[compression]} of one colour")
    if NAMES[compression] == "WebP":
        return _decode_webp
    return _bytes_decoder(NAMES[compression], differences=predictor == 2)


def _jpeg_decoder(photometric: int, tables: bytes | None) -> Decode:
    """JPEG whose shared tables, if any, and whose colour space are stored in the TIFF."""
    as_file = jpeg_file(photometric, tables)
    return lambda data, out: _decode_jpeg(as_file(data), out, "RGB")


def jpeg_file(photometric: int, tables: bytes | None) -> Callable[[bytes], bytes]:
    """Return the function that makes a file of its own of a TIFF's JPEG tile: with tables, and the TIFF's colour space.

    Args:
        photometric: TIFF tag 262: 2 is RGB, 6 is YCbCr.
        tables: TIFF tag 347.
    """
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + (b"\x01" if photometric == _YCBCR else b"\x00")
    prefix = b"\xff\xd8" + adobe + (tables[2:-2] if tables else b"")
    return lambda data: b"".join((prefix, memoryview(data)[_colour_markers_end(data) :]))


def _grey_jpeg_decoder(tables: bytes | None) -> Decode:
    prefix = b"\xff\xd8" + (tables[2:-2] if tables else b"")
    return lambda data, out: _decode_jpeg(prefix + data[_colour_markers_end(data) :], out, "GRAY")


def _decode_jpeg(data: bytes, out: Rgb, colours: str) -> None:
    if data.count(_START_OF_SCAN[1:]) > _MAX_SCANS:  # one byte is counted in a third of the time
        n_scans = data.count(_START_OF_SCAN)
        if n_scans > _MAX_SCANS:
            raise DecodeError(f"a JPEG of {n_scans} scans")
    try:
        decoded = simplejpeg.decode_jpeg(data, colorspace=colours, buffer=out)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    if decoded.shape != out.shape:
        raise DecodeError(f"a JPEG of {decoded.shape[1]} x {decoded.shape[0]} px")


def _colour_markers_end(data: bytes) -> int:
    """Position after a JPEG's start and its JFIF and Adobe markers, which the TIFF outranks."""
    if data[:2] != b"\xff\xd8":
        raise DecodeError("not a JPEG")
    position = 2
    while data[position : position + 2] in (b"\xff\xe0", b"\xff\xee"):
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return position


def _jpeg2000_decoder(*, ycbcr: bool) -> Decode:
    def decode(data: bytes, out: Rgb) -> None:
        size, plain = jpeg2000_header(data)
        if (size.h, size.w, 3) != out.shape or not plain:
            raise DecodeError(f"a JPEG 2000 of {size.w} x {size.h} px")
        try:
            decoded = imagecodecs.jpeg2k_decode(data)
        except (imagecodecs.Jpeg2kError, ValueError) as error:
            raise DecodeError(str(error)) from None
        if decoded.shape != out.shape or decoded.dtype != np.uint8:
            raise DecodeError(f"a JPEG 2000 of shape {decoded.shape}")
        out[...] = _rgb_from_ycbcr(decoded) if ycbcr else decoded

    return decode


def jpeg2000_header(data: bytes) -> tuple[Size, bool]:
    """Return the size of a JPEG 2000 codestream, and True if it has three 8-bit components of that size.

    Raises:
        DecodeError: It is no codestream.
    """
    start = _codestream_start(data)
    if data[start : start + 4] != _CODESTREAM or len(data) < start + 51:
        raise DecodeError("not a JPEG 2000 codestream")
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
    (n,) = struct.unpack_from(">H", data, start + 40)
    return Size(x1 - x0, y1 - y0), n == 3 and data[start + 42 : start + 51] == b"\x07\x01\x01" * 3


def _codestream_start(data: bytes) -> int:
    """Position of the codestream that decoders take: the first byte, or the first such box of a JP2 file.

    Bytes that look like one elsewhere are no header: OpenJPEG believed sizes that a search had not seen.
    """
    if not data.startswith(_JP2):
        return 0
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 16 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 16 if length == 1 else 8
        if kind == b"jp2c":
            return position + head
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length < head:
            break
        position += length
    raise DecodeError("a JP2 file without a codestream")


def _chroma(weight: float) -> NDArray[np.int16]:
    return np.array([round(weight * (i - 128)) for i in range(256)], np.int16)


_R_CR, _B_CB = _chroma(1.402), _chroma(1.772)
_G_CB = np.rint(65536 * (0.5 - 0.34414 * (np.arange(256) - 128))).astype(np.int32)
_G_CR = np.rint(65536 * -0.71414 * (np.arange(256) - 128)).astype(np.int32)


def _rgb_from_ycbcr(ycbcr: Rgb) -> Rgb:
    """(h, w, 3) full-range YCbCr (ITU-R BT.601, as in JFIF) to RGB, in integers, rounded as OpenSlide rounds."""
    y, cb, cr = ycbcr[..., 0].astype(np.int16), ycbcr[..., 1], ycbcr[..., 2]
    green = y + ((_G_CB[cb] + _G_CR[cr]) >> 16)
    rgb: Rgb = np.stack([y + _R_CR[cr], green, y + _B_CB[cb]], axis=-1).clip(0, 255).astype(np.uint8)
    return rgb


def _decode_webp(data: bytes, out: Rgb) -> None:
    try:
        imagecodecs.webp_decode(data, hasalpha=False, out=out)
    except (imagecodecs.WebpError, ValueError) as error:
        raise DecodeError(str(error)) from None


def _bytes_decoder(name: str, *, differences: bool) -> Decode:
    """Codecs that pack bytes: they are given the number of bytes to expect, and must return exactly as many."""
    unpack: Callable[[bytes, int], bytes] = {
        "none": lambda data, size: data[:size],
        "LZW": lambda data, size: imagecodecs.lzw_decode(data, out=size),
        "deflate": lambda data, size: imagecodecs.zlib_decode(data, out=size),
        "LZMA": lambda data, size: imagecodecs.lzma_decode(data, out=size),
        "zstd": lambda data, size: imagecodecs.zstd_decode(data, out=size),
    }[name]
    errors = (imagecodecs.LzwError, imagecodecs.ZlibError, imagecodecs.LzmaError, imagecodecs.ZstdError, ValueError)

    def decode(data: bytes, out: Rgb) -> None:
        try:
            unpacked = unpack(data, out.size)
        except errors as error:
            raise DecodeError(str(error)) from None
        if len(unpacked) != out.size:
            raise DecodeError(f"{len(unpacked)} bytes instead of {out.size}")
        pixels = np.frombuffer(unpacked, np.uint8).reshape(out.shape)
        if differences:
            np.cumsum(pixels, axis=1, dtype=np.uint8, out=out)
        else:
            out[...] = pixels

    return decode
