"""Annotated regions of a slide, in its own frame."""

from pathlib import Path

from he2her2.preprocessing.annotations import Region, in_slide_frame, read_annotations
from he2her2.slides import Slide


def regions_for(slide: Slide, annotations: Path | None) -> tuple[Region, ...]:
    """The regions of a slide's annotation file; none without a file.

    Raises:
        AnnotationError: No such file, or it cannot be used.
    """
    if annotations is None:
        return ()
    return in_slide_frame(read_annotations(annotations), annotations, slide.bounds_origin_l0)
