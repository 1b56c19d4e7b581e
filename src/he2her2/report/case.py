"""The page of one slide: gathered from the run's files and, for its pictures, from the slide."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from he2her2.config import PRESETS, Config
from he2her2.errors import MppError, SlideError
from he2her2.files import url_of
from he2her2.geometry import Rgb, Size, mask_size
from he2her2.method import thumbnail_on_raster
from he2her2.models import aggregator_for
from he2her2.pages import render, without_folders
from he2her2.report.charts import RemovalChart, ScoreChart, removal_chart, score_chart
from he2her2.report.checks import Checks, DecidedTiles, check_prediction
from he2her2.report.gallery import Gallery, read_gallery
from he2her2.report.layers import COLOURS, Overlay, draw_layers, photograph
from he2her2.report.pictures import jpeg_uri, shrink
from he2her2.report.weights import FoundWeights
from he2her2.results import (
    Failure,
    FileStamp,
    RasterFrame,
    RunFolder,
    RunPatient,
    ScoredTiles,
    SlideRasters,
    SlideResult,
)
from he2her2.rules import patient_caution
from he2her2.slides import Slide, open_slide

_CURVE_SIZE = (520, 220)
_THUMBNAIL_PX = 160
_FAILED_PX = 1200
_ANY_MPP = 0.5
_STAGES = (
    ("open", "open the file"),
    ("annotations", "read its annotations"),
    ("tissue", "find tissue"),
    ("tumour", "find invasive tumour"),
    ("tiling", "cut the tumour into tiles"),
    ("scoring", "score the tiles"),
)
_SAME_STEP = {"read": "tissue"}
_SAME_COLOUR = 0.5
"""Of 255: a slide that was compressed anew changes the mean colour of its tissue by less."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Content of a page.

    Attributes:
        result: Of the slide.
        run: Its run.
        weights: Those of the run.
        overlay: The slide with its layers.
        scores: Distribution of tile scores; None where no tiles were scored, like those that follow.
        gallery: Tiles to look at.
        checks: Of the prediction by its tiles; None also where the weights are not at hand.
        removal: Curve of the removal of tiles.
        changed: Settings that differ from the preset.
        picture_problem: Why the slide itself is not shown, or it or its evidence with a doubt; empty without one.
    """

    result: SlideResult
    run: RunFolder
    weights: FoundWeights
    overlay: Overlay
    scores: ScoreChart | None
    gallery: Gallery | None
    checks: Checks | None
    removal: RemovalChart | None
    changed: Mapping[str, Any]
    picture_problem: str

    @property
    def patient(self) -> RunPatient | None:
        """The patient of this slide; None where the run does not know."""
        return self.run.patient(self.result.slide_id)

    @property
    def cautions(self) -> list[str]:
        """Warnings of the result but those that stand at the head of the page: of unlike slides and of patients."""
        told = set() if self.result.likeness is None else {self.result.likeness.warning}
        if self.patient is not None and self.patient.result is not None:
            told |= {patient_caution(self.patient.result.combined_by)}
        return [text for text in self.result.warnings if text not in told]

    @property
    def ranked(self) -> bool:
        """True if the aggregator looks at the tiles of the highest scores alone."""
        config = self.result.config
        return aggregator_for(config).ranking_of(config.selection, config.scoring) is not None


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is ready.

    Attributes:
        slide_id: Of the slide.
        html: The page.
        thumbnail: Small picture of the slide; empty where it cannot be read.
        outcome: Of the slide.
    """

    slide_id: str
    html: str
    thumbnail: str
    outcome: SlideResult | Failure


def case_page(run: RunFolder, result: SlideResult, weights: FoundWeights, **told: object) -> Page:
    """The page of a slide with a result.

    Args:
        run: Its run.
        result: Its result.
        weights: Those of the run.
        told: What the template shows beside the case: when the page was made, links.

    Raises:
        EvaluationError: A file of its evidence is damaged.
    """
    rasters, tiles = run.rasters(result.slide_id), run.tiles(result.slide_id)
    opened, problem = _open(result, rasters, run.slide_file(result))
    with opened as slide:
        photo = None if slide is None else photograph(slide, result.frame)
        gallery = None if tiles is None else read_gallery(tiles, slide)
    size = mask_size(Size(result.slide.width, result.slide.height), result.frame.px_l0)
    checks = None if tiles is None else _checks(result, tiles, weights)
    case = Case(
        result,
        run,
        weights,
        draw_layers(size, result.frame, rasters, tiles, photo),
        None if tiles is None or not tiles.selected.any() else score_chart(tiles),
        gallery,
        checks,
        removal_chart(checks.removal, *_CURVE_SIZE) if checks is not None and checks.removal is not None else None,
        dict(_changed(asdict(PRESETS.get(result.preset, Config())), asdict(result.config))),
        "; ".join(filter(None, (problem, run.changed_evidence(result)))),
    )
    html = render("case.html", case=case, curve_size=_CURVE_SIZE, **COLOURS, **told)
    return Page(result.slide_id, html, _thumbnail(photo), result)


def failed_page(run: RunFolder, failure: Failure, **told: object) -> Page:
    """The page of a slide without a result: what was found, at which step, what to do, and the slide if it opens."""
    path = Path(failure.path)
    rasters = run.rasters(failure.slide_id) if failure.evidence else None
    frame = None if rasters is None else rasters.frame
    photo, problem = _look_at(path, frame)
    failure = replace(failure, path=without_folders(failure.path), reason=_without_folder(failure.reason, path))
    overlay = None
    if rasters is not None and rasters.tissue is not None and frame is not None:
        overlay = draw_layers(Size(*rasters.tissue.shape[::-1]), frame, rasters, None, photo)
    step = _SAME_STEP.get(failure.stage, failure.stage)
    known = [name for name, _ in _STAGES]
    html = render(
        "failed.html",
        failure=failure,
        run=run,
        patient=run.patient(failure.slide_id),
        steps=_STAGES,
        failed_step=known.index(step) if step in known else None,
        photo="" if photo is None or overlay is not None else jpeg_uri(photo, 82),
        overlay=overlay,
        picture_problem=_without_folder(problem, path),
        **COLOURS,
        **told,
    )
    return Page(failure.slide_id, html, _thumbnail(photo), failure)


def _without_folder(text: str, path: Path) -> str:
    """A sentence with the name of a file for its path: pages are passed on, and folders name users and patients."""
    name = without_folders(str(path))
    for known in filter(None, (url_of(path), path.name and str(path))):
        text = text.replace(known, name)
    return text


def _open(result: SlideResult, rasters: SlideRasters, path: Path) -> tuple[AbstractContextManager[Slide | None], str]:
    """The slide of a result if it is still there, and what is wrong with it."""
    name = without_folders(str(path))
    try:
        slide = open_slide(path, mpp=result.inputs.mpp)
    except SlideError as error:
        return nullcontext(), f"{name} cannot be opened any more: {_without_folder(error.reason, path)}"
    if slide.size_l0 != (result.slide.width, result.slide.height):
        slide.close()
        return nullcontext(), f"{name} holds another picture than at prediction"
    was = result.inputs.slide
    if was is None or FileStamp.of_slide(path) == was:
        return slide, ""
    apart = _colour_apart(slide, result, rasters)
    if apart is not None and apart > _SAME_COLOUR:
        slide.close()
        return nullcontext(), (
            f"{name} was changed after it was predicted and holds another picture: the colours of its tissue are "
            f"up to {apart:.1f} of 255 apart from those at prediction"
        )
    agrees = "" if apart is None else "; its tissue has the colours that it had"
    return slide, f"{name} was copied or changed after it was predicted{agrees}: check that the layers fit"


def _colour_apart(slide: Slide, result: SlideResult, rasters: SlideRasters) -> float | None:
    """Largest difference of a tissue's colours, mean or spread of a channel, from those at prediction.

    None where the masks that tell its tissue are not at hand.
    """
    size = mask_size(slide.size_l0, result.frame.px_l0)
    tissue, pen, blur = rasters.tissue, rasters.pen, rasters.blur
    if tissue is None or pen is None or blur is None or {tissue.shape, pen.shape, blur.shape} != {(size.h, size.w)}:
        return None
    usable = tissue & ~pen & ~blur if result.quality.left_out else tissue
    if not usable.any():
        return None
    pixels = thumbnail_on_raster(slide, result.frame.px_l0, size)[usable].astype(np.float64)  # (n, 3)
    found = np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])
    return float(np.abs(found - [*result.colour.mean, *result.colour.spread]).max())


def _look_at(path: Path, frame: RasterFrame | None) -> tuple[Rgb | None, str]:
    """Picture of a slide that failed, of the extent of its masks if there are any; None, and why, if unreadable."""
    try:
        with _open_to_look(path, None if frame is None else frame.mpp / frame.px_l0) as slide:
            if frame is not None:
                return photograph(slide, frame), ""
            return shrink(slide.thumbnail(slide.mpp * max(1.0, max(slide.size_l0) / _FAILED_PX)), _FAILED_PX), ""
    except SlideError as error:
        return None, error.reason


def _open_to_look(path: Path, mpp: float | None) -> Slide:
    """The slide, also where it does not say its µm per px: its picture needs none."""
    try:
        return open_slide(path, mpp=mpp)
    except MppError:
        return open_slide(path, mpp=_ANY_MPP)


def _thumbnail(photo: Rgb | None) -> str:
    return "" if photo is None else jpeg_uri(shrink(photo, _THUMBNAIL_PX), 75)


def _checks(result: SlideResult, tiles: ScoredTiles, weights: FoundWeights) -> Checks | None:
    her2 = result.her2
    if her2 is None or weights.aggregator is None or weights.sees_features:
        return None
    at_least = weights.aggregator.least_tiles
    prediction = DecidedTiles(tiles, her2.tiles.stride_px, her2.probability, her2.threshold, at_least)
    return check_prediction(prediction, weights.aggregator)


def _changed(usual: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings that differ from those of the preset, by key."""
    for key, value in now.items():
        if isinstance(value, Mapping):
            yield from _changed(usual[key], value, f"{prefix}{key}.")
        elif value != usual[key]:
            yield f"{prefix}{key}", value
