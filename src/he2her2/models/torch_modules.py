"""Torch modules of networks: their weights from and to numpy arrays, their inputs and outputs."""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he2her2.models.aggregators import RunNetwork
from he2her2.models.bag import Bag
from he2her2.models.card import Spec
from he2her2.models.ranking_module import RankingModule, expected_class
from he2her2.models.signature import Arrays, Inputs, Shape

__all__ = [
    "RankingModule",
    "batch_of",
    "expected_class",
    "initial_weights",
    "module_of",
    "put_tensors",
    "run_of",
    "tensor_shapes",
    "tensors_of",
]

_COUNTER = "num_batches_tracked"  # a batch norm's count of its training steps: no weight, nothing depends on it


def module_of(spec: Spec, weights: Mapping[str, NDArray[np.float32]]) -> nn.Module:
    """Module of a network in evaluation, whose weights are the very arrays: nothing is copied.

    Raises:
        ValueError: The weights are not those of the network.
    """
    with torch.device("meta"):
        module = spec.build()
    if _shapes_of(module) != {name: array.shape for name, array in weights.items()}:
        raise ValueError(f"these are not the weights of {spec.name}")
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    counters = {name: torch.tensor(0) for name in module.state_dict() if name.endswith(_COUNTER)}
    module.load_state_dict(state | counters, assign=True)
    return module.eval()


def batch_of(bag: Bag, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Features (1, n, d), centres (1, n, 2) in µm and mask (1, n) of a bag: the input of an aggregator's module."""
    arrays = (bag.features, bag.coords_um.astype(np.float32), bag.mask)
    features, coords_um, mask = (torch.from_numpy(array).to(device)[None] for array in arrays)
    return features, coords_um, mask


def run_of(spec: Spec, module: nn.Module) -> RunNetwork:
    """The network of a module, as prediction runs its ONNX file."""
    exported, signature = spec.exported(module), spec.signature

    @torch.no_grad()
    def run(inputs: Inputs) -> Arrays:
        device = next(iter(exported.state_dict().values())).device
        found = exported(*(torch.from_numpy(inputs[name]).to(device) for name in signature.inputs))
        outputs = found if isinstance(found, tuple) else (found,)
        return {name: out.float().cpu().numpy() for name, out in zip(signature.outputs, outputs, strict=True)}

    return run


def tensor_shapes(spec: Spec) -> dict[str, Shape]:
    """Name and shape of every tensor of a network's weights; nothing for a rule without weights.

    Example:
        >>> from he2her2.models.aggregators import PAPER_MLP
        >>> tensor_shapes(PAPER_MLP)["mlp_layers.3.weight"]
        (2, 64)
    """
    with torch.device("meta"):
        return _shapes_of(spec.build())


def _shapes_of(module: nn.Module) -> dict[str, Shape]:
    """Name and shape of every tensor of a module's weights."""
    return {name: tuple(tensor.shape) for name, tensor in _tensors(module).items()}


def tensors_of(module: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copy a module's weights to arrays, by name."""
    return {name: tensor.detach().to("cpu", torch.float32).numpy().copy() for name, tensor in _tensors(module).items()}


def put_tensors(module: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy arrays into a module's weights, in place.

    Raises:
        ValueError: Names or shapes are not the module's.
    """
    if _shapes_of(module) != {name: array.shape for name, array in weights.items()}:
        raise ValueError("names or shapes of the weights are not the module's")
    with torch.no_grad():
        for name, tensor in _tensors(module).items():
            tensor.copy_(torch.from_numpy(weights[name]))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(_COUNTER)}


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
    return {name: _initial(name, shapes, seed) for name in shapes}


def _initial(name: str, shapes: Mapping[str, Shape], seed: int) -> NDArray[np.float32]:
    """A tensor before training: a norm's (of a vector of weights) constant, every other drawn."""
    layer, _, kind = name.rpartition(".")
    weight = shapes.get(f"{layer}.weight", shapes[name])
    if len(weight) == 1:
        return np.full(shapes[name], 1.0 if kind in ("weight", "running_var") else 0.0, np.float32)
    bound = 1 / math.sqrt(math.prod(weight[1:]))
    draw = np.random.default_rng((seed, zlib.crc32(name.encode()))).random(shapes[name], np.float32)
    draw *= 2 * bound  # in place: the largest layer is half a gigabyte
    draw -= bound
    return draw
