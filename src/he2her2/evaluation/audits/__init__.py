"""Audits: other explanations of a result, such as shortcuts, sites and unstable tiles; each ends in one sentence."""

from he2her2.evaluation.audits.audit import Audit, AuditRow, Cell, not_done_without_slides
from he2her2.evaluation.audits.domain import domain_audit
from he2her2.evaluation.audits.shift import shift_audit
from he2her2.evaluation.audits.shortcuts import shortcut_audit
from he2her2.evaluation.audits.sites import SiteResult, sensitivity_specificity, site_audit, site_results
from he2her2.evaluation.audits.stability import SAME_PROBABILITY, seeds_audit
from he2her2.evaluation.audits.subgroups import subgroup_audit
from he2her2.evaluation.audits.tiles import N_SLIDES, redraw_blocks, run_aggregator, tile_audits

__all__ = [
    "N_SLIDES",
    "SAME_PROBABILITY",
    "Audit",
    "AuditRow",
    "Cell",
    "SiteResult",
    "domain_audit",
    "not_done_without_slides",
    "redraw_blocks",
    "run_aggregator",
    "seeds_audit",
    "sensitivity_specificity",
    "shift_audit",
    "shortcut_audit",
    "site_audit",
    "site_results",
    "subgroup_audit",
    "tile_audits",
]
