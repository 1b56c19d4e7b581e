"""hs2p: its tissue segmentation and tiling, and its readers."""

from collections.abc import Iterable
from pathlib import Path

from hs2p import SegmentationConfig, SlideSpec, TilingConfig, tile_slide
from hs2p.wsi.reader import open_slide

from benchmarks.peers.peer import MPP, TILE_PX, Origin, run


def find(path: Path) -> int:
    """Its default tissue rule with Otsu's threshold."""
    tiling = TilingConfig(requested_spacing_um=MPP, requested_tile_size_px=TILE_PX, tolerance=0.05, overlap=0.0)
    spec = SlideSpec(sample_id=path.stem, image_path=path)
    found = tile_slide(spec, tiling=tiling, segmentation=SegmentationConfig(method="otsu"))
    return len(found.x)


def read(path: Path, origins: Iterable[Origin]) -> int:
    """The reader that it chooses by itself."""
    with open_slide(path) as slide:
        return sum(len(slide.read_region(origin, 0, (TILE_PX, TILE_PX))) > 0 for origin in origins)


if __name__ == "__main__":
    run("hs2p", find, read)
