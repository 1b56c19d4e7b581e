"""The comparison of two checkouts sees what differs."""

import json

import h5py
import numpy as np
import pytest
from experiments import unchanged
from experiments.unchanged import Side, Step
from PIL import Image

STEP = Step("step", "")


@pytest.fixture
def sides(tmp_path):
    """Two checkouts' results of one step: a table, a JSON file, a picture, arrays and weights."""
    sides = Side("before", tmp_path, tmp_path), Side("after", tmp_path, tmp_path)
    for side in sides:
        folder = side.folder(STEP)
        folder.mkdir(parents=True)
        (folder / "predictions.csv").write_text("slide_id,path,probability,warnings\na,/x,0.5,no ink\n", "utf-8")
        (folder / "evaluation.json").write_text(json.dumps({"AUC": 0.5, "method": "by DeLong"}), "utf-8")
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "tissue.png")
        (folder / "weights.safetensors").write_bytes(b"weights")
        with h5py.File(folder / "tiles.h5", "w") as file:
            file["scores"] = np.array([0.5, np.nan])
            file["scores"].attrs["mpp"] = 0.25
    return sides


def differences(sides):
    return {place: what for found in unchanged.compare_step(STEP, sides).values() for place, what in found}


def test_the_same_results_are_equal(sides):
    """Nothing differs; a value that is none equals itself."""
    assert not differences(sides)


def change_arrays(folder):
    with h5py.File(folder / "tiles.h5", "a") as file:
        file["scores"][0] = np.nextafter(0.5, 1)


def change_attributes(folder):
    with h5py.File(folder / "tiles.h5", "a") as file:
        file["scores"].attrs["mpp"] = 0.5


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (change_arrays, "tiles.h5:scores"),
        (change_attributes, "tiles.h5:scores/mpp"),
        (lambda f: Image.fromarray(np.eye(2, dtype=np.uint8)).save(f / "tissue.png"), "tissue.png:pixels"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"others"), "weights.safetensors:bytes"),
        (lambda f: (f / "evaluation.json").write_text('{"AUC": 0.6, "method": "by DeLong"}'), "evaluation.json:/AUC"),
        (lambda f: (f / "evaluation.json").write_text('{"AUC": 0.5}'), "evaluation.json:/method"),
        (
            lambda f: (f / "predictions.csv").write_text("slide_id,path,probability,warnings\na,/x,0.51,no ink\n"),
            "predictions.csv:0/probability",
        ),
        (lambda f: (f / "predictions.csv").write_text("slide_id,probability\na,0.5\n"), "predictions.csv:columns"),
        (lambda f: (f / "tissue.png").unlink(), "tissue.png"),
    ],
)
def test_each_change_is_seen(sides, change, place):
    """A bit of an array, a pixel, a byte of the weights, a figure, a key, a cell, a column, a file."""
    change(sides[1].folder(STEP))

    assert place in differences(sides)


def test_paths_and_sentences_may_differ(sides):
    """A path is not looked at; a sentence in other words is counted apart."""
    table = "slide_id,path,probability,warnings\na,/other,0.5,no pen ink\n"
    (sides[1].folder(STEP) / "predictions.csv").write_text(table, "utf-8")

    assert differences(sides) == {"predictions.csv:0/warnings": "words"}
    assert not unchanged.tell(STEP, "predictions.csv", [("predictions.csv:0/warnings", "words")])
    assert unchanged.tell(STEP, "evaluation.json", [("evaluation.json:/AUC", "0.5 -> 0.6")])
