"""AUC, its differences and average precision, of normal scores; and several slides of a patient."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from experiments.coverage.measuring import MANY, OWN, Names, Row, measured
from numpy.typing import NDArray
from scipy import stats

from he2her2.statistics import (
    AUC_METHOD,
    Estimate,
    auc_influence,
    auc_interval,
    auc_variance,
    average_precision_interval,
    balanced_accuracy,
    decision_interval,
    delong_difference,
    rate,
    roc_curve,
)
from he2her2.statistics import auc as area_of
from he2her2.statistics.roc import average_precision


@dataclass(frozen=True)
class Normals:
    """Scores of two normal classes, positives with another spread, rounded where there shall be ties."""

    auc: float
    spread: float = 1.0
    ties: bool = False

    def scores(self, rng: np.random.Generator, truth: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Draw one score a case."""
        shift = math.sqrt(1 + self.spread**2) * float(stats.norm.ppf(self.auc))
        scores: NDArray[np.float64] = rng.normal(size=len(truth)) * np.where(truth, self.spread, 1) + shift * truth
        return scores.round() if self.ties else scores

    def __str__(self) -> str:
        kind = ", five scores" if self.ties else ", unequal spread" if self.spread != 1 else ""
        return f"{self.auc:.2f}{kind}"


AUCS = [Normals(auc, *kind) for auc in (0.5, 0.7, 0.85, 0.95) for kind in ((), (1.0, True), (2.0,))]
SIZES = ((5, 3), (2, 6), (10, 10), (14, 40), (100, 100))
COMPARED = ((5, 3), (14, 40))


def first_positive(n_positive: int, n_negative: int) -> NDArray[np.bool_]:
    """Truth: positives, then negatives."""
    return np.arange(n_positive + n_negative) < n_positive


def whole_curves(draws: int) -> Iterator[Row]:
    """The whole true ROC inside a band, between its ends; the width is the mean one of the band."""
    for sizes in ((14, 40), (40, 60), (100, 100)):
        truth, normals = first_positive(*sizes), Normals(0.76)
        patients = np.arange(len(truth)).astype(str)
        names = [
            Names("whole ROC", method, f"{sizes[0]} + {sizes[1]}", str(normals))
            for method in ("simultaneous band", "pointwise band (for comparison)")
        ]
        rng, held, width = np.random.default_rng(names[0].seed), np.zeros(2), np.zeros(2)
        for k in range(draws):
            curve = roc_curve(truth, normals.scores(rng, truth), patients, seed=k)
            true = stats.norm.cdf(stats.norm.ppf(curve.x[1:-1]) + math.sqrt(2) * stats.norm.ppf(normals.auc))
            for which, (low, high) in enumerate([(curve.all_low, curve.all_high), (curve.low, curve.high)]):
                held[which] += ((low[1:-1] <= true) & (true <= high[1:-1])).all()
                width[which] += (high - low).mean()
        for name, share, wide in zip(names, held / draws, width / draws, strict=True):
            yield Row(name, float(share), float(wide))


def aucs(draws: int) -> Iterator[Row]:
    """AUC of two normal classes."""
    large = first_positive(MANY, MANY)
    for normals in AUCS:
        true_auc = area_of(large, normals.scores(np.random.default_rng(0), large)) if normals.ties else normals.auc
        for sizes in SIZES:
            truth, cases = first_positive(*sizes), f"{sizes[0]} + {sizes[1]}"
            names = Names("AUC", AUC_METHOD, cases, str(normals))
            yield measured(names, true_auc, draws, partial(of_drawn_ranking, normals, truth, auc_interval))
            if normals.spread == 1 and not normals.ties and sizes in COMPARED:
                names = Names("AUC", "plain DeLong (for comparison)", cases, str(normals))
                yield measured(names, true_auc, draws, partial(of_drawn_ranking, normals, truth, plain_delong))


def of_drawn_ranking(
    normals: Normals, truth: NDArray[np.bool_], interval: Callable[..., Estimate], rng: np.random.Generator
) -> Estimate:
    """Draw scores."""
    return interval(truth, normals.scores(rng, truth))


def plain_delong(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> Estimate:
    """DeLong's interval as it is commonly computed."""
    placed = auc_influence(truth, scores)
    half = 1.96 * math.sqrt(max(0.0, auc_variance(truth, placed.values, np.arange(len(truth)))))
    return Estimate("AUC", placed.auc, placed.auc - half, placed.auc + half, len(truth), "DeLong")


def average_precisions(draws: int) -> Iterator[Row]:
    """Average precision, where a share of patients is positive."""
    for auc in (0.6, 0.8, 0.95):
        for prevalence in (0.2, 0.5):
            large = np.arange(MANY) < prevalence * MANY
            truth = average_precision(large, Normals(auc).scores(np.random.default_rng(0), large))
            for n in (8, 54) if auc != 0.8 else (8, 54, 200):
                names = Names("average precision", OWN, f"{n}, {prevalence:.0%} positive", f"{truth:.2f}")
                yield measured(names, truth, draws, partial(of_drawn_patients, Normals(auc), n, prevalence))


def of_drawn_patients(normals: Normals, n: int, prevalence: float, rng: np.random.Generator) -> Estimate:
    """Draw patients, at least one of them positive, and score them."""
    truth = np.zeros(n, dtype=bool)
    while not truth.any():
        truth = rng.random(n) < prevalence
    return average_precision_interval(truth, normals.scores(rng, truth))


def auc_differences(draws: int) -> Iterator[Row]:
    """Two models on the same patients, whose scores go together."""
    for sizes in ((5, 3), (10, 10), (14, 40), (100, 100)):
        for pair in ((0.7, 0.7), (0.95, 0.8)):
            for together in (0.0, 0.8):
                names = Names("AUC difference", "limits of both AUCs, DeLong's correlation", f"{sizes[0]} + {sizes[1]}",
                              f"{pair[0]} - {pair[1]}, correlation {together}")  # fmt: skip
                draw = partial(of_drawn_pair, pair, together, first_positive(*sizes))
                yield measured(names, pair[0] - pair[1], draws, draw)


def of_drawn_pair(
    pair: tuple[float, float], together: float, truth: NDArray[np.bool_], rng: np.random.Generator
) -> Estimate:
    """Score the same patients twice."""
    shared = math.sqrt(together) * rng.normal(size=len(truth))
    first, second = (
        shared + math.sqrt(1 - together) * rng.normal(size=len(truth)) + math.sqrt(2) * stats.norm.ppf(auc) * truth
        for auc in pair
    )
    return delong_difference(truth, first, second).estimate


@dataclass(frozen=True)
class Slides:
    """Slides, one to four a patient, that go together as those of a patient do."""

    patients: NDArray[np.intp]
    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]

    @classmethod
    def drawn(cls, n: int, alike: float, rng: np.random.Generator) -> "Slides":
        """Draw those of n patients, 40 % of them positive; `alike` is the correlation of a patient's slides."""
        patients = np.repeat(np.arange(n), rng.integers(1, 5, n))
        truth = (np.arange(n) < 0.4 * n)[patients]
        own, shared = rng.normal(size=len(patients)), rng.normal(size=n)[patients]
        return cls(patients, truth, math.sqrt(alike) * shared + math.sqrt(1 - alike) * own + truth)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Called positive, at the best threshold."""
        return self.scores > 0.5


def by_patient(draws: int) -> Iterator[Row]:
    """Several slides of a patient."""
    right, area = float(stats.norm.cdf(0.5)), float(stats.norm.cdf(1 / math.sqrt(2)))
    figures: dict[tuple[str, str], tuple[float, Callable[[Slides], Estimate]]] = {
        ("accuracy", "Clopper-Pearson, effective cases"): (
            right, lambda s: rate(s.decided == s.truth, s.patients)),
        ("balanced accuracy", OWN): (
            right, lambda s: decision_interval(balanced_accuracy, s.truth, s.decided, s.patients)),
        ("AUC", AUC_METHOD): (
            area, lambda s: auc_interval(s.truth, s.scores, s.patients)),
    }  # fmt: skip
    for n in (8, 30, 100):
        for alike in (0.0, 0.5, 1.0):
            for (figure, method), (truth, estimate) in figures.items():
                names = Names(f"{figure} by patient", method, f"{n} patients, 1-4 slides", f"correlation {alike}")
                yield measured(names, truth, draws, partial(of_drawn_slides, n, alike, estimate))


def of_drawn_slides(n: int, alike: float, estimate: Callable[[Slides], Estimate], rng: np.random.Generator) -> Estimate:
    """Draw slides."""
    return estimate(Slides.drawn(n, alike, rng))
