"""Sample sizes against Riley's own programs, by simulation and by exact enumeration."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom, norm
from sklearn.linear_model import LogisticRegression

from he2her2.errors import EvaluationError
from he2her2.evaluation import Plan, needed, shown_by
from he2her2.statistics import (
    Expected,
    auc_interval,
    calibration_line,
    exact_binomial,
    for_auc_above,
    for_auc_width,
    for_calibration_slope,
    for_development,
    for_net_benefit,
    for_observed_expected,
    for_sensitivity,
    for_specificity,
    for_threshold,
)

USUAL = Expected(0.15, 0.8)


def simulated(expected, n, seed=0):
    """Truth and true logits."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < expected.prevalence
    score, d = rng.normal(size=n) + expected.distance * truth, expected.distance
    return truth, logit(expected.prevalence) + d * score - d * d / 2


def test_development_is_that_of_pmsampsize():
    """The example of R's pmsampsize: csrsquared 0.288, 24 parameters, prevalence 0.174 give 623, 662 and 221."""
    found = for_development(Expected(0.174, 0.89), 24, r_squared=0.288)

    assert [one.n for one in found] == [623, 662, 221]
    assert Expected(0.174, 0.89).most_r_squared == pytest.approx(0.603, abs=5e-4)


def test_evaluation_is_that_of_pmvalsampsize():
    """Python's pmvalsampsize 0.2.1 at prevalence 0.15 and c-statistic 0.8: 2179, 3146 and 591.

    Its first is stepped in the standard error, its second simulated at a prevalence within 0.004.
    """
    assert for_observed_expected(USUAL).n == pytest.approx(2179, rel=0.005)
    assert for_calibration_slope(USUAL).n == pytest.approx(3146, rel=0.02)
    assert for_auc_width(USUAL).n == 591


def test_net_benefit_has_the_wanted_interval():
    """In simulated studies of so many patients its standardised value has the standard error that was asked for."""
    n = for_net_benefit(USUAL, 0.9, 0.5, 0.1).n
    assert n is not None
    rng = np.random.default_rng(0)
    positive = rng.binomial(n, 0.15, 4000)
    found, false = rng.binomial(positive, 0.9), rng.binomial(n - positive, 0.5)
    standardised = (found - false / 9) / positive

    assert np.std(standardised) == pytest.approx(0.2 / (2 * norm.ppf(0.975)), rel=0.06)


def test_an_auc_implies_its_r_squared_and_slope_error():
    """By simulation: R-squared of a regression on many patients, and the spread of slopes of studies of 1000."""
    truth, line = simulated(USUAL, 200_000)
    model = LogisticRegression(C=np.inf, tol=1e-8).fit(line[:, None], truth)
    p = model.predict_proba(line[:, None])[:, 1]
    share = truth.mean()
    null = share * np.log(share) + (1 - share) * np.log(1 - share)
    seen = 1 - np.exp(-2 * (np.log(np.where(truth, p, 1 - p)).mean() - null))
    slopes = [calibration_line(*_study(seed)).slope.value for seed in range(40)]

    assert USUAL.r_squared == pytest.approx(seen, rel=0.02)
    n = for_calibration_slope(USUAL).n
    assert n is not None
    assert np.std(slopes) * np.sqrt(1000) == pytest.approx(0.2 / (2 * norm.ppf(0.975)) * np.sqrt(n), rel=0.2)


def _study(seed):
    truth, line = simulated(USUAL, 1000, seed + 1)
    return truth, expit(line)


def test_the_auc_of_so_many_patients_has_the_wanted_interval_and_power():
    """In simulated studies the interval is about 0.1 wide; an AUC of 0.5 is excluded in about four of five."""
    n, few = for_auc_width(USUAL).n, for_auc_above(USUAL, 0.5).n
    assert n is not None
    assert few is not None
    intervals = [auc_interval(*simulated(USUAL, n, seed)) for seed in range(20)]
    power = np.mean([auc_interval(*simulated(USUAL, few, seed)).low > 0.5 for seed in range(200)])

    assert np.mean([one.high - one.low for one in intervals]) == pytest.approx(0.1, abs=0.01)
    assert 0.68 <= power <= 0.92


def test_a_rival_on_the_same_patients_needs_fewer_the_more_alike():
    """Without a true gain no number is enough."""
    alike, unlike = (for_auc_above(USUAL, 0.75, correlation=r).n for r in (0.8, 0.2))

    assert alike is not None
    assert unlike is not None
    assert alike < 0.5 * unlike
    assert for_auc_above(USUAL, 0.8).n is None


def test_sensitivity_is_shown_with_the_wanted_power():
    """By exact enumeration: from so many positives on in four of five studies, one fewer is not enough."""
    found = for_sensitivity(Expected(0.5, 0.8), 0.1, 0.03).n_positive
    assert found is not None

    def power(k):
        misses = np.arange(k + 1)
        return binom.pmf(misses[binom.cdf(misses, k, 0.1) <= 0.05], k, 0.03).sum()

    assert min(power(k) for k in range(found, found + 40)) >= 0.8 > power(found - 1)
    assert for_sensitivity(USUAL, 0.05, 0.05).n is None


def test_a_guarantee_needs_the_positives_that_choosing_a_threshold_needs():
    """59 for 5 %; patients by the prevalence. A specificity needs its exact interval."""
    assert (for_threshold(USUAL, 0.05).n_positive, for_threshold(USUAL, 0.05).n) == (59, 394)
    wide = for_specificity(USUAL, 0.5, width=0.2).n
    assert wide is not None
    assert 110 <= wide <= 125


def test_from_the_needed_number_on_every_number_is_enough():
    """The next whole false alarm widens the interval again: of 36 negatives it is short enough, of 53 it is not."""
    needed_in_all = for_specificity(Expected(0.5, 0.8), 0.99)
    assert needed_in_all.n is not None
    assert needed_in_all.n_positive is not None
    negatives = needed_in_all.n - needed_in_all.n_positive

    def width(k):
        found = exact_binomial(round(0.99 * k), k)
        return found.high - found.low

    assert width(negatives - 1) > 0.1 >= max(width(k) for k in range(negatives, negatives + 300))


def test_impossible_expectations_are_refused():
    """In one line."""
    with pytest.raises(EvaluationError, match=r"AUC between 0\.5 and 1"):
        needed(Plan(auc=0.4))
    with pytest.raises(EvaluationError, match="leave a class empty"):
        shown_by(Plan(n=2))


def test_the_command_prints_every_goal(command_line):
    """As text and as JSON; eight patients show next to nothing."""
    code, said, _ = command_line("plan", "--parameters", "12", "--rival", "0.75", "--patients", "8")
    _, text, _ = command_line("plan", "--json", "--patients", "600")
    found = json.loads(text)

    assert code == 0
    assert "     591        89  AUC within ± 0.05" in said
    assert "development: 12 parameters" in said
    assert "AUC 0.80 (0.01 to 1.00), n = 8" in said
    assert found["needed"][0] == {"goal": "AUC within ± 0.05", "n": 591, "n_positive": 89}
    assert found["shown"][0]["high"] - found["shown"][0]["low"] == pytest.approx(0.1, abs=0.01)
