"""From stain to light: Beer-Lambert mixing of two stains, by a table."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.chance import Floats, key_of
from he2her2.phantom.sites import COUNTERSTAIN, LANDINI, MACENKO, RUIFROK, SITES
from he2her2.phantom.spec import PhantomSpec

_STEPS = 512
_MOST = 4.0
"""Largest optical density that the table tells apart."""


@dataclass(frozen=True)
class Dyes:
    """The two dyes of one slide.

    Attributes:
        first: Optical density of haematoxylin in red, green and blue.
        second: The same of eosin (H&E) or DAB (IHC).
        first_strength: How much of the first dye the slide took up.
        second_strength: How much of the second.
        glass: Colour of light that passed no tissue.
        gamma: Exponent of the scanner's tone curve.
    """

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    first_strength: float
    second_strength: float
    glass: tuple[float, float, float]
    gamma: float


def draw_dyes(spec: PhantomSpec) -> Dyes:
    """The slide's dyes: its site's, with the spread between slides; nothing here knows of HER2 in H&E."""
    site = SITES[spec.site]
    rng = np.random.default_rng(key_of(spec.seed, "dyes", spec.stain))
    spread = np.exp(site.stain_spread * rng.standard_normal(2))
    weights = np.maximum(0, np.array(site.vectors) + 0.08 * rng.standard_normal(3))
    vectors = np.tensordot(weights / weights.sum(), np.array((RUIFROK, LANDINI, MACENKO)), axes=1)
    first, second = (vectors[0], vectors[1]) if spec.stain == "HE" else (np.array(COUNTERSTAIN), vectors[2])
    strengths = (site.haematoxylin, site.eosin) if spec.stain == "HE" else (0.3 * site.haematoxylin, 1.0)
    return Dyes(
        _vector(first),
        _vector(second),
        float(strengths[0] * spread[0]),
        float(strengths[1] * (spread[1] if spec.stain == "HE" else 1.0)),
        site.glass,
        site.gamma,
    )


def _vector(values: NDArray[np.float64]) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in values / np.linalg.norm(values))
    return r, g, b


class LightTable:
    """Colours of every pair of optical densities, for one brightness of the lamp."""

    def __init__(self, dyes: Dyes, brightness: float) -> None:
        od = np.arange(_STEPS, dtype=np.float32) * np.float32(_MOST / _STEPS)
        rgbx = np.zeros((_STEPS, _STEPS, 4), np.uint8)
        for c in range(3):
            first = np.exp(-od * dyes.first[c] * dyes.first_strength)[:, None]
            second = np.exp(-od * dyes.second[c] * dyes.second_strength)[None, :]
            light = (first * second) ** dyes.gamma
            rgbx[..., c] = np.rint(np.clip(dyes.glass[c] * brightness * light, 0, 255))
        self._table = rgbx.reshape(-1, 4).view(np.uint32).ravel()

    def develop(self, first: Floats, second: Floats) -> NDArray[np.uint8]:
        """(h, w, 4) red, green, blue and an empty channel of (h, w) optical densities, which are used up."""
        scale = np.float32(_STEPS / _MOST)
        for plane in (first, second):
            np.multiply(plane, scale, out=plane)
            np.clip(plane, 0, _STEPS - 1, out=plane)
        index = first.astype(np.int32)
        index *= _STEPS
        index += second.astype(np.int32)
        return np.take(self._table, index).view(np.uint8).reshape(*first.shape, 4)
