"""The networks in torch and as ONNX graphs: the paper's layers, and the same numbers from both."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from he2her2.models import AGGREGATORS, InputSpec, soft_argmax
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.aggregators.tile_class_rules import TileClassRuleSpec
from he2her2.models.encoders.cnn import (
    COMPACT_TUMOUR_CNN,
    LITE0_TUMOUR_CNN,
    PAPER_TILE_CNN,
    PAPER_TUMOUR_CNN,
    STRIDED_TILE_CNN,
    Conv,
)
from he2her2.models.export import _graph_of, _write_onnx, session_of
from he2her2.models.onnx_engine import new_session
from he2her2.models.torch_modules import (
    expected_class,
    initial_weights,
    module_of,
    put_tensors,
    tensor_shapes,
    tensors_of,
)

NARROW_TUMOUR_CNN = replace(  # the same family as the paper's, 144.8 M weights fewer
    PAPER_TUMOUR_CNN,
    input=InputSpec(0.25, 128, 31, "yuv"),
    convs=(Conv(8, kernel=8, pool="l2"),),
    hidden=(16,),
)
CNNS = [PAPER_TILE_CNN, STRIDED_TILE_CNN, COMPACT_TUMOUR_CNN, LITE0_TUMOUR_CNN, NARROW_TUMOUR_CNN]


def lively_weights(spec):
    """Weights whose logits differ from tile to tile, and batch norms that are not the identity."""
    weights = initial_weights(spec, seed=3)
    generator = np.random.default_rng(4)
    return {
        name: tensor + generator.uniform(-0.5, 0.5, tensor.shape).astype(np.float32)
        if name.startswith("norm_layers")
        else 2 * tensor
        for name, tensor in weights.items()
    }


def some_input(spec, n=6):
    return np.random.default_rng(5).random((n, *spec.signature.inputs["input"][1:]), np.float32)


def logits_by_onnx(spec, weights, rows):
    return session_of(spec, weights).run(None, {"input": rows})[0]


@torch.no_grad()
def logits_by_torch(spec, weights, rows):
    module = spec.build().eval()
    put_tensors(module, weights)
    return module(torch.from_numpy(rows)).numpy()


def scores_as_logits(scores):
    """Logits (b, m, 4) that soft-argmax at beta = 1000 scores as the whole numbers nearest to (b, m) scores."""
    return functional.one_hot(scores.round().long(), 4).float()


def assert_same_logits(expected, logits):
    assert np.abs(expected - logits).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert np.array_equal(expected.argmax(axis=1), logits.argmax(axis=1))
    assert len(np.unique(logits, axis=0)) == len(logits)  # a dead network would agree with itself


@pytest.mark.parametrize("spec", CNNS, ids=lambda spec: spec.name)
def test_onnx_and_torch_give_the_same_logits(spec):
    """The graph that prediction runs is the module that training trains, folded batch norms included."""
    weights, rows = lively_weights(spec), some_input(spec)

    assert_same_logits(logits_by_torch(spec, weights, rows), logits_by_onnx(spec, weights, rows))


@pytest.mark.slow
def test_onnx_and_torch_agree_on_the_whole_tumour_cnn():
    """All 144.8 million weights of the paper's tumour CNN."""
    weights, rows = initial_weights(PAPER_TUMOUR_CNN, seed=3), some_input(PAPER_TUMOUR_CNN, n=2)

    assert_same_logits(
        logits_by_torch(PAPER_TUMOUR_CNN, weights, rows), logits_by_onnx(PAPER_TUMOUR_CNN, weights, rows)
    )


def test_the_papers_tile_cnn_restated():
    """Figure 5 of the paper, written out with torch's functions, gives the module's logits."""
    w = {name: torch.from_numpy(tensor) for name, tensor in lively_weights(PAPER_TILE_CNN).items()}
    rows = some_input(PAPER_TILE_CNN, n=2)
    x = torch.from_numpy(rows)
    for i in range(4):
        x = functional.max_pool2d(
            functional.relu(functional.conv2d(x, w[f"conv_layers.{i}.weight"], w[f"conv_layers.{i}.bias"])), 2
        )
    x = x.flatten(1)
    x = functional.relu(functional.linear(x, w["fc_layers.0.weight"], w["fc_layers.0.bias"]))
    x = functional.relu(functional.linear(x, w["fc_layers.1.weight"], w["fc_layers.1.bias"]))
    x = functional.linear(x, w["fc_layers.2.weight"], w["fc_layers.2.bias"])

    assert_same_logits(x.numpy(), logits_by_torch(PAPER_TILE_CNN, lively_weights(PAPER_TILE_CNN), rows))


def test_the_tumour_cnn_restated():
    """CS256-FC256: convolution, ReLU, root of the sum of squares of each 2 x 2 block, two matrices."""
    weights, rows = lively_weights(NARROW_TUMOUR_CNN), some_input(NARROW_TUMOUR_CNN)
    w = {name: torch.from_numpy(tensor) for name, tensor in weights.items()}
    x = functional.conv2d(torch.from_numpy(rows), w["conv_layers.0.weight"], w["conv_layers.0.bias"]).clamp(min=0)
    blocks = x[:, :, :24, :24].unfold(2, 2, 2).unfold(3, 2, 2)
    x = blocks.square().sum(dim=(4, 5)).sqrt().flatten(1)
    x = (x @ w["fc_layers.0.weight"].T + w["fc_layers.0.bias"]).clamp(min=0)
    x = x @ w["fc_layers.1.weight"].T + w["fc_layers.1.bias"]

    assert_same_logits(x.numpy(), logits_by_torch(NARROW_TUMOUR_CNN, weights, rows))


def test_the_lite0_tumour_cnn_restated():
    """Stem, eleven inverted bottlenecks with shortcuts where the shape stays, mean, one matrix."""
    weights, rows = lively_weights(LITE0_TUMOUR_CNN), some_input(LITE0_TUMOUR_CNN, n=2)
    w = {name: torch.from_numpy(tensor) for name, tensor in weights.items()}
    stages = iter(range(33))

    def stage(x, stride=1, groups=1):
        k = next(stages)
        kernel, norm = w[f"conv_layers.{k}.weight"], f"norm_layers.{k}."
        x = functional.conv2d(x, kernel, w[f"conv_layers.{k}.bias"], stride, kernel.shape[-1] // 2, groups=groups)
        return functional.batch_norm(
            x, w[norm + "running_mean"], w[norm + "running_var"], w[norm + "weight"], w[norm + "bias"]
        )

    x = stage(torch.from_numpy(rows), stride=2).relu()
    x = stage(stage(x, groups=32).relu())
    for n_out, stride in ((24, 2), (24, 1), (40, 2), (40, 1), (80, 2), (80, 1), (80, 1), (112, 1), (112, 1), (112, 1)):
        before, hidden = x, 6 * x.shape[1]
        x = stage(stage(stage(x).relu(), stride, hidden).relu())
        assert x.shape[1] == n_out
        x = x + before if x.shape == before.shape else x
    x = functional.linear(x.mean(dim=(2, 3)), w["fc_layers.0.weight"], w["fc_layers.0.bias"])

    assert_same_logits(x.numpy(), logits_by_torch(LITE0_TUMOUR_CNN, weights, rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": 3}, "no multiples of 3"),
        ({"shortcut": 2}, "no output of its shape 2 stages before"),
        ({"shortcut": 9}, "no output of its shape 9 stages before"),
    ],
)
def test_a_stage_that_cannot_be(change, words):
    """Groups that do not divide the channels; a shortcut to another shape, or to before the first stage."""
    convs = (*LITE0_TUMOUR_CNN.convs[:1], replace(LITE0_TUMOUR_CNN.convs[2], **change))

    with pytest.raises(ValueError, match=words):
        replace(LITE0_TUMOUR_CNN, convs=convs)


@pytest.mark.parametrize("spec", [*CNNS, PAPER_MLP], ids=lambda spec: spec.name)
def test_onnx_files_are_valid(tmp_path, spec):
    """ONNX's own checker accepts the file, and its shapes are inferred to the classes."""
    _write_onnx(tmp_path / "model.onnx", spec, module_of(spec, initial_weights(spec, seed=0)))

    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


@pytest.mark.parametrize("spec", [COMPACT_TUMOUR_CNN, NARROW_TUMOUR_CNN, PAPER_MLP], ids=lambda spec: spec.name)
def test_the_same_weights_give_the_same_file(tmp_path, spec):
    """Byte for byte, and without a path of this machine."""
    for name in ("first.onnx", "again.onnx"):
        _write_onnx(tmp_path / name, spec, module_of(spec, initial_weights(spec, seed=0)))

    written = (tmp_path / "first.onnx").read_bytes()
    assert written == (tmp_path / "again.onnx").read_bytes()
    assert b".py" not in written


def test_the_graph_is_the_one_that_onnx_runtime_runs_best():
    """Convolution and ReLU side by side, batch norm folded, the L2 pool as one node."""
    operators = [
        [node.op_type for node in _graph_of(spec, module_of(spec, initial_weights(spec, 0))).model.graph.node]
        for spec in (STRIDED_TILE_CNN, NARROW_TUMOUR_CNN)
    ]

    assert operators == [
        [*["Conv", "Relu", "MaxPool"] * 4, "GlobalAveragePool", "Flatten", "Gemm", "Relu", "Gemm"],
        ["Conv", "Relu", "LpPool", "Flatten", "Gemm", "Relu", "Gemm"],
    ]


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    """Saving compares the file with the module."""
    monkeypatch.setattr("he2her2.models.export._largest_difference", lambda *_: 2e-5)

    with pytest.raises(ValueError, match="mlp: its ONNX file differs from its torch module by 2e-05"):
        _write_onnx(tmp_path / "model.onnx", PAPER_MLP, module_of(PAPER_MLP, initial_weights(PAPER_MLP, seed=0)))


def test_declared_tensors_give_the_embedded_ones_logits(tmp_path):
    """A model whose numbers are handed to the session is the model that carries them."""
    weights, rows = lively_weights(COMPACT_TUMOUR_CNN), some_input(COMPACT_TUMOUR_CNN)
    module = module_of(COMPACT_TUMOUR_CNN, weights)
    _write_onnx(tmp_path / "model.onnx", COMPACT_TUMOUR_CNN, module)
    embedded = new_session(str(tmp_path / "model.onnx")).run(None, {"input": rows})[0]

    assert len(_graph_of(COMPACT_TUMOUR_CNN, module).model.SerializeToString()) < 5000
    assert np.array_equal(logits_by_onnx(COMPACT_TUMOUR_CNN, weights, rows), embedded)


@pytest.mark.parametrize("change", ["missing", "unknown", "misshapen"])
def test_a_graph_takes_the_specs_weights_only(change):
    """Weights of another network never become a model."""
    weights = initial_weights(STRIDED_TILE_CNN, seed=0)
    if change == "missing":
        del weights["norm_layers.0.bias"]
    elif change == "unknown":
        weights["fc_layers.9.bias"] = np.zeros(3, np.float32)
    else:
        weights["fc_layers.0.weight"] = weights["fc_layers.0.weight"].T

    with pytest.raises(ValueError, match="not the weights of strided-tile-cnn"):
        module_of(STRIDED_TILE_CNN, weights)


def test_a_rule_has_no_weights():
    """Mean and median have no weights and no file."""
    assert not AGGREGATORS["mean"].has_weights
    assert tensor_shapes(AGGREGATORS["mean"]) == {}


@pytest.mark.parametrize("spec", [*CNNS, PAPER_MLP], ids=lambda spec: spec.name)
def test_weights_survive_the_way_to_arrays_and_back(spec):
    """A module's weights are called and shaped as `tensor_shapes` says."""
    module = spec.build()
    weights = tensors_of(module)
    put_tensors(module, {name: tensor + 1 for name, tensor in weights.items()})

    assert {name: tensor.shape for name, tensor in weights.items()} == tensor_shapes(spec)
    assert all(np.array_equal(weights[name] + 1, tensor) for name, tensor in tensors_of(module).items())


def test_weights_of_another_network_do_not_fit_a_module():
    """Nothing is loaded by halves."""
    with pytest.raises(ValueError, match="not the module's"):
        put_tensors(STRIDED_TILE_CNN.build(), initial_weights(COMPACT_TUMOUR_CNN, seed=0))


def test_the_mlp_does_not_depend_on_the_order_of_scores():
    """Scores are ranked inside, as the paper sorts tiles."""
    module, features = PAPER_MLP.build(), torch.randn(2, 300, 4)
    coords_um, everywhere = torch.rand(2, 300, 2), torch.ones(2, 300, dtype=torch.bool)

    logits, contributions = module(features, coords_um, everywhere)

    assert logits.shape == (2, 2)
    assert contributions.tolist() == [[pytest.approx(1 / 300)] * 300] * 2
    assert torch.equal(logits, module(features.flip(1), coords_um, everywhere)[0])


def test_the_mlp_restated():
    """Four matrices with ReLU between, on scores from high to low, by ONNX as by plain numpy."""
    weights = lively_weights(PAPER_MLP)
    scores = -np.sort(-some_input(PAPER_MLP) * 3, axis=1)
    x = scores
    for i in range(4):
        x = x @ weights[f"mlp_layers.{i}.weight"].T + weights[f"mlp_layers.{i}.bias"]
        x = np.maximum(x, 0) if i < 3 else x
    module = PAPER_MLP.build()
    put_tensors(module, weights)

    assert_same_logits(x, logits_by_onnx(PAPER_MLP, weights, scores))
    with torch.no_grad():
        mask = torch.ones(scores.shape, dtype=torch.bool)
        assert_same_logits(x, module.of_scores(torch.from_numpy(scores[:, ::-1].copy()), mask).numpy())


def test_padding_does_not_reach_a_baseline():
    """A baseline sees the tiles that the mask keeps, and no others."""
    module = TileClassRuleSpec("mean", "mean", n_tiles=4).build()
    module.beta = 1000.0
    scores = torch.tensor([[3.0, 2.0, 0.0, 0.0], [3.0, 2.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])

    logits, contributions = module(scores_as_logits(scores), torch.zeros(2, 4, 2), mask)

    assert logits.argmax(dim=1).tolist() == [1, 0]
    assert contributions.tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4]


@pytest.mark.parametrize("rule", ["mean", "median", "lower-median"])
@given(scores=arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 3)))
def test_baselines_decide_alike_in_torch_and_numpy(rule, scores):
    """What training optimises is what prediction reports."""
    spec = TileClassRuleSpec(rule, rule, n_tiles=len(scores))
    mask = torch.ones(1, len(scores), dtype=torch.bool)

    logits = spec.build().of_scores(torch.from_numpy(scores)[None], mask)

    assert spec.probability(scores) == logits.argmax().item()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([2.0, 2.0, 1.0], {"mean": 1.0, "median": 1.0, "lower-median": 1.0}),
        ([0.0, 0.0, 3.0], {"mean": 0.0, "median": 0.0, "lower-median": 0.0}),
        ([3.0, 3.0, 1.0, 1.0], {"mean": 1.0, "median": 1.0, "lower-median": 0.0}),
        ([2.0, 2.0, 1.0, 1.0], {"mean": 1.0, "median": 1.0, "lower-median": 0.0}),
        ([1.4, 1.4, 1.4], {"mean": 0.0, "median": 0.0, "lower-median": 0.0}),
        ([1.6, 1.6, 0.0], {"mean": 0.0, "median": 1.0, "lower-median": 1.0}),
    ],
)
def test_baselines_decide_as_the_paper_says(scores, expected):
    """Classes 0 and 1+ are negative, 2+ and 3+ positive; the released median takes the lower middle."""
    found = {
        rule: TileClassRuleSpec(rule, rule, n_tiles=len(scores)).probability(np.array(scores)) for rule in expected
    }

    assert expected == found


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_gradient_passes_a_baseline(rule):
    """Rounding to classes does not cut the tile CNN off."""
    scores = torch.tensor([[0.2, 1.3, 2.6]], requires_grad=True)
    module = TileClassRuleSpec(rule, rule, n_tiles=3).build()

    module.of_scores(scores, torch.ones(1, 3, dtype=torch.bool))[0, 1].backward()

    assert scores.grad is not None
    assert scores.grad.sum().item() == pytest.approx(1.0)


@given(
    logits=arrays(np.float32, (5, 4), elements=st.floats(-1e4, 1e4, width=32)),
    beta=st.sampled_from([1e-3, 1.0, 1e3, 1e6]),
)
def test_soft_argmax_in_torch_is_that_of_numpy(logits, beta):
    """Training and prediction score alike, at any beta, and the gradient is finite."""
    tensor = torch.from_numpy(logits).double().requires_grad_()

    scores = expected_class(tensor, beta)
    scores.sum().backward()

    assert np.allclose(soft_argmax(logits, beta), scores.detach().numpy(), atol=1e-9)
    assert tensor.grad is not None
    assert torch.isfinite(tensor.grad).all()


def test_gradient_of_soft_argmax_vanishes_at_the_papers_beta():
    """At beta = 1000 a leading class leaves nothing to learn from; at beta = 1 there is a gradient."""
    gradients = []
    for beta in (1.0, 1000.0):
        logits = torch.tensor([0.1, 0.4, 0.9, 0.2], requires_grad=True)
        expected_class(logits, beta).backward()
        assert logits.grad is not None
        gradients.append(logits.grad.abs().max().item())

    assert gradients[0] > 0.1
    assert gradients[1] < 1e-30
