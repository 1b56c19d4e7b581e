"""`prediction.json`: one slide's result in numbers and words."""

from dataclasses import asdict
from typing import Any

import numpy as np

from he2her2 import __version__
from he2her2.config import Config
from he2her2.labels import IhcScore
from he2her2.method.segmentation import Segmentation
from he2her2.models.baselines import tile_classes
from he2her2.models.slide_model import SlideModel
from he2her2.pipeline import Prediction
from he2her2.preprocessing.quality import quality_shares
from he2her2.rules import DecisionRules
from he2her2.slides import Slide
from he2her2.units import is_close_mpp

Record = dict[str, Any]

RESEARCH_USE = "research use only: not validated for diagnosis"
SPOILT_SHARE = 0.2


def segmentation_record(slide: Slide, segmentation: Segmentation, config: Config) -> Record:
    """What was found before any tile was scored: the slide, its quality, areas and the settings."""
    shares = quality_shares(segmentation.tissue, segmentation.pen, segmentation.blur)
    sampling = segmentation.sampling
    return {
        "slide_id": slide.slide_id,
        "path": str(slide.path),
        "slide": {
            "vendor": slide.vendor,
            "backend": slide.backend,
            "mpp": slide.mpp,
            "width": slide.size_l0.w,
            "height": slide.size_l0.h,
            "levels": len(slide.levels),
        },
        "quality": {
            "pen_share": round(shares.pen, 4),
            "blur_share": round(shares.blur, 4),
            "left_out": config.quality.apply,
        },
        "colour": _colour(segmentation),
        "area_mm2": {
            "tissue": round(segmentation.area_mm2(segmentation.tissue), 4),
            "usable": round(segmentation.area_mm2(segmentation.usable), 4),
            "tumour": round(segmentation.area_mm2(segmentation.tumour), 4),
        },
        "counts": {"points": 0 if sampling is None else len(sampling.points)},
        "mask": {"px_l0": segmentation.px_l0, "px_mpp": segmentation.px_mpp},
        "preset": config.preset,
        "config": asdict(config),
        "version": __version__,
        "use": RESEARCH_USE,
    }


def _colour(segmentation: Segmentation) -> dict[str, list[float]]:
    """Mean and standard deviation of red, green and blue over the usable tissue: scanner and stain, not the tumour."""
    pixels = segmentation.thumbnail[segmentation.usable].astype(np.float64)  # (n, 3)
    return {"mean": pixels.mean(axis=0).round(2).tolist(), "spread": pixels.std(axis=0).round(2).tolist()}


def prediction_record(slide: Slide, prediction: Prediction, model: SlideModel, config: Config) -> Record:
    """Everything that `prediction.json` says, except how and when the run was made."""
    record = segmentation_record(slide, prediction.segmentation, config)
    classes = tile_classes(prediction.scores).astype(int)
    per_score = np.bincount(classes, minlength=len(IhcScore)).tolist()
    chosen = np.sort(classes[prediction.selected])
    record["counts"] |= {
        "tiles_without_overlap": prediction.tiling.n_plain,
        "tiles": len(prediction.tiling.grid),
        "unreadable": prediction.n_unreadable,
        "scored": len(prediction.grid),
        "selected": len(prediction.selected),
    }
    return {
        "slide_id": record.pop("slide_id"),
        "status": prediction.status.value,
        "probability": round(prediction.probability, 6),
        "threshold": model.threshold(config),
        **_by_rules(prediction.probability, model.rules),
        "tile_score": str(list(IhcScore)[chosen[(len(chosen) - 1) // 2]]),  # the lower median of those that decided
        "notices": list(model.notices),
        "warnings": warnings(slide, prediction, model, config),
        **record,
        "tiles": {
            "side_px": prediction.grid.side_px,
            "mpp": prediction.grid.mpp,
            "stride_px": prediction.tiling.stride_mask * config.tiling.mask_downsample,
            "per_score": dict(zip([str(s) for s in IhcScore], per_score, strict=True)),
        },
        "weights": [card.summary for card in model.cards.values()],
    }


def _by_rules(probability: float, rules: DecisionRules | None) -> dict[str, Any]:
    """What the rules kept beside the weights make of a probability; nothing where there are none."""
    if rules is None:
        return {}
    found: dict[str, Any] = {}
    if rules.calibration is not None:
        found["calibrated_probability"] = round(float(rules.calibration(probability)), 6)
    if (point := rules.operating_point) is not None:
        found["operating_point"] = {
            name: getattr(point, name) for name in ("budget", "confidence", "n_positive", "chosen_on")
        }
    if (triage := rules.triage) is not None:
        limits = ("rule_out_below", "rule_in_from", "miss_budget", "false_budget", "chosen_on")
        found["triage"] = {"arm": str(triage.arm(probability))} | {name: getattr(triage, name) for name in limits}
    return found


def warnings(slide: Slide, prediction: Prediction, model: SlideModel, config: Config) -> list[str]:
    """What a reader of this result should know before trusting it."""
    found = []
    wanted = model.tile_cnn.card.input.mpp
    if config.tiling.raw_pixels and not is_close_mpp(slide.mpp, wanted):
        found.append(f"level-0 pixels of {slide.mpp:g} µm were used as if they were {wanted:g} µm, as the preset asks")
    elif slide.mpp > wanted and not is_close_mpp(slide.mpp, wanted):
        found.append(f"the slide's {slide.mpp:g} µm/px are coarser than the {wanted:g} that the network was made for")
    if prediction.n_unreadable:
        found.append(f"{prediction.n_unreadable} of {len(prediction.tiling.grid)} tiles could not be decoded")
    if prediction.tiling.n_plain < len(prediction.tiling.grid):
        n_plain, n = prediction.tiling.n_plain, len(prediction.tiling.grid)
        found.append(f"little tumour: its {n_plain} tiles were cut with overlap to {n}")
    segmentation = prediction.segmentation
    shares = quality_shares(segmentation.tissue, segmentation.pen, segmentation.blur)
    for what, share in (("under pen ink", shares.pen), ("out of focus", shares.blur)):
        if share > SPOILT_SHARE:
            found.append(f"{share:.0%} of the tissue is {what}")
    if config.networks.aggregator != "mlp":
        found.append(f"the {config.networks.aggregator} aggregator decides without a probability: 1 is yes, 0 is no")
    if np.array_equal(segmentation.tumour, segmentation.usable):
        found.append("all usable tissue was taken for invasive tumour")
    return found
