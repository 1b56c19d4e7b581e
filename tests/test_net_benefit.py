"""Decision curves against dcurves, and where the model helps."""

import numpy as np
import pytest

from he2her2.statistics import decision_curve
from tests.test_calibration_slope import golden_cases


def test_net_benefit_is_that_of_dcurves():
    """Python's dcurves 1.1.7: dca on `golden_cases`, thresholds .05, .1, .3."""
    own, clinic = (decision_curve(*golden_cases(), prevalence=share) for share in (None, 0.15))
    at = [4, 9, 29]

    assert own.thresholds[at] == pytest.approx([0.05, 0.1, 0.3])
    assert own.model.value[at] == pytest.approx([0.584210526, 0.551666667, 0.407142857], abs=1e-8)
    assert own.test_all[at] == pytest.approx([0.584210526, 0.561111111, 0.435714286], abs=1e-8)
    assert clinic.model.value[at] == pytest.approx([0.105263158, 0.054271716, -0.123451347], abs=1e-8)
    assert clinic.test_all[at] == pytest.approx([0.105263158, 0.055555556, -0.214285714], abs=1e-8)


def test_the_band_holds_the_true_net_benefit():
    """Of a score whose sensitivity and specificity at a threshold are known, in most of 200 cohorts."""
    rng, held = np.random.default_rng(0), 0
    grid = np.array([0.2])
    for k in range(200):
        truth = rng.random(80) < 0.3
        called = np.where(truth, rng.random(80) < 0.8, rng.random(80) < 0.3)
        found = decision_curve(truth, np.where(called, 0.9, 0.1), thresholds=grid, seed=k).model
        held += found.low[0] <= 0.3 * 0.8 - 0.7 * 0.3 * 0.25 <= found.high[0]

    assert 183 <= held <= 199


def test_a_useful_range_needs_a_shown_gain():
    """A model that knows is better than both defaults; a coin is not shown to be, nor is a sure model of six."""
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.3

    assert decision_curve(truth, np.where(truth, 0.8, 0.05)).useful == ((0.06, 0.5),)
    assert decision_curve(truth, rng.random(400)).useful == ()
    assert decision_curve([True, True, True, False, False, False], [0.9] * 3 + [0.1] * 3).useful == ()


def test_slides_of_a_patient_widen_the_band():
    """Ten copies of each patient are no more than the patients."""
    truth, p = golden_cases()
    alone = decision_curve(truth, p, thresholds=np.array([0.3]))
    copied = decision_curve(
        np.repeat(truth, 10), np.repeat(p, 10), np.repeat(np.arange(200), 10), thresholds=np.array([0.3])
    )

    assert copied.model.value == pytest.approx(alone.model.value)
    assert (copied.model.high - copied.model.low)[0] == pytest.approx((alone.model.high - alone.model.low)[0], rel=0.1)
    with pytest.raises(ValueError, match="both classes"):
        decision_curve([True], [0.5])
