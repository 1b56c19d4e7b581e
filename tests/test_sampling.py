"""What an epoch sees: from seed, epoch and position only, on any number of devices."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from he2her2.training.sampling import EpochSampler, alternating, balanced, in_sequence, shuffled


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@given(n=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_epoch_is_a_function_of_seed_and_epoch(n, size, seed, epoch):
    """A sampler that was just made draws what one that ran before draws: so a resumed training goes on as it would."""
    used = EpochSampler(shuffled(n), size, seed)
    for earlier in range(epoch):
        epoch_of(used, earlier)

    for ours, theirs in zip(epoch_of(used, epoch), epoch_of(EpochSampler(shuffled(n), size, seed), epoch), strict=True):
        np.testing.assert_array_equal(ours.index, theirs.index)
        np.testing.assert_array_equal(ours.uniform, theirs.uniform)


@given(n=st.integers(1, 40), size=st.integers(1, 9))
def test_an_epoch_sees_every_case_once(n, size):
    """No batch is larger than asked for, and their number is the sampler's length."""
    sampler = EpochSampler(shuffled(n), size, seed=0)
    batches = epoch_of(sampler, 3)

    assert sorted(np.concatenate([draw.index for draw in batches]).tolist()) == list(range(n))
    assert max(len(draw.index) for draw in batches) <= size
    assert len(batches) == len(sampler)


def test_epochs_and_seeds_differ():
    """Another epoch is another order and other random numbers; so is another seed."""
    first = epoch_of(EpochSampler(shuffled(50), 50, seed=0), 0)[0]
    for other in (
        epoch_of(EpochSampler(shuffled(50), 50, seed=0), 1)[0],
        epoch_of(EpochSampler(shuffled(50), 50, 1), 0)[0],
    ):
        assert not np.array_equal(first.index, other.index)
        assert not np.array_equal(first.uniform, other.uniform)


def test_classes_alternate():
    """0, 1, 0, 1, ... as the released code does, the smaller class again and again (PAPER_FACTS)."""
    labels = np.repeat([0, 1], [7, 3])
    order = alternating(labels)(np.random.default_rng(0))

    assert labels[order].tolist() == [0, 1] * 7
    assert set(order.tolist()) == set(range(10))


@pytest.mark.parametrize("world", [2, 3])
def test_devices_share_a_batch_out(monkeypatch, world):
    """Together they see what one alone sees; the last batch is filled up so that all have equally many."""
    alone = epoch_of(EpochSampler(shuffled(22), 6, seed=0), 1)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        shares.append(epoch_of(EpochSampler(shuffled(22), 6, seed=0), 1))

    for step, whole in enumerate(alone):
        parts = [share[step].index for share in shares]
        assert {len(part) for part in parts} == {math.ceil(len(whole.index) / world)}
        assert set(np.concatenate(parts).tolist()) == set(whole.index.tolist())


def test_validation_is_not_shared_out(monkeypatch):
    """Every device validates everything: figures are exact on any number of them."""
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)

    batches = epoch_of(EpochSampler(in_sequence(5), 2, seed=0, share=False), 0)

    assert [draw.index.tolist() for draw in batches] == [[0, 1], [2, 3], [4]]


@given(sizes=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=4))
def test_sources_and_classes_are_balanced(sizes):
    """A source is drawn by the square root of its size, its classes equally often, small ones again and again."""
    sources = np.concatenate([np.full(a + b, k) for k, (a, b) in enumerate(sizes)])
    labels = np.concatenate([np.repeat([0, 1], pair) for pair in sizes])

    drawn = balanced(sources, labels)(np.random.default_rng(0))

    n, roots = len(labels), np.sqrt([a + b for a, b in sizes])
    assert len(drawn) == n
    for k, (other, _) in enumerate(sizes):
        share = n * roots[k] / roots.sum()
        of_class = [np.count_nonzero((sources[drawn] == k) & (labels[drawn] == label)) for label in (0, 1)]
        assert abs(sum(of_class) - share) <= 4
        assert not other or abs(of_class[0] - of_class[1]) <= 4


def test_an_epoch_s_first_random_numbers_are_those_of_always():
    """Numbers for colour were added beside them: a training without colour augmentation is what it was."""
    sampler = EpochSampler(shuffled(10), 4, seed=7)
    rng = np.random.default_rng((7, 2))
    order, uniform = rng.permutation(10), rng.random((10, 8), np.float32)

    drawn = epoch_of(sampler, 2)

    np.testing.assert_array_equal(np.concatenate([draw.index for draw in drawn]), order)
    np.testing.assert_array_equal(np.concatenate([draw.uniform[:, :8] for draw in drawn]), uniform)
    assert all(draw.uniform.shape[1] == 30 for draw in drawn)
