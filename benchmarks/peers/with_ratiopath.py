"""ratiopath: its tissue mask by libvips, its grid, and its reader, which asks OpenSlide."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyvips
from ratiopath.masks.tissue_mask import tissue_mask
from ratiopath.openslide import OpenSlide
from ratiopath.tiling import grid_tiles, read_slide_tiles

from benchmarks.peers.peer import TILE_PX, Origin, run


def find(path: Path) -> int:
    """Tiles whose corner lies in tissue."""
    with OpenSlide(path) as slide:
        level = slide.closest_level(8.0)
        mpp = slide.slide_resolution(level)
        extent, step = slide.dimensions, slide.level_downsamples[level]
    mask = tissue_mask(pyvips.Image.new_from_file(str(path), page=level), mpp)[0].numpy() > 0
    tiles = np.array(list(grid_tiles(extent, (TILE_PX, TILE_PX), (TILE_PX, TILE_PX))))
    x, y = (tiles / step).astype(int).T
    return int(mask[np.minimum(y, len(mask) - 1), np.minimum(x, mask.shape[1] - 1)].sum())


def read(path: Path, origins: Iterable[Origin]) -> int:
    """As its data sets read: a batch at once."""
    x, y = zip(*origins, strict=True)
    n = len(x)
    side = [TILE_PX] * n
    batch = {"path": [str(path)] * n, "tile_x": list(x), "tile_y": list(y), "level": [0] * n}
    return len(read_slide_tiles(batch | {"tile_extent_x": side, "tile_extent_y": side})["tile"])


if __name__ == "__main__":
    run("ratiopath", find, read)
