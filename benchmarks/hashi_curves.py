"""HASHI: samples against Dice on analytic tumours.

Run: `python -m benchmarks.hashi_curves --out FOLDER [--seeds 8]`. Writes hashi.csv (mean Dice with its 95 % interval
over seeds) and hashi.png. One core; mask of 3000 x 2500 px, as of a 96 000 x 80 000 px slide. The time of a map
update is in `benchmarks.hashi`.
"""

import argparse
import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import qmc

from he2her2.config import PRESETS
from he2her2.geometry import Size
from he2her2.preprocessing import adaptive_map
from he2her2.preprocessing.adaptive import SamplePoints, SampleValues, interpolate

SIZE = Size(3000, 2500)
BUDGETS = (100, 200, 400, 700, 1000, 1500, 2000)
THRESHOLD = 0.24
NOISES = (0.0, 0.1)
NODES = np.stack(np.meshgrid(np.arange(2.5, SIZE.w, 5), np.arange(2.5, SIZE.h, 5)), axis=-1).reshape(-1, 2)
TUMOURS: dict[str, Callable[[SamplePoints], NDArray[np.bool_]]] = {
    "disc": lambda at: np.hypot(at[:, 0] - 1700, at[:, 1] - 1100) < 600,
    "ring": lambda at: np.abs(np.hypot(at[:, 0] - 1500, at[:, 1] - 1250) - 675) < 225,
    "two foci": lambda at: (
        (np.hypot(at[:, 0] - 800, at[:, 1] - 700) < 350) | (np.hypot(at[:, 0] - 2200, at[:, 1] - 1800) < 250)
    ),
    "at the border": lambda at: np.hypot(at[:, 0] - 100, at[:, 1] - 1250) < 900,
}


class Row(NamedTuple):
    """One point of a curve: mean Dice over seeds and its 95 % interval."""

    tumour: str
    noise: float
    method: str
    samples: int
    dice: float
    low: float
    high: float


def score_of(tumour: str, noise: float, seed: int) -> Callable[[SamplePoints], SampleValues]:
    """Scores of the true mask, or of a noisy classifier: 0.05 and 0.9 on average."""
    draw = np.random.default_rng(seed)

    def score(points: SamplePoints) -> SampleValues:
        inside = TUMOURS[tumour](points).astype(np.float64)
        return np.clip(0.05 + 0.85 * inside + draw.normal(0, noise, len(points)), 0, 1) if noise else inside

    return score


def samples_of(
    method: str, score: Callable[[SamplePoints], SampleValues], seed: int
) -> tuple[SamplePoints, SampleValues]:
    """Draw 2000 points and their scores, in the order in which a method samples them."""
    if method in PRESETS:
        found = adaptive_map(score, SIZE, replace(PRESETS[method].adaptive, seed=seed))
        return found.points, found.values
    uniform = np.random.default_rng(seed).random if method == "random" else None
    unit = uniform((2000, 2)) if uniform else qmc.Halton(d=2, scramble=True, rng=seed).random(2000)
    points = np.unique(np.floor(unit * SIZE) + 0.5, axis=0)
    np.random.default_rng(seed).shuffle(points)
    return points, score(points)


def dices(method: str, tumour: str, noise: float, seed: int) -> list[float]:
    """Dice at every budget, from the first samples only."""
    points, values = samples_of(method, score_of(tumour, noise, seed), seed)
    surface = PRESETS[method].adaptive.surface if method in PRESETS else "cubic"
    truth = TUMOURS[tumour](NODES)
    found = [interpolate(points[:n], values[:n], surface)(NODES) >= THRESHOLD for n in BUDGETS]
    return [float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())) for mask in found]


def curves(seeds: int) -> Iterator[Row]:
    """Measure every curve, point by point."""
    for tumour in TUMOURS:
        for noise in NOISES:
            for method in ("random", "halton", "paper", "default"):
                table = np.array([dices(method, tumour, noise, seed) for seed in range(seeds)])
                half = stats.t.ppf(0.975, seeds - 1) * table.std(axis=0, ddof=1) / np.sqrt(seeds)
                for samples, mean, width in zip(BUDGETS, table.mean(axis=0), half, strict=True):
                    yield Row(tumour, noise, method, samples, float(mean), float(mean - width), float(mean + width))


def draw(rows: list[Row], file: Path) -> None:
    """Plot samples against Dice, one panel for each tumour and noise."""
    import matplotlib as mpl  # noqa: PLC0415  slow to load

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(len(NOISES), len(TUMOURS), figsize=(16, 7), sharex=True, sharey=True)
    for column, tumour in enumerate(TUMOURS):
        for line, noise in enumerate(NOISES):
            axis = axes[line][column]
            for method in dict.fromkeys(row.method for row in rows):
                curve = [row for row in rows if (row.tumour, row.noise, row.method) == (tumour, noise, method)]
                axis.plot([row.samples for row in curve], [row.dice for row in curve], marker=".", label=method)
                axis.fill_between(
                    [row.samples for row in curve], [row.low for row in curve], [row.high for row in curve], alpha=0.2
                )
            axis.axhline(0.95, color="grey", linewidth=0.5)
            axis.set(title=f"{tumour}, noise {noise}", xlabel="samples", ylabel="Dice", ylim=(0.6, 1))
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=8)
    wanted = parser.parse_args()
    wanted.out.mkdir(parents=True, exist_ok=True)
    rows = list(curves(wanted.seeds))
    with (wanted.out / "hashi.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Row._fields)
        table.writerows(rows)
    draw(rows, wanted.out / "hashi.png")
    for row in rows:
        if row.samples == BUDGETS[-1]:
            interval = f"{row.dice:.3f} ({row.low:.3f}-{row.high:.3f})"
            print(f"{row.tumour:14} noise {row.noise:3}  {row.method:8} {interval}")


if __name__ == "__main__":
    main()
