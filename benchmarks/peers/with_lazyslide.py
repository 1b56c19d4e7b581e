"""LazySlide: its tissue finder and tiler, and the reader under it."""

from collections.abc import Iterable
from pathlib import Path

import lazyslide
from wsidata import open_wsi

from benchmarks.peers.peer import MPP, TILE_PX, Origin, run


def find(path: Path) -> int:
    """Its defaults."""
    slide = open_wsi(str(path), store=None)
    lazyslide.pp.find_tissues(slide)
    lazyslide.pp.tile_tissues(slide, TILE_PX, mpp=MPP)
    return len(slide.shapes["tiles"])


def read(path: Path, origins: Iterable[Origin]) -> int:
    """Tile by tile."""
    slide = open_wsi(str(path), store=None)
    return sum(slide.reader.get_region(x, y, TILE_PX, TILE_PX, level=0).size > 0 for x, y in origins)


if __name__ == "__main__":
    run("lazyslide", find, read)
