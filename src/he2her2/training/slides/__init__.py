"""Training of tile CNN and aggregator on H&E slides with a HER2 status each (paper, 3.3 and 4.3)."""

from he2her2.training.slides.bags import AnnotationsUse, TumourTiler, build_bags
from he2her2.training.slides.data import SlideData, load_texture_encoder, load_tumour_cnn

__all__ = [
    "AnnotationsUse",
    "SlideData",
    "TumourTiler",
    "build_bags",
    "load_texture_encoder",
    "load_tumour_cnn",
]
