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

from he2her2.models import InputSpec, resize, soft_argmax, softmax
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
    """Every possible greatest and least channel gives (max + min) / 2 / 255, and its rounding to 8 bits."""
    highest, lowest = (side.ravel() for side in np.meshgrid(range(256), range(256)))
    rgb = np.stack([lowest, highest, np.maximum(lowest, highest)], axis=1).astype(np.uint8)
    halves = [(max(map(int, pixel)) + min(map(int, pixel))) / 2 for pixel in rgb]

    assert np.allclose(np.array(halves) / 255, lightness(rgb), atol=1e-7)
    assert np.array_equal([round(half) for half in halves], np.rint(255 * lightness_uint8(rgb)))


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


@pytest.mark.parametrize("colour", ["lightness", "lightness-uint8", "rgb", "yuv"])
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
