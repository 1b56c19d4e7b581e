"""The bags of slide training: the tiles that prediction would cut_tumour, found once, refused all at once."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from he2her2.errors import AnnotationError, ManifestError
from he2her2.labels import Her2Status
from he2her2.manifest import read_manifest
from he2her2.method import cut_tumour, segment_slide, tiles
from he2her2.models import Untrained, load_engine
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN
from he2her2.slides import open_slide
from he2her2.training.slides import bags as bags_module
from he2her2.training.slides.bags import TumourTiler, build_bags
from tests.labelled_slides import EDGE, SIDE, TINY, labelled_pixels, tiny_config, write_labelled
from tests.slide_files import corrupt_tile
from tests.tissue_slides import tissue_pixels, write_tissue

TILER = TumourTiler(TINY.input, tiny_config(), None, "replace")


def find_tiles(row, tiler, folder):
    """The tiles of one slide."""
    return build_bags([row], tiler, folder)[0].grid


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A manifest of eight slides."""
    return write_labelled(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def rows(cohort):
    """Its rows."""
    return read_manifest(cohort).rows


@pytest.fixture
def no_more_work(monkeypatch):
    """From now on nobody may segment a slide."""

    def refuse():
        def segment(*_, **__):
            raise AssertionError("a slide was looked at again")

        monkeypatch.setattr(bags_module, "segment_slide", segment)

    return refuse


def test_a_bag_is_what_prediction_cuts_inside_the_annotation(rows, tmp_path):
    """The same tiles as segment and cut_tumour, left of the mask's edge, with the slide's status."""
    bags = build_bags(rows[:2], TILER, tmp_path)
    with open_slide(rows[0].path) as slide:
        found = segment_slide(slide, TINY.input, TILER.config, tumour_cnn=None)
        everywhere = cut_tumour(slide, found, TINY.input, TILER.config.tiling, TILER.config.selection).grid.origins_l0

    inside = everywhere[everywhere[:, 0] + 64 <= EDGE]
    assert np.array_equal(bags[0].grid.origins_l0, inside)
    assert [bag.status for bag in bags] == [Her2Status.NEGATIVE, Her2Status.POSITIVE]
    assert [bag.target for bag in bags] == [0, 1]
    assert len(inside) < len(everywhere)


def test_annotations_limit_replace_or_are_ignored(rows, tmp_path):
    """Ignored, the tumour CNN alone decides; limiting, it decides inside the mask."""
    tumour_cnn = load_engine(Untrained(COMPACT_TUMOUR_CNN, 0), "tumour_cnn", "cpu")
    config = tiny_config("adaptive.threshold=0.01")
    tiles = {
        use: find_tiles(rows[0], TumourTiler(TINY.input, config, tumour_cnn, use), tmp_path / use).origins_l0
        for use in ("ignore", "intersect", "replace")
    }

    sets = {use: set(map(tuple, origins.tolist())) for use, origins in tiles.items()}
    assert sets["intersect"] < sets["ignore"]
    assert sets["intersect"] <= sets["replace"]


def test_a_bag_lies_in_the_classes_that_are_tumour(rows, tmp_path):
    """Those that say so by name, or those that are chosen; what is ignored is cut out."""

    def region(name, left, right):
        ring = [[left, 0], [right, 0], [right, SIDE], [left, SIDE], [left, 0]]
        shape = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": name}}}

    file = tmp_path / "classes.geojson"
    parts = [region("Stroma", 0, SIDE), region("Tumor", 0, EDGE), region("Ignore*", 0, 128)]
    file.write_text(json.dumps({"type": "FeatureCollection", "features": parts}))
    row = replace(rows[0], annotations=file)
    painted = find_tiles(rows[0], TILER, tmp_path / "painted").origins_l0

    by_name = find_tiles(row, TILER, tmp_path / "by-name").origins_l0
    chosen = find_tiles(row, replace(TILER, annotation_classes=("stroma",)), tmp_path / "chosen").origins_l0

    assert np.array_equal(by_name, painted[painted[:, 0] >= 128])
    assert chosen[:, 0].min() >= 128
    assert chosen[:, 0].max() >= EDGE


def test_a_bag_is_found_once(rows, tmp_path, no_more_work):
    """A second training of the same slides reads it from its file."""
    first = build_bags(rows[:2], TILER, tmp_path)
    no_more_work()

    again = build_bags(rows[:2], TILER, tmp_path)

    for bag, other in zip(first, again, strict=True):
        assert np.array_equal(bag.grid.origins_l0, other.grid.origins_l0)
        assert (bag.grid.side_l0, bag.grid.side_px, bag.grid.mpp) == (
            other.grid.side_l0,
            other.grid.side_px,
            other.grid.mpp,
        )


def test_settings_that_do_not_touch_tiles_keep_the_bag(rows, tmp_path, no_more_work):
    """Beta and the aggregator may change."""
    find_tiles(rows[0], TILER, tmp_path)
    no_more_work()

    find_tiles(rows[0], replace(TILER, config=tiny_config("scoring.beta=3.0")), tmp_path)


@pytest.mark.parametrize("change", ["settings", "mpp", "annotations", "classes", "slide", "damage"])
def test_a_bag_of_something_else_is_found_again(cohort, tmp_path, no_more_work, change):
    """Other settings, another mpp, mask or slide under the name, or a damaged file: the slide is looked at."""
    folder = shutil.copytree(cohort.parent, tmp_path / "cohort")
    row, tiler, file = read_manifest(folder / "manifest.csv").rows[0], TILER, tmp_path / "train0.h5"
    find_tiles(row, tiler, tmp_path)
    match change:
        case "settings":
            tiler = replace(TILER, config=tiny_config("tissue.blur_px=3"))
        case "mpp":
            row = replace(row, mpp=0.24)
        case "annotations":
            assert row.annotations is not None
            row.annotations.touch()
        case "classes":
            tiler = replace(TILER, annotation_classes=("Invasive",))
        case "slide":
            write_tissue(row.path, labelled_pixels("negative", seed=9))
        case "damage":
            file.write_bytes(file.read_bytes()[:100])
    no_more_work()

    with pytest.raises(AssertionError, match="looked at again"):
        find_tiles(row, tiler, tmp_path)


def test_every_slide_without_a_bag_is_told_at_once(rows, tmp_path):
    """With its line, what was found and what to do; nothing is trained on the others."""
    blank = replace(rows[0], path=write_tissue(tmp_path / "blank.svs", tissue_pixels(1024, share=0.0)))
    crumb = replace(rows[1], path=write_tissue(tmp_path / "crumb.svs", tissue_pixels(1024, share=0.1)))
    bare = replace(rows[2], annotations=None)

    with pytest.raises(ManifestError) as caught:
        build_bags([blank, crumb, bare, rows[3]], TILER, tmp_path)

    first, *problems = caught.value.problems
    assert first == "3 of 4 slides give no bag of tiles"
    assert [problem.split(":")[0] for problem in problems] == ["line 2", "line 3", "line 4"]
    assert "no tissue" in problems[0]
    assert "no annotations" in problems[2]


def test_no_annotations_to_replace_the_tumour(rows):
    """Without a mask there is nothing in the tumour CNN's place."""
    (task,) = TILER.tasks([replace(rows[0], annotations=None)])

    with pytest.raises(AnnotationError, match="has no annotations to replace the tumour CNN"):
        TILER(task)


@pytest.fixture
def damaged(cohort, tmp_path):
    """A slide of which one compressed tile cannot be decoded, over 15 of the bag's tiles."""
    path = shutil.copy(cohort.parent / "train0.svs", tmp_path / "train0.svs")
    return replace(read_manifest(cohort).rows[0], path=corrupt_tile(path, 5))


def test_a_damaged_slide_is_refused_before_training(damaged, tmp_path):
    """More than 1 % of its tiles cannot be decoded."""
    with pytest.raises(ManifestError, match=r"15 of its 46 tumour tiles cannot be decoded"):
        build_bags([damaged], TILER, tmp_path)


def test_tiles_that_cannot_be_decoded_are_left_out(damaged, rows, tmp_path, monkeypatch):
    """Where they are few, the bag holds the others."""
    monkeypatch.setattr(tiles, "_MAX_UNREADABLE_SHARE", 0.5)

    whole, rest = (find_tiles(row, TILER, tmp_path / str(n)) for n, row in enumerate((rows[0], damaged)))

    lost = ((whole.origins_l0 >= 256) & (whole.origins_l0 < 512)).all(axis=1)
    assert np.array_equal(rest.origins_l0, whole.origins_l0[~lost])


def test_the_file_is_trident_like(rows, tmp_path):
    """Peers' tools find coords (n, 2) with their attributes."""
    grid = find_tiles(rows[0], TILER, tmp_path)
    with h5py.File(tmp_path / "train0.h5") as file:
        assert np.array_equal(file["coords"][:], grid.origins_l0)
        assert file["coords"].attrs["patch_size"] == 64
        assert file["coords"].attrs["patch_size_level0"] == 64


def test_progress_counts_slides(rows, tmp_path):
    """One after the other."""
    told: list[int] = []
    build_bags(rows[:3], TILER, tmp_path, progress=lambda _, n_done, __: told.append(n_done))

    assert told == [1, 2, 3]
