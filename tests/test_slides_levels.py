"""Pyramid arithmetic: which level is read, where, and that resampled regions fit together."""

from timeit import repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from he2her2.geometry import Point, Size
from he2her2.slides import Level
from he2her2.slides.levels import Rect, Sampling, choose_sampling, least_and_most, whole_downsample
from he2her2.units import is_close_mpp
from tests.slide_files import synthetic_pixels

PIXELS = synthetic_pixels(640, 480)
LEVELS = tuple(Level(Size(640 // n, 480 // n), float(n), Size(64, 64), "JPEG") for n in (1, 4, 16))


def fetch_from(pixels):
    """Cut a rectangle out of an array, white beyond its border, the slow and obvious way."""

    def fetch(rect):
        padded = np.full((rect.h, rect.w, 3), 255, np.uint8)
        for y in range(max(0, -rect.y), min(rect.h, pixels.shape[0] - rect.y)):
            x0, x1 = max(0, -rect.x), min(rect.w, pixels.shape[1] - rect.x)
            if x0 < x1:
                padded[y, x0:x1] = pixels[rect.y + y, rect.x + x0 : rect.x + x1]
        return padded

    return fetch


@given(w=st.integers(4000, 200_000), h=st.integers(4000, 200_000), n=st.integers(1, 32), rounding=st.integers(0, 2))
def test_a_whole_reduction_is_recognised_however_rounded(w, h, n, rounding):
    """Floor, round and ceil of size / n all mean the downsample n, on slides of any usual size."""
    divide = (lambda a: a // n, lambda a: round(a / n), lambda a: -(-a // n))[rounding]
    level = Size(divide(w), divide(h))

    assert whole_downsample(Size(w, h), level) == n


def test_another_reduction_keeps_its_mean_ratio():
    """A level of 40 px for 100 px is 2.5, in both directions on average."""
    assert whole_downsample(Size(1000, 1000), Size(400, 401)) == pytest.approx((2.5 + 1000 / 401) / 2)


@given(
    mpp=st.floats(0.02, 60),
    mpp_l0=st.sampled_from([0.2, 0.23, 0.25, 0.2525, 0.499, 1.0]),
)
def test_native_pixels_serve_within_ten_percent_and_resampling_else(mpp, mpp_l0):
    """Native if and only if a level is close; the mpp delivered is the one wanted, to 0.02 %, when resampled."""
    sampling = choose_sampling(LEVELS, mpp_l0, mpp)
    close = [level for level in LEVELS if is_close_mpp(mpp_l0 * level.downsample, mpp)]

    assert sampling.native == bool(close)
    if not sampling.native:
        assert mpp_l0 * sampling.scale == pytest.approx(mpp, rel=2.5e-4)


@given(mpp=st.floats(0.02, 60))
def test_the_coarsest_finer_level_is_resampled(mpp):
    """No coarser level would still be finer than what is wanted; level 0 serves where none is."""
    sampling = choose_sampling(LEVELS, 0.25, mpp)
    finer = [i for i, level in enumerate(LEVELS) if 0.25 * level.downsample < mpp]

    assert sampling.native or sampling.level == (max(finer) if finer else 0)


@pytest.mark.parametrize("n", [2, 8, 32, 256])
def test_powers_of_two_are_exact(n):
    """A mask of 32 level-0 px a pixel has exactly that, also where it is resampled."""
    assert choose_sampling(LEVELS[:1], 0.499, 0.499 * n).scale == n


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_resolution_is_the_callers_bug(mpp):
    """Zero, negative and infinite µm per pixel are refused."""
    with pytest.raises(ValueError, match="positive"):
        choose_sampling(LEVELS, 0.25, mpp)


@given(
    mpp=st.sampled_from([0.11, 0.19, 0.4, 0.5, 0.77, 0.9, 2.3]),
    left=st.integers(0, 60),
    top=st.integers(0, 60),
    w=st.integers(1, 70),
    h=st.integers(1, 70),
)
def test_a_region_is_the_cut_from_the_whole_resampled_slide(mpp, left, top, w, h):
    """Any output rectangle, computed alone, equals the same rectangle of a larger region, bit for bit."""
    sampling = choose_sampling(LEVELS[:1], 0.25, mpp)
    whole = sampling.read(fetch_from(PIXELS), Point(0, 0), Size(200, 200))
    origin_l0 = (left * sampling.scale, top * sampling.scale)

    alone = _read_at(sampling, origin_l0, Size(w, h))

    assert np.array_equal(whole[top : top + h, left : left + w], alone)


def _read_at(sampling, origin, size):
    """Read at a fractional level-0 position, which slides do only inside one region."""
    return sampling.read(fetch_from(PIXELS), origin, size)


def test_regions_larger_than_a_block_are_seamless():
    """Reading in blocks leaves no seam: the lower right part equals the same part read by itself."""
    pixels = synthetic_pixels(1800, 1800, seed=3)
    sampling = choose_sampling((Level(Size(1800, 1800), 1.0, None, ""),), 0.5, 0.25)
    whole = sampling.read(fetch_from(pixels), Point(0, 0), Size(3500, 3500))

    part = sampling.read(fetch_from(pixels), Point(1300, 1405), Size(500, 500))

    assert np.array_equal(whole[2810:3310, 2600:3100], part)


@pytest.mark.parametrize("ratio", [0.5, 1.5, 3.0, 7.9])
def test_resampling_is_pillows_lanczos(ratio):
    """Away from the border a region is what Pillow makes of the whole level, up to rounding of positions."""
    sampling = choose_sampling(LEVELS[:1], 0.25, 0.25 * ratio)
    w, h = int(640 / ratio), int(480 / ratio)
    box = (0, 0, w * sampling.scale, h * sampling.scale)
    expected = np.asarray(Image.fromarray(PIXELS).resize((w, h), Image.Resampling.LANCZOS, box=box)).astype(int)

    region = sampling.read(fetch_from(PIXELS), Point(0, 0), Size(w, h)).astype(int)

    assert np.abs(expected - region)[8:-8, 8:-8].max() <= 1


@pytest.mark.parametrize("ratio", [8.0, 24.0, 37.3])
def test_large_reductions_keep_the_mean(ratio):
    """Averaging boxes first changes neither colour nor place: a ramp stays the same ramp."""
    ramp = np.repeat(np.repeat(np.linspace(0, 255, 2048)[None, :, None], 512, 0), 3, 2).astype(np.uint8)
    sampling = choose_sampling((Level(Size(2048, 512), 1.0, None, ""),), 0.25, 0.25 * ratio)
    w = int(2048 / sampling.scale) - 8

    row = sampling.read(fetch_from(ramp), Point(0, 0), Size(w, 8))[4, 4:, 0]

    centres = (np.arange(4, w) + 0.5) * sampling.scale
    assert np.abs(row - centres / 2048 * 255).max() < 2


@given(x=st.integers(-2000, 2000), y=st.integers(-2000, 2000), n=st.sampled_from([1, 4, 16]))
def test_native_reads_start_at_the_nearest_level_pixel(x, y, n):
    """An origin between two level px is read at the nearer; halves go right and down."""
    sampling = Sampling(0, float(n), box=1, step=1.0, bits=0, native=True)
    rect = sampling.rect(Point(x, y), Size(5, 6))

    assert abs(rect.x * n - x) <= n / 2
    assert abs(rect.y * n - y) <= n / 2
    assert (rect.w, rect.h) == (5, 6)


@given(
    rect=st.builds(Rect, st.integers(-90, 90), st.integers(-90, 90), st.integers(0, 90), st.integers(0, 90)),
    cell=st.builds(Size, st.integers(1, 20), st.integers(1, 20)),
)
def test_cells_are_those_that_share_a_pixel(rect, cell):
    """The lattice cells of a clipped rectangle are found as by asking each one."""
    inside = rect.clipped(Size(60, 50))
    slow = {
        (i, j)
        for i in range(-(-60 // cell.w))
        for j in range(-(-50 // cell.h))
        if inside.w and inside.h and Rect(i * cell.w, j * cell.h, *cell).overlaps(inside)
    }

    columns, rows = inside.cells(cell)

    assert slow == {(i, j) for i in columns for j in rows}


def test_the_extremes_of_three_colours_cost_no_reduction_pixel_by_pixel():
    """NumPy's own take twenty times as long along an axis of three: an OME-TIFF took a third of a second to open."""
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    least, most = least_and_most(pixels)

    ours, numpys = (
        min(repeat(take, number=1, repeat=5)) for take in (lambda: least_and_most(pixels), lambda: pixels.min(axis=2))
    )

    assert np.array_equal(pixels.min(axis=2), least)
    assert np.array_equal(pixels.max(axis=2), most)
    assert ours < numpys / 2
