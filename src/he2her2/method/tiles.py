"""Tiles of one slide: cut from its tumour, scored by the tile CNN (paper, 3.1 and 3.2)."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Runtime, Selection, Tiling
from he2her2.errors import DamagedSlideError, TilingError
from he2her2.geometry import Mask, TileGrid
from he2her2.method.inference import Scored, encode, infer
from he2her2.method.raster import native_mpp, tile_side_mask
from he2her2.method.segmentation import Segmentation
from he2her2.models import Encoder, Engine, InputSpec
from he2her2.preprocessing import CutTiles, TooFewTilesError, cut_tiles
from he2her2.slides import Slide
from he2her2.timing import Watch

_MAX_UNREADABLE_SHARE = 0.01


def cut_region(
    slide: Slide, segmentation: Segmentation, region: Mask, tile: InputSpec, tiling: Tiling, min_tiles: int = 1
) -> CutTiles:
    """Cut a region of a slide into the tiles of a network, with overlap where it would hold fewer than `min_tiles`.

    Args:
        slide: The slide.
        segmentation: Gives the scale of the region.
        region: (h, w) mask.
        tile: Input of the network.
        tiling: The settings.
        min_tiles: Overlap tiles until there are so many.

    Raises:
        TooFewTilesError: Too small even for the densest overlap.
    """
    return cut_tiles(
        region,
        slide.size_l0,
        px_l0=segmentation.px_l0,
        side_mask=tile_side_mask(tile, tiling),
        side_px=tile.side_px,
        mpp=segmentation.px_mpp / tiling.mask_downsample,
        min_tiles=min_tiles,
    )


def cut_tumour(
    slide: Slide,
    segmentation: Segmentation,
    tile: InputSpec,
    tiling: Tiling,
    selection: Selection | None,
    *,
    n_tiles_fixed: bool = False,
) -> CutTiles:
    """Cut the tumour into tiles, with overlap where it is small.

    Args:
        slide: The slide.
        segmentation: Its tumour.
        tile: Input of the tile CNN.
        tiling: The settings.
        selection: Needs a number of tiles; None of an aggregator that takes a tumour of any size.
        n_tiles_fixed: The aggregator's weights need `selection.n_tiles` tiles; it is no use to advise fewer.

    Raises:
        TilingError: Too small even for the densest overlap.
    """
    try:
        return cut_region(slide, segmentation, segmentation.tumour, tile, tiling, tiling.least_tiles(selection))
    except TooFewTilesError as error:
        area = segmentation.area_mm2(segmentation.tumour)
        found = f"{area:.2f} mm² of tumour hold {error.found} tiles at the densest overlap, {error.needed} are needed"
        raise TilingError(
            slide.slide_id, found, _remedy(error.found, tiling, selection, n_tiles_fixed=n_tiles_fixed)
        ) from None


def _remedy(n_found: int, tiling: Tiling, selection: Selection | None, *, n_tiles_fixed: bool) -> str:
    """Remedy for a slide with too few tiles."""
    if selection is None and not tiling.min_tiles:
        return "use a slide with more tumour"
    if selection is None or not n_tiles_fixed:
        deciding = "tiling.min_tiles" if tiling.min_tiles else "selection.n_tiles"
        return f"use a slide with more tumour, or lower {deciding}"
    n_tiles = selection.n_tiles
    if n_found < n_tiles:
        return f"use a slide with more tumour: these weights look at {n_tiles} tiles of every slide, not at fewer"
    return (
        f"use a slide with more tumour, or --set tiling.min_tiles={n_found}: the {n_tiles} tiles that decide are then "
        f"the best {n_tiles / n_found:.0%} of the slide, where these weights were trained on the best "
        f"{selection.top_fraction:.0%}"
    )


def score_tiles(
    slide: Slide, grid: TileGrid, tile_cnn: Engine, runtime: Runtime, n_needed: int, watch: Watch | None = None
) -> Scored:
    """Positions of the readable tiles and their (n, 4) logits.

    Args:
        slide: An open slide.
        grid: Its tiles.
        tile_cnn: Scores them.
        runtime: Threads and batch size.
        n_needed: Tiles that selection needs.
        watch: Observes progress and time.

    Raises:
        DamagedSlideError: More than 1 % of the tiles cannot be decoded, or are blank in the tissue.
    """
    watch = watch or Watch()
    done = partial(_report, watch, len(grid))
    readable, logits = infer(slide, grid, tile_cnn, runtime, done, partial(watch.streamed, "tiles"))
    require_readable(slide, len(readable), len(grid), n_needed)
    return readable, logits


def encode_tiles(
    slide: Slide,
    grid: TileGrid,
    encoder: Encoder,
    tile_cnn: Engine,
    tiling: Tiling,
    runtime: Runtime,
    watch: Watch | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Positions of the readable tiles, their (n, d) features, and the (n, 4) logits of the tile CNN at their centres.

    The features decide; the logits tell the reader what IHC score each tile looks like.

    Args:
        slide: An open slide.
        grid: Tiles of the encoder's size.
        encoder: Gives the features.
        tile_cnn: Scores the square of its own size in the middle of each tile.
        tiling: Scale at which the tile CNN sees the slide.
        runtime: Threads and batch size.
        watch: Observes progress and time.

    Raises:
        DamagedSlideError: More than 1 % of the tiles cannot be decoded, or are blank in the tissue.
    """
    watch = watch or Watch()
    done, spent = partial(_report, watch, 2 * len(grid)), partial(watch.streamed, "tiles")
    encoded, features = encode(slide, grid, encoder, runtime, done, spent)
    tile = tile_cnn.card.input
    mpp = native_mpp(slide, tile, tiling)
    side_l0 = tile.side_px * mpp / slide.mpp
    corners = np.rint(grid.origins_l0 + (grid.side_l0 - side_l0) / 2).astype(np.int64)
    middle = TileGrid(corners, side_l0, tile.side_px, mpp)
    scored, logits = infer(slide, middle, tile_cnn, runtime, lambda n: done(len(grid) + n), spent)
    readable, of_features, of_logits = np.intersect1d(encoded, scored, assume_unique=True, return_indices=True)
    require_readable(slide, len(readable), len(grid), n_needed=1)
    return readable, features[of_features], logits[of_logits]


def _report(watch: Watch, total: int, done: int) -> None:
    watch.progress("tiles", done, total)


def require_readable(slide: Slide, n_readable: int, n: int, n_needed: int = 0, what: str = "tumour tiles") -> None:
    """Raise unless nearly all tiles of a slide can be read.

    Args:
        slide: The slide.
        n_readable: Tiles that can be decoded.
        n: All its tiles.
        n_needed: Tiles that selection needs.
        what: Name of the tiles in a message.

    Raises:
        DamagedSlideError: More than 1 % cannot be decoded, or too few are left.
    """
    if n - n_readable > _MAX_UNREADABLE_SHARE * n or n_readable < n_needed:
        found = f"{n - n_readable} of its {n} {what} cannot be decoded, or are blank where a coarser level shows tissue"
        raise DamagedSlideError(slide.slide_id, found, "copy or scan the file again")
