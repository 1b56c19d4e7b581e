"""How often the intervals of `he2her2.evaluation` hold the truth, and how often operating points keep their promise.

Nominal 95 % should be 93-97 %. Intervals of counts of 8 patients are measured exactly, over every table of 8; the
others by simulated cohorts, whose share has a standard error of half a point for 2 000. For comparison: the plain
percentile bootstrap and the interval of DeLong as they are commonly used.

Run: python -m experiments.coverage [--draws 2000] [--only auc]
"""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from he2her2.evaluation import metrics as m
from he2her2.evaluation.calibration import brier_interval, calibration_error, calibration_error_interval
from he2her2.evaluation.comparisons import delong_difference, newcombe_paired
from he2her2.evaluation.delong import placements, pull_variance
from he2her2.evaluation.intervals import (
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
OF_COUNTS = (m.balanced_accuracy, m.f1, m.weighted_f1, m.weighted_precision, m.mcc)


def cell_shares(prevalence: float, found: float, right: float) -> tuple[float, float, float, float]:
    """TP, FP, TN, FN of a classifier."""
    return prevalence * found, (1 - prevalence) * (1 - right), (1 - prevalence) * right, prevalence * (1 - found)


def counts_of_eight(_draws: int) -> Iterator[Row]:
    """Exact sums over every table of 8 patients, a share of whom is positive."""
    tables = [(a, b, c, 8 - a - b - c) for a in range(9) for b in range(9 - a) for c in range(9 - a - b)]
    for metric in OF_COUNTS:
        methods = {
            "Bayesian bootstrap with Jeffreys' prior": lambda table, of=metric: ends(counts_interval(of, table)),
            "percentile bootstrap (for comparison)": lambda table, of=metric: percentile_bootstrap(of, table),
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
        cached = lru_cache(None)(lambda cells, of=metric: ends(counts_interval(of, m.BinaryCounts(*cells))))
        for n in (20, 100):
            for kind, quality in CLASSIFIERS.items():
                shares = cell_shares(0.4, *quality)

                def once(
                    rng: np.random.Generator,
                    n: int = n,
                    shares: tuple[float, ...] = shares,
                    cached: Callable[[tuple[int, ...]], Interval] = cached,
                ) -> Interval:
                    return cached(tuple(rng.multinomial(n, shares).tolist()))

                names = (label(metric), "Bayesian bootstrap with Jeffreys' prior", f"{n}", f"{kind} classifier")
                yield measured(names, metric(m.BinaryCounts(*shares)), draws, once)


def kappas(draws: int) -> Iterator[Row]:
    """Four scores, decided rightly or one off."""
    for n in (8, 50, 200):
        for right in (0.5, 0.8):
            table = np.full((4, 4), 0.02) + np.eye(4) * right
            table += 0.15 * (np.abs(np.subtract.outer(range(4), range(4))) == 1)
            table /= table.sum()

            def once(rng: np.random.Generator, n: int = n, table: NDArray[np.float64] = table) -> Interval:
                cells = rng.choice(16, n, p=table.ravel())
                return ends(kappa_interval(cells // 4, cells % 4, 4))

            names = ("quadratic kappa", "Bayesian bootstrap", f"{n}", f"{m.quadratic_kappa(table):.2f}")
            yield measured(names, m.quadratic_kappa(table), draws, once)


# --- rankings


@dataclass(frozen=True)
class Normals:
    """Scores of two normal classes, positives with another spread, rounded where there shall be ties."""

    auc: float
    spread: float = 1.0
    ties: bool = False

    def scores(self, rng: np.random.Generator, truth: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Draw one score a case."""
        shift = math.sqrt(1 + self.spread**2) * stats.norm.ppf(self.auc)
        scores = rng.normal(size=len(truth)) * np.where(truth, self.spread, 1) + shift * truth
        return np.round(scores) if self.ties else scores

    def __str__(self) -> str:
        kind = ", five scores" if self.ties else ", unequal spread" if self.spread != 1 else ""
        return f"{self.auc:.2f}{kind}"


NORMALS = [Normals(auc, *kind) for auc in (0.5, 0.7, 0.85, 0.95) for kind in ((), (1.0, True), (2.0,))]
SIZES = ((4, 4), (5, 3), (2, 6), (10, 10), (14, 40), (5, 45), (100, 100))


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
            methods: dict[str, Callable[[NDArray[np.float64]], Interval]] = {
                delong(truth, normals.scores(np.random.default_rng(1), truth)).method: (
                    lambda scores, truth=truth: ends(delong(truth, scores))
                )
            }
            if normals.spread == 1 and not normals.ties:
                methods["plain DeLong (for comparison)"] = lambda scores, truth=truth: plain_delong(truth, scores)
            for name, method in methods.items():
                names = ("AUC", name, f"{n_positive} + {n_negative}", str(normals))
                yield measured(
                    names, true_auc, draws,
                    lambda rng, method=method, truth=truth, normals=normals: method(normals.scores(rng, truth)),
                )  # fmt: skip


def average_precisions(draws: int) -> Iterator[Row]:
    """Average precision, where a share of patients is positive."""
    for auc in (0.6, 0.8, 0.95):
        for prevalence in (0.2, 0.5):
            large = np.arange(MANY) < prevalence * MANY
            truth = m.average_precision(large, Normals(auc).scores(np.random.default_rng(0), large))
            for n in (8, 54, 200):

                def once(rng: np.random.Generator, n: int = n, auc: float = auc, share: float = prevalence) -> Interval:
                    drawn = np.zeros(n, dtype=bool)
                    while not drawn.any():
                        drawn = rng.random(n) < share
                    return ends(average_precision_interval(drawn, Normals(auc).scores(rng, drawn)))

                names = ("average precision", "Bayesian bootstrap", f"{n}, {prevalence:.0%} positive", f"{truth:.2f}")
                yield measured(names, truth, draws, once)


def auc_differences(draws: int) -> Iterator[Row]:
    """Two models on the same patients, whose scores go together."""
    for n_positive, n_negative in ((5, 3), (10, 10), (14, 40), (100, 100)):
        truth = np.arange(n_positive + n_negative) < n_positive
        for one, two in ((0.7, 0.7), (0.9, 0.9), (0.95, 0.8)):
            for together in (0.0, 0.8):

                def once(
                    rng: np.random.Generator,
                    aucs: tuple[float, float] = (one, two),
                    together: float = together,
                    truth: NDArray[np.bool_] = truth,
                ) -> Interval:
                    shared = rng.normal(size=len(truth))
                    shifts = [math.sqrt(2) * stats.norm.ppf(auc) * truth for auc in aucs]
                    first, second = (
                        math.sqrt(together) * shared + math.sqrt(1 - together) * rng.normal(size=len(truth)) + shift
                        for shift in shifts
                    )
                    return ends(delong_difference(truth, first, second).estimate)

                names = ("AUC difference", "DeLong's correlation, both AUCs' limits", f"{n_positive} + {n_negative}",
                         f"{one} - {two}, correlation {together}")  # fmt: skip
                yield measured(names, one - two, draws, once)


def rate_differences(draws: int) -> Iterator[Row]:
    """Two decisions on the same patients."""
    for n in (8, 20, 54):
        for shares in ((0.5, 0.2, 0.1, 0.2), (0.8, 0.1, 0.05, 0.05)):

            def once(rng: np.random.Generator, n: int = n, shares: tuple[float, ...] = shares) -> Interval:
                both, only_first, only_second, _ = rng.multinomial(n, shares).tolist()
                return ends(newcombe_paired(both, only_first, only_second, n))

            names = ("difference of rates", "Newcombe, paired", f"{n}", f"{shares[1] - shares[2]:.2f}")
            yield measured(names, shares[1] - shares[2], draws, once)


# --- several slides of a patient


def clustered(draws: int) -> Iterator[Row]:
    """One to four slides a patient, going together as those of a patient do."""
    for n in (8, 30, 100):
        for alike in (0.0, 0.5, 1.0):

            def slides(rng: np.random.Generator, n: int = n, alike: float = alike) -> tuple[NDArray[np.intp], ...]:
                patients = np.repeat(np.arange(n), rng.integers(1, 5, n))
                truth = (np.arange(n) < 0.4 * n)[patients]
                noise = math.sqrt(alike) * rng.normal(size=n)[patients]
                scores = noise + math.sqrt(1 - alike) * rng.normal(size=len(patients)) + truth
                return patients, truth, scores

            right = float(stats.norm.cdf(0.5))

            def share(
                rng: np.random.Generator, slides: Callable[..., tuple[NDArray[np.intp], ...]] = slides
            ) -> Interval:
                patients, truth, scores = slides(rng)
                return ends(rate((scores > 0.5) == truth, patients))

            def balanced(
                rng: np.random.Generator, slides: Callable[..., tuple[NDArray[np.intp], ...]] = slides
            ) -> Interval:
                patients, truth, scores = slides(rng)
                return ends(decision_interval(m.balanced_accuracy, truth, scores > 0.5, patients))

            def area(
                rng: np.random.Generator, slides: Callable[..., tuple[NDArray[np.intp], ...]] = slides
            ) -> Interval:
                patients, truth, scores = slides(rng)
                return ends(delong(truth, scores, patients))

            cases, kind = f"{n} patients with 1-4 slides", f"correlation {alike}"
            yield measured(("accuracy by patient", "Korn-Graubard", cases, kind), right, draws, share)
            yield measured(("balanced accuracy by patient", "Bayesian bootstrap", cases, kind), right, draws, balanced)
            true_auc = float(stats.norm.cdf(1 / math.sqrt(2)))
            yield measured(("AUC by patient", "DeLong-Obuchowski or Newcombe", cases, kind), true_auc, draws, area)


# --- probabilities


def probabilities(draws: int) -> Iterator[Row]:
    """Brier score and calibration error of probabilities that are right, too sure or too high."""
    for kind, (slope, shift) in {"right": (1.0, 0.0), "too sure": (0.4, 0.0), "too high": (1.0, -1.0)}.items():

        def cases(
            rng: np.random.Generator, n: int, slope: float = slope, shift: float = shift
        ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
            logits = rng.normal(scale=1.5, size=n)
            return rng.random(n) < 1 / (1 + np.exp(-slope * logits - shift)), 1 / (1 + np.exp(-logits))

        large = cases(np.random.default_rng(0), MANY)
        loss = float(np.mean((large[1] - large[0]) ** 2))
        for n in (8, 54, 200):
            yield measured(
                ("Brier score", "Bayesian bootstrap", f"{n}", f"probabilities {kind}"), loss, draws,
                lambda rng, cases=cases, n=n: ends(brier_interval(*cases(rng, n))),
            )  # fmt: skip
            bins = max(1, min(10, n // 10))
            # Right probabilities have no error at all; that of very many cases is chance.
            error = 0.0 if kind == "right" else calibration_error(*large, n_bins=bins)
            yield measured(
                ("calibration error", "inversion", f"{n}", f"probabilities {kind}"), error, draws,
                lambda rng, cases=cases, n=n: ends(calibration_error_interval(*cases(rng, n))),
            )  # fmt: skip


# --- promises


def promises(draws: int) -> Iterator[Row]:
    """Share of choices that keep the budget on very many fresh patients; here the width is the mean share missed."""

    def patients(
        rng: np.random.Generator, n_positive: int, n_negative: int, digits: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        truth = np.arange(n_positive + n_negative) < n_positive
        probability = 1 / (1 + np.exp(-rng.normal(size=len(truth)) - 1.5 * truth + 0.7))
        return truth, np.round(probability, digits)

    for digits, kind in ((6, "continuous"), (1, "eleven values")):
        truth, fresh = patients(np.random.default_rng(0), 50_000, 50_000, digits)
        positives, negatives = np.sort(fresh[truth]), np.sort(fresh[~truth])
        for n, budget in ((60, 0.05), (150, 0.05), (60, 0.1), (30, 0.1)):
            rng, missed = np.random.default_rng(n), []
            for _ in range(draws):
                chosen = choose_operating_point(*patients(rng, n, n, digits), budget=budget, chosen_on="simulation")
                missed.append(np.searchsorted(positives, chosen.threshold) / len(positives))
            kept = float(np.mean(np.array(missed) <= budget))
            names = ("promise kept", "operating point, 95 %", f"{n} positives", f"budget {budget:.0%}, {kind}")
            yield Row(*names, kept, float(np.mean(missed)))
        for n in (30, 100):
            rng, missed, false = np.random.default_rng(n), [], []
            for _ in range(draws):
                triage = choose_triage(*patients(rng, n, n, digits), miss_budget=0.05, false_budget=0.1, chosen_on="x")
                missed.append(np.searchsorted(positives, triage.rule_out_below) / len(positives))
                false.append(1 - np.searchsorted(negatives, triage.rule_in_from) / len(negatives))
            for what, found, budget in (("ruled out", missed, 0.05), ("ruled in", false, 0.1)):
                names = (f"wrongly {what}", "triage, on average", f"{n} + {n}", f"budget {budget:.0%}, {kind}")
                yield Row(*names, float(np.mean(np.array(found) <= budget)), float(np.mean(found)))


STUDIES: dict[str, Callable[[int], Iterator[Row]]] = {
    "rates": rates,
    "eight": counts_of_eight,
    "counts": counts_of_more,
    "kappa": kappas,
    "auc": aucs,
    "ap": average_precisions,
    "difference": auc_differences,
    "paired": rate_differences,
    "clusters": clustered,
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
