"""Augmentation: pure functions of pixels and random numbers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hed2rgb, lab2rgb, rgb2hed, rgb2lab

from he2her2.models.torch_engine import prepare_on_device
from he2her2.training.augmentation import (
    _blurred,
    _crops,
    _recoloured,
    _relit,
    _restained,
    _turned,
    _zoomed,
    augmented_channels,
)
from he2her2.training.compression import as_jpeg
from he2her2.training.settings import Augmentation

RNG = np.random.default_rng(0)
PIXELS = torch.from_numpy(RNG.integers(0, 256, (16, 12, 12, 3), np.uint8))
UNIFORM = torch.from_numpy(RNG.random((16, 30), np.float32))
FULL = Augmentation(dihedral=True, brightness=0.1, contrast=0.2, stain=0.2)
STRONG = Augmentation(dihedral=True, stain=0.6, stain_vectors=0.1, lab=1, grey=0.3, blur=1.6, zoom=0.1, jpeg=0.5)


@pytest.mark.parametrize("colour", ["rgb", "yuv", "yuv-uint8", "lightness", "lightness-uint8", "haematoxylin-dab"])
def test_nothing_asked_for_is_the_network_s_own_input(colour):
    """Training without augmentation sees what prediction sees."""
    found = augmented_channels(PIXELS, UNIFORM, Augmentation(), colour)

    torch.testing.assert_close(found, prepare_on_device(PIXELS, colour), rtol=0, atol=0)


@pytest.mark.parametrize("colour", ["rgb", "yuv", "yuv-uint8", "lightness", "lightness-uint8", "haematoxylin-dab"])
def test_colours_that_do_not_vary_stay(colour):
    """The way through floats that colour augmentation takes gives the same channels where nothing changes."""
    still = torch.full((16, 30), 0.5)

    found = augmented_channels(PIXELS, still, Augmentation(brightness=0.1, contrast=0.1, stain=0.1), colour)

    torch.testing.assert_close(found, prepare_on_device(PIXELS, colour), rtol=0, atol=4e-3)  # black is kept above 0


@pytest.mark.parametrize("settings", [FULL, STRONG, Augmentation(dihedral=True), Augmentation(stain=0.3)])
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
    uniform = torch.zeros(8, 30)
    uniform[:, 0] = torch.arange(8) / 8
    eight = [tile[0].rot90(k, (0, 1)) for k in range(4)]
    eight += [turned.flip(1) for turned in eight]

    found = _turned(tile.expand(8, -1, -1, -1), uniform)

    matches = [[torch.equal(one, other) for other in eight] for one in found]
    assert np.array(matches).sum() == 8
    assert np.array(matches).any(axis=0).all()


def test_crops_are_parts_of_their_tile():
    """Every crop is found in its tile, first and last places included."""
    uniform = torch.zeros(3, 30)
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


def test_mean_and_spread_in_lab_are_drawn_anew():
    """As scikit-image's LAB, moved and scaled about its mean; colours that no screen shows are cut."""
    rgb = torch.from_numpy(RNG.uniform(0.3, 0.7, (2, 6, 6, 3)))
    shift = torch.tensor([[3.0, -4.0, 5.0], [0.0, 0.0, 0.0]]).double()
    scale = torch.tensor([[1.2, 0.8, 1.1], [1.0, 1.0, 1.0]]).double()
    lab = rgb2lab(rgb.numpy())
    mean = lab.mean(axis=(1, 2), keepdims=True)

    found = _recoloured(rgb, shift, scale)

    expected = lab2rgb((lab - mean) * scale.numpy()[:, None, None] + mean + shift.numpy()[:, None, None])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(found[1], rgb[1], atol=1e-4)


def test_another_laboratory_s_stain_colours():
    """Changed vectors with unchanged amounts keep glass white, and what no stain covers; unchanged ones nothing."""
    rgb = torch.from_numpy(RNG.uniform(0.2, 0.9, (3, 4, 4, 3)).astype(np.float32))
    rgb[:, 0, 0] = 1
    none = torch.zeros(3, 3)

    same = _restained(rgb, none, torch.zeros(3, 3, 3))
    other = _restained(rgb, none, torch.from_numpy(RNG.uniform(-0.1, 0.1, (3, 3, 3)).astype(np.float32)))

    torch.testing.assert_close(same, rgb)
    torch.testing.assert_close(other[:, 0, 0], rgb[:, 0, 0])
    assert (other - rgb).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_blur_is_a_gaussian_of_each_tile_s_own():
    """As scipy's inside the tile; 0 changes nothing."""
    rgb = torch.from_numpy(RNG.random((2, 24, 24, 3), np.float32))

    found = _blurred(rgb, torch.tensor([0.0, 1.5]), 1.5)

    torch.testing.assert_close(found[0], rgb[0])
    expected = gaussian_filter(rgb[1].numpy(), (1.5, 1.5, 0), truncate=3.4)
    np.testing.assert_allclose(found[1, 8:-8, 8:-8], expected[8:-8, 8:-8], atol=3e-3)


def test_zoom_is_about_the_middle():
    """A square of 8 px is one of 4 px at twice the field; at 1 nothing changes."""
    rgb = torch.zeros(2, 16, 16, 3)
    rgb[:, 4:12, 4:12] = 1

    same, half = _zoomed(rgb, torch.tensor([1.0, 2.0]))

    torch.testing.assert_close(same, rgb[0])
    assert half[6:10, 6:10].min() == 1
    assert half[3:5, :, 0].sum() == 0


def test_a_share_of_tiles_is_grey():
    """About as many as asked for, and only those lose their colour."""
    tiles = PIXELS[:1].expand(400, -1, -1, -1)
    uniform = torch.from_numpy(RNG.random((400, 30), np.float32))

    found = augmented_channels(tiles, uniform, Augmentation(grey=0.25), "rgb")

    spread = found.amax(dim=1) - found.amin(dim=1)
    grey = spread.amax(dim=(1, 2)) < 1e-6
    assert 70 <= grey.sum() <= 130
    torch.testing.assert_close(found[~grey], prepare_on_device(tiles[~grey], "rgb"))


def tissue(side):
    """Smooth colours with some grain, as of a slide: (side, side, 3) uint8."""
    rng = np.random.default_rng(3)
    smooth = gaussian_filter(rng.normal(0, 1, (side, side, 3)), (3, 3, 0))
    return np.clip(170 + 60 * smooth / smooth.std() + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [10, 20, 50, 80, 95])
@pytest.mark.parametrize("side", [64, 50])
def test_compression_loses_what_libjpeg_loses(quality, side):
    """The same pixels to a few grey levels (colour is enlarged by other weights), at any side."""
    pixels = tissue(side)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(file)).astype(float)

    found = as_jpeg(torch.from_numpy(pixels)[None].float() / 255, torch.tensor([float(quality)]))[0].numpy() * 255

    lost = np.abs(expected - pixels).mean()
    assert np.abs(found - expected).mean() < 0.2 * lost + 0.6
    grey = torch.from_numpy(pixels[..., :1].repeat(3, 2))
    file = io.BytesIO()
    Image.fromarray(grey[..., 0].numpy()).save(file, "JPEG", quality=quality)
    found = as_jpeg(grey[None].float() / 255, torch.tensor([float(quality)]))[0, ..., 0].numpy() * 255
    same = np.abs(found - np.asarray(Image.open(file))) <= 1.6  # a cosine halfway between two steps may go either way
    assert same.mean() > 0.9


def test_a_share_of_tiles_is_compressed():
    """About as many as asked for, half of them in blocks twice as wide; the others stay."""
    tiles = torch.from_numpy(tissue(64))[None].expand(200, -1, -1, -1)
    uniform = torch.from_numpy(RNG.random((200, 30), np.float32))

    found = augmented_channels(tiles, uniform, Augmentation(jpeg=0.4), "rgb")

    same = (found - prepare_on_device(tiles, "rgb")).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 50 <= (~same).sum() <= 110
    kinds = torch.unique(uniform[~same, 29] < 0.5)
    assert len(kinds) == 2


def test_augmentation_is_of_single_precision_under_autocast():
    """Colours are not rounded to the eight bits of bfloat16 before the network sees them."""
    with torch.autocast("cpu", torch.bfloat16):
        found = augmented_channels(PIXELS, UNIFORM, STRONG, "rgb")

    torch.testing.assert_close(found, augmented_channels(PIXELS, UNIFORM, STRONG, "rgb"), rtol=0, atol=0)
