"""Stain amounts, restaining and normalisation, held against scikit-image and slow loops."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.color import rgb2hed, rgb2lab, rgb_from_hed

from he2her2.config import Config, load_config
from he2her2.errors import ConfigError
from he2her2.geometry import Point, Size
from he2her2.method import segment_slide
from he2her2.models import RGB_FROM_HED, Card, load_slide_model, recoloured
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.pipeline import predict
from he2her2.preprocessing import read_annotation
from he2her2.preprocessing.stain import (
    LANDINI,
    REFERENCE_LAB,
    REFERENCE_STAINS,
    RUIFROK,
    LabStatistics,
    StainPair,
    from_density,
    lab_shifted,
    lab_statistics,
    macenko_normalised,
    macenko_stains,
    normalisation_of,
    optical_density,
    reinhard_normalised,
    restained,
    stain_amounts,
    stained_pixels,
    tabulated,
)
from he2her2.slides import open_slide
from he2her2.training.settings import load_training
from tests.tissue_slides import tissue_pixels, write_tissue

PICTURES = arrays(np.uint8, (2, 3, 3, 3), elements=st.integers(1, 255))


def tissue_of(pair: StainPair, n: int = 4000, seed: int = 0) -> np.ndarray:
    """(n, 3) pixels of two dyes: nuclei with much of the first, stroma with much of the second, and mixtures."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0, 1, (n, 2)) * np.array([1.2, 0.9])
    amounts[: n // 20, 1] = amounts[n // 20 : n // 10, 0] = 0  # some of each alone
    return from_density(amounts @ pair.vectors)


def test_networks_and_slides_see_the_same_dyes():
    """Models may not take them from the preprocessing, so the numbers stand twice."""
    assert np.array_equal(RGB_FROM_HED, RUIFROK)
    assert np.array_equal(rgb_from_hed, RUIFROK)


@given(PICTURES)
def test_density_has_an_inverse(rgb):
    """All but black come back to the last bit."""
    assert np.array_equal(rgb, from_density(optical_density(rgb)))


def test_amounts_are_those_of_scikit_image():
    """Where no amount is negative, and but for its unit, the logarithm of a millionth."""
    rgb = from_density(np.random.default_rng(0).uniform(0.05, 0.9, (50, 3)) @ RUIFROK)[None]

    expected = rgb2hed(rgb) * -math.log(1e-6)

    kept = (expected > 0).all(axis=-1)
    assert kept.sum() > 40
    assert stain_amounts(rgb)[kept] == pytest.approx(expected[kept], abs=2e-3)


@given(PICTURES)
def test_restaining_with_its_own_dyes_changes_nothing(rgb):
    """Also with dyes other than those of the method."""
    assert np.abs(restained(rgb).astype(int) - rgb).max() <= 1
    assert np.abs(restained(rgb, vectors=LANDINI, base=LANDINI).astype(int) - rgb).max() <= 1


def test_restaining_is_what_a_loop_over_pixels_does():
    """Amounts of each dye are scaled, and shown in the new dyes."""
    rgb = from_density(np.random.default_rng(1).uniform(0, 0.6, (20, 3)) @ RUIFROK)

    found = restained(rgb, vectors=LANDINI, amounts=(0.5, 1.5, 1))

    for pixel, made in zip(rgb, found, strict=True):
        h, e, d = np.linalg.solve(RUIFROK.T, -np.log(pixel / 255))
        density = 0.5 * h * LANDINI[0] + 1.5 * e * LANDINI[1] + d * LANDINI[2]
        assert made == pytest.approx(np.clip(255 * np.exp(-density), 0, 255), abs=0.51)


def test_restaining_there_and_back():
    """Half the stain and then twice the stain is the first picture, but for rounding of pale pixels."""
    rgb = tissue_of(REFERENCE_STAINS)

    back = restained(restained(rgb, amounts=(0.5, 0.5, 0.5)), amounts=(2, 2, 2))

    assert np.abs(back.astype(int) - rgb).max() <= 3


def test_white_stays_white():
    """Glass has no stain to change."""
    white = np.full((4, 3), 255, np.uint8)
    other = StainPair((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (1.0, 0.8))

    assert (restained(white, vectors=LANDINI, amounts=(2, 2, 2)) == 255).all()
    assert (macenko_normalised(white, other, REFERENCE_STAINS) == 255).all()


def test_macenko_finds_the_dyes_that_were_mixed():
    """Direction within a degree or two, haematoxylin first, and the 99th percentile of their amounts."""
    vectors = LANDINI[:2] / np.linalg.norm(LANDINI[:2], axis=1, keepdims=True)
    mixed = StainPair(tuple(vectors[0]), tuple(vectors[1]), (0.0, 0.0))

    found = macenko_stains(tissue_of(mixed))

    degrees = np.rad2deg(np.arccos(np.clip((found.vectors * vectors).sum(axis=1), -1, 1)))
    assert degrees.max() < 2.5
    assert found.amounts == pytest.approx((1.19, 0.89), abs=0.04)


def test_macenko_is_its_definition():
    """A slow restatement: covariance about white, angles pixel by pixel, least squares for the amounts."""
    rgb = tissue_of(REFERENCE_STAINS, n=600)
    density = np.array([-np.log(np.maximum(pixel, 1) / 255) for pixel in rgb.astype(float)])
    density = density[density.mean(axis=1) > 0.15]
    _, vectors = np.linalg.eigh(sum(np.outer(d, d) for d in density) / len(density))
    first, second = (v * np.sign(v.sum()) for v in (vectors[:, 2], vectors[:, 1]))
    angles = [math.degrees(math.atan2(d @ second, d @ first)) for d in density]
    ends = [math.radians(a) for a in np.percentile(angles, [1, 99])]
    dyes = sorted((first * math.cos(a) + second * math.sin(a) for a in ends), key=lambda v: -v[0])
    dyes = np.maximum(dyes, 0) / np.linalg.norm(np.maximum(dyes, 0), axis=1, keepdims=True)
    amounts = [np.linalg.lstsq(dyes.T, d, rcond=None)[0] for d in density]

    found = macenko_stains(rgb)

    assert found.vectors == pytest.approx(dyes, abs=1e-5)
    assert found.amounts == pytest.approx(np.percentile(amounts, 99, axis=0), abs=1e-5)


def test_macenko_normalisation_gives_the_dyes_of_the_target():
    """What is normalised has the target's dyes; normalised to its own it is what it was."""
    vectors = LANDINI[:2] / np.linalg.norm(LANDINI[:2], axis=1, keepdims=True)
    rgb = tissue_of(StainPair(tuple(vectors[0]), tuple(vectors[1]), (0.0, 0.0)))
    own = macenko_stains(rgb)

    found = macenko_stains(macenko_normalised(rgb, own, REFERENCE_STAINS))

    assert found.vectors == pytest.approx(REFERENCE_STAINS.vectors, abs=0.03)
    assert found.amounts == pytest.approx(REFERENCE_STAINS.amounts, rel=0.03)
    assert np.abs(macenko_normalised(rgb, own, own).astype(int) - rgb).mean() < 1


@pytest.mark.parametrize("rgb", [np.full((9, 3), 250, np.uint8), np.full((9, 3), 120, np.uint8)])
def test_macenko_needs_two_dyes(rgb):
    """Glass has none, and one colour is one dye."""
    with pytest.raises(ValueError, match="no two dyes"):
        macenko_stains(rgb)


def test_lab_statistics_are_scikit_images_lab():
    """Of the pixels in the tissue only."""
    rgb = np.random.default_rng(2).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    tissue = np.eye(6, dtype=bool)

    found = lab_statistics(rgb, tissue)

    lab = rgb2lab(rgb)[tissue]
    assert found.mean == pytest.approx(lab.mean(axis=0), abs=1e-3)
    assert found.spread == pytest.approx(lab.std(axis=0), abs=1e-3)


def test_reinhard_gives_the_mean_and_spread_of_the_target():
    """As far as screens can show them; to its own statistics nothing changes."""
    rgb = tissue_of(REFERENCE_STAINS)
    own = lab_statistics(rgb)
    target = LabStatistics((62.0, 18.0, -12.0), (9.0, 8.0, 6.0))

    found = lab_statistics(reinhard_normalised(rgb, own, target))

    assert found.mean == pytest.approx(target.mean, abs=0.5)
    assert found.spread == pytest.approx(target.spread, abs=0.5)
    assert np.abs(reinhard_normalised(rgb, own, own).astype(int) - rgb).max() <= 1


def test_lab_shift_moves_each_picture_about_its_own_mean():
    """Two pictures of one stack are each what they are alone; without a change nothing changes."""
    rgb = np.stack([tissue_of(REFERENCE_STAINS, 64, seed).reshape(8, 8, 3) for seed in (0, 1)])
    how = {"mean": (4, -3, 5), "spread": (0.8, 1.1, 0.9)}

    found = lab_shifted(rgb, **how)

    assert np.array_equal(found, np.stack([lab_shifted(picture, **how) for picture in rgb]))
    lab, own = rgb2lab(found), rgb2lab(rgb)
    assert lab.mean(axis=(1, 2)) == pytest.approx(own.mean(axis=(1, 2)) + np.array([4, -3, 5]), abs=0.4)
    assert np.abs(lab_shifted(rgb).astype(int) - rgb).max() <= 1


@given(mean=arrays(float, 3, elements=st.floats(-90, 90)), spread=st.floats(0.1, 4))
def test_colours_beyond_the_screen_are_cut_without_a_word(mean, spread):
    """Whatever shift is asked for."""
    rgb = np.random.default_rng(3).integers(0, 256, (5, 5, 3), dtype=np.uint8)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lab_shifted(rgb, mean=mean, spread=(spread,) * 3)

    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    "change",
    [
        partial(restained, amounts=(1.5, 0.6, 1)),
        partial(reinhard_normalised, source=LabStatistics((70, 20, -5), (15, 9, 5)), target=REFERENCE_LAB),
        partial(macenko_normalised, source=REFERENCE_STAINS, target=macenko_stains(tissue_of(REFERENCE_STAINS))),
    ],
)
def test_a_table_is_the_change_but_for_a_level_or_two(change):
    """On tissue colours, in any shape of stack, also of no pictures."""
    rgb = tissue_of(REFERENCE_STAINS, 3600).reshape(4, 30, 30, 3)
    table = tabulated(change)

    off = np.abs(table(rgb).astype(int) - change(rgb))

    assert off.mean() < 0.6
    assert off.max() <= 4
    assert np.array_equal(table(rgb[1]), table(rgb)[1])
    assert table(rgb[:0]).shape == (0, 30, 30, 3)


@pytest.mark.parametrize(("kind", "left"), [("reinhard", 0.5), ("macenko", 0.2)])
def test_normalisation_brings_two_laboratories_together(kind, left):
    """The same tissue in other dyes ends nearer to the first than it began, by dyes more than by mean and spread."""
    one = tissue_of(REFERENCE_STAINS, 2500).reshape(50, 50, 3)
    other = restained(
        one, vectors=RUIFROK, amounts=(1.3, 0.7, 1), base=np.vstack([REFERENCE_STAINS.vectors, RUIFROK[2:]])
    )

    def normalised(rgb):
        change = normalisation_of(rgb, stained_pixels(rgb), kind)
        assert change is not None
        return change(rgb).astype(int)

    assert np.abs(normalised(one) - normalised(other)).mean() < left * np.abs(one.astype(int) - other).mean()


def test_no_normalisation_is_none():
    """And a thumbnail without tissue cannot be normalised."""
    blank = np.full((4, 4, 3), 250, np.uint8)

    assert normalisation_of(blank, stained_pixels(blank), "none") is None
    for kind in ("reinhard", "macenko"):
        with pytest.raises(ValueError):
            normalisation_of(blank, stained_pixels(blank), kind)


def test_the_reference_is_that_of_the_idc_patches(data_dir):
    """Averaged in squares of two pixels, to 8 µm/px; pixels of the density of tissue."""
    with np.load(data_dir / "idc" / "idc_patches.npz") as arrays_:
        patches = arrays_["patch"][::10]
    small = np.rint(patches.reshape(-1, 25, 2, 25, 2, 3).mean(axis=(2, 4))).astype(np.uint8)

    lab, stains = lab_statistics(small, stained_pixels(small)), macenko_stains(small)

    assert lab.mean == pytest.approx(REFERENCE_LAB.mean, abs=1.5)
    assert lab.spread == pytest.approx(REFERENCE_LAB.spread, abs=1.5)
    assert stains.vectors == pytest.approx(REFERENCE_STAINS.vectors, abs=0.03)


class _MeanColour:
    """An engine whose logits are a tile's mean red and blue."""

    card = Card(COMPACT_TUMOUR_CNN, trained=True, notice="")

    def __call__(self, pixels):
        return pixels[..., [0, 2]].mean(axis=(1, 2), dtype=np.float32)

    def windows(self, picture, corners):
        return np.stack([self(picture[None, y : y + 8, x : x + 8])[0] for x, y in corners])


def test_a_recoloured_engine_sees_other_colours():
    """Tile by tile and by windows of a picture alike; without a change it is the engine itself."""
    engine, change = _MeanColour(), partial(restained, amounts=(0.5, 0.5, 0.5))
    picture = tissue_of(REFERENCE_STAINS, 1024).reshape(32, 32, 3)

    seen = recoloured(engine, change)

    tile = picture[None, 8:16, 8:16]
    assert np.array_equal(seen(tile), engine(change(tile)))
    assert np.allclose(seen.windows(picture, np.array([[8, 8]])), seen(tile))
    assert recoloured(engine, None) is engine
    assert seen.card is engine.card


def test_normalisation_makes_predictions_alike(tmp_path):
    """A slide in other stains gets nearly the tumour map of the slide itself, and without normalisation another."""
    pixels = tissue_pixels(1024)
    paths = [write_tissue(tmp_path / "one.tif", pixels)]
    paths.append(write_tissue(tmp_path / "other.tif", restained(pixels, vectors=LANDINI, amounts=(1.4, 0.6, 1))))

    def red_difference(kind):
        config = load_config(overrides=[f"normalisation={kind}", "adaptive.iterations=1", "adaptive.points=20"])
        maps = []
        for path in paths:
            with open_slide(path) as slide:
                spec = STRIDED_TILE_CNN.input
                found = segment_slide(slide, spec, config, tumour_cnn=None)
                colours = slide.thumbnail(8.0)
                colours = colours if found.recolour is None else found.recolour(colours)
                maps.append(colours[found.usable].mean(axis=0))
        return np.abs(maps[0] - maps[1]).max()

    assert red_difference("reinhard") < 2 < 0.2 * red_difference("none")
    assert red_difference("macenko") < 0.5 * red_difference("none")


@pytest.mark.parametrize("kind", ["none", "macenko"])
def test_the_tile_cnn_sees_the_normalised_slide(tmp_path, kind):
    """Its logits are those of the tiles in the reference's colours, where the settings ask for it."""
    overrides = [f"normalisation={kind}", "selection.n_tiles=5", "runtime.threads=1"]
    config, path = load_config(overrides=overrides), write_tissue(tmp_path / "slide.tif", tissue_pixels(1024))
    model = load_slide_model("untrained:0", config)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:54, 10:54] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with open_slide(path) as slide:
        annotation = read_annotation(tmp_path / "mask.png", (), path)

        found = predict(slide, model, config, annotation=annotation, region_use="replace")

        origins, side = found.grid.origins_l0.tolist(), found.grid.side_px
        tiles = np.stack([slide.read(Point(x, y), Size(side, side), found.grid.mpp) for x, y in origins])
    change = found.segmentation.recolour or (lambda rgb: rgb)
    assert np.allclose(found.logits, model.tile_cnn(change(tiles)), atol=1e-4)
    assert (found.segmentation.recolour is None) == (kind == "none")
    assert kind == "none" or not np.allclose(found.logits, model.tile_cnn(tiles), atol=1e-4)


def test_normalisation_is_a_setting_of_its_own():
    """Runs without it are the runs that they were; trainings refuse it."""
    assert "normalisation" not in Config().method()
    assert load_config(overrides=["normalisation=macenko"]).method()["normalisation"] == "macenko"
    assert load_config(overrides=["normalisation=macenko"]).digest() != Config().digest()
    with pytest.raises(ConfigError, match="normalisation"):
        load_config(overrides=["normalisation=vahadane"])
    with pytest.raises(ConfigError, match=r"training\.augment"):
        load_training("tumour", overrides=["normalisation=reinhard"])
