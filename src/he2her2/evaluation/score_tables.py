"""Scores of any tool: a table of slides or patients with a score each, read as if `predict` had written it."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from he2her2.errors import EvaluationError, quoted
from he2her2.evaluation.cases import CaseLevel
from he2her2.evaluation.named_rows import ID_SYNONYMS, FoundRows, find_rows
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
from he2her2.units import parse_number

Scale: TypeAlias = Literal["auto", "probability", "percent", "logit", "any"]

_LOGITS = ("logit", "logits")
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

_QUANTITY = "p|prob|proba|probability|score|pred|prediction|softmax|sigmoid|output"
_OF_CLASS = f"{_QUANTITY}|her|class|status|label|group|expression|expressing|expressor|risk"
_LIKE_NEGATIVE = "low|ultralow|zero|null|no|false|normal|benign|absent|other|rest"
_LIKE_POSITIVE = "high|yes|true|present"
_NEGATIVE_WORDS = r"neg|negati[vf]\w*|négati[vf]\w*"
_POSITIVE_WORDS = r"pos|positi[vf]\w*|amplified|amplification|overexpress\w*"
_MARKERS: Mapping[str, str] = {
    "the oestrogen receptor": r"er|esr 1|o?estrogen",
    "the progesterone receptor": "pr|pg ?r|progesterone",
    "hormone receptors": "hr|hormone receptors?",
    "the androgen receptor": "ar|androgen",
    "Ki-67": "ki 67|mib 1",
    "PD-L1": "pd l 1|pdl 1|cps|tps",
    "another gene": "t?p 53|brca|brca [12]|egfr|pik 3 ca|msi|tmb",
    "the subtype or grade": "luminal|basal|pam 50|grade|nottingham",
    "lymphocytes": "s?tils?",
    "tumour": f"(?:tumou?r|cancer|malignan\\w+) (?:{_QUANTITY}|fraction|content|share|purity|cellularity)",
    "the course of the disease": "recurrence|relapse|survival|pcr|oncotype|odx",
}
_MEASURES: Mapping[str, str] = {
    "uncertainty": r"uncertain\w*|entropy|variance|var|std|stdev|sd|deviation",
    "the confidence in the class that was called": "confidence|confidences|conf|certainty",
    "something else": "loss|ood|outlier|quality|age|runtime|seconds|mpp",
}
"""Words of headings by what a column of them is of: markers count where HER2 is not named, measures always."""

_POSITIVE = frozenset({"positive", "pos", "1", "true", "yes", "her2positive", "her2pos", "her2"})
_NEGATIVE = frozenset({"negative", "neg", "0", "false", "no", "her2negative", "her2neg"})
_HALF = 0.5
_FEWEST_CONTRADICTIONS = 3


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
        ManifestError: It cannot be used.
    """
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
    rows = _one_row_each(table, found, names["score"])
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
    scale = _scale(path, names["score"], values, _stated_scale(rows.values(), names["score"], reading))
    _refuse_confidence(path, {name: rows[name] for name in known}, values, names, scale)
    cut, calls, decided = _decisions(path, {name: rows[name] for name in known}, values, names, reading, scale)
    share = _to_share(scale, values, cut)
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
    read_as = f"{path.name}: {found.level}s in {found.column!r}, {kind} in {names['score']!r}"
    run = RunFolder(path, RunDescription(), predictions, failures)
    return Predictions(
        run, cut, found.level, scale != "any", (f"{read_as}; {decided}.", *(f"{path.name}: {n}." for n in table.notes))
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
    if _heading(score).is_negative:
        score = group.get("1", score)
    if _heading(score).is_negative:
        raise EvaluationError(
            f"{table.path}: {score!r} is of the negative class by its name; add the probability of HER2-positive, or "
            "name the scores by --score-column"
        )
    if other := _heading(score).taken_for:
        raise EvaluationError(
            f"{table.path}: {score!r} is taken for {other} by its name, not for the probability of HER2-positive; if "
            "it is the score all the same, name it by --score-column"
        )
    return score


@dataclass(frozen=True, slots=True)
class _Heading:
    """Heading of a column of scores.

    Attributes:
        words: Its words in lower case, with "her" for HER2, and positive or negative for all words of these classes.
        named: Class: 0 negative, 1 positive, another digit, or an IHC score such as 1+; None where none is named.
        stem: The words without the class.
    """

    words: str
    named: str | None
    stem: str

    @property
    def is_negative(self) -> bool:
        """True if the score is higher for HER2-negative by its heading."""
        return self.named in ("0", "1+")

    @property
    def taken_for(self) -> str | None:
        """Something other than HER2, in words; None where nothing speaks for it."""
        kinds = {**({} if re.search(r"\bher\b", self.words) else _MARKERS), **_MEASURES}
        found = next((kind for kind, words in kinds.items() if re.search(rf"\b(?:{words})\b", self.words)), None)
        return None if found == "the confidence in the class that was called" and self.named == "1" else found


def _heading(column: str) -> _Heading:
    """Read a heading as people write it, such as P(HER2-), non_amplified_prob or class_0."""
    text, is_complement = _plain(column)
    words = _with_classes(" ".join(re.findall(r"[^\W\d_]+|\d+", text)))
    digit = re.search(r"\b(?:class|label|y) (\d)\b|(?<!\S)(\d)$|^(\d) (?=[^\W\d])", words)
    if found := re.search(r"\b(?:negative|positive)\b", words):
        named: str | None = {"negative": "0", "positive": "1"}[found[0]]
        stem = re.sub(r"\b(?:negative|positive)\b", "", words)
    elif found := re.search(r"\bihc(one|two|three)\b", words):
        named, stem = {"one": "1+", "two": "2+", "three": "3+"}[found[1]], words.replace(found[0], "")
    elif digit:
        at = next(k for k, part in enumerate(digit.groups(), start=1) if part)
        named, stem = digit[at], words[: digit.start(at)] + words[digit.end(at) :]
    else:
        named, stem = None, words
    if is_complement:
        named = "1" if named in ("0", "1+") else "0"
    return _Heading(words, named, " ".join(stem.split()))


def _plain(column: str) -> tuple[str, bool]:
    """A heading in lower case, its signs of classes in words; True for "1 - ..." of something."""
    text = re.sub("[\u2010-\u2015\u2212]", "-", unicodedata.normalize("NFKC", column))
    text = re.sub(r"(?<![A-Za-z])(?:Pr(?![A-Za-z])|pr(?=\())", "p", text)  # not the progesterone receptor
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).casefold()
    her2 = r"(?:her[\s_-]?2(?!\d)|c?-?erb[\s_-]?b[\s_-]?2)(?:[\s_/-]*neu\b)?"
    text = re.sub(rf"(?<![^\W\d_])({_QUANTITY}|non|not)?{her2}", lambda m: f"{m[1]} her#" if m[1] else "her#", text)
    less = re.match(r"\W*1\s*-\s*(?=[^\W\d_]|\()", text)
    text = text[less.end() :] if less else text
    for digit, word in (("1", "one"), ("2", "two"), ("3", "three")):
        text = re.sub(rf"(?<!\d){digit}\+", f" ihc{word} ", text)
    for sign, word in (("-", "negative"), (r"\+", "positive")):
        ends = rf"{sign}(?=\s*[)\]}}]|[\s_]*$|_)|(?<=[\w#)]){sign}(?=\s)"
        text = re.sub(rf"{sign}ve\b|{ends}" + (r"|(?<=#)\+" if word == "positive" else ""), f" {word} ", text)
    return text, less is not None


def _with_classes(words: str) -> str:
    """Words of a heading, those of the two classes as "negative" and "positive"."""
    classes = f"{_NEGATIVE_WORDS}|{_POSITIVE_WORDS}"
    words = re.sub(rf"\b(non|un|not)({classes})\b", r"\1 \2", words)
    known = f"{classes}|{_LIKE_NEGATIVE}|{_LIKE_POSITIVE}|er|pgr|confidence|uncertainty|entropy"
    words = re.sub(rf"\b({_QUANTITY})({known})\b", r"\1 \2", words)
    words = re.sub(rf"\b({known})({_QUANTITY})\b", r"\1 \2", words)
    for opposite, some, like in (
        ("positive", _NEGATIVE_WORDS, _LIKE_NEGATIVE),
        ("negative", _POSITIVE_WORDS, _LIKE_POSITIVE),
    ):
        word = {"positive": "negative", "negative": "positive"}[opposite]
        words = re.sub(rf"\b(?:non|un|not|no|without) (her )?(?:{some})\b", rf"\1class-{opposite}", words)
        words = re.sub(rf"\b({_OF_CLASS}) (?:{like})\b", rf"\1 class-{word}", words)
        words = re.sub(rf"\b(?:{like}) ({_OF_CLASS})\b|^(?:{like})$", rf"class-{word} \1", words)
        words = re.sub(rf"(?<!-)\b(?:{some})\b", f"class-{word}", words)
    words = re.sub(r"\b(?:non|not) her\b", "her class-negative", words)
    return " ".join(words.replace("class-", "").split())


def _classes(columns: Sequence[str]) -> list[dict[str, str]]:
    """Columns that differ in the name of a class only, each set by class: 0 negative, 1 positive, or more."""
    groups: dict[str, dict[str, str]] = {}
    for column in columns:
        heading = _heading(column)
        if heading.named is not None:
            groups.setdefault(heading.stem, {})[heading.named] = column
    return list(groups.values())


def _sum_to_one(table: Table, group: Mapping[str, str]) -> bool:
    """True if the two columns of a group are a probability and what is left of 1, or of 100 %."""
    rows = [[_number(row.text(column)) for column in group.values()] for row in table.rows]
    sums = np.array([first + second for first, second in rows if first is not None and second is not None])
    return any(np.allclose(sums, whole, rtol=0, atol=whole / 100) for whole in (1.0, 100.0))


def _number(text: str) -> float | None:
    """The number in a cell, with a sign of per cent or not; None where it is blank.

    Raises:
        ValueError: It holds something else.
    """
    return None if is_blank(text) else parse_number(text.removesuffix("%"))


def _is_score(table: Table, column: str) -> bool:
    """True if a column holds numbers, and others than a few classes."""
    texts = {text for row in table.rows if not is_blank(text := row.text(column))}
    try:
        return len({_number(text) for text in texts}) > min(4, len(table.rows) // 2)
    except ValueError:
        return False


def _one_row_each(table: Table, found: FoundRows, column: str) -> dict[str, TableRow]:
    """The only row of each slide.

    Raises:
        EvaluationError: A slide or patient has several scores.
    """
    for rows in found.rows.values():
        if others := [row for row in rows if row.text(column) != rows[0].text(column)]:
            raise EvaluationError(
                f"{table.path}: {found.level} {quoted(rows[0].text(found.column))} has several scores (lines "
                f"{rows[0].line} and {others[0].line}); keep one row of each"
            )
    return {slide_id: rows[0] for slide_id, rows in found.rows.items()}


def _score(path: Path, row: TableRow, column: str) -> float | None:
    """A row's score; None where it is blank.

    Raises:
        EvaluationError: It is no number.
    """
    try:
        return _number(row.text(column))
    except ValueError as error:
        raise EvaluationError(
            f"{path}, line {row.line}: {column}: {error}; name the scores by --score-column"
        ) from None


def _stated_scale(rows: Iterable[TableRow], column: str, reading: ScoreReading) -> Scale:
    """The scale that the user names, or that the column does: by signs of per cent, or a heading of logits."""
    if reading.scale != "auto":
        return reading.scale
    if any(row.text(column).endswith("%") for row in rows):
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


def _decisions(
    path: Path,
    rows: Mapping[str, TableRow],
    values: NDArray[np.float64],
    names: Mapping[str, str],
    reading: ScoreReading,
    scale: Scale,
) -> tuple[float, NDArray[np.bool_], str]:
    """Threshold on the score, decisions, and where they are from in words.

    Raises:
        EvaluationError: A decision or threshold of the table makes no sense, or there is none.
    """
    cut, origin = reading.threshold, "the threshold that was given"
    if cut is None and "threshold" in names:
        found = {_threshold(path, row, names["threshold"], scale) for row in rows.values()}
        if len(found) > 1:
            raise EvaluationError(f"{path}: {names['threshold']!r} holds {len(found)} thresholds; pass --threshold")
        cut, origin = found.pop(), f"the threshold in {names['threshold']!r}"
    if cut is None and "call" in names:
        calls = np.array([_call(path, row, names["call"]) for row in rows.values()])
        cut = _threshold_of(values, calls)
        against = int(((values >= cut) != calls).sum())
        unlike = f", {against} of which no threshold of the score explains" if against else ""
        return cut, calls, f"decisions in {names['call']!r}{unlike}"
    if cut is None:
        if scale == "any":
            raise EvaluationError(f"{path}: scores of any scale need --threshold, or decisions (--call-column)")
        cut, origin = {"percent": 50.0, "logit": 0.0}.get(scale, _HALF), "the probability 0.5, as no other was given"
    return cut, values >= cut, f"called positive from {cut:g} on, {origin}"


def _refuse_confidence(
    path: Path, rows: Mapping[str, TableRow], values: NDArray[np.float64], names: Mapping[str, str], scale: Scale
) -> None:
    """Refuse the probability of the class that was called: at least one half everywhere, and not by the decisions.

    At least 3 decisions are then against every threshold, and a tenth of all or half of the rarer ones.

    Raises:
        EvaluationError: The scores are of that kind.
    """
    highest = next((top for top in (1.0, 100.0) if values.max() <= top), np.nan)
    half = {"probability": _HALF, "percent": 50.0, "logit": 0.0}.get(scale, highest / 2)
    if "call" not in names or not (values >= half).all():
        return
    try:
        calls = np.array([_call(path, row, names["call"]) for row in rows.values()])
    except EvaluationError:
        return  # no decisions: who needs them refuses them
    positive = int(calls.sum())
    against = min(positive, int(((values >= _threshold_of(values, calls)) != calls).sum()))
    many = min(len(calls) / 10, min(positive, len(calls) - positive) / 2)
    if against >= max(_FEWEST_CONTRADICTIONS, many):
        raise EvaluationError(
            f"{path}: {names['score']!r} looks like the score of the class that was called: it is at least {half:g} "
            f"everywhere, and no threshold of it explains {against} of the {len(calls)} decisions in "
            f"{names['call']!r}; give the probability of HER2-positive (1 - it for those called negative), or name "
            "another column by --score-column"
        )


def _threshold(path: Path, row: TableRow, column: str, scale: Scale) -> float:
    """A row's threshold, on the scale of the scores.

    Raises:
        EvaluationError: It is blank, or no number.
    """
    try:
        found = _number(row.text(column))
    except ValueError as error:
        raise EvaluationError(f"{path}, line {row.line}: {column}: {error}; pass --threshold") from None
    if found is None:
        raise EvaluationError(f"{path}, line {row.line}: {column}: holds no threshold; pass --threshold")
    return found / 100 if scale == "probability" and row.text(column).endswith("%") else found


def _call(path: Path, row: TableRow, column: str) -> bool:
    word = bare_name(row.text(column).removesuffix(".0"))
    if word == "her2" and _heading(row.text(column)).is_negative:  # "HER2-"
        return False
    if word in _POSITIVE | _NEGATIVE:
        return word in _POSITIVE
    raise EvaluationError(
        f"{path}, line {row.line}: {column}: {quoted(row.text(column))} is no decision; use positive and negative, or "
        "pass --threshold"
    )


def _threshold_of(values: NDArray[np.float64], calls: NDArray[np.bool_]) -> float:
    """The score from which on most decisions are positive and below which most are negative."""
    order = np.argsort(values, kind="stable")
    wrong = np.append(0, np.cumsum(np.where(calls[order], 1, -1)))  # less the negatives in all: of each cut
    starts = np.flatnonzero(np.append(True, np.diff(values[order]) > 0))
    return float(values[order][starts[np.argmin(wrong[starts])]])


def _to_share(
    scale: Scale, values: NDArray[np.float64], cut: float
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Function from scores to numbers in [0, 1] of the same order."""
    spread = float(values.std()) or 1.0
    ways: Mapping[Scale, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "probability": lambda x: x,
        "percent": lambda x: x / 100,
        "logit": lambda x: np.asarray(expit(x)),
        "any": lambda x: np.asarray(expit((x - cut) / spread)),
    }
    return ways[scale]


def _ihc(row: TableRow, names: Mapping[str, str]) -> IhcScore | None:
    """The predicted IHC score; None where there is none that can be read."""
    try:
        return parse_ihc(row.text(names.get("ihc")))
    except ValueError:
        return None
