"""Batch norms of a tile CNN, moved to the tiles of another laboratory.

A batch norm subtracts a mean and divides by a deviation that it learned on training tiles. Another laboratory's tiles
have others; mixed with the learned ones they bring the layers' outputs back to where the next layers expect them
(alpha-BN: You, Li and Zhao, Test-time batch statistics calibration for covariate shift, 2021).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he2her2.geometry import Rgb
from he2her2.models import CnnSpec, resize
from he2her2.models.torch_engine import prepare_on_device
from he2her2.models.torch_modules import put_tensors, tensors_of

__all__ = ["fused_weights"]

_BATCH = 64


@torch.no_grad()
def fused_weights(
    spec: CnnSpec, weights: dict[str, NDArray[np.float32]], slides: Sequence[Rgb], alpha: float
) -> dict[str, NDArray[np.float32]]:
    """Weights whose batch norms have the mean and variance (1 - alpha) · learned + alpha · of these slides.

    Layers are taken in order: the statistics of each are those behind the layers that were moved before it.

    Args:
        spec: The network; at least one stage has a batch norm.
        weights: Of the network.
        slides: (n, h, w, 3) tiles of each; every slide counts the same.
        alpha: Share of these slides, in [0, 1].
    """
    module: Any = spec.build().eval()
    put_tensors(module, weights)
    for norm in module.norm_layers:
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        moments = torch.stack([_moments(module, norm, tiles, spec) for tiles in slides]).mean(dim=0)  # (2, c)
        mean, variance = moments[0], moments[1] - moments[0] ** 2
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.lerp_(mean.float(), alpha)
        norm.running_var.lerp_(variance.clamp_min(0).float(), alpha)
    return tensors_of(module)


def _moments(module: Any, norm: nn.BatchNorm2d, tiles: Rgb, spec: CnnSpec) -> Tensor:  # noqa: ANN401  a CnnModule
    """Mean and mean square (2, c) of what reaches a batch norm, over the tiles of a slide."""
    sums = torch.zeros((2, norm.num_features), dtype=torch.float64)
    count = 0

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal count
        maps = inputs[0].double()
        sums[0] += maps.sum(dim=(0, 2, 3))
        sums[1] += (maps**2).sum(dim=(0, 2, 3))
        count += maps.numel() // maps.shape[1]

    hook = norm.register_forward_pre_hook(add)
    try:
        for start in range(0, len(tiles), _BATCH):
            pixels = resize(tiles[start : start + _BATCH], spec.input)
            module.features(prepare_on_device(torch.from_numpy(pixels), spec.input.colour))
    finally:
        hook.remove()
    return sums / count
