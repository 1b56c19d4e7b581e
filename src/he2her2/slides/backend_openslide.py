"""OpenSlide behind the `Slide` protocol: every vendor's format, and DICOM.

Exactness. OpenSlide is asked in level-0 px, and divides by its own downsample, the mean of both directions' ratios.
Where that is whole, level px come out as they are stored. Where it is not (a level of 400 px under 801 has 2.003),
OpenSlide translates tiles by a fraction of a level px and blends neighbours linearly. We ask for the level-0 px whose
fraction is least, which is at most 0.5 / downsample; a fraction under 1/256 px is exact. No request avoids the rest:
on such levels a pixel may hold up to that share of its neighbour, where the TIFF reader gives what is stored.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import ClassVar

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import GlassFrame, Rgb, Size
from he2her2.slides.base import BaseSlide, LazyImages, Metadata
from he2her2.slides.gaps import MOST_PX, Gaps
from he2her2.slides.levels import WHITE, Rect, whole_downsample
from he2her2.slides.resolution import (
    StatedMpp,
    number_or_none,
    of_description,
    of_magnification,
    of_objective,
    plausible_or_unstated,
    stated_mpp,
)
from he2her2.slides.same_picture import N_CELLS, compare, is_reduction, mismatch
from he2her2.slides.slide import Level
from he2her2.units import UM_PER_UNIT

_MAX_READ_PX = 1 << 24
_CELL = Size(256, 256)
_KEEPING_ALL = frozenset({"aperio", "generic-tiff", "trestle"})
"""Vendors whose files hold the whole rectangle; others scan and store islands of it."""
_OBJECTIVES = frozenset({"dicom", "mirax", "zeiss"})
"""Vendors whose files name the objective, which works with an adapter: no magnification of the scan."""
_N_SPOTS, _SPOT_PX = 3, 32
_PARTS = tuple(((i + 0.5) / N_CELLS, (j + 0.5) / N_CELLS) for j in range(N_CELLS) for i in range(N_CELLS))
_SPOTS = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))


_OPENING = Lock()


def _opened(path: Path) -> openslide.OpenSlide:
    """Open a slide with the process's error stream closed to GLib, whose warnings OpenSlide lets through.

    GLib is linked into OpenSlide and takes no other handler; what is wrong with a slide is told by its exception.
    """
    with _OPENING, Path(os.devnull).open("wb") as nothing:
        try:
            stream = os.dup(2)
        except OSError:  # the process has no error stream
            return openslide.OpenSlide(path)
        try:
            os.dup2(nothing.fileno(), 2)
            return openslide.OpenSlide(path)
        finally:
            os.dup2(stream, 2)
            os.close(stream)


class OpenSlideSlide(BaseSlide):
    """A slide that OpenSlide decodes. After a decoding error its handle is dead; it is opened again."""

    backend: ClassVar[str] = "openslide"

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        """Open a slide.

        Args:
            path: The file.
            mpp: µm per level-0 px; outranks the file's.

        Raises:
            openslide.OpenSlideError: OpenSlide cannot open it.
            MppError: Its mpp is unknown or impossible.
        """
        self._lock = Lock()
        self._file = path.absolute()  # it is opened again, perhaps from another working folder
        self._handle: openslide.OpenSlide | None = _opened(path)
        try:
            self._numbers, cautions = _levels_of_one_picture(path, self._handle)
            self._downsamples = self._handle.level_downsamples
            self._pictures = tuple(self._handle.associated_images)
            super().__init__(path, _metadata(self._handle, self._numbers, cautions), mpp)
        except BaseException:
            self.close()
            raise

    def _decode(self, level: int, rect: Rect, out: Rgb) -> None:
        rows = max(1, _MAX_READ_PX // rect.w)
        for top in range(0, rect.h, rows):
            strip = Rect(rect.x, rect.y + top, rect.w, min(rows, rect.h - top))
            image = self._read_region(level, strip)
            out[top : top + strip.h] = _on_white(image)
            self._raise_if_tissue_is_hidden(image, level, strip)

    def _raise_if_tissue_is_hidden(self, image: Image.Image, level: int, rect: Rect) -> None:
        """Raise if pixels that the file leaves out, which OpenSlide makes transparent, lie in the tissue."""
        hidden = np.asarray(image)[..., 3] == 0
        if (
            self._gaps is not None
            and hidden.any()
            and self._gaps.hide_tissue(hidden, rect, self.levels[level].downsample)
        ):
            raise UnreadableRegionError(
                self.slide_id,
                f"level {level} at ({rect.x}, {rect.y}) cannot be decoded (its pixels are absent inside the tissue)",
                "copy the file again; other regions stay readable",
            )

    @cached_property
    def _gaps(self) -> Gaps | None:
        """Gaps, by the coarsest level; None where that is too large, or the format leaves out what it likes."""
        size = self.levels[-1].size
        if self.vendor not in _KEEPING_ALL or size.w * size.h > MOST_PX:
            return None
        rgba = np.empty((size.h, size.w, 4), np.uint8)
        rows = max(1, _MAX_READ_PX // size.w)
        for top in range(0, size.h, rows):
            n = min(rows, size.h - top)
            try:
                rgba[top : top + n] = np.asarray(self._read_region(len(self.levels) - 1, Rect(0, top, size.w, n)))
            except UnreadableRegionError:
                rgba[top : top + n] = (WHITE, WHITE, WHITE, WHITE)  # damage is found, and counted, elsewhere
        return Gaps.of(rgba, self.size_l0)

    def lost_rects(self, level: int) -> list[Rect]:
        """Tiles of the coarsest level that are absent inside the tissue; those of others are found as they are read."""
        last = len(self.levels) - 1
        if level != last or self._gaps is None:
            return []
        return self._gaps.enclosed_tiles(self.levels[last].tile or _CELL, self.levels[last].size)

    def _read_region(self, level: int, rect: Rect) -> Image.Image:
        """Read RGBA pixels; a second try on a fresh handle tells a damaged region from a handle that died elsewhere."""
        number = self._numbers[level]
        downsample = self._downsamples[number]
        region = (round(rect.x * downsample), round(rect.y * downsample)), number, (rect.w, rect.h)
        handle = self._open_handle()
        try:
            return handle.read_region(*region)
        except openslide.OpenSlideError:
            pass
        try:
            fresh = _opened(self._file)
            image = fresh.read_region(*region)
        except openslide.OpenSlideError as error:
            raise self._unreadable(f"level {level} at ({rect.x}, {rect.y})", error) from None
        self._replace(handle, fresh)
        return image

    @property
    def drift_px(self) -> float:
        """Distance, at the far end of a level, of OpenSlide's positions from whole px of that level."""
        downsamples = (self._downsamples[number] for number in self._numbers)
        return max(
            abs(round(ratio) / ratio - 1) * max(level.size)
            for ratio, level in zip(downsamples, self.levels, strict=True)
        )

    def opacity(self) -> NDArray[np.uint8]:
        """(n,) alpha of px at a few spots of level 0."""
        found = [np.empty(0, np.uint8)]
        w, h = self.size_l0
        for x, y in _SPOTS:
            side = min(64, w, h)
            spot = Rect(int(x * (w - side)), int(y * (h - side)), side, side)
            try:
                found.append(np.asarray(self._read_region(0, spot))[..., 3].ravel())
            except UnreadableRegionError:
                continue
        return np.concatenate(found)

    def _open_handle(self) -> openslide.OpenSlide:
        with self._lock:
            if self._handle is None:
                raise ValueError("the slide is closed")
            return self._handle

    def _replace(self, dead: openslide.OpenSlide, fresh: openslide.OpenSlide) -> None:
        """Replace a dead handle unless another thread did; threads that still read from it keep it alive."""
        with self._lock:
            if self._handle is dead:
                self._handle = fresh

    def _unreadable(self, what: str, error: openslide.OpenSlideError) -> UnreadableRegionError:
        remedy = "copy the file again; other regions stay readable"
        return UnreadableRegionError(self.slide_id, f"{what} cannot be decoded ({error})", remedy)

    def _associated(self) -> Mapping[str, Rgb]:
        return LazyImages({name: partial(self._picture, name) for name in self._pictures})

    def _picture(self, name: str) -> Rgb:
        self._open_handle()  # a closed slide has no pictures
        try:
            with _opened(self._file) as own:  # damage must not kill the handle that reads levels
                return _on_white(own.associated_images[name])
        except openslide.OpenSlideError as error:
            raise self._unreadable(f"the picture '{name}'", error) from None

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def _on_white(image: Image.Image) -> Rgb:
    """(h, w, 3) RGB of an RGBA picture laid on white."""
    rgba = np.asarray(image)
    if (rgba[..., 3] == WHITE).all():
        return np.ascontiguousarray(rgba[..., :3])
    paper = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
    return np.asarray(Image.alpha_composite(paper, image).convert("RGB"))


class _OwnHandle:
    """A handle beside the one that reads levels, opened again after a decoding error, which kills it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = _opened(path)

    def read_region(self, origin_l0: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        try:
            return self._handle.read_region(origin_l0, level, size)
        except openslide.OpenSlideError as error:
            self.close()
            self._handle = _opened(self._path)
            raise UnreadableRegionError("", str(error), "") from None

    def close(self) -> None:
        self._handle.close()


@dataclass(frozen=True)
class _LevelPicture:
    """A level as the comparison of pictures sees it."""

    handle: _OwnHandle
    level: int
    size: Size
    downsample: float

    def region(self, rect: Rect) -> Rgb:
        origin = round(rect.x * self.downsample), round(rect.y * self.downsample)
        image = self.handle.read_region(origin, self.level, (rect.w, rect.h))
        if not np.asarray(image)[..., 3].all():
            raise UnreadableRegionError("", "the file leaves out a part", "")
        return _on_white(image)

    def spots(self) -> Sequence[tuple[float, float]]:
        return self._by_detail[:_N_SPOTS]

    def cells(self) -> Sequence[tuple[float, float]]:
        return _PARTS

    @cached_property
    def _by_detail(self) -> list[tuple[float, float]]:
        """Middles of the parts, those of most contrast first."""
        side = min(_SPOT_PX, *self.size)
        contrast = {}
        for x, y in _PARTS:
            spot = Rect(round(x * (self.size.w - side)), round(y * (self.size.h - side)), side, side)
            with suppress(UnreadableRegionError):
                contrast[x, y] = float(self.region(spot).std(axis=(0, 1)).max())
        return sorted(contrast, key=lambda at: -contrast[at])


def _levels_of_one_picture(path: Path, handle: openslide.OpenSlide) -> tuple[list[int], tuple[str, ...]]:
    """Numbers of OpenSlide's levels that show the picture of level 0, and cautions about the others.

    OpenSlide believes what a file calls a level; of an Aperio file it takes every tiled directory, be it a macro.
    Where levels are padded they have other shapes than level 0; only of Aperio's is that held against one.
    """
    numbers = list(range(handle.level_count))
    if len(numbers) == 1:
        return numbers, ()
    aperio = handle.properties.get(openslide.PROPERTY_NAME_VENDOR) == "aperio"
    kept, cautions = [0], []
    with closing(_OwnHandle(path)) as own:
        levels = zip(handle.level_dimensions, handle.level_downsamples, strict=True)
        pictures = [_LevelPicture(own, n, Size(*size), downsample) for n, (size, downsample) in enumerate(levels)]
        for coarse in pictures[1:]:
            fine = pictures[kept[-1]]
            compared = compare(fine, coarse) if is_reduction(fine.size, coarse.size) else None
            if not aperio if compared is None else compared.same:
                kept.append(coarse.level)
            else:
                size = f"{coarse.size.w} x {coarse.size.h} px"
                cautions.append(f"its image of {size} {mismatch(compared)}; it is not used")
    return kept, tuple(cautions)


def _metadata(handle: openslide.OpenSlide, numbers: Sequence[int], cautions: tuple[str, ...]) -> Metadata:
    properties = handle.properties
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
    sizes = [Size(*size) for size in handle.level_dimensions]
    levels = tuple(
        Level(sizes[i], whole_downsample(sizes[0], sizes[i]), _tile(properties, i), "as OpenSlide decodes it")
        for i in numbers
    )
    objective = number_or_none(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
    stated = _stated_mpp(properties, vendor)
    others, more = _other_mpps(properties, vendor, objective, sizes[0], stated)
    return Metadata(
        vendor,
        levels,
        stated,
        objective,
        _bounds(properties),
        _glass(properties, sizes[0], stated),
        other_mpps=others,
        cautions=(*more, *_dicom_cautions(properties, levels[0]), *cautions),
    )


def _dicom_cautions(properties: Mapping[str, str], level: Level) -> Iterator[str]:
    """Tell of a series without its finest level, and of more frames than tiles.

    Args:
        properties: OpenSlide's.
        level: The finest one.
    """
    if properties.get("dicom.ImageType[3]") == "RESAMPLED":
        found = "its finest level is a reduction of another, by its DICOM image type, which is not beside it"
        yield f"{found}; copy all files of the series into one folder"
    n = number_or_none(properties.get("dicom.NumberOfFrames"))
    if n and level.tile:
        n_tiles = -(-level.size.w // level.tile.w) * -(-level.size.h // level.tile.h)
        if n > n_tiles:
            what = "focal planes or optical paths, of which OpenSlide reads one without choosing"
            yield f"it has {n:.0f} frames for {n_tiles} tiles: {what}; export one focal plane, or look at the slide"


def _other_mpps(
    properties: Mapping[str, str], vendor: str, objective: float | None, size: Size, stated: StatedMpp
) -> tuple[tuple[StatedMpp, ...], tuple[str, ...]]:
    """Resolutions that follow from other statements, and cautions about the size."""
    if vendor in _OBJECTIVES:
        return (of_objective(objective, stated, binding=False), _imaged_mpp(properties, size)), ()
    aperio = vendor == "aperio"
    power = of_magnification(objective, binding=aperio)
    if not aperio:
        return (power, _imaged_mpp(properties, size)), ()
    unit = UM_PER_UNIT.get({"centimeter": "cm"}.get(properties.get("tiff.ResolutionUnit", ""), "inch"), 0.0)
    x, y = (number_or_none(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
    tags = plausible_or_unstated(unit / x if x else None, unit / y if y else None, "TIFF resolution tags")
    described, cautions = of_description(properties.get(openslide.PROPERTY_NAME_COMMENT, ""), size, stated)
    return (power, tags, *described), cautions


def _imaged_mpp(properties: Mapping[str, str], size: Size) -> StatedMpp:
    """Resolution that follows from the size on glass, in mm, that DICOM states beside that of a px."""
    w, h = (number_or_none(properties.get(f"dicom.ImagedVolume{side}")) for side in ("Width", "Height"))
    return plausible_or_unstated(w and 1e3 * w / size.w, h and 1e3 * h / size.h, "DICOM's imaged volume")


def _tile(properties: Mapping[str, str], level: int) -> Size | None:
    sides = [properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height")]
    return Size(int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None


def _stated_mpp(properties: Mapping[str, str], vendor: str) -> StatedMpp:
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    x, y = (number_or_none(properties.get(name)) for name in names)
    if vendor == "generic-tiff":
        return plausible_or_unstated(x, y, "TIFF resolution tags")
    return stated_mpp(x, y, f"{vendor.capitalize()} metadata")


def _glass(properties: Mapping[str, str], size: Size, stated: StatedMpp) -> GlassFrame | None:
    """Place of the picture on the glass slide, of Hamamatsu's files: how far their centres are apart, in nm."""
    offsets = [number_or_none(properties.get(f"hamamatsu.{axis}OffsetFromSlideCentre")) for axis in "XY"]
    if stated.x is None or stated.y is None or offsets[0] is None or offsets[1] is None:
        return None
    nm = (1000 * stated.x, 1000 * stated.y)
    return GlassFrame((size.w / 2 - offsets[0] / nm[0], size.h / 2 - offsets[1] / nm[1]), nm)


def _bounds(properties: Mapping[str, str]) -> Rect | None:
    names = ("BOUNDS_X", "BOUNDS_Y", "BOUNDS_WIDTH", "BOUNDS_HEIGHT")
    values = [properties.get(getattr(openslide, f"PROPERTY_NAME_{name}")) for name in names]
    return Rect(*(int(value) for value in values if value)) if all(values) else None
