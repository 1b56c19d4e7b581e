"""How often the intervals of `he2her2.evaluation` hold the truth, and how often operating points keep their promise.

Nominal 95 % should be 93-97 %. Intervals of counts of 8 patients are measured exactly, over every table of 8; the
others by simulated cohorts, whose share has a standard error of half a point for 2 000. For comparison: the plain
percentile bootstrap and the interval of DeLong as they are commonly used.

Run: python -m experiments.coverage [--draws 2000] [--only auc]
"""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from he2her2.evaluation import metrics as m
from he2her2.evaluation.calibration import brier_interval, calibration_error, calibration_error_interval
from he2her2.evaluation.comparisons import delong_difference, newcombe_paired
from he2her2.evaluation.delong import placements, pull_variance
from he2her2.evaluation.intervals import (
    FEW_PATIENTS,
    Estimate,
    average_precision_interval,
    counts_interval,
    decision_interval,
    delong,
    exact_binomial,
    kappa_interval,
    rate,
    wilson,
)
from he2her2.evaluation.operating import choose_operating_point
from he2her2.evaluation.triage import choose_triage

RESULTS = Path(__file__).resolve().parent / "results"
MANY = 200_000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One measured coverage.

    Attributes:
        figure: What was estimated.
        method: How.
        cases: From how many.
        truth: Under which truth.
        coverage: Share of intervals that hold it.
        width: Their mean width.
    """

    figure: str
    method: str
    cases: str
    truth: str
    coverage: float
    width: float


def measured(
    names: tuple[str, str, str, str], truth: float, draws: int, interval: Callable[[np.random.Generator], Interval]
) -> Row:
    """Coverage by simulation; the seed follows from the names."""
    rng = np.random.default_rng(list("".join(names).encode()))
    limits = np.array([interval(rng) for _ in range(draws)])
    inside = (limits[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= limits[:, 1])
    return Row(*names, float(inside.mean()), float((limits[:, 1] - limits[:, 0]).mean()))


def ends(estimate: Estimate) -> Interval:
    """Lower and upper end."""
    return estimate.low, estimate.high


# --- rates and other figures of counts


def rates(_draws: int) -> Iterator[Row]:
    """Shares of n cases: exact sums, for a fine grid of truths."""
    for n in (8, 50):
        for method in (exact_binomial, wilson):
            limits = np.array([ends(method(k, n)) for k in range(n + 1)])
            found = []
            for truth in np.linspace(0.05, 0.95, 91):
                inside = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
                found.append(stats.binom.pmf(np.arange(n + 1), n, truth)[inside].sum())
            width = float((limits[:, 1] - limits[:, 0]).mean())
            name = method(1, 2).method
            yield Row("rate", name, f"{n}", "0.05 to 0.95, mean", float(np.mean(found)), width)
            yield Row("rate", name, f"{n}", "0.05 to 0.95, least", float(np.min(found)), width)


CLASSIFIERS = {"weak": (0.6, 0.5), "fair": (0.75, 0.7), "good": (0.9, 0.9)}
OWN = "Bayesian bootstrap, Jeffreys' prior"
OF_COUNTS = (m.balanced_accuracy, m.f1, m.weighted_f1, m.weighted_precision, m.mcc)


def cell_shares(prevalence: float, found: float, right: float) -> tuple[float, float, float, float]:
    """TP, FP, TN, FN of a classifier."""
    return prevalence * found, (1 - prevalence) * (1 - right), (1 - prevalence) * right, prevalence * (1 - found)


def counts_of_eight(_draws: int) -> Iterator[Row]:
    """Exact sums over every table of 8 patients, a share of whom is positive."""
    tables = [(a, b, c, 8 - a - b - c) for a in range(9) for b in range(9 - a) for c in range(9 - a - b)]
    for metric in OF_COUNTS:
        methods = {
            OWN: partial(own_interval, metric),
            "percentile bootstrap (for comparison)": partial(percentile_bootstrap, metric),
        }
        for name, method in methods.items():
            limits = np.array([method(m.BinaryCounts(*table)) for table in tables])
            for kind, quality in CLASSIFIERS.items():
                coverage = []
                for prevalence in (0.3, 0.5, 0.65):
                    shares = cell_shares(prevalence, *quality)
                    truth = metric(m.BinaryCounts(*shares))
                    inside = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
                    coverage.append(stats.multinomial.pmf(np.array(tables)[inside], 8, shares).sum())
                width = float((limits[:, 1] - limits[:, 0]).mean())
                yield Row(label(metric), name, "8", f"{kind} classifier", float(np.mean(coverage)), width)


def own_interval(metric: Callable[[m.BinaryCounts], float], table: m.BinaryCounts) -> Interval:
    """What we do."""
    return ends(counts_interval(metric, table))


def label(metric: Callable[[m.BinaryCounts], float]) -> str:
    """A metric's name for people."""
    return metric.__name__.replace("_", " ")


def percentile_bootstrap(metric: Callable[[m.BinaryCounts], float], table: m.BinaryCounts) -> Interval:
    """What is commonly done: draw patients with replacement."""
    cells = np.array([table.tp, table.fp, table.tn, table.fn])
    drawn = np.random.default_rng(0).multinomial(8, cells / cells.sum(), 1000)
    values = np.array([metric(m.BinaryCounts(*row)) for row in drawn.tolist()])
    kept = values[~np.isnan(values)]
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
    return float(low), float(high)


def counts_of_more(draws: int) -> Iterator[Row]:
    """Tables of more patients, by simulation."""
    for metric in OF_COUNTS:
        interval = lru_cache(None)(partial(own_interval, metric))
        for n in (20, 100):
            for kind, quality in CLASSIFIERS.items():
                shares = cell_shares(0.4, *quality)
                names = (label(metric), OWN, f"{n}", f"{kind} classifier")
                yield measured(
                    names, metric(m.BinaryCounts(*shares)), draws, partial(of_drawn_table, n, shares, interval)
                )


def of_drawn_table(
    n: int, shares: Sequence[float], interval: Callable[[m.BinaryCounts], Interval], rng: np.random.Generator
) -> Interval:
    """Draw patients and decide on them."""
    return interval(m.BinaryCounts(*rng.multinomial(n, shares).tolist()))


def kappas(draws: int) -> Iterator[Row]:
    """Four scores, decided rightly, one off, or anyhow."""
    off = np.abs(np.subtract.outer(range(4), range(4)))
    for n in (8, 50, 200):
        for right in (0.5, 0.8):
            table = 0.02 + right * (off == 0) + 0.15 * (off == 1)
            truth = m.quadratic_kappa(table)
            names = ("quadratic kappa", OWN, f"{n}", f"{truth:.2f}")
            yield measured(names, truth, draws, partial(of_drawn_scores, n, table / table.sum()))


def of_drawn_scores(n: int, table: NDArray[np.float64], rng: np.random.Generator) -> Interval:
    """Draw slides and score them."""
    cells = rng.choice(16, n, p=table.ravel())
    return ends(kappa_interval(cells // 4, cells % 4, 4))


# --- rankings


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


NORMALS = [Normals(auc, *kind) for auc in (0.5, 0.7, 0.85, 0.95) for kind in ((), (1.0, True), (2.0,))]
SIZES = ((4, 4), (5, 3), (2, 6), (10, 10), (14, 40), (5, 45), (100, 100))


def own_delong(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> Interval:
    """What we do."""
    return ends(delong(truth, scores))


def plain_delong(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> Interval:
    """DeLong's interval as it is commonly computed."""
    placed = placements(truth, scores)
    half = 1.96 * math.sqrt(max(0.0, pull_variance(truth, placed.pull, np.arange(len(truth)))))
    return placed.auc - half, placed.auc + half


def aucs(draws: int) -> Iterator[Row]:
    """AUC of two normal classes."""
    large = np.arange(2 * MANY) < MANY
    for normals in NORMALS:
        true_auc = m.auc(large, normals.scores(np.random.default_rng(0), large)) if normals.ties else normals.auc
        for n_positive, n_negative in SIZES:
            truth = np.arange(n_positive + n_negative) < n_positive
            name = "Newcombe" if min(n_positive, n_negative) < FEW_PATIENTS else "DeLong, logit, t"
            names = ("AUC", name, f"{n_positive} + {n_negative}", str(normals))
            yield measured(names, true_auc, draws, partial(of_drawn_ranking, normals, truth, own_delong))
            if normals.spread == 1 and not normals.ties:
                names = ("AUC", "plain DeLong (for comparison)", *names[2:])
                yield measured(names, true_auc, draws, partial(of_drawn_ranking, normals, truth, plain_delong))


def of_drawn_ranking(
    normals: Normals,
    truth: NDArray[np.bool_],
    interval: Callable[[NDArray[np.bool_], NDArray[np.float64]], Interval],
    rng: np.random.Generator,
) -> Interval:
    """Draw scores."""
    return interval(truth, normals.scores(rng, truth))


def average_precisions(draws: int) -> Iterator[Row]:
    """Average precision, where a share of patients is positive."""
    for auc in (0.6, 0.8, 0.95):
        for prevalence in (0.2, 0.5):
            large = np.arange(MANY) < prevalence * MANY
            truth = m.average_precision(large, Normals(auc).scores(np.random.default_rng(0), large))
            for n in (8, 54, 200):
                names = ("average precision", OWN, f"{n}, {prevalence:.0%} positive", f"{truth:.2f}")
                yield measured(names, truth, draws, partial(of_drawn_patients, Normals(auc), n, prevalence))


def of_drawn_patients(normals: Normals, n: int, prevalence: float, rng: np.random.Generator) -> Interval:
    """Draw patients, at least one of them positive, and score them."""
    truth = np.zeros(n, dtype=bool)
    while not truth.any():
        truth = rng.random(n) < prevalence
    return ends(average_precision_interval(truth, normals.scores(rng, truth)))


def auc_differences(draws: int) -> Iterator[Row]:
    """Two models on the same patients, whose scores go together."""
    for n_positive, n_negative in ((5, 3), (10, 10), (14, 40), (100, 100)):
        truth = np.arange(n_positive + n_negative) < n_positive
        for pair in ((0.7, 0.7), (0.9, 0.9), (0.95, 0.8)):
            for together in (0.0, 0.8):
                names = ("AUC difference", "limits of both AUCs, DeLong's correlation", f"{n_positive} + {n_negative}",
                         f"{pair[0]} - {pair[1]}, correlation {together}")  # fmt: skip
                yield measured(names, pair[0] - pair[1], draws, partial(of_drawn_pair, pair, together, truth))


def of_drawn_pair(
    pair: tuple[float, float], together: float, truth: NDArray[np.bool_], rng: np.random.Generator
) -> Interval:
    """Score the same patients twice."""
    shared = math.sqrt(together) * rng.normal(size=len(truth))
    first, second = (
        shared + math.sqrt(1 - together) * rng.normal(size=len(truth)) + math.sqrt(2) * stats.norm.ppf(auc) * truth
        for auc in pair
    )
    return ends(delong_difference(truth, first, second).estimate)


def rate_differences(draws: int) -> Iterator[Row]:
    """Two decisions on the same patients."""
    for n in (8, 20, 54):
        for shares in ((0.5, 0.2, 0.1, 0.2), (0.8, 0.1, 0.05, 0.05)):
            truth = shares[1] - shares[2]
            names = ("difference of rates", "Newcombe, paired", f"{n}", f"{truth:.2f}")
            yield measured(names, truth, draws, partial(of_drawn_differences, n, shares))


def of_drawn_differences(n: int, shares: Sequence[float], rng: np.random.Generator) -> Interval:
    """Draw where two models are right."""
    both, only_first, only_second, _ = rng.multinomial(n, shares).tolist()
    return ends(newcombe_paired(both, only_first, only_second, n))


# --- several slides of a patient


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
            right, lambda s: decision_interval(m.balanced_accuracy, s.truth, s.decided, s.patients)),
        ("AUC", "DeLong-Obuchowski or Newcombe"): (
            area, lambda s: delong(s.truth, s.scores, s.patients)),
    }  # fmt: skip
    for n in (8, 30, 100):
        for alike in (0.0, 0.5, 1.0):
            for (figure, method), (truth, estimate) in figures.items():
                names = (f"{figure} by patient", method, f"{n} patients, 1-4 slides", f"correlation {alike}")
                yield measured(names, truth, draws, partial(of_drawn_slides, n, alike, estimate))


def of_drawn_slides(n: int, alike: float, estimate: Callable[[Slides], Estimate], rng: np.random.Generator) -> Interval:
    """Draw slides."""
    return ends(estimate(Slides.drawn(n, alike, rng)))


# --- probabilities

Probabilities = tuple[NDArray[np.bool_], NDArray[np.float64]]


def drawn_probabilities(n: int, slope: float, shift: float, rng: np.random.Generator) -> Probabilities:
    """Truth, and probabilities whose logits should be multiplied by `slope` and moved by `shift`."""
    logits = rng.normal(scale=1.5, size=n)
    return rng.random(n) < 1 / (1 + np.exp(-slope * logits - shift)), 1 / (1 + np.exp(-logits))


def probabilities(draws: int) -> Iterator[Row]:
    """Brier score and calibration error of probabilities that are right, too sure or too low."""
    for kind, change in {"right": (1.0, 0.0), "too sure": (0.4, 0.0), "too low": (1.0, 1.0)}.items():
        large = drawn_probabilities(MANY, *change, np.random.default_rng(0))
        loss = float(np.mean((large[1] - large[0]) ** 2))
        for n in (8, 54, 200):
            names = ("Brier score", OWN, f"{n}", f"probabilities {kind}")
            yield measured(names, loss, draws, partial(of_drawn_probabilities, n, change, brier_interval))
            # Right probabilities have no error at all; that of very many cases is chance.
            error = 0.0 if kind == "right" else calibration_error(*large, n_bins=max(1, min(10, n // 10)))
            names = ("calibration error", "inversion", f"{n}", f"probabilities {kind}")
            yield measured(names, error, draws, partial(of_drawn_probabilities, n, change, calibration_error_interval))


def of_drawn_probabilities(
    n: int, change: tuple[float, float], estimate: Callable[..., Estimate], rng: np.random.Generator
) -> Interval:
    """Draw patients."""
    return ends(estimate(*drawn_probabilities(n, *change, rng)))


# --- promises


def promises(draws: int) -> Iterator[Row]:
    """Share of choices that keep the budget on very many fresh patients; here the width is the mean share missed."""
    for digits, kind in ((6, "continuous"), (1, "eleven values")):
        truth, fresh = scored_patients(50_000, 50_000, digits, np.random.default_rng(0))
        positives, negatives = np.sort(fresh[truth]), np.sort(fresh[~truth])
        for n, budget in ((60, 0.05), (150, 0.05), (60, 0.1), (30, 0.1)):
            rng, missed = np.random.default_rng(n), []
            for _ in range(draws):
                point = choose_operating_point(*scored_patients(n, n, digits, rng), budget=budget, chosen_on="x")
                missed.append(np.searchsorted(positives, point.threshold) / len(positives))
            names = ("promise kept", "operating point, 95 %", f"{n} positives", f"budget {budget:.0%}, {kind}")
            yield Row(*names, float(np.mean(np.array(missed) <= budget)), float(np.mean(missed)))
        for n in (30, 100):
            rng, lost = np.random.default_rng(n), []
            for _ in range(draws):
                patients = scored_patients(n, n, digits, rng)
                triage = choose_triage(*patients, miss_budget=0.05, false_budget=0.1, chosen_on="x")
                ruled_out = np.searchsorted(positives, triage.rule_out_below) / len(positives)
                lost.append((ruled_out, 1 - np.searchsorted(negatives, triage.rule_in_from) / len(negatives)))
            for what, budget, found in (("ruled out", 0.05, 0), ("ruled in", 0.1, 1)):
                share = np.array(lost)[:, found]
                names = (f"wrongly {what}", "triage, on average", f"{n} + {n}", f"budget {budget:.0%}, {kind}")
                yield Row(*names, float(np.mean(share <= budget)), float(share.mean()))


def scored_patients(n_positive: int, n_negative: int, digits: int, rng: np.random.Generator) -> Probabilities:
    """Truth and probabilities; with one digit there are heavy ties."""
    truth = np.arange(n_positive + n_negative) < n_positive
    return truth, np.round(1 / (1 + np.exp(-rng.normal(size=len(truth)) - 1.5 * truth + 0.7)), digits)


STUDIES: dict[str, Callable[[int], Iterator[Row]]] = {
    "rates": rates,
    "eight": counts_of_eight,
    "counts": counts_of_more,
    "kappa": kappas,
    "auc": aucs,
    "ap": average_precisions,
    "difference": auc_differences,
    "paired": rate_differences,
    "clusters": by_patient,
    "probabilities": probabilities,
    "promises": promises,
}


def as_markdown(rows: Iterable[Row], draws: int) -> Iterator[str]:
    """The table for people."""
    yield "# Do the intervals hold what they promise?"
    yield ""
    yield f"Nominal 95 %; {draws} simulated cohorts a row (counts of 8 patients: exact). Outside 93-97 %: in bold."
    yield "For promises and triage the last column is the mean share of fresh patients decided wrongly."
    yield ""
    yield "| figure | method | cases | truth | coverage | mean width |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        share = f"{100 * row.coverage:.1f} %"
        shown = share if 0.93 <= row.coverage <= 0.97 else f"**{share}**"
        yield f"| {row.figure} | {row.method} | {row.cases} | {row.truth} | {shown} | {row.width:.3f} |"


def main() -> None:
    """Measure and write the table, study by study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", choices=STUDIES)
    options = parser.parse_args()
    rows: list[Row] = []
    for name in [options.only] if options.only else STUDIES:
        for row in STUDIES[name](options.draws):
            rows.append(row)
            print(f"{name:14}{100 * row.coverage:6.1f} %  {row.width:.3f}  {row}", flush=True)
    if options.only is None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "coverage.md").write_text("\n".join(as_markdown(rows, options.draws)) + "\n", "utf-8")


if __name__ == "__main__":
    main()
