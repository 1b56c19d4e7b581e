"""The folder of an evaluation: it appears whole, page, tables and plots together."""

from pathlib import Path

from he2her2.errors import OutputError
from he2her2.evaluation import plots
from he2her2.evaluation.evaluate import Evaluation
from he2her2.evaluation.report import write_report
from he2her2.evaluation.tables import write_tables
from he2her2.files import atomic

RESULT = "evaluation.json"


def check_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that is not an evaluation's to replace.

    Raises:
        OutputError: It holds something else, or is a file.
    """
    if folder.is_file():
        raise OutputError(f"{folder}: is a file; choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RESULT).is_file():
        raise OutputError(f"{folder}: holds something that is no evaluation; choose another --out")


def write_evaluation(evaluation: Evaluation, folder: Path, *, draw: bool = True) -> None:
    """Write page, tables and plots; an earlier evaluation in the folder is replaced.

    Args:
        evaluation: What to write.
        folder: Where to.
        draw: Whether to draw plots.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
    """
    check_folder(folder)
    with atomic(folder) as draft:
        draft.mkdir()
        pictures = write_plots(evaluation, draft / "plots") if draw else {}
        write_report(evaluation, pictures, draft / "evaluation.md")
        write_tables(evaluation, draft)


def write_plots(evaluation: Evaluation, folder: Path) -> dict[str, Path]:
    """Draw what the cases allow: curves need both classes, the forest needs sites.

    Returns:
        The PNG of each plot.
    """
    e, cases, notices = evaluation, evaluation.joined.patients, evaluation.notices
    drawn: dict[str, tuple[Path, ...]] = {}
    if 0 < e.patients.n_positive < e.patients.n:
        drawn["roc"] = plots.plot_roc(cases, e.patients, notices, folder / "roc")
        drawn["precision_recall"] = plots.plot_precision_recall(cases, e.patients, notices, folder / "precision_recall")
        drawn["saved"] = plots.plot_saved(
            cases, e.patients, e.question.wishes.prevalence, notices, folder / "saved", e.at_choice
        )
    calibrated = (e.applied and e.applied.calibrated) or e.kept
    drawn["calibration"] = plots.plot_calibration(
        e.reliability, calibrated, e.patients, notices, folder / "calibration"
    )
    drawn["scores"] = plots.plot_scores(cases, e.patients, notices, folder / "scores")
    drawn["confusion"] = plots.plot_confusion(e.patients, notices, folder / "confusion")
    if e.patients.score_matrix is not None:
        drawn["score_matrix"] = plots.plot_score_matrix(e.patients, notices, folder / "score_matrix")
    if e.sites:
        drawn["sites"] = plots.plot_forest(e.sites, e.patients, notices, folder / "sites")
    return {name: files[0] for name, files in drawn.items()}
