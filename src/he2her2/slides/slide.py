"""The interface of an open slide, whichever library decodes it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from he2her2.geometry import Point, Rgb, Size, SlideFrame


def slide_id_of(path: Path) -> str:
    """Return a slide's name: its file name without the ending.

    Example:
        >>> slide_id_of(Path("a/TCGA-A1.svs")), slide_id_of(Path("b.OME.TIF")), slide_id_of(Path("1.2.840.11"))
        ('TCGA-A1', 'b', '1.2.840.11')
    """
    stem = path.name if path.suffix[1:].isdecimal() else path.stem
    return " ".join((stem[:-4] if stem.lower().endswith(".ome") else stem).split())


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid.

    Attributes:
        size: Width and height in px of this level.
        downsample: Level-0 px per px of this level; whole wherever the sizes allow it.
        tile: Width and height of its compressed tiles; None where the format has none or hides them.
        codec: How its pixels are compressed, in words ("JPEG", "JPEG 2000", "LZW", "none", ...).
    """

    size: Size
    downsample: float
    tile: Size | None
    codec: str


class Slide(Protocol):
    """An open whole-slide image; a context manager, safe to read from several threads."""

    @property
    def slide_id(self) -> str:
        """The slide's name: its file name without the ending."""

    @property
    def path(self) -> Path:
        """File of the slide."""

    @property
    def backend(self) -> str:
        """Its decoder: "tiff" or "openslide"."""

    @property
    def vendor(self) -> str:
        """Manufacturer or program that wrote it: "aperio", "ome", "generic-tiff", "hamamatsu", ..."""

    @property
    def mpp(self) -> float:
        """µm per level-0 pixel."""

    @property
    def size_l0(self) -> Size:
        """Width and height in level-0 px."""

    @property
    def bounds_origin_l0(self) -> Point:
        """Top-left corner of the scanned part of level 0, which QuPath calls (0, 0); it is (0, 0) for most formats."""

    @property
    def frame(self) -> SlideFrame:
        """Level 0, and the points from which programs count their annotations."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest first."""

    @property
    def associated(self) -> Mapping[str, Rgb]:
        """Label, macro and thumbnail pictures that the file carries, decoded when asked for."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """Contradictions, oddities and losses of the file that the reader of a result should know, a sentence each."""

    def effective_mpp(self, mpp: float) -> float:
        """Return the µm per pixel that `read` delivers when asked for `mpp`: a level's own where one is within 10 %."""

    def keeping(self, max_bytes: int) -> AbstractContextManager[None]:
        """Keep decoded tiles from one grid to the next, up to a number of bytes, where the reader can."""

    def read(self, origin_l0: tuple[int, int], size_px: tuple[int, int], mpp: float) -> Rgb:
        """Read a region.

        Args:
            origin_l0: Top-left corner (x, y) in level-0 px; may lie outside the slide.
            size_px: Width and height wanted, in output px.
            mpp: µm per output px. A level within 10 % of it is read natively, else the best level is resampled once.

        Returns:
            (h, w, 3) uint8; white beyond the slide's border.

        Raises:
            UnreadableRegionError: Some of these pixels cannot be decoded. Other regions stay readable.
        """

    def thumbnail(self, mpp: float) -> Rgb:
        """Read the whole slide at `mpp`, in bounded memory; the pixels are those of `read`.

        Pixels that cannot be decoded are white, up to 1 % of them; so is tissue that the file lacks, up to 1 % of it.

        Raises:
            DamagedSlideError: More than 1 % cannot be decoded.
        """

    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
