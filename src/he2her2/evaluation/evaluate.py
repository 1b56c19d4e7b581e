"""A run against its labels, from the folders to everything that the page says."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from he2her2.errors import EvaluationError
from he2her2.evaluation.audits.audit import Audit
from he2her2.evaluation.audits.domain import domain_audit
from he2her2.evaluation.audits.shortcuts import shortcut_audit
from he2her2.evaluation.audits.sites import SiteResult, site_audit, site_results
from he2her2.evaluation.audits.stability import seeds_audit
from he2her2.evaluation.audits.tiles import N_SLIDES, aggregator_of, tile_audits
from he2her2.evaluation.cases import Cases, Joined, PatientRule, by_patient, join
from he2her2.evaluation.cautions import cautions
from he2her2.evaluation.choice import Applied, Reliability, Wishes, apply, choose, reliability
from he2her2.evaluation.guards import (
    provenance_known,
    refuse_shared,
    refuse_training_patients,
    training_patients,
)
from he2her2.evaluation.slide_properties import SlideProperties, slide_properties
from he2her2.evaluation.storing import same_model
from he2her2.evaluation.summary import Summary, equivocal, summarise
from he2her2.evaluation.versus import Versus, compare
from he2her2.files import sha256_of
from he2her2.labels import Policy
from he2her2.manifest import Manifest, Split, raise_problems, read_manifest
from he2her2.results import RunFolder, open_run

SplitChoice: TypeAlias = Literal["auto", "train", "val", "test", "all"]
Say: TypeAlias = Callable[[str], None]

PHANTOM_NOTICE = "phantom slides: they prove the machinery, never the medicine"
PROVENANCE_UNKNOWN = (
    "Nothing beside the run says which patients its weights were trained with, so nobody can exclude that some of them "
    "are evaluated here."
)
_PHANTOM_PREFIX = "phantom-"
NOT_A_TEST = "not a test: these patients trained or chose the weights"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an evaluation.

    Attributes:
        run: Folder of `he2her2 predict`.
        manifest: The labels.
        split: Which slides; "auto" is test where the manifest has a test split, else all.
        policy: What becomes of an equivocal 2+ without in situ hybridisation.
        rule: How a patient's probability follows from the slides.
        compare: Another run over the same slides.
        seeds: Runs over the same slides with weights of other seeds.
        validation: A run over validation slides, to choose on; None takes the run's own slides of split val, if any.
        validation_manifest: Their labels, where they are in another manifest.
        wishes: What may go wrong how often.
        reference: A run over slides like the training slides; None takes the validation slides.
        weights: Of the run, to redraw tiles.
        audit_slides: How many slides the tile audits read at most.
        seed: Of every draw.
        told: What the search for leaks told, to be repeated among the cautions.
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
    wishes: Wishes = field(default_factory=Wishes)
    reference: Path | None = None
    weights: str | None = None
    audit_slides: int = N_SLIDES
    seed: int = 0
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """The cases that a choice is made on.

    Attributes:
        run: Their run.
        joined: Them.
        name: What to call them.
    """

    run: RunFolder
    joined: Joined
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that is known of a run.

    Attributes:
        question: What was asked.
        run: The run.
        manifest_sha256: Of the manifest's file.
        split: Which slides were taken; None is all.
        joined: The cases, and what is missing.
        notices: What every page and plot must say.
        slides: Figures of the slides.
        patients: Figures of the patients.
        equivocal: Figures of the patients with IHC 2+.
        cautions: What limits the figures, in words.
        audits: What else could explain them.
        sites: Every site.
        versus: The comparison with another run, if one was asked for.
        reliability: What the patients' probabilities are worth.
        kept: What they are worth as the run corrected them, by the calibration kept with its weights; None without.
        validation: The cases on which a choice was made; None where there are none.
        applied: The choice, and what it does to the patients.
        at_choice: Figures of the patients at the operating point chosen.
    """

    question: Question
    run: RunFolder
    manifest_sha256: str
    split: Split | None
    joined: Joined
    notices: tuple[str, ...]
    slides: Summary
    patients: Summary
    equivocal: Summary
    cautions: tuple[str, ...]
    audits: tuple[Audit, ...]
    sites: tuple[SiteResult, ...]
    versus: Versus | None
    reliability: Reliability
    kept: Reliability | None
    validation: Validation | None
    applied: Applied | None
    at_choice: Summary | None


def evaluate(question: Question, say: Say = lambda _: None) -> Evaluation:
    """Evaluate a run.

    Args:
        question: What is asked.
        say: Told what goes on.

    Raises:
        EvaluationError: The run, or a run to compare with, cannot be evaluated.
        ManifestError: The manifest cannot be used.
    """
    run, manifest = open_run(question.run), read_manifest(question.manifest)
    raise_problems(manifest, manifest.problems)
    split = chosen_split(question.split, manifest)
    joined = _joined(run, manifest, split, question)
    shared = training_patients(run.path, manifest, joined.slides)
    if split not in ("train", "val"):
        refuse_training_patients(run.path, shared)
    say(f"{len(joined.slides)} slides of {len(joined.patients)} patients; measuring")
    patients = summarise(joined.patients, "patients", question.wishes.prevalence)
    subgroup = summarise(equivocal(joined.patients), "patients with IHC 2+")
    sites = site_results(joined.patients)
    versus = None
    if question.compare is not None:
        other = open_run(question.compare)
        names = (run.name, other.name) if run.name != other.name else (str(run.path), str(other.path))
        versus = compare(joined.patients, _joined(other, manifest, split, question).patients, names)
    validation = validation_of(question, run, manifest, split)
    applied, at_choice = (None, None) if validation is None else chosen(validation, joined.patients, question.wishes)
    say("auditing")
    return Evaluation(
        question,
        run,
        sha256_of(question.manifest),
        split,
        joined,
        notices_of(run, joined, split, chosen_with=bool(shared)),
        summarise(joined.slides, "slides", question.wishes.prevalence),
        patients,
        subgroup,
        (*cautions(joined, patients, subgroup, question.wishes.prevalence), *_provenance(run), *question.told),
        audits_of(question, run, joined, sites, validation),
        sites,
        versus,
        reliability(joined.patients),
        kept_reliability(run, joined),
        validation,
        applied,
        at_choice,
    )


def chosen(validation: Validation, patients: Cases, wishes: Wishes) -> tuple[Applied, Summary | None]:
    """What is chosen on the validation patients, what it does to the evaluated ones, and their figures with it.

    Raises:
        EvaluationError: A patient is among both.
    """
    refuse_shared(patients, validation.joined.patients)
    choice = choose(validation.joined.patients, validation.name, wishes)
    applied = apply(choice, patients, wishes.prevalence)
    if choice.point is None:
        return applied, None
    decided = patients.decided_at(choice.point.threshold)
    return applied, summarise(decided, "patients, chosen threshold", wishes.prevalence)


def kept_reliability(run: RunFolder, joined: Joined) -> Reliability | None:
    """What the probabilities are worth that the run corrected by the calibration kept with its weights."""
    corrected = run.probabilities(joined.slides.ids, "calibrated_probability")
    if np.isnan(corrected).any():
        return None
    patients, _ = by_patient(replace(joined.slides, probability=corrected), joined.rule)
    return reliability(patients)


def validation_of(question: Question, run: RunFolder, manifest: Manifest, split: Split | None) -> Validation | None:
    """The cases to choose on: those of the run given for it, or the run's own of split val; None without any.

    Raises:
        EvaluationError: The run given for it cannot be used, or was made with another model.
        ManifestError: Its manifest cannot be used.
    """
    if question.validation is None and split != "test":
        return None
    other = run if question.validation is None else open_run(question.validation)
    same_model(run, other)
    labels = manifest
    if question.validation_manifest is not None:
        labels = read_manifest(question.validation_manifest)
        raise_problems(labels, labels.problems)
    has_split = any(row.split == "val" for row in labels.rows)
    if question.validation is None and not any(
        row.split == "val" and row.slide_id in run.predictions for row in labels.rows
    ):
        return None
    joined = _joined(other, labels, "val" if has_split else None, question)
    return Validation(other, joined, f"{len(joined.patients)} patients of {labels.path.name}, run {other.name}")


def chosen_split(choice: SplitChoice, manifest: Manifest) -> Split | None:
    """The split to evaluate; None is all slides."""
    if choice == "auto":
        return "test" if any(row.split == "test" for row in manifest.rows) else None
    return None if choice == "all" else choice


def _joined(run: RunFolder, manifest: Manifest, split: Split | None, question: Question) -> Joined:
    return join(run, manifest, split=split, policy=question.policy, rule=question.rule)


def notices_of(run: RunFolder, joined: Joined, split: Split | None, *, chosen_with: bool) -> tuple[str, ...]:
    """What must be known before any figure: untrained or phantom weights, phantom slides, no test set."""
    found = list(run.notices)
    if any(name.startswith(_PHANTOM_PREFIX) for name in joined.slides.ids.tolist()):
        found.append(PHANTOM_NOTICE)
    if split in ("train", "val") or chosen_with:
        found.append(NOT_A_TEST)
    return tuple(dict.fromkeys(found))


def _provenance(run: RunFolder) -> tuple[str, ...]:
    if provenance_known(run.path):
        return ()
    return (PROVENANCE_UNKNOWN,)


def audits_of(
    question: Question,
    run: RunFolder,
    joined: Joined,
    sites: tuple[SiteResult, ...],
    validation: Validation | None,
) -> tuple[Audit, ...]:
    """Every audit of a run.

    Raises:
        EvaluationError: A run that was given for it cannot be used.
    """
    slides, patients = joined.slides, joined.patients
    properties = slide_properties(run, slides.ids)
    stability, heterogeneity = tile_audits(
        run,
        slides,
        aggregator_of(run.config, question.weights) if run.description.config else None,
        n_slides=question.audit_slides,
        seed=question.seed,
    )
    others = [open_run(path) for path in question.seeds]
    seeds = seeds_audit(slides, np.stack([other.probabilities(slides.ids) for other in (run, *others)]))
    return (
        shortcut_audit(patients, properties.of_patients(slides.patients, patients.ids), question.seed),
        site_audit(sites),
        domain_audit(properties, slides.patients, *_reference(question, joined, validation)),
        stability,
        seeds,
        heterogeneity,
    )


def _reference(question: Question, joined: Joined, validation: Validation | None) -> tuple[SlideProperties | None, str]:
    """The slides that the evaluated ones are measured against, and their run's name.

    Raises:
        EvaluationError: They are the evaluated slides themselves.
    """
    if question.reference is None:
        if validation is None:
            return None, ""
        return slide_properties(validation.run, validation.joined.slides.ids), f"validation run {validation.run.name}"
    run = open_run(question.reference)
    evaluated = set(joined.slides.ids.tolist())
    ids = np.array([slide_id for slide_id in run.predictions if slide_id not in evaluated])
    if not len(ids):
        raise EvaluationError(f"{run.path}: holds no slides but the evaluated ones; give a run over training slides")
    return slide_properties(run, ids), run.name
