"""RunComparison of two runs on the same patients by paired tests."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from he2her2.errors import EvaluationError
from he2her2.evaluation.cases import Cases
from he2her2.statistics import (
    Difference,
    Estimate,
    McNemar,
    auc_interval,
    delong_difference,
    mcnemar,
    rate_difference,
)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """The evaluated run against another one.

    Attributes:
        first: Name of the evaluated run.
        second: Name of the other.
        n: Cases that both have.
        only_first: Cases that the other lacks.
        only_second: Cases that the evaluated run lacks.
        aucs: Of both, on the shared cases.
        auc: Difference of the AUCs.
        rates: Differences of accuracy, sensitivity and specificity, first less second.
        mcnemar: Test of the decisions.
        sentence: The conclusion.
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
    sentence: str


def compare_runs(first: Cases, second: Cases, names: tuple[str, str]) -> RunComparison:
    """Compare two runs on the cases that both have.

    Args:
        first: Of the evaluated run.
        second: Of the other run, joined with the same manifest.
        names: Of the runs.

    Raises:
        EvaluationError: They share no case.
    """
    _, here, there = np.intersect1d(first.ids, second.ids, return_indices=True)
    if not len(here):
        raise EvaluationError(f"{names[0]} and {names[1]} share no {first.level}; compare runs over the same slides")
    one, two = first.take(here), second.take(there)
    truth, patients = one.truth, one.patients
    right = one.decided == truth, two.decided == truth
    rates = {"accuracy": rate_difference(*right, patients, name="difference of accuracy")}
    for name, kept in (("sensitivity", truth), ("specificity", ~truth)):
        rates[name] = rate_difference(right[0][kept], right[1][kept], patients[kept], name=f"difference of {name}")
    auc = delong_difference(truth, one.probability, two.probability, patients)
    aucs = tuple(auc_interval(truth, side.probability, patients) for side in (one, two))
    test = mcnemar(*right, patients)
    return RunComparison(
        *names, len(here), len(first) - len(here), len(second) - len(here), (aucs[0], aucs[1]), auc, rates, test,
        _sentence(names, auc, test, len(here), one.level),
    )  # fmt: skip


def _sentence(names: tuple[str, str], auc: Difference, test: McNemar, n: int, level: str) -> str:
    """The conclusion; a difference is only claimed where it is shown."""
    gap = auc.estimate
    shown = (
        f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}, paired DeLong, p = {auc.p_value:.2g}, n = {n} {level}s)"
    )
    if gap.low > 0 or gap.high < 0:
        better, worse = names if gap.value > 0 else names[::-1]
        ranks = f"{better} ranks {level}s better than {worse}: the AUCs differ by {shown}"
    else:
        ranks = f"The AUCs of {names[0]} and {names[1]} are not shown to differ: {shown}"
    verdict = "differ" if test.exact < 0.05 else "are not shown to differ"
    return (
        f"{ranks}; their decisions {verdict} in accuracy (only {names[0]} right: {test.only_first}, only {names[1]} "
        f"right: {test.only_second}, McNemar's exact p = {test.exact:.2g})."
    )
