"""Whole numbers of patients, or whole groups of them, as near to wished shares as they can be."""

import math
from collections.abc import Sequence
from itertools import product
from random import Random

_TOLERANCE = 1e-9
_DRAWS = 200


def apportion(sizes: Sequence[int], shares: Sequence[float]) -> list[list[int]]:
    """How many members of each class go to each side.

    Every side's total is a rounding, down or up, of its share of all members. Within that, as many classes as
    possible have a member on every side; within that, each class keeps the shares as nearly as it can. Solved as an
    integer programme, since rounding row by row misses the totals (Cox, J Am Stat Assoc 1987;82:520-524, shows that
    both can be rounded at once).

    Args:
        sizes: (c,) members of each class.
        shares: (k,) share of each side; they sum to 1.

    Returns:
        (c, k) numbers; row i sums to `sizes[i]`.

    Example:
        >>> apportion([6, 4], [0.5, 0.25, 0.25])
        [[3, 2, 1], [2, 1, 1]]
    """
    import numpy as np  # noqa: PLC0415  (with scipy: half a second that reading a manifest need not wait)
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    n_cells = len(sizes) * len(shares)
    cells = list(product(range(len(sizes)), range(len(shares))))
    wish = np.array([sizes[c] * shares[k] for c, k in cells])
    # Unknowns, a block of `n_cells` each: members, distance from the wish, whether the side lacks the class.
    identity, zero = np.eye(n_cells), np.zeros((n_cells, n_cells))
    by_class = np.array([[float(c == i) for c, _ in cells] + [0.0] * 2 * n_cells for i in range(len(sizes))])
    by_side = np.array([[float(k == i) for _, k in cells] + [0.0] * 2 * n_cells for i in range(len(shares))])
    totals = np.array([sum(sizes) * share for share in shares])
    constraints = [
        LinearConstraint(by_class, np.array(sizes), np.array(sizes)),
        LinearConstraint(by_side, np.floor(totals + _TOLERANCE), np.ceil(totals - _TOLERANCE)),
        LinearConstraint(np.hstack([identity, -identity, zero]), -np.inf, wish),
        LinearConstraint(np.hstack([identity, identity, zero]), wish, np.inf),
        LinearConstraint(np.hstack([identity, zero, identity]), 1, np.inf),
    ]
    first_come = 1e-4 * np.arange(n_cells) / n_cells  # makes the best solution one, whatever the solver's version
    found = milp(
        np.concatenate([first_come, np.ones(n_cells), np.full(n_cells, 2.0 * sum(sizes) + 1)]),
        integrality=np.repeat([1, 0, 1], n_cells),
        bounds=Bounds(0, np.repeat([np.inf, np.inf, 1], n_cells)),
        constraints=constraints,
    )
    assert found.success, found.message  # rounding both ways at once always exists
    numbers = np.rint(found.x[:n_cells]).astype(int).reshape(len(sizes), len(shares))
    return [[int(n) for n in row] for row in numbers]


def share_groups(counts: Sequence[Sequence[int]], shares: Sequence[float], rng: Random) -> list[int]:
    """Put whole groups on sides: every side has a group, classes are spread as well, sizes are as near as may be.

    The best of many seeded greedy draws; the problem is a bin packing, for which no quick exact way is known.

    Args:
        counts: (g, c) members of each class in each group.
        shares: (k,) share of each side; they sum to 1. There are at least k groups.
        rng: Seeded.

    Returns:
        (g,) side of each group.
    """
    classes = range(len(counts[0]))
    totals = [sum(group[c] for group in counts) for c in classes]
    best, best_cost = [0] * len(counts), (math.inf, math.inf)
    for _ in range(_DRAWS):
        order = sorted(range(len(counts)), key=lambda g: -sum(counts[g]) * rng.uniform(0.5, 1.5))
        sides = _greedy(counts, order, shares, totals)
        cost = _cost(counts, sides, shares, totals)
        if cost < best_cost:
            best, best_cost = sides, cost
    return best


def _greedy(
    counts: Sequence[Sequence[int]], order: Sequence[int], shares: Sequence[float], totals: Sequence[int]
) -> list[int]:
    """Groups in order, each to the side that misses its members most; a side that would stay empty goes first."""
    side_of = [0] * len(counts)
    held = [[0] * len(totals) for _ in shares]
    filled: set[int] = set()
    for done, group in enumerate(order):
        empty = [k for k in range(len(shares)) if k not in filled]
        open_sides = empty if len(empty) >= len(order) - done else range(len(shares))
        side = min(open_sides, key=lambda k: _excess(counts[group], held[k], shares[k], totals))
        side_of[group] = side
        filled.add(side)
        held[side] = [a + b for a, b in zip(held[side], counts[group], strict=True)]
    return side_of


def _excess(group: Sequence[int], held: Sequence[int], share: float, totals: Sequence[int]) -> float:
    """How full a side would be with the group, against its share, in the class where it would be fullest."""
    return max(
        ((h + n) / (total * share) for n, h, total in zip(group, held, totals, strict=True) if n and total),
        default=0.0,
    )


def _cost(
    counts: Sequence[Sequence[int]], sides: Sequence[int], shares: Sequence[float], totals: Sequence[int]
) -> tuple[float, float]:
    """First the classes that sides lack, then how far sizes and classes are from their shares."""
    lacking, distance = 0, 0.0
    for k, share in enumerate(shares):
        held = [
            sum(group[c] for group, side in zip(counts, sides, strict=True) if side == k) for c in range(len(totals))
        ]
        lacking += sum(n == 0 for n in held)
        distance += abs(sum(held) - share * sum(totals))
        distance += sum(abs(n - share * total) for n, total in zip(held, totals, strict=True))
    return lacking, distance
