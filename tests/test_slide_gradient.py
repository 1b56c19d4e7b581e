"""The cheap gradient of slide training is the gradient of plain autograd over the whole bag."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from he2her2.config import Selection
from he2her2.models import AGGREGATORS, InputSpec, top_tiles
from he2her2.models.aggregators.ranked_mlp import RankedMlpSpec
from he2her2.models.encoders.cnn import STRIDED_TILE_CNN, Conv
from he2her2.models.torch_engine import prepare_on_device
from he2her2.models.torch_modules import expected_class, initial_weights, put_tensors
from he2her2.slides import TileBatch
from he2her2.training.slides.backpropagation import (
    aggregator_gradient,
    backpropagate_tiles,
    fill_missing_gradients,
    geometric_beta,
    relative_change,
    tiles_with_gradient,
)

SELECTION = Selection(top_fraction=0.5, n_tiles=6)
TINY = replace(
    STRIDED_TILE_CNN,
    input=InputSpec(mpp=0.25, side_px=16, network_px=16, colour="lightness"),
    convs=(Conv(4, kernel=3, norm=True), Conv(6, kernel=3, norm=True)),
    hidden=(8,),
)
BAG = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


def tiny_cnn():
    cnn, weights = TINY.build().eval(), initial_weights(TINY, seed=1)
    weights["fc_layers.1.weight"] *= 20  # logits that differ, as a trained network's do
    put_tensors(cnn, weights)
    return cnn


def tiny_aggregator(name):
    spec = AGGREGATORS[name].sized_for(SELECTION)
    spec = replace(spec, hidden=(8,)) if isinstance(spec, RankedMlpSpec) else spec
    aggregator = spec.build()
    put_tensors(aggregator, initial_weights(spec, seed=2))
    return aggregator


def batch_of_tiles(logits):
    """The input of an aggregator's module."""
    return logits[None], torch.zeros(1, len(logits), 2), torch.ones(1, len(logits), dtype=torch.bool)


def see(cnn, pixels):
    return cnn(prepare_on_device(torch.from_numpy(pixels), TINY.input.colour))


def plain(cnn, aggregator, target, beta):
    """One graph over the whole bag, as a textbook writes it."""
    of_tiles = see(cnn, BAG)
    selected = torch.from_numpy(top_tiles(expected_class(of_tiles.detach(), beta).numpy(), SELECTION))
    aggregator.beta = beta
    logits, _ = aggregator(*batch_of_tiles(of_tiles[selected]))
    loss = functional.cross_entropy(logits, torch.tensor([target]))
    loss.backward()
    return float(loss.detach())


def cheap(cnn, aggregator, target, beta, chunk=4):
    """The way of the training: logits as a leaf, then the tiles that were given anything, a few at a time."""
    with torch.no_grad():
        logits = see(cnn, BAG)
    selected = top_tiles(expected_class(logits, beta).numpy(), SELECTION)
    flow = aggregator_gradient(aggregator, batch_of_tiles(logits[torch.from_numpy(selected)]), target, beta)
    learning, gradient = tiles_with_gradient(selected, flow.gradient)
    parts = (np.arange(len(learning))[i : i + chunk] for i in range(0, len(learning), chunk))
    backpropagate_tiles(
        lambda pixels: see(cnn, pixels), (TileBatch(part, BAG[learning[part]]) for part in parts), gradient
    )
    fill_missing_gradients(cnn)
    return flow


def gradients(*modules):
    return [weight.grad for module in modules for weight in module.parameters()]


@pytest.mark.parametrize("beta", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("name", ["mlp", "mean", "median", "released-median"])
@pytest.mark.parametrize("target", [0, 1])
def test_the_gradient_is_that_of_the_whole_bag(name, beta, target):
    """Loss and every gradient agree with plain autograd to 1e-6."""
    ours, theirs = (tiny_cnn(), tiny_aggregator(name)), (tiny_cnn(), tiny_aggregator(name))

    flow, loss = cheap(*ours, target, beta), plain(*theirs, target, beta)

    assert flow.loss == pytest.approx(loss, abs=1e-6)
    for mine, other in zip(gradients(*ours), gradients(*theirs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_pieces_of_any_size_give_the_same_gradient():
    """How many tiles pass at once is a matter of memory alone."""
    one, all_at_once = tiny_cnn(), tiny_cnn()
    cheap(one, tiny_aggregator("mlp"), 1, 3.0, chunk=1)
    cheap(all_at_once, tiny_aggregator("mlp"), 1, 3.0, chunk=99)

    for mine, other in zip(gradients(one), gradients(all_at_once), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-7)


def test_gradients_of_several_slides_add_up():
    """Two slides before a step give the sum of their gradients."""
    both, first, second = tiny_cnn(), tiny_cnn(), tiny_cnn()
    aggregator = tiny_aggregator("mlp")
    for cnn, target in ((both, 0), (both, 1), (first, 0), (second, 1)):
        cheap(cnn, aggregator, target, 3.0)

    for total, one, other in zip(gradients(both), gradients(first), gradients(second), strict=True):
        assert torch.allclose(total, one + other, rtol=1e-4, atol=1e-7)


def test_a_saturated_soft_argmax_hands_back_nothing():
    """At beta = 1000 no tile learns, nothing passes the CNN, and its gradient is zero, not missing."""
    cnn = tiny_cnn()

    flow = cheap(cnn, tiny_aggregator("mlp"), 1, 1000.0)

    assert flow.share == 0
    assert flow.at_logits == 0
    assert flow.at_scores > 0
    assert all(not gradient.any() for gradient in gradients(cnn))


def test_momentum_moves_weights_without_a_gradient():
    """A step on zero gradients is Adam's: still at rest, and going on after a push; as with plain autograd."""
    ours, theirs = tiny_cnn(), tiny_cnn()
    mine, other = torch.optim.Adam(ours.parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), 1e-2)
    for beta, moves in ((1000.0, False), (1.0, True), (1000.0, True)):
        before = copy.deepcopy(ours.state_dict())
        for cnn, optimizer, way in ((ours, mine, cheap), (theirs, other, plain)):
            optimizer.zero_grad()
            way(cnn, tiny_aggregator("mlp"), 1, beta)
            optimizer.step()
        moved = any(not torch.equal(before[name], value) for name, value in ours.state_dict().items())
        assert moved == moves
        for name, value in ours.state_dict().items():
            assert torch.allclose(value, theirs.state_dict()[name], atol=1e-5)


def test_only_tiles_with_a_gradient_pass_again_in_raster_order():
    """A stream reads ascending positions, and each keeps its own share."""
    gradient = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])

    learning, given = tiles_with_gradient(np.array([9, 7, 5, 3]), gradient)

    assert learning.tolist() == [3, 7]
    assert given.tolist() == [[0.0, 2.0], [1.0, 0.0]]


@given(start=st.floats(0.1, 1e3), end=st.floats(0.1, 1e3), epochs=st.integers(1, 50))
def test_beta_goes_by_equal_factors_and_arrives(start, end, epochs):
    """The first epoch has the start, unless it is the only one; the last and all after it have the end."""
    values = [geometric_beta(start, end, epoch, epochs) for epoch in range(epochs + 2)]
    factors = np.divide(values[1:epochs], values[: epochs - 1])

    assert values[0] == pytest.approx(start if epochs > 1 else end)
    assert values[epochs - 1 :] == [end, end, end]
    assert np.allclose(factors, factors[:1], rtol=1e-6)


def test_movement_is_relative_to_the_weights_size():
    """A tenth more of everything is 0.1."""
    before = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]

    assert relative_change(before, [weight * 1.1 for weight in before]) == pytest.approx(0.1)
    assert relative_change(before, before) == 0
