"""TIAToolbox: its tissue mask, its patch extractor's coordinates, and `read_rect`."""

# ruff: noqa: E402  torchvision's operators must be declared before TIAToolbox loads it

from collections.abc import Iterable
from pathlib import Path

import torch

OPERATORS = ("nms", "qnms", "qroi_align", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
TORCHVISION = torch.library.Library("torchvision", "DEF")
for operator in OPERATORS:  # its wheels hold them for CUDA only; neither masks nor reading call one
    TORCHVISION.define(f"{operator}(Tensor tensor) -> Tensor")
    TORCHVISION.define(f"_{operator}_backward(Tensor tensor) -> Tensor")

from tiatoolbox.tools.patchextraction import SlidingWindowPatchExtractor
from tiatoolbox.wsicore.wsireader import WSIReader

from benchmarks.peers.peer import MPP, TILE_PX, Origin, run


def find(path: Path) -> int:
    """Its default tissue masker at 8 µm/px."""
    slide = WSIReader.open(path)
    mask = slide.tissue_mask(resolution=8.0, units="mpp")
    size = (TILE_PX, TILE_PX)
    found = SlidingWindowPatchExtractor(slide, size, input_mask=mask, resolution=MPP, units="mpp", stride=size)
    return len(found.coordinate_list)


def read(path: Path, origins: Iterable[Origin]) -> int:
    """Tile by tile."""
    slide = WSIReader.open(path)
    size = (TILE_PX, TILE_PX)
    return sum(slide.read_rect(origin, size, resolution=0, units="level").size > 0 for origin in origins)


if __name__ == "__main__":
    run("tiatoolbox", find, read)
