"""What users hand us by mistake: one line that says what and what to do, the exit code, and nothing left behind."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

from he2her2.method import MASKS
from he2her2.models import UNTRAINED_NOTICE, Card
from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, truncated, write_huge_header, write_slide
from tests.tissue_slides import GLASS, QUICK, SIDE, tissue_pixels, write_tissue

EVIDENCE = {f"{name}.png" for name in (*MASKS, "tumour_map", "overlay")} | {"tumour_samples.csv"}
"""Files that a slide may leave that fails."""


@pytest.fixture
def refused(command_line, tmp_path):
    """Predict, and expect one line with these words, exit code 2 and nothing written but pictures of what was found."""

    def check(slide, *words, options=QUICK):
        out = tmp_path / "run"
        code, _, err = command_line("predict", slide, "--out", out, *options)
        assert code == 2
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        for word in words:
            assert word in err
        assert {path.name for path in out.rglob("*") if path.is_file()} <= EVIDENCE

    return check


def test_a_missing_path(refused, tmp_path):
    """The path is named."""
    refused(tmp_path / "nothing.svs", "nothing", "no file", "check the path")


def test_a_folder_without_slides(refused, tmp_path):
    """What a slide's name ends in is said."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").touch()

    refused(folder, "no slides among its 1 files", ".svs")


def test_two_slides_of_one_name(refused, tmp_path):
    """Their evidence would go to one folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.svs", "a.tiff"):
        (folder / name).touch()

    refused(folder, "several slides are named a")


def test_text_named_svs(refused, tmp_path):
    """It is recognised as text."""
    path = tmp_path / "letter.svs"
    path.write_text("Dear colleague, the slide is attached.\n")

    refused(path, "letter", "text")


def test_a_corrupt_slide(refused, data_dir):
    """A real broken file of the field."""
    refused(data_dir / "slides" / "broken.svs", "broken", "not a slide")


def test_a_slide_cut_off(refused, tmp_path):
    """How much is missing is said, and that a copy may help."""
    refused(truncated(write_tissue(tmp_path / "whole.svs"), 0.6), "cut", "copy")


def test_one_corrupt_tile_is_left_out_and_reported(command_line, tmp_path):
    """Under one per cent of the tiles: the slide is predicted without it, and says so."""
    slide = corrupt_tile(write_tissue(tmp_path / "scratched.svs", tissue_pixels(3584, 0.95)), 14 * 7 + 7)

    code, out, _ = command_line("predict", slide, "--out", tmp_path / "run", "--json", *QUICK)
    record = json.loads(out)

    assert code == 0
    assert record["counts"]["unreadable"] == 1
    assert record["counts"]["scored"] == record["counts"]["tiles"] - 1
    assert any("could not be decoded" in text for text in record["warnings"])


def test_many_corrupt_tiles_fail_the_slide(refused, tmp_path):
    """Over one per cent is too much to leave out."""
    slide = write_tissue(tmp_path / "shattered.svs")
    for index in (18, 19, 20, 27, 28, 36):
        corrupt_tile(slide, index)

    refused(slide, "shattered", "cannot be decoded", "again")


@pytest.mark.parametrize("blank", [255, 0])
def test_a_slide_without_half_of_its_level_0_is_refused(refused, tmp_path, blank):
    """Coarse levels show the tissue; what is left of level 0 would decide alone, and the rest pass for glass."""
    levels = pyramid(tissue_pixels(), (1, 4, 16, 32))
    levels[0] = levels[0].copy()
    levels[0][:, : SIDE // 2] = blank

    refused(write_slide(tmp_path / "half.svs", levels, SlideSpec(tile=256)), "half", "blank where a coarser level")


def test_no_mpp(refused, tmp_path):
    """The option that helps is named."""
    refused(write_tissue(tmp_path / "unscaled.svs", mpp=None), "unscaled", "µm per pixel", "--mpp")


@pytest.mark.parametrize("mpp", ["250", "0.0001", "-1", "nan"])
def test_an_absurd_mpp(refused, tmp_path, mpp):
    """No microscope has such pixels."""
    refused(write_tissue(tmp_path / "slide.svs"), "slide", "--mpp", options=(*QUICK, "--mpp", mpp))


def test_a_blank_slide(refused, tmp_path):
    """Glass is not tissue."""
    noise = np.random.default_rng(0).integers(-3, 4, (SIDE, SIDE, 1))
    refused(write_tissue(tmp_path / "glass.svs", (np.array(GLASS) + noise).astype(np.uint8)), "glass", "no tissue")


@pytest.mark.parametrize("ink", [(20, 120, 60), (30, 60, 160), (200, 30, 50), (25, 25, 25)])
def test_a_slide_all_pen(refused, tmp_path, ink):
    """Ink of any colour is not tissue."""
    pixels = tissue_pixels()
    inked = (pixels != np.array(GLASS)).any(axis=2)
    noise = np.random.default_rng(0).integers(-6, 7, (SIDE, SIDE, 1))
    pixels[inked] = np.clip(np.array(ink) + noise, 0, 255)[inked]

    refused(write_tissue(tmp_path / "inked.svs", pixels), "inked", "pen ink")


@pytest.mark.parametrize("weights", [(0.3, 0.6, 0.1), (0, 0, 0)], ids=["grey", "black"])
def test_a_slide_without_colours(refused, tmp_path, weights):
    """It is not taken for ink, nor its owner sent to clean it."""
    pixels = np.repeat((tissue_pixels() @ np.array(weights))[..., None], 3, axis=2).astype(np.uint8)

    refused(
        write_tissue(tmp_path / "grey.svs", pixels),
        "grey",
        "no colours",
        "dust or a cover slip",
        "use a scan in colour",
    )


def test_a_slide_of_fluorescence(refused, tmp_path):
    """Bright on black, in colours: it is not taken for ink."""
    pixels = 255 - tissue_pixels()
    pixels[(tissue_pixels() == np.array(GLASS)).all(axis=2)] = 5

    refused(write_tissue(tmp_path / "dapi.svs", pixels), "dapi", "black", "transmitted light")


def test_a_blurred_slide(refused, tmp_path):
    """A slide out of focus everywhere is not used by default."""
    blurred = np.asarray(Image.fromarray(tissue_pixels()).filter(ImageFilter.GaussianBlur(24)))

    refused(write_tissue(tmp_path / "dim.svs", blurred), "dim", "out of focus", "quality.apply=false")


def test_tissue_under_one_tile(refused, tmp_path):
    """Not one tile can be cut: its size is said. A little more tissue: the numbers of tiles are."""
    crumb = write_tissue(tmp_path / "crumb.svs", tissue_pixels(share=0.1))
    refused(crumb, "crumb", "as large as a tile (64 µm)", "too pale", options=(*QUICK, "--set", "tissue.blur_px=1"))
    refused(write_tissue(tmp_path / "bit.svs", tissue_pixels(share=0.2)), "bit", "tiles", "34 are needed")


def test_a_header_that_claims_a_million_pixels(refused, tmp_path):
    """Refused at once, without allocating what it claims."""
    path = tmp_path / "huge.svs"
    write_huge_header(path)

    refused(path, "huge", "1000000")


def test_weights_that_are_not_there(refused, tmp_path):
    """Bundled ones of another preset's networks, a missing folder, and a word that is no folder."""
    slide = write_tissue(tmp_path / "slide.svs")

    refused(slide, "lite0-tumour-cnn", "paper-tumour-cnn", options=("--preset", "paper"))
    refused(slide, "nowhere", options=("--weights", tmp_path / "nowhere"))
    refused(slide, "untrained:SEED", options=("--weights", "untrained"))


def test_swapped_weights(refused, tmp_path):
    """The tumour network in the tile network's place is noticed."""
    spec = LITE0_TUMOUR_CNN
    card = Card(spec, trained=False, notice=UNTRAINED_NOTICE, seed=0)
    for role in ("tumour_cnn", "tile_cnn", "aggregator"):
        save_weights(tmp_path / "weights" / role, card, initial_weights(spec, 0))
    slide = write_tissue(tmp_path / "slide.svs")

    refused(slide, "tile_cnn", "tumour_cnn", options=("--weights", tmp_path / "weights"))


def test_an_output_folder_that_is_a_file(command_line, tmp_path):
    """Refused before any work is done, and the file stays."""
    slide, out = write_tissue(tmp_path / "slide.svs"), tmp_path / "file"
    out.write_text("mine")

    code, _, err = command_line("predict", slide, "--out", out, *QUICK)

    assert code == 2
    assert "is a file" in err
    assert err.count("\n") == 1
    assert out.read_text() == "mine"


def test_an_output_folder_of_other_settings(command_line, tmp_path):
    """Results of two configurations never mix, unless asked to."""
    slide, out = write_tissue(tmp_path / "slide.svs"), tmp_path / "run"
    again = ("predict", slide, "--out", out, *QUICK, "--set", "threshold=0.4")
    assert command_line("predict", slide, "--out", out, *QUICK)[0] == 0

    code, _, err = command_line(*again)

    assert code == 2
    assert "--overwrite" in err
    assert command_line(*again, "--overwrite")[0] == 0


@pytest.mark.parametrize("others", [(), ("d.svs",)], ids=["one slide", "two"])
def test_a_folder_taken_over_is_the_new_runs_alone(command_line, tmp_path, others):
    """Slides that the other run was given, or that failed in it, are neither planned nor failed in this one."""
    out = tmp_path / "run"
    first = [write_tissue(tmp_path / name) for name in ("a.svs", "b.svs")]
    (tmp_path / "broken.svs").write_text("no slide")
    assert command_line("predict", *first, tmp_path / "broken.svs", "--out", out, "--workers", "0", *QUICK)[0] == 1
    assert "3 of 3 slides" in command_line("status", out)[1]
    second = [write_tissue(tmp_path / name) for name in ("c.svs", *others)]

    other = ("--workers", "0", *QUICK, "--set", "threshold=0.4", "--overwrite")
    assert command_line("predict", *second, "--out", out, *other)[0] == 0

    told = command_line("status", out)[1]
    assert f"{len(second)} of {len(second)} slides" in told
    assert "failed     0" in told
    names = [slide.stem for slide in second]
    for table in ("planned.csv", "predictions.csv"):
        assert [row.split(",")[0] for row in (out / table).read_text("utf-8").splitlines()[1:]] == names
    assert "broken" not in (out / "failures.csv").read_text("utf-8")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_prediction(tmp_path, name):
    """Ctrl-C, or the end of a batch job's time, says so in one line and leaves nothing half."""
    slide, out = write_tissue(tmp_path / "slide.svs", tissue_pixels()), tmp_path / "run"
    script = (
        "import signal; from he2her2.cli import main; from he2her2.results import slide_folder;"
        f"slide_folder.write_geojson = lambda *_: signal.raise_signal(signal.{name}); main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, "predict", slide, "--out", out, *QUICK],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (130, "he2her2: stopped\n")
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_a_full_disk(tmp_path):
    """Files that cannot grow stop the command with one line; no half slide is left."""
    slide, out = write_tissue(tmp_path / "slide.svs"), tmp_path / "run"
    script = (
        "import resource, sys; from he2her2.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, "predict", slide, "--out", out, *QUICK],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_a_mistaken_setting(refused, tmp_path):
    """Settings are checked before the slide is opened."""
    refused(tmp_path / "slide.svs", "selection.m", options=("--weights", "untrained:0", "--set", "selection.m=3"))


def test_annotations_that_are_not_there(refused, tmp_path):
    """The file that was looked for is named; regions beside the slide are told from no tumour."""
    slide, regions = write_tissue(tmp_path / "slide.svs"), tmp_path / "regions.geojson"
    ring = [[9000, 9000], [9999, 9000], [9999, 9999], [9000, 9000]]

    refused(slide, "regions.geojson", "no such file", options=(*QUICK, "--annotations", regions))
    regions.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    refused(slide, "slide", "outside the slide", options=(*QUICK, "--annotations", regions))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("tiling.mask_downsample=96", "does not divide"),
        ("scoring.beta=inf", "scoring.beta"),
        ("quality.blur_mpp=0.001", "quality.blur_mpp"),
        ("tissue.min_saturation=200", "above max_saturation"),
        ("adaptive.candidates=10", "fewer than points"),
        ("preset=[1]", "preset"),
    ],
)
def test_settings_that_cannot_work_together(refused, tmp_path, setting, words):
    """Each is one line, before anything is computed with it."""
    refused(write_tissue(tmp_path / "slide.svs"), words, options=(*QUICK, "--set", setting))


def test_a_slide_far_too_coarse(refused, tmp_path):
    """Nothing can be made up: 40 times coarser than the network's pixels is refused."""
    refused(write_tissue(tmp_path / "slide.svs"), "slide", "too coarse", options=(*QUICK, "--mpp", "9.9"))


def test_a_named_pipe(refused, tmp_path):
    """Waiting for it would take for ever."""
    os.mkfifo(tmp_path / "pipe.svs")

    refused(tmp_path / "pipe.svs", "pipe", "no ordinary file")


@pytest.mark.parametrize(
    "arguments", [("predict",), ("predict", "a.svs"), ("predict", "a.svs", "--out", "x", "--mpp", "y")]
)
def test_a_mistyped_command(command_line, arguments):
    """One line that names the option, exit code 2."""
    code, _, err = command_line(*arguments)

    assert code == 2
    assert err.count("\n") == 1
    assert "--help" in err


def test_another_slide_of_the_same_name_is_refused(command_line, tmp_path):
    """Neither another file nor none gets, or replaces, the result of the first; unless asked for."""
    out, first, second = tmp_path / "run", tmp_path / "1" / "a.svs", tmp_path / "2" / "a.svs"
    for slide, share in ((first, 0.8), (second, 0.2)):
        slide.parent.mkdir()
        write_tissue(slide, tissue_pixels(share=share))
    assert command_line("predict", first, "--out", out, *QUICK)[0] == 0
    before = (out / "slides" / "a" / "prediction.json").read_bytes()

    for slide in (second, tmp_path / "3" / "a.svs"):
        code, _, err = command_line("predict", slide, "--out", out, *QUICK)
        assert (code, err.count("\n")) == (2, 1)
        assert f"another slide of this name, {first}" in err
    assert (out / "slides" / "a" / "prediction.json").read_bytes() == before
    assert "34 are needed" in command_line("predict", second, "--out", out, *QUICK, "--overwrite")[2]
    assert {path.name for path in (out / "slides" / "a").iterdir()} <= EVIDENCE


def test_a_slide_that_moved_is_the_one_that_is_done(command_line, tmp_path):
    """A cohort may lie elsewhere when a run goes on."""
    slide, out = write_tissue(tmp_path / "a.svs"), tmp_path / "run"
    assert command_line("predict", slide, "--out", out, *QUICK)[0] == 0
    written = (out / "slides" / "a" / "overlay.png").stat().st_mtime_ns
    (tmp_path / "moved").mkdir()
    moved = slide.rename(tmp_path / "moved" / "a.svs")

    assert command_line("predict", moved, "--out", out, *QUICK)[0] == 0
    assert (out / "slides" / "a" / "overlay.png").stat().st_mtime_ns == written


@pytest.mark.parametrize("name", [" ...svs", "...svs", "..svs", "x" * 240 + ".svs", "µ" * 110 + ".svs"])
def test_a_name_that_leads_out_of_the_slides_folder(command_line, tmp_path, name):
    """Nothing above it is touched, whatever the slide's name."""
    out, slide = tmp_path / "run", write_tissue(tmp_path / "a.svs")
    assert command_line("predict", slide, "--out", out, *QUICK)[0] == 0
    before = sorted(out.rglob("*"))

    code, _, err = command_line("predict", slide.rename(tmp_path / name), "--out", out, *QUICK)

    assert (code, err.count("\n")) == (2, 1)
    assert "rename the slide" in err
    assert sorted(out.rglob("*")) == before


def test_a_name_that_cannot_be_kept_did_not_fail_before(command_line, tmp_path):
    """Nothing of an earlier command is told in a new run's folder."""
    files = [write_tissue(tmp_path / name) for name in ("a.svs", "x" * 240 + ".svs")]

    code, out, err = command_line("predict", *files, "--out", tmp_path / "run", *QUICK)

    assert code == 1
    assert "rename the slide" in out + err
    assert "before" not in out + err


def test_segment_does_not_replace_predictions(command_line, tmp_path):
    """A run folder holds one kind of result."""
    slide, out = write_tissue(tmp_path / "slide.svs"), tmp_path / "run"
    assert command_line("predict", slide, "--out", out, *QUICK)[0] == 0

    code, _, err = command_line("segment", slide, "--out", out, *QUICK)

    assert code == 2
    assert "--overwrite" in err
    assert (out / "slides" / "slide" / "prediction.json").exists()


def test_two_commands_of_one_run_share_its_table(command_line, tmp_path):
    """A row of an earlier slide stays."""
    out = tmp_path / "run"
    for name in ("b", "a"):
        assert command_line("predict", write_tissue(tmp_path / f"{name}.svs"), "--out", out, *QUICK)[0] == 0

    assert [row.split(",")[0] for row in (out / "predictions.csv").read_text().splitlines()] == ["slide_id", "a", "b"]


@pytest.mark.parametrize("text", ["junk", "[]"])
def test_a_damaged_run_folder_is_refused(command_line, tmp_path, text):
    """Nothing is known of it, so nothing is mixed into it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)

    code, _, err = command_line("predict", write_tissue(tmp_path / "a.svs"), "--out", tmp_path / "run", *QUICK)

    assert code == 2
    assert "--overwrite" in err


def test_a_folder_with_a_bad_slide_goes_on(command_line, tmp_path):
    """Good slides are predicted, the bad one is a row with stage, reason and remedy, and the exit code is 1."""
    folder, out = tmp_path / "slides", tmp_path / "run"
    folder.mkdir()
    write_tissue(folder / "good.svs")
    (folder / "bad.svs").write_text("no slide")
    write_tissue(folder / "unscaled.svs", mpp=None)

    code, text, err = command_line("predict", folder, "--out", out, *QUICK)
    predictions = (out / "predictions.csv").read_text().splitlines()
    failures = (out / "failures.csv").read_text().splitlines()

    assert code == 1
    assert "1 slides done, 2 failed" in text
    assert err.count("FAILED") == 2
    assert [line.split(",")[0] for line in predictions] == ["slide_id", "good"]
    assert [line.split(",")[0] for line in failures] == ["slide_id", "bad", "unscaled"]
    assert failures[0] == "slide_id,path,stage,reason,remedy,evidence"
    assert (out / "slides" / "good" / "prediction.json").exists()
    assert not (out / "slides" / "bad").exists()
