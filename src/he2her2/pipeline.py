"""The method on one page (Oliveira et al., 2020, section 3): from an open slide to its HER2 status.

All steps are deterministic: threads and batch size never change a result.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from he2her2.config import Config
from he2her2.method import (
    Decision,
    Findings,
    Segmentation,
    cut_tumour,
    decide_on,
    encode_tiles,
    score_tiles,
    segment_slide,
)
from he2her2.models import SlideModel, recoloured
from he2her2.preprocessing import Annotation, CutTiles
from he2her2.slides import Slide
from he2her2.timing import Watch

RegionUse: TypeAlias = Literal["intersect", "replace"]
"""Annotated regions limit the tumour that the network finds, or stand in its place."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction(Decision):
    """A slide's HER2 status with all that it rests on.

    Attributes:
        segmentation: Where tissue and tumour are.
        tiling: The grid that was cut, and its stride.
    """

    segmentation: Segmentation
    tiling: CutTiles

    @property
    def n_unreadable(self) -> int:
        """Tiles left out because their pixels cannot be decoded."""
        return len(self.tiling.grid) - len(self.grid)


def predict(
    slide: Slide,
    model: SlideModel,
    config: Config,
    *,
    annotation: Annotation | None = None,
    region_use: RegionUse = "intersect",
    watch: Watch | None = None,
    findings: Findings | None = None,
) -> Prediction:
    """Predict one slide's HER2 status: segment, cut, score, select, aggregate.

    Args:
        slide: An open H&E slide.
        model: The networks.
        config: The settings.
        annotation: Annotated tumour, if any.
        region_use: "intersect" limits the tumour that the network finds to the annotation, "replace" takes the
            annotation for it.
        watch: Observes progress and time.
        findings: Takes each raster as it is found.

    Raises:
        SlideError: The slide cannot be predicted; the error says at which stage, why, and what to do.
        AnnotationError: The annotation is a picture of another shape than the slide's.
        ValueError: `region_use` is neither.
    """
    watch = watch or Watch()
    segmentation = segment(
        slide, model, config, annotation=annotation, region_use=region_use, watch=watch, findings=findings
    )
    with watch.stage("cut"):
        selection = config.selection if model.encoder is None else None
        n_tiles_fixed = model.aggregator.fixes_n_tiles
        tiling = cut_tumour(slide, segmentation, model.tile, config.tiling, selection, n_tiles_fixed=n_tiles_fixed)
    with watch.stage("tiles"):
        features, tile_cnn = None, recoloured(model.tile_cnn, segmentation.recolour)
        if model.encoder is None:
            readable, logits = score_tiles(
                slide, tiling.grid, tile_cnn, config.runtime, config.selection.n_tiles, watch
            )
        else:
            readable, features, logits = encode_tiles(
                slide, tiling.grid, model.encoder, tile_cnn, config.tiling, config.runtime, watch
            )
        grid = tiling.grid.take(readable)
        decision = decide_on(
            slide.slide_id, grid, logits, model.aggregator, model.threshold(config), model.operating_point, features
        )
    return Prediction(
        status=decision.status,
        probability=decision.probability,
        grid=decision.grid,
        logits=decision.logits,
        scores=decision.scores,
        selected=decision.selected,
        contributions=decision.contributions,
        segmentation=segmentation,
        tiling=tiling,
    )


def segment(
    slide: Slide,
    model: SlideModel,
    config: Config,
    *,
    annotation: Annotation | None = None,
    region_use: RegionUse = "intersect",
    watch: Watch | None = None,
    findings: Findings | None = None,
) -> Segmentation:
    """Find tissue, ink, blur and invasive tumour; arguments are those of `predict`, errors those of `segment_slide`."""
    if region_use not in get_args(RegionUse):
        raise ValueError(f"region_use must be one of {', '.join(get_args(RegionUse))}, got {region_use}")
    return segment_slide(
        slide,
        model.tile,
        config,
        tumour_cnn=None if annotation is not None and region_use == "replace" else model.tumour_cnn,
        annotation=annotation,
        watch=watch,
        findings=findings,
    )
