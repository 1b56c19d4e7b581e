"""The folder of a test of a tumour network: page, one picture, tables and `tumour_test.json`; it appears whole."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from he2her2.evaluation.audits import AuditRow, Cell
from he2her2.evaluation.folder import check_evaluation_folder, finite, write_rows
from he2her2.evaluation.plot_style import BLUE, GREY, ORANGE, Note, canvas, save
from he2her2.evaluation.tumour.evaluation import TumourEvaluation
from he2her2.evaluation.tumour.patches import NETWORK, PatchTrial, SheetRow
from he2her2.evaluation.tumour.rivals import ALL_TISSUE, HISTOGRAM
from he2her2.evaluation.tumour.slides import HASHI, dice, share_called
from he2her2.files import atomic, write_json, write_text
from he2her2.pages import render
from he2her2.statistics import Estimate, sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TUMOUR_TEST_FILE = "tumour_test.json"
_FIGURES = ("AUC", "balanced accuracy", "Dice", "precision", "recall")
_SLIDE_FIGURES = ("Dice", "precision", "recall", "share called")
_VERSION = 1


def write_tumour_evaluation(found: TumourEvaluation, folder: Path, *, draw: bool = True) -> None:
    """Write page, picture and tables; an earlier test in the folder is replaced.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
    """
    check_evaluation_folder(folder, TUMOUR_TEST_FILE)
    trial = found.patches
    with atomic(folder) as draft:
        draft.mkdir()
        if draw and trial:
            _plot(found, trial, draft / "tumour_test")
        page = render(
            "tumour_test.md",
            e=found,
            figures=_FIGURES,
            slide_figures=_SLIDE_FIGURES,
            slides=list(_slide_rows(found)) if found.slides else [],
            drawn=draw and trial is not None,
        )
        write_text(draft / "tumour_test.md", page)
        if trial:
            write_rows(draft / "patches.csv", _case_rows(trial))
        if trial and trial.sheet:
            write_rows(draft / "shift_sheet.csv", map(_sheet_row, trial.sheet))
        if found.slides:
            write_rows(draft / "slides.csv", _slide_rows(found))
        write_json(draft / TUMOUR_TEST_FILE, _as_json(found), allow_nan=False)


def tumour_evaluation_lines(found: TumourEvaluation, page: Path) -> str:
    """Lines to print after a test."""
    return render("tumour_test.txt", e=found, page=page).rstrip("\n")


def _case_rows(trial: PatchTrial) -> Iterator[AuditRow]:
    patients = trial.cases.patients
    for i in range(len(trial.cases)):
        row: dict[str, Cell] = {
            "patch": i,
            "patient": "" if patients is None else str(patients[i]),
            "fold": int(trial.fold[i]),
            "tumour": bool(trial.cases.tumour[i]),
        }
        for name, scored in trial.scores.items():
            row |= {name: round(float(scored.score[i]), 6), f"{name} calls": bool(scored.called[i])}
        yield row


def _sheet_row(row: SheetRow) -> AuditRow:
    return {
        "shift": row.name,
        "group": row.group,
        "auc": row.auc,
        "balanced_accuracy": row.accuracy,
        "auc_lost": math.nan if row.lost is None else row.lost.estimate.value,
        "histogram_auc": math.nan if row.rival is None else row.rival.value,
        "above_histogram": math.nan if row.above is None else row.above.estimate.value,
        "p": math.nan if row.above is None else row.above.p_value,
    }


def _slide_rows(found: TumourEvaluation) -> Iterator[AuditRow]:
    assert found.slides is not None
    for slide in found.slides.slides:
        yield {
            "slide_id": slide.slide_id,
            "patient_id": slide.patient,
            "tumour_share": slide.tumour_share,
            "window_auc": slide.auc,
            "hashi_dice": dice(slide.masks[HASHI]),
            "hashi_recall": sensitivity(slide.masks[HASHI]),
            "hashi_share_called": share_called(slide.masks[HASHI]),
            "dense_dice": dice(slide.dense),
            "all_tissue_dice": dice(slide.masks[ALL_TISSUE]),
            "agreement": slide.agreement,
            "samples": slide.samples,
            "spacing_um": slide.spacing_um,
        }


def _as_json(found: TumourEvaluation) -> dict[str, Any]:
    """Content of `tumour_test.json`; what is undefined is null."""
    trial, slides = found.patches, found.slides
    plain: dict[str, Any] = finite(
        {
            "version": _VERSION,
            "network": found.card.summary,
            "networks": found.n_networks,
            "weights": list(found.question.weights),
            "data": found.question.data.name,
            "threshold": found.threshold,
            "notices": found.notices,
            **({} if trial is None else _patches_as_json(trial)),
            "slides": None
            if slides is None
            else {"figures": [asdict(one) for one in slides.figures], "agreement": asdict(slides.agreement)},
        }
    )
    return plain


def _patches_as_json(trial: PatchTrial) -> dict[str, Any]:
    return {
        "n": len(trial.cases),
        "n_tumour": int(trial.cases.tumour.sum()),
        "n_patients": trial.n_patients,
        "windows": trial.windows,
        "scorers": [asdict(scorer) for scorer in trial.scorers],
        "shift_sheet": [asdict(row) for row in trial.sheet],
    }


def _plot(found: TumourEvaluation, trial: PatchTrial, stem: Path) -> None:
    """AUC of the network and of the colour histogram under every shift; without a sheet, of every scorer."""
    if trial.sheet:
        names = [row.name for row in trial.sheet]
        lines = [(NETWORK, BLUE, [row.auc for row in trial.sheet])]
        if all(row.rival is not None for row in trial.sheet):
            lines.append((HISTOGRAM, ORANGE, [row.rival for row in trial.sheet if row.rival is not None]))
    else:
        names = [scorer.name for scorer in trial.scorers]
        lines = [("AUC", BLUE, [scorer.figures["AUC"] for scorer in trial.scorers])]
    whose = "no patients named" if trial.n_patients is None else f"{trial.n_patients} patients"
    what = f"{len(trial.cases)} {'patches' if found.slides is None else 'windows'} of {trial.cases.name} ({whose})"
    caption = f"{what}, {int(trial.cases.tumour.sum())} with tumour. Intervals of 95 %."
    with canvas("Tumour or not", size_inch=(8.2, 1.6 + 0.28 * len(names))) as (figure, axes):
        _intervals(axes, names, lines)
        save(figure, Note(caption, found.notices), stem)


def _intervals(axes: "Axes", names: Sequence[str], lines: Sequence[tuple[str, str, Sequence[Estimate]]]) -> None:
    y = np.arange(len(names))[::-1].astype(float)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for k, (name, colour, estimates) in enumerate(lines):
        at = y + 0.14 * (1 - 2 * k) * (len(lines) - 1)
        value = np.array([one.value for one in estimates])
        ends = np.array([[one.value - one.low, one.high - one.value] for one in estimates]).T
        axes.errorbar(value, at, xerr=ends, fmt="o" if k == 0 else "D", color=colour, markersize=5, label=name)
        axes.axvline(value[0], color=colour, linewidth=0.8, alpha=0.5)
    axes.set_yticks(y, list(names))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(right=1.0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("AUC")
    axes.legend(loc="lower left")
