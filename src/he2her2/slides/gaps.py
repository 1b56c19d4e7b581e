"""Pixels that a file leaves out, where only OpenSlide reads it: it makes them transparent, on glass and in the tissue.

`absent_tiles` knows the compressed tiles of a TIFF; here only pixels are known. The coarsest level tells tissue from
glass where it has pixels; a gap of that level that tissue surrounds lies in the tissue. A gap that touches the border
is left alone: scanners that leave out what they did not scan make such gaps on sound slides.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from he2her2.geometry import Mask, Size
from he2her2.slides.levels import Rect, stained

MOST_PX = 1 << 26
"""Pixels of the largest coarsest level that is looked at."""

_MOST_CELLS = 1 << 22
_STAINED_RING = 0.2
_STAINED_SHARE = 0.2
_EIGHT = np.ones((3, 3))


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Tissue of a slide, as its coarsest level shows it.

    Attributes:
        tissue: (h, w) cells of the whole slide that hold tissue, or that tissue surrounds.
        enclosed: (h, w) those without pixels that tissue surrounds.
        cell_l0: Level-0 px along a cell, across and down.
    """

    tissue: Mask
    enclosed: Mask
    cell_l0: tuple[float, float]

    @classmethod
    def of(cls, rgba: NDArray[np.uint8], size_l0: Size) -> "Gaps":
        """Look at the coarsest level.

        Args:
            rgba: (h, w, 4) its pixels; those without opacity are not in the file.
            size_l0: Of the slide.
        """
        h, w = rgba.shape[:2]
        side = 1
        while (h // side) * (w // side) > _MOST_CELLS:
            side *= 2
        small = np.asarray(Image.fromarray(rgba[..., :3]).reduce(side))
        known = np.asarray(Image.fromarray(rgba[..., 3]).reduce(side)) > 127
        shown = stained(small) & known
        labels, _ = scipy.ndimage.label(~known, _EIGHT)
        at_border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        enclosed = np.zeros_like(known)
        for i, place in enumerate(scipy.ndimage.find_objects(labels), start=1):
            if i in at_border:
                continue
            around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in place)
            gap = labels[around] == i
            ring = scipy.ndimage.binary_dilation(gap, _EIGHT) & known[around]
            if ring.any() and shown[around][ring].mean() >= _STAINED_RING:
                enclosed[around] |= gap
        cell = size_l0.w / w * side, size_l0.h / h * side
        return cls(shown | enclosed, enclosed, cell)

    def hide_tissue(self, hidden: Mask, rect: Rect, downsample: float) -> bool:
        """Check if pixels that a file leaves out lie in the tissue.

        Args:
            hidden: (h, w) pixels of a rectangle that have no opacity.
            rect: The rectangle, in px of its level.
            downsample: Level-0 px per px of that level.
        """
        rows = self._cells(np.arange(rect.y, rect.y + rect.h) * downsample, axis=0)
        columns = self._cells(np.arange(rect.x, rect.x + rect.w) * downsample, axis=1)
        return bool(self.tissue[np.ix_(rows, columns)][hidden].mean() >= _STAINED_SHARE)

    def enclosed_tiles(self, tile: Size, size: Size) -> list[Rect]:
        """Tiles of the coarsest level whose middle lies in an enclosed gap.

        Args:
            tile: Width and height of a tile.
            size: Of the level.
        """
        scale = self.tissue.shape[1] * self.cell_l0[0] / size.w
        x, y = (np.arange(0, length, side) for length, side in zip(size, tile, strict=True))
        middles = [np.minimum(start + side / 2, n - 1) for start, side, n in zip((x, y), tile, size, strict=True)]
        columns, rows = self._cells(middles[0] * scale, axis=1), self._cells(middles[1] * scale, axis=0)
        found = np.argwhere(self.enclosed[np.ix_(rows, columns)])
        return [Rect(int(x[column]), int(y[row]), *tile).clipped(size) for row, column in found]

    def _cells(self, position_l0: NDArray[np.floating[Any]], *, axis: int) -> NDArray[np.int64]:
        """(n,) rows (axis 0) or columns (axis 1) of the cells at positions."""
        cell, n = self.cell_l0[1 - axis], self.tissue.shape[axis]
        return np.asarray(np.minimum((position_l0 / cell).astype(np.int64), n - 1))
