"""Wrong labels: bounds against every way to swap labels, and the correction by simulation."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2.statistics import auc, if_labels_were_wrong, share_to_chance, swapped_auc_bounds
from tests.test_calibration_slope import golden_cases


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.25, 0.34, 0.5]), digits=st.integers(1, 2))
def test_bounds_are_those_of_every_way_to_swap_labels(seed, share, digits):
    """With ties, too."""
    rng = np.random.default_rng(seed)
    truth, score = np.arange(7) < 3, rng.random(7).round(digits)
    found = []
    for out in (c for k in range(int(share * 3 + 1e-9) + 1) for c in combinations(range(3), k)):
        for into in (c for k in range(int(share * 4 + 1e-9) + 1) for c in combinations(range(3, 7), k)):
            swapped = truth.copy()
            swapped[list(out)], swapped[list(into)] = False, True
            found.append(auc(swapped, score))

    bounds = swapped_auc_bounds(truth, score, share)
    assert (bounds.low, bounds.high) == pytest.approx((np.nanmin(found), np.nanmax(found)))


def test_errors_at_random_are_undone():
    """Labels of which a tenth in each labelled class is wrong give the figures of the true ones back."""
    rng = np.random.default_rng(0)
    given = np.arange(40_000) < 12_000
    true = given ^ (rng.random(40_000) < 0.1)
    score = rng.normal(size=40_000) + 1.2 * true
    found = if_labels_were_wrong(given, score, score > 0.8, share=0.1)

    assert found.auc.value == pytest.approx(auc(true, score), abs=0.01)
    assert found.sensitivity.value == pytest.approx((score > 0.8)[true].mean(), abs=0.015)
    assert found.specificity.value == pytest.approx((score <= 0.8)[~true].mean(), abs=0.015)
    assert auc(given, score) < found.auc.value - 0.04


def test_right_labels_change_nothing():
    """At a share of 0 all is as observed."""
    truth, p = golden_cases()
    found = if_labels_were_wrong(truth, p, p > 0.5, share=0.0)

    assert found.auc.value == pytest.approx(auc(truth, p))
    assert found.sensitivity.value == pytest.approx((p > 0.5)[truth].mean())
    assert found.auc_bounds.low == found.auc_bounds.high == pytest.approx(auc(truth, p))
    perfect = if_labels_were_wrong(truth, truth, truth, share=0.1).auc
    assert (perfect.value, perfect.high) == (1, 1)


def test_the_share_to_chance_is_the_first_that_reaches_it():
    """One step fewer does not."""
    truth, p = golden_cases()
    share = share_to_chance(truth, p)

    assert swapped_auc_bounds(truth, p, share).low <= 0.5
    assert swapped_auc_bounds(truth, p, share - 1e-6).low > 0.5
    assert 0.05 < share < 0.3


def test_bounds_of_many_patients_need_little_memory():
    """Of 60 000 they took 10 GB: every number of labels lost was tried with every number gained."""
    truth, score = np.arange(8000) % 2 == 1, np.random.default_rng(0).random(8000)
    tracemalloc.start()
    bounds = swapped_auc_bounds(truth, score, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert bounds.low < 0.5 < bounds.high
    assert peak < 4 << 20
