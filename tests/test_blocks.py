"""Overlapping tiles seen together: the same tiles, the same logits, whatever of the slide is damaged."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2.config import Runtime, load_config
from he2her2.errors import NotANumberError, UnreadableRegionError, WeightsError
from he2her2.geometry import Size, TileGrid
from he2her2.method import infer
from he2her2.method.inference import blocks_of
from he2her2.models import (
    CNNS,
    Card,
    Engine,
    HalfTurnedEngine,
    Untrained,
    load_engine,
    load_slide_model,
    trained_folder,
)
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, PAPER_TILE_CNN, STRIDED_TILE_CNN, Conv
from he2her2.models.export import engine_of
from he2her2.models.torch_engine import TorchEngine
from he2her2.models.torch_modules import initial_weights
from he2her2.pipeline import predict
from he2her2.preprocessing import cut_tiles, share_blocks
from he2her2.preprocessing.blocks import _BLOCK_PX
from he2her2.slides import open_slide
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, synthetic_pixels, write_slide
from tests.test_slides_absent import section
from tests.tissue_slides import write_tissue

RELEASED_TILE_CNN = CNNS["released-tile-cnn"]
SHARING = [STRIDED_TILE_CNN, PAPER_TILE_CNN, RELEASED_TILE_CNN]


def lattice(columns, rows, stride, side=256, first=(0, 0)):
    """A full grid of overlapping tiles."""
    y, x = np.mgrid[:rows, :columns] * stride
    return TileGrid(np.stack([x.ravel(), y.ravel()], axis=1) + np.array(first), float(side), side, 0.25)


@given(
    mask=st.integers(0, 2**32 - 1),
    stride=st.sampled_from([16, 32, 64, 128]),
    first=st.tuples(st.integers(0, 999), st.integers(0, 999)),
)
def test_every_tile_lies_in_one_square(mask, stride, first):
    """At its place, whole, a multiple of the step off the square's corner; squares are no larger than allowed."""
    grid = lattice(40, 30, stride, first=first)
    grid = grid.take(np.random.default_rng(mask).random(len(grid)) < 0.7)

    blocks = share_blocks(grid, 16)

    assert blocks is not None
    assert blocks.grid.side_px <= _BLOCK_PX
    assert np.sort(np.concatenate(blocks.positions)).tolist() == list(range(len(grid)))
    for origin, positions, corners in zip(blocks.grid.origins_l0, blocks.positions, blocks.corners_px, strict=True):
        assert np.array_equal(origin + corners, grid.origins_l0[positions])
        assert not (corners % 16).any()
        assert corners.min() >= 0
        assert corners.max() + 256 <= blocks.grid.side_px


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        (lattice(9, 9, 256), "side by side"),
        (lattice(1, 1, 32), "alone"),
        (lattice(9, 9, 24), "not multiples of the step apart"),
        (lattice(9, 9, 224), "hardly overlapping"),
        (lattice(2, 1, 32), "too few for a square"),
        (replace(lattice(9, 9, 32), side_l0=512.0), "not of level-0 px"),
        (lattice(9, 9, 32).take(np.arange(0)), "none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tiles_that_gain_nothing_are_left_alone(grid, why):
    """No squares where they would be wrong, or more work."""
    assert share_blocks(grid, 16) is None, why


def test_networks_that_see_where_a_tile_ends_share_nothing():
    """Padding and resizing depend on the tile; strides and pooling fix the step."""
    assert [spec.window_step for spec in SHARING] == [32, 16, 16]
    assert COMPACT_TUMOUR_CNN.window_step is None
    assert replace(STRIDED_TILE_CNN, convs=(Conv(8, kernel=3, padding=1),)).window_step is None
    assert replace(STRIDED_TILE_CNN, convs=(Conv(8, kernel=3), Conv(8, kernel=3, pool="none"))).window_step == 2


@pytest.mark.parametrize("spec", SHARING, ids=lambda spec: spec.name)
def test_windows_of_a_picture_are_the_tiles_cut_out_of_it(spec):
    """Both engines: logits of windows are those of the tiles, within 1e-5, and tiles differ; from both sides, too."""
    picture = synthetic_pixels(480, 480)
    corners = np.array([[0, 0], [224, 224], [32, 160], [192, 32], [64, 64]])
    tiles = np.stack([picture[y : y + 256, x : x + 256] for x, y in corners])
    weights = initial_weights(spec, seed=1)
    card = Untrained(spec, seed=1).card

    both: tuple[Engine, ...] = engine_of(card, weights), TorchEngine(card, weights, "cpu")
    for engine in (*both, *map(HalfTurnedEngine, both)):
        expected, logits = engine(tiles), engine.windows(picture, corners)

        assert np.abs(expected - logits).max() <= 1e-5 * max(1.0, np.abs(expected).max())
        assert np.array_equal(expected[:1].argmax(), engine.windows(picture, corners[:1]).argmax())
        assert np.ptp(logits, axis=0).min() > 1e-5


@pytest.fixture(scope="module")
def engine():
    return load_engine(Untrained(STRIDED_TILE_CNN, seed=0), STRIDED_TILE_CNN.role, "cpu")


def one_by_one(slide, grid, engine):
    """What the network says of each tile that can be read."""
    found = []
    for position, origin in enumerate(grid.origins_l0.tolist()):
        with suppress(UnreadableRegionError):
            found.append((position, engine(slide.read(origin, Size(256, 256), grid.mpp)[None])[0]))
    return np.array([position for position, _ in found]), np.stack([logits for _, logits in found])


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_a_damaged_tile_costs_the_tiles_that_touch_it_and_no_others(tmp_path, engine, damaged):
    """Squares are an arrangement of the work: the same tiles are read and say the same, also on a damaged slide."""
    path = write_slide(tmp_path / "slide.svs", [synthetic_pixels(1280, 1024)], SlideSpec(tile=128))
    if damaged:
        corrupt_tile(path, 23)
    told: list[int] = []
    with open_slide(path) as slide:
        grid = cut_tiles(np.ones((32, 40), bool), slide.size_l0, px_l0=32.0, mpp=slide.mpp, min_tiles=150).grid
        assert blocks_of(grid, engine) is not None
        expected = one_by_one(slide, grid, engine)
        positions, logits = infer(slide, grid, engine, load_config().runtime, told.append)

    assert (len(positions) < len(grid)) == damaged
    assert np.array_equal(expected[0], positions)
    assert np.abs(expected[1] - logits).max() < 1e-5
    assert told == sorted(told)
    assert told[-1] == len(grid)


def test_a_tile_that_is_blank_in_the_tissue_is_found_in_a_square(tmp_path, engine, monkeypatch):
    """Of a square it may be too little to be seen; it would be scored as glass where tiles overlap, and only there."""
    levels = pyramid(section(640, 640, (0, 0, 640, 640)), (1, 4))
    levels[0] = levels[0].copy()
    levels[0][320:400, 320:400] = 255
    path = write_slide(tmp_path / "slide.svs", levels)
    with open_slide(path) as slide:
        grid = cut_tiles(np.ones((20, 20), bool), slide.size_l0, px_l0=32.0, mpp=slide.mpp, min_tiles=20).grid
        assert blocks_of(grid, engine) is not None
        found = infer(slide, grid, engine, load_config().runtime)
        monkeypatch.setattr("he2her2.method.inference.share_blocks", lambda *_: None)
        expected = infer(slide, grid, engine, load_config().runtime)

    assert 0 < len(expected[0]) < len(grid)
    assert np.array_equal(expected[0], found[0])
    assert np.abs(expected[1] - found[1]).max() < 1e-5


def test_a_loaded_network_is_the_one_that_was_loaded(tmp_path, monkeypatch):
    """From another working folder, too; its squares were computed by what a training had since put in its place."""
    shutil.copytree(trained_folder("bundled") / "tile_cnn", tmp_path / "tile_cnn")
    monkeypatch.chdir(tmp_path)
    moved, replaced = (load_engine(Path("tile_cnn"), "tile_cnn", "cpu") for _ in range(2))
    monkeypatch.chdir("/")
    tile = synthetic_pixels(256, 256)

    assert np.allclose(moved.windows(tile, np.array([[0, 0]])), moved(tile[None]), atol=1e-4)
    (tmp_path / "tile_cnn" / "model.onnx").write_bytes(b"another")
    with pytest.raises(
        WeightsError, match=r"model\.onnx: was replaced after it had been loaded; load the weights again"
    ):
        replaced.windows(tile, np.array([[0, 0]]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("mpp", [0.25, 0.5], ids=["squares", "tiles"])
def test_a_network_that_gives_no_numbers_fails_the_slide(tmp_path, value, mpp):
    """Finite weights can overflow on some tile: no status is made of the rest."""
    weights = initial_weights(STRIDED_TILE_CNN, seed=0)
    weights["fc_layers.1.bias"][2] = value
    engine = engine_of(Card(STRIDED_TILE_CNN, trained=False, notice=""), weights)
    path = write_slide(tmp_path / "slide.svs", [synthetic_pixels(640, 640)], SlideSpec(mpp=mpp))
    with open_slide(path) as slide:
        grid = cut_tiles(np.ones((20, 20), bool), slide.size_l0, px_l0=32.0, mpp=0.25, min_tiles=4).grid

        with pytest.raises(NotANumberError, match=r"slide: the tile_cnn \(strided-tile-cnn\) gives \d+ of \d+ tiles a"):
            infer(slide, grid, engine, load_config().runtime)


def test_resampled_tiles_are_read_one_by_one(tmp_path, engine):
    """At 0.5 µm/px a tile's pixels are computed around its own corner."""
    path = write_slide(tmp_path / "slide.svs", [synthetic_pixels(640, 640)], SlideSpec(mpp=0.5))
    with open_slide(path) as slide:
        grid = cut_tiles(np.ones((40, 40), bool), slide.size_l0, px_l0=16.0, mpp=0.25, min_tiles=150).grid

        assert len(grid) >= 150
        assert blocks_of(grid, engine) is None


@pytest.mark.parametrize(
    "runtime", [Runtime(threads=3, batch_size=5), Runtime("openslide", threads=1)], ids=["3 threads", "openslide"]
)
def test_overlapping_tiles_predict_the_same_however_they_are_read(tmp_path, monkeypatch, runtime):
    """Squares, threads and backend change neither tiles nor selection nor status, and scores by less than 1e-5."""
    config = load_config(overrides=("selection.n_tiles=40", "adaptive.iterations=2", "adaptive.points=20"))
    model = load_slide_model("untrained:0", config)
    path = write_tissue(tmp_path / "slide.svs")
    with open_slide(path, backend=runtime.backend) as slide:
        found = predict(slide, model, replace(config, runtime=runtime))
    with open_slide(path) as slide:
        assert blocks_of(found.grid, model.tile_cnn) is not None
        monkeypatch.setattr("he2her2.method.inference.share_blocks", lambda *_: None)
        expected = predict(slide, model, replace(config, runtime=Runtime(threads=1, batch_size=1)))

    assert np.array_equal(expected.grid.origins_l0, found.grid.origins_l0)
    assert np.abs(expected.scores - found.scores).max() < 1e-5
    assert np.array_equal(expected.selected, found.selected)
    assert expected.status == found.status
    assert abs(expected.probability - found.probability) < 1e-5
