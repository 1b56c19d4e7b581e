"""Brown on IHC pictures: how much DAB there is, how much of the tissue is stained how strongly, and if it is DAB."""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from he2her2.geometry import Mask, Rgb
from he2her2.labels import IhcScore
from he2her2.preprocessing.stain import ColourChange, eight_bits, optical_density, stain_amounts, stained_pixels
from he2her2.preprocessing.tissue import glass_colour

_STAIN_MPP = 1.0
"""µm per px at which staining is measured: membranes are seen, noise is not."""

FAINT, MODERATE, INTENSE = 0.1, 0.2, 0.5
"""Amounts of DAB (optical density) from which a px counts as stained so strongly."""

_DAB = 2
_MEMBRANE_PX = 5  # what is wider than this is no membrane
_MOST_CELLS = 0.10  # ASCO/CAP 2018: more than 10 % of tumour cells
_SOME_CELLS = 0.01

_DIMMEST_GLASS = (231, 230, 237)
"""Glass of the slides on which the amounts above were chosen, at least: that of real IHC cores, and of phantoms."""
_MOST_GAIN = 2.0

_LEAST_STAINED_PX = 50
_HAEMATOXYLIN, _BROWN = (0.385, 0.230), (0.323, 0.477)
"""Green and blue share of each dye's density, by the bluest and the brownest tissue of real IHC pictures."""
_MOST_EOSIN = 0.05
_LEAST_GREEN = -0.017
_MOST_TILT = 0.03
_GREEN_BROWN, _LEAST_BLUE = 0.02, 0.33


@dataclass(frozen=True, slots=True)
class Staining:
    """Brown staining of tissue.

    Attributes:
        density: Mean amount of DAB.
        faint: Share of the tissue stained at least faintly.
        moderate: At least moderately.
        intense: Intensely.
        membrane: Share in thin lines of DAB, as membranes are.
    """

    density: float
    faint: float
    moderate: float
    intense: float
    membrane: float

    @property
    def ihc_score(self) -> IhcScore:
        """Score in the words of ASCO/CAP (2018), with area in place of cells.

        3+: intense in more than 10 %; 2+: moderate in more than 10 %; 1+: moderate in more than 1 %, so that chance px
        do not count; else 0. That staining is circumferential is not seen.

        Example:
            >>> Staining(0.2, 0.5, 0.3, 0.04, 0.3).ihc_score
            <IhcScore.TWO: '2+'>
        """
        if self.intense > _MOST_CELLS:
            return IhcScore.THREE
        if self.moderate > _MOST_CELLS:
            return IhcScore.TWO
        return IhcScore.ONE if self.moderate > _SOME_CELLS else IhcScore.ZERO


def staining(tiles: Rgb, mpp: float) -> NDArray[np.float64]:
    """Staining of each tile: (n, 5), the fields of `Staining` in order, whose means over tiles are those of the tissue.

    Args:
        tiles: (n, h, h, 3) of tissue.
        mpp: µm per px; they are averaged to about `_STAIN_MPP`.
    """
    step = max(1, round(_STAIN_MPP / mpp))
    side = tiles.shape[1] // step
    blocks = tiles[:, : side * step, : side * step].reshape(-1, side, step, side, step, 3)
    dab = stain_amounts(np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8))[..., _DAB]
    broad = scipy.ndimage.grey_opening(dab, (1, _MEMBRANE_PX, _MEMBRANE_PX))
    found = (dab.clip(min=0), dab > FAINT, dab > MODERATE, dab > INTENSE, dab - broad > FAINT)
    return np.stack([one.mean(axis=(1, 2), dtype=np.float64) for one in found], axis=1)


def usual_light(thumbnail: Rgb, beside: Mask) -> ColourChange:
    """The change that lights a slide whose glass is dim or tinted as the slides on which the amounts were chosen.

    What a dye absorbs is a share of the light that the glass lets through. Density counts from white: on yellow glass
    every pixel has the colour of a little DAB, on glass a tenth darker unstained tissue is stained faintly.

    Args:
        thumbnail: (h, w, 3) of the slide.
        beside: (h, w) what is no glass: tissue and ink.

    Returns:
        A change of (..., 3) pixels; it changes nothing where the glass is as bright, or not to be seen.
    """
    glass = glass_colour(thumbnail, beside) or _DIMMEST_GLASS
    gain = np.clip(np.divide(_DIMMEST_GLASS, np.maximum(glass, 1)), 1, _MOST_GAIN)
    table = eight_bits(np.arange(256)[:, None] * gain)  # (256, 3)
    return lambda rgb: table[rgb, np.arange(3)]


def unlike_dab(tissue: Rgb) -> str:
    """Check the colours of tissue for dyes other than DAB and haematoxylin.

    A dye absorbs red, green and blue in fixed shares of its optical density, so that mixtures of two dyes lie on a
    line. Haematoxylin and DAB absorb 0.32 to 0.39 of it in green, eosin far more. The excess of a pixel is its green
    share less that of the mixture of haematoxylin and DAB with the same blue share. Measured at 8 µm/px:

    - 90th percentile of the excess: at most 0.013 on 14 HER2 cores and 0.030 on IHC phantoms; 0.03 of the published
      dyes (Ruifrok and Johnston); at least 0.069 on H&E (47 pictures of seven sources) and 0.16 on H&E phantoms.
    - Median: at least -0.007 on IHC; -0.026 on grey pictures, at most -0.03 on inverted ones.
    - Excess of the brownest tenth less that of the bluest: at most 0.017 on IHC, 0.020 on IHC phantoms. With red and
      blue exchanged it is 0.032 to 0.080 on cores with brown; those without it have no blue left: their bluest tenth
      absorbs at least 0.345 in blue, where IHC has at most 0.311.

    Two things pass: H&E without eosin, and phantoms whose red and blue are exchanged, if the dyes mix in every pixel.

    Args:
        tissue: (n, 3) pixels of about 8 µm, without glass.

    Returns:
        What the colours look like instead; empty if they are those of the dyes, or too pale to tell.

    Example:
        >>> unlike_dab(np.full((100, 3), (200, 100, 160), np.uint8))
        'its tissue is pink or purple, as with eosin'
    """
    density = optical_density(tissue[stained_pixels(tissue)]).astype(np.float64)
    if len(density) < _LEAST_STAINED_PX:
        return ""
    _, green, blue = (density / density.sum(axis=1, keepdims=True)).T
    slope = (_BROWN[0] - _HAEMATOXYLIN[0]) / (_BROWN[1] - _HAEMATOXYLIN[1])
    excess = green - (_HAEMATOXYLIN[0] + slope * (blue - _HAEMATOXYLIN[1]))
    bluest, brownest = np.percentile(blue, (10, 90))
    if np.percentile(excess, 90) > _MOST_EOSIN:
        return "its tissue is pink or purple, as with eosin"
    middle = np.median(excess)
    if middle < _LEAST_GREEN:
        return "its colours are grey or inverted"
    tilt = np.median(excess[blue >= brownest]) - np.median(excess[blue <= bluest])
    if tilt > _MOST_TILT or (middle > _GREEN_BROWN and bluest > _LEAST_BLUE):
        return "red and blue seem to be exchanged"
    return ""
