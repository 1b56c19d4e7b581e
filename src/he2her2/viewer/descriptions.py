"""Descriptions of slides for the page: plain values for JSON, nothing in them that is not finite."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from he2her2.errors import He2Her2Error
from he2her2.labels import IhcScore
from he2her2.preprocessing import use_of_words
from he2her2.results import RESEARCH_USE_NOTICE, SCORE_COLOURS, FileStamp, SlideResult
from he2her2.rules import patient_caution
from he2her2.viewer.catalogue import Catalogue, ViewedSlide
from he2her2.viewer.layers import TileLayer, annotation_layer, picture_layers, samples
from he2her2.viewer.open_slides import OpenedSlide, OpenSlides
from he2her2.viewer.reviews import REGION_CLASSES, VERDICTS, Reviews, Verdict


def describe_list(catalogue: Catalogue, reviews: Reviews) -> dict[str, Any]:
    """The list of slides and what holds for all of them."""
    verdicts = reviews.verdicts()
    run = catalogue.run
    notices = run.notices if run is not None and run.predictions else ()
    return {
        "name": catalogue.name,
        "is_run": run is not None,
        "unfinished": run.unfinished if run is not None else "",
        "notices": [*notices, RESEARCH_USE_NOTICE] if run is not None else [RESEARCH_USE_NOTICE],
        "writable": reviews.writable,
        "verdicts": list(VERDICTS),
        "region_classes": [{"name": name, "use": str(use_of_words(name) or "not used")} for name in REGION_CLASSES],
        "score_colours": {str(score): SCORE_COLOURS[score] for score in IhcScore},
        "slides": [
            _entry(slide) | {"review": describe_review(slide, verdicts.get(name))}
            for name, slide in catalogue.slides.items()
        ],
    }


def describe_review(slide: ViewedSlide, verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict, with whether the slide's result is another by now; None without one."""
    if verdict is None or verdict.is_empty:
        return None
    return asdict(verdict) | {"of_this_result": verdict.is_of(slide.judged), "version": verdict.version}


def _entry(slide: ViewedSlide) -> dict[str, Any]:
    row = slide.prediction
    entry: dict[str, Any] = {
        "id": slide.slide_id,
        "state": slide.state,
        "patient": slide.patient_id,
        "stain": slide.stain,
        "partners": list(slide.partners),
        "failure": None,
    }
    if slide.failure is not None:
        entry["failure"] = {
            "stage": slide.failure.stage, "reason": slide.failure.reason, "remedy": slide.failure.remedy,
        }  # fmt: skip
    if row is None:
        return entry
    return entry | {
        "status": str(row.status),
        "probability": row.probability,
        "threshold": row.threshold,
        "margin": _finite(slide.margin),
        "tile_score": str(row.tile_score) if row.tile_score is not None else "",
        "triage": row.triage,
        "spoilt": _finite(row.pen_share + row.blur_share),
        "warnings": list(row.warnings),
    }


def describe_slide(
    catalogue: Catalogue, slide: ViewedSlide, folder: Path | None, tiles: TileLayer | None, slides: OpenSlides
) -> dict[str, Any]:
    """One slide: its file, its result and its layers. What cannot be read is named under "problems"."""
    problems: list[str] = []
    result, patient_call = None, None
    try:
        result = catalogue.result(slide.slide_id)
        patient_call = _patient_call(catalogue, slide)
        if result is None and slide.prediction is not None:
            problems.append(f"{slide.slide_id}: the run holds no evidence of it any more; predict it again to see it")
    except He2Her2Error as error:
        problems.append(str(error))
    described: dict[str, Any] = _entry(slide) | {
        "file": None,
        "result": None if result is None else _result(result, patient_call),
        "patient_call": patient_call,
        "pictures": [],
        "samples": 0,
        "tiles": None,
        "problems": problems,
    }
    try:
        with slides.lend(slide) as opened:
            described["file"] = _file(opened)
            if slide.annotations is not None and slide.annotations.is_file():
                described["pictures"].append(asdict(annotation_layer(opened.zoom.slide)))
            if result is not None:
                problems += _not_the_same(slide, opened, result)
    except He2Her2Error as error:
        problems.append(str(error))
    if result is not None and catalogue.run is not None and (changed := catalogue.run.changed_evidence(result)):
        problems.append(changed)
    if folder is not None:
        described["pictures"] = [*map(asdict, picture_layers(folder, result)), *described["pictures"]]
        if tiles is not None:
            described["tiles"] = tiles.described()
            problems += [f"tiles.h5: {name} is not shown, not all its values are numbers" for name in tiles.unusable]
        try:
            described["samples"] = len(samples(folder))
        except He2Her2Error as error:
            problems.append(str(error))
    return described


def _patient_call(catalogue: Catalogue, slide: ViewedSlide) -> dict[str, Any] | None:
    """Call of a patient of several slides by the stored rules; None without them."""
    patient = None if catalogue.run is None else catalogue.run.patient(slide.slide_id)
    if patient is None or patient.result is None or len(patient.slides) < 2:
        return None
    found = patient.result
    return {
        "status": str(found.status or ""),
        "triage": found.triage or "",
        "probability": _finite(found.probability),
        "threshold": found.threshold,
        "combined_by": found.combined_by,
        "slides": found.slides,
        "failed": found.failed,
        "unlike": found.unlike,
        "guaranteed": found.guaranteed,
    }


def _file(opened: OpenedSlide) -> dict[str, Any]:
    slide = opened.zoom.slide
    return {
        "version": opened.version,
        "name": slide.path.name,
        "vendor": slide.vendor,
        "size": list(slide.size_l0),
        "mpp": slide.mpp if opened.has_scale else None,
        "cautions": list(slide.cautions),
        "levels": [
            {"size": list(level.size), "downsample": level.downsample, "tile": list(level.tile)}
            for level in opened.zoom.levels
        ],
    }


def _not_the_same(slide: ViewedSlide, opened: OpenedSlide, result: SlideResult) -> list[str]:
    """Differences of the file from the one that was predicted."""
    found = opened.zoom.slide.size_l0
    if tuple(found) != (result.slide.width, result.slide.height):
        then = f"{result.slide.width} x {result.slide.height}"
        return [f"this is another slide than the one that was predicted ({then} px): its layers do not fit"]
    stamp = result.inputs.slide
    if stamp is not None and FileStamp.of_slide(slide.path) != stamp:
        return ["the slide's file was copied or changed after it was predicted: check that the layers fit"]
    return []


def _result(result: SlideResult, patient_call: Mapping[str, Any] | None) -> dict[str, Any]:
    her2 = result.her2
    told = None if patient_call is None else patient_caution(patient_call["combined_by"])
    found: dict[str, Any] = {
        "headline": result.headline,
        "area_mm2": asdict(result.area_mm2),
        "quality": asdict(result.quality),
        "counts": asdict(result.counts),
        "notices": list(result.notices),
        "warnings": [text for text in result.warnings if text != told],
        "preset": result.preset,
        "version": result.version,
        "ended": result.provenance.ended if result.provenance else "",
        "unlike": result.likeness.warning if result.likeness is not None and result.likeness.unlike else "",
    }
    if her2 is None:
        return found
    return found | {
        "status": str(her2.status),
        "probability": her2.probability,
        "threshold": her2.threshold,
        "calibrated_probability": her2.calibrated_probability,
        "calibrated_threshold": her2.calibrated_threshold,
        "tile_score": her2.tile_score,
        "per_score": dict(her2.tiles.per_score),
        "triage": _values(asdict(her2.triage)) if her2.triage else None,
        "operating_point": _values(asdict(her2.operating_point)) if her2.operating_point else None,
    }


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: str(value) if value is not None and not isinstance(value, float | int) else value
            for key, value in values.items()}  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
