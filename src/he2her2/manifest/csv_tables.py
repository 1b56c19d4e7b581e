"""CSV tables as R, pandas, Excel, GDC, cBioPortal and people write them, with the line of every row."""

import csv
import gc
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from he2her2.csv_files import cell_text
from he2her2.errors import ManifestError, quoted
from he2her2.files import text_of

MOST_BYTES = 512 << 20
"""Larger files are no tables of patients or slides."""

_BLANK = frozenset(
    (
        *("", "--", "na", "n/a", "nan", "none", "null", "<na>", "#n/a", "#na", "nil", "missing", "unknown"),
        *("not available", "not reported", "not evaluated", "not applicable", "not given", "not done", "not performed"),
        *("performed but not available", "discrepancy", "not allowed to collect", "not determined", "not tested"),
        *("not assessed", "not known", "n.a.", "n.d.", "tbd", "pending", "unbekannt", "keine angabe", "k.a."),
        *("nicht bestimmt", "inconnu", "non disponible", "desconocido", "sconosciuto", "onbekend"),
    )
)
_NOBODY = frozenset(
    (
        *("anonymous", "anonymised", "anonymized", "anonym", "anon", "noname", "xxx", "patient", "id", "noid"),
        *("withheld", "redacted"),
    )
)
_OF_NOBODY = _BLANK | _NOBODY | {"no", "not", "without", "case", "subject", "name", "number"}  # words of such a name
_MISSING_CODE = re.compile(r"-(?:1|8+|9+)")  # of SPSS and REDCap
_ROUNDED = re.compile(r"\d\.\d+E\+\d+", re.IGNORECASE)  # a long number after a spreadsheet
_EXCEL_ERRORS = ("#REF!", "#VALUE!", "#NAME?", "#DIV/")
_DELIMITERS = "\t;|,"  # the last is also part of numbers and of prose
_PREAMBLE = 50  # lines and records that may lie before the heading
_HEADINGS = 2  # rows below the heading that may be headings, too
_ALIKE = 3  # cells of such a row that repeat their own heading
_COMMENT = re.compile(r'"?# *[^\s,;|"]')  # a heading may be a bare "#"
_SEPARATOR = re.compile(r'"?sep=(.)"?')
_OTHER_KINDS = (
    (b"PK\x03\x04", "an Excel workbook or another archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1\x15", "a Parquet file"),
)

_OTHER_TEXTS = (
    (re.compile(r'\s*(\[\s*)?\{\s*"'), "JSON"),
    (re.compile(r"\s*<(\?xml|!doctype|html)\b", re.IGNORECASE), "XML or a web page"),
)

_Record: TypeAlias = tuple[int, list[str]]


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        line: Line of the file on which it begins.
        values: Text of each column, without surrounding blanks.
        position: Index into `values` by column, the same for all rows of a table.
    """

    line: int
    values: Sequence[str]
    position: Mapping[str, int]

    def text(self, column: str | None) -> str:
        """Text of a column; empty where the table has no such column."""
        index = None if column is None else self.position.get(column)
        return "" if index is None else self.values[index]

    @property
    def cells(self) -> dict[str, str]:
        """Text by column."""
        return dict(zip(self.position, self.values, strict=True))


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        path: Its file.
        columns: Names of its columns, each once: a heading that is empty or comes again has the column's number.
        rows: Its rows.
        problems: Rows that do not fit the heading, a line of text each.
        notes: Lines of the file that were not read as rows, in words.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@contextmanager
def uncollected() -> Iterator[None]:
    """Do without garbage collection: while a million rows are made, it visits them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def is_blank(text: str) -> bool:
    """Check if a cell is empty or a missing value as R, pandas, Excel, GDC and the BCR write it.

    A single dash is none: in a column of results it may mean negative.

    Example:
        >>> is_blank("[Not Available]"), is_blank("'--"), is_blank("-")
        (True, True, False)
    """
    bare = text.strip(" '[]")
    return (bare if bare.isalnum() else " ".join(bare.split())).lower() in _BLANK


def names_nothing(text: str) -> bool:
    """Check if a cell cannot be the name of a patient, case or slide.

    It is a missing value or its code, words for nobody, marks without a letter, or a number that a spreadsheet has
    rounded.

    Example:
        >>> names_nothing("NA"), names_nothing("-"), names_nothing("1.23E+05"), names_nothing("P-1")
        (True, True, True, False)
        >>> names_nothing("Unknown patient"), names_nothing("-999"), names_nothing("Patient 3")
        (True, True, False)
    """
    if text.isalnum():
        return (word := text.lower()) in _BLANK or word in _NOBODY
    if not any(map(str.isalnum, text)) or is_blank(text) or text.startswith(_EXCEL_ERRORS):
        return True
    if _ROUNDED.fullmatch(text) or _MISSING_CODE.fullmatch(text):
        return True
    return all(word in _OF_NOBODY for word in re.split(r"[\s_:,;()-]+", text.strip("()").lower()))


def read_table(path: Path) -> Table:
    """Read a table with comma, semicolon, tab or bar between the cells.

    Above the heading there may be blank lines, comments behind `#`, Excel's `sep=;` and titles of one cell; below it
    the heading may be repeated, as BCR biotab files do. Columns without heading and content are left out.

    Raises:
        ManifestError: The file cannot be read, is no text, or has no heading.
    """
    with uncollected():
        return _table_of(_read_text(path), path)


def _table_of(text: str, path: Path) -> Table:
    """The table that a text holds."""
    start, skipped, delimiter = _preamble(text)
    notes = [f"{_lines(1, skipped)} not read: blank, a comment or a setting"] if skipped else []
    records = _records(text[start:], skipped, delimiter, path)
    headings, records = _heading(records, notes)
    if not any(headings):
        raise ManifestError([f"{path}: is empty; its first line must name the columns"])
    columns, problems = _unique(headings), list[str]()
    rows = list(_rows(records, headings, columns, problems, apostrophes="'" in text))
    if repeated := _repeated_headings(rows[:_HEADINGS], headings):
        notes.append(f"{_lines(rows[0].line, rows[repeated - 1].line)} repeated headings, no rows")
        del rows[:repeated]
    columns, rows = _without_empty(headings, columns, rows)
    return Table(path, columns, tuple(rows), tuple(problems), tuple(notes))


def _read_text(path: Path) -> str:
    """The text of a file, with line ends of one kind."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ManifestError([f"{path}: cannot be read ({error.strerror}); give a CSV file"]) from None
    if len(content) > MOST_BYTES:
        raise ManifestError([f"{path}: is larger than {MOST_BYTES >> 20} MB; give a CSV file of the cohort alone"])
    if kind := next((name for magic, name in _OTHER_KINDS if content.startswith(magic)), None):
        raise ManifestError([f"{path}: is {kind}; save the table as CSV (UTF-8)"])
    try:
        text = text_of(content)
    except UnicodeDecodeError:
        raise ManifestError([f"{path}: is no UTF-8 text; save it as CSV (UTF-8)"]) from None
    if "\0" in text:
        raise ManifestError([f"{path}: holds NUL bytes, so it is no text; save it as CSV (UTF-8)"])
    if kind := next((name for beginning, name in _OTHER_TEXTS if beginning.match(text)), None):
        raise ManifestError([f"{path}: is {kind}; save the table as CSV (UTF-8)"])
    return text


def _preamble(text: str) -> tuple[int, int, str]:
    """Beginning of the table, number of lines above it, and the separator of its cells."""
    start, skipped, delimiter = 0, 0, ""
    while start < len(text) and skipped < _PREAMBLE:
        line = text[start : _line_end(text, start)]
        if setting := _SEPARATOR.fullmatch(line.strip(" \r")):
            delimiter = setting[1]
        elif line.strip(_DELIMITERS + " ") and not _COMMENT.match(line):
            break
        start, skipped = _line_end(text, start) + 1, skipped + 1
    return start, skipped, delimiter or _delimiter(text, start)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _delimiter(text: str, start: int) -> str:
    """The separator under which most of the first records have the same number of cells."""
    end = start
    for _ in range(_PREAMBLE):
        end = min(len(text), _line_end(text, end) + 1)
    return max(_DELIMITERS, key=partial(_regularity, text[start:end]))


def _regularity(text: str, delimiter: str) -> tuple[int, int]:
    r"""Order separators: by records of the usual number of cells less those of one cell, then by the heading's line.

    Example:
        >>> _regularity("case;IHC (0, 1+)\n1;0\n", ";"), _regularity("case;IHC (0, 1+)\n1;0\n", ",")
        ((2, 0), (0, 0))
    """
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:  # a cell that is too large
        return 0, 0
    widths = [len(cells) for cells in records if any(map(str.strip, cells))]
    several = Counter(width for width in widths if width > 1)
    if not several:
        return 0, 0
    ((usual, n),) = several.most_common(1)
    heading = widths.index(usual)
    return n - widths[heading:].count(1), -heading


def _records(text: str, above: int, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line on which it begins; `above` lines lie above the text."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = above + 1
    try:
        for cells in reader:
            yield begin, cells
            begin = above + reader.line_num + 1
    except csv.Error as error:
        raise ManifestError([f"{path}, line {begin}: is no CSV ({error}); check its quotes"]) from None


def _heading(records: Iterator[_Record], notes: list[str]) -> tuple[list[str], Iterator[_Record]]:
    """The headings, and the records below them; a cell alone above a row of several is a title."""
    filled = ((line, cells) for line, cells in records if any(map(str.strip, cells)))
    above = list(islice(filled, 1))
    while above and _n_filled(above[-1][1]) == 1 and len(above) < _PREAMBLE and (below := next(filled, None)):
        above.append(below)
    if len(above) == 1 or (above and _n_filled(above[-1][1]) == 1):  # a table of one column has no title
        (_, heading), *rest = above
        return _names(heading), chain(rest, records)
    for line, cells in above[:-1]:
        notes.append(f"line {line} is not read: a title, {quoted(''.join(cells).strip())}")
    return _names(above[-1][1]) if above else [], records


def _names(heading: Sequence[str]) -> list[str]:
    return [cell_text(cell.strip()) for cell in heading]


def _n_filled(cells: Sequence[str]) -> int:
    return sum(bool(cell.strip()) for cell in cells)


def _unique(headings: Sequence[str]) -> tuple[str, ...]:
    """Names of columns: the headings, with the column's number where one is empty or comes again."""
    names: dict[str, None] = {}
    for number, heading in enumerate(headings, 1):
        name = heading or f"column {number}"
        if name in names:
            name = f"{name} (column {number})"
        while name in names:
            name += "'"
        names[name] = None
    return tuple(names)


def _rows(
    records: Iterator[_Record],
    headings: Sequence[str],
    columns: Sequence[str],
    problems: list[str],
    *,
    apostrophes: bool,
) -> Iterator[TableRow]:
    """The records below the heading as rows; a record with more cells than headings becomes a problem."""
    position = {name: i for i, name in enumerate(columns)}
    n = len(headings)
    for line, cells in records:
        if len(cells) > n and any(map(str.strip, cells[n:])):
            problems.append(f"line {line}: {len(cells)} cells under {n} headings; quote cells with commas")
            continue
        values = list(map(str.strip, cells[:n]))
        if len(values) < n:
            values += [""] * (n - len(values))
        if apostrophes:
            values = [cell_text(value) if value[:1] == "'" else value for value in values]
        if any(values) and (values[0] != headings[0] or not _repeats(values, headings)):
            yield TableRow(line, values, position)


def _repeats(values: Sequence[str], headings: Sequence[str]) -> bool:
    """Check if a row is the heading again, as in files that were joined."""
    pairs = [(value, heading) for value, heading in zip(values, headings, strict=True) if value]
    return len(pairs) >= min(2, len(headings)) and all(value == heading for value, heading in pairs)


def _repeated_headings(rows: Sequence[TableRow], headings: Sequence[str]) -> int:
    """Number of rows directly below the heading that are headings, too.

    A BCR biotab file has a second line of names and a third of `CDE_ID:2003301`.
    """
    n = 0
    for i, row in enumerate(rows, 1):
        alike = sum(value == heading != "" for value, heading in zip(row.values, headings, strict=True))
        if alike >= _ALIKE or any(value.startswith("CDE_ID:") for value in row.values):
            n = i
    return n


def _without_empty(
    headings: Sequence[str], columns: tuple[str, ...], rows: list[TableRow]
) -> tuple[tuple[str, ...], list[TableRow]]:
    """Leave out columns without a heading in which no row has text."""
    empty = {i for i, heading in enumerate(headings) if not heading}
    for row in rows:
        if not empty:
            return columns, rows
        empty = {i for i in empty if not row.values[i]}
    kept = [i for i in range(len(columns)) if i not in empty]
    names = tuple(columns[i] for i in kept)
    position = {name: i for i, name in enumerate(names)}
    return names, [TableRow(row.line, [row.values[i] for i in kept], position) for row in rows]


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"
