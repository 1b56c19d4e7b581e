"""Random numbers, fields, cells and colours: the small parts of phantoms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2.phantom import make_spec
from he2her2.phantom.cell_populations import jittered_points
from he2her2.phantom.cells import Box, CellKind, draw_cell_bodies, make_cells, paint_nuclei
from he2her2.phantom.random_fields import (
    GridPoints,
    NoiseField,
    RasterField,
    key_of,
    normal,
    position_hashes,
    texture,
    texture_view,
    uniform,
)
from he2her2.phantom.scanner import ColourTable
from he2her2.phantom.sites import draw_dyes

keys = st.integers(0, 2**64 - 1)


@given(key=keys, i=st.integers(-(2**31), 2**31), j=st.integers(-(2**31), 2**31))
def test_a_position_has_one_hash(key, i, j):
    """Drawn alone or among others, the same position gives the same number."""
    row = position_hashes(key, np.arange(i - 2, i + 3), np.array(j))

    assert row[2] == position_hashes(key, np.array(i), np.array(j))
    assert len(set(row.tolist())) == 5


def test_random_numbers_are_even_and_streams_are_independent():
    """Uniform numbers fill [0, 1) evenly, normal ones have mean 0 and sd 1, streams do not correlate."""
    h = position_hashes(key_of(1, "x"), np.arange(300)[None, :], np.arange(300)[:, None]).ravel()

    assert np.abs(np.histogram(uniform(h, 0), 20, (0, 1))[0] / len(h) - 0.05).max() < 0.003
    assert normal(h, 0).mean() == pytest.approx(0, abs=0.01)
    assert normal(h, 0).std() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(uniform(h, 0), uniform(h, 1))[0, 1]) < 0.01
    assert abs(np.corrcoef(normal(h, 3), normal(h, 4))[0, 1]) < 0.01


@given(key=keys, wavelength=st.floats(2, 5000), x=st.floats(-1e5, 1e5), y=st.floats(-1e5, 1e5))
def test_noise_is_the_same_on_a_grid_and_at_points(key, wavelength, x, y):
    """Two ways to sample a field agree."""
    noise, xs, ys = NoiseField(key, wavelength), x + np.arange(4) * 7.3, y + np.arange(3) * 5.1

    points = noise.at(*(axis.ravel() for axis in np.meshgrid(xs, ys)))

    np.testing.assert_allclose(noise.grid(xs, ys).ravel(), points, atol=1e-4)


def test_noise_has_its_wavelength():
    """Noise has mean 0 and sd 1, is alike nearby and unrelated far away."""
    field = NoiseField(7, 40.0).grid(np.arange(1500.0), np.arange(1500.0))

    assert field.mean() == pytest.approx(0, abs=0.1)
    assert field.std() == pytest.approx(1, abs=0.1)
    assert np.corrcoef(field[:, :-2].ravel(), field[:, 2:].ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(field[:, :-60].ravel(), field[:, 60:].ravel())[0, 1]) < 0.1


def test_a_raster_keeps_straight_lines():
    """Interpolation of a coarse raster reproduces linear values, at the centres of its pixels and between."""
    values = np.add.outer(np.arange(20.0), 2 * np.arange(30.0)).astype(np.float32)
    xs, ys = np.linspace(40, 180, 9), np.linspace(40, 100, 7)

    found = RasterField(values, 8.0).grid(xs, ys)

    np.testing.assert_allclose(found, np.add.outer(ys / 8 - 0.5, 2 * (xs / 8 - 0.5)), atol=1e-3)


@given(x=st.integers(-3000, 3000), y=st.integers(-3000, 3000), w=st.integers(1, 1500))
def test_a_texture_repeats_without_a_seam(x, y, w):
    """Every view of a texture is the part of the endless pattern at that position."""
    tile = texture("test", 0.25, 0.5, 2.0)

    view = texture_view(tile, x, y, w, 5)

    assert view.shape == (5, w)
    assert view[3, w // 2] == texture_view(tile, x + w // 2, y + 3, 1, 1)[0, 0]


@given(x=st.floats(-500, 500), y=st.floats(-500, 500), split=st.floats(1, 99))
def test_cells_of_two_boxes_are_those_of_both_together(x, y, split):
    """A grid of cells cut in two loses and doubles none."""
    whole, _ = jittered_points(3, Box(x, y, x + 100, y + 80), 9.0, jitter=0.9)
    boxes = Box(x, y, x + split, y + 80), Box(x + split, y, x + 100, y + 80)

    parts = [jittered_points(3, box, 9.0, jitter=0.9)[0] for box in boxes]

    assert sorted(whole.x) == sorted([*parts[0].x, *parts[1].x])


def test_each_pixel_belongs_to_the_nearest_cell():
    """Bodies of round cells agree with a slow loop."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 60, 25), rng.uniform(0, 60, 25)
    cells = make_cells(CellKind.TUMOUR, x, y, np.arange(25, dtype=np.uint64), long_um=4.0, short_um=4.0, reach_um=8.0)
    grid = GridPoints(np.arange(120) * 0.5 + 0.25, np.arange(110) * 0.5 + 0.25)

    found = draw_cell_bodies(cells, grid)
    distance = np.hypot(grid.x[..., None] - x, grid.y[..., None] - y)
    nearest = distance.min(axis=2)

    inside = nearest < 7.9
    np.testing.assert_array_equal(found.owner[inside], distance.argmin(axis=2)[inside])
    np.testing.assert_allclose(found.depth[inside], 8 - nearest[inside], atol=1e-3)
    assert (found.owner[nearest > 8.1] == -1).all()


def test_a_nucleus_has_the_size_it_was_given():
    """The area that a drawn nucleus darkens is its ellipse's."""
    first, second = np.zeros((200, 200), np.float32), np.zeros((200, 200), np.float32)
    one = make_cells(
        CellKind.STROMAL,
        np.array([25.0]),
        np.array([25.0]),
        np.array([5], np.uint64),
        long_um=6.0,
        short_um=4.0,
        ragged=0.0,
        dark=2.0,
        coarse=0.0,
    )

    paint_nuclei(first, second, one, 0.0, 0.0, 0.25)

    assert (first > 0.5).sum() * 0.25**2 == pytest.approx(np.pi * 6 * 4, rel=0.08)


@given(first=st.floats(0, 2), second=st.floats(0, 2))
def test_light_follows_beer_and_lambert(first, second):
    """The table gives what the formula says, to a step of the table."""
    dyes = draw_dyes(make_spec(seed=1))
    planes = (np.full((1, 1), np.float32(value)) for value in (first, second))

    found = ColourTable(dyes, 1.0).rgbx(*planes)[0, 0, :3]
    density = first * np.array(dyes.first) * dyes.first_strength + second * np.array(dyes.second) * dyes.second_strength

    np.testing.assert_allclose(found, np.array(dyes.glass) * np.exp(-density), atol=3.0)


def test_more_stain_is_never_brighter():
    """Light falls with either dye."""
    table = ColourTable(draw_dyes(make_spec(seed=1, stain="IHC")), 1.0)
    od = np.linspace(0, 3, 50, dtype=np.float32)[None]

    for planes in ((od.copy(), np.zeros_like(od)), (np.zeros_like(od), od.copy())):
        assert (np.diff(table.rgbx(*planes)[0, :, :3].astype(int), axis=0) <= 0).all()
