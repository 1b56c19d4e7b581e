"""HER2 expression on the membranes of tumour cells, by ASCO/CAP's definition of the IHC score (Wolff et al., 2018)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from he2her2.labels import IhcScore
from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.outlines import OUTLINE_PX_UM
from he2her2.phantom.random_fields import Hashes, ScatteredPoints, key_of, normal, uniform
from he2her2.phantom.spec import PhantomSpec

_QUANTILES = 101


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class Her2Expression:
    """Shares of the tumour cells by the staining of their membrane.

    Attributes:
        faint: Faint and incomplete.
        moderate: Weak to moderate and complete.
        intense: Intense and complete.
        heterogeneity: 0 spreads stained cells evenly, 1 clusters them in clones.
        clone_quantiles: (n,) evenly spaced quantiles of the clone field over this tumour, so that the shares hold
            on a small slide, too.
    """

    faint: float
    moderate: float
    intense: float
    heterogeneity: float
    clone_quantiles: NDArray[np.float32]


def draw_expression(spec: PhantomSpec, anatomy: Anatomy) -> Her2Expression:
    """Draw shares that give the slide's IHC score, well away from the 10 % cutoff."""
    rng = np.random.default_rng(key_of(spec.seed, "expression"))
    few, many, more = rng.uniform(0.0, 0.05), rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)
    faint, moderate, intense = {
        IhcScore.ZERO: (few, 0.0, 0.0),
        IhcScore.ONE: (0.3 + 0.4 * many, 0.0, 0.0),
        IhcScore.TWO: (0.35, 0.3 + 0.3 * many, 0.0),
        IhcScore.THREE: (0.1 * more, 0.2 - 0.1 * many, 0.45 + 0.4 * many),
    }[spec.ihc_score]
    return Her2Expression(faint, moderate, intense, spec.heterogeneity, _clone_quantiles(anatomy, rng))


def _clone_quantiles(anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.float32]:
    ys, xs = np.nonzero(anatomy.outlines.tumour.values > 0)
    if not len(xs):
        return np.linspace(-2, 2, _QUANTILES, dtype=np.float32)
    pick = rng.integers(len(xs), size=4000)
    clones = anatomy.clones(ScatteredPoints((xs[pick] + 0.5) * OUTLINE_PX_UM, (ys[pick] + 0.5) * OUTLINE_PX_UM))
    return np.quantile(clones, np.linspace(0, 1, _QUANTILES)).astype(np.float32)


def membrane_levels(
    anatomy: Anatomy, expression: Her2Expression, points: ScatteredPoints, hashes: Hashes
) -> NDArray[np.uint8]:
    """Staining level of each tumour cell, 0 to 3.

    The cells with the highest ranks stain. A cell's rank is uniform in [0, 1), partly random and partly its clone's.
    """
    mix = 0.75 * expression.heterogeneity
    steps = np.linspace(0.002, 0.998, _QUANTILES)
    shared = ndtri(np.interp(anatomy.clones(points), expression.clone_quantiles, steps))
    rank = ndtr(np.sqrt(1 - mix**2) * normal(hashes, 40) + mix * shared)
    intense = rank >= 1 - expression.intense
    moderate = rank >= 1 - expression.intense - expression.moderate
    faint = rank >= 1 - expression.intense - expression.moderate - expression.faint
    return np.asarray(intense.astype(np.uint8) + moderate + faint, np.uint8)


def dab_density(level: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.float32]:
    """Optical density of DAB on each cell's membrane."""
    mean = np.array([0.0, 0.22, 0.55, 1.5], np.float32)[level]
    return (mean * np.exp(0.16 * normal(hashes, 41))).astype(np.float32)


def stained_share(level: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.float32]:
    """Share of each cell's circumference that is stained."""
    return np.where(level >= 2, np.float32(1.0), 0.3 + 0.25 * uniform(hashes, 42)).astype(np.float32)
