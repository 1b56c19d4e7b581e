"""Which annotation file belongs to which slide."""

from dataclasses import replace
from pathlib import Path

from shapely.affinity import translate

from he2her2.errors import AnnotationError, SlideError
from he2her2.preprocessing.annotations import Region, read_annotations
from he2her2.slides import Slide

_ENDINGS = (".geojson", ".json", ".xml", ".session.xml")


class MissingAnnotationError(SlideError):
    """The slide's regions were asked for and cannot be had."""

    stage = "annotations"


def regions_for(slide: Slide, annotations: Path | None) -> tuple[Region, ...]:
    """A slide's annotated regions: from the file given, or from the file of the slide's name in the folder given.

    QuPath counts from the scanned part's corner where a format has one (MRXS); its regions are moved accordingly.

    Raises:
        MissingAnnotationError: No such file, or it cannot be used.
    """
    if annotations is None:
        return ()
    file = annotations
    if annotations.is_dir():
        candidates = [annotations / f"{slide.slide_id}{ending}" for ending in _ENDINGS]
        file = next((c for c in candidates if c.exists()), candidates[0])
    try:
        regions = read_annotations(file)
    except AnnotationError as error:
        raise MissingAnnotationError(
            slide.slide_id, str(error), "give its regions, or leave --annotations out"
        ) from error
    if file.suffix.lower() == ".xml":
        return regions
    return tuple(replace(region, polygon=translate(region.polygon, *slide.bounds_origin_l0)) for region in regions)
