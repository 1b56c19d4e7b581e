"""Results of in situ hybridisation: counted signals, or the result that a report states."""

import math
import re
import unicodedata
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TypeAlias

from he2her2.errors import quoted
from he2her2.labels.scores import EQUIVOCAL_WORD, NEGATIVE_WORD, POSITIVE_WORD
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
    def alone(self) -> IshResult | None:
        """The result that the counts have whatever the IHC is; None where it depends on that, or a count is missing."""
        if self.group is None:
            found = self.single_probe_result
            return None if found is IshResult.EQUIVOCAL else found
        return {IshGroup.GROUP_1: IshResult.POSITIVE, IshGroup.GROUP_5: IshResult.NEGATIVE}.get(self.group)

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

CEP17_PER_CELL = (0.8, 10.0)
"""Signals of chromosome 17 per nucleus that tumours have on cut sections: in TCGA-BRCA 1.0 to 5.0."""

_MOST = 1000
_SAME_RATIO = 0.15  # share by which a ratio may differ from copies by CEP17, all three being rounded
_AMPLIFIED_RATIO = 2.0
_RAISED_COPIES = 4.0
_POSITIVE_COPIES = 6.0
_WORDS = re.compile(
    rf"(?P<positive>{POSITIVE_WORD}(?:\s*\(amplified\))?|(?:her2[\s-]*)?amplified|amplifiziert|amplifi[ée])|"
    rf"(?P<negative>{NEGATIVE_WORD}(?:\s*\(not amplified\))?|"
    r"(?:her2[\s-]*)?(?:not?|non|un)[\s-]*amplified|no amplification|"
    rf"nicht[\s-]*amplifiziert|non[\s-]*amplifi[ée])|(?P<equivocal>{EQUIVOCAL_WORD})"
)
_NUMBER = r"\s*[:=]?\s*([0-9](?:,(?=[0-9])|[0-9.e+-])*)"
_COUNTS = re.compile(rf"(?:ratio{_NUMBER})?[\s,;]*(?:copies{_NUMBER})?")


def counts_of(ratio: float | None, copies: float | None, cep17: float | None = None) -> IshCounts:
    """The counts of a report; where it gives no ratio, that of HER2 copies to CEP17 signals per cell.

    Raises:
        ValueError: Neither ratio nor copies are given, or one is no number from 0 to 1000.

    Example:
        >>> counts_of(None, 4.5, 1.5)
        IshCounts(ratio=3.0, copies=4.5)
    """
    if ratio is None and copies is not None and cep17:
        ratio = round(copies / cep17, 6)
    return IshCounts(ratio, copies)


def doubt_about(counts: IshCounts, cep17: float | None = None) -> str:
    """Reason to doubt that counts are what they are called; empty where they go together.

    Args:
        counts: HER2/CEP17 ratio and HER2 copies per cell.
        cep17: CEP17 signals per cell, where they are reported.

    Example:
        >>> doubt_about(IshCounts(1.9, 5.2)), doubt_about(IshCounts(5.2, 1.9))[:46]
        ('', 'ratio 5.2 copies 1.9 are 0.37 CEP17 signals a ')
    """
    ratio, copies = counts.ratio, counts.copies
    if 0 in (ratio, copies):
        return f"{counts}: every cell has copies of HER2, so a 0 counts nothing; was ISH done?"
    if ratio is None or copies is None:
        return ""
    least, most = CEP17_PER_CELL
    signals = copies / ratio
    if cep17 is not None and abs(ratio * cep17 - copies) > _SAME_RATIO * max(ratio * cep17, copies):
        return f"{counts} do not go with {cep17:g} CEP17 signals a cell: {copies:g} / {cep17:g} is no {ratio:g}"
    if least <= signals <= most:
        return ""
    asked = "are ratio and copies swapped" if signals < least else "are the copies a total of all counted cells"
    return f"{counts} are {signals:.2g} CEP17 signals a cell, where tumours have {least:g} to {most:g}; {asked}?"


def border_doubt(counts: IshCounts, cep17: float | None) -> str:
    """Doubt about an ISH group: the ratio, rounded, lies on one side of 2.0, copies by CEP17 on the other.

    Args:
        counts: HER2/CEP17 ratio and HER2 copies per cell.
        cep17: CEP17 signals per cell, where they are reported.

    Example:
        >>> border_doubt(IshCounts(2.0, 5.9), 3.0)
        'ratio 2.0 copies 5.9 are ISH group 1, but 5.9 / 3 = 1.97 is of group 4'
    """
    if counts.group is None or counts.copies is None or not cep17:
        return ""
    ratio = round(counts.copies / cep17, 6)
    group = _ish_group(ratio, counts.copies)
    if group == counts.group:
        return ""
    found = f"{counts.copies:g} / {cep17:g} = {ratio:.3g} is of group {group.value}"
    return f"{counts} are ISH group {counts.group.value}, but {found}"


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
        >>> parse_ish("Positive"), parse_ish("not amplified")
        (<IshResult.POSITIVE: 'positive'>, <IshResult.NEGATIVE: 'negative'>)
        >>> parse_ish("ratio 2.3 copies 4.5")
        IshCounts(ratio=2.3, copies=4.5)
    """
    word = unicodedata.normalize("NFC", text).strip().lower()
    if stated := _WORDS.fullmatch(word):
        return IshResult(str(stated.lastgroup))
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
