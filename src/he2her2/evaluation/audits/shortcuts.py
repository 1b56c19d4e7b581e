"""Can something that means nothing predict the label: the slide's size, its tile count, site, colour, ink, blur?

Each is tested by a permutation test (labels shuffled over patients; statistic: Hotelling's T² of ranks, for one
property the rank-sum test), Holm's correction over the family, and measured by the AUC of a cross-validated logistic
regression, which is compared with the model's on the same patients (paired DeLong). On TCGA slide size alone has
separated HER2-low from zero.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from he2her2.evaluation.audits.finding import Audit, Cell, holm, not_done
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.comparisons import Difference, delong_difference
from he2her2.evaluation.features import COLOUR, Properties
from he2her2.evaluation.intervals import Estimate, delong
from he2her2.evaluation.words import span

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
_FOLDS, _REPEATS = 5, 3
_CHUNK = 250
_METHOD = (
    f"Permutation test over patients ({DRAWS} shuffles) of the rank-transformed properties, p-values by Holm; AUC of "
    f"logistic regression on these, {_REPEATS} x {_FOLDS}-fold cross-validated by patient, interval by DeLong; "
    "difference to the model by paired DeLong."
)


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What one property, or a few together, can do alone.

    Attributes:
        name: What it is.
        auc: Cross-validated; below 0.5 is noise, since its sign is learnt.
        p: Of the permutation test.
        p_holm: The same, adjusted for the number of shortcuts tried.
        gain: The model's AUC less the shortcut's.
    """

    name: str
    auc: Estimate
    p: float
    p_holm: float
    gain: Difference

    @property
    def alarm(self) -> bool:
        """Whether it predicts the label."""
        return self.p_holm < ALARM

    @property
    def rivals(self) -> bool:
        """Whether the model is not shown to be better."""
        return not self.gain.estimate.low > 0


def shortcut_audit(patients: Cases, properties: Properties, seed: int = 0) -> Audit:
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


def candidates_of(patients: Cases, properties: Properties) -> dict[str, NDArray[np.float64]]:
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
    shuffled = _shuffles(patients.truth, np.random.default_rng(seed))
    p_values = [permutation_p(columns, shuffled) for columns in candidates.values()]
    found = []
    for (name, columns), p, adjusted in zip(candidates.items(), p_values, holm(p_values), strict=True):
        scores = cross_validated(columns, patients.truth, seed)
        gain = delong_difference(patients.truth, patients.probability, scores)
        found.append(Shortcut(name, delong(patients.truth, scores, name=f"AUC of {name}"), p, adjusted, gain))
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


def cross_validated(columns: NDArray[np.float64], truth: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """(n,) probability of each patient by logistic regression fitted without that patient, averaged over repeats."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (an extra, and slow to load)
    from sklearn.model_selection import RepeatedStratifiedKFold  # noqa: PLC0415

    n_folds = min(_FOLDS, int(truth.sum()), int((~truth).sum()))
    folds = RepeatedStratifiedKFold(n_splits=n_folds, n_repeats=_REPEATS, random_state=seed)
    total = np.zeros(len(truth))
    for train, test in folds.split(columns, truth):
        fitted = LogisticRegression(max_iter=1000).fit(columns[train], truth[train])
        total[test] += fitted.decision_function(columns[test])
    return total / _REPEATS


def detectable_auc(n_positive: int, n_negative: int, alpha: float, power: float = 0.8) -> float:
    """The AUC that a test with so many patients finds with 80 % power (Hanley & McNeil, Radiology 1982;143:29-36).

    Example:
        >>> round(detectable_auc(50, 50, 0.05), 2)
        0.66
    """
    z = float(norm.isf(alpha / 2) + norm.ppf(power))
    grid = np.linspace(0.5, 1, 501)
    q1, q2 = grid / (2 - grid), 2 * grid**2 / (1 + grid)
    spread = grid * (1 - grid) + (n_positive - 1) * (q1 - grid**2) + (n_negative - 1) * (q2 - grid**2)
    enough = grid - 0.5 >= z * np.sqrt(np.maximum(spread, 0) / (n_positive * n_negative))
    return float(grid[np.argmax(enough)]) if enough.any() else math.nan


def _sentence(found: Sequence[Shortcut], patients: Cases) -> str:
    alarms = sorted((shortcut for shortcut in found if shortcut.alarm), key=lambda s: -s.auc.value)
    n = f"n = {len(patients)} patients, {patients.n_positive} positive"
    if not found:
        return f"No property that could be a shortcut differs between patients ({n})."
    if not alarms:
        limit = detectable_auc(patients.n_positive, len(patients) - patients.n_positive, ALARM / len(found))
        best = max(found, key=lambda s: s.auc.value)
        return (
            f"None of the {len(found)} shortcuts tried predicts the label beyond chance (the best, {best.name}, "
            f"reaches an AUC of {span(best.auc)}; {n}); one with an AUC under {limit:.2f} could go unseen in so few."
            if limit > 0.55
            else f"None of the {len(found)} shortcuts tried predicts the label beyond chance (the best, {best.name}, "
            f"reaches an AUC of {span(best.auc)}; {n})."
        )
    worst = alarms[0]
    others = f"; so do {', '.join(s.name for s in alarms[1:])}" if alarms[1:] else ""
    verdict = (
        "the model is not shown to be better than that"
        if worst.rivals
        else f"the model's AUC is {span(worst.gain.estimate)} higher"
    )
    name = worst.name.capitalize() if worst.name != TOGETHER else "The shortcuts together"
    alone = "" if worst.name == TOGETHER else " alone"
    verb = "predict" if worst.name == TOGETHER else "predicts"
    return (
        f"{name}{alone} {verb} the label with an AUC of {span(worst.auc)} (p = {worst.p_holm:.2g} by Holm, "
        f"{n}){others}; {verdict}."
    )


def _row(shortcut: Shortcut) -> dict[str, Cell]:
    return {
        "shortcut": shortcut.name,
        "auc": shortcut.auc,
        "p": round(shortcut.p, 4),
        "p_holm": round(shortcut.p_holm, 4),
        "model_less_shortcut": shortcut.gain.estimate,
        "predicts": shortcut.alarm,
    }


def _untested(name: str) -> dict[str, Cell]:
    return {
        "shortcut": f"{name} (the same for all, or not recorded)", "auc": None, "p": None, "p_holm": None,
        "model_less_shortcut": None, "predicts": None,
    }  # fmt: skip
