"""Inputs and options of an evaluation, and what is read for it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from he2her2.evaluation.audits import N_SLIDES
from he2her2.evaluation.cases import Joined, join, named_as_in_run
from he2her2.evaluation.leakage import check_same_model
from he2her2.evaluation.score_tables import (
    Predictions,
    ScoreReading,
    check_reading,
    on_one_scale,
    open_predictions,
    read_study_manifest,
)
from he2her2.evaluation.thresholds import Budgets, check_patient_rule
from he2her2.labels import Policy
from he2her2.manifest import Manifest, Split, label_doubts, near_sites
from he2her2.results import RunFolder
from he2her2.rules import PatientRule

SplitChoice: TypeAlias = Literal["auto", "train", "val", "test", "all"]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
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

    @property
    def all_runs(self) -> tuple[Path, ...]:
        """Every run or table whose scores are read."""
        return (self.run, *self.seeds, *filter(None, (self.compare, self.validation)))

    def join(self, predictions: Predictions, manifest: Manifest, split: Split | None) -> Joined:
        """Join predictions with labels by this policy and this rule; errors are those of `cases.join`."""
        return join(predictions.run, manifest, split=split, policy=self.policy, rule=self.rule, scale=predictions.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Validation cases, on which rules are chosen.

    Attributes:
        run: Their run.
        joined: The cases.
        name: Their name in words.
    """

    run: RunFolder
    joined: Joined
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRun:
    """An evaluation's run and labels, read and joined, and the runs beside it.

    Attributes:
        question: Inputs and options.
        predictions: The run, or another tool's scores.
        manifest: The labels, with the run's names of slides.
        split: Split of the evaluated slides; None is all.
        joined: The cases, and the slides left out.
        validation: Validation cases of the run given for them, or of the run's own slides of split val; without any the
            reason, in words.
        seeds: Runs with weights of other seeds.
    """

    question: Question
    predictions: Predictions
    manifest: Manifest
    split: Split | None
    joined: Joined
    validation: Validation | str
    seeds: tuple[RunFolder, ...]

    @property
    def run(self) -> RunFolder:
        """The run, or another tool's scores in the form of one."""
        return self.predictions.run


def read_labelled_run(question: Question) -> LabelledRun:
    """Read the runs and the labels of an evaluation, and join them.

    Raises:
        EvaluationError: A run cannot be used, was made with another model, or its stored rules are for another rule of
            a patient.
        ManifestError: A manifest cannot be used.
    """
    check_reading(question.all_runs, question.reading)
    manifest = read_study_manifest(question.manifest, question.run)
    predictions = open_predictions(question.run, manifest, question.reading)
    manifest = named_as_in_run(manifest, predictions.run)
    labels = manifest
    if question.validation_manifest is not None:
        labels = read_study_manifest(question.validation_manifest, question.validation or question.run)
        labels = labels if question.validation else named_as_in_run(labels, predictions.run)
    others = [(path, manifest) for path in question.seeds]
    if question.validation is not None:
        others.append((question.validation, labels))
    opened = (open_predictions(path, names, question.reading) for path, names in others)
    predictions, *beside = on_one_scale([predictions, *opened])
    split = chosen_split(question.split, manifest)
    joined = question.join(predictions, manifest, split)
    check_patient_rule(predictions.run, joined)
    found: Validation | str
    if question.validation is not None:
        check_same_model(predictions.run, beside[-1].run)
        found = _validation(question, beside.pop(), labels)
    else:
        why = _nothing_to_choose_on(question.split, manifest, labels, predictions.run)
        found = why or _validation(question, predictions, labels)
    return LabelledRun(question, predictions, manifest, split, joined, found, tuple(one.run for one in beside))


def _validation(question: Question, predictions: Predictions, labels: Manifest) -> Validation:
    """The labelled cases of split val, or all where no row is of it."""
    split: Split | None = "val" if any(row.split == "val" for row in labels.rows) else None
    joined = question.join(predictions, labels, split)
    name = f"{len(joined.patients)} patients of {labels.path.name}, run {predictions.run.name}"
    return Validation(predictions.run, joined, name)


def _nothing_to_choose_on(choice: SplitChoice, manifest: Manifest, labels: Manifest, run: RunFolder) -> str:
    """Reason why a run's own slides choose no rules, and what to do; empty where they can.

    Args:
        choice: Slides that are evaluated.
        manifest: Their labels.
        labels: Those of the validation slides.
        run: The run.
    """
    if not any(row.slide_id in run.predictions for row in labels.rows if row.split == "val"):
        return "no slides of split val were predicted in this run; predict them, too, or give --validation RUN"
    if not any(row.split == "test" for row in manifest.rows):
        return "the manifest has no split test, on which rules could be tested; give --validation RUN"
    if choice in ("auto", "test"):
        return ""
    return (
        f"with --split {choice} no rules are chosen, since slides of split val choose them for split test; pass "
        "--split test, or give --validation RUN"
    )


def label_notes(manifest: Manifest) -> tuple[str, ...]:
    """Sentences on the reading of labels: what was matched, what is in doubt, sites with nearly the same name."""
    notes = (*manifest.notes, *label_doubts(manifest), *near_sites(manifest.rows))
    return tuple(f"{manifest.path.name}: {note}." for note in notes)


def chosen_split(choice: SplitChoice, manifest: Manifest) -> Split | None:
    """The split to evaluate; None is all slides."""
    if choice == "auto":
        return "test" if any(row.split == "test" for row in manifest.rows) else None
    return None if choice == "all" else choice
