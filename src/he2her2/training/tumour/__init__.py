"""Training of the tumour CNN on annotated slides or patches (paper, 3.1.2)."""

from he2her2.training.tumour.data import TumourData
from he2her2.training.tumour.patch_sets import PatchFile

__all__ = ["PatchFile", "TumourData"]
