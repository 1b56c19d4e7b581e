"""Phantoms: synthetic slides whose truth is known. They prove the machinery, never the medicine."""

from he2her2.phantom.slide import write_phantom
from he2her2.phantom.spec import PhantomSpec, make_spec
from he2her2.phantom.truth import PhantomTruth, save_truth

__all__ = ["PhantomSpec", "PhantomTruth", "make_spec", "save_truth", "write_phantom"]
