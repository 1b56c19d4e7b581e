"""he2her2: its tissue mask, its grid and its tile stream."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.peers.peer import MPP, TILE_PX, Origin, run
from he2her2.config import Quality, Tissue
from he2her2.geometry import TileGrid, mask_size
from he2her2.method import find_tissue, thumbnail_on_raster
from he2her2.preprocessing import cut_tiles
from he2her2.slides import TileBatch, map_tiles, open_slide

PX_L0 = 32.0


def find(path: Path) -> int:
    """Tissue without pen ink, and the tiles that lie wholly in it."""
    with open_slide(path) as slide:
        thumbnail = thumbnail_on_raster(slide, PX_L0, mask_size(slide.size_l0, PX_L0))
        tissue, pen = find_tissue(thumbnail, Tissue(), Quality())
        return len(cut_tiles(tissue & ~pen, slide.size_l0, px_l0=PX_L0, mpp=MPP, min_tiles=1).grid)


def read(path: Path, origins: Iterable[Origin]) -> int:
    """The stream, on one thread."""
    grid = TileGrid(np.array(list(origins), np.int64), float(TILE_PX), TILE_PX, MPP)
    with open_slide(path) as slide, map_tiles(slide, grid, _count, threads=1) as stream:
        return sum(stream)


def _count(batch: TileBatch) -> int:
    return len(batch.pixels)


if __name__ == "__main__":
    run("he2her2", find, read)
