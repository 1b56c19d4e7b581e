"""Runs of many slides as a user has them: any number of workers, in any order, in parts, resumed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.tissue_slides import GLASS, QUICK, SIDE, tissue_pixels, write_tissue

TABLES = ("predictions.csv", "failures.csv")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Three slides, one of them without enough tissue, one blank, and a file that is none."""
    folder = tmp_path_factory.mktemp("slides")
    for name, share in (("a", 0.8), ("b", 0.7), ("small", 0.2)):
        write_tissue(folder / f"{name}.svs", tissue_pixels(share=share))
    write_tissue(folder / "blank.svs", np.full((SIDE, SIDE, 3), GLASS, np.uint8))
    (folder / "text.svs").write_text("no slide")
    return folder


@pytest.fixture
def predict(command_line, slides):
    """Predict the slides; gives code, output and errors."""

    def run(out, *options, what=None):
        return command_line("predict", *(what or [slides]), "--out", out, *QUICK, *options)

    return run


def tables(run):
    return [(run / name).read_bytes() for name in TABLES]


def test_tables_are_the_same_whoever_worked_on_the_slides(predict, slides, tmp_path):
    """In this process, by workers, in another order, in two parts, resumed: equal to the byte."""
    code, out, err = predict(tmp_path / "alone", "--workers", "0")
    assert code == 1
    assert "2 slides done, 3 failed" in out
    expected = tables(tmp_path / "alone")
    assert expected[1].decode().count("\r\n") == 4

    backwards = sorted(slides.iterdir(), reverse=True)
    predict(tmp_path / "workers", "--workers", "2", what=backwards)
    assert tables(tmp_path / "workers") == expected

    parts = tmp_path / "parts"
    predict(parts, "--workers", "0", "--shard", "1/2")
    assert len((parts / "planned.csv").read_text().splitlines()) == 6
    assert tables(parts) != expected
    predict(parts, "--workers", "0", "--shard", "2/2")
    assert tables(parts) == expected

    code, out, err = predict(parts)
    assert code == 1
    assert "2 slides done (2 of them before), 3 failed (3 of them before)" in out
    assert "3 slides failed before and are not tried again" in err
    assert tables(parts) == expected
    assert not (parts / "claims").exists()


def test_a_slide_that_fails_leaves_what_was_found(predict, tmp_path):
    """Masks and an overlay up to the stage, named by its row; nothing of a file that cannot be opened."""
    run = tmp_path / "run"
    _, _, err = predict(run, "--workers", "0")
    rows = {line.split(",")[0]: line.split(",")[-1] for line in (run / "failures.csv").read_text().splitlines()[1:]}

    assert rows == {"blank": "slides/blank", "small": "slides/small", "text": ""}
    assert {path.name for path in (run / "slides" / "blank").iterdir()} == {
        "blur.png", "overlay.png", "pen.png", "tissue.png",
    }  # fmt: skip
    assert {"tumour.png", "tumour_map.png"} <= {path.name for path in (run / "slides" / "small").iterdir()}
    assert np.asarray(Image.open(run / "slides" / "small" / "tissue.png")).any()
    assert f"see {run / 'slides' / 'small'}" in err


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_ends_cleanly_within_seconds(slides, tmp_path, end):
    """Workers and all; the same command goes on where it was."""
    if os.name == "nt":
        pytest.skip("no such signals")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "he2her2", "predict", slides, "--out", run, "--workers", "1", *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 60
    while not (run / "slides" / "a" / "prediction.json").exists() and time.monotonic() < until:
        time.sleep(0.02)
    begin = time.monotonic()
    process.send_signal(end)
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert out.endswith("he2her2: stopped\n")
    assert time.monotonic() - begin < 5
    assert (run / "predictions.csv").read_text().splitlines()[1].startswith("a,")
    assert not [path for path in run.rglob("*") if ".draft" in path.name or "claims" in path.name]
    assert json.loads((run / "run.json").read_text())["digest"]
