"""`he2her2 features` on the CPU: from a slide to its file of features, against reading alone and the encoder alone."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.baselines import in_threads
from benchmarks.measuring import Timings, alternate
from benchmarks.networks import some_tiles
from benchmarks.phantom_slide import phantom_slide, tile_grid
from benchmarks.reading import read_stream
from benchmarks.results import Found, Setting, Table
from he2her2.config import Runtime
from he2her2.exchange import StoredTiles, write_trident
from he2her2.geometry import Rgb, Size, TileGrid
from he2her2.method import encode
from he2her2.models import TILE_CNN, Encoder, export_lite0, load_encoder, trained_folder
from he2her2.phantom import TILE_PX
from he2her2.slides import open_slide

OURS, READING, ALONE = "features", "reading alone", "encoder alone"
LITE0 = "efficientnet-lite0"
_TWO_CORES = Runtime(threads=2, batch_size=32)


def measure(setting: Setting) -> Found:
    """Measure tiles per second of each encoder end to end, with the file written, and the share of the slower limit.

    Reading and encoding share the cores. An encoder that is about as fast as reading cannot run as if it were alone,
    nor can reading; the bar is about one that is slower, as all modern ones are.
    """
    return compare(setting, _encoders(setting), _TWO_CORES, setting.pick(16, 2), ("features_vs_slower", LITE0))


def compare(
    setting: Setting, encoders: Mapping[str, Encoder], runtime: Runtime, side: int, bar: tuple[str, str]
) -> Found:
    """Measure encoders on a slide of side x side tiles; `bar` is its key and the encoder that it is about."""
    path = phantom_slide(setting, Size((side + 1) * TILE_PX, (side + 1) * TILE_PX))
    grid = tile_grid(side, side)
    figures, raw, rows = {}, {}, []
    for name, encoder in encoders.items():
        candidates = _candidates(setting, path, grid, encoder, runtime)
        timings = alternate(candidates, setting.pick(5, 1), warm_up=not setting.quick)
        figures[f"features_{name}"] = share_of_slower(timings)
        rows += [(f"{name}: {what}", timings.rate(what, len(grid))) for what in timings.seconds]
        raw[name] = dict(timings.seconds)
    key, encoder_of_bar = bar
    if encoder_of_bar in raw:
        figures[key] = figures[f"features_{encoder_of_bar}"]
    title = f"{len(grid)} tiles of {TILE_PX} px, {runtime.threads} threads, medians of rounds in turns"
    return Found(figures, (Table(title, ("what", "tiles/s"), tuple(rows)),), {"tiles": len(grid), **raw})


def share_of_slower(timings: Timings) -> float:
    """Speed end to end relative to the slower of reading alone and the encoder alone."""
    return timings.times_faster(OURS, max((READING, ALONE), key=timings.median))


def _encoders(setting: Setting) -> dict[str, Encoder]:
    """The tile CNN, and EfficientNet-Lite0 where its packages are installed; both see tiles of 256 px."""
    found = {TILE_CNN: load_encoder(TILE_CNN, trained_folder("bundled"), "cpu")}
    if not setting.quick and find_spec("efficientnet_lite_pytorch") and find_spec("torch"):
        folder = setting.work / LITE0
        if not folder.is_dir():
            export_lite0(folder, 0.25, TILE_PX)
        found[LITE0] = load_encoder(str(folder), None, "cpu")
    return found


def _candidates(
    setting: Setting, path: Path, grid: TileGrid, encoder: Encoder, runtime: Runtime
) -> dict[str, Callable[[], object]]:
    batch, threads = runtime.batch_size, runtime.threads
    again = partial(_encode_again, encoder, some_tiles(setting, batch), batch)
    return {
        OURS: partial(extract, path, grid, encoder, runtime, setting.work / "features.h5"),
        READING: partial(read_stream, path, grid, threads),
        ALONE: partial(in_threads, again, len(grid), threads),
    }


def extract(path: Path, grid: TileGrid, encoder: Encoder, runtime: Runtime, out: Path) -> None:
    """Encode a slide's tiles and write their file, as `features` does."""
    with open_slide(path) as slide:
        readable, features = encode(slide, grid, encoder, runtime)
        corners = grid.origins_l0[readable].astype(np.int64)
        tiles = StoredTiles(slide.slide_id, corners, side=grid.side_l0, side_px=grid.side_px, features=features)
        write_trident(out, tiles)


def _encode_again(encoder: Encoder, tiles: Rgb, batch: int, positions: range) -> None:
    """Encode tiles in memory, one for each position."""
    for start in range(positions.start, positions.stop, batch):
        encoder(tiles[: min(batch, positions.stop - start)])
