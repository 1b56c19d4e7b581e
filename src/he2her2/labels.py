"""The two labels of HER2: the IHC score of a slide or tile, and the HER2 status of a patient. Never one int."""

from enum import StrEnum


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


def paper_status(score: IhcScore) -> Her2Status:
    """HER2 status by the paper's policy (section 5.4): an uncertain 2+ counts as positive."""
    return Her2Status.POSITIVE if score in (IhcScore.TWO, IhcScore.THREE) else Her2Status.NEGATIVE
