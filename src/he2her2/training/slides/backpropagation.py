"""Backpropagation of a slide's loss through its selected tiles to the tile CNN (paper, 3.3).

The gradient is exact and cheap. Soft-argmax and aggregator depend on the selected tiles' logits only; the loss is
propagated to these first. A tile whose logits have no gradient cannot change the CNN, and its pixels are not read. The
other tiles pass the CNN again, a few at a time, each with its gradient: the same numbers as one backward pass over the
whole bag, in bounded memory.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from he2her2.geometry import Rgb
from he2her2.models.torch_modules import RankingModule, expected_class
from he2her2.slides import TileBatch

_NEGLIGIBLE = 1e-20
"""A smaller gradient counts as zero: Adam divides by at least 1e-8, so weights would change by a rate's 1e-12."""

Forward: TypeAlias = Callable[[Rgb], Tensor]
"""From (n, h, w, 3) tiles to (n, k) logits, with a graph."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideGradient:
    """Loss of a slide, and its gradient at the selected tiles.

    Attributes:
        loss: Cross-entropy.
        positive: Probability of HER2-positive in training.
        at_scores: Norm of the gradient at the selected tiles' scores.
        at_logits: Norm of the gradient at their logits, which is passed to the CNN.
        share: Share of the selected tiles with any gradient.
        gradient: (m, k) float32, of the loss by the selected tiles' logits.
    """

    loss: float
    positive: float
    at_scores: float
    at_logits: float
    share: float
    gradient: Tensor


def aggregator_gradient(
    aggregator: nn.Module, batch: tuple[Tensor, Tensor, Tensor], target: int, beta: float
) -> SlideGradient:
    """Loss of a slide from its selected tiles' logits; adds to the aggregator's gradients.

    Args:
        aggregator: Torch module of an `AggregatorSpec`.
        batch: Logits (1, m, k), centres (1, m, 2) and mask (1, m) of the selected tiles.
        target: The slide's class.
        beta: Sharpness of soft-argmax, where the aggregator ranks scores.
    """
    logits, coords_um, mask = batch
    leaf = logits[0].detach().clone().requires_grad_()
    with torch.autocast(leaf.device.type, enabled=False):  # ranking needs full precision
        if isinstance(aggregator, RankingModule):
            scores = expected_class(leaf, beta)  # (m,)
            scores.retain_grad()
            of_slide = aggregator.of_scores(scores[None], mask)  # (1, 2)
        else:
            scores = leaf  # there are none: the gradient arrives at the logits themselves
            of_slide, _ = aggregator(leaf[None], coords_um, mask)  # (1, 2)
        loss = functional.cross_entropy(of_slide, torch.tensor([target], device=leaf.device))
    loss.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert scores.grad is not None
    gradient = torch.where(leaf.grad.abs() < _NEGLIGIBLE, 0.0, leaf.grad)
    return SlideGradient(
        loss=float(loss.detach()),
        positive=float(of_slide.detach().softmax(dim=1)[0, 1]),
        at_scores=float(scores.grad.norm()),
        at_logits=float(gradient.norm()),
        share=float((gradient != 0).any(dim=1).float().mean()),
        gradient=gradient,
    )


def tiles_with_gradient(selected: NDArray[np.int64], gradient: Tensor) -> tuple[NDArray[np.int64], Tensor]:
    """Selected tiles with any gradient, in raster order, and their gradients.

    Args:
        selected: (m,) positions in the bag, best first.
        gradient: (m, k) by their logits.

    Returns:
        (l,) positions in the bag, ascending, and (l, k).
    """
    rows = np.flatnonzero((gradient != 0).any(dim=1).cpu().numpy())
    rows = rows[np.argsort(selected[rows])]
    return selected[rows], gradient[torch.from_numpy(rows).to(gradient.device)]


def backpropagate_tiles(forward: Forward, batches: Iterable[TileBatch], gradient: Tensor) -> None:
    """Add to the CNN's gradients, from the gradients at the tiles' logits.

    Args:
        forward: The CNN.
        batches: The tiles, a few at a time; their `index` gives their rows of `gradient`.
        gradient: (l, k) by the logits of all of them.
    """
    for batch in batches:
        logits = forward(batch.pixels)
        given = gradient[torch.from_numpy(batch.index).to(gradient.device)]
        logits.backward(given.to(logits.dtype))  # type: ignore[no-untyped-call]


def fill_missing_gradients(module: nn.Module) -> None:
    """Set missing gradients to zero, as a backward pass over the whole bag would.

    Adam needs it: a weight with momentum changes also under a gradient of zero.
    """
    for weight in module.parameters():
        if weight.requires_grad and weight.grad is None:
            weight.grad = torch.zeros_like(weight)


def geometric_beta(start: float, end: float, epoch: int, epochs: int) -> float:
    """Beta of an epoch, rising from `start` to `end` by the same factor in every epoch.

    Example:
        >>> [geometric_beta(1.0, 100.0, epoch, 3) for epoch in range(4)]
        [1.0, 10.0, 100.0, 100.0]
    """
    if epoch >= epochs - 1:
        return end
    return float(start * (end / start) ** (epoch / (epochs - 1)))


def relative_change(before: Iterable[Tensor], now: Iterable[Tensor]) -> float:
    """Relative change of weights: the norm of the change by the norm of the weights before."""
    change = size = 0.0
    for old, new in zip(before, now, strict=True):
        was = old.double()
        change += float((new.detach().to(was) - was).square().sum())
        size += float(was.square().sum())
    return float(np.sqrt(change / size)) if size else 0.0
