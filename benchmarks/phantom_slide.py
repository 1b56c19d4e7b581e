"""Slide of all measurements: the inner 8 192 px of a phantom, drawn once, repeated to any size.

An Aperio-like pyramid (levels 1, 4, 16 and 32) of JPEG tiles of 256 px. Repeating copies compressed tiles, so a slide
of 100 000 x 80 000 px, 120 000 tiles with tissue on most of them, costs seconds. The same spec always gives the same
bytes.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.results import Setting
from he2her2.geometry import Size, TileGrid
from he2her2.phantom import BLOCK_PX, TILE_PX, EncodedBlock, Painter, make_spec, write_pyramid

INNER_BLOCKS = 8
QUICK_BLOCKS = 2
MARGIN_BLOCKS = 1
"""Blocks around the inner ones; they are glass and not drawn."""

MPP = 0.25


def phantom_slide(setting: Setting, size: Size) -> Path:
    """Path of the slide of a size, drawn unless it is in the work folder."""
    side = setting.pick(INNER_BLOCKS, QUICK_BLOCKS)
    path = setting.work / f"phantom-{side}-{size.w}x{size.h}.svs"
    if not path.exists():
        setting.work.mkdir(parents=True, exist_ok=True)
        painter = _painter(side)
        write_pyramid(path, size, MPP, painter.quality, _repeated(painter, side, size))
    return path


def _painter(side: int) -> Painter:
    whole = (side + 2 * MARGIN_BLOCKS) * BLOCK_PX
    settings = {"tissue_extent": 0.7, "tumour_share": 0.6, "foci": 1, "ihc_score": "3+", "jpeg_quality": 75}
    return Painter.of(make_spec(seed=7, size_px=(whole, whole), **settings))


def _repeated(painter: Painter, side: int, size: Size) -> Iterator[EncodedBlock]:
    drawn: dict[tuple[int, int], EncodedBlock] = {}
    for j in range(-(-size.h // BLOCK_PX)):
        for i in range(-(-size.w // BLOCK_PX)):
            place = (i % side, j % side)
            if place not in drawn:
                drawn[place] = painter.draw_block(place[0] + MARGIN_BLOCKS, place[1] + MARGIN_BLOCKS).encoded
            yield drawn[place]


def tile_grid(columns: int, rows: int, *, shift: int = 0, stride: int = TILE_PX) -> TileGrid:
    """Make a grid of 256 px tiles at level 0 in raster order, the first at (shift, shift)."""
    y, x = np.meshgrid(shift + stride * np.arange(rows), shift + stride * np.arange(columns), indexing="ij")
    return TileGrid(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64), float(TILE_PX), TILE_PX, MPP)
