"""Pixels to input, logits to score: against slow obvious loops and against other people's implementations."""

import colorsys
import math

import numpy as np
import pytest
import scipy.special
import skimage.color
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from he2her2.models import CNNS, InputSpec, resize, soft_argmax, softmax
from he2her2.models.encoders.pixels import lightness, lightness_uint8, prepare_input

PIXELS = arrays(np.uint8, (5, 3))
LOGITS = arrays(np.float64, (6, 4), elements=st.floats(-30, 30))
BETAS = st.sampled_from([1e-3, 0.1, 1.0, 10.0, 1e3, 1e6])


def random_tiles(n, side):
    return np.random.default_rng(7).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@given(rgb=PIXELS)
def test_lightness_is_that_of_colorsys(rgb):
    """HSL lightness agrees with Python's own colour conversion."""
    expected = [colorsys.rgb_to_hls(*(pixel / 255))[1] for pixel in rgb]

    assert np.allclose(expected, lightness(rgb), atol=1e-6)


def test_lightness_of_every_pair_of_extremes():
    """Every possible greatest and least channel gives (max + min) / 2 / 255."""
    highest, lowest = (side.ravel() for side in np.meshgrid(range(256), range(256)))
    rgb = np.stack([lowest, highest, np.maximum(lowest, highest)], axis=1).astype(np.uint8)
    halves = [(max(map(int, pixel)) + min(map(int, pixel))) / 2 for pixel in rgb]

    assert np.allclose(np.array(halves) / 255, lightness(rgb), atol=1e-7)


def test_lightness_in_8_bits_is_that_of_opencv():
    """All 65 536 pairs of maximum and minimum: float32 as OpenCV's HLS of 8 bits computes it, step by step."""
    f, half, most = np.float32(1 / 255), np.float32(0.5), np.float32(255)
    highest, lowest = (side.ravel() for side in np.meshgrid(np.arange(256), np.arange(256)))
    rgb = np.stack([lowest, highest, np.maximum(lowest, highest)], axis=1).astype(np.uint8)
    expected = [
        round(float(np.float32(np.float32(np.float32(max(pixel)) * f + np.float32(min(pixel)) * f) * half) * most))
        for pixel in rgb.tolist()
    ]

    found = 255 * lightness_uint8(rgb)

    assert np.array_equal(np.rint(found), expected)
    assert np.abs(found - expected).max() < 1e-4
    pair = {(int(max(p)), int(min(p))): n for p, n in zip(rgb.tolist(), expected, strict=True)}
    ours = [round((high + low) / 2) for high, low in pair]
    assert 0.1 < np.mean(np.not_equal(ours, list(pair.values()))) < 0.4  # halves to even is something else


def released_hashi_input(tile):
    """One tile as HASHI's released code feeds it: YUV in 8 bits (halves up, clipped), then Lanczos, then over 255."""
    rows = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.1]], np.float32)
    r, g, b = np.moveaxis(tile.astype(np.float32), 2, 0)
    sums = np.stack([y * r + u * g + v * b + np.float32(0.5) for y, u, v in rows], axis=-1)
    yuv = np.clip(np.floor(sums), 0, 255).astype(np.uint8)
    small = Image.fromarray(yuv).resize((101, 101), Image.Resampling.LANCZOS)
    return np.asarray(small).transpose(2, 0, 1) / 255


def test_input_of_the_released_tumour_network_is_the_released_one():
    """Its 8-bit YUV agrees with a plain restatement; resizing RGB first is something else."""
    spec = CNNS["released-tumour-cnn"].input
    tiles = np.random.default_rng(3).integers(0, 256, (2, 512, 512, 3), dtype=np.uint8)
    tiles[1, :256] = (60, 40, 200)  # of negative V

    prepared = prepare_input(tiles, spec)

    assert prepared.shape == (2, 3, 101, 101)
    for tile, found in zip(tiles, prepared, strict=True):
        assert np.abs(found - released_hashi_input(tile)).max() < 1e-6
    assert np.abs(prepared - prepare_input(tiles, CNNS["paper-tumour-cnn"].input)).max() > 0.1


@pytest.mark.parametrize("convert", [lightness, lightness_uint8])
def test_lightness_is_float32_between_zero_and_one(convert):
    """Black is 0, white is 1, for any leading shape."""
    rgb = np.stack([np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 255, np.uint8)])

    light = convert(rgb)

    assert light.dtype == np.float32
    assert light[0].tolist() == np.zeros((2, 3)).tolist()
    assert light[1].tolist() == np.ones((2, 3)).tolist()


def test_yuv_is_that_of_scikit_image():
    """The tumour network's colours are BT.601's YUV."""
    tiles = random_tiles(2, 9)
    expected = skimage.color.rgb2yuv(tiles).transpose(0, 3, 1, 2)

    assert np.allclose(expected, prepare_input(tiles, InputSpec(1.0, 9, 9, "yuv")), atol=1e-6)


def test_rgb_is_scaled_and_channels_come_first():
    """RGB input is the pixel over 255, as (n, c, h, w)."""
    tiles = random_tiles(2, 9)

    prepared = prepare_input(tiles, InputSpec(1.0, 9, 9, "rgb"))

    assert prepared.shape == (2, 3, 9, 9)
    assert prepared[1, 2, 3, 4] == pytest.approx(tiles[1, 3, 4, 2] / 255)


def test_haematoxylin_and_dab_are_scikit_images_amounts():
    """Where it cuts nothing off, and but for its unit, the logarithm of a millionth."""
    tiles = random_tiles(1, 40)
    hed = skimage.color.rgb2hed(tiles)[0] * -np.log(1e-6)
    kept = (hed > 0).all(axis=-1) & (tiles[0] > 0).all(axis=-1)

    prepared = prepare_input(tiles, InputSpec(1.0, 40, 40, "haematoxylin-dab"))[0]

    assert kept.sum() > 30
    assert prepared[0][kept] == pytest.approx(hed[..., 0][kept], abs=0.01)
    assert prepared[1][kept] == pytest.approx(hed[..., 2][kept], abs=0.01)


def test_lightness_cannot_tell_brown_from_blue_and_the_dyes_can():
    """Two tiles of the same lightness: one all DAB, one all haematoxylin."""
    brown, blue = (np.full((1, 2, 2, 3), colour, np.uint8) for colour in ((188, 130, 102), (120, 130, 170)))

    assert np.array_equal(lightness(brown), lightness(blue))
    dab = [prepare_input(tiles, InputSpec(1.0, 2, 2, "haematoxylin-dab"))[0, 1].mean() for tiles in (brown, blue)]
    assert dab[0] > 1
    assert dab[1] < 0.3


@pytest.mark.parametrize("colour", ["lightness", "lightness-uint8", "rgb", "yuv", "yuv-uint8", "haematoxylin-dab"])
def test_prepared_tiles_do_not_depend_on_the_batch(colour):
    """A tile alone gives the very numbers that it gives among others."""
    spec, tiles = InputSpec(1.0, 32, 11, colour), random_tiles(5, 32)

    together = prepare_input(tiles, spec)

    assert together.shape == (5, spec.n_channels, 11, 11)
    assert together.dtype == np.float32
    assert np.array_equal(together, np.concatenate([prepare_input(tile[None], spec) for tile in tiles]))


def test_resizing_is_pillows_antialiased_one():
    """512 px become 101 px as Pillow does it; a flat tile stays flat."""
    tiles, spec = random_tiles(2, 512), InputSpec(0.25, 512, 101, "yuv")
    tiles[1] = 93
    expected = np.asarray(Image.fromarray(tiles[0]).resize((101, 101), Image.Resampling.BILINEAR))

    small = resize(tiles, spec)

    assert np.array_equal(expected, small[0])
    assert small[0].std() < tiles[0].std() / 3  # noise is averaged, not sampled
    assert (small[1] == 93).all()


def test_no_tiles_are_prepared_to_none():
    """An empty batch is no special case."""
    empty = np.empty((0, 512, 512, 3), np.uint8)

    assert prepare_input(empty, InputSpec(0.25, 512, 101, "yuv")).shape == (0, 3, 101, 101)


@pytest.mark.parametrize(
    "tiles",
    [np.zeros((1, 8, 9, 3), np.uint8), np.zeros((1, 9, 9, 4), np.uint8), np.zeros((1, 9, 9, 3), np.float32)],
    ids=["not square", "with alpha", "not uint8"],
)
def test_tiles_of_another_kind_are_refused(tiles):
    """A network is never shown what it was not made for."""
    with pytest.raises(ValueError, match=r"tiles must be \(n, 9, 9, 3\) uint8"):
        prepare_input(tiles, InputSpec(1.0, 9, 9, "rgb"))


@given(logits=LOGITS)
def test_softmax_is_scipys(logits):
    """Probabilities agree with SciPy's."""
    assert np.allclose(scipy.special.softmax(logits, axis=1), softmax(logits))


@given(logits=LOGITS, beta=st.floats(1e-3, 5))
def test_soft_argmax_is_the_equation(logits, beta):
    """Equation 1 of the paper, written as a loop without any care for stability, agrees where it can be computed."""
    expected = []
    for row in logits:
        powers = [math.exp(beta * s) for s in row]
        expected.append(sum(i * power for i, power in enumerate(powers)) / sum(powers))

    assert np.allclose(expected, soft_argmax(logits, beta), atol=1e-9)


@given(logits=arrays(np.float32, (6, 4), elements=st.floats(-(2.0**127), 2.0**127, width=32)), beta=BETAS)
def test_soft_argmax_is_stable(logits, beta):
    """Whatever the logits and beta, the score is a number in [0, 3], and no warning is raised."""
    scores = soft_argmax(logits, beta)

    assert ((scores >= 0) & (scores <= 3)).all()


@given(best=st.integers(0, 3), gap=st.floats(0.1, 100))
def test_soft_argmax_nears_arg_max_at_the_papers_beta(best, gap):
    """At beta = 1000 a class that leads by a tenth is the score."""
    logits = np.zeros(4)
    logits[best] = gap

    assert soft_argmax(logits, 1000.0) == pytest.approx(best, abs=1e-9)


@given(logits=LOGITS, beta=BETAS, shift=st.floats(-50, 50))
def test_soft_argmax_ignores_a_common_shift_and_mirrors(logits, beta, shift):
    """Adding a number to all logits changes nothing that matters; reversing the classes mirrors the score."""
    coarse = logits.round(2)  # so that adding a shift loses no digit that beta would amplify

    assert np.allclose(soft_argmax(coarse, beta), soft_argmax(coarse + np.round(shift), beta), atol=1e-2)
    assert np.allclose(3 - soft_argmax(coarse, beta), soft_argmax(coarse[:, ::-1], beta), atol=1e-9)


def test_soft_argmax_nears_the_middle_class_at_small_beta():
    """As beta goes to 0 every class weighs the same."""
    assert soft_argmax(np.array([5.0, -3.0, 2.0, 0.0]), 1e-9) == pytest.approx(1.5)
