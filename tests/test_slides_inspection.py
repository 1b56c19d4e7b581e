"""The report on a slide: facts, soundness, and what would be done with it."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from he2her2.errors import SlideOpenError
from he2her2.geometry import Size
from he2her2.slides import inspect_slide
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, synthetic_pixels, truncated, write_packbits, write_slide

LEVELS = pyramid(synthetic_pixels(448, 320), (1, 4))


def found(report):
    """All problems as one text."""
    return " | ".join(problem.found for problem in report.problems)


def test_a_sound_slide_has_no_problems(tmp_path):
    """Facts are right, nothing is complained of, and all of it is JSON."""
    path = write_slide(tmp_path / "a.svs", LEVELS)

    report = inspect_slide(path, n_check=None)

    assert (report.vendor, report.backend, report.mpp, report.mpp_source) == ("aperio", "tiff", 0.25, "Aperio metadata")
    assert (report.size_px, report.size_mm) == ((448, 320), (0.112, 0.08))
    assert report.objective == 40
    assert [(level.mpp, level.codec, level.tile_px) for level in report.levels] == [
        (0.25, "JPEG", (64, 64)),
        (1.0, "JPEG", (64, 64)),
    ]
    assert (report.tiles.n_tiles, report.tiles.n_checked, report.tiles.n_corrupt) == (39, 39, 0)
    assert report.problems == ()
    assert json.loads(json.dumps(asdict(report)))["file_bytes"] == path.stat().st_size


def test_the_plan_says_which_level_is_read_and_why(tmp_path):
    """Tiles natively, masks from the reduced level."""
    report = inspect_slide(write_slide(tmp_path / "a.svs", LEVELS))

    assert report.plan[1:] == (
        "Take 0.25 µm per level-0 px, from Aperio metadata.",
        "Tiles: level 0 (0.25 µm/px) as it is, within 10 % of the 0.25 wanted.",
        "Masks: level 1 (1 µm/px) reduced 8 times to 8 µm/px, because no level is within 10 % of it.",
    )


def test_a_slide_without_mpp_has_a_report_all_the_same(tmp_path):
    """Everything but µm is there, and the remedy."""
    report = inspect_slide(write_slide(tmp_path / "a.svs", LEVELS, SlideSpec(mpp=None)))

    assert (report.mpp, report.size_mm, report.mpp_source) == (None, None, "nowhere")
    assert {level.mpp for level in report.levels} == {None}
    assert report.problems[0].found == "no µm per pixel in its metadata"
    assert "--mpp" in report.problems[0].remedy


def test_enlarging_is_warned_of(tmp_path):
    """A 20x slide lacks the detail that tiles of 0.25 µm/px show."""
    report = inspect_slide(write_slide(tmp_path / "a.svs", LEVELS, SlideSpec(mpp=0.5)))

    assert "coarser than the 0.25 of tiles" in found(report)
    assert "enlarged 2 times" in report.plan[2]


def test_corrupt_tiles_are_counted_when_asked(tmp_path):
    """Every tile or a seeded sample; not unasked, for decoding takes time."""
    path = corrupt_tile(write_slide(tmp_path / "a.svs", LEVELS), index=3)

    assert inspect_slide(path).tiles.n_checked == 0
    assert "1 of 39 compressed tiles (2.6 %) cannot be decoded" in found(inspect_slide(path, n_check=None))
    assert inspect_slide(path, n_check=10, seed=1) == inspect_slide(path, n_check=10, seed=1)


@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_both_backends_count_the_same_damage(tmp_path, backend):
    """OpenSlide's tiles are tried one by one as well."""
    path = corrupt_tile(write_slide(tmp_path / "a.svs", LEVELS), index=3)

    report = inspect_slide(path, backend=backend, n_check=None)

    assert (report.tiles.n_tiles, report.tiles.n_corrupt) == (39, 1)
    assert report.plan[0].endswith(", as asked.")


def test_absent_tiles_are_said(tmp_path):
    """White that was never scanned."""
    report = inspect_slide(write_slide(tmp_path / "a.svs", LEVELS, SlideSpec(absent=(0, 5))))

    assert "2 compressed tiles are absent" in found(report)


def test_the_reason_for_openslide_is_said(tmp_path):
    """Which reader, and why not the other."""
    report = inspect_slide(write_packbits(tmp_path / "a.tif", LEVELS[0]), mpp=0.25)

    assert report.plan[0] == "Read by OpenSlide, because it is stored as compression 32773 with predictor 1."


def test_openslides_blending_is_warned_of(tmp_path):
    """A level of 111 px under 447 is no exact reduction for OpenSlide."""
    levels = pyramid(synthetic_pixels(447, 319), (1, 4))
    path = write_slide(tmp_path / "a.svs", levels)

    assert "blends" in found(inspect_slide(path, backend="openslide"))
    assert inspect_slide(path).problems == ()


def test_blending_is_of_openslides_own_reductions(tmp_path, monkeypatch):
    """MRXS and BIF state theirs, as 4 here: nothing is blended, whatever the sizes' ratio is."""
    path = write_slide(tmp_path / "a.svs", pyramid(synthetic_pixels(447, 319), (1, 4)))
    monkeypatch.setattr(openslide.OpenSlide, "level_downsamples", (1.0, 4.0))

    assert inspect_slide(path, backend="openslide").problems == ()


def test_what_cannot_be_opened_is_an_error(tmp_path):
    """There is no report on half a file."""
    path = truncated(write_slide(tmp_path / "a.svs", LEVELS), 0.5)

    with pytest.raises(SlideOpenError, match="is cut short"):
        inspect_slide(path)


def test_real_slides(data_dir):
    """Associated pictures and codecs of the scanners' files."""
    small = inspect_slide(data_dir / "slides" / "CMU-1-Small-Region.svs", n_check=10)
    tcga = inspect_slide(data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs", n_check=3)

    assert set(small.associated) == {"thumbnail", "label", "macro"}
    assert (small.mpp, small.objective, small.tiles.n_corrupt) == (0.499, 20, 0)
    assert {level.codec for level in tcga.levels} == {"JPEG 2000"}
    assert tcga.mpp is None


def test_a_large_slide_without_a_scale_is_described(tmp_path):
    """What nobody gave is not said to make it too large."""
    path = tmp_path / "wide.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        tile: dict[str, Any] = {"tile": (512, 512), "photometric": "rgb", "compression": "deflate", "dtype": np.uint8}
        file.write(iter([np.zeros((512, 512, 3), np.uint8)] * 500), shape=(512, 256_000, 3), **tile)
        file.write(iter([np.zeros((512, 512, 3), np.uint8)] * 125), shape=(128, 64_000, 3), subfiletype=1, **tile)

    report = inspect_slide(path)

    assert (report.mpp, report.size_px) == (None, Size(256_000, 512))
    assert "mpp" in report.problems[0].remedy
