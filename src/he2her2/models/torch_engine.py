"""A CNN on a GPU, by torch; also on the CPU, where it is the yardstick of the ONNX engine."""

from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from he2her2.errors import WeightsError
from he2her2.geometry import Rgb
from he2her2.models.card import Card
from he2her2.models.encoders import (
    STAINS_FROM_DENSITY,
    YUV_FROM_RGB,
    YUV_UINT8_FROM_RGB,
    CnnSpec,
    Colour,
    FeatureCard,
    network_pixels,
)
from he2her2.models.encoders.cnn_module import CnnModule
from he2her2.models.signature import Arrays
from he2her2.models.torch_modules import module_of

__all__ = [
    "ModuleEngine",
    "PooledTokens",
    "TorchEncoder",
    "TorchEngine",
    "available_devices",
    "haematoxylin_dab_on_device",
    "load_state",
    "penultimate_module",
    "prepare_on_device",
    "sha256_of_state",
    "yuv_uint8_on_device",
]

_MAX_ROWS = 256

_UNIT = float(np.float32(1 / 255))


def available_devices() -> tuple[Literal["cuda", "mps"], ...]:
    """GPUs that torch can use here, best first."""
    there: list[Literal["cuda", "mps"]] = []
    if torch.cuda.is_available():
        there.append("cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    return tuple(there)


class ModuleEngine:
    """A CNN as its module is whenever the engine is called, one that is being trained too.

    Sends uint8 pixels to the device and does everything else there. Several threads may call it: while one waits for
    the device, others decode.

    Args:
        card: About the network.
        cnn: Its module, in evaluation, on its device.
        dtype: Of what may be computed in 16 bits; None computes in 32 throughout.

    Attributes:
        card: About the network.
    """

    def __init__(self, card: Card, cnn: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.card = card
        assert isinstance(cnn, CnnModule)
        self._cnn = cnn
        self._device = next(cnn.parameters()).device
        self._dtype = dtype

    @torch.inference_mode()
    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Logits (n, k) of (n, h, w, 3) tiles."""
        logits = np.empty((len(pixels), len(self.card.network.classes)), np.float32)
        for start in range(0, len(pixels), _MAX_ROWS):
            rows = slice(start, start + _MAX_ROWS)
            logits[rows] = self._logits(*network_pixels(pixels[rows], self.card.input))
        return logits

    @torch.inference_mode()
    def windows(self, picture: Rgb, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (n, k) of the tiles at (n, 2) `corners` of an (s, s, 3) picture, its convolutions computed once."""
        spec = self.card.cnn
        side = spec.stage_sides[-1][1]
        columns, rows = torch.from_numpy(corners // (spec.window_step or 1)).to(self._device).T
        with self._precision():
            features = self._cnn.features(self._on_device(picture[None], spec.input.colour))[0]  # (d, h', w')
            every = features.unfold(1, side, 1).unfold(2, side, 1)  # (d, rows, columns, side, side)
            return _array(self._cnn.classified(every[:, rows, columns].transpose(0, 1)))

    def _logits(self, pixels: Rgb, colour: Colour) -> NDArray[np.float32]:
        with self._precision():
            return _array(self._cnn(self._on_device(pixels, colour)))

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None)

    def _on_device(self, pixels: Rgb, colour: Colour) -> Tensor:
        """Input of the network from (n, h, w, 3) pixels, on the device."""
        return prepare_on_device(_sent(pixels, self._device), colour)


def _require_full_precision() -> None:
    """Forbid convolutions to round to 10 bits of mantissa (TF32), which torch lets them by default: in this process."""
    torch.backends.cudnn.allow_tf32 = False


class TorchEngine(ModuleEngine):
    """A CNN with given weights on a device, in channels-last order."""

    def __init__(self, card: Card, weights: Arrays, device: str, *, mixed_precision: bool = False) -> None:
        if not mixed_precision:
            _require_full_precision()
        module = convert_conv2d_weight_memory_format(module_of(card.cnn, weights).to(device), torch.channels_last)
        super().__init__(card, module, torch.get_autocast_dtype(torch.device(device).type) if mixed_precision else None)


class TorchEncoder:
    """A feature encoder on a device; uint8 pixels are sent, everything else is done there.

    Args:
        card: About the encoder.
        identity: SHA-256 of all that its features depend on.
        module: From (n, c, s, s) to (n, d).
        device: To run on.
        mixed_precision: Compute in 16 bits where that is safe.

    Raises:
        WeightsError: It fails on a tile, or gives no (n, d) features as the card says.
    """

    def __init__(
        self, card: FeatureCard, identity: str, module: nn.Module, device: str, *, mixed_precision: bool = False
    ) -> None:
        self.card, self.identity = card, identity
        self._device, self._mixed_precision = torch.device(device), mixed_precision
        self._module = module.eval().to(self._device)
        if not mixed_precision:
            _require_full_precision()
        shape = (1, card.input.n_channels, 1, 1)
        self._mean, self._std = (
            torch.tensor(values[: card.input.n_channels], device=self._device).reshape(shape)
            for values in (card.mean, card.std)
        )
        blank = np.zeros((2, card.input.side_px, card.input.side_px, 3), np.uint8)
        try:
            found = tuple(self._run(blank).shape)
        except Exception as error:  # whatever others' code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise WeightsError(f"encoder {card.name}: fails on a tile of its card's size ({reason})") from error
        if found != (2, card.n_features):
            raise WeightsError(f"encoder {card.name}: gives {found} for 2 tiles where its card says {card.n_features}")

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Features (n, d) of (n, h, w, 3) tiles."""
        features = np.empty((len(pixels), self.card.n_features), np.float32)
        for start in range(0, len(pixels), _MAX_ROWS):
            rows = slice(start, start + _MAX_ROWS)
            features[rows] = self._run(pixels[rows])
        return features

    @torch.inference_mode()
    def _run(self, pixels: Rgb) -> NDArray[np.float32]:
        small, colour = network_pixels(pixels, self.card.input)
        tiles = prepare_on_device(_sent(small, self._device), colour)
        with torch.autocast(self._device.type, enabled=self._mixed_precision):
            return _array(self._module((tiles - self._mean) / self._std))


class PooledTokens(nn.Module):
    """Features (n, d) of a transformer that gives (n, t, d) tokens, those of its patches last.

    Args:
        module: The transformer; timm's states how many tokens stand before the patches, the class token first.
        pooling: The class token, the mean of the patches, or both one after the other.
    """

    def __init__(self, module: nn.Module, pooling: Literal["class", "mean", "class+mean"]) -> None:
        super().__init__()
        self.module, self._parts = module, pooling.split("+")
        self._n_before = int(cast("Any", module).num_prefix_tokens)

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (n, c, s, s) tiles to (n, d) features, or (n, 2 d)."""
        tokens: Tensor = self.module(tiles)  # (n, t, d)
        pooled = {"class": tokens[:, 0], "mean": tokens[:, self._n_before :].mean(dim=1)}
        return torch.cat([pooled[part] for part in self._parts], dim=1)


def penultimate_module(spec: CnnSpec, weights: Arrays) -> nn.Module:
    """Module of a CNN without its last layer: from tiles to the features before the logits, after their ReLU."""
    cnn: Any = module_of(spec, weights)
    cnn.fc_layers = cnn.fc_layers[:-1].append(nn.Identity())
    return cast("nn.Module", cnn)


def load_state(module: nn.Module, file: Path) -> None:
    """Load all weights of a module from a safetensors or torch file; nothing in it is executed.

    Raises:
        WeightsError: There is no such file, or its tensors are not the module's.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: is missing, and the card beside it names it; copy the folder again")
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{file}: is not of this model ({reason}); correct model in card.json") from None


def sha256_of_state(module: nn.Module) -> str:
    """SHA-256 of a module's numbers, wherever it has them from."""
    found = sha256()
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _sent(pixels: Rgb, device: torch.device) -> Tensor:
    """(n, h, w, 3) pixels on a device."""
    host = torch.from_numpy(np.ascontiguousarray(pixels))
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


def _array(logits: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = logits.float().cpu().numpy()
    return array


def prepare_on_device(pixels: Tensor, colour: Colour) -> Tensor:
    """Convert (n, h, w, 3) uint8 pixels to (n, c, h, w) float32 channels, as `pixels.prepare_input` does."""
    wide = pixels.float()
    if colour.startswith("lightness"):
        return _lightness(wide, colour).unsqueeze(1)
    if colour == "haematoxylin-dab":
        return haematoxylin_dab_on_device(wide)
    if colour == "yuv-uint8":
        wide = yuv_uint8_on_device(wide)
    elif colour == "yuv":
        return (wide @ torch.from_numpy(YUV_FROM_RGB.T / 255).to(pixels.device)).permute(0, 3, 1, 2)
    return (wide * (1 / 255)).permute(0, 3, 1, 2)


def _lightness(wide: Tensor, colour: Colour) -> Tensor:
    """Map (n, h, w, 3) in [0, 255] to (n, h, w) in [0, 1]; in 8 bits as OpenCV computes it."""
    highest, lowest = wide.amax(dim=3), wide.amin(dim=3)
    if colour == "lightness":
        return (highest + lowest) * (1 / 510)
    return ((highest * _UNIT + lowest * _UNIT) * 0.5 * 255).round() / 255


def haematoxylin_dab_on_device(rgb: Tensor) -> Tensor:
    """Map (n, h, w, 3) RGB in [0, 255] to (n, 2, h, w) amounts, as `pixels.haematoxylin_dab` does."""
    density = -(rgb.clamp_min(1) / 255).log()
    return (density @ torch.from_numpy(STAINS_FROM_DENSITY).to(rgb)).permute(0, 3, 1, 2)


def yuv_uint8_on_device(rgb: Tensor) -> Tensor:
    """Map RGB in [0, 255] along the last axis to whole Y, U and V, as `pixels.yuv_uint8` does."""
    red, green, blue = rgb.unbind(dim=-1)
    rows = (y * red + u * green + v * blue + 0.5 for y, u, v in YUV_UINT8_FROM_RGB.tolist())
    return torch.stack([row.floor().clamp(0, 255) for row in rows], dim=-1)
