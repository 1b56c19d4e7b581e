"""Aggregators on features: what they compute, restated plainly; order, padding, ONNX, and that they learn."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from he2her2.models import AGGREGATORS, Aggregator, Bag, Card, aggregator_named
from he2her2.models.aggregators.feature_modules import (
    ClusteringLoss,
    GatedAttention,
    NystromAttention,
    RankedFeatures,
    TransMil,
)
from he2her2.models.aggregators.gated_attention import ClamSpec
from he2her2.models.aggregators.neighbours import grid_neighbours, neighbour_means, pitch, segment_means
from he2her2.models.aggregators.selection import spread_ranks
from he2her2.models.export import check_aggregator, session_of
from he2her2.models.onnx_engine import run_network
from he2her2.models.torch_modules import batch_of, initial_weights, module_of
from he2her2.statistics import auc
from he2her2.training.settings import FeatureTraining
from he2her2.training.slides import feature_learning
from he2her2.training.slides.feature_learning import learn

ON_FEATURES = ("abmil", "clam-sb", "smooth-abmil", "transmil", "ranked-features", "mean-features")
CPU = torch.device("cpu")


def spec_of(name, n_features=7):
    return replace(aggregator_named(name), n_features=n_features)


def bag_of(n, n_features=7, seed=0):
    rng = np.random.default_rng(seed)
    places = rng.permutation([(x, y) for x in range(8) for y in range(8)])[:n]
    return Bag(rng.normal(size=(n, n_features)).astype(np.float32), places * 64.0 + 32, np.ones(n, bool))


def onnx_of(spec, seed=1):
    weights = initial_weights(spec, seed)
    session = session_of(spec, weights)
    return Aggregator(Card(spec, trained=True, notice=""), lambda inputs: run_network(session, inputs)), weights


@pytest.mark.parametrize("name", ON_FEATURES)
def test_they_keep_the_promises_of_every_aggregator(name):
    """Order and padding change nothing, contributions sum to 1, and ONNX computes what torch computes, to 1e-5."""
    check_aggregator(spec_of(name))


@pytest.mark.parametrize("name", ON_FEATURES)
@pytest.mark.parametrize("n", [1, 2, 40])
def test_prediction_computes_what_training_computes(name, n):
    """From a bag by ONNX Runtime, neighbours and ranks found before; by torch within the module."""
    spec = spec_of(name)
    predicting, weights = onnx_of(spec)
    bag = bag_of(n)

    found = predicting(bag)
    with torch.no_grad():
        logits, contributions = module_of(spec, weights)(*batch_of(bag, CPU))

    assert found.probability == pytest.approx(float(logits.softmax(dim=1)[0, 1]), abs=1e-5)
    assert found.contributions == pytest.approx(contributions[0].numpy(), abs=1e-5)
    assert found.contributions.sum() == pytest.approx(1)
    assert found.contributions.min() >= 0


@pytest.mark.parametrize("name", ON_FEATURES)
def test_the_order_of_tiles_is_irrelevant(name):
    """The same probability; contributions go with their tiles."""
    predicting, _ = onnx_of(spec_of(name))
    bag, order = bag_of(50), np.random.default_rng(3).permutation(50)

    one, other = predicting(bag), predicting(bag.take(order))

    assert other.probability == pytest.approx(one.probability, abs=1e-6)
    assert other.contributions == pytest.approx(one.contributions[order], abs=1e-6)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_padding_is_not_there(name):
    """Whatever stands in it, also between the tiles; in prediction and in the module that trains."""
    predicting, weights = onnx_of(spec_of(name))
    bag = bag_of(20)
    rows = np.arange(40) % 2 == 0
    padded = Bag(np.full((40, 7), 99, np.float32), np.zeros((40, 2)), rows)
    padded.features[rows], padded.coords_um[rows] = bag.features, bag.coords_um

    one, other = predicting(bag), predicting(padded)

    assert other.probability == pytest.approx(one.probability, abs=1e-6)
    assert other.contributions[rows] == pytest.approx(one.contributions, abs=1e-6)
    assert not other.contributions[~rows].any()
    assert rows[other.selected].all()
    with torch.no_grad():
        logits, contributions = module_of(spec_of(name), weights)(*batch_of(padded, CPU))
    assert float(logits.softmax(dim=1)[0, 1]) == pytest.approx(one.probability, abs=1e-5)
    assert contributions[0].numpy() == pytest.approx(other.contributions, abs=1e-5)


def plain_attention(weights, features, prefix=""):
    """Equation 9 of Ilse et al. (2018), tile by tile; attention before softmax, and embedded tiles."""

    def layer(name, x):
        return weights[f"{prefix}{name}.weight"].astype(float) @ x + weights[f"{prefix}{name}.bias"].astype(float)

    scores, embedded = [], []
    for tile in features.astype(float):
        h = np.maximum(layer("embed", tile), 0)
        gated = np.tanh(layer("tanh", h)) / (1 + np.exp(-layer("gate", h)))
        scores.append(layer("score", gated)[0])
        embedded.append(h)
    return np.array(scores), np.array(embedded), layer


@pytest.mark.parametrize("name", ["abmil", "clam-sb"])
def test_attention_is_that_of_the_equation(name):
    """A plain restatement, number by number."""
    predicting, weights = onnx_of(spec_of(name))
    bag = bag_of(12)

    found = predicting(bag)

    scores, embedded, layer = plain_attention(weights, bag.features)
    attention = np.exp(scores) / np.exp(scores).sum()
    logits = layer("classify", attention @ embedded)
    assert found.contributions == pytest.approx(attention, abs=1e-6)
    assert found.probability == pytest.approx(1 / (1 + np.exp(logits[0] - logits[1])), abs=1e-6)
    assert found.selected.tolist() == np.argsort(-attention, kind="stable").tolist()


def test_smoothed_attention_is_that_of_its_iteration():
    """Ten times: a share of the mean of the neighbours, found by hand, and the rest of the tile's own score."""
    spec, bag = spec_of("smooth-abmil"), bag_of(30)
    weights = initial_weights(spec, 1) | {"smoothness": np.array([np.log(3)], np.float32)}
    session = session_of(spec, weights)

    found = Aggregator(Card(spec, trained=True, notice=""), lambda inputs: run_network(session, inputs))(bag)

    scores, _, _ = plain_attention(weights, bag.features, "attention.")
    smooth = scores.copy()
    for _ in range(10):
        means = []
        for i, place in enumerate(bag.coords_um):
            near = [j for j, other in enumerate(bag.coords_um) if j != i and np.abs(place - other).max() <= 64]
            means.append(np.mean(smooth[near]) if near else smooth[i])
        smooth = 0.75 * np.array(means) + 0.25 * scores
    assert found.contributions == pytest.approx(np.exp(smooth) / np.exp(smooth).sum(), abs=1e-6)


places = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40, unique=True)


@given(places=places, scale=st.sampled_from([1.0, 0.25, 100.0]))
def test_neighbours_are_those_within_reach(places, scale):
    """Against all pairs; their mean is a mean, whatever the unit."""
    coords = np.array(places, float) * scale
    index, weight = neighbour_means(coords)
    distance = np.linalg.norm(coords[:, None] - coords[None], axis=2)
    near = (distance <= (1.5 + 1e-9) * pitch(coords)) & (distance > 0)

    for i in range(len(coords)):
        expected = np.flatnonzero(near[i]).tolist() or [i]
        assert sorted(index[i][weight[i] > 0].tolist()) == expected
        assert weight[i].sum() == pytest.approx(1)


@given(places=places, shift=st.sampled_from([0, 32, 50.5]))
def test_windows_hold_the_tiles_around(places, shift):
    """Against a look-up of every place, wherever the grid begins; from the origin, centres are at halves of a tile."""
    at = {place: i for i, place in enumerate(places)}
    block = [(x, y) for x in range(20, 27) for y in range(20, 27)]  # most tiles: they fix the pitch
    coords = np.array([*places, *block], float) * 64 + shift
    index, there = grid_neighbours(coords)

    for i, (x, y) in enumerate(places):
        window = [(x + dx, y + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        found = [int(index[i, k]) if there[i, k] else None for k in range(9)]
        assert found == [at.get(place) for place in window]


@given(n=st.integers(1, 30), m=st.integers(1, 12))
def test_segments_take_every_tile_once(n, m):
    """Means over about equally many tiles, in raster order."""
    means = segment_means(np.random.default_rng(n).normal(size=(n, 2)), m)

    assert means.shape == (min(n, m), n)
    assert means.sum(axis=1) == pytest.approx(1)
    assert ((means > 0).sum(axis=0) == 1).all()


def test_enough_landmarks_make_exact_attention():
    """With every token a landmark Nyström's approximation is softmax attention itself."""
    torch.manual_seed(0)
    layer = NystromAttention(16, heads=2)
    tokens = torch.randn(9, 16)
    q, k, v = (part.reshape(9, 2, 8).transpose(0, 1) for part in layer.qkv(tokens).chunk(3, dim=1))

    found, first = (one[0] for one in layer(tokens[None], torch.eye(9)[None]))

    exact = functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(9, 16)
    weights = (q[:, 0:1] @ k.transpose(1, 2) * 8**-0.5).softmax(dim=2)[:, 0].mean(dim=0)
    assert torch.allclose(found, layer.out(exact), atol=1e-2)
    assert torch.allclose(first, weights, atol=1e-2)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_places_matter_to_the_spatial_ones(name):
    """The same tiles elsewhere give another result, to those that say so; a map in another unit gives the same."""
    predicting, _ = onnx_of(spec_of(name))
    bag = bag_of(40)
    elsewhere = Bag(bag.features, np.random.default_rng(9).permutation(bag.coords_um), bag.mask)
    in_px = Bag(bag.features, bag.coords_um / 0.25, bag.mask)

    one = predicting(bag)

    differs = np.abs(predicting(elsewhere).contributions - one.contributions).max() > 1e-5
    assert differs == AGGREGATORS[name].reads_places
    assert predicting(in_px).contributions == pytest.approx(one.contributions, abs=1e-6)


def test_the_paper_rule_on_features_is_the_paper_rule():
    """Linear head, soft-argmax, top 15 % spread over the ranks, MLP: restated tile by tile."""
    spec = replace(spec_of("ranked-features"), n_tiles=4, beta=2.0)
    predicting, weights = onnx_of(spec)
    bag = bag_of(60)

    found = predicting(bag)

    scores = []
    for tile in bag.features.astype(float):
        logits = 2.0 * (weights["score.weight"].astype(float) @ tile + weights["score.bias"])
        share = np.exp(logits - logits.max())
        scores.append(share @ np.arange(4) / share.sum())
    best = np.argsort(-np.array(scores))[:9][[0, 3, 5, 8]]  # 9 of 60
    hidden = np.array(scores)[best]
    for k in range(2):
        hidden = weights[f"mlp.{k}.weight"] @ hidden + weights[f"mlp.{k}.bias"]
        hidden = np.maximum(hidden, 0) if k == 0 else hidden
    assert found.scores == pytest.approx(np.array(scores), abs=1e-5)
    assert found.selected.tolist() == best.tolist()
    assert found.contributions[best].tolist() == [0.25] * 4
    assert found.probability == pytest.approx(1 / (1 + np.exp(hidden[0] - hidden[1])), abs=1e-5)


def gradient_of(rule, scores, seed=0):
    torch.manual_seed(seed)
    module = RankedFeatures(3, (), 2, 0.15, 3).train()
    module.rule = rule
    leaf = torch.tensor(scores, requires_grad=True)
    ranks = torch.from_numpy(spread_ranks(len(scores), 0.15, 3))
    value = module.selected(leaf, ranks)
    value.sum().backward()
    assert leaf.grad is not None
    return value.detach().numpy(), leaf.grad.numpy()


def test_what_is_selected_is_the_same_under_every_rule():
    """Going forward selection is discrete; going backward only `hard` stops at the tiles that are selected."""
    scores = np.linspace(0, 3, 40).astype(np.float32)

    values, gradients = zip(
        *(gradient_of(rule, scores) for rule in ("hard", "straight-through", "perturbed")), strict=True
    )

    assert np.allclose(values, values[0])
    assert np.flatnonzero(gradients[0]).tolist() == [34, 36, 39]
    assert all(np.count_nonzero(gradient) > 3 for gradient in gradients[1:])


def test_perturbed_selection_has_the_gradient_of_its_mean():
    """Against the difference quotient of the expected selected value, over many draws."""
    scores, weight = np.array([0.0, 0.05, 0.1], np.float32), torch.tensor([1.0, 2.0, 5.0])
    ranks = torch.tensor([0])

    def mean_value(shift):
        moved = torch.from_numpy(scores) + torch.tensor([0, 0, shift])
        noise = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(0))
        return float(weight[(moved + 0.1 * noise).argmax(dim=1)].mean())

    torch.manual_seed(1)
    module = RankedFeatures(3, (), 2, 1.0, 1)
    module.rule = "perturbed"
    leaf = torch.tensor(scores, requires_grad=True)
    torch.stack([(module.soft_selection(leaf, ranks) @ weight).sum() for _ in range(2000)]).mean().backward()

    expected = (mean_value(0.02) - mean_value(-0.02)) / 0.04
    assert leaf.grad is not None
    assert float(leaf.grad[2]) == pytest.approx(expected, rel=0.1)


def toy_bags(n, seed):
    """Bags of noise; in every second one a patch of neighbouring tiles is shifted in one feature."""
    rng = np.random.default_rng(seed)
    bags = []
    for k in range(n):
        bag = bag_of(36, seed=int(rng.integers(1 << 30)))
        if k % 2:
            centre = bag.coords_um[rng.integers(36)]
            bag.features[np.linalg.norm(bag.coords_um - centre, axis=1) < 100, 2] += 4
        bags.append(((lambda bag=bag: bag), bool(k % 2)))
    return bags


@pytest.mark.parametrize("name", ON_FEATURES)
def test_they_learn_a_few_telling_tiles(name):
    """Loss falls, and bags that were never seen are told apart; the folded weights read features as they are."""
    slow = name == "ranked-features"  # its gradient passes five tiles of a bag
    settings = FeatureTraining(epochs=25 if slow else 5, patience=25, learning_rate=3e-3, batch_slides=1)
    n_train = 48
    train, val, test = toy_bags(n_train, 0), toy_bags(12, 1), toy_bags(40, 2)
    spec = spec_of(name)

    learnt = learn(spec, train, val, settings, seed=0)

    session = session_of(spec, learnt.weights)
    predicting = Aggregator(Card(spec, trained=True, notice=""), lambda inputs: run_network(session, inputs))
    found = [predicting(read()) for read, _ in test]
    truth = [positive for _, positive in test]
    assert learnt.history[learnt.epoch]["train_loss"] < learnt.history[0]["train_loss"]
    assert learnt.movement > 0
    assert auc(truth, [one.probability for one in found]) > 0.85
    if name in ("abmil", "clam-sb", "smooth-abmil"):
        telling = [
            one.contributions[read().features[:, 2] > 3].sum() for one, (read, y) in zip(found, test, strict=True) if y
        ]
        assert np.mean(telling) > 0.4  # a sixth of the tiles


@pytest.mark.parametrize("name", ON_FEATURES)
def test_slides_of_a_step_learn_together_what_they_learn_alone(name, monkeypatch):
    """As many tiles are drawn of the larger ones, which pass in one batch; smaller ones have batches of their own."""
    spec = replace(spec_of(name), **({"dropout": 0.0} if hasattr(spec_of(name), "dropout") else {}))
    sizes = (36, 20, 10, 36, 10, 5, 36, 30, 10)
    train = [(partial(bag_of, n, seed=k), k % 3 == 0) for k, n in enumerate(sizes)]
    settings = FeatureTraining(epochs=3, learning_rate=1e-3, batch_slides=9, max_tiles=16)

    together = learn(spec, train, toy_bags(4, 1), settings, seed=0)
    monkeypatch.setattr(feature_learning, "_TILES_AT_ONCE", 1)
    alone = learn(spec, train, toy_bags(4, 1), settings, seed=0)

    for one, other in zip(together.history, alone.history, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_the_epoch_of_the_lowest_validation_loss_is_kept():
    """Its weights give that loss by prediction, each class weighing as its share in training asks for."""
    train = [bag for k, bag in enumerate(toy_bags(24, 0)) if k % 2 == 0 or k % 8 == 1]  # 12 negative, 3 positive
    val = [(read, not positive) for read, positive in toy_bags(9, 1)]  # what is learned makes it worse
    settings = FeatureTraining(epochs=5, patience=5, learning_rate=3e-3, batch_slides=1)
    spec = spec_of("abmil")

    learnt = learn(spec, train, val, settings, seed=0)

    session = session_of(spec, learnt.weights)
    predicting = Aggregator(Card(spec, trained=True, notice=""), lambda inputs: run_network(session, inputs))
    weigh = {True: 15 / (2 * 3), False: 15 / (2 * 12)}
    losses = []
    for read, positive in val:
        p = predicting(read()).probability
        losses.append(-weigh[positive] * np.log(p if positive else 1 - p))
    every = [epoch["val_loss"] for epoch in learnt.history]
    assert learnt.epoch == int(np.argmin(every)) < 4
    assert np.mean(losses) == pytest.approx(min(every), rel=1e-3)


@torch.no_grad()
def test_clams_instances_are_the_ends_of_attention():
    """The most attended tiles are of the bag's class, the least attended are not: restated tile by tile."""
    torch.manual_seed(0)
    module, loss = GatedAttention(7, 5, 3, 2, 0.0).eval(), ClusteringLoss(5, 2, 2)
    features, attention = torch.randn(1, 6, 7), torch.tensor([[0.1, 0.3, 0.05, 0.25, 0.2, 0.1 - 1e-3]])

    found = float(loss(module, features, attention, 1))

    layer, expected = loss.classifiers[1], []
    for tile, is_one in ((1, 1), (3, 1), (5, 0), (2, 0)):
        logits = layer(module.embed(features[0, tile]).relu())
        expected.append(float(logits.logsumexp(dim=0) - logits[is_one]))
    assert found == pytest.approx(np.mean(expected), abs=1e-5)


def test_clam_mixes_its_two_losses_and_its_classifiers_learn(monkeypatch):
    """The share on instances is that of the settings: restated over the one step of an epoch."""
    spec = replace(spec_of("clam-sb"), dropout=0.0)
    torch.manual_seed(0)
    instances = spec.auxiliary()
    assert isinstance(instances, ClusteringLoss)
    start = deepcopy(instances)
    monkeypatch.setattr(ClamSpec, "auxiliary", lambda _: instances)
    train = toy_bags(6, 0)
    settings = FeatureTraining(epochs=1, batch_slides=6, instance_weight=0.25, standardise=False)

    learnt = learn(spec, train, toy_bags(2, 1), settings, seed=0)

    module, losses = module_of(spec, initial_weights(spec, 0)), []
    for read, positive in train:
        batch = batch_of(read(), CPU)
        logits, attention = module(*batch)
        whole = functional.cross_entropy(logits, torch.tensor([int(positive)]))
        ends = start(module, batch[0], attention, int(positive))
        losses.append(float((0.75 * whole + 0.25 * ends).detach()))
    assert learnt.history[0]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert not any(
        torch.equal(one, other) for one, other in zip(instances.parameters(), start.parameters(), strict=True)
    )


@torch.no_grad()
def test_the_window_of_transmil_is_a_convolution():
    """On a whole grid: depthwise, 3 x 3, with nothing beyond the border, and beside the tiles themselves."""
    torch.manual_seed(0)
    module = TransMil(7, 8, 2, 2, 4)
    torch.nn.init.normal_(module.window)
    tiles = torch.randn(12, 8)
    places = np.array([(x, y) for y in range(3) for x in range(4)]) * 64.0
    index, there = (torch.from_numpy(array) for array in grid_neighbours(places))

    found = module._around(tiles[None], index[None], there[None])[0]

    kernel = module.window.reshape(8, 1, 3, 3)
    expected = functional.conv2d(tiles.T.reshape(1, 8, 3, 4), kernel, padding=1, groups=8)[0].reshape(8, 12).T
    assert torch.allclose(found, expected, atol=1e-5)
    logits = [module(torch.ones(1, 12, 7), torch.from_numpy(places)[None], torch.ones(1, 12, dtype=torch.bool))[0]]
    torch.nn.init.zeros_(module.window)
    logits.append(module(torch.ones(1, 12, 7), torch.from_numpy(places)[None], torch.ones(1, 12, dtype=torch.bool))[0])
    assert not torch.allclose(*logits)


def softmax_of(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def plain_attention_by_landmarks(linear, k, tokens, means, heads):
    """Xiong et al. (2021), head by head; the first token's attention beside it."""
    width = tokens.shape[1] // heads
    parts, first = [], []
    q, keys, v = np.split(linear(f"layers.{k}.qkv", tokens), 3, axis=1)
    for h in range(heads):
        of_head = slice(h * width, (h + 1) * width)
        queries = q[:, of_head] / np.sqrt(width)
        to, around = (
            softmax_of(queries @ (means @ keys[:, of_head]).T),
            (means @ queries) @ (means @ keys[:, of_head]).T,
        )
        between, back = softmax_of(around), softmax_of((means @ queries) @ keys[:, of_head].T)
        inverse, one = between.T / between.sum(axis=0).max(), np.eye(len(between))
        for _ in range(6):
            product = between @ inverse
            inverse = 0.25 * inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
        parts.append(to @ inverse @ back @ v[:, of_head])
        first.append((to @ inverse @ back)[0])
    return linear(f"layers.{k}.out", np.concatenate(parts, axis=1)), np.mean(first, axis=0)


def test_transmil_is_that_of_its_parts():
    """Class token, two layers around the window, norms and residuals: restated plainly, neighbours found by hand."""
    spec, bag = replace(spec_of("transmil"), width=16, heads=2, landmarks=5), bag_of(30)
    drawn = np.random.default_rng(0)
    weights = {
        name: (array + drawn.normal(size=array.shape) / 4).astype(np.float32)
        for name, array in initial_weights(spec, 1).items()
    }
    session = session_of(spec, weights)
    w = {name: array.astype(float) for name, array in weights.items()}

    found = Aggregator(Card(spec, trained=True, notice=""), lambda inputs: run_network(session, inputs))(bag)

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(k, x):
        scaled = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        return scaled * w[f"norms.{k}.weight"] + w[f"norms.{k}.bias"]

    tokens = np.concatenate([w["token"], np.maximum(linear("embed", bag.features), 0)])
    means = np.zeros((6, 31))
    means[0, 0] = 1
    raster = sorted(range(30), key=lambda i: (bag.coords_um[i, 1], bag.coords_um[i, 0]))
    for k in range(5):
        means[k + 1, [1 + i for i in raster[6 * k : 6 * k + 6]]] = 1 / 6
    tokens = tokens + plain_attention_by_landmarks(linear, 0, norm(0, tokens), means, 2)[0]
    at = {tuple((place // 64).astype(int)): 1 + i for i, place in enumerate(bag.coords_um)}
    around = np.zeros_like(tokens)
    for (x, y), i in at.items():
        for k, (dy, dx) in enumerate((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            if (x + dx, y + dy) in at:
                around[i] += w["window"][:, k] * tokens[at[x + dx, y + dy]]
    tokens = tokens + around
    mixed, attention = plain_attention_by_landmarks(linear, 1, norm(1, tokens), means, 2)
    logits = linear("classify", norm(2, tokens + mixed))[0]
    assert found.probability == pytest.approx(1 / (1 + np.exp(logits[0] - logits[1])), abs=1e-4)
    assert found.contributions == pytest.approx(np.abs(attention[1:]) / np.abs(attention[1:]).sum(), abs=1e-4)


def test_a_relaxed_selection_reports_its_mismatch():
    """None where training and prediction select alike."""
    settings = FeatureTraining(epochs=2, learning_rate=1e-3)
    train, val = toy_bags(8, 0), toy_bags(4, 1)
    spec = spec_of("ranked-features")

    hard = learn(spec, train, val, settings, seed=0)
    soft = [
        learn(spec, train, val, replace(settings, selection=rule), seed=0) for rule in ("straight-through", "perturbed")
    ]

    assert hard.selection_mismatch is None
    for one in soft:
        assert one.selection_mismatch is not None
        assert one.probability_mismatch is not None
        assert 0 < one.selection_mismatch < 1
        assert 0 < one.probability_mismatch < 0.5


def test_standardisation_is_folded_into_the_weights():
    """Features of another scale train as well, and are predicted as they are."""
    settings = FeatureTraining(epochs=3, learning_rate=1e-3)
    train, val = toy_bags(8, 0), toy_bags(4, 1)

    def scaled(bags):
        return [
            ((lambda read=read: Bag(read().features * 1000 + 500, read().coords_um, read().mask)), y)
            for read, y in bags
        ]

    spec = spec_of("abmil")
    plain, wide = learn(spec, train, val, settings, 0), learn(spec, scaled(train), scaled(val), settings, 0)

    assert wide.val_loss == pytest.approx(plain.val_loss, abs=2e-3)
    one, other = (
        module_of(spec, learnt.weights)(*batch_of(bags[0][0](), CPU))[0]
        for learnt, bags in ((plain, train), (wide, scaled(train)))
    )
    assert torch.allclose(one, other, atol=2e-2)


def test_large_slides_are_standardised_in_parts(monkeypatch):
    """In double precision at once, a slide of 100 000 tiles took gigabytes; the numbers are the same."""
    settings = FeatureTraining(epochs=2)
    train, val = toy_bags(4, 0), toy_bags(2, 1)
    whole = learn(spec_of("mean-features"), train, val, settings, 0)

    monkeypatch.setattr(feature_learning, "_ROWS", 7)

    parts = learn(spec_of("mean-features"), train, val, settings, 0)
    assert parts.val_loss == pytest.approx(whole.val_loss, abs=1e-6)


def test_every_named_aggregator_is_checked_somewhere():
    """A new line in the registry needs a line here, or in `test_add_an_aggregator`."""
    assert set(AGGREGATORS) == {*ON_FEATURES, "mlp", "mean", "median", "released-median"}
