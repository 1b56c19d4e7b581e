"""Training of the tumour CNN on annotated slides or patches (paper, 3.1.2)."""

from he2her2.training.tumour.data import TumourData

__all__ = ["TumourData"]
