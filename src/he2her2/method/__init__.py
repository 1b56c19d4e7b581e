"""The steps of the method on one slide: segmentation, tiles, inference, decision."""

from he2her2.method.appearance import Appearance, tissue_appearance
from he2her2.method.decision import Decision, decide_on
from he2her2.method.ihc import IhcReading, read_ihc
from he2her2.method.inference import encode, infer, pace
from he2her2.method.raster import native_mpp, thumbnail_on_raster
from he2her2.method.segmentation import (
    MASKS,
    Findings,
    Segmentation,
    TissueRule,
    find_tissue,
    segment_slide,
)
from he2her2.method.tiles import (
    cut_region,
    cut_tumour,
    encode_tiles,
    require_readable,
    score_tiles,
)
from he2her2.method.tumour import as_seen, find_tumour, tumour_threshold

__all__ = [
    "MASKS",
    "Appearance",
    "Decision",
    "Findings",
    "IhcReading",
    "Segmentation",
    "TissueRule",
    "as_seen",
    "cut_region",
    "cut_tumour",
    "decide_on",
    "encode",
    "encode_tiles",
    "find_tissue",
    "find_tumour",
    "infer",
    "native_mpp",
    "pace",
    "read_ihc",
    "require_readable",
    "score_tiles",
    "segment_slide",
    "thumbnail_on_raster",
    "tissue_appearance",
    "tumour_threshold",
]
