"""Batch norms of a tile CNN, moved to the tiles of another laboratory.

A batch norm subtracts a mean and divides by a deviation that it learned on training tiles. Another laboratory's tiles
have others; mixed with the learned ones they bring the layers' outputs back to where the next layers expect them
(alpha-BN: You, Li and Zhao, Test-time batch statistics calibration for covariate shift, 2021).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he2her2.cohort import SlideEngine, SlideTask, require_all
from he2her2.config import Config, Runtime
from he2her2.geometry import Rgb, TileGrid
from he2her2.method import pace
from he2her2.models import CnnSpec, resize
from he2her2.models.torch_engine import prepare_on_device
from he2her2.models.torch_modules import put_tensors, tensors_of
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.timing import Progress, silent
from he2her2.training.slides.bags import LabelledSlide
from he2her2.training.slides.data import InitialNetworks

__all__ = ["fused_weights", "has_norms", "some_tiles", "with_moved_norms"]

_BATCH = 64
_MOST_TILES = 2048  # 400 MB of pixels
_MOST_TILES_A_SLIDE = 32


def has_norms(spec: CnnSpec) -> bool:
    """True for a network with a batch norm that can be moved."""
    return any(conv.norm for conv in spec.convs)


def some_tiles(slide: Slide, grid: TileGrid, n_slides: int, runtime: Runtime) -> Rgb:
    """Tiles (n, h, w, 3), evenly drawn from those of one of `n_slides` slides, for the statistics of batch norms."""
    n = max(1, min(_MOST_TILES_A_SLIDE, _MOST_TILES // max(1, n_slides)))
    some = np.unique(np.linspace(0, len(grid) - 1, n).round().astype(np.int64))
    return np.concatenate([*map_tiles(slide, grid.take(some), lambda batch: batch.pixels, **pace(runtime))])


@dataclass(frozen=True, slots=True)
class _Sampler:
    """Worker that reads some tiles of a slide.

    Attributes:
        grids: Tiles by slide_id.
        config: Runtime is used.
    """

    grids: Mapping[str, TileGrid]
    config: Config

    def __call__(self, task: SlideTask) -> Rgb:
        """Tiles of a slide."""
        runtime = self.config.runtime
        with open_slide(task.path, mpp=task.mpp, backend=runtime.backend) as slide:
            return some_tiles(slide, self.grids[task.slide_id], len(self.grids), runtime)


def with_moved_norms(
    networks: InitialNetworks, slides: Sequence[LabelledSlide], config: Config, progress: Progress = silent
) -> InitialNetworks:
    """The same networks, the tile CNN's batch norms moved wholly to the tiles of the training slides.

    Args:
        networks: The tile CNN has a batch norm.
        slides: Of the training.
        config: Runtime is used.
        progress: Called after every slide.

    Raises:
        ManifestError: Slides that cannot be read any more.
    """
    rows = [slide.row for slide in slides]
    sampler = _Sampler({slide.row.slide_id: slide.grid for slide in slides}, config)
    outcomes = SlideEngine(progress).run([SlideTask.of_row(row) for row in rows], sampler, stage="moving batch norms")
    tiles = require_all(rows, outcomes, "slides cannot be read any more")
    return replace(networks, tile_weights=fused_weights(networks.tile_spec, networks.tile_weights, tiles, 1.0))


@torch.no_grad()
def fused_weights(
    spec: CnnSpec, weights: Mapping[str, NDArray[np.float32]], slides: Sequence[Rgb], alpha: float
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
