"""CSV files of ours: tables of which a spreadsheet runs nothing, written whole or not at all, and read back."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from he2her2.files import write_text

_Row = Mapping[str, Any] | Sequence[object]


def csv_text(columns: Sequence[str], rows: Iterable[_Row], *, line_end: str = "\n") -> str:
    r"""Return a table as CSV; a cell or heading that a spreadsheet would run as a formula begins with an apostrophe.

    Args:
        columns: Its heading.
        rows: Each one a mapping by column (a missing cell is empty, another column an error) or all cells in order.
        line_end: After each line.

    Example:
        >>> csv_text(["slide_id", "mpp"], [{"slide_id": "S1"}, ("S2", 0.5)])
        'slide_id,mpp\nS1,\nS2,0.5\n'
    """
    lines = _Lines(line_end)
    named = csv.DictWriter(lines, columns, lineterminator=_Lines.written)
    named.writer.writerow(map(_inert, columns))
    for row in rows:
        if isinstance(row, Mapping):
            named.writerow({column: _inert(cell) for column, cell in row.items()})
        else:
            named.writer.writerow(map(_inert, row))
    return "".join(lines)


class _Lines(list[str]):
    """Lines of a table with an end of their own; Python before 3.13 quotes only what is in the end that it writes."""

    written = "\r\n"

    def __init__(self, end: str) -> None:
        super().__init__()
        self._end = end

    def write(self, line: str) -> None:
        """Take a line."""
        self.append(line.removesuffix(self.written) + self._end)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[_Row], *, line_end: str = "\n") -> None:
    """Write a table as CSV, as `csv_text` gives it.

    Raises:
        OutputError: It cannot be written.
    """
    write_text(path, csv_text(columns, rows, line_end=line_end))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file that this program wrote, each by column.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no UTF-8 text, no CSV, or a row has more or fewer cells than the heading.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        try:
            heading = [*map(cell_text, next(lines, []))]
            rows = [(lines.line_num, cells) for cells in lines if cells]
        except csv.Error as error:
            raise ValueError(str(error)) from None
    for line, cells in rows:
        if len(cells) != len(heading):
            raise ValueError(f"line {line} has {len(cells)} cells, the heading {len(heading)}")
    return [dict(zip(heading, map(cell_text, cells), strict=True)) for _, cells in rows]


def read_filled(path: Path) -> list[dict[str, str]]:
    """Read rows as `read_csv`, without the empty ones that a spreadsheet leaves below a table."""
    return [row for row in read_csv(path) if any(row.values())]


def cell_text(cell: str) -> str:
    """Text of a cell without the apostrophe that `csv_text` put before a formula.

    Example:
        >>> cell_text("'=cmd()"), cell_text("'s"), cell_text("-0.5")
        ('=cmd()', "'s", '-0.5')
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    """True for text that a spreadsheet would compute, but for the apostrophes before it."""
    text = cell.lstrip("'")
    if len(text) < 2 or text[0] not in "=+-@\t\r＝＋－＠":  # noqa: RUF001  the last four in Chinese and Japanese
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
