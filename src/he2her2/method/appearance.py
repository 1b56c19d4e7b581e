"""Appearance of a slide's tissue: its colour, and its texture as the tumour network sees it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Runtime, Tiling
from he2her2.geometry import Mask, Rgb, TileGrid, l0_from_mask, windows_about
from he2her2.method.inference import encode
from he2her2.method.raster import native_mpp
from he2her2.models import Encoder
from he2her2.slides import Slide

_WINDOWS = 200


@dataclass(frozen=True, slots=True)
class Appearance:
    """Colour and texture of a slide's tissue, to be compared with training slides.

    Attributes:
        mean: Of red, green and blue over the tissue, in [0, 255].
        spread: Standard deviation of each channel.
        texture: (d,) mean features of windows all over the tissue; empty without an encoder, or where none can be read.
    """

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    texture: tuple[float, ...] = ()


def tissue_appearance(
    slide: Slide,
    thumbnail: Rgb,
    tissue: Mask,
    px_l0: float,
    encoder: Encoder | None,
    tiling: Tiling,
    runtime: Runtime,
) -> Appearance:
    """Appearance of a slide's tissue.

    Args:
        slide: An open slide.
        thumbnail: (h, w, 3) picture of it.
        tissue: (h, w) usable tissue, at least a pixel.
        px_l0: Level-0 px per pixel of both.
        encoder: The tumour network up to its last layer.
        tiling: Scale at which the network sees the slide.
        runtime: Threads and batch size, which do not change the result.
    """
    pixels = thumbnail[tissue].astype(np.float64)  # (n, 3)
    texture = None if encoder is None else _texture(slide, encoder, tissue, px_l0, tiling, runtime)
    return Appearance(
        _channels(pixels.mean(axis=0)),
        _channels(pixels.std(axis=0)),
        () if texture is None else tuple(texture.round(4).tolist()),
    )


def _channels(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = values.round(2).tolist()
    return red, green, blue


def _texture(
    slide: Slide, encoder: Encoder, tissue: Mask, px_l0: float, tiling: Tiling, runtime: Runtime
) -> NDArray[np.float64] | None:
    """Mean features (d,) of windows all over the tissue; None where no window can be read."""
    rows, columns = np.nonzero(tissue)
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:_WINDOWS])  # in raster order, as they are read
    centres = np.stack([columns[chosen], rows[chosen]], axis=1) + 0.5
    spec = encoder.card.input
    mpp = native_mpp(slide, spec, tiling)
    side_l0 = spec.side_px * mpp / slide.mpp
    origins = windows_about(l0_from_mask(centres, px_l0), side_l0, slide.size_l0)
    positions, features = encode(slide, TileGrid(origins, side_l0, spec.side_px, mpp), encoder, runtime)
    if not len(positions):
        return None
    mean: NDArray[np.float64] = features[np.argsort(positions)].mean(axis=0, dtype=np.float64)
    return mean
