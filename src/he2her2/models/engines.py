"""Engines: ONNX Runtime on the CPU, torch on a GPU. Neither is loaded until an engine is built."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ConfigError
from he2her2.geometry import Rgb
from he2her2.models.card import UNTRAINED_NOTICE, Card, Spec
from he2her2.models.encoders import CnnRole, CnnSpec
from he2her2.models.signature import Arrays
from he2her2.models.weights import load_tensors, read_card, verify

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
"""Device of a CNN; `auto` takes a GPU where there is one and torch is installed."""

Precision: TypeAlias = Literal["full", "mixed"]
"""Arithmetic of a GPU: 32 bits throughout, or 16 where that is safe."""

_HALF = np.float32(0.5)


class Engine(Protocol):
    """A CNN that is ready to run; several threads may call it at once."""

    @property
    def card(self) -> Card:
        """About the network."""

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Logits (n, k) of (n, h, w, 3) tiles; each tile's do not depend on the others.

        Raises:
            ValueError: The tiles are not of the size that the card says.
        """

    def windows(self, picture: Rgb, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of tiles of one larger picture, whose convolutions are computed once for all of them.

        Args:
            picture: (s, s, 3).
            corners: (n, 2) top-left (x, y) of the tiles in it, multiples of the network's `window_step`.

        Returns:
            (n, k), those of the cut-out tiles but for rounding.
        """


@dataclass(frozen=True, slots=True)
class Untrained:
    """A CNN whose weights are drawn from a seed."""

    spec: CnnSpec
    seed: int

    @property
    def card(self) -> Card:
        """Its card, which says that it is untrained."""
        return Card(self.spec, trained=False, notice=UNTRAINED_NOTICE, seed=self.seed)

    def weights(self) -> Arrays:
        """Draw its weights; errors are those of `untrained_weights`."""
        return untrained_weights(self.spec, self.seed)


@dataclass(frozen=True, slots=True, eq=False)
class RecolouredEngine:
    """A CNN that sees tiles in other colours.

    Attributes:
        engine: The CNN.
        change: Of each pixel by its own colour alone.
    """

    engine: Engine
    change: Callable[[Rgb], Rgb]

    @property
    def card(self) -> Card:
        """About the network."""
        return self.engine.card

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Logits of recoloured tiles; see `Engine`."""
        return self.engine(self.change(pixels))

    def windows(self, picture: Rgb, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of tiles of a recoloured picture; see `Engine`."""
        return self.engine.windows(self.change(picture), corners)


def recoloured(engine: Engine, change: Callable[[Rgb], Rgb] | None) -> Engine:
    """The engine behind a change of colours; None is no change."""
    return engine if change is None else RecolouredEngine(engine, change)


@dataclass(frozen=True, slots=True, eq=False)
class HalfTurnedEngine:
    """A CNN that sees each tile as it is and turned by 180°, and answers with the mean of both.

    Attributes:
        engine: The CNN.
    """

    engine: Engine

    @property
    def card(self) -> Card:
        """About the network."""
        return self.engine.card

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Mean logits of tiles and turned tiles; see `Engine`."""
        turned = np.ascontiguousarray(pixels[:, ::-1, ::-1])
        return (self.engine(pixels) + self.engine(turned)) * _HALF

    def windows(self, picture: Rgb, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean logits of tiles of a picture and of the turned picture, between which lie whole `window_step`s."""
        turned = np.ascontiguousarray(picture[::-1, ::-1])
        opposite = len(picture) - self.card.input.side_px - corners
        return (self.engine.windows(picture, corners) + self.engine.windows(turned, opposite)) * _HALF


def untrained_weights(spec: Spec, seed: int) -> Arrays:
    """Draw the weights of any network from a seed.

    Raises:
        ConfigError: Torch, which knows the shapes of its tensors, is not installed.
    """
    if not find_spec("torch"):
        raise ConfigError(f"weights untrained:{seed}: need torch; pip install 'he2her2[train]'")
    from he2her2.models.torch_modules import initial_weights  # noqa: PLC0415  loads torch

    return initial_weights(spec, seed)


def load_engine(
    source: Path | Untrained, role: CnnRole, device: Device = "auto", precision: Precision = "full"
) -> Engine:
    """Build the engine of a CNN.

    Args:
        source: A folder of weights, which is verified, or untrained weights.
        role: Of the CNN.
        device: To run on.
        precision: Of a GPU.

    Raises:
        WeightsError: The folder's weights are missing, damaged or those of another role.
        ConfigError: The device is not there, or cannot compute in that precision; or untrained weights lack torch.
    """
    device = resolve_device(device)
    if device == "cpu" and precision == "mixed":
        raise ConfigError("precision mixed: is for GPUs, and the CNNs run on the CPU; use --precision full")
    if isinstance(source, Untrained):
        card = source.card
    else:
        card = read_card(source, role)
        verify(source, card)
    if device == "cpu":
        if isinstance(source, Untrained):
            weights = source.weights()
            from he2her2.models.export import engine_of  # noqa: PLC0415  loads torch

            return engine_of(card, weights)
        from he2her2.models.onnx_engine import OnnxEngine  # noqa: PLC0415  loads onnxruntime

        return OnnxEngine.open(source, card)
    from he2her2.models.torch_engine import TorchEngine  # noqa: PLC0415  loads torch

    weights = source.weights() if isinstance(source, Untrained) else load_tensors(source, card)
    return TorchEngine(card, weights, device, mixed_precision=precision == "mixed")


def resolve_device(device: Device) -> Literal["cpu", "cuda", "mps"]:
    """The device that will be used.

    Raises:
        ConfigError: The one asked for is not there.
        ValueError: It is no device by name, such as "gpu".
    """
    if device not in get_args(Device):
        raise ValueError(f"device must be one of {', '.join(get_args(Device))}, got {device}")
    if device == "cpu" or (device == "auto" and not (find_spec("torch") and _may_have_gpu())):
        return "cpu"
    if not find_spec("torch"):
        raise ConfigError(f"device {device}: needs torch; pip install 'he2her2[train]', or use --device cpu")
    from he2her2.models.torch_engine import available_devices  # noqa: PLC0415  loads torch

    there = available_devices()
    if device == "auto":
        return there[0] if there else "cpu"
    if device not in there:
        raise ConfigError(f"device {device}: torch finds none here; use --device {there[0] if there else 'cpu'}")
    return device


def require_libraries(what: str, *libraries: str) -> None:
    """Raise unless libraries of encoders are installed.

    Args:
        what: Needs them, in words.
        libraries: Their modules.

    Raises:
        ConfigError: One is missing.
    """
    missing = [name for name in libraries if not find_spec(name)]
    if missing:
        extra = "pip install timm" if missing == ["timm"] else "pip install 'he2her2[encoders]'"
        raise ConfigError(f"{what}: needs {' and '.join(missing)}; {extra}")


def _may_have_gpu() -> bool:
    """A quick look that spares a machine without GPU the seconds that loading torch takes."""
    drivers = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
    return sys.platform == "darwin" or os.name == "nt" or any(driver.exists() for driver in drivers)
