"""Windows of a network over labelled pictures: a picture's probability is the mean over those that cover its label."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.errors import PatchError
from he2her2.geometry import Rgb
from he2her2.models import Engine, InputSpec, softmax

_WIDER = 0.02
"""Share of a window by which a labelled square may be wider and still be one window."""

_MOST_MIRRORED = 2.0
"""Widest window, in sides of a picture: what lies beyond the picture is filled by mirroring."""


def window_corners(side_px: int, labelled_px: int, mpp: float, spec: InputSpec) -> NDArray[np.float64]:
    """Corners (k, 2) of the fewest windows that cover the labelled square, evenly spaced, in px of the picture.

    A label no wider than a window takes one window, about its centre, which may reach beyond the picture.

    Args:
        side_px: Side of the picture.
        labelled_px: Side of its labelled centre.
        mpp: µm per px of the picture.
        spec: Input of the network.

    Raises:
        PatchError: The network sees more than twice the width of the picture.

    Example:
        >>> window_corners(50, 50, 4.0, InputSpec(2.0, 64, 64, "rgb")).tolist()
        [[0.0, 0.0], [18.0, 0.0], [0.0, 18.0], [18.0, 18.0]]
    """
    window = spec.side_px * spec.mpp / mpp
    if window > _MOST_MIRRORED * side_px:
        seen, there = spec.side_px * spec.mpp, side_px * mpp
        raise PatchError(
            f"the patches are {there:g} µm wide at {mpp:g} µm/px, the network sees {seen:g} µm; check --mpp"
        )
    n = max(1, math.ceil(labelled_px / window - _WIDER))
    margin = (side_px - labelled_px) / 2
    first, last = (margin, side_px - margin - window) if n > 1 else ((side_px - window) / 2,) * 2
    along = np.linspace(first, last, n)
    return np.stack([*np.meshgrid(along, along)], axis=-1).reshape(-1, 2)


def probabilities(engine: Engine, pixels: Rgb, corners: NDArray[np.float64], mpp: float) -> NDArray[np.float64]:
    """Probability of invasive tumour of (n, h, h, 3) pictures: (n,).

    Args:
        engine: The tumour CNN.
        pixels: The pictures.
        corners: (k, 2) of `window_corners`.
        mpp: µm per px of the pictures.
    """
    spec = engine.card.input
    window = spec.side_px * spec.mpp / mpp
    margin = max(0, math.ceil(-corners.min()), math.ceil(corners.max() + window - pixels.shape[1]))
    wide = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    found = [
        softmax(engine(_cut(wide, (x + margin, y + margin), window, spec.side_px)))[:, 1] for x, y in corners.tolist()
    ]
    mean: NDArray[np.float64] = np.mean(found, axis=0, dtype=np.float64)
    return mean


def _cut(pictures: Rgb, corner: tuple[float, float], window: float, side_px: int) -> Rgb:
    """A square of each picture at the side that the network reads: (n, side_px, side_px, 3)."""
    x, y = corner
    if x.is_integer() and y.is_integer() and window == side_px:
        return np.ascontiguousarray(pictures[:, int(y) : int(y) + side_px, int(x) : int(x) + side_px])
    box, size = (x, y, x + window, y + window), (side_px, side_px)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR, box=box)) for one in pictures]
    )
