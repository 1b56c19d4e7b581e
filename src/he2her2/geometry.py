"""Frames, sizes and tile grids: positions, never pixels.

Frames are named by suffix: `_l0` level-0 pixels of the slide, `_lv` pixels of one level, `_mask` pixels of a mask or
map, `_px` pixels of an output. Points are (x, y) and sizes (w, h); arrays are indexed `[y, x]`.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rgb: TypeAlias = NDArray[np.uint8]
"""(h, w, 3) or (n, h, w, 3) colour pixels."""

Mask: TypeAlias = NDArray[np.bool_]
"""(h, w) raster of yes and no over the whole slide."""

Map: TypeAlias = NDArray[np.float32]
"""(h, w) raster of numbers in [0, 1] over the whole slide."""


class Point(NamedTuple):
    """A position (x, y)."""

    x: int
    y: int


CORNER = Point(0, 0)


class Size(NamedTuple):
    """A width and height."""

    w: int
    h: int


@dataclass(frozen=True, slots=True)
class GlassFrame:
    """Place of level 0 on the glass slide, as a scanner states it.

    Attributes:
        centre_l0: The glass slide's centre (x, y) in level-0 px; it may lie outside level 0.
        nm_per_px: Width and height of a level-0 pixel.
    """

    centre_l0: tuple[float, float]
    nm_per_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SlideFrame:
    """Level 0 of a slide, and the points from which programs count their annotations.

    Attributes:
        size_l0: Width and height.
        bounds_origin_l0: Top-left corner of the scanned part, from which QuPath counts; (0, 0) for most formats.
        glass: Where the glass slide's centre is, from which NDP.view counts; None where the file does not say.
    """

    size_l0: Size
    bounds_origin_l0: Point = CORNER
    glass: GlassFrame | None = None


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class TileGrid:
    """Positions of equal square tiles on one slide.

    Attributes:
        origins_l0: (n, 2) top-left corners (x, y) in level-0 px, in raster order.
        side_l0: Side of a tile in level-0 px; fractional when the slide is resampled.
        side_px: Side of a tile in output px.
        mpp: µm per output px.
    """

    origins_l0: NDArray[np.int64]
    side_l0: float
    side_px: int
    mpp: float

    def __len__(self) -> int:
        return len(self.origins_l0)

    def take(self, index: NDArray[Any]) -> "TileGrid":
        """Return the tiles that `index` (positions or a bool mask) selects, in its order."""
        return replace(self, origins_l0=self.origins_l0[index])


def mask_size(size_l0: Size, px_l0: float) -> Size:
    """Size of the mask that covers a slide with pixels of `px_l0` level-0 px; the last ones may reach over the border.

    Example:
        >>> mask_size(Size(100, 64), 32)
        Size(w=4, h=2)
    """
    return Size(*(max(1, int(np.ceil(side / px_l0 - 1e-6))) for side in size_l0))


def l0_from_mask(x_mask: NDArray[Any], px_l0: float) -> NDArray[np.float64]:
    """Level-0 coordinates of mask coordinates."""
    return np.asarray(x_mask, np.float64) * px_l0


def windows_about(centres_l0: NDArray[np.float64], side_l0: float, size_l0: Size) -> NDArray[np.int64]:
    """Upper left corners (n, 2) of windows about points, moved inside the slide, beyond whose border there is nothing.

    Example:
        >>> windows_about(np.array([[50.0, 50.0], [1.0, 99.0]]), 20, Size(100, 100)).tolist()
        [[40, 40], [0, 80]]
    """
    last = np.maximum(0, np.floor(np.array(size_l0) - side_l0)).astype(np.int64)
    return np.clip(np.rint(centres_l0 - side_l0 / 2).astype(np.int64), 0, last)
