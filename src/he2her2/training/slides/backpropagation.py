"""One step of joint training (paper, 3.3): how a slide's loss reaches its tiles, and through them the tile CNN.

The gradient is exact and cheap. Soft-argmax and aggregator see only the selected tiles' logits; the loss is sent back
to these first. Where nothing arrives, nothing can reach the CNN, and its gradient is zero without looking at a pixel.
Where something does, those tiles alone go through the CNN again, a few at a time, each with its share of the gradient:
the same numbers as one backward pass over the whole bag, in bounded memory.
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
from he2her2.models.aggregators import soft_argmax
from he2her2.slides import TileBatch

NOTHING = 1e-20
"""A smaller gradient counts as none: Adam divides by at least 1e-8, so it would move weights by a rate's 1e-12."""

Forward: TypeAlias = Callable[[Rgb], Tensor]
"""From (n, h, w, 3) tiles to (n, k) logits, with a graph."""


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What a slide's loss is, and how much of its gradient arrives where.

    Attributes:
        loss: Cross-entropy.
        positive: Probability of HER2-positive that training saw.
        at_scores: Norm of the gradient at the selected tiles' scores.
        at_logits: Norm of the gradient at their logits: what the CNN is given.
        share: Of the selected tiles, how many are given any gradient at all.
        gradient: (m, k) float32, of the loss by the selected tiles' logits.
    """

    loss: float
    positive: float
    at_scores: float
    at_logits: float
    share: float
    gradient: Tensor


def send_back(aggregator: nn.Module, logits: Tensor, target: int, beta: float) -> Flow:
    """Loss of a slide from its selected tiles' logits; adds to the aggregator's gradients.

    Args:
        aggregator: From (1, m) scores and their mask to (1, 2) logits.
        logits: (m, k) of the selected tiles, best first.
        target: The slide's class.
        beta: Sharpness of soft-argmax.
    """
    leaf = logits.detach().clone().requires_grad_()
    with torch.autocast(leaf.device.type, enabled=False):  # ranks of scores want all their digits
        scores = soft_argmax(leaf, beta)  # (m,)
        scores.retain_grad()
        of_slide = aggregator(scores[None], torch.ones_like(scores, dtype=torch.bool)[None])  # (1, 2)
        loss = functional.cross_entropy(of_slide, torch.tensor([target], device=leaf.device))
    loss.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert scores.grad is not None
    gradient = torch.where(leaf.grad.abs() < NOTHING, 0.0, leaf.grad)
    return Flow(
        loss=float(loss.detach()),
        positive=float(of_slide.detach().softmax(dim=1)[0, 1]),
        at_scores=float(scores.grad.norm()),
        at_logits=float(gradient.norm()),
        share=float((gradient != 0).any(dim=1).float().mean()),
        gradient=gradient,
    )


def tiles_that_learn(selected: NDArray[np.int64], gradient: Tensor) -> tuple[NDArray[np.int64], Tensor]:
    """The selected tiles that are given any gradient, in raster order, and what they are given.

    Args:
        selected: (m,) positions in the bag, best first.
        gradient: (m, k) by their logits.

    Returns:
        (l,) positions in the bag, ascending, and (l, k).
    """
    rows = np.flatnonzero((gradient != 0).any(dim=1).cpu().numpy())
    rows = rows[np.argsort(selected[rows])]
    return selected[rows], gradient[torch.from_numpy(rows).to(gradient.device)]


def send_through(forward: Forward, batches: Iterable[TileBatch], gradient: Tensor) -> None:
    """Add to the CNN's gradients what the tiles' logits were given.

    Args:
        forward: The CNN.
        batches: The tiles, a few at a time; their `index` says which row of `gradient` is theirs.
        gradient: (l, k) by the logits of all of them.
    """
    for batch in batches:
        logits = forward(batch.pixels)
        given = gradient[torch.from_numpy(batch.index).to(gradient.device)]
        logits.backward(given.to(logits.dtype))  # type: ignore[no-untyped-call]


def no_gradient_is_zero(module: nn.Module) -> None:
    """Give weights that nothing has reached a gradient of zero, as a backward pass over the whole bag would.

    It matters to Adam: a weight of which it remembers momentum moves on without a gradient.
    """
    for weight in module.parameters():
        if weight.requires_grad and weight.grad is None:
            weight.grad = torch.zeros_like(weight)


def geometric(start: float, end: float, epoch: int, epochs: int) -> float:
    """A value on its way from `start` to `end`, by the same factor in every epoch; `end` from the last one on.

    Example:
        >>> [geometric(1.0, 100.0, epoch, 3) for epoch in range(4)]
        [1.0, 10.0, 100.0, 100.0]
    """
    if epoch >= epochs - 1:
        return end
    return float(start * (end / start) ** (epoch / (epochs - 1)))


def movement(before: Iterable[Tensor], now: Iterable[Tensor]) -> float:
    """How far weights have moved, relative to their size: the norm of the change by the norm of what they were."""
    change = size = 0.0
    for old, new in zip(before, now, strict=True):
        was = old.double()
        change += float((new.detach().to(was) - was).square().sum())
        size += float(was.square().sum())
    return float(np.sqrt(change / size)) if size else 0.0
