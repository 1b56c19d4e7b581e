"""Segmentation of one slide: tissue, pen ink, blur and invasive tumour (paper, 3.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy

from he2her2.config import Config, Quality, Runtime, Tissue
from he2her2.errors import TissueError, TumourError
from he2her2.geometry import Mask, Point, Rgb, Size, TileGrid, l0_from_mask, mask_size
from he2her2.method.inference import pace
from he2her2.method.raster import blocks_with, native_mpp, thumbnail_on_raster, tile_side_mask
from he2her2.method.tumour import find_tumour, tumour_threshold
from he2her2.models import Engine, InputSpec, recoloured
from he2her2.preprocessing import (
    AdaptiveMap,
    Annotation,
    ColourChange,
    Normalisation,
    Sharpness,
    blur_mask,
    coverage,
    normalisation_of,
    out_of_focus,
    pen_mask,
    sharpness,
    smear_mask,
    stained_pixels,
    tissue_mask,
)
from he2her2.slides import Slide, map_tiles
from he2her2.timing import Watch
from he2her2.units import area_mm2, is_close_mpp

TissueRule: TypeAlias = Callable[[Rgb, Tissue], Mask]
"""From a thumbnail to the mask of its tissue."""

_BLUR_BLOCK_MASK = 16
_GREY = 12  # largest difference of the channels of a grey pixel, compressed as it may be
_MOST_OFF_SLIDE = 0.1
_FEW_SAMPLES, _FEW_SHARE = 100, 0.05
"""Samples in tissue, of 2 000, below which a tumour that was drawn had a Dice of 0.5 to 0.9."""
_BLACK, _WHITE = 40, 180  # brightest channel of a black pixel, darkest one of glass
_COLOURED = 1e-3  # least share of pixels of another kind in a picture with colours
_NO_ANNOTATED_TUMOUR = "its annotated tumour is too small for a pixel of the mask, cut out or outside the slide"


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Tissue and tumour of a slide; every raster covers the whole slide with pixels of `px_l0` level-0 px.

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
        annotation: Limited the tumour, or was taken for it.
        recolour: Brings the slide's colours to the reference, as the settings ask; None leaves them.
        off_slide: Share of the annotated tumour beyond the slide's border.
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
    annotation: Annotation | None = None
    recolour: ColourChange | None = None
    off_slide: float = 0.0

    @property
    def cautions(self) -> tuple[str, ...]:
        """Shapes of its annotation that were skipped, a tumour map with few samples of the tissue, and the like."""
        few = _few_samples(self.sampling, self.usable)
        if self.annotation is None:
            return few
        said, drawn_at, mpp = list(self.annotation.warnings), self.annotation.mpp, self.px_mpp / self.px_l0
        if drawn_at is not None and not is_close_mpp(mpp, drawn_at):
            said.append(
                f"its annotation was drawn at {drawn_at:.4g} µm/px, and it has {mpp:.4g}: is it another scan's?"
            )
        if self.off_slide > _MOST_OFF_SLIDE:
            off = f"{100 * self.off_slide:.0f} %"
            said.append(f"{off} of the annotated tumour is off the slide: is it another's, or its scale?")
        return (*said, *few)

    def area_mm2(self, mask: Mask) -> float:
        """Area of one of its masks, in mm²."""
        return area_mm2(int(np.count_nonzero(mask)), self.px_mpp)


MASKS = ("tissue", "pen", "blur", "tumour")
"""Names of the masks of a segmentation."""


@dataclass(slots=True, eq=False)
class Findings:
    """Findings on a slide so far: the evidence of one that fails. Attributes are those of `Segmentation`."""

    thumbnail: Rgb | None = None
    px_l0: float = 1.0
    px_mpp: float = 1.0
    bounds_l0: Point = Point(0, 0)  # noqa: RUF009  # a tuple
    tissue: Mask | None = None
    pen: Mask | None = None
    blur: Mask | None = None
    sampling: AdaptiveMap | None = None
    tumour: Mask | None = None

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks that were found."""
        return tuple(name for name in MASKS if getattr(self, name) is not None)

    def so_far(self) -> Segmentation | None:
        """The rasters, empty where they were not reached; None where not even a picture was."""
        if self.thumbnail is None:
            return None
        nothing = np.zeros(self.thumbnail.shape[:2], bool)
        tissue, pen, blur, tumour = (
            nothing if mask is None else mask for mask in (self.tissue, self.pen, self.blur, self.tumour)
        )
        return Segmentation(
            self.thumbnail, self.px_l0, self.px_mpp, tissue, pen, blur, tissue & ~pen & ~blur, self.sampling, tumour
        )


def segment_slide(
    slide: Slide,
    tile: InputSpec,
    config: Config,
    *,
    tumour_cnn: Engine | None,
    annotation: Annotation | None = None,
    tissue_rule: TissueRule = tissue_mask,
    watch: Watch | None = None,
    findings: Findings | None = None,
) -> Segmentation:
    """Find tissue, ink, blur and invasive tumour, on rasters so coarse that a tile is a whole number of their pixels.

    Args:
        slide: An open slide.
        tile: The tiles that will be cut.
        config: The settings.
        tumour_cnn: Finds the tumour; None takes all usable tissue for it.
        annotation: Limits the tumour to what was annotated.
        tissue_rule: Tells tissue from glass.
        watch: Observes progress and time.
        findings: Takes each raster as it is found.

    Raises:
        TissueError: No tissue, or none that is fit for use: not one tile of it.
        TumourError: No invasive tumour in it.
        AnnotationError: The annotation is a picture of another shape than the slide's.
    """
    watch, findings = watch or Watch(), findings or Findings()
    px_mpp = native_mpp(slide, tile, config.tiling) * config.tiling.mask_downsample
    px_l0 = px_mpp / slide.mpp
    size = mask_size(slide.size_l0, px_l0)
    with watch.stage("tissue"):
        thumbnail = thumbnail_on_raster(slide, px_l0, size)
        findings.thumbnail, findings.px_l0, findings.px_mpp = thumbnail, px_l0, px_mpp
        findings.bounds_l0 = slide.bounds_origin_l0
        tissue, pen = findings.tissue, findings.pen = find_tissue(thumbnail, config.tissue, config.quality, tissue_rule)
    with watch.stage("focus"):
        focus = _measure_focus(slide, tissue, px_l0, config.quality, config.runtime, watch)
        stained = tissue_rule is tissue_mask
        smear, blur = _unsharp(thumbnail, focus, tissue, pen, px_mpp, config.quality, stained=stained)
    tissue = findings.tissue = tissue & ~smear
    findings.blur = blur
    usable = tissue & ~pen & ~blur if config.quality.apply else tissue
    side_mask = tile_side_mask(tile, config.tiling)
    if not (coverage(usable, side_mask) == 1).any():
        raise TissueError(slide.slide_id, *_why_unusable(thumbnail, tissue, pen, blur, side_mask * px_mpp))
    recolour = _normalisation(slide, thumbnail, usable, config.normalisation)
    sampling, tumour = None, usable
    if tumour_cnn is not None:
        with watch.stage("tumour"):
            sampling = find_tumour(slide, recoloured(tumour_cnn, recolour), usable, px_l0, config, watch)
        findings.sampling = sampling
        tumour = tumour & (sampling.map >= tumour_threshold(tumour_cnn.card, config.adaptive))
    tumour = findings.tumour = tumour if annotation is None else tumour & _inside(annotation, slide, size, px_l0)
    few = _few_samples(sampling, usable)
    _require_tumour(tumour, slide.slide_id, area_mm2(int(usable.sum()), px_mpp), annotation, sampling, few)
    off_slide = 0.0 if annotation is None else annotation.off_slide(slide.frame)
    return Segmentation(
        thumbnail, px_l0, px_mpp, tissue, pen, blur, usable, sampling, tumour, annotation, recolour, off_slide
    )


def _inside(annotation: Annotation, slide: Slide, size: Size, px_l0: float) -> Mask:
    """(h, w) annotated tumour.

    Raises:
        TumourError: There is none on the mask.
        AnnotationError: The annotation is a picture of another shape than the slide's.
    """
    inside = annotation.mask(size, px_l0, slide.frame)
    if not inside.any():
        raise TumourError(slide.slide_id, _NO_ANNOTATED_TUMOUR, "check --annotations")
    return inside


def _few_samples(sampling: AdaptiveMap | None, usable: Mask) -> tuple[str, ...]:
    """A sentence where the samples of the tumour map lie almost all on glass, as of a biopsy on a large scan."""
    if sampling is None:
        return ()
    x, y = sampling.points.astype(np.int64).T
    n = np.count_nonzero(usable[y, x])
    if n >= min(_FEW_SAMPLES, _FEW_SHARE * len(x)):
        return ()
    said = (
        f"only {n} of {len(x)} samples of the tumour map lie in its tissue, a small part of the scan: its outline is "
        "coarse, and a small focus may be missed (more samples: adaptive.points and adaptive.candidates)"
    )
    return (said,)


def _require_tumour(
    tumour: Mask,
    slide_id: str,
    usable_mm2: float,
    annotation: Annotation | None,
    sampling: AdaptiveMap | None,
    few: tuple[str, ...],
) -> None:
    """Raise where there is nothing to decide on, with what to do: regions limit what was found and cannot add to it."""
    if tumour.any():
        return
    remedy = "check --annotations"
    if sampling is not None:
        remedy = "if there is some, mark it and pass --annotations with" if annotation is None else f"{remedy}, or pass"
        remedy += " --annotations-use replace (features: --region annotated)"
    where = "" if annotation is None else "the annotated regions of "
    found = f"no invasive tumour found in {where}{usable_mm2:.1f} mm² of tissue"
    raise TumourError(slide_id, "; ".join((found, *few)), remedy)


def _normalisation(slide: Slide, thumbnail: Rgb, usable: Mask, kind: Normalisation) -> ColourChange | None:
    """The change of colours that the settings ask for, measured on a slide's usable tissue; None for no change.

    Raises:
        TissueError: The tissue shows too little stain to measure.
    """
    try:
        return normalisation_of(thumbnail, usable, kind)
    except ValueError as error:
        raise TissueError(slide.slide_id, str(error), "pass --set normalisation=none") from None


def _why_unusable(thumbnail: Rgb, tissue: Mask, pen: Mask, blur: Mask, side_um: float) -> tuple[str, str]:
    """Reason why not even one tile can be cut, and remedy."""
    if stained_pixels(thumbnail).any() and (np.ptp(thumbnail, axis=2) > _GREY).mean() < _COLOURED:
        seen = "a grey or black picture, or glass with nothing but black pen ink, dust or a cover slip"
        return f"it has no colours: {seen}", "use a scan in colour, of stained tissue"
    if (thumbnail.max(axis=2) < _BLACK).mean() > 0.2 and (thumbnail.min(axis=2) > _WHITE).mean() < 0.01:
        return "it has a black background, as fluorescence has", "use a scan in transmitted light"
    if np.count_nonzero(pen) > np.count_nonzero(tissue & ~pen):
        return "no tissue beside pen ink", "clean the slide and scan it again"
    if np.count_nonzero(tissue & blur) > np.count_nonzero(tissue & ~blur):
        return "its tissue is out of focus", "scan it again, or pass --set quality.apply=false"
    if not tissue.any():
        return "no tissue found, it looks blank", "look at it with `he2her2 inspect`"
    reason = f"no piece of tissue is as large as a tile ({side_um:.0f} µm), or its stain is too pale to tell from glass"
    return reason, "use a slide with more tissue, or a stronger stain"


def find_tissue(
    thumbnail: Rgb, tissue: Tissue, quality: Quality, tissue_rule: TissueRule = tissue_mask
) -> tuple[Mask, Mask]:
    """(h, w) tissue and (h, w) pen ink; strong ink must not decide what counts as stained, nor its halo be tissue.

    What lies under ink is taken for tissue where the nearest pixel beside the ink is: a ring on the glass hides none.
    """
    found, pen = tissue_rule(thumbnail, tissue), pen_mask(thumbnail)
    if quality.apply and pen.any():
        glass = thumbnail[~pen].max(initial=0)  # grey, and no brighter than what there is: weak tissue is told by V
        clear = tissue_rule(np.where(pen[..., None], glass, thumbnail), tissue)
        if not pen.all():
            nearest = scipy.ndimage.distance_transform_edt(pen, return_distances=False, return_indices=True)
            found &= clear[tuple(nearest)]
        found = (found & pen) | clear
    return found, pen


def _unsharp(
    thumbnail: Rgb, focus: Sharpness, tissue: Mask, pen: Mask, px_mpp: float, quality: Quality, *, stained: bool
) -> tuple[Mask, Mask]:
    """(h, w) smears, which are no tissue, and (h, w) tissue out of focus.

    IHC tissue is not `stained`: the palest has no more detail than what is far out of focus.
    """
    if not stained:
        return np.zeros_like(tissue), blur_mask(focus, tissue, px_mpp, quality.min_sharpness)
    smear = smear_mask(thumbnail, focus, tissue & ~pen, px_mpp) if quality.apply else np.zeros_like(tissue)
    return smear, out_of_focus(focus, tissue & ~smear, px_mpp, quality.min_sharpness)


def _measure_focus(
    slide: Slide, tissue: Mask, px_l0: float, quality: Quality, runtime: Runtime, watch: Watch
) -> Sharpness:
    """Measure sharpness at `quality.blur_mpp` wherever there is tissue."""
    height, width = tissue.shape
    px_mpp = px_l0 * slide.mpp
    cell_px = max(3, round(px_mpp / quality.blur_mpp))
    side = _BLUR_BLOCK_MASK
    corners = blocks_with(tissue, side)
    grid = TileGrid(
        np.rint(l0_from_mask(corners, px_l0)).astype(np.int64),
        side_l0=side * px_l0,
        side_px=side * cell_px,
        mpp=px_mpp / cell_px,
    )
    field = np.full((-(-height // side) * side, -(-width // side) * side, 2), np.nan, np.float32)
    for index, blocks in map_tiles(
        slide, grid, lambda batch: (batch.index, [sharpness(block, cell_px) for block in batch.pixels]), **pace(runtime)
    ):
        for (x, y), block in zip(corners[index], blocks, strict=True):
            field[y : y + side, x : x + side] = block
        watch.progress("focus", int(index[-1]) + 1, len(grid))
    return field[:height, :width]
