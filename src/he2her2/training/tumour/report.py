"""What a tumour training tells: how well it judges patients that it never saw, together, by source and by fold."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.files import write_csv, write_text
from he2her2.models.card import RESEARCH_USE, Metric
from he2her2.statistics.intervals import Estimate, auc_interval, decision_interval
from he2her2.statistics.metrics import balanced_accuracy
from he2her2.training.export import Provenance
from he2her2.training.tumour.patches import INVASIVE, Patches

REPORT = "report.md"
PREDICTIONS = "predictions.csv"
_COLUMNS = ("patient", "source", "fold", "label", "probability")


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Judged:
    """Patches with what networks that never saw their patients say of them.

    Attributes:
        patches: (n,) the patches that were judged.
        fold: (n,) which of the networks judged each.
        probability: (n,) of invasive tumour.
        how: How the patients were kept apart, in words.
        threshold: From which probability on a patch counts as invasive; prediction's own.
    """

    patches: Patches
    fold: NDArray[np.int64]
    probability: NDArray[np.float64]
    how: str
    threshold: float

    def part(self, chosen: NDArray[np.bool_]) -> "Judged":
        """Some of the patches."""
        return replace(
            self, patches=self.patches.take(chosen), fold=self.fold[chosen], probability=self.probability[chosen]
        )

    @property
    def groups(self) -> Iterator[tuple[str, "Judged"]]:
        """All of them; then each source and each fold, where there are several."""
        yield "all", self
        sources, folds = np.unique(self.patches.sources), np.unique(self.fold)
        if len(sources) > 1:
            yield from ((str(source), self.part(self.patches.sources == source)) for source in sources)
        if len(folds) > 1:
            yield from ((f"fold {fold + 1}", self.part(self.fold == fold)) for fold in folds)


def figures(judged: Judged) -> tuple[Estimate, Estimate]:
    """Balanced accuracy at prediction's threshold, and AUC; both with intervals by patient."""
    truth = judged.patches.labels == INVASIVE
    patients = judged.patches.patients
    decided = judged.probability >= judged.threshold
    accuracy = decision_interval(balanced_accuracy, truth, decided, patients)
    return accuracy, auc_interval(truth, judged.probability, patients)


def card_metrics(judged: Judged) -> tuple[Metric, ...]:
    """The figures that a card holds: of all patches, and of each source that has both classes."""
    return tuple(
        Metric(f.name, f"patches ({name}), {judged.how}", f.n, f.value, f.low, f.high, f.level)
        for name, part in judged.groups
        if not name.startswith("fold ")
        for f in figures(part)
        if not np.isnan(f.value)
    )


def write_report(folder: Path, judged: Judged, provenance: Provenance) -> Path:
    """Write `report.md`, and `predictions.csv` with every judged patch."""
    _write_predictions(folder / PREDICTIONS, judged)
    lines = ["# Tumour CNN", "", f"Trained on {provenance.data}. {provenance.recipe}.", ""]
    lines += [f"How well it tells patches with invasive tumour from others, {judged.how}:", ""]
    lines += [
        "| patches | n | patients | invasive | balanced accuracy (95 %) | AUC (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(name, part) for name, part in judged.groups]
    lines += [
        "",
        f"Intervals are by patient. A patch counts as invasive from a probability of {judged.threshold:g} on.",
        "",
    ]
    lines += [f"**{text}**" for text in (provenance.notice, RESEARCH_USE) if text]
    report = folder / REPORT
    write_text(report, "\n".join(lines) + "\n")
    return report


def _line(name: str, part: Judged) -> str:
    patients = len(np.unique(part.patches.patients))
    share = (part.patches.labels == INVASIVE).mean()
    cells = (f"{f.value:.3f} ({f.low:.3f}-{f.high:.3f})" for f in figures(part))
    return f"| {name} | {len(part.patches)} | {patients} | {share:.0%} | {' | '.join(cells)} |"


def _write_predictions(path: Path, judged: Judged) -> None:
    patches = judged.patches
    rows = zip(patches.patients, patches.sources, judged.fold, patches.labels, judged.probability, strict=True)
    write_csv(path, _COLUMNS, ((*row[:4], f"{row[4]:.6f}") for row in rows), line_end="\r\n")
