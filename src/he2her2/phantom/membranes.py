"""HER2 on the membranes of tumour cells, by ASCO/CAP's definition of the IHC score (Wolff et al., 2018)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from he2her2.labels import IhcScore
from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.chance import Hashes, key_of, normal, uniform
from he2her2.phantom.layout import PX_UM
from he2her2.phantom.places import PointPlace
from he2her2.phantom.spec import PhantomSpec

_QUANTILES = 101


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class Expression:
    """Shares of the tumour's cells by the staining of their membrane.

    Attributes:
        faint: Faint and incomplete.
        moderate: Weak to moderate and complete.
        intense: Intense and complete.
        heterogeneity: 0 spreads them evenly, 1 gathers the stained ones in clones.
        clone_quantiles: (n,) evenly spaced quantiles of the clone field over this tumour, so that the shares hold
            on a small slide too.
    """

    faint: float
    moderate: float
    intense: float
    heterogeneity: float
    clone_quantiles: NDArray[np.float32]


def draw_expression(spec: PhantomSpec, anatomy: Anatomy) -> Expression:
    """Shares that make the slide's IHC score true, well off the 10 % rule's edge."""
    rng = np.random.default_rng(key_of(spec.seed, "expression"))
    few, many, more = rng.uniform(0.0, 0.05), rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)
    faint, moderate, intense = {
        IhcScore.ZERO: (few, 0.0, 0.0),
        IhcScore.ONE: (0.3 + 0.4 * many, 0.0, 0.0),
        IhcScore.TWO: (0.35, 0.3 + 0.3 * many, 0.0),
        IhcScore.THREE: (0.1 * more, 0.2 - 0.1 * many, 0.45 + 0.4 * many),
    }[spec.ihc_score]
    return Expression(faint, moderate, intense, spec.heterogeneity, _clone_quantiles(anatomy, rng))


def _clone_quantiles(anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.float32]:
    ys, xs = np.nonzero(anatomy.layout.tumour.values > 0)
    if not len(xs):
        return np.linspace(-2, 2, _QUANTILES, dtype=np.float32)
    pick = rng.integers(len(xs), size=4000)
    clones = anatomy.clones(PointPlace((xs[pick] + 0.5) * PX_UM, (ys[pick] + 0.5) * PX_UM))
    return np.quantile(clones, np.linspace(0, 1, _QUANTILES)).astype(np.float32)


def membrane_levels(anatomy: Anatomy, expression: Expression, place: PointPlace, hashes: Hashes) -> NDArray[np.uint8]:
    """How strongly each tumour cell stains: 0 to 3.

    A cell's rank among all is uniform in [0, 1), part its own chance and part its clone's, and the highest ranks stain.
    """
    mix = 0.75 * expression.heterogeneity
    steps = np.linspace(0.002, 0.998, _QUANTILES)
    shared = ndtri(np.interp(anatomy.clones(place), expression.clone_quantiles, steps))
    rank = ndtr(np.sqrt(1 - mix**2) * normal(hashes, 40) + mix * shared)
    intense = rank >= 1 - expression.intense
    moderate = rank >= 1 - expression.intense - expression.moderate
    faint = rank >= 1 - expression.intense - expression.moderate - expression.faint
    return np.asarray(intense.astype(np.uint8) + moderate + faint, np.uint8)


def stain_strength(level: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.float32]:
    """Optical density of DAB on each cell's membrane."""
    mean = np.array([0.0, 0.22, 0.55, 1.5], np.float32)[level]
    return (mean * np.exp(0.16 * normal(hashes, 41))).astype(np.float32)


def completeness(level: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.float32]:
    """Share of each cell's circumference that stains."""
    return np.where(level >= 2, np.float32(1.0), 0.3 + 0.25 * uniform(hashes, 42)).astype(np.float32)
