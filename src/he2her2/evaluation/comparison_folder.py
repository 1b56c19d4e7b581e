"""The folder of a comparison of runs: page, one plot, tables and `comparison.json`; it appears whole."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from he2her2.evaluation.audits import AuditRow
from he2her2.evaluation.comparison import ALPHA, RunsCompared
from he2her2.evaluation.folder import (
    EXCLUSION_COLUMNS,
    EXCLUSIONS_FILE,
    check_evaluation_folder,
    exclusion_rows,
    finite,
    write_rows,
)
from he2her2.evaluation.plot_style import BLUE, GREY, ORANGE, Note, canvas, save, wrapped
from he2her2.files import atomic, write_json, write_text
from he2her2.pages import render
from he2her2.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMPARISON_FILE = "comparison.json"
_FIGURES = ("AUC", "sensitivity", "specificity", "balanced accuracy", "average precision")


def write_comparison(found: RunsCompared, folder: Path, *, draw: bool = True) -> None:
    """Write page, tables and plot; an earlier comparison in the folder is replaced.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
    """
    check_evaluation_folder(folder, COMPARISON_FILE)
    with atomic(folder) as draft:
        draft.mkdir()
        if draw:
            plot_comparison(found, draft / "comparison")
        write_text(draft / "comparison.md", render("comparison.md", c=found, figures=_FIGURES, plot=draw))
        write_rows(draft / "runs.csv", list(_run_rows(found)))
        write_rows(draft / "pairs.csv", list(_pair_rows(found)))
        excluded = ({"run": name, **row} for name, joined in found.joined.items() for row in exclusion_rows(joined))
        write_rows(draft / EXCLUSIONS_FILE, excluded, ("run", *EXCLUSION_COLUMNS))
        write_json(draft / COMPARISON_FILE, finite(_as_json(found)), allow_nan=False)


def comparison_lines(found: RunsCompared, page: Path) -> str:
    """Lines to print after a comparison."""
    return render("comparison.txt", c=found, page=page).rstrip("\n")


def _run_rows(found: RunsCompared) -> Iterator[AuditRow]:
    for run in found.runs:
        yield {
            "run": run.title,
            "patients": run.n,
            "positive": run.n_positive,
            "threshold": run.threshold,
            **{name: run[name] for name in _FIGURES},
        }


def _pair_rows(found: RunsCompared) -> Iterator[AuditRow]:
    for pair in found.pairs:
        c = pair.comparison
        yield {
            "first": c.first,
            "second": c.second,
            "auc_difference": c.auc.estimate,
            "auc_p": c.auc.p_value,
            "auc_p_holm": pair.auc_p,
            **{f"{name}_difference": estimate for name, estimate in c.rates.items()},
            "only_first_right": c.mcnemar.only_first,
            "only_second_right": c.mcnemar.only_second,
            "mcnemar_p": c.mcnemar.exact,
            "mcnemar_p_holm": pair.mcnemar_p,
        }


def _as_json(found: RunsCompared) -> dict[str, object]:
    return {
        "version": 1,
        "notices": found.notices,
        "read_as": found.read_as,
        "flow": {name: dict(joined.flow) for name, joined in found.joined.items()},
        "left_out": dict(found.left_out),
        "all_aucs_equal_p": found.equal_p,
        "runs": {run.title: {name: asdict(run[name]) for name in _FIGURES} for run in found.runs},
        "pairs": [
            asdict(pair.comparison)
            | {"auc_p_holm": pair.auc_p, "mcnemar_p_holm": pair.mcnemar_p, "sentence": pair.sentence}
            for pair in found.pairs
        ],
    }


def plot_comparison(found: RunsCompared, stem: Path) -> tuple[Path, ...]:
    """AUC of each run, and the difference of each pair where they are not many, with their intervals."""
    names = [wrapped(run.title) for run in found.runs]
    drawn = () if found.are_many else found.pairs
    pairs = [f"{wrapped(p.comparison.first)}\n{wrapped(f'less {p.comparison.second}')}" for p in drawn]
    height = 1.4 + 0.62 * (len(names) + len(pairs))
    first = found.runs[0]
    text = (
        f"n = {first.n} patients that all runs have, {first.n_positive} of them HER2-positive. Intervals of 95 %, each "
        "for itself"
    )
    with canvas("Runs", size_inch=(7.2, height)) as (figure, axes):
        axes.remove()
        upper = figure.add_subplot() if found.are_many else None
        if upper is None:
            upper, lower = figure.subplots(2, 1, height_ratios=[len(names) + 0.5, len(pairs) + 0.5])
            colours = [ORANGE if pair.auc_p < ALPHA else BLUE for pair in drawn]
            _intervals(lower, pairs, [pair.comparison.auc.estimate for pair in drawn], colours, 0.0)
            lower.set_xlabel("difference of the AUCs")
            text += ", paired (DeLong). Orange: p below 0.05 after Holm's correction for the number of pairs"
        upper.set_title("Runs on the same patients", pad=12)
        _intervals(upper, names, [run["AUC"] for run in found.runs], BLUE, 0.5)
        upper.set_xlabel("AUC")
        return save(figure, Note(f"{text}.", found.notices), stem)


def _intervals(
    axes: "Axes", labels: Sequence[str], estimates: Sequence[Estimate], colours: str | Sequence[str], line: float
) -> None:
    """Estimates below each other, with a line at what would be chance or no difference."""
    every = [colours] * len(estimates) if isinstance(colours, str) else list(colours)
    y = np.arange(len(labels))[::-1].astype(float)
    axes.axvline(line, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for estimate, at, colour in zip(estimates, y.tolist(), every, strict=True):
        axes.plot([estimate.low, estimate.high], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
        if not math.isnan(estimate.value):
            axes.plot([estimate.value], [at], "o", color=colour, markersize=7)
        axes.annotate(
            estimate.text(3), (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=colour
        )
    axes.set_yticks(y, labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
