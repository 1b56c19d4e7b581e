"""The folder of an evaluation: page, plots, tables and `evaluation.json`; it appears whole."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from he2her2.csv_files import read_csv, write_csv
from he2her2.errors import EvaluationError, OutputError
from he2her2.evaluation import plots
from he2her2.evaluation.audits import Audit, AuditRow, Cell
from he2her2.evaluation.benefit import NamedCurve
from he2her2.evaluation.cases import UNKNOWN_SCORE, Cases, Joined
from he2her2.evaluation.evaluation import Evaluation
from he2her2.evaluation.report import evaluation_page
from he2her2.evaluation.score_scale import ScoreScale
from he2her2.evaluation.summary import Summary
from he2her2.evaluation.thresholds import AppliedRules
from he2her2.files import atomic, check_writable, read_json, write_json, write_text
from he2her2.labels import IhcScore
from he2her2.results import RunFolder
from he2her2.rules import DIGITS
from he2her2.statistics import Estimate

_RESULT = "evaluation.json"
_VERSION = 1
_BENEFIT_COLUMNS = (
    "probabilities",
    "prevalence",
    "threshold",
    "model",
    "model_low",
    "model_high",
    "test_all",
    "gain",
    "gain_low",
    "gain_high",
)
EXCLUSIONS_FILE = "exclusions.csv"
EXCLUSION_COLUMNS = ("slide_id", "patient_id", "reason", "detail", "label")


def check_evaluation_folder(folder: Path, result: str = _RESULT) -> None:
    """Raise, before any work, unless a folder is free or holds an evaluation that may be replaced.

    Args:
        folder: To be written to.
        result: File that an earlier one has.

    Raises:
        OutputError: It holds something else, is a file, or cannot be written.
    """
    if folder.is_file():
        raise OutputError(f"{folder}: is a file; choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / result).is_file():
        raise OutputError(f"{folder}: holds something that is no {Path(result).stem}; choose another --out")
    check_writable(folder.absolute().parent)  # it appears there whole


@dataclass(frozen=True, slots=True)
class WrittenEvaluation:
    """An evaluation as its folder holds it, as far as a report shows it.

    Attributes:
        folder: Where it lies.
        run_digest: SHA-256 of the configuration of its run.
        patients: Number of patients, and of the HER2-positive ones.
        split: Of the manifest, or "all".
        figures: Name, value, low, high and n of each figure of the field; value None where it is undefined.
        limits: What limits the figures.
        notices: Said with every output.
        plots: Name and SVG of each plot.
        slides: Probability of each slide that was evaluated, by name; none where patients alone were.
    """

    folder: Path
    run_digest: str
    patients: tuple[int, int]
    split: str
    figures: tuple[tuple[str, float | None, float | None, float | None, int], ...]
    limits: tuple[str, ...]
    notices: tuple[str, ...]
    plots: Mapping[str, str]
    slides: Mapping[str, float]

    def is_of(self, run: RunFolder) -> bool:
        """True of a run's own evaluation; another cohort's, by the same settings and weights, has other slides."""
        there = [(run.predictions[name].probability, p) for name, p in self.slides.items() if name in run.predictions]
        same = all(round(here, DIGITS) == round(p, DIGITS) for here, p in there)
        return self.run_digest == run.description.digest and same and bool(there or not self.slides)


def read_evaluation(folder: Path) -> WrittenEvaluation:
    """Read what `write_evaluation` wrote.

    Raises:
        EvaluationError: There is none, or it is damaged.
    """
    slides = folder / "slides.csv"
    try:
        found = read_json(folder / _RESULT)
        group = found["groups"]["patients"]
        figures = [(name, f) for name, f in group["figures"].items() if f["family"] == "field"]
        return WrittenEvaluation(
            folder,
            str(found["run"]["digest"]),
            (int(group["n"]), int(group["n_positive"])),
            str(found["split"]),
            tuple((name, f["value"], f["low"], f["high"], int(f["n"])) for name, f in figures),
            (*found["cautions"], *(audit["sentence"] for audit in found["audits"] if audit["alarm"])),
            tuple(found["notices"]),
            {file.stem: file.read_text("utf-8") for file in sorted((folder / "plots").glob("*.svg"))},
            {row["id"]: float(row["probability"]) for row in (read_csv(slides) if slides.is_file() else ())},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{folder}: holds no evaluation that can be read ({error}); evaluate again") from None


def write_evaluation(evaluation: Evaluation, folder: Path, *, draw: bool = True) -> None:
    """Write page, tables and plots; an earlier evaluation in the folder is replaced.

    Args:
        evaluation: To be written.
        folder: To be written to.
        draw: True draws plots.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
    """
    check_evaluation_folder(folder)
    with atomic(folder) as draft:
        draft.mkdir()
        drawn = _write_plots(evaluation, draft / "plots") if draw else ()
        write_text(draft / "evaluation.md", evaluation_page(evaluation, drawn))
        _write_tables(evaluation, draft)
        write_json(draft / _RESULT, _as_json(evaluation), allow_nan=False)


def _write_plots(e: Evaluation, folder: Path) -> tuple[str, ...]:
    """Draw what the cases allow: curves need both classes, the forest plot needs sites.

    Returns:
        Names of the plots.
    """
    cases, notices = e.joined.patients, e.notices
    drawn = []

    def stem(name: str) -> Path:
        drawn.append(name)
        return folder / name

    if 0 < e.patients.n_positive < e.patients.n:
        plots.plot_roc(cases, e.patients, notices, stem("roc"))
        plots.plot_precision_recall(cases, e.patients, notices, stem("precision_recall"))
        prevalence = e.question.budgets.prevalence
        plots.plot_saved(cases, e.patients, prevalence, notices, stem("saved"), e.at_choice)
        if e.benefit:
            plots.plot_benefit(e.benefit, e.patients, notices, stem("decision_curve"))
    calibrated = (e.applied and e.applied.calibrated) or e.kept
    if e.reliability is not None:
        plots.plot_calibration(e.reliability, calibrated, e.patients, notices, stem("calibration"))
    plots.plot_scores(cases, e.patients, notices, stem("scores"))
    plots.plot_confusion(e.patients, notices, stem("confusion"))
    if e.patients.score_matrix is not None:
        plots.plot_score_matrix(e.patients, notices, stem("score_matrix"))
    if e.sites:
        plots.plot_forest(e.sites, e.patients, notices, stem("sites"))
    return tuple(drawn)


def _write_tables(e: Evaluation, folder: Path) -> None:
    write_rows(folder / "metrics.csv", _metric_rows(e.groups))
    of_slides = [e.joined.slides] if e.predictions.level == "slide" else []
    for cases in (*of_slides, e.joined.patients):
        write_rows(folder / f"{cases.level}s.csv", _case_rows(cases))
    write_rows(folder / "decision_curves.csv", _benefit_rows(e.benefit), _BENEFIT_COLUMNS)
    write_rows(folder / "flow.csv", [{"step": step, "slides": n} for step, n in e.joined.flow])
    write_rows(folder / EXCLUSIONS_FILE, exclusion_rows(e.joined), EXCLUSION_COLUMNS)
    for audit in e.audits:
        if audit.rows:
            write_rows(folder / f"audit_{audit.name}.csv", audit.rows)


def exclusion_rows(joined: Joined) -> Iterator[AuditRow]:
    """A row for every slide that is left out."""
    for out in joined.exclusions:
        cells = out.slide_id, out.patient_id, str(out.reason), out.detail, "" if out.truth is None else str(out.truth)
        yield dict(zip(EXCLUSION_COLUMNS, cells, strict=True))


def _metric_rows(summaries: Iterable[Summary]) -> Iterator[AuditRow]:
    """A row for every figure of every group."""
    for summary in summaries:
        for figure in summary.figures.values():
            e = figure.estimate
            yield {
                "cases": summary.title, "family": figure.family, "figure": e.name, "value": e.value, "low": e.low,
                "high": e.high, "level": e.level, "n": e.n, "method": e.method,
            }  # fmt: skip


def _benefit_rows(curves: Iterable[NamedCurve]) -> Iterator[AuditRow]:
    """A row for every threshold of every decision curve."""
    for named in curves:
        c = named.curve
        columns = (
            c.thresholds,
            c.model.value,
            c.model.low,
            c.model.high,
            c.test_all,
            c.gain.value,
            c.gain.low,
            c.gain.high,
        )
        for values in zip(*columns, strict=True):
            cells: tuple[Cell, ...] = (named.name, c.prevalence, *map(float, values))
            yield dict(zip(_BENEFIT_COLUMNS, cells, strict=True))


def _case_rows(cases: Cases) -> Iterator[AuditRow]:
    """A row for every case."""
    names = {UNKNOWN_SCORE: "", **dict(enumerate(map(str, IhcScore)))}
    for k in range(len(cases)):
        yield {
            "id": str(cases.ids[k]),
            "patient_id": str(cases.patients[k]),
            "site": str(cases.sites[k]),
            "her2_positive": bool(cases.truth[k]),
            cases.scale.noun: cases.scale.score(float(cases.probability[k])),
            "called_positive": bool(cases.decided[k]),
            "ihc_score": names[int(cases.true_score[k])],
            "predicted_score": names[int(cases.predicted_score[k])],
        }


def write_rows(path: Path, rows: Iterable[AuditRow], columns: Sequence[str] = ()) -> None:
    """Write rows as CSV, an estimate as four columns.

    Raises:
        OutputError: It cannot be written.
    """
    flat = [_flat(row) for row in rows]
    write_csv(path, columns or (list(flat[0]) if flat else ()), flat)


def _flat(row: AuditRow) -> dict[str, Cell]:
    """The row with an estimate as four columns: its value, its ends and its n."""
    found: dict[str, Cell] = {}
    for name, cell in row.items():
        if isinstance(cell, Estimate):
            found |= {name: cell.value, f"{name}_low": cell.low, f"{name}_high": cell.high, f"{name}_n": cell.n}
        else:
            found[name] = cell
    return found


def _as_json(e: Evaluation) -> dict[str, Any]:
    """Content of `evaluation.json`; what is undefined is null."""
    question = e.question
    found: dict[str, Any] = finite(
        {
            "version": _VERSION,
            "scores_of": e.predictions.level,
            "run": {"folder": e.run.name, "digest": e.run.description.digest},
            "manifest": {"name": question.manifest.name, "sha256": e.manifest_sha256},
            "split": e.split or "all",
            "policy": str(question.policy),
            "patient_rule": question.rule,
            "prevalence": question.budgets.prevalence,
            "seed": question.seed,
            "notices": e.notices,
            "flow": dict(e.joined.flow),
            "lost_patients": e.joined.lost_patients,
            "missing_data": asdict(e.missing),
            "cautions": e.limitations,
            "endpoints": asdict(e.endpoints),
            "wrong_labels": [asdict(one) for one in e.wrong_labels],
            "share_of_wrong_labels_to_chance": e.share_to_chance,
            "groups": {summary.title: _summary_json(summary) for summary in e.groups},
            "audits": [_audit_json(audit) for audit in e.audits],
            "reliability": None if e.reliability is None else asdict(e.reliability),
            "decision_curves": {named.name: named.sentence for named in e.benefit},
            "kept_calibration": None if e.kept is None else asdict(e.kept),
            "choice": None if e.applied is None else _choice_json(e.applied, e.predictions.scale),
            "comparison": None if e.comparison is None else asdict(e.comparison) | {"sentence": e.comparison.sentence},
        }
    )
    return found


def _choice_json(applied: AppliedRules, scale: ScoreScale) -> dict[str, Any]:
    """The rules and their results, each limit on the scale of the scores."""
    found = asdict(applied)
    for rule in (found["choice"]["point"], found["choice"]["triage"]):
        for limit in {"threshold", "rule_out_below", "rule_in_from"} & (rule or {}).keys():
            rule[limit] = scale.score(rule[limit])
    return found


def _summary_json(summary: Summary) -> dict[str, Any]:
    return {
        "n": summary.n,
        "n_patients": summary.n_patients,
        "n_positive": summary.n_positive,
        "threshold": summary.threshold,
        "counts": asdict(summary.counts),
        "figures": {name: {"family": f.family} | asdict(f.estimate) for name, f in summary.figures.items()},
        "exact_tests": None if summary.exact is None else asdict(summary.exact),
        "score_matrix": None if summary.score_matrix is None else summary.score_matrix.tolist(),
    }


def _audit_json(audit: Audit) -> dict[str, Any]:
    rows = [
        {name: asdict(cell) if isinstance(cell, Estimate) else cell for name, cell in row.items()} for row in audit.rows
    ]
    return {
        "name": audit.name,
        "done": audit.done,
        "alarm": audit.alarm,
        "sentence": audit.sentence,
        "method": audit.method,
        "rows": rows,
    }


def finite(value: Any) -> Any:  # noqa: ANN401  (JSON)
    """The same with null in place of nan and infinity, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
