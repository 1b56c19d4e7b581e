"""A table of tests with the labels that follow from them, each with its rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from he2her2.errors import ManifestError
from he2her2.files import write_csv
from he2her2.labels import GuidelineResult, IshCounts, Policy, apply_guideline, parse_ihc, parse_ish
from he2her2.manifest.csv_tables import TableRow, is_blank, read_table

_ADDED = ("ish_group", "her2_status", "stratum", "rule", "source", "stratum_source", "conflict")
"""Columns that a labelled table gains; those of the same name are replaced."""

_T = TypeVar("_T")
_TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class TestColumns:
    """Columns of the tests in a table; a test without a column was not done.

    Attributes:
        ihc: IHC score.
        ish: ISH in words, or counts in words.
        ratio: HER2/CEP17 ratio.
        copies: HER2 copies per cell.
        faint: Faint staining in an IHC 0 (yes or no).
    """

    ihc: str = "ihc_score"
    ish: str = "ish"
    ratio: str = "ratio"
    copies: str = "copies"
    faint: str = "faint_staining"


@dataclass(frozen=True, slots=True)
class LabelledTable:
    """A table with its labels: the columns, each row's text and its result."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Mapping[str, str], GuidelineResult], ...]


def label_tests(
    path: Path, columns: TestColumns, *, policy: Policy = Policy.GUIDELINE, recounted: bool = False
) -> LabelledTable:
    """Label every row of a table of tests; counts outrank a stated ISH result.

    Raises:
        ManifestError: The table cannot be read, has none of the test columns, or holds cells that cannot be
            understood: all problems.
    """
    table = read_table(path)
    tests = (columns.ihc, columns.ish, columns.ratio, columns.copies)
    if not set(tests) & set(table.columns):
        raise ManifestError(
            [f"{path}: has none of the columns {', '.join(tests)}; name yours by --ihc-column and so on"]
        )
    problems = list(table.problems)
    rows = []
    for row in table.rows:
        try:
            rows.append((row.cells, _label(row, columns, policy, recounted=recounted)))
        except ValueError as error:
            problems.append(f"line {row.line}: {error}")
    if problems:
        raise ManifestError([f"{path}: {problem}" for problem in problems])
    return LabelledTable(table.columns, tuple(rows))


def write_labelled_table(table: LabelledTable, out: Path) -> None:
    """Write a table with its labels as CSV.

    Raises:
        OutputError: It cannot be written.
    """
    kept = [name for name in table.columns if name not in _ADDED]
    rows = ((*(cells[name] for name in kept), *_cells(decision)) for cells, decision in table.rows)
    write_csv(out, (*kept, *_ADDED), rows)


def _cells(decision: GuidelineResult) -> tuple[str, ...]:
    group = "" if decision.group is None else str(decision.group.value)
    conflict = "yes" if decision.conflict else ""
    found = (decision.status, decision.stratum, decision.rule, decision.source, decision.stratum_source)
    return group, *map(str, found), conflict


def _label(row: TableRow, columns: TestColumns, policy: Policy, *, recounted: bool) -> GuidelineResult:
    """Label a row; `ValueError` names every cell that cannot be understood."""
    problems: list[str] = []

    def value(name: str, parse: Callable[[str], _T]) -> _T | None:
        text = row.cells.get(name, "")
        if is_blank(text):
            return None
        try:
            return parse(text)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            return None

    ihc = value(columns.ihc, parse_ihc)
    ish = value(columns.ish, parse_ish)
    ratio, copies = value(columns.ratio, _number), value(columns.copies, _number)
    faint = value(columns.faint, _truth)
    if problems:
        raise ValueError("; ".join(problems))
    counts = IshCounts(ratio, copies) if ratio is not None or copies is not None else None
    return apply_guideline(ihc, counts or ish, faint_staining=faint, recounted=recounted, policy=policy)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _truth(text: str) -> bool:
    try:
        return _TRUTHS[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither yes nor no") from None
