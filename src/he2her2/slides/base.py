"""Geometry of a slide, shared by both backends. A backend supplies metadata and the pixels of one level."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NoReturn, Self

import numpy as np

from he2her2.errors import DamagedSlideError, SlideOpenError, UnreadableRegionError
from he2her2.geometry import CORNER, GlassFrame, Point, Rgb, Size, SlideFrame, mask_size
from he2her2.slides.levels import WHITE, Rect, Sampling, choose_sampling, stained
from he2her2.slides.resolution import StatedMpp, require_slide_sized, scale_contradictions, settle_mpp
from he2her2.slides.slide import Level, slide_id_of

MAX_LOSS = 0.01
"""Share of a level's pixels, or of its tissue, that may be lost."""

_MAX_UNREDUCED_PX = 10**10
"""More px than the smallest level of a slide may have: masks read that level as a whole."""

CELL = Size(256, 256)
"""Part of a level without tiles that is read, and lost, as one."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata of a file, as its backend reads them.

    Attributes:
        vendor: Manufacturer or program that wrote it.
        levels: The pyramid, finest first.
        stated_mpp: Resolution that the file states.
        other_mpps: Resolutions that follow from its other statements: magnification, TIFF tags, described size.
        objective: Nominal magnification of the objective, where stated.
        bounds: The part of level 0 that was scanned, where the format states it.
        glass: Its place on the glass slide, where the format states it.
        absent_tiles: Compressed tiles that the file leaves out, of all levels; on glass they are read as white.
        cautions: Contradictions and oddities of the file that its reader should know, a sentence each.
    """

    vendor: str
    levels: tuple[Level, ...]
    stated_mpp: StatedMpp
    objective: float | None = None
    bounds: Rect | None = None
    glass: GlassFrame | None = None
    absent_tiles: int = 0
    other_mpps: tuple[StatedMpp, ...] = ()
    cautions: tuple[str, ...] = ()


class LazyImages(Mapping[str, Rgb]):
    """Associated pictures by name; each access decodes the picture."""

    def __init__(self, decoders: Mapping[str, Callable[[], Rgb]]) -> None:
        self._decoders = decoders

    def __getitem__(self, name: str) -> Rgb:
        """The (h, w, 3) picture of that name."""
        return self._decoders[name]()

    def __iter__(self) -> Iterator[str]:
        """The pictures' names."""
        return iter(self._decoders)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._decoders)


class BaseSlide(ABC):
    """An open slide behind the `Slide` protocol; levels' pixels come from the subclass."""

    backend: ClassVar[str]

    def __init__(self, path: Path, metadata: Metadata, mpp: float | None) -> None:
        self.path = path
        self.slide_id = slide_id_of(path)
        self.metadata = metadata
        w, h = self.levels[-1].size
        if w * h > _MAX_UNREDUCED_PX:
            reason = f"has {w} x {h} px on its smallest level, too many to find its tissue"
            raise SlideOpenError(self.slide_id, reason, "convert it to a pyramidal TIFF")
        given = None if mpp is None else float(mpp)  # NumPy's of 16 or 32 bits would round every position
        self.settled_mpp = settle_mpp(self.slide_id, metadata.stated_mpp, given, metadata.other_mpps)
        require_slide_sized(self.slide_id, self.size_l0, self.settled_mpp)

    @abstractmethod
    def _decode(self, level: int, rect: Rect, out: Rgb) -> None:
        """Fill `out` (h, w, 3) with a rectangle that lies inside `level`, or raise UnreadableRegionError."""

    @abstractmethod
    def _associated(self) -> Mapping[str, Rgb]:
        """The label, macro and thumbnail pictures, decoded when asked for."""

    def jpeg_tile(self, level: int, column: int, row: int) -> bytes | None:  # noqa: ARG002
        """A compressed tile of `level` as a JPEG file, found sound; None where it is none, or reaches over the border.

        Raises:
            UnreadableRegionError: The tile is damaged, or absent inside the tissue.
        """
        return None

    def lost_rects(self, level: int) -> list[Rect]:  # noqa: ARG002
        """Rectangles of the absent tiles inside the tissue, in px of `level`, where the reader knows them."""
        return []

    @property
    def drift_px(self) -> float:
        """Distance, at the far end of a level, of the reader's positions from whole px of that level."""
        return 0.0

    @property
    def cautions(self) -> tuple[str, ...]:
        """Contradictions, oddities and losses of the file that the reader of a result should know, a sentence each."""
        n_lost = sum(len(self.lost_rects(level)) for level in range(len(self.levels)))
        lost = f"{n_lost} compressed tiles are absent inside the tissue; copy or scan the file again"
        return (*self.scale_cautions, *self.metadata.cautions, *((lost,) if n_lost else ()))

    @property
    def scale_cautions(self) -> tuple[str, ...]:
        """Sources of its µm per pixel that contradict each other, in a sentence."""
        return scale_contradictions(self.settled_mpp, self.metadata.stated_mpp, self.metadata.other_mpps)

    @abstractmethod
    def close(self) -> None:
        """Close the file; closing twice does nothing."""

    @property
    def vendor(self) -> str:
        """Manufacturer or program that wrote the file."""
        return self.metadata.vendor

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest first."""
        return self.metadata.levels

    @property
    def size_l0(self) -> Size:
        """Width and height in level-0 px."""
        return self.levels[0].size

    @property
    def bounds_origin_l0(self) -> Point:
        """Top-left corner of the part of level 0 that was scanned."""
        bounds = self.metadata.bounds
        return CORNER if bounds is None else Point(bounds.x, bounds.y)

    @property
    def frame(self) -> SlideFrame:
        """Level 0, and the points from which programs count their annotations."""
        return SlideFrame(self.size_l0, self.bounds_origin_l0, self.metadata.glass)

    @property
    def mpp(self) -> float:
        """µm per level-0 px, the mean of both directions."""
        settled = self.settled_mpp
        assert settled.x is not None
        assert settled.y is not None
        return settled.x if settled.x == settled.y else (settled.x + settled.y) / 2

    @cached_property
    def associated(self) -> Mapping[str, Rgb]:
        """The label, macro and thumbnail pictures, decoded when asked for."""
        return self._associated()

    def sampling(self, mpp: float) -> Sampling:
        """Return the sampling with which `read` delivers `mpp`."""
        return choose_sampling(self.levels, self.mpp, mpp)

    def effective_mpp(self, mpp: float) -> float:
        """Return the µm per pixel that `read` delivers when asked for `mpp`."""
        return self.mpp * self.sampling(mpp).scale

    def keeping(self, max_bytes: int) -> AbstractContextManager[None]:  # noqa: ARG002  a reader that has its own cache
        """Keep decoded tiles; see `Slide.keeping`."""
        return nullcontext()

    def read(self, origin_l0: tuple[int, int], size_px: tuple[int, int], mpp: float) -> Rgb:
        """Read a region; see `Slide.read`."""
        if min(size_px) < 1:
            raise ValueError(f"size_px must be at least 1 x 1, got {tuple(size_px)}")
        sampling = self.sampling(mpp)
        return sampling.read(lambda rect: self.read_level(sampling.level, rect), Point(*origin_l0), Size(*size_px))

    def read_level(self, level: int, rect: Rect) -> Rgb:
        """Pixels of a rectangle of one level, in px of that level; white beyond its border.

        Raises:
            UnreadableRegionError: Some of these pixels cannot be decoded.
        """
        inside = rect.clipped(self.levels[level].size)
        if inside == rect:
            out = np.empty((rect.h, rect.w, 3), np.uint8)
        else:
            out = np.full((rect.h, rect.w, 3), WHITE, np.uint8)
        if inside.w and inside.h:
            x, y = inside.x - rect.x, inside.y - rect.y
            self._decode(level, inside, out[y : y + inside.h, x : x + inside.w])
        return out

    def thumbnail(self, mpp: float) -> Rgb:
        """The whole slide at `mpp`; see `Slide.thumbnail`."""
        sampling = self.sampling(mpp)
        lost: set[Rect] = set()
        pixels = sampling.read(
            lambda rect: self.read_what_can_be(sampling.level, rect, lost),
            Point(0, 0),
            mask_size(self.size_l0, sampling.scale),
        )
        if lost:
            self._raise_if_too_much(lost, sampling.level, pixels)
        return pixels

    def _raise_if_too_much(self, lost: set[Rect], level: int, pixels: Rgb) -> None:
        """Raise if more than 1 % of a level's px, or of its tissue, is lost to the thumbnail `pixels`."""
        size = self.levels[level].size
        remedy = "copy the file again, or scan the slide again"
        share = sum(rect.w * rect.h for rect in lost) / (size.w * size.h)
        if share > MAX_LOSS:
            reason = f"{100 * share:.1f} % of its pixels at level {level} cannot be decoded"
            raise DamagedSlideError(self.slide_id, reason, remedy)
        lost_tissue = sum(rect.w * rect.h for rect in self.lost_rects(level)) / (size.w * size.h)
        share = lost_tissue / max(lost_tissue + float(stained(pixels).mean()), 1e-12)
        if share > MAX_LOSS:
            reason = f"{100 * share:.1f} % of its tissue is absent at level {level}"
            raise DamagedSlideError(self.slide_id, reason, remedy)

    def read_what_can_be(self, level: int, rect: Rect, lost: set[Rect]) -> Rgb:
        """`read_level`, but compressed tiles that cannot be decoded are white, and added to `lost`."""
        try:
            return self.read_level(level, rect)
        except UnreadableRegionError:
            pass
        size = self.levels[level].size
        cell = self.levels[level].tile or CELL
        out = np.full((rect.h, rect.w, 3), WHITE, np.uint8)
        columns, rows = rect.clipped(size).cells(cell)
        for tile in (Rect(i * cell.w, j * cell.h, *cell).clipped(size) for j in rows for i in columns):
            x0, y0 = max(tile.x, rect.x), max(tile.y, rect.y)
            w, h = min(tile.x + tile.w, rect.x + rect.w) - x0, min(tile.y + tile.h, rect.y + rect.h) - y0
            try:
                piece = self.read_level(level, Rect(x0, y0, w, h))
            except UnreadableRegionError:
                lost.add(tile)
            else:
                out[y0 - rect.y :, x0 - rect.x :][:h, :w] = piece
        return out

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: it holds an open file."""
        raise TypeError(f"{self.slide_id}: an open slide cannot be sent to another process; open {self.path} there")

    def __enter__(self) -> Self:
        """Use the slide in a `with` block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the slide."""
        self.close()
