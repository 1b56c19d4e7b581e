"""Brown on IHC pictures: how much DAB there is, and how much of the tissue is stained how strongly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from he2her2.geometry import Rgb
from he2her2.labels import IhcScore
from he2her2.preprocessing.stain import stain_amounts

_STAIN_MPP = 1.0
"""µm per px at which staining is measured: membranes are seen, noise is not."""

FAINT, MODERATE, INTENSE = 0.1, 0.2, 0.5
"""Amounts of DAB (optical density) from which a px counts as stained so strongly."""

_DAB = 2
_MEMBRANE_PX = 5  # what is wider than this is no membrane
_MOST_CELLS = 0.10  # ASCO/CAP 2018: more than 10 % of tumour cells
_SOME_CELLS = 0.01


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
    broad = ndimage.grey_opening(dab, (1, _MEMBRANE_PX, _MEMBRANE_PX))
    found = (dab.clip(min=0), dab > FAINT, dab > MODERATE, dab > INTENSE, dab - broad > FAINT)
    return np.stack([one.mean(axis=(1, 2), dtype=np.float64) for one in found], axis=1)
