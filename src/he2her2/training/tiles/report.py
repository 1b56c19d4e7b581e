"""What a tile training tells: the confusion matrix of the paper's Table 1, by tile and by slide, with intervals."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.paper_tables import TABLE_1
from he2her2.files import write_csv, write_text
from he2her2.manifest import SlideRow, patient_key
from he2her2.models.card import RESEARCH_USE, Metric
from he2her2.statistics.intervals import Estimate, exact_binomial, kappa_interval, rate
from he2her2.statistics.metrics import confusion_matrix
from he2her2.training.export import Provenance
from he2her2.training.tiles.data import SCORES

REPORT = "report.md"
_K = len(SCORES)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Judged:
    """Tiles with what a network says of them.

    Attributes:
        name: Of the set: validation, test or left out.
        how: How its patients were kept apart, in words.
        rows: Slides.
        slide: (n,) position of each tile's slide in `rows`.
        truth: (n,) class of each tile, its slide's score.
        decided: (n,) class of the greatest logit.
        score: (n,) expected class, in [0, 3], as prediction scores tiles.
        remarks: What a reader must know of this set, such as a score that nothing was trained on.
    """

    name: str
    how: str
    rows: tuple[SlideRow, ...]
    slide: NDArray[np.int64]
    truth: NDArray[np.int64]
    decided: NDArray[np.int64]
    score: NDArray[np.float64]
    remarks: tuple[str, ...] = ()

    @property
    def patients(self) -> NDArray[np.str_]:
        """(n,) whose each tile is."""
        return np.array([patient_key(row.patient_id) for row in self.rows])[self.slide]

    def by_slide(self) -> "SlideVerdicts":
        """What the tiles of each slide come to."""
        counts = np.bincount(self.slide * _K + self.decided, minlength=len(self.rows) * _K).reshape(-1, _K)
        mean = np.bincount(self.slide, self.score, len(self.rows)) / np.bincount(self.slide, minlength=len(self.rows))
        truth = np.zeros(len(self.rows), np.int64)
        truth[self.slide] = self.truth
        return SlideVerdicts(truth, counts, mean)


@dataclass(frozen=True, slots=True, eq=False)
class SlideVerdicts:
    """What the tiles of each slide come to.

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


def figures(judged: Judged) -> tuple[Estimate, ...]:
    """Accuracy, recall of each class and quadratic kappa of the tiles, then of the slides; intervals by patient."""
    patients, right = judged.patients, judged.truth == judged.decided
    found = [rate(right, patients, name="tile accuracy")]
    for k, score in enumerate(SCORES):
        of_class = judged.truth == k
        if of_class.any():
            found.append(rate(right[of_class], patients[of_class], name=f"tile recall of {score}"))
    found.append(_kappa("tile quadratic kappa", judged.truth, judged.decided, patients))
    slides = judged.by_slide()
    owners = np.array([patient_key(row.patient_id) for row in judged.rows])
    for rule, decided in (("majority", slides.majority), ("mean score", slides.rounded)):
        found.append(rate(slides.truth == decided, owners, name=f"slide accuracy, {rule}"))
        found.append(_kappa(f"slide quadratic kappa, {rule}", slides.truth, decided, owners))
    return tuple(found)


def _kappa(name: str, truth: NDArray[np.int64], decided: NDArray[np.int64], patients: NDArray[np.str_]) -> Estimate:
    found = kappa_interval(truth, decided, _K, patients)
    return Estimate(name, found.value, found.low, found.high, found.n, found.method, found.level)


def card_metrics(sets: Iterable[Judged]) -> tuple[Metric, ...]:
    """The figures that a card holds, of every set that was judged."""
    return tuple(
        Metric(f.name, f"{_sizes(judged)}, {judged.how}", f.n, f.value, f.low, f.high, f.level)
        for judged in sets
        for f in figures(judged)
        if not np.isnan(f.value)
    )


def write_report(folder: Path, sets: Sequence[Judged], provenance: Provenance) -> Path:
    """Write `report.md`, and for each set `confusion_NAME.csv`, `figures_NAME.csv` and `slides_NAME.csv`."""
    lines = ["# Tile CNN", "", f"Trained on {provenance.data}.", "", f"{provenance.recipe}.", ""]
    for judged in sets:
        lines += _section(judged)
        stem = judged.name.replace(" ", "_")
        _write_csv(folder / f"confusion_{stem}.csv", confusion_rows(judged.truth, judged.decided))
        _write_csv(folder / f"figures_{stem}.csv", _figure_rows(judged))
        _write_csv(folder / f"slides_{stem}.csv", _slide_rows(judged))
    paper = exact_binomial(int(TABLE_1.trace()), int(TABLE_1.sum()))
    lines += [f"The paper's Table 1, of other slides: tile accuracy {paper}, as if its tiles were independent.", ""]
    lines += [f"**{text}**" for text in (provenance.notice, RESEARCH_USE) if text]
    report = folder / REPORT
    write_text(report, "\n".join(lines) + "\n")
    return report


def confusion_rows(truth: NDArray[np.int64], decided: NDArray[np.int64]) -> list[list[str]]:
    """The confusion matrix as the paper's Table 1 lays it out: a row for each prediction, a column for each truth.

    Example:
        >>> confusion_rows(np.array([0, 0, 1]), np.array([0, 1, 1]))[:3]
        [['prediction / truth', '0', '1+', '2+', '3+'], ['0', '1', '0', '0', '0'], ['1+', '1', '1', '0', '0']]
    """
    matrix = confusion_matrix(truth, decided, _K).T  # rows: predictions
    rows = [[str(score), *map(str, row)] for score, row in zip(SCORES, matrix.tolist(), strict=True)]
    return [["prediction / truth", *map(str, SCORES)], *rows]


def _section(judged: Judged) -> Iterator[str]:
    """A set of the report."""
    slides = judged.by_slide()
    yield from (f"## {judged.name.capitalize()}", "", f"{_sizes(judged)}, {judged.how}.", "")
    for remark in (*judged.remarks, *_constant(judged)):
        yield from (f"**{remark}**", "")
    for what, truth, decided in (
        ("Tiles", judged.truth, judged.decided),
        ("Slides, by the majority of their tiles", slides.truth, slides.majority),
        ("Slides, by the mean score of their tiles", slides.truth, slides.rounded),
    ):
        yield from (f"{what}:", "", *_table(confusion_rows(truth, decided)), "")
    yield from (*_table([["figure", "value", "95 % interval", "n"], *_figures_in_short(judged)]), "")
    yield from ("Intervals are by patient.", "")


def _sizes(judged: Judged) -> str:
    patients = len(np.unique(judged.patients))
    return f"{len(judged.truth)} tiles of {len(judged.rows)} slides of {patients} patients"


def _constant(judged: Judged) -> Iterator[str]:
    """A warning where a network says one thing only."""
    if len(np.unique(judged.decided)) == 1 and len(np.unique(judged.truth)) > 1:
        yield f"It calls every tile {SCORES[judged.decided[0]]}: it has learned nothing."


def _figures_in_short(judged: Judged) -> list[list[str]]:
    return [[f.name, f"{f.value:.3f}", f"{f.low:.3f} to {f.high:.3f}", str(f.n)] for f in figures(judged)]


def _figure_rows(judged: Judged) -> list[list[str]]:
    rows = [
        [f.name, f"{f.value:.6f}", f"{f.low:.6f}", f"{f.high:.6f}", f"{f.level:g}", str(f.n), f.method]
        for f in figures(judged)
    ]
    return [["figure", "value", "low", "high", "level", "n", "method"], *rows]


def _slide_rows(judged: Judged) -> list[list[str]]:
    slides = judged.by_slide()
    heading = ["slide_id", "patient_id", "site", "ihc_score", "majority", "mean_score", "tiles", *map(str, SCORES)]
    verdicts = zip(judged.rows, slides.majority, slides.mean, slides.counts, strict=True)
    rows = [
        [
            row.slide_id,
            row.patient_id,
            row.site or "",
            str(row.ihc_score),
            str(SCORES[most]),
            f"{mean:.4f}",
            str(counts.sum()),
            *map(str, counts.tolist()),
        ]
        for row, most, mean, counts in verdicts
    ]
    return [heading, *rows]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as a Markdown table, the first one its heading."""
    heading, *below = rows
    yield f"| {' | '.join(heading)} |"
    yield "|---" * len(heading) + "|"
    yield from (f"| {' | '.join(row)} |" for row in below)


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    heading, *below = rows
    write_csv(path, heading, below)
