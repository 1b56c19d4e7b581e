"""Calibration on the logit scale, held against R's glm, rms and scikit-learn."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from he2her2.rules import logit_of
from he2her2.statistics import calibration_line
from he2her2.statistics.calibration_slope import fit_logistic


def golden_cases():
    """Truth and probabilities without a random draw, so that other programs can be given the same."""
    k = np.arange(200)
    z = norm.ppf((k + 0.5) / 200)
    return (k * 0.6180339887498949) % 1 < expit(0.5 + 0.7 * z), np.round(expit(z), 6)


def test_intercept_slope_and_limits_are_those_of_r():
    """R 4.2.2 on `golden_cases`, l = qlogis(p): glm(y ~ offset(l), binomial), glm(y ~ l, binomial), with confint."""
    found = calibration_line(*golden_cases())
    intercept, slope, ratio = found.intercept, found.slope, found.ratio

    assert [intercept.value, intercept.low, intercept.high] == pytest.approx([0.51486844, 0.20596551, 0.82877381], 2e-4)
    assert [slope.value, slope.low, slope.high] == pytest.approx([0.63867675, 0.32720275, 0.97406923], 2e-4)
    assert ratio.value == pytest.approx(121 / golden_cases()[1].sum())


def test_the_smooth_curve_is_that_of_rms():
    """R's rms 6.5-0: lrm(y ~ rcs(l, quantile(l, c(.1, .5, .9)))), predicted with standard errors at three places."""
    curve = calibration_line(*golden_cases()).curve
    found = [(p.predicted, p.observed, p.low, p.high) for p in (curve[0], curve[20], curve[40])]

    assert found[0] == pytest.approx((0.118715, 0.31316228, 0.15231949, 0.53637824), abs=1e-6)
    assert found[1] == pytest.approx((0.500000, 0.61147539, 0.51330062, 0.70136815), abs=1e-6)
    assert found[2] == pytest.approx((0.881285, 0.85634267, 0.65512997, 0.94925255), abs=1e-6)

    half = calibration_line(*golden_cases(), level=0.5).curve[20]
    widths = [logit_of(p.high) - logit_of(p.low) for p in (half, curve[20])]
    assert widths[0] / widths[1] == pytest.approx(norm.ppf(0.75) / norm.ppf(0.975))


def test_the_regression_is_that_of_scikit_learn():
    """Without penalty; and none where the classes separate."""
    truth, probability = golden_cases()
    columns = np.stack([np.ones(200), logit_of(probability), np.sin(np.arange(200))], axis=1)
    fitted = fit_logistic(columns, truth)
    other = LogisticRegression(C=np.inf, tol=1e-10, fit_intercept=False).fit(columns, truth)

    assert fitted is not None
    assert fitted[0] == pytest.approx(other.coef_[0], abs=1e-4)
    assert fit_logistic(columns[:, :2], probability > 0.5) is None


def test_perfect_probabilities_have_intercept_0_and_slope_1():
    """In about 95 of 100 samples of 80 the intervals hold them."""
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(200):
        logits = rng.normal(-1, 1.5, 80)
        found = calibration_line(rng.random(80) < expit(logits), expit(logits))
        held += [found.intercept.low <= 0 <= found.intercept.high, found.slope.low <= 1 <= found.slope.high]

    assert (held / 200 > 0.92).all()
    assert (held / 200 < 0.98).all()


def test_what_separates_or_is_absent_has_open_ends():
    """No slope is too steep for a score that separates the classes; without a class nothing is known of it."""
    apart = calibration_line([False, False, True, True], [0.1, 0.2, 0.7, 0.9])
    wrong_way = calibration_line([True, True, False, False], [0.1, 0.2, 0.7, 0.9])
    one_class = calibration_line([True] * 4, [0.1, 0.2, 0.7, 0.9])
    equal = calibration_line([True, False], [0.5, 0.5])

    assert math.isnan(apart.slope.value)
    assert 0 < apart.slope.low < apart.slope.high == math.inf
    assert wrong_way.slope.low == -math.inf < wrong_way.slope.high < 0
    assert 0 < one_class.intercept.low < one_class.intercept.high == math.inf
    assert math.isnan(one_class.slope.value)
    assert math.isnan(equal.slope.value)
    assert equal.intercept.value == pytest.approx(0, abs=1e-6)
    assert calibration_line([], []).intercept.n == 0


def test_what_nearly_separates_has_an_open_end():
    """One pair of close scores in the wrong order: the steepest slope is finite, and cannot be computed."""
    nearly = calibration_line(
        [False] * 20 + [True, False] + [True] * 20, [0.01] * 20 + [0.499999, 0.500001] + [0.99] * 20
    )

    assert nearly.slope.low < nearly.slope.high
    assert nearly.slope.low > 0
    assert math.isnan(nearly.slope.value) or nearly.slope.low < nearly.slope.value < nearly.slope.high


def test_few_cases_have_no_smooth_curve():
    """Nor have scores of a few values, at which knots coincide."""
    truth, probability = golden_cases()

    assert calibration_line(truth[:19], probability[:19]).curve == ()
    assert calibration_line(truth, np.where(probability > 0.05, 0.7, 0.2)).curve == ()
    two_values = np.repeat([0, 0, 1, 1], [2, 8, 4, 6])  # and a knot between them
    assert calibration_line(np.repeat([0, 1, 0, 1], [2, 8, 4, 6]), two_values).curve == ()
    with pytest.raises(ValueError, match="outside"):
        calibration_line([True], [1.5])
