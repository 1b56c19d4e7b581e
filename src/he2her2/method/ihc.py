"""Reading of one IHC slide: DAB by colour, and an IHC tile CNN beside it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Config
from he2her2.errors import TilingError, TissueError
from he2her2.labels import IhcScore
from he2her2.method.inference import pace
from he2her2.method.segmentation import segment_slide
from he2her2.method.tiles import cut_region, require_readable
from he2her2.models import Engine, soft_argmax
from he2her2.preprocessing import (
    Annotation,
    Staining,
    TooFewTilesError,
    staining,
    unlike_dab,
    usual_light,
    weak_tissue_mask,
)
from he2her2.slides import Slide, TileBatch, map_tiles
from he2her2.units import area_mm2


@dataclass(frozen=True, slots=True)
class IhcReading:
    """Findings on one IHC slide.

    Attributes:
        staining: Of all its tiles together.
        n_tiles: Tiles of tissue that were read.
        tissue_mm2: Usable tissue.
        network_score: Mean IHC score of the tiles by the tile CNN, in [0, 3].
        network_majority: Score of most tiles by the tile CNN.
    """

    staining: Staining
    n_tiles: int
    tissue_mm2: float
    network_score: float
    network_majority: IhcScore


def read_ihc(slide: Slide, tile_cnn: Engine, config: Config, annotation: Annotation | None = None) -> IhcReading:
    """Measure the staining of an IHC slide, and score its tiles.

    Args:
        slide: An open IHC slide.
        tile_cnn: An IHC tile CNN.
        config: Tissue, quality, tiling and runtime are used.
        annotation: Limits the tissue to what was annotated: the tumour.

    Raises:
        SlideError: There is no tissue, it is not stained with DAB and haematoxylin, no tile fits into it, or more than
            1 % of the tiles cannot be decoded.
        AnnotationError: The annotation is a picture of another shape than the slide's.
    """
    tile = tile_cnn.card.input
    found = segment_slide(
        slide, tile, config, tumour_cnn=None, annotation=annotation, tissue_rule=weak_tissue_mask
    )  # tissue by brightness: brown and blue in one px average to grey, which saturation misses
    lit = usual_light(found.thumbnail, found.tissue | found.pen)
    unlike = unlike_dab(lit(found.thumbnail[found.usable]))
    if unlike:
        reason = f"this does not look like DAB and haematoxylin ({unlike})"
        raise TissueError(slide.slide_id, reason, "give an IHC slide, in its own colours")
    mpp = found.px_mpp / config.tiling.mask_downsample
    try:
        cut = cut_region(slide, found, found.tumour, tile, config.tiling)
    except TooFewTilesError:
        reason = f"no tile ({tile.side_px * mpp:.0f} µm) fits into its {found.area_mm2(found.tumour):.2f} mm² of tissue"
        raise TilingError(slide.slide_id, reason, "mark larger regions, or leave the slide out") from None
    grid = cut.grid.take(np.arange(max(1, cut.n_plain)))

    def seen(batch: TileBatch) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        pixels = lit(batch.pixels)
        return staining(pixels, mpp), tile_cnn(pixels)

    parts = list(map_tiles(slide, grid, seen, **pace(config.runtime)))
    n_read = sum(len(logits) for _, logits in parts)
    require_readable(slide, n_read, len(grid), what="tiles")
    brown = np.concatenate([measured for measured, _ in parts]).mean(axis=0)
    logits = np.concatenate([logits for _, logits in parts])
    counts = np.bincount(logits.argmax(axis=1), minlength=len(IhcScore))
    return IhcReading(
        Staining(*brown.tolist()),
        n_read,
        area_mm2(int(np.count_nonzero(found.tumour)), found.px_mpp),
        float(soft_argmax(logits, config.scoring.beta).mean()),
        tuple(IhcScore)[int(counts.argmax())],
    )
