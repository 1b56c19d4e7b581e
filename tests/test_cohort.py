"""Many slides: which there are, whose annotations are whose, and what a failure of ours costs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from he2her2.cohort.listing import list_slides
from he2her2.cohort.work import each_slide
from he2her2.config import Config
from he2her2.errors import OutputError
from he2her2.geometry import Point
from he2her2.method.regions import MissingAnnotationError, regions_for
from he2her2.results.run import Failure, plan_run

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}
RECORD = {
    "slide_id": "a", "path": "a.svs", "slide": {"mpp": 0.25}, "notices": [], "area_mm2": {"tissue": 1.0, "tumour": 0.5},
    "quality": {"pen_share": 0, "blur_share": 0},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run of which nothing is done yet."""
    return plan_run(tmp_path / "run", command=["he2her2"], config=Config(), weights=[], overrides={})


def test_a_folders_slides_are_listed_by_name(tmp_path):
    """Other files, hidden files and folders are not slides."""
    for name in ("b.svs", "a.ome.tif", "notes.txt", ".c.svs"):
        (tmp_path / name).touch()
    (tmp_path / "d.svs").mkdir()

    assert [path.name for path in list_slides(tmp_path)] == ["a.ome.tif", "b.svs"]
    assert list_slides(tmp_path / "b.svs") == [tmp_path / "b.svs"]


def test_qupaths_regions_are_moved_to_the_slides_frame(tmp_path):
    """QuPath counts from the corner of the scanned part."""
    (tmp_path / "S1.geojson").write_text(json.dumps(SQUARE))
    slide = SimpleNamespace(slide_id="S1", bounds_origin_l0=Point(100, 50))

    (region,) = regions_for(slide, tmp_path)

    assert region.polygon.bounds == (100.0, 50.0, 110.0, 60.0)
    assert regions_for(slide, None) == ()


def test_a_slide_without_its_annotation_fails_alone(tmp_path):
    """The error is the slide's, with its stage."""
    with pytest.raises(MissingAnnotationError, match=r"S2.*S2\.geojson") as caught:
        regions_for(SimpleNamespace(slide_id="S2", bounds_origin_l0=Point(0, 0)), tmp_path)

    assert caught.value.stage == "annotations"


def test_our_own_bug_costs_one_slide(run):
    """It becomes a failure, its traceback goes to a log, and the next slide is worked on."""

    def process(path):
        if path.name == "bad.svs":
            raise ZeroDivisionError("by zero")
        return RECORD

    told = []
    each_slide([Path("bad.svs"), Path("a.svs")], process, run, lambda _, result: told.append(result))

    assert told == [run.failures[0], RECORD]
    assert run.failures[0].stage == "internal"
    assert "ZeroDivisionError: by zero" in (run.folder / "errors.log").read_text()
    assert (run.folder / "segmentations.csv").read_text().splitlines()[1].startswith("a,a.svs,0.25")


def test_a_run_that_cannot_be_written_stops(run):
    """A full disk concerns every slide, not one; the tables say what was done before."""

    def process(path):
        raise OutputError("full")

    with pytest.raises(OutputError, match="full"):
        each_slide([Path("a.svs")], process, run, lambda *_: None)

    assert (run.folder / "failures.csv").exists()
    assert not run.failures


def test_failures_keep_what_the_error_said(run):
    """Slide, path, stage, reason and remedy."""
    error = MissingAnnotationError("S1", "no file", "give it")

    assert Failure.of(Path("S1.svs"), error) == Failure("S1", "S1.svs", "annotations", "no file", "give it")


def test_the_digest_tells_runs_apart(tmp_path):
    """What the user overrode counts as much as settings and weights."""

    def digest(**overrides):
        return plan_run(tmp_path, command=[], config=Config(), weights=[], overrides=overrides).digest

    assert digest(mpp=None) == digest(mpp=None)
    assert digest(mpp=None) != digest(mpp=0.5)
