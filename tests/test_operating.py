"""An operating point keeps its promise on fresh patients, ties and all, or says that it cannot make it."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from he2her2.errors import EvaluationError, WeightsError
from he2her2.files import json_text
from he2her2.labels import Her2Status
from he2her2.models import Card, hashes_of, read_rules, write_rules
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.card import FileNote
from he2her2.rules import (
    RULES_FILE,
    DecisionRules,
    IsotonicCalibration,
    LogitCalibration,
    OperatingPoint,
)
from he2her2.statistics import choose_operating_point, operating_point_result, positives_needed
from he2her2.statistics.intervals import _clopper_pearson
from he2her2.statistics.operating_point import highest_rank

REPEATS = 200
WANTED: dict[str, Any] = {"chosen_on": "simulated patients"}


def patients(rng, n_positive, n_negative, digits=6):
    """Truth and probabilities; with few digits there are heavy ties."""
    truth = np.arange(n_positive + n_negative) < n_positive
    probability = 1 / (1 + np.exp(-rng.normal(size=len(truth)) - 1.5 * truth + 0.7))
    return truth, np.round(probability, digits)


def point(**changes):
    """An operating point of 100 positives and 150 negatives."""
    return choose_operating_point(*patients(np.random.default_rng(3), 100, 150), **{"budget": 0.1, **WANTED, **changes})


def called_negative(chosen, probability):
    return np.round(probability, 6) < chosen.threshold


@pytest.mark.parametrize("digits", [6, 1], ids=["continuous", "heavy ties"])
@pytest.mark.parametrize(("n_positive", "budget"), [(60, 0.05), (80, 0.1)])
def test_the_promise_holds_on_fresh_patients(n_positive, budget, digits):
    """Of 200 choices, at least 95 % (but for chance) miss no more of very many fresh positives than the budget."""
    rng = np.random.default_rng(11)
    truth, fresh = patients(rng, 100_000, 0, digits)
    kept = 0
    for _ in range(REPEATS):
        chosen = choose_operating_point(*patients(rng, n_positive, 60, digits), budget=budget, **WANTED)
        kept += called_negative(chosen, fresh[truth]).mean() <= budget

    assert kept >= stats.binom.ppf(0.01, REPEATS, 0.95)


@pytest.mark.parametrize("digits", [6, 1], ids=["continuous", "heavy ties"])
def test_the_promise_holds_for_a_small_fresh_cohort(digits):
    """With `n_fresh` the share missed of 40 positives, luck included, is within 10 % in at least 95 % of repeats."""
    rng = np.random.default_rng(12)
    kept = 0
    for _ in range(REPEATS):
        chosen = choose_operating_point(*patients(rng, 90, 60, digits), budget=0.1, n_fresh=40, **WANTED)
        truth, fresh = patients(rng, 40, 0, digits)
        kept += called_negative(chosen, fresh[truth]).mean() <= 0.1

    assert kept >= stats.binom.ppf(0.01, REPEATS, 0.95)


def test_the_obvious_threshold_breaks_the_promise():
    """The test can fail: the sample's own 10 % quantile misses more than 10 % about every other time."""
    rng = np.random.default_rng(13)
    truth, fresh = patients(rng, 100_000, 0)
    broken = sum((fresh[truth] < np.quantile(patients(rng, 80, 0)[1], 0.1)).mean() > 0.1 for _ in range(REPEATS))

    assert broken > 0.3 * REPEATS


@given(n=st.integers(1, 300), budget=st.sampled_from([0.02, 0.05, 0.1, 0.2]), confidence=st.sampled_from([0.9, 0.95]))
def test_the_rank_is_the_last_within_the_bound(n, budget, confidence):
    """One positive more below the threshold and Clopper-Pearson's one-sided bound exceeds the budget."""
    rank = highest_rank(n, budget, confidence)

    if rank:
        assert _clopper_pearson(rank - 1, n, 2 * confidence - 1)[1] <= budget + 1e-12
    if rank < n:
        assert _clopper_pearson(rank, n, 2 * confidence - 1)[1] > budget


@pytest.mark.parametrize("budget", [0.01, 0.05, 0.1])
def test_the_positives_needed_are_just_enough(budget):
    """With them a promise can be made, with one less it is refused and their number is told."""
    needed = positives_needed(budget)

    assert highest_rank(needed, budget, 0.95) == 1
    with pytest.raises(EvaluationError, match=f"{needed - 1} HER2-positive .* {needed} are needed"):
        choose_operating_point(*patients(np.random.default_rng(0), needed - 1, 5), budget=budget, **WANTED)


def test_a_cohort_too_small_for_the_promise_is_refused():
    """One of ten fresh positives is 10 %, so 5 % means none: 60 validation positives cannot promise that."""
    with pytest.raises(EvaluationError, match="in a cohort of 10 positives"):
        point(budget=0.05, n_fresh=10)


def test_without_negatives_nothing_is_saved():
    """The gain of a threshold cannot be told from positives alone."""
    with pytest.raises(EvaluationError, match="no HER2-negative"):
        choose_operating_point(*patients(np.random.default_rng(0), 60, 0), budget=0.1, **WANTED)


def test_a_point_says_what_it_rests_on():
    """Its counts, its bound within the budget, and shares that follow from them."""
    chosen = point()

    assert (chosen.n_positive, chosen.n_negative, chosen.prevalence) == (100, 150, 0.4)
    assert chosen.missed == highest_rank(100, 0.1, 0.95) - 1 == 4
    assert chosen.miss_upper_bound == pytest.approx(_clopper_pearson(4, 100, 0.9)[1])
    assert chosen.saved.low < chosen.saved.value < chosen.saved.high
    assert chosen.npv.low < chosen.npv.value < chosen.npv.high


def test_the_share_saved_follows_the_prevalence():
    """At a prevalence near 0 it is the specificity, at 1 the expected share of positives missed."""
    rng = np.random.default_rng(3)
    truth, probability = patients(rng, 100, 150)
    rare, sure = point(prevalence=0.0), point(prevalence=1.0)

    assert rare.saved.value == pytest.approx(called_negative(rare, probability[~truth]).mean())
    assert sure.saved.value == pytest.approx(5 / 101)
    assert (rare.ppv.value, sure.npv.value) == (0, 0)
    assert point(prevalence=0.15).npv.value > point().npv.value
    chosen, missed = point(prevalence=0.15), 5 / 101
    cleared = called_negative(chosen, probability[~truth]).mean()
    found, right = 0.15 * (1 - missed), 0.85 * cleared
    assert chosen.ppv.value == pytest.approx(found / (found + 0.85 * (1 - cleared)))
    assert chosen.npv.value == pytest.approx(right / (right + 0.15 * missed))


def test_the_interval_of_what_is_saved_covers():
    """The share called negative among fresh patients lies inside in about 95 % of 200 choices."""
    rng = np.random.default_rng(14)
    truth, fresh = patients(rng, 100_000, 100_000)
    inside = 0
    for _ in range(REPEATS):
        chosen = choose_operating_point(*patients(rng, 60, 60), budget=0.1, prevalence=0.15, **WANTED)
        negative = called_negative(chosen, fresh)
        share = 0.15 * negative[truth].mean() + 0.85 * negative[~truth].mean()
        inside += chosen.saved.low <= share <= chosen.saved.high

    assert 0.9 <= inside / REPEATS <= 0.99


def test_all_tied_probabilities_call_everybody_positive():
    """Where the model cannot tell patients apart, nothing is missed and nothing saved."""
    chosen = choose_operating_point(np.arange(100) < 60, np.full(100, 0.5), budget=0.1, **WANTED)

    assert (chosen.missed, chosen.threshold) == (0, 0.5)
    assert chosen.saved.value < 0.02
    assert chosen.status(0.5) is Her2Status.POSITIVE


def test_fresh_patients_judge_the_point():
    """On patients of the same kind the promise holds; on others it is seen to be broken."""
    rng = np.random.default_rng(5)
    chosen, (truth, probability) = point(), patients(rng, 300, 300)
    good, bad = (
        operating_point_result(chosen, truth, probability),
        operating_point_result(chosen, truth, probability / 3),
    )

    assert not good.promise_broken
    assert good.saved.value == called_negative(chosen, probability).mean()
    assert bad.promise_broken
    assert bad.missed.low > 0.1


def test_the_own_prevalence_gives_the_same_outcome():
    """Stated as it is, the prevalence changes no figure."""
    truth, probability = patients(np.random.default_rng(6), 200, 300)
    plain, stated = (operating_point_result(point(), truth, probability, prevalence=share) for share in (None, 0.4))

    for name in ("saved", "ppv", "npv", "missed"):
        assert getattr(plain, name).value == pytest.approx(getattr(stated, name).value)


def test_a_probability_that_is_no_number_is_never_spared_a_test():
    """Nan is called positive when fresh, and refused when a threshold is chosen on it."""
    assert point().status(float("nan")) is Her2Status.POSITIVE
    with pytest.raises(ValueError, match="outside"):
        choose_operating_point([True, False], [float("nan"), 0.5], budget=0.5, **WANTED)


def test_the_patient_at_the_threshold_is_called_as_written():
    """A probability that predictions write as the threshold is positive, though it is a hair smaller."""
    chosen = point()

    assert chosen.status(chosen.threshold - 4e-7) is Her2Status.POSITIVE
    assert chosen.status(chosen.threshold - 2e-6) is Her2Status.NEGATIVE


def a_card():
    """The card of an aggregator with a file."""
    return Card(PAPER_MLP, trained=True, notice="", files={"model.onnx": FileNote("a" * 64, 1)})


def some_rules(**changes):
    calibration = LogitCalibration(0.5, -0.2, "simulated patients")
    fields = {"weights": hashes_of({"aggregator": a_card()}), "operating_point": point(), "calibration": calibration}
    return DecisionRules(**{**fields, **changes})


@pytest.mark.parametrize(
    "calibration", [LogitCalibration(0.5, -0.2, "x"), IsotonicCalibration((0.1, 0.5), (0.0, 0.7), "x"), None]
)
def test_rules_come_back_from_their_file(tmp_path, calibration):
    """What was written beside the weights is what is read."""
    rules = some_rules(calibration=calibration)
    write_rules(tmp_path, rules)

    assert read_rules(tmp_path, {"aggregator": a_card()}) == rules


def test_rules_of_before_the_patient_rule_are_read(tmp_path):
    """Their guarantee is said to hold for one slide a patient only."""
    write_rules(tmp_path, some_rules())
    fields = json.loads((tmp_path / "decision_rules.json").read_text())
    del fields["operating_point"]["patient_rule"], fields["operating_point"]["slides_per_patient"]
    (tmp_path / "decision_rules.json").write_text(json.dumps(fields))

    rules = read_rules(tmp_path, {"aggregator": a_card()})

    assert rules is not None
    assert rules.operating_point is not None
    assert rules.operating_point.patient_rule is None
    assert "of one slide each" in rules.operating_point.guaranteed_for


def test_weights_without_rules_have_none(tmp_path):
    """No file, no rules, no error."""
    assert read_rules(tmp_path, {}) is None


def test_rules_of_other_weights_are_refused(tmp_path):
    """A threshold chosen for another network is worth nothing."""
    write_rules(tmp_path, some_rules(weights={"aggregator": "b" * 64, "tile_cnn": "c" * 64}))

    with pytest.raises(WeightsError, match="chosen for another aggregator and tile_cnn"):
        read_rules(tmp_path, {"aggregator": a_card()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be understood"),
        ("[]", "no JSON object"),
        ('{"version": 2}', "is not of version 1"),
        ('{"version": 1}', "weights: "),
        (json_text(DecisionRules({})).replace("null", "3", 1), "operating_point"),
    ],
)
def test_damaged_rules_are_one_line(tmp_path, text, message):
    """Whatever is wrong with the file, the user hears it with the remedy."""
    (tmp_path / RULES_FILE).write_text(text)

    with pytest.raises(WeightsError, match=message) as error:
        read_rules(tmp_path, {})
    assert "choose them again" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("x", "y"), [((), ()), ((0.2, 0.1), (0.1, 0.2)), ((0.1, 0.2), (0.2, 0.1)), ((0.1,), (0, 1))])
def test_knots_must_make_a_rising_curve(x, y):
    """A calibration curve that falls would turn patients round."""
    with pytest.raises(ValueError, match=r"knots|rise"):
        IsotonicCalibration(x, y, "x")


def test_points_hold_only_what_can_be():
    """A budget of 0 cannot be promised by any threshold but 0."""
    fields = {name: getattr(point(), name) for name in OperatingPoint.__dataclass_fields__}
    with pytest.raises(ValueError, match="budget"):
        OperatingPoint(**{**fields, "budget": 0.0})
