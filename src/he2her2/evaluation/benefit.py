"""Decision curves of an evaluation: the probabilities as predicted, corrected, and moved to a clinic's prevalence."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from he2her2.evaluation.cases import Cases
from he2her2.rules import logit_of
from he2her2.statistics import DecisionCurve, decision_curve

_SHOWN = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Thresholds of the page's table: 49 to 2.3 needless tests for a positive found."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: its curve holds arrays
class NamedCurve:
    """A decision curve and the probabilities that it is of, in words."""

    name: str
    curve: DecisionCurve

    @property
    def sentence(self) -> str:
        """Thresholds between which testing whom the model calls is shown to be better than all and nobody."""
        found = self.curve.useful
        if not found:
            return (
                f"{self.name}: at no threshold between {self.curve.thresholds[0]:.2f} and "
                f"{self.curve.thresholds[-1]:.2f} is it shown to be better to test those whom the model calls than to "
                "test everybody or nobody"
            )
        ranges = " and ".join(f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}" for low, high in found)
        return (
            f"{self.name}: testing those whom the model calls is better than testing everybody and than testing nobody "
            f"at thresholds of {ranges} (pointwise 95 % intervals)"
        )

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        """Cells of a table: threshold, needless tests a positive is worth, net benefit of model and all, gain."""
        for threshold in _SHOWN:
            at = int(np.argmin(np.abs(self.curve.thresholds - threshold)))
            model, gain = self.curve.model, self.curve.gain
            yield (
                f"{threshold:.2f}",
                f"{(1 - threshold) / threshold:.3g}",
                _of_1000(model.value[at], model.low[at], model.high[at]),
                f"{1000 * self.curve.test_all[at]:.0f}",
                _of_1000(gain.value[at], gain.low[at], gain.high[at]),
            )


def _of_1000(value: float, low: float, high: float) -> str:
    return f"{1000 * value:.0f} ({1000 * low:.0f} to {1000 * high:.0f})"


def decision_curves(
    cases: Cases, corrected: NDArray[np.float64] | None, prevalence: float, seed: int = 0
) -> tuple[NamedCurve, ...]:
    """Decision curves of the cases; none where a class is absent.

    Args:
        cases: Patients.
        corrected: (n,) their probabilities as a calibration on other patients corrects them; None without one.
        prevalence: Share of positives in the clinic; its probabilities are the best ones there are, moved by the ratio
            of the odds of being positive there and here.
        seed: Of the bands.
    """
    if not 0 < cases.n_positive < len(cases):
        return ()
    best, name = (cases.probability, "as predicted") if corrected is None else (corrected, "corrected")
    here = cases.n_positive / len(cases)
    moved = expit(logit_of(best) + logit(prevalence) - logit(here))
    found = [NamedCurve("as predicted", _curve(cases, cases.probability, None, seed))]
    if corrected is not None:
        found.append(NamedCurve("corrected", _curve(cases, corrected, None, seed)))
    in_clinic = f"{name}, moved to a clinic with {100 * prevalence:.3g} % positive"
    return (*found, NamedCurve(in_clinic, _curve(cases, moved, prevalence, seed)))


def _curve(cases: Cases, probability: NDArray[np.float64], prevalence: float | None, seed: int) -> DecisionCurve:
    return decision_curve(cases.truth, probability, cases.patients, prevalence=prevalence, seed=seed)
