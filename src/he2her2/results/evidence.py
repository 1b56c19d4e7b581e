"""Evidence of one slide: its result with the rasters and tiles that it rests on, ready to be written."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from he2her2 import __version__
from he2her2.config import Config
from he2her2.geometry import Rgb, Size
from he2her2.labels import IhcScore
from he2her2.method import Segmentation, thumbnail_on_raster, tissue_appearance
from he2her2.models import SlideModel, aggregator_for, tile_classes, tile_counts
from he2her2.pipeline import Prediction
from he2her2.preprocessing import quality_shares
from he2her2.results.notes import NetworkNote, OperatingPointNote, TimingNote, TriageNote
from he2her2.results.overlay import PICTURE_PX
from he2her2.results.slide_result import (
    RESEARCH_USE_NOTICE,
    Areas,
    ColourStatistics,
    Counts,
    Her2Finding,
    MaskScale,
    QualityFindings,
    SlideFacts,
    SlideResult,
    TileFacts,
)
from he2her2.results.tiles_h5 import ScoredTiles
from he2her2.rules import DIGITS, patient_caution
from he2her2.slides import Slide
from he2her2.timing import Watch
from he2her2.units import is_close_mpp

_SPOILT_SHARE = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything that is written of a slide.

    Attributes:
        result: In numbers and words.
        segmentation: Its rasters.
        tiles: The scored tiles; None where none were scored.
        overlap_px: Overlap of neighbouring tiles in px of the network.
        size_l0: Width and height of the slide.
        photo: A finer picture than the segmentation's thumbnail, of a small slide.
    """

    result: SlideResult
    segmentation: Segmentation
    tiles: ScoredTiles | None
    overlap_px: int
    size_l0: Size
    photo: Rgb | None


def segmentation_evidence(
    slide: Slide, segmentation: Segmentation, model: SlideModel, config: Config, watch: Watch
) -> Evidence:
    """Evidence of a slide whose tiles were not scored."""
    counts = Counts(0 if segmentation.sampling is None else len(segmentation.sampling.points))
    return Evidence(
        _result(slide, segmentation, counts, None, model, config, watch),
        segmentation,
        None,
        0,
        slide.size_l0,
        _finer_picture(slide, segmentation),
    )


def prediction_evidence(
    slide: Slide, prediction: Prediction, model: SlideModel, config: Config, watch: Watch
) -> Evidence:
    """Evidence of a predicted slide."""
    segmentation, tiling, grid = prediction.segmentation, prediction.tiling, prediction.grid
    counts = Counts(
        0 if segmentation.sampling is None else len(segmentation.sampling.points),
        tiles_without_overlap=tiling.n_plain,
        tiles=len(tiling.grid),
        unreadable=prediction.n_unreadable,
        scored=len(grid),
        selected=len(prediction.selected),
    )
    stride_px = tiling.stride_mask * config.tiling.mask_downsample
    chosen = np.zeros(len(grid), bool)
    chosen[prediction.selected] = True
    her2 = _her2_finding(slide, prediction, stride_px, model, config)
    return Evidence(
        _result(slide, segmentation, counts, her2, model, config, watch),
        segmentation,
        ScoredTiles(grid, prediction.scores, prediction.logits, chosen, prediction.contributions),
        grid.side_px - stride_px,
        slide.size_l0,
        _finer_picture(slide, segmentation),
    )


def _result(
    slide: Slide,
    segmentation: Segmentation,
    counts: Counts,
    her2: Her2Finding | None,
    model: SlideModel,
    config: Config,
    watch: Watch,
) -> SlideResult:
    shares = quality_shares(segmentation.tissue, segmentation.pen, segmentation.blur)
    annotation = segmentation.annotation
    look = tissue_appearance(
        slide,
        segmentation.thumbnail,
        segmentation.usable,
        segmentation.px_l0,
        model.texture_encoder,
        config.tiling,
        config.runtime,
    )
    areas = (segmentation.area_mm2(mask) for mask in (segmentation.tissue, segmentation.usable, segmentation.tumour))
    result = SlideResult(
        slide_id=slide.slide_id,
        path=str(slide.path),
        her2=her2,
        notices=model.notices_of(_networks_that_ran(segmentation, her2)),
        slide=SlideFacts(
            slide.vendor,
            slide.backend,
            slide.mpp,
            *slide.size_l0,
            len(slide.levels),
            slide.bounds_origin_l0,
        ),
        quality=QualityFindings(round(shares.pen, 4), round(shares.blur, 4), config.quality.apply),
        colour=ColourStatistics(look.mean, look.spread),
        texture=look.texture,
        area_mm2=Areas(*(round(area, 4) for area in areas)),
        counts=counts,
        mask=MaskScale(segmentation.px_l0, segmentation.px_mpp),
        annotations={name: use.value for name, use in annotation.classes.items()} if annotation else {},
        annotation_warnings=segmentation.cautions,
        preset=config.preset,
        config=config,
        seconds=round(watch.seconds, 2),
        timing=TimingNote.of(watch),
        version=__version__,
        use=RESEARCH_USE_NOTICE,
    )
    likeness = None if model.domain is None else model.domain.likeness(result.domain_features, result.texture)
    if likeness is None or not likeness.unlike:
        return replace(result, likeness=likeness)
    said = None if her2 is None else replace(her2, warnings=(likeness.warning, *her2.warnings))
    return replace(result, likeness=likeness, her2=said)


def _networks_that_ran(segmentation: Segmentation, her2: Her2Finding | None) -> tuple[str, ...]:
    """Roles of the networks on which a result rests: masks do not rest on those that score tiles."""
    found_tumour = () if segmentation.sampling is None else ("tumour_cnn",)
    return found_tumour if her2 is None else (*found_tumour, "tile_cnn", "aggregator")


def _her2_finding(
    slide: Slide, prediction: Prediction, stride_px: int, model: SlideModel, config: Config
) -> Her2Finding:
    classes = tile_classes(prediction.scores).astype(int)
    chosen = np.sort(classes[prediction.selected])
    rules, probability = model.rules, prediction.probability
    calibration = rules.calibration if rules else None
    return Her2Finding(
        status=prediction.status,
        probability=probability,
        threshold=model.threshold(config),
        calibrated_probability=None if calibration is None else round(float(calibration(probability)), DIGITS),
        calibrated_threshold=None
        if calibration is None
        else round(float(calibration(model.threshold(config))), DIGITS),
        operating_point=OperatingPointNote.of(rules.operating_point) if rules and rules.operating_point else None,
        triage=TriageNote.of(rules.triage, probability) if rules and rules.triage else None,
        tile_score=str(list(IhcScore)[chosen[(len(chosen) - 1) // 2]]),
        warnings=tuple(_warnings(slide, prediction, model, config)),
        tiles=TileFacts(
            prediction.grid.side_px,
            prediction.grid.mpp,
            stride_px,
            dict(zip(map(str, IhcScore), tile_counts(prediction.scores), strict=True)),
        ),
        weights=tuple(NetworkNote.of(card) for card in model.cards.values()),
    )


def _warnings(slide: Slide, prediction: Prediction, model: SlideModel, config: Config) -> Iterator[str]:
    """Cautions for the reader of this result."""
    yield from (*slide.cautions, *prediction.segmentation.cautions)
    wanted = model.tile.mpp
    if config.tiling.raw_pixels and not is_close_mpp(slide.mpp, wanted):
        yield f"the preset takes pixels as they are: {slide.mpp:g} µm here, {wanted:g} µm where the networks learned"
    elif slide.mpp > wanted and not is_close_mpp(slide.mpp, wanted):
        yield f"scanned at {slide.mpp:g} µm/px, coarser than the {wanted:g} that the networks learned from"
    n_plain, n = prediction.tiling.n_plain, len(prediction.tiling.grid)
    if prediction.n_unreadable:
        yield f"{prediction.n_unreadable} of {n} tiles could not be decoded, or are blank in the tissue: not scored"
    if n_plain < n:
        yield f"little tumour: only {n_plain} tiles fit into it side by side, so {n} overlapping ones were scored"
    segmentation = prediction.segmentation
    shares = quality_shares(segmentation.tissue, segmentation.pen, segmentation.blur)
    for what, share in (("under pen ink", shares.pen), ("out of focus", shares.blur)):
        if share > _SPOILT_SHARE:
            yield f"{share:.0%} of the tissue is {what}"
    if not aggregator_for(config).gives_probability:
        yield f"the {config.networks.aggregator} aggregator gives no probability: 1 means yes, 0 means no"
    if model.rules is not None and (rule := model.rules.patient_rule) is not None:
        yield patient_caution(rule)
    if np.array_equal(segmentation.tumour, segmentation.usable):
        yield "all usable tissue was taken for invasive tumour: check its outline"


def _finer_picture(slide: Slide, segmentation: Segmentation) -> Rgb | None:
    """A picture of a small slide that is as large as its overlay; None where the thumbnail will do."""
    height, width = segmentation.tissue.shape
    finer = min(math.ceil(PICTURE_PX / max(height, width)), math.floor(segmentation.px_l0))
    if finer <= 1:
        return None
    return thumbnail_on_raster(slide, segmentation.px_l0 / finer, Size(width * finer, height * finer))
