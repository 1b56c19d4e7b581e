"""Exact tests against scipy and enumeration; bounds over missing outcomes against trying every outcome."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from he2her2.statistics import BinaryCounts, Unpredicted, auc, auc_bounds, exact_tests, rate_bounds
from he2her2.statistics.small_samples import mann_whitney_p


@given(scores=st.permutations(range(9)), k=st.integers(1, 8))
def test_without_ties_the_test_is_scipys(scores, k):
    """The rank sum's distribution over all orders, two-sided."""
    truth, score = np.arange(9) < k, np.array(scores, float)

    expected = stats.mannwhitneyu(score[truth], score[~truth], method="exact").pvalue

    assert mann_whitney_p(truth, score) == pytest.approx(expected)


@given(scores=st.lists(st.integers(0, 3), min_size=3, max_size=8), k=st.integers(1, 2))
def test_with_ties_every_choice_of_positives_counts(scores, k):
    """As enumerated, where scipy's exact method does not hold."""
    score = np.array(scores, float)
    truth = np.arange(len(score)) < k
    ranks = stats.rankdata(score)
    middle = k * (len(score) + 1) / 2
    far = [abs(ranks[list(c)].sum() - middle) for c in itertools.combinations(range(len(score)), k)]

    expected = np.mean(np.array(far) >= abs(ranks[truth].sum() - middle) - 1e-9)

    assert mann_whitney_p(truth, score) == pytest.approx(expected)


def test_exact_tests_are_for_few_patients():
    """Fifty, or fewer than ten of a class; not without both classes."""
    rng = np.random.default_rng(0)

    def of(n, n_positive):
        score = rng.random(n)
        return exact_tests(np.arange(n) < n_positive, score, score > 0.5)

    assert of(50, 25) is not None
    assert of(200, 9) is not None
    assert of(51, 25) is None
    assert of(20, 0) is None


@given(
    truth=st.lists(st.booleans(), min_size=2, max_size=5),
    free=st.lists(st.integers(0, 4), max_size=4),
    lost=st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)),
    data=st.data(),
)
def test_bounds_are_the_extremes_of_every_outcome(truth, free, lost, data):
    """AUC, sensitivity and specificity over all labels of those without, and the worst scores of the unpredicted."""
    true = np.array([True, False, *truth])
    score = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(true), max_size=len(true))), float)
    found: dict[str, list[float]] = {"auc": [], "sensitivity": [], "specificity": []}
    unknown = Unpredicted(*lost)
    for labels in itertools.product([True, False], repeat=len(free) + unknown.unknown):
        of_lost = [True] * unknown.positive + [False] * unknown.negative + list(labels[len(free) :])
        for right in (True, False):
            whole = np.concatenate([true, labels[: len(free)], of_lost]).astype(bool)
            end = [9.0 if label == right else -9.0 for label in of_lost]
            scores = np.concatenate([score, free, end])
            found["auc"].append(auc(whole, scores))
            found["sensitivity"].append((scores >= 2)[whole].mean())
            found["specificity"].append((scores < 2)[~whole].mean())
    called = int((np.array(free) >= 2).sum())

    sensitivity, specificity = rate_bounds(BinaryCounts.of(true, score >= 2), called, len(free) - called, unknown)
    area = auc_bounds(true, score, free, unknown)

    for name, bounds in (("auc", area), ("sensitivity", sensitivity), ("specificity", specificity)):
        assert (bounds.low, bounds.high) == pytest.approx((min(found[name]), max(found[name])))
