"""Operating points: the probability from which patients are called positive so that few positives are missed.

The threshold is the k-th smallest probability of the validation positives. Whatever its distribution, the share of the
population's positives below it is then at most Beta(k, n - k + 1) distributed (tied probabilities only make it
smaller), so the guarantee needs no model, only validation patients that resemble those to come (the tolerance bound of
Wilks, Annals of Mathematical Statistics 12:91, 1941; the same as a Clopper-Pearson bound of k - 1 misses).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, betabinom

from he2her2.errors import EvaluationError
from he2her2.rules import DIGITS, OperatingPoint, ShareEstimate
from he2her2.statistics.intervals import LEVEL, Estimate, Patients, decision_interval, middle_of_draws, rate
from he2her2.statistics.metrics import BinaryCounts, called_negative, npv, ppv
from he2her2.statistics.outcomes import outcomes, outcomes_and_probabilities
from he2her2.statistics.resampling import N_DRAWS, PRIOR, patient_index

_Draws = NDArray[np.float64]


def highest_rank(n_positive: int, budget: float, confidence: float, n_fresh: int | None = None) -> int:
    """Highest rank of the validation positive that may be the threshold so that the guarantee holds; 0 if none may.

    Args:
        n_positive: Validation positives.
        budget: Share of positives that may be missed.
        confidence: Confidence of the guarantee.
        n_fresh: Positives of the cohort for which it must hold; None for the whole population.
    """
    ranks = np.arange(1, n_positive + 1)
    if n_fresh is None:
        holds = beta.cdf(budget, ranks, n_positive + 1 - ranks) >= confidence
    else:
        most = math.floor(budget * n_fresh + 1e-9)
        holds = betabinom.cdf(most, n_fresh, ranks, n_positive + 1 - ranks) >= confidence
    return int(np.count_nonzero(holds))  # it holds for the first ranks, or for none


def positives_needed(budget: float, confidence: float = LEVEL) -> int:
    """Fewest validation positives with which a threshold can guarantee a budget of misses.

    Example:
        >>> positives_needed(0.05), positives_needed(0.1)
        (59, 29)
    """
    return math.ceil(math.log1p(-confidence) / math.log1p(-budget) - 1e-9)


def ascending_by_class(truth: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities of the positives and of the negatives, ascending, rounded as predictions write them.

    Args:
        truth: (n,) bool, one value a patient.
        probability: (n,) in [0, 1].

    Raises:
        ValueError: A probability is nan or outside [0, 1], or the lists differ in length.
    """
    true, p = outcomes_and_probabilities(truth, probability)
    rounded = np.array([round(value, DIGITS) for value in p.tolist()])
    return np.sort(rounded[true]), np.sort(rounded[~true])


def choose_operating_point(
    truth: ArrayLike,
    probability: ArrayLike,
    *,
    budget: float,
    chosen_on: str,
    confidence: float = LEVEL,
    prevalence: float | None = None,
    n_fresh: int | None = None,
) -> OperatingPoint:
    """Choose the highest threshold that misses at most `budget` of the positives to come.

    Args:
        truth: (n,) bool, one value a validation patient.
        probability: (n,) of HER2-positive, uncalibrated; for a patient of several slides as `evaluate` joins them.
        budget: Share of positives that may be missed, in (0, 1).
        chosen_on: The patients, in words.
        confidence: Confidence of the guarantee.
        prevalence: Share of positives in the clinic; by default that of the validation patients.
        n_fresh: Guarantee the share missed in a cohort of so many positives, sampling included; None guarantees it
            for the whole population.

    Raises:
        EvaluationError: There are too few positives for the guarantee, or no negatives to count saved tests on.
    """
    positives, negatives = ascending_by_class(truth, probability)
    rank = highest_rank(len(positives), budget, confidence, n_fresh)
    if not rank:
        _refuse(len(positives), budget, confidence, n_fresh)
    if not len(negatives):
        raise EvaluationError(f"{chosen_on}: has no HER2-negative patient; add some to tell how many tests are saved")
    threshold = float(positives[rank - 1])
    missed, cleared = int((positives < threshold).sum()), int((negatives < threshold).sum())
    share = len(positives) / (len(positives) + len(negatives)) if prevalence is None else prevalence
    # Misses among patients to come follow from an order statistic; the negatives did not choose the threshold.
    rng = np.random.default_rng(0)
    miss = rng.beta(missed + 1, len(positives) - missed, N_DRAWS)
    clear = rng.beta(cleared + PRIOR, len(negatives) - cleared + PRIOR, N_DRAWS)
    expected, specificity = (missed + 1) / (len(positives) + 1), cleared / len(negatives)
    figures = _figures(np.array([expected]), np.array([specificity]), share)
    saved, right, cleared_rightly = map(_share, figures, _figures(miss, clear, share))
    assert saved is not None
    return OperatingPoint(
        threshold=threshold,
        budget=budget,
        confidence=confidence,
        n_fresh=n_fresh,
        n_positive=len(positives),
        n_negative=len(negatives),
        missed=missed,
        miss_upper_bound=float(beta.ppf(confidence, rank, len(positives) + 1 - rank)),
        saved=saved,
        ppv=right,
        npv=cleared_rightly,
        prevalence=share,
        chosen_on=chosen_on,
    )


def _refuse(n_positive: int, budget: float, confidence: float, n_fresh: int | None) -> None:
    budgeted = f"to miss at most {budget:.3g} of the positives with confidence {confidence:.3g}"
    needed = positives_needed(budget, confidence)
    if n_positive < needed or n_fresh is None:
        raise EvaluationError(
            f"{n_positive} HER2-positive validation patients are too few {budgeted}: {needed} are needed; "
            "add validation patients or allow a larger budget"
        )
    raise EvaluationError(
        f"{n_positive} HER2-positive validation patients are too few {budgeted} in a cohort of {n_fresh} positives; "
        "add validation patients, allow a larger budget or a larger cohort"
    )


def _figures(missed: _Draws, cleared: _Draws, prevalence: float) -> tuple[_Draws, _Draws, _Draws]:
    """Share called negative, PPV and NPV, of the shares of positives missed and of negatives cleared."""
    lost, found = prevalence * missed, prevalence * (1 - missed)
    spared, alarmed = (1 - prevalence) * cleared, (1 - prevalence) * (1 - cleared)
    with np.errstate(invalid="ignore"):
        return lost + spared, found / (found + alarmed), spared / (lost + spared)


def _share(value: _Draws, draws: _Draws) -> ShareEstimate | None:
    """A figure with the middle of its draws, widened to hold it; None where it is undefined."""
    if math.isnan(value[0]):
        return None
    low, high = middle_of_draws(draws, value[0])
    return ShareEstimate(float(value[0]), float(low), float(high), LEVEL)


@dataclass(frozen=True, slots=True)
class OperatingPointResult:
    """Result of an operating point on patients that did not choose it.

    Attributes:
        missed: Share of positives called negative.
        saved: Share of patients called negative, who need no IHC.
        ppv: Share of those called positive who are.
        npv: Share of those called negative who are.
        promise_broken: True if the whole interval of `missed` lies above the budget.
    """

    missed: Estimate
    saved: Estimate
    ppv: Estimate
    npv: Estimate
    promise_broken: bool


def operating_point_result(
    point: OperatingPoint,
    truth: ArrayLike,
    probability: ArrayLike,
    patients: Patients = None,
    *,
    prevalence: float | None = None,
) -> OperatingPointResult:
    """Test an operating point on patients that did not choose it.

    Args:
        point: Chosen on others.
        truth: (n,) bool.
        probability: (n,) of HER2-positive, uncalibrated.
        patients: (n,) their patients.
        prevalence: Share of positives in the clinic; None leaves it as it is here.
    """
    true = outcomes(truth)
    called = np.array([point.is_positive(p) for p in np.asarray(probability).tolist()], dtype=bool)
    index = patient_index(patients, len(true))
    missed = rate(~called[true], index[true], name="positives missed")
    if prevalence is None:
        saved = rate(~called, index, name="IHC tests saved")
        right = rate(true[called], index[called], name="PPV")
        cleared = rate(~true[~called], index[~called], name="NPV")
    else:
        saved, right, cleared = (
            decision_interval(partial(_at_prevalence, figure, prevalence), true, called, index, name=name)
            for figure, name in ((called_negative, "IHC tests saved"), (ppv, "PPV"), (npv, "NPV"))
        )
    return OperatingPointResult(missed, saved, right, cleared, promise_broken=missed.low > point.budget)


def _at_prevalence(figure: Callable[[BinaryCounts], float], prevalence: float, counts: BinaryCounts) -> float:
    return figure(counts.at_prevalence(prevalence))
