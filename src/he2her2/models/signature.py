"""Inputs and outputs of a network as its ONNX file has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]
Arrays: TypeAlias = Mapping[str, NDArray[np.float32]]
Inputs: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Signature:
    """Names and shapes of a network's inputs and outputs; a letter in a shape stands for any size.

    Attributes:
        inputs: All float32, but for `mask`, which is bool.
        outputs: All float32.
    """

    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: Mapping[str, tuple[str | int, ...]]

    def random_inputs(self, n: int) -> Inputs:
        """Inputs in [0, 1), every letter being `n`; a mask keeps everything."""
        rng = np.random.default_rng(n)
        shapes = {name: [n if isinstance(size, str) else size for size in sizes] for name, sizes in self.inputs.items()}
        return {
            name: np.ones(shape, np.bool_) if name == "mask" else rng.random(shape, np.float32)
            for name, shape in shapes.items()
        }
