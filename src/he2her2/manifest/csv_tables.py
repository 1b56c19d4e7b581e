"""CSV tables as R, pandas and Excel write them, with the line of every row."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from he2her2.errors import ManifestError
from he2her2.files import cell_text

_BLANK = frozenset({"", "na", "n/a", "nan", "none", "null", "#n/a"})


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        line: Line of the file on which it begins; the heading is line 1.
        cells: Text by column, without surrounding blanks.
    """

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text: its file, its columns and its rows; `problems` are rows that do not fit the heading."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    problems: tuple[str, ...] = ()


def is_blank(text: str) -> bool:
    """Check if a cell is empty or a missing value as R, pandas and Excel write it."""
    return text.strip().lower() in _BLANK


def read_table(path: Path) -> Table:
    """Read a table with comma, semicolon or tab between the cells, with or without a byte-order mark.

    Raises:
        ManifestError: The file cannot be read, is no text, or has no heading or the same heading twice.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ManifestError([f"{path}: cannot be read ({error.strerror}); give a CSV file"]) from None
    except UnicodeDecodeError:
        raise ManifestError([f"{path}: is no UTF-8 text; save it as CSV (UTF-8)"]) from None
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    lines = _records(text, delimiter, path)
    columns = tuple(cell.strip() for cell in next(lines, (1, []))[1])
    if not any(columns):
        raise ManifestError([f"{path}: is empty; its first line must name the columns"])
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ManifestError([f"{path}: has the column {', '.join(map(repr, twice))} twice; rename one"])
    rows, problems = [], []
    for line, cells in lines:
        if len(cells) > len(columns):
            problems.append(f"line {line}: {len(cells)} cells under {len(columns)} headings; quote cells with commas")
        elif any(cell.strip() for cell in cells):
            padded = [*cells, *[""] * (len(columns) - len(cells))]
            rows.append(
                TableRow(line, {name: cell_text(cell.strip()) for name, cell in zip(columns, padded, strict=True)})
            )
    return Table(path, columns, tuple(rows), tuple(problems))


def _records(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1
    try:
        for cells in reader:
            yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError([f"{path}, line {begin}: is no CSV ({error}); check its quotes"]) from None
