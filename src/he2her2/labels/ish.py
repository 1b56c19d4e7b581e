"""Results of in situ hybridisation: counted signals, or the result that a report states."""

import math
import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TypeAlias

from he2her2.errors import quoted
from he2her2.units import parse_number


class IshResult(StrEnum):
    """Result that a report states without counts."""

    NEGATIVE = "negative"
    POSITIVE = "positive"
    EQUIVOCAL = "equivocal"


@dataclass(frozen=True, slots=True)
class IshCounts:
    """Mean signals of the counted nuclei.

    Attributes:
        ratio: HER2 to CEP17 signals; None where it was not reported (or a single-probe assay was used).
        copies: HER2 signals per cell; None where they were not reported.

    Raises:
        ValueError: Both are missing, or one is no number from 0 to 1000.
    """

    ratio: float | None
    copies: float | None

    def __post_init__(self) -> None:
        given = [value for value in (self.ratio, self.copies) if value is not None]
        if not given:
            raise ValueError("ISH counts need a ratio, copies per cell, or both")
        for value in given:
            if not (math.isfinite(value) and 0 <= value <= _MOST):
                raise ValueError(f"{value} is no ISH ratio or copy number: give a number from 0 to {_MOST}")

    @property
    def group(self) -> "IshGroup | None":
        """The ISH group; None where the ratio or the copies are missing."""
        return None if self.ratio is None or self.copies is None else _ish_group(self.ratio, self.copies)

    @property
    def possible_groups(self) -> "tuple[IshGroup, ...]":
        """ISH groups that fit the reported counts; all five fit without a ratio."""
        if self.group is not None:
            return (self.group,)
        if self.ratio is None:
            return tuple(IshGroup)
        return tuple(IshGroup)[:2] if self.ratio >= _AMPLIFIED_RATIO else tuple(IshGroup)[2:]

    @property
    def single_probe_result(self) -> IshResult | None:
        """Result of copies without a ratio (ASCO/CAP 2018, single-probe ISH); None where there is a ratio.

        At least 6 copies per cell are positive, fewer than 4 negative; between them dual-probe ISH is needed.
        """
        if self.ratio is not None or self.copies is None:
            return None
        if self.copies >= _POSITIVE_COPIES:
            return IshResult.POSITIVE
        return IshResult.NEGATIVE if self.copies < _RAISED_COPIES else IshResult.EQUIVOCAL

    def __str__(self) -> str:
        parts = (("ratio", self.ratio), ("copies", self.copies))
        return " ".join(f"{name} {value}" for name, value in parts if value is not None)


Ish: TypeAlias = IshResult | IshCounts

_MOST = 1000
_AMPLIFIED_RATIO = 2.0
_RAISED_COPIES = 4.0
_POSITIVE_COPIES = 6.0
_NUMBER = r"\s*[:=]?\s*([0-9](?:,(?=[0-9])|[0-9.e+-])*)"
_COUNTS = re.compile(rf"(?:ratio{_NUMBER})?[\s,;]*(?:copies{_NUMBER})?")


class IshGroup(IntEnum):
    """The five groups of dual-probe ISH (Wolff et al., J Clin Oncol 2018;36:2105, Figure 3).

    | group | HER2/CEP17 ratio | HER2 copies per cell |
    |-------|------------------|----------------------|
    | 1     | >= 2.0           | >= 4.0               |
    | 2     | >= 2.0           | < 4.0                |
    | 3     | < 2.0            | >= 6.0               |
    | 4     | < 2.0            | >= 4.0 and < 6.0     |
    | 5     | < 2.0            | < 4.0                |
    """

    GROUP_1 = 1
    GROUP_2 = 2
    GROUP_3 = 3
    GROUP_4 = 4
    GROUP_5 = 5


def _ish_group(ratio: float, copies: float) -> IshGroup:
    """The ISH group of a dual-probe count.

    Example:
        >>> _ish_group(2.3, 4.5), _ish_group(1.4, 6.0)
        (<IshGroup.GROUP_1: 1>, <IshGroup.GROUP_3: 3>)
    """
    if ratio >= _AMPLIFIED_RATIO:
        return IshGroup.GROUP_1 if copies >= _RAISED_COPIES else IshGroup.GROUP_2
    if copies >= _POSITIVE_COPIES:
        return IshGroup.GROUP_3
    return IshGroup.GROUP_4 if copies >= _RAISED_COPIES else IshGroup.GROUP_5


def parse_ish(text: str) -> Ish:
    """The ISH result that a table's cell states: a word, or counts as `str(IshCounts)` writes them.

    Raises:
        ValueError: It states none.

    Example:
        >>> parse_ish("Positive")
        <IshResult.POSITIVE: 'positive'>
        >>> parse_ish("ratio 2.3 copies 4.5")
        IshCounts(ratio=2.3, copies=4.5)
    """
    word = text.strip().lower()
    if word in tuple(IshResult):
        return IshResult(word)
    counts = _COUNTS.fullmatch(word)
    try:
        if counts and any(counts.groups()):
            ratio, copies = (None if value is None else parse_number(value) for value in counts.groups())
            return IshCounts(ratio, copies)
    except ValueError:
        pass
    raise ValueError(
        f"{quoted(text.strip())} is no ISH result: use positive, negative, equivocal, or counts: ratio 2.3 copies 4.5"
    )
