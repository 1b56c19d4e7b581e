"""Parts of the ROC: sensitivity at a specificity and the reverse, and the area where one of the two is high.

They tell how well scores rank where a test would be used. The threshold is the cases' own, so none of them is what a
threshold chosen before would reach. Between corners the ROC is straight, as in pROC (Robin et al., BMC Bioinformatics
2011;12:77); intervals are of the Bayesian bootstrap by patient, with half a patient of each class on the wrong side.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.statistics.intervals import LEVEL, Estimate, Patients, interval_of_draws
from he2her2.statistics.outcomes import outcomes
from he2her2.statistics.resampling import draw_weights, patient_index
from he2her2.statistics.roc import RankedScores

_N_DRAWS = 2000
_WORDS = {"sensitivity": "specificity", "specificity": "sensitivity"}

Held: TypeAlias = Literal["sensitivity", "specificity"]
"""The one of the two that is held, the other being measured."""

_Line: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(p,) of what is held, negative and ascending, and (p,) of the other, ascending: the ROC's corners."""


def rate_at(
    truth: ArrayLike,
    scores: ArrayLike,
    held: Held,
    at: float,
    patients: Patients = None,
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Sensitivity at a specificity, or specificity at a sensitivity: the best on the ROC where the held one is reached.

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.
        held: The one that is held.
        at: Its value, in (0, 1).
        patients: (n,) the patient of each case.
        level: Confidence level.
        seed: Of the draws.

    Raises:
        ValueError: Neither is held, or its value is none.

    Example:
        >>> rate_at([False, False, True, True], [0.1, 0.3, 0.2, 0.4], "sensitivity", 0.9).value
        0.5
    """
    _check(held, at)
    return _measured(
        f"{_WORDS[held]} at {100 * at:g} % {held}",
        *(truth, scores, held, patients),
        lambda line: float(np.interp(-at, *line)),  # of equal places the last, which is the best
        level=level,
        seed=seed,
    )


def partial_auc(
    truth: ArrayLike,
    scores: ArrayLike,
    held: Held,
    at_least: float,
    patients: Patients = None,
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Area under the part of the ROC where sensitivity, or specificity, is high; by McClish 0.5 for chance, 1 at best.

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.
        held: The one that is high.
        at_least: Where the part begins, in [0, 1).
        patients: (n,) the patient of each case.
        level: Confidence level.
        seed: Of the draws.

    Raises:
        ValueError: Neither is held, or its value is none.

    Example:
        >>> partial_auc([False, False, True, True], [0.1, 0.3, 0.2, 0.4], "sensitivity", 0).value  # the AUC
        0.75
    """
    _check(held, at_least)
    wide = 1 - at_least
    chance = wide * wide / 2

    def measure(line: _Line) -> float:
        return (1 + (_area(line, -1.0, -at_least) - chance) / (wide - chance)) / 2

    name = f"partial AUC, {held} from {100 * at_least:g} %"
    return _measured(name, truth, scores, held, patients, measure, level=level, seed=seed)


def _check(held: str, value: float) -> None:
    """Raise for another word, which would mean sensitivity, and for a value in per cent."""
    if held not in _WORDS or not 0 <= value < 1:
        raise ValueError(f"sensitivity or specificity may be held at a value in [0, 1), got {held} at {value}")


def _measured(
    name: str,
    truth: ArrayLike,
    scores: ArrayLike,
    held: Held,
    patients: Patients,
    measure: Callable[[_Line], float],
    *,
    level: float,
    seed: int,
) -> Estimate:
    """A measure of the ROC with its interval; nan without cases of both classes."""
    true = outcomes(truth)
    n = len(true)
    if true.all() or not true.any():
        return Estimate(name, math.nan, 0.0, 1.0, n, "undefined: a class is absent", level)
    own = RankedScores.of(true, scores)
    ranking = RankedScores.of(np.append(true, [True, False]), np.append(scores, [-np.inf, np.inf]))
    index = patient_index(patients, n)
    draws = [
        measure(line)
        for weights in draw_weights(index, pseudo_cases=2, n_draws=_N_DRAWS, seed=seed)
        for line in _lines(ranking, weights, held)
    ]
    (line,) = _lines(own, np.ones((1, n)), held)
    return interval_of_draws(name, measure(line), np.clip(draws, 0, 1), n, level)


def _lines(ranking: RankedScores, weights: NDArray[np.float64], held: Held) -> Iterator[_Line]:
    """Corners of the ROC under each of (b, n) weights."""
    found, called = (
        np.cumsum(np.pad(mass[:, ::-1], ((0, 0), (1, 0))), axis=1) / mass.sum(axis=1, keepdims=True)
        for mass in ranking.masses(weights)
    )
    spared = 1 - called
    return (
        zip(-spared, found, strict=True)
        if held == "specificity"
        else zip(-found[:, ::-1], spared[:, ::-1], strict=True)
    )


def _area(line: _Line, low: float, high: float) -> float:
    """Area under a line between two places."""
    x, y = line
    inside = (x >= low) & (x <= high)
    ends = np.interp([low, high], x, y)
    return float(np.trapezoid([ends[0], *y[inside], ends[1]], [low, *x[inside], high]))
