"""The colours of the evidence, one place: a score looks the same in the overlay, in QuPath and in the viewer.

Scores run from blue to red through colours that stay apart for colour-blind readers (ColorBrewer RdYlBu).
"""

import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import Rgb
from he2her2.labels import IhcScore

SCORE_COLOURS = {
    IhcScore.ZERO: (69, 117, 180),
    IhcScore.ONE: (145, 191, 219),
    IhcScore.TWO: (253, 174, 97),
    IhcScore.THREE: (215, 48, 39),
}
TISSUE_COLOUR = (60, 140, 60)
TUMOUR_COLOUR = (120, 0, 140)
PEN_COLOUR = (0, 0, 0)
BLUR_COLOUR = (110, 110, 110)
SELECTED_COLOUR = (20, 20, 20)


def score_colours(scores: NDArray[np.floating]) -> Rgb:
    """Colours (..., 3) of scores (...,) in [0, 3], blended between the classes' colours; told apart to 1/256."""
    return np.asarray(_SHADES[np.rint(scores * _PER_SCORE).astype(np.intp)])


def _shades() -> Rgb:
    """(3 * 256 + 1, 3) colours of all scores that are told apart."""
    classes = np.array(list(SCORE_COLOURS.values()), np.float64)  # (4, 3)
    scores = np.arange((len(classes) - 1) * _PER_SCORE + 1) / _PER_SCORE
    channels = [np.interp(scores, np.arange(len(classes)), channel) for channel in classes.T]
    return np.asarray(np.rint(np.stack(channels, axis=-1)), np.uint8)


_PER_SCORE = 256
_SHADES = _shades()
