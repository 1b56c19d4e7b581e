"""One image of a TIFF: offsets of its compressed tiles, and their decoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from he2her2.geometry import Rgb, Size
from he2her2.slides.codecs import NAMES, Decode, DecodeError, jpeg2000_header, jpeg_file, make_decoder
from he2her2.slides.levels import WHITE, Rect, copy_overlap, least_and_most
from he2her2.slides.recent_tiles import RecentTiles
from he2her2.slides.tiff_header import FileBytes, LayoutRefusedError, PixelKindError

_MAX_TILE_PX = 1 << 26
_MAX_ROW_PX = 1 << 28
_GREY, _RGB, _YCBCR = 1, 2, 6
_PLANAR = 2
_BITS = 8
_JPEG = 7
_N_LOOKED_AT = 8
_BRIGHT, _NEUTRAL = 200, 16
_LEAST_BRIGHT, _CLEARLY = 256, 20


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class TiffImage:
    """One image of a TIFF file: compressed tiles in raster order, of all colours or for each colour apart.

    Attributes:
        size: Width and height in px.
        tile: Width and height of a tile. A strip is a tile as wide as the image.
        offsets: (planes * n,) int64 first byte of each tile, plane by plane.
        counts: (planes * n,) int64 bytes of each tile; 0 is an absent tile, decoded as white.
        decode: Decodes one tile.
        codec: Its compression, in words.
        striped: True where the last row of tiles ends with the image.
        planes: 3 where red, green and blue have tiles of their own, else 1.
        as_jpeg: Makes a JPEG file of a tile's bytes; None where tiles are no JPEGs of three colours.
        cautions: Doubts about its colours, a sentence each.
    """

    size: Size
    tile: Size
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Decode
    codec: str
    striped: bool
    planes: int = 1
    as_jpeg: Callable[[bytes], bytes] | None = None
    cautions: tuple[str, ...] = ()

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
        return np.asarray((self.counts.reshape(self.planes, -1) == 0).any(axis=0))

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

    def jpeg(self, file: FileBytes, index: int) -> bytes | None:
        """Tile `index` as a JPEG file whose pixels are those of `decode_tile`; None where it is no JPEG of RGB."""
        if self.as_jpeg is None or self.planes != 1 or not self.counts[index]:
            return None
        return self.as_jpeg(file.read(int(self.offsets[index]), int(self.counts[index])))

    def decode_tile(self, file: FileBytes, index: int, out: Rgb) -> None:
        """Decode tile `index` into `out`, C-contiguous and of the tile's size.

        Raises:
            DecodeError: The tile is damaged.
        """
        if self.planes == 1:
            self._decode_plane(file, index, out)
            return
        n = len(self.counts) // self.planes
        plane = np.empty((*out.shape[:2], 1), np.uint8)
        for colour in range(self.planes):
            self._decode_plane(file, colour * n + index, plane)
            out[..., colour] = plane[..., 0]

    def _decode_plane(self, file: FileBytes, index: int, out: NDArray[np.uint8]) -> None:
        count = int(self.counts[index])
        if count == 0:
            out[...] = WHITE
            return
        data = file.read(int(self.offsets[index]), count)
        if len(data) < count:
            raise DecodeError("it lies beyond the file's end")
        self.decode(data, out)

    def decode_into(self, file: FileBytes, rect: Rect, out: Rgb, recent: RecentTiles | None = None) -> None:
        """Fill `out` with a rectangle that lies inside the image.

        Args:
            file: The file's bytes.
            rect: The rectangle.
            out: (h, w, 3) of its size.
            recent: Tiles that need not be decoded again; takes those that are.

        Raises:
            DecodeError: A tile that it touches is damaged; the message names it.
        """
        for index in self.touched(rect):
            tile = self.tile_rect(index)
            pixels = recent.get((id(self), index)) if recent else None
            if pixels is None:
                alone = tile == rect and out.flags.c_contiguous
                pixels = out if alone else np.empty((tile.h, tile.w, 3), np.uint8)
                try:
                    self.decode_tile(file, index, pixels)
                except DecodeError as error:
                    raise DecodeError(f"the tile at ({tile.x}, {tile.y}): {error}") from None
                if alone:
                    return
                if recent:
                    recent.put((id(self), index), pixels)
            copy_overlap(pixels, tile, out, rect)


def tiff_image(
    page: tifffile.TiffPage, file: FileBytes, *, jfif_outranks: bool = False, colours: Sequence[tifffile.TiffPage] = ()
) -> TiffImage:
    """Return the image of one TIFF directory.

    Args:
        page: The directory.
        file: The file's bytes.
        jfif_outranks: Believe a JPEG whose JFIF marker makes it YCbCr where the TIFF has RGB, and its pixels do not
            tell: Bio-Formats writes such OME-TIFF. Elsewhere the TIFF outranks, as it does for OpenSlide.
        colours: The directories of red, green and blue where each is a grey image of its own; `page` is the first.

    Raises:
        LayoutRefusedError: It is not 8-bit RGB in a codec that we read.
    """
    if colours:
        _refuse_unless_colours(colours)
    else:
        _refuse_unless_rgb(page)
    planar = bool(colours) or int(page.planarconfig) == _PLANAR
    size = Size(page.imagewidth, page.imagelength)
    striped = not page.is_tiled
    tile = Size(size.w, min(page.rowsperstrip, size.h)) if striped else Size(page.tilewidth, page.tilelength)
    if min(*size, *tile) < 1 or tile.w * tile.h > _MAX_TILE_PX or tile.h * size.w > _MAX_ROW_PX:
        raise LayoutRefusedError(f"its tiles are {tile.w} x {tile.h} px")
    n = -(-size.w // tile.w) * -(-size.h // tile.h) * (3 if planar else 1)
    tables = [(np.asarray(p.dataoffsets, np.int64), np.asarray(p.databytecounts, np.int64)) for p in colours or (page,)]
    offsets, counts = (np.concatenate(table) for table in zip(*tables, strict=True))
    if len(offsets) != n or len(counts) != n:
        raise LayoutRefusedError(f"it lists {len(offsets)} tiles where its size needs {n}")
    compression, photometric = int(page.compression), int(page.photometric)
    cautions: tuple[str, ...] = ()
    if NAMES.get(compression) == "JPEG" and photometric == _RGB and not planar and page.is_jfif:
        otherwise = _YCBCR if jfif_outranks else _RGB
        photometric, doubt = _settled_colours(file, tile, offsets, counts, page.jpegtables, otherwise)
        cautions = () if jfif_outranks and photometric == _YCBCR else (doubt,)
    try:
        samples = 1 if planar else 3
        decode = make_decoder(compression, photometric, int(page.predictor), page.jpegtables, samples=samples)
    except ValueError as error:
        raise LayoutRefusedError(f"it is stored as {error}") from None
    codec = NAMES[compression]
    as_jpeg = jpeg_file(photometric, page.jpegtables) if codec == "JPEG" and not planar else None
    image = TiffImage(size, tile, offsets, counts, decode, codec, striped, 3 if planar else 1, as_jpeg, cautions)
    _refuse_subsampled_jpeg2000(image, file)
    return image


def _settled_colours(
    file: FileBytes,
    tile: Size,
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    tables: bytes | None,
    otherwise: int,
) -> tuple[int, str]:
    """Colour space of JPEG tiles whose JFIF marker says YCbCr where the TIFF says RGB, and a caution.

    Bright grey, as glass is, comes out under the true one only: YCbCr shows it as pink, RGB taken for YCbCr as green.
    """
    present = np.flatnonzero(counts)
    order = present[np.argsort(counts[present], kind="stable")]  # glass has few bytes
    chosen = order[np.linspace(0, len(order) - 1, min(_N_LOOKED_AT, len(order))).astype(np.int64)]
    pixels = np.empty((tile.h, tile.w, 3), np.uint8)
    n_bright = dict.fromkeys((_RGB, _YCBCR), 0)
    for photometric in n_bright:
        decode = make_decoder(_JPEG, photometric, 1, tables)
        for index in chosen.tolist():
            try:
                decode(file.read(int(offsets[index]), int(counts[index])), pixels)
            except DecodeError:
                continue
            least, most = least_and_most(pixels)
            n_bright[photometric] += int(np.count_nonzero((least >= _BRIGHT) & (most - least <= _NEUTRAL)))
    said = "its TIFF tags say RGB and its JPEG tiles YCbCr"
    for photometric, other in ((_RGB, _YCBCR), (_YCBCR, _RGB)):
        if n_bright[photometric] > max(_LEAST_BRIGHT, _CLEARLY * n_bright[other]):
            name = "RGB" if photometric == _RGB else "YCbCr"
            return photometric, f"{said}; {name} is read, which shows grey glass: look at its colours"
    return otherwise, f"{said}, and no glass tells; look at its colours, which may be false"


def _refuse_unless_rgb(page: tifffile.TiffPage) -> None:
    kind = _kind_that_is_no_rgb(page)
    if kind is not None:
        raise PixelKindError(f"its pixels are {kind}, not RGB of 8 bits")
    if int(page.photometric) not in (_RGB, _YCBCR):
        raise LayoutRefusedError(f"its colours are stored in the way {int(page.photometric)}")
    if page.samplesperpixel != 3:
        raise LayoutRefusedError(f"it has {page.samplesperpixel} samples of {page.bitspersample} bits, not RGB of 8")
    if int(page.planarconfig) == _PLANAR and int(page.photometric) == _YCBCR:
        raise LayoutRefusedError("its luminance and colours are stored in separate planes")
    _refuse_depth(page)


def _refuse_unless_colours(pages: Sequence[tifffile.TiffPage]) -> None:
    """Refuse three images that are not one grey image of 8 bits a colour, stored alike."""
    first = pages[0]
    for page in pages:
        if page.samplesperpixel != 1 or page.bitspersample != _BITS or str(page.dtype) != "uint8":
            found = (
                f"its {len(pages)} channels are images of {page.samplesperpixel} samples of {page.bitspersample} bits"
            )
            raise PixelKindError(f"{found}, not RGB of 8 bits")
        if int(page.photometric) != _GREY or _storage(page) != _storage(first):
            raise LayoutRefusedError("its colours are images that are stored in different ways")
        _refuse_depth(page)


def _storage(page: tifffile.TiffPage) -> tuple[int | None, ...]:
    sides = (page.imagewidth, page.imagelength, page.tilewidth, page.tilelength, page.rowsperstrip)
    return (*sides, int(page.compression), int(page.predictor))


def _refuse_depth(page: tifffile.TiffPage) -> None:
    if page.imagedepth != 1 or page.tiledepth not in (0, 1):
        raise LayoutRefusedError("it has depth")
    if int(page.fillorder) != 1:
        raise LayoutRefusedError("its bits are reversed")


def _kind_that_is_no_rgb(page: tifffile.TiffPage) -> str | None:
    """Name the kind of pixels that no reader can take for a stained slide; None for colours of 8 bits."""
    bits, samples = page.bitspersample, page.samplesperpixel
    if str(page.dtype).startswith("float"):
        return f"floating-point numbers of {bits} bits"
    if bits != _BITS:
        return f"{samples} samples of {bits} bits"
    if str(page.dtype) != "uint8":
        return f"signed numbers ({page.dtype})"
    if samples == 1 and int(page.photometric) in (0, _GREY):
        return "grey (1 sample of 8 bits)"
    if samples not in (3, 4) and int(page.photometric) in (0, _GREY, _RGB):
        return f"{samples} channels of 8 bits"
    return None


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
