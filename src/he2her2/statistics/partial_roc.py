"""Parts of the ROC: sensitivity at a specificity and the reverse, and the area where one of the two is high.

They tell how well scores rank where a test would be used. The threshold is the cases' own, so none of them is what a
threshold chosen before would reach. Between corners the ROC is straight, as in pROC (Robin et al., BMC Bioinformatics
2011;12:77); intervals are of the Bayesian bootstrap by patient, with half a patient of each class on the wrong side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.statistics.intervals import Estimate, Patients, interval_of_draws
from he2her2.statistics.outcomes import outcomes
from he2her2.statistics.resampling import draw_weights, patient_index
from he2her2.statistics.roc import RankedScores

_N_DRAWS = 2000
_EPSILON = 1e-12

Held: TypeAlias = Literal["sensitivity", "specificity"]
"""The one of the two that is held, the other being measured."""

_Floats: TypeAlias = NDArray[np.float64]
_Lines: TypeAlias = tuple[_Floats, _Floats]
"""(b, p) of what is held, negative and ascending, and (b, p) of the other, ascending: the corners of b ROCs."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Part of a ROC.

    Attributes:
        held: The one that is held, or high.
        at: Its value, or the least, in [0, 1).

    Raises:
        ValueError: `held` is another word, which would mean sensitivity, or the value is none, such as one in per cent.
    """

    held: Held
    at: float

    def __post_init__(self) -> None:
        """Check both."""
        if self.held not in get_args(Held) or not 0 <= self.at < 1:
            found = f"got {self.held} at {self.at}"
            raise ValueError(f"sensitivity or specificity may be held at a value in [0, 1), {found}")


@dataclass(frozen=True, slots=True)
class RateAt(_Part):
    """Sensitivity at a specificity, or the reverse: the best on the ROC where the held one is reached."""

    @property
    def name(self) -> str:
        """Of the figure."""
        other = "specificity" if self.held == "sensitivity" else "sensitivity"
        return f"{other} at {100 * self.at:g} % {self.held}"

    def measured(self, lines: _Lines) -> _Floats:
        """(b,) values, of corners at one place by the last, which is the best."""
        x = lines[0]
        reached = (x <= _EPSILON - self.at).sum(axis=1, keepdims=True)  # 1 - 0.07 is a little less than 0.93
        after = np.minimum(reached, x.shape[1] - 1)
        x0, x1, y0, y1 = (np.take_along_axis(of, at, axis=1)[:, 0] for of in lines for at in (reached - 1, after))
        share = np.divide(-self.at - x0, x1 - x0, out=np.zeros_like(x0), where=x1 > x0)
        return y0 + np.maximum(share, 0) * (y1 - y0)


@dataclass(frozen=True, slots=True)
class PartialAuc(_Part):
    """Area where sensitivity, or specificity, is high; by McClish 0.5 for chance, 1 at best."""

    @property
    def name(self) -> str:
        """Of the figure."""
        return f"partial AUC, {self.held} from {100 * self.at:g} %"

    def measured(self, lines: _Lines) -> _Floats:
        """(b,) values."""
        x, y = lines
        wide = np.diff(x)
        slope = np.divide(np.diff(y), wide, out=np.zeros_like(wide), where=wide > 0)
        within = np.clip(x, -1.0, -self.at)
        left, right = (y[:, :-1] + slope * (end - x[:, :-1]) for end in (within[:, :-1], within[:, 1:]))
        area: _Floats = (np.diff(within) * (left + right)).sum(axis=1) / 2
        most = 1 - self.at
        chance = most * most / 2
        return (1 + (area - chance) / (most - chance)) / 2


def parts_of_roc(
    truth: ArrayLike, scores: ArrayLike, parts: Sequence[RateAt | PartialAuc], patients: Patients = None
) -> list[Estimate]:
    """Parts of the ROC with their intervals; nan without cases of both classes.

    Args:
        truth: (n,) bool.
        scores: (n,) higher means more likely positive.
        parts: What is measured.
        patients: (n,) the patient of each case.

    Example:
        >>> parts = [RateAt("sensitivity", 0.9), PartialAuc("sensitivity", 0)]  # the second is the AUC
        >>> [part.value for part in parts_of_roc([False, False, True, True], [0.1, 0.3, 0.2, 0.4], parts)]
        [0.5, 0.75]
    """
    true = outcomes(truth)
    n = len(true)
    if true.all() or not true.any():
        return [Estimate(part.name, math.nan, 0.0, 1.0, n, "undefined: a class is absent") for part in parts]
    ranking = RankedScores.of(np.append(true, [True, False]), np.append(scores, [-np.inf, np.inf]))
    weights_drawn = draw_weights(patient_index(patients, n), pseudo_cases=2, n_draws=_N_DRAWS, seed=0)
    blocks = [_measured(ranking, weights, parts) for weights in weights_drawn]
    [values] = np.clip(_measured(RankedScores.of(true, scores), np.ones((1, n)), parts), 0, 1)
    draws = np.clip(np.concatenate(blocks), 0, 1)
    return [
        interval_of_draws(part.name, float(value), of_part, n)
        for part, value, of_part in zip(parts, values, draws.T, strict=True)
    ]


def _measured(ranking: RankedScores, weights: _Floats, parts: Sequence[RateAt | PartialAuc]) -> _Floats:
    """(b, k) values of k parts of the ROC under each of (b, n) weights."""
    found, called = (
        np.cumsum(np.pad(mass[:, ::-1], ((0, 0), (1, 0))), axis=1) / mass.sum(axis=1, keepdims=True)
        for mass in ranking.masses(weights)
    )
    spared = 1 - called
    lines = {"specificity": (-spared, found), "sensitivity": (-found[:, ::-1], spared[:, ::-1])}
    return np.stack([part.measured(lines[part.held]) for part in parts], axis=1)
