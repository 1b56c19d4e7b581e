"""Does an operating point miss no more positives of fresh patients than it promised?

Two parts. `patients` simulates patients of 1, 2 and 4 slides: validation patients are joined and rules chosen by the
code of `evaluate`, and patients to come are called as `predict` calls them, by `rules.combine` and the point; beside
it stands what slide by slide would make of the same rules. `phantoms` uses pictures:

Small phantom slides are drawn once and scored by one feature of their pixels, the spread of the nuclear areas, through
a fixed logistic curve: no network, so nothing is learnt on them. 200 times a validation cohort and a fresh one, without
a phantom in common, are taken from this pool; the operating point and the triage are chosen on the one and counted on
the other. What counts is the share missed in the fresh cohort itself, the luck of its draw included. Beside it stands
what theory says of scores without ties: every order of the phantoms is equally likely, so it is a sum of chances.

Run: python -m experiments.operating_promise [--part patients] [--repeats 500]
     [--positives 500] [--negatives 250] [--signal 0.5]
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from experiments.phantom_realism import nuclear_areas
from experiments.phantom_signal import spec_of
from numpy.typing import NDArray
from scipy.stats import betabinom

from he2her2.evaluation import Budgets, Cases
from he2her2.evaluation.cases import by_patient
from he2her2.evaluation.thresholds import choose_rules
from he2her2.files import write_text
from he2her2.phantom import Painter, Window
from he2her2.rules import DIGITS, OperatingPoint, PatientRule, Triage, combine
from he2her2.statistics import auc_interval, choose_operating_point, choose_triage, exact_binomial
from he2her2.statistics.operating_point import highest_rank

RESULTS = Path(__file__).resolve().parent / "results"
SIZE_PX = (768, 768)
BUDGETS = (0.05, 0.1, 0.2)
FALSE_BUDGET = 0.1
CONFIDENCE = 0.95
COHORT = {True: 100, False: 50}
"""Positives and negatives of a validation cohort, and of a fresh one."""


@dataclass(frozen=True)
class Phantoms:
    """Scored phantoms."""

    truth: NDArray[np.bool_]
    probability: NDArray[np.float64]

    def take(self, index: NDArray[np.intp]) -> "Phantoms":
        """Some of them."""
        return Phantoms(self.truth[index], self.probability[index])


def drawn(n_positive: int, n_negative: int, signal: float) -> Phantoms:
    """Draw phantoms and score them."""
    truth = np.arange(n_positive + n_negative) < n_positive
    spread = np.array([spread_of(k, positive=bool(positive), signal=signal) for k, positive in enumerate(truth)])
    centred = (spread - np.median(spread)) / spread.std()
    return Phantoms(truth, np.round(1 / (1 + np.exp(-2 * centred)), 6))


def spread_of(k: int, *, positive: bool, signal: float) -> float:
    """Standard deviation of the nuclear areas of a phantom, in µm²."""
    spec = replace(spec_of(k, positive=positive, signal=signal), size_px=SIZE_PX)
    rgb = Painter.of(spec).pixels(Window(0, 0, *spec.size_px, spec.mpp))[0][..., :3]
    return float(nuclear_areas(rgb, "HE").std())


def parted(phantoms: Phantoms, rng: np.random.Generator) -> tuple[Phantoms, Phantoms]:
    """A validation cohort and a fresh one."""
    mixed = [rng.permutation(np.flatnonzero(phantoms.truth == kind)) for kind in COHORT]
    sizes = COHORT.values()
    known = np.concatenate([members[:n] for members, n in zip(mixed, sizes, strict=True)])
    fresh = np.concatenate([members[n : 2 * n] for members, n in zip(mixed, sizes, strict=True)])
    return phantoms.take(known), phantoms.take(fresh)


@dataclass(frozen=True)
class Kept:
    """Share of repeats in which the guarantee of one budget was kept.

    Attributes:
        budget: Share of positives that may be missed.
        validation_positives: Phantoms that each choice rests on.
        fresh_positives: Phantoms that it is counted on.
        within: In how many repeats the share missed was within the budget.
        repeats: Of how many.
        expected: Share of repeats within the budget by theory.
        missed: Mean share of fresh positives missed.
        saved: Mean share of fresh phantoms called negative.
        ruled_out: Mean share of fresh positives that the triage rules out.
        ruled_in: Mean share of fresh negatives that it rules in.
    """

    budget: float
    validation_positives: int
    fresh_positives: int
    within: int
    repeats: int
    expected: float
    missed: float
    saved: float
    ruled_out: float
    ruled_in: float


def repeated(phantoms: Phantoms, budget: float, repeats: int) -> Kept:
    """Part, choose and count so many times."""
    rng = np.random.default_rng(0)
    parts = [parted(phantoms, rng) for _ in range(repeats)]
    shares = np.array([counted(known, fresh, budget) for known, fresh in parts])  # (repeats, 4)
    known, fresh = parts[0]
    within = int((shares[:, 0] <= budget + 1e-9).sum())
    positives = int(known.truth.sum()), int(fresh.truth.sum())
    return Kept(budget, *positives, within, repeats, chance(budget, *positives), *shares.mean(axis=0).tolist())


def chance(budget: float, n_known: int, n_fresh: int) -> float:
    """That a promise is kept when scores have no ties: ranks among all positives are a draw without replacement."""
    rank = highest_rank(n_known, budget, CONFIDENCE, n_fresh)
    return float(betabinom.cdf(math.floor(budget * n_fresh + 1e-9), n_fresh, rank, n_known + 1 - rank))


def counted(known: Phantoms, fresh: Phantoms, budget: float) -> tuple[float, float, float, float]:
    """Choose on the known phantoms; shares of the fresh ones missed, saved, ruled out and ruled in."""
    positives, negatives = fresh.probability[fresh.truth], fresh.probability[~fresh.truth]
    validation = known.truth, known.probability
    point = choose_operating_point(
        *validation, budget=budget, confidence=CONFIDENCE, chosen_on="phantoms", n_fresh=len(positives)
    )
    triage = choose_triage(*validation, miss_budget=budget, false_budget=FALSE_BUDGET, chosen_on="phantoms")
    return (
        float((positives < point.threshold).mean()),
        float((fresh.probability < point.threshold).mean()),
        float((positives < triage.rule_out_below).mean()),
        float((negatives >= triage.rule_in_from).mean()),
    )


def as_markdown(phantoms: Phantoms, signal: float, rows: Sequence[Kept]) -> Iterator[str]:
    """The page of results."""
    area = auc_interval(phantoms.truth, phantoms.probability)
    yield "# Does an operating point keep its promise on fresh phantoms?\n"
    yield (
        f"{phantoms.truth.sum()} HER2-positive and {(~phantoms.truth).sum()} negative phantom slides (signal {signal}) "
        f"are scored by the spread of their nuclear areas (AUC {area.text()}). {rows[0].repeats} times a validation "
        "cohort and a fresh one are taken from them. Kept: the share missed among the fresh positives is within the "
        f"budget, promised for {CONFIDENCE:.0%}. Triage promises its budgets on average ({FALSE_BUDGET:.0%} of the "
        "negatives ruled in).\n"
    )
    yield (
        "| budget | validation positives | fresh positives | kept | by theory | missed | IHC saved | ruled out "
        "| ruled in |"
    )
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        kept = exact_binomial(row.within, row.repeats).percent(1)
        means = " | ".join(f"{share:.1%}" for share in (row.missed, row.saved, row.ruled_out, row.ruled_in))
        counts = f"{row.budget:.0%} | {row.validation_positives} | {row.fresh_positives}"
        yield f"| {counts} | {kept} | {row.expected:.1%} | {means} |"


N_PATIENTS = {True: 100, False: 200}
"""Positive and negative validation patients of a simulated cohort."""

BUDGET = 0.1
N_FRESH = 20_000
"""Patients to come of each class, so many that the share missed is that of the population."""

AMONG_PATIENTS, AMONG_SLIDES, GAP = 1.0, 0.8, 2.0
"""Of the logits: standard deviation of patients, of a patient's slides, and difference of the classes."""


@dataclass(frozen=True)
class KeptForPatients:
    """Share of repeats in which the guarantees were kept for simulated patients of several slides.

    Attributes:
        rule: A patient's probability from those of the slides.
        chosen_with: Slides of a validation patient.
        applied_with: Slides of a patient to come.
        repeats: How many.
        kept: Repeats in which at most the budget of the patients to come were missed.
        missed: Mean share of positive patients missed.
        kept_by_slide: As `kept`, for slides that are called one by one.
        ruled_out: Mean share of positive patients that the triage rules out.
        ruled_in: Mean share of negative patients that it rules in.
        ruled_out_by_slide: Mean share of positive patients' slides that it rules out.
    """

    rule: PatientRule
    chosen_with: int
    applied_with: int
    repeats: int
    kept: int
    missed: float
    kept_by_slide: int
    ruled_out: float
    ruled_in: float
    ruled_out_by_slide: float

    @property
    def holds(self) -> bool:
        """True if kept in at least 95 % of repeats, less two standard errors."""
        return self.kept / self.repeats >= CONFIDENCE - 2 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / self.repeats)


def slides_of(truth: NDArray[np.bool_], n_slides: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, n_slides) probabilities as predictions write them."""
    patient = GAP * truth - 1 + AMONG_PATIENTS * rng.normal(size=len(truth))
    logits = patient[:, None] + AMONG_SLIDES * rng.normal(size=(len(truth), n_slides))
    written: NDArray[np.float64] = np.round(1 / (1 + np.exp(-logits)), DIGITS)
    return written


def as_cases(truth: NDArray[np.bool_], probability: NDArray[np.float64]) -> Cases:
    """Slides as evaluation holds them."""
    n, k = probability.shape
    ids, owner = (np.array([f"{i:06d}" for i in order]) for order in (np.arange(n * k), np.repeat(np.arange(n), k)))
    flat, unknown = probability.ravel(), np.full(n * k, -1)
    return Cases("slide", ids, owner, np.full(n * k, ""), np.repeat(truth, k), flat, flat >= 0.5, unknown, unknown, 0.5)


def chosen_on(n_slides: int, rule: PatientRule, rng: np.random.Generator) -> tuple[OperatingPoint, Triage]:
    """Rules that `evaluate` chooses on simulated validation patients."""
    truth = np.repeat(list(N_PATIENTS), list(N_PATIENTS.values()))
    patients, _ = by_patient(as_cases(truth, slides_of(truth, n_slides, rng)), rule)
    budgets = Budgets(miss=BUDGET, false=FALSE_BUDGET, confidence=CONFIDENCE, calibration="none")
    choice = choose_rules(patients, "simulated patients", budgets, rule, (n_slides, n_slides))
    assert choice.point is not None
    assert choice.triage is not None
    return choice.point, choice.triage


def for_patients(rule: PatientRule, chosen_with: int, applied_with: int, repeats: int) -> KeptForPatients:
    """Choose so many times, and apply to the same many patients to come."""
    rng = np.random.default_rng((chosen_with, applied_with))
    truth = np.repeat([True, False], N_FRESH)
    slides = slides_of(truth, applied_with, rng)
    patients = np.round([combine(rule, of_patient) for of_patient in slides], DIGITS)
    rules = [chosen_on(chosen_with, rule, rng) for _ in range(repeats)]
    missed = np.array([(patients[truth] < point.threshold).mean() for point, _ in rules])
    by_slide = np.array([(slides[truth] < point.threshold).mean() for point, _ in rules])
    return KeptForPatients(
        rule,
        chosen_with,
        applied_with,
        repeats,
        int((missed <= BUDGET).sum()),
        float(missed.mean()),
        int((by_slide <= BUDGET).sum()),
        float(np.mean([(patients[truth] < triage.rule_out_below).mean() for _, triage in rules])),
        float(np.mean([(patients[~truth] >= triage.rule_in_from).mean() for _, triage in rules])),
        float(np.mean([(slides[truth] < triage.rule_out_below).mean() for _, triage in rules])),
    )


def patients_as_markdown(rows: Sequence[KeptForPatients]) -> Iterator[str]:
    """The page of simulated patients."""
    yield "# Is the promise kept for patients of several slides?\n"
    yield (
        f"{rows[0].repeats} times rules are chosen on {N_PATIENTS[True]} HER2-positive and {N_PATIENTS[False]} "
        f"negative simulated patients (at most {BUDGET:.0%} of positives missed, {CONFIDENCE:.0%} confidence; triage: "
        f"on average {BUDGET:.0%} of positives ruled out and {FALSE_BUDGET:.0%} of negatives ruled in) and applied to "
        f"{N_FRESH} patients to come of each class: as `predict` does, to the patient, and slide by slide. Kept: at "
        "most the budget is missed. Where the patients to come have other numbers of slides than the validation "
        "patients nothing is promised; the last rows show why.\n"
    )
    yield (
        "| slides joined by | slides of a validation patient | of a patient to come | kept | as promised | missed "
        "| ruled out | ruled in | kept, slide by slide | ruled out, slide by slide |"
    )
    yield "|:--|--:|--:|--:|:--|--:|--:|--:|--:|--:|"
    for row in rows:
        kept = exact_binomial(row.kept, row.repeats).percent(1)
        promised = "nothing promised" if row.chosen_with != row.applied_with else "yes" if row.holds else "NO"
        shares = " | ".join(f"{share:.1%}" for share in (row.missed, row.ruled_out, row.ruled_in))
        by_slide = f"{row.kept_by_slide / row.repeats:.1%} | {row.ruled_out_by_slide:.1%}"
        head = f"{row.rule} | {row.chosen_with} | {row.applied_with}"
        yield f"| {head} | {kept} | {promised} | {shares} | {by_slide} |"


def write_patients(repeats: int, out: Path) -> None:
    """Simulate patients and write the results."""
    rules: tuple[PatientRule, ...] = ("mean", "max")
    same = [for_patients(rule, k, k, repeats) for rule in rules for k in (1, 2, 4)]
    other = [for_patients(rule, k, m, repeats) for rule in rules for k, m in ((1, 4), (4, 1))]
    text = "\n".join(patients_as_markdown([*same, *other])) + "\n"
    print(text)
    write_text(out / "operating_promise_patients.md", text)
    found = {"rows": [asdict(row) for row in (*same, *other)]}
    write_text(out / "operating_promise_patients.json", json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Draw, repeat and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("both", "patients", "phantoms"), default="both")
    parser.add_argument("--positives", type=int, default=500)
    parser.add_argument("--negatives", type=int, default=250)
    parser.add_argument("--repeats", type=int, help="default: 500 simulated patients, 200 cohorts of phantoms")
    parser.add_argument("--signal", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.part != "phantoms":
        write_patients(options.repeats or 500, options.out)
    if options.part == "patients":
        return
    phantoms = drawn(options.positives, options.negatives, options.signal)
    rows = [repeated(phantoms, budget, options.repeats or 200) for budget in BUDGETS]
    text = "\n".join(as_markdown(phantoms, options.signal, rows)) + "\n"
    print(text)
    write_text(options.out / "operating_promise.md", text)
    found = {"signal": options.signal, "rows": [asdict(row) for row in rows]}
    write_text(options.out / "operating_promise.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
