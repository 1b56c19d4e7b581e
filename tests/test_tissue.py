"""Tissue masks: parity with scikit-image, presets to the letter, and real glass and tissue."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu

from he2her2.config import PRESETS, Tissue, load_config
from he2her2.errors import TilingError
from he2her2.method import cut_tumour, segment_slide
from he2her2.models import CNNS
from he2her2.preprocessing import read_annotation, tissue_mask, weak_tissue_mask
from he2her2.preprocessing.tissue import _brightness, _saturation, _smoothed
from he2her2.slides import open_slide
from tests.tissue_slides import tissue_pixels, write_tissue

PAPER, RELEASED, DEFAULT = (PRESETS[name].tissue for name in ("paper", "released-code", "default"))
pictures = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def thumbnail(rgb, mpp):
    """The mean of blocks of about 8 µm."""
    side = round(8 / mpp)
    height, width = rgb.shape[0] // side, rgb.shape[1] // side
    blocks = rgb[: height * side, : width * side].reshape(height, side, width, side, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def slow_blur(channel, blur_px):
    """OpenCV's Gaussian window written out: weights, mirrored border, one pixel after the other."""
    radius, (height, width) = blur_px // 2, channel.shape
    sigma = 0.3 * ((blur_px - 1) * 0.5 - 1) + 0.8
    line = np.exp(-((np.arange(blur_px) - radius) ** 2) / (2 * sigma**2))
    weights = np.outer(line, line) / line.sum() ** 2
    padded = np.pad(channel.astype(float), radius, mode="reflect")
    rows = [[(padded[y : y + blur_px, x : x + blur_px] * weights).sum() for x in range(width)] for y in range(height)]
    return np.array(rows)


@given(rgb=pictures)
def test_saturation_and_value_are_scikit_images(rgb):
    """Integer S and V are within rounding of the floating-point conversion."""
    hsv = rgb2hsv(rgb)

    np.testing.assert_allclose(_saturation(rgb), hsv[..., 1] * 255, atol=0.5 + 1e-9)
    np.testing.assert_allclose(_brightness(rgb), hsv[..., 2] * 255, atol=1e-9)


@given(channel=arrays(np.uint8, st.tuples(st.integers(8, 12), st.integers(8, 12))))
def test_the_blur_is_the_released_codes(channel):
    """A 15 px window has a sigma of 2.6 px, as the written-out window has."""
    np.testing.assert_allclose(_smoothed(channel, 15), slow_blur(channel, 15), atol=0.5 + 1e-3)


@given(channel=arrays(np.uint8, (5, 4)))
def test_a_window_of_one_pixel_is_no_blur(channel):
    """The paper's preset smooths nothing."""
    np.testing.assert_array_equal(_smoothed(channel, 1), channel)


@given(rgb=pictures)
def test_the_papers_mask_is_scikit_images_otsu(rgb):
    """S above Otsu's threshold, to the letter, whatever the picture."""
    expected = _saturation(rgb) > threshold_otsu(_saturation(rgb))

    np.testing.assert_array_equal(tissue_mask(rgb, PAPER), expected)


@given(rgb=pictures)
def test_the_released_mask_is_otsu_of_the_blurred_channel(rgb):
    """Blur first, then Otsu's threshold of what the blur leaves."""
    blurred = _smoothed(_saturation(rgb), 15)

    np.testing.assert_array_equal(tissue_mask(rgb, RELEASED), blurred > threshold_otsu(blurred))


@given(rgb=pictures)
def test_the_papers_weak_mask_drops_the_brightest_only(rgb):
    """Pixels of the greatest V go, all others stay."""
    brightest = rgb.max(axis=2)

    np.testing.assert_array_equal(weak_tissue_mask(rgb, PAPER), brightest < brightest.max())


@given(rgb=pictures)
def test_the_released_weak_mask_keeps_a_margin_of_five(rgb):
    """Blurred V below its maximum less 5; near the maximum is background."""
    blurred = _smoothed(_brightness(rgb), 15).astype(int)

    np.testing.assert_array_equal(weak_tissue_mask(rgb, RELEASED), blurred < blurred.max() - 5)


@given(rgb=pictures)
def test_the_default_differs_from_the_released_code_only_by_its_bounds(rgb):
    """The threshold lies in [12, 30]: less saturated is never tissue, more always is."""
    mask, blurred = tissue_mask(rgb, DEFAULT), _smoothed(_saturation(rgb), 15)

    assert not mask[blurred <= 12].any()
    assert mask[blurred > 30].all()


@pytest.mark.parametrize("settings", [PAPER, RELEASED, DEFAULT])
@pytest.mark.parametrize("mask", [tissue_mask, weak_tissue_mask])
def test_a_picture_of_one_colour_has_no_tissue(mask, settings):
    """Otsu has nothing to split, and all is as bright as the brightest."""
    assert not mask(np.full((6, 7, 3), (200, 100, 150), np.uint8), Tissue(blur_px=1, max_saturation=255)).any()
    assert not mask(np.full((6, 7, 3), 240, np.uint8), settings).any()


@pytest.mark.parametrize("mask", [tissue_mask, weak_tissue_mask])
def test_an_empty_picture_has_an_empty_mask(mask):
    """No pixels is no error."""
    assert mask(np.zeros((0, 5, 3), np.uint8), DEFAULT).shape == (0, 5)


@pytest.mark.parametrize("name", ["almost-white-1", "almost-white-ihc", "no-tissue", "no-tissue2", "no-tissue-line"])
def test_blank_glass_stays_blank(data_dir, name):
    """On real glass, dust and a cover slip's edge included, the default finds nothing."""
    rgb = np.asarray(Image.open(data_dir / f"tiles/histolab_{name}.png").convert("RGB"))

    assert not tissue_mask(thumbnail(rgb, 0.5), DEFAULT).any()


@pytest.mark.parametrize("name", ["bcss/1008.jpg", "bcss/1015.jpg"])
def test_a_picture_full_of_tissue_is_tissue(data_dir, name):
    """Otsu alone would split stained from stained; the default keeps all but gaps."""
    rgb = thumbnail(np.asarray(Image.open(data_dir / name)), 0.25)

    assert tissue_mask(rgb, DEFAULT).mean() > 0.99
    assert tissue_mask(rgb, RELEASED).mean() < 0.65


def test_pale_stroma_of_a_real_slide_is_kept(data_dir):
    """CMU-1-Small-Region: nearly all that is coloured is in, nearly all glass is out."""
    rgb = thumbnail(tifffile.imread(data_dir / "slides/CMU-1-Small-Region.svs", key=0), 0.499)

    mask = tissue_mask(rgb, DEFAULT)

    assert mask[_saturation(rgb) > 40].mean() > 0.97
    assert mask[_saturation(rgb) < 8].mean() < 0.04


def test_pale_ihc_cores_are_found_on_their_glass(data_dir):
    """Real 0 and 1+ cores fill between 0.4 and 0.85 of their pictures, whose corners are glass."""
    for name in ("0_ccb6", "1_fb95"):
        rgb = thumbnail(np.asarray(Image.open(next((data_dir / "her2_ihc_tma").glob(f"{name}*")))), 0.25)
        mask = weak_tissue_mask(rgb, DEFAULT)

        assert 0.4 < mask.mean() < 0.85
        assert not mask[:15, :15].any()
        assert mask[70:100, 70:100].mean() > 0.99


@pytest.mark.parametrize("white", [np.s_[:, :40], np.s_[5:25, 5:25], np.s_[:, :90]], ids=["margin", "bubble", "most"])
def test_white_that_is_brighter_than_the_glass_does_not_make_the_glass_weak_tissue(white):
    """A scanner's white where nothing was scanned, or a bubble; the paper's rules take the brightest whatever it is."""
    rng = np.random.default_rng(0)
    rgb = np.repeat(rng.integers(238, 242, (120, 120, 1)), 3, axis=2).astype(np.uint8)
    rgb[50:110, 60:110] = rng.integers(205, 236, (60, 50, 1))
    without, rgb[white] = weak_tissue_mask(rgb, DEFAULT), 255

    clear = np.ones(rgb.shape[:2], bool)
    clear[white] = False
    clear = ndimage.binary_erosion(clear, iterations=8, border_value=1)
    assert (weak_tissue_mask(rgb, DEFAULT) != without)[clear].mean() < 0.04
    assert weak_tissue_mask(rgb, RELEASED)[clear].all()


@pytest.mark.parametrize(("apply", "counts"), [(True, False), (False, True)])
def test_a_smear_beside_the_tissue_counts_only_where_quality_is_not_applied(tmp_path, apply, counts):
    """A slide with a piece of tissue and a smear of eosin above it: where quality is applied the smear is no tissue."""
    pixels = tissue_pixels(share=0.4)
    smear = np.array((232, 190, 212)) + np.random.default_rng(0).integers(-1, 2, (560, 1900, 1))
    pixels[20:580, 70:1970] = smear
    path = write_tissue(tmp_path / "smeared.svs", pixels)
    config = load_config(overrides=[f"quality.apply={str(apply).lower()}"])

    with open_slide(path) as slide:
        found = segment_slide(slide, CNNS["strided-tile-cnn"].input, config, tumour_cnn=None)

    assert found.usable[found.usable.shape[0] // 2, found.usable.shape[1] // 2]
    assert found.tissue[:14].any() == counts
    assert found.usable[:14].any() == counts


@pytest.mark.parametrize(("drawn_at", "is_told"), [("0.2521", False), ("0.5", True)])
def test_an_annotation_of_another_scan_is_told(tmp_path, drawn_at, is_told):
    """ImageScope states the scale of the slide; the regions of a scan at 20x lie elsewhere on one at 40x."""
    corners = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((0, 0), (900, 0), (900, 900), (0, 900)))
    region = f'<Region Type="0"><Vertices>{corners}</Vertices></Region>'
    layer = f'<Annotation Name="Tumor"><Regions>{region}</Regions></Annotation>'
    (tmp_path / "a.xml").write_text(f'<Annotations MicronsPerPixel="{drawn_at}">{layer}</Annotations>')
    tile, annotation = CNNS["strided-tile-cnn"].input, read_annotation(tmp_path / "a.xml")

    with open_slide(write_tissue(tmp_path / "a.svs", tissue_pixels(side=1024))) as slide:
        found = segment_slide(slide, tile, load_config(), tumour_cnn=None, annotation=annotation)

    told = ("its annotation was drawn at 0.5 µm/px, and it has 0.25: is it another scan's?",)
    assert found.cautions == (told if is_told else ())


@pytest.mark.parametrize(
    ("fixed", "settings", "words"),
    [
        (False, ["selection.n_tiles=300"], "or lower selection.n_tiles"),
        (False, ["tiling.min_tiles=90000"], "or lower tiling.min_tiles"),
        (True, ["selection.n_tiles=9000"], "look at 9000 tiles of every slide, not at fewer"),
        (
            True,
            ["selection.n_tiles=300"],
            r"or --set tiling.min_tiles=\d+: the 300 tiles that decide are then the best \d+%",
        ),
    ],
)
def test_too_little_tumour_names_what_can_help(tmp_path, fixed, settings, words):
    """Weights that were trained on 300 tiles are of no use with fewer, so fewer are not advised."""
    config = load_config(overrides=["quality.apply=false", *settings])
    tile = CNNS["strided-tile-cnn"].input

    with open_slide(write_tissue(tmp_path / "small.svs", tissue_pixels(share=0.45))) as slide:
        found = segment_slide(slide, tile, config, tumour_cnn=None)
        with pytest.raises(TilingError, match=words):
            cut_tumour(slide, found, tile, config.tiling, config.selection, n_tiles_fixed=fixed)
