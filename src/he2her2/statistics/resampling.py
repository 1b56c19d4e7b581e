"""Bootstrap by patient: every draw gives each patient a random weight, and with it all slides of that patient.

Weights are those of the Bayesian bootstrap (Rubin, 1981): independent Gamma(1) a patient. Unlike counts drawn with
replacement they never lose a whole class, and sums of them over equal patients are again Gamma, so a table of counts
needs a few draws however many patients it has. Added pseudo-cases with weight Gamma(1/2) make the draws of a table of
counts the posterior under the Jeffreys prior, which keeps intervals honest at n = 8, where the plain bootstrap of a
perfect result is a point.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.statistics.metrics import BinaryCounts

N_DRAWS = 4000
PRIOR = 0.5
"""Weight of a pseudo-case in patients (Jeffreys)."""


def patient_index(patients: Sequence[str] | NDArray[np.str_] | NDArray[np.intp] | None, n: int) -> NDArray[np.intp]:
    """Number patients 0 .. p - 1.

    Args:
        patients: (n,) the patient of every case; None when each case is a patient of its own.
        n: Number of cases.

    Raises:
        ValueError: There are not n of them, or one of them is None or nan.
    """
    if patients is None:
        return np.arange(n)
    if len(patients) != n:
        raise ValueError(f"{len(patients)} patients for {n} cases")
    found = np.asarray(patients)
    unknown = (one is None or (isinstance(one, float) and math.isnan(one)) for one in found.tolist())
    if found.dtype.kind in "fO" and any(unknown):
        raise ValueError("a patient is None or nan; all cases without a patient would count as one's")
    return np.unique(found, return_inverse=True)[1].reshape(-1)


def sum_by_patient(values: NDArray[np.float64], index: NDArray[np.intp]) -> NDArray[np.float64]:
    """(p,) sums of the (n,) cases' values over every patient."""
    sums: NDArray[np.float64] = np.bincount(index, values).astype(np.float64)
    return sums


def cells_by_patient(truth: ArrayLike, decided: ArrayLike, index: NDArray[np.intp]) -> NDArray[np.float64]:
    """(p, 4) number of true positives, false positives, true negatives and false negatives of every patient."""
    true, said = np.asarray(truth, dtype=bool), np.asarray(decided, dtype=bool)
    cells = (true & said, ~true & said, ~true & ~said, true & ~said)
    p = int(index.max()) + 1 if len(index) else 0
    return np.stack([np.bincount(index, cell, p) for cell in cells], axis=1)


def draw_tables(
    tables: NDArray[np.float64], *, prior: float | NDArray[np.float64], n_draws: int, seed: int
) -> NDArray[np.float64]:
    """Weighted sums of patients' tables of counts.

    Args:
        tables: (p, c) counts of every patient in c cells.
        prior: Weight of the pseudo-patient of each cell, one for all or (c,).
        n_draws: Number of sums.
        seed: Of the weights.

    Returns:
        (n_draws, c) sums, all above 0.
    """
    rng = np.random.default_rng(seed)
    kinds, repeats = np.unique(tables, axis=0, return_counts=True) if len(tables) else (tables, np.zeros(0))
    slides_a_patient = tables.sum() / len(tables) if len(tables) else 1.0
    pseudo = slides_a_patient * rng.standard_gamma(prior, (n_draws, tables.shape[1]))
    drawn: NDArray[np.float64] = rng.standard_gamma(repeats, (n_draws, len(kinds))) @ kinds + pseudo
    return np.maximum(drawn, np.finfo(float).tiny)


def draw_counts(
    metric: Callable[[BinaryCounts], float], tables: NDArray[np.float64], *, n_draws: int = N_DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """(n_draws,) values of a metric on weighted sums of patients' (p, 4) counts."""
    drawn: list[Any] = list(draw_tables(tables, prior=PRIOR, n_draws=n_draws, seed=seed).T)
    return np.asarray(metric(BinaryCounts(*drawn)), dtype=np.float64)


def draw_weights(
    index: NDArray[np.intp], *, pseudo_cases: int, n_draws: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Draw the weights of all cases many times, in blocks that fit into memory.

    Args:
        index: (n,) patient of every case.
        pseudo_cases: Number of pseudo-cases after the real ones.
        n_draws: Number of weightings in all.
        seed: Of the draws.

    Yields:
        (b, n + pseudo_cases) weights.
    """
    rng = np.random.default_rng(seed)
    p, n = int(index.max()) + 1, len(index)
    block = max(1, min(n_draws, _BLOCK // (n + pseudo_cases)))
    for start in range(0, n_draws, block):
        b = min(block, n_draws - start)
        real = rng.standard_exponential((b, p))[:, index]
        pseudo = rng.standard_gamma(PRIOR, (b, pseudo_cases)) * (n / p)
        yield np.concatenate([real, pseudo], axis=1)


_BLOCK = 1 << 20
"""Weights at a time."""
