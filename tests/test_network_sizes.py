"""The networks by name: the paper's sizes, the compact ones' limits, unknown names."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from he2her2.config import PRESETS
from he2her2.errors import ConfigError
from he2her2.models import AGGREGATORS, CNNS, aggregator_named, cnn_named
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, PAPER_TILE_CNN, PAPER_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.torch_modules import initial_weights, tensor_shapes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper-tile-cnn", 26_051_972),
        ("released-tile-cnn", 26_051_972),
        ("paper-tumour-cnn", 144_819_202),
        ("released-tumour-cnn", 144_819_202),
        ("strided-tile-cnn", 131_940),
        ("compact-tumour-cnn", 389_890),
        ("lite0-tumour-cnn", 709_074),
        ("mlp", 118_338),
        ("mean", 0),
        ("median", 0),
        ("released-median", 0),
    ],
)
def test_number_of_weights(name, expected):
    """Every network has exactly as many weights as it is said to have."""
    with torch.device("meta"):
        module = (CNNS.get(name) or AGGREGATORS[name]).build()

    assert expected == sum(weight.numel() for weight in module.parameters())


def test_sides_of_the_papers_tile_cnn():
    """256 -> 252 -> 126 -> 124 -> 62 -> 60 -> 30 -> 28 -> 14, then 25 088 inputs."""
    assert PAPER_TILE_CNN.stage_sides == [(252, 126), (124, 62), (60, 30), (28, 14)]
    assert PAPER_TILE_CNN.dense_widths == (25_088, 1024, 256, 4)


def test_sides_of_the_papers_tumour_cnn():
    """101 -> 94 -> 47, then 565 504 inputs."""
    assert PAPER_TUMOUR_CNN.stage_sides == [(94, 47)]
    assert PAPER_TUMOUR_CNN.dense_widths == (565_504, 256, 2)


def test_names_of_the_tensors_are_the_authors():
    """Weights are called as in the authors' checkpoints."""
    layers = {name.rpartition(".")[0] for name in (*tensor_shapes(PAPER_TILE_CNN), *tensor_shapes(PAPER_MLP))}

    assert layers == {
        *(f"conv_layers.{i}" for i in range(4)),
        *(f"fc_layers.{i}" for i in range(3)),
        *(f"mlp_layers.{i}" for i in range(4)),
    }


@pytest.mark.parametrize("spec", [STRIDED_TILE_CNN, COMPACT_TUMOUR_CNN], ids=lambda spec: spec.name)
def test_compact_networks_are_below_3_mb(spec):
    """A compact network's tensors, all of them, stay below 3 MB."""
    assert sum(np.prod(shape) for shape in tensor_shapes(spec).values()) * 4 < 3e6


def test_released_networks_differ_in_their_input_only():
    """The released code's tile CNN is the paper's behind 8-bit lightness."""
    released = CNNS["released-tile-cnn"]

    assert replace(released, name=PAPER_TILE_CNN.name, input=PAPER_TILE_CNN.input) == PAPER_TILE_CNN
    assert replace(PAPER_TILE_CNN.input, colour="lightness-uint8") == released.input


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_presets_name_networks_that_exist(config):
    """Every preset's networks are known, in their roles."""
    assert cnn_named(config.networks.tumour_cnn, "tumour_cnn").role == "tumour_cnn"
    assert cnn_named(config.networks.tile_cnn, "tile_cnn").role == "tile_cnn"
    assert aggregator_named(config.networks.aggregator).role == "aggregator"


def test_an_unknown_name_lists_the_known_ones():
    """The message names the setting, what was asked for, and what there is for this role."""
    with pytest.raises(ConfigError, match=r"networks.tile_cnn: there is no 'resnet'; choose one of strided-tile-cnn, "):
        cnn_named("resnet", "tile_cnn")
    with pytest.raises(ConfigError, match=r"networks.aggregator: there is no 'max'; choose one of mlp, mean, median, "):
        aggregator_named("max")


def test_a_network_of_another_role_is_unknown():
    """A tumour CNN cannot score tiles."""
    with pytest.raises(ConfigError, match="there is no 'compact-tumour-cnn'"):
        cnn_named("compact-tumour-cnn", "tile_cnn")


def test_an_input_too_small_for_the_layers_is_refused():
    """A tile that shrinks to nothing on its way makes no network."""
    small = replace(PAPER_TILE_CNN.input, side_px=32, network_px=32)

    with pytest.raises(ValueError, match="too small"):
        replace(PAPER_TILE_CNN, input=small)


def test_initial_weights_are_torchs_distribution():
    """Uniform in ±1 / sqrt(fan in), as torch starts a convolution and a matrix."""
    weights = initial_weights(PAPER_TILE_CNN, seed=0)

    for name, fan_in in (("conv_layers.3", 64 * 9), ("fc_layers.1", 1024)):
        kernel, bound = weights[f"{name}.weight"], fan_in**-0.5
        assert np.abs(kernel).max() == pytest.approx(bound, rel=1e-2)
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=1e-2)
        assert np.abs(weights[f"{name}.bias"]).max() <= bound


def test_initial_weights_follow_the_seed():
    """The same seed gives the same weights, another seed others."""
    first, again, other = (initial_weights(STRIDED_TILE_CNN, seed) for seed in (1, 1, 2))

    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["fc_layers.0.weight"], other["fc_layers.0.weight"])


def test_no_two_tensors_share_their_numbers():
    """Each tensor has a stream of its own: two layers of one shape and bound start apart."""
    spec = replace(STRIDED_TILE_CNN, hidden=(128, 128))  # fc_layers.0 and fc_layers.1 are both 128 x 128
    weights = initial_weights(spec, seed=1)

    assert not np.isclose(weights["fc_layers.0.weight"], weights["fc_layers.1.weight"]).all()


def test_initial_batch_norm_is_the_identity():
    """Gain 1, offset 0, mean 0, variance 1."""
    weights = initial_weights(STRIDED_TILE_CNN, seed=0)

    values = {name.rpartition(".")[2]: set(weights[name].tolist()) for name in weights if name.startswith("norm")}

    assert values == {"weight": {1.0}, "bias": {0.0}, "running_mean": {0.0}, "running_var": {1.0}}
