"""Intervals against scipy and slow loops, at their limits, and by the coverage that they promise."""

import math
import time
from contextlib import contextmanager

import numpy as np
import pytest
from experiments.coverage.counts import score_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from he2her2.statistics import (
    Estimate,
    auc_influence,
    auc_interval,
    auc_limits,
    auc_variance,
    average_precision_interval,
    counts_interval,
    decision_interval,
    delong_difference,
    exact_binomial,
    kappa_interval,
    mcnemar,
    mean_interval,
    rate,
    rate_difference,
)
from he2her2.statistics import metrics as m
from he2her2.statistics.intervals import _clopper_pearson, wilson_limits
from he2her2.statistics.resampling import PRIOR, draw_counts, draw_tables
from he2her2.statistics.roc import auc_covariance
from he2her2.statistics.tests import newcombe_paired

OF_COUNTS = (m.balanced_accuracy, m.f1, m.weighted_f1, m.weighted_precision, m.mcc)


def drawn(n_positive, n_negative, seed=0, shift=1.0):
    """Truth and normal scores, positives higher by `shift`."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n_positive + n_negative) < n_positive
    return truth, rng.normal(size=len(truth)) + shift * truth


@contextmanager
def within(seconds):
    """Count the processor's seconds, which other programs on the machine do not change."""
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


def ends(estimate):
    return estimate.low, estimate.high


@given(n=st.integers(1, 60), data=st.data())
def test_shares_have_the_intervals_of_scipy(n, data):
    """Clopper-Pearson and Wilson, at both ends too."""
    k = data.draw(st.integers(0, n))
    theirs = stats.binomtest(k, n)

    assert ends(exact_binomial(k, n)) == pytest.approx(tuple(theirs.proportion_ci(method="exact")))
    assert wilson_limits(k, n) == pytest.approx(tuple(theirs.proportion_ci(method="wilson")), abs=1e-12)


def test_the_exact_interval_covers_whatever_the_truth_is():
    """The sum of binomial chances of the counts whose interval holds the truth is never under 95 %, here at n = 8."""
    limits = np.array([_clopper_pearson(k, 8) for k in range(9)])
    for truth in np.linspace(0.01, 0.99, 99):
        inside = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
        assert stats.binom.pmf(np.arange(9), 8, truth)[inside].sum() >= 0.95


def test_without_cases_a_share_may_be_anything():
    """0 of 0 is nan, between 0 and 1."""
    nothing = exact_binomial(0, 0)

    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high, nothing.n) == (0, 1, 0)
    assert wilson_limits(0, 0) == (0, 1)
    assert ends(rate([], [])) == (0, 1)


def test_more_hits_than_cases_is_the_callers_bug():
    """9 of 8 is refused."""
    with pytest.raises(ValueError, match="9 of 8"):
        exact_binomial(9, 8)


def test_one_slide_a_patient_is_exact():
    """The names of patients make no difference while each has one case."""
    hits = np.arange(10) < 7

    assert ends(rate(hits, [f"p{i}" for i in range(10)])) == ends(exact_binomial(7, 10))


def test_effective_cases_are_of_the_level():
    """Korn and Graubard take the quantiles of t at the level of the interval; at 80 % those of 95 % were taken."""
    hits, patients = np.array([True, True, False, True, False, False]), np.array([0, 0, 1, 1, 2, 2])
    share, n, p = 0.5, 6, 3
    adjusted = 3 * (stats.t.ppf(0.9, n - 1) / stats.t.ppf(0.9, p - 1)) ** 2

    expected = stats.beta.ppf(0.1, share * adjusted, (1 - share) * adjusted + 1)
    assert rate(hits, patients, level=0.8).low == pytest.approx(expected)


def test_copies_of_a_patient_are_no_evidence():
    """Slides that always agree count as one patient each; slides that never agree count nearly as many."""
    patients = np.repeat(np.arange(20), 4)
    alike, mixed = np.repeat(np.arange(20) < 14, 4), np.tile([True, True, True, False], 20)
    all_right = rate(np.ones(80, bool), patients)

    assert rate(alike, patients).value == 0.7
    assert ends(rate(alike, patients)) == pytest.approx(ends(exact_binomial(14, 20)), abs=0.03)
    assert rate(mixed, patients).low > rate(alike, patients).low
    assert all_right.low <= exact_binomial(20, 20).low


def test_patients_must_be_as_many_as_cases():
    """Two patients for three cases are refused."""
    with pytest.raises(ValueError, match="2 patients for 3 cases"):
        rate([True, True, False], ["a", "b"])


@pytest.mark.parametrize("metric", OF_COUNTS, ids=lambda metric: metric.__name__)
def test_counts_and_cases_agree(metric):
    """From the table and from the cases one by one comes the same interval."""
    truth, scores = drawn(12, 20)
    decided = scores > 0.5
    counts = m.BinaryCounts.of(truth, decided)

    assert counts_interval(metric, counts) == decision_interval(metric, truth, decided)


@pytest.mark.parametrize("metric", OF_COUNTS, ids=lambda metric: metric.__name__)
def test_a_perfect_result_of_eight_is_not_certain(metric):
    """Where the plain bootstrap is a point, the interval still has a width and holds the figure."""
    found = counts_interval(metric, m.BinaryCounts(5, 0, 3, 0))

    assert found.value == found.high == 1
    assert found.low < 0.75


def test_an_undefined_figure_still_has_an_interval():
    """A constant predictor's MCC is nan; what it could be is an interval around 0."""
    found = counts_interval(m.mcc, m.BinaryCounts(5, 3, 0, 0))

    assert math.isnan(found.value)
    assert found.low < 0 < found.high


@pytest.mark.parametrize("metric", OF_COUNTS[:2], ids=lambda metric: metric.__name__)
def test_intervals_of_counts_cover_at_n_8(metric):
    """Exactly, over every table of 8 patients: 93-98 % for four classifiers, where the plain bootstrap has 50-90 %."""
    cells = [(a, b, c, 8 - a - b - c) for a in range(9) for b in range(9 - a) for c in range(9 - a - b)]
    tables = np.array(cells)
    limits = np.array([ends(counts_interval(metric, m.BinaryCounts(*map(int, cell)))) for cell in tables])
    for found, right in ((0.75, 0.7), (0.9, 0.9)):
        for prevalence in (0.4, 0.6):
            shares = (prevalence * found, (1 - prevalence) * (1 - right), (1 - prevalence) * right,
                      prevalence * (1 - found))  # fmt: skip
            inside = (limits[:, 0] <= metric(m.BinaryCounts(*shares))) & (
                metric(m.BinaryCounts(*shares)) <= limits[:, 1]
            )
            assert 0.92 <= stats.multinomial.pmf(tables[inside], 8, shares).sum() <= 0.985


def test_for_many_patients_the_interval_is_that_of_the_delta_method():
    """Balanced accuracy of 4000 patients has its textbook standard error."""
    found = counts_interval(m.balanced_accuracy, m.BinaryCounts(800, 600, 2400, 200))
    error = math.sqrt(0.8 * 0.2 / 1000 + 0.8 * 0.2 / 3000) / 2

    assert ends(found) == pytest.approx((0.8 - 1.96 * error, 0.8 + 1.96 * error), abs=0.0015)


def test_the_interval_of_a_mean_is_that_of_the_textbook():
    """The mean of 400 losses has its standard error; with two copies of each patient the interval stays as wide."""
    losses = np.random.default_rng(1).gamma(2, size=400)
    error = losses.std() / 20
    once = mean_interval(losses)
    doubled = mean_interval(np.repeat(losses, 2), np.repeat(np.arange(400), 2))

    assert ends(once) == pytest.approx(
        (losses.mean() - 1.96 * error, losses.mean() + 1.96 * error), abs=0.1 * error * 4
    )
    assert ends(doubled) == pytest.approx(ends(once), abs=0.1 * error * 4)


@pytest.mark.parametrize("metric", OF_COUNTS, ids=lambda metric: metric.__name__)
def test_drawn_figures_are_those_of_each_draw(metric):
    """All draws at once give what one draw after the other gives."""
    tables = np.repeat(np.eye(4), [3, 1, 5, 0], axis=0)
    draws = draw_tables(tables, prior=PRIOR, n_draws=50, seed=3)

    found = draw_counts(metric, tables, n_draws=50, seed=3)

    assert found.tolist() == pytest.approx([metric(m.BinaryCounts(*draw)) for draw in draws.tolist()])


def test_intervals_are_the_same_each_time():
    """The draws come from a seed, and another seed changes little."""
    truth, scores = drawn(10, 30)
    first, again, other = (average_precision_interval(truth, scores, seed=seed) for seed in (0, 0, 1))

    assert first == again
    assert ends(other) == pytest.approx(ends(first), abs=0.04)


@given(seed=st.integers(0, 50), ties=st.booleans())
def test_placements_are_those_of_the_slow_loop(seed, ties):
    """DeLong's covariance from midranks equals that from all pairs."""
    truth, scores = drawn(7, 9, seed)
    second = drawn(7, 9, seed + 1000)[1]
    if ties:
        scores, second = np.round(scores), np.round(second)
    slow = []
    for column in (scores, second):
        wins = np.sign(column[truth][:, None] - column[~truth][None, :]) / 2 + 0.5
        slow.append((wins.mean(axis=1), wins.mean(axis=0)))
    expected = sum(np.cov(a, b)[0, 1] / len(a) for a, b in zip(*slow, strict=True))
    one, two = auc_influence(truth, scores), auc_influence(truth, second)

    assert one.auc == pytest.approx(slow[0][0].mean())
    assert auc_covariance(truth, one.values, two.values, np.arange(16)) == pytest.approx(expected, abs=1e-12)


def test_the_variance_of_patients_with_cases_of_both_classes_is_obuchowskis():
    """Biometrics 1997;53:567, from all pairs: the sums of a patient's placements in both classes go together."""
    rng = np.random.default_rng(0)
    truth, scores, patients = rng.random(60) < 0.4, rng.normal(size=60).round(1), rng.integers(0, 15, 60)
    wins = (scores[truth][:, None] > scores[~truth]) + (scores[truth][:, None] == scores[~truth]) / 2  # (m, n)
    (m, n), clusters = wins.shape, np.unique(patients)
    moved = (wins.mean(axis=1) - wins.mean(), wins.mean(axis=0) - wins.mean())
    x, y = (
        np.array([moves[patients[kind] == one].sum() for one in clusters])
        for moves, kind in zip(moved, (truth, ~truth), strict=True)
    )
    k10, k01, k = len(np.unique(patients[truth])), len(np.unique(patients[~truth])), len(clusters)

    expected = k10 / (k10 - 1) * x @ x / m**2 + k01 / (k01 - 1) * y @ y / n**2 + 2 * k / (k - 1) * x @ y / (m * n)
    assert auc_variance(truth, auc_influence(truth, scores).values, patients) == pytest.approx(expected)


def test_a_copied_patient_does_not_narrow_the_auc():
    """With every patient's slide listed twice, the clustered variance stays where DeLong's alone would halve it."""
    truth, scores = drawn(15, 20)
    single = auc_variance(truth, auc_influence(truth, scores).values, np.arange(35))
    twice = np.repeat(truth, 2), np.repeat(scores, 2)
    clustered = auc_variance(twice[0], auc_influence(*twice).values, np.repeat(np.arange(35), 2))

    assert clustered == pytest.approx(single)


def test_auc_of_many_is_delongs():
    """500 patients: the ends lie 1.96 of DeLong's standard errors off on the logit scale, but for the score's bend."""
    truth, scores = drawn(200, 300)
    found = auc_interval(truth, scores)
    error = math.sqrt(auc_variance(truth, auc_influence(truth, scores).values, np.arange(500)))
    logits = special.logit([found.low, found.value, found.high])

    assert np.diff(logits) == pytest.approx(1.96 * error / (found.value * (1 - found.value)), rel=0.03)


def test_a_perfect_ranking_is_not_certain():
    """DeLong's variance is 0 there; the interval is still the wider the fewer patients there are."""
    many, few = (auc_interval(np.arange(2 * n) < n, np.arange(2 * n) < n) for n in (30, 5))

    assert many.value == many.high == few.high == 1
    assert 0.6 < few.low < 0.85 < many.low < 0.96


def test_copies_of_a_slide_are_no_evidence_for_a_perfect_ranking():
    """Three slides of each patient that are all alike: as uncertain as one; unlike ones count for more."""
    truth = np.arange(24) < 12
    once = auc_interval(truth, truth)
    copies = auc_interval(np.repeat(truth, 3), np.repeat(truth, 3), np.repeat(np.arange(24), 3))
    rng = np.random.default_rng(0)
    scores = np.repeat(truth, 3) + rng.normal(size=72)
    unlike = auc_interval(np.repeat(truth, 3), scores, np.repeat(np.arange(24), 3))
    first = auc_interval(truth, scores[::3])

    assert ends(copies) == ends(once)
    assert unlike.high - unlike.low < first.high - first.low


@pytest.mark.parametrize(("m", "n", "rare"), [(2, 6, False), (3, 3, False), (1, 20, False), (5, 3, True), (2, 8, True)])
def test_a_perfect_ranking_that_chance_makes_shows_nothing(m, n, rare):
    """Where more than 5 % of all orders are perfect, one way or the other, an AUC of 1 does not exclude 0.5."""
    low, high = auc_limits(1.0, 0.0, m, n)

    assert (2 / math.comb(m + n, m) <= 0.05) == rare
    assert low > 0.5 or not rare
    assert low <= 0.5 + 1e-12 or rare
    assert high == 1


def test_the_variance_of_few_is_raised_and_never_lowered():
    """A variance that a lucky draw made small is not believed; one that is larger than expected is."""
    expected = auc_limits(0.8, math.nan, 10, 10)
    small, large = auc_limits(0.8, 1e-6, 10, 10), auc_limits(0.8, 0.05, 10, 10)

    assert large[0] < expected[0] < small[0] < 0.75
    assert auc_limits(0.8, 1e-6, 500, 500)[0] > 0.78


def test_auc_without_a_class_may_be_anything():
    """Positives alone: nan, between 0 and 1."""
    found = auc_interval([True, True], [0.1, 0.2])

    assert math.isnan(found.value)
    assert ends(found) == (0, 1)


@settings(max_examples=15)
@given(seed=st.integers(0, 100), n_positive=st.integers(1, 14), n_negative=st.integers(1, 14))
def test_auc_and_its_mirror_have_mirrored_intervals(seed, n_positive, n_negative):
    """Turning the scores round turns value and interval round 1/2."""
    truth, scores = drawn(n_positive, n_negative, seed)
    one, two = auc_interval(truth, scores), auc_interval(truth, -scores)

    assert (one.value, one.low, one.high) == pytest.approx((1 - two.value, 1 - two.high, 1 - two.low), abs=1e-6)
    assert 0 <= one.low <= one.value <= one.high <= 1


@pytest.mark.parametrize(("area", "m", "n"), [(0.8, 5, 3), (0.5, 14, 40), (0.95, 10, 10)])
def test_an_unknown_variance_is_the_one_expected_of_the_auc(area, m, n):
    """Without DeLong's variance the interval is Newcombe's: both ends lie 1.96 of their own standard errors off."""
    for end in auc_limits(area, math.nan, m, n):
        spread = 1 + ((m + n) / 2 - 1) * ((1 - end) / (2 - end) + end / (1 + end))
        assert abs(area - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) * spread / (m * n)), abs=1e-6)


@pytest.mark.parametrize(("n_positive", "n_negative"), [(5, 3), (10, 10), (14, 40)])
def test_intervals_of_the_auc_cover(n_positive, n_negative):
    """1 000 draws from two normals: 92.5-99 %, the noise of so few draws allowed for (coverage.md has 2 000)."""
    rng = np.random.default_rng(7)
    truth, shift = np.arange(n_positive + n_negative) < n_positive, math.sqrt(2) * stats.norm.ppf(0.85)
    found = [auc_interval(truth, rng.normal(size=len(truth)) + shift * truth) for _ in range(1000)]

    assert 0.925 <= np.mean([one.low <= 0.85 <= one.high for one in found]) <= 0.99


@pytest.mark.parametrize("others", [1, 5, 20])
def test_one_patient_of_a_class_tells_next_to_nothing(others):
    """It is above all others, or below them: where it is so in 10 % of all draws, the interval must still cover."""
    truth = np.arange(others + 1) < 1
    found = [auc_interval(truth, np.where(truth, place, 0.0)) for place in (1.0, -1.0)]

    assert found[0].low == pytest.approx(0.025)
    assert found[1].high == pytest.approx(0.975)


def test_average_precision_of_few_is_not_certain():
    """8 patients ranked perfectly: 1 at most, far less at least; without positives nothing is known."""
    found = average_precision_interval(np.arange(8) < 5, -np.arange(8.0))

    assert found.value == found.high == 1
    assert found.low < 0.85
    assert ends(average_precision_interval([False], [0.5])) == (0, 1)


def test_kappa_has_an_interval_by_patient():
    """Perfect agreement of 8 slides is not certain, and slides of the same patient widen the interval."""
    scores = np.tile(np.arange(4), 10)
    off = scores.copy()
    off[::5] = (off[::5] + 1) % 4

    assert kappa_interval(scores[:8], scores[:8], 4).low < 0.8
    single, clustered = kappa_interval(scores, off, 4), kappa_interval(scores, off, 4, np.repeat(np.arange(8), 5))
    assert single.low < single.value < single.high
    assert clustered.high - clustered.low > single.high - single.low


@pytest.mark.parametrize("kind", ["positive or not only", "by chance"])
def test_the_interval_of_kappa_covers_at_n_8(kind):
    """One prior alone covers 84 % of the one kind of cohort, the other 90 % of the other; both together do."""
    table, rng = score_tables()[kind], np.random.default_rng(1)
    truth, shares = m.quadratic_kappa(table), (table / table.sum()).ravel()
    drawn_cells = rng.choice(16, (300, 8), p=shares)
    found = [kappa_interval(cells // 4, cells % 4, 4) for cells in drawn_cells]

    assert np.mean([one.low <= truth + 1e-12 and truth - 1e-12 <= one.high for one in found]) >= 0.94


@given(seed=st.integers(0, 30))
def test_the_difference_of_aucs_is_antisymmetric(seed):
    """First less second is minus second less first, with the interval mirrored and the same p-value."""
    truth, one = drawn(12, 18, seed)
    two = one + drawn(12, 18, seed + 500)[1]
    there, back = delong_difference(truth, one, two), delong_difference(truth, two, one)

    assert ends(there.estimate) == pytest.approx((-back.estimate.high, -back.estimate.low))
    assert there.p_value == pytest.approx(back.p_value)
    assert there.estimate.low <= there.estimate.value <= there.estimate.high


def test_for_many_patients_the_difference_is_delongs():
    """900 patients: value ± 1.96 paired standard errors, and the p-value of their ratio."""
    truth, one = drawn(300, 600)
    two = one + drawn(300, 600, 9)[1]
    found = delong_difference(truth, one, two)
    pulls = [auc_influence(truth, scores) for scores in (one, two)]
    error = math.sqrt(auc_variance(truth, pulls[0].values - pulls[1].values, np.arange(900)))
    value = pulls[0].auc - pulls[1].auc

    assert ends(found.estimate) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.06 * error)
    assert stats.norm.isf(found.p_value / 2) == pytest.approx(abs(value) / error, rel=0.03)


def test_two_perfect_rankings_of_few_are_not_shown_to_be_equal():
    """DeLong's variance is 0 there; the interval says that 8 patients cannot tell."""
    truth = np.arange(8) < 5
    found = delong_difference(truth, truth.astype(float), truth + 0.1 * np.arange(8))

    assert (found.estimate.value, found.p_value) == (0, 1)
    assert found.estimate.low < -0.2
    assert found.estimate.high > 0.2


@pytest.mark.parametrize(("n", "is_shown"), [(4, False), (40, True)])
def test_a_perfect_ranking_and_none_have_a_p_value(n, is_shown):
    """DeLong's variance is 0 there, too: the p-value is that of the greatest interval without 0."""
    truth = np.arange(n) < n // 2
    found = delong_difference(truth, truth, np.full(n, 0.5))
    at_p = delong_difference(truth, truth, np.full(n, 0.5), level=1 - found.p_value).estimate

    assert (found.p_value < 0.05) == (found.estimate.low > 0) == is_shown
    assert at_p.low > -1e-6


def test_a_difference_without_a_class_is_unknown():
    """Positives alone: nan in [-1, 1], no p-value."""
    found = delong_difference([True, True], [0.1, 0.2], [0.3, 0.1])

    assert math.isnan(found.estimate.value)
    assert math.isnan(found.p_value)
    assert ends(found.estimate) == (-1, 1)


@given(only_first=st.integers(0, 30), only_second=st.integers(0, 30), both=st.integers(0, 5))
def test_mcnemar_is_the_binomial_test_of_those_that_differ(only_first, only_second, both):
    """With a case a patient: exact as scipy's, mid-P by its definition; both are 1 where none differ."""
    first = np.repeat([True, False, True], [only_first, only_second, both])
    second = np.repeat([False, True, True], [only_first, only_second, both])
    found, n = mcnemar(first, second), only_first + only_second

    expected = stats.binomtest(only_first, n).pvalue if n else 1.0
    point = stats.binom.pmf(only_first, n, 0.5)
    mid = expected - (point if only_first != only_second else point / 2) if n else 1.0
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert (found.exact, found.mid_p) == pytest.approx((expected, mid))


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.9976, 0.9, 1.0, "0.998"),
        (0.0004, 0.0, 0.1, "0.0004"),
        (1.0, 0.9, 1.0, "1.00"),
        (-0.000002, -2.0, 2.0, "0.00"),
        (0.9976, 0.4, 2.1, "1.00"),
    ],
)
def test_a_share_is_shown_as_0_or_1_only_if_it_is(value, low, high, text):
    """One miss of 400 is no sensitivity of 1; a difference or a slope is rounded as it comes, without a sign of 0."""
    assert Estimate("figure", value, low, high, 400, "").text().startswith(f"{text} (")


def test_mcnemar_counts_patients():
    """Ten slides of one patient that the first has right are one sign, not ten."""
    first, second = np.ones(10, bool), np.zeros(10, bool)

    assert mcnemar(first, second).exact == pytest.approx(2 / 1024)
    assert mcnemar(first, second, np.zeros(10, int)).exact == 1


def test_mcnemar_by_patient_is_the_sum_over_all_signs():
    """The exact distribution equals listing every sign of every patient."""
    surplus = np.array([3, -1, 2, 2, 1])
    first = np.concatenate([np.full(abs(k), k > 0) for k in surplus])
    patients = np.repeat(np.arange(5), np.abs(surplus))
    signs = 1 - 2 * (np.arange(32)[:, None] >> np.arange(5) & 1)
    sums = np.abs(signs @ np.abs(surplus))

    assert mcnemar(first, ~first, patients).exact == pytest.approx((sums >= 7).mean())


def test_newcombes_difference_is_that_of_his_paper():
    """Published example of paired shares (1998, table III)."""
    paired = newcombe_paired(36, 12, 2, 50)

    assert (round(paired.value, 4), round(paired.low, 4), round(paired.high, 4)) == (0.2, 0.0569, 0.3404)


def test_a_difference_of_rates_knows_its_patients():
    """With a case a patient it is Newcombe's; copies of every patient do not narrow it."""
    first, second = np.arange(40) < 30, np.arange(40) % 2 == 0
    single = rate_difference(first, second)
    copies = rate_difference(np.repeat(first, 3), np.repeat(second, 3), np.repeat(np.arange(40), 3))

    assert "Newcombe" in single.method
    assert copies.value == pytest.approx(single.value)
    assert copies.high - copies.low == pytest.approx(single.high - single.low, rel=0.15)


def test_differences_without_cases_are_unknown():
    """Nothing against nothing: nan in [-1, 1]."""
    for found in (newcombe_paired(0, 0, 0, 0), rate_difference([], [])):
        assert math.isnan(found.value)
        assert ends(found) == (-1, 1)


def test_ten_thousand_patients_take_seconds():
    """Every interval of 10 000 patients with 15 000 slides within ten seconds of computing (measured: about one)."""
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 10_000, 15_000)
    truth = (patients % 6) == 0
    scores = rng.normal(size=15_000) + truth
    with within(10):
        auc_interval(truth, scores, patients)
        delong_difference(truth, scores, scores + rng.normal(size=15_000), patients)
        average_precision_interval(truth, scores, patients)
        for metric in OF_COUNTS:
            decision_interval(metric, truth, scores > 0.5, patients)
        kappa_interval(rng.integers(0, 4, 15_000), rng.integers(0, 4, 15_000), 4, patients)
        mcnemar(scores > 0.5, scores > 0, patients)
        rate_difference(scores > 0.5, scores > 0, patients)
        rate(scores > 0.5, patients)


def test_an_undefined_estimate_is_no_number_to_a_reader():
    """0/0 reads "undefined", never nan."""
    nothing = exact_binomial(0, 0)

    assert not nothing.is_defined
    assert nothing.text() == nothing.percent() == "undefined"
    assert nothing.negated.text() == "undefined"
