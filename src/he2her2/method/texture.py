"""Texture of a slide's tissue as the tumour network sees it: one vector, compared with those of training slides."""

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Config
from he2her2.geometry import Mask, TileGrid, l0_from_mask
from he2her2.method.inference import encode
from he2her2.method.raster import native_mpp
from he2her2.models import Encoder
from he2her2.slides import Slide

_WINDOWS = 200


def tissue_texture(
    slide: Slide, encoder: Encoder, tissue: Mask, px_l0: float, config: Config
) -> NDArray[np.float64] | None:
    """Mean features of windows all over the tissue: (d,); None where no window can be read.

    Args:
        slide: An open slide.
        encoder: The tumour network up to its last layer.
        tissue: (h, w) usable tissue.
        px_l0: Level-0 px per pixel of that mask.
        config: Tiling and runtime are used; neither threads nor batch size change the result.
    """
    rows, columns = np.nonzero(tissue)
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:_WINDOWS])  # in raster order, as they are read
    centres = np.stack([columns[chosen], rows[chosen]], axis=1) + 0.5
    spec = encoder.card.input
    mpp = native_mpp(slide, spec, config.tiling)
    side_l0 = spec.side_px * mpp / slide.mpp
    last = np.maximum(0, np.floor(np.array(slide.size_l0) - side_l0)).astype(np.int64)
    origins = np.clip(np.rint(l0_from_mask(centres, px_l0) - side_l0 / 2).astype(np.int64), 0, last)
    positions, features = encode(slide, TileGrid(origins, side_l0, spec.side_px, mpp), encoder, config.runtime)
    if not len(positions):
        return None
    mean: NDArray[np.float64] = features[np.argsort(positions)].mean(axis=0, dtype=np.float64)
    return mean
