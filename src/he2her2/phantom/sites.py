"""What differs between laboratories and scanners: colour, sharpness, tissue on the slide.

Stain vectors are published ones, normalised to length 1: Ruifrok & Johnston (2001), as scikit-image has them, and the
"H&E 2" set of Landini's colour deconvolution; and the reference of Macenko et al. (2009). A site lies between them.
"""

from dataclasses import dataclass

from he2her2.phantom.spec import SiteName

_Vector = tuple[float, float, float]

RUIFROK: tuple[_Vector, _Vector, _Vector] = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Haematoxylin, eosin, DAB: optical density in red, green and blue."""

LANDINI: tuple[_Vector, _Vector, _Vector] = ((0.644, 0.717, 0.267), (0.093, 0.954, 0.283), (0.268, 0.570, 0.776))
"""The same by Landini's "H&E 2"."""

MACENKO: tuple[_Vector, _Vector, _Vector] = ((0.563, 0.720, 0.406), (0.216, 0.801, 0.558), (0.268, 0.570, 0.776))
"""The same by Macenko's reference slide."""

COUNTERSTAIN: _Vector = (0.648, 0.667, 0.359)
"""Haematoxylin behind DAB: half `RUIFROK`, half what seven cores of the bozeklab HER2 array show."""


@dataclass(frozen=True)
class Optics:
    """A microscope, its camera and its software.

    Attributes:
        psf_um: Standard deviation of the optics' blur.
        sharpening: Overshoot that the software adds.
        grain: Sensor noise in optical density.
    """

    psf_um: float
    sharpening: float
    grain: float


@dataclass(frozen=True)
class Site:
    """A laboratory and its scanner.

    Attributes:
        vectors: Weights of `RUIFROK`, `LANDINI` and `MACENKO`.
        haematoxylin: Stain strength against the usual.
        eosin: Stain strength against the usual.
        stain_spread: Relative spread of both between slides.
        glass: Colour of the empty slide.
        gamma: Exponent of the tone curve.
        optics: The microscope that scans H&E.
        ihc_optics: The one that scans IHC.
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


SITES: dict[SiteName, Site] = {
    "her2sc-like": Site(
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
    "brca-like": Site(
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
