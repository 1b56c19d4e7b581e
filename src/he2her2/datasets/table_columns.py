"""Columns of public tables, which go by several names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from he2her2.errors import ManifestError
from he2her2.manifest import Table, TableRow, is_blank

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Names of a table's columns by our names; see `find_columns`.

    Attributes:
        names: Our name to the table's.
        problems: Cells that cannot be understood, a line each; filled while reading.
    """

    names: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def text(self, row: TableRow, name: str) -> str:
        """A cell's text; empty where the table has no such column or the cell is blank."""
        cell = row.cells.get(self.names.get(name, ""), "")
        return "" if is_blank(cell) else cell

    def value(self, row: TableRow, name: str, parse: Callable[[str], _T]) -> _T | None:
        """A cell's value; None where it is blank, and a problem where it cannot be understood."""
        text = self.text(row, name)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"line {row.line}: {self.names[name]}: {error}")
            return None


def find_columns(
    table: Table,
    aliases: Mapping[str, Sequence[str]],
    given: Mapping[str, str | None],
    *,
    required: Sequence[str],
) -> TableColumns:
    """Find the table's columns by their usual names; case, blanks and punctuation are ignored.

    Args:
        table: The table.
        aliases: Our name to the usual names, best first.
        given: Our name to the column that the user names; None leaves it to the aliases.
        required: Our names of columns that the table must have.

    Raises:
        ManifestError: A column that the user names is not there, or a required one is not found: all of them.
    """
    by_bare = {_bare(name): name for name in reversed(table.columns)}
    names, problems = {}, []
    for ours, known in aliases.items():
        wanted = given.get(ours)
        found = next((by_bare[_bare(name)] for name in known if _bare(name) in by_bare), None)
        if wanted is None and found is not None:
            names[ours] = found
        elif wanted in table.columns:
            names[ours] = str(wanted)
        elif wanted is not None:
            problems.append(f"{table.path}: has no column {wanted!r} for {ours}; it has {', '.join(table.columns)}")
        elif ours in required:
            problems.append(
                f"{table.path}: no column looks like {ours} ({', '.join(known)}); name it by --column {ours}=NAME; "
                f"the table has {', '.join(table.columns)}"
            )
    if problems:
        raise ManifestError(problems)
    return TableColumns(names, list(table.problems))


def _bare(name: str) -> str:
    """A column's name without what people write differently.

    Example:
        >>> _bare("HER2 Status") == _bare("her2_status")
        True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())
