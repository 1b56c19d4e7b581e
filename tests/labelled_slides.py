"""A small cohort of labelled slides, quick to write and quick to learn: positive slides are dark."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from he2her2.config import Config, load_config
from he2her2.models import InputSpec
from he2her2.models.encoders.cnn import STRIDED_TILE_CNN, Conv
from he2her2.models.encoders.pixels import prepare_input
from he2her2.models.torch_modules import initial_weights, put_tensors, tensors_of
from tests.tissue_slides import GLASS, tissue_pixels, write_tissue

TINY = replace(
    STRIDED_TILE_CNN,
    name="tiny-tile-cnn",
    input=InputSpec(mpp=0.25, side_px=64, network_px=64, colour="lightness"),
    convs=(Conv(4, kernel=5, norm=True), Conv(6, kernel=3, norm=True)),
    hidden=(8,),
)
"""A tile CNN with 64 px tiles and a hundredth of the weights."""

OVERRIDES = ("networks.tile_cnn=tiny-tile-cnn", "selection.n_tiles=5", "runtime.threads=1", "adaptive.iterations=2")
N = {"train": 4, "val": 4}
SIDE = 1024
EDGE = 640
"""Level-0 px: annotated is what lies left of it."""


def tiny_config(*overrides: str) -> Config:
    """Settings for the tiny CNN and 5 tiles."""
    return load_config(overrides=(*OVERRIDES, *overrides))


def labelled_pixels(status: str, seed: int) -> np.ndarray:
    """(h, w, 3) tissue, dark where the status is positive, else light."""
    pixels = tissue_pixels(SIDE, share=0.5, seed=seed)
    tissue = (pixels != np.array(GLASS)).any(axis=2)
    seen = pixels[tissue].astype(float)
    pixels[tissue] = (0.8 * seen if status == "positive" else 255 - 0.6 * (255 - seen)).astype(np.uint8)
    return pixels


def write_labelled(folder: Path, n_slides: Mapping[str, int] = MappingProxyType(N)) -> Path:
    """Slides of both statuses in the splits train and val, with masks that end at `EDGE`; their manifest."""
    lines = ["slide_id,path,patient_id,stain,her2_status,split,annotations"]
    for split, n in n_slides.items():
        for i in range(n):
            status = "positive" if i % 2 else "negative"
            name = f"{split}{i}"
            seed = len(lines)
            write_tissue(folder / f"{name}.svs", labelled_pixels(status, seed))
            mask = np.zeros((SIDE // 32, SIDE // 32), np.uint8)
            mask[:, : EDGE // 32] = 255
            Image.fromarray(mask).save(folder / f"{name}.png")
            lines.append(f"{name},{name}.svs,p-{name},HE,{status},{split},{name}.png")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    return manifest


def able_weights() -> dict[str, np.ndarray]:
    """Weights of the tiny CNN, as if pre-trained: it scores dark tissue high and light tissue low, with doubts."""
    cnn: Any = TINY.build()
    put_tensors(cnn, initial_weights(TINY, seed=3))
    tiles = torch.cat([_tiles(labelled_pixels(status, seed=99)) for status in ("negative", "positive")])
    for norm in cnn.norm_layers:
        assert isinstance(norm, nn.BatchNorm2d)
        norm.momentum = 1.0
    with torch.no_grad():
        cnn.train()(tiles)  # its running statistics become those of the tiles
        light, dark = _features(cnn.eval(), tiles).unflatten(0, (2, -1)).mean(dim=1)
    way = (dark - light) / (dark - light).square().sum()
    steps = torch.arange(-1.5, 2.0)  # of the four classes
    weights = tensors_of(cnn)
    weights["fc_layers.1.weight"] = (steps[:, None] * way).numpy()
    weights["fc_layers.1.bias"] = (-steps * ((dark + light) / 2 @ way)).numpy()
    return weights


def _tiles(pixels: np.ndarray) -> torch.Tensor:
    """(n, 1, h, w) of the tissue's middle, as the network eats them."""
    side = TINY.input.side_px
    places = range(320, 640, side)
    tiles = np.stack([pixels[y : y + side, x : x + side] for y in places for x in places])
    return torch.from_numpy(prepare_input(tiles, TINY.input))


def _features(cnn: Any, tiles: torch.Tensor) -> torch.Tensor:
    """(n, d) what the last layer is given."""
    features = tiles
    for conv, norm, pool in zip(cnn.conv_layers, cnn.norm_layers, cnn.pools, strict=True):
        features = pool(norm(conv(features)))
    hidden: torch.Tensor = cnn.fc_layers[0](cnn.squeeze(features))
    return hidden.relu()
