"""histolab: its tissue mask, its grid tiler (which looks at every tile), and its `extract_tile`."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from histolab.masks import TissueMask
from histolab.slide import Slide
from histolab.tiler import GridTiler
from histolab.types import CoordinatePair

from benchmarks.peers.peer import TILE_PX, Origin, run


def find(path: Path) -> int:
    """The mask, and the grid's coordinates on it, before tiles are looked at."""
    with tempfile.TemporaryDirectory() as folder:
        slide = Slide(path, processed_path=folder)
        mask = TissueMask()
        tiler = GridTiler(tile_size=(TILE_PX, TILE_PX), level=0, check_tissue=False)
        return sum(1 for _ in tiler._grid_coordinates_generator(slide, mask))  # noqa: SLF001  it has no other


def read(path: Path, origins: Iterable[Origin]) -> int:
    """Tile by tile, without the tissue check that its tiler would add."""
    with tempfile.TemporaryDirectory() as folder:
        slide = Slide(path, processed_path=folder)
        corners = (CoordinatePair(x, y, x + TILE_PX, y + TILE_PX) for x, y in origins)
        return sum(
            np.asarray(slide.extract_tile(corner, (TILE_PX, TILE_PX), level=0).image.convert("RGB")).size > 0
            for corner in corners
        )


if __name__ == "__main__":
    run("histolab", find, read)
