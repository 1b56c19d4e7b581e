"""`he2her2 features` on a GPU: as `encoding`, and a vision transformer of the size that foundation models have."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.encoding import LITE0, compare
from benchmarks.measuring import NotHere
from benchmarks.results import Found, Setting
from he2her2.config import Runtime
from he2her2.files import write_json
from he2her2.models import TILE_CNN, Encoder, InputSpec, load_encoder, trained_folder
from he2her2.models.encoders import FeatureCard, TimmModel
from he2her2.phantom import TILE_PX

VIT = "vit_large_patch16_224"
_WIDTH = 1024


def measure(setting: Setting) -> Found:
    """Measure tiles per second of each encoder in 16 bits where that is safe, decoding on all cores."""
    if not torch.cuda.is_available():
        raise NotHere("this machine has no CUDA GPU")
    runtime = Runtime(threads=min(16, os.cpu_count() or 1))
    return compare(setting, _encoders(setting), runtime, setting.pick(64, 8), ("features_gpu_vs_slower", VIT))


def _encoders(setting: Setting) -> dict[str, Encoder]:
    """The tile CNN; EfficientNet-Lite0 and the transformer where their packages are installed."""
    found = {TILE_CNN: load_encoder(TILE_CNN, trained_folder("bundled"), "cuda", "mixed")}
    if find_spec("efficientnet_lite_pytorch"):
        found[LITE0] = load_encoder(LITE0, None, "cuda", "mixed")
    if find_spec("timm"):
        found[VIT] = load_encoder(str(_transformer(setting.work / VIT)), None, "cuda", "mixed")
    return found


def _transformer(folder: Path) -> Path:
    """A folder with the transformer, its weights drawn at random: they cost what trained ones cost."""
    import timm  # noqa: PLC0415  the user's own

    if not folder.is_dir():
        folder.mkdir(parents=True)
        model = timm.create_model(VIT, pretrained=False, num_classes=0)
        save_file(model.state_dict(), folder / "model.safetensors")
        tile = InputSpec(0.25, TILE_PX, 224, "rgb")
        card = FeatureCard(VIT, tile, _WIDTH, TimmModel("timm", VIT, "model.safetensors"))
        write_json(folder / "card.json", card)
    return folder
