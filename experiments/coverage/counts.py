"""Rates, figures of the four counts, kappa, and differences of rates."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import TypeAlias

import numpy as np
from experiments.coverage.measuring import OWN, OWN_KAPPA, Interval, Names, Row, ends, measured
from numpy.typing import NDArray
from scipy import stats

from he2her2.statistics import Estimate, counts_interval, exact_binomial, kappa_interval
from he2her2.statistics import metrics as m
from he2her2.statistics.intervals import wilson_limits
from he2her2.statistics.tests import newcombe_paired

Metric: TypeAlias = Callable[[m.BinaryCounts], float]

CLASSIFIERS = {"weak": (0.6, 0.5), "fair": (0.75, 0.7), "good": (0.9, 0.9)}
"""Sensitivity and specificity."""

OF_COUNTS: tuple[Metric, ...] = (m.balanced_accuracy, m.f1, m.weighted_f1, m.weighted_precision, m.mcc)


def rates(_draws: int) -> Iterator[Row]:
    """Shares of n cases: exact sums, for a fine grid of truths."""
    for n in (8, 50):
        exact = [ends(exact_binomial(k, n)) for k in range(n + 1)]
        score = [wilson_limits(k, n) for k in range(n + 1)]
        for method, pairs in ((exact_binomial(1, 2).method, exact), ("Wilson", score)):
            limits = np.array(pairs)
            found = []
            for truth in np.linspace(0.05, 0.95, 91):
                inside = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
                found.append(stats.binom.pmf(np.arange(n + 1), n, truth)[inside].sum())
            width = float((limits[:, 1] - limits[:, 0]).mean())
            for which, share in (("mean", np.mean(found)), ("least", np.min(found))):
                yield Row(Names("rate", method, f"{n}", f"0.05 to 0.95, {which}"), float(share), width)


def cell_shares(prevalence: float, found: float, right: float) -> tuple[float, float, float, float]:
    """TP, FP, TN, FN of a classifier."""
    return prevalence * found, (1 - prevalence) * (1 - right), (1 - prevalence) * right, prevalence * (1 - found)


def of_eight(_draws: int) -> Iterator[Row]:
    """Exact sums over every table of 8 patients, a share of whom is positive."""
    tables = [(a, b, c, 8 - a - b - c) for a in range(9) for b in range(9 - a) for c in range(9 - a - b)]
    methods: dict[str, Callable[[Metric, m.BinaryCounts], Interval]] = {
        OWN: lambda metric, table: ends(counts_interval(metric, table)),
        "percentile bootstrap (for comparison)": percentile_bootstrap,
    }
    for metric in OF_COUNTS:
        for name, method in methods.items():
            limits = np.array([method(metric, m.BinaryCounts(*table)) for table in tables])
            width = float((limits[:, 1] - limits[:, 0]).mean())
            for kind, quality in CLASSIFIERS.items():
                coverage = []
                for prevalence in (0.3, 0.5, 0.65):
                    shares = cell_shares(prevalence, *quality)
                    truth = metric(m.BinaryCounts(*shares))
                    inside = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
                    coverage.append(stats.multinomial.pmf(np.array(tables)[inside], 8, shares).sum())
                yield Row(Names(label(metric), name, "8", f"{kind} classifier"), float(np.mean(coverage)), width)


def label(metric: Metric) -> str:
    """A metric's name for people."""
    return metric.__name__.replace("_", " ")


def percentile_bootstrap(metric: Metric, table: m.BinaryCounts) -> Interval:
    """The common method: draw patients with replacement; undefined figures are left out."""
    cells = np.array([table.tp, table.fp, table.tn, table.fn])
    drawn = np.random.default_rng(0).multinomial(8, cells / cells.sum(), 1000)
    values = np.array([metric(m.BinaryCounts(*row)) for row in drawn.tolist()])
    kept = values[~np.isnan(values)]
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (0.0, 0.0)
    return float(low), float(high)


def of_more(draws: int) -> Iterator[Row]:
    """Tables of more patients, by simulation."""
    for metric in OF_COUNTS:
        interval = cache(partial(counts_interval, metric))
        for n in (20, 100):
            for kind, quality in CLASSIFIERS.items():
                shares = cell_shares(0.4, *quality)
                names = Names(label(metric), OWN, f"{n}", f"{kind} classifier")
                draw = partial(of_drawn_table, n, shares, interval)
                yield measured(names, metric(m.BinaryCounts(*shares)), draws, draw)


def of_drawn_table(
    n: int, shares: Sequence[float], interval: Callable[[m.BinaryCounts], Estimate], rng: np.random.Generator
) -> Estimate:
    """Draw patients and decide on them."""
    return interval(m.BinaryCounts(*rng.multinomial(n, shares).tolist()))


def score_tables() -> dict[str, NDArray[np.float64]]:
    """Shares of (true score, decided score), four scores each."""
    true, decided = np.indices((4, 4))
    off = np.abs(true - decided)
    seldom = np.array([[0.4], [0.35], [0.15], [0.1]])
    return {
        "one off": 0.02 + 0.5 * (off == 0) + 0.15 * (off == 1),
        "mostly right": 0.02 + 0.8 * (off == 0) + 0.15 * (off == 1),
        "by chance": np.ones((4, 4)),
        "too high": 0.02 + 0.5 * (decided == true) + 0.5 * (decided == np.minimum(true + 1, 3)),
        "positive or not only": 0.02 + 0.4 * ((true > 1) == (decided > 1)),
        "few 2+ and 3+": seldom * (0.02 + 0.7 * (off == 0) + 0.15 * (off == 1)),
    }


def kappas(draws: int) -> Iterator[Row]:
    """Four scores, decided rightly, one off, or anyhow."""
    for n in (8, 20, 50, 200):
        for kind, table in score_tables().items():
            truth = m.quadratic_kappa(table)
            names = Names("quadratic kappa", OWN_KAPPA, f"{n}", f"{kind}, {truth:.2f}")
            yield measured(names, truth, draws, partial(of_drawn_scores, n, table / table.sum()))


def of_drawn_scores(n: int, table: NDArray[np.float64], rng: np.random.Generator) -> Estimate:
    """Draw slides and score them."""
    cells = rng.choice(16, n, p=table.ravel())
    return kappa_interval(cells // 4, cells % 4, 4)


def rate_differences(draws: int) -> Iterator[Row]:
    """Two decisions on the same patients."""
    for n in (8, 20, 54):
        for shares in ((0.5, 0.2, 0.1, 0.2), (0.8, 0.1, 0.05, 0.05)):
            truth = shares[1] - shares[2]
            names = Names("difference of rates", "Newcombe, paired", f"{n}", f"{truth:.2f}")
            yield measured(names, truth, draws, partial(of_drawn_decisions, n, shares))


def of_drawn_decisions(n: int, shares: Sequence[float], rng: np.random.Generator) -> Estimate:
    """Draw where two models are right."""
    both, only_first, only_second, _ = rng.multinomial(n, shares).tolist()
    return newcombe_paired(both, only_first, only_second, n)
