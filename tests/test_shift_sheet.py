"""The shift sheet: what each of its rows does to a picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from skimage.color import rgb2gray, rgb2hsv

from he2her2.preprocessing import SHIFT_SHEET
from he2her2.preprocessing.shift_sheet import blurred, grey, hue_turned, magnified, recompressed, relit

PICTURES = arrays(np.uint8, (2, 12, 12, 3))
TISSUE = np.random.default_rng(0).integers(60, 240, (3, 20, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("shift", SHIFT_SHEET, ids=lambda shift: shift.name)
def test_each_row_changes_pictures_and_keeps_their_shape(shift):
    """Each picture by itself, the same every time; and no pictures stay none."""
    before = TISSUE.copy()

    found = shift.change(TISSUE, 0.5)

    assert found.shape == TISSUE.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - TISSUE).mean() > 0.5
    assert np.array_equal(found, shift.change(TISSUE, 0.5))
    assert np.array_equal(found[1:2], shift.change(TISSUE[1:2], 0.5))
    assert np.array_equal(before, TISSUE)
    assert shift.change(TISSUE[:0], 0.5).shape == (0, 20, 20, 3)


def test_rows_have_names_of_their_own():
    """And the groups that the issue of robustness is about are all there."""
    assert len({shift.name for shift in SHIFT_SHEET}) == len(SHIFT_SHEET)
    assert {shift.group for shift in SHIFT_SHEET} == {"stain", "colour", "light", "focus", "file", "scale"}


@given(PICTURES)
def test_a_full_turn_of_hue_is_none(rgb):
    """And no turn changes value or saturation."""
    turned = hue_turned(rgb, 0.2)

    assert np.abs(hue_turned(rgb, 1.0).astype(int) - rgb).max() <= 1
    assert rgb2hsv(turned)[..., 2] == pytest.approx(rgb2hsv(rgb)[..., 2], abs=1e-6)
    assert turned.min(axis=-1) == pytest.approx(rgb.min(axis=-1), abs=1)


@given(PICTURES)
def test_grey_has_one_value_for_all_channels(rgb):
    """The luma of broadcast video, which differs from scikit-image's by its weights only."""
    found = grey(rgb)

    assert np.ptp(found, axis=-1).max() == 0
    assert np.array_equal(grey(found), found)
    neutral = np.repeat(rgb[..., :1], 3, axis=-1)
    assert grey(neutral)[..., 0] == pytest.approx(255 * rgb2gray(neutral), abs=1)


def test_light_is_moved_about_middle_grey():
    """Brighter by a share of the scale; less contrast is nearer to grey; both are cut at the ends."""
    values = np.array([[[0, 128, 250]]], np.uint8)

    assert relit(values, brightness=0.1).tolist() == [[[26, 154, 255]]]
    assert relit(values, contrast=0.5).tolist() == [[[64, 128, 189]]]


def test_blur_is_in_micrometres():
    """Twice as coarse pixels are blurred by half as many; a flat picture stays flat, and channels do not mix."""
    point = np.zeros((1, 31, 31, 3), np.uint8)
    point[0, 15, 15] = (255, 255, 0)

    fine, coarse = blurred(point, 0.5, 1.0), blurred(point, 1.0, 1.0)

    assert fine[0, 15, 15].tolist() == [10, 10, 0]  # 255 / (2 pi 2 px squared)
    assert coarse[0, 15, 15, 0] > 3 * fine[0, 15, 15, 0]
    assert (blurred(np.full((1, 9, 9, 3), 77, np.uint8), 0.5, 2.0) == 77).all()


def test_compression_loses_more_at_lower_quality():
    """Of the same picture."""
    losses = [np.abs(recompressed(TISSUE, quality).astype(int) - TISSUE).mean() for quality in (90, 50, 20)]

    assert losses == sorted(losses)


@pytest.mark.parametrize("factor", [1.1, 1 / 1.1])
def test_tissue_is_magnified_about_the_centre(factor):
    """A disc's area grows by the square of the factor."""
    rows, columns = np.mgrid[:80, :80] - 39.5
    disc = np.where(rows**2 + columns**2 < 20**2, 0, 255).astype(np.uint8)
    pictures = np.repeat(disc[None, ..., None], 3, axis=-1)

    found = magnified(pictures, factor)

    area = (found[0, ..., 0] < 128).sum() / (disc < 128).sum()
    assert area == pytest.approx(factor**2, rel=0.02)
    assert np.abs(found[:, ::-1, ::-1].astype(int) - found).max() <= 3


def test_edges_are_filled_with_mirrored_tissue():
    """A network that is shown more than there is sees no black frame."""
    found = magnified(np.full((1, 20, 20, 3), 180, np.uint8), 0.8)

    assert (found == 180).all()
