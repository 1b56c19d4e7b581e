"""Torch modules of the aggregators that look at features: attention, smoothed attention, transformer, ranked scores."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from he2her2.models.aggregators.neighbours import grid_neighbours, neighbour_means, segment_means
from he2her2.models.aggregators.selection import spread_ranks
from he2her2.models.ranking_module import expected_class

__all__ = ["RankedFeatures"]

_PINV_STEPS = 6
_SOFT_SORT = 0.1  # scores, whose range is 3, this far apart are told apart
_NOISE = 0.1
_DRAWS = 32


class MeanFeatures(nn.Module):
    """A linear layer on the mean of the tiles."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(n_features, n_classes)

    def forward(self, features: Tensor, coords_um: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Map features (b, n, d) and a mask (b, n) to logits (b, k) and equal shares (b, n)."""
        share = mask / mask.sum(dim=1, keepdim=True)  # (b, n)
        return self.classify((share[..., None] * features).sum(dim=1)), share


class GatedAttention(nn.Module):
    """Gated attention pooling (Ilse et al., ICML 2018, equation 9)."""

    def __init__(self, n_features: int, embed: int, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, embed)
        self.dropout = nn.Dropout(dropout)
        self.tanh = nn.Linear(embed, width)
        self.gate = nn.Linear(embed, width)
        self.score = nn.Linear(width, 1)
        self.classify = nn.Linear(embed, n_classes)

    def forward(self, features: Tensor, coords_um: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Map features (b, n, d) and a mask (b, n) to logits (b, k) and attention (b, n)."""
        embedded = self.embedded(features)  # (b, n, e)
        return self.pooled(embedded, self.scores(embedded), mask)

    def embedded(self, features: Tensor) -> Tensor:
        """Map (b, n, d) to (b, n, e)."""
        hidden: Tensor = self.dropout(self.embed(features).relu())
        return hidden

    def scores(self, embedded: Tensor) -> Tensor:
        """Attention of tiles before softmax: from (b, n, e) to (b, n)."""
        gated = torch.tanh(self.tanh(embedded)) * torch.sigmoid(self.gate(embedded))  # (b, n, w)
        scores: Tensor = self.score(self.dropout(gated))[..., 0]
        return scores

    def pooled(self, embedded: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, k) of the mean by attention, and the attention (b, n)."""
        attention = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)  # (b, n)
        pooled = (attention[..., None] * embedded).sum(dim=1)  # (b, e)
        return self.classify(pooled), attention


class ClusteringLoss(nn.Module):
    """CLAM's loss on instances (Lu et al., 2021): the tiles of most and of least attention are told apart.

    Part of the training alone: the classifiers that it trains do not predict.
    """

    def __init__(self, embed: int, n_classes: int, n_instances: int) -> None:
        super().__init__()
        self.n_instances = n_instances
        self.classifiers = nn.ModuleList([nn.Linear(embed, 2) for _ in range(n_classes)])

    def forward(self, module: GatedAttention, features: Tensor, contributions: Tensor, target: int) -> Tensor:
        """Loss of one bag without padding: features (1, n, d), attention (1, n), and its class."""
        n = min(self.n_instances, max(1, features.shape[1] // 2))
        order = contributions[0].argsort(descending=True)
        ends = torch.cat([order[:n], order[-n:]])
        logits = self.classifiers[target](module.embedded(features[0, ends]))  # (2 n, 2)
        wanted = torch.arange(2 * n, device=logits.device) < n
        return functional.cross_entropy(logits, wanted.long())


class _OneBagAtATime(nn.Module, ABC):
    """Base of aggregators that need, beside the features of a bag, arrays that its places give.

    Their `given` maps features (b, n, d) and those arrays of b bags of n real tiles each to logits and attention.
    """

    @abstractmethod
    def arrays(self, coords: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        """Arrays of the (n, 2) centres of real tiles, which `given` takes beside the features."""

    def forward(self, features: Tensor, coords_um: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (b, n, d), centres (b, n, 2) and a mask (b, n) to logits (b, k) and attention (b, n)."""
        found = []
        for one, places, real in zip(features, coords_um, mask, strict=True):
            arrays = self.arrays(places[real].double().cpu().numpy())
            logits, attention = cast("Any", self).given(
                one[real][None], *(torch.from_numpy(array).to(one.device)[None] for array in arrays)
            )
            found.append((logits[0], torch.zeros_like(one[:, 0]).masked_scatter(real, attention[0])))
        return torch.stack([logits for logits, _ in found]), torch.stack([attention for _, attention in found])


class SmoothAttention(_OneBagAtATime):
    """Gated attention whose scores are smoothed over neighbours (Castro-Macías et al., NeurIPS 2024)."""

    def __init__(self, n_features: int, embed: int, width: int, n_classes: int, dropout: float, steps: int) -> None:
        super().__init__()
        self.attention = GatedAttention(n_features, embed, width, n_classes, dropout)
        self.smoothness = nn.Parameter(torch.zeros(1))
        self.steps = steps

    def arrays(self, coords: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        """Neighbours of each tile, and weights of their mean."""
        return neighbour_means(coords)

    def given(self, features: Tensor, neighbours: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (b, n, d) of real tiles, neighbours (b, n, k) and weights (b, n, k) to logits and attention."""
        embedded = self.attention.embedded(features)
        scores = self.attention.scores(embedded)  # (b, n)
        share = torch.sigmoid(self.smoothness)
        smooth, places = scores, _in_one_row(neighbours)
        for _ in range(self.steps):  # towards the minimum of distance to the scores and difference of neighbours
            near = smooth.reshape(-1).index_select(0, places).reshape(weights.shape)  # (b, n, k)
            around = (near * weights).sum(dim=2)  # (b, n)
            smooth = share * around + (1 - share) * scores
        return self.attention.pooled(embedded, smooth, torch.ones_like(smooth, dtype=torch.bool))


class NystromAttention(nn.Module):
    """Self-attention over landmarks (Xiong et al., 2021): linear in the number of tiles."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (b, t, w) and landmarks, means of tokens (b, m, t), to tokens and the first's attention (b, t)."""
        queries, keys, values = (
            part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=2)
        )  # (b, h, t, w / h) each
        queries, means = queries * self.scale, means[:, None]
        some_queries, some_keys = means @ queries, means @ keys  # (b, h, m, w / h)
        to_landmarks = (queries @ some_keys.transpose(2, 3)).softmax(dim=3)  # (b, h, t, m)
        between = _pinv((some_queries @ some_keys.transpose(2, 3)).softmax(dim=3))  # (b, h, m, m)
        from_landmarks = (some_queries @ keys.transpose(2, 3)).softmax(dim=3)  # (b, h, m, t)
        mixed = to_landmarks @ (between @ (from_landmarks @ values))  # (b, h, t, w / h)
        first = (to_landmarks[:, :, :1] @ between @ from_landmarks)[:, :, 0].mean(dim=1)  # (b, t)
        return self.out(mixed.transpose(1, 2).reshape(tokens.shape)), first


class TransMil(_OneBagAtATime):
    """TransMIL (Shao et al., NeurIPS 2021): two Nyström layers around an encoding of the tiles' places.

    The original lays tiles into a square in the order of their file and convolves over that; here the window of the
    convolution (3 x 3) and the segments of the landmarks follow the tiles' own places, so their order does not matter.
    """

    def __init__(self, n_features: int, width: int, n_classes: int, heads: int, landmarks: int) -> None:
        super().__init__()
        self.landmarks = landmarks
        self.embed = nn.Linear(n_features, width)
        self.token = nn.Parameter(torch.zeros(1, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.layers = nn.ModuleList([NystromAttention(width, heads) for _ in range(2)])
        self.window = nn.Parameter(torch.zeros(width, 9))
        self.classify = nn.Linear(width, n_classes)

    def arrays(self, coords: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        """Window around each tile, and segments of the slide."""
        return (*grid_neighbours(coords), segment_means(coords, self.landmarks))

    def given(self, features: Tensor, places: Tensor, there: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (b, n, d) of real tiles, windows (b, n, 9) and segments (b, m, n) to logits and attention."""
        tiles = self.embed(features).relu()  # (b, n, w)
        nothing = torch.zeros_like(segments[:, :, :1])  # (b, m, 1): the token is in no segment
        means = torch.cat([nothing, segments], dim=2)  # (b, m, n + 1)
        alone = torch.cat([torch.ones_like(nothing[:, :1]), torch.zeros_like(segments[:, :1])], dim=2)
        means = torch.cat([alone, means], dim=1)  # (b, m + 1, n + 1): the token is a landmark of its own
        tokens = torch.cat([self.token.expand(features.shape[0], 1, -1), tiles], dim=1)  # (b, n + 1, w)
        mixed, _ = self.layers[0](self.norms[0](tokens), means)
        tokens = tokens + mixed
        tokens = torch.cat([tokens[:, :1], tokens[:, 1:] + self._around(tokens[:, 1:], places, there)], dim=1)
        mixed, attention = self.layers[1](self.norms[1](tokens), means)
        logits = self.classify(self.norms[2](tokens + mixed)[:, 0])  # (b, k)
        share = attention[:, 1:].abs()  # the approximation of a softmax may fall below 0
        return logits, share / share.sum(dim=1, keepdim=True)

    def _around(self, tiles: Tensor, places: Tensor, there: Tensor) -> Tensor:
        """Depthwise convolution over the tiles around each: from (b, n, w) to (b, n, w)."""
        rows, total = tiles.reshape(-1, tiles.shape[2]), torch.zeros_like(tiles)
        for k in range(9):
            near = rows.index_select(0, _in_one_row(places[:, :, k])).reshape(tiles.shape)
            total = total + near * there[:, :, k : k + 1] * self.window[:, k]
        return total


class RankedFeatures(nn.Module):
    """The paper's rule on features: a linear head scores tiles, the best are ranked, an MLP decides (section 3.3).

    Attributes:
        beta: Sharpness of soft-argmax, which a training may raise from epoch to epoch.
        rule: How gradients pass the selection in training.
    """

    def __init__(self, n_features: int, hidden: tuple[int, ...], n_classes: int, fraction: float, n_tiles: int) -> None:
        super().__init__()
        self.beta = 1.0
        self.rule: Literal["hard", "straight-through", "perturbed"] = "hard"
        self.fraction, self.n_tiles, self.n_classes = fraction, n_tiles, n_classes
        self.score = nn.Linear(n_features, 4)
        widths = (n_tiles, *hidden, n_classes)
        self.mlp = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(widths)])

    def forward(self, features: Tensor, coords_um: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Map features (b, n, d) and a mask (b, n) to logits (b, k), and 1 / m for each place of a selected tile."""
        found = []
        for one, real in zip(features, mask, strict=True):
            scores = self.scores(one[real])  # (n)
            chosen = torch.from_numpy(spread_ranks(len(scores), self.fraction, self.n_tiles)).to(scores.device)
            order = scores.argsort(descending=True, stable=True)
            each = torch.full((len(chosen),), 1 / len(chosen), device=scores.device)
            share = torch.zeros_like(scores).index_add(0, order[chosen], each)
            logits = self.decided(self.selected(scores, chosen))
            found.append((logits, torch.zeros_like(one[:, 0]).masked_scatter(real, share)))
        return torch.stack([logits for logits, _ in found]), torch.stack([share for _, share in found])

    def given(self, features: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (b, n, d) of real tiles and ranks (b, m), all alike, to logits (b, k) and scores (b, n)."""
        scores = self.scores(features)  # (b, n)
        logits = self.decided(self.selected(scores, ranks[0]))
        return logits.reshape(features.shape[0], self.n_classes), scores  # which an ONNX file then states

    def scores(self, features: Tensor) -> Tensor:
        """Expected class of each tile: from (..., n, d) to (..., n) in [0, 3]."""
        return expected_class(self.score(features), self.beta)

    def selected(self, scores: Tensor, ranks: Tensor) -> Tensor:
        """Scores (..., m) at the ranks, with the gradient of the rule."""
        best = scores.sort(dim=-1, descending=True).values.index_select(-1, ranks)
        if not self.training or self.rule == "hard":
            return best
        bags = scores.reshape(-1, scores.shape[-1])  # (b, n)
        soft = torch.stack([self.soft_selection(bag, ranks) @ bag for bag in bags]).reshape(best.shape)
        return best + soft - soft.detach()

    def soft_selection(self, scores: Tensor, ranks: Tensor) -> Tensor:
        """Continuous selection (m, n): how much each tile is the one of each rank; rows sum to 1."""
        if self.rule == "perturbed":
            return cast("Tensor", _Perturbed.apply(scores, ranks))  # type: ignore[no-untyped-call]
        ranked = scores.sort(descending=True).values[ranks]  # (m)
        return (-(ranked[:, None] - scores[None]).abs() / _SOFT_SORT).softmax(dim=1)

    @torch.no_grad()
    def mismatch(self, features: Tensor) -> tuple[float, float] | None:
        """Difference of the selection that training sees from that of prediction; None where they are one.

        Args:
            features: (n, d) of a slide.

        Returns:
            Share of the continuous selection that lies beside the tiles that are taken, and the difference of the
            probabilities of the two.
        """
        if self.rule == "hard":
            return None
        scores = self.scores(features)
        ranks = torch.from_numpy(spread_ranks(len(scores), self.fraction, self.n_tiles)).to(scores.device)
        soft = self.soft_selection(scores, ranks)  # (m, n)
        hard = functional.one_hot(scores.argsort(descending=True, stable=True)[ranks], len(scores)).to(soft.dtype)
        beside = 1 - torch.minimum(soft.mean(dim=0), hard.mean(dim=0)).sum()
        continuous, discrete = (self.decided(selection @ scores).softmax(dim=0)[1] for selection in (soft, hard))
        return float(beside), float((continuous - discrete).abs())

    def decided(self, ranked: Tensor) -> Tensor:
        """Logits (..., k) of (..., m) ranked scores."""
        for layer in self.mlp[:-1]:
            ranked = layer(ranked).relu()
        logits: Tensor = self.mlp[-1](ranked)
        return logits


class _Perturbed(torch.autograd.Function):
    """Mean one-hot selection under Gaussian noise, and its exact gradient in expectation (Berthet et al., 2020)."""

    @staticmethod
    def forward(context: "torch.autograd.function.FunctionCtx", scores: Tensor, ranks: Tensor) -> Tensor:
        noise = torch.randn(_DRAWS, len(scores), device=scores.device)
        order = (scores[None] + _NOISE * noise).argsort(dim=1, descending=True)[:, ranks]  # (draws, m)
        chosen = functional.one_hot(order, len(scores)).to(scores.dtype)  # (draws, m, n)
        context.save_for_backward(chosen, noise)
        return chosen.mean(dim=0)

    @staticmethod
    def backward(context: "torch.autograd.function.FunctionCtx", *gradients: Tensor) -> tuple[Tensor, None]:
        chosen, noise = cast("tuple[Tensor, Tensor]", context.saved_tensors)  # type: ignore[attr-defined]
        weight = (chosen * gradients[0]).sum(dim=(1, 2))  # (draws)
        return (weight[:, None] * noise).mean(dim=0) / _NOISE, None


def _in_one_row(places: Tensor) -> Tensor:
    """Positions in each of b bags of n tiles, (b, n, ...), as positions among all their b n tiles, in one row."""
    first = torch.arange(places.shape[0], device=places.device) * places.shape[1]  # (b)
    return (places + first.reshape(-1, *[1] * (places.dim() - 1))).reshape(-1)


def _pinv(matrices: Tensor) -> Tensor:
    """Moore-Penrose inverse of (b, h, m, m) matrices whose rows sum to 1, by iteration (Razavi et al., 2014)."""
    sums = matrices.sum(dim=2).amax(dim=2)[:, :, None, None]  # rows sum to 1
    found = matrices.transpose(2, 3) / sums
    rows = torch.arange(matrices.shape[2], device=matrices.device)
    unit = (rows[:, None] == rows[None]).to(matrices.dtype)
    of_7, of_15, of_13 = 7 * unit, 15 * unit, 13 * unit
    for _ in range(_PINV_STEPS):
        product = matrices @ found
        found = 0.25 * found @ (of_13 - product @ (of_15 - product @ (of_7 - product)))
    return found
