"""Gradient that reaches the tile CNN through soft-argmax, for each beta (paper, 3.3 and 6).

At the paper's beta = 1000 soft-argmax saturates. Measured on phantom H&E slides, with a pre-trained and with a random
tile CNN, under a fresh aggregator: the share of the selected tiles that receive any gradient at their logits, the share
with a gradient that is large enough for Adam, its size relative to the one at the scores, and the selected tiles that
were chosen by position because their scores tie.

Run: python -m experiments.gradient_at_beta --manifest COHORT/manifest.csv --weights WEIGHTS [--slides 8]
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from he2her2.config import Config, Scoring, load_config
from he2her2.manifest import read_manifest
from he2her2.method import score_tiles
from he2her2.models import (
    Bag,
    Engine,
    Untrained,
    aggregator_for,
    cnn_named,
    load_engine,
    soft_argmax,
    top_tiles,
)
from he2her2.models.aggregators.selection import top_count
from he2her2.models.torch_modules import batch_of, initial_weights, put_tensors
from he2her2.training.slides.backpropagation import aggregator_gradient
from he2her2.training.slides.bags import LabelledSlide, TumourTiler, build_bags

RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"
BETAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
FELT = 1e-8
"""Adam's epsilon: its steps shrink to nothing for gradients far below it."""

COLUMNS = ("tile CNN", "beta", "any gradient", "felt by Adam", "logits / scores", "chosen by place", "distinct scores")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder with the tile_cnn/ that was pre-trained")
    parser.add_argument("--slides", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    config = load_config(overrides=["selection.n_tiles=60", *options.overrides])
    bags = some_bags(options.manifest, options.slides, config)
    spec = cnn_named(config.networks.tile_cnn, "tile_cnn")
    rows = []
    for name, source in (("pre-trained", options.weights / "tile_cnn"), ("random", Untrained(spec, 0))):
        logits = list(score(bags, load_engine(source, "tile_cnn"), config))
        rows += [{"tile CNN": name, "beta": beta, **measure(bags, logits, config, beta)} for beta in BETAS]
    text = table(rows, len(bags), config)
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "gradient_at_beta.md").write_text(text, "utf-8")
    (RESULTS / "gradient_at_beta.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def some_bags(manifest: Path, n: int, config: Config) -> list[LabelledSlide]:
    """Make bags of the first training slides of either status, tumour as annotated."""
    rows = [row for row in read_manifest(manifest).select(stain="HE", split="train") if row.annotations]
    classes = [
        [row for row in rows if row.status() == status] for status in sorted({row.status() or "" for row in rows})
    ]
    chosen = [row for several in zip(*classes, strict=False) for row in several][:n]
    spec = cnn_named(config.networks.tile_cnn, "tile_cnn")
    return build_bags(chosen, TumourTiler(spec.input, config, None, "replace"), Path(mkdtemp()))


def score(bags: list[LabelledSlide], tile_cnn: Engine, config: Config) -> Iterator[NDArray[np.float32]]:
    """Score every tile of every bag."""
    for bag in bags:
        with bag.open(config) as slide:
            yield score_tiles(slide, bag.grid, tile_cnn, config.runtime, config.selection.n_tiles)[1]


def measure(
    bags: list[LabelledSlide], logits: list[NDArray[np.float32]], config: Config, beta: float
) -> Mapping[str, Any]:
    """Measure the gradient at the selected tiles' logits for a beta, mean over slides."""
    config = replace(config, scoring=Scoring(beta))
    spec = aggregator_for(config)
    aggregator = spec.build()
    put_tensors(aggregator, initial_weights(spec, 0))
    found = []
    for bag, of_bag in zip(bags, logits, strict=True):
        scores = soft_argmax(of_bag, beta)
        selected = top_tiles(scores, config.selection)
        tiles = Bag.of(bag.grid, of_bag).take(selected)
        flow = aggregator_gradient(aggregator, batch_of(tiles, torch.device("cpu")), bag.target, beta)
        felt = float((flow.gradient.norm(dim=1) > FELT).float().mean())
        place = float(np.mean(by_place(scores, selected, config)))
        found.append((flow.share, felt, flow.at_logits / flow.at_scores, place, len({*scores}) / len(scores)))
    return dict(zip(COLUMNS[2:], np.mean(found, axis=0).tolist(), strict=True))


def by_place(scores: NDArray[np.float64], selected: NDArray[np.int64], config: Config) -> NDArray[np.bool_]:
    """Selected tiles whose score ties with a tile that was not selected, (m,) bool."""
    n_top = max(top_count(len(scores), config.selection.top_fraction), len(selected))
    ranked = np.sort(scores)[::-1]
    shared = n_top < len(ranked) and ranked[n_top] == ranked[n_top - 1]
    ties: NDArray[np.bool_] = shared & (scores[selected] == ranked[n_top - 1])
    return ties


def table(rows: list[dict[str, Any]], n_slides: int, config: Config) -> str:
    """Format the measurements as Markdown."""
    n_selected = config.selection.n_tiles
    lines = [
        "# How much gradient reaches the tile CNN",
        "",
        f"Phantom H&E, {n_slides} slides, {config.networks.tile_cnn}, {n_selected} tiles selected of each,",
        "a fresh MLP; means over slides. Any gradient: share of the selected tiles whose logits get one above 1e-20.",
        "Felt by Adam: above its epsilon, 1e-8. Logits / scores: norm of the gradient at the logits against that at",
        "the scores. Chosen by place: selected tiles whose score ties with that of tiles left out. Distinct scores:",
        "share of all tiles.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    return "\n".join([*lines, *("| " + " | ".join(_cell(row[name]) for name in COLUMNS) + " |" for row in rows)]) + "\n"


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
