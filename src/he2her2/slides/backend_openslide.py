"""OpenSlide behind the `Slide` protocol: every vendor's format, and DICOM.

Exactness. OpenSlide is asked in level-0 px, and divides by its own downsample, the mean of both directions' ratios.
Where that is whole, level px come out as they are stored. Where it is not (a level of 400 px under 801 has 2.003),
OpenSlide translates tiles by a fraction of a level px and blends neighbours linearly. We ask for the level-0 px whose
fraction is least, which is at most 0.5 / downsample; a fraction under 1/256 px is exact. No request avoids the rest:
on such levels a pixel may hold up to that share of its neighbour, where the TIFF reader gives what is stored.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import ClassVar

import numpy as np
import openslide
from PIL import Image

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Rgb, Size
from he2her2.slides.base import BaseSlide, LazyImages, Metadata
from he2her2.slides.levels import WHITE, Rect, whole_downsample
from he2her2.slides.resolution import UNSTATED, StatedMpp, number_or_none, plausible_or_unstated
from he2her2.slides.slide import Level

_MAX_READ_PX = 1 << 24


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
        self._handle: openslide.OpenSlide | None = openslide.OpenSlide(path)
        self._downsamples = self._handle.level_downsamples
        try:
            super().__init__(path, _metadata(self._handle), mpp)
        except BaseException:
            self.close()
            raise

    def _decode(self, level: int, rect: Rect, out: Rgb) -> None:
        rows = max(1, _MAX_READ_PX // rect.w)
        for top in range(0, rect.h, rows):
            strip = Rect(rect.x, rect.y + top, rect.w, min(rows, rect.h - top))
            out[top : top + strip.h] = _on_white(self._read_region(level, strip))

    def _read_region(self, level: int, rect: Rect) -> Image.Image:
        """Read RGBA pixels; a second try on a fresh handle tells a damaged region from a handle that died elsewhere."""
        downsample = self._downsamples[level]
        region = (round(rect.x * downsample), round(rect.y * downsample)), level, (rect.w, rect.h)
        handle = self._open_handle()
        try:
            return handle.read_region(*region)
        except openslide.OpenSlideError:
            pass
        try:
            fresh = openslide.OpenSlide(self.path)
            image = fresh.read_region(*region)
        except openslide.OpenSlideError as error:
            raise self._unreadable(f"level {level} at ({rect.x}, {rect.y})", error) from None
        self._replace(handle, fresh)
        return image

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
        return LazyImages({name: partial(self._picture, name) for name in self._open_handle().associated_images})

    def _picture(self, name: str) -> Rgb:
        self._open_handle()  # a closed slide has no pictures
        try:
            with openslide.OpenSlide(self.path) as own:  # damage must not kill the handle that reads levels
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


def _metadata(handle: openslide.OpenSlide) -> Metadata:
    properties = handle.properties
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
    sizes = [Size(*size) for size in handle.level_dimensions]
    levels = tuple(
        Level(size, whole_downsample(sizes[0], size), _tile(properties, i), "as OpenSlide decodes it")
        for i, size in enumerate(sizes)
    )
    objective = number_or_none(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
    return Metadata(vendor, levels, _stated_mpp(properties, vendor), objective, _bounds(properties))


def _tile(properties: Mapping[str, str], level: int) -> Size | None:
    sides = [properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height")]
    return Size(int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None


def _stated_mpp(properties: Mapping[str, str], vendor: str) -> StatedMpp:
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    x, y = (number_or_none(properties.get(name)) for name in names)
    if x is None or y is None:
        return UNSTATED
    if vendor == "generic-tiff":
        return plausible_or_unstated(x, y, "TIFF resolution tags")
    return StatedMpp(x, y, f"{vendor.capitalize()} metadata")


def _bounds(properties: Mapping[str, str]) -> Rect | None:
    names = ("BOUNDS_X", "BOUNDS_Y", "BOUNDS_WIDTH", "BOUNDS_HEIGHT")
    values = [properties.get(getattr(openslide, f"PROPERTY_NAME_{name}")) for name in names]
    return Rect(*(int(value) for value in values if value)) if all(values) else None
