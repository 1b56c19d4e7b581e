"""The paper's tables made from our own results: its layout, its rows beside ours, n and interval in every cell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.ablation.methods import Method
from he2her2.ablation.results import (
    FIGURES,
    CohortResults,
    MethodRow,
    compare_methods,
    method_rows,
)
from he2her2.ablation.verdicts import write_if_changed
from he2her2.csv_files import csv_text, read_csv
from he2her2.evaluation import TABLE_1, TABLE_1_ACCURACY, PaperAggregation
from he2her2.labels import IhcScore
from he2her2.pages import p_value, render
from he2her2.statistics import Estimate, exact_binomial
from he2her2.training import REPORT

_TITLES: Mapping[PaperAggregation, str] = {
    "mlp": "MLP aggregation",
    "median": "Median aggregation",
    "mean": "Mean aggregation",
}
_COLUMNS = ("Method", "", *(f"{name[0].upper()}{name[1:]}" for name in FIGURES), "TP FP TN FN", "Note")
_TABLE_NUMBERS = {"HER2SC": 3, "BRCA": 4}
_TILE_SET = "validation"
_HISTORY = Path("logs", "metrics.csv")


@dataclass(frozen=True, slots=True)
class _TablePage:
    """A table as Markdown and CSV.

    Attributes:
        name: Of its two files.
        title: Its heading.
        body: Markdown below the heading.
        records: CSV.
    """

    name: str
    title: str
    body: str
    records: str


def write_ablation(
    out: Path,
    results: Sequence[CohortResults],
    methods: Mapping[Method, Path],
    *,
    tile_run: Path | None,
    about: str,
    notice: str = "",
) -> Path:
    """Write `tables/` and `report.md`; a file that holds the same text already is left alone.

    Args:
        out: Folder of the run.
        results: Of each test cohort.
        methods: Folder of each method's training.
        tile_run: Folder of the tile CNN's training; None where its weights were given.
        about: Training data and settings, in words.
        notice: Line that every output must show.

    Returns:
        The report.
    """
    rows = {cohort.name: method_rows(cohort) for cohort in results}
    pages = [_tile_page(tile_run)] if tile_run else []
    pages.append(_proposed_page(results, rows))
    pages += [_methods_page(cohort, rows[cohort.name]) for cohort in results]
    pages += [_comparison_page(results), _gradient_page(methods)]
    notices = [notice] if notice else []
    for page in pages:
        text = render("ablation_table.md", page=page, about=about, notices=notices)
        write_if_changed(out / "tables" / f"{page.name}.md", text)
        write_if_changed(out / "tables" / f"{page.name}.csv", page.records)
    write_if_changed(out / REPORT, render("ablation.md", pages=pages, about=about, notices=notices))
    return out / REPORT


def _methods_table(results: CohortResults, rows: Sequence[MethodRow]) -> str:
    """The six methods on one cohort, in the layout of Tables 3 and 4, the paper's rows below ours."""
    cells: list[Sequence[str]] = []
    for aggregation, title in _TITLES.items():
        cells.append([f"**{title}**", *[""] * (len(_COLUMNS) - 1)])
        cells += [_cells(row) for row in rows if row.method.aggregation == aggregation]
    return render("ablation_methods.md", about=results.about, paper=results.paper, rows=cells, columns=_COLUMNS)


def _tile_table(matrix: NDArray[np.int64], accuracy: Estimate, about: str) -> str:
    """Table 1: IHC tiles, columns are the true class as in the paper, whose counts are in brackets.

    Args:
        matrix: (4, 4) row = truth, column = decision.
        accuracy: With its interval, tiles clustered by patient.
        about: The tiles, in words.
    """
    scores = [str(score) for score in IhcScore]
    rows = [
        [f"**{score}**", *(f"{ours} ({papers})" for ours, papers in zip(matrix[:, i], TABLE_1[:, i], strict=True))]
        for i, score in enumerate(scores)
    ]
    return render(
        "ablation_tiles.md",
        about=about,
        accuracy=_percents(accuracy),
        papers=_percents(exact_binomial(int(np.trace(TABLE_1)), int(TABLE_1.sum()))),
        printed=TABLE_1_ACCURACY,
        rows=rows,
        columns=("Prediction", *(f"true {score}" for score in scores)),
    )


def _rows_csv(rows: Iterable[MethodRow]) -> str:
    """Every row and figure as CSV, shares in [0, 1]."""
    return _records_csv(map(_record, rows))


def _tile_page(tile_run: Path) -> _TablePage:
    """Table 1: the IHC tiles that validated the tile CNN, from the tables of its training."""
    table = tile_run / f"confusion_{_TILE_SET}.csv"
    matrix = np.array([[int(row[str(score)]) for score in IhcScore] for row in read_csv(table)]).T  # (truth, decision)
    figures = {row["figure"]: row for row in read_csv(tile_run / f"figures_{_TILE_SET}.csv")}
    found = figures["tile accuracy"]
    value, low, high = (float(found[name]) for name in ("value", "low", "high"))
    accuracy = Estimate("tile accuracy", value, low, high, int(found["n"]), found["method"])
    body = _tile_table(matrix, accuracy, f"{_TILE_SET.capitalize()} tiles of `{tile_run.name}/`")
    return _TablePage("table1", "Table 1. The tile CNN on IHC tiles", body, table.read_text("utf-8"))


def _proposed_page(results: Sequence[CohortResults], rows: Mapping[str, Sequence[MethodRow]]) -> _TablePage:
    """Table 2: the proposed method on every cohort."""
    proposed = [row for found in rows.values() for row in found if row.method.proposed]
    cells = [[row.cohort if row.source == "ours" else "", *_cells(row)[1:]] for row in proposed]
    about = "; ".join(cohort.about for cohort in results)
    body = render("ablation_methods.md", about=about, paper=None, rows=cells, columns=("Cohort", *_COLUMNS[1:]))
    return _TablePage("table2", "Table 2. The proposed method on each test cohort", body, _rows_csv(proposed))


def _methods_page(cohort: CohortResults, rows: Sequence[MethodRow]) -> _TablePage:
    """Table 3 or 4, or the same of a cohort that the paper does not have."""
    title, name = f"The six methods on {cohort.name}", f"methods-{cohort.name}"
    if cohort.paper:
        number = _TABLE_NUMBERS[cohort.paper]
        title, name = f"Table {number}. {title}", f"table{number}"
    return _TablePage(name, title, _methods_table(cohort, rows), _rows_csv(rows))


def _comparison_page(results: Sequence[CohortResults]) -> _TablePage:
    """The proposed method against each other one, paired by slide."""
    found = [one for cohort in results for one in compare_methods(cohort)]
    rows = [
        (
            one.cohort,
            _name(one.method),
            one.only_proposed,
            one.only_other,
            p_value(one.exact),
            p_value(one.mid_p),
            _percents(one.difference),
        )
        for one in found
    ]
    records = (
        {
            "cohort": one.cohort,
            "aggregation": one.method.aggregation,
            "pretrained": one.method.pretrained,
            "only_proposed_right": one.only_proposed,
            "only_other_right": one.only_other,
            "mcnemar_exact_p": one.exact,
            "mcnemar_mid_p": one.mid_p,
            **_figure_columns("plain accuracy difference", one.difference),
        }
        for one in found
    )
    title = "The proposed method against each other one"
    return _TablePage("comparisons", title, render("ablation_comparisons.md", rows=rows), _records_csv(records))


def _gradient_page(methods: Mapping[Method, Path]) -> _TablePage:
    """Gradient that reached the tile CNN in each training, on which the paper's method depends."""
    trained = {method: folder / _HISTORY for method, folder in methods.items() if (folder / _HISTORY).is_file()}
    records = [_gradient_record(method, _history(file)) for method, file in trained.items()]
    body = render("ablation_gradient.md", records=records)
    return _TablePage("gradient", "The gradient that reaches the tile CNN", body, _records_csv(records))


def _gradient_record(method: Method, epochs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Means over the epochs of a training."""
    mean = {
        name: float(np.mean([epoch[name] for epoch in epochs]))
        for name in ("gradient_share", "gradient_at_scores", "gradient_at_logits")
    }
    return {
        "method": _name(method),
        "epochs": len(epochs),
        "beta_first": epochs[0]["beta"],
        "beta_last": epochs[-1]["beta"],
        "tiles_with_gradient": mean["gradient_share"],
        "norm_at_scores": mean["gradient_at_scores"],
        "norm_at_logits": mean["gradient_at_logits"],
        "cnn_movement": epochs[-1]["cnn_movement"],
    }


def _history(file: Path) -> list[dict[str, float]]:
    """Figures of each epoch of a training."""
    return [{name: float(text) for name, text in row.items() if text} for row in read_csv(file)]


def _name(method: Method) -> str:
    return f"{_TITLES[method.aggregation]}, {method.title}"


def _cells(row: MethodRow) -> list[str]:
    counts, ours = row.counts, row.source == "ours"
    return [
        row.method.title if ours else "",
        row.source if ours else f"paper, {row.cohort}",
        *(_percents(row.estimates.get(name), row.printed.get(name)) for name in FIGURES),
        f"{counts.tp:.0f} {counts.fp:.0f} {counts.tn:.0f} {counts.fn:.0f}",
        row.note,
    ]


def _percents(estimate: Estimate | None, printed: str | None = None) -> str:
    """A figure in per cent with its interval and n.

    Example:
        >>> _percents(exact_binomial(7, 8), "87.5")
        '87.5 [47.3, 99.7] n=8 (printed 87.5)'
    """
    if estimate is None:
        return ""
    if not estimate.is_defined:
        return f"undefined n={estimate.n}"
    value, low, high = (_percent(share) for share in (estimate.value, estimate.low, estimate.high))
    text = f"{value} [{low}, {high}] n={estimate.n}"
    return f"{text} (printed {printed})" if printed else text


def _percent(share: float) -> str:
    """A share in per cent with one decimal, halves up as in the paper.

    Example:
        >>> _percent(0.1225)
        '12.3'
    """
    return str(Decimal(f"{100 * share:.9f}").quantize(Decimal("0.1"), ROUND_HALF_UP))


def _records_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Records of the same columns as CSV."""
    rows = list(records)
    return csv_text([*rows[0]], rows) if rows else ""


def _record(row: MethodRow) -> dict[str, Any]:
    counts = row.counts
    record: dict[str, Any] = {
        "cohort": row.cohort,
        "source": row.source,
        "aggregation": row.method.aggregation,
        "pretrained": row.method.pretrained,
        "n": round(counts.n),
        "positives": round(counts.positives),
        "tp": counts.tp,
        "fp": counts.fp,
        "tn": counts.tn,
        "fn": counts.fn,
    }
    for name in FIGURES:
        printed = {f"{name.replace(' ', '_')}_printed": row.printed.get(name, "")}
        record |= _figure_columns(name, row.estimates.get(name)) | printed
    return record | {"note": row.note}


def _figure_columns(name: str, estimate: Estimate | None) -> dict[str, str]:
    """Value, interval, n and method of a figure, by column."""
    key = name.replace(" ", "_")
    columns = (key, f"{key}_low", f"{key}_high", f"{key}_n", f"{key}_interval")
    if estimate is None:
        return dict.fromkeys(columns, "")
    shares = (f"{share:.6g}" for share in (estimate.value, estimate.low, estimate.high))
    return dict(zip(columns, (*shares, str(estimate.n), estimate.method), strict=True))
