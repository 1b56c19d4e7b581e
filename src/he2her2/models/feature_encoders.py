"""Feature encoders by name or folder: from tiles to features, on ONNX Runtime or torch."""

from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ConfigError, WeightsError
from he2her2.files import digest, read_record, sha256_of
from he2her2.geometry import Rgb
from he2her2.models.efficientnet_lite0 import EFFICIENTNET_LITE0, lite0_card, lite0_graph, lite0_module
from he2her2.models.encoders import (
    FeatureCard,
    HubModel,
    OnnxModel,
    TimmModel,
    feature_card_from_json,
)
from he2her2.models.engines import Device, Precision, require_libraries, resolve_device
from he2her2.models.weights import CARD_FILE, ONNX_FILE, load_tensors, read_card, verify

if TYPE_CHECKING:
    from torch import nn

TILE_CNN = "tile-cnn"
"""Names the tile CNN of a folder of weights as an encoder: its penultimate layer."""

ENCODERS = (TILE_CNN, EFFICIENTNET_LITE0)

_CLASS_ROOMS = ("timm.layers", "torch.nn")


class Encoder(Protocol):
    """A feature encoder that is ready to run; several threads may call it at once."""

    @property
    def card(self) -> FeatureCard:
        """About the encoder."""

    @property
    def identity(self) -> str:
        """SHA-256 of all that its features depend on."""

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Features (n, d) of (n, h, w, 3) tiles; each tile's do not depend on the others.

        Raises:
            ValueError: The tiles are not of the size that the encoder was made for.
        """


def load_encoder(
    name: str, weights: Path | None, device: Device = "auto", precision: Precision = "full", *, trusted: bool = True
) -> Encoder:
    """Load a feature encoder.

    Args:
        name: `tile-cnn`, `efficientnet-lite0`, or a folder with a card.json.
        weights: Folder with the `tile_cnn/` that `tile-cnn` names.
        device: To run on; ONNX files run on the CPU.
        precision: Of a GPU.
        trusted: The user named the folder: code in it may run. Weights that come with an encoder name it themselves.

    Raises:
        WeightsError: The encoder is missing or damaged, or its card is, or it would run code and is not trusted.
        ConfigError: The device is not there, or a library is not installed.
    """
    if name == TILE_CNN:
        if weights is None:
            raise WeightsError(f"encoder {TILE_CNN}: is the tile CNN of a folder of weights; pass --weights")
        return _tile_cnn(weights / "tile_cnn", device, precision)
    if name == EFFICIENTNET_LITE0:
        return _lite0(device, precision)
    folder = Path(name)
    if not (folder / CARD_FILE).is_file():
        known = ", ".join(ENCODERS)
        raise WeightsError(
            f"encoder '{name}': is none of {known}, nor a folder with a {CARD_FILE}; see docs/encoders.md"
        )
    card = _read_feature_card(folder)
    if card.runs_code and not trusted:
        raise WeightsError(
            f"{folder}: the encoder of these weights runs code of its author's (a model of kind {card.model.kind}); "
            f"if you trust it, name it: --set runtime.encoder={folder}"
        )
    if isinstance(card.model, OnnxModel):
        return _onnx_folder(folder, card, device, precision)
    return _torch_folder(folder, card, device, precision)


def _read_feature_card(folder: Path) -> FeatureCard:
    """Card of an encoder's folder.

    Raises:
        WeightsError: It cannot be read or understood.
    """
    file = folder / CARD_FILE
    try:
        return feature_card_from_json(read_record(file))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsError(f"{file}: is no card of an encoder ({reason}); see docs/encoders.md") from None


def _tile_cnn(folder: Path, device: Device, precision: Precision) -> Encoder:
    """The hidden layer before the logits of a tile CNN, after its ReLU (paper, section 3.2)."""
    card = read_card(folder, "tile_cnn")
    verify(folder, card)
    spec = card.cnn
    if not spec.hidden:
        raise WeightsError(f"{folder}: a {spec.name} has no layer before its logits; use another encoder")
    feature_card = FeatureCard(TILE_CNN, spec.input, spec.hidden[-1], OnnxModel("onnx"), source=spec.name)
    identity = digest(TILE_CNN, card.summary)
    if resolve_device(device) == "cpu":
        _full_precision(precision)
        from he2her2.models.onnx_engine import OnnxEncoder, penultimate  # noqa: PLC0415  loads onnxruntime

        return OnnxEncoder(feature_card, identity, penultimate(folder / ONNX_FILE))
    from he2her2.models.torch_engine import TorchEncoder, penultimate_module  # noqa: PLC0415  loads torch

    module = penultimate_module(spec, load_tensors(folder, card))
    return TorchEncoder(feature_card, identity, module, resolve_device(device), mixed_precision=precision == "mixed")


def texture_encoder(folder: Path) -> Encoder | None:
    """The tumour CNN of a verified folder up to its last layer, on the CPU; None if it does not pool its maps."""
    network = read_card(folder, "tumour_cnn")
    spec = network.cnn
    if not spec.global_pool:
        return None
    from he2her2.models.onnx_engine import OnnxEncoder, penultimate  # noqa: PLC0415  loads onnxruntime

    card = FeatureCard("tumour-cnn", spec.input, spec.dense_widths[-2], OnnxModel("onnx"), source=spec.name)
    return OnnxEncoder(card, digest("tumour-cnn", network.files[ONNX_FILE].sha256), penultimate(folder / ONNX_FILE))


def _onnx_folder(folder: Path, card: FeatureCard, device: Device, precision: Precision) -> Encoder:
    """An ONNX file with its card, on the CPU."""
    assert isinstance(card.model, OnnxModel)
    if device not in ("auto", "cpu"):
        raise ConfigError(f"encoder {card.name}: is an ONNX file, which runs on the CPU; use --device cpu")
    _full_precision(precision)
    file = folder / card.model.file
    if not file.is_file():
        raise WeightsError(f"{file}: is missing, and the card beside it names it; copy the folder again")
    found = sha256_of(file)
    if card.model.sha256 not in (None, found):
        raise WeightsError(f"{file}: is not the file that its card describes (other SHA-256); copy the folder again")
    from he2her2.models.onnx_engine import OnnxEncoder, data_files  # noqa: PLC0415  loads onnxruntime

    beside = [sha256_of(data) for data in data_files(file) if data.is_file()]  # ONNX Runtime names missing ones
    return OnnxEncoder(card, digest(card, found, *beside), str(file))


def _torch_folder(folder: Path, card: FeatureCard, device: Device, precision: Precision) -> Encoder:
    """A model of timm or of a local hub repository, with its card."""
    assert not isinstance(card.model, OnnxModel)
    require_libraries(f"encoder {card.name}", "torch")
    from he2her2.models.torch_engine import PooledTokens, TorchEncoder, load_state  # noqa: PLC0415  loads torch

    try:
        module = _timm(card.model) if isinstance(card.model, TimmModel) else _hub(folder, card.model)
        if card.model.weights is not None:
            load_state(module, folder / card.model.weights)
        if isinstance(card.model, TimmModel) and card.model.pooling is not None:
            module = PooledTokens(module, card.model.pooling)
    except (WeightsError, ConfigError):
        raise
    except Exception as error:  # code and files of others: whatever they raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise WeightsError(f"{folder}: its model cannot be built ({reason}); correct model in {CARD_FILE}") from error
    weights = None if card.model.weights is None else sha256_of(folder / card.model.weights)
    code = [sha256_of(file) for file in sorted(folder.rglob("*.py"))] if isinstance(card.model, HubModel) else []
    there = resolve_device(device)
    if there == "cpu":
        _full_precision(precision)
    return TorchEncoder(card, digest(card, weights, *code), module, there, mixed_precision=precision == "mixed")


def _timm(model: TimmModel) -> "nn.Module":
    require_libraries(f"encoder of timm, {model.name}", "timm")
    import timm  # noqa: PLC0415  the user's own

    options = {"pretrained": model.weights is None, "num_classes": 0} | model.options
    if model.pooling is not None:
        options = {"global_pool": ""} | options
    return cast(
        "nn.Module", timm.create_model(model.name, **{name: _class_of(value) for name, value in options.items()})
    )


def _class_of(option: object) -> object:
    """The class that an option's text names, as a model's page gives it; any other option as it is."""
    room, _, name = option.rpartition(".") if isinstance(option, str) else ("", "", "")
    return getattr(import_module(room), name) if room in _CLASS_ROOMS else option


def _hub(folder: Path, model: HubModel) -> "nn.Module":
    import torch  # noqa: PLC0415  takes seconds to load

    found: Any = torch.hub.load(str(folder), model.entry, source="local", **model.options)  # type: ignore[no-untyped-call]
    if not isinstance(found, torch.nn.Module):
        raise WeightsError(f"{folder}: {model.entry} of its hubconf.py gives no torch module; name another entry")
    return found


def _lite0(device: Device, precision: Precision) -> Encoder:
    """EfficientNet-Lite0 of its packages: by torch on a GPU, else as an ONNX graph in memory."""
    there = resolve_device(device)
    if there == "cpu":
        _full_precision(precision)
        model = lite0_graph()
        from he2her2.models.onnx_engine import OnnxEncoder  # noqa: PLC0415  loads onnxruntime

        card = lite0_card(sha256(model).hexdigest())
        return OnnxEncoder(card, digest(card), model)
    from he2her2.models.torch_engine import TorchEncoder  # noqa: PLC0415  loads torch

    card, module = lite0_card(), lite0_module()
    return TorchEncoder(card, digest(card), module, there, mixed_precision=precision == "mixed")


def _full_precision(precision: Precision) -> None:
    if precision == "mixed":
        raise ConfigError("precision mixed: is for GPUs, and this encoder runs on the CPU; use --precision full")
