"""Phantoms: synthetic slides whose truth is known. They prove the machinery, never the medicine."""

from he2her2.phantom.cohort import CohortSpec, PhantomSlide, load_cohort, write_cohort
from he2her2.phantom.slide import write_phantom
from he2her2.phantom.spec import PhantomSpec, make_spec
from he2her2.phantom.truth import PhantomTruth, save_truth

__all__ = [
    "CohortSpec",
    "PhantomSlide",
    "PhantomSpec",
    "PhantomTruth",
    "load_cohort",
    "make_spec",
    "save_truth",
    "write_cohort",
    "write_phantom",
]
