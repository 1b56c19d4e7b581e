"""Inputs and outputs of a network as its ONNX file has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]
Arrays: TypeAlias = Mapping[str, NDArray[np.float32]]
Inputs: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of a network's ONNX file.

    Attributes:
        operator: Its ONNX operator.
        attributes: Those that differ from the operator's defaults.
        tensors: Name to shape of its weights, in the order of its inputs.
        norm: Name of the batch norm that is folded into the weights; empty for none.
        added: Position of the layer whose output is its second input; none for all but sums.
    """

    operator: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Shape] = field(default_factory=dict)
    norm: str = ""
    added: int | None = None

    @property
    def norm_tensors(self) -> dict[str, Shape]:
        """Name to shape of the batch norm's tensors."""
        n = next(iter(self.tensors.values()))[:1] if self.norm else ()
        parts = ("weight", "bias", "running_mean", "running_var") if self.norm else ()
        return {f"{self.norm}.{part}": n for part in parts}


def dense_layers(name: str, widths: Sequence[int]) -> list[Layer]:
    """Fully connected layers `name.0`, `name.1` and so on, with ReLU between them.

    Args:
        name: Of the list of layers.
        widths: From the input to the output.
    """
    layers = []
    for k, (n_in, n_out) in enumerate(pairwise(widths)):
        tensors = {f"{name}.{k}.weight": (n_out, n_in), f"{name}.{k}.bias": (n_out,)}
        layers += [Layer("Gemm", {"transB": 1}, tensors), Layer("Relu")]
    return layers[:-1]


@dataclass(frozen=True, slots=True)
class Signature:
    """Names and shapes of a network's inputs and outputs; a letter in a shape stands for any size.

    Attributes:
        inputs: All float32, but for `mask`, which is bool, and those of `positions`.
        outputs: All float32.
        positions: Inputs that are int64 positions of tiles.
    """

    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: Mapping[str, tuple[str | int, ...]]
    positions: frozenset[str] = frozenset()

    def random_inputs(self, n: int) -> Inputs:
        """Inputs in [0, 1), every letter being `n`; a mask keeps everything, positions are in [0, n)."""
        rng = np.random.default_rng(n)
        shapes = {name: [n if isinstance(size, str) else size for size in sizes] for name, sizes in self.inputs.items()}

        def drawn(name: str, shape: list[int]) -> NDArray[Any]:
            if name in self.positions:
                return rng.integers(0, n, shape)
            return np.ones(shape, np.bool_) if name == "mask" else rng.random(shape, np.float32)

        return {name: drawn(name, shape) for name, shape in shapes.items()}
