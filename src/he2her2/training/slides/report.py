"""What a slide training tells: how good it is on its validation slides, and how much of it was joint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from he2her2.files import write_csv, write_text
from he2her2.labels import Her2Status
from he2her2.manifest import SlideRow
from he2her2.method.decision import Decision
from he2her2.models.card import Metric
from he2her2.statistics.intervals import Estimate, auc_interval, decision_interval, rate
from he2her2.statistics.metrics import balanced_accuracy
from he2her2.training.fit import _is_best
from he2her2.training.settings import Keep

_COLUMNS = ("slide_id", "patient_id", "site", "her2_status", "predicted", "probability", "tiles")
REPORT = "report.md"
PREDICTIONS = "val_predictions.csv"
STILL = 1e-6
"""A CNN whose weights moved by less, relative to their size, has not learned."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A validation slide with what the trained networks decide on it."""

    row: SlideRow
    truth: Her2Status
    decision: Decision

    @property
    def right(self) -> bool:
        """Whether the decision is the truth."""
        return self.decision.status == self.truth


@dataclass(frozen=True, slots=True)
class Story:
    """What the report tells beside the validation slides.

    Attributes:
        data: What was trained on, in words.
        recipe: How, in words.
        beta: Soft-argmax's sharpness in prediction.
        history: Each epoch's figures.
        keep: Which of equally good epochs was kept.
        notices: What every output must say.
        gaps: What `weights/` lacks for prediction, in words.
        frozen: Whether the tile CNN was kept from learning.
    """

    data: str
    recipe: str
    beta: float
    history: Sequence[dict[str, float]]
    keep: Keep
    notices: tuple[str, ...]
    gaps: tuple[str, ...]
    frozen: bool

    @property
    def kept(self) -> dict[str, float]:
        """Figures of the epoch that was kept."""
        best = max(n for n in range(len(self.history)) if _is_best(self.history[: n + 1], self.keep))
        return self.history[best]


def figures(judged: Sequence[Judged]) -> tuple[Estimate, ...]:
    """Accuracy, balanced accuracy and AUC of the decisions, with intervals by patient."""
    truth = [slide.truth == Her2Status.POSITIVE for slide in judged]
    decided = [slide.decision.status == Her2Status.POSITIVE for slide in judged]
    patients = [slide.row.patient_id for slide in judged]
    return (
        rate([slide.right for slide in judged], patients, name="accuracy"),
        decision_interval(balanced_accuracy, truth, decided, patients),
        auc_interval(truth, [slide.decision.probability for slide in judged], patients),
    )


def metrics(judged: Sequence[Judged], data: str) -> tuple[Metric, ...]:
    """The figures as a card holds them."""
    return tuple(
        Metric(found.name, data, found.n, found.value, found.low, found.high, found.level) for found in figures(judged)
    )


def gradient_line(story: Story) -> str:
    """How much of the loss reached the tile CNN, and what it did there."""
    history, kept = story.history, story.kept
    share = _mean(history, "gradient_share")
    at_scores, at_logits = _mean(history, "gradient_at_scores"), _mean(history, "gradient_at_logits")
    part = at_logits / at_scores if at_scores else 0.0
    first, last = history[0]["beta"], history[-1]["beta"]
    trained = f"β = {last:g}" if first == last else f"β from {first:g} to {last:g}"
    line = (
        f"At {trained}, {share:.2%} of the selected tiles got any gradient at their logits, whose norm was {part:.3g} "
        f"of that at their scores (means over {len(history)} epochs); the tile CNN's weights moved by "
        f"{kept['cnn_movement']:.3g} of their size up to the epoch kept (prediction uses β = {story.beta:g})."
    )
    if story.frozen:
        return f"{line} **The tile CNN was frozen: only the aggregator learned.**"
    if kept["cnn_movement"] < STILL:
        return f"{line} **The tile CNN did not learn: only the aggregator did.**"
    return line


def write_report(folder: Path, story: Story, judged: Sequence[Judged]) -> Path:
    """Write `report.md` and `val_predictions.csv`."""
    write_csv(folder / PREDICTIONS, _COLUMNS, (_row(slide) for slide in judged), line_end="\r\n")
    report = folder / REPORT
    write_text(report, "\n".join(_report(story, judged)) + "\n")
    return report


def _report(story: Story, judged: Sequence[Judged]) -> list[str]:
    called = {slide.decision.status for slide in judged}
    lines = [
        "# Training on slides",
        "",
        *(f"**{notice}**\n" for notice in story.notices),
        f"Data: {story.data}",
        "",
        f"Recipe: {story.recipe}",
        "",
        _kept_in_words(story),
        "",
        "## Validation slides",
        "",
        "They chose the epoch, so these figures flatter; only a test set tells how good the weights are.",
        "",
        "| figure | value | 95 % interval | n |",
        "|---|---|---|---|",
        *(f"| {f.name} | {f.value:.3f} | {f.low:.3f} to {f.high:.3f} | {f.n} |" for f in figures(judged)),
        "",
    ]
    if len(called) == 1:
        lines += [f"**All {len(judged)} slides are called {next(iter(called))}: this classifier is constant.**", ""]
    lines += ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in _row(slide).values()) + " |" for slide in judged]
    lines += ["", *(f"{gap}\n" for gap in story.gaps), "## How joint it was", ""]
    return [*lines, gradient_line(story)]


def _kept_in_words(story: Story) -> str:
    kept, last = story.kept, story.history[-1]
    return (
        f"Kept: epoch {kept['epoch']:.0f} of {len(story.history)} (0 is the first), by validation accuracy, "
        f"of ties the {story.keep.replace('-', ' ')}. Loss there: "
        f"{kept['train_loss']:.4f} in training, {kept['val_loss']:.4f} in validation; in the last epoch "
        f"{last['train_loss']:.4f} and {last['val_loss']:.4f}."
    )


def _row(slide: Judged) -> dict[str, Any]:
    row, decision = slide.row, slide.decision
    cells = (row.slide_id, row.patient_id, row.site or "", slide.truth.value, decision.status.value)
    return dict(zip(_COLUMNS, (*cells, f"{decision.probability:.6f}", len(decision.grid)), strict=True))


def _mean(history: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in history) / len(history)
