"""Tiles: wholly inside mask and slide, with the largest stride that gives enough of them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from he2her2.geometry import Size
from he2her2.preprocessing import TooFewTilesError, coverage, cut_tiles

TILE: dict[str, Any] = {"px_l0": 32.0, "side_mask": 3, "side_px": 96, "mpp": 0.25}
masks = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([True] * 9 + [False]))


def size_of(mask, px_l0=32.0):
    height, width = mask.shape
    return Size(int(width * px_l0), int(height * px_l0))


def slow_tiles(mask, size_l0, px_l0, side, stride):
    """The obvious loop: cut every tile out and look whether it is all tissue and all slide."""
    return [
        (x, y)
        for y in range(0, mask.shape[0] - side + 1, stride)
        for x in range(0, mask.shape[1] - side + 1, stride)
        if mask[y : y + side, x : x + side].all()
        and (x + side) * px_l0 <= size_l0.w
        and (y + side) * px_l0 <= size_l0.h
    ]


def slow_cut(mask, size_l0, px_l0, side, min_tiles):
    for stride in range(side, 0, -1):
        tiles = slow_tiles(mask, size_l0, px_l0, side, stride)
        if len(tiles) >= min_tiles:
            return stride, tiles
    return None


@given(mask=arrays(bool, (9, 11)), side=st.integers(1, 9), data=st.data())
def test_coverage_is_the_mean_of_the_crop(mask, side, data):
    """The integral image agrees with cutting the square out and counting."""
    y, x = data.draw(st.integers(0, 9 - side)), data.draw(st.integers(0, 11 - side))

    shares = coverage(mask, side)

    assert shares.shape == (10 - side, 12 - side)
    assert mask[y : y + side, x : x + side].mean() == pytest.approx(shares[y, x], abs=1e-12)


def test_coverage_of_a_mask_smaller_than_a_tile_is_empty():
    """No square fits: no share, and no error."""
    assert coverage(np.ones((2, 5), bool), 3).shape == (0, 3)
    assert coverage(np.ones((5, 2), bool), 3).shape == (3, 0)


def test_coverage_refuses_squares_of_no_size():
    """A side under one mask px is the caller's bug."""
    with pytest.raises(ValueError, match="side_mask"):
        coverage(np.ones((2, 2), bool), 0)


@given(mask=masks, min_tiles=st.integers(1, 30), cut=st.integers(0, 31))
def test_tiles_are_those_of_the_obvious_loop(mask, min_tiles, cut):
    """Stride, tiles and raster order agree with the slow way, also where the last mask px reach over the border."""
    size_l0 = Size(mask.shape[1] * 32 - cut, mask.shape[0] * 32 - cut)
    expected = slow_cut(mask, size_l0, 32, 3, min_tiles)
    assume(expected is not None)

    tiling = cut_tiles(mask, size_l0, **TILE, min_tiles=min_tiles)

    assert expected == (tiling.stride_mask, [(x // 32, y // 32) for x, y in tiling.grid.origins_l0.tolist()])
    assert tiling.n_plain == len(slow_tiles(mask, size_l0, 32, 3, 3))


@given(mask=masks, min_tiles=st.integers(1, 30))
def test_the_error_counts_the_tiles_of_the_densest_stride(mask, min_tiles):
    """Where the obvious loop finds no stride either, its number of tiles at stride 1 is told."""
    assume(slow_cut(mask, size_of(mask), 32, 3, min_tiles) is None)

    with pytest.raises(TooFewTilesError) as caught:
        cut_tiles(mask, size_of(mask), **TILE, min_tiles=min_tiles)

    assert (len(slow_tiles(mask, size_of(mask), 32, 3, 1)), min_tiles) == (caught.value.found, caught.value.needed)


@given(mask=masks, min_tiles=st.integers(1, 30))
def test_no_larger_stride_gives_enough_tiles(mask, min_tiles):
    """The stride is the largest that does."""
    try:
        tiling = cut_tiles(mask, size_of(mask), **TILE, min_tiles=min_tiles)
    except TooFewTilesError:
        return

    larger = range(tiling.stride_mask + 1, 4)
    assert all(len(slow_tiles(mask, size_of(mask), 32, 3, stride)) < min_tiles for stride in larger)
    assert len(tiling.grid) >= min_tiles


@given(mask=masks, data=st.data())
def test_more_mask_never_gives_fewer_tiles(mask, data):
    """At any stride, adding tissue keeps every tile and may add some."""
    larger = mask | data.draw(arrays(bool, mask.shape))

    assert not ((coverage(mask, 3) == 1) & (coverage(larger, 3) < 1)).any()


@given(
    px_l0=st.floats(1.0, 40.0),
    mask=masks,
    loss=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_fractional_tiles_stay_on_the_slide_and_near_their_place(px_l0, mask, loss):
    """Origins are whole level-0 px, within one of their place, and no tile reaches over the border."""
    size_l0 = Size(*(max(1, int(np.ceil((n - loss) * px_l0))) for n in reversed(mask.shape)))

    try:
        grid = cut_tiles(mask, size_l0, **{**TILE, "px_l0": px_l0}, min_tiles=1).grid
    except TooFewTilesError:
        return

    assert grid.origins_l0.dtype == np.int64
    assert (grid.origins_l0 >= 0).all()
    assert (grid.origins_l0 + grid.side_l0 <= np.array(size_l0) + 1e-5).all()
    off_lattice = grid.origins_l0 / px_l0 - np.rint(grid.origins_l0 / px_l0)
    assert (np.abs(off_lattice) * px_l0 < 1).all()


def test_plenty_of_tissue_is_not_overlapped():
    """Where tiles without overlap suffice, they are what is cut."""
    tiling = cut_tiles(np.ones((80, 80), bool), Size(2560, 2560), px_l0=32, mpp=0.25, min_tiles=100)

    assert (tiling.stride_mask, tiling.n_plain, len(tiling.grid)) == (8, 100, 100)
    assert (tiling.grid.side_l0, tiling.grid.side_px, tiling.grid.mpp) == (256, 256, 0.25)


def test_one_mask_px_outside_costs_the_tile():
    """A tile with 63 of its 64 mask px in the mask is not cut."""
    mask = np.ones((8, 16), bool)
    mask[3, 3] = False

    tiling = cut_tiles(mask, Size(512, 256), px_l0=32, mpp=0.25, min_tiles=1)

    assert tiling.grid.origins_l0.tolist() == [[256, 0]]


def test_little_tissue_is_overlapped_as_far_as_needed():
    """One tile more than plain ones give: the next smaller stride."""
    tiling = cut_tiles(np.ones((80, 80), bool), Size(2560, 2560), px_l0=32, mpp=0.25, min_tiles=101)

    assert (tiling.stride_mask, tiling.n_plain, len(tiling.grid)) == (7, 100, 121)


@pytest.mark.parametrize("mask", [np.zeros((20, 20), bool), np.ones((7, 30), bool), np.zeros((0, 0), bool)])
def test_no_tile_at_all_is_an_error_even_when_none_is_asked_for(mask):
    """An empty grid is never returned: the error says that none was found."""
    with pytest.raises(TooFewTilesError) as caught:
        cut_tiles(mask, Size(960, 960), px_l0=32, mpp=0.25, min_tiles=0)

    assert (caught.value.found, caught.value.needed) == (0, 1)


def test_the_error_tells_found_and_needed():
    """Ten by ten mask px hold nine tiles at the densest stride."""
    with pytest.raises(TooFewTilesError, match=r"9 tiles fit .* 2000 are needed"):
        cut_tiles(np.ones((10, 10), bool), Size(320, 320), px_l0=32, mpp=0.25, min_tiles=2000)


def test_rounding_never_pushes_a_tile_over_the_border():
    """The origin 21.6 would round to 22, and the tile of 32.4 px would end beyond a slide of 54 px."""
    tile = {**TILE, "px_l0": 10.8}

    grid = cut_tiles(np.ones((3, 5), bool), Size(54, 33), **tile, min_tiles=2).grid

    assert grid.origins_l0.tolist() == [[0, 0], [21, 0]]
