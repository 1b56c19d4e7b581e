"""Stratified splits: whole numbers of patients, or whole groups of them, as near to given shares as possible."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TypeAlias

_Move: TypeAlias = tuple[int, int, int]  # row, column, and 1 or -1

_TOLERANCE = 1e-9
_LEAST_GAIN = 1e-7  # less is rounding error
_DRAWS = 100


def stratified_counts(sizes: Sequence[int], shares: Sequence[float]) -> list[list[int]]:
    """Compute how many members of each class go to each side.

    Every side's total is a rounding, down or up, of its share of all members. Within that, as many classes as
    possible have a member on every side; within that, each class keeps the shares as nearly as it can. Rounding class
    by class would miss the totals; rounding both at once is always possible (Cox, J Am Stat Assoc 1987;82:520-524) and
    here a transport with convex costs: a table is optimal when no cycle of moves makes it cheaper.

    `scipy.optimize.milp` finds tables of the same cost but chooses others among equals, so that recorded seeds would
    split otherwise: `test_recorded_seeds_split_as_they_did` fails with it (17 % of cohorts, the ties pinned by a second
    cost), and HiGHS ends a few of them with a solve error.

    Args:
        sizes: (c,) members of each class.
        shares: (k,) share of each side; they sum to 1.

    Returns:
        (c, k) numbers; row i sums to `sizes[i]`.

    Example:
        >>> stratified_counts([6, 4], [0.5, 0.25, 0.25])
        [[3, 1, 2], [2, 1, 1]]
    """
    totals = [sum(sizes) * share for share in shares]
    most = [math.ceil(total - _TOLERANCE) for total in totals]
    spare = [n - math.floor(total + _TOLERANCE) for n, total in zip(most, totals, strict=True)]
    costs = _Costs([[size * share for share in shares] for size in sizes], spare, 4.0 * sum(sizes) + 4)
    table = _first_table(sizes, most, spare, costs.exact)
    while cycle := _improving_cycle(table, costs):
        for row, column, step in cycle:
            table[row][column] += step
    return table[:-1]


@dataclass(frozen=True, slots=True)
class _Costs:
    """Cost of a table, cell by cell.

    Attributes:
        exact: (c, k) members by the exact shares, fractional.
        spare: (k,) 1 where a side's total may be rounded down, so that one of its seats may stay free.
        lacking: Cost of a class that a side lacks; more than any distance from the exact shares.
    """

    exact: list[list[float]]
    spare: list[int]
    lacking: float

    def of(self, row: int, column: int, n: int) -> float:
        """Cost of `n` in a cell; the last row counts free seats. Convex in `n`, and infinite where not allowed."""
        if row == len(self.exact):
            return 0.0 if 0 <= n <= self.spare[column] else math.inf
        exact = self.exact[row][column]
        if n < 0 or (exact == 0 and n > 0):
            return math.inf
        return abs(n - exact) + (self.lacking if n == 0 and exact > 0 else 0.0)


def _first_table(
    sizes: Sequence[int], most: Sequence[int], spare: Sequence[int], exact: Sequence[Sequence[float]]
) -> list[list[int]]:
    """Return a table with the right sums: exact shares rounded down, the rest from the first corner to the last."""
    free = sum(most) - sum(sizes)
    table = [[math.floor(n + _TOLERANCE) for n in row] for row in exact]
    seats = [i for i, one in enumerate(spare) if one][:free]
    table.append([int(i in seats) for i in range(len(most))])
    rows = [size - sum(row) for size, row in zip(sizes, table, strict=False)]
    columns = [n - sum(column) for n, column in zip(most, zip(*table, strict=True), strict=True)]
    for r, c in product(range(len(sizes)), range(len(most))):
        n = min(rows[r], columns[c])
        table[r][c] += n
        rows[r] -= n
        columns[c] -= n
    return table


def _improving_cycle(table: Sequence[Sequence[int]], costs: _Costs) -> list[_Move]:
    """Find moves of one member along a cycle that make the table cheaper and keep its sums; none if there is no cycle.

    Bellman and Ford's search for a negative cycle: adding to a cell leads from its row to its column, taking from it
    leads back.
    """
    n_rows, n_columns = len(table), len(table[0])
    edges = []
    for r, c in product(range(n_rows), range(n_columns)):
        here = costs.of(r, c, table[r][c])
        edges.append((r, n_rows + c, costs.of(r, c, table[r][c] + 1) - here, (r, c, 1)))
        edges.append((n_rows + c, r, costs.of(r, c, table[r][c] - 1) - here, (r, c, -1)))
    cost = [0.0] * (n_rows + n_columns)
    came: list[tuple[int, _Move] | None] = [None] * len(cost)
    last = None
    for _ in cost:
        last = None
        for start, end, step, move in edges:
            if cost[start] + step < cost[end] - _LEAST_GAIN:
                cost[end], came[end], last = cost[start] + step, (start, move), end
        if last is None:
            return []
    return _walk_back(came, last)


def _walk_back(came: Sequence[tuple[int, _Move] | None], node: int | None) -> list[_Move]:
    """Follow the predecessors of an endless search to its cycle."""
    seen: dict[int, int] = {}
    moves: list[_Move] = []
    while node is not None and node not in seen:
        seen[node] = len(moves)
        before = came[node]
        assert before is not None  # a node that still improves after so many rounds has a cycle behind it
        node = before[0]
        moves.append(before[1])
    return moves[seen[node] :] if node is not None else []


def sides_of_groups(counts: Sequence[Sequence[int]], shares: Sequence[float], rng: Random) -> list[int]:
    """Assign whole groups to sides: each has a group, then every class if possible, then sizes near their shares.

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
    """Groups in order, each to the side that lacks its members most; sides that would stay empty come first."""
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
    """Fill of a side with the group added, relative to its share, in the class where it is fullest."""
    return max(
        ((h + n) / (total * share) for n, h, total in zip(group, held, totals, strict=True) if n and total),
        default=0.0,
    )


def _cost(
    counts: Sequence[Sequence[int]], sides: Sequence[int], shares: Sequence[float], totals: Sequence[int]
) -> tuple[float, float]:
    """Number of classes that sides lack, then distance of sizes and classes from their shares."""
    lacking, distance = 0, 0.0
    for k, share in enumerate(shares):
        held = [
            sum(group[c] for group, side in zip(counts, sides, strict=True) if side == k) for c in range(len(totals))
        ]
        lacking += sum(n == 0 for n in held)
        distance += abs(sum(held) - share * sum(totals))
        distance += sum(abs(n - share * total) for n, total in zip(held, totals, strict=True))
    return lacking, distance
