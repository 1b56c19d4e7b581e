"""What runs the networks: the same numbers whatever the engine, the batch or the number of threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from he2her2.config import load_config
from he2her2.errors import ConfigError
from he2her2.models import (
    CNNS,
    CnnSpec,
    Colour,
    HalfTurnedEngine,
    InputSpec,
    Untrained,
    load_cnn,
    load_engine,
    torch_engine,
)
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, PAPER_TILE_CNN, STRIDED_TILE_CNN, Conv
from he2her2.models.encoders.pixels import prepare_input
from he2her2.models.engines import resolve_device
from he2her2.models.onnx_engine import OnnxEngine
from he2her2.models.torch_engine import TorchEngine, prepare_on_device
from he2her2.models.torch_modules import initial_weights

SPECS = [COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN, PAPER_TILE_CNN, CNNS["released-tile-cnn"]]
YUV_SPEC = CnnSpec(
    name="paper-tumour-cnn",
    role="tumour_cnn",
    input=InputSpec(0.25, 96, 31, "yuv"),
    convs=(Conv(8, kernel=8, pool="l2"),),
    global_pool=False,
    hidden=(16,),
    classes=("other", "invasive"),
)


def tiles_for(spec, n):
    """Tiles that differ: noise of growing strength around a growing grey."""
    generator, side = np.random.default_rng(1), spec.input.side_px
    noise = generator.integers(0, 100, (n, side, side, 3))
    return (noise * np.linspace(0.2, 1, n)[:, None, None, None] + np.linspace(0, 150, n)[:, None, None, None]).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def compact():
    return load_engine(Untrained(STRIDED_TILE_CNN, seed=1), STRIDED_TILE_CNN.role, "cpu")


def test_nobody_is_told_that_networks_run():
    """ONNX Runtime from 1.32 on wrote to its makers over the network, and a device's name into the user's cache."""
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


RELEASED_YUV_SPEC = replace(YUV_SPEC, input=replace(YUV_SPEC.input, colour="yuv-uint8"))


@pytest.mark.parametrize(
    "spec", [*SPECS, YUV_SPEC, RELEASED_YUV_SPEC], ids=lambda spec: f"{spec.name}-{spec.input.colour}"
)
def test_both_engines_give_the_same_logits(spec):
    """ONNX Runtime and torch on the CPU agree within 1e-5, and in the class, from the pixels on."""
    source, tiles = Untrained(spec, seed=1), tiles_for(spec, 5)

    expected = TorchEngine(source.card, initial_weights(spec, seed=1), "cpu")(tiles)
    logits = load_engine(source, spec.role, "cpu")(tiles)

    assert np.abs(expected - logits).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert np.array_equal(expected.argmax(axis=1), logits.argmax(axis=1))
    assert np.ptp(logits, axis=0).min() > 1e-4  # tiles differ, so agreement means something


@pytest.mark.parametrize("colour", ["lightness", "lightness-uint8", "rgb", "yuv", "yuv-uint8", "haematoxylin-dab"])
def test_the_device_prepares_tiles_as_numpy_does(colour):
    """Lightness, scaling and YUV on the device are those of the pure function."""
    tiles = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)

    expected = prepare_input(tiles, InputSpec(1.0, 16, 16, colour))
    prepared = prepare_on_device(torch.from_numpy(tiles), colour)

    assert prepared.dtype == torch.float32
    assert np.allclose(expected, prepared.numpy(), atol=1e-6)


def test_the_device_rounds_8_bits_as_numpy_and_pillow_do():
    """Of every pair of maximum and minimum, and of a million colours for YUV, the very same bytes."""
    pairs = np.stack([*np.meshgrid(np.arange(256), np.arange(256)), np.zeros((256, 256), int)], axis=-1)
    pairs[..., 2] = pairs[..., :2].max(axis=-1)
    drawn = np.random.default_rng(0).integers(0, 256, (1, 1024, 1024, 3), dtype=np.uint8)

    wanted: tuple[Colour, ...] = ("lightness-uint8", "yuv-uint8")
    for pixels, colour in zip((pairs.astype(np.uint8)[None], drawn), wanted, strict=True):
        spec = InputSpec(1.0, pixels.shape[1], pixels.shape[1], colour)
        found = prepare_on_device(torch.from_numpy(pixels), colour)
        assert np.array_equal(np.rint(255 * prepare_input(pixels, spec)), np.rint(255 * found.numpy()))


def test_mixed_precision_is_near():
    """The faster kind of arithmetic may differ in the third digit, not more."""
    source, tiles = Untrained(STRIDED_TILE_CNN, seed=1), tiles_for(STRIDED_TILE_CNN, 4)
    weights = initial_weights(STRIDED_TILE_CNN, seed=1)
    exact = TorchEngine(source.card, weights, "cpu")(tiles)

    mixed = TorchEngine(source.card, weights, "cpu", mixed_precision=True)(tiles)

    assert mixed.dtype == np.float32
    assert not np.array_equal(exact, mixed)
    assert np.abs(exact - mixed).max() < 5e-3


@pytest.mark.parametrize("spec", [COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN, PAPER_TILE_CNN], ids=lambda spec: spec.name)
def test_a_tiles_logits_do_not_depend_on_the_batch(spec):
    """Bit for bit: soft-argmax at beta = 1000 would make the smallest difference visible."""
    engine, tiles = load_engine(Untrained(spec, seed=1), spec.role, "cpu"), tiles_for(spec, 7)
    together = engine(tiles)

    for size in (1, 2, 3, 5):
        parts = [engine(tiles[start : start + size]) for start in range(0, len(tiles), size)]
        assert np.array_equal(together, np.concatenate(parts)), f"batches of {size}"


@pytest.mark.parametrize("spec", [COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN], ids=lambda spec: spec.name)
def test_what_is_seen_from_both_sides_does_not_depend_on_the_side(spec):
    """The mean of a tile's logits and the turned tile's: which of the two lay on the glass is one and the same."""
    engine, tiles = load_engine(Untrained(spec, seed=1), spec.role, "cpu"), tiles_for(spec, 5)
    turned = np.rot90(tiles, 2, axes=(1, 2))

    logits = HalfTurnedEngine(engine)(tiles)

    assert logits.dtype == np.float32
    assert np.array_equal(logits, HalfTurnedEngine(engine)(turned))
    assert np.allclose(logits, np.mean([engine(tiles), engine(np.ascontiguousarray(turned))], axis=0), atol=1e-6)
    assert not np.array_equal(logits, engine(tiles))


@given(order=st.permutations(range(6)))
def test_a_tiles_logits_do_not_depend_on_its_neighbours(compact, order):
    """Shuffled tiles give shuffled logits, bit for bit."""
    tiles = tiles_for(STRIDED_TILE_CNN, 6)

    assert np.array_equal(compact(tiles)[order], compact(tiles[order]))


def test_large_batches_are_cut(compact, monkeypatch):
    """However many tiles come at once, few of them are in the network at a time, and the logits are the same."""
    tiles, sizes = tiles_for(STRIDED_TILE_CNN, 7), []
    expected = compact(tiles)

    def counted(pixels, spec):
        sizes.append(len(pixels))
        return prepare_input(pixels, spec)

    monkeypatch.setattr(compact, "_max_rows", 3)
    monkeypatch.setattr("he2her2.models.onnx_engine.prepare_input", counted)

    assert np.array_equal(expected, compact(tiles))
    assert sizes == [3, 3, 1]


def test_torch_cuts_large_batches_too(monkeypatch):
    """The same for torch, within rounding."""
    engine = TorchEngine(Untrained(YUV_SPEC, 1).card, initial_weights(YUV_SPEC, seed=1), "cpu")
    tiles = tiles_for(YUV_SPEC, 5)
    expected = engine(tiles)
    monkeypatch.setattr(torch_engine, "_MAX_ROWS", 2)

    assert np.allclose(expected, engine(tiles), atol=1e-6)


def test_threads_may_call_at_once(compact):
    """Four threads on one engine get what one thread gets."""
    tiles = tiles_for(STRIDED_TILE_CNN, 8)
    expected = compact(tiles)

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: compact(tiles[start : start + 2]), [0, 2, 4, 6] * 4))

    assert np.array_equal(np.concatenate([expected] * 4), np.concatenate(parts))


def test_no_tiles_give_no_logits(compact):
    """An empty batch is no special case."""
    assert compact(tiles_for(STRIDED_TILE_CNN, 1)[:0]).shape == (0, 4)


def test_tiles_of_another_size_are_refused(compact):
    """The caller must read what the card says."""
    with pytest.raises(ValueError, match=r"tiles must be \(n, 256, 256, 3\) uint8"):
        compact(np.zeros((1, 128, 128, 3), np.uint8))


def test_engines_load_no_library_before_one_is_built():
    """Importing the engines loads neither torch nor ONNX; building the CPU's loads no torch."""
    code = (
        "import sys\n"
        "from he2her2 import models\n"
        "heavy = {'torch', 'onnx', 'onnxruntime'}\n"
        "assert not heavy & sys.modules.keys()\n"
        "models.load_engine(models.trained_folder('bundled') / 'tumour_cnn', 'tumour_cnn', 'cpu')\n"
        "assert heavy & sys.modules.keys() == {'onnx', 'onnxruntime'}\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    """Without a GPU, ONNX Runtime runs."""
    monkeypatch.setattr("he2her2.models.engines._may_have_gpu", lambda: True)
    monkeypatch.setattr(torch_engine, "available_devices", lambda: ())

    engine = load_engine(Untrained(COMPACT_TUMOUR_CNN, 0), "tumour_cnn", "auto")

    assert isinstance(engine, OnnxEngine)


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    """With torch and a GPU, the GPU is used."""
    monkeypatch.setattr("he2her2.models.engines._may_have_gpu", lambda: True)
    monkeypatch.setattr(torch_engine, "available_devices", lambda: ("cuda", "mps"))

    assert resolve_device("auto") == "cuda"
    assert resolve_device("mps") == "mps"


def test_a_gpu_without_torch_is_refused(monkeypatch):
    """The message says what to install."""
    monkeypatch.setattr("he2her2.models.engines.find_spec", lambda _: None)

    assert resolve_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"device cuda: needs torch; pip install 'he2her2\[train\]'"):
        resolve_device("cuda")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    """The message says what there is."""
    monkeypatch.setattr(torch_engine, "available_devices", lambda: ())

    with pytest.raises(ConfigError, match="device cuda: torch finds none here; use --device cpu"):
        resolve_device("cuda")
    for other in ("gpu", "cuda:0"):
        with pytest.raises(ValueError, match=f"device must be one of auto, cpu, cuda, mps, got {other}"):
            resolve_device(other)  # type: ignore[arg-type]


def test_mixed_precision_is_for_gpus(monkeypatch):
    """Asked for on the CPU it is refused; on a GPU the engine is told."""
    told: dict[str, object] = {}

    class Told:
        def __init__(self, _card, _weights, device, *, mixed_precision):
            told.update(device=device, mixed=mixed_precision)

    monkeypatch.setattr(torch_engine, "TorchEngine", Told)
    monkeypatch.setattr(torch_engine, "available_devices", lambda: ("cuda",))

    with pytest.raises(ConfigError, match=r"precision mixed: is for GPUs, .*; use --precision full"):
        load_engine(Untrained(COMPACT_TUMOUR_CNN, 0), "tumour_cnn", "cpu", "mixed")
    load_engine(Untrained(COMPACT_TUMOUR_CNN, 0), "tumour_cnn", "cuda", "mixed")

    assert told == {"device": "cuda", "mixed": True}


def test_full_precision_keeps_every_bit():
    """Convolutions on a GPU would round to TF32 by torch's own default."""
    weights = initial_weights(COMPACT_TUMOUR_CNN, seed=0)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        TorchEngine(Untrained(COMPACT_TUMOUR_CNN, 0).card, weights, "cpu")

        assert not torch.backends.cudnn.allow_tf32


def test_the_settings_say_where_networks_run(monkeypatch):
    """`runtime.device` and `runtime.precision` reach every CNN of a model."""
    asked = []
    monkeypatch.setattr("he2her2.models.slide_model.load_engine", lambda _, role, *how: asked.append((role, *how)))
    runtime = ("runtime.device=cuda", "runtime.precision=mixed")

    load_cnn("untrained:0", "tile_cnn", load_config(overrides=runtime))
    load_cnn("untrained:0", "tumour_cnn", load_config(overrides=runtime), "cpu")

    assert asked == [("tile_cnn", "cuda", "mixed"), ("tumour_cnn", "cpu", "mixed")]


@pytest.mark.skipif(not torch_engine.available_devices(), reason="no GPU here")
def test_the_gpu_gives_the_cpus_logits():
    """A GPU's logits are those of the CPU."""
    spec = STRIDED_TILE_CNN
    source, tiles = Untrained(spec, seed=1), tiles_for(spec, 5)

    logits = load_engine(source, spec.role, torch_engine.available_devices()[0])(tiles)

    assert np.allclose(load_engine(source, spec.role, "cpu")(tiles), logits, atol=1e-5)
