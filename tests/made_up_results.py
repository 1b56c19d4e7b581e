"""Results of slides that nobody looked at, for tests of what writes and reads them."""

from collections.abc import Sequence
from dataclasses import replace

from he2her2.config import Config
from he2her2.labels import Her2Status
from he2her2.results import Her2Finding, SlideResult, result_of_record

RECORD = {
    "slide_id": "a",
    "path": "a.svs",
    "slide": {"vendor": "aperio", "backend": "tiff", "mpp": 0.25, "width": 40_000, "height": 40_000, "levels": 1},
    "quality": {"pen_share": 0.0, "blur_share": 0.0, "left_out": True},
    "colour": {"mean": [200.0, 150.0, 190.0], "spread": [20.0, 25.0, 22.0]},
    "area_mm2": {"tissue": 1.0, "usable": 1.0, "tumour": 0.5},
    "counts": {"points": 0},
    "mask": {"px_l0": 32.0, "px_mpp": 8.0},
    "preset": "default",
    "config": {},
    "version": "0",
    "use": "research use only",
}
"""The fewest keys of a segmentation's JSON."""


def made_up_result(**changes) -> SlideResult:
    """A segmentation's result, with changes."""
    return replace(result_of_record(RECORD), **changes)


def made_up_her2(
    probability: float, per_score: Sequence[int] = (5, 5, 5, 5), threshold: float = 0.5, tile_score: str = "1+"
) -> Her2Finding:
    """The HER2 finding of a probability."""
    tiles = {
        "side_px": 256,
        "mpp": 0.25,
        "stride_px": 256,
        "per_score": dict(zip(("0", "1+", "2+", "3+"), per_score, strict=True)),
    }
    record: dict[str, object] = RECORD | {
        "status": Her2Status.POSITIVE if probability >= threshold else Her2Status.NEGATIVE,
        "probability": probability,
        "threshold": threshold,
        "tile_score": tile_score,
        "warnings": [],
        "tiles": tiles,
        "weights": [],
        "config": Config(),
    }
    found = result_of_record(record).her2
    assert found is not None
    return found
