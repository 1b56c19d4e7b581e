"""OpenSlide as CLAM uses it: Otsu on the saturation of a level near 1/32, tiles by `read_region`."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import openslide
from PIL import Image
from skimage.filters import threshold_otsu

from benchmarks.peers.peer import TILE_PX, Origin, run


def find(path: Path) -> int:
    """Tiles whose centre lies in tissue."""
    with openslide.OpenSlide(path) as slide:
        level = slide.get_best_level_for_downsample(32.5)
        picture = slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("HSV")
        saturation = np.asarray(picture)[..., 1]
        mask = saturation > threshold_otsu(saturation)
        step = TILE_PX / slide.level_downsamples[level]
    small = Image.fromarray(mask).resize((int(mask.shape[1] / step), int(mask.shape[0] / step)), Image.Resampling.BOX)
    return int(np.count_nonzero(np.asarray(small)))


def read(path: Path, origins: Iterable[Origin]) -> int:
    """Tile by tile."""
    with openslide.OpenSlide(path) as slide:
        size = (TILE_PX, TILE_PX)
        return sum(len(np.asarray(slide.read_region(origin, 0, size).convert("RGB"))) > 0 for origin in origins)


if __name__ == "__main__":
    run("openslide-python", find, read)
