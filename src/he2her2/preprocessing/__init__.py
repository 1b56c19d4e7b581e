"""Pure arrays: tissue, quality, stain, the adaptive map, tiles, and annotations as masks."""

from he2her2.preprocessing.adaptive import AdaptiveMap, adaptive_map
from he2her2.preprocessing.alignment import SECTION_PX, align_sections
from he2her2.preprocessing.annotations import (
    Annotation,
    DrawnRegions,
    PaintedMask,
    Region,
    read_annotation,
    use_of_words,
)
from he2her2.preprocessing.blocks import Blocks, share_blocks
from he2her2.preprocessing.ihc import Staining, staining, unlike_dab, usual_light
from he2her2.preprocessing.quality import (
    Sharpness,
    blur_mask,
    out_of_focus,
    pen_mask,
    quality_shares,
    sharpness,
    smear_mask,
)
from he2her2.preprocessing.shift_sheet import SHIFT_SHEET, Shift
from he2her2.preprocessing.stain import (
    ColourChange,
    Normalisation,
    normalisation_of,
    optical_density,
    stained_pixels,
)
from he2her2.preprocessing.tiling import CutTiles, TooFewTilesError, coverage, cut_tiles
from he2her2.preprocessing.tissue import tissue_mask, weak_tissue_mask

__all__ = [
    "SECTION_PX",
    "SHIFT_SHEET",
    "AdaptiveMap",
    "Annotation",
    "Blocks",
    "ColourChange",
    "CutTiles",
    "DrawnRegions",
    "Normalisation",
    "PaintedMask",
    "Region",
    "Sharpness",
    "Shift",
    "Staining",
    "TooFewTilesError",
    "adaptive_map",
    "align_sections",
    "blur_mask",
    "coverage",
    "cut_tiles",
    "normalisation_of",
    "optical_density",
    "out_of_focus",
    "pen_mask",
    "quality_shares",
    "read_annotation",
    "share_blocks",
    "sharpness",
    "smear_mask",
    "stained_pixels",
    "staining",
    "tissue_mask",
    "unlike_dab",
    "use_of_words",
    "usual_light",
    "weak_tissue_mask",
]
