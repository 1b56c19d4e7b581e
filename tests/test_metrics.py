"""The figures of a classifier against scikit-learn, and what they say where nothing is defined."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from he2her2.statistics import (
    Expected,
    RankedScores,
    Unpredicted,
    auc,
    auc_bounds,
    average_precision_interval,
    brier_interval,
    calibration_line,
    choose_operating_point,
    decision_curve,
    exact_tests,
    for_net_benefit,
    kappa_interval,
    mcnemar,
    parts_of_roc,
    rate,
    saved_against_missed,
    share_by_em,
    threshold_at_prior,
)
from he2her2.statistics import metrics as m
from he2her2.statistics.roc import average_precision

counts = st.integers(0, 40)
tables = st.builds(m.BinaryCounts, tp=counts, fp=counts, tn=counts, fn=counts)
full_tables = st.builds(m.BinaryCounts, *[st.integers(1, 40)] * 4)


def as_lists(table):
    """The same cases one by one: truth and decision."""
    cells = [(True, True, table.tp), (False, True, table.fp), (False, False, table.tn), (True, False, table.fn)]
    truth = np.repeat([true for true, _, _ in cells], [k for _, _, k in cells])
    decided = np.repeat([said for _, said, _ in cells], [k for _, _, k in cells])
    return truth.astype(bool), decided.astype(bool)


@st.composite
def ranked(draw):
    """Truth with both classes and scores with many ties."""
    n = draw(st.integers(2, 30))
    truth = draw(arrays(bool, n))
    truth[:2] = True, False
    return truth, draw(arrays(np.int64, n, elements=st.integers(0, 8))) / 8


@given(table=tables)
def test_counts_come_back_from_the_cases(table):
    """Counting cases that were made from a table gives the table."""
    assert m.BinaryCounts.of(*as_lists(table)) == table


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (m.accuracy, sk.accuracy_score),
        (m.balanced_accuracy, sk.balanced_accuracy_score),
        (m.sensitivity, sk.recall_score),
        (m.specificity, lambda t, d: sk.recall_score(t, d, pos_label=False)),
        (m.ppv, sk.precision_score),
        (m.npv, lambda t, d: sk.precision_score(t, d, pos_label=False)),
        (m.f1, sk.f1_score),
        (m.positive_likelihood_ratio, lambda t, d: sk.class_likelihood_ratios(t, d)[0]),
        (m.negative_likelihood_ratio, lambda t, d: sk.class_likelihood_ratios(t, d)[1]),
        (m.mcc, sk.matthews_corrcoef),
    ],
    ids=lambda value: getattr(value, "__name__", "theirs"),
)
@given(table=full_tables)
def test_rates_are_those_of_scikit_learn(ours, theirs, table):
    """Where every cell has cases, each rate equals scikit-learn's."""
    assert ours(table) == pytest.approx(theirs(*as_lists(table)))


@given(table=tables.filter(lambda table: table.n > 0))
def test_weighted_means_are_those_of_scikit_learn_also_for_constant_predictors(table):
    """Support-weighted means follow `zero_division=0` in every table, as the paper's do."""
    expected = sk.precision_recall_fscore_support(*as_lists(table), average="weighted", zero_division=0)[:3]

    assert (m.weighted_precision(table), m.weighted_recall(table), m.weighted_f1(table)) == pytest.approx(expected)


@given(table=tables.filter(lambda table: table.n > 0))
def test_weighted_recall_is_plain_accuracy(table):
    """The paper's column "recall" says nothing that accuracy does not say."""
    assert m.weighted_recall(table) == pytest.approx(m.accuracy(table))


@pytest.mark.parametrize(
    ("figure", "table"),
    [
        (m.accuracy, m.BinaryCounts(0, 0, 0, 0)),
        (m.sensitivity, m.BinaryCounts(0, 1, 1, 0)),
        (m.specificity, m.BinaryCounts(1, 0, 0, 1)),
        (m.balanced_accuracy, m.BinaryCounts(1, 0, 0, 1)),
        (m.ppv, m.BinaryCounts(0, 0, 3, 2)),
        (m.npv, m.BinaryCounts(2, 3, 0, 0)),
        (m.f1, m.BinaryCounts(0, 0, 3, 0)),
        (m.mcc, m.BinaryCounts(5, 3, 0, 0)),
        (m.called_negative, m.BinaryCounts(0, 0, 0, 0)),
        (m.weighted_f1, m.BinaryCounts(0, 0, 0, 0)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_undefined_is_nan(figure, table):
    """0/0 is neither 0 nor 1."""
    assert math.isnan(figure(table))


def test_a_constant_predictor_is_seen():
    """One answer for every case is constant; two answers are not."""
    assert m.BinaryCounts(5, 3, 0, 0).constant
    assert m.BinaryCounts(0, 0, 3, 5).constant
    assert not m.BinaryCounts(5, 3, 0, 1).constant


@given(table=full_tables, prevalence=st.floats(0.01, 0.99))
def test_another_prevalence_leaves_sensitivity_and_specificity(table, prevalence):
    """Bayes' theorem changes predictive values only."""
    moved = table.at_prevalence(prevalence)

    assert moved.n == pytest.approx(1)
    assert moved.positives == pytest.approx(prevalence)
    assert m.sensitivity(moved) == pytest.approx(m.sensitivity(table))
    assert m.specificity(moved) == pytest.approx(m.specificity(table))


@given(table=full_tables)
def test_the_own_prevalence_changes_nothing(table):
    """Recomputed for the share of positives that the cases have, PPV and NPV are the same."""
    same = table.at_prevalence(table.positives / table.n)

    assert (m.ppv(same), m.npv(same)) == pytest.approx((m.ppv(table), m.npv(table)))


@given(cases=ranked())
def test_auc_is_that_of_scikit_learn(cases):
    """Ties and all."""
    assert auc(*cases) == pytest.approx(sk.roc_auc_score(*cases))


@given(cases=ranked())
def test_auc_is_the_share_of_pairs_in_order(cases):
    """The slow way: every positive against every negative, a tie counts half."""
    truth, scores = cases
    pairs = np.sign(scores[truth][:, None] - scores[~truth][None, :]) / 2 + 0.5

    assert auc(truth, scores) == pytest.approx(pairs.mean())


@given(cases=ranked())
def test_average_precision_is_that_of_scikit_learn(cases):
    """Ties and all."""
    assert average_precision(*cases) == pytest.approx(sk.average_precision_score(*cases))


@given(cases=ranked(), data=st.data())
def test_a_weight_is_so_many_copies(cases, data):
    """Weighting a case by 2 is listing it twice."""
    truth, scores = cases
    weights = data.draw(arrays(np.int64, len(truth), elements=st.integers(0, 3)))
    weights[:2] = 1
    ranking, copies = RankedScores.of(truth, scores), (np.repeat(truth, weights), np.repeat(scores, weights))

    assert ranking.auc(weights.astype(float)) == pytest.approx(auc(*copies))
    assert ranking.average_precisions(weights[None].astype(float))[0] == pytest.approx(average_precision(*copies))


@given(cases=ranked(), seed=st.integers(0, 99))
def test_the_order_of_cases_is_irrelevant(cases, seed):
    """Shuffled cases have the same figures."""
    order = np.random.default_rng(seed).permutation(len(cases[0]))
    shuffled = cases[0][order], cases[1][order]

    assert auc(*shuffled) == pytest.approx(auc(*cases))
    assert average_precision(*shuffled) == pytest.approx(average_precision(*cases))


def test_without_a_class_there_is_no_auc():
    """Neither with positives only nor with no case at all; average precision needs positives."""
    assert math.isnan(auc([True, True], [0.1, 0.2]))
    assert math.isnan(auc(np.array([], bool), []))
    assert math.isnan(average_precision([False], [0.1]))
    assert average_precision([True], [0.1]) == 1


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_confusion_matrix_is_that_of_scikit_learn(pairs):
    """Rows are the truth, also for classes that do not occur."""
    truth, decided = zip(*pairs, strict=True)

    expected = sk.confusion_matrix(truth, decided, labels=range(4))
    assert expected.tolist() == m.confusion_matrix(truth, decided, 4).tolist()


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_quadratic_kappa_is_that_of_scikit_learn(pairs):
    """Wherever scikit-learn defines it; else ours is nan too."""
    truth, decided = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.cohen_kappa_score(truth, decided, labels=range(4), weights="quadratic")

    found = m.quadratic_kappa(m.confusion_matrix(truth, decided, 4))
    if len({*truth, *decided}) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: m.BinaryCounts.of([True], [True, False]),
        lambda: m.BinaryCounts.of([1, 0], [1, 0]),
        lambda: auc([1, 0], [0.1, 0.2]),
        lambda: auc([True, False], [0.1, math.nan]),
        lambda: auc([True, False], [0.1]),
        lambda: m.confusion_matrix([0, 4], [0, 1], 4),
        lambda: m.confusion_matrix([0, 0.5], [0, 1], 4),
        lambda: m.confusion_matrix([0], [0, 1], 4),
        lambda: kappa_interval([0, 1], [1, 2], 2, ["a", "b"]),
        lambda: decision_curve([True, False], [0.9, math.nan]),
        lambda: rate([True, False, False], np.array(["a", None, None])),
        lambda: rate([True, False], level=95),
        lambda: m.BinaryCounts(tp=8, fp=2, tn=18, fn=2).at_prevalence(15),
        lambda: decision_curve([True, False], [0.9, 0.1], prevalence=15),
        lambda: saved_against_missed(
            np.array([True, False]), np.array([0.9, 0.1]), np.array(["a", "b"]), prevalence=15
        ),
        lambda: share_by_em([0.9, 0.1], 50),
        lambda: threshold_at_prior(50, 20),
        lambda: for_net_benefit(Expected(0.15, 0.8), 0.9, 0.9, 10),
        lambda: rate([True, False, False], np.array([1.0, math.nan, math.nan])),
        lambda: exact_tests([True, False], [0.9, math.nan], [True, False]),
        lambda: exact_tests([True, False], [0.9, 0.4, 0.1], [True, False]),
    ],
)
def test_wrong_lists_are_the_callers_bug(wrong):
    """Labels that are no bool, lists of other lengths, nan scores, unknown classes and per cents are refused."""
    with pytest.raises(ValueError):
        wrong()


@pytest.mark.parametrize(
    "strange", [["negative", "positive", "0"], [-1, 1, 1], [1, 2, 2], [0, 1, math.nan], [0, None, 1]]
)
@pytest.mark.parametrize(
    "figure",
    [
        average_precision_interval,
        partial(auc_bounds, without_outcome=[], lost=Unpredicted()),
        brier_interval,
        calibration_line,
        partial(choose_operating_point, budget=0.1, chosen_on="these"),
        decision_curve,
        partial(parts_of_roc, parts=[]),
        lambda truth, _: rate(truth),
        lambda truth, _: mcnemar([True, False, True], truth),
        lambda truth, p: exact_tests([True, False, True], p, truth),
        lambda truth, p: exact_tests(truth, p, [True, False, True]),
    ],
)
def test_outcomes_are_bool_or_0_and_1(figure, strange):
    """Other values were all true to Python, without a word: the words for negative and positive, -1 and 1, nan."""
    with pytest.raises(ValueError, match="0 and 1"):
        figure(strange, [0.1, 0.9, 0.4])


def test_outcomes_may_be_written_as_numbers():
    """0 and 1 are as good as bool, and so are lists of Python."""
    truth = np.array([True, False, True, False])

    for written in (truth.astype(int), truth.astype(float), truth.astype(object), truth.tolist()):
        assert brier_interval(written, [0.9, 0.2, 0.6, 0.4]) == brier_interval(truth, [0.9, 0.2, 0.6, 0.4])
