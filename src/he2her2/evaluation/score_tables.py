"""Scores of any tool: a table of slides or patients with a score each, read as if `predict` had written it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from he2her2.errors import EvaluationError, quoted
from he2her2.evaluation.cases import CaseLevel
from he2her2.evaluation.named_rows import ID_SYNONYMS, FoundRows, find_rows
from he2her2.evaluation.score_decisions import caution_of_confidence, decide, refuse_confidence, score_number
from he2her2.evaluation.score_headings import read_heading
from he2her2.evaluation.score_scale import (
    LOGITS,
    PROBABILITIES,
    Scale,
    ScoreScale,
    caution_of_coarse_scores,
    read_scale,
    refuse_lost_order,
)
from he2her2.labels import Her2Status, IhcScore, parse_ihc
from he2her2.manifest import (
    Manifest,
    Table,
    TableRow,
    is_blank,
    match_columns,
    raise_problems,
    read_labels,
    read_manifest,
    read_table,
    shown_columns,
)
from he2her2.results import Failure, PredictedSlide, RunDescription, RunFolder, open_run

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    **ID_SYNONYMS,
    "score": (
        *(
            "probability",
            "prob",
            "score",
            "y_prob",
            "y_score",
            "prob_positive",
            "probability_positive",
            "positive_prob",
        ),
        *("positive_probability", "p_positive", "p_pos", "prob_pos", "her2_probability", "her2_prob", "her2_score"),
        *("prediction_score", "predicted_probability", "risk", "p_1", "prob_1", "probability_1", "her2_positive"),
        *("her2_pos", "positive", "soft_prediction", "soft_pred", *LOGITS),
    ),
    "call": (
        *("call", "called", "prediction", "predicted", "pred", "y_pred", "y_hat", "predicted_class", "predicted_label"),
        *("predicted_status", "her2_call", "decision", "hard_prediction", "hard_pred", "pred_class", "pred_label"),
    ),
    "ihc": ("tile_score", "predicted_score", "predicted_ihc", "predicted_ihc_score", "ihc_predicted", "ihc_pred"),
    "threshold": ("threshold", "cutoff"),
}
"""Usual headings. `status` is none of them: it may be the label."""


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ScoreReading:
    """Choices in reading a table of scores; None leaves a column to its usual names.

    Attributes:
        id_column: Slides or patients.
        score_column: Score, higher for more likely positive.
        call_column: Decisions of the tool.
        scale: Of the score; "auto" takes numbers in [0, 1] for probabilities and refuses others.
        threshold: Positive from this score on, on its own scale; None takes the table's, or the tool's decisions, or
            the probability 0.5.
    """

    id_column: str | None = None
    score_column: str | None = None
    call_column: str | None = None
    scale: Scale | Literal["auto"] = "auto"
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions to be evaluated: a run, or another tool's scores in the form of one.

    Attributes:
        run: The run.
        threshold: Positive from this score on.
        level: Patient where the scores are of patients: each slide then has its patient's.
        scale: Of the scores; the run's probabilities are what it makes of them.
        scores: By slide, on that scale; none of a run of `predict`.
        notes: How a table was read, a sentence each.
    """

    run: RunFolder
    threshold: float
    level: CaseLevel = "slide"
    scale: ScoreScale = PROBABILITIES
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def by_predict(self) -> bool:
        """True for a run of `predict`; False for another tool's scores."""
        return not self.run.path.is_file()

    def on(self, scale: ScoreScale) -> "Predictions":
        """The same scores on a wider scale."""
        threshold = float(scale.share(self.threshold))
        moved = {
            name: replace(slide, probability=float(scale.share(self.scores[name])), threshold=threshold)
            for name, slide in self.run.predictions.items()
        }
        return replace(self, scale=scale, run=replace(self.run, predictions=moved))


def read_study_manifest(path: Path, predictions: Path) -> Manifest:
    """Labels of an evaluation: a manifest, or for another tool's scores any table of labels.

    Raises:
        EvaluationError: There are no predictions, or no labels.
        ManifestError: It cannot be used.
    """
    if not predictions.exists():
        raise EvaluationError(
            f"{predictions}: there is no such file or folder; give a run of he2her2 predict, or a CSV of scores"
        )
    manifest = read_labels(path) if predictions.is_file() else read_manifest(path)
    raise_problems(manifest, manifest.problems)
    if manifest.rows and not any(row.her2_status or row.ihc_score or row.ish for row in manifest.rows):
        unread = [note for note in manifest.notes if "not read" in note]
        advice = "; ".join((*unread, "call the column that is meant her2_status, ihc_score or ish"))
        raise EvaluationError(f"{path}: no HER2 status, IHC score or ISH of anybody was found in it; {advice}")
    return manifest


def open_predictions(path: Path, manifest: Manifest, reading: ScoreReading | None = None) -> Predictions:
    """Open a run folder, or a table of scores of the manifest's slides or patients.

    Args:
        path: Folder of `he2her2 predict`, or a CSV.
        manifest: The labels, by whose names the table's rows are found.
        reading: Choices in reading a table.

    Raises:
        EvaluationError: It is neither, or its scores cannot be used.
        ManifestError: It cannot be read as a table, or lacks a column.
    """
    if path.is_file():
        return _read_scores(path, manifest, reading or ScoreReading())
    run = open_run(path)
    return Predictions(run, run.threshold)


def check_reading(paths: Iterable[Path], reading: ScoreReading) -> None:
    """Raise where choices in reading tables were made and there are only runs of `predict`, which take none.

    Raises:
        EvaluationError: It is so.
    """
    usual = ScoreReading()
    made = [f.name for f in fields(reading) if getattr(reading, f.name) != getattr(usual, f.name)]
    runs = list(paths)
    if made and all(path.is_dir() for path in runs):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in made)
        raise EvaluationError(
            f"{', '.join(map(str, runs))}: a run of predict has its own scores and threshold; leave out {options} (for "
            "CSVs of scores)"
        )


def on_one_scale(predictions: Sequence[Predictions]) -> tuple[Predictions, ...]:
    """Put scores of any scale on that of all tables together, so that a threshold of one holds for the others."""
    scales = [one.scale for one in predictions]
    return tuple(one if one.by_predict else one.on(one.scale.joined(scales)) for one in predictions)


def _read_scores(path: Path, manifest: Manifest, reading: ScoreReading) -> Predictions:
    table = read_table(path)
    names = _columns(table, reading)
    found = find_rows(table, [names[field] for field in ("slide", "patient") if field in names], manifest)
    rows = _one_row_each(table, found, names)
    scores = {slide_id: _score(path, row, names["score"]) for slide_id, row in rows.items()}
    known = {slide_id: score for slide_id, score in scores.items() if score is not None}
    values = np.array(list(known.values()))
    if not known:
        raise EvaluationError(f"{path}: every score in {names['score']!r} is blank; name the scores by --score-column")
    if len(np.unique(values)) <= 2 and set(values.tolist()) <= {0.0, 1.0}:
        raise EvaluationError(
            f"{path}: {names['score']!r} holds only 0 and 1, decisions rather than scores; name the scores by "
            f"--score-column; it has {shown_columns(table.columns)}"
        )
    name = read_scale(path, names["score"], rows.values(), values, reading.scale)
    scored = {slide_id: rows[slide_id] for slide_id in known}
    refuse_confidence(path, scored, values, names, name)
    cautions = [caution_of_confidence(path, scored, values, names, table.columns, name)]
    cut, calls, decided = decide(path, scored, values, names, reading.threshold, name)
    scale = ScoreScale.of(name, [*known.values(), cut])
    refuse_lost_order(path, names["score"], scale, values)
    cautions.append(caution_of_coarse_scores(names["score"], scale, values))
    status = [Her2Status.POSITIVE if call else Her2Status.NEGATIVE for call in calls.tolist()]
    slides = {
        slide_id: PredictedSlide(slide_id, called, known[slide_id], cut, tile_score=_ihc(row, names))
        for (slide_id, row), called in zip(scored.items(), status, strict=True)
    }
    lost = [slide_id for slide_id, score in scores.items() if score is None]
    failures = {slide_id: Failure(slide_id, "", "score", "its score is blank", "score it again") for slide_id in lost}
    kind = "scores" if name == "any" else name
    notes = (*table.notes, *filter(None, cautions))
    read_as = f"{path.name}: {found.level}s in {found.column!r}, {kind} in {names['score']!r}"
    notes = (f"{read_as}; {decided}.", *(f"{path.name}: {note}." for note in notes))
    return Predictions(RunFolder(path, RunDescription(), slides, failures), cut, found.level, scale, known, notes).on(
        scale
    )


def _columns(table: Table, reading: ScoreReading) -> dict[str, str]:
    """Column of each field; a table with only one column of numbers has its score there.

    Raises:
        EvaluationError: There is no column of slides or patients, or none of scores.
    """
    given = {"slide": reading.id_column, "score": reading.score_column, "call": reading.call_column}
    names = dict(match_columns(table, _SYNONYMS, given, ordered=True).names)
    if not {"slide", "patient"} & names.keys():
        raise EvaluationError(
            f"{table.path}: has no column of slides or patients; name it by --id-column; it has "
            f"{shown_columns(table.columns)}"
        )
    if reading.score_column is None:
        names["score"] = _score_column(table, names)
    call = names.get("call")
    is_empty = reading.call_column is None and all(is_blank(row.text(call)) for row in table.rows)
    if call is not None and (call == names["score"] or is_empty):
        del names["call"]
    return names


def _score_column(table: Table, names: Mapping[str, str]) -> str:
    """Column of the score: one of a usual name, the positive one of two classes, or the only one of numbers.

    Raises:
        EvaluationError: There is none, or it is of one class among several, of the negative one, or of something else.
    """
    taken = {column for field, column in names.items() if field not in ("call", "score")}
    numbers = [column for column in table.columns if column not in taken and _is_score(table, column)]
    classes = _classes(numbers)
    pairs = [group["1"] for group in classes if group.keys() == {"0", "1"} and _sum_to_one(table, group)]
    score = names.get("score") or (pairs[0] if len(pairs) == 1 else None)
    if score is None and len(numbers) == 1:
        score = numbers[0]
    several = next((group for group in classes if len(group) > 2 and score in (None, *group.values())), None)
    if several is not None:
        raise EvaluationError(
            f"{table.path}: {', '.join(several.values())} may be of {len(several)} classes; add one column with the "
            "probability of HER2-positive, or name one by --score-column"
        )
    if score is None:
        raise EvaluationError(
            f"{table.path}: has no column of scores by a usual name; name it by --score-column; it has "
            f"{shown_columns(table.columns)}"
        )
    group = next((group for group in classes if score in group.values()), {})
    if read_heading(score).is_negative:
        score = group.get("1", score)
    if read_heading(score).is_negative:
        raise EvaluationError(
            f"{table.path}: {score!r} is of the negative class by its name; add the probability of HER2-positive, or "
            "name the scores by --score-column"
        )
    if other := read_heading(score).taken_for:
        raise EvaluationError(
            f"{table.path}: {score!r} is taken for {other} by its name, not for the probability of HER2-positive; if "
            "it is the score all the same, name it by --score-column"
        )
    return score


def _classes(columns: Sequence[str]) -> list[dict[str, str]]:
    """Columns that differ in the name of a class only, each set by class: 0 negative, 1 positive, or more."""
    groups: dict[str, dict[str, str]] = {}
    for column in columns:
        heading = read_heading(column)
        if heading.named is not None:
            groups.setdefault(heading.stem, {})[heading.named] = column
    return list(groups.values())


def _sum_to_one(table: Table, group: Mapping[str, str]) -> bool:
    """True if the two columns of a group are a probability and what is left of 1, or of 100 %."""
    rows = [[score_number(row.text(column)) for column in group.values()] for row in table.rows]
    sums = np.array([first + second for first, second in rows if first is not None and second is not None])
    return any(np.allclose(sums, whole, rtol=0, atol=whole / 100) for whole in (1.0, 100.0))


def _is_score(table: Table, column: str) -> bool:
    """True if a column holds numbers, and others than a few classes."""
    texts = {text for row in table.rows if not is_blank(text := row.text(column))}
    try:
        return len({score_number(text) for text in texts}) > min(4, len(table.rows) // 2)
    except ValueError:
        return False


def _one_row_each(table: Table, found: FoundRows, names: Mapping[str, str]) -> dict[str, TableRow]:
    """The only row of each slide, or the first of those that say the same.

    Raises:
        EvaluationError: A slide or patient has several scores, or other words of the tool about it.
    """
    said = [(what, names[what]) for what in ("score", "call", "ihc", "threshold") if what in names]
    for rows in found.rows.values():
        for what, column in said if len(rows) > 1 else ():
            if others := [row for row in rows if row.text(column) != rows[0].text(column)]:
                raise EvaluationError(
                    f"{table.path}: {found.level} {quoted(rows[0].text(found.column))} has several {what}s (lines "
                    f"{rows[0].line} and {others[0].line}); keep one row of each"
                )
    return {slide_id: rows[0] for slide_id, rows in found.rows.items()}


def _score(path: Path, row: TableRow, column: str) -> float | None:
    """A row's score; None where it is blank.

    Raises:
        EvaluationError: It is no number.
    """
    try:
        return score_number(row.text(column))
    except ValueError as error:
        raise EvaluationError(
            f"{path}, line {row.line}: {column}: {error}; name the scores by --score-column"
        ) from None


def _ihc(row: TableRow, names: Mapping[str, str]) -> IhcScore | None:
    """The predicted IHC score; None where there is none that can be read."""
    try:
        return parse_ihc(row.text(names.get("ihc")))
    except ValueError:
        return None
