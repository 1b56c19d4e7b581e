"""Decisions on a table's scores: its own, or those of a threshold; and scores that are of the class that was called."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import EvaluationError, quoted
from he2her2.evaluation.score_headings import read_heading
from he2her2.evaluation.score_scale import HIGHEST, Scale
from he2her2.manifest import TableRow, bare_name, is_blank
from he2her2.units import parse_number

_POSITIVE = frozenset({"positive", "pos", "1", "true", "yes", "her2positive", "her2pos", "her2"})
_NEGATIVE = frozenset({"negative", "neg", "0", "false", "no", "her2negative", "her2neg"})
_HALF = 0.5
_FEWEST_CONTRADICTIONS = 3


def score_number(text: str) -> float | None:
    """The number in a cell, with a sign of per cent or not; None where it is blank.

    Raises:
        ValueError: It holds something else.
    """
    return None if is_blank(text) else parse_number(text.removesuffix("%"))


def decide(
    path: Path,
    rows: Mapping[str, TableRow],
    values: NDArray[np.float64],
    names: Mapping[str, str],
    given: float | None,
    scale: Scale,
) -> tuple[float, NDArray[np.bool_], str]:
    """Threshold on the score, decisions, and where they are from in words.

    Args:
        path: The table.
        rows: n rows by slide.
        values: (n,) scores.
        names: Columns by field: `call` and `threshold`, where there are such.
        given: The threshold that the user gives; None leaves it to the table.
        scale: Of the scores.

    Raises:
        EvaluationError: A decision or threshold makes no sense, or there is none.
    """
    if given is not None and not math.isfinite(given):
        raise EvaluationError(f"--threshold {given:g} is no number that scores can reach; give one of their scale")
    cut, origin = given, "the threshold that was given"
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
    highest = HIGHEST.get(scale)
    if highest is not None and not 0 <= cut <= highest:
        raise EvaluationError(
            f"{path}: {origin}, {cut:g}, is beyond the scores' scale, 0 to {highest:g}; give one of their scale"
        )
    return cut, values >= cut, f"called positive from {cut:g} on, {origin}"


def refuse_confidence(
    path: Path, rows: Mapping[str, TableRow], values: NDArray[np.float64], names: Mapping[str, str], scale: Scale
) -> None:
    """Refuse the probability of the class that was called: at least one half everywhere, and not by the decisions.

    At least 3 decisions are then against every threshold, and a tenth of all or half of the rarer ones.

    Raises:
        EvaluationError: The scores are of that kind.
    """
    if "call" in names and (found := _like_confidence(path, rows, values, names["call"], scale)):
        raise EvaluationError(
            f"{path}: {names['score']!r} looks like the score of the class that was called: {found}; give the "
            "probability of HER2-positive (1 - it for those called negative), or name another column by --score-column"
        )


def caution_of_confidence(
    path: Path,
    rows: Mapping[str, TableRow],
    values: NDArray[np.float64],
    names: Mapping[str, str],
    columns: Sequence[str],
    scale: Scale,
) -> str:
    """A caution where scores look like those of the class called in a column that is not read as decisions.

    Such a column may hold labels as well, so that it is not refused.

    Args:
        path: The table.
        rows: n rows by slide.
        values: (n,) scores.
        names: Columns by field.
        columns: Of the table.
        scale: Of the scores.

    Returns:
        The caution; empty where there is none, or where decisions are read.
    """
    for column in columns if "call" not in names else ():
        if column not in names.values() and (found := _like_confidence(path, rows, values, column, scale)):
            return (
                f"CAUTION {names['score']!r} may be the score of the class that was called: {found}; if these are the "
                f"tool's decisions, and not labels, name them by --call-column {column!r}"
            )
    return ""


def _like_confidence(
    path: Path, rows: Mapping[str, TableRow], values: NDArray[np.float64], column: str, scale: Scale
) -> str:
    """Signs that scores are of the class that a column calls, in words; empty where there are none."""
    highest = next((top for top in (1.0, 100.0) if values.max() <= top), np.nan)
    half = {"probability": _HALF, "percent": 50.0, "logit": 0.0}.get(scale, highest / 2)
    if not (values >= half).all():
        return ""
    try:
        calls = np.array([_call(path, row, column) for row in rows.values()])
    except EvaluationError:
        return ""  # no decisions: who needs them refuses them
    positive = int(calls.sum())
    against = min(positive, int(((values >= _threshold_of(values, calls)) != calls).sum()))
    many = min(len(calls) / 10, min(positive, len(calls) - positive) / 2)
    if against < max(_FEWEST_CONTRADICTIONS, many):
        return ""
    return (
        f"it is at least {half:g} everywhere, and no threshold of it explains {against} of the {len(calls)} decisions "
        f"in {column!r}"
    )


def _threshold(path: Path, row: TableRow, column: str, scale: Scale) -> float:
    """A row's threshold, on the scale of the scores.

    Raises:
        EvaluationError: It is blank, no number, or on a scale of per cent may be a share of 1.
    """
    try:
        found = score_number(row.text(column))
    except ValueError as error:
        raise EvaluationError(f"{path}, line {row.line}: {column}: {error}; pass --threshold") from None
    if found is None:
        raise EvaluationError(f"{path}, line {row.line}: {column}: holds no threshold; pass --threshold")
    in_per_cent = row.text(column).endswith("%")
    if scale == "percent" and not in_per_cent and found <= 1:
        raise EvaluationError(
            f"{path}, line {row.line}: {column}: {found:g} may be a share of 1, and the scores are in per cent; write "
            "it with a % sign, or pass --threshold in per cent"
        )
    return found / 100 if scale == "probability" and in_per_cent else found


def _call(path: Path, row: TableRow, column: str) -> bool:
    word = bare_name(row.text(column).removesuffix(".0"))
    if word == "her2" and read_heading(row.text(column)).is_negative:  # "HER2-"
        return False
    if word in _POSITIVE | _NEGATIVE:
        return word in _POSITIVE
    raise EvaluationError(
        f"{path}, line {row.line}: {column}: {quoted(row.text(column))} is no decision; use positive and negative, or "
        "pass --threshold"
    )


def _threshold_of(values: NDArray[np.float64], calls: NDArray[np.bool_]) -> float:
    """The score from which on most decisions are positive and below which most are negative; it may be above all.

    Example:
        >>> _threshold_of(np.array([0.7, 0.2]), np.array([True, False]))
        0.7
    """
    order = np.argsort(values, kind="stable")
    wrong = np.append(0, np.cumsum(np.where(calls[order], 1, -1)))  # less the negatives in all: of each cut
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values[order]) > 0, [True]]))
    cuts = np.append(values[order], math.nextafter(float(values.max()), math.inf))
    return float(cuts[starts[np.argmin(wrong[starts])]])
