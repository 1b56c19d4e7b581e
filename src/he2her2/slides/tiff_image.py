"""One image of a TIFF: offsets of its compressed tiles, and their decoder."""

from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from he2her2.geometry import Rgb, Size
from he2her2.slides.codecs import NAMES, Decode, DecodeError, jpeg2000_header, make_decoder
from he2her2.slides.levels import WHITE, Rect, copy_overlap
from he2her2.slides.tiff_header import FileBytes, LayoutRefusedError

_MAX_TILE_PX = 1 << 26
_RGB, _YCBCR = 2, 6


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class TiffImage:
    """One image of a TIFF file: compressed tiles in raster order.

    Attributes:
        size: Width and height in px.
        tile: Width and height of a tile. A strip is a tile as wide as the image.
        offsets: (n,) int64 first byte of each tile.
        counts: (n,) int64 bytes of each tile; 0 is an absent tile, decoded as white.
        decode: Decodes one tile.
        codec: Its compression, in words.
        striped: True where the last row of tiles ends with the image.
    """

    size: Size
    tile: Size
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Decode
    codec: str
    striped: bool

    @property
    def n_columns(self) -> int:
        """Tiles in a row."""
        return -(-self.size.w // self.tile.w)

    @property
    def n_rows(self) -> int:
        """Tiles in a column."""
        return -(-self.size.h // self.tile.h)

    @property
    def absent(self) -> NDArray[np.bool_]:
        """(n,) tiles that the file leaves out."""
        return np.asarray(self.counts == 0)

    def tile_rect(self, index: int) -> Rect:
        """Rectangle of tile `index`; it may reach over the border."""
        row, column = divmod(index, self.n_columns)
        y = row * self.tile.h
        h = min(self.tile.h, self.size.h - y) if self.striped else self.tile.h
        return Rect(column * self.tile.w, y, self.tile.w, h)

    def touched(self, rect: Rect) -> list[int]:
        """Indices of the tiles that a rectangle inside the image touches."""
        columns, rows = rect.cells(self.tile)
        return [row * self.n_columns + column for row in rows for column in columns]

    def decode_tile(self, file: FileBytes, index: int, out: Rgb) -> None:
        """Decode tile `index` into `out`, C-contiguous and of the tile's size.

        Raises:
            DecodeError: The tile is damaged.
        """
        count = int(self.counts[index])
        if count == 0:
            out[...] = WHITE
            return
        data = file.read(int(self.offsets[index]), count)
        if len(data) < count:
            raise DecodeError("it lies beyond the file's end")
        self.decode(data, out)

    def decode_into(self, file: FileBytes, rect: Rect, out: Rgb) -> None:
        """Fill `out` with a rectangle that lies inside the image.

        Raises:
            DecodeError: A tile that it touches is damaged; the message names it.
        """
        for index in self.touched(rect):
            tile = self.tile_rect(index)
            try:
                if tile == rect and out.flags.c_contiguous:
                    self.decode_tile(file, index, out)
                else:
                    pixels = np.empty((tile.h, tile.w, 3), np.uint8)
                    self.decode_tile(file, index, pixels)
                    copy_overlap(pixels, tile, out, rect)
            except DecodeError as error:
                raise DecodeError(f"the tile at ({tile.x}, {tile.y}): {error}") from None


def tiff_image(page: tifffile.TiffPage, file: FileBytes, *, jfif_outranks: bool = False) -> TiffImage:
    """Return the image of one TIFF directory.

    Args:
        page: The directory.
        file: The file's bytes.
        jfif_outranks: Believe a JPEG whose JFIF marker makes it YCbCr where the TIFF has RGB: Bio-Formats writes such
            OME-TIFF. Elsewhere the TIFF outranks, as it does for OpenSlide.

    Raises:
        LayoutRefusedError: It is not chunky 8-bit RGB in a codec that we read.
    """
    _refuse_unless_rgb(page)
    size = Size(page.imagewidth, page.imagelength)
    striped = not page.is_tiled
    tile = Size(size.w, min(page.rowsperstrip, size.h)) if striped else Size(page.tilewidth, page.tilelength)
    if min(*size, *tile) < 1 or tile.w * tile.h > _MAX_TILE_PX:
        raise LayoutRefusedError(f"its tiles are {tile.w} x {tile.h} px")
    n = -(-size.w // tile.w) * -(-size.h // tile.h)
    offsets, counts = (np.asarray(table, np.int64) for table in (page.dataoffsets, page.databytecounts))
    if len(offsets) != n or len(counts) != n:
        raise LayoutRefusedError(f"it lists {len(offsets)} tiles where its size needs {n}")
    compression, photometric = int(page.compression), int(page.photometric)
    if jfif_outranks and page.is_jfif:
        photometric = _YCBCR
    try:
        decode = make_decoder(compression, photometric, int(page.predictor), page.jpegtables)
    except ValueError as error:
        raise LayoutRefusedError(f"it is stored as {error}") from None
    image = TiffImage(size, tile, offsets, counts, decode, NAMES[compression], striped)
    _refuse_subsampled_jpeg2000(image, file)
    return image


def _refuse_unless_rgb(page: tifffile.TiffPage) -> None:
    if int(page.photometric) not in (_RGB, _YCBCR):
        raise LayoutRefusedError(f"its colours are stored in the way {int(page.photometric)}")
    if page.samplesperpixel != 3 or page.bitspersample != 8 or str(page.dtype) != "uint8":
        raise LayoutRefusedError(f"it has {page.samplesperpixel} samples of {page.bitspersample} bits, not RGB of 8")
    if int(page.planarconfig) != 1:
        raise LayoutRefusedError("its colours are stored in separate planes")
    if page.imagedepth != 1 or page.tiledepth not in (0, 1):
        raise LayoutRefusedError("it has depth")
    if int(page.fillorder) != 1:
        raise LayoutRefusedError("its bits are reversed")


def _refuse_subsampled_jpeg2000(image: TiffImage, file: FileBytes) -> None:
    """OpenSlide repeats subsampled chroma its own way; leave such files to it."""
    present = np.flatnonzero(image.counts)
    if image.codec != "JPEG 2000" or not len(present):
        return
    first = int(present[0])
    try:
        plain = jpeg2000_header(file.read(int(image.offsets[first]), int(image.counts[first])))[1]
    except DecodeError:
        return  # a damaged tile is found, and counted, when it is read
    if not plain:
        raise LayoutRefusedError("its JPEG 2000 components are subsampled")
