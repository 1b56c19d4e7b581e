"""From a slide's tile scores to its logits, in torch, for training: the paper's MLP and its two baselines."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from he2her2.models.baselines import POSITIVE_FROM
from he2her2.models.zoo import AggregatorSpec, Rule, dense_widths

_TIE = 1e-4  # a value of exactly 1.5 is positive; smaller than any step of a mean of under 10 000 classes


def soft_argmax(logits: Tensor, beta: float) -> Tensor:
    """Map (..., k) logits to (...) expected classes under softmax(beta * logits) (paper, equation 1), for any beta."""
    centred = logits - logits.amax(dim=-1, keepdim=True).detach()  # (..., k), none above 0: nothing overflows
    share = torch.softmax(beta * centred, dim=-1)  # (..., k)
    return share @ torch.arange(logits.shape[-1], dtype=share.dtype, device=share.device)  # (...)


class MlpAggregator(nn.Module):
    """Ranked tile scores through a small MLP (paper, section 3.3).

    Args:
        mlp_layers: From (b, n) scores to (b, k) logits, with ReLU between.
    """

    def __init__(self, mlp_layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.mlp_layers = nn.ModuleList(mlp_layers)

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Map (b, n) scores, with a (b, n) bool mask (False = padding), to (b, k) logits."""
        features = scores.masked_fill(~mask, 0.0).sort(dim=1, descending=True).values  # (b, n)
        for layer in self.mlp_layers[:-1]:
            features = layer(features).relu()  # (b, hidden)
        logits: Tensor = self.mlp_layers[-1](features)  # (b, k)
        return logits


class BaselineAggregator(nn.Module):
    """Mean or median of the tiles' classes, without weights (paper, section 5.4).

    The decision is that of `baselines`: going forward, scores are rounded to classes; going backward, the gradient
    passes as if they were not (straight-through), so that the tile CNN can be trained.

    Args:
        rule: `mean`, `median` or `lower-median`.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Map (b, n) scores, with a (b, n) bool mask (False = padding), to (b, 2) logits: the margin, either way."""
        classes = scores + ((scores + 0.5).floor() - scores).detach()  # (b, n)
        middle = torch.stack([self._middle(row[kept]) for row, kept in zip(classes, mask, strict=True)])  # (b,)
        margin = middle - POSITIVE_FROM + _TIE  # (b,)
        return torch.stack([-margin, margin], dim=1)  # (b, 2)

    def _middle(self, classes: Tensor) -> Tensor:
        if self.rule == "mean":
            return classes.mean()
        if self.rule == "lower-median":
            return classes.median()
        ranked = classes.sort().values
        return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2


def build_aggregator(spec: AggregatorSpec) -> MlpAggregator | BaselineAggregator:
    """The aggregator of a spec, with torch's initial weights."""
    if spec.rule != "mlp":
        return BaselineAggregator(spec.rule)
    widths = dense_widths(spec)
    return MlpAggregator([nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)])
