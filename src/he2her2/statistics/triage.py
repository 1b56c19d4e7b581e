"""Three-way triage: rule out, refer to IHC, rule in, with a guarantee on both kinds of error.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024): the loss of a validation positive is 1
if it is ruled out; the boundary is the highest for which (number ruled out + 1) / (n + 1) stays within the budget.
A positive to come is then ruled out with at most that probability, on average over the choice of validation patients.
For negatives ruled in the same holds from above. With these losses the rule is an order statistic, so no library is
needed (MAPIE's controllers search a grid of thresholds for it). With a `confidence` the stricter bound of
`operating_point` is used: it holds for that share of choices, not on average.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.errors import EvaluationError
from he2her2.rules import DIGITS, Arm, Arms, ShareEstimate, Triage
from he2her2.statistics.intervals import middle_of_draws
from he2her2.statistics.operating_point import ascending_by_class, highest_rank, positives_needed
from he2her2.statistics.resampling import N_DRAWS, PRIOR

_STEP = 10.0**-DIGITS


def choose_triage(
    truth: ArrayLike,
    probability: ArrayLike,
    *,
    miss_budget: float,
    false_budget: float,
    chosen_on: str,
    confidence: float | None = None,
    prevalence: float | None = None,
    threshold: float | None = None,
) -> Triage:
    """Choose the triage that refers fewest patients within both budgets.

    Where the two boundaries cross, every patient can be decided: they meet in the middle, nobody is referred. A lower
    limit to rule out and a higher one to rule in keep both guarantees, so either stays on its side of a threshold.

    Args:
        truth: (n,) bool, one value a validation patient.
        probability: (n,) of HER2-positive, uncalibrated.
        miss_budget: Share of positives that may be ruled out, in (0, 1).
        false_budget: Share of negatives that may be ruled in, in (0, 1).
        chosen_on: The patients, in words.
        confidence: Confidence of each of both guarantees; None makes them on average.
        prevalence: Share of positives in the clinic; by default that of the validation patients.
        threshold: That calls patients positive, between both limits; None where none does.

    Raises:
        EvaluationError: A class has too few patients for its guarantee.
    """
    positives, negatives = ascending_by_class(truth, probability)
    low = float(positives[_rank(len(positives), miss_budget, confidence, "positive") - 1])
    top = float(negatives[-_rank(len(negatives), false_budget, confidence, "negative")])
    high = round(top + _STEP, DIGITS)  # the first probability above it that can be written
    clipped = False
    if threshold is not None:
        written = round(threshold, DIGITS)
        clipped = not low <= written <= high
        low, high = min(low, written), max(high, written)
    elif high < low:
        low = high = round((low + high) / 2, DIGITS)
    share = len(positives) / (len(positives) + len(negatives)) if prevalence is None else prevalence
    return Triage(
        rule_out_below=low,
        rule_in_from=high,
        miss_budget=miss_budget,
        false_budget=false_budget,
        confidence=confidence,
        n_positive=len(positives),
        n_negative=len(negatives),
        arms=_arms(_counts(positives, low, high), _counts(negatives, low, high), share),
        prevalence=share,
        chosen_on=chosen_on,
        clipped=clipped,
    )


def _rank(n: int, budget: float, confidence: float | None, of: str) -> int:
    """Number of patients of a class that may lie beyond the boundary, the one at it included."""
    rank = math.floor(budget * (n + 1) + 1e-9) if confidence is None else highest_rank(n, budget, confidence)
    if not rank:
        needed = math.ceil(1 / budget - 1 - 1e-9) if confidence is None else positives_needed(budget, confidence)
        raise EvaluationError(
            f"{n} HER2-{of} validation patients are too few to decide wrongly on at most {budget:.3g} of them: "
            f"{needed} are needed; add validation patients or allow a larger budget"
        )
    return rank


def _counts(ascending: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """(3,) patients ruled out, referred and ruled in."""
    out, decided = np.searchsorted(ascending, [low, high])
    return np.array([out, decided - out, len(ascending) - decided], dtype=np.float64)


def _arms(positive: NDArray[np.float64], negative: NDArray[np.float64], prevalence: float) -> Arms:
    """Share of patients in each arm where `prevalence` are positive, with Jeffreys intervals."""
    rng = np.random.default_rng(0)
    drawn = prevalence * rng.dirichlet(positive + PRIOR, N_DRAWS) + (1 - prevalence) * rng.dirichlet(
        negative + PRIOR, N_DRAWS
    )
    own = prevalence * positive / positive.sum() + (1 - prevalence) * negative / negative.sum()
    ends = zip(own, *middle_of_draws(drawn, own), strict=True)
    return Arms(*(ShareEstimate(*(min(1.0, float(end)) for end in three)) for three in ends))


def arm_counts(triage: Triage, probability: ArrayLike) -> dict[Arm, int]:
    """Number of patients in each arm."""
    arms = [triage.arm(p) for p in np.asarray(probability, dtype=np.float64).tolist()]
    return {arm: arms.count(arm) for arm in Arm}
