"""HER2 status from slide-level features of 696 real patients: what random folds promise, and what a new site gets.

The features are 607 human-interpretable ones of TCGA-BRCA diagnostic slides (Diao et al., Nat Commun 2021;12:1613), the
labels the clinical HER2 status. Two models, no choice among them by result: a random forest with its defaults (500
trees) is primary, ridge logistic regression with its penalty chosen in inner folds secondary. Every probability is of a
patient whom its model did not see: out of five random folds, or out of all other sites.

Needs the data folder; the licence of the features (CC BY-NC-SA 4.0) lets figures be reported: no data and no weights
are written.

Run: python -m experiments.tcga_hif [--data ../shared/data] [--repeats 10] [--out experiments/results]
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from experiments.tcga_cohort import (
    Cohort,
    Floats,
    forest,
    out_of_fold,
    random_folds,
    read_cohort,
    ridge,
    site_alone,
    site_folds,
)
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from he2her2.errors import EvaluationError
from he2her2.evaluation import Cases, SlideProperties, plots, summarise
from he2her2.evaluation.audits import Audit, shift_audit, shortcut_audit, subgroup_audit
from he2her2.evaluation.benefit import NamedCurve, decision_curves
from he2her2.evaluation.comparison import RunsCompared, compare_several
from he2her2.evaluation.covariates import SlideFeatures
from he2her2.evaluation.folder import finite
from he2her2.evaluation.slide_properties import PROPERTIES
from he2her2.evaluation.summary import Reliability, reliability
from he2her2.files import write_json, write_text
from he2her2.statistics import (
    SHARES,
    Bounds,
    Difference,
    Estimate,
    Expected,
    Needed,
    Unpredicted,
    WrongLabels,
    auc_bounds,
    auc_interval,
    auc_limits,
    brier_interval,
    calibration_line,
    choose_operating_point,
    for_auc_above,
    for_auc_width,
    holm,
    if_labels_were_wrong,
    rate,
    recalibrate_site,
)

RESULTS = Path(__file__).resolve().parent / "results"
NOTICE = "TCGA-BRCA features of other authors' models (CC BY-NC-SA 4.0): no test of he2her2's own networks"
BUDGET = 0.05
CLINIC = 0.15
LOCAL = (10, 20, 30)
LOCAL_DRAWS = 200
LARGE_SITE = 40
RANDOM, LEFT_OUT = "random folds", "sites left out"
PLANNED: tuple[set[str], ...] = (
    {f"forest, {RANDOM}", f"forest, {LEFT_OUT}"},
    {f"ridge, {RANDOM}", f"ridge, {LEFT_OUT}"},
    {f"forest, {RANDOM}", f"site alone, {RANDOM}"},
    {f"ridge, {RANDOM}", f"site alone, {RANDOM}"},
    {f"forest, {LEFT_OUT}", f"ridge, {LEFT_OUT}"},
)
"""Pairs of scores that the study compares."""


def within_site_auc(cohort: Cohort, score: Floats, draws: int = 4000) -> Estimate:
    """AUC over pairs of patients of the same site only; interval by Bayesian bootstrap of the sites."""
    wins, pairs = [], []
    for site in np.unique(cohort.sites):
        here = cohort.sites == site
        high, low = score[here & cohort.truth][:, None], score[here & ~cohort.truth][None]
        wins.append(float((high > low).sum() + (high == low).sum() / 2))
        pairs.append(high.size * low.size)
    won, of = np.array(wins), np.array(pairs, np.float64)
    weights = np.random.default_rng(0).standard_exponential((draws, len(of)))
    low, high = np.quantile(weights @ won / (weights @ of), [0.025, 0.975]).tolist()
    share = float(won.sum() / of.sum())
    return Estimate("AUC within sites", share, low, high, int(of.sum()), "Bayesian bootstrap of sites")


@dataclass(frozen=True)
class Ranking:
    """How well a score ranks patients.

    Attributes:
        name: Of model and folds.
        auc: With patients as the units of the interval.
        by_site: The same with sites as the units.
        within: Of pairs of the same site.
        repeats: Least and greatest AUC over repeats.
        equivocal: Among patients with IHC 2+.
    """

    name: str
    auc: Estimate
    by_site: Estimate
    within: Estimate
    repeats: tuple[float, float]
    equivocal: Estimate


def ranking(name: str, cohort: Cohort, scores: list[Floats]) -> Ranking:
    """Figures of the first of several repeats, and the range of all."""
    first, two = scores[0], cohort.ihc == 2
    every = [auc_interval(cohort.truth, score).value for score in scores]
    return Ranking(
        name,
        auc_interval(cohort.truth, first),
        auc_interval(cohort.truth, first, cohort.sites),
        within_site_auc(cohort, first),
        (min(every), max(every)),
        auc_interval(cohort.truth[two], first[two]),
    )


@dataclass(frozen=True)
class Carried:
    """An operating point that was chosen on the other folds, used in each.

    Attributes:
        name: Of the folds.
        missed: Share of positives called negative.
        saved: Share of patients called negative.
        by_site: Least and greatest share of positives missed at a site of five positives or more.
    """

    name: str
    missed: Estimate
    saved: Estimate
    by_site: tuple[float, float]


def carried(name: str, cohort: Cohort, score: Floats, fold: NDArray[np.int64]) -> Carried:
    """Choose a threshold that misses at most 5 % (95 % sure) on the other folds' patients, and use it in each."""
    called = np.zeros(len(score), bool)
    for k in np.unique(fold):
        out = fold == k
        point = choose_operating_point(cohort.truth[~out], score[~out], budget=BUDGET, chosen_on="the other folds")
        called[out] = [point.is_positive(p) for p in score[out].tolist()]
    missed = rate(~called[cohort.truth], cohort.sites[cohort.truth], name="positives missed")
    large = [s for s in np.unique(cohort.sites) if (cohort.truth & (cohort.sites == s)).sum() >= 5]
    shares = [float((~called)[cohort.truth & (cohort.sites == s)].mean()) for s in large]
    return Carried(name, missed, rate(~called, cohort.sites, name="tests saved"), (min(shares), max(shares)))


@dataclass(frozen=True)
class Recalibrated:
    """Calibration at a new site before and after learning from some of its patients.

    Attributes:
        site: The site.
        n: Its patients.
        n_positive: Positive ones.
        intercept: Before.
        slope: Before.
        brier: Before.
        change: Of the Brier score of the site's other patients by so many local ones: mean, and the middle 95 % of
            draws of these.
    """

    site: str
    n: int
    n_positive: int
    intercept: Estimate
    slope: Estimate
    brier: Estimate
    change: Mapping[int, tuple[float, float, float]]


def recalibrated(cohort: Cohort, score: Floats, seed: int = 0) -> Iterator[Recalibrated]:
    """Learn each large site's calibration from few of its patients, again and again, and test it on its others."""
    rng = np.random.default_rng(seed)
    for site in np.unique(cohort.sites):
        here = np.flatnonzero(cohort.sites == site)
        if len(here) < LARGE_SITE:
            continue
        truth, p = cohort.truth[here], score[here]
        line = calibration_line(truth, p)
        change = {}
        for k in LOCAL:
            moved = []
            for _ in range(LOCAL_DRAWS):
                order = rng.permutation(len(here))
                local, others = order[:k], order[k:]
                learned = recalibrate_site(truth[local], p[local], chosen_on=site)
                after = float(((learned(p[others]) - truth[others]) ** 2).mean())
                moved.append(after - float(((p[others] - truth[others]) ** 2).mean()))
            low, high = np.quantile(moved, [0.025, 0.975]).tolist()
            change[k] = (float(np.mean(moved)), low, high)
        yield Recalibrated(
            str(site), len(here), int(truth.sum()), line.intercept, line.slope, brier_interval(truth, p), change
        )


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that the page reports."""

    cohort: Cohort
    rankings: tuple[Ranking, ...]
    control: Estimate
    compared: RunsCompared
    calibration: Mapping[str, Reliability]
    recalibrated: tuple[Recalibrated, ...]
    carried: tuple[Carried, ...]
    benefit: tuple[NamedCurve, ...]
    benefit_random: tuple[NamedCurve, ...]
    shortcuts: Audit
    subgroups: Audit
    shift: Audit
    bounds: Bounds
    left_out: Cases
    repeats: int

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return len(np.unique(self.cohort.sites))

    @property
    def largest_site(self) -> int:
        """Patients of the largest site."""
        return int(np.unique(self.cohort.sites, return_counts=True)[1].max())

    @property
    def scores(self) -> str:
        """Number of patients with each IHC score, in words."""
        counts = [int((self.cohort.ihc == k).sum()) for k in range(4)]
        return ", ".join(f"{n} {name}" for n, name in zip(counts, ("0", "1+", "2+", "3+"), strict=True))

    @property
    def pairs(self) -> tuple[tuple[Difference, str, str, float], ...]:
        """Difference of the AUCs of each planned pair, its two sides, and its p-value corrected for these pairs."""
        every = [one.comparison for one in self.compared.pairs]
        found = [c for c in every if {c.first, c.second} in PLANNED]
        adjusted = holm([c.auc.p_value for c in found])
        return tuple((c.auc, c.first, c.second, p) for c, p in zip(found, adjusted, strict=True))

    @property
    def wrong_labels(self) -> tuple[WrongLabels, ...]:
        """The forest with sites left out, if labels were wrong."""
        c = self.left_out
        return tuple(if_labels_were_wrong(c.truth, c.probability, c.decided, share=share) for share in SHARES)

    @property
    def width(self) -> float:
        """Width of the interval of an AUC of .70 of so many patients, if its variance is as expected."""
        m = int(self.cohort.truth.sum())
        low, high = auc_limits(0.7, float("nan"), m, len(self.cohort.ids) - m)
        return high - low

    @property
    def for_width(self) -> Needed:
        """Patients for an AUC of .70 within .05."""
        return for_auc_width(Expected(float(self.cohort.truth.mean()), 0.7))

    @property
    def for_bar(self) -> Needed:
        """Patients to show .73, the published bar, above .69 on the same patients."""
        return for_auc_above(Expected(float(self.cohort.truth.mean()), 0.73), 0.69, correlation=0.5)


def study(cohort: Cohort, repeats: int, say: Callable[[str], None] = lambda _: None) -> Study:
    """Run the whole study.

    Args:
        cohort: The patients.
        repeats: Of the random folds; a third of it for the sites, whose folds are given.
        say: Called with each step.
    """
    by_site, first = site_folds(cohort), random_folds(cohort, 0)
    scores: dict[str, list[Floats]] = {}
    for name, build in (("forest", forest), ("ridge", ridge)):
        say(f"{name}: random folds")
        n = repeats if name == "forest" else max(1, repeats // 3)
        scores[f"{name}, random folds"] = [out_of_fold(cohort, random_folds(cohort, s), build, s) for s in range(n)]
        say(f"{name}: sites left out")
        n = max(1, repeats // 3) if name == "forest" else 1
        scores[f"{name}, sites left out"] = [out_of_fold(cohort, by_site, build, s) for s in range(n)]
    scores["site alone, random folds"] = [site_alone(cohort, random_folds(cohort, s)) for s in range(repeats)]
    say("control")
    shuffled = np.random.default_rng(0).permutation(cohort.truth)
    control = auc_interval(
        shuffled, out_of_fold(cohort, random_folds(replace(cohort, truth=shuffled), 0), forest, 0, shuffled)
    )
    left_out = cohort.cases(scores["forest, sites left out"][0])
    in_random = cohort.cases(scores["forest, random folds"][0])
    say("audits")
    nothing = dict.fromkeys(PROPERTIES, np.full(len(cohort.ids), np.nan))
    values = nothing | {"tumour_mm2": cohort.numbers["tumour area"]} | dict(cohort.numbers)
    properties = SlideProperties(cohort.ids, values, {"race": cohort.columns["race"]})
    whole = forest(0)
    whole.fit(cohort.x, cohort.truth)
    bounds = auc_bounds(cohort.truth, left_out.probability, whole.predict_proba(cohort.unlabelled)[:, 1], Unpredicted())
    return Study(
        cohort,
        tuple(ranking(name, cohort, found) for name, found in scores.items()),
        control,
        compare_several({name: cohort.cases(found[0]) for name, found in scores.items()}),
        {"random folds": reliability(in_random), "sites left out": reliability(left_out)},
        tuple(recalibrated(cohort, left_out.probability)),
        (
            carried("random folds", cohort, in_random.probability, first),
            carried("sites left out", cohort, left_out.probability, by_site),
        ),
        decision_curves(left_out, None, CLINIC),
        decision_curves(in_random, None, CLINIC),
        shortcut_audit(in_random, properties),
        subgroup_audit(left_out, {"age": cohort.numbers["age"]}, cohort.columns),
        shift_audit(left_out, SlideFeatures(cohort.ids, cohort.x, "607 features")),
        bounds,
        left_out,
        repeats,
    )


def write(found: Study, out: Path) -> None:
    """Write page, figures as JSON, and plots."""
    summary = summarise(found.left_out, "patients", CLINIC)
    folder = out / "tcga_hif"
    plots.plot_calibration(
        found.calibration[RANDOM],
        found.calibration[LEFT_OUT],
        summary,
        (NOTICE,),
        folder / "calibration",
        names=(RANDOM, LEFT_OUT),
    )
    plots.plot_benefit(found.benefit, summary, (NOTICE,), folder / "decision_curve")
    for vector in folder.glob("*.svg"):
        vector.unlink()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # Markdown
    write_text(out / "tcga_hif.md", environment.get_template("tcga_hif.md.jinja").render(s=found, summary=summary))
    write_json(out / "tcga_hif.json", finite(_figures(found)), allow_nan=False)


def _figures(found: Study) -> dict[str, Any]:
    return {
        "n": len(found.cohort.ids),
        "n_positive": int(found.cohort.truth.sum()),
        "sites": len(np.unique(found.cohort.sites)),
        "repeats": found.repeats,
        "rankings": [asdict(one) for one in found.rankings],
        "control": asdict(found.control),
        "calibration": {name: asdict(one) for name, one in found.calibration.items()},
        "recalibrated": [asdict(one) for one in found.recalibrated],
        "carried": [asdict(one) for one in found.carried],
        "benefit": [one.sentence for one in (*found.benefit, *found.benefit_random)],
        "audits": {one.name: one.sentence for one in (found.shortcuts, found.subgroups, found.shift)},
        "bounds": asdict(found.bounds),
    }


def main() -> None:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HE2HER2_DATA", "../shared/data")))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not (arguments.data / "tcga_hif").is_dir():
        raise EvaluationError(f"{arguments.data}: holds no tcga_hif; give --data")
    found = study(read_cohort(arguments.data), arguments.repeats, print)
    write(found, arguments.out)
    print(f"{arguments.out / 'tcga_hif.md'}")


if __name__ == "__main__":
    main()
