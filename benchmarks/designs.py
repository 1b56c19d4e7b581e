"""Scoring a slide's tiles from end to end: `predict`, other designs and the released code. Needs the train extra."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
import onnxruntime
import openslide
from numpy.typing import NDArray

from benchmarks.baselines import in_threads, region
from benchmarks.measuring import Timings, alternate
from benchmarks.networks import some_tiles
from benchmarks.phantom_slide import phantom_slide, tile_grid
from benchmarks.reading import read_stream
from benchmarks.released import ReleasedCnn, torch_threads
from benchmarks.results import Found, Setting, Table
from he2her2.config import Config, Runtime
from he2her2.geometry import Rgb, Size, TileGrid
from he2her2.method import infer
from he2her2.models import CnnSpec, Untrained
from he2her2.models.encoders.cnn import PAPER_TILE_CNN, STRIDED_TILE_CNN
from he2her2.models.encoders.pixels import prepare_input
from he2her2.models.export import engine_of as engine_of_weights
from he2her2.models.export import save_weights
from he2her2.models.onnx_engine import OnnxEngine
from he2her2.models.torch_modules import initial_weights
from he2her2.phantom import TILE_PX
from he2her2.slides import TileBatch, map_tiles, open_slide, stream_tiles

THREADS = 2
BATCH = 32
OURS = "2 symmetric threads (ours)"
LIMITS = ("reading alone", "CNN alone")
RELEASED = "released way: OpenSlide, torch eager, one by one"

Logits = NDArray[np.float32]


def measure(setting: Setting) -> Found:
    """Measure tiles per second of every design on the paper's CNN, and `predict`'s share of its limits on both CNNs.

    The bar is about the paper's CNN, beside which reading takes no time. The strided one is so fast that reading and
    it, which share the cores, cannot each run as if it were alone.
    """
    side = setting.pick(20, 3)
    path = phantom_slide(setting, Size((side + 1) * TILE_PX, (side + 1) * TILE_PX))
    grid = tile_grid(side, side)
    rounds = setting.pick(5, 1)
    spec = STRIDED_TILE_CNN if setting.quick else PAPER_TILE_CNN
    with processes(path, spec, grid) if not setting.quick else no_processes() as rival:
        timings = alternate(_rivals(setting, path, grid, spec) | rival, rounds, warm_up=not setting.quick)
    limits = {spec.name: timings}
    if not setting.quick:
        compact = STRIDED_TILE_CNN
        found = {OURS: partial(score_ours, path, grid, engine_of(compact))}
        limits[compact.name] = alternate(found | _limits(setting, path, grid, compact), rounds)
    shares = {name: share_of_slower(found) for name, found in limits.items()}
    figures = {"share_of_slower": shares[spec.name]} | {f"share_{name}": share for name, share in shares.items()}
    if RELEASED in timings.seconds:
        figures["slide_vs_released"] = timings.times_faster(OURS, RELEASED)
    tables = tuple(_table(name, found, len(grid)) for name, found in limits.items())
    return Found(figures, tables, {"tiles": len(grid), **{n: dict(t.seconds) for n, t in limits.items()}})


def engine_of(spec: CnnSpec) -> OnnxEngine:
    """Load the CNN that prediction would run; its weights do not matter here."""
    return engine_of_weights(Untrained(spec, 0).card, initial_weights(spec, 0))


def share_of_slower(timings: Timings) -> float:
    """Speed of `predict` relative to the slower of reading alone and the CNN alone."""
    slower = max(LIMITS, key=timings.median)
    return timings.times_faster(OURS, slower)


def _rivals(setting: Setting, path: Path, grid: TileGrid, spec: CnnSpec) -> dict[str, Callable[[], object]]:
    engine, wide = engine_of(spec), wide_session(spec)
    found: dict[str, Callable[[], object]] = {}
    if not spec.global_pool:
        found[RELEASED] = partial(score_released, path, grid, ReleasedCnn(spec))
    return found | {
        "in sequence: read, then a session of 2 threads": partial(score_in_sequence, path, grid, wide, spec),
        "1 prefetch thread and a session of 2 threads": partial(score_prefetched, path, grid, wide, spec),
        OURS: partial(score_ours, path, grid, engine),
        **_limits(setting, path, grid, spec),
    }


def _limits(setting: Setting, path: Path, grid: TileGrid, spec: CnnSpec) -> dict[str, Callable[[], object]]:
    tiles = some_tiles(setting, 2 * BATCH)
    return {
        LIMITS[0]: partial(read_stream, path, grid, THREADS),
        LIMITS[1]: partial(in_threads, partial(_score_again, engine_of(spec), tiles), len(grid), THREADS),
    }


def _score_again(engine: OnnxEngine, tiles: Rgb, positions: range) -> None:
    """Score tiles in memory, one for each position."""
    for start in range(positions.start, positions.stop, BATCH):
        n = min(BATCH, positions.stop - start)
        engine(tiles[:n])


def score_ours(path: Path, grid: TileGrid, engine: OnnxEngine) -> Logits:
    """Score tiles as `predict` does."""
    config = Config(runtime=Runtime(threads=THREADS, batch_size=BATCH))
    with open_slide(path) as slide:
        return infer(slide, grid, engine, config.runtime)[1]


def score_released(path: Path, grid: TileGrid, network: ReleasedCnn) -> Logits:
    """Score tile by tile with OpenSlide and torch; torch uses all cores."""
    with openslide.OpenSlide(path) as slide, torch_threads(THREADS):
        return np.stack([network(region(slide, origin, grid.side_px)) for origin in grid.origins_l0.tolist()])


def wide_session(spec: CnnSpec) -> onnxruntime.InferenceSession:
    """Make a session that uses several threads for each batch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    with TemporaryDirectory() as folder:
        save_weights(Path(folder) / "cnn", Untrained(spec, 0).card, initial_weights(spec, 0))
        file = str(Path(folder) / "cnn" / "model.onnx")
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, pixels: Rgb, spec: CnnSpec) -> Logits:
    logits: Logits = session.run(None, {"input": prepare_input(pixels, spec.input)})[0]
    return logits


def score_in_sequence(path: Path, grid: TileGrid, session: Any, spec: CnnSpec) -> Logits:  # noqa: ANN401  untyped
    """Read a batch, score it, read the next."""
    found = []
    with open_slide(path) as slide:
        for start in range(0, len(grid), BATCH):
            some = grid.take(np.arange(start, min(start + BATCH, len(grid))))
            with stream_tiles(slide, some, batch_size=BATCH) as stream:
                found += [_run(session, batch.pixels, spec) for batch in stream]
    return np.concatenate(found)


def score_prefetched(path: Path, grid: TileGrid, session: Any, spec: CnnSpec) -> Logits:  # noqa: ANN401  untyped
    """Read ahead in one thread, score in the caller."""
    queue: Queue[TileBatch | None] = Queue(maxsize=3)

    def read() -> None:
        with open_slide(path) as slide, stream_tiles(slide, grid, batch_size=BATCH) as stream:
            for batch in stream:
                queue.put(batch)
        queue.put(None)

    reader = Thread(target=read)
    reader.start()
    found = [_run(session, batch.pixels, spec) for batch in iter(queue.get, None)]
    reader.join()
    return np.concatenate(found)


@contextmanager
def processes(path: Path, spec: CnnSpec, grid: TileGrid) -> Iterator[dict[str, Callable[[], object]]]:
    """Start processes with a slide and a session each, before the clock starts."""
    parts = [grid.take(part) for part in np.array_split(np.arange(len(grid)), THREADS)]
    with ProcessPoolExecutor(THREADS, get_context("spawn"), initializer=_begin, initargs=(path, spec)) as pool:
        yield {"2 symmetric processes": partial(_in_processes, pool, parts)}


@contextmanager
def no_processes() -> Iterator[dict[str, Callable[[], object]]]:
    """None."""
    yield {}


_mine: dict[str, Any] = {}


def _begin(path: Path, spec: CnnSpec) -> None:
    _mine.update(slide=open_slide(path), engine=engine_of(spec))


def _in_processes(pool: Executor, parts: list[TileGrid]) -> Logits:
    return np.concatenate(list(pool.map(_my_part, parts)))


def _my_part(grid: TileGrid) -> Logits:
    with map_tiles(_mine["slide"], grid, lambda batch: _mine["engine"](batch.pixels), batch_size=BATCH) as stream:
        return np.concatenate(list(stream))


def _table(name: str, timings: Timings, n: int) -> Table:
    slower = max(LIMITS, key=timings.median)
    rows = [(what, timings.rate(what, n), timings.times_faster(what, slower)) for what in timings.seconds]
    both = sum(timings.median(what) for what in LIMITS)
    rows.append(("reading, then the CNN, on the same cores", n / both, timings.median(slower) / both))
    return Table(f"{name}, {n} tiles, {THREADS} threads", ("design", "tiles/s", f"share of {slower}"), tuple(rows))
