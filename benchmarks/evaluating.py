"""How long 10 000 patients take to evaluate, with every interval, plot and audit. Needs the evaluate extra.

The run folder is made up: tables and records of every slide, one a patient, and the tiles of as many slides as the
audits of tiles read at most.
"""

import csv
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks.results import Found, Setting, Table
from he2her2.config import Config
from he2her2.evaluation.audits.tiles import N_SLIDES
from he2her2.evaluation.evaluate import Question, evaluate
from he2her2.evaluation.folder import write_evaluation
from he2her2.geometry import Size, TileGrid
from he2her2.models.selection import top_tiles
from he2her2.results import ScoredTiles, SlideFolders, SlideResult, result_of_record, result_to_record
from he2her2.results.tiles_h5 import write_tiles

SIDE_TILES = 48
"""Tiles along a slide: 48 x 48 are 2 304, a little more than the 2 000 that selection asks for."""

BASELINE = replace(Config(), networks=replace(Config().networks, aggregator="mean"))
SITES = ("north", "south", "east", "west")


def measure(setting: Setting) -> Found:
    """Seconds of clock and of processor time, stage by stage."""
    n = setting.pick(10_000, 40)
    rows: list[tuple[str | float, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        run, manifest = write_run(Path(name), n)
        marks = [_now()]
        evaluation = evaluate(Question(run, manifest))
        marks.append(_now())
        write_evaluation(evaluation, Path(name) / "evaluation")
        marks.append(_now())
    for stage, (start, end) in {
        "figures, intervals and audits": (0, 1), "plots, tables and page": (1, 2), "all": (0, 2),
    }.items():  # fmt: skip
        rows.append((stage, *(late - early for early, late in zip(marks[start], marks[end], strict=True))))
    table = Table(f"Evaluating {n} patients of one slide each", ("stage", "s", "processor s"), tuple(rows))
    return Found({"evaluate_s": float(rows[-1][1])}, (table,))


def _now() -> tuple[float, float]:
    return perf_counter(), process_time()


def write_run(folder: Path, n: int, seed: int = 0) -> tuple[Path, Path]:
    """A made-up run of the mean baseline over n slides, and its manifest."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.15
    run = folder / "run"
    rows, labels = [], []
    for k in range(n):
        slide_id = f"s{k:05d}"
        score = float(np.clip(rng.normal(1.0 + truth[k], 0.8), 0, 3))
        has_tiles = k % max(1, n // N_SLIDES) == 0
        tiles = np.clip(np.rint(rng.normal(score, 0.8, SIDE_TILES**2)), 0, 3) if has_tiles else None
        probability = float(score >= 1.5) if tiles is None else float(_baseline(tiles))
        rows.append([slide_id, "positive" if probability >= 0.5 else "negative", probability, 0.5, _ihc(score), ""])
        labels.append(
            [
                slide_id,
                "x.tif",
                f"p{k}",
                "HE",
                "3+" if truth[k] else "1+",
                "positive" if truth[k] else "negative",
                SITES[k % 4],
            ]
        )
        write_slide(SlideFolders(run).of(slide_id), made_up(slide_id, probability, rng), tiles)
    (run / "run.json").write_text(json.dumps({"config": asdict(BASELINE)}))
    head = ["slide_id", "status", "probability", "threshold", "tile_score", "notices"]
    write_csv(run / "predictions.csv", head, rows)
    head = ["slide_id", "path", "patient_id", "stain", "ihc_score", "her2_status", "site"]
    write_csv(folder / "manifest.csv", head, labels)
    return run, folder / "manifest.csv"


def _baseline(tiles: np.ndarray) -> bool:
    """Whether the mean class of the selected tiles is 2+ or more."""
    return bool(tiles[top_tiles(tiles, BASELINE.selection)].mean() >= 1.5)


def _ihc(score: float) -> str:
    return ("0", "1+", "2+", "3+")[round(score)]


def made_up(slide_id: str, probability: float, rng: np.random.Generator) -> SlideResult:
    """A slide's result that nobody predicted."""
    tissue, tumour, n_tiles = (float(rng.uniform(*ends)) for ends in ((10, 200), (5, 50), (2000, 40_000)))
    per_score = dict(zip(("0", "1+", "2+", "3+"), rng.integers(1, 999, 4).tolist(), strict=True))
    width = int(rng.integers(40_000, 100_000))
    return result_of_record(
        {
            "slide_id": slide_id,
            "path": "x.tif",
            "status": "positive" if probability >= 0.5 else "negative",
            "probability": probability,
            "threshold": 0.5,
            "tile_score": "2+",
            "warnings": [],
            "tiles": {"side_px": 256, "mpp": 0.25, "stride_px": 256, "per_score": per_score},
            "weights": [],
            "slide": {"vendor": "", "backend": "tiff", "mpp": 0.25, "width": width, "height": 50_000, "levels": 3},
            "quality": {"pen_share": 0.01 * (rng.random() < 0.1), "blur_share": 0.01, "left_out": True},
            "colour": {"mean": rng.normal((200, 150, 190), 6).tolist(), "spread": [20.0, 25.0, 22.0]},
            "area_mm2": {"tissue": tissue, "usable": tissue, "tumour": tumour},
            "counts": {"points": 2000, "tiles_without_overlap": int(n_tiles)},
            "mask": {"px_l0": 32.0, "px_mpp": 8.0},
            "preset": BASELINE.preset,
            "config": asdict(BASELINE),
            "version": "",
            "use": "",
        }
    )


def write_slide(folder: Path, result: SlideResult, tiles: np.ndarray | None) -> None:
    """A slide's `prediction.json`, with tiles.h5 where it has tiles."""
    folder.mkdir(parents=True)
    (folder / "prediction.json").write_text(json.dumps(result_to_record(result)))
    if tiles is not None:
        y, x = np.divmod(np.arange(tiles.size), SIDE_TILES)
        grid = TileGrid(np.stack([x, y], axis=1) * 256, 256.0, 256, 0.25)
        scored = ScoredTiles(grid, tiles, np.zeros((tiles.size, 4), np.float32), np.zeros(tiles.size, bool))
        size = Size(SIDE_TILES * 256, SIDE_TILES * 256)
        write_tiles(folder / "tiles.h5", scored, slide_id=result.slide_id, size_l0=size, mpp_l0=0.25, overlap_px=0)


def write_csv(path: Path, head: list[str], rows: Sequence[Sequence[object]]) -> None:
    """A table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
