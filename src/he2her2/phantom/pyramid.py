"""Writer of a pyramidal, JPEG-tiled TIFF in Aperio's layout, block by block."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from he2her2.files import atomic
from he2her2.geometry import Rgb, Size

TILE_PX = 256
BLOCK_PX = 1024
_LEVELS = (1, 4, 16, 32)
_TILES_PER_BLOCK = BLOCK_PX // TILE_PX
_SMALL_QUALITY = 92
"""Lowest JPEG quality of levels 16 and 32: they are small, and masks are computed from them."""

_BIG_BYTES = 2**31
"""Uncompressed size above which the file is a BigTIFF: classic TIFF ends at 4 GiB."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class EncodedBlock:
    """Compressed block of 1024 px: its tiles and its part of the small levels.

    Attributes:
        tiles: 4 rows of 4 JPEG tiles of level 0.
        quarter: JPEG tile of level 4.
        small: (64, 64, 3) px of level 16.
        tiny: (32, 32, 3) px of level 32.
    """

    tiles: tuple[tuple[bytes, ...], ...]
    quarter: bytes
    small: Rgb
    tiny: Rgb


def encode_block(rgbx: NDArray[np.uint8], quality: int) -> EncodedBlock:
    """Compress a (1024, 1024, 4) RGBX block and its averaged smaller levels."""
    picture = Image.frombuffer("RGBX", (BLOCK_PX, BLOCK_PX), rgbx, "raw", "RGBX", 0, 1).convert("RGB")
    quarter = picture.reduce(4)
    small = quarter.reduce(4)
    span = range(0, BLOCK_PX, TILE_PX)
    return EncodedBlock(
        tuple(tuple(_jpeg(rgbx[y : y + TILE_PX, x : x + TILE_PX], quality) for x in span) for y in span),
        _jpeg(np.asarray(quarter), quality),
        np.asarray(small),
        np.asarray(small.reduce(2)),
    )


def write_pyramid(path: Path, size: Size, mpp: float, quality: int, blocks: Iterable[EncodedBlock]) -> None:
    """Write a slide from its blocks; the file appears complete or not at all.

    Args:
        path: File to write.
        size: Width and height of level 0.
        mpp: µm per px of level 0.
        quality: JPEG quality, of the small levels and for the metadata.
        blocks: Blocks of 1024 px that cover the slide, row by row from the left.

    Raises:
        OutputError: The file cannot be written.
    """
    columns, rows = (-(-side // BLOCK_PX) for side in size)
    small = _canvas(16, rows, columns)
    tiny = _canvas(32, rows, columns)
    big = 3 * size.w * size.h > _BIG_BYTES
    with atomic(path) as draft, TemporaryFile() as spool, tifffile.TiffWriter(draft, bigtiff=big) as tiff:
        lengths: list[int] = []

        def level_0() -> Iterator[bytes]:
            feed = iter(blocks)
            for j in range(rows):
                row = [next(feed) for _ in range(columns)]
                for i, block in enumerate(row):
                    spool.write(block.quarter)
                    lengths.append(len(block.quarter))
                    small[j * 64 : (j + 1) * 64, i * 64 : (i + 1) * 64] = block.small
                    tiny[j * 32 : (j + 1) * 32, i * 32 : (i + 1) * 32] = block.tiny
                yield from _tile_rows(row, size, j)

        def level_4() -> Iterator[bytes]:
            spool.seek(0)
            for k, length in enumerate(lengths):
                tile = spool.read(length)
                if k % columns < -(-(size.w // 4) // TILE_PX) and k // columns < -(-(size.h // 4) // TILE_PX):
                    yield tile

        fine = max(quality, _SMALL_QUALITY)
        feeds = (level_0(), level_4(), _tiles_of(small, size, 16, fine), _tiles_of(tiny, size, 32, fine))
        for downsample, feed in zip(_LEVELS, feeds, strict=True):
            _write_level(tiff, feed, size, downsample, mpp, quality)


def _write_level(
    tiff: tifffile.TiffWriter, tiles: Iterator[bytes], size: Size, downsample: int, mpp: float, quality: int
) -> None:
    w, h = size.w // downsample, size.h // downsample
    settings: dict[str, Any] = {
        "shape": (h, w, 3),
        "dtype": np.uint8,
        "tile": (TILE_PX, TILE_PX),
        "photometric": "ycbcr",  # the tiles are JPEG as encoded: luma and chroma, chroma halved
        "subsampling": (2, 2),
        "compression": "jpeg",
        "subfiletype": 0 if downsample == 1 else 1,
        "resolution": (1e4 / (mpp * downsample), 1e4 / (mpp * downsample)),
        "resolutionunit": "CENTIMETER",
        "software": False,
        "metadata": None,
        "description": _description(size, Size(w, h), mpp, quality),
    }
    tiff.write(tiles, **settings)


def _description(size: Size, level: Size, mpp: float, quality: int) -> str:
    """Image description, from which OpenSlide, QuPath and Bio-Formats read mpp and magnification."""
    first = f"{size.w}x{size.h} [0,0 {size.w}x{size.h}] ({TILE_PX}x{TILE_PX})"
    scaled = "" if level == size else f" -> {level.w}x{level.h}"
    magnification = 20 if mpp > 0.4 else 40
    return (
        f"Aperio Image Library v12.0.15 \r\n{first}{scaled} JPEG/YCC Q={quality}"
        f"|AppMag = {magnification}|MPP = {mpp}|ScanScope ID = he2her2 phantom"
    )


def _tile_rows(row: list[EncodedBlock], size: Size, j: int) -> Iterator[bytes]:
    """Yield the tiles of a row of blocks in raster order, without those outside the slide."""
    across, down = -(-size.w // TILE_PX), -(-size.h // TILE_PX)
    for y in range(min(_TILES_PER_BLOCK, down - j * _TILES_PER_BLOCK)):
        for i, block in enumerate(row):
            yield from block.tiles[y][: min(_TILES_PER_BLOCK, across - i * _TILES_PER_BLOCK)]


def _tiles_of(canvas: Rgb, size: Size, downsample: int, quality: int) -> Iterator[bytes]:
    """Yield the JPEG tiles of a small level."""
    w, h = size.w // downsample, size.h // downsample
    for y in range(0, h, TILE_PX):
        for x in range(0, w, TILE_PX):
            yield _jpeg(canvas[y : y + TILE_PX, x : x + TILE_PX], quality)


def _canvas(downsample: int, rows: int, columns: int) -> Rgb:
    """Make a white small level with room for whole blocks and whole tiles."""
    side = BLOCK_PX // downsample
    h, w = (-(-max(n * side, 1) // TILE_PX) * TILE_PX for n in (rows, columns))
    return np.full((h, w, 3), 255, np.uint8)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    space = "RGBX" if pixels.shape[2] == 4 else "RGB"
    pixels = np.ascontiguousarray(pixels)
    return bytes(simplejpeg.encode_jpeg(pixels, quality, colorspace=space, colorsubsampling="420"))
