"""CNN and aggregator as one optimisation (paper, section 6) against a frozen CNN: gradients, movement, selection, AUC.

The paper's rule with a score head of its own (`ranked-features`) on the logits of the tile CNN of the bundled IHC
weights. Phantoms of signal 1, tiles in the true tumour; training, validation and test patients of one cohort. Frozen;
joint with the gradient through the selected scores alone; through a soft sort; through noise; each with the score's
sharpness rising from .5 to 1. Reported are what reached the CNN, how far each part moved, how far the continuous
selection is from the discrete one, and the AUC on patients that no training saw.

Run: python -m experiments.joint_training --manifest phantoms/manifest.csv --work FOLDER
"""

import argparse
import csv
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from he2her2.files import read_csv, read_json, write_json
from he2her2.manifest import read_manifest
from he2her2.results import open_run
from he2her2.statistics import auc_interval

RESULTS = Path(__file__).parent / "results"
WAYS = {
    "frozen CNN": ("training.freeze_cnn=true",),
    "joint, selected scores alone": (),
    "joint, straight-through": ("training.selection=straight-through",),
    "joint, perturbed": ("training.selection=perturbed",),
}
SIZES = {"train": 32, "val": 12, "test": 40}
COMMON = (
    "networks.aggregator=ranked-features", "training.epochs=6", "training.learning_rate=1e-3",
    "training.beta_start=0.5", "training.aggregator_rate=3e-3", "tiling.min_tiles=40", "selection.n_tiles=6",
    "training.schedule=constant",
)  # fmt: skip


def command(*words: object) -> None:
    """Run a command of this program."""
    code = "import sys; from he2her2.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


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


def measure(manifest: Path, work: Path, way: str) -> dict[str, Any]:
    """Train one way, and predict the test patients; what is there already is not done again."""
    out = work / way.replace(" ", "-").replace(",", "")
    done = out / "measured.json"
    if done.is_file():
        return dict(read_json(done))
    settings = [word for text in (*COMMON, *WAYS[way]) for word in ("--set", text)]
    shared = ("--annotations-use", "replace", "--threads", 1)
    command(
        "train", "slides", "--manifest", manifest, "--weights", "bundled-ihc", "--out", out, "--bags", work / "bags",
        *shared, *settings, "--resume", "--accelerator", "cpu",
    )  # fmt: skip
    tested = [row for row in read_manifest(manifest).rows if row.split == "test"]
    decision = [word for text in COMMON if not text.startswith("training") for word in ("--set", text)]
    slides = out / "test.csv"
    with slides.open("w") as file:
        file.write("slide_id,path,patient_id,stain,annotations\n")
        file.writelines(f"{row.slide_id},{row.path},{row.patient_id},HE,{row.annotations}\n" for row in tested)
    command("predict", slides, "--weights", out / "weights", "--out", out / "test", *shared, *decision)
    found = open_run(out / "test").predictions
    truth = [row.her2_status == "positive" for row in tested]
    auc = auc_interval(truth, [found[row.slide_id].probability for row in tested])
    epochs = read_csv(out / "logs" / "metrics.csv")
    last = {name: float(value) for name, value in epochs[-1].items() if value}
    share = float(np.mean([float(row["gradient_share"]) for row in epochs]))
    row = {"way": way, "auc": auc.value, "low": auc.low, "high": auc.high, "n": len(tested), "gradient_share": share}
    names = ("gradient_at_logits", "cnn_movement", "aggregator_movement", "selection_mismatch", "probability_mismatch")
    write_json(done, row | {name: last.get(name) for name in names})
    return measure(manifest, work, way)


def main() -> None:
    """Measure every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    manifest = subset(arguments.manifest, arguments.work)
    with ThreadPoolExecutor(arguments.processes) as pool:
        rows = [*pool.map(partial(measure, manifest, arguments.work), WAYS)]
    (RESULTS / "joint_training.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
