"""Decision curves: net benefit of testing whom the model calls, against testing all and testing nobody.

At a threshold probability t one positive found is worth (1 - t) / t needless tests, so the net benefit is the share of
patients who are true positives less the share of false positives times t / (1 - t) (Vickers and Elkin, Med Decis Making
2006;26:565-574). Bands: Bayesian bootstrap by patient (`resampling`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.rules import DIGITS
from he2her2.statistics.intervals import LEVEL, Patients, middle_of_draws
from he2her2.statistics.outcomes import outcomes_and_probabilities, require_share
from he2her2.statistics.resampling import draw_weights, patient_index

_Floats = NDArray[np.float64]

_THRESHOLDS: _Floats = np.round(np.arange(0.01, 0.5001, 0.01), 2)
_N_DRAWS = 500


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class NetBenefit:
    """Net benefit over the threshold, all (m,), in true positives a patient.

    Attributes:
        value: Net benefit.
        low: Lower end of its band.
        high: Upper end.
    """

    value: _Floats
    low: _Floats
    high: _Floats


@dataclass(frozen=True, slots=True, eq=False)
class DecisionCurve:
    """A decision curve.

    Attributes:
        thresholds: (m,) threshold probabilities, ascending.
        prevalence: Share of positives.
        model: Of testing those whom the model calls.
        test_all: Of testing everybody; that of testing nobody is 0.
        gain: The model's, less the better of testing all and testing nobody.
    """

    thresholds: _Floats
    prevalence: float
    model: NetBenefit
    test_all: _Floats
    gain: NetBenefit

    @property
    def useful(self) -> tuple[tuple[float, float], ...]:
        """Ranges of thresholds in which the gain's interval lies above 0; first and last threshold of each."""
        above = np.concatenate([[False], self.gain.low > 0, [False]])
        edges = np.flatnonzero(np.diff(above.astype(int)))
        pairs = zip(edges[::2], edges[1::2] - 1, strict=True)
        return tuple((float(self.thresholds[first]), float(self.thresholds[last])) for first, last in pairs)


def decision_curve(
    truth: ArrayLike,
    probability: ArrayLike,
    patients: Patients = None,
    *,
    prevalence: float | None = None,
    thresholds: _Floats = _THRESHOLDS,
    level: float = LEVEL,
    seed: int = 0,
) -> DecisionCurve:
    """Net benefit over the threshold.

    Args:
        truth: (n,) bool, of both classes.
        probability: (n,) in [0, 1]; only calibrated ones say how much testing is worth.
        patients: (n,) their patients.
        prevalence: Share of positives in the clinic; None takes the cases' own.
        thresholds: (m,) in (0, 1), ascending.
        level: Of the bands.
        seed: Of the draws.

    Raises:
        ValueError: A class is absent, or a probability or the prevalence is nan or outside [0, 1].
    """
    true, p = outcomes_and_probabilities(truth, probability)
    p = np.round(p, DIGITS)
    if prevalence is not None:
        require_share(prevalence, "prevalence")
    if not 0 < true.sum() < len(true):
        raise ValueError("a decision curve needs cases of both classes")
    # Half a patient of each class on the wrong side, as for other curves.
    every_true = np.append(true, [True, False])
    called = np.append(p, [0.0, 1.0])[:, None] >= thresholds  # (n + 2, m)
    worth = thresholds / (1 - thresholds)

    def benefits(weights: _Floats) -> tuple[_Floats, _Floats]:
        """(b, m) net benefit of the model and of testing all, of (b, n + 2) weights."""
        positive, negative = weights * every_true, weights * ~every_true
        found = positive @ called / positive.sum(axis=1, keepdims=True)
        false = negative @ called / negative.sum(axis=1, keepdims=True)
        share = positive.sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
        if prevalence is not None:
            share = np.full_like(share, prevalence)
        return share * found - (1 - share) * false * worth, share - (1 - share) * worth

    [model], [test_all] = benefits(np.append(np.ones(len(true)), [0.0, 0.0])[None])
    blocks = draw_weights(patient_index(patients, len(true)), pseudo_cases=2, n_draws=_N_DRAWS, seed=seed)
    drawn = [benefits(block) for block in blocks]
    of_model, of_all = (np.concatenate([pair[k] for pair in drawn]) for k in range(2))
    gain, gains = model - np.maximum(test_all, 0), of_model - np.maximum(of_all, 0)
    share = float(true.mean()) if prevalence is None else prevalence
    return DecisionCurve(thresholds, share, _band(model, of_model, level), test_all, _band(gain, gains, level))


def _band(value: _Floats, draws: _Floats, level: float) -> NetBenefit:
    return NetBenefit(value, *middle_of_draws(draws, value, level))
