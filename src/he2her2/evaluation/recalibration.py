"""Recalibration of finished weights for a new site from few of its labelled slides."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import EvaluationError, OutputError, few_of
from he2her2.evaluation.cases import Cases, join
from he2her2.evaluation.leakage import add_validation_patients, check_weights, trained_with
from he2her2.files import atomic
from he2her2.labels import Policy
from he2her2.manifest import PATIENTS_FILE, Manifest
from he2her2.models import hashes_of, read_rules, write_rules
from he2her2.pages import render
from he2her2.results import RunFolder
from he2her2.rules import Calibration, DecisionRules, IsotonicCalibration, LogitCalibration, PatientRule
from he2her2.statistics import Estimate, brier_interval, positives_needed, recalibrate_site

_FOLDS = 20
_NEEDED_OF_EACH = 2
"""Patients of each class: with fewer, those who are left are of one class only when one is left out."""


@dataclass(frozen=True, slots=True, eq=False)
class SitePatients:
    """Patients of a site, and those of them who may be calibrated on: without a slide of split train or test.

    Attributes:
        cases: Labelled and predicted ones who may be calibrated on.
        n: All patients of the site in the manifest.
        n_train_or_test: Those with a slide of split train or test, who are never used.
    """

    cases: Cases
    n: int
    n_train_or_test: int

    @property
    def n_unusable(self) -> int:
        """Patients who may be calibrated on, but for a label or prediction that they lack."""
        return self.n - self.n_train_or_test - len(self.cases)


@dataclass(frozen=True, slots=True)
class Recalibration:
    """Calibration for a site.

    Attributes:
        n: Number of patients.
        n_positive: Number of positive ones.
        rules: Rules of the weights with the calibration for the site; operating point and triage are unchanged.
        learned: The correction that was added to the former one.
        before: Brier score before.
        after: Brier score with each patient corrected by the calibration of the others.
        threshold: The probability from which the weights call a patient positive, before any correction.
    """

    n: int
    n_positive: int
    rules: DecisionRules
    learned: LogitCalibration
    before: Estimate
    after: Estimate
    threshold: float

    @property
    def calibrated_threshold(self) -> float:
        """The same threshold on the scale of the corrected probabilities."""
        assert self.rules.calibration is not None
        return float(self.rules.calibration(self.threshold))


def recalibration_lines(found: Recalibration, site: SitePatients, weights: Path) -> str:
    """Lines to print after a recalibration.

    Args:
        found: The calibration.
        site: The patients of the site.
        weights: Folder of the site's weights.
    """
    point = found.rules.operating_point
    needed = None if point is None else positives_needed(point.budget, point.confidence)
    return render("recalibration.txt", found=found, site=site, needed=needed, weights=weights).rstrip("\n")


def patients_of_site(
    run: RunFolder, manifest: Manifest, site: str | None, *, policy: Policy, rule: PatientRule
) -> SitePatients:
    """The labelled patients of a site on whom may be calibrated: with no slide of split train or test.

    Args:
        run: Over their slides.
        manifest: Their labels.
        site: Of the manifest's column; None takes all.
        policy: For an equivocal 2+ without in situ hybridisation.
        rule: A patient's probability from those of the slides.

    Raises:
        EvaluationError: There are none.
    """
    rows = manifest.rows
    if site is not None:
        rows = tuple(row for row in rows if row.site == site)
        if not rows:
            known = ", ".join(sorted({row.site for row in manifest.rows if row.site})) or "none"
            raise EvaluationError(f"{manifest.path}: has no slide of site {site}; its sites are {known}")
    barred = {row.patient for row in manifest.rows if row.split in ("train", "test")}
    kept = tuple(row for row in rows if row.patient not in barred)
    every = {row.patient for row in rows}
    if not kept:
        raise EvaluationError(
            f"{manifest.path}: all patients of its {len(rows)} slides have slides of split train or test, which are no "
            "calibration patients; mark all slides of some patients of the site as val"
        )
    cases = join(run, replace(manifest, rows=kept), policy=policy, rule=rule).patients
    return SitePatients(cases, len(every), len(every & barred))


def recalibrate_weights(run: RunFolder, weights: Path, patients: Cases, chosen_on: str) -> Recalibration:
    """Fit a site's calibration on top of the one that the weights have.

    Args:
        run: Over the patients' slides.
        weights: Folder that the run was predicted with.
        patients: Labelled patients of the site.
        chosen_on: Their name.

    Raises:
        EvaluationError: The run was made with other weights, patients trained them, fewer than 2 patients are positive
            or negative, or the correction makes the probabilities of patients that are left out worse.
        WeightsError: The rules kept with the weights cannot be read.
    """
    cards = check_weights(run, weights)
    if trained := trained_with(patients, weights):
        raise EvaluationError(
            f"{weights}: were trained with {len(trained)} of these patients ({few_of(trained)}), whose "
            "probabilities are too good to calibrate on; give others"
        )
    n_negative = len(patients) - patients.n_positive
    if min(patients.n_positive, n_negative) < _NEEDED_OF_EACH:
        raise EvaluationError(
            f"{chosen_on}: {patients.n_positive} positive and {n_negative} negative were found, and at least "
            f"{_NEEDED_OF_EACH} of each are needed to check the correction on patients left out of it; give more "
            "labelled patients of the site"
        )
    rules = read_rules(weights, cards) or DecisionRules(hashes_of(cards))
    base = patients.probability if rules.calibration is None else rules.calibration(patients.probability)
    learned = recalibrate_site(patients.truth, base, chosen_on=chosen_on)
    before = brier_interval(patients.truth, base)
    after = brier_interval(patients.truth, _left_out_in_turn(patients.truth, base))
    if after.value > before.value:
        raise EvaluationError(
            f"{weights}: the correction learned on {chosen_on} makes the probabilities of patients left out worse "
            f"(Brier score {before.value:.3f} to {after.value:.3f}, n = {len(patients)}), so nothing is written; use "
            "these weights as they are, or give more labelled patients of the site"
        )
    point = rules.operating_point
    return Recalibration(
        len(patients),
        patients.n_positive,
        replace(rules, calibration=_combined(rules.calibration, learned)),
        learned,
        before,
        after,
        run.threshold if point is None else point.threshold,
    )


def _combined(first: Calibration | None, then: LogitCalibration) -> Calibration:
    """Both corrections as one; a curve stays piecewise linear between its corrected knots."""
    if first is None:
        return then
    chosen_on = f"{first.chosen_on}; then {then.chosen_on}"
    if isinstance(first, IsotonicCalibration):
        return IsotonicCalibration(first.x, tuple(then(first.y).tolist()), chosen_on)
    return LogitCalibration(then.slope * first.slope, then.slope * first.shift + then.shift, chosen_on)


def _left_out_in_turn(truth: NDArray[np.bool_], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) probabilities, each corrected by a calibration on other patients, in at most 20 folds.

    The folds are stratified: with at least 2 patients of each class, the others always contain both.
    """
    part = np.empty(len(truth), dtype=np.int64)
    part[np.argsort(truth, kind="stable")] = np.arange(len(truth)) % _FOLDS
    found = np.empty(len(truth))
    for k in np.unique(part):
        out = part == k
        found[out] = recalibrate_site(truth[~out], probability[~out], chosen_on="the others")(probability[out])
    return found


def write_recalibrated(found: Recalibration, patients: Cases, weights: Path, out: Path) -> None:
    """Copy the weights with the site's calibration, its patients named among the validation patients.

    Raises:
        OutputError: `out` is there already, or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out for the site's weights")
    with atomic(out) as draft:
        shutil.copytree(weights, draft)
        add_validation_patients(draft / PATIENTS_FILE, patients.patients.tolist())
        write_rules(draft, found.rules)
