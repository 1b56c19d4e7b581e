"""From features to a prediction: the slide is cut, encoded and decided on as in training, without torch."""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from he2her2.config import load_config
from he2her2.csv_files import read_csv
from he2her2.errors import WeightsError
from he2her2.exchange import read_tiles_file
from he2her2.models import Bag, load_aggregator, load_slide_model, read_card
from he2her2.results import open_run
from tests.labelled_slides import write_labelled
from tests.test_features import onnx_encoder, write_card

CPU = ("--threads", "1", "--device", "cpu")
REPLACE = ("--annotations-use", "replace")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Slides, an encoder of 64 px at 0.25 µm/px, features of annotated tumour."""
    folder = tmp_path_factory.mktemp("study")
    write_labelled(folder)
    onnx_encoder(folder / "my-encoder", mpp=0.25, side_px=64)
    return folder


def run(command_line, *words):
    code, out, err = command_line(*words)
    assert code == 0, err
    return out


@pytest.fixture
def weights(study, command_line):
    """An attention on these features, with all that predict needs beside it."""
    out = study / "run"
    if not out.exists():
        cut = ("--encoder", study / "my-encoder", "--region", "annotated", "--out", study / "features")
        run(command_line, "features", study / "manifest.csv", *cut, *CPU)
        run(
            command_line, "train", "slides", "--manifest", study / "manifest.csv", "--features", study / "features",
            "--aggregator", "smooth-abmil", "--weights", "bundled", "--encoder", study / "my-encoder", "--out", out,
            "--set", "training.epochs=3", "--accelerator", "cpu",
        )  # fmt: skip
    return out / "weights"


def test_a_prediction_decides_as_training_did(study, weights, command_line, tmp_path):
    """The tiles, attention and probability of a slide are those of its file of features; its page can be made."""
    annotated = ("--annotations", study / "val1.png", *REPLACE)
    run(command_line, "predict", study / "val1.svs", "--weights", weights, "--out", tmp_path / "p", *annotated, *CPU)

    stored = read_tiles_file(study / "features" / "val1.h5")
    aggregator = load_aggregator(str(weights), load_config(overrides=["networks.aggregator=smooth-abmil"]))
    assert stored.features is not None
    assert stored.centres_um is not None
    expected = aggregator(Bag(stored.features, stored.centres_um, np.ones(len(stored), bool)))
    (row,) = read_csv(tmp_path / "p" / "predictions.csv")
    with h5py.File(tmp_path / "p" / "slides" / "val1" / "tiles.h5") as file:
        assert np.array_equal(file["coords"][:], stored.places)
        assert file["attention"][:] == pytest.approx(expected.contributions, abs=1e-9)
        assert file["logits"].shape == (len(stored), 4)
    geojson = json.loads((tmp_path / "p" / "slides" / "val1" / "tiles.geojson").read_text())
    attention = [one["properties"]["measurements"]["Attention"] for one in geojson["features"][1:]]
    assert float(row["probability"]) == pytest.approx(expected.probability, abs=1e-6)
    assert sorted(attention) == pytest.approx(sorted(expected.contributions.round(8)), abs=1e-8)
    assert open_run(tmp_path / "p").tiles("val1") is not None
    run(command_line, "report", tmp_path / "p")
    page = (tmp_path / "p" / "report" / "cases" / "val1.html").read_text()
    assert "decides by features of an encoder, which a run does not keep" in page
    assert "Every tile has a share in it, its attention" in page


def test_tiles_of_all_tissue_are_told(study, weights, command_line, tmp_path):
    """A prediction is on tumour: it decided by other tiles than those that the weights learned from, without a word."""
    shutil.copytree(study / "features", tmp_path / "features")
    run_file = tmp_path / "features" / "run.json"
    run_file.write_text(json.dumps(json.loads(run_file.read_text()) | {"region": "tissue"}))
    quick = ("--aggregator", "mean-features", "--set", "training.epochs=1", "--accelerator", "cpu")
    words = ("--manifest", study / "manifest.csv", "--features", tmp_path / "features", *quick)

    _, _, err = command_line("train", "slides", *words, "--out", tmp_path / "run")

    told = "the features are of all tissue: predict cuts the tumour that it finds"
    assert f"CAUTION {told}" in " ".join(err.split())
    limits = [read_card(out / "aggregator", "aggregator").limits for out in (tmp_path / "run" / "weights", weights)]
    assert [any(told in limit for limit in own) for own in limits] == [True, False]


def test_it_needs_no_torch(study, weights, tmp_path):
    """The encoder and the aggregator both run on ONNX Runtime."""
    code = (
        "import sys\nfrom he2her2.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\nassert 'torch' not in sys.modules"
    )
    words = ["predict", study / "val1.svs", "--weights", weights, "--out", tmp_path / "p", *CPU]
    words += ["--annotations", study / "val1.png", *REPLACE]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "networks.aggregator=smooth-abmil" in done.stderr


def test_another_encoder_is_refused(study, weights, command_line, tmp_path):
    """Its numbers mean something else."""
    other = onnx_encoder(tmp_path / "other", mpp=0.25, side_px=32)

    code, _, err = command_line(
        "predict",
        study / "val1.svs",
        "--weights",
        weights,
        "--out",
        tmp_path / "p",
        "--set",
        f"runtime.encoder={other}",
    )

    assert code == 2
    assert "trained on features of another encoder" in err


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "hub", "entry": "small"},
        {"kind": "timm", "name": "hf-hub:somebody/else"},
        {"kind": "timm", "name": "vit_small", "weights": "w.pt", "options": {"checkpoint_path": "w.pt"}},
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_weights_run_no_code_of_their_authors(weights, tmp_path, model, beside):
    """Their encoder may, but only where the user names its folder, not where the weights do."""
    copy = shutil.copytree(weights, tmp_path / "weights")
    encoder = copy / "encoder" if beside else tmp_path / "elsewhere"
    shutil.rmtree(copy / "encoder")
    write_card(encoder, model)
    (encoder / "hubconf.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
    card = json.loads((copy / "aggregator" / "card.json").read_text())
    card["encoder"]["name"] = str(encoder)
    (copy / "aggregator" / "card.json").write_text(json.dumps(card))
    config = load_config(overrides=["networks.aggregator=smooth-abmil"])

    with pytest.raises(WeightsError, match=r"runs code of its author's .*--set runtime.encoder="):
        load_slide_model(str(copy), config, device="cpu")
    assert not (tmp_path / "it-ran").exists()
