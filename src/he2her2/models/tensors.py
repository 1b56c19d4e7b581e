"""Between torch modules and dictionaries of numpy arrays; every tensor is checked, none is skipped."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_COUNTER = "num_batches_tracked"  # a batch norm's count of its training steps: no weight, nothing depends on it


def tensors_of(module: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copy a module's weights to arrays, named as `zoo.tensor_shapes` names them."""
    return {
        name: tensor.detach().to("cpu", torch.float32).numpy().copy()
        for name, tensor in module.state_dict().items()
        if not name.endswith(_COUNTER)
    }


def put_tensors(module: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy arrays into a module's weights, in place.

    Raises:
        ValueError: Names or shapes are not the module's.
    """
    state = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(_COUNTER)}
    wanted = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wanted != {name: array.shape for name, array in weights.items()}:
        raise ValueError("names or shapes of the weights are not the module's")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(weights[name]))
