"""A model soup: each network is the mean of several trainings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from he2her2.models import encoders, read_card
from he2her2.models.torch_modules import initial_weights, tensors_of
from he2her2.training.classifier import CnnClassifier
from he2her2.training.cross_validation import CnnTraining, TileSets
from he2her2.training.fit import fit
from he2her2.training.run import Execution
from he2her2.training.tumour.dataset import PatchDataset
from he2her2.training.tumour.soup import learn_soup, parts_in
from tests.test_tumour_training import QUICK, patches_of, write_set
from tests.tiny_training import ON_CPU, SETTINGS, TINY, bright_and_dark

SOUP = (*QUICK, "--set", "training.soup=2", "--set", "training.start=imagenet")
MEASURED = ("running_mean", "running_var")


@pytest.fixture
def tiny_network(monkeypatch):
    """The compact network, much smaller; its weights before training count as those of ImageNet."""
    monkeypatch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: TINY})
    monkeypatch.setattr(
        "he2her2.training.tumour.train.start_weights", lambda spec, settings: initial_weights(spec, settings.seed)
    )


def trained(checkpoint):
    """The weights that a training ended with."""
    module = CnnClassifier(TINY, SETTINGS, average=SETTINGS.average)
    module.load_state_dict(torch.load(checkpoint / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    return tensors_of(module.cnn)


def test_the_mean_of_the_weights_with_norms_of_its_own(tmp_path):
    """Every weight is the mean; what a batch norm knows of the tiles is measured behind the mean layers before it."""
    pixels, labels = bright_and_dark()
    tiles = PatchDataset(patches_of(np.arange(24).astype(str), labels, pixels), TINY.input.network_px)
    training = CnnTraining(TINY, replace(SETTINGS, soup=3, epochs=1), Execution(ON_CPU), average=SETTINGS.average)

    soup = learn_soup(training, TileSets(tiles), tmp_path)

    parts = [trained(tmp_path / "soup" / str(k)) for k in (1, 2, 3)]
    assert not np.allclose(parts[0]["fc_layers.0.weight"], parts[1]["fc_layers.0.weight"])  # each from its own seed
    found = tensors_of(soup.cnn)
    for name, array in found.items():
        if not name.endswith(MEASURED):
            np.testing.assert_allclose(array, np.mean([part[name] for part in parts], axis=0), atol=1e-6)
    convolved = [soup.cnn.conv_layers[0](soup.augmented(batch)).detach() for batch in training.batches(tiles)]
    first = np.mean([maps.mean((0, 2, 3)) for maps in convolved], axis=0)
    np.testing.assert_allclose(found["norm_layers.0.running_mean"], first, atol=1e-5)
    second = np.mean([part["norm_layers.1.running_mean"] for part in parts], axis=0)
    assert not np.allclose(found["norm_layers.1.running_mean"], second, atol=1e-5)
    norms = [norm for norm in soup.cnn.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.1] * 2  # it could be trained on
    again = trained(tmp_path)
    assert all(np.array_equal(again[name], array) for name, array in found.items())


def test_one_training_is_no_soup(tmp_path):
    """Its checkpoint and weights are where they are without."""
    pixels, labels = bright_and_dark()
    tiles = PatchDataset(patches_of(np.arange(24).astype(str), labels, pixels), TINY.input.network_px)
    training = CnnTraining(TINY, replace(SETTINGS, epochs=1), Execution(ON_CPU), average=SETTINGS.average)

    module = learn_soup(training, TileSets(tiles), tmp_path)

    assert parts_in(tmp_path, 1) == [tmp_path]
    assert not (tmp_path / "soup").exists()
    found = trained(tmp_path)
    assert all(np.array_equal(array, found[name]) for name, array in tensors_of(module.cnn).items())


def test_a_cross_validation_of_soups_and_resuming(tmp_path, tiny_network, command_line, monkeypatch):
    """Two trainings for each fold and for the network that is kept; stopped in the middle, it ends the same."""
    options = ("train", "tumour", "--patches", write_set(tmp_path / "set.npz"), "--folds", 2, *SOUP)
    learned = []

    def spy(module, train, val, folder, *rest, **settings):
        learned.append(folder.relative_to(tmp_path).as_posix())
        if learned[-1] == stop:
            raise KeyboardInterrupt
        return fit(module, train, val, folder, *rest, **settings)

    def weights(folder):
        return load_file(folder / "weights" / "tumour_cnn" / "weights.safetensors")

    stop = ""
    monkeypatch.setattr("he2her2.training.cross_validation.fit", spy)
    assert command_line(*options, "--out", tmp_path / "whole")[0] == 0
    names = [f"{name}/soup/{k}" for name in ("whole/folds/1", "whole/folds/2", "whole") for k in (1, 2)]
    assert learned == names
    stop = "stopped/folds/2/soup/2"
    assert command_line(*options, "--out", tmp_path / "stopped")[0] == 130
    stop = ""
    assert command_line(*options, "--out", tmp_path / "stopped", "--resume")[0] == 0

    for name in ("", "folds/1", "folds/2"):
        whole, resumed = weights(tmp_path / "whole" / name), weights(tmp_path / "stopped" / name)
        assert all(np.array_equal(array, resumed[tensor]) for tensor, array in whole.items())
        mean = trained(tmp_path / "whole" / name)
        assert all(np.array_equal(array, mean[tensor]) for tensor, array in whole.items())
    card = read_card(tmp_path / "whole" / "weights" / "tumour_cnn", "tumour_cnn")
    assert "mean of the weights of 2 trainings (model soup), batch norms measured anew" in card.recipe


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "training.soup=2"), "training.soup: networks that start at random weights have no good mean"),
        (("--set", "training.soup=0"), "training.soup"),
        (("--set", "training.soup=1.5"), "training.soup"),
    ],
)
def test_what_a_soup_needs(tmp_path, command_line, options, words):
    """One line, before anything is read."""
    given = ("--patches", tmp_path / "none.npz", "--out", tmp_path / "run", *options)

    code, _, errors = command_line("train", "tumour", *given)

    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()
