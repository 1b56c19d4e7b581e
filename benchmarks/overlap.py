"""Small tumours: overlapping tiles scored together in squares, as in prediction, against one by one."""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.designs import BATCH, THREADS, engine_of, score_ours
from benchmarks.measuring import alternate
from benchmarks.phantom_slide import phantom_slide, tile_grid
from benchmarks.results import Found, Setting, Table
from he2her2.geometry import Size, TileGrid
from he2her2.models.encoders.cnn import PAPER_TILE_CNN, STRIDED_TILE_CNN
from he2her2.models.onnx_engine import OnnxEngine
from he2her2.phantom import TILE_PX
from he2her2.slides import map_tiles, open_slide

STRIDES = (32, 64, 128, 192)
EXTENT_PX = 2048
"""Side of the tumour."""


def measure(setting: Setting) -> Found:
    """Measure tiles per second of both ways, at every stride, on both tile CNNs."""
    path = phantom_slide(setting, Size(EXTENT_PX + TILE_PX, EXTENT_PX + TILE_PX))
    rows: list[tuple[str | float, ...]] = []
    figures = {}
    for spec in (STRIDED_TILE_CNN,) if setting.quick else (STRIDED_TILE_CNN, PAPER_TILE_CNN):
        for stride in STRIDES[1:2] if setting.quick else STRIDES:
            along = setting.pick((EXTENT_PX - TILE_PX) // stride + 1, 4)
            grid, engine = tile_grid(along, along, stride=stride), engine_of(spec)
            candidates = {
                "one by one": partial(score_one_by_one, path, grid, engine),
                "together": partial(score_ours, path, grid, engine),
            }
            timings = alternate(candidates, setting.pick(3, 1), warm_up=not setting.quick)
            gain = timings.times_faster("together", "one by one")
            rates = (timings.rate(name, len(grid)) for name in candidates)
            rows.append((spec.name, f"{stride} px", len(grid), *rates, f"x{gain:.3g}"))
            figures[f"gain_{spec.name}_{stride}"] = gain
    header = ("network", "stride", "tiles", "one by one, tiles/s", "together, tiles/s", "gain")
    return Found(figures, (Table(f"A tumour of {EXTENT_PX} px, {THREADS} threads", header, tuple(rows)),))


def score_one_by_one(path: Path, grid: TileGrid, engine: OnnxEngine) -> np.ndarray:
    """Score every tile by itself."""
    with (
        open_slide(path) as slide,
        map_tiles(slide, grid, lambda batch: engine(batch.pixels), batch_size=BATCH, threads=THREADS) as stream,
    ):
        return np.concatenate([*stream])
