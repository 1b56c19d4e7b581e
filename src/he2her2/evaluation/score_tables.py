"""Scores of any tool: a table of slides or patients with a score each, read as if `predict` had written it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from he2her2.errors import EvaluationError, quoted
from he2her2.evaluation.cases import CaseLevel
from he2her2.evaluation.named_rows import ID_SYNONYMS, FoundRows, find_rows
from he2her2.evaluation.score_decisions import Scale, caution_of_confidence, decide, refuse_confidence, score_number
from he2her2.evaluation.score_headings import read_heading
from he2her2.labels import Her2Status, IhcScore, parse_ihc
from he2her2.manifest import (
    Manifest,
    Table,
    TableRow,
    bare_name,
    is_blank,
    match_columns,
    raise_problems,
    read_labels,
    read_manifest,
    read_table,
    shown_columns,
)
from he2her2.results import Failure, PredictedSlide, RunDescription, RunFolder, open_run

_LOGITS = ("logit", "logits")
_SAME_SCORE = 1e-9  # share by which two scores may differ and count as equal
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
        *("her2_pos", "positive", "soft_prediction", "soft_pred", *_LOGITS),
    ),
    "call": (
        *("call", "called", "prediction", "predicted", "pred", "y_pred", "y_hat", "predicted_class", "predicted_label"),
        *("predicted_status", "her2_call", "decision", "hard_prediction", "hard_pred", "pred_class", "pred_label"),
    ),
    "ihc": ("tile_score", "predicted_score", "predicted_ihc", "predicted_ihc_score", "ihc_predicted", "ihc_pred"),
    "threshold": ("threshold", "cutoff"),
}
"""Usual headings. `status` is none of them: it may be the label."""


@dataclass(frozen=True, slots=True)
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
    scale: Scale = "auto"
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions to be evaluated: a run, or another tool's scores in the form of one.

    Attributes:
        run: The run.
        level: Patient where the scores are of patients: each slide then has its patient's.
        is_probability: False for scores of a scale of their own, of which only order and threshold count.
        threshold: Positive from this score on, on its own scale.
        notes: How a table was read, a sentence each.
    """

    run: RunFolder
    threshold: float
    level: CaseLevel = "slide"
    is_probability: bool = True
    notes: tuple[str, ...] = ()

    @property
    def by_predict(self) -> bool:
        """True for a run of `predict`; False for another tool's scores."""
        return not self.run.path.is_file()


def read_study_manifest(path: Path, predictions: Path) -> Manifest:
    """Labels of an evaluation: a manifest, or for another tool's scores any table of labels.

    Raises:
        EvaluationError: There are no predictions.
        ManifestError: It cannot be used.
    """
    if not predictions.exists():
        raise EvaluationError(
            f"{predictions}: there is no such file or folder; give a run of he2her2 predict, or a CSV of scores"
        )
    manifest = read_labels(path) if predictions.is_file() else read_manifest(path)
    raise_problems(manifest, manifest.problems)
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
    scale = _scale(path, names["score"], values, _stated_scale(path, rows.values(), names["score"], reading))
    scored = {name: rows[name] for name in known}
    refuse_confidence(path, scored, values, names, scale)
    caution = caution_of_confidence(path, scored, values, names, table.columns, scale)
    cut, calls, decided = decide(path, scored, values, names, reading.threshold, scale)
    share = _to_share(scale, values, cut)
    _refuse_lost_order(path, names["score"], scale, values, share(values))
    threshold = float(share(np.array(cut)))
    predictions = {
        name: PredictedSlide(name, Her2Status.POSITIVE if call else Her2Status.NEGATIVE, p, threshold, tile_score=ihc)
        for name, call, p, ihc in zip(
            known, calls.tolist(), share(values).tolist(), (_ihc(rows[name], names) for name in known), strict=True
        )
    }
    lost = [name for name, score in scores.items() if score is None]
    failures = {name: Failure(name, "", "score", "its score is blank", "score it again") for name in lost}
    kind = "scores" if scale == "any" else scale
    notes = (*table.notes, *filter(None, [caution]))
    read_as = f"{path.name}: {found.level}s in {found.column!r}, {kind} in {names['score']!r}"
    run = RunFolder(path, RunDescription(), predictions, failures)
    return Predictions(
        run, cut, found.level, scale != "any", (f"{read_as}; {decided}.", *(f"{path.name}: {n}." for n in notes))
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
    if names.get("call") == names["score"]:
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
    said = [(field, names[field]) for field in ("score", "call", "ihc", "threshold") if field in names]
    for rows in found.rows.values():
        for field, column in said if len(rows) > 1 else ():
            if others := [row for row in rows if row.text(column) != rows[0].text(column)]:
                raise EvaluationError(
                    f"{table.path}: {found.level} {quoted(rows[0].text(found.column))} has several {field}s (lines "
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


def _stated_scale(path: Path, rows: Iterable[TableRow], column: str, reading: ScoreReading) -> Scale:
    """The scale that the user names, or that the column does: by signs of per cent, or a heading of logits.

    Raises:
        EvaluationError: Some scores have a sign of per cent and others none, which may be shares of 1.
    """
    if reading.scale != "auto":
        return reading.scale
    texts = [(row.line, text) for row in rows if not is_blank(text := row.text(column))]
    bare = [(line, text) for line, text in texts if not text.endswith("%")]
    if bare and len(bare) < len(texts):
        line, text = bare[0]
        raise EvaluationError(
            f"{path}: {len(texts) - len(bare)} scores in {column!r} are in per cent and {len(bare)} have no % sign, "
            f"as {text} on line {line}; write all in the same way, or pass --scale percent if all are in per cent"
        )
    if texts and not bare:
        return "percent"
    return "logit" if bare_name(column) in _LOGITS else "auto"


def _scale(path: Path, column: str, values: NDArray[np.float64], stated: Scale) -> Scale:
    """The scale of scores, checked.

    Raises:
        EvaluationError: They are not on the scale that was named, or on none that can be guessed.
    """
    scale: Scale = "probability" if stated == "auto" else stated
    highest = {"probability": 1.0, "percent": 100.0}.get(scale)
    if highest is None or ((values >= 0) & (values <= highest)).all():
        return scale
    span = f"{path}: the scores in {column!r} go from {values.min():g} to {values.max():g}"
    if stated == "auto":
        raise EvaluationError(
            f"{span}, so they are no probabilities; pass --scale percent, logit, or any with --threshold"
        )
    raise EvaluationError(f"{span}, outside 0 to {highest:g}; pass another --scale")


def _to_share(
    scale: Scale, values: NDArray[np.float64], cut: float
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Function from scores to numbers in [0, 1] of the same order.

    Scores of any scale keep their distances, too, so that the mean over a patient's slides is that of the scores.
    """
    lowest, highest = min(float(values.min()), cut), max(float(values.max()), cut)
    span = (highest - lowest) or 1.0
    ways: Mapping[Scale, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "probability": lambda x: x,
        "percent": lambda x: x / 100,
        "logit": lambda x: np.asarray(expit(x)),
        "any": lambda x: (x - lowest) / span,
    }
    return ways[scale]


def _refuse_lost_order(
    path: Path, column: str, scale: Scale, scores: NDArray[np.float64], shares: NDArray[np.float64]
) -> None:
    """Refuse scores that differ and would count as equal, such as logits of 40 and of 50.

    Raises:
        EvaluationError: There are some.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    is_lost = (np.diff(ordered) > _SAME_SCORE * np.abs(ordered[1:])) & (np.diff(shares[order]) <= 0)
    if is_lost.any():
        first = int(np.argmax(is_lost))
        remedy = (
            "pass --scale any with --threshold 0, by which order counts"
            if scale == "logit"
            else f"they go from {ordered[0]:g} to {ordered[-1]:g}: leave those blank that stand for a missing score"
        )
        raise EvaluationError(
            f"{path}: {ordered[first]:g} and {ordered[first + 1]:g} in {column!r} would count as equal; {remedy}"
        )


def _ihc(row: TableRow, names: Mapping[str, str]) -> IhcScore | None:
    """The predicted IHC score; None where there is none that can be read."""
    try:
        return parse_ihc(row.text(names.get("ihc")))
    except ValueError:
        return None
