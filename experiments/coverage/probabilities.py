"""Brier score and calibration error, and the promises of operating points and triage."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np
from experiments.coverage.measuring import MANY, OWN, Names, Row, measured
from numpy.typing import NDArray

from he2her2.statistics import (
    CalibrationLine,
    Estimate,
    brier_interval,
    calibration_error_interval,
    calibration_line,
    choose_operating_point,
    choose_triage,
)
from he2her2.statistics.calibration import calibration_error

Probabilities: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.float64]]


def calibrations(draws: int) -> Iterator[Row]:
    """Brier score and calibration error of probabilities that are right, too sure or too low."""
    for kind, change in {"right": (1.0, 0.0), "too sure": (0.4, 0.0), "too low": (1.0, 1.0)}.items():
        large = drawn_probabilities(MANY, *change, np.random.default_rng(0))
        loss = float(np.mean((large[1] - large[0]) ** 2))
        for n in (8, 54, 200):
            names = Names("Brier score", OWN, f"{n}", f"probabilities {kind}")
            yield measured(names, loss, draws, partial(of_drawn_probabilities, n, change, brier_interval))
            # Right probabilities have no error at all; that of very many cases is chance.
            error = 0.0 if kind == "right" else calibration_error(*large, n_bins=max(1, min(10, n // 10)))
            names = Names("calibration error", "inversion", f"{n}", f"probabilities {kind}")
            yield measured(names, error, draws, partial(of_drawn_probabilities, n, change, calibration_error_interval))


def lines(draws: int) -> Iterator[Row]:
    """Calibration intercept and slope of the same probabilities."""
    for kind, change in {"right": (1.0, 0.0), "too sure": (0.4, 0.0), "too low": (1.0, 1.0)}.items():
        population = calibration_line(*drawn_probabilities(MANY, *change, np.random.default_rng(0)))
        for n in (54, 200):
            for of in (_intercept, _slope):
                truth = {_intercept: 0.0, _slope: 1.0}[of] if kind == "right" else of(population).value
                names = Names(of(population).name, "profile likelihood", f"{n}", f"probabilities {kind}")
                drawn = partial(of_drawn_probabilities, n, change, partial(_of_line, of))
                yield measured(names, truth, draws, drawn)


def _intercept(line: CalibrationLine) -> Estimate:
    return line.intercept


def _slope(line: CalibrationLine) -> Estimate:
    return line.slope


def _of_line(
    of: Callable[[CalibrationLine], Estimate], truth: NDArray[np.bool_], probability: NDArray[np.float64]
) -> Estimate:
    return of(calibration_line(truth, probability))


def drawn_probabilities(n: int, slope: float, shift: float, rng: np.random.Generator) -> Probabilities:
    """Truth, and probabilities whose logits should be multiplied by `slope` and moved by `shift`."""
    logits = rng.normal(scale=1.5, size=n)
    return rng.random(n) < 1 / (1 + np.exp(-slope * logits - shift)), 1 / (1 + np.exp(-logits))


def of_drawn_probabilities(
    n: int, change: tuple[float, float], estimate: Callable[..., Estimate], rng: np.random.Generator
) -> Estimate:
    """Draw patients."""
    return estimate(*drawn_probabilities(n, *change, rng))


def promises(draws: int) -> Iterator[Row]:
    """Share of choices that keep the budget on very many fresh patients; the width is the mean share missed."""
    for digits, kind in ((6, "continuous"), (1, "eleven values")):
        fresh = scored_patients(50_000, 50_000, digits, np.random.default_rng(0))
        for n, budget in ((60, 0.05), (150, 0.05), (60, 0.1), (30, 0.1)):
            names = Names("promise kept", "operating point, 95 %", f"{n} positives", f"budget {budget:.0%}, {kind}")
            yield kept(names, budget, operating_point_misses(n, budget, digits, draws, fresh))
        for n in (30, 100):
            lost = triage_losses(n, digits, draws, fresh)
            for what, budget, share in (("ruled out", 0.05, lost[:, 0]), ("ruled in", 0.1, lost[:, 1])):
                names = Names(f"wrongly {what}", "triage, on average", f"{n} + {n}", f"budget {budget:.0%}, {kind}")
                yield kept(names, budget, share)


def kept(names: Names, budget: float, lost: NDArray[np.float64]) -> Row:
    """Share of repeats within the budget, and the mean share lost."""
    return Row(names, float((lost <= budget).mean()), float(lost.mean()))


def operating_point_misses(n: int, budget: float, digits: int, draws: int, fresh: Probabilities) -> NDArray[np.float64]:
    """(draws,) share of fresh positives that each choice misses."""
    positives, rng = np.sort(fresh[1][fresh[0]]), np.random.default_rng(n)
    points = (
        choose_operating_point(*scored_patients(n, n, digits, rng), budget=budget, chosen_on="drawn")
        for _ in range(draws)
    )
    return np.array([np.searchsorted(positives, point.threshold) for point in points]) / len(positives)


def triage_losses(n: int, digits: int, draws: int, fresh: Probabilities) -> NDArray[np.float64]:
    """(draws, 2) share of fresh positives ruled out, and of fresh negatives ruled in, by each choice."""
    positives, negatives = np.sort(fresh[1][fresh[0]]), np.sort(fresh[1][~fresh[0]])
    rng, found = np.random.default_rng(n), []
    for _ in range(draws):
        patients = scored_patients(n, n, digits, rng)
        triage = choose_triage(*patients, miss_budget=0.05, false_budget=0.1, chosen_on="drawn")
        ruled_out = np.searchsorted(positives, triage.rule_out_below) / len(positives)
        found.append((ruled_out, 1 - np.searchsorted(negatives, triage.rule_in_from) / len(negatives)))
    return np.array(found)


def scored_patients(n_positive: int, n_negative: int, digits: int, rng: np.random.Generator) -> Probabilities:
    """Truth and probabilities; with one digit there are heavy ties."""
    truth = np.arange(n_positive + n_negative) < n_positive
    return truth, np.round(1 / (1 + np.exp(-rng.normal(size=len(truth)) - 1.5 * truth + 0.7)), digits)
