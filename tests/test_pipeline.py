"""The method end to end on small slides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from shapely import box

from he2her2.config import Runtime, load_config
from he2her2.errors import TilingError, TumourError
from he2her2.method import find_tissue, thumbnail_on_raster
from he2her2.method.raster import blocks_with
from he2her2.models import load_slide_model
from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.torch_engine import TorchEngine
from he2her2.models.torch_modules import initial_weights
from he2her2.phantom import make_spec, write_phantom
from he2her2.pipeline import predict, segment
from he2her2.preprocessing import DrawnRegions, PaintedMask, Region, tissue_mask, weak_tissue_mask
from he2her2.slides import open_slide
from he2her2.timing import Watch
from tests.made_up_bags import bag_of_scores
from tests.tissue_slides import tissue_pixels, write_tissue

OVERRIDES = ("selection.n_tiles=5", "adaptive.iterations=2", "adaptive.points=20")


@pytest.fixture(scope="module")
def config():
    """Few tiles and few points."""
    return load_config(overrides=OVERRIDES)


@pytest.fixture(scope="module")
def model(config):
    """Untrained networks."""
    return load_slide_model("untrained:0", config)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A slide of 2 048 px with tissue in its middle."""
    return write_tissue(tmp_path_factory.mktemp("slides") / "slide.svs")


@pytest.fixture(scope="module")
def reference(path, model, config):
    """Its prediction, one thread, tile by tile."""
    with open_slide(path) as slide:
        return predict(slide, model, replace(config, runtime=Runtime(threads=1, batch_size=1)))


@pytest.mark.parametrize(
    "runtime",
    [Runtime(threads=3, batch_size=7), Runtime(threads=2, batch_size=64), Runtime("openslide", threads=2)],
    ids=["3 threads", "large batches", "openslide"],
)
def test_how_the_work_is_done_changes_nothing(path, model, config, reference, runtime):
    """Threads, batch size and backend give the same masks, tiles, selection and status, and scores within 1e-5."""
    with open_slide(path, backend=runtime.backend) as slide:
        found = predict(slide, model, replace(config, runtime=runtime))

    assert np.array_equal(found.segmentation.tumour, reference.segmentation.tumour)
    assert np.array_equal(found.grid.origins_l0, reference.grid.origins_l0)
    assert np.allclose(found.logits, reference.logits, atol=1e-5)
    assert np.allclose(found.scores, reference.scores, atol=1e-5)
    assert np.array_equal(found.selected, reference.selected)
    assert abs(found.probability - reference.probability) < 1e-5
    assert found.status == reference.status


def by_torch(engine, spec):
    """The engine that runs on GPUs, here on the CPU, with the same weights."""
    return TorchEngine(engine.card, initial_weights(spec, seed=0), "cpu")


@pytest.mark.parametrize("threads", [1, 3])
def test_either_engine_gives_the_same_prediction(path, model, config, reference, threads):
    """Torch's way through the pixels ends at the same masks, tiles, selection and status, scores within 1e-5."""
    other = replace(
        model,
        tumour_cnn=by_torch(model.tumour_cnn, LITE0_TUMOUR_CNN),
        tile_cnn=by_torch(model.tile_cnn, STRIDED_TILE_CNN),
    )
    with open_slide(path) as slide:
        found = predict(slide, other, replace(config, runtime=Runtime(threads=threads, batch_size=16)))

    assert np.array_equal(found.segmentation.tumour, reference.segmentation.tumour)
    assert np.array_equal(found.grid.origins_l0, reference.grid.origins_l0)
    assert np.allclose(found.logits, reference.logits, atol=1e-5)
    assert np.allclose(found.scores, reference.scores, atol=1e-5)
    assert np.array_equal(found.selected, reference.selected)
    assert abs(found.probability - reference.probability) < 1e-5
    assert found.status == reference.status


def test_tiles_lie_wholly_in_the_tumour_on_its_lattice(reference):
    """Each of a tile's 8 x 8 mask pixels is tumour (paper, 3.1)."""
    tumour = reference.segmentation.tumour
    for x, y in reference.grid.origins_l0:
        assert x % 32 == 0
        assert y % 32 == 0
        assert tumour[y // 32 : y // 32 + 8, x // 32 : x // 32 + 8].all()
    assert (reference.grid.side_l0, reference.grid.side_px) == (256.0, 256)


def test_the_selected_tiles_score_highest_and_decide(reference, model):
    """The probability is the aggregator's on the best scores, in falling order; each of them contributes as much."""
    chosen = reference.scores[reference.selected]

    assert len(chosen) == 5
    assert (np.diff(chosen) <= 0).all()
    assert chosen[0] == reference.scores.max()
    assert reference.probability == pytest.approx(model.aggregator(bag_of_scores(chosen)).probability)
    assert np.flatnonzero(reference.contributions).tolist() == sorted(reference.selected.tolist())
    assert reference.contributions[reference.selected].tolist() == [0.2] * 5


def test_a_close_mpp_is_taken_as_it_is(tmp_path, model, config, reference):
    """0.23 µm/px are read natively: the same tiles in level-0 px as at 0.25."""
    with open_slide(write_tissue(tmp_path / "slide.svs", mpp=0.23)) as slide:
        found = predict(slide, model, config)

    assert np.array_equal(found.segmentation.tissue, reference.segmentation.tissue)
    assert found.grid.mpp == pytest.approx(0.23)
    assert found.grid.side_l0 == 256.0


def test_a_coarser_slide_is_resampled_to_the_same_microns(tmp_path, model, config):
    """At 0.5 µm/px a tile is 128 level-0 px wide: still 64 µm."""
    with open_slide(write_tissue(tmp_path / "slide.svs", mpp=0.5)) as slide:
        found = predict(slide, model, config)
        raw = predict(slide, model, replace(config, tiling=replace(config.tiling, raw_pixels=True)))

    assert found.grid.side_l0 * 0.5 == pytest.approx(64.0, rel=1e-3)
    assert raw.grid.side_l0 == 256.0


def test_regions_limit_the_tumour_or_stand_in_its_place(path, model, config, reference):
    """Intersected with what the network finds, or without asking it."""
    drawn = DrawnRegions((Region(box(0, 0, 1024, 2048), "Tumor"),))
    painted = PaintedMask(np.array([[True, False], [True, False]]), Path("half.png"))
    with open_slide(path) as slide:
        limited = segment(slide, model, config, annotation=drawn)
        replaced = segment(slide, model, config, annotation=drawn, region_use="replace")
        by_picture = segment(slide, model, config, annotation=painted, region_use="replace")
        with pytest.raises(ValueError, match="intersect, replace"):  # it was taken for intersect
            segment(slide, model, config, annotation=drawn, region_use="replaced")  # type: ignore[arg-type]

    left = np.zeros_like(limited.tumour)
    left[:, :32] = True
    assert np.array_equal(limited.tumour, reference.segmentation.tumour & left)
    assert np.array_equal(replaced.tumour, reference.segmentation.usable & left)
    assert np.array_equal(by_picture.tumour, replaced.tumour)
    assert replaced.sampling is None


def test_no_tumour_is_an_error_that_says_so(path, model, config):
    """A region on glass leaves nothing; where the network found none, regions help in its place alone."""
    glass, tissue = (DrawnRegions((Region(box(0, 0, side, side), "Tumor"),)) for side in (64, 2048))
    nowhere = replace(config, adaptive=replace(config.adaptive, threshold=1.0))
    with open_slide(path) as slide:
        with pytest.raises(TumourError, match=r"pass --annotations with --annotations-use replace"):
            segment(slide, model, nowhere)
        with pytest.raises(TumourError, match=r"check --annotations, or pass --annotations-use replace"):
            segment(slide, model, nowhere, annotation=tissue)
        with pytest.raises(TumourError, match=r"check --annotations$"):
            segment(slide, model, config, annotation=glass, region_use="replace")
        assert segment(slide, model, nowhere, annotation=tissue, region_use="replace").tumour.any()


def test_a_tumour_map_with_few_samples_of_the_tissue_is_told(path, model, config, reference, monkeypatch):
    """Of a small piece on a large scan, whether tumour was found in it or not."""
    found = reference.segmentation
    few = replace(found, usable=found.usable & (found.usable.cumsum().reshape(found.usable.shape) <= 9))

    assert found.cautions == ()
    assert "samples of the tumour map lie in its tissue" in few.cautions[0]
    monkeypatch.setattr("he2her2.method.segmentation._FEW_SHARE", 1.1)
    nowhere = replace(config, adaptive=replace(config.adaptive, threshold=1.0))
    with open_slide(path) as slide, pytest.raises(TumourError, match=r"of tissue; only \d+ of \d+ samples"):
        segment(slide, model, nowhere)


def test_too_little_tumour_is_an_error_with_numbers(tmp_path, model, config):
    """It tells how many tiles there are and how many are needed."""
    path = write_tissue(tmp_path / "crumb.svs", tissue_pixels(share=0.2))
    with open_slide(path) as slide, pytest.raises(TilingError, match=r"34 are needed"):
        predict(slide, model, config)


def test_progress_reaches_its_total(path, model, config):
    """Every stage says that it begins, and one that takes time how far it is, up to the end."""
    told = {}
    with open_slide(path) as slide:
        predict(slide, model, config, watch=Watch(lambda stage, done, total: told.update({stage: (done, total)})))

    assert told.keys() == {"tissue", "focus", "tumour", "cut", "tiles"}
    assert all(done == total for done, total in told.values())


@pytest.mark.parametrize("px_l0", [32.0, 33.1, 20.0])
def test_the_lattices_thumbnail_shows_the_slide_in_place(path, px_l0):
    """Whatever the pyramid has, a raster pixel shows what lies under it."""
    with open_slide(path) as slide:
        size = (int(2048 / px_l0), int(2048 / px_l0))
        picture = thumbnail_on_raster(slide, px_l0, type(slide.size_l0)(*size))

    tissue = picture.min(axis=2) < 225
    expected = slice(round(205 / px_l0) + 1, round(1843 / px_l0) - 1)
    assert picture.shape == (*size, 3)
    assert tissue[expected, expected].all()
    assert not tissue[: round(205 / px_l0) - 1].any()


@pytest.mark.parametrize("seed", [0, 2, 3, 5], ids=["red", "blue", "black", "green"])
def test_ink_of_any_colour_is_found_on_a_phantom(tmp_path, config, seed):
    """At least 85 % of what is drawn, and beyond it no more than a stroke's fringe."""
    truth = write_phantom(tmp_path / "inked.tif", make_spec(seed=seed, size_px=[3072, 3072], pen=2))
    with open_slide(tmp_path / "inked.tif") as slide:
        _, pen = find_tissue(slide.thumbnail(8.0), config.tissue, config.quality)

    drawn = truth.pen
    assert drawn.sum() > 100
    assert (pen & drawn).sum() >= 0.85 * drawn.sum()
    assert not (pen & ~binary_dilation(drawn, iterations=4)).any()


@pytest.mark.parametrize("rule", [tissue_mask, weak_tissue_mask])
def test_ink_on_glass_hides_no_tissue(config, rule):
    """A ring around the tissue is no part of it; a stroke across it is, where the tissue goes on beside the stroke.

    Without quality control ink is seen, and tissue is what it is by itself.
    """
    rgb = np.full((120, 120, 3), 242, np.uint8)
    rgb[40:80, 40:80] = (200, 120, 170)
    clear, _ = find_tissue(rgb, config.tissue, config.quality, rule)
    green = (30, 160, 130)
    rgb[10:16, 10:110] = rgb[104:110, 10:110] = rgb[10:110, 10:16] = rgb[10:110, 104:110] = rgb[57:63, 20:100] = green

    tissue, pen = find_tissue(rgb, config.tissue, config.quality, rule)

    assert pen[57:63, 30:90].all()
    assert tissue[57:63, 42:78].all()
    assert (tissue & ~clear).mean() < 0.01
    plain, seen = find_tissue(rgb, config.tissue, replace(config.quality, apply=False), rule)
    assert np.array_equal(plain, rule(rgb, config.tissue))
    assert np.array_equal(seen, pen)


def test_blocks_hold_every_pixel_of_the_mask():
    """And each holds at least one."""
    mask = np.zeros((20, 30), bool)
    mask[[0, 19, 7], [0, 29, 8]] = True

    assert blocks_with(mask, 8).tolist() == [[0, 0], [8, 0], [24, 16]]
