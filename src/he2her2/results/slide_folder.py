"""The folder of one slide in a run: it appears whole, its `prediction.json` with it."""

import math
from pathlib import Path

import numpy as np

from he2her2.files import atomic, write_json
from he2her2.geometry import Size
from he2her2.method.raster import thumbnail_on_lattice
from he2her2.method.segmentation import Segmentation
from he2her2.pipeline import Prediction
from he2her2.results.geojson import write_geojson
from he2her2.results.overlay import PICTURE_PX, Caption, draw_overlay
from he2her2.results.rasters import PNG_LEVEL, write_map, write_mask
from he2her2.results.slide_result import RESEARCH_USE, Record
from he2her2.results.tiles_h5 import ScoredTiles, write_tiles
from he2her2.slides import Slide

PREDICTION = "prediction.json"
SEGMENTATION = "segmentation.json"


def write_evidence(folder: Path, slide: Slide, prediction: Prediction, record: Record) -> None:
    """Write a prediction with everything it rests on.

    Raises:
        OutputError: The folder cannot be written; nothing of it is left.
    """
    chosen = np.zeros(len(prediction.grid), bool)
    chosen[prediction.selected] = True
    tiles = ScoredTiles(prediction.grid, prediction.scores, prediction.logits, chosen)
    with atomic(folder) as draft:
        draft.mkdir()
        _write_rasters(draft, prediction.segmentation)
        write_tiles(
            draft / "tiles.h5",
            tiles,
            slide_id=slide.slide_id,
            size_l0=slide.size_l0,
            mpp_l0=slide.mpp,
            overlap_px=prediction.grid.side_px - record["tiles"]["stride_px"],
        )
        _write_geojson(draft, slide, prediction.segmentation, tiles)
        _write_overlay(draft, slide, prediction.segmentation, tiles, record)
        write_json(draft / PREDICTION, record)


def write_segmentation(folder: Path, slide: Slide, segmentation: Segmentation, record: Record) -> None:
    """Write masks and maps only.

    Raises:
        OutputError: The folder cannot be written; nothing of it is left.
    """
    with atomic(folder) as draft:
        draft.mkdir()
        _write_rasters(draft, segmentation)
        _write_geojson(draft, slide, segmentation, None)
        _write_overlay(draft, slide, segmentation, None, record)
        write_json(draft / SEGMENTATION, record)


def _write_rasters(folder: Path, segmentation: Segmentation) -> None:
    for name in ("tissue", "pen", "blur", "tumour"):
        write_mask(folder / f"{name}.png", getattr(segmentation, name))
    if segmentation.sampling is not None:
        write_map(folder / "tumour_map.png", segmentation.sampling.map)


def _write_overlay(
    folder: Path, slide: Slide, segmentation: Segmentation, tiles: ScoredTiles | None, record: Record
) -> None:
    """Draw the overlay; a small slide is read again, finer, for a sharp picture."""
    height, width = segmentation.tissue.shape
    finer = min(math.ceil(PICTURE_PX / max(height, width)), math.floor(segmentation.px_l0))
    photo = None
    if finer > 1:
        photo = thumbnail_on_lattice(slide, segmentation.px_l0 / finer, Size(width * finer, height * finer))
    sheet = draw_overlay(segmentation, tiles, _caption(record), photo)
    sheet.save(folder / "overlay.png", compress_level=PNG_LEVEL)


def _write_geojson(folder: Path, slide: Slide, segmentation: Segmentation, tiles: ScoredTiles | None) -> None:
    write_geojson(folder / "tiles.geojson", segmentation.tumour, segmentation.px_l0, tiles, slide.bounds_origin_l0)


def _caption(record: Record) -> Caption:
    area, quality, counts = record["area_mm2"], record["quality"], record["counts"]
    lines = [
        f"tissue {area['tissue']:.2f} mm², tumour {area['tumour']:.2f} mm²",
        f"pen {quality['pen_share']:.1%}, blur {quality['blur_share']:.1%}",
    ]
    if "status" in record:
        lines.insert(0, f"HER2 {record['status']}, probability {record['probability']:.2f}")
        lines.append(f"{counts['scored']} tiles scored, {counts['selected']} selected")
    return Caption(record["slide_id"], tuple(lines), (*record.get("notices", ()), RESEARCH_USE))
