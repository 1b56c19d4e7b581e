"""Which annotation file belongs to which slide."""

from pathlib import Path

from he2her2.errors import AnnotationError, SlideError
from he2her2.preprocessing.annotations import Region, read_annotations

_ENDINGS = (".geojson", ".json", ".xml", ".session.xml")


class MissingAnnotationError(SlideError):
    """The slide's regions were asked for and cannot be had."""

    stage = "annotations"


def regions_for(slide_id: str, annotations: Path | None) -> tuple[Region, ...]:
    """A slide's annotated regions: from the file given, or from the file of the slide's name in the folder given.

    Raises:
        MissingAnnotationError: No such file, or it cannot be used.
    """
    if annotations is None:
        return ()
    file = annotations
    if annotations.is_dir():
        candidates = [annotations / f"{slide_id}{ending}" for ending in _ENDINGS]
        file = next((c for c in candidates if c.exists()), candidates[0])
    try:
        return read_annotations(file)
    except AnnotationError as error:
        raise MissingAnnotationError(slide_id, str(error), "give its regions, or leave --annotations out") from error
