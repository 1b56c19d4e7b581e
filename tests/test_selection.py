"""Which tiles speak for the slide: against an obvious loop, and what must always hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from he2her2.config import Selection
from he2her2.models import top_tiles
from he2her2.models.aggregators.selection import evenly_spaced, released_ranks, top_count

SCORES = arrays(np.float64, st.integers(20, 120), elements=st.sampled_from([0.0, 0.3, 1.0, 1.7, 2.0, 2.5, 3.0]))
SETTINGS = st.builds(Selection, top_fraction=st.floats(0.05, 1.0), n_tiles=st.integers(1, 20))


def slow_top_scores(scores, settings):
    """The paper's sentence as a loop: sort, keep the top share, thin it evenly."""
    ranked = sorted(scores, reverse=True)
    kept = ranked[: max(math.floor(round(len(scores) * settings.top_fraction, 9)), settings.n_tiles)]
    if len(kept) == settings.n_tiles or settings.n_tiles == 1:
        return kept[: settings.n_tiles]
    step = (len(kept) - 1) / (settings.n_tiles - 1)
    return [kept[math.floor(round(i * step, 9) + 0.5)] for i in range(settings.n_tiles)]


@given(scores=SCORES, settings=SETTINGS)
def test_selected_scores_are_those_of_the_loop(scores, settings):
    """Selection agrees with the slow, obvious one."""
    assert slow_top_scores(scores, settings) == scores[top_tiles(scores, settings)].tolist()


@given(scores=SCORES, settings=SETTINGS, seed=st.integers(0, 99))
def test_the_order_of_tiles_does_not_matter(scores, settings, seed):
    """The selected scores are the same however the slide's tiles are numbered, ties included."""
    shuffled = np.random.default_rng(seed).permutation(scores)

    assert np.array_equal(scores[top_tiles(scores, settings)], shuffled[top_tiles(shuffled, settings)])


@given(scores=SCORES, settings=SETTINGS)
def test_selection_is_distinct_and_best_first(scores, settings):
    """M different tiles, from high to low, the best one among them."""
    selected = top_tiles(scores, settings)

    assert selected.dtype == np.int64
    assert len(set(selected.tolist())) == settings.n_tiles == len(selected)
    assert (np.diff(scores[selected]) <= 0).all()
    assert scores[selected[0]] == scores.max()


@given(scores=SCORES, settings=SETTINGS, raised=st.integers(0, 19))
def test_raising_a_score_lowers_no_selected_one(scores, settings, raised):
    """Selection is monotone: the k-th selected score can only rise with any tile's score."""
    higher = scores.copy()
    higher[raised] += 1

    assert (higher[top_tiles(higher, settings)] >= scores[top_tiles(scores, settings)]).all()


def test_equal_scores_keep_their_order():
    """Of tiles with the same score the first come first."""
    scores = np.random.default_rng(0).integers(0, 4, 5000)

    selected = top_tiles(scores, Selection(top_fraction=1.0, n_tiles=5000))

    assert all((np.diff(selected[scores[selected] == score]) > 0).all() for score in range(4))


@pytest.mark.parametrize(("n", "fraction", "expected"), [(2000, 0.15, 300), (1999, 0.15, 299), (100, 0.29, 29)])
def test_top_count_does_not_suffer_from_binary_fractions(n, fraction, expected):
    """The share of whole numbers is what a person computes."""
    assert expected == top_count(n, fraction)


@given(n_tiles=st.integers(1, 2000), percent=st.integers(1, 100))
def test_the_least_number_of_tiles_is_enough_and_no_more_than_needed(n_tiles, percent):
    """Tiling's M / fraction and selection's top share are two sides of one rule."""
    settings = Selection(top_fraction=percent / 100, n_tiles=n_tiles)

    assert top_count(settings.min_tiles, settings.top_fraction) >= n_tiles
    assert top_count(settings.min_tiles - 1, settings.top_fraction) < n_tiles


@given(m=st.integers(2, 400), extra=st.integers(0, 5000))
def test_evenly_spaced_positions(m, extra):
    """First and last are kept, all are distinct, and no gap differs from another by more than one."""
    n = m + extra
    gaps = np.diff(evenly_spaced(n, m))

    assert evenly_spaced(n, m)[[0, -1]].tolist() == [0, n - 1]
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_a_few_unreadable_tiles_do_not_stop_selection():
    """A slide cut into just enough tiles, some of them unreadable, still gives M: the best M."""
    scores = np.linspace(3, 0, 1990)

    assert top_tiles(scores, Selection()).tolist() == list(range(300))


def test_too_few_tiles_are_the_callers_mistake():
    """M tiles cannot be taken out of fewer."""
    with pytest.raises(ValueError, match="300 tiles cannot be selected of 299"):
        top_tiles(np.zeros(299), Selection())


def test_a_score_must_be_a_number():
    """NaN would sort anywhere."""
    with pytest.raises(ValueError, match="finite"):
        top_tiles(np.array([1.0, np.nan]), Selection(n_tiles=1))


def released_selection(scores, n_tiles):
    """The released code's choice as loops: the best 15 %, thinned by steps of real length from the second on."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = order[: max(int(0.15 * len(order)), n_tiles)]
    if len(kept) <= n_tiles:
        return kept
    first, *middle, last = kept
    step = len(middle) / (n_tiles - 2)
    return [first, *(kept[math.floor(round(1 + k * step, 9))] for k in range(n_tiles - 2)), last]


@pytest.mark.parametrize("n", [2000, 2001, 2006, 2007, 2050, 2500, 4500, 9000])
def test_released_spacing_is_that_of_the_released_code(n):
    """Above 2 006 tiles, where there are more than 300 to choose from, other ranks than the even ones."""
    scores = np.random.default_rng(n).permutation(n) / n
    settings = Selection(spacing="released")

    found = top_tiles(scores, settings)

    wanted = released_selection(scores.tolist(), 300)
    rank = {tile: k for k, tile in enumerate(np.argsort(-scores).tolist())}
    apart = [abs(rank[a] - rank[b]) for a, b in zip(found.tolist(), wanted, strict=True)]
    assert max(apart) <= 1  # where a step ends on a whole number, floating point may fall below it, there as here
    assert np.mean(apart) < 0.02
    assert (n > 2006) == (found.tolist() != top_tiles(scores, Selection()).tolist())


@given(n=st.integers(1, 5000), m=st.integers(1, 400))
def test_released_ranks_are_distinct_and_hold_the_first_and_the_last(n, m):
    """Whatever the numbers, m ranks rise from the best to the last that is kept."""
    m = min(n, m)

    ranks = released_ranks(n, m)

    assert len(ranks) == m
    assert (np.diff(ranks) > 0).all()
    assert ranks[0] == 0
    assert m == 1 or ranks[-1] == n - 1
