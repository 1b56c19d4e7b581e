"""Roles of a TIFF's images: which are levels of the slide, which are pictures beside it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import tifffile
from numpy.typing import NDArray

from he2her2.geometry import Rgb, Size
from he2her2.slides.codecs import DecodeError
from he2her2.slides.levels import Rect
from he2her2.slides.recent_tiles import RecentTiles
from he2her2.slides.same_picture import N_CELLS, Comparison, compare, is_reduction, mismatch
from he2her2.slides.tiff_header import FileBytes, LayoutRefusedError, PixelKindError, escaped
from he2her2.slides.tiff_image import TiffImage, tiff_image

BESIDE = re.compile(r"\b(label|macro|thumbnail|overview|barcode)\b", re.IGNORECASE)
"""Names of pictures beside a slide."""

_LARGE_SHARE = 0.25
_RIVAL_SHARE = 0.05
_MOST_REDUCED_SHARE = 0.3  # of the slide's area: a level has half its sides or less
_N_SPOTS = 2
_TISSUE_BYTES = 0.25
_RECENT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may be a level or a picture beside the slide.

    Attributes:
        name: Its name as a picture.
        pages: Its directory, or those of red, green and blue.
        is_level: Its format says that it is a level.
        may_be_level: It is stored as levels are, though nothing says that it is one.
        is_scan: Its px are said to be as large as the slide's.
    """

    name: str
    pages: tuple[tifffile.TiffPage, ...]
    is_level: bool
    may_be_level: bool
    is_scan: bool = False

    @property
    def size(self) -> Size:
        """Width and height in px."""
        return Size(self.pages[0].imagewidth, self.pages[0].imagelength)

    @property
    def area(self) -> int:
        """Its px."""
        return self.size.w * self.size.h

    @property
    def is_beside(self) -> bool:
        """True for what calls itself label, macro or thumbnail."""
        return BESIDE.search(self.name) is not None

    def image(self, file: FileBytes, *, ome: bool = False) -> TiffImage:
        """The image, or LayoutRefusedError."""
        colours = self.pages if len(self.pages) > 1 else ()
        return tiff_image(self.pages[0], file, jfif_outranks=ome, colours=colours)


@dataclass(slots=True)
class Roles:
    """Images of a file by their role, as they are found."""

    levels: list[TiffImage]
    associated: dict[str, TiffImage] = field(default_factory=dict)
    cautions: list[str] = field(default_factory=list)
    sections: list[Size] = field(default_factory=list)


def roles_of(slide: Candidate, others: Iterable[Candidate], file: FileBytes, *, ome: bool = False) -> Roles:
    """Tell levels, which show the picture of level 0, from pictures beside it.

    Args:
        slide: Level 0; a name that it shares says nothing about others.
        others: The other images.
        file: The file's bytes.
        ome: Whether they are of an OME-TIFF.
    """
    level_0 = slide.image(file, ome=ome)
    others = list(others)
    found = Roles([level_0], cautions=[*level_0.cautions, *_larger_beside(slide, others)])
    pictures: dict[int, TiffImage] = {}
    for other in sorted(others, key=lambda other: -other.size.w):
        beside = other.is_beside and not ome and other.name != slide.name
        try:
            image = other.image(file, ome=ome)
        except LayoutRefusedError as error:
            if other.is_level and not beside and is_reduction(level_0.size, other.size):
                raise
            if _is_large(level_0, other) and not isinstance(error, PixelKindError):  # a grey mask is no section
                _tell_of_second_image(level_0, other, found)
            continue
        fits = is_reduction(level_0.size, image.size)
        candidate = (other.is_level or (other.may_be_level and fits)) and not beside
        compared = _compared(found.levels[-1], image, file) if candidate and fits else None
        if compared is not None and compared.same and (other.is_level or compared.n_compared):
            found.levels.append(image)
            continue
        if candidate and (fits or other.is_level) and not _is_section(slide, other, compared):
            size = f"{image.size.w} x {image.size.h} px"
            found.cautions.append(f"its image of {size} {mismatch(compared)}; it is not used")
        elif _is_large(level_0, other) and not (fits and _compared(level_0, image, file).same):
            _tell_of_second_image(level_0, other, found)
        pictures[id(other)] = image
    for other in others:
        if id(other) in pictures:
            found.associated[_unused(other.name, found.associated)] = pictures[id(other)]
    return found


def _larger_beside(slide: Candidate, others: Iterable[Candidate]) -> Iterator[str]:
    """Tell of a label or macro of more px than the slide, which may be the slide under a wrong name."""
    for other in others:
        if other.is_beside and other.area > slide.area:
            name, (w, h) = escaped(other.name), other.size
            yield f"its picture '{name}' of {w} x {h} px is larger than what is read as the slide"


def _is_section(slide: Candidate, other: Candidate, compared: Comparison | None) -> bool:
    """Check if an image of the slide's shape is too large for a level, and shows something else."""
    return compared is not None and compared.shows_another and other.area > _MOST_REDUCED_SHARE * slide.area


def _is_large(level_0: TiffImage, other: Candidate) -> bool:
    """Check if an image beside the slide may be another section."""
    large = other.is_scan or other.area >= _LARGE_SHARE * level_0.size.w * level_0.size.h
    return large and not other.is_beside


def _tell_of_second_image(level_0: TiffImage, other: Candidate, found: Roles) -> None:
    if any(is_reduction(section, other.size) for section in found.sections):
        return  # one of its levels
    found.sections.append(other.size)
    (w0, h0), (w, h) = level_0.size, other.size
    text = f"it holds a second image of {w} x {h} px beside the slide's {w0} x {h0}, which is not read"
    found.cautions.append(f"{text}; if it is another section, save it as a slide of its own")


@dataclass(frozen=True, slots=True)
class _Spots:
    """An image as the comparison of pictures sees it."""

    image: TiffImage
    file: FileBytes
    recent: RecentTiles = field(default_factory=lambda: RecentTiles(_RECENT_BYTES))

    @property
    def size(self) -> Size:
        return self.image.size

    def region(self, rect: Rect) -> Rgb:
        if self.image.absent[self.image.touched(rect)].any():
            raise DecodeError("a tile is absent")
        out = np.empty((rect.h, rect.w, 3), np.uint8)
        self.image.decode_into(self.file, rect, out, self.recent)
        return out

    def spots(self) -> Sequence[tuple[float, float]]:
        """Middles of the tiles of most bytes, which hold most detail; of equals, those in the middle of the slide."""
        counts, x, y = self._tiles()
        likely = np.flatnonzero(counts >= np.sort(counts)[-_N_SPOTS:][0])  # numbers alone are sorted in a tenth
        order = np.lexsort((np.hypot(x[likely] - 0.5, y[likely] - 0.5), -counts[likely]))[:_N_SPOTS]
        return list(zip(x[likely[order]].tolist(), y[likely[order]].tolist(), strict=True))

    def cells(self) -> Sequence[tuple[float, float]]:
        """Middle of the tile of most bytes in each part; glass has few bytes where tissue has many."""
        counts, x, y = self._tiles()
        column, row = (np.minimum(N_CELLS * at, N_CELLS - 1).astype(np.int64) for at in (x, y))
        cell = N_CELLS * row + column
        most_bytes = np.zeros(N_CELLS**2, np.int64)
        np.maximum.at(most_bytes, cell, counts)
        likely = np.flatnonzero((counts == most_bytes[cell]) & (counts >= _TISSUE_BYTES * counts.max()))
        most = likely[np.unique(cell[likely], return_index=True)[1]]
        return list(zip(x[most].tolist(), y[most].tolist(), strict=True))

    def _tiles(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """(n,) bytes of the tiles, and their middles as shares of width and height."""
        image = self.image
        counts = image.counts.reshape(image.planes, -1).sum(axis=0)
        rows, columns = np.divmod(np.arange(len(counts)), image.n_columns)
        x = np.minimum((columns + 0.5) * image.tile.w / image.size.w, 1)
        y = np.minimum((rows + 0.5) * image.tile.h / image.size.h, 1)
        return counts, x, y


def _compared(fine: TiffImage, coarse: TiffImage, file: FileBytes) -> Comparison:
    """Comparison of an image with a finer one; where no spot can be compared, what the file says is believed."""
    return compare(_Spots(fine, file), _Spots(coarse, file))


def _unused(name: str, taken: dict[str, TiffImage]) -> str:
    """An escaped name that no other picture has."""
    name = escaped(name) or "image"
    return next(n for n in (name, *(f"{name} {i}" for i in range(2, len(taken) + 3))) if n not in taken)


def largest(candidates: Sequence[Candidate]) -> Candidate:
    """The image of most px; of equals, the first.

    Names are free text ("Barcode: S24", "macro-metastasis"): that of the largest image counts only where another, which
    is no reduction of it, may be the slide.
    """
    first = max(candidates, key=lambda candidate: (candidate.area, not candidate.is_beside))
    named = [candidate for candidate in candidates if not candidate.is_beside]
    rival = max(named, key=lambda candidate: candidate.area, default=first)
    is_rival = rival.area >= _RIVAL_SHARE * first.area and not is_reduction(first.size, rival.size)
    return rival if first.is_beside and is_rival else first


def by_size(images: Sequence[TiffImage]) -> tuple[TiffImage, ...]:
    """Levels, finest first."""
    return tuple(sorted(images, key=lambda image: -image.size.w))
