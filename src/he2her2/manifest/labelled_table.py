"""A table of tests with the labels that follow from them, each with its rule."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from he2her2.csv_files import write_csv
from he2her2.errors import ManifestError, quoted
from he2her2.labels import GuidelineResult, IshResult, Policy, apply_guideline, counts_of, parse_ihc, parse_ish
from he2her2.manifest.columns import CEP17_SYNONYMS, TEST_SYNONYMS, TableColumns, match_columns, shown_columns
from he2her2.manifest.count_doubts import CountDoubts
from he2her2.manifest.csv_tables import TableRow, read_table
from he2her2.units import parse_number

YES_OR_NO = {
    **dict.fromkeys(("yes", "y", "true", "1", "1.0"), True),
    **dict.fromkeys(("no", "n", "false", "0", "0.0"), False),
}
"""Meaning of a cell of such a column, by its text in lower case."""
_ADDED = ("ish_group", "her2_status", "stratum", "rule", "source", "stratum_source", "conflict", "doubt")
"""Columns that a labelled table gains."""
_DERIVED = "derived_"
"""Put before the name of such a column where the table has one of that name itself."""

_SYNONYMS = {
    **TEST_SYNONYMS,
    "cep17": CEP17_SYNONYMS,
    "faint_staining": ("faint_staining", "faint", "faint_stain"),
    "her2_status": ("her2_status", "status_her2", "her2_final_status"),
}


@dataclass(frozen=True, slots=True)
class TestColumns:
    """Columns of the tests in a table as the user names them; None leaves a column to its usual names.

    Attributes:
        ihc_score: IHC score.
        ish: ISH in words, or counts in words.
        ratio: HER2/CEP17 ratio.
        copies: HER2 copies per cell.
        cep17: CEP17 signals per cell.
        faint_staining: Faint staining in an IHC 0 (yes or no).
    """

    ihc_score: str | None = None
    ish: str | None = None
    ratio: str | None = None
    copies: str | None = None
    cep17: str | None = None
    faint_staining: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledTable:
    """A table with its labels.

    Attributes:
        columns: Its own columns, which stay as they are.
        added: Names of the columns that it gains.
        rows: Text and result of each row, and the doubt about it: about its ISH counts, or a stated status.
        notes: Columns found under other names, columns about HER2 that are not read, lines that are no rows.
    """

    columns: tuple[str, ...]
    added: tuple[str, ...]
    rows: tuple[tuple[Mapping[str, str], GuidelineResult, str], ...]
    notes: tuple[str, ...] = ()


def label_tests(
    path: Path, columns: TestColumns | None = None, *, policy: Policy = Policy.GUIDELINE, recounted: bool = False
) -> LabelledTable:
    """Label every row of a table of tests.

    Counts outrank a stated ISH result where they decide (`labels.settled_ish`); a test without a column was not done.
    The labels of an earlier run are replaced.

    Args:
        path: The table.
        columns: Columns that the user names.
        policy: Status of a 2+ that ISH leaves open.
        recounted: The counts are of the recount that ISH groups 2 to 4 require.

    Raises:
        ManifestError: The table cannot be read, has none of the test columns, or holds cells that cannot be
            understood: all problems.
    """
    table, notes = read_table(path), list[str]()
    if tuple(name.removeprefix(_DERIVED) for name in table.columns[-len(_ADDED) :]) == _ADDED:
        table = replace(table, columns=table.columns[: -len(_ADDED)])
        notes.append("the labels of an earlier run are replaced")
    if taken := [name for name in _ADDED if name in table.columns]:
        notes.append(f"columns of the table's own: {', '.join(taken)}; ours have {_DERIVED} before the name")
    found = match_columns(table, _SYNONYMS, asdict(columns or TestColumns()))
    if not TEST_SYNONYMS.keys() & found.names.keys():
        wanted, has = ", ".join(TEST_SYNONYMS), shown_columns(table.columns)
        raise ManifestError([f"{path}: has no column {wanted}; name yours by --ihc-column and so on; it has {has}"])
    rows, doubts = [], CountDoubts()
    for row in table.rows:
        try:
            rows.append((row.cells, *_label(row, found, doubts, policy, recounted=recounted)))
        except ValueError as error:
            found.problems.append(f"line {row.line}: {error}")
    if problems := [*found.problems, *doubts.problems]:
        raise ManifestError([f"{path}: {problem}" for problem in problems])
    added = tuple(_free_name(name, table.columns) for name in _ADDED)
    return LabelledTable(table.columns, added, tuple(rows), (*found.notes, *notes, *doubts.notes))


def _free_name(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"{_DERIVED}{name}"
    return name


def write_labelled_table(table: LabelledTable, out: Path) -> None:
    """Write a table with its labels as CSV.

    Raises:
        OutputError: It cannot be written.
    """
    rows = (
        (*(cells[name] for name in table.columns), *_cells(decision), doubt) for cells, decision, doubt in table.rows
    )
    write_csv(out, (*table.columns, *table.added), rows)


def _cells(decision: GuidelineResult) -> tuple[str, ...]:
    group = "" if decision.group is None else str(decision.group.value)
    conflict = "yes" if decision.conflict else ""
    found = (decision.status, decision.stratum, decision.rule, decision.source, decision.stratum_source)
    return group, *map(str, found), conflict


def _label(
    row: TableRow, columns: TableColumns, doubts: CountDoubts, policy: Policy, *, recounted: bool
) -> tuple[GuidelineResult, str]:
    """Label of a row, and the doubt about it; what cannot be understood counts as missing and is a problem.

    Raises:
        ValueError: The counts are of no cells.
    """
    ihc = columns.value(row, "ihc_score", parse_ihc)
    ish = columns.value(row, "ish", parse_ish)
    ratio, copies, cep17 = (columns.value(row, name, parse_number) for name in ("ratio", "copies", "cep17"))
    faint = columns.value(row, "faint_staining", _truth)
    against, stated = "", None
    if ratio is not None or copies is not None:
        counts = counts_of(ratio, copies, cep17)
        against = doubts.beside(row.line, ihc, ish, counts, recounted=recounted)
        stated, ish = ish if isinstance(ish, IshResult) else None, counts
    decision = apply_guideline(ihc, ish, stated=stated, faint_staining=faint, recounted=recounted, policy=policy)
    otherwise = doubts.stated_status(row.line, columns.text(row, "her2_status"), decision.status)
    return decision, "; ".join(filter(None, (doubts.about(row.line, ish, cep17), against, otherwise)))


def _truth(text: str) -> bool:
    try:
        return YES_OR_NO[text.lower()]
    except KeyError:
        raise ValueError(f"{quoted(text)} is neither yes nor no") from None
