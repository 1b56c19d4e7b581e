"""Inputs and options of an evaluation, and what is read for it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from he2her2.evaluation.audits import N_SLIDES
from he2her2.evaluation.cases import Joined, check_patient_rule, join, named_as_in_run
from he2her2.evaluation.score_tables import Predictions, ScoreReading, open_predictions, read_study_manifest
from he2her2.evaluation.thresholds import Budgets
from he2her2.labels import Policy
from he2her2.manifest import Manifest, Split
from he2her2.results import RunFolder
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

    def join(self, run: RunFolder, manifest: Manifest, split: Split | None) -> Joined:
        """Join a run with labels by this policy and this rule; errors are those of `cases.join`."""
        return join(run, manifest, split=split, policy=self.policy, rule=self.rule)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRun:
    """An evaluation's run and labels, read and joined.

    Attributes:
        question: Inputs and options.
        predictions: The run, or another tool's scores.
        manifest: The labels, with the run's names of slides.
        split: Split of the evaluated slides; None is all.
        joined: The cases, and the slides left out.
    """

    question: Question
    predictions: Predictions
    manifest: Manifest
    split: Split | None
    joined: Joined

    @property
    def run(self) -> RunFolder:
        """The run, or another tool's scores in the form of one."""
        return self.predictions.run


def read_labelled_run(question: Question) -> LabelledRun:
    """Read the run and the labels of an evaluation, and join them.

    Raises:
        EvaluationError: The run cannot be evaluated, or its stored rules are for another rule of a patient.
        ManifestError: The manifest cannot be used.
    """
    manifest = read_study_manifest(question.manifest, question.run)
    predictions = open_predictions(question.run, manifest, question.reading)
    manifest = named_as_in_run(manifest, predictions.run)
    split = chosen_split(question.split, manifest)
    joined = question.join(predictions.run, manifest, split)
    check_patient_rule(predictions.run, joined)
    return LabelledRun(question, predictions, manifest, split, joined)


def chosen_split(choice: SplitChoice, manifest: Manifest) -> Split | None:
    """The split to evaluate; None is all slides."""
    if choice == "auto":
        return "test" if any(row.split == "test" for row in manifest.rows) else None
    return None if choice == "all" else choice
