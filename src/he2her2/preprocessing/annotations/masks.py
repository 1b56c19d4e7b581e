"""Annotated regions as masks: polygons filled by the even-odd rule, and painted pictures resampled."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from he2her2.errors import AnnotationError
from he2her2.geometry import CORNER, Mask, Size, SlideFrame, l0_from_mask, mask_size
from he2her2.preprocessing.annotations.classes import ClassUse, is_doubtful

CountedFrom: TypeAlias = Literal["level 0", "bounds", "glass"]
"""Origin and unit of a program's coordinates: px from the corner of level 0 or of the scanned bounds (QuPath), or nm
from the centre of the glass slide (NDP.view)."""

_SHAPE_TOLERANCE = 0.02
_CHUNK = 1 << 21  # crossings of outlines and rows at a time
_MAX_CROSSINGS = 300_000_000  # some 15 s; an outline of 2 000 random points has 1 300 000
_PAINTED = "(painted mask)"


@dataclass(frozen=True, slots=True)
class Region:
    """An area drawn on a slide.

    Attributes:
        polygon: shapely Polygon or MultiPolygon. It may cross itself: what it encloses an odd number of
            times is inside, as if it were repaired, so that both lobes of an eight are.
        name: Its class.
        use: Of that class.
        is_hole: It is cut out of the other regions of its class.
    """

    polygon: Any
    name: str
    use: ClassUse = ClassUse.TUMOUR
    is_hole: bool = False


@dataclass(frozen=True, slots=True)
class DrawnRegions:
    """Polygons drawn on a slide.

    Attributes:
        regions: Those that are tumour without those that are cut out are the mask.
        counted_from: Origin and unit of their coordinates.
        warnings: Shapes that were skipped, and other cautions.
        mpp: µm per level-0 px of the slide that they were drawn on; None where the file does not say.
    """

    regions: tuple[Region, ...]
    counted_from: CountedFrom = "level 0"
    warnings: tuple[str, ...] = ()
    mpp: float | None = None

    @property
    def classes(self) -> dict[str, ClassUse]:
        """Use of each class, in the order of the file."""
        return {region.name: region.use for region in self.regions}

    def mask(self, size: Size, px_l0: float, frame: SlideFrame) -> Mask:
        """Raster the tumour on a mask of the whole slide; a pixel belongs to it if its centre does.

        Args:
            size: Width and height of the mask.
            px_l0: Level-0 px per mask px.
            frame: Of the slide.

        Returns:
            (h, w)

        Raises:
            AnnotationError: The outlines are too long to be filled, or counted from a point that the slide's file does
                not state.

        Example:
            >>> drawn = DrawnRegions((Region(shapely.box(0, 0, 50, 30), ""),))
            >>> drawn.mask(Size(3, 2), 32.0, SlideFrame(Size(96, 64))).tolist()
            [[True, True, False], [False, False, False]]
        """
        canvas = self._canvas(size, px_l0, frame)
        tumour, cut_out = (
            self._filled([region for region in self.regions if region.use is use], canvas)
            for use in (ClassUse.TUMOUR, ClassUse.CUT_OUT)
        )
        return tumour & ~cut_out

    def doubtful(self, size: Size, px_l0: float, frame: SlideFrame) -> Mask:
        """Raster what is neither tumour nor an example of other tissue, see `is_doubtful`; arguments as of `mask`."""
        regions = [region for region in self.regions if is_doubtful(region.name, region.use)]
        return self._filled(regions, self._canvas(size, px_l0, frame))

    def off_slide(self, frame: SlideFrame) -> float:
        """Share of the boxes around the tumour that lies beyond the border of a slide; errors as of `mask`."""
        canvas = self._canvas(frame.size_l0, 1.0, frame)
        tumour = [region.polygon for region in self.regions if region.use is ClassUse.TUMOUR and not region.is_hole]
        boxes = np.array([[px.min(axis=0), px.max(axis=0)] for px in map(canvas.px, tumour)])
        inside = np.clip(boxes, 0, frame.size_l0)
        area = np.prod(boxes[:, 1] - boxes[:, 0], axis=1)
        return float(1 - np.prod(inside[:, 1] - inside[:, 0], axis=1).sum() / max(area.sum(), 1e-9))

    def _canvas(self, size: Size, px_l0: float, frame: SlideFrame) -> "_Canvas":
        if self.counted_from != "glass":
            return _Canvas(size, px_l0, frame.bounds_origin_l0 if self.counted_from == "bounds" else CORNER)
        if frame.glass is None:
            raise AnnotationError(
                "its regions are counted from the centre of the glass slide, which the slide's file does not state; "
                "give the scanner's own file, or draw them in QuPath"
            )
        return _Canvas(size, px_l0, frame.glass.centre_l0, frame.glass.nm_per_px)

    def _filled(self, regions: list[Region], canvas: "_Canvas") -> Mask:
        """(h, w) union of classes, each without its own holes."""
        canvas.check_length(region.polygon for region in regions)
        classes: dict[str, list[Region]] = {}
        for region in regions:
            classes.setdefault(region.name, []).append(region)
        filled = canvas.empty()
        for own in classes.values():
            holes = [region.polygon for region in own if region.is_hole]
            inside = canvas.empty() if holes else filled
            canvas.fill(inside, (region.polygon for region in own if not region.is_hole))
            if holes:
                cut = canvas.empty()
                canvas.fill(cut, holes)
                filled |= inside & ~cut
        return filled


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Raster of a slide.

    Attributes:
        size: Width and height in px.
        px_l0: Level-0 px per px.
        origin_l0: Point that polygons are counted from.
        per_px: Units of the polygons per level-0 px, across and down.
    """

    size: Size
    px_l0: float
    origin_l0: tuple[float, float]
    per_px: tuple[float, float] = (1.0, 1.0)

    def empty(self) -> Mask:
        """(h, w) of False."""
        return np.zeros((self.size.h, self.size.w), np.bool_)

    def check_length(self, polygons: Iterable[Any]) -> None:
        """Raise where filling would take minutes: outlines that cross the rows of the mask without end."""
        corners, owner = shapely.get_coordinates(list(polygons), return_index=True)
        steps = np.abs(np.diff(np.clip(self._px(corners)[:, 1], 0, self.size.h)))
        n = float(steps[owner[1:] == owner[:-1]].sum())
        if n > _MAX_CROSSINGS:
            raise AnnotationError(
                f"the outlines cross the rows of the slide {n:.2g} times, too often to be filled; draw them simpler"
            )

    def fill(self, mask: Mask, polygons: Iterable[Any]) -> None:
        """Set the pixels of `mask` whose centres lie in one of the polygons."""
        parts = shapely.get_parts(list(polygons))
        outlines, n_holes = shapely.get_exterior_ring(parts), shapely.get_num_interior_rings(parts).tolist()
        for part, outline, n in zip(parts, outlines, n_holes, strict=True):
            if (found := self._inside([outline])) is None:
                continue
            box, inside = found
            if n and (cut := self._inside(shapely.get_rings(part)[1:])) is not None:
                whole = self.empty()
                whole[cut[0]] = cut[1]
                inside &= ~whole[box]
            mask[box] |= inside

    def _inside(self, rings: Iterable[Any]) -> tuple[tuple[slice, slice], Mask] | None:
        """A box of the mask and, in it, the pixels whose centres the rings enclose an odd number of times.

        A centre is inside where an odd number of edges lies to its left. scikit-image and Pillow draw edges into both
        neighbours: `test_neighbours_that_share_an_edge_share_no_pixel`.
        """
        starts, ends = self._edges(rings)
        rows = np.clip(np.ceil([starts[:, 1], ends[:, 1]]), 0, self.size.h).astype(np.int64)
        first, after = np.minimum(*rows), np.maximum(*rows)
        crossing = after > first
        if not crossing.any():
            return None
        starts, ends, first, after = starts[crossing], ends[crossing], first[crossing], after[crossing]
        top, bottom = int(first.min()), int(after.max())
        both = np.concatenate([starts[:, 0], ends[:, 0]])
        left, right = (math.floor(min(max(x, 0), self.size.w)) for x in (both.min(), both.max() + 1))
        height, width = bottom - top, right - left + 1  # the last column takes what lies to the right of the box
        odd = np.zeros(height * width, np.bool_)
        for rows, columns in _crossings(starts, ends, first, after):
            index = (rows - top) * width + np.clip(columns, left, right) - left
            odd ^= np.bincount(index, minlength=height * width) % 2 == 1
        inside = np.logical_xor.accumulate(odd.reshape(height, width), axis=1)[:, :-1]
        return (slice(top, bottom), slice(left, right)), inside

    def _edges(self, rings: Iterable[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, 2) starts and ends of all rings' edges in mask px, pixel centres at whole numbers."""
        corners = [self.px(ring) - 0.5 for ring in rings]
        return np.concatenate([ring[:-1] for ring in corners]), np.concatenate([ring[1:] for ring in corners])

    def px(self, shape: Any) -> NDArray[np.float64]:  # noqa: ANN401  # shapely is untyped
        """(n, 2) corners of a shape in px of the raster."""
        return self._px(shapely.get_coordinates(shape))

    def _px(self, corners: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((corners / self.per_px + self.origin_l0) / self.px_l0)


def _crossings(
    starts: NDArray[np.float64], ends: NDArray[np.float64], first: NDArray[np.int64], after: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows that edges cross, and the first column to the right of each crossing; so many edges at a time.

    Args:
        starts: (n, 2) of the edges.
        ends: (n, 2)
        first: (n,) first row that each crosses.
        after: (n,) row after the last.
    """
    n_rows = after - first
    cuts = np.flatnonzero(np.diff(np.cumsum(n_rows) // _CHUNK)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(starts)]):
        n = n_rows[start:end]
        edge = np.repeat(np.arange(start, end), n)
        rows = np.arange(len(edge)) - np.repeat(np.cumsum(n) - n, n) + first[edge]
        (x0, y0), (x1, y1) = starts[edge].T, ends[edge].T
        yield rows, np.ceil(x0 + (rows - y0) * (x1 - x0) / (y1 - y0)).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class PaintedMask:
    """A picture of a whole slide in which the annotated pixels are painted.

    Attributes:
        pixels: (h, w) of any resolution; True is annotated.
        file: The picture, for messages.
        px_l0: Level-0 px per px as the file states it, as masks of ours do; it counts where it makes the picture as
            large as a mask of the slide, whose last px reach over the border; else the picture ends with the slide.
    """

    pixels: Mask
    file: Path
    px_l0: float | None = None

    @property
    def classes(self) -> dict[str, ClassUse]:
        """Its one class."""
        return {_PAINTED: ClassUse.TUMOUR}

    @property
    def warnings(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def mpp(self) -> None:
        """None: it covers the slide at any scale."""

    def mask(self, size: Size, px_l0: float, frame: SlideFrame) -> Mask:
        """Resample the picture to a mask of the whole slide, each pixel by its centre; see `DrawnRegions.mask`.

        Raises:
            AnnotationError: The picture's shape is not the slide's.
        """
        size_l0 = frame.size_l0
        height, width = self.pixels.shape
        if self.px_l0 is not None and mask_size(size_l0, self.px_l0) == (width, height):
            across = down = self.px_l0
        else:
            self._check_shape(size_l0)
            across, down = size_l0.w / width, size_l0.h / height
        rows, y_inside = _nearest(size.h, px_l0, size_l0.h, height, down)
        columns, x_inside = _nearest(size.w, px_l0, size_l0.w, width, across)
        return np.asarray(self.pixels[np.ix_(rows, columns)] & y_inside[:, None] & x_inside[None, :])

    def doubtful(self, size: Size, px_l0: float, frame: SlideFrame) -> Mask:  # noqa: ARG002
        """Nothing: what is not painted is other tissue."""
        return np.zeros((size.h, size.w), np.bool_)

    def off_slide(self, frame: SlideFrame) -> float:  # noqa: ARG002
        """Nothing: it covers the slide."""
        return 0.0

    def _check_shape(self, size_l0: Size) -> None:
        """Raise unless the picture is as wide for its height as the slide, but for a rounded-up last pixel."""
        height, width = self.pixels.shape
        across, down = size_l0.w / width, size_l0.h / height  # level-0 px per px of the picture
        slack = _SHAPE_TOLERANCE + 1 / min(width, height)
        if abs(across / down - 1) > slack:
            raise AnnotationError(
                f"{self.file}: is {width} x {height} px where its slide is {size_l0.w} x {size_l0.h}; "
                "give a mask of the whole slide, at any resolution"
            )


def _nearest(n: int, px_l0: float, side_l0: int, n_painted: int, painted_l0: float) -> tuple[NDArray[np.int64], Mask]:
    """The picture's pixel at the centre of each of `n` mask px along a side, and whether that is on the slide."""
    centre_l0 = l0_from_mask(np.arange(n) + 0.5, px_l0)
    found = np.floor(centre_l0 / painted_l0).astype(np.int64)
    return np.clip(found, 0, n_painted - 1), centre_l0 < side_l0
