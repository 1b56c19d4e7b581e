"""Shortcuts: prediction of the label from properties that are no diagnosis, such as slide size, site or pen.

Each is tested in two ways. Linearly, for what rises or falls with the label: by a permutation test (labels shuffled
over patients; statistic: Hotelling's T² of normal scores of the ranks, for one property van der Waerden's), with Holm's
correction over the family, measured by the AUC of a ridge regression of the label on it, less its optimism. And all at
once for a relation of any shape (`any_shape`), which also looks at the tumour's area, the contrast of the stain and the
vendor of the file, measured by a cross-validated AUC. The AUC is compared with the model's on the same patients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from he2her2.evaluation.audits.any_shape import any_shape_p, atoms_of, cross_fitted, looked_at, patterns_of
from he2her2.evaluation.audits.audit import Audit, Cell, not_done
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.slide_properties import COLOUR, FILE_VENDOR, PROPERTIES, STATED, SlideProperties
from he2her2.pages import p_value_in_words
from he2her2.statistics import (
    AUC_METHOD,
    AucInfluence,
    Estimate,
    RankedScores,
    auc_influence,
    auc_limits,
    auc_variance,
    holm,
)

_NAME = "shortcuts"
_SHORTCUTS: Mapping[str, tuple[str, ...]] = {
    "slide size": ("slide_mm2",),
    "tissue area": ("tissue_mm2",),
    "tile count": ("tile_count",),
    "scanner resolution": ("mpp",),
    "mean colour": COLOUR,
    "pen share": ("pen_share",),
    "blur share": ("blur_share",),
}
_SPREAD = tuple(f"{channel}_spread" for channel in COLOUR)
_MORE: Mapping[str, tuple[str, ...]] = {"tumour area": ("tumour_mm2",), "stain contrast": _SPREAD}
_SITE, _TOGETHER, _ANY_SHAPE = "site", "all together", "any shape or pair"
_WORDS = {
    column: name if len(columns) == 1 else column.replace("_spread", " contrast")
    for name, columns in {**_SHORTCUTS, **_MORE}.items()
    for column in columns
}
_DRAWS = 1999
_TIMES = 5
"""The relation of any shape alarms at p < 0.01: together with the linear family, whose Holm-corrected tests alarm
falsely in 2 to 4.3 % of simulated cohorts, in 2 to 4.7 % (experiments/results/shortcut_audit.md)."""

_ALARM = 0.05
_POWER = 0.8
_MIN_PER_CLASS = 5
_SMALL_AUC = 0.55
_RIDGE = 1.0
_BOOTSTRAPS = 50
_Z = float(norm.ppf(0.975))
_CHUNK = 250
_METHOD = (
    f"Permutation test over patients ({_DRAWS} shuffles) of rank-transformed properties, p-values by Holm; AUC of a "
    f"ridge regression on it less its optimism by {_BOOTSTRAPS} bootstraps (Harrell et al. 1996), "
    "interval by DeLong's variance; "
    "difference to the model by paired DeLong. Any shape or pair: the strongest of many patterns (cosines of the ranks "
    "of one property, products of two, nearest patients) against the strongest in every shuffle of the labels, alarm "
    "at p < 0.01 (its p_holm is five times p); AUC by cross-validation, the pattern chosen anew in each fold; of more "
    "than 2000 patients 2000 are drawn."
)


@dataclass(frozen=True, slots=True)
class _Shortcut:
    """Prediction of the label from one property, or a few together.

    Attributes:
        name: Of the property.
        auc: Of a regression of the label on it, less its optimism.
        p: Of the permutation test.
        p_holm: The same, adjusted for the number of shortcuts tried; of any shape, five times it.
        gain: The model's AUC less the shortcut's.
        detail: The pattern that was found, of those of any shape.
    """

    name: str
    auc: Estimate
    p: float
    p_holm: float
    gain: Estimate
    detail: str = ""

    @property
    def alarm(self) -> bool:
        """True if it predicts the label."""
        return self.p_holm < _ALARM

    @property
    def rivals(self) -> bool:
        """True if the model is not shown to be better."""
        return not self.gain.low > 0


def shortcut_audit(patients: Cases, properties: SlideProperties, seed: int = 0) -> Audit:
    """Test and measure how well properties that are no diagnosis predict the label.

    Args:
        patients: Evaluated patients.
        properties: Of the same patients, in the same order.
        seed: Of shuffles and folds.
    """
    n_positive = patients.n_positive
    if min(n_positive, len(patients) - n_positive) < _MIN_PER_CLASS:
        why = f"{n_positive} of {len(patients)} patients are positive, {_MIN_PER_CLASS} of each class are needed"
        return not_done(_NAME, why, _METHOD)
    candidates = candidates_of(patients, properties)
    if not candidates:
        why = "properties that could be shortcuts are not recorded, or the same for all; give others by --covariates"
        return not_done(_NAME, why, _METHOD)
    found = _measure(candidates, patients, seed, properties)
    unknown = [name for name in (*_SHORTCUTS, _SITE, *STATED) if name not in candidates]
    rows = tuple(_row(shortcut) for shortcut in found) + tuple(_untested(name) for name in unknown)
    return Audit(_NAME, _sentence(found, patients, unknown), any(shortcut.alarm for shortcut in found), rows, _METHOD)


def candidates_of(patients: Cases, properties: SlideProperties) -> dict[str, NDArray[np.float64]]:
    """The shortcuts that differ between patients, each as (n, k) ranks or indicators."""
    found = {}
    for name, columns in _SHORTCUTS.items():
        found[name] = _ranked(properties.matrix(columns))
    found |= {name: _ranked(properties.matrix([name])) for name in properties.values if name not in PROPERTIES}
    found[_SITE] = _indicators(patients.sites)
    found |= {name: _indicators(names) for name, names in properties.categories.items() if name != FILE_VENDOR}
    found = {name: columns for name, columns in found.items() if columns.shape[1]}
    if len(found) > 1:
        found[_TOGETHER] = np.concatenate(list(found.values()), axis=1)
    return found


def _ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) ranks as normal scores, so that a few huge slides do not dominate, and missingness.

    Missing values take the middle rank, and missingness itself becomes a column: that, too, may follow the label.
    Constant columns are left out.
    """
    columns = []
    for column in values.T:
        missing = np.isnan(column)
        ranks = rankdata(np.where(missing, 0.0 if missing.all() else np.nanmedian(column), column))
        columns += [norm.ppf((ranks - 0.5) / len(ranks)), missing.astype(float)]
    kept = [column for column in columns if np.ptp(column) > 0]
    return np.stack(kept, axis=1) if kept else np.empty((len(values), 0))


def _indicators(sites: NDArray[np.str_]) -> NDArray[np.float64]:
    """(n, k) indicators of the sites, without the last; no column where all are the same."""
    names = np.unique(sites)
    indicators: NDArray[np.float64] = (sites[:, None] == names[None, :-1]).astype(np.float64)
    return indicators


def _measure(
    candidates: Mapping[str, NDArray[np.float64]], patients: Cases, seed: int, properties: SlideProperties
) -> list[_Shortcut]:
    """Test and measure every shortcut, and all of them in any shape."""
    rng, truth = np.random.default_rng(seed), patients.truth
    shuffled = _shuffles(truth, rng)
    p_values = [permutation_p(columns, shuffled) for columns in candidates.values()]
    bent = any_shape(patients, properties, shuffled, np.random.default_rng((seed, 1)))
    model = auc_influence(truth, patients.probability)
    found = []
    for (name, columns), p, adjusted in zip(candidates.items(), p_values, holm(p_values), strict=True):
        own = auc_influence(truth, _fitted(columns, truth, np.ones(len(truth))))
        optimism = _optimism(columns, truth, rng)
        auc = _corrected_auc(own, optimism, f"AUC of {name}")
        found.append(_Shortcut(name, auc, p, adjusted, _gain_over(model, own, optimism)))
    if bent is not None:
        found.append(_of_any_shape(bent, patients))
    return found


def _of_any_shape(bent: "AnyShape", patients: Cases) -> _Shortcut:
    truth = patients.truth[bent.rows]
    own, model = (auc_influence(truth, score) for score in (bent.score, patients.probability[bent.rows]))
    auc = replace(_corrected_auc(own, 0.0, f"AUC of {_ANY_SHAPE}"), method=f"{AUC_METHOD}, cross-validated")
    return _Shortcut(_ANY_SHAPE, auc, bent.p, min(1.0, _TIMES * bent.p), _gain_over(model, own, 0.0), bent.pattern)


@dataclass(frozen=True, slots=True, eq=False)
class AnyShape:
    """Test of a relation of any shape between properties and label.

    Attributes:
        rows: (m,) patients that were looked at.
        score: (m,) their cross-validated scores.
        p: By permutation.
        pattern: The strongest, in words.
    """

    rows: NDArray[np.intp]
    score: NDArray[np.float64]
    p: float
    pattern: str


def any_shape(
    patients: Cases, properties: SlideProperties, labels: NDArray[np.bool_], rng: np.random.Generator
) -> AnyShape | None:
    """Test a relation of any shape between properties and label.

    Args:
        patients: Evaluated patients.
        properties: Of the same patients.
        labels: (draws + 1, n) the labels, first as they are, then shuffled.
        rng: Of folds.

    Returns:
        The test; None where no property differs between patients, or too few of a class are looked at.
    """
    numbers = {word: properties.values[column] for column, word in _WORDS.items()}
    numbers |= {name: values for name, values in properties.values.items() if name not in PROPERTIES}
    categories = {_SITE: patients.sites} | dict(properties.categories)
    together = [[_WORDS[column] for column in columns] for columns in (COLOUR, _SPREAD)]
    atoms = atoms_of(numbers, categories, together)
    rows = looked_at(len(patients), rng)
    patterns, truth = patterns_of(atoms.take(rows)), patients.truth[rows]
    if not patterns.names or min(truth.sum(), (~truth).sum()) < _MIN_PER_CLASS:
        return None
    p, pattern = any_shape_p(patterns, labels[:, rows])
    return AnyShape(rows, cross_fitted(patterns, truth, rng), p, pattern)


def _shuffles(truth: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(_DRAWS + 1, n) the labels, first as they are, then shuffled."""
    return np.concatenate([truth[None], rng.permuted(np.tile(truth, (_DRAWS, 1)), axis=1)])


def permutation_p(columns: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """P-value of the distance between the classes' means, in units of the columns' common spread.

    Args:
        columns: (n, k) of the patients.
        labels: (draws + 1, n), the true ones first.
    """
    centred = columns - columns.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    white = left[:, size > 1e-9 * max(size[0], 1e-300)]  # (n, r) orthonormal
    parts = (labels[k : k + _CHUNK].astype(float) @ white for k in range(0, len(labels), _CHUNK))
    distance = np.concatenate([(part**2).sum(axis=1) for part in parts])
    return float(np.count_nonzero(distance >= distance[0] * (1 - 1e-9)) / len(distance))


def _fitted(
    columns: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) score of each patient by ridge regression of the label on (n, k) columns, with a weight for each patient."""
    total = weights.sum()
    centred = columns - weights @ columns / total
    weighted = centred * weights[:, None]
    spread = np.einsum("nk,nk->k", weighted, centred) / total
    normal = weighted.T @ centred + _RIDGE * np.diag(np.where(spread > 0, spread, 1.0))
    scores: NDArray[np.float64] = columns @ np.linalg.solve(normal, weighted.T @ (truth - weights @ truth / total))
    return scores


def _optimism(columns: NDArray[np.float64], truth: NDArray[np.bool_], rng: np.random.Generator) -> float:
    """Optimism of the AUC of a fit on the patients of the fit (Harrell et al., Stat Med 1996;15:361-387).

    The mean, over bootstrap samples, of the AUC there of a fit to the sample less its AUC on the patients themselves.
    Cross-validation would put the AUC of a useless fit far below 0.5 in small cohorts.
    """
    n = len(truth)
    excess: list[float] = []
    while len(excess) < _BOOTSTRAPS:
        weights = np.bincount(rng.integers(n, size=n), minlength=n).astype(float)
        if not 0 < weights @ truth < n:
            continue
        ranking = RankedScores.of(truth, _fitted(columns, truth, weights))
        excess.append(ranking.auc(weights) - ranking.auc())
    return float(np.mean(excess))


def _corrected_auc(own: AucInfluence, optimism: float, name: str) -> Estimate:
    """AUC of a fit less its optimism, with the interval of an AUC moved as far."""
    truth, area = own.truth, own.auc
    variance = auc_variance(truth, own.values, np.arange(len(truth)))
    limits = auc_limits(area, variance, int(truth.sum()), int((~truth).sum()))
    value, low, high = (min(1.0, max(0.0, end - optimism)) for end in (area, *limits))
    return Estimate(name, value, low, high, len(truth), f"{AUC_METHOD}, less optimism")


def _gain_over(model: AucInfluence, own: AucInfluence, optimism: float) -> Estimate:
    """The model's AUC less the shortcut's, optimism taken off, with paired DeLong's interval."""
    variance = auc_variance(model.truth, model.values - own.values, np.arange(len(model.truth)))
    value, half = model.auc - own.auc + optimism, _Z * math.sqrt(max(0.0, variance))
    low, high = max(-1.0, value - half), min(1.0, value + half)
    return Estimate("AUC difference", value, low, high, len(model.truth), "paired DeLong")


def _detectable_auc(n_positive: int, n_negative: int, alpha: float) -> float:
    """The AUC that a test with so many patients finds with 80 % power (Hanley & McNeil, Radiology 1982;143:29-36).

    Example:
        >>> round(_detectable_auc(50, 50, 0.05), 2)
        0.65
    """
    z = float(norm.isf(alpha / 2) + norm.ppf(_POWER))
    grid = np.linspace(0.5, 1, 501)
    q1, q2 = grid / (2 - grid), 2 * grid**2 / (1 + grid)
    spread = grid * (1 - grid) + (n_positive - 1) * (q1 - grid**2) + (n_negative - 1) * (q2 - grid**2)
    enough = grid - 0.5 >= z * np.sqrt(np.maximum(spread, 0) / (n_positive * n_negative))
    return float(grid[np.argmax(enough)]) if enough.any() else math.nan


def _sentence(found: Sequence[_Shortcut], patients: Cases, unknown: Sequence[str]) -> str:
    alarms = sorted((s for s in found if s.alarm), key=lambda s: (s.name == _TOGETHER, -s.auc.value))
    n = f"n = {len(patients)} patients, {patients.n_positive} positive"
    return _loud(alarms, n) if alarms else _silent(found, patients, n, unknown)


def _silent(found: Sequence[_Shortcut], patients: Cases, n: str, unknown: Sequence[str]) -> str:
    linear = [shortcut for shortcut in found if shortcut.name != _ANY_SHAPE]
    bent = "".join(
        f", nor does a relation of any shape ({p_value_in_words(s.p)}; alarm below {_ALARM / _TIMES:g})"
        for s in found
        if s.name == _ANY_SHAPE
    )
    best = max(linear, key=lambda s: s.auc.value)
    limit = _detectable_auc(patients.n_positive, len(patients) - patients.n_positive, _ALARM / len(linear))
    unseen = f"; one with an AUC under {limit:.2f} could go unseen" if not limit < _SMALL_AUC else ""
    return (
        f"None of the {len(linear)} shortcuts tried predicts the label beyond chance (the best, {best.name}, reaches "
        f"an AUC of {best.auc.text()}, {p_value_in_words(best.p_holm)} by Holm; {n}){bent}{unseen}. Not seen: "
        f"{', '.join((*unknown, 'staining batch, age of the block and whatever else is not recorded'))}; fine patterns "
        "of three or more properties."
    )


def _loud(alarms: Sequence[_Shortcut], n: str) -> str:
    worst = alarms[0]
    others = ", so does ".join(
        f"a relation of any shape ({s.detail})" if s.name == _ANY_SHAPE else s.name
        for s in alarms[1:]
        if s.name != _TOGETHER
    )
    subject = f"{worst.name.capitalize()} alone predicts"
    if worst.name == _TOGETHER:
        subject = "The shortcuts together predict"
    if worst.name == _ANY_SHAPE:
        subject = f"A relation of any shape ({worst.detail}) predicts"
    chance = p_value_in_words(worst.p) if worst.name == _ANY_SHAPE else f"{p_value_in_words(worst.p_holm)} by Holm"
    verdict = "the model is not shown to be better than that"
    if worst.gain.high < 0:
        verdict = f"the model's AUC is lower by {worst.gain.negated.text()}"
    elif not worst.rivals:
        verdict = f"the model's AUC is higher by {worst.gain.text()}"
    return (
        f"{subject} the label with an AUC of {worst.auc.text()} ({chance}, {n})"
        f"{f'; so does {others}' if others else ''}; {verdict}."
    )


def _row(shortcut: _Shortcut) -> dict[str, Cell]:
    return {
        "shortcut": shortcut.name,
        "auc": shortcut.auc,
        "p": round(shortcut.p, 4),
        "p_holm": round(shortcut.p_holm, 4),
        "model_less_shortcut": shortcut.gain,
        "predicts": shortcut.alarm,
    }


def _untested(name: str) -> dict[str, Cell]:
    return {
        "shortcut": f"{name} (the same for all, or not recorded)", "auc": None, "p": None, "p_holm": None,
        "model_less_shortcut": None, "predicts": None,
    }  # fmt: skip
