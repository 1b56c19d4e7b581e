"""Whole-slide images: list, open, inspect and read them, whichever library decodes them."""

from he2her2.slides.blank_tissue import BlankTissue
from he2her2.slides.deep_zoom import DeepZoom, encoded_jpeg, hatched
from he2her2.slides.inspection import LevelReport, SlideReport, inspect_slide
from he2her2.slides.listing import SLIDE_ENDINGS, all_files_of, look_in, slides_in
from he2her2.slides.opening import open_slide
from he2her2.slides.slide import Level, Slide, slide_id_of
from he2her2.slides.stream import TileBatch, TileMapping, map_tiles, stream_tiles

__all__ = [
    "SLIDE_ENDINGS",
    "BlankTissue",
    "DeepZoom",
    "Level",
    "LevelReport",
    "Slide",
    "SlideReport",
    "TileBatch",
    "TileMapping",
    "all_files_of",
    "encoded_jpeg",
    "hatched",
    "inspect_slide",
    "look_in",
    "map_tiles",
    "open_slide",
    "slide_id_of",
    "slides_in",
    "stream_tiles",
]
