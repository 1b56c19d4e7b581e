"""Untrained weights, drawn from a seed without torch."""

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from he2her2.models.zoo import Spec, tensor_shapes


def initial_weights(spec: Spec, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights before any training, by the distribution that torch starts from, though not its numbers.

    Kernels, matrices and their biases are uniform in ±1 / sqrt(fan in), which is what Kaiming's rule with a = sqrt(5)
    comes to (He et al., 2015); a batch norm starts as the identity. Every tensor has a stream of its own, so it does
    not depend on the network's other tensors.

    Args:
        spec: The network.
        seed: Not negative.

    Returns:
        Every tensor of `tensor_shapes(spec)`.
    """
    shapes = tensor_shapes(spec)
    weights = {}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        if layer.startswith("norm_layers"):
            weights[name] = np.full(shape, 1.0 if kind in ("weight", "running_var") else 0.0, np.float32)
        else:
            fan_in = math.prod(shapes[f"{layer}.weight"][1:])
            weights[name] = _uniform(shape, 1 / math.sqrt(fan_in), (seed, zlib.crc32(name.encode())))
    return weights


def _uniform(shape: tuple[int, ...], bound: float, seed: tuple[int, int]) -> NDArray[np.float32]:
    """Uniform in ±bound, drawn and scaled in place: the largest layer is half a gigabyte."""
    draw = np.random.default_rng(seed).random(shape, np.float32)
    draw *= 2 * bound
    draw -= bound
    return draw
