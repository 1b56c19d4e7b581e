"""Tumour CNN against colour histograms of the same patches, in the same folds.

The histograms are of hue, saturation and value, 16 bins each; a logistic regression and gradient-boosted trees learn
from them, in every fold from the same patients as the CNN of this fold. The CNN's probabilities are read from its
training's `predictions.csv`.

Run: python -m experiments.histogram_baseline IDC.npz RUN [--out FOLDER]
"""

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from he2her2.evaluation.tumour.rivals import Looks
from he2her2.files import write_text
from he2her2.statistics import auc_interval, balanced_accuracy, decision_interval, delong_difference

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class CnnProbabilities:
    """Probabilities of the CNN for patches of patients on which it was not trained.

    Attributes:
        patients: (n) str.
        folds: (n) int.
        invasive: (n) bool.
        probability: (n) float.
    """

    patients: NDArray[np.str_]
    folds: NDArray[np.intp]
    invasive: NDArray[np.bool_]
    probability: NDArray[np.float64]


def read_cnn_probabilities(run: Path, source: str) -> CnnProbabilities:
    """Read the rows of one source from a training's `predictions.csv`, in the order of its patches."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == source]
    return CnnProbabilities(
        np.array([row["patient"] for row in rows]),
        np.array([int(row["fold"]) for row in rows]),
        np.array([row["label"] == "1" for row in rows]),
        np.array([float(row["probability"]) for row in rows]),
    )


def cross_validated(model: Any, features: NDArray[np.float64], judged: CnnProbabilities) -> NDArray[np.float64]:  # noqa: ANN401  # scikit-learn is untyped
    """Probability of every patch, (n,), by a model trained on the other folds."""
    probability = np.empty(len(features))
    for fold in np.unique(judged.folds):
        held_out = judged.folds == fold
        model.fit(features[~held_out], judged.invasive[~held_out])
        probability[held_out] = model.predict_proba(features[held_out])[:, 1]
    return probability


def table(judged: CnnProbabilities, probabilities: Mapping[str, NDArray[np.float64]]) -> Iterator[str]:
    """Format the results as Markdown."""
    n_patients = len(np.unique(judged.patients))
    yield "# Does the tumour CNN see more than colour?\n"
    yield (
        f"{len(judged.invasive)} IDC patches of {n_patients} patients, cross-validated by patient in "
        f"{len(np.unique(judged.folds))} folds, the same for all; the CNN calls a patch invasive from a probability of "
        "0.5 on, the others from the share of invasive patches on; intervals of 95 %, by patient. Published on the "
        "full set: balanced accuracy 0.842 (Cruz-Roa 2014), 0.847 (Janowczyk and Madabhushi 2016).\n"
    )
    yield "| from | balanced accuracy | AUC | the CNN's AUC less this | p |"
    yield "|---|---|---|---|---|"
    cnn = probabilities["the tumour CNN"]
    for name, found in probabilities.items():
        threshold = 0.5 if found is cnn else judged.invasive.mean()
        balanced = decision_interval(balanced_accuracy, judged.invasive, found >= threshold, judged.patients)
        area = auc_interval(judged.invasive, found, judged.patients)
        difference = delong_difference(judged.invasive, cnn, found, judged.patients)
        apart = f"{difference.estimate.text(3)} | {difference.p_value:.2g}" if found is not cnn else "- | -"
        yield f"| {name} | {balanced.text(3)} | {area.text(3)} | {apart} |"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patches", type=Path, help="NPZ: patch, invasive, patient")
    parser.add_argument("run", type=Path, help="folder of `he2her2 train tumour --patches ... --folds N`")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    judged = read_cnn_probabilities(arguments.run, arguments.patches.stem)
    with np.load(arguments.patches) as data:
        if not np.array_equal(data["invasive"].astype(bool), judged.invasive):
            parser.error(f"{arguments.run}: its predictions are not of these patches")
        features = Looks.of(data["patch"]).histogram
    models = {
        "colour histograms, logistic regression": make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
        ),
        "colour histograms, boosted trees": HistGradientBoostingClassifier(max_iter=150, random_state=0),
    }
    found = {name: cross_validated(model, features, judged) for name, model in models.items()}
    text = "\n".join(table(judged, {"the tumour CNN": judged.probability, **found})) + "\n"
    print(text)
    write_text(arguments.out / "histogram_baseline.md", text)


if __name__ == "__main__":
    main()
