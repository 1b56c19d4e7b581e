"""Evaluation of a run against its labels: figures, limitations, decision rules, audits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from he2her2.errors import EvaluationError, few_of
from he2her2.evaluation.audits import (
    Audit,
    SiteResult,
    domain_audit,
    not_done_without_slides,
    run_aggregator,
    seeds_audit,
    shift_audit,
    shortcut_audit,
    site_audit,
    site_results,
    subgroup_audit,
    tile_audits,
)
from he2her2.evaluation.benefit import NamedCurve, decision_curves
from he2her2.evaluation.cases import Cases, Joined
from he2her2.evaluation.comparison import RunComparison, compare_runs
from he2her2.evaluation.covariates import SideTables, read_side_tables
from he2her2.evaluation.endpoints import Endpoints, measure_endpoints, strata_of
from he2her2.evaluation.leakage import (
    add_validation_patients,
    check_disjoint,
    check_tested,
    check_weights,
    provenance_limitations,
    trained_with,
)
from he2her2.evaluation.limitations import (
    limitations,
    missing_limitations,
    run_limitations,
    run_notices,
)
from he2her2.evaluation.missing import MissingData, missing_data
from he2her2.evaluation.question import LabelledRun, Question, Validation, label_notes, read_labelled_run
from he2her2.evaluation.score_tables import Predictions, open_predictions
from he2her2.evaluation.slide_properties import SlideProperties, slide_properties, stated_properties
from he2her2.evaluation.summary import Reliability, Summary, equivocal, reliability, summarise
from he2her2.evaluation.thresholds import (
    AppliedRules,
    Budgets,
    ChosenRules,
    apply_rules,
    check_patient_rule,
    choose_rules,
)
from he2her2.files import sha256_of
from he2her2.manifest import PATIENTS_FILE, Split
from he2her2.models import hashes_of, write_rules
from he2her2.results import RunFolder, open_run
from he2her2.rules import RULES_FILE, logit_of
from he2her2.statistics import SHARES, WrongLabels, auc, if_labels_were_wrong, share_to_chance


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        question: Its inputs and options.
        predictions: The run, or another tool's scores.
        manifest_sha256: Of the manifest's file.
        split: Split of the evaluated slides; None is all.
        joined: The cases, and the slides left out.
        notices: For the head of every page and plot.
        slides: Figures of the slides.
        patients: Figures of the patients.
        equivocal: Figures of the patients with IHC 2+.
        limitations: Of the figures, in words.
        audits: Other explanations of the figures, looked for.
        sites: Every site.
        comparison: With another run, if one was given.
        reliability: Of the patients' probabilities; None where scores are no probabilities.
        kept: Reliability of the probabilities as corrected by the calibration kept with the weights; None without.
        benefit: Decision curves of the patients; none where scores are no probabilities.
        validation: Validation cases; without any the reason, in words.
        applied: Rules chosen on them, and their results on the patients.
        at_choice: Figures of the patients at the chosen operating point.
        missing: Patients without outcome or prediction, and bounds of the figures over what these could be.
        endpoints: The model at HER2-low and ultralow, and at each IHC score.
        wrong_labels: Figures of the patients if some of the labels were wrong; none where a class is absent.
        share_to_chance: Smallest share of wrong labels, at the worst places, that could leave an AUC of 0.5.
        stated: Properties of the slides that the manifest states, such as "scanner".
        read_as: How the tables were read, a sentence each.
    """

    question: Question
    predictions: Predictions
    manifest_sha256: str
    split: Split | None
    joined: Joined
    notices: tuple[str, ...]
    slides: Summary
    patients: Summary
    equivocal: Summary
    limitations: tuple[str, ...]
    audits: tuple[Audit, ...]
    sites: tuple[SiteResult, ...]
    comparison: RunComparison | None
    reliability: Reliability | None
    kept: Reliability | None
    benefit: tuple[NamedCurve, ...]
    validation: Validation | str
    applied: AppliedRules | None
    at_choice: Summary | None
    missing: MissingData
    endpoints: Endpoints
    wrong_labels: tuple[WrongLabels, ...]
    share_to_chance: float | None
    stated: tuple[str, ...] = ()
    read_as: tuple[str, ...] = ()

    @property
    def run(self) -> RunFolder:
        """The run, or another tool's scores in the form of one."""
        return self.predictions.run

    @property
    def groups(self) -> tuple[Summary, ...]:
        """Every group of cases that has figures; no slides where the scores are of patients."""
        slides = [self.slides] if self.predictions.level == "slide" else []
        return (self.patients, *slides, self.equivocal, *([self.at_choice] if self.at_choice else []))


def evaluate(question: Question, say: Callable[[str], None] = lambda _: None) -> Evaluation:
    """Evaluate a run.

    Args:
        question: Its inputs and options.
        say: Called with each step in words.

    Raises:
        EvaluationError: The run, or a run to compare with, cannot be evaluated.
        ManifestError: The manifest cannot be used.
    """
    labelled = read_labelled_run(question)
    run, manifest, joined = labelled.run, labelled.manifest, labelled.joined
    shared = check_tested(run.path, joined.slides, labelled.split)
    for path in question.seeds:
        check_tested(path, joined.slides, labelled.split)
    say(f"{len(joined.slides)} slides of {len(joined.patients)} patients; measuring")
    prevalence = question.budgets.prevalence
    patients = summarise(joined.patients, "patients", prevalence)
    subgroup = summarise(equivocal(joined.patients), "patients with IHC 2+")
    sites = site_results(joined.patients)
    comparison = _compared(labelled)
    validation = labelled.validation
    applied, at_choice = (
        (None, None) if isinstance(validation, str) else _chosen(validation, joined.patients, question.budgets)
    )
    missing = missing_data(run, joined)
    kept = _kept(run, joined)
    corrected = _corrected(applied, joined.patients) if kept is None else kept.probability
    tables = read_side_tables(question.covariates, question.by, question.features, manifest, joined.slides.ids)
    say("auditing")
    return Evaluation(
        question=question,
        predictions=labelled.predictions,
        manifest_sha256=sha256_of(question.manifest),
        split=labelled.split,
        joined=joined,
        notices=run_notices(run, joined, labelled.split, trained_with=bool(shared)),
        slides=summarise(joined.slides, "slides", prevalence),
        patients=patients,
        equivocal=subgroup,
        limitations=_limitations(labelled, patients, subgroup, missing),
        audits=_audits(labelled, sites, tables),
        sites=sites,
        comparison=comparison,
        reliability=reliability(joined.patients) if labelled.predictions.scale.is_probability else None,
        kept=None if kept is None else reliability(kept),
        benefit=_benefit(labelled, corrected),
        validation=validation,
        applied=applied,
        at_choice=at_choice,
        missing=missing,
        endpoints=measure_endpoints(joined.patients, joined.slides, strata_of(manifest, question.policy)),
        wrong_labels=_wrong_labels(joined.patients, question.seed),
        share_to_chance=_share_to_chance(joined.patients),
        stated=tuple(stated_properties(manifest)),
        read_as=_read_as(labelled, tables),
    )


def store_rules(evaluation: Evaluation, weights: Path) -> Path:
    """Keep the chosen rules beside the weights of the run, and the validation patients in their `patients.json`.

    Args:
        evaluation: Its rules are kept.
        weights: Folder of the weights.

    Returns:
        The file of the rules.

    Raises:
        EvaluationError: No rule could be chosen, or the weights are not the run's.
        OutputError: The folder cannot be written.
    """
    if evaluation.applied is None or isinstance(evaluation.validation, str):
        raise EvaluationError(f"there is nothing to store: {evaluation.validation}")
    choice = evaluation.applied.choice
    if choice.point is None and choice.triage is None:
        raise EvaluationError(f"there is nothing to store: {'; '.join(choice.refusals)}")
    cards = check_weights(evaluation.run, weights)
    # First: a rule without its patients could be tested on them.
    add_validation_patients(weights / PATIENTS_FILE, evaluation.validation.joined.patients.patients.tolist())
    write_rules(weights, choice.rules(hashes_of(cards)))
    return weights / RULES_FILE


def _compared(labelled: LabelledRun) -> RunComparison | None:
    """Comparison with the other run of the question; None without one.

    Raises:
        EvaluationError: That run cannot be used, or its weights were trained with the patients.
    """
    question, run = labelled.question, labelled.run
    if question.compare is None:
        return None
    opened = open_predictions(question.compare, labelled.manifest, question.reading)
    other = opened.run
    names = (run.name, other.name) if run.name != other.name else (str(run.path), str(other.path))
    compared = question.join(opened, labelled.manifest, labelled.split)
    check_patient_rule(other, compared)
    check_tested(other.path, compared.slides, labelled.split)
    return compare_runs(labelled.joined.patients, compared.patients, names)


def _chosen(validation: Validation, patients: Cases, budgets: Budgets) -> tuple[AppliedRules, Summary | None]:
    """Rules chosen on the validation patients, their results, and the figures at the chosen operating point.

    None are chosen on patients with whom the weights were trained.

    Raises:
        EvaluationError: A patient is among both.
    """
    found = validation.joined
    check_disjoint(patients, found.patients)
    if trained := trained_with(found.patients, validation.run.path):
        why = (
            f"{len(trained)} of the {len(found.patients)} validation patients trained the weights "
            f"({few_of(trained)}), and their probabilities are too good to choose on; mark them as train, or give "
            "--validation RUN over others"
        )
        choice = ChosenRules(
            validation.name, len(found.patients), found.patients.n_positive, None, None, None, refusals=(why,)
        )
    else:
        choice = choose_rules(found.patients, validation.name, budgets, found.rule, found.slides_per_patient)
    applied = apply_rules(choice, patients, budgets.prevalence)
    if choice.point is None:
        return applied, None
    decided = patients.decided_at(choice.point.threshold)
    return applied, summarise(decided, "patients, chosen threshold", budgets.prevalence)


def _kept(run: RunFolder, joined: Joined) -> Cases | None:
    """The patients with probabilities as the calibration kept with the run's weights corrects them; None without.

    It corrects a patient's probability, as in `patients.csv`, and not those of the slides before they are combined;
    its curve is read from that table and the slides, between which a patient's probability lies: that of a temperature
    exactly, and of an isotonic one where the table has the patient.
    """
    corrected = run.probabilities(joined.slides.ids, "calibrated_probability")
    if np.isnan(corrected).any():
        return None
    table = [one for one in run.patients if one.slides and one.calibrated_probability is not None]
    raw = np.append(joined.slides.probability, [one.probability for one in table])
    corrected = np.append(corrected, [one.calibrated_probability for one in table])
    before, first = np.unique(logit_of(raw), return_index=True)
    after = np.interp(logit_of(joined.patients.probability), before, logit_of(corrected)[first])
    return replace(joined.patients, probability=expit(after))


def _limitations(labelled: LabelledRun, patients: Summary, subgroup: Summary, missing: MissingData) -> tuple[str, ...]:
    """Limitations of the figures: of the cases, of those missing, of the run, of its weights, of leaks."""
    return (
        *limitations(labelled.joined, patients, subgroup, labelled.question.budgets.prevalence),
        *missing_limitations(missing),
        *run_limitations(labelled.run, labelled.joined),
        *provenance_limitations(labelled.run.path),
        *labelled.question.leak_notes,
    )


def _read_as(labelled: LabelledRun, tables: SideTables) -> tuple[str, ...]:
    """Sentences on the reading of scores, tables beside them and labels."""
    return (*labelled.predictions.notes, *tables.notes, *label_notes(labelled.manifest))


def _benefit(labelled: LabelledRun, corrected: NDArray[np.float64] | None) -> tuple[NamedCurve, ...]:
    if not labelled.predictions.scale.is_probability:
        return ()
    question = labelled.question
    return decision_curves(labelled.joined.patients, corrected, question.budgets.prevalence, question.seed)


def _wrong_labels(patients: Cases, seed: int) -> tuple[WrongLabels, ...]:
    if not 0 < patients.n_positive < len(patients):
        return ()
    arrays = patients.truth, patients.probability, patients.decided, patients.patients
    return tuple(if_labels_were_wrong(*arrays, share=share, seed=seed) for share in SHARES)


def _share_to_chance(patients: Cases) -> float | None:
    """The smallest share of wrong labels to an AUC of 0.5; None where it is no better, or a class is absent."""
    area = auc(patients.truth, patients.probability)
    return share_to_chance(patients.truth, patients.probability) if area > 0.5 else None


def _corrected(applied: AppliedRules | None, patients: Cases) -> NDArray[np.float64] | None:
    """(n,) probabilities as the calibration that was chosen on validation patients corrects them; None without."""
    if applied is None or applied.choice.calibration is None:
        return None
    return applied.choice.calibration(patients.probability)


def _audits(labelled: LabelledRun, sites: tuple[SiteResult, ...], tables: SideTables) -> tuple[Audit, ...]:
    """Every audit of a run.

    Raises:
        EvaluationError: A run that was given for an audit cannot be used.
    """
    question, manifest, run = labelled.question, labelled.manifest, labelled.run
    # By name: audits draw at random, and the order of a manifest's rows shall change no figure.
    slides, patients = (of.take(np.argsort(of.ids)) for of in (labelled.joined.slides, labelled.joined.patients))
    properties = tables.covariates.added_to(slide_properties(run, slides.ids, stated_properties(manifest)))
    named = tables.columns.added_to(SlideProperties(slides.ids, {})).of_patients(slides.patients, patients.ids)
    features = tables.features and tables.features.of_patients(slides.ids, slides.patients)
    if question.weights is not None and not run.description.config:
        raise EvaluationError(f"{run.path}: has no tiles that --weights could redraw; leave --weights out")
    aggregator = run_aggregator(run.config, question.weights) if run.description.config else None
    of_slides = (
        domain_audit(properties, slides.patients, *_reference(labelled)),
        *tile_audits(run, slides, aggregator, n_slides=question.audit_slides, seed=question.seed),
    )
    domain, stability, heterogeneity = (
        audit if audit.done or run.description.config else not_done_without_slides(audit) for audit in of_slides
    )
    seeds = seeds_audit(slides, np.stack([one.probabilities(slides.ids) for one in (run, *labelled.seeds)]))
    return (
        shortcut_audit(patients, properties.of_patients(slides.patients, patients.ids), question.seed),
        subgroup_audit(
            patients, named.values, named.categories, is_probability=labelled.predictions.scale.is_probability
        ),
        site_audit(sites),
        shift_audit(patients, features, question.seed),
        domain,
        stability,
        seeds,
        heterogeneity,
    )


def _reference(labelled: LabelledRun) -> tuple[SlideProperties | None, str]:
    """Properties of the reference slides of the domain audit, and their run's name.

    Raises:
        EvaluationError: They are the evaluated slides themselves.
    """
    if labelled.question.reference is None:
        validation = labelled.validation
        if isinstance(validation, str):
            return None, ""
        return slide_properties(validation.run, validation.joined.slides.ids), f"validation run {validation.run.name}"
    run = open_run(labelled.question.reference)
    evaluated = set(labelled.joined.slides.ids.tolist())
    ids = np.array([slide_id for slide_id in run.predictions if slide_id not in evaluated])
    if not len(ids):
        raise EvaluationError(f"{run.path}: holds no slides but the evaluated ones; give a run over training slides")
    return slide_properties(run, ids), run.name
