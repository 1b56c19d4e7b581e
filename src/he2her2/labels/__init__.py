"""Labels of HER2: IHC scores, ISH results, and the status that the guideline derives from them."""

from he2her2.labels.guideline import (
    GuidelineResult,
    Stratum,
    apply_guideline,
    doubt_about_stated,
    settled_ish,
    stratum_of,
)
from he2her2.labels.ish import (
    CEP17_PER_CELL,
    Ish,
    IshCounts,
    IshGroup,
    IshResult,
    border_doubt,
    counts_of,
    doubt_about,
    parse_ish,
)
from he2her2.labels.scores import Her2Status, IhcScore, Policy, parse_ihc, parse_status

__all__ = [
    "CEP17_PER_CELL",
    "GuidelineResult",
    "Her2Status",
    "IhcScore",
    "Ish",
    "IshCounts",
    "IshGroup",
    "IshResult",
    "Policy",
    "Stratum",
    "apply_guideline",
    "border_doubt",
    "counts_of",
    "doubt_about",
    "doubt_about_stated",
    "parse_ihc",
    "parse_ish",
    "parse_status",
    "settled_ish",
    "stratum_of",
]
