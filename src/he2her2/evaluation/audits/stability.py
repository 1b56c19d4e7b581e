"""Stability: spread of the probability over other tiles of a slide, and over weights of other seeds.

A slide's tiles are redrawn with replacement and go through the same aggregator as in the run: tile by tile, and in
square blocks of neighbouring tiles, since neighbours are alike and redrawing tile by tile understates the spread (block
bootstrap: Künsch, Ann Stat 1989;17:1217-1241).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.audits.audit import Audit, Cell, not_done
from he2her2.evaluation.cases import Cases
from he2her2.models import Aggregated, Bag
from he2her2.rules import are_called
from he2her2.statistics import mean_interval, rate

_NAME, _SEEDS_NAME = "stability", "seeds"
_DRAWS = 100
BLOCK_TILES = 8
_MIN_BLOCKS = 10
SAME_PROBABILITY = 1e-4
"""Distance within which two probabilities are one: they are written with 6 digits."""

_METHOD = (
    f"Each slide's tile scores redrawn {_DRAWS} times with replacement, tile by tile and in blocks of {BLOCK_TILES} x "
    f"{BLOCK_TILES} tiles, smaller where that gives fewer than {_MIN_BLOCKS} (block bootstrap, Künsch 1989), through "
    "the run's selection and aggregator; intervals by patient."
)
_SEEDS_METHOD = "The same slides predicted by runs that differ in their seeds; intervals by patient."


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Spread of one slide's probability over redrawn tiles.

    Attributes:
        slide_id: The slide.
        probability: As the run wrote it.
        sd_tiles: Standard deviation of the probability when tiles are redrawn one by one.
        sd_blocks: The same when they are redrawn in blocks.
        flips: Share of the block redraws with the other decision.
    """

    slide_id: str
    probability: float
    sd_tiles: float
    sd_blocks: float
    flips: float


def redraw(
    bag: Bag,
    groups: NDArray[np.int64] | None,
    at_least: int,
    aggregator: Callable[[Bag], Aggregated],
    rng: np.random.Generator,
    draws: int = _DRAWS,
) -> NDArray[np.float64]:
    """(draws,) probabilities of a slide whose tiles are redrawn in groups, about as many tiles as there are.

    Args:
        bag: The slide's (n) tiles.
        groups: (n,) group of each tile, from 0; None redraws tile by tile.
        at_least: Tiles that the aggregator needs.
        aggregator: As in the run.
        rng: Draws the groups.
        draws: Number of redraws.
    """
    found = np.empty(draws)
    for k in range(draws):
        drawn = rng.integers(len(bag), size=len(bag)) if groups is None else _whole_groups(groups, at_least, rng)
        found[k] = aggregator(bag.take(drawn)).probability
    return found


def _whole_groups(groups: NDArray[np.int64], at_least: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of the tiles of as many groups as there are, drawn with replacement; of more where tiles are few."""
    sizes = np.bincount(groups)
    times = np.bincount(rng.integers(len(sizes), size=len(sizes)), minlength=len(sizes))
    while times @ sizes < at_least:
        times[rng.integers(len(sizes))] += 1
    return np.repeat(np.arange(len(groups)), times[groups])


def square_blocks(cells: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """(n,) block of each tile, from 0: squares of `side` grid cells, halved until there are ten; `cells` is (n, 2).

    Example:
        >>> square_blocks(np.array([[0, 0], [7, 7], [8, 0]]), 1).tolist()
        [0, 1, 2]
    """
    while True:
        names = np.unique(cells // side, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        if side == 1 or names.max() + 1 >= _MIN_BLOCKS:
            return names
        side //= 2


def not_redrawn(why: str) -> Audit:
    """The stability audit without any redrawn slide."""
    return not_done(_NAME, why, _METHOD)


def stability_audit(redrawn: Sequence[Redrawn], patients: NDArray[np.str_], n_slides: int) -> Audit:
    """Summarise the redrawn slides.

    Args:
        redrawn: The slides that were redrawn.
        patients: (n,) their patients.
        n_slides: Number of evaluated slides, redrawn or not.
    """
    if not redrawn:
        return not_redrawn("the run has no tiles.h5")
    flips = np.array([slide.flips for slide in redrawn])
    sd = mean_interval(np.array([slide.sd_blocks for slide in redrawn]), patients, name="mean SD, blocks")
    sd_tiles = mean_interval(np.array([slide.sd_tiles for slide in redrawn]), patients, name="mean SD, tiles")
    flipped = mean_interval(flips, patients, name="share of redraws that flip")
    unstable = rate(flips > 0.05, patients, name="slides that flip in over 5 % of redraws")
    sampled = "" if len(redrawn) == n_slides else f" drawn from {n_slides}"
    sentence = (
        f"With the tiles of a slide redrawn in blocks its probability moves by a standard deviation of {sd.text(3)} "
        f"({sd_tiles.value:.3f} tile by tile), and {100 * flipped.value:.1f} % ({100 * flipped.low:.1f} to "
        f"{100 * flipped.high:.1f}) of the redraws decide otherwise; {int((flips > 0.05).sum())} of {len(redrawn)} "
        f"slides{sampled} flip in more than 5 % of them."
    )
    rows: list[dict[str, Cell]] = [
        {
            "slide_id": slide.slide_id,
            "probability": round(slide.probability, 6),
            "sd_tiles": round(slide.sd_tiles, 4),
            "sd_blocks": round(slide.sd_blocks, 4),
            "flips": round(slide.flips, 4),
        }
        for slide in redrawn
    ]
    return Audit(_NAME, sentence, unstable.low > 0.1, tuple(rows), _METHOD)


def seeds_audit(cases: Cases, probabilities: NDArray[np.float64]) -> Audit:
    """Summarise the spread over runs with other seeds.

    Args:
        cases: Evaluated slides.
        probabilities: (r, n) of every run, the evaluated one first; nan where a run lacks a slide.
    """
    whole = ~np.isnan(probabilities).any(axis=0)
    if len(probabilities) < 2 or not whole.any():
        return not_done(_SEEDS_NAME, "give runs of other seeds over the same slides (--seeds)", _SEEDS_METHOD)
    found = probabilities[:, whole]
    scores = np.vectorize(cases.scale.score, otypes=[np.float64])(found)
    calls = are_called(found, cases.threshold)
    flips = (calls != calls[0]).any(axis=0)
    sd = scores.std(axis=0, ddof=1)
    patients = cases.patients[whole]
    spread = mean_interval(sd, patients, name="mean SD over seeds")
    flipped = rate(flips, patients, name="slides that flip")
    sentence = (
        f"Over {len(found)} seeds a slide's {cases.scale.noun} has a standard deviation of {spread.text(3)}, and "
        f"{int(flips.sum())} of {int(whole.sum())} slides ({100 * flipped.low:.0f} to {100 * flipped.high:.0f} %) are "
        "decided otherwise by at least one of them."
    )
    rows: list[dict[str, Cell]] = [
        {"slide_id": slide_id, "mean": round(float(p.mean()), 4), "sd": round(float(s), 4), "flips": bool(f)}
        for slide_id, p, s, f in zip(cases.ids[whole].tolist(), scores.T, sd, flips, strict=True)
    ]
    return Audit(_SEEDS_NAME, sentence, flipped.low > 0.1, tuple(rows), _SEEDS_METHOD)
