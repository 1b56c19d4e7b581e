"""The IHC twin, scored from its pixels alone by ASCO/CAP's words, written without a look at how phantoms are made.

Wolff et al. (2018): 3+ is complete, intense circumferential membrane staining in more than 10 % of invasive tumour
cells; 2+ is weak to moderate complete staining in more than 10 %; 1+ is incomplete, faint or barely perceptible
staining in more than 10 %; 0 is none, or such staining in at most 10 %.
"""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from skimage import filters, measure
from skimage.color import rgb2hed

from he2her2.geometry import Rgb
from he2her2.phantom import Painter, Window, make_spec
from he2her2.phantom.anatomy import draw_anatomy
from he2her2.phantom.cell_populations import _tumour_cells
from he2her2.phantom.cells import Box
from he2her2.phantom.expression import draw_expression

RAYS = 32
VISIBLE = 0.10
"""DAB above which a membrane is seen at all."""
WEAK, INTENSE = 0.22, 0.7
"""DAB of a membrane from which on it is more than faint, and intense."""
BACKGROUND = 0.2
"""No more DAB than this is taken for a background."""
COMPLETE, PERCEPTIBLE = 0.8, 0.2
"""Share of the circumference."""


def dab_of(rgb, white):
    """Optical density of DAB by the published vectors, blurred as far as the eye blurs."""
    light = np.clip(rgb / np.asarray(white), 1 / 255, 1)
    return ndimage.gaussian_filter(rgb2hed(light)[..., 2] * LN10_SCALE, 1.3)


LN10_SCALE = -np.log(1e-6)
"""scikit-image counts optical density in units of log(1e-6)."""


def tumour_nuclei(rgb, mpp):
    """Centres (n, 2) in px and radii in px of roundish nuclei larger than a lymphocyte's."""
    red = filters.gaussian(rgb[..., 0].astype(float), 0.35 / mpp)
    blue = filters.gaussian(rgb[..., 2].astype(float), 0.35 / mpp)
    bluish = np.where(blue > red + 8, red, 255)
    dark = bluish < filters.threshold_otsu(bluish[bluish < 245])
    dark = ndimage.binary_opening(ndimage.binary_fill_holes(dark), iterations=round(0.8 / mpp))
    regions = measure.regionprops(measure.label(dark))
    keep = [r for r in regions if 15 < r.area * mpp**2 < 110 and r.eccentricity < 0.85 and r.solidity > 0.9]
    radius = np.sqrt([r.area / np.pi for r in keep])
    keep_large = radius * mpp > 2.6
    return np.array([r.centroid for r in keep]).reshape(-1, 2)[keep_large], radius[keep_large]


def circumferences(dab, centres, radii, mpp):
    """(n, RAYS) how far the strongest DAB between each nucleus and just beyond its cell exceeds the cell's inside."""
    angle = np.arange(RAYS) * 2 * np.pi / RAYS
    steps = np.arange(0.5, 5.0, 0.2) / mpp
    away = radii[:, None, None] * 0.8 + steps[None, None, :]
    y = centres[:, 0, None, None] + away * np.sin(angle)[None, :, None]
    x = centres[:, 1, None, None] + away * np.cos(angle)[None, :, None]
    met = ndimage.map_coordinates(dab, [y, x], order=1, mode="nearest")
    inside = np.median(met.reshape(len(met), -1), axis=1)
    return met.max(axis=2) - np.minimum(inside, BACKGROUND)[:, None]


def ihc_score(rgb: Rgb, mpp: float) -> tuple[str, tuple[float, ...]]:
    """The score "0", "1+", "2+" or "3+", and the shares it rests on: intense, moderate, faint."""
    white = np.percentile(rgb.reshape(-1, 3), 98, axis=0)
    dab = dab_of(rgb, white)
    centres, radii = tumour_nuclei(rgb, mpp)
    rays = circumferences(dab, centres, radii, mpp)
    seen = rays > VISIBLE
    share = seen.mean(axis=1)
    strength = np.array([np.median(r[s]) if s.any() else 0.0 for r, s in zip(rays, seen, strict=True)])
    complete = share >= COMPLETE
    intense = (complete & (strength >= INTENSE)).mean()
    moderate = (complete & (strength >= WEAK)).mean() - intense
    faint = (share >= PERCEPTIBLE).mean() - intense - moderate
    shares = tuple(round(float(s), 3) for s in (intense, moderate, faint))
    if intense > 0.1:
        return "3+", shares
    if intense + moderate > 0.1:
        return "2+", shares
    return ("1+" if faint + intense + moderate > 0.1 else "0"), shares


def twin(score: str, seed: int, side: int = 1000, **settings: Any) -> Rgb:
    """The middle of a tumour in IHC, `side` px wide."""
    ish = "negative" if score == "2+" else None
    spec = make_spec(
        seed=seed,
        size_px=(6000, 6000),
        tissue_extent=0.6,
        tumour_share=0.7,
        foci=1,
        stain="IHC",
        ihc_score=score,
        ish=ish,
        **settings,
    )
    painter = Painter.of(spec)
    depth = painter.anatomy.outlines.tumour.values
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    window = Window(int(x) * 32 - side // 2, int(y) * 32 - side // 2, side, side, 0.25)
    return painter.pixels(window)[0][..., :3]


@pytest.mark.parametrize("site", ["her2sc-like", "brca-like"])
@pytest.mark.parametrize("score", ["0", "1+", "2+", "3+"])
def test_an_independent_rule_finds_the_score(score, site):
    """The rule, which knows only pixels, gives the score that the slide was drawn with."""
    rgb = twin(score, seed=21, site=site)

    assert ihc_score(rgb, 0.25)[0] == score


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("heterogeneity", [0.0, 1.0])
def test_more_than_a_tenth_stains_as_the_score_says(seed, heterogeneity):
    """In truth, too, the shares of the slide's cells obey the definition, and by a margin."""
    shares = {}
    for score in ("0", "1+", "2+", "3+"):
        spec = make_spec(
            seed=seed,
            size_px=(6000, 6000),
            tumour_share=0.7,
            heterogeneity=heterogeneity,
            ihc_score=score,
            ish="negative" if score == "2+" else None,
        )
        anatomy = draw_anatomy(spec)
        cells = _tumour_cells(anatomy, draw_expression(spec, anatomy), Box(0, 0, *spec.size_um))
        shares[score] = np.bincount(cells.level, minlength=4) / len(cells)

    assert shares["0"][1:].sum() <= 0.1
    assert shares["1+"][1] > 0.15
    assert shares["1+"][2:].sum() == 0
    assert shares["2+"][2] > 0.15
    assert shares["2+"][3] == 0
    assert shares["3+"][3] > 0.15


def test_stroma_stays_unstained():
    """Outside the tumour a 3+ slide is as free of DAB as a negative one."""
    spec = {"seed": 4, "size_px": (1600, 1300), "tissue_extent": 0.5, "tumour_share": 0, "foci": 1, "stain": "IHC"}
    window = Window(0, 0, 1600, 1300, 0.25)

    negative, positive = (Painter.of(make_spec(**spec, ihc_score=score)).pixels(window)[0] for score in ("0", "3+"))

    np.testing.assert_array_equal(negative, positive)
