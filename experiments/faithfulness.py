"""The heatmap's promise: without the tiles that decide, the probability moves more than without as many at random.

    python -m experiments.faithfulness --work FOLDER

Phantoms of both sites and all scores, predicted with the bundled weights; the check is that of the report. As a
control other tiles, drawn at random, are marked as deciding: that must pass no more often than by chance.
Writes experiments/results/faithfulness.md.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from he2her2.files import write_text
from he2her2.models import load_aggregator
from he2her2.phantom import make_spec, write_phantom
from he2her2.report.checks import DecidedTiles, Removal, check_prediction
from he2her2.results import RunFolder, open_run
from he2her2.statistics import exact_binomial

RESULT = Path(__file__).parent / "results" / "faithfulness.md"
SCORES, SITES = ("0", "1+", "2+", "3+"), ("her2sc-like", "brca-like")
SIDE_PX = 6144
CONTROLS = 4
"""Random markings a slide."""

INTRODUCTION = """# Do the tiles that decide, decide?

`python -m experiments.faithfulness --work FOLDER`: {n} phantoms of both sites and all IHC scores, {side} px wide,
`signal` 1, predicted with the bundled weights. The tiles of `tiles.h5`, from which every heatmap is drawn, go through
the aggregator again: without the selected ones, and 99 times without as many drawn at random. p is the share of
removals, the real one among them, that move the probability as far; the report says that the frames matter where
p <= .05.

**{passed} of {n} slides pass** ({low:.2f}-{high:.2f}); with tiles marked at random in place of the selected ones
{false} of {controls} do (5 % by chance). {kept} of {n} calls are the same without the selected tiles: what is left of
the tumour says the same. So passing means that the selected tiles matter *more* than others, not that the call hangs on
them.

| slide | probability | without the selected | without as many at random: median (range) | selected / all | p |
|:--|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Draw, predict, check, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--slides", type=int, default=12)
    asked = parser.parse_args()
    run = predicted(asked.work, asked.slides)
    rows, passed, false, kept, controls = [], 0, 0, 0, 0
    aggregator = load_aggregator("bundled", run.config)

    def removal_of(decided: DecidedTiles, seed: int = 0) -> Removal | None:
        checks = check_prediction(decided, aggregator, seed)
        assert checks.same
        return checks.removal

    for slide_id, decided in decided_tiles(run):
        removal = removal_of(decided)
        n, selected = len(decided.tiles.scores), int(decided.tiles.selected.sum())
        if removal is None:
            rows.append(f"| {slide_id} | {decided.probability:.4f} | | too few tiles left | {selected} / {n} | |")
            continue
        low, median, high = removal.random
        rows.append(
            f"| {slide_id} | {decided.probability:.4f} | {removal.without_selected:.4f} "
            f"| {median:.4f} ({low:.4f}-{high:.4f}) | {selected} / {n} | {removal.p_value:.2f} |"
        )
        passed += removal.faithful
        kept += (removal.without_selected >= decided.threshold) == (decided.probability >= decided.threshold)
        rng = np.random.default_rng(len(rows))
        for seed in range(CONTROLS):
            marked = np.zeros(n, np.bool_)
            marked[rng.choice(n, selected, replace=False)] = True
            control = removal_of(replace(decided, tiles=replace(decided.tiles, selected=marked)), seed)
            assert control is not None
            false += control.faithful
            controls += 1
    share = exact_binomial(passed, len(rows))
    text = INTRODUCTION.format(n=len(rows), side=SIDE_PX, passed=passed, low=share.low, high=share.high, false=false,
                               controls=controls, kept=kept)  # fmt: skip
    write_text(RESULT, "\n".join((text, *rows, "")))


def predicted(work: Path, n: int) -> RunFolder:
    """The run on the phantoms; what is there is kept."""
    slides = work / "slides"
    slides.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        score, site = SCORES[k % 4], SITES[k // 4 % 2]
        path = slides / f"{k:02}-{site}-{score}.tif"
        if not path.exists():
            spec = make_spec(seed=700 + k, ihc_score=score, ish="positive" if score == "2+" else None, site=site,
                             signal=1.0, size_px=(SIDE_PX, SIDE_PX), tumour_share=0.5)  # fmt: skip
            write_phantom(path, spec, workers=1)
    command = [sys.executable, "-m", "he2her2", "predict", str(slides), "--out", str(work / "run"), "--workers", "0"]
    subprocess.run(command, check=False)  # a slide that fails is a row of its failures
    return open_run(work / "run")


def decided_tiles(run: RunFolder) -> Iterator[tuple[str, DecidedTiles]]:
    """The tiles of each slide that has a result."""
    for slide_id in sorted(run.predictions):
        result, tiles = run.result(slide_id), run.tiles(slide_id)
        assert result is not None
        assert result.her2 is not None
        assert tiles is not None
        her2, at_least = result.her2, result.config.selection.n_tiles
        yield slide_id, DecidedTiles(tiles, her2.tiles.stride_px, her2.probability, her2.threshold, at_least)


if __name__ == "__main__":
    main()
