"""Shift between sites: features of slides that tell where a slide is from.

Each site is held against all others by the maximum mean discrepancy of their features (Gretton et al., J Mach Learn Res
2012;13:723-773; Gaussian kernel whose width is the median distance), tested by shuffling patients between sites, and by
the AUC of a ridge regression that names the site of patients of other folds.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from he2her2.evaluation.audits.audit import Audit, AuditRow, not_done
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.covariates import SlideFeatures
from he2her2.evaluation.slide_properties import is_one
from he2her2.statistics import auc_interval, holm

_NAME = "shift"
_FEWEST = 10
_MOST = 2000
_SHUFFLES = 999
_FOLDS = 5
_ALPHA = 0.05
_COMPONENTS = 50
_ROUNDING = 1e-9  # of a discrepancy: groups of equal features differ by the order of their sums
_METHOD = (
    "Each site of at least 10 patients against all others: squared maximum mean discrepancy of standardised features "
    f"(Gaussian kernel of the median distance; Gretton et al. 2012), p by {_SHUFFLES} shuffles of patients between "
    "sites, corrected by Holm; AUC of a ridge regression on up to 50 principal components that tells the site's "
    "patients from all others, cross-validated in 5 folds. It says that slides differ, by stain, scanner or case mix, "
    "not that the model is wrong there: see the audit of sites."
)


def shift_audit(patients: Cases, features: SlideFeatures | None, seed: int = 0) -> Audit:
    """Test whether features tell the patients' sites apart.

    Args:
        patients: Evaluated patients, with sites.
        features: Of patients; None where none were given.
        seed: Of shuffles and folds.
    """
    if features is None:
        return not_done(_NAME, "give features of the slides (--features)", _METHOD)
    _, here, there = np.intersect1d(patients.ids, features.ids, return_indices=True)
    known = is_one(patients.sites[here])
    sites, matrix = patients.sites[here][known], features.matrix[there][known]
    rng = np.random.default_rng(seed)
    if len(sites) > _MOST:
        drawn = rng.permutation(len(sites))[:_MOST]
        sites, matrix = sites[drawn], matrix[drawn]
    names, counts = np.unique(sites, return_counts=True)
    large = names[np.argsort(-counts, kind="stable")][: int((counts >= _FEWEST).sum())]
    if len(names) < 2 or not len(large):
        return not_done(_NAME, f"two sites are needed, one of them with {_FEWEST} patients with features", _METHOD)
    whole = _standardised(matrix)
    members = (sites[None] == large[:, None]).astype(np.float64)  # (k, n)
    discrepancy, p = discrepancies(_kernel(whole), members, rng)
    scores = _told_apart(_components(whole), members, rng)
    adjusted = holm(p.tolist())
    found = tuple(
        {
            "site": str(name),
            "n": int(inside.sum()),
            "mmd2": round(float(gap), 4),
            "p": round(float(chance), 4),
            "p_holm": round(corrected, 4),
            "auc_of_site": auc_interval(inside > 0, score, name=f"AUC of {name}"),
            "differs": corrected < _ALPHA,
        }
        for name, inside, gap, chance, corrected, score in zip(
            large, members, discrepancy, p, adjusted, scores, strict=True
        )
    )
    differs = any(row["differs"] for row in found)
    return Audit(_NAME, _sentence(found, features.name, len(sites)), differs, found, _METHOD)


def _sentence(rows: tuple[AuditRow, ...], name: str, n: int) -> str:
    apart = [str(row["site"]) for row in rows if row["differs"]]
    aucs = sorted(row["auc_of_site"].value for row in rows)  # type: ignore[union-attr]
    told = f"a linear model names the site with an AUC of {aucs[0]:.2f} to {aucs[-1]:.2f}"
    of = f"of {len(rows)} sites with at least {_FEWEST} patients (n = {n})"
    if not apart:
        return f"By the {name} none {of} is shown to differ from the others; {told}."
    return f"By the {name} {len(apart)} {of} differ from the others ({', '.join(apart)}); {told}."


def _standardised(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, d) columns of mean 0 and spread 1, at most 5 away; those that are constant are left out."""
    filled = np.where(np.isfinite(matrix), matrix, np.nan)
    filled = np.where(np.isnan(filled), np.nan_to_num(np.nanmedian(filled, axis=0)), filled)
    spread = filled.std(axis=0)
    kept = spread > 1e-12 * (1 + np.abs(filled).max(axis=0))
    scaled: NDArray[np.float64] = (filled[:, kept] - filled[:, kept].mean(axis=0)) / spread[kept]
    return np.clip(scaled, -5, 5)


def _kernel(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) Gaussian kernel whose width is the median distance."""
    squares = pdist(points, "sqeuclidean")
    kernel: NDArray[np.float64] = squareform(np.exp(-squares / max(float(np.median(squares)), 1e-12)))
    return kernel  # 0 on the diagonal


def discrepancies(
    kernel: NDArray[np.float64], members: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared maximum mean discrepancy of groups to all others, unbiased, and its permutation p-value.

    Args:
        kernel: (n, n), 0 on the diagonal.
        members: (k, n) 1 for the members of a group.
        rng: Of the shuffles.

    Returns:
        (k,) and (k,).
    """
    total, rows = float(kernel.sum()), kernel.sum(axis=1)

    def of(inside: NDArray[np.float64]) -> NDArray[np.float64]:
        """(b,) of (b, n) groups."""
        m = inside.sum(axis=1)
        others = inside.shape[1] - m
        within = np.einsum("bn,bn->b", inside @ kernel, inside)
        across = inside @ rows - within
        outside = total - within - 2 * across
        left = within / (m * (m - 1)) + outside / (others * np.maximum(others - 1, 1))
        return np.asarray(left - 2 * across / (m * others))

    found = of(members)
    shuffled = [of(rng.permuted(np.tile(group, (_SHUFFLES, 1)), axis=1)) for group in members]
    as_far = [np.count_nonzero(draws >= own - _ROUNDING) for draws, own in zip(shuffled, found, strict=True)]
    p = (1 + np.array(as_far)) / (1 + _SHUFFLES)
    return found, p


def _components(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, c) leading principal components, at most a tenth of the patients."""
    left, size, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    c = max(1, min(_COMPONENTS, len(points) // 10, len(size)))
    return np.asarray(left[:, :c] * size[:c])


def _told_apart(
    points: NDArray[np.float64], members: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """(k, n) cross-validated scores of a ridge regression of each group on the points."""
    scores = np.empty(members.shape)
    fold = rng.permutation(np.arange(len(points)) % _FOLDS)
    for k in range(_FOLDS):
        out = fold == k
        centre = points[~out].mean(axis=0)
        known = points[~out] - centre
        normal = known.T @ known
        normal += np.eye(len(normal)) * 0.1 * np.trace(normal) / len(normal)
        labels = members[:, ~out].T
        scores[:, out] = ((points[out] - centre) @ np.linalg.solve(normal, known.T @ (labels - labels.mean(axis=0)))).T
    return scores
