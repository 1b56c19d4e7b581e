"""Evaluation of a tile CNN: the confusion matrix of the paper's Table 1, by tile and by slide, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.csv_files import write_csv
from he2her2.manifest import SlideRow
from he2her2.models import Metric
from he2her2.statistics import Estimate, confusion_matrix, kappa_interval, rate
from he2her2.training.report import card_metrics
from he2her2.training.tiles.dataset import SCORES

CONFUSION_COLUMNS = ("prediction / truth", *map(str, SCORES))
_FIGURE_COLUMNS = ("figure", "value", "low", "high", "level", "n", "method")
_SLIDE_COLUMNS = ("slide_id", "patient_id", "site", "ihc_score", "majority", "mean_score", "tiles", *map(str, SCORES))
_K = len(SCORES)


@dataclass(frozen=True, eq=False)  # eq=False: it holds arrays
class JudgedTiles:
    """Tiles of one set with the predictions of a network.

    Attributes:
        name: Of the set: validation, test or left out.
        split: How its patients were kept apart, in words.
        rows: Slides.
        slide: (n,) position of each tile's slide in `rows`.
        truth: (n,) class of each tile, its slide's score.
        decided: (n,) class of the greatest logit.
        score: (n,) expected class, in [0, 3], as prediction scores tiles.
        remarks: Limits of this set's figures, such as a score without training slides.
    """

    name: str
    split: str
    rows: tuple[SlideRow, ...]
    slide: NDArray[np.int64]
    truth: NDArray[np.int64]
    decided: NDArray[np.int64]
    score: NDArray[np.float64]
    remarks: tuple[str, ...] = ()

    @property
    def patients(self) -> NDArray[np.str_]:
        """(n,) patient of each tile."""
        return _patients_of(self.rows)[self.slide]

    @cached_property
    def by_slide(self) -> "_SlidePredictions":
        """Predictions for each slide from its tiles."""
        counts = np.bincount(self.slide * _K + self.decided, minlength=len(self.rows) * _K).reshape(-1, _K)
        mean = np.bincount(self.slide, self.score, len(self.rows)) / np.bincount(self.slide, minlength=len(self.rows))
        truth = np.zeros(len(self.rows), np.int64)
        truth[self.slide] = self.truth
        return _SlidePredictions(truth, counts, mean)

    @cached_property
    def figures(self) -> tuple[Estimate, ...]:
        """Accuracy, recall of each class and quadratic kappa of tiles, then of slides; intervals by patient."""
        patients, right = self.patients, self.truth == self.decided
        found = [rate(right, patients, name="tile accuracy")]
        for k, score in enumerate(SCORES):
            of_class = self.truth == k
            if of_class.any():
                found.append(rate(right[of_class], patients[of_class], name=f"tile recall of {score}"))
        found.append(_kappa("tile quadratic kappa", self.truth, self.decided, patients))
        slides, owners = self.by_slide, _patients_of(self.rows)
        for rule, decided in (("majority", slides.majority), ("mean score", slides.rounded)):
            found.append(rate(slides.truth == decided, owners, name=f"slide accuracy, {rule}"))
            found.append(_kappa(f"slide quadratic kappa, {rule}", slides.truth, decided, owners))
        return tuple(found)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Figures for the card."""
        return card_metrics(self.figures, f"{self.in_words()}, {self.split}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """The remarks, and a warning where the network predicts one class only."""
        if len(np.unique(self.decided)) > 1 or len(np.unique(self.truth)) == 1:
            return self.remarks
        return (*self.remarks, f"It calls every tile {SCORES[self.decided[0]]}: it has learned nothing.")

    def in_words(self) -> str:
        """Numbers of tiles, slides and patients."""
        patients = len(np.unique(self.patients))
        return f"{len(self.truth)} tiles of {len(self.rows)} slides of {patients} patients"


@dataclass(frozen=True, slots=True, eq=False)
class _SlidePredictions:
    """Predictions for slides from their tiles.

    Attributes:
        truth: (m,) class of each slide.
        counts: (m, k) its tiles decided for each class.
        mean: (m,) mean score of its tiles, in [0, 3].
    """

    truth: NDArray[np.int64]
    counts: NDArray[np.int64]
    mean: NDArray[np.float64]

    @property
    def majority(self) -> NDArray[np.int64]:
        """(m,) class of most tiles; of several, the lowest."""
        return np.asarray(self.counts.argmax(axis=1))

    @property
    def rounded(self) -> NDArray[np.int64]:
        """(m,) class nearest to the mean score, halves up."""
        return np.floor(self.mean + 0.5).astype(np.int64)


def join_sets(sets: Sequence[JudgedTiles]) -> JudgedTiles:
    """Sets of different slides, each evaluated by a network of its own, as one."""
    offsets = np.cumsum([0, *(len(judged.rows) for judged in sets)])
    return JudgedTiles(
        sets[0].name,
        sets[0].split,
        tuple(row for judged in sets for row in judged.rows),
        np.concatenate([judged.slide + offset for judged, offset in zip(sets, offsets, strict=False)]),
        np.concatenate([judged.truth for judged in sets]),
        np.concatenate([judged.decided for judged in sets]),
        np.concatenate([judged.score for judged in sets]),
        tuple(remark for judged in sets for remark in judged.remarks),
    )


def write_tables(folder: Path, judged: JudgedTiles) -> None:
    """Write `confusion_NAME.csv`, `figures_NAME.csv` and `slides_NAME.csv` of a set."""
    name = judged.name.replace(" ", "_")
    write_csv(folder / f"confusion_{name}.csv", CONFUSION_COLUMNS, confusion_rows(judged.truth, judged.decided))
    figures = (
        (f.name, f"{f.value:.6f}", f"{f.low:.6f}", f"{f.high:.6f}", f"{f.level:g}", f.n, f.method)
        for f in judged.figures
    )
    write_csv(folder / f"figures_{name}.csv", _FIGURE_COLUMNS, figures)
    slides = judged.by_slide
    predictions = zip(judged.rows, slides.majority, slides.mean, slides.counts, strict=True)
    rows = (
        (
            row.slide_id,
            row.patient_id,
            row.site or "",
            str(row.ihc_score),
            str(SCORES[most]),
            f"{mean:.4f}",
            counts.sum(),
            *counts.tolist(),
        )
        for row, most, mean, counts in predictions
    )
    write_csv(folder / f"slides_{name}.csv", _SLIDE_COLUMNS, rows)


def confusion_rows(truth: NDArray[np.int64], decided: NDArray[np.int64]) -> list[list[str]]:
    """The confusion matrix as the paper's Table 1 shows it: a row for each prediction, a column for each truth.

    Example:
        >>> confusion_rows(np.array([0, 0, 1]), np.array([0, 1, 1]))[:2]
        [['0', '1', '0', '0', '0'], ['1+', '1', '1', '0', '0']]
    """
    matrix = confusion_matrix(truth, decided, _K).T  # rows: predictions
    return [[str(score), *map(str, row)] for score, row in zip(SCORES, matrix.tolist(), strict=True)]


def _kappa(name: str, truth: NDArray[np.int64], decided: NDArray[np.int64], patients: NDArray[np.str_]) -> Estimate:
    return replace(kappa_interval(truth, decided, _K, patients), name=name)


def _patients_of(rows: Sequence[SlideRow]) -> NDArray[np.str_]:
    return np.array([row.patient for row in rows])
