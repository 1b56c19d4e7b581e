"""HER2's labels: what a test found, and what the guideline makes of it."""

from he2her2.labels.guideline import Decision, Stratum, decide
from he2her2.labels.ish import Ish, IshCounts, IshGroup, IshResult, ish_group, parse_ish
from he2her2.labels.scores import Her2Status, IhcScore, Policy, paper_status, parse_ihc, parse_status

__all__ = [
    "Decision",
    "Her2Status",
    "IhcScore",
    "Ish",
    "IshCounts",
    "IshGroup",
    "IshResult",
    "Policy",
    "Stratum",
    "decide",
    "ish_group",
    "paper_status",
    "parse_ihc",
    "parse_ish",
    "parse_status",
]
