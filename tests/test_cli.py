"""The commands as a user runs them."""

import csv
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from time import sleep

import h5py
import numpy as np
import pytest
import typer
from PIL import Image

from he2her2.cli import main
from he2her2.cli.commands import app
from he2her2.cli.console import open_closed_streams, printable, say
from he2her2.config import PRESETS, load_config
from he2her2.models import UNTRAINED_NOTICE
from he2her2.results import Failure
from tests.conftest import REPOSITORY
from tests.tissue_slides import QUICK, tissue_pixels, write_tissue


@pytest.fixture
def he2her2(command_line):
    """Run a command line that succeeds; gives its standard output."""

    def run(*arguments):
        code, out, err = command_line(*arguments)
        assert code == 0, err
        return out

    return run


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A small slide."""
    return write_tissue(tmp_path_factory.mktemp("slides") / "S1.svs")


def test_problems_of_one_kind_do_not_bury_the_others(command_line, tmp_path):
    """A column of wrong cells makes a problem for each row; ten are shown, and the number of the rest."""
    rows = "".join(f"s{n},s{n}.svs,p{n},x{n},{'a' if n == 50 else ''}\n" for n in range(60))
    (tmp_path / "m.csv").write_text(f"slide_id,path,patient_id,ihc_score,mpp\n{rows}")

    code, _, err = command_line("manifest", "check", tmp_path / "m.csv")
    lines = err.splitlines()

    assert code == 2
    assert sum("no IHC score" in line for line in lines) == 10
    assert sum("is missing" in line for line in lines) == 10
    assert sum("mpp" in line for line in lines) == 1
    assert lines[-1] == "he2her2: and 100 more problems like these"


def test_predict_leaves_the_whole_run_folder(he2her2, slide, tmp_path):
    """Every file that DESIGN names, each readable and consistent with the others."""
    out = he2her2("predict", slide, "--out", tmp_path / "run", *QUICK)
    folder = tmp_path / "run" / "slides" / "S1"
    record = json.loads((folder / "prediction.json").read_text())
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    with (tmp_path / "run" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert sorted(path.name for path in folder.iterdir()) == [
        "blur.png", "heatmap.ome.tif", "overlay.png", "pen.png", "prediction.json", "tiles.geojson", "tiles.h5",
        "tissue.png", "tumour.png", "tumour_map.png", "tumour_samples.csv",
    ]  # fmt: skip
    assert f"HER2 {record['status']}" in out
    assert str(folder / "overlay.png") in out
    assert record["status"] == ("positive" if record["probability"] >= 0.5 else "negative")
    assert record["run_digest"] == run["digest"]
    assert run["config"]["selection"]["n_tiles"] == 5
    assert [row["slide_id"] for row in rows] == ["S1"]
    assert float(rows[0]["probability"]) == record["probability"]
    tumour = np.array(Image.open(folder / "tumour.png"))
    assert record["area_mm2"]["tumour"] == pytest.approx(tumour.sum() * 64e-6, abs=1e-4)
    with h5py.File(folder / "tiles.h5") as file:
        assert len(file["coords"]) == record["counts"]["scored"]
        assert file["selected"][:].sum() == record["counts"]["selected"] == 5
    features = json.loads((folder / "tiles.geojson").read_text())["features"]
    assert len(features) == record["counts"]["selected"] + 1


@pytest.mark.parametrize(
    ("name", "options", "tissue_mm2"),
    [
        ("CMU-1-Small-Region.svs", (), (0.5, 0.75)),
        ("tcga-cr-7395-01a-01-ts1.svs", ("--mpp", "0.5"), (2.3, 2.8)),
        ("OS-1-detail.ome.tif", (), (0.055, 0.065)),
    ],
)
def test_real_slides_are_predicted(he2her2, data_dir, tmp_path, name, options, tissue_mm2):
    """An SVS at 20x, JPEG 2000 without mpp, and an OME-TIFF: tissue where the overlays, looked at, have it."""
    record = json.loads(
        he2her2("predict", data_dir / "slides" / name, "--out", tmp_path / "run", "--json", *QUICK, *options)
    )

    assert tissue_mm2[0] < record["area_mm2"]["tissue"] < tissue_mm2[1]
    assert record["quality"]["pen_share"] < 0.02  # the teal dye on CMU-1's margin
    assert record["quality"]["blur_share"] < 0.02
    assert record["counts"]["selected"] == 5


def test_untrained_weights_are_said_everywhere(he2her2, slide, tmp_path):
    """On the terminal, in the record, in the table."""
    out = he2her2("predict", slide, "--out", tmp_path / "run", *QUICK)
    notice = "untrained weights: the numbers mean nothing"

    assert notice in out
    assert notice in (tmp_path / "run" / "slides" / "S1" / "prediction.json").read_text()
    assert notice in (tmp_path / "run" / "predictions.csv").read_text()
    assert "research use only" in out


def test_the_same_command_again_keeps_what_is_done(he2her2, slide, tmp_path):
    """The slide's folder is not written again, and the answer is the same."""
    command = ("predict", slide, "--out", tmp_path / "run", "--json", *QUICK)
    first = he2her2(*command)
    overlay = tmp_path / "run" / "slides" / "S1" / "overlay.png"
    written = overlay.stat().st_mtime_ns

    assert he2her2(*command) == first
    assert overlay.stat().st_mtime_ns == written


def test_a_changed_slide_or_annotation_is_predicted_again(he2her2, tmp_path):
    """What is kept is the result of these very files."""
    slide, regions = write_tissue(tmp_path / "S1.svs"), tmp_path / "S1.geojson"
    command = ("predict", slide, "--out", tmp_path / "run", "--json", "--annotations", regions, *QUICK)

    def tumour(width):
        ring = [[0, 0], [width, 0], [width, 2048], [0, 2048], [0, 0]]
        regions.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        return json.loads(he2her2(*command))["area_mm2"]["tumour"]

    whole, half = tumour(2048), tumour(1024)
    write_tissue(slide, tissue_pixels(share=0.6))

    assert half == pytest.approx(whole / 2, rel=0.05)
    assert tumour(2048) < 0.8 * whole


def test_the_use_of_annotation_classes_is_printed_and_kept(he2her2, command_line, slide, tmp_path):
    """In the answer, in JSON and in the run's digest; another choice asks for another folder."""
    left = [[0, 0], [1024, 0], [1024, 2048], [0, 2048], [0, 0]]
    classes = {"Tumor": left, "Necrosis": [[x, y // 2] for x, y in left], "Stroma": [[2 * x, y] for x, y in left]}
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, ring in (*classes.items(), ("Tumor", [[5, 5], [5, 5], [5, 5]]))
    ]
    regions = tmp_path / "S1.geojson"
    regions.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    command = ("segment", slide, "--annotations", regions, "--annotations-use", "replace", *QUICK)

    told = he2her2(*command, "--out", tmp_path / "by-name")
    result = json.loads(he2her2(*command, "--out", tmp_path / "by-name", "--json"))
    stroma = ("--annotation-class", "stroma")
    chosen = json.loads(he2her2(*command, "--out", tmp_path / "chosen", "--json", *stroma))

    assert "  regions  Tumor: tumour; Necrosis: cut out; Stroma: not used\n" in told
    assert "  warning  skipped 1 of 4 annotated shapes: region 'Tumor' has 1 point, which encloses nothing\n" in told
    assert result["annotations"] == {"Tumor": "tumour", "Necrosis": "cut out", "Stroma": "not used"}
    assert len(result["annotation_warnings"]) == 1
    assert chosen["annotations"] == {"Tumor": "not used", "Necrosis": "cut out", "Stroma": "tumour"}
    assert chosen["area_mm2"]["tumour"] == pytest.approx(3 * result["area_mm2"]["tumour"], rel=0.1)
    for refused, problem in (
        ((*command, "--out", tmp_path / "by-name", *stroma), "holds results of other settings"),
        (
            ("segment", slide, "--out", tmp_path / "none", *QUICK, *stroma),
            "no effect without annotations: give",
        ),
    ):
        code, _, error = command_line(*refused)
        assert code == 2
        assert problem in error


def test_segment_writes_masks_only(he2her2, slide, tmp_path):
    """Masks, map and overlay, and no score."""
    out = he2her2("segment", slide, "--out", tmp_path / "run", *QUICK)
    folder = tmp_path / "run" / "slides" / "S1"

    assert "mm² of usable tissue" in out
    assert {"tissue.png", "tumour.png", "overlay.png", "segmentation.json"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "tiles.h5").exists()
    assert (tmp_path / "run" / "segmentations.csv").read_text().startswith("slide_id,")


def test_outputs_say_what_the_networks_that_ran_learned_from(he2her2, slide, tmp_path):
    """The bundled tile CNN and aggregator are of phantoms: masks do not rest on them, drawn tumour on no tumour CNN."""
    regions = tmp_path / "S1.geojson"
    ring = [[0, 0], [2048, 0], [2048, 2048], [0, 2048], [0, 0]]
    regions.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    drawn = ("--annotations", regions, "--annotations-use", "replace", "--json", "--weights")

    def notices(verb, weights):
        out = he2her2(verb, slide, "--out", tmp_path / f"{verb}-{weights[:8]}", *drawn, weights)
        return json.loads(out)["notices"]

    anywhere = [f"--set=adaptive.{key}" for key in ("threshold=0.01", "iterations=2", "points=20")]  # none is there
    masks = he2her2("segment", slide, "--out", tmp_path / "masks", "--weights", "bundled", "--json", *anywhere)
    assert json.loads(masks)["notices"] == []
    assert notices("predict", "bundled") == ["trained on phantoms: no clinical meaning"]
    assert notices("segment", "untrained:0") == []
    assert notices("predict", "untrained:0") == [UNTRAINED_NOTICE]


def test_inspect_tells_what_a_slide_is(he2her2, slide):
    """As text and as JSON."""
    text = he2her2("inspect", slide)
    (report,) = json.loads(he2her2("inspect", slide, "--deep", "--json"))["slides"]

    assert "2048 x 2048 px" in text
    assert "0.25 µm/px" in text
    assert report["mpp"] == 0.25
    assert report["tiles"]["n_checked"] == report["tiles"]["n_tiles"]


def test_inspect_names_slides_as_their_manifest_does(he2her2, slide, tmp_path):
    """Archives have a folder a patient, and each file the same name."""
    (tmp_path / "m.csv").write_text(f"slide_id,path,patient_id\nfirst,{slide},P1\n")

    [report] = json.loads(he2her2("inspect", tmp_path / "m.csv", "--json"))["slides"]

    assert (report["slide_id"], report["path"]) == ("first", str(slide))


@pytest.mark.parametrize("preset", PRESETS)
def test_config_prints_the_preset(he2her2, preset, tmp_path):
    """As a file that --config takes."""
    file = tmp_path / "own.toml"
    file.write_text(he2her2("config", "--preset", preset))

    assert load_config(file=file) == PRESETS[preset]


def test_help_needs_no_heavy_library():
    """`--help` is instant because it loads none of them."""
    code = (
        "import sys; from he2her2.cli import run_here; sys.argv = ['he2her2', '--help']\n"
        "try: run_here()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'onnxruntime', 'scipy', 'tifffile', 'pydantic'}; print(*heavy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not done.stdout.splitlines()[-1]


def test_prediction_needs_no_torch(tmp_path):
    """Prediction with trained weights, on the CPU, loads neither torch nor what only training and plotting need."""
    code = (
        "import sys; from he2her2.cli import run_here\n"
        "try: run_here()\nexcept SystemExit as stop: assert not stop.code\n"
        "print([name for name in ('torch', 'lightning', 'matplotlib') if name in sys.modules])"
    )
    slide = write_tissue(tmp_path / "S1.svs", tissue_pixels(3072, 0.95))
    quick = ["--threads", "2", "--set", "adaptive.iterations=2", "--set", "adaptive.points=20"]
    quick += ["--set", "adaptive.threshold=0.001"]  # noise is no tumour
    command = ["predict", str(slide), "--out", str(tmp_path / "run"), *quick]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "\x1b" not in done.stdout + done.stderr  # plain text when not a terminal


def test_the_readme_names_every_command():
    """A command that nobody can find does not exist."""
    readme = (REPOSITORY / "README.md").read_text()
    names = typer.main.get_group(app).commands

    assert names
    for name in names:
        assert f"he2her2 {name}" in readme, name


def test_version(he2her2):
    """It prints name and number."""
    assert he2her2("--version").split()[0] == "he2her2"


@pytest.mark.parametrize(
    "words", [["predict", ""], ["predict", "a.svs", "--out", ""], ["inspect", ""], ["predict", "a.svs", "--out="]]
)
def test_an_empty_argument_is_not_the_current_folder(command_line, tmp_path, monkeypatch, words):
    """An unset shell variable would otherwise have every slide here predicted, or results written here."""
    monkeypatch.chdir(tmp_path)

    code, _, err = command_line(*words)

    assert code == 2
    assert "An argument is empty; check the shell variables in the command" in err
    assert not list(tmp_path.iterdir())


def test_a_module_walk_does_not_run_the_command(monkeypatch):
    """As documentation tools import every module: the command ran, and ended the process at once."""
    ran: list[bool] = []
    monkeypatch.setattr("he2her2.cli.main", lambda: ran.append(True))
    monkeypatch.delitem(sys.modules, "he2her2.__main__", raising=False)

    importlib.import_module("he2her2.__main__")

    assert not ran


def test_module_is_the_command():
    """`python -m he2her2` does the same."""
    done = subprocess.run([sys.executable, "-m", "he2her2", "--help"], capture_output=True, text=True, check=True)

    assert "predict" in done.stdout


@pytest.mark.parametrize("name", ["a\x1b[2J.svs", "\x07.svs", "a\u202eb.svs"])
def test_control_characters_reach_no_terminal(command_line, tmp_path, name):
    """A file name may hold what clears a screen or turns text around; it is shown as an escape."""
    (tmp_path / name).write_text("no slide")

    for command in ("inspect", "predict"):
        options = ("--out", tmp_path / "run", *QUICK) if command == "predict" else ()
        _, out, err = command_line(command, tmp_path / name, *options)
        assert all(character.isprintable() or character in "\n\t" for character in out + err)
        assert "\\" in err


def test_a_line_end_in_a_name_begins_no_line(command_line, tmp_path):
    """A file could put words into the program's mouth, in notes on copies and in failures."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a.svs", "b\nall is well.svs"):
        (folder / name).write_text("no slide")

    _, _, err = command_line("predict", folder, "--out", tmp_path / "run", "--workers", "0", *QUICK)

    assert err.count("all is well") >= 2
    assert [line for line in err.splitlines() if line.startswith("all")] == []


def test_escapes_are_those_of_json():
    """`--json` may be read by a program."""
    value = {"description": "\x1b[2J \x9f \u202e \t µ"}

    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_a_reader_who_has_enough_ends_the_command_quietly(tmp_path):
    """`he2her2 config | head -1` is no error of ours; the code is not 1, by which slides have failed."""
    command = f"{sys.executable} -m he2her2 config | true; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device stands for a full disk")
def test_output_that_cannot_be_written_is_one_line(command_line, monkeypatch):
    """The disk of a log is full: no traceback, and no error that could pass for one of a slide."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = command_line("config")

    assert code == 2
    assert err.startswith("he2her2: standard output: cannot be written (No space left on device); ")
    assert err.count("\n") == 1


def test_closed_streams_lead_nowhere(monkeypatch):
    """Some starters of jobs close them; Python has None in their place."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)

    open_closed_streams()

    for error in (False, True):
        say("nobody hears", error=error)
    for stream in (sys.stdout, sys.stderr):
        assert stream.name == os.devnull
        stream.close()


def test_json_is_the_same_in_every_locale(command_line, slide, tmp_path, monkeypatch):
    """A terminal without an umlaut would have put a question mark into a slide's name."""
    shutil.copy(slide, tmp_path / "Größe.svs")
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)

    code, _, _ = command_line("inspect", tmp_path / "Größe.svs", "--json")

    assert code == 0
    assert json.loads(out.buffer.getvalue())["slides"][0]["slide_id"] == "Größe"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_stops_once(command_line, monkeypatch, number):
    """A batch system signals the command's two processes, and one passes it on to the other, which tidies up."""
    tidied = []

    def work(**_):
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            tidied.append(True)

    monkeypatch.setattr("he2her2.cli.app", work)

    code, _, err = command_line("config")

    assert (code, err, tidied) == (130, "he2her2: stopped\n", [True])


def test_a_signal_that_python_drops_stops_all_the_same(command_line, monkeypatch):
    """In a callback such as that which ends an import it was a traceback, and the command went on."""

    def work(**_):
        thing = {1}
        gone = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing
        assert gone() is None
        sleep(20)

    monkeypatch.setattr("he2her2.cli.app", work)

    code, _, err = command_line("config")

    assert (code, err) == (130, "he2her2: stopped\n")


def test_a_bug_is_no_slide_that_failed(monkeypatch, capsys):
    """A cluster's job takes code 1 for done but for some slides."""

    def broken(**_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("he2her2.cli.app", broken)
    monkeypatch.setattr("he2her2.cli.guarded", lambda run, _: run())

    with pytest.raises(SystemExit) as stop:
        main()

    assert stop.value.code == 70
    assert "ZeroDivisionError: ours" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "score-ihc"])
def test_slides_are_told_as_they_end(tmp_path, monkeypatch, command_line, command):
    """Thousands of them were told at the end, and none where the command was stopped before."""

    def run(_engine, tasks, _worker):
        yield tasks[0], Failure(tasks[0].slide_id, "", "open", "damaged", "copy it again")
        raise KeyboardInterrupt

    for name in "ab":
        (tmp_path / f"{name}.tif").write_text(name)
    monkeypatch.setattr("he2her2.cohort.SlideEngine.run", run)
    code, _, error = command_line(command, tmp_path)

    assert code == 130
    assert "a: damaged; copy it again" in error.replace("failed: ", "")
