"""The two labels of HER2: the IHC score of a slide or tile, and the HER2 status of a patient. Never one int."""

import re
import unicodedata
from enum import StrEnum

from he2her2.errors import quoted

_SCORE = re.compile(r"(?:HER2|IHC|SCORE|[\s:])*([0-3])(?:[.,]0+)?\s*\+?")
_OF_TEMPLATE = re.compile(r"(?:NEGATIVE(?=.*[01])|EQUIVOCAL(?=.*2)|POSITIVE(?=.*3))\s*\((SCORE[^()]*)\)")
"""As the College of American Pathologists' template has it: "Negative (Score 1+)"."""

POSITIVE_WORD, NEGATIVE_WORD = r"pos(?:iti(?:v[eoa]?|f)|\.)?", r"n[eé]g(?:ati(?:v[eoa]?|f)|\.)?"
EQUIVOCAL_WORD = "equivocal|[eé]quivoque|equ[ií]voc[oa]|äquivok|borderline"
"""Regular expressions of what clinical tables write, in several languages."""

_STATUS = re.compile(
    rf"(?:her-?2)?[\s:_-]*(?:(?P<positive>{POSITIVE_WORD})|(?P<negative>{NEGATIVE_WORD})|"
    rf"(?P<undetermined>undetermined|ind[eé]termin(?:ate|ad[oa]|at[oa]|ée?)|{EQUIVOCAL_WORD}))"
)


_SIGNED = re.compile(r"her-?2(?:[\s/-]?neu)?\s*(?P<sign>[+\u2010-\u2015\u2212-])(?:\s?ve)?")  # "HER2+"


class IhcScore(StrEnum):
    """HER2 immunohistochemistry score (ASCO/CAP 2018)."""

    ZERO = "0"
    ONE = "1+"
    TWO = "2+"
    THREE = "3+"


class Her2Status(StrEnum):
    """HER2 status of a tumour; `UNDETERMINED` is equivocal IHC without in situ hybridisation."""

    NEGATIVE = "negative"
    POSITIVE = "positive"
    UNDETERMINED = "undetermined"


class Policy(StrEnum):
    """Rules that turn test results into a status.

    Attributes:
        GUIDELINE: ASCO/CAP 2018, affirmed 2023: an equivocal 2+ waits for in situ hybridisation.
        PAPER: As the guideline, but a 2+ that ISH leaves open counts as positive (Oliveira et al. 2020, section 5.4).
    """

    GUIDELINE = "guideline"
    PAPER = "paper"


def parse_ihc(text: str) -> IhcScore:
    """The IHC score that `text` names; the plus may be missing, "3+" may follow "HER2", "IHC" or "Score", and 2.0 is 2.

    Raises:
        ValueError: It names none.

    Example:
        >>> parse_ihc("2"), parse_ihc("Negative (Score 0)")
        (<IhcScore.TWO: '2+'>, <IhcScore.ZERO: '0'>)
    """
    word = unicodedata.normalize("NFKC", text).strip().upper()  # full-width, or a raised plus
    of_template = _OF_TEMPLATE.fullmatch(word)
    found = _SCORE.fullmatch(of_template[1] if of_template else word)
    if found is None:
        raise ValueError(f"{quoted(text.strip())} is no IHC score: use 0, 1+, 2+ or 3+")
    return tuple(IhcScore)[int(found[1])]


def parse_status(text: str) -> Her2Status:
    """The HER2 status that `text` names.

    Raises:
        ValueError: It names none.

    Example:
        >>> parse_status("Positive"), parse_status("HER2-")
        (<Her2Status.POSITIVE: 'positive'>, <Her2Status.NEGATIVE: 'negative'>)
    """
    words = unicodedata.normalize("NFKC", text).strip().lower()
    if signed := _SIGNED.fullmatch(words):
        return Her2Status.POSITIVE if signed["sign"] == "+" else Her2Status.NEGATIVE
    found = _STATUS.fullmatch(words)
    if found is None:
        raise ValueError(f"{quoted(text.strip())} is no HER2 status: use one of {', '.join(Her2Status)}")
    return Her2Status(str(found.lastgroup))
