"""Which annotation file belongs to which slide."""

from pathlib import Path

from he2her2.errors import AnnotationError, SlideError
from he2her2.preprocessing.annotations import Region, in_slide_frame, read_annotations
from he2her2.slides import Slide

_ENDINGS = (".geojson", ".json", ".xml", ".session.xml")


class MissingAnnotationError(SlideError):
    """The slide's regions were asked for and cannot be had."""

    stage = "annotations"


def annotation_file(slide_id: str, annotations: Path | None) -> Path | None:
    """The file given, or the file of the slide's name in the folder given, which may be missing."""
    if annotations is None or not annotations.is_dir():
        return annotations
    candidates = [annotations / f"{slide_id}{ending}" for ending in _ENDINGS]
    return next((file for file in candidates if file.exists()), candidates[0])


def regions_for(slide: Slide, annotations: Path | None) -> tuple[Region, ...]:
    """A slide's annotated regions, in its frame.

    Raises:
        MissingAnnotationError: No such file, or it cannot be used.
    """
    file = annotation_file(slide.slide_id, annotations)
    if file is None:
        return ()
    try:
        return in_slide_frame(read_annotations(file), file, slide.bounds_origin_l0)
    except AnnotationError as error:
        remedy = "give its regions, or leave --annotations out"
        raise MissingAnnotationError(slide.slide_id, str(error), remedy) from error
