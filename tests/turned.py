"""Sections as they come to lie on glass: turned, mirrored, shifted."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tests.tissue_slides import GLASS


def turned(
    pixels: np.ndarray, turn: float, shift: tuple[float, float] = (0.0, 0.0), *, mirrored: bool = False
) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """The picture mirrored, turned clockwise about its centre and shifted; and where (x, y) of it come to lie."""
    angle, centre = np.radians(turn), np.array(pixels.shape[1::-1]) / 2
    move = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    move = move @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    back, offset = np.linalg.inv(move), centre + shift - move @ centre
    matrix = back[::-1, ::-1]  # (row, column)
    start = (back @ (0.5 - offset) - 0.5)[::-1]
    channels = [
        ndimage.affine_transform(pixels[..., c], matrix, start, order=1, cval=GLASS[c], mode="constant")
        for c in range(3)
    ]
    return np.stack(channels, axis=-1), lambda points: np.asarray(points) @ move.T + offset
