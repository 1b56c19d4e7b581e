"""The authors' way to run a CNN, as a baseline: torch eager, one tile at a time. Needs the train extra."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he2her2.geometry import Rgb
from he2her2.models import CnnSpec
from he2her2.models.encoders.pixels import prepare_input
from he2her2.models.torch_modules import initial_weights, put_tensors


class ReleasedCnn:
    """A CNN of the zoo as the authors' code runs it: torch eager, NCHW, ReLU before pooling, one tile at a time.

    The conversion to lightness is ours, which is faster than theirs.
    """

    def __init__(self, spec: CnnSpec, seed: int = 0) -> None:
        self._spec = spec
        self._network = _PlainCnn(spec).eval()
        put_tensors(self._network, initial_weights(spec, seed))

    @torch.inference_mode()
    def __call__(self, tile: Rgb) -> NDArray[np.float32]:
        """Compute the logits (k,) of an (h, w, 3) tile."""
        logits: Tensor = self._network(torch.from_numpy(prepare_input(tile[None], self._spec.input)))
        return np.asarray(logits[0])


class _PlainCnn(nn.Module):
    """CNN with layers in the paper's order; parameters are named as in the zoo."""

    def __init__(self, spec: CnnSpec) -> None:
        super().__init__()
        assert not spec.global_pool
        assert not any(conv.norm for conv in spec.convs)
        inputs = (spec.input.n_channels, *(conv.channels for conv in spec.convs))
        self.conv_layers = nn.ModuleList(
            nn.Conv2d(n_in, conv.channels, conv.kernel, conv.stride, conv.padding)
            for n_in, conv in zip(inputs, spec.convs, strict=False)
        )
        widths = (*_dense_input(self.conv_layers, spec), *spec.hidden, len(spec.classes))
        self.fc_layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (n, c, h, w) tiles to (n, k) logits."""
        features = _convolved(self.conv_layers, tiles).flatten(1)
        for layer in self.fc_layers[:-1]:
            features = layer(features).relu()
        logits: Tensor = self.fc_layers[-1](features)
        return logits


def _convolved(layers: nn.ModuleList, tiles: Tensor) -> Tensor:
    for layer in layers:
        tiles = nn.functional.max_pool2d(layer(tiles).relu(), 2)
    return tiles


def _dense_input(layers: nn.ModuleList, spec: CnnSpec) -> tuple[int]:
    side = spec.input.network_px
    with torch.no_grad():
        return (_convolved(layers, torch.zeros(1, spec.input.n_channels, side, side)).numel(),)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Set the number of threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
