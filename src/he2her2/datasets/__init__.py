"""Public cohorts, from their own tables and slides to a manifest; and sets of labelled patches."""

from he2her2.datasets.cohort_labels import CohortLabels, write_conflicts, write_labels
from he2her2.datasets.her2sc import HER2SC_COLUMNS, her2sc_slide_namer, read_her2sc
from he2her2.datasets.herohe import HEROHE_COLUMNS, herohe_slide_name, read_herohe
from he2her2.datasets.patch_sets import PatchSet, open_patch_set, read_patch_set
from he2her2.datasets.slide_files import SlideName, match_slides
from he2her2.datasets.tcga_brca import read_tcga_brca, tcga_slide_name
from he2her2.datasets.tcga_fields import TCGA_COLUMNS

__all__ = [
    "HER2SC_COLUMNS",
    "HEROHE_COLUMNS",
    "TCGA_COLUMNS",
    "CohortLabels",
    "PatchSet",
    "SlideName",
    "her2sc_slide_namer",
    "herohe_slide_name",
    "match_slides",
    "open_patch_set",
    "read_her2sc",
    "read_herohe",
    "read_patch_set",
    "read_tcga_brca",
    "tcga_slide_name",
    "write_conflicts",
    "write_labels",
]
