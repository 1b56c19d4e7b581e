"""What an ablation leaves to read: each of the paper's tables as Markdown and CSV, and a report of them all."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from he2her2.ablation import tables as t
from he2her2.ablation.methods import Method
from he2her2.ablation.results import Line, Results, compare, lines_of
from he2her2.ablation.testing import write_if_new
from he2her2.files import read_csv
from he2her2.statistics import Estimate

REPORT = "report.md"
_TABLE = {"HER2SC": 3, "BRCA": 4}
_TILES = "validation"
_HISTORY = Path("logs", "metrics.csv")


class Page(NamedTuple):
    """A table.

    Attributes:
        name: Of its two files.
        title: Its heading.
        body: Markdown.
        records: CSV.
    """

    name: str
    title: str
    body: str
    records: str


def write_tables(
    out: Path,
    results: Sequence[Results],
    methods: Mapping[Method, Path],
    *,
    tile_run: Path | None,
    about: str,
    notice: str = "",
) -> Path:
    """Write `tables/` and `report.md`; a file that says the same already is left alone.

    Args:
        out: Folder of the run.
        results: Of each test cohort.
        methods: Folder of each method's training.
        tile_run: Folder of the tile CNN's training; None where its weights were given.
        about: What was trained on what, in words.
        notice: What every output must say.

    Returns:
        The report.
    """
    lines = {cohort.name: lines_of(cohort) for cohort in results}
    pages = [tile_page(tile_run)] if tile_run else []
    pages.append(_proposed_page(results, lines))
    pages += [_methods_page(cohort, lines[cohort.name]) for cohort in results]
    pages += [_comparison_page(results), _gradient_page(methods)]
    told = f"**{notice}**\n\n{about}\n\n" if notice else f"{about}\n\n"
    for page in pages:
        write_if_new(out / "tables" / f"{page.name}.md", f"# {page.title}\n\n{told}{page.body}")
        write_if_new(out / "tables" / f"{page.name}.csv", page.records)
    text = "\n".join(f"## {page.title}\n\n{page.body}" for page in pages)
    write_if_new(out / REPORT, f"# Ablation\n\n{told}{text}")
    return out / REPORT


def tile_page(tile_run: Path) -> Page:
    """Table 1: the IHC tiles that validated the tile CNN, from the tables of its training."""
    table = tile_run / f"confusion_{_TILES}.csv"
    with table.open(encoding="utf-8", newline="") as file:
        matrix = np.array([list(map(int, row[1:])) for row in list(csv.reader(file))[1:]]).T  # (truth, decision)
    figures = read_csv(tile_run / f"figures_{_TILES}.csv")
    found = next(row for row in figures if row["figure"] == "tile accuracy")
    value, low, high = (float(found[name]) for name in ("value", "low", "high"))
    accuracy = Estimate("tile accuracy", value, low, high, int(found["n"]), found["method"])
    body = t.tile_table(matrix, accuracy, f"{_TILES.capitalize()} tiles of `{tile_run.name}/`")
    return Page("table1", "Table 1. The tile CNN on IHC tiles", body, table.read_text("utf-8"))


def _proposed_page(results: Sequence[Results], lines: Mapping[str, Sequence[Line]]) -> Page:
    every = [line for found in lines.values() for line in found]
    proposed = [line for line in every if line.method.proposed]
    return Page(
        "table2",
        "Table 2. The proposed method on each test cohort",
        t.proposed_table(results, proposed),
        t.lines_csv(proposed),
    )


def _methods_page(cohort: Results, lines: Sequence[Line]) -> Page:
    title, name = f"The six methods on {cohort.name}", f"methods-{cohort.name}"
    if cohort.paper:
        number = _TABLE[cohort.paper]
        title, name = f"Table {number}. {title}", f"table{number}"
    return Page(name, title, t.ablation_table(cohort, lines), t.lines_csv(lines))


def _comparison_page(results: Sequence[Results]) -> Page:
    found = [one for cohort in results for one in compare(cohort)]
    title = "The proposed method against each other one"
    return Page("comparisons", title, t.comparison_table(found), t.comparisons_csv(found))


def _gradient_page(methods: Mapping[Method, Path]) -> Page:
    trained = {method: folder for method, folder in methods.items() if (folder / _HISTORY).is_file()}
    records = t.gradient_records({method: _history(folder) for method, folder in trained.items()})
    return Page("gradient", "The gradient that reaches the tile CNN", t.gradient_table(records), t.as_csv(records))


def _history(folder: Path) -> list[dict[str, float]]:
    """Each epoch's figures of a training."""
    return [{name: float(text) for name, text in row.items() if text} for row in read_csv(folder / _HISTORY)]
