"""Time to evaluate 10 000 patients, with all intervals, plots and audits. Needs the evaluate extra.

The run folder is made up: tables and results of one slide for each patient, and the tiles of as many slides as the
audits of tiles read at most.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from tests.made_up_runs import MadeUpSlide, write_labels, write_run

from benchmarks.results import Found, Setting, Table
from he2her2.config import Config
from he2her2.evaluation import Question, evaluate, write_evaluation
from he2her2.evaluation.audits import N_SLIDES
from he2her2.models import top_tiles

SIDE_TILES = 48
"""Tiles along a slide: 48 x 48 are 2 304, a little more than the 2 000 that selection asks for."""

BASELINE = replace(Config(), networks=replace(Config().networks, aggregator="mean"))
SITES = ("north", "south", "east", "west")


def measure(setting: Setting) -> Found:
    """Measure wall time and processor time, stage by stage."""
    n = setting.pick(10_000, 16)
    rows: list[tuple[str | float, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        run, manifest = write_study(Path(name), n)
        times = [_now()]
        evaluation = evaluate(Question(run, manifest))
        times.append(_now())
        write_evaluation(evaluation, Path(name) / "evaluation")
        times.append(_now())
    for stage, (start, end) in {
        "figures, intervals and audits": (0, 1), "plots, tables and page": (1, 2), "all": (0, 2),
    }.items():  # fmt: skip
        rows.append((stage, *(late - early for early, late in zip(times[start], times[end], strict=True))))
    table = Table(f"Evaluating {n} patients of one slide each", ("stage", "s", "processor s"), tuple(rows))
    return Found({"evaluate_s": float(rows[-1][1])}, (table,))


def _now() -> tuple[float, float]:
    return perf_counter(), process_time()


def write_study(folder: Path, n: int, seed: int = 0) -> tuple[Path, Path]:
    """Write a made-up run of the mean baseline over n slides, and its manifest."""
    rng = np.random.default_rng(seed)
    slides = [_slide(k, rng, has_tiles=k % max(1, n // N_SLIDES) == 0) for k in range(n)]
    run = write_run(folder / "run", slides, config=BASELINE)
    return run, write_labels(folder / "manifest.csv", slides)


def _slide(k: int, rng: np.random.Generator, *, has_tiles: bool) -> MadeUpSlide:
    """Make up one patient's slide; its label shifts the scores of its tiles."""
    positive = bool(rng.random() < 0.15)
    score = float(np.clip(rng.normal(1.0 + positive, 0.8), 0, 3))
    tiles = np.clip(np.rint(rng.normal(score, 0.8, (SIDE_TILES, SIDE_TILES))), 0, 3) if has_tiles else None
    return MadeUpSlide(
        slide_id=f"s{k:05d}",
        patient_id=f"p{k}",
        status="positive" if positive else "negative",
        ihc_score="3+" if positive else "1+",
        site=SITES[k % len(SITES)],
        split="",
        probability=float(score >= 1.5) if tiles is None else float(_is_positive(tiles)),
        size=int(rng.integers(40_000, 100_000)),
        tissue_mm2=float(rng.uniform(10, 200)),
        colour=tuple(rng.normal((200, 150, 190), 6).round(2)),
        pen_share=round(float(rng.random() < 0.1) * 0.01, 4),
        scores=tiles,
    )


def _is_positive(tiles: np.ndarray) -> bool:
    """Test if the mean class of the selected tiles is 2+ or more."""
    flat = tiles.ravel()
    return bool(flat[top_tiles(flat, BASELINE.selection)].mean() >= 1.5)
