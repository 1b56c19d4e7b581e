"""Pooled out-of-fold AUCs where there is nothing to find: ridge regression of slide means, labels permuted.

Cross-validation leans below one half there: of the class that a fold tests more of, its training set has fewer. Folds
and repeats are those of `experiments.aggregators`.

Run: python -m experiments.out_of_fold_null --manifest M.csv --features FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.labels import Policy
from he2her2.statistics import auc
from he2her2.training.slides.feature_data import read_feature_cohort

FOLDS, REPEATS, PERMUTATIONS, RIDGE = 5, 3, 100, 300.0


def out_of_fold(means: NDArray[np.float64], truth: NDArray[np.bool_], rng: np.random.Generator) -> float:
    """AUC of the mean of the repeats' out-of-fold scores."""
    total = np.zeros(len(truth))
    for _ in range(REPEATS):
        part = np.empty(len(truth), np.int64)
        for kind in (True, False):
            members = rng.permutation(np.flatnonzero(truth == kind))
            part[members] = np.arange(len(members)) % FOLDS
        for fold in range(FOLDS):
            train = part != fold
            centre, spread = means[train].mean(axis=0), means[train].std(axis=0) + 1e-9
            scaled = (means - centre) / spread
            weight = np.where(truth[train], 1 / truth[train].sum(), -1 / (~truth[train]).sum()) * train.sum() / 2
            gram = scaled[train] @ scaled[train].T + RIDGE * np.eye(int(train.sum()))
            total[~train] += scaled[~train] @ (scaled[train].T @ np.linalg.solve(gram, weight))
    return auc(truth, total)


def main() -> None:
    """Print the AUC of the true labels, and the spread of the permuted ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    arguments = parser.parse_args()
    cohort = read_feature_cohort(arguments.manifest, arguments.features, Policy.GUIDELINE)
    means = np.array([cohort.bag(slide).features.mean(axis=0) for slide in cohort.slides], np.float64)
    truth = np.array([slide.positive for slide in cohort.slides])
    rng = np.random.default_rng(0)
    print(f"true labels: AUC {out_of_fold(means, truth, rng):.3f}")
    found = [out_of_fold(means, rng.permutation(truth), rng) for _ in range(PERMUTATIONS)]
    low, high = np.quantile(found, [0.025, 0.975])
    print(f"permuted: mean {np.mean(found):.3f}, spread {np.std(found):.3f}, 95 % {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
