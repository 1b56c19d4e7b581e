"""An evaluation as files for machines: evaluation.json and one CSV a table."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from he2her2.evaluation.audits.audit import Audit, Cell, Row
from he2her2.evaluation.cases import UNKNOWN_SCORE, Cases
from he2her2.evaluation.evaluate import Evaluation
from he2her2.evaluation.summary import Summary
from he2her2.files import write_csv, write_json
from he2her2.labels import IhcScore
from he2her2.statistics.intervals import Estimate

VERSION = 1


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write every table, and `evaluation.json` last.

    Raises:
        OutputError: The folder cannot be written.
    """
    joined = evaluation.joined
    _write(folder / "metrics.csv", metric_rows(groups_of(evaluation)))
    for cases in (joined.slides, joined.patients):
        _write(folder / f"{cases.level}s.csv", case_rows(cases))
    _write(folder / "flow.csv", [{"step": step, "slides": n} for step, n in joined.flow])
    excluded = [
        {"slide_id": e.slide_id, "patient_id": e.patient_id, "reason": str(e.reason), "detail": e.detail,
         "label": "" if e.truth is None else str(e.truth)}
        for e in joined.exclusions
    ]  # fmt: skip
    _write(folder / "exclusions.csv", excluded or [dict.fromkeys(_EXCLUSION_COLUMNS, "")][:0], _EXCLUSION_COLUMNS)
    for audit in evaluation.audits:
        if audit.rows:
            _write(folder / f"audit_{audit.name}.csv", audit.rows)
    write_json(folder / "evaluation.json", as_json(evaluation), allow_nan=False)


_EXCLUSION_COLUMNS = ("slide_id", "patient_id", "reason", "detail", "label")


def groups_of(e: Evaluation) -> tuple[Summary, ...]:
    """Every group of cases that has figures."""
    return (e.patients, e.slides, e.equivocal, *([e.at_choice] if e.at_choice else []))


def metric_rows(summaries: Iterable[Summary]) -> Iterator[Row]:
    """A row for every figure of every group."""
    for summary in summaries:
        for figure in summary.figures.values():
            e = figure.estimate
            yield {
                "cases": summary.title, "family": figure.family, "figure": e.name, "value": e.value, "low": e.low,
                "high": e.high, "level": e.level, "n": e.n, "method": e.method,
            }  # fmt: skip


def case_rows(cases: Cases) -> Iterator[Row]:
    """A row for every case."""
    scores = [*(str(score) for score in IhcScore)]

    def score(k: int) -> str:
        return "" if k == UNKNOWN_SCORE else scores[k]

    for k in range(len(cases)):
        yield {
            "id": str(cases.ids[k]),
            "patient_id": str(cases.patients[k]),
            "site": str(cases.sites[k]),
            "her2_positive": bool(cases.truth[k]),
            "probability": float(cases.probability[k]),
            "called_positive": bool(cases.decided[k]),
            "ihc_score": score(int(cases.true_score[k])),
            "predicted_score": score(int(cases.predicted_score[k])),
        }


def _write(path: Path, rows: Iterable[Row], columns: Sequence[str] = ()) -> None:
    flat = [_flat(row) for row in rows]
    write_csv(path, columns or (tuple(flat[0]) if flat else ()), flat)


def _flat(row: Row) -> dict[str, Cell]:
    """An estimate becomes its value, its ends and its n."""
    found: dict[str, Cell] = {}
    for name, cell in row.items():
        if isinstance(cell, Estimate):
            found |= {name: cell.value, f"{name}_low": cell.low, f"{name}_high": cell.high, f"{name}_n": cell.n}
        else:
            found[name] = cell
    return found


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything that `evaluation.json` says; what is undefined is null."""
    e, joined, question = evaluation, evaluation.joined, evaluation.question
    found: dict[str, Any] = _finite(
        {
            "version": VERSION,
            "run": {"folder": e.run.name, "digest": e.run.description.digest},
            "manifest": {"name": question.manifest.name, "sha256": e.manifest_sha256},
            "split": e.split or "all",
            "policy": str(question.policy),
            "patient_rule": question.rule,
            "prevalence": question.wishes.prevalence,
            "seed": question.seed,
            "notices": e.notices,
            "flow": dict(joined.flow),
            "lost_patients": joined.lost_patients,
            "cautions": e.cautions,
            "groups": {summary.title: _summary(summary) for summary in groups_of(e)},
            "audits": [_audit(audit) for audit in e.audits],
            "reliability": asdict(e.reliability),
            "kept_calibration": None if e.kept is None else asdict(e.kept),
            "choice": None if e.applied is None else asdict(e.applied),
            "comparison": None if e.versus is None else asdict(e.versus),
        }
    )
    return found


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "n": summary.n,
        "n_patients": summary.n_patients,
        "n_positive": summary.n_positive,
        "threshold": summary.threshold,
        "counts": asdict(summary.counts),
        "figures": {name: {"family": f.family} | asdict(f.estimate) for name, f in summary.figures.items()},
        "score_matrix": None if summary.score_matrix is None else summary.score_matrix.tolist(),
    }


def _audit(audit: Audit) -> dict[str, Any]:
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


def _finite(value: Any) -> Any:  # noqa: ANN401  (JSON)
    """The same with null for what is no number: JSON has no nan."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
