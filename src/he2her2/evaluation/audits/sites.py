"""Sites: each against all others, and an operating point carried over to it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.audits.audit import Audit, AuditRow, not_done
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.slide_properties import is_one
from he2her2.statistics import Estimate, auc_interval, exact_binomial

_NAME = "sites"
_KEPT_SENSITIVITY = 0.95
_ALPHA = 0.05
FEWEST_OF_EACH = 5
"""Patients of each class from which on the AUCs of two groups are said to differ; below the intervals are too short."""
_METHOD = (
    "Each site's AUC less that of all other sites together, interval by MOVER (Zou & Donner, Stat Med "
    "2008;27:1693-1702) from the two AUCs' own; an alarm needs an interval without 0 at Bonferroni's level, and "
    f"{FEWEST_OF_EACH} patients of each class on either side. "
    f"Leave-site-out: the greatest threshold that finds {100 * _KEPT_SENSITIVITY:.0f} % of the other sites' positives, "
    "used at this site."
)


@dataclass(frozen=True, slots=True)
class SiteResult:
    """Figures of a site, compared with all other sites.

    Attributes:
        site: Its name.
        n: Number of its patients.
        n_positive: Number of positive ones.
        auc: At this site.
        difference: Its AUC less that of all other sites.
        sensitivity: At the run's threshold.
        specificity: At the run's threshold.
        carried_sensitivity: At the threshold chosen on the other sites.
        carried_specificity: The same.
        differs: True if its AUC differs, corrected for the number of sites with enough patients of each class.
    """

    site: str
    n: int
    n_positive: int
    auc: Estimate
    difference: Estimate
    sensitivity: Estimate
    specificity: Estimate
    carried_sensitivity: Estimate
    carried_specificity: Estimate
    differs: bool

    @property
    def row(self) -> AuditRow:
        """The site as a row of the audit's table."""
        return {
            "site": self.site,
            "n": self.n,
            "positive": self.n_positive,
            "auc": self.auc,
            "auc_less_others": self.difference,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "sensitivity_left_out": self.carried_sensitivity,
            "specificity_left_out": self.carried_specificity,
            "differs": self.differs,
        }


def site_results(cases: Cases) -> tuple[SiteResult, ...]:
    """Every site against the others, the largest first; none where there is only one site."""
    names, counts = np.unique(cases.sites[is_one(cases.sites)], return_counts=True)
    if len(names) < 2:
        return ()
    ordered = [str(names[k]) for k in np.argsort(-counts, kind="stable")]
    n_tested = sum(can_be_compared(*_sides(cases, name)) for name in ordered)
    return tuple(_site(cases, name, 1 - _ALPHA / max(1, n_tested)) for name in ordered)


def _sides(cases: Cases, name: str) -> tuple[Cases, Cases]:
    """Cases of a site, and of all others."""
    return cases.take(cases.sites == name), cases.take((cases.sites != name) & is_one(cases.sites))


def can_be_compared(*groups: Cases) -> bool:
    """True if each group has enough patients of each class for its AUC to be said to differ."""
    return all(min(group.n_positive, len(group) - group.n_positive) >= FEWEST_OF_EACH for group in groups)


def _site(cases: Cases, name: str, strict: float) -> SiteResult:
    here, others = _sides(cases, name)
    carried = here.decided_at(_threshold_keeping(others, _KEPT_SENSITIVITY))
    apart = auc_difference(here, others, level=strict)
    return SiteResult(
        name,
        len(here),
        here.n_positive,
        auc_interval(here.truth, here.probability, here.patients),
        auc_difference(here, others),
        *sensitivity_specificity(here),
        *sensitivity_specificity(carried),
        differs=can_be_compared(here, others) and (apart.low > 0 or apart.high < 0),
    )


def auc_difference(first: Cases, second: Cases, level: float = 0.95) -> Estimate:
    """AUC of one group of patients less that of another, with MOVER's interval."""
    one, two = (auc_interval(group.truth, group.probability, group.patients, level=level) for group in (first, second))
    value = one.value - two.value
    low, high = -1.0, 1.0
    if not math.isnan(value):
        low = value - math.hypot(one.value - one.low, two.high - two.value)
        high = value + math.hypot(one.high - one.value, two.value - two.low)
    return Estimate("AUC difference", value, max(-1.0, low), min(1.0, high), one.n + two.n, "MOVER", level)


def _threshold_keeping(cases: Cases, sensitivity: float) -> float:
    """The greatest threshold at which at least a share of the positives is called positive; 0 without any."""
    scores = np.sort(cases.probability[cases.truth])
    return float(scores[int((1 - sensitivity) * len(scores))]) if len(scores) else 0.0


def sensitivity_specificity(cases: Cases) -> tuple[Estimate, Estimate]:
    """Sensitivity and specificity with exact intervals, of cases that are a patient each."""

    def of(hits: NDArray[np.bool_], name: str) -> Estimate:
        return exact_binomial(int(hits.sum()), len(hits), name=name)

    return of(cases.decided[cases.truth], "sensitivity"), of(~cases.decided[~cases.truth], "specificity")


def site_audit(results: tuple[SiteResult, ...]) -> Audit:
    """Summarise the sites."""
    if not results:
        return not_done(_NAME, "all patients come from one site, or no site is given", _METHOD)
    apart = [result for result in results if result.differs]
    known = sorted((r for r in results if not math.isnan(r.auc.value)), key=lambda r: r.auc.value)
    if not known:
        return Audit(
            _NAME, "No site has patients of both classes, so sites cannot be compared.", alarm=True,
            rows=tuple(r.row for r in results), method=_METHOD,
        )  # fmt: skip
    low, high = known[0], known[-1]
    range_of = f"from {low.auc.text()} at {low.site} (n = {low.n}) to {high.auc.text()} at {high.site} (n = {high.n})"
    if apart:
        names = ", ".join(f"{site.site} by {site.difference.text()}" for site in apart)
        sentence = (
            f"The AUC is not the same at all {len(results)} sites, {range_of}; against all other sites it differs at "
            f"{names}."
        )
    elif len(known) == 1:
        sentence = f"The AUC is {low.auc.text()} at {low.site} (n = {low.n}); no other site has both classes."
    else:
        sentence = f"The AUC goes {range_of}; {len(results)} sites of this size are not shown to differ."
    return Audit(_NAME, sentence, bool(apart), tuple(result.row for result in results), _METHOD)
