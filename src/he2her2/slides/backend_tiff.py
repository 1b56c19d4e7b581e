"""The fast reader of the tiled TIFF family: tifffile's structure, tiles by `pread`, strict codecs.

Absent tiles (of zero bytes) are white on glass and unreadable inside the tissue; OpenSlide enlarges or reduces a
neighbouring level for them where it can.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Rgb
from he2her2.slides.absent_tiles import lost_tiles
from he2her2.slides.base import BaseSlide, LazyImages, Metadata
from he2her2.slides.codecs import DecodeError
from he2her2.slides.levels import Rect, whole_downsample
from he2her2.slides.recent_tiles import RecentTiles
from he2her2.slides.slide import Level
from he2her2.slides.tiff_header import FileBytes, TiffDamageError, check_directories
from he2her2.slides.tiff_layout import TiffLayout, read_layout

_RECENT_BYTES = 32 << 20
"""Of decoded tiles, kept for the next `read`; OpenSlide keeps as much."""

_REMEDY = "copy the file again; other regions stay readable"


class TiffSlide(BaseSlide):
    """A slide whose compressed tiles this module reads itself."""

    backend: ClassVar[str] = "tiff"

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        """Open a slide.

        Args:
            path: The file.
            mpp: µm per level-0 px; outranks the file's.

        Raises:
            TiffDamageError: The file is cut short or contradicts itself.
            LayoutRefusedError: It is not one of the layouts that this reader fully understands.
            MppError: Its mpp is unknown or impossible.
        """
        self._file = FileBytes(path)
        self._recent = RecentTiles(_RECENT_BYTES)
        self._kept: RecentTiles | None = None
        try:
            check_directories(self._file)
            self._layout = read_layout(path, self._file)
            _check_tables(self._layout, self._file.size)
            super().__init__(path, _metadata(self._layout), mpp)
        except BaseException:
            self._file.close()
            raise

    @cached_property
    def _lost(self) -> list[NDArray[np.bool_]]:
        """For each level (n,) flags of the absent tiles that lie inside the tissue."""
        if not self.metadata.absent_tiles:
            return [np.zeros(len(image.absent), np.bool_) for image in self._layout.levels]
        thumbnails = [image for name, image in self._layout.associated.items() if name.startswith("thumbnail")]
        return lost_tiles(self._layout.levels, thumbnails, self._file)

    def lost_rects(self, level: int) -> list[Rect]:
        """Rectangles of the absent tiles inside the tissue, in px of `level`."""
        image = self._layout.levels[level]
        return [image.tile_rect(index).clipped(image.size) for index in np.flatnonzero(self._lost[level]).tolist()]

    def _raise_if_lost(self, level: int, indices: Iterable[int]) -> None:
        """Raise if one of the tiles is absent inside the tissue."""
        if not self.metadata.absent_tiles:
            return
        lost = self._lost[level]
        for index in indices:
            if lost[index]:
                tile = self.tile_rect(level, index)
                raise self._unreadable(
                    f"level {level}", f"the tile at ({tile.x}, {tile.y}) is absent inside the tissue"
                )

    def tile_rect(self, level: int, index: int) -> Rect:
        """Rectangle of compressed tile `index` (in raster order) of `level`, in px of that level."""
        return self._layout.levels[level].tile_rect(index)

    def decode_tile(self, level: int, index: int, out: Rgb) -> None:
        """Decode one compressed tile into `out`, C-contiguous and of the tile's size.

        Raises:
            UnreadableRegionError: The tile is damaged, or absent inside the tissue.
        """
        self._raise_if_lost(level, (index,))
        kept = None if self._kept is None else self._kept.get((level, index))
        if kept is not None:
            out[...] = kept
            return
        try:
            self._layout.levels[level].decode_tile(self._file, index, out)
        except DecodeError as error:
            tile = self.tile_rect(level, index)
            raise self._unreadable(f"level {level}", f"the tile at ({tile.x}, {tile.y}): {error}") from None
        if self._kept is not None:
            self._kept.put((level, index), out.copy())

    @contextmanager
    def keeping(self, max_bytes: int) -> Iterator[None]:
        """Keep decoded tiles from one grid to the next; see `BaseSlide.keeping`."""
        self._kept = RecentTiles(max_bytes)
        try:
            yield
        finally:
            self._kept = None

    def jpeg_tile(self, level: int, column: int, row: int) -> bytes | None:
        """A compressed tile as a JPEG file; see `BaseSlide.jpeg_tile`."""
        image = self._layout.levels[level]
        index = row * image.n_columns + column
        rect = image.tile_rect(index)
        if image.as_jpeg is None or rect.clipped(image.size) != rect:
            return None
        pixels = np.empty((rect.h, rect.w, 3), np.uint8)
        self.decode_tile(level, index, pixels)  # a browser would show a damaged tile in part, without a word
        return image.jpeg(self._file, index)

    def _decode(self, level: int, rect: Rect, out: Rgb) -> None:
        image = self._layout.levels[level]
        self._raise_if_lost(level, image.touched(rect))
        try:
            image.decode_into(self._file, rect, out, self._recent)
        except DecodeError as error:
            raise self._unreadable(f"level {level}", str(error)) from None

    def _associated(self) -> Mapping[str, Rgb]:
        return LazyImages({name: partial(self._picture, name) for name in self._layout.associated})

    def _picture(self, name: str) -> Rgb:
        image = self._layout.associated[name]
        out = np.empty((image.size.h, image.size.w, 3), np.uint8)
        try:
            image.decode_into(self._file, Rect(0, 0, *image.size), out)
        except DecodeError as error:
            raise self._unreadable(f"the picture '{name}'", str(error)) from None
        return out

    def _unreadable(self, where: str, what: str) -> UnreadableRegionError:
        return UnreadableRegionError(self.slide_id, f"{where} cannot be decoded ({what})", _REMEDY)

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._file.close()
        self._recent.clear()


def _metadata(layout: TiffLayout) -> Metadata:
    size_l0 = layout.levels[0].size
    levels = tuple(
        Level(image.size, whole_downsample(size_l0, image.size), image.tile, image.codec) for image in layout.levels
    )
    absent = sum(int(image.absent.sum()) for image in layout.levels)
    return Metadata(
        layout.vendor,
        levels,
        layout.stated_mpp,
        objective=layout.objective,
        absent_tiles=absent,
        other_mpps=layout.other_mpps,
        cautions=layout.cautions,
    )


def _check_tables(layout: TiffLayout, file_size: int) -> None:
    """Raise unless every compressed tile lies inside the file."""
    images = (*layout.levels, *layout.associated.values())
    n_beyond = sum(int((image.offsets + image.counts > file_size).sum()) for image in images)
    n_bad = sum(int(((image.offsets < 0) | (image.counts < 0)).sum()) for image in images)
    if n_beyond or n_bad:
        share = (n_beyond + n_bad) / sum(len(image.offsets) for image in images)
        shown = f"{100 * share:.0f} %" if share >= 0.01 else "some"
        raise TiffDamageError(f"is cut short: {shown} of its tiles lie beyond its end")
    absent = layout.levels[0].absent
    if absent.all():
        raise TiffDamageError(f"holds no pixels: all {len(absent)} compressed tiles of its level 0 are absent")
