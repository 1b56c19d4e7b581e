"""Synthetic slides with known truth. Phantoms test the software and say nothing about patients."""

from he2her2.phantom.cohort import CohortSpec, PhantomSlide, load_cohort, write_cohort
from he2her2.phantom.painting import Window
from he2her2.phantom.pyramid import BLOCK_PX, TILE_PX, EncodedBlock, write_pyramid
from he2her2.phantom.slide import Painter, write_phantom
from he2her2.phantom.spec import PhantomSpec, make_spec
from he2her2.phantom.truth import PhantomTruth, save_truth

__all__ = [
    "BLOCK_PX",
    "TILE_PX",
    "CohortSpec",
    "EncodedBlock",
    "Painter",
    "PhantomSlide",
    "PhantomSpec",
    "PhantomTruth",
    "Window",
    "load_cohort",
    "make_spec",
    "save_truth",
    "write_cohort",
    "write_phantom",
    "write_pyramid",
]
