"""The method on one page (Oliveira et al., 2020, section 3): from an open slide to its HER2 status.

`predict` is the method: `segment` finds tissue and invasive tumour, `cut` cuts it into tiles, `decide` scores these and
decides. All are deterministic: threads, batch size and backend never change a result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Config, Tissue
from he2her2.errors import DamagedSlideError, TilingError, TissueError, TumourError
from he2her2.geometry import Mask, Rgb, Size, TileGrid, l0_from_mask, mask_size
from he2her2.inference import Scored, infer, pace
from he2her2.lattice import blocks_with, native_mpp, thumbnail_on_lattice, tile_side_mask
from he2her2.models.decision import Decision, decide_on
from he2her2.models.engines import Engine
from he2her2.models.scoring import softmax
from he2her2.models.slide_model import Aggregator, SlideModel
from he2her2.models.zoo import InputSpec
from he2her2.preprocessing.adaptive import AdaptiveMap, adaptive_map
from he2her2.preprocessing.annotations import Region, regions_mask
from he2her2.preprocessing.quality import blur_mask, pen_mask, sharpness
from he2her2.preprocessing.tiling import Tiling, TooFewTilesError, coverage, cut_tiles
from he2her2.preprocessing.tissue import tissue_mask
from he2her2.slides import Slide
from he2her2.slides.stream import map_tiles
from he2her2.timing import Watch
from he2her2.units import area_mm2

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told the stage's name, how much of it is done and how much there is."""

RegionUse: TypeAlias = Literal["intersect", "replace"]
"""Annotated regions limit the tumour that the network finds, or stand in its place."""

Where: TypeAlias = Callable[[Size, float], Mask]
"""From a raster's size and its level-0 px per pixel to the mask of the annotated regions on it."""

TissueRule: TypeAlias = Callable[[Rgb, Tissue], Mask]
"""From a thumbnail to the mask of its tissue."""

MAX_UNREADABLE_SHARE = 0.01
BLUR_BLOCK_MASK = 16


def silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Where tissue and tumour are; every raster covers the whole slide with pixels of `px_l0` level-0 px.

    Attributes:
        thumbnail: (h, w, 3) picture of the slide.
        px_l0: Level-0 px per raster pixel.
        px_mpp: µm per raster pixel.
        tissue: (h, w) all tissue.
        pen: (h, w) pen ink.
        blur: (h, w) tissue out of focus.
        usable: (h, w) tissue that may be used: without ink and blur where the settings say so.
        sampling: The adaptive map and its samples; None where annotated regions stand in its place.
        tumour: (h, w) usable tissue in invasive tumour.
    """

    thumbnail: Rgb
    px_l0: float
    px_mpp: float
    tissue: Mask
    pen: Mask
    blur: Mask
    usable: Mask
    sampling: AdaptiveMap | None
    tumour: Mask

    def area_mm2(self, mask: Mask) -> float:
        """Area of one of its masks, in mm²."""
        return area_mm2(int(np.count_nonzero(mask)), self.px_mpp)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction(Decision):
    """A slide's HER2 status with all that it rests on.

    Attributes:
        segmentation: Where tissue and tumour are.
        tiling: The grid that was cut, and its stride.
    """

    segmentation: Segmentation
    tiling: Tiling

    @property
    def n_unreadable(self) -> int:
        """Tiles left out because their pixels cannot be decoded."""
        return len(self.tiling.grid) - len(self.grid)


def predict(
    slide: Slide,
    model: SlideModel,
    config: Config,
    *,
    regions: Sequence[Region] = (),
    region_use: RegionUse = "intersect",
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Prediction:
    """Predict one slide's HER2 status: segment, cut, score, select, aggregate.

    Args:
        slide: An open H&E slide.
        model: The networks.
        config: The settings.
        regions: Annotated regions, if any.
        region_use: What the regions are for.
        progress: Told how far it is.
        watch: Told where the time goes.

    Raises:
        SlideError: The slide cannot be predicted; the error says at which stage, why, and what to do.
    """
    watch = watch or Watch()
    segmentation = segment(slide, model, config, regions=regions, region_use=region_use, progress=progress, watch=watch)
    with watch.stage("cut"):
        tiling = cut(slide, segmentation, model.tile_cnn.card.input, config)
    with watch.stage("tiles"):
        decision = decide(slide, tiling.grid, model.tile_cnn, model.aggregator, config, progress, watch)
    return Prediction(
        status=model.status(decision.probability, config),
        probability=decision.probability,
        grid=decision.grid,
        logits=decision.logits,
        scores=decision.scores,
        selected=decision.selected,
        segmentation=segmentation,
        tiling=tiling,
    )


def segment(
    slide: Slide,
    model: SlideModel,
    config: Config,
    *,
    regions: Sequence[Region] = (),
    region_use: RegionUse = "intersect",
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Segmentation:
    """Find tissue, ink, blur and invasive tumour; arguments are those of `predict`, errors those of `segment_where`."""
    where = partial(regions_mask, regions) if regions else None
    tumour_cnn = None if regions and region_use == "replace" else model.tumour_cnn
    return segment_where(
        slide, model.tile_cnn.card.input, config, tumour_cnn=tumour_cnn, where=where, progress=progress, watch=watch
    )


def segment_where(
    slide: Slide,
    tile: InputSpec,
    config: Config,
    *,
    tumour_cnn: Engine | None,
    where: Where | None = None,
    find: TissueRule = tissue_mask,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Segmentation:
    """Find tissue, ink, blur and invasive tumour, on rasters so coarse that a tile is a whole number of their pixels.

    Args:
        slide: An open slide.
        tile: The tiles that will be cut.
        config: The settings.
        tumour_cnn: Finds the tumour; None takes all usable tissue for it.
        where: Limits the tumour to annotated regions.
        find: What counts as tissue.
        progress: Told how far it is.
        watch: Told where the time goes.

    Raises:
        TissueError: No tissue, or none that is fit for use: not one tile of it.
        TumourError: No invasive tumour in it.
    """
    watch = watch or Watch()
    side_mask = tile_side_mask(tile, config)
    px_mpp = native_mpp(slide, tile, config) * config.tiling.mask_downsample
    px_l0 = px_mpp / slide.mpp
    size = mask_size(slide.size_l0, px_l0)
    with watch.stage("tissue"):
        thumbnail = thumbnail_on_lattice(slide, px_l0, size)
        tissue, pen = find_tissue(thumbnail, config, find)
    with watch.stage("focus"):
        blur = find_blur(slide, tissue, px_l0, config, progress)
    usable = tissue & ~pen & ~blur if config.quality.apply else tissue
    if not (coverage(usable, side_mask) == 1).any():
        raise TissueError(slide.slide_id, *_why_unusable(tissue, pen, blur, side_mask * px_mpp))
    sampling, tumour = None, usable
    if tumour_cnn is not None:
        with watch.stage("tumour"):
            sampling = find_tumour(slide, tumour_cnn, size, px_l0, config, progress, watch)
        tumour = tumour & (sampling.map >= config.adaptive.threshold)
    if where is not None:
        inside = where(size, px_l0)
        if not inside.any():
            raise TumourError(slide.slide_id, "its annotated regions lie outside the slide", "check --annotations")
        tumour = tumour & inside
    if not tumour.any():
        found = f"no invasive tumour found in {area_mm2(int(usable.sum()), px_mpp):.1f} mm² of tissue"
        remedy = "if there is some, mark it and pass --annotations" if where is None else "check --annotations"
        raise TumourError(slide.slide_id, found, remedy)
    return Segmentation(thumbnail, px_l0, px_mpp, tissue, pen, blur, usable, sampling, tumour)


def _why_unusable(tissue: Mask, pen: Mask, blur: Mask, side_um: float) -> tuple[str, str]:
    """Why not even one tile can be cut, and what to do."""
    if np.count_nonzero(pen) > np.count_nonzero(tissue & ~pen):
        return "no tissue beside pen ink", "clean the slide and scan it again"
    if np.count_nonzero(tissue & blur) > np.count_nonzero(tissue & ~blur):
        return "its tissue is out of focus", "scan it again, or pass --set quality.apply=false"
    if not tissue.any():
        return "no tissue found, it looks blank", "look at it with `he2her2 inspect`"
    return f"no piece of tissue is as large as a tile ({side_um:.0f} µm)", "use a slide with more tissue"


def find_tissue(thumbnail: Rgb, config: Config, find: TissueRule = tissue_mask) -> tuple[Mask, Mask]:
    """(h, w) tissue and (h, w) pen ink; strong ink must not decide what counts as stained, nor its halo be tissue."""
    tissue, pen = find(thumbnail, config.tissue), pen_mask(thumbnail)
    if config.quality.apply and pen.any():
        glass = thumbnail[~pen].max(initial=0)  # grey, and no brighter than what there is: weak tissue is told by V
        tissue = (tissue & pen) | find(np.where(pen[..., None], glass, thumbnail), config.tissue)
    return tissue, pen


def find_blur(slide: Slide, tissue: Mask, px_l0: float, config: Config, progress: Progress) -> Mask:
    """(h, w) where the slide is out of focus, judged at `config.quality.blur_mpp` wherever there is tissue."""
    height, width = tissue.shape
    px_mpp = px_l0 * slide.mpp
    cell_px = max(3, round(px_mpp / config.quality.blur_mpp))
    corners = blocks_with(tissue, BLUR_BLOCK_MASK)
    grid = TileGrid(
        np.rint(l0_from_mask(corners, px_l0)).astype(np.int64),
        side_l0=BLUR_BLOCK_MASK * px_l0,
        side_px=BLUR_BLOCK_MASK * cell_px,
        mpp=px_mpp / cell_px,
    )
    side = BLUR_BLOCK_MASK
    field = np.zeros((-(-height // side) * side, -(-width // side) * side, 2), np.float32)
    for index, blocks in map_tiles(
        slide, grid, lambda batch: (batch.index, [sharpness(block, cell_px) for block in batch.pixels]), **pace(config)
    ):
        for (x, y), block in zip(corners[index], blocks, strict=True):
            field[y : y + side, x : x + side] = block
        progress("focus", int(index[-1]) + 1, len(grid))
    return blur_mask(field[:height, :width], tissue, px_mpp, config.quality.min_sharpness)


def find_tumour(
    slide: Slide,
    tumour_cnn: Engine,
    size: Size,
    px_l0: float,
    config: Config,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> AdaptiveMap:
    """Map of invasive tumour's probability by adaptive sampling: HASHI asks for points, the network scores them."""
    spec = tumour_cnn.card.input
    mpp = native_mpp(slide, spec, config)
    side_l0 = spec.side_px * mpp / slide.mpp
    total = config.adaptive.iterations * config.adaptive.points
    n_scored = 0
    watch = watch or Watch()

    def score(points: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal n_scored
        origins = np.rint(l0_from_mask(points, px_l0) - side_l0 / 2).astype(np.int64)
        grid = TileGrid(origins, side_l0, spec.side_px, mpp)
        readable, logits = infer(slide, grid, tumour_cnn, config, spent=partial(watch.streamed, "tumour"))
        probability = np.full(len(points), np.nan)
        probability[readable] = softmax(logits)[:, 1]
        n_scored += len(points)
        progress("tumour", n_scored, total)
        return probability

    return adaptive_map(score, size, config.adaptive)


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


def decide(
    slide: Slide,
    grid: TileGrid,
    tile_cnn: Engine,
    aggregator: Aggregator,
    config: Config,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Decision:
    """Score a slide's tiles, select the best and let the aggregator decide; errors are those of `score_tiles`."""
    readable, logits = score_tiles(slide, grid, tile_cnn, config, progress, watch)
    return decide_on(grid.take(readable), logits, aggregator, config)


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
