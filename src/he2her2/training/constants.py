"""Constants of tensor functions, copied to each device once: a step that is recorded (CUDA graph) may copy nothing."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def constants(arrays: Mapping[str, NDArray[Any]]) -> Callable[[str, Tensor], Tensor]:
    """A function that gives an array by its name, of the kind and on the device of a tensor.

    Example:
        >>> import numpy as np
        >>> constant = constants({"middle": np.array([127.5])})
        >>> constant("middle", torch.zeros(2))
        tensor([127.5000])
    """

    @cache
    def on(name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.as_tensor(arrays[name], dtype=dtype, device=device)

    return lambda name, like: on(name, like.dtype, like.device)
