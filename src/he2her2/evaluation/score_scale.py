"""Scale of a table's scores: which it is, and the way to numbers in [0, 1] and back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from he2her2.errors import EvaluationError
from he2her2.manifest import TableRow, bare_name, is_blank
from he2her2.rules import DIGITS, combine

Scale: TypeAlias = Literal["probability", "percent", "logit", "any"]

LOGITS = ("logit", "logits")
HIGHEST: Mapping[Scale, float] = {"probability": 1.0, "percent": 100.0}
"""Highest score of the scales that have one; the lowest is 0."""

_SAME_SCORE = 1e-9  # share by which two scores may differ and count as equal
_MOST_EQUAL = 0.1  # of different scores; by chance 0.01 of 20 000 probabilities are equal to another
_SAME_SHARE = 0.5 * 10**-DIGITS  # less than this apart, predictions write the same


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """Scale of scores; inside they are numbers in [0, 1] of the same order, and for the reader what they were.

    All but logits keep their distances, so that the mean over a patient's slides is that of the scores.

    Attributes:
        name: Of the scale.
        lowest: Score that becomes 0; of logits there is none.
        highest: Score that becomes 1; likewise.

    Example:
        >>> scale = ScoreScale.of("any", [-3, 20, 47])
        >>> float(scale.share(20)), scale.score(0.46)
        (0.46, 20.0)
    """

    name: Scale = "probability"
    lowest: float = 0.0
    highest: float = 1.0

    @classmethod
    def of(cls, name: Scale, scores: Iterable[float]) -> "ScoreScale":
        """The scale of some scores; scores of any scale reach from the lowest to the highest of them."""
        ends = [*scores] if name == "any" else (0.0, HIGHEST.get(name, 1.0))
        return cls(name, float(min(ends)), float(max(ends)))

    def joined(self, others: Iterable["ScoreScale"]) -> "ScoreScale":
        """This scale, reaching over those of the same name as well."""
        like = [self, *(other for other in others if other.name == self.name)]
        return replace(self, lowest=min(one.lowest for one in like), highest=max(one.highest for one in like))

    @property
    def is_probability(self) -> bool:
        """False for scores of which only order and threshold count."""
        return self.name != "any"

    @property
    def noun(self) -> str:
        """Word for a number on this scale."""
        return "probability" if self.name == "probability" else "score"

    @property
    def _span(self) -> float:
        return (self.highest - self.lowest) or 1.0

    def share(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Numbers in [0, 1] of scores."""
        found = np.asarray(scores, dtype=np.float64)
        return np.asarray(expit(found) if self.name == "logit" else (found - self.lowest) / self._span)

    def score(self, share: float) -> float:
        """Score of a number in [0, 1]; of 0 and 1 the logits ± 14.5, beyond which predictions write just these.

        Example:
            >>> ScoreScale("logit").score(0.5), round(ScoreScale("logit").score(1.0), 1)
            (0.0, 14.5)
        """
        if self.name == "logit":
            found = logit(share if 0 < share < 1 else min(max(share, _SAME_SHARE), 1 - _SAME_SHARE))
        else:
            found = self.lowest + share * self._span
        return float(f"{found:.12g}")  # without the noise of going there and back


PROBABILITIES = ScoreScale()


def read_scale(
    path: Path, column: str, rows: Iterable[TableRow], values: NDArray[np.float64], asked: Scale | Literal["auto"]
) -> Scale:
    """The scale that the user or the column names, or else that of probabilities; checked against the scores.

    Args:
        path: The table.
        column: Of the scores.
        rows: Its rows.
        values: (n,) their scores.
        asked: The scale that the user names; "auto" leaves it to the column.

    Raises:
        EvaluationError: The scores are not on it, or some have a sign of per cent and others none.
    """
    stated = _stated_by_column(path, rows, column) if asked == "auto" else asked
    scale: Scale = stated or "probability"
    highest = HIGHEST.get(scale)
    if highest is None or ((values >= 0) & (values <= highest)).all():
        return scale
    span = f"{path}: the scores in {column!r} go from {values.min():.12g} to {values.max():.12g}"
    if stated is None:
        raise EvaluationError(
            f"{span}, so they are no probabilities; pass --scale percent, logit, or any with --threshold"
        )
    raise EvaluationError(f"{span}, outside 0 to {highest:g}; pass another --scale")


def _stated_by_column(path: Path, rows: Iterable[TableRow], column: str) -> Scale | None:
    """The scale that a column names: by signs of per cent, or a heading of logits; None where it names none.

    Raises:
        EvaluationError: Some scores have a sign of per cent and others none, which may be shares of 1.
    """
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
    return "logit" if bare_name(column) in LOGITS else None


def refuse_lost_order(path: Path, column: str, scale: ScoreScale, scores: NDArray[np.float64]) -> None:
    """Refuse scores that differ and would count as equal, such as logits of 40 and of 50.

    Raises:
        EvaluationError: There are some.
    """
    ordered = np.sort(scores)
    shares = [combine("mean", share) for share in scale.share(ordered)]
    is_lost = (np.diff(ordered) > _SAME_SCORE * np.abs(ordered[1:])) & (np.diff(shares) <= 0)
    if is_lost.any():
        first = int(np.argmax(is_lost))
        remedy = (
            "pass --scale any with --threshold 0, by which order counts"
            if scale.name == "logit"
            else f"they go from {ordered[0]:g} to {ordered[-1]:g}: leave those blank that stand for a missing score"
        )
        raise EvaluationError(
            f"{path}: {ordered[first]:g} and {ordered[first + 1]:g} in {column!r} would count as equal; {remedy}"
        )


def caution_of_coarse_scores(column: str, scale: ScoreScale, scores: NDArray[np.float64]) -> str:
    """A caution where many scores count as equal once rounded as predictions are; empty where few do.

    So are odds, most of which lie within a millionth of their span from 0, and logits beyond 14.

    Args:
        column: Of the scores.
        scale: Of the scores.
        scores: (n,)
    """
    different = np.unique(scores)
    n_equal = len(different) - len(np.unique(scale.share(different).round(DIGITS)))
    if n_equal <= _MOST_EQUAL * len(different):
        return ""
    return (
        f"CAUTION {n_equal} of the {len(different)} different scores in {column!r} count as equal to another where a "
        f"threshold is chosen: on the scale from 0 to 1 they differ after the {DIGITS}th decimal only; give scores "
        "that are spread evenly, such as logits with --scale any"
    )
