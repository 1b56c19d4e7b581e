"""Calibration: figures against scikit-learn, the error's interval by simulation, and corrections that help."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from he2her2.errors import EvaluationError
from he2her2.rules import LogitCalibration, logit_of
from he2her2.statistics import (
    brier_interval,
    calibration_error_interval,
    fit_isotonic,
    fit_temperature,
    recalibrate_site,
    reliability_curve,
)
from he2her2.statistics.calibration import _equal_mass_bins, calibration_error


def cases(n, seed=0, slope=1.0, shift=0.0):
    """Truth and probabilities whose logits should be multiplied by `slope` and moved by `shift`."""
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=1.5, size=n)
    return rng.random(n) < expit(slope * z + shift), expit(z)


def test_brier_is_that_of_scikit_learn():
    """With an interval that holds it; without cases it is nan."""
    truth, probability = cases(50)
    found = brier_interval(truth, probability)

    assert found.value == pytest.approx(brier_score_loss(truth, probability))
    assert found.low < found.value < found.high
    assert math.isnan(brier_interval([], []).value)


def test_a_perfect_brier_score_of_few_is_not_certain():
    """Eight right and sure answers do not prove that the ninth will be."""
    truth = np.arange(8) < 5

    assert brier_interval(truth, truth.astype(float)).low == 0
    assert brier_interval(truth, truth.astype(float)).high > 0.1


@given(n=st.integers(1, 60), n_bins=st.integers(1, 8), digits=st.integers(1, 4))
def test_bins_keep_order_and_equals_together(n, n_bins, digits):
    """A bin's cases lie below those of the next; equal probabilities share a bin; none is empty."""
    probability = np.round(cases(n)[1], digits)
    bins = _equal_mass_bins(probability, n_bins)
    order = np.argsort(probability)

    assert (np.diff(bins[order]) >= 0).all()
    assert set(bins) == set(range(bins.max() + 1))
    assert bins.max() < n_bins
    assert all(len(set(bins[probability == p])) == 1 for p in probability)


def test_bins_hold_equally_many():
    """Without ties, 100 cases make 10 bins of 10; 8 cases make one."""
    assert np.bincount(_equal_mass_bins(cases(100)[1])).tolist() == [10] * 10
    assert np.bincount(_equal_mass_bins(cases(8)[1])).tolist() == [8]


def test_calibration_error_is_the_mean_gap():
    """Two bins, said 0.2 and 0.8, observed 0.5 and 0.75: (0.3 + 0.05) / 2."""
    truth, probability = [True, False, True, False, True, True, True, False], [0.2] * 4 + [0.8] * 4

    assert calibration_error(truth, probability, n_bins=2) == pytest.approx(0.175)


def test_the_reliability_curve_has_its_cases():
    """Every bin has its mean probability, its share of positives and its n."""
    truth, probability = cases(95)
    curve = reliability_curve(truth, probability)

    assert sum(point.observed.n for point in curve) == 95
    assert [point.predicted for point in curve] == sorted(point.predicted for point in curve)
    assert all(point.observed.low <= point.observed.value <= point.observed.high for point in curve)
    assert reliability_curve([], []) == ()


def test_noise_is_taken_off_the_calibration_error():
    """Perfect probabilities show a plain error of several points; the interval holds 0, the value is near it."""
    found = [calibration_error_interval(*cases(200, seed)) for seed in range(40)]
    plain = np.mean([calibration_error(*cases(200, seed)) for seed in range(40)])

    assert plain > 0.05
    assert np.mean([one.value for one in found]) < plain / 2
    assert sum(one.low == 0 for one in found) >= 36


def test_the_interval_of_the_calibration_error_covers():
    """Probabilities that are far too sure: the error of very many cases lies inside nearly always, and 0 outside."""
    truth = calibration_error(*cases(200_000, 99, slope=0.3))
    found = [calibration_error_interval(*cases(400, seed, slope=0.3)) for seed in range(100)]

    assert sum(one.low <= truth <= one.high for one in found) >= 88
    assert sum(one.low > 0 for one in found) >= 90


@pytest.mark.parametrize("n", [8, 40, 400])
def test_probabilities_that_hold_too_well_are_not_certain(n):
    """Nobody off by more than a thousandth: the error may be 0, and yet as large as a few of n make it."""
    truth = np.arange(n) % 2 == 0
    found = calibration_error_interval(truth, np.where(truth, 0.999, 0.001))

    assert found.value == found.low == 0
    assert 1 / n < found.high < 6 / math.sqrt(n)


def test_slides_of_a_patient_widen_the_calibration_error():
    """Four copies of every patient are no reason to be surer of an error."""
    truth, probability = cases(60, slope=0.3)
    copies = np.repeat(truth, 4), np.repeat(probability, 4)
    naive = calibration_error_interval(*copies, n_bins=5)
    clustered = calibration_error_interval(*copies, np.repeat(np.arange(60), 4), n_bins=5)

    assert clustered.high - clustered.low > naive.high - naive.low


def test_without_cases_calibration_is_unknown():
    """Nan in [0, 1]."""
    found = calibration_error_interval([], [])

    assert math.isnan(calibration_error([], []))
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0, 1)


def test_temperature_is_the_slope_of_logistic_regression():
    """Fitted without penalty and intercept, scikit-learn finds the same slope."""
    truth, probability = cases(300, slope=0.4)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(logit(probability)[:, None], truth)
    ours = fit_temperature(truth, probability, chosen_on="x")

    assert ours.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-3)
    assert ours.shift == 0


@pytest.mark.parametrize("digits", [1, 6])
def test_isotonic_is_that_of_scikit_learn(digits):
    """The same knots, also of equal probabilities, and the same curve between and beyond them."""
    truth, probability = cases(200, slope=0.4, shift=1)
    probability = probability.round(digits)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(probability, truth)
    ours = fit_isotonic(truth, probability, chosen_on="x")
    grid = np.linspace(0, 1, 101)

    assert ours.x == tuple(theirs.X_thresholds_)
    assert ours.y == pytest.approx(tuple(theirs.y_thresholds_))
    assert ours(grid) == pytest.approx(theirs.predict(grid))


@pytest.mark.parametrize("fit", [fit_temperature, fit_isotonic])
def test_one_class_cannot_calibrate(fit):
    """It says so instead of promising certainty."""
    with pytest.raises(EvaluationError, match="both classes"):
        fit([True, True], [0.2, 0.3], chosen_on="two patients")


@pytest.mark.parametrize("fit", [fit_temperature, fit_isotonic, recalibrate_site])
def test_calibration_mends_what_is_too_sure(fit):
    """Learned on 500 patients, log loss of fresh ones falls, and their order stays."""
    truth, probability = cases(2000, 1, slope=0.3)
    corrected = fit(*cases(500, 2, slope=0.3), chosen_on="x")(probability)
    order = np.argsort(probability)

    assert log_loss(truth, np.clip(corrected, 1e-3, 1 - 1e-3)) < log_loss(truth, probability) - 0.05
    assert (np.diff(corrected[order]) >= 0).all()


def test_eight_patients_of_a_new_site_help_on_average_and_never_harm_much():
    """A site shifted by 2 logits: with 8 labelled patients the loss falls; where nothing is shifted it hardly rises."""
    gains = {}
    for shift in (2.0, 0.0):
        truth, probability = cases(2000, 5, shift=shift)
        before = log_loss(truth, probability)
        few = (recalibrate_site(*cases(8, seed, shift=shift), chosen_on="x") for seed in range(60))
        gains[shift] = np.mean([before - log_loss(truth, one(probability)) for one in few])

    assert gains[2.0] > 0.2
    assert gains[0.0] > -0.12


def test_a_new_site_may_have_one_class_only_or_nobody():
    """Eight positives raise every probability, but do not make it sure; nobody changes nothing."""
    raised = recalibrate_site(np.ones(8, bool), np.full(8, 0.3), chosen_on="x")
    same = recalibrate_site([], [], chosen_on="x")

    assert 0.3 < raised(0.3) < 0.98
    assert same(np.array([0.1, 0.7])) == pytest.approx([0.1, 0.7], abs=1e-4)


@given(probability=st.floats(0, 1))
def test_to_change_nothing_changes_nothing(probability):
    """Slope 1, shift 0, but for probabilities beyond what predictions can write."""
    assert LogitCalibration(1.0, 0.0, "x")(probability) == pytest.approx(probability, abs=1e-6)


def test_certain_probabilities_stay_finite():
    """0 and 1 have logits that can be computed with."""
    assert np.isfinite(logit_of([0.0, 1.0])).all()
    assert LogitCalibration(2.0, 1.0, "x")(np.array([0.0, 1.0])) == pytest.approx([0, 1], abs=1e-5)


def test_wrong_probabilities_are_the_callers_bug():
    """Beyond [0, 1], or not as many as truths."""
    with pytest.raises(ValueError, match="nan or outside"):
        brier_interval([True], [1.2])
    with pytest.raises(ValueError, match="equally long"):
        brier_interval([True, False], [0.2])
