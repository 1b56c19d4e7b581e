"""Parts of the ROC: against pROC, against a slow loop, and their intervals against simulated cohorts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from he2her2.statistics import PartialAuc, RateAt, auc, parts_of_roc


def part(truth, scores, what, patients=None):
    """One part of the ROC."""
    return parts_of_roc(truth, scores, [what], patients)[0]


def cases(seed, n, shift, decimals=None):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.25
    scores = rng.normal(size=n) + shift * truth
    return truth, scores if decimals is None else np.round(scores, decimals)


@pytest.mark.parametrize(
    ("of", "sensitivity", "specificity", "ruling_out", "ruling_in"),
    [
        ((0, 60, 1.2), 0.2666667, 0.1777778, 0.6062378, 0.6213992),
        ((1, 200, 0.6), 0.2558140, 0.1464968, 0.5817384, 0.5528235),
        ((2, 600, 1.0), 0.3765432, 0.2054795, 0.5776627, 0.6405127),
        ((3, 100, 1.0, 1), 0.3600000, 0.5266667, 0.7270175, 0.6140741),
        ((4, 300, 0.3, 1), 0.1362573, 0.1333333, 0.5257781, 0.5068160),
        ((5, 40, 1.0, 0), 0.3590909, 0.1672414, 0.5615410, 0.6330547),
    ],
)
def test_they_are_those_of_proc(of, sensitivity, specificity, ruling_out, ruling_in):
    """By `coords`, and `auc` with `partial.auc.correct`, of version 1.18, with ties and without."""
    truth, scores = cases(*of)

    assert part(truth, scores, RateAt("specificity", 0.9)).value == pytest.approx(sensitivity, abs=1e-7)
    assert part(truth, scores, RateAt("sensitivity", 0.95)).value == pytest.approx(specificity, abs=1e-7)
    assert part(truth, scores, PartialAuc("sensitivity", 0.9)).value == pytest.approx(ruling_out, abs=1e-7)
    assert part(truth, scores, PartialAuc("specificity", 0.8)).value == pytest.approx(ruling_in, abs=1e-7)


@settings(max_examples=10)  # six intervals each
@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([None, 1, 0]))
def test_the_whole_is_the_auc_and_chance_is_a_half(seed, decimals):
    """With nothing left out; and a score that says nothing has 0.5 in every part."""
    truth, scores = cases(seed, 30, 0.5, decimals)
    truth[:2] = True, False

    for held in ("sensitivity", "specificity"):
        assert part(truth, scores, PartialAuc(held, 0)).value == pytest.approx(auc(truth, scores))
        assert part(truth, np.zeros(30), PartialAuc(held, 0.9)).value == pytest.approx(0.5)
        assert part(truth, truth.astype(float), PartialAuc(held, 0.9)).value == pytest.approx(1)


@pytest.mark.parametrize("held", ["sensitivity", "specificity"])
def test_a_rate_is_the_best_where_the_other_is_reached(held):
    """At every whole per cent, 0 too, of 100 cases of each class with many ties; 1 - 0.07 is less than 0.93."""
    truth, scores = np.arange(200) < 100, np.random.default_rng(0).integers(0, 12, 200) + 3 * (np.arange(200) < 100)
    called = scores >= np.append(np.unique(scores), 99)[:, None]  # (t, n)
    corners = {"sensitivity": called[:, truth].sum(axis=1), "specificity": (~called[:, ~truth]).sum(axis=1)}
    kept, other = corners.pop(held), *corners.values()

    found = parts_of_roc(truth, scores, [RateAt(held, at / 100) for at in range(100)])

    order = np.lexsort((-other, kept))
    expected = [max(np.interp(at, kept[order], other[order]), other[kept >= at].max()) for at in range(100)]
    assert [100 * one.value for one in found] == pytest.approx(expected)


def test_patients_are_the_units():
    """Every case doubled under its patient's name changes nothing; as if new it would narrow the interval."""
    truth, scores = cases(3, 80, 1.0)
    names = np.arange(80).astype(str)

    one = part(truth, scores, RateAt("sensitivity", 0.9), names)
    double = part(np.tile(truth, 2), np.tile(scores, 2), RateAt("sensitivity", 0.9), np.tile(names, 2))
    as_new = part(np.tile(truth, 2), np.tile(scores, 2), RateAt("sensitivity", 0.9))

    assert (double.value, double.low, double.high) == pytest.approx((one.value, one.low, one.high))
    assert as_new.high - as_new.low < 0.85 * (one.high - one.low)


def test_intervals_hold_the_truth():
    """In simulated cohorts of 20 positives and 80 negatives, whose ROC is known."""
    truth, d = np.arange(100) < 20, 1.0
    expected = norm.sf(norm.isf(0.1) - d)
    held = 0
    for seed in range(100):
        found = part(truth, np.random.default_rng(seed).normal(size=100) + d * truth, RateAt("specificity", 0.9))
        held += found.low <= expected <= found.high

    assert held >= 88


@pytest.mark.parametrize("held", ["sensitivity", "specificity"])
def test_a_perfect_ranking_of_few_is_not_sure_to_be_one(held):
    """Half a patient of each class lies on the wrong side: of 12 negatives it may be more than a tenth."""
    truth = np.arange(20) < 8

    found = part(truth, truth.astype(float), RateAt(held, 0.9))

    assert found.value == found.high == 1
    assert found.low < 0.5


def test_one_class_has_none():
    """Undefined, in the widest interval."""
    found = part([True, True], [0.1, 0.2], PartialAuc("sensitivity", 0.9))

    assert np.isnan(found.value)
    assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize(("held", "value"), [("Specificity", 0.9), ("sensitivity", 90), ("sensitivity", -0.1)])
@pytest.mark.parametrize("part_of", [PartialAuc, RateAt])
def test_another_word_or_a_value_in_per_cent_is_the_callers_bug(part_of, held, value):
    """Another word than the two was sensitivity, under its own name."""
    with pytest.raises(ValueError, match=f"got {held} at {value}"):
        part_of(held, value)
