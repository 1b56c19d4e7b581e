"""HER2 on the membranes of tumour cells, by ASCO/CAP's definition of the IHC score (Wolff et al., 2018)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.labels import IhcScore
from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.chance import Hashes, key_of, normal, uniform
from he2her2.phantom.places import PointPlace
from he2her2.phantom.spec import PhantomSpec


@dataclass(frozen=True)
class Expression:
    """Shares of the tumour's cells by the staining of their membrane.

    Attributes:
        faint: Faint and incomplete.
        moderate: Weak to moderate and complete.
        intense: Intense and complete.
        heterogeneity: 0 spreads them evenly, 1 gathers the stained ones in clones.
    """

    faint: float
    moderate: float
    intense: float
    heterogeneity: float


def draw_expression(spec: PhantomSpec) -> Expression:
    """Shares that make the slide's IHC score true, well off the 10 % rule's edge."""
    rng = np.random.default_rng(key_of(spec.seed, "expression"))
    few, many, more = rng.uniform(0.0, 0.05), rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)
    faint, moderate, intense = {
        IhcScore.ZERO: (few, 0.0, 0.0),
        IhcScore.ONE: (0.3 + 0.4 * many, 0.0, 0.0),
        IhcScore.TWO: (0.35, 0.3 + 0.3 * many, 0.0),
        IhcScore.THREE: (0.1 * more, 0.2 - 0.1 * many, 0.45 + 0.4 * many),
    }[spec.ihc_score]
    return Expression(faint, moderate, intense, spec.heterogeneity)


def membrane_levels(anatomy: Anatomy, expression: Expression, place: PointPlace, hashes: Hashes) -> NDArray[np.uint8]:
    """How strongly each tumour cell stains: 0 to 3.

    A cell's rank among all is uniform in [0, 1), part its own chance and part its clone's, and the highest ranks stain.
    """
    mix = 0.75 * expression.heterogeneity
    own = normal(hashes, 40)
    shared = anatomy.clones(place)
    rank = _normal_share(np.sqrt(1 - mix**2) * own + mix * shared)
    intense = rank >= 1 - expression.intense
    moderate = rank >= 1 - expression.intense - expression.moderate
    faint = rank >= 1 - expression.intense - expression.moderate - expression.faint
    return (intense.astype(np.uint8) + moderate + faint).astype(np.uint8)


def stain_strength(level: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.float32]:
    """Optical density of DAB on each cell's membrane."""
    mean = np.array([0.0, 0.22, 0.55, 1.5], np.float32)[level]
    return (mean * np.exp(0.16 * normal(hashes, 41))).astype(np.float32)


def completeness(level: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.float32]:
    """Share of each cell's circumference that stains."""
    return np.where(level >= 2, np.float32(1.0), 0.3 + 0.25 * uniform(hashes, 42)).astype(np.float32)


def _normal_share(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normal distribution function (logistic approximation of Bowling et al., 2009)."""
    return np.asarray(1 / (1 + np.exp(-(1.5976 * z + 0.07056 * z**3))), np.float32)
