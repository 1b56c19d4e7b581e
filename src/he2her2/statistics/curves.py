"""Curves with bands: ROC, precision and recall, tests saved against positives missed.

Each has two 95 % bands from the Bayesian bootstrap of `resampling`: a pointwise one, and a simultaneous one that holds
the whole true curve: the envelope of the 95 % of drawn curves that are least extreme at their most extreme place
(global rank envelope, Myllymäki et al., J R Stat Soc B 2017;79:381-404).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.statistics.intervals import LEVEL, middle_of_draws
from he2her2.statistics.outcomes import require_share
from he2her2.statistics.resampling import PRIOR, patient_index
from he2her2.statistics.roc import RankedScores

_N_DRAWS = 500
_N_ROC_DRAWS = 1000
"""For the simultaneous band, whose ends are those of few curves."""

_GRID = np.linspace(0, 1, 201)
_EPSILON = 1e-12

_Corners: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(p,) x and (p,) y of a curve's corners, x ascending."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A curve with its 95 % band.

    Attributes:
        line: (p, 2) the corners (x, y) of the curve itself.
        x: (m,) places of the band, ascending.
        low: (m,) lower end of the pointwise band.
        high: (m,) upper end.
        all_low: (m,) lower end of the simultaneous band.
        all_high: (m,) upper end.
    """

    line: NDArray[np.float64]
    x: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    all_low: NDArray[np.float64]
    all_high: NDArray[np.float64]


def roc_curve(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    patients: NDArray[np.str_],
    seed: int = 0,
    draws: int = _N_ROC_DRAWS,
) -> Curve:
    """Sensitivity over 1 - specificity; between tied scores the curve slopes."""
    return _banded(truth, probability, patients, _roc_corners, np.interp, seed, draws)


def precision_recall(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    patients: NDArray[np.str_],
    seed: int = 0,
    draws: int = _N_DRAWS,
) -> Curve:
    """PPV over sensitivity."""
    return _banded(truth, probability, patients, _precision_corners, _next_step, seed, draws)


def saved_against_missed(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    patients: NDArray[np.str_],
    prevalence: float | None = None,
    seed: int = 0,
    draws: int = _N_DRAWS,
) -> Curve:
    """Share of all patients called negative (IHC tests saved) over the share of positives missed thereby.

    Args:
        truth: (n,) bool.
        probability: (n,) higher means more likely positive.
        patients: (n,) the patient of each case.
        prevalence: Share of positives to assume; None takes the cases' own.
        seed: Of the band's draws.
        draws: Number of draws.
    """
    if prevalence is not None:
        require_share(prevalence, "prevalence")

    def corners(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> _Corners:
        share = positive.sum() / (positive.sum() + negative.sum()) if prevalence is None else prevalence
        missed = np.append(0.0, np.cumsum(positive) / positive.sum())
        spared = np.append(0.0, np.cumsum(negative) / negative.sum())
        return missed, share * missed + (1 - share) * spared

    return _banded(truth, probability, patients, corners, _last_step, seed, draws)


def _roc_corners(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> _Corners:
    false = np.append(0.0, np.cumsum(negative[::-1]) / negative.sum())
    return false, np.append(0.0, np.cumsum(positive[::-1]) / positive.sum())


def _precision_corners(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> _Corners:
    hits, alarms = np.cumsum(positive[::-1]), np.cumsum(negative[::-1])
    called = hits + alarms
    precision = np.divide(hits, called, out=np.ones(len(hits)), where=called > 0)
    return hits / hits[-1], precision


def _last_step(at: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the last corner at or before each place."""
    return y[np.searchsorted(x, at + _EPSILON, side="right") - 1]


def _next_step(at: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the first corner at or after each place."""
    return y[np.minimum(np.searchsorted(x, at - _EPSILON), len(x) - 1)]


def _banded(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    patients: NDArray[np.str_],
    corners: Callable[[NDArray[np.float64], NDArray[np.float64]], _Corners],
    read: Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
    n_draws: int,
) -> Curve:
    """The curve of the cases, with the band of its bootstrap by patient.

    Args:
        truth: (n,) of both classes.
        probability: (n,) higher means more likely positive.
        patients: (n,) the patient of each case.
        corners: Function from the weights of positives and of negatives at each score, ascending, to the curve.
        read: Function from places and the curve's corners to its heights there.
        seed: Of the draws.
        n_draws: Number of draws.
    """
    # Half a patient of each class on the wrong side keeps the band from being a line where few cases are all right.
    ranking = RankedScores.of(np.append(truth, [True, False]), np.append(probability, [-np.inf, np.inf]))
    index = patient_index(patients, len(truth))
    n_patients = int(index.max()) + 1
    weights = np.append(np.ones(len(truth)), [0.0, 0.0])
    x, y = corners(*ranking.masses(weights))
    rng = np.random.default_rng(seed)
    draws = np.empty((n_draws, len(_GRID)))
    for k in range(n_draws):
        weights[:-2] = rng.standard_exponential(n_patients)[index]
        weights[-2:] = rng.standard_gamma(PRIOR, 2) * (len(truth) / n_patients)
        draws[k] = read(_GRID, *corners(*ranking.masses(weights)))
    own = read(_GRID, x, y)
    least, most = _envelope(draws)
    return Curve(
        np.stack([x, y], axis=1), _GRID, *middle_of_draws(draws, own), np.minimum(least, own), np.maximum(most, own)
    )


def _envelope(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, m) least and greatest height of the drawn curves that are nowhere extreme; `draws` is (b, m)."""
    ordered = np.sort(draws, axis=0)
    depth = np.full(len(draws), len(draws))
    for column, values in zip(draws.T, ordered.T, strict=True):  # the rank from the nearer end; equals are shallow
        from_below = np.searchsorted(values, column, side="right")
        from_above = len(values) - np.searchsorted(values, column, side="left")
        np.minimum(depth, np.minimum(from_below, from_above), out=depth)
    kept = draws[depth >= np.sort(depth)[int((1 - LEVEL) * len(draws))]]
    return np.stack([kept.min(axis=0), kept.max(axis=0)])
