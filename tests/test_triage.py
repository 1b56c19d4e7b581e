"""Rule out, refer, rule in: the guarantees by simulation, and the arms' shares."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from he2her2.errors import EvaluationError
from he2her2.rules import Arm, Triage, are_called
from he2her2.statistics import arm_counts, choose_triage

BUDGETS: dict[str, Any] = {"miss_budget": 0.05, "false_budget": 0.1, "chosen_on": "simulated patients"}


def patients(rng, n_positive, n_negative, digits=6, shift=1.5):
    truth = np.arange(n_positive + n_negative) < n_positive
    probability = 1 / (1 + np.exp(-rng.normal(size=len(truth)) - shift * truth + 0.7))
    return truth, np.round(probability, digits)


def risks(triage, truth, probability):
    """Share of positives ruled out and of negatives ruled in."""
    out, ruled_in = probability < triage.rule_out_below, probability >= triage.rule_in_from
    return out[truth].mean(), ruled_in[~truth].mean()


@pytest.mark.parametrize("digits", [6, 1], ids=["continuous", "heavy ties"])
def test_both_risks_stay_within_their_budgets_on_average(digits):
    """Over 300 choices the mean risk of fresh patients is within the budget; without ties it comes close to it."""
    rng = np.random.default_rng(21)
    fresh = patients(rng, 20_000, 20_000, digits)
    found = np.array([risks(choose_triage(*patients(rng, 40, 50, digits), **BUDGETS), *fresh) for _ in range(300)])
    missed, false = found.mean(axis=0)

    assert missed <= 0.05 + 3 * found[:, 0].std() / np.sqrt(300)
    assert false <= 0.1 + 3 * found[:, 1].std() / np.sqrt(300)
    if digits == 6:
        assert missed > 0.035
        assert false > 0.08


def test_with_a_confidence_the_promise_holds_for_most_choices():
    """At least 95 % of 200 choices, but for chance, keep each budget."""
    rng = np.random.default_rng(22)
    fresh = patients(rng, 50_000, 50_000)
    found = np.array(
        [risks(choose_triage(*patients(rng, 80, 80), **BUDGETS, confidence=0.95), *fresh) for _ in range(200)]
    )

    assert (found[:, 0] <= 0.05).sum() >= stats.binom.ppf(0.01, 200, 0.95)
    assert (found[:, 1] <= 0.1).sum() >= stats.binom.ppf(0.01, 200, 0.95)


@pytest.mark.parametrize(
    ("n_positive", "n_negative", "confidence", "message"),
    [
        (18, 50, None, "18 HER2-positive .* 19 are needed"),
        (50, 8, None, "8 HER2-negative .* 9 are needed"),
        (58, 50, 0.95, "58 HER2-positive .* 59 are needed"),
        (0, 50, None, "0 HER2-positive"),
    ],
)
def test_too_few_patients_are_refused(n_positive, n_negative, confidence, message):
    """With the number that would do; one more patient is enough."""
    rng = np.random.default_rng(0)

    with pytest.raises(EvaluationError, match=message):
        choose_triage(*patients(rng, n_positive, n_negative), **BUDGETS, confidence=confidence)
    assert choose_triage(*patients(rng, 59, 50), **BUDGETS, confidence=confidence)


def test_classes_that_lie_apart_refer_nobody():
    """Where both boundaries cross they meet, and every patient is decided."""
    truth, probability = patients(np.random.default_rng(1), 60, 60, shift=12)
    triage = choose_triage(truth, probability, **BUDGETS)

    assert triage.rule_out_below == triage.rule_in_from
    assert arm_counts(triage, probability)[Arm.REFER] == 0
    assert risks(triage, truth, probability) == (0, 0)


@given(seed=st.integers(0, 100), shift=st.floats(0, 6), digits=st.integers(1, 6))
def test_every_patient_has_one_arm_in_order(seed, shift, digits):
    """A higher probability never leads to a lower arm; shares add up to 1 and lie in their intervals."""
    truth, probability = patients(np.random.default_rng(seed), 40, 30, digits, shift)
    triage = choose_triage(truth, probability, **BUDGETS)
    order = [list(Arm).index(triage.arm(p)) for p in np.sort(probability)]
    arms = [triage.arms.rule_out, triage.arms.refer, triage.arms.rule_in]

    assert order == sorted(order)
    assert sum(arm_counts(triage, probability).values()) == 70
    assert sum(arm.value for arm in arms) == pytest.approx(1)
    assert all(0 <= arm.low <= arm.value <= arm.high <= 1 for arm in arms)
    assert arms[0].value == pytest.approx(arm_counts(triage, probability)[Arm.RULE_OUT] / 70)


@given(seed=st.integers(0, 100), shift=st.floats(0, 6), threshold=st.floats(0, 1))
def test_a_threshold_lies_between_the_limits(seed, shift, threshold):
    """Each limit keeps to its side, which rules out and in no more than before; shares are those at the new limits."""
    truth, probability = patients(np.random.default_rng(seed), 40, 30, 6, shift)
    free = choose_triage(truth, probability, **BUDGETS)
    triage = choose_triage(truth, probability, **BUDGETS, threshold=threshold)

    assert triage.holds(threshold)
    assert triage.clipped or (triage.rule_out_below, triage.rule_in_from) == (free.rule_out_below, free.rule_in_from)
    assert all(after <= budget for after, budget in zip(risks(triage, truth, probability), (0.05, 0.1), strict=True))
    assert triage.arms.rule_out.value == pytest.approx(arm_counts(triage, probability)[Arm.RULE_OUT] / 70)
    at = np.append(probability, threshold)  # of more digits than predictions write
    arms, called = [triage.arm(p) for p in at.tolist()], are_called(at, threshold).tolist()
    assert (Arm.RULE_OUT, True) not in zip(arms, called, strict=True)
    assert (Arm.RULE_IN, False) not in zip(arms, called, strict=True)


def test_negatives_at_the_top_are_not_ruled_in():
    """When every patient has probability 1, the upper boundary lies above it and all are referred."""
    triage = choose_triage(np.arange(60) < 30, np.ones(60), **BUDGETS)

    assert arm_counts(triage, np.ones(60)) == {Arm.RULE_OUT: 0, Arm.REFER: 60, Arm.RULE_IN: 0}


def test_a_probability_that_is_no_number_is_referred():
    """IHC decides where the model has nothing to say."""
    triage = choose_triage(*patients(np.random.default_rng(2), 60, 60), **BUDGETS)

    assert triage.arm(float("nan")) is Arm.REFER


def test_the_arms_follow_the_prevalence():
    """With hardly any positives more patients are ruled out, and the intervals hold the truth of many."""
    rng = np.random.default_rng(4)
    validation = patients(rng, 60, 60)
    rare, common = (choose_triage(*validation, **BUDGETS, prevalence=share) for share in (0.05, 0.6))
    truth, probability = patients(rng, 50_000, 50_000)
    referred = [arm_counts(rare, probability[kind])[Arm.REFER] / 50_000 for kind in (truth, ~truth)]

    assert rare.arms.rule_out.value > common.arms.rule_out.value
    assert rare.arms.refer.low <= 0.05 * referred[0] + 0.95 * referred[1] <= rare.arms.refer.high


def test_boundaries_cannot_be_crossed():
    """A triage that rules the same patient in and out cannot be made."""
    triage = choose_triage(*patients(np.random.default_rng(2), 60, 60), **BUDGETS)
    fields = {name: getattr(triage, name) for name in Triage.__dataclass_fields__}

    with pytest.raises(ValueError, match="rule_in_from lies below"):
        Triage(**{**fields, "rule_out_below": 0.6, "rule_in_from": 0.5})
