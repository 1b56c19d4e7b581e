"""What an audit says: one plain sentence, the table behind it, and how it was found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from he2her2.statistics.intervals import Estimate

Cell: TypeAlias = str | int | float | bool | Estimate | None
Row: TypeAlias = Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome of one audit.

    Attributes:
        name: What was asked, such as "shortcuts".
        sentence: What was found, in one sentence.
        alarm: Whether a reader must not overlook it.
        rows: The table behind it; all rows have the same columns.
        method: How it was found, with the source of the method.
        done: Whether there was enough to find anything; if not, the sentence says what was missing.
    """

    name: str
    sentence: str
    alarm: bool
    rows: tuple[Row, ...]
    method: str
    done: bool = True


def not_done(name: str, why: str, method: str) -> Audit:
    """An audit that could not be made."""
    return Audit(name, f"Not done: {why}.", alarm=False, rows=(), method=method, done=False)


def holm(p_values: list[float]) -> list[float]:
    """P-values adjusted for their number by Holm (Scandinavian J Stat 1979;6:65-70); nan stays and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted((k for k, p in enumerate(p_values) if p == p), key=lambda k: p_values[k])  # noqa: PLR0124  (nan)
    adjusted, greatest = [float("nan")] * len(p_values), 0.0
    for rank, k in enumerate(order):
        greatest = max(greatest, min(1.0, (len(order) - rank) * p_values[k]))
        adjusted[k] = greatest
    return adjusted
