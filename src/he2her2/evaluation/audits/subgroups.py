"""Subgroups by a column: the model's figures in each, and whether they differ from those of all other patients."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.audits.audit import Audit, AuditRow, not_done
from he2her2.evaluation.audits.sites import (
    FEWEST_OF_EACH,
    auc_difference,
    can_be_compared,
    sensitivity_specificity,
)
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.slide_properties import SEVERAL, is_one
from he2her2.statistics import auc_interval, holm, observed_over_expected, two_rates_p

_NAME = "subgroups"
_ALPHA = 0.05
_FEWEST = 5
_MOST_LEVELS = 12
_PARTS = 3
_MOST_DIGITS = 15  # beyond them numbers differ by rounding alone
_METHOD = (
    f"Each subgroup of at least {_FEWEST} patients, at most the {_MOST_LEVELS} largest of a column, against all other "
    "patients: AUC (difference with MOVER's interval, Zou & Donner 2008), sensitivity and specificity at the run's "
    "threshold (Fisher's exact test). A column of numbers is cut at its terciles, each value in one part. An alarm "
    "needs p under 0.05 after Holm's correction over all tests, or an AUC difference whose interval at Bonferroni's "
    "level excludes 0, with "
    f"{FEWEST_OF_EACH} patients of each class on either side. Subgroups that are not shown to differ are not shown to "
    "be equal."
)


def subgroup_audit(
    patients: Cases,
    numbers: Mapping[str, NDArray[np.float64]],
    categories: Mapping[str, NDArray[np.str_]],
    *,
    is_probability: bool = True,
) -> Audit:
    """Measure each subgroup of patients.

    Args:
        patients: Evaluated patients.
        numbers: By column, (n,) numbers of the patients, nan where unknown; cut into thirds.
        categories: By column, (n,) names; empty where unknown.
        is_probability: Whether observed over expected positives is to be told.
    """
    columns = {**{name: _thirds(values) for name, values in numbers.items()}, **categories}
    if not columns:
        return not_done(_NAME, "name columns of the manifest or of --covariates (--by)", _METHOD)
    levels = {column: _levels(names) for column, names in columns.items()}
    groups = [(column, level, columns[column] == level) for column, found in levels.items() for level in found]
    groups = [(column, level, inside) for column, level, inside in groups if not inside.all()]
    if not groups:
        return not_done(_NAME, f"{', '.join(columns)}: fewer than two groups of {_FEWEST} patients", _METHOD)
    found = [_measured(patients, inside, 1 - _ALPHA / len(groups)) for _, _, inside in groups]
    adjusted = holm([p for _, ps, _ in found for p in ps])
    rows: list[AuditRow] = []
    for k, ((column, level, _), (figures, _, apart)) in enumerate(zip(groups, found, strict=True)):
        p = [value for value in adjusted[2 * k : 2 * k + 2] if not math.isnan(value)]
        ratio = {} if is_probability else {"observed_expected": None}
        rows.append(
            {
                "column": column,
                "group": level,
                **figures,
                **ratio,
                "p_rates_holm": min(p) if p else None,
                "differs": apart or any(v < _ALPHA for v in p),
            }
        )
    left_out = [part for column, names in columns.items() for part in _left_out(column, names, levels[column])]
    return Audit(_NAME, _sentence(rows, left_out), any(row["differs"] for row in rows), tuple(rows), _METHOD)


def _levels(names: NDArray[np.str_]) -> list[str]:
    """The most frequent names of a column that enough patients have, in order."""
    found, counts = np.unique(names[is_one(names)], return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:_MOST_LEVELS]
    return sorted(found[largest[counts[largest] >= _FEWEST]].tolist(), key=_natural)


def _left_out(column: str, names: NDArray[np.str_], levels: Collection[str]) -> Iterator[str]:
    """Groups of a column that are not looked at, and patients who are in none because their slides differ."""
    if more := len({*names[is_one(names)].tolist()} - {*levels}):
        yield f"{more} smaller group{'s' * (more > 1)} of {column}"
    if n := int(np.count_nonzero(names == SEVERAL)):
        yield f"{n} patient{'s' * (n > 1)} with slides of several groups of {column}"


def _natural(name: str) -> tuple[float, bool, str]:
    """Sorts parts of numbers by their lower end."""
    is_first = name.startswith("<")
    try:
        return float(name.partition(" ")[0].lstrip("<")), not is_first, name
    except ValueError:
        return math.inf, not is_first, name


def _thirds(values: NDArray[np.float64]) -> NDArray[np.str_]:
    """Names of the thirds of numbers, or the numbers where there are few; where most are the least one, the others."""
    known = ~np.isnan(values)
    distinct = np.unique(values[known])
    if len(distinct) <= _PARTS + 1:
        written = _written(distinct, 6)
        return np.array([written[value] if ok else "" for value, ok in zip(values.tolist(), known, strict=True)])
    cuts = np.unique(np.quantile(values[known], np.arange(1, _PARTS) / _PARTS))
    cuts = distinct[1:2] if cuts[-1] == distinct[0] else cuts
    part = np.searchsorted(cuts, values, side="right")
    ends = _written(np.array([distinct[0], *cuts, distinct[-1]]), 4)
    inner = [ends[cut] for cut in cuts.tolist()]
    texts = [f"<{inner[0]}", *(f"{low} to {high}" for low, high in pairwise(inner)), f"{inner[-1]} or more"]
    return np.array([texts[k] if ok else "" for k, ok in zip(part.tolist(), known, strict=True)])


def _written(numbers: NDArray[np.float64], digits: int) -> dict[float, str]:
    """Text of each number: whole digits, at least so many in all, and as many as tell the numbers apart."""
    whole = len(f"{np.abs(numbers).max(initial=0):.0f}")
    texts = {number: f"{number:.{max(digits, min(whole, _MOST_DIGITS))}g}" for number in numbers.tolist()}
    apart = len(set(texts.values())) == len(texts) or digits == _MOST_DIGITS
    return texts if apart else _written(numbers, digits + 1)


def _measured(patients: Cases, inside: NDArray[np.bool_], strict: float) -> tuple[AuditRow, tuple[float, float], bool]:
    """Figures of a subgroup, p-values of its sensitivity and specificity, and whether its AUC differs."""
    here, others = patients.take(inside), patients.take(~inside)
    sensitivity, specificity = sensitivity_specificity(here)
    apart = auc_difference(here, others, level=strict)
    figures: AuditRow = {
        "n": len(here),
        "positive": here.n_positive,
        "auc": auc_interval(here.truth, here.probability, here.patients),
        "auc_less_others": auc_difference(here, others),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "observed_expected": observed_over_expected(here.truth, here.probability),
    }
    p = tuple(
        two_rates_p(here.decided[here.truth == kind] == kind, others.decided[others.truth == kind] == kind)
        for kind in (True, False)
    )
    return figures, (p[0], p[1]), can_be_compared(here, others) and (apart.low > 0 or apart.high < 0)


def _sentence(rows: Sequence[AuditRow], left_out: Sequence[str]) -> str:
    apart = [f"{row['column']} {row['group']}" for row in rows if row["differs"]]
    more = f" Not looked at: {'; '.join(left_out)}." if left_out else ""
    if not apart:
        return f"None of {len(rows)} subgroups is shown to differ from all other patients.{more}"
    return f"{len(apart)} of {len(rows)} subgroups differ from all other patients: {', '.join(apart)}.{more}"
