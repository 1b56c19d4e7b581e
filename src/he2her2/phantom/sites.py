"""Laboratories and their scanners: stain colours, sharpness, tissue on the slide; and the dyes of one slide.

Stain vectors are published ones, normalised to length 1: Ruifrok & Johnston (2001), as scikit-image has them, and the
"H&E 2" set of Landini's colour deconvolution; and the reference of Macenko et al. (2009). A site is a mixture of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.random_fields import key_of
from he2her2.phantom.spec import HeStain, PhantomSpec, SiteName

_Vector = tuple[float, float, float]

_RUIFROK: tuple[_Vector, _Vector, _Vector] = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Haematoxylin, eosin, DAB: optical density in red, green and blue."""

_LANDINI: tuple[_Vector, _Vector, _Vector] = ((0.644, 0.717, 0.267), (0.093, 0.954, 0.283), (0.268, 0.570, 0.776))
"""The same by Landini's "H&E 2"."""

_MACENKO: tuple[_Vector, _Vector, _Vector] = ((0.563, 0.720, 0.406), (0.216, 0.801, 0.558), (0.268, 0.570, 0.776))
"""The same by Macenko's reference slide."""

_LEAST_DENSITY = 0.01
"""Of a dye in any channel: no dye makes a slide brighter."""

_COUNTERSTAIN: _Vector = (0.648, 0.667, 0.359)
"""Haematoxylin behind DAB: half `_RUIFROK`, half what seven cores of the bozeklab HER2 array show."""


@dataclass(frozen=True)
class Optics:
    """Microscope, camera and software of a scanner.

    Attributes:
        psf_um: Standard deviation of the optical blur.
        sharpening: Strength of the software's sharpening.
        grain: Sensor noise in optical density.
    """

    psf_um: float
    sharpening: float
    grain: float


@dataclass(frozen=True)
class _Site:
    """Laboratory and its scanner.

    Attributes:
        vectors: Weights of `_RUIFROK`, `_LANDINI` and `_MACENKO`.
        haematoxylin: Stain strength, relative to the average laboratory.
        eosin: Stain strength, relative to the average laboratory.
        stain_spread: Standard deviation of the log strength between slides.
        glass: Colour of the empty slide.
        gamma: Exponent of the tone curve.
        optics: Scanner of H&E slides.
        ihc_optics: Scanner of IHC slides.
        tissue_extent: Usual share of the slide that tissue covers.
        jpeg_quality: Usual quality of the tiles.
    """

    vectors: tuple[float, float, float]
    haematoxylin: float
    eosin: float
    stain_spread: float
    glass: tuple[float, float, float]
    gamma: float
    optics: Optics
    ihc_optics: Optics
    tissue_extent: float
    jpeg_quality: int


SITES: dict[SiteName, _Site] = {
    "her2sc-like": _Site(
        vectors=(0.0, 0.55, 0.45),
        haematoxylin=0.9,
        eosin=0.98,
        stain_spread=0.08,
        glass=(240.0, 238.0, 243.0),
        gamma=1.0,
        optics=Optics(psf_um=0.32, sharpening=0.0, grain=0.022),
        ihc_optics=Optics(psf_um=0.22, sharpening=1.8, grain=0.045),
        tissue_extent=0.35,
        jpeg_quality=80,
    ),
    "brca-like": _Site(
        vectors=(0.35, 0.35, 0.3),
        haematoxylin=1.1,
        eosin=1.15,
        stain_spread=0.14,
        glass=(246.0, 245.0, 247.0),
        gamma=1.0,
        optics=Optics(psf_um=0.24, sharpening=0.35, grain=0.03),
        ihc_optics=Optics(psf_um=0.2, sharpening=2.2, grain=0.05),
        tissue_extent=0.6,
        jpeg_quality=70,
    ),
}


@dataclass(frozen=True)
class Dyes:
    """The two dyes of one slide and the light around them.

    Attributes:
        first: Optical density of haematoxylin in red, green and blue.
        second: The same of eosin (H&E) or DAB (IHC).
        first_strength: Strength of the first dye.
        second_strength: Strength of the second dye.
        glass: Colour of the empty slide.
        gamma: Exponent of the scanner's tone curve.
    """

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    first_strength: float
    second_strength: float
    glass: tuple[float, float, float]
    gamma: float


def draw_dyes(spec: PhantomSpec) -> Dyes:
    """Draw a slide's dyes around those of its site; they do not depend on HER2."""
    site = SITES[spec.site]
    rng = np.random.default_rng(key_of(spec.seed, "dyes", spec.stain))
    if spec.staining is not None and spec.stain == "HE":
        return _draw_stained(spec.staining, site, rng)
    spread = np.exp(site.stain_spread * rng.standard_normal(2))
    weights = np.maximum(0, np.array(site.vectors) + 0.08 * rng.standard_normal(3))
    vectors = np.tensordot(weights / weights.sum(), np.array((_RUIFROK, _LANDINI, _MACENKO)), axes=1)
    first, second = (vectors[0], vectors[1]) if spec.stain == "HE" else (np.array(_COUNTERSTAIN), vectors[2])
    strengths = (site.haematoxylin, site.eosin) if spec.stain == "HE" else (0.3 * site.haematoxylin, 1.0)
    return Dyes(
        _vector(first),
        _vector(second),
        float(strengths[0] * spread[0]),
        float(strengths[1] * (spread[1] if spec.stain == "HE" else 1.0)),
        site.glass,
        site.gamma,
    )


def _draw_stained(staining: HeStain, site: _Site, rng: np.random.Generator) -> Dyes:
    """Draw a slide's dyes around those of a stain that is given, on the glass and scanner of a site."""
    spread = np.exp(staining.strength_spread * rng.standard_normal(2))
    means = np.array([_vector(np.array(dye)) for dye in (staining.haematoxylin, staining.eosin)])
    first, second = np.maximum(_LEAST_DENSITY, means + staining.vector_spread * rng.standard_normal((2, 3)))
    haematoxylin, eosin = (spread * staining.strengths).tolist()
    return Dyes(_vector(first), _vector(second), haematoxylin, eosin, site.glass, site.gamma)


def _vector(values: NDArray[np.float64]) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in values / np.linalg.norm(values))
    return r, g, b
