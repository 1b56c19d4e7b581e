"""Inputs and options of an evaluation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from he2her2.evaluation.audits import N_SLIDES
from he2her2.evaluation.score_tables import ScoreReading
from he2her2.evaluation.thresholds import Budgets
from he2her2.labels import Policy
from he2her2.manifest import Manifest, Split
from he2her2.rules import PatientRule

SplitChoice: TypeAlias = Literal["auto", "train", "val", "test", "all"]


@dataclass(frozen=True, slots=True)
class Question:
    """Inputs and options of an evaluation.

    Attributes:
        run: Folder of `he2her2 predict`, or a table of scores by any tool.
        manifest: The labels.
        split: Slides to evaluate; "auto" is test where the manifest has a test split, else all.
        policy: For an equivocal 2+ without in situ hybridisation.
        rule: A patient's probability from those of the slides.
        compare: Another run over the same slides.
        seeds: Runs over the same slides with weights of other seeds.
        validation: A run over validation slides, to choose rules on; None takes the run's own slides of split val.
        validation_manifest: Their labels, where they are in another manifest.
        budgets: Error budgets of the rules.
        reference: A run over slides like the training slides; None takes the validation slides.
        covariates: A table of covariates of slides or patients, for the audits.
        features: Features of slides: a folder of h5 files, or a wide table.
        by: Columns of the manifest or of the covariates, for subgroups.
        weights: Of the run, to redraw tiles.
        audit_slides: Most slides that the tile audits read.
        seed: Of every draw.
        reading: Choices in reading a table of scores.
        leak_notes: Findings of the search for leaks, repeated among the limitations.
    """

    run: Path
    manifest: Path
    split: SplitChoice = "auto"
    policy: Policy = Policy.GUIDELINE
    rule: PatientRule = "mean"
    compare: Path | None = None
    seeds: tuple[Path, ...] = ()
    validation: Path | None = None
    validation_manifest: Path | None = None
    budgets: Budgets = field(default_factory=Budgets)
    reference: Path | None = None
    covariates: Path | None = None
    features: Path | None = None
    by: tuple[str, ...] = ()
    weights: str | None = None
    audit_slides: int = N_SLIDES
    seed: int = 0
    reading: ScoreReading = field(default_factory=ScoreReading)
    leak_notes: tuple[str, ...] = ()


def chosen_split(choice: SplitChoice, manifest: Manifest) -> Split | None:
    """The split to evaluate; None is all slides."""
    if choice == "auto":
        return "test" if any(row.split == "test" for row in manifest.rows) else None
    return None if choice == "all" else choice
