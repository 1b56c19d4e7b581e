"""docs/add-an-aggregator.md, followed word by word: a file and a line make an aggregator that trains and predicts."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from he2her2.config import Selection
from he2her2.csv_files import read_csv
from he2her2.models import AggregatorSpec, Bag, RankingSettings, aggregator_named
from he2her2.models.export import check_aggregator
from he2her2.models.torch_modules import run_of
from tests.conftest import REPOSITORY
from tests.labelled_slides import write_labelled

PAGE = (REPOSITORY / "docs" / "add-an-aggregator.md").read_text("utf-8")
SMALL = ("--set", "selection.n_tiles=5", "--set", "runtime.threads=1", "--set", "runtime.device=cpu")
SMALL_TRAINING = (
    "--annotations-use",
    "replace",
    "--accelerator",
    "cpu",
    "--set",
    "training.epochs=1",
    "--set",
    "training.freeze_cnn=true",
)
RUN_COMMAND = """
import sys
from he2her2.cli import run_here
try:
    run_here()
except SystemExit as stop:
    assert not stop.code, stop
"""


def blocks(language):
    """The code blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def follow_page(root):
    """Write the page's file and lines into a copy of the source code."""
    shutil.copytree(REPOSITORY / "src", root / "src")  # with its bytecode, which need not be made again
    written, changed = re.findall(r"`(src/[\w/]+\.py)`", PAGE)
    (root / written).write_text(blocks("python")[0], "utf-8")
    registry = (root / changed).read_text("utf-8")
    before = ""
    for line in blocks("diff")[0].splitlines(keepends=True):
        if line.startswith("+"):
            before += line[1:]
        elif before:
            assert line[1:] in registry, "the page shows lines that are there"
            registry, before = registry.replace(line[1:], before + line[1:], 1), ""
    (root / changed).write_text(registry, "utf-8")


@pytest.mark.slow
def test_the_page_adds_an_aggregator(tmp_path):
    """Checked, trained, exported, and run without torch."""
    follow_page(tmp_path)
    write_labelled(tmp_path, {"train": 2, "val": 2})
    shutil.copy(tmp_path / "val1.svs", tmp_path / "slide.svs")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}

    def run(*words):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    train, predict = (shlex.split(line)[1:] for line in blocks("bash")[0].splitlines())
    run("-c", blocks("python")[-1] + RUN_COMMAND, *train, *SMALL, *SMALL_TRAINING)
    run(
        "-c",
        RUN_COMMAND + "assert 'torch' not in sys.modules",
        *predict,
        *SMALL,
        "--annotations",
        "val1.png",
        "--annotations-use",
        "replace",
    )

    (row,) = read_csv(tmp_path / "prediction" / "predictions.csv")
    assert row["status"] in ("positive", "negative")
    assert 0 < float(row["probability"]) < 1


class Mean(nn.Module):
    """The mean of the tiles' features; `fault` breaks one promise."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.classify = nn.Linear(4, 2)

    def forward(self, features, coords_um, mask):  # noqa: ARG002
        shares = mask / mask.sum(dim=1, keepdim=True)
        if self.fault == "order":
            features = features * torch.arange(features.shape[1])[:, None]
        if self.fault == "padding":
            shares = torch.full_like(shares, 1 / features.shape[1])
        pooled = (shares[..., None] * features).sum(dim=1)
        if self.fault == "size":
            pooled = pooled * float(mask[0].sum())
        if self.fault == "bags":
            pooled = pooled.mean(dim=0, keepdim=True).expand_as(pooled)
        if self.fault == "shares":
            shares = shares * 2
        if self.fault == "sign":
            shares = shares + torch.tensor([0.5, -0.5] + [0.0] * (shares.shape[1] - 2))
        return self.classify(pooled), shares


class MeanSpec(AggregatorSpec):
    """An aggregator that may break one promise."""

    fault = ""

    def build(self):
        return Mean(self.fault)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("order", "the order of the tiles changes the logits"),
        ("padding", "padding changes the logits"),
        ("bags", "several bags at once change the logits"),
        ("shares", "the contributions do not sum to 1"),
        ("sign", "a contribution is negative"),
        ("size", "differs from"),
    ],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_the_check_finds_a_broken_promise(fault, found):
    """Each promise of the page is looked at."""
    spec = MeanSpec("mean-of-features", "mean-of-features")
    object.__setattr__(spec, "fault", fault)

    with pytest.raises(ValueError, match=f"mean-of-features: .*{found}"):
        check_aggregator(spec)


@pytest.mark.parametrize("name", ["mlp", "mean", "median", "released-median"])
def test_the_aggregators_that_there_are_keep_their_promises(name):
    """The page's check passes them."""
    check_aggregator(aggregator_named(name))


def test_an_aggregator_of_all_tiles_says_what_each_contributes():
    """Padding contributes nothing, scores are none, and the tiles come in the order of their contributions."""
    spec = MeanSpec("mean-of-features", "mean-of-features")
    mask = np.array([True, False, True, True])
    bag = Bag(np.zeros((4, 4), np.float32), np.zeros((4, 2)), mask)

    found = spec.aggregate(bag, None, run_of(spec, spec.build()))

    assert found.scores is None
    assert found.selected.tolist() == [0, 2, 3]
    assert found.contributions.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    assert 0 < found.probability < 1


def test_padding_is_never_selected():
    """A ranking aggregator leaves padding out, whatever its features."""
    spec = aggregator_named("mean").sized_for(Selection(n_tiles=2))
    features = np.eye(4, dtype=np.float32)[[0, 3, 2, 1]] * 1000
    bag = Bag(features, np.zeros((4, 2)), np.array([True, False, True, True]))

    found = spec.aggregate(bag, RankingSettings(1.0, 1.0), lambda _: {})

    assert found.selected.tolist() == [2, 0]
    assert found.contributions.tolist() == [0.5, 0, 0.5, 0]
