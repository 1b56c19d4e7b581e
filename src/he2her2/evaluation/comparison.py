"""Comparison of runs on the same patients by paired tests: of two, and of any number, corrected for their pairs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from he2her2.errors import EvaluationError
from he2her2.evaluation.cases import CaseLevel, Cases, Joined, join, named_as_in_run
from he2her2.evaluation.leakage import check_tested
from he2her2.evaluation.limitations import run_notices
from he2her2.evaluation.question import SplitChoice, chosen_split, label_notes
from he2her2.evaluation.score_tables import ScoreReading, check_reading, open_predictions, read_study_manifest
from he2her2.evaluation.summary import Summary, summarise
from he2her2.evaluation.thresholds import check_patient_rule
from he2her2.labels import Policy
from he2her2.pages import p_value_in_words
from he2her2.rules import PatientRule
from he2her2.statistics import (
    Difference,
    Estimate,
    McNemar,
    auc_interval,
    aucs_equal,
    delong_difference,
    holm,
    mcnemar,
    rate_difference,
)

ALPHA = 0.05
"""A difference is claimed below this p-value."""

_MOST_PAIRS = 21  # those of 7 runs, or of 22 with the first


@dataclass(frozen=True, slots=True)
class RunComparison:
    """The evaluated run against another one.

    Attributes:
        first: Name of the evaluated run.
        second: Name of the other.
        n: Cases that both have.
        only_first: Cases that the other lacks, or has by slides of the other label.
        only_second: Likewise, of the other.
        aucs: Of both, on the shared cases.
        auc: Difference of the AUCs.
        rates: Differences of accuracy, sensitivity and specificity, first less second.
        mcnemar: Test of the decisions.
        level: Slide or patient.
    """

    first: str
    second: str
    n: int
    only_first: int
    only_second: int
    aucs: tuple[Estimate, Estimate]
    auc: Difference
    rates: Mapping[str, Estimate]
    mcnemar: McNemar
    level: CaseLevel

    @property
    def sentence(self) -> str:
        """The conclusion of this comparison alone."""
        return self.concluded(self.auc.p_value, self.mcnemar.exact)

    def concluded(self, auc_p: float, mcnemar_p: float, n_pairs: int = 1) -> str:
        """The conclusion; a difference is claimed where its p-value is below 0.05, and not by an interval.

        Args:
            auc_p: P-value of the difference of the AUCs, adjusted for the pairs; nan where it is unknown.
            mcnemar_p: Likewise, of the decisions.
            n_pairs: Number of pairs of runs that are compared.
        """
        names, gap, test = (self.first, self.second), self.auc.estimate, self.mcnemar
        alone, adjusted = (" for this pair alone", f" by Holm for {n_pairs} pairs") if n_pairs > 1 else ("", "")
        p = p_value_in_words(auc_p) + ("" if math.isnan(auc_p) else adjusted)
        figures = (
            f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}{alone}, paired DeLong, {p}, n = {self.n} "
            f"{self.level}s)"
        )
        if math.isnan(gap.value):
            ranks = f"The AUCs of {names[0]} and {names[1]} cannot be compared: one of the classes is absent"
        elif auc_p < ALPHA:
            better, worse = names if gap.value > 0 else names[::-1]
            ranks = f"{better} ranks {self.level}s better than {worse}: the AUCs differ by {figures}"
        else:
            ranks = f"The AUCs of {names[0]} and {names[1]} are not shown to differ: {figures}"
        verdict = "differ" if mcnemar_p < ALPHA else "are not shown to differ"
        return (
            f"{ranks}; their decisions {verdict} in accuracy (only {names[0]} right: {test.only_first}, only "
            f"{names[1]} right: {test.only_second}, McNemar's exact {p_value_in_words(mcnemar_p)}{adjusted})."
        )


def compare_runs(first: Cases, second: Cases, names: tuple[str, str]) -> RunComparison:
    """Compare two runs on the cases that both have.

    Args:
        first: Of the evaluated run.
        second: Of the other run, joined with the same manifest.
        names: Of the runs.

    Raises:
        EvaluationError: They share no case.
    """
    one, two = _shared_cases((first, second), names)
    truth, patients = one.truth, one.patients
    right = one.decided == truth, two.decided == truth
    rates = {"accuracy": rate_difference(*right, patients, name="difference of accuracy")}
    for name, kept in (("sensitivity", truth), ("specificity", ~truth)):
        rates[name] = rate_difference(right[0][kept], right[1][kept], patients[kept], name=f"difference of {name}")
    auc = delong_difference(truth, one.probability, two.probability, patients)
    aucs = tuple(auc_interval(truth, side.probability, patients) for side in (one, two))
    test = mcnemar(*right, patients)
    return RunComparison(
        *names, len(one), len(first) - len(one), len(second) - len(one), (aucs[0], aucs[1]), auc, rates, test,
        one.level,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs of several, with p-values adjusted for the number of pairs (Holm).

    Attributes:
        comparison: Of the two.
        auc_p: Adjusted p-value of the difference of the AUCs.
        mcnemar_p: Adjusted exact p-value of the decisions.
        n_pairs: Number of pairs.
    """

    comparison: RunComparison
    auc_p: float
    mcnemar_p: float
    n_pairs: int

    @property
    def sentence(self) -> str:
        """The conclusion, by the adjusted p-values."""
        return self.comparison.concluded(self.auc_p, self.mcnemar_p, self.n_pairs)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: summaries hold arrays
class RunsCompared:
    """Several runs on the patients that all of them have.

    Attributes:
        runs: Figures of each run, under its name.
        left_out: Number of patients of each run that another run lacks, or has by slides of the other label.
        pairs: Pairs of runs: all, or each with the first.
        equal_p: P-value of all AUCs being equal (DeLong); nan where it is undefined.
        notices: For the head of page and plot.
        read_as: How the tables were read, a sentence each.
        joined: Cases of each run, and the slides left out, under its name.
    """

    runs: tuple[Summary, ...]
    left_out: Mapping[str, int]
    pairs: tuple[Pair, ...]
    equal_p: float
    notices: tuple[str, ...] = ()
    read_as: tuple[str, ...] = ()
    joined: Mapping[str, Joined] = field(default_factory=dict)

    @property
    def are_many(self) -> bool:
        """True of more pairs than are read one by one."""
        return len(self.pairs) > _MOST_PAIRS

    @property
    def sentences(self) -> tuple[str, ...]:
        """The conclusion of each pair; of many pairs those that differ in AUC by run, and the number of the others."""
        if not self.are_many:
            return tuple(pair.sentence for pair in self.pairs)
        below: dict[str, list[str]] = {}
        for pair in self.pairs:
            names = (pair.comparison.first, pair.comparison.second)
            if pair.auc_p < ALPHA:
                better, worse = names if pair.comparison.auc.estimate.value > 0 else names[::-1]
                below.setdefault(better, []).append(worse)
        by, n = f"p below {ALPHA} by Holm for {len(self.pairs)} pairs", sum(map(len, below.values()))
        decided = sum(pair.mcnemar_p < ALPHA for pair in self.pairs)
        in_all = (
            f"Of {len(self.pairs)} pairs {n} differ in AUC, and {decided} in the accuracy of their decisions (McNemar, "
            f"{by}); the others are not shown to differ. Each is in pairs.csv."
        )
        ranked = (f"{run} ranks better than {', '.join(worse)} (paired DeLong, {by})." for run, worse in below.items())
        return (*ranked, in_all)

    @property
    def exclusions(self) -> Mapping[str, str]:
        """Runs by the slides that are left out of them, counted by reason."""
        runs: dict[str, list[str]] = {}
        for name, joined in self.joined.items():
            runs.setdefault(joined.left_out, []).append(name)
        return {counts: ", ".join(names) for counts, names in runs.items() if counts}


def compare_several(cases: Mapping[str, Cases], *, with_first: bool = False) -> RunsCompared:
    """Compare runs on the cases that all of them have.

    Args:
        cases: Patients by the name of their run, at least two, joined with the same labels.
        with_first: Compare each with the first only; False compares all pairs.

    Raises:
        EvaluationError: They share no patient.
    """
    aligned = dict(zip(cases, _shared_cases(tuple(cases.values()), cases), strict=True))
    names = list(combinations(aligned, 2))
    if with_first:
        names = [pair for pair in names if pair[0] == next(iter(aligned))]
    found = [compare_runs(aligned[one], aligned[two], (one, two)) for one, two in names]
    auc_p, mcnemar_p = (holm(p) for p in ([c.auc.p_value for c in found], [c.mcnemar.exact for c in found]))
    first = next(iter(aligned.values()))
    scores = np.stack([of_run.probability for of_run in aligned.values()])
    return RunsCompared(
        tuple(summarise(of_run, name) for name, of_run in aligned.items()),
        {name: len(of_run) - len(first) for name, of_run in cases.items()},
        tuple(Pair(*three, len(found)) for three in zip(found, auc_p, mcnemar_p, strict=True)),
        aucs_equal(first.truth, scores, first.patients),
    )


def _shared_cases(runs: Sequence[Cases], names: Iterable[str]) -> list[Cases]:
    """The cases that all runs have with the same label, in one order.

    A patient whose slides are labelled differently has the label of those that a run has.

    Raises:
        EvaluationError: There is none.
    """
    shared = set.intersection(*({*zip(run.ids.tolist(), run.truth.tolist(), strict=True)} for run in runs))
    if not shared:
        found = f"{', '.join(names)} share no {runs[0].level} of one label"
        raise EvaluationError(f"{found}; compare runs over the same slides")
    ids = np.array([name for name, _ in shared])
    return [run.take(np.intersect1d(run.ids, ids, return_indices=True)[1]) for run in runs]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ComparisonQuestion:
    """Inputs and options of a comparison of runs.

    Attributes:
        runs: Folders of `he2her2 predict`, or tables of scores by any tool.
        manifest: The labels.
        split: Slides to compare on; see `Question`.
        policy: For an equivocal 2+ without in situ hybridisation.
        rule: A patient's probability from those of the slides.
        reading: Choices in reading tables of scores.
        with_first: Compare each run with the first only.
    """

    runs: tuple[Path, ...]
    manifest: Path
    split: SplitChoice = "auto"
    policy: Policy = Policy.GUIDELINE
    rule: PatientRule = "mean"
    reading: ScoreReading = field(default_factory=ScoreReading)
    with_first: bool = False


def compare_folders(question: ComparisonQuestion) -> RunsCompared:
    """Compare runs by their folders or tables.

    Raises:
        EvaluationError: A run cannot be evaluated, its weights were trained with the patients, or there are not two.
        ManifestError: The labels cannot be used.
    """
    if len(set(question.runs)) < 2:
        raise EvaluationError("a comparison needs two runs or more; give their folders or tables of scores")
    check_reading(question.runs, question.reading)
    found: dict[str, Joined] = {}
    notices: list[str] = []
    notes: list[str] = []
    unique = len({path.resolve().name for path in question.runs}) == len(question.runs)
    for path in question.runs:
        manifest = read_study_manifest(question.manifest, path)
        predictions = open_predictions(path, manifest, question.reading)
        manifest = named_as_in_run(manifest, predictions.run)
        split = chosen_split(question.split, manifest)
        joined = join(
            predictions.run,
            manifest,
            split=split,
            policy=question.policy,
            rule=question.rule,
            scale=predictions.scale,
        )
        check_patient_rule(predictions.run, joined)
        trained = check_tested(path, joined.slides, split)
        found[predictions.run.name if unique else str(path)] = joined
        notices += run_notices(predictions.run, joined, split, trained_with=bool(trained))
        notes += [*predictions.notes, *label_notes(manifest)]
    return replace(
        compare_several({name: joined.patients for name, joined in found.items()}, with_first=question.with_first),
        notices=tuple(dict.fromkeys(notices)),
        read_as=tuple(dict.fromkeys(notes)),
        joined=found,
    )
