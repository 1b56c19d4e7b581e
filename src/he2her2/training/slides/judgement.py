"""Decisions of trained networks on the slides of their training: figures, and what such slides look like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from he2her2.cohort import SlideEngine, SlideTask, require_all
from he2her2.config import Config
from he2her2.domain import DOMAIN_FILE, LEAST_SLIDES, fit_domain, slide_features
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status
from he2her2.manifest import SlideRow
from he2her2.method import Decision, decide_on, score_tiles
from he2her2.models import (
    Aggregator,
    Card,
    CnnRole,
    Engine,
    hashes_of,
    load_aggregator,
    load_cnn,
    read_card,
    tile_counts,
    write_domain,
)
from he2her2.rules import DIGITS
from he2her2.slides import open_slide
from he2her2.statistics import Estimate, auc_interval, balanced_accuracy, decision_interval, rate
from he2her2.training.slides.bags import LabelledSlide


@dataclass(frozen=True, slots=True, eq=False)
class JudgedSlide:
    """A validation slide with the decision of the trained networks."""

    row: SlideRow
    truth: Her2Status
    decision: Decision

    @property
    def cells(self) -> tuple[object, ...]:
        """Its row of `val_predictions.csv`."""
        row, decision = self.row, self.decision
        names = (row.slide_id, row.patient_id, row.site or "", self.truth.value, decision.status.value)
        return (*names, f"{decision.probability:.6f}", len(decision.grid))


@dataclass(frozen=True, slots=True, eq=False)
class _SlideJudge:
    """Worker that decides on a slide with given tiles, as prediction does."""

    grids: Mapping[str, TileGrid]
    tile_cnn: Engine
    aggregator: Aggregator
    config: Config

    def __call__(self, task: SlideTask) -> Decision:
        """Decision on a slide."""
        grid = self.grids[task.slide_id]
        with open_slide(task.path, mpp=task.mpp, backend=self.config.runtime.backend) as slide:
            readable, logits = score_tiles(
                slide, grid, self.tile_cnn, self.config.runtime, self.config.selection.n_tiles
            )
        return decide_on(task.slide_id, grid.take(readable), logits, self.aggregator, self.config.positive_from)


def judge_slides(slides: Sequence[LabelledSlide], weights: Path, config: Config) -> list[JudgedSlide]:
    """Decide on slides with saved weights, as `predict` does.

    Raises:
        WeightsError: The weights cannot be used.
        ManifestError: Slides that cannot be read any more.
    """
    judge = _SlideJudge(
        {slide.row.slide_id: slide.grid for slide in slides},
        load_cnn(str(weights), "tile_cnn", config),
        load_aggregator(str(weights), config),
        config,
    )
    rows = [slide.row for slide in slides]
    outcomes = SlideEngine().run([SlideTask.of_row(row) for row in rows], judge, stage="validation slides")
    decisions = require_all(rows, outcomes, "validation slides cannot be read any more")
    return [JudgedSlide(slide.row, slide.status, decision) for slide, decision in zip(slides, decisions, strict=True)]


def figures_by_patient(
    rows: Sequence[SlideRow], truth: Sequence[bool], probability: Sequence[float], decided: Sequence[bool]
) -> tuple[Estimate, ...]:
    """AUC, accuracy and balanced accuracy of decisions on slides, with intervals by patient; all are (n,).

    Probabilities rank as predictions write them, so that `evaluate` finds the same AUC.
    """
    patients = [row.patient for row in rows]
    return (
        auc_interval(truth, np.round(probability, DIGITS), patients),
        rate(np.equal(truth, decided), patients, name="accuracy"),
        decision_interval(balanced_accuracy, truth, decided, patients),
    )


def slide_figures(judged: Sequence[JudgedSlide]) -> tuple[Estimate, ...]:
    """Figures of the decisions of trained networks."""
    return figures_by_patient(
        [slide.row for slide in judged],
        [slide.truth == Her2Status.POSITIVE for slide in judged],
        [slide.decision.probability for slide in judged],
        [slide.decision.status == Her2Status.POSITIVE for slide in judged],
    )


def describe_training_slides(
    slides: Sequence[LabelledSlide], judged: Sequence[JudgedSlide], weights: Path, manifest: str, config: Config
) -> int:
    """Store beside the weights what their slides look like, so that prediction tells of a slide unlike them.

    Args:
        slides: Of training and validation.
        judged: Those of them that were decided on already.
        weights: The trained networks.
        manifest: Its name.
        config: The settings.

    Returns:
        Slides that are described; 0 where there are too few.
    """
    if len(slides) < LEAST_SLIDES:
        (weights / DOMAIN_FILE).unlink(missing_ok=True)  # of a training before this one
        return 0
    done = {one.row.slide_id for one in judged}
    others = judge_slides([slide for slide in slides if slide.row.slide_id not in done], weights, config)
    decisions = {one.row.slide_id: one.decision for one in (*judged, *others)}
    rows, textures = [], []
    for slide in slides:
        look = slide.tiles.appearance
        per_score = tile_counts(decisions[slide.row.slide_id].scores)
        rows.append(slide_features(look.mean, look.spread, per_score))
        textures.append(look.texture)
    roles: tuple[CnnRole, ...] = ("tumour_cnn", "tile_cnn")
    cards: dict[str, Card] = {role: read_card(weights / role, role) for role in roles if (weights / role).is_dir()}
    described = f"{len(slides)} training and validation slides of {manifest}"
    write_domain(weights, fit_domain(rows, described, hashes_of(cards), textures=textures))
    return len(slides)
