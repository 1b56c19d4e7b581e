"""Augmentation: pure functions of pixels and random numbers."""

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed

from he2her2.models.torch_engine import prepare_on_device
from he2her2.training.augmentation import _crops, _relit, _restained, _turned, augmented_channels
from he2her2.training.settings import Augmentation

RNG = np.random.default_rng(0)
PIXELS = torch.from_numpy(RNG.integers(0, 256, (16, 12, 12, 3), np.uint8))
UNIFORM = torch.from_numpy(RNG.random((16, 8), np.float32))
FULL = Augmentation(dihedral=True, brightness=0.1, contrast=0.2, stain=0.2)


@pytest.mark.parametrize("colour", ["rgb", "yuv", "yuv-uint8", "lightness", "lightness-uint8", "haematoxylin-dab"])
def test_nothing_asked_for_is_the_network_s_own_input(colour):
    """Training without augmentation sees what prediction sees."""
    found = augmented_channels(PIXELS, UNIFORM, Augmentation(), colour)

    torch.testing.assert_close(found, prepare_on_device(PIXELS, colour), rtol=0, atol=0)


@pytest.mark.parametrize("colour", ["rgb", "yuv", "yuv-uint8", "lightness", "lightness-uint8", "haematoxylin-dab"])
def test_colours_that_do_not_vary_stay(colour):
    """The way through floats that colour augmentation takes gives the same channels where nothing changes."""
    still = torch.full((16, 8), 0.5)

    found = augmented_channels(PIXELS, still, Augmentation(brightness=0.1, contrast=0.1, stain=0.1), colour)

    torch.testing.assert_close(found, prepare_on_device(PIXELS, colour), rtol=0, atol=4e-3)  # black is kept above 0


@pytest.mark.parametrize("settings", [FULL, Augmentation(dihedral=True), Augmentation(stain=0.3)])
def test_a_tile_does_not_depend_on_its_batch(settings):
    """Each is varied by its own random numbers alone."""
    whole = augmented_channels(PIXELS, UNIFORM, settings, "rgb", crop_px=8)
    alone = torch.cat(
        [augmented_channels(PIXELS[i : i + 1], UNIFORM[i : i + 1], settings, "rgb", 8) for i in range(16)]
    )

    torch.testing.assert_close(whole, alone)


def test_the_eight_turns():
    """Every random number gives one of the eight flips and quarter turns, and each comes."""
    tile = PIXELS[:1]
    uniform = torch.zeros(8, 8)
    uniform[:, 0] = torch.arange(8) / 8
    eight = [tile[0].rot90(k, (0, 1)) for k in range(4)]
    eight += [turned.flip(1) for turned in eight]

    found = _turned(tile.expand(8, -1, -1, -1), uniform)

    matches = [[torch.equal(one, other) for other in eight] for one in found]
    assert np.array(matches).sum() == 8
    assert np.array(matches).any(axis=0).all()


def test_crops_are_parts_of_their_tile():
    """Every crop is found in its tile, first and last places included."""
    uniform = torch.zeros(3, 8)
    uniform[1] = 0.9999
    uniform[2, 1] = 0.5  # to the right, not down

    first, last, right = _crops(PIXELS[:3], uniform, 5)

    assert torch.equal(first, PIXELS[0, :5, :5])
    assert torch.equal(last, PIXELS[1, 7:, 7:])
    assert torch.equal(right, PIXELS[2, :5, 4:9])


def test_a_crop_larger_than_the_tile_is_refused():
    """It would read beyond it."""
    with pytest.raises(ValueError, match="13 px"):
        _crops(PIXELS, UNIFORM, 13)


def test_stains_are_scaled_as_scikit_image_separates_them():
    """Restaining equals: separate by colour deconvolution, scale each stain, put together again."""
    rgb = 0.15 + 0.8 * RNG.random((1, 6, 6, 3))
    change = np.array([[0.2, -0.1, 0.05]])
    expected = hed2rgb(rgb2hed(rgb[0]) * (1 + change))

    found = _restained(torch.from_numpy(rgb), torch.from_numpy(change))[0].numpy()

    inside = (expected > 0.01) & (expected < 0.99)  # scikit-image cuts off negative concentrations
    separable = (rgb2hed(rgb[0]) > 0).all(axis=2)[..., None]
    assert (inside & separable).any()
    np.testing.assert_allclose(found[(inside & separable)], expected[(inside & separable)], atol=1e-6)


def test_contrast_keeps_the_mean_and_brightness_moves_it():
    """So the two are separate settings."""
    channels = torch.rand(2, 3, 4, 4)

    found = _relit(channels, torch.tensor([0.0, 0.1]), torch.tensor([1.5, 1.0]))

    torch.testing.assert_close(found[0].mean(dim=(1, 2)), channels[0].mean(dim=(1, 2)))
    torch.testing.assert_close(found[1], channels[1] + 0.1)
