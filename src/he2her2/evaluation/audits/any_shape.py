"""Relations of any shape between the label and properties: bent, in pairs, among patients alike in everything.

The linear tests of `shortcuts` see a property that rises or falls with the label. Here a pattern is a few functions of
the properties' ranks u in [0, 1]:

- of one property, cos(pi u), which rises or falls; cos(k pi u) for k = 2, for k = 2 to 4 and for k = 2 to 8: an
  inverted U; and the squared normal score, of all colours together, too: a difference in spread;
- of two properties, the products of cos(pi u), and those with cos(2 pi u): a relation that turns round (XOR);
- neighbours: patients nearest to each other in all properties, or in colour, share the label.

The label is tested on all of them at once: the smallest of their approximate p-values, weighted so that the many pairs
do not drown the few single properties, against the smallest in every shuffle of the labels. So the p-value is exact
whatever their number.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from scipy.special import log_ndtr
from scipy.stats import norm, rankdata

_Floats: TypeAlias = NDArray[np.float64]

_SHAPES = (2, 4, 8)
_MOST = 2000
"""Patients that are looked at: with so many every relation worth the name is seen."""

_MOST_LEVELS = 8
_SHARES = {"one": 0.5, "pair": 0.35, "near": 0.15}
"""Of the error that each kind of pattern may use."""

_CHUNK = 250
_REPEATS, _FOLDS = 3, 5


@dataclass(frozen=True, slots=True, eq=False)
class Atoms:
    """Single columns of which patterns are made.

    Attributes:
        names: In words.
        ranks: (n, a) in [0, 1]; of a category 0 and 1.
        is_number: (a,) False for a category.
        groups: (a,) the same positive number for those that are measured together, such as channels; else 0.
    """

    names: tuple[str, ...]
    ranks: _Floats
    is_number: NDArray[np.bool_]
    groups: NDArray[np.intp]

    def take(self, rows: NDArray[np.intp]) -> "Atoms":
        """The same of some patients."""
        return Atoms(self.names, self.ranks[rows], self.is_number, self.groups)


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """Patterns of the properties of n patients.

    Attributes:
        names: Of each pattern, in words; the neighbourhoods are last.
        columns: (n, c) orthonormal columns of all patterns but the neighbourhoods, side by side.
        starts: (p,) first column of each.
        sizes: (p,) their number.
        neighbours: (n, n) of each neighbourhood, symmetric, 1 for neighbours.
        log_weights: Of each pattern, the neighbourhoods' last; subtracted from the logarithm of its p-value.
    """

    names: tuple[str, ...]
    columns: _Floats
    starts: NDArray[np.intp]
    sizes: NDArray[np.intp]
    neighbours: tuple[csr_array, ...]
    log_weights: _Floats


def atoms_of(
    numbers: Mapping[str, _Floats], categories: Mapping[str, NDArray[np.str_]], together: Sequence[Sequence[str]]
) -> Atoms:
    """Ranks of numbers and indicators of categories and of missing numbers, without those that are constant.

    Args:
        numbers: By name, (n,) values, nan where missing.
        categories: By name, (n,) names; only those of at most 8 different ones.
        together: Names of numbers that are measured together, such as the channels of a colour.
    """
    group = {name: k for k, names in enumerate(together, 1) for name in names}
    found: list[tuple[str, _Floats, bool, int]] = []
    for name, values in numbers.items():
        missing = np.isnan(values)
        if not missing.all():
            filled = np.where(missing, np.nanmedian(values), values)
            found.append((name, (rankdata(filled) - 0.5) / len(filled), True, group.get(name, 0)))
        found.append((f"missing {name}", missing.astype(float), False, 0))
    for name, values_of in categories.items():
        levels = np.unique(values_of)
        if len(levels) <= _MOST_LEVELS:
            found += [(f"{name} {level}", (values_of == level).astype(float), False, 0) for level in levels[:-1]]
    kept = [atom for atom in found if np.ptp(atom[1]) > 0]
    n = len(next(iter(numbers.values())))
    ranks = np.stack([atom[1] for atom in kept], axis=1) if kept else np.empty((n, 0))
    numbers_of, groups = np.array([atom[2] for atom in kept], bool), np.array([atom[3] for atom in kept], np.intp)
    return Atoms(tuple(atom[0] for atom in kept), ranks, numbers_of, groups)


def patterns_of(atoms: Atoms) -> Patterns:
    """All patterns of the atoms."""
    white = [(kind, name, _orthonormal(columns)) for kind, name, columns in (*_bends(atoms), *_pairs(atoms))]
    white = [pattern for pattern in white if pattern[2].shape[1]]
    sizes = np.array([columns.shape[1] for *_, columns in white], np.intp)
    near = _neighbourhoods(atoms)
    kinds = [*(kind for kind, *_ in white), *("near" for _ in near)]
    return Patterns(
        (*(name for _, name, _ in white), *near),
        np.concatenate([columns for *_, columns in white], axis=1) if white else np.empty((len(atoms.ranks), 0)),
        np.cumsum(sizes) - sizes,
        sizes,
        tuple(near.values()),
        np.log([_SHARES[kind] / kinds.count(kind) for kind in kinds]),
    )


def _waves(atoms: Atoms) -> _Floats:
    """(k + 1, n, a) cosines of the ranks, by their frequency in half turns."""
    return np.cos(np.arange(max(_SHAPES) + 1)[:, None, None] * np.pi * atoms.ranks)


def _bends(atoms: Atoms) -> Iterator[tuple[str, str, _Floats]]:
    """Kind, name and columns of the patterns of one property."""
    waves, squares = _waves(atoms), norm.ppf(np.clip(atoms.ranks, 1e-9, 1 - 1e-9)) ** 2
    for i, name in enumerate(atoms.names):
        yield "one", name, waves[1, :, i][:, None]
    for i in np.flatnonzero(atoms.is_number).tolist():
        name = f"{atoms.names[i]}, not in one direction"
        yield "one", name, squares[:, [i]]
        for most in _SHAPES:
            yield "one", name, waves[2 : most + 1, :, i].T
    for group in np.unique(atoms.groups[atoms.groups > 0]).tolist():
        members = np.flatnonzero(atoms.groups == group)
        name = f"{', '.join(atoms.names[i] for i in members)}, not in one direction"
        yield "one", name, squares[:, members].sum(axis=1, keepdims=True)


def _pairs(atoms: Atoms) -> Iterator[tuple[str, str, _Floats]]:
    """Kind, name and columns of the patterns of two properties."""
    waves = _waves(atoms)
    for i, j in itertools.combinations(range(len(atoms.names)), 2):
        name = f"{atoms.names[i]} together with {atoms.names[j]}"
        products = [waves[k, :, i] * waves[m, :, j] for k in (1, 2) for m in (1, 2)]
        yield "pair", name, products[0][:, None]
        if atoms.is_number[i] and atoms.is_number[j]:
            yield "pair", name, np.stack(products, axis=1)


def _orthonormal(columns: _Floats) -> _Floats:
    """(n, r) orthonormal columns that span the centred ones."""
    centred = columns - columns.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(left[:, size > 1e-6 * max(float(size[0]), 1e-3)], np.float64)


def _neighbourhoods(atoms: Atoms) -> dict[str, csr_array]:
    """By name, which patients are nearest to each other."""
    n = len(atoms.ranks)
    k = max(3, round(np.sqrt(n) / 2))
    found = {}
    for name, chosen in (
        ("patients alike in all properties", np.ones(len(atoms.names), bool)),
        ("patients alike in colour and contrast", atoms.groups > 0),
    ):
        if chosen.sum() < 2 or n <= k + 1:
            continue
        nearest = cKDTree(atoms.ranks[:, chosen]).query(atoms.ranks[:, chosen], k + 1)[1]
        owner = np.repeat(np.arange(n), k + 1)
        one_way = csr_array((np.ones(len(owner)), (owner, nearest.ravel())), shape=(n, n))
        both = ((one_way + one_way.T) > 0).astype(np.float64)
        both.setdiag(0)
        both.eliminate_zeros()
        found[name] = csr_array(both)
    return found


def smallest_p(patterns: Patterns, labels: _Floats) -> tuple[_Floats, NDArray[np.intp]]:
    """Smallest logarithm of a weighted p-value over the patterns, for each row of labels, and whose it is.

    Args:
        patterns: Of n patients.
        labels: (rows, n) centred labels; 0 for patients who are left out.
    """
    spread = (labels**2).sum(axis=1)  # n times the variance
    chance = []
    for k in range(0, len(labels), _CHUNK):
        part = labels[k : k + _CHUNK]
        squares = (part @ patterns.columns) ** 2
        if len(patterns.sizes):
            sums = np.add.reduceat(squares, patterns.starts, axis=1)
            scaled = sums / spread[k : k + _CHUNK, None] * (part.shape[1] - 1)
            chance.append(_log_chi2_tail(scaled, patterns.sizes))
        else:
            chance.append(np.empty((len(part), 0)))
    p = np.concatenate(chance)
    for near in patterns.neighbours:
        like = np.asarray((labels @ near * labels).sum(axis=1)) / spread  # (rows,)
        degree = np.asarray(near.sum(axis=1)).ravel()
        mean, deviation = -degree.mean() / (len(degree) - 1), np.sqrt(2 * degree.sum()) / len(degree)
        p = np.column_stack([p, norm.logsf((like - mean) / deviation)])
    p = p - patterns.log_weights
    best = p.argmin(axis=1) if p.shape[1] else np.zeros(len(p), np.intp)
    return (p.min(axis=1) if p.shape[1] else np.zeros(len(p))), best


def _log_chi2_tail(values: _Floats, freedom: NDArray[np.intp]) -> _Floats:
    """Logarithm of chi-squared's upper tail by Wilson and Hilferty (1931): near enough for one scale of patterns.

    `scipy.stats.chi2.logsf` takes thirty times as long.

    Example:
        >>> _log_chi2_tail(np.array([[3.84, 7.81]]), np.array([1, 3])).round().tolist()
        [[-3.0, -3.0]]
    """
    spread = 2 / (9 * freedom)
    return np.asarray(log_ndtr((1 - spread - np.cbrt(values / freedom)) / np.sqrt(spread)), np.float64)


def looked_at(n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Patients that are looked at: all, or 2000 of them drawn without regard to the label."""
    return np.arange(n) if n <= _MOST else np.sort(rng.permutation(n)[:_MOST])


def any_shape_p(patterns: Patterns, labels: NDArray[np.bool_]) -> tuple[float, str]:
    """Permutation p-value of the label on all patterns at once, and the name of the strongest.

    Args:
        patterns: Of n patients.
        labels: (draws + 1, n) bool, the true ones first.
    """
    if not patterns.names:
        return 1.0, ""
    centred = labels - labels.mean(axis=1, keepdims=True)
    logs, best = smallest_p(patterns, centred)
    return float(np.count_nonzero(logs <= logs[0] + 1e-9) / len(logs)), patterns.names[int(best[0])]


def cross_fitted(patterns: Patterns, truth: NDArray[np.bool_], rng: np.random.Generator) -> _Floats:
    """(n,) score of each patient by the pattern that is strongest among the patients of other folds.

    The mean over 3 partitions into 5 folds of each class.
    """
    total = np.zeros(len(truth))
    for _ in range(_REPEATS):
        fold = np.empty(len(truth), np.intp)
        for kind in (True, False):
            members = rng.permutation(np.flatnonzero(truth == kind))
            fold[members] = np.arange(len(members)) % _FOLDS
        for k in range(_FOLDS):
            out = fold == k
            label = np.where(out, 0.0, truth - truth[~out].mean())
            total[out] += _score(patterns, label)[out]
    return total / _REPEATS


def _score(patterns: Patterns, label: _Floats) -> _Floats:
    """(n,) score by the strongest pattern of centred labels, 0 for those to be scored."""
    best = int(smallest_p(patterns, label[None])[1][0])
    n_columns = len(patterns.sizes)
    if best >= n_columns:
        near = patterns.neighbours[best - n_columns]
        return np.asarray(near @ label / np.maximum(near @ (label != 0).astype(float), 1))
    columns = patterns.columns[:, patterns.starts[best] : patterns.starts[best] + patterns.sizes[best]]
    used = columns[label != 0]
    centre = used.mean(axis=0)
    normal = (used - centre).T @ (used - centre) + 1e-2 * np.eye(columns.shape[1])
    return np.asarray((columns - centre) @ np.linalg.solve(normal, (used - centre).T @ label[label != 0]))
