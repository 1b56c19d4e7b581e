"""The outcome of an audit: one sentence, the table behind it, and the method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from he2her2.statistics import Estimate

Cell: TypeAlias = str | int | float | bool | Estimate | None
AuditRow: TypeAlias = Mapping[str, Cell]

_MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome of one audit.

    Attributes:
        name: Such as "shortcuts".
        sentence: The finding.
        alarm: True if the finding limits the figures of the evaluation.
        rows: The table behind it; all rows have the same columns.
        method: With the source of the method.
        done: False if data were missing; the sentence then says which.
    """

    name: str
    sentence: str
    alarm: bool
    rows: tuple[AuditRow, ...]
    method: str
    done: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns; none without rows."""
        return tuple(self.rows[0]) if self.rows else ()

    @property
    def is_long(self) -> bool:
        """True if the table is too long for a page: it has many rows, or one for every slide."""
        return len(self.rows) > _MOST_ROWS or "slide_id" in self.columns

    @property
    def texts(self) -> list[list[str]]:
        """The table's cells as text, by row."""
        return [[_text(row[column]) for column in self.columns] for row in self.rows]


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case Estimate():
            return cell.text()
        case float():
            return f"{cell:.3g}"
        case _:
            return str(cell)


def not_done(name: str, why: str, method: str) -> Audit:
    """An audit for which data are missing."""
    return Audit(name, f"Not done: {why}.", alarm=False, rows=(), method=method, done=False)


def not_done_without_slides(audit: Audit) -> Audit:
    """An audit of colours or tiles, not done because the scores are of another program, which has neither."""
    return not_done(audit.name, "scores of another program have no colours and no tiles", audit.method)
