"""Aggregators on features of phantoms: the paper's rule, the mean, attention, smoothed attention, TransMIL.

Cohorts of 100 phantoms each: a HER2 signal of 1, .3 and 0 in the nuclei of one site, and .3 at two sites. Tiles lie in
the true tumour; features are those of the bundled tile CNN (which learned other phantoms of signal 1) and of
EfficientNet-Lite0 (ImageNet). Five folds by patient, three repeats with other shuffles and seeds; a slide counts with
the mean of its three out-of-fold probabilities. Every aggregator is compared with the paper's rule on the same slides
(DeLong, paired), the p-values of a cohort and encoder adjusted together, and all of the page together (Holm).

Run: python -m experiments.aggregators --work FOLDER [--processes N] [--encoder NAME]     (phantoms and features are
made there once; it can be resumed)
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from he2her2.labels import Policy
from he2her2.models import aggregator_named
from he2her2.statistics import auc_interval, delong_difference, holm
from he2her2.training import Execution, FeatureTraining, Hardware
from he2her2.training.slides.feature_data import FeatureCohort, read_feature_cohort
from he2her2.training.slides.feature_study import FeatureData, FeatureStudy

RESULTS = Path(__file__).parent / "results"
RULE = "ranked-features"
AGGREGATORS = (RULE, "mean-features", "abmil", "smooth-abmil", "transmil")
COHORTS = {
    "signal .3": ("41", "signal=0.3", ("her2sc-like",)),
    "signal 0": ("41", "signal=0", ("her2sc-like",)),
    "signal 1": ("41", "signal=1", ("her2sc-like",)),
    "signal .3, two sites": ("42", "signal=0.3", ("her2sc-like", "brca-like")),
}
ENCODERS = ("tile-cnn", "efficientnet-lite0")
FOLDS, REPEATS, N = 5, 3, 100
SETTINGS = FeatureTraining(epochs=20, patience=4, learning_rate=3e-3, max_tiles=48)
SIZES: dict[str, dict[str, Any]] = {"transmil": {"width": 64, "landmarks": 16}}
RATES = {"transmil": 1e-3}
"""Looked at on signal .3, tile-cnn, one repeat: the paper's rule .67 at 1e-3 and .71 at 3e-3, ABMIL .79 and .80."""
PHANTOM = ("size_px=[3072, 3072]", "tissue_extent=0.75", "tumour_share=0.6", "foci=1")


def command(*words: object) -> None:
    """Run a command of this program."""
    code = "import sys; from he2her2.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def folder_of(work: Path, cohort: str) -> Path:
    """Folder of a cohort."""
    return work / cohort.replace(" ", "-").replace(",", "")


def make_features(work: Path, cohort: str, encoder: str, threads: int = 1) -> tuple[Path, Path]:
    """Manifest and features of a cohort, made where they are missing."""
    seed, signal, sites = COHORTS[cohort]
    folder = folder_of(work, cohort)
    if not (folder / "manifest.csv").is_file():
        settings = [word for text in (signal, *PHANTOM) for word in ("--set", text)]
        where = [word for site in sites for word in ("--site", site)]
        command("phantom", folder, "--patients", N, "--seed", seed, *where, *settings, "--threads", threads)
    network = encoder_folder(work) if encoder == "efficientnet-lite0" else encoder
    out = folder / encoder
    tiles = ("--region", "annotated", "--set", "tiling.min_tiles=100", "--threads", threads)
    if len([*out.glob("*.h5")]) < N:
        command("features", folder / "manifest.csv", "--encoder", network, "--out", out, *tiles)
    return folder / "manifest.csv", out


def encoder_folder(work: Path) -> Path:
    """Folder of EfficientNet-Lite0, exported where it is missing."""
    folder = work / "efficientnet-lite0"
    if not folder.is_dir():
        command("weights", "encoder", folder.name, "--out", folder, "--mpp", 0.5, "--side-px", 128)
    return folder


@lru_cache(maxsize=1)
def cohort_of(manifest: Path, features: Path) -> FeatureCohort:
    """The slides with their features, read once for all aggregators."""
    return read_feature_cohort(manifest, features, Policy.GUIDELINE)


def out_of_fold(work: Path, cohort: str, encoder: str, aggregator: str) -> dict[str, Any]:
    """Out-of-fold probabilities of every slide in every repeat, with labels and patients."""
    manifest, features = make_features(work, cohort, encoder)
    data = FeatureData(manifest, features, aggregator, FOLDS, REPEATS)
    found = cohort_of(manifest, features)
    spec = replace(aggregator_named(aggregator), n_features=found.n_features, **SIZES.get(aggregator, {}))
    settings = replace(SETTINGS, learning_rate=RATES.get(aggregator, SETTINGS.learning_rate))
    study = FeatureStudy(data, found, settings, spec)
    results = study.cross_validate(features / aggregator, Execution(Hardware()))
    names = [slide.row.slide_id for slide in found.slides]
    probabilities = [
        [
            next(one.probabilities[name] for one in results if one.repeat == k and name in one.probabilities)
            for name in names
        ]
        for k in range(1, REPEATS + 1)
    ]
    return {
        "truth": np.array([slide.positive for slide in found.slides]),
        "patients": np.array([slide.row.patient_id for slide in found.slides]),
        "probabilities": np.array(probabilities),
    }


def train_cells(work: Path, encoders: Sequence[str], processes: int) -> None:
    """Train all aggregators on all features, cohort by cohort, each cell in one of the processes."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }  # for the processes: a step's matrices are small
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for cohort in COHORTS:
            for encoder in encoders:
                make_features(work, cohort, encoder, processes)
                missing = [name for name in AGGREGATORS if not is_finished(work, cohort, encoder, name)]
                list(pool.map(partial(_train_cell, work, cohort, encoder), missing))


def _train_cell(work: Path, cohort: str, encoder: str, aggregator: str) -> None:
    start = time.perf_counter()
    out_of_fold(work, cohort, encoder, aggregator)
    print(f"{cohort}, {encoder}, {aggregator}: {time.perf_counter() - start:.0f} s", flush=True)


def is_finished(work: Path, cohort: str, encoder: str, aggregator: str) -> bool:
    """True if all folds of an aggregator are there."""
    return len([*(folder_of(work, cohort) / encoder / aggregator).glob("folds/*.json")]) == FOLDS * REPEATS


def rows_of(work: Path, cohort: str, encoder: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row of the table for each aggregator."""
    found = {name: out_of_fold(work, cohort, encoder, name) for name in names}
    truth, patients = found[RULE]["truth"], found[RULE]["patients"]
    mean = {name: one["probabilities"].mean(axis=0) for name, one in found.items()}
    differences = {name: delong_difference(truth, mean[name], mean[RULE], patients) for name in names if name != RULE}
    adjusted = dict(zip(differences, holm([one.p_value for one in differences.values()]), strict=True))
    for name in names:
        auc = auc_interval(truth, mean[name], patients)
        single = [auc_interval(truth, one, patients).value for one in found[name]["probabilities"]]
        row = {"cohort": cohort, "encoder": encoder, "aggregator": name, "n": len(truth), "positive": int(truth.sum())}
        row |= {"auc": auc.value, "low": auc.low, "high": auc.high, "repeats": single}
        if name in differences:
            difference = differences[name].estimate
            row |= {
                "difference": difference.value,
                "difference_low": difference.low,
                "difference_high": difference.high,
            }
            row |= {"p": differences[name].p_value, "p_holm": adjusted[name]}
        yield row


def page(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    titles = "cohort", "features", "aggregator", "AUC (95 %)", "three repeats", "against the paper's rule (95 %)"
    lines = [f"| {' | '.join(titles)} | p (Holm) | of all |", "|:--|:--|:--|--:|--:|--:|--:|--:|"]
    compared = [row for row in rows if "p" in row]
    of_all = holm([row["p"] for row in compared])
    in_all = {id(row): p for row, p in zip(compared, of_all, strict=True)}
    for row in rows:
        auc = f"{row['auc']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
        repeats = ", ".join(f"{value:.3f}" for value in row["repeats"])
        difference, p, among_all = "", "", ""
        if "difference" in row:
            difference = f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
            p = "" if np.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}"
            among_all = "" if np.isnan(row["p_holm"]) else f"{in_all[id(row)]:.2g}"
        cells = row["cohort"], row["encoder"], row["aggregator"], auc, repeats, difference, p, among_all
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--finished", action="store_true", help="only what is there already; train nothing")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--encoder", choices=ENCODERS, help="this one alone, without the table")
    arguments = parser.parse_args()
    if not arguments.finished:
        train_cells(arguments.work, [arguments.encoder] if arguments.encoder else ENCODERS, arguments.processes)
    if arguments.encoder:
        return
    rows: list[dict[str, Any]] = []
    for encoder in ENCODERS:
        for cohort in COHORTS:
            names = [name for name in AGGREGATORS if is_finished(arguments.work, cohort, encoder, name)]
            if RULE in names:
                rows += rows_of(arguments.work, cohort, encoder, names)
                print(page(rows[-len(names) :]), flush=True)
    (RESULTS / "aggregators.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "aggregators_table.md").write_text(page(rows))


if __name__ == "__main__":
    main()
