"""Test of a tumour network: on patch sets and annotated slides, beside trivial rivals, and on the shift sheet."""

from he2her2.evaluation.tumour.evaluation import TumourQuestion, evaluate_tumour, is_patch_set
from he2her2.evaluation.tumour.folder import TUMOUR_TEST_FILE, tumour_evaluation_lines, write_tumour_evaluation

__all__ = [
    "TUMOUR_TEST_FILE",
    "TumourQuestion",
    "evaluate_tumour",
    "is_patch_set",
    "tumour_evaluation_lines",
    "write_tumour_evaluation",
]
