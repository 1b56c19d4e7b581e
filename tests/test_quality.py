"""Ink against stain, and sharp against blurred, on colours by Beer and Lambert's law and on real pictures."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import gaussian_filter

from he2her2.config import PRESETS, Tissue
from he2her2.preprocessing import blur_mask, out_of_focus, pen_mask, quality_shares, sharpness, smear_mask, tissue_mask
from he2her2.preprocessing.quality import _inner, _relative_sharpness

MIN_SHARPNESS = PRESETS["default"].quality.min_sharpness
STAINS = {
    "haematoxylin": (0.65, 0.70, 0.29),
    "eosin": (0.07, 0.99, 0.11),
    "DAB": (0.27, 0.57, 0.78),
}  # Ruifrok, OD of RGB
INKS = {"green": (45, 165, 140), "blue": (30, 70, 180), "red": (215, 25, 50), "black": (30, 28, 32)}


def light(density):
    """The colour of an optical density."""
    return np.rint(255 * 10.0 ** -np.asarray(density)).clip(0, 255).astype(np.uint8)


def opened(path):
    return np.asarray(Image.open(path).convert("RGB"))


def block_means(rgb, side):
    """Pixels `side` times larger."""
    height, width = rgb.shape[0] // side, rgb.shape[1] // side
    blocks = rgb[: height * side, : width * side].reshape(height, side, width, side, -1)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def blurred_share(rgb, mpp, sigma_um=0.0):
    """Which share of a picture full of tissue is called blurred."""
    soft = np.stack([gaussian_filter(rgb[..., c].astype(np.float32), sigma_um / mpp) for c in range(3)], axis=-1)
    measured = sharpness(block_means(soft, round(1 / mpp)))
    tissue = np.ones(measured.shape[:2], bool)
    return blur_mask(measured, tissue, 8.0, MIN_SHARPNESS).mean()


@pytest.mark.parametrize("ink", INKS.values(), ids=INKS.keys())
def test_a_stroke_of_any_colour_is_found(ink):
    """The stroke and two px of fringe, and nothing else of the glass."""
    rgb = np.full((30, 30, 3), 240, np.uint8)
    rgb[10:20, 10:20] = ink

    mask = pen_mask(rgb)

    assert mask[10:20, 8:22].all()
    assert mask[8:22, 10:20].all()
    assert mask.sum() <= 14 * 14


@pytest.mark.parametrize("ink", INKS.values(), ids=INKS.keys())
def test_a_speck_is_no_stroke(ink):
    """Seven px of ink's colour are let pass."""
    rgb = np.full((30, 30, 3), 240, np.uint8)
    rgb[10, 10:17] = ink

    assert not pen_mask(rgb).any()


@given(
    haematoxylin=st.floats(0, 1.2),
    other=st.sampled_from(["eosin", "DAB"]),
    amount=st.floats(0, 1.2),
    glass=st.integers(225, 255),
)
def test_stains_and_their_mixtures_are_no_ink(haematoxylin, other, amount, glass):
    """Any amount of haematoxylin with any of eosin or DAB, up to darkness that tissue reaches at 8 µm/px."""
    total = np.array(STAINS["haematoxylin"]) * haematoxylin + np.array(STAINS[other]) * amount
    total *= min(1.0, 2.0 / max(total.sum(), 1e-9))
    stained = (light(total).astype(float) * glass / 255).astype(np.uint8)

    assert not pen_mask(np.broadcast_to(stained, (12, 12, 3))).any()


COUNTERSTAINS = {
    "dark": ((70, 90, 150), (200, 210, 225)),
    "usual": ((80, 110, 170), (205, 215, 230)),
    "pale": ((120, 150, 210), (190, 205, 235)),
    "grey": ((120, 140, 185), (180, 195, 220)),
    "sparse": ((60, 80, 150), (215, 220, 232)),
}
"""Nuclei and the rest in blue haematoxylin, as scanners show it beside DAB, without eosin."""


def counterstained(nuclei, rest, ink=None):
    """(96, 96, 3) thumbnail of a disc of blue nuclei, a tenth of them brown, with or without a bar of ink over it."""
    rng = np.random.default_rng(0)
    pixels = np.full((768, 768, 3), 242.0)
    rows, columns = np.mgrid[:768, :768]
    disc = np.hypot(rows - 384, columns - 384) < 320
    texture, patches = (gaussian_filter(rng.normal(size=disc.shape), sigma) for sigma in (2.2, 10))
    cells = disc & (texture > np.quantile(texture, 0.72))
    pixels[disc], pixels[cells] = rest, nuclei
    pixels[cells & (patches > np.quantile(patches, 0.9))] = (120, 80, 50)
    pixels += rng.normal(size=pixels.shape) * 6
    if ink is not None:
        pixels[320:400, 200:600] = ink
    return block_means(pixels.clip(0, 255), 8)


@pytest.mark.parametrize("colours", COUNTERSTAINS.values(), ids=COUNTERSTAINS.keys())
def test_blue_counterstain_is_no_ink(colours):
    """A slide of Ki67 or HER2 whose haematoxylin is blue: not one px."""
    assert not pen_mask(counterstained(*colours)).any()


@pytest.mark.parametrize("ink", INKS.values(), ids=INKS.keys())
@pytest.mark.parametrize("colours", COUNTERSTAINS.values(), ids=COUNTERSTAINS.keys())
def test_ink_on_counterstained_tissue_is_found_alone(colours, ink):
    """The bar (10 x 50 px) and its fringe, whatever its colour, and nothing of the blue tissue around it."""
    nuclei, rest = colours

    found = pen_mask(counterstained(nuclei, rest, ink))

    assert found[40:50, 25:75].all()
    assert found.sum() <= 16 * 56


def test_blue_on_a_slide_with_eosin_is_ink_as_before():
    """Faint blue ink beside pink tissue is no counterstain."""
    rgb = np.full((40, 40, 3), 240, np.uint8)
    rgb[:, :20], rgb[10:20, 25:35] = (205, 120, 165), (120, 150, 205)

    assert pen_mask(rgb)[10:20, 25:35].all()


@pytest.mark.parametrize("blood", [(193, 60, 75), (178, 50, 57), (158, 33, 34), (214, 82, 102)])
def test_blood_is_no_ink(blood):
    """Colours of clots as breast H&E fields show them at 8 µm/px, from the palest to the darkest."""
    assert not pen_mask(np.full((20, 20, 3), blood, np.uint8)).any()


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("medium-nuclei-score-green-pen-level1", 0.5),
        ("no-tissue-green-pen", 0.7),
        ("no-tissue-red-pen", 0.65),
        ("very-low-nuclei-score-red-pen-level1", 0.25),
    ],
)
def test_real_pen_is_found(data_dir, name, at_least):
    """Green and red pen on glass, green pen on tissue; the shares are what is seen in the pictures, or less."""
    assert pen_mask(block_means(opened(data_dir / f"tiles/histolab_{name}.png"), 16)).mean() > at_least


@pytest.mark.parametrize(
    ("path", "side"),
    [
        ("bcss/1008.jpg", 32),
        ("bcss/1015.jpg", 32),
        ("tiles/histolab_high-nuclei-score-level0.png", 16),  # with blood
        ("tiles/histolab_no-tissue-line.png", 16),  # a cover slip's edge
        ("tiles/histolab_almost-white-2.png", 16),
        ("tiles/TUPAC-TR-002-tile-r34-c34-x33793-y33799-w1024-h1024.png", 32),
    ],
)
def test_real_tissue_and_glass_are_no_ink(data_dir, path, side):
    """Dense nuclei, blood, fibres, glass and its edges: not one px."""
    assert not pen_mask(block_means(opened(data_dir / path), side)).any()


def test_real_dab_is_no_ink(data_dir):
    """The 3+ core and a dust-covered 1+ core: not one px."""
    for name in ("3_a1f1", "1_f8a2"):
        core = opened(next((data_dir / "her2_ihc_tma").glob(f"{name}*")))

        assert not pen_mask(block_means(core, 32)).any()


def test_breast_tissue_is_rarely_taken_for_ink(data_dir):
    """Of 7 078 fields of 189 patients 1.5 % show ink, nearly all truly: dyed margins and pen."""
    with np.load(data_dir / "idc/idc_patches.npz") as archive:
        fields = archive["patch"][::7]

    found = np.array([pen_mask(block_means(field, 2)).any() for field in fields])

    assert 0.005 < found.mean() < 0.025


@given(rgb=arrays(np.uint8, (13, 17, 3)), cell=st.integers(3, 6))
def test_sharpness_is_that_of_the_obvious_loop(rgb, cell):
    """Cell by cell, the mean squared difference of pixels one and two apart."""
    grey = (rgb[..., 0].astype(float) + 2.0 * rgb[..., 1] + rgb[..., 2]) / 4

    measured = sharpness(rgb, cell)

    assert measured.shape == (13 // cell, 17 // cell, 2)
    for row, column in np.ndindex(*measured.shape[:2]):
        part = grey[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        for apart in (1, 2):
            across, down = part[:, apart:] - part[:, :-apart], part[apart:] - part[:-apart]
            expected = (across**2).mean() + (down**2).mean()
            assert measured[row, column, apart - 1] == pytest.approx(expected, rel=1e-4)


@given(rgb=arrays(np.uint8, (16, 24, 3)))
def test_regions_may_be_measured_apart(rgb):
    """A cell does not depend on the region it was read in."""
    halves = [sharpness(rgb[:, :8]), sharpness(rgb[:, 8:])]

    np.testing.assert_array_equal(np.concatenate(halves, axis=1), sharpness(rgb))


def test_cells_of_two_pixels_are_refused():
    """There is no difference over two pixels in them."""
    with pytest.raises(ValueError, match="cell_px"):
        sharpness(np.zeros((8, 8, 3), np.uint8), 2)


@given(contrast=st.floats(0.02, 1.0))
def test_sharpness_does_not_depend_on_contrast(contrast):
    """Pale tissue is as sharp as strongly stained tissue of the same structure."""
    rng = np.random.default_rng(0)
    measured = sharpness(rng.integers(0, 255, (80, 80, 3), np.uint8))
    tissue = np.ones((10, 10), bool)

    faded = _relative_sharpness(np.asarray(measured * contrast**2, np.float32), tissue, 8.0)

    np.testing.assert_allclose(faded, _relative_sharpness(measured, tissue, 8.0), rtol=1e-4)


def test_only_tissue_is_judged():
    """Neither blurred glass nor sharp dust beside it tells about the tissue; where there is nothing, all is sharp."""
    smooth = np.full((20, 20, 2), (1.0, 4.0), np.float32)
    smooth[:, 10:] = (100.0, 100.0)
    tissue = np.zeros((20, 20), bool)
    tissue[:, :10] = True

    np.testing.assert_array_equal(blur_mask(smooth, tissue, 8.0, MIN_SHARPNESS), tissue)
    assert (_relative_sharpness(np.zeros((20, 20, 2), np.float32), tissue, 8.0) == 1).all()


def test_half_a_slide_out_of_focus_is_found_where_it_is():
    """The border between sharp and blurred is right within half a window."""
    measured = np.full((40, 40, 2), (2.0, 4.0), np.float32)
    measured[:, 20:] = (1.0, 4.0)

    blurred = blur_mask(measured, np.ones((40, 40), bool), 8.0, MIN_SHARPNESS)

    assert not blurred[:, :16].any()
    assert blurred[:, 24:].all()


@pytest.mark.parametrize(("path", "mpp"), [("bcss/1008.jpg", 0.25), ("bcss/1015.jpg", 0.25)])
def test_real_tissue_is_sharp_and_found_when_blurred(data_dir, path, mpp):
    """In focus nothing is called blurred; with a sigma of 1.5 µm and more, everything."""
    rgb = opened(data_dir / path)[:1024, :1024]

    assert blurred_share(rgb, mpp) == 0
    assert blurred_share(rgb, mpp, 1.5) == 1
    assert blurred_share(rgb, mpp, 4) == 1


def test_a_scan_at_twenty_times_is_sharp(data_dir):
    """CMU-1-Small-Region has 0.499 µm/px: coarser pixels are no blur. A corner is glass."""
    slide = tifffile.imread(data_dir / "slides/CMU-1-Small-Region.svs", key=0)[1200:2200, 700:1700]

    assert blurred_share(slide, 0.499) < 0.01
    assert blurred_share(slide, 0.499, 2) > 0.96


@given(masks=arrays(bool, (3, 6, 5)))
def test_shares_are_counts_of_tissue(masks):
    """Pen and blur may overlap; what neither touches is usable."""
    tissue, pen, blur = masks

    shares = quality_shares(tissue, pen, blur)

    n_tissue = max(1, tissue.sum())
    assert shares.pen == (tissue & pen).sum() / n_tissue
    assert shares.blur == (tissue & blur).sum() / n_tissue
    assert shares.usable == (tissue & ~(pen | blur)).sum() / n_tissue


def disc_on_glass(inside, soft_um, noise=2.0):
    """(800, 800, 3) px of 1 µm: a disc of a picture or a colour on glass, blurred together, and the camera's noise."""
    rows, columns = np.mgrid[:800, :800]
    pixels = np.broadcast_to(inside, (800, 800, 3)).astype(np.float32)
    share = (np.hypot(rows - 400, columns - 400) < 250).astype(np.float32)[..., None]
    soft = gaussian_filter(pixels * share + np.float32(242) * (1 - share), (soft_um, soft_um, 0))
    noisy = soft + np.random.default_rng(0).normal(0, noise, soft.shape)
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def looked_at(rgb):
    """Tissue, blur and smear of a picture of 1 µm per px."""
    thumbnail, measured = block_means(rgb, 8), sharpness(rgb)
    tissue = tissue_mask(thumbnail, Tissue())
    return tissue, out_of_focus(measured, tissue, 8.0, MIN_SHARPNESS), smear_mask(thumbnail, measured, tissue, 8.0)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("soft_um", [3, 10, 40])
def test_a_smear_of_eosin_is_no_tissue(soft_um, noise):
    """Stain without any structure on glass, with a sharp border or a soft one, is a smear as a whole."""
    tissue, _, smear = looked_at(disc_on_glass((232, 190, 212), soft_um, noise))

    assert tissue.sum() > 2000
    assert (smear == tissue).all()


@pytest.mark.parametrize("soft_um", [0, 6, 12, 20])
def test_a_disc_out_of_focus_is_blurred_to_its_rim(data_dir, soft_um):
    """Far out of focus only noise changes from px to px: all of it is blurred; in focus nothing is; none is a smear."""
    field = np.tile(block_means(opened(data_dir / "bcss/1008.jpg"), 4), (2, 1, 1))[:800, :800]

    tissue, blur, smear = looked_at(disc_on_glass(field, soft_um))

    assert tissue.sum() > 2000
    assert (blur == (tissue if soft_um else False)).all()
    assert not smear.any()


def test_what_was_not_read_is_neither_blurred_nor_smeared():
    """Tissue whose tiles cannot be decoded is counted elsewhere."""
    tissue = np.ones((20, 20), bool)
    unread = np.full((20, 20, 2), np.nan, np.float32)

    assert not out_of_focus(unread, tissue, 8.0, MIN_SHARPNESS).any()
    assert not smear_mask(np.full((20, 20, 3), 200, np.uint8), unread, tissue, 8.0).any()


@pytest.mark.parametrize("px_mpp", [32.0, 64.0, 128.0])
def test_tissue_off_its_border_is_left_on_coarse_masks(px_mpp):
    """A border below a pixel counted as none to stop at, and the whole tissue went."""
    tissue = np.zeros((60, 60), bool)
    tissue[5:55, 5:55] = True

    assert _inner(tissue, px_mpp)[7:53, 7:53].all()
    assert not _inner(tissue, px_mpp)[5].any()
