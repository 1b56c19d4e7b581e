"""What a prediction leaves on disk: rasters, tiles, GeoJSON and the picture."""

import json

import h5py
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from he2her2.geometry import Point, Size, TileGrid
from he2her2.method import Segmentation
from he2her2.preprocessing import AdaptiveMap
from he2her2.results import ScoredTiles
from he2her2.results.geojson import outline, write_geojson
from he2her2.results.overlay import Caption, draw_overlay, scale_bar_um
from he2her2.results.palette import SCORE_COLOURS, TUMOUR_COLOUR, score_colours
from he2her2.results.rasters import score_raster, write_map, write_mask
from he2her2.results.tiles_h5 import read_tiles, write_tiles

SIDE = 64  # level-0 px of a tile: 4 mask px of 16


def scored_tiles(corners, scores, selected=None):
    """Tiles at mask positions (x, y), with scores."""
    grid = TileGrid(np.array(corners, np.int64).reshape(-1, 2) * 16, side_l0=float(SIDE), side_px=256, mpp=0.25)
    chosen = np.zeros(len(grid), bool) if selected is None else np.array(selected)
    return ScoredTiles(grid, np.array(scores, float), np.zeros((len(grid), 4), np.float32), chosen)


@pytest.fixture
def segmentation():
    """A slide of 40 x 30 mask px with a tumour in a tissue."""
    tissue, tumour = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    tissue[4:26, 4:36] = True
    tumour[8:20, 8:28] = True
    empty = np.zeros_like(tissue)
    sampling = AdaptiveMap(tumour.astype(np.float32), np.zeros((1, 2)), np.zeros(1), (0.0,))
    white = np.full((30, 40, 3), 255, np.uint8)
    return Segmentation(white, 16.0, 4.0, tissue, empty, empty, tissue, sampling, tumour)


@given(mask=arrays(bool, (7, 9)))
def test_an_outline_holds_exactly_the_masks_pixels(mask):
    """Pixel centres inside the polygons are the mask's; its area is their number."""
    shape = outline(mask)

    y, x = np.indices(mask.shape)
    assert (shapely.contains_xy(shape, x + 0.5, y + 0.5) == mask).all()
    assert shape.area == mask.sum()


@given(
    corners=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6)), min_size=1, max_size=12, unique=True),
    data=st.data(),
)
def test_a_score_raster_is_the_mean_of_the_tiles_above(corners, data):
    """The difference array agrees with painting tile by tile."""
    scores = data.draw(arrays(float, len(corners), elements=st.floats(0, 3)))
    total, count = np.zeros((10, 12)), np.zeros((10, 12))
    for (x, y), score in zip(corners, scores, strict=True):
        total[y : y + 4, x : x + 4] += score
        count[y : y + 4, x : x + 4] += 1

    raster = score_raster(scored_tiles(corners, scores).grid, scores, Size(12, 10), 16.0)

    assert (np.isnan(raster) == (count == 0)).all()
    assert np.allclose(raster[count > 0], (total / np.maximum(count, 1))[count > 0])


def test_tiles_come_back_from_hdf5(tmp_path):
    """Coordinates, scores, logits and selection survive, in TRIDENT's layout."""
    tiles = scored_tiles([(0, 0), (3, 2)], [0.5, 3.0], [False, True])
    path = tmp_path / "tiles.h5"

    write_tiles(path, tiles, slide_id="S1", size_l0=Size(640, 480), mpp_l0=0.25, overlap_px=64)
    back = read_tiles(path)

    assert np.array_equal(back.grid.origins_l0, tiles.grid.origins_l0)
    assert (back.grid.side_l0, back.grid.side_px, back.grid.mpp) == (64.0, 256, 0.25)
    assert back.scores.tolist() == [0.5, 3.0]
    assert back.selected.tolist() == [False, True]
    with h5py.File(path) as file:
        attrs = dict(file["coords"].attrs)
        assert file["coords"].dtype == np.int64
    assert (attrs["patch_size"], attrs["patch_size_level0"], attrs["overlap"], attrs["name"]) == (256, 64, 64, "S1")
    assert (attrs["level0_magnification"], attrs["target_magnification"]) == (40, 40)
    assert (attrs["level0_width"], attrs["level0_height"]) == (640, 480)


def test_geojson_is_what_qupath_reads(tmp_path, segmentation):
    """An annotation and a tile object each with its measurements, in level-0 px less the slide's bounds."""
    path = tmp_path / "tiles.geojson"
    tiles = scored_tiles([(8, 8), (12, 8)], [0.2, 2.6], [False, True])

    write_geojson(path, segmentation.tumour, 16.0, tiles, Point(100, 50))
    tumour, first, second = json.loads(path.read_text())["features"]

    assert tumour["properties"]["objectType"] == "annotation"
    assert shapely.geometry.shape(tumour["geometry"]).bounds == (28.0, 78.0, 348.0, 270.0)
    assert first["geometry"]["coordinates"][0][0] == [28, 78]
    assert first["properties"]["classification"]["name"] == "HER2 0"
    assert second["properties"]["objectType"] == "tile"
    assert second["properties"]["classification"]["name"] == "HER2 3+"
    assert second["properties"]["measurements"] == {"HER2 score": 2.6, "Selected": 1}


def test_masks_and_maps_keep_their_values(tmp_path):
    """A mask is one bit, a map 16 bits."""
    mask = np.array([[True, False], [False, True]])
    values = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)

    write_mask(tmp_path / "mask.png", mask)
    write_map(tmp_path / "map.png", values)

    assert np.array_equal(np.array(Image.open(tmp_path / "mask.png")), mask)
    assert np.allclose(np.array(Image.open(tmp_path / "map.png")) / 65_535, values, atol=1e-5)


@given(um_per_px=st.floats(0.1, 100), width_px=st.integers(50, 3000))
def test_a_scale_bar_is_round_and_fits(um_per_px, width_px):
    """1, 2 or 5 times a power of ten, and between a tenth and a quarter of the picture."""
    length = scale_bar_um(um_per_px, width_px)

    assert f"{length:e}"[0] in "125"
    assert 0.1 - 1e-9 <= length / (um_per_px * width_px) <= 0.25 + 1e-9


def test_score_colours_meet_the_classes():
    """Whole scores have their class's colour."""
    assert [tuple(c) for c in score_colours(np.arange(4.0)).tolist()] == list(SCORE_COLOURS.values())


@given(st.floats(0, 3))
def test_score_colours_blend_between_the_classes(score):
    """Within the colours told apart, the neighbours' mean by distance."""
    k = min(int(score), 2)
    below, above = np.array(list(SCORE_COLOURS.values()))[k : k + 2]

    off = score_colours(np.array(score)) - (below + (score - k) * (above - below))
    assert np.abs(off).max() <= 0.5 + np.abs(above - below).max() / 512


def test_the_overlay_shows_scores_where_the_tiles_are(segmentation):
    """A 3+ tile is red, glass stays white, the tumour has its edge."""
    tiles = scored_tiles([(10, 10)], [3.0], [True])
    picture = np.array(draw_overlay(segmentation, tiles, Caption("S1", ("HER2 positive",), ("research use only",))))

    scale, margin = 1400 / 40, 24
    red, green, _ = picture[margin + int(12.5 * scale), margin + int(12.5 * scale)].astype(int)
    assert red > green + 80
    assert picture[margin + int(1.5 * scale), margin + int(1.5 * scale)].tolist() == [255, 255, 255]
    assert picture[margin + int(8 * scale), margin + int(15.5 * scale)].tolist() == list(TUMOUR_COLOUR)
