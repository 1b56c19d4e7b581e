"""The tiles of one slide: cut from its tumour, scored by the tile CNN (paper, 3.1 and 3.2)."""

from functools import partial

from he2her2.config import Config
from he2her2.errors import DamagedSlideError, TilingError
from he2her2.geometry import TileGrid
from he2her2.method.inference import Scored, infer
from he2her2.method.raster import tile_side_mask
from he2her2.method.segmentation import Segmentation
from he2her2.models.engines import Engine
from he2her2.models.zoo import InputSpec
from he2her2.preprocessing.tiling import Tiling, TooFewTilesError, cut_tiles
from he2her2.slides import Slide
from he2her2.timing import Progress, Watch, silent

MAX_UNREADABLE_SHARE = 0.01


def cut(slide: Slide, segmentation: Segmentation, tile: InputSpec, config: Config) -> Tiling:
    """Cut the tumour into tiles, with overlap where it is small.

    Raises:
        TilingError: Too small even for the densest overlap.
    """
    try:
        return cut_tiles(
            segmentation.tumour,
            slide.size_l0,
            px_l0=segmentation.px_l0,
            side_mask=tile_side_mask(tile, config),
            side_px=tile.side_px,
            mpp=segmentation.px_mpp / config.tiling.mask_downsample,
            min_tiles=config.min_tiles,
        )
    except TooFewTilesError as error:
        area = segmentation.area_mm2(segmentation.tumour)
        found = f"{area:.2f} mm² of tumour hold {error.found} tiles at the densest overlap, {error.needed} are needed"
        deciding = "tiling.min_tiles" if config.tiling.min_tiles else "selection.n_tiles"
        raise TilingError(slide.slide_id, found, f"use a slide with more tumour, or lower {deciding}") from None


def score_tiles(
    slide: Slide,
    grid: TileGrid,
    tile_cnn: Engine,
    config: Config,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Scored:
    """Positions of the readable tiles and their (n, 4) logits.

    Raises:
        DamagedSlideError: More than 1 % of the tiles cannot be decoded.
    """
    watch = watch or Watch()
    readable, logits = infer(
        slide,
        grid,
        tile_cnn,
        config,
        lambda done: progress("tiles", done, len(grid)),
        partial(watch.streamed, "tiles"),
    )
    require_readable(slide, len(readable), len(grid), config)
    return readable, logits


def require_readable(slide: Slide, n_readable: int, n: int, config: Config) -> None:
    """Refuse a slide of which too much is damaged.

    Raises:
        DamagedSlideError: More than 1 % of the tiles cannot be decoded, or too few are left.
    """
    if n - n_readable > MAX_UNREADABLE_SHARE * n or n_readable < config.selection.n_tiles:
        found = f"{n - n_readable} of its {n} tumour tiles cannot be decoded"
        raise DamagedSlideError(slide.slide_id, found, "copy or scan the file again")
