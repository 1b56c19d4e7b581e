"""Fit the probabilities of finished weights to a new site from few of its labelled slides, into weights of its own."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import EvaluationError, OutputError
from he2her2.evaluation.cases import Cases, PatientRule, join
from he2her2.evaluation.choice import Calibration
from he2her2.evaluation.storing import add_patients, check_weights
from he2her2.evaluation.words import span
from he2her2.files import atomic
from he2her2.labels import Policy
from he2her2.manifest import PATIENTS_FILE, Manifest, hashed_patient, patients_used
from he2her2.models.stored_rules import hashes_of, read_rules, write_rules
from he2her2.results import RunFolder
from he2her2.rules import DecisionRules, IsotonicCalibration, LogitCalibration
from he2her2.statistics.calibration import brier_interval, recalibrate_site
from he2her2.statistics.intervals import Estimate
from he2her2.statistics.operating_point import positives_needed

FOLDS = 20


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What few patients of a site made of the probabilities.

    Attributes:
        n_positive: Of the patients.
        rules: With the calibration for the site; operating point and triage are those that were.
        learnt: The step that was added, from the probabilities before.
        before: Brier score before.
        after: Brier score when each patient is corrected by what the others teach.
    """

    n_positive: int
    rules: DecisionRules
    learnt: LogitCalibration
    before: Estimate
    after: Estimate


def sentences(found: Recalibration) -> Iterator[str]:
    """What was learnt, what it is worth, and what it does not do."""
    step, point, triage = found.learnt, found.rules.operating_point, found.rules.triage
    yield (
        f"Calibrated on {step.chosen_on} ({found.n_positive} positive): logit p' = {step.slope:.2f} logit p "
        f"{step.shift:+.2f}. Each corrected by what the others teach, their Brier score goes from "
        f"{span(found.before, 3)} to {span(found.after, 3)}."
    )
    if point is not None:
        yield (
            "CAUTION the operating point stays as it was and promises nothing for this site; that takes "
            f"{positives_needed(point.budget, point.confidence)} positive validation patients of it (evaluate --store)."
        )
    if triage is not None:
        yield "CAUTION the triage stays as it was and promises nothing for this site."


def patients_of_site(
    run: RunFolder, manifest: Manifest, site: str | None, *, policy: Policy, rule: PatientRule
) -> Cases:
    """The labelled patients of a site that may teach: of split val, or of none.

    Args:
        run: Over their slides.
        manifest: Their labels.
        site: Of the manifest's column; None takes all.
        policy: What becomes of an open 2+.
        rule: How a patient's probability follows from the slides.

    Raises:
        EvaluationError: There are none.
    """
    rows = manifest.rows
    if site is not None:
        rows = tuple(row for row in rows if row.site == site)
        if not rows:
            known = ", ".join(sorted({row.site for row in manifest.rows if row.site})) or "none"
            raise EvaluationError(f"{manifest.path}: has no slide of site {site}; its sites are {known}")
    kept = tuple(row for row in rows if row.split in (None, "val"))
    if not kept:
        raise EvaluationError(
            f"{manifest.path}: its {len(rows)} slides are of split train or test, which may not calibrate; mark slides "
            "of the site as val"
        )
    return join(run, replace(manifest, rows=kept), policy=policy, rule=rule).patients


def recalibrate(run: RunFolder, weights: Path, patients: Cases, chosen_on: str) -> Recalibration:
    """Learn a site's calibration on top of the one that the weights have.

    Args:
        run: That the probabilities come from.
        weights: Folder that the run was made with.
        patients: Labelled patients of the site.
        chosen_on: What to call them.

    Raises:
        EvaluationError: The run was made with other weights, or patients trained them.
        WeightsError: The rules kept with the weights cannot be read.
    """
    cards = check_weights(run, weights)
    trained = patients_used(weights).trained
    if taught := [name for name in patients.ids.tolist() if hashed_patient(name) in trained]:
        raise EvaluationError(
            f"{weights}: were trained with {len(taught)} of these patients ({', '.join(taught[:5])}), whose "
            "probabilities are too good to calibrate on; give others"
        )
    rules = read_rules(weights, cards) or DecisionRules(hashes_of(cards))
    base = patients.probability if rules.calibration is None else rules.calibration(patients.probability)
    learnt = recalibrate_site(patients.truth, base, chosen_on=chosen_on)
    return Recalibration(
        patients.n_positive,
        replace(rules, calibration=one_after_other(rules.calibration, learnt)),
        learnt,
        brier_interval(patients.truth, base),
        brier_interval(patients.truth, left_out_in_turn(patients.truth, base)),
    )


def one_after_other(first: Calibration | None, then: LogitCalibration) -> Calibration:
    """Both corrections as one; of a curve its knots are moved, between which it stays straight."""
    if first is None:
        return then
    chosen_on = f"{first.chosen_on}; then {then.chosen_on}"
    if isinstance(first, IsotonicCalibration):
        return IsotonicCalibration(first.x, tuple(then(first.y).tolist()), chosen_on)
    return LogitCalibration(then.slope * first.slope, then.slope * first.shift + then.shift, chosen_on)


def left_out_in_turn(truth: NDArray[np.bool_], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) probabilities, each corrected by what patients other than it teach, in at most `FOLDS` parts."""
    part = np.arange(len(truth)) % FOLDS
    found = np.empty(len(truth))
    for k in np.unique(part):
        out = part == k
        found[out] = recalibrate_site(truth[~out], probability[~out], chosen_on="the others")(probability[out])
    return found


def write_for_site(found: Recalibration, patients: Cases, weights: Path, out: Path) -> None:
    """Copy the weights with the site's calibration, and with its patients among those who had a say.

    Raises:
        OutputError: `out` is there already, or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out for the site's weights")
    with atomic(out) as draft:
        shutil.copytree(weights, draft)
        add_patients(draft / PATIENTS_FILE, patients.patients.tolist())
        write_rules(draft, found.rules)
