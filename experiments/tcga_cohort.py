"""TCGA-BRCA patients with slide-level features, the models that `tcga_hif` tries, and the folds to try them in."""

import csv
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from he2her2.evaluation import Cases

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

THRESHOLD = 0.2
"""About the share of positives; fixed before any result."""

N_FOLDS = 5
_STATUS = {"HER2pos": True, "HER2neg": False}


class Model(Protocol):
    """A classifier of scikit-learn."""

    def fit(self, x: Floats, y: Bools) -> object:
        """Learn."""

    def predict_proba(self, x: Floats) -> Floats:
        """(n, 2) probabilities."""


def forest(seed: int) -> Model:
    """A random forest with scikit-learn's defaults, but for 500 trees."""
    model: Model = RandomForestClassifier(500, random_state=seed, n_jobs=1)
    return model


def ridge(seed: int) -> Model:
    """Logistic regression on standardised features, its penalty chosen by likelihood in five inner folds."""
    inner = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    model: Model = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-6, -1, 11),
            cv=inner,
            scoring="neg_log_loss",
            max_iter=2000,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        ),
    )
    return model


@dataclass(frozen=True, eq=False)
class Cohort:
    """Patients with a known HER2 status; all arrays are (n, ...).

    Attributes:
        ids: Their barcodes.
        x: (n, d) features.
        truth: True if HER2-positive.
        sites: The barcode's tissue source site.
        ihc: IHC score; -1 where unknown.
        columns: Covariates in words.
        numbers: Covariates that are numbers.
        unlabelled: (m, d) features of the patients without a known status.
    """

    ids: NDArray[np.str_]
    x: Floats
    truth: Bools
    sites: NDArray[np.str_]
    ihc: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.str_]]
    numbers: Mapping[str, Floats]
    unlabelled: Floats

    def cases(self, probability: Floats) -> Cases:
        """The patients with a probability each."""
        none = np.full(len(self.ids), -1)
        found = Cases(
            "patient", self.ids, self.ids, self.sites, self.truth, probability, probability >= 0, self.ihc, none, 0.0
        )
        return found.decided_at(THRESHOLD)


def read_cohort(data: Path) -> Cohort:
    """Join features and labels by patient."""
    with gzip.open(data / "tcga_hif" / "hif.csv.gz", "rt", encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file)
    with (data / "labels" / "tcga_brca_her2.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["patient_id"]: row for row in csv.DictReader(file)}
    ids = np.array([row[0] for row in rows])
    x = np.array([row[1:] for row in rows], np.float64)
    status = [_STATUS.get(labels.get(name, {}).get("her2_clinical", "")) for name in ids.tolist()]
    known = np.array([one is not None for one in status])
    of = [labels[name] for name in ids[known].tolist()]
    at = {name: k - 1 for k, name in enumerate(heading)}
    return Cohort(
        ids[known],
        x[known],
        np.array([one for one in status if one is not None]),
        np.array([name[5:7] for name in ids[known].tolist()]),
        np.array(
            [
                int(row["HER2_ihc_score"]) if row["HER2_ihc_score"] in "0123" and row["HER2_ihc_score"] else -1
                for row in of
            ]
        ),
        {
            "oestrogen receptor": _words(of, "ER_Status_By_IHC", {"Positive": "positive", "Negative": "negative"}),
            "race": _words(
                of, "Race_Category", {"WHITE": "white", "BLACK OR AFRICAN AMERICAN": "black", "ASIAN": "Asian"}
            ),
            "histological type": _words(of, "Oncotree_Code", {"IDC": "ductal", "ILC": "lobular"}, "other"),
        },
        {
            "age": np.array([float(row["Diagnosis_Age"]) if row["Diagnosis_Age"] != "NA" else np.nan for row in of]),
            "tumour area": x[known, at["AREA..MM2..OF..TUMOR..IN..TISSUE._HE"]],
            "necrosis area": x[known, at["AREA..MM2..OF..NECROSIS..IN..TISSUE._HE"]],
        },
        x[~known],
    )


def _words(rows: list[dict[str, str]], column: str, names: Mapping[str, str], rest: str = "") -> NDArray[np.str_]:
    return np.array([names.get(row[column], rest) for row in rows])


def random_folds(cohort: Cohort, seed: int) -> NDArray[np.int64]:
    """(n,) one of five random folds, each with its share of positives."""
    fold = np.empty(len(cohort.ids), np.int64)
    parts = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(cohort.x, cohort.truth)
    for k, (_, out) in enumerate(parts):
        fold[out] = k
    return fold


def site_folds(cohort: Cohort) -> NDArray[np.int64]:
    """(n,) each site a fold of its own."""
    return np.unique(cohort.sites, return_inverse=True)[1].astype(np.int64)


def out_of_fold(
    cohort: Cohort, fold: NDArray[np.int64], build: Callable[[int], Model], seed: int, truth: Bools | None = None
) -> Floats:
    """(n,) probability of each patient by a model of the other folds."""
    labels = cohort.truth if truth is None else truth
    found = np.empty(len(labels))
    for k in np.unique(fold):
        out = fold == k
        model = build(seed)
        model.fit(cohort.x[~out], labels[~out])
        found[out] = model.predict_proba(cohort.x[out])[:, 1]
    return np.clip(np.round(found, 6), 0, 1)


def site_alone(cohort: Cohort, fold: NDArray[np.int64]) -> Floats:
    """(n,) share of positives at the patient's site among the other folds, drawn to that of all by five patients."""
    found = np.empty(len(cohort.truth))
    for k in np.unique(fold):
        out = fold == k
        overall = cohort.truth[~out].mean()
        for site in np.unique(cohort.sites[out]):
            there = ~out & (cohort.sites == site)
            found[out & (cohort.sites == site)] = (cohort.truth[there].sum() + 5 * overall) / (there.sum() + 5)
    return found
