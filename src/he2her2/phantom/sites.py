"""What differs between laboratories and scanners: colour, sharpness, tissue on the slide.

Stain vectors are published ones, normalised to length 1: Ruifrok & Johnston (2001), as scikit-image has them, and the
"H&E 2" set of Landini's colour deconvolution. A site lies between the two.
"""

from dataclasses import dataclass

from he2her2.phantom.spec import SiteName

_Vector = tuple[float, float, float]

RUIFROK: tuple[_Vector, _Vector, _Vector] = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Haematoxylin, eosin, DAB: optical density in red, green and blue."""

LANDINI: tuple[_Vector, _Vector, _Vector] = ((0.644, 0.717, 0.267), (0.093, 0.954, 0.283), (0.268, 0.570, 0.776))
"""The same by Landini's "H&E 2"."""


@dataclass(frozen=True)
class Site:
    """A laboratory and its scanner.

    Attributes:
        vectors: Mixing weight between `RUIFROK` (0) and `LANDINI` (1).
        haematoxylin: Stain strength against the usual.
        eosin: Stain strength against the usual.
        stain_spread: Relative spread of both between slides.
        glass: Colour of the empty slide.
        psf_um: Standard deviation of the optics' blur.
        sharpening: Overshoot that the scanner's software adds.
        grain: Sensor noise in optical density.
        gamma: Exponent of the tone curve.
        tissue_extent: Usual share of the slide that tissue covers.
        jpeg_quality: Usual quality of the tiles.
    """

    vectors: float
    haematoxylin: float
    eosin: float
    stain_spread: float
    glass: tuple[float, float, float]
    psf_um: float
    sharpening: float
    grain: float
    gamma: float
    tissue_extent: float
    jpeg_quality: int


SITES: dict[SiteName, Site] = {
    "her2sc-like": Site(
        vectors=0.9,
        haematoxylin=0.9,
        eosin=0.85,
        stain_spread=0.08,
        glass=(240.0, 238.0, 243.0),
        psf_um=0.42,
        sharpening=0.0,
        grain=0.018,
        gamma=1.0,
        tissue_extent=0.35,
        jpeg_quality=80,
    ),
    "brca-like": Site(
        vectors=0.45,
        haematoxylin=1.1,
        eosin=1.05,
        stain_spread=0.14,
        glass=(246.0, 245.0, 247.0),
        psf_um=0.30,
        sharpening=0.35,
        grain=0.022,
        gamma=1.0,
        tissue_extent=0.6,
        jpeg_quality=70,
    ),
}
