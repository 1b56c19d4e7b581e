"""Can something that means nothing predict the label: the slide's size, its tile count, site, colour, ink, blur?

Each is tested by a permutation test (labels shuffled over patients; statistic: Hotelling's T² of normal scores of the
ranks, for one property van der Waerden's), with Holm's correction over the family, and measured by the AUC of a ridge
regression of the label on it, less its optimism. The AUC is compared with the model's on the same patients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from he2her2.evaluation.audits.audit import Audit, Cell, holm, not_done
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.slide_properties import COLOUR, SlideProperties
from he2her2.evaluation.words import negated, span
from he2her2.statistics.delong import Placements, placements, pull_variance
from he2her2.statistics.intervals import AUC_METHOD, Estimate, auc_limits
from he2her2.statistics.metrics import Ranking
from he2her2.statistics.metrics import auc_of as auc_at

NAME = "shortcuts"
SHORTCUTS: Mapping[str, tuple[str, ...]] = {
    "slide size": ("slide_mm2",),
    "tissue area": ("tissue_mm2",),
    "tile count": ("tile_count",),
    "scanner resolution": ("mpp",),
    "mean colour": COLOUR,
    "pen share": ("pen_share",),
    "blur share": ("blur_share",),
}
SITE, TOGETHER = "site", "all together"
DRAWS = 1999
ALARM = 0.05
MIN_PER_CLASS = 5
_SMALL_AUC = 0.55
_RIDGE = 1.0
_BOOTSTRAPS = 50
_Z = float(norm.ppf(0.975))
_CHUNK = 250
_METHOD = (
    f"Permutation test over patients ({DRAWS} shuffles) of rank-transformed properties, p-values by Holm; AUC of a "
    f"ridge regression on it less its optimism by {_BOOTSTRAPS} bootstraps (Harrell et al. 1996), "
    "interval by DeLong's variance; "
    "difference to the model by paired DeLong."
)


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What one property, or a few together, can do alone.

    Attributes:
        name: What it is.
        auc: Of a regression of the label on it, less its optimism.
        p: Of the permutation test.
        p_holm: The same, adjusted for the number of shortcuts tried.
        gain: The model's AUC less the shortcut's.
    """

    name: str
    auc: Estimate
    p: float
    p_holm: float
    gain: Estimate

    @property
    def alarm(self) -> bool:
        """Whether it predicts the label."""
        return self.p_holm < ALARM

    @property
    def rivals(self) -> bool:
        """Whether the model is not shown to be better."""
        return not self.gain.low > 0


def shortcut_audit(patients: Cases, properties: SlideProperties, seed: int = 0) -> Audit:
    """Ask whether properties without meaning predict the label.

    Args:
        patients: Evaluated patients.
        properties: Of the same patients, in the same order.
        seed: Of shuffles and folds.
    """
    n_positive = patients.n_positive
    if min(n_positive, len(patients) - n_positive) < MIN_PER_CLASS:
        why = f"{n_positive} of {len(patients)} patients are positive, {MIN_PER_CLASS} of each class are needed"
        return not_done(NAME, why, _METHOD)
    candidates = candidates_of(patients, properties)
    found = measure(candidates, patients, seed)
    unknown = [name for name in (*SHORTCUTS, SITE) if name not in candidates]
    rows = tuple(_row(shortcut) for shortcut in found) + tuple(_untested(name) for name in unknown)
    return Audit(NAME, _sentence(found, patients), any(shortcut.alarm for shortcut in found), rows, _METHOD)


def candidates_of(patients: Cases, properties: SlideProperties) -> dict[str, NDArray[np.float64]]:
    """The shortcuts that differ between patients, each as (n, k) ranks or indicators; the rest cannot tell anything."""
    found = {}
    for name, columns in SHORTCUTS.items():
        found[name] = ranked(properties.matrix(columns))
    found[SITE] = _indicators(patients.sites)
    found = {name: columns for name, columns in found.items() if columns.shape[1]}
    if len(found) > 1:
        found[TOGETHER] = np.concatenate(list(found.values()), axis=1)
    return found


def ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) ranks as normal scores, so that a few huge slides do not decide, and whether a value is missing.

    Missing values take the middle rank, and missingness itself becomes a column: that, too, may follow the label.
    Columns that say the same of everybody are left out.
    """
    columns = []
    for column in values.T:
        missing = np.isnan(column)
        ranks = rankdata(np.where(missing, 0.0 if missing.all() else np.nanmedian(column), column))
        columns += [norm.ppf((ranks - 0.5) / len(ranks)), missing.astype(float)]
    kept = [column for column in columns if np.ptp(column) > 0]
    return np.stack(kept, axis=1) if kept else np.empty((len(values), 0))


def _indicators(sites: NDArray[np.str_]) -> NDArray[np.float64]:
    """(n, k) which of the sites, without the last; no column where all are the same."""
    names = np.unique(sites)
    indicators: NDArray[np.float64] = (sites[:, None] == names[None, :-1]).astype(np.float64)
    return indicators


def measure(candidates: Mapping[str, NDArray[np.float64]], patients: Cases, seed: int) -> list[Shortcut]:
    """Test and measure every shortcut."""
    rng, truth = np.random.default_rng(seed), patients.truth
    shuffled = _shuffles(truth, rng)
    p_values = [permutation_p(columns, shuffled) for columns in candidates.values()]
    model = placements(truth, patients.probability)
    found = []
    for (name, columns), p, adjusted in zip(candidates.items(), p_values, holm(p_values), strict=True):
        own = placements(truth, fitted(columns, truth, np.ones(len(truth))))
        flattery = optimism(columns, truth, rng)
        auc = corrected_auc(own, flattery, f"AUC of {name}")
        found.append(Shortcut(name, auc, p, adjusted, gain_over(model, own, flattery)))
    return found


def _shuffles(truth: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(DRAWS + 1, n) the labels, first as they are, then shuffled."""
    return np.concatenate([truth[None], rng.permuted(np.tile(truth, (DRAWS, 1)), axis=1)])


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


def fitted(columns: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) score of each patient by ridge regression of the label on (n, k) columns, with a weight for each patient."""
    total = weights.sum()
    centred = columns - weights @ columns / total
    weighted = centred * weights[:, None]
    spread = np.einsum("nk,nk->k", weighted, centred) / total
    normal = weighted.T @ centred + _RIDGE * np.diag(np.where(spread > 0, spread, 1.0))
    scores: NDArray[np.float64] = columns @ np.linalg.solve(normal, weighted.T @ (truth - weights @ truth / total))
    return scores


def optimism(columns: NDArray[np.float64], truth: NDArray[np.bool_], rng: np.random.Generator) -> float:
    """By how much the AUC of a fit flatters on the very patients of the fit (Harrell et al., Stat Med 1996;15:361-387).

    The mean, over bootstrap samples, of the AUC there of a fit to the sample less its AUC on the patients themselves.
    Cross-validation would put chance far below 0.5 in small cohorts: who is held out pushes the fit the other way.
    """
    n = len(truth)
    excess: list[float] = []
    while len(excess) < _BOOTSTRAPS:
        weights = np.bincount(rng.integers(n, size=n), minlength=n).astype(float)
        if not 0 < weights @ truth < n:
            continue
        ranking = Ranking.of(truth, fitted(columns, truth, weights))
        excess.append(auc_at(ranking, weights) - auc_at(ranking))
    return float(np.mean(excess))


def corrected_auc(own: Placements, flattery: float, name: str) -> Estimate:
    """AUC of a fit less its optimism, with the interval of an AUC moved as far."""
    truth, area = own.truth, own.auc
    variance = pull_variance(truth, own.pull, np.arange(len(truth)))
    limits = auc_limits(area, variance, int(truth.sum()), int((~truth).sum()))
    value, low, high = (min(1.0, max(0.0, end - flattery)) for end in (area, *limits))
    return Estimate(name, value, low, high, len(truth), f"{AUC_METHOD}, less optimism")


def gain_over(model: Placements, own: Placements, flattery: float) -> Estimate:
    """The model's AUC less the shortcut's, optimism taken off, with paired DeLong's interval."""
    variance = pull_variance(model.truth, model.pull - own.pull, np.arange(len(model.truth)))
    value, half = model.auc - own.auc + flattery, _Z * math.sqrt(max(0.0, variance))
    low, high = max(-1.0, value - half), min(1.0, value + half)
    return Estimate("AUC difference", value, low, high, len(model.truth), "paired DeLong")


def detectable_auc(n_positive: int, n_negative: int, alpha: float, power: float = 0.8) -> float:
    """The AUC that a test with so many patients finds with 80 % power (Hanley & McNeil, Radiology 1982;143:29-36).

    Example:
        >>> round(detectable_auc(50, 50, 0.05), 2)
        0.65
    """
    z = float(norm.isf(alpha / 2) + norm.ppf(power))
    grid = np.linspace(0.5, 1, 501)
    q1, q2 = grid / (2 - grid), 2 * grid**2 / (1 + grid)
    spread = grid * (1 - grid) + (n_positive - 1) * (q1 - grid**2) + (n_negative - 1) * (q2 - grid**2)
    enough = grid - 0.5 >= z * np.sqrt(np.maximum(spread, 0) / (n_positive * n_negative))
    return float(grid[np.argmax(enough)]) if enough.any() else math.nan


def _sentence(found: Sequence[Shortcut], patients: Cases) -> str:
    alarms = sorted((s for s in found if s.alarm), key=lambda s: (s.name == TOGETHER, -s.auc.value))
    n = f"n = {len(patients)} patients, {patients.n_positive} positive"
    if not found:
        return f"No property that could be a shortcut differs between patients ({n})."
    return _loud(alarms, n) if alarms else _silent(found, patients, n)


def _silent(found: Sequence[Shortcut], patients: Cases, n: str) -> str:
    best = max(found, key=lambda s: s.auc.value)
    limit = detectable_auc(patients.n_positive, len(patients) - patients.n_positive, ALARM / len(found))
    unseen = f"; one with an AUC under {limit:.2f} could go unseen" if not limit < _SMALL_AUC else ""
    return (
        f"None of the {len(found)} shortcuts tried predicts the label beyond chance (the best, {best.name}, reaches an "
        f"AUC of {span(best.auc)}, p = {best.p_holm:.2g} by Holm; {n}){unseen}."
    )


def _loud(alarms: Sequence[Shortcut], n: str) -> str:
    worst = alarms[0]
    others = ", so does ".join(s.name for s in alarms[1:] if s.name != TOGETHER)
    subject = f"{worst.name.capitalize()} alone predicts"
    if worst.name == TOGETHER:
        subject = "The shortcuts together predict"
    verdict = "the model is not shown to be better than that"
    if worst.gain.high < 0:
        verdict = f"the model's AUC is lower by {span(negated(worst.gain))}"
    elif not worst.rivals:
        verdict = f"the model's AUC is higher by {span(worst.gain)}"
    return (
        f"{subject} the label with an AUC of {span(worst.auc)} (p = {worst.p_holm:.2g} by Holm, {n})"
        f"{f'; so does {others}' if others else ''}; {verdict}."
    )


def _row(shortcut: Shortcut) -> dict[str, Cell]:
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
