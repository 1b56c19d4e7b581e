"""Annotations of a slide: read from the files of QuPath, ASAP, ImageScope, HALO and Sedeen, rastered as masks.

What each class of a file is used for is decided in `classes`, and nowhere else.
"""

from he2her2.preprocessing.annotations.classes import use_of_words
from he2her2.preprocessing.annotations.masks import DrawnRegions, PaintedMask, Region
from he2her2.preprocessing.annotations.reading import Annotation, read_annotation

__all__ = ["Annotation", "DrawnRegions", "PaintedMask", "Region", "read_annotation", "use_of_words"]
