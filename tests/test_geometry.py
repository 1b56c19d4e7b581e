"""Frames and units: coordinates convert, masks cover their slide."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from he2her2.geometry import Size, TileGrid, l0_from_mask, mask_size
from he2her2.units import area_mm2, is_close_mpp

scales = st.floats(0.5, 200, allow_nan=False)


@given(x=st.floats(-1e6, 1e6), px_l0=scales)
def test_level_0_coordinates_scale_with_the_mask_pixel(x, px_l0):
    """Divided by the pixel's size they are the mask's again."""
    there = l0_from_mask(np.array([x]), px_l0)

    assert np.allclose(there / px_l0, x)


@given(w=st.integers(1, 200_000), h=st.integers(1, 200_000), px_l0=scales)
def test_a_mask_covers_its_slide_and_no_more(w, h, px_l0):
    """Its last pixel begins on the slide and ends on or beyond the border."""
    size = mask_size(Size(w, h), px_l0)

    for side, side_mask in zip((w, h), size, strict=True):
        assert side_mask * px_l0 >= side - 1e-3 * px_l0
        assert (side_mask - 1) * px_l0 < side


def test_a_grid_takes_by_position_and_by_mask():
    """The rest of the grid stays as it is."""
    grid = TileGrid(np.array([[0, 0], [5, 0], [9, 9]]), side_l0=4.0, side_px=2, mpp=0.5)

    assert grid.take(np.array([2, 0])).origins_l0.tolist() == [[9, 9], [0, 0]]
    assert grid.take(np.array([False, True, False])).origins_l0.tolist() == [[5, 0]]
    assert len(grid) == 3


def test_ten_per_cent_is_close():
    """HER2SC's 0.23 counts as 0.25; the bound itself does too."""
    assert is_close_mpp(0.23, 0.25)
    assert is_close_mpp(0.275, 0.25)
    assert is_close_mpp(0.225, 0.25)
    assert not is_close_mpp(0.2755, 0.25)


@given(n=st.integers(0, 10**9), mpp=st.floats(0.1, 10))
def test_area_is_pixels_times_their_area(n, mpp):
    """A million px of 1 µm are 1 mm²."""
    assert np.isclose(area_mm2(n, mpp), n * (mpp / 1000) ** 2)
