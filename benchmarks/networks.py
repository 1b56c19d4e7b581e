"""Tile CNNs on the CPU: ONNX Runtime as in prediction, against torch and against plain matrix products."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from threadpoolctl import threadpool_limits

from benchmarks.baselines import in_threads
from benchmarks.measuring import alternate
from benchmarks.phantom_slide import phantom_slide, tile_grid
from benchmarks.released import ReleasedCnn, torch_threads
from benchmarks.results import Found, Setting, Table
from he2her2.geometry import Rgb, Size
from he2her2.models import CnnSpec, Untrained
from he2her2.models.encoders.cnn import PAPER_TILE_CNN, STRIDED_TILE_CNN
from he2her2.models.encoders.pixels import prepare_input
from he2her2.models.export import OPSET, engine_of, session_of
from he2her2.models.onnx_engine import OnnxEngine, new_session, run_rows
from he2her2.models.torch_engine import TorchEngine
from he2her2.models.torch_modules import initial_weights
from he2her2.slides import open_slide, stream_tiles

BATCH = 32
MATRIX = 1536
QUICK_MATRIX = 64
AGREE = 1e-5
PRODUCTS = ("matrix product, NumPy", "matrix product, ONNX Runtime")
"""The faster one is the limit: it differs between processors."""


def measure(setting: Setting) -> Found:
    """Measure tiles per second of each engine, and GFLOP/s against matrix products, on tiles in memory."""
    specs = (STRIDED_TILE_CNN,) if setting.quick else (PAPER_TILE_CNN, STRIDED_TILE_CNN)
    rounds, side = setting.pick(5, 1), setting.pick(MATRIX, QUICK_MATRIX)
    pixels = some_tiles(setting, setting.pick(3 * BATCH, 2))
    figures: dict[str, float] = {}
    raw: dict[str, Any] = {}
    rows: list[tuple[str | float, ...]] = []
    for spec in specs:
        timings = alternate(_candidates(spec, pixels, side), rounds, warm_up=not setting.quick)
        product = gflop(side) / min(map(timings.median, PRODUCTS))
        alone = len(pixels) * gflop_of(spec) / timings.median("network alone, 1 thread")
        engines = [name for name in timings.seconds if name not in PRODUCTS]
        rows += [(f"{spec.name}: {name}", timings.rate(name, len(pixels))) for name in engines]
        rows.append((f"{spec.name}: GFLOP/s of the network alone, of matrix products", f"{alone:.0f}, {product:.0f}"))
        raw[spec.name] = dict(timings.seconds)
        if spec is PAPER_TILE_CNN:
            figures["cnn_vs_eager"] = timings.times_faster("ours, 2 threads", "torch eager one by one, 2 threads")
            figures["cnn_vs_matmul"] = alone / product
    table = Table(f"{len(pixels)} tiles in memory, medians; lightness included except in 'network alone'", (
        "engine", "tiles/s"), tuple(rows))  # fmt: skip
    return Found(figures, (table,), raw)


def some_tiles(setting: Setting, n: int) -> Rgb:
    """Read tiles of the phantom, (n, 256, 256, 3)."""
    path = phantom_slide(setting, Size(2048, 2048))
    grid = tile_grid(8, 8)
    with open_slide(path) as slide, stream_tiles(slide, grid, batch_size=len(grid)) as stream:
        tiles = next(stream).pixels
    return np.ascontiguousarray(tiles[np.arange(n) % len(tiles)])


def _candidates(spec: CnnSpec, pixels: Rgb, side: int) -> dict[str, Callable[[], object]]:
    ours = engine_of(Untrained(spec, 0).card, initial_weights(spec, 0))
    by_torch = TorchEngine(ours.card, initial_weights(spec, 0), "cpu")
    n, few = len(pixels), pixels[:2]
    session, prepared = session_of(spec, initial_weights(spec, 0)), prepare_input(pixels, spec.input)
    matrices = [np.random.default_rng(i).random((side, side), np.float32) for i in range(2)]
    found: dict[str, Callable[[], object]] = {
        "ours, 1 thread": partial(in_threads, partial(_in_batches, ours, pixels), n, 1),
        "ours, 2 threads": partial(in_threads, partial(_in_batches, ours, pixels), n, 2),
        "torch, channels-last, batches of 8, 2 threads": partial(_by_torch, by_torch, pixels, 2),
        "network alone, 1 thread": partial(_alone, session, prepared),
        "matrix product, NumPy": partial(_product, *matrices),
        "matrix product, ONNX Runtime": partial(_product_by_ort(), matrices),
    }
    expected = ours(few)
    assert np.abs(by_torch(few) - expected).max() <= AGREE * max(1.0, float(np.abs(expected).max()))
    if not spec.global_pool:
        released = ReleasedCnn(spec)
        assert np.abs(np.stack([released(tile) for tile in few]) - expected).max() <= AGREE * np.abs(expected).max()
        for threads in (1, 2):
            found[f"torch eager one by one, {threads} thread{'s' * (threads > 1)}"] = partial(
                _one_by_one, released, pixels, threads
            )
    return found


def _in_batches(engine: OnnxEngine, pixels: Rgb, positions: range) -> None:
    for start in range(positions.start, positions.stop, BATCH):
        engine(pixels[start : min(start + BATCH, positions.stop)])


def _by_torch(engine: TorchEngine, pixels: Rgb, threads: int) -> None:
    with torch_threads(threads):
        for start in range(0, len(pixels), 8):
            engine(pixels[start : start + 8])


def _one_by_one(network: ReleasedCnn, pixels: Rgb, threads: int) -> None:
    with torch_threads(threads):
        for tile in pixels:
            network(tile)


def _alone(session: Any, prepared: NDArray[np.float32]) -> None:  # noqa: ANN401  onnxruntime is untyped
    for start in range(0, len(prepared), BATCH // 2):
        run_rows(session, prepared[start : start + BATCH // 2])


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    with threadpool_limits(1):
        a @ b


def _product_by_ort() -> Callable[[list[NDArray[np.float32]]], object]:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["m", "n"]) for name in ("a", "b", "ab")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["ab"])], "product", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    session = new_session(model.SerializeToString())
    return lambda matrices: session.run(None, dict(zip("ab", matrices, strict=True)))


def gflop(side: int) -> float:
    """Billions of operations in the product of two square matrices."""
    return 2 * side**3 / 1e9


def gflop_of(spec: CnnSpec) -> float:
    """Billions of operations of a network on a tile, in its convolutions and matrix products.

    Example:
        >>> round(gflop_of(PAPER_TILE_CNN), 3)
        0.493
    """
    channels = (spec.input.n_channels, *(conv.channels for conv in spec.convs))
    convs = sum(
        convolved**2 * conv.kernel**2 * n_in * conv.channels
        for n_in, conv, (convolved, _) in zip(channels, spec.convs, spec.stage_sides, strict=False)
    )
    widths = spec.dense_widths
    return 2 * (convs + sum(a * b for a, b in pairwise(widths))) / 1e9
