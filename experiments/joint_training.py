"""CNN and aggregator as one optimisation (paper, section 6) against a frozen CNN: gradients, movement, selection, AUC.

The paper's rule with a score head of its own (`ranked-features`) on the logits of the tile CNN of the bundled IHC
weights. Phantoms of signal 1, tiles in the true tumour; training, validation and test patients of one cohort. Frozen;
joint with the gradient through the selected scores alone; through a soft sort; through noise; each with the score's
sharpness rising from .5 to 1. Reported are what reached the CNN, how far each part moved, how far the continuous
selection is from the discrete one, and the AUC on patients that no training saw.

Run: python -m experiments.joint_training --manifest COHORTS/signal-1/manifest.csv --work FOLDER
(the cohort of the page, which `python -m experiments.aggregators --work COHORTS` draws)
"""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from he2her2.config import Config
from he2her2.csv_files import read_csv
from he2her2.files import read_json, write_json
from he2her2.manifest import SlideRow, read_manifest
from he2her2.method import decide_on, score_tiles
from he2her2.models import load_aggregator, load_cnn, trained_folder
from he2her2.statistics import auc_interval, delong_difference, holm
from he2her2.training import Execution, Hardware, load_training
from he2her2.training.slides import SlideData, TumourTiler, build_bags
from he2her2.training.slides.train import train_slides

RESULTS = Path(__file__).parent / "results"
WAYS = {
    "frozen CNN": ("training.freeze_cnn=true",),
    "joint, selected scores alone": (),
    "joint, straight-through": ("training.selection=straight-through",),
    "joint, perturbed": ("training.selection=perturbed",),
}
MEASURED = "measured.json"
_ALPHA = 0.05
SIZES = {"train": 32, "val": 12, "test": 40}
COMMON = (
    "networks.aggregator=ranked-features", "training.epochs=6", "training.learning_rate=1e-3",
    "training.beta_start=0.5", "training.aggregator_rate=3e-3", "tiling.min_tiles=40", "selection.n_tiles=6",
    "training.schedule=constant",
)  # fmt: skip


def subset(manifest: Path, work: Path) -> Path:
    """Manifest with so many patients of each split, in the order of the cohort."""
    rows = read_csv(manifest)
    sides = [side for side, n in SIZES.items() for _ in range(n)]
    out = work / "manifest.csv"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        for row, side in zip(rows, sides, strict=False):
            places = {name: (manifest.parent / row[name]).resolve() for name in ("path", "annotations")}
            writer.writerow(row | places | {"split": side})
    return out


def probabilities(rows: Sequence[SlideRow], bags: Path, weights: Path, config: Config) -> Iterator[float]:
    """Probability of each slide, decided as prediction does."""
    tile_cnn, aggregator = load_cnn(str(weights), "tile_cnn", config), load_aggregator(str(weights), config)
    for bag in build_bags(rows, TumourTiler(tile_cnn.card.input, config, None, "replace"), bags):
        with bag.open(config) as slide:
            readable, logits = score_tiles(slide, bag.grid, tile_cnn, config.runtime, config.selection.n_tiles)
        decision = decide_on(bag.row.slide_id, bag.grid.take(readable), logits, aggregator, config.positive_from)
        yield decision.probability


def folder_of(work: Path, way: str) -> Path:
    """Folder of a way's training."""
    return work / way.replace(" ", "-").replace(",", "")


def measure(manifest: Path, work: Path, way: str) -> dict[str, Any]:
    """Train one way, and predict the test patients; what is there already is not done again."""
    out = folder_of(work, way)
    done = out / MEASURED
    if done.is_file():
        return dict(read_json(done))
    config, settings = load_training("slides", overrides=[*COMMON, *WAYS[way], "runtime.threads=1"])
    data = SlideData(manifest, trained_folder("bundled-ihc"), annotations_use="replace", bags=work / "bags")
    train_slides(data, out, config, settings, Execution(Hardware("cpu"), resume=True))
    tested = [row for row in read_manifest(manifest).rows if row.split == "test"]
    found = [*probabilities(tested, work / "bags", out / "weights", config)]
    truth = [row.her2_status == "positive" for row in tested]
    auc = auc_interval(truth, found)
    epochs = read_csv(out / "logs" / "metrics.csv")
    last = {name: float(value) for name, value in epochs[-1].items() if value}
    share = float(np.mean([float(row["gradient_share"]) for row in epochs]))
    row = {"way": way, "auc": auc.value, "low": auc.low, "high": auc.high, "n": len(tested), "gradient_share": share}
    names = ("gradient_at_logits", "cnn_movement", "aggregator_movement", "selection_mismatch", "probability_mismatch")
    decided = {"truth": truth, "probabilities": found}
    write_json(done, row | {name: last.get(name) for name in names} | decided)
    return measure(manifest, work, way)


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The ways side by side, each against the frozen CNN on the same slides."""
    first = rows[0]
    differences = [delong_difference(row["truth"], row["probabilities"], first["probabilities"]) for row in rows[1:]]
    adjusted = holm([one.p_value for one in differences])
    cells = [
        ["way", "AUC (95 %)", "less frozen (95 %)", "p (Holm)", "tiles with gradient", "CNN moved", "aggregator moved",
         "selection mismatch", "probability mismatch"],
        ["---"] * 9,
    ]  # fmt: skip
    for k, row in enumerate(rows):
        against = ["", ""]
        if k:
            one = differences[k - 1].estimate
            against = [f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})", f"{adjusted[k - 1]:.2g}"]
        names = ("cnn_movement", "aggregator_movement", "selection_mismatch", "probability_mismatch")
        figures = ["-" if row[name] is None else f"{row[name]:.3g}" for name in names]
        auc = f"{row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        cells.append([row["way"], auc, *against, f"{row['gradient_share']:.1%}", *figures])
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    about = (
        f"Phantom results, {SIZES['train']} slides to train, {SIZES['val']} to validate, {first['n']} to test, "
        "signal 1, one site; six epochs, the best 15 % of at least 40 tiles (6 of them), the bundled IHC tile CNN; "
        "`python -m experiments.joint_training`. Moved: norm of the change of the weights by the norm of the weights, "
        "last epoch. Mismatch: share of the continuous selection beside the tiles that prediction takes, and mean "
        "difference of the two probabilities, on validation slides."
    )
    best = max(rows, key=lambda row: float(row["auc"]))
    sure = [row["way"] for row, p in zip(rows[1:], adjusted, strict=True) if p < _ALPHA]
    lines = [f"Highest AUC: {best['way']}. Surely other than frozen: {', '.join(sure) or 'none'}.", "", *lines]
    missing = [way for way in WAYS if way not in {row["way"] for row in rows}]
    lines += ["", f"Not finished: {'; '.join(missing)}."] if missing else []
    return "\n".join(["# CNN and aggregator as one optimisation, against a frozen CNN", "", about, "", *lines]) + "\n"


def main() -> None:
    """Measure every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--finished", action="store_true", help="only what is measured already; train nothing")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    manifest = subset(arguments.manifest, arguments.work)
    ways = [way for way in WAYS if not arguments.finished or (folder_of(arguments.work, way) / MEASURED).is_file()]
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        rows = [*pool.map(partial(measure, manifest, arguments.work), ways)]
    (RESULTS / "joint_training.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "joint_training.md").write_text(page(rows), "utf-8")


if __name__ == "__main__":
    main()
