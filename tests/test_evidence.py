"""What a prediction leaves on disk: rasters, tiles, GeoJSON and the picture."""

import json
import tracemalloc

import h5py
import numpy as np
import openslide
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from he2her2.geometry import Point, Size, TileGrid
from he2her2.labels import IhcScore
from he2her2.method import Segmentation
from he2her2.preprocessing import AdaptiveMap
from he2her2.results import ScoredTiles
from he2her2.results.geojson import outline, write_geojson
from he2her2.results.heatmap import write_heatmap
from he2her2.results.overlay import Caption, draw_overlay, scale_bar
from he2her2.results.palette import SCORE_COLOURS, TUMOUR_COLOUR, score_colours
from he2her2.results.rasters import RasterFrame, score_raster, write_map, write_mask, write_samples
from he2her2.results.tiles_h5 import read_tiles, write_tiles
from he2her2.slides import open_slide

SIDE = 64  # level-0 px of a tile: 4 mask px of 16


def scored_tiles(corners, scores, selected=None):
    """Tiles at mask positions (x, y), with scores."""
    grid = TileGrid(np.array(corners, np.int64).reshape(-1, 2) * 16, side_l0=float(SIDE), side_px=256, mpp=0.0625)
    chosen = np.zeros(len(grid), bool) if selected is None else np.array(selected)
    attention = chosen / max(chosen.sum(), 1)
    return ScoredTiles(grid, np.array(scores, float), np.zeros((len(grid), 4), np.float32), chosen, attention)


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


def test_a_score_raster_of_a_small_tumour_takes_no_memory_but_its_own():
    """Sums are of the tiles' part of the slide: over all of it they took five times the memory of the result."""
    grid = scored_tiles([(700, 600), (703, 602)], [0.5, 3.0]).grid

    tracemalloc.start()
    raster = score_raster(grid, np.array([0.5, 3.0]), Size(1500, 1200), 16.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert raster.shape == (1200, 1500)
    assert np.flatnonzero(np.isfinite(raster).any(axis=1)).tolist() == list(range(600, 606))
    assert peak < 1.1 * raster.nbytes


def test_tiles_come_back_from_hdf5(tmp_path):
    """Coordinates, scores, logits and selection survive, in TRIDENT's layout."""
    tiles = scored_tiles([(0, 0), (3, 2)], [0.5, 3.0], [False, True])
    path = tmp_path / "tiles.h5"

    write_tiles(path, tiles, slide_id="S1", size_l0=Size(640, 480), mpp_l0=0.25, overlap_px=64)
    back = read_tiles(path)

    assert np.array_equal(back.grid.origins_l0, tiles.grid.origins_l0)
    assert (back.grid.side_l0, back.grid.side_px, back.grid.mpp) == (64.0, 256, 0.0625)
    assert back.scores.tolist() == [0.5, 3.0]
    assert back.selected.tolist() == [False, True]
    assert back.attention.tolist() == [0.0, 1.0]
    assert back.ranks.tolist() == [2, 1]
    with h5py.File(path) as file:
        attrs = dict(file["coords"].attrs)
        assert file["coords"].dtype == np.int64
    assert (attrs["patch_size"], attrs["patch_size_level0"], attrs["overlap"], attrs["name"]) == (256, 64, 64, "S1")
    assert (attrs["level0_magnification"], attrs["target_magnification"]) == (40, 160)  # enlarged four times
    assert (attrs["level0_width"], attrs["level0_height"]) == (640, 480)


def qupath_objects(path, image_size):
    """Objects of a GeoJSON file by QuPath's rules, read without our code: (type, class, polygon, measurements).

    A FeatureCollection of Features; an object type that QuPath knows; a class with a name and an RGB colour; closed
    rings inside the image; finite measurements.
    """
    found = json.loads(path.read_text("utf-8"))
    assert found["type"] == "FeatureCollection"
    objects = []
    for feature in found["features"]:
        properties, shape = feature["properties"], shapely.geometry.shape(feature["geometry"])
        assert feature["type"] == "Feature"
        assert properties["objectType"] in {"annotation", "detection", "tile", "cell"}
        assert {type(part) for part in properties["classification"]["color"]} == {int}
        assert shape.is_valid
        assert shapely.box(0, 0, *image_size).covers(shape)
        measurements = properties.get("measurements", {})
        assert np.isfinite(list(measurements.values())).all()
        objects.append((properties["objectType"], properties["classification"]["name"], shape, measurements))
    return objects


def test_geojson_is_what_qupath_reads(tmp_path, segmentation):
    """An annotation and the selected tiles with their measurements, in level-0 px less the slide's bounds."""
    path = tmp_path / "tiles.geojson"
    tiles = scored_tiles([(8, 8), (12, 8), (16, 8)], [0.2, 2.6, 1.0], [False, True, False])

    write_geojson(path, segmentation.tumour, RasterFrame(16.0, 4.0, Point(100, 50)), tiles)
    tumour, tile = qupath_objects(path, (540, 430))

    assert tumour[:2] == ("annotation", "Tumor")
    assert tumour[2].bounds == (28.0, 78.0, 348.0, 270.0)
    assert tile[:2] == ("tile", "HER2 selected")
    assert tile[2].bounds == (92.0, 78.0, 156.0, 142.0)
    assert tile[3] == {
        "HER2 score": 2.6, "HER2 rank": 1, "Attention": 1.0, "Logit 0": 0.0, "Logit 1+": 0.0, "Logit 2+": 0.0,
        "Logit 3+": 0.0, "Selected": 1,
    }  # fmt: skip


def test_geojson_holds_every_tile_on_request(tmp_path, segmentation):
    """Those that are not selected have the class of their score, and their rank."""
    path = tmp_path / "tiles.geojson"
    tiles = scored_tiles([(8, 8), (12, 8), (16, 8)], [0.2, 2.6, 1.0], [False, True, False])

    write_geojson(path, segmentation.tumour, RasterFrame(16.0, 4.0, Point(0, 0)), tiles, all_tiles=True)
    _, *found = qupath_objects(path, (640, 480))

    assert [name for _, name, *_ in found] == ["HER2 0", "HER2 selected", "HER2 1+"]
    assert [tile[3]["HER2 rank"] for tile in found] == [3, 1, 2]


def test_masks_and_maps_keep_their_values_and_state_their_scale(tmp_path):
    """A mask is one bit, a map 16 bits; both say level-0 px and µm per px, and where they lie."""
    mask = np.array([[True, False], [False, True]])
    values = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    frame = RasterFrame(32.0, 8.0, Point(100, 50))

    write_mask(tmp_path / "mask.png", mask, frame, "tumour")
    write_map(tmp_path / "map.png", values, frame, "tumour")

    assert np.array_equal(np.array(Image.open(tmp_path / "mask.png")), mask)
    assert np.allclose(np.array(Image.open(tmp_path / "map.png")) / 65_535, values, atol=1e-5)
    for name in ("mask.png", "map.png"):
        with Image.open(tmp_path / name) as picture:
            info = picture.info
        assert {key: info[key] for key in ("px_l0", "mpp", "origin_l0", "bounds_l0")} == {
            "px_l0": "32.0", "mpp": "8.0", "origin_l0": "0 0", "bounds_l0": "100 50",
        }  # fmt: skip
        assert 25_400 / info["dpi"][0] == pytest.approx(8, rel=1e-3)


def test_samples_of_the_tumour_map_are_written_in_level_0(tmp_path):
    """Centres in level-0 px with their probability, in the order of scoring."""
    sampling = AdaptiveMap(np.zeros((4, 4), np.float32), np.array([[2.5, 0.5], [0.5, 3.5]]), np.array([0.25, 1.0]), ())

    write_samples(tmp_path / "samples.csv", sampling, RasterFrame(32.0, 8.0, Point(0, 0)))

    assert (tmp_path / "samples.csv").read_text() == "x_l0,y_l0,probability\n80.0,16.0,0.25\n16.0,112.0,1.0\n"


@pytest.fixture
def heatmap(tmp_path):
    """Heatmap of 2 tiles on a raster of 1 300 x 700 px of 8 µm."""
    tiles = scored_tiles([(600, 300), (1200, 40)], [3.0, 0.5], [True, False])
    write_heatmap(tmp_path / "heatmap.ome.tif", tiles, Size(1300, 700), RasterFrame(16.0, 8.0, Point(0, 0)))
    return tmp_path / "heatmap.ome.tif"


def test_a_heatmap_is_an_ome_tiff_of_colours_and_numbers(heatmap):
    """Tifffile finds two pyramids with their µm per px: a picture, and the scores and attention as they are."""
    with tifffile.TiffFile(heatmap) as tiff:
        colours, numbers = tiff.series
        picture, (scores, attention) = colours.asarray(), numbers.asarray()
        half = numbers.levels[1].asarray()[0]
        images = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]
        shapes = [level.shape for level in colours.levels]

    assert shapes == [(700, 1300, 3), (350, 650, 3), (175, 325, 3)]
    assert [(image["Pixels"]["PhysicalSizeX"], image["Pixels"]["PhysicalSizeXUnit"]) for image in images] == 2 * [
        (8, "µm")
    ]
    assert picture[301, 601].tolist() == list(SCORE_COLOURS[IhcScore.THREE])
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert (scores[301, 601], attention[301, 601], scores[41, 1201]) == (3.0, 1.0, 0.5)
    assert np.isfinite(scores).sum() == 2 * 16
    assert np.isfinite(half).sum() == 2 * 4


def test_other_readers_open_a_heatmap(heatmap):
    """OpenSlide by its rules of generic TIFF, and our own reader, both with its µm per px."""
    with openslide.OpenSlide(str(heatmap)) as slide:
        pixel = np.array(slide.read_region((601, 301), 0, (1, 1)))[0, 0]
        mpp = float(slide.properties["openslide.mpp-x"])
    with open_slide(heatmap) as ours:
        assert ours.mpp == pytest.approx(8)
        assert ours.size_l0 == (1300, 700)

    assert pixel[:3].tolist() == list(SCORE_COLOURS[IhcScore.THREE])
    assert mpp == pytest.approx(8)


@given(um_per_px=st.floats(0.1, 100), width_px=st.integers(50, 3000))
def test_a_scale_bar_is_round_and_fits(um_per_px, width_px):
    """1, 2 or 5 times a power of ten, and between a tenth and a quarter of the picture."""
    length, _ = scale_bar(um_per_px, width_px)

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


def test_no_words_of_the_overlay_are_cut_off(segmentation):
    """A name of TCGA has no blanks, and cautions may fill more lines than the picture is high."""
    name = "TCGA-A1-A0SK-01Z-00-DX1.A44D70FA-4D96-43F4-9DD7-A61535786297"

    sheet = np.array(draw_overlay(segmentation, None, Caption(name, 60 * ("a line",), ())))

    assert (sheet[:, -20:] == 255).all()
    assert (sheet[-20:] == 255).all()
