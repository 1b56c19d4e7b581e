"""The paper's aggregator: the scores of the best tiles, ranked, through a small MLP (section 3.3)."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, cast

import numpy as np
from annotated_types import Ge, Le, Len
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.models.aggregators.base import RankingSpec, RunNetwork, positive_probability
from he2her2.models.signature import Layer, Signature, dense_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from he2her2.models.ranking_module import RankingModule

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class RankedMlpSpec(RankingSpec):
    """Ranked tile scores through fully connected layers.

    Attributes:
        hidden: Widths of the hidden layers, each followed by ReLU.
    """

    rule: Literal["mlp"]
    hidden: Annotated[tuple[Annotated[int, Ge(1), Le(1 << 16)], ...], Len(0, 64)]

    @property
    def signature(self) -> Signature:
        """Of the ONNX file: from `input` (n, m), scores from high to low, to `logits` (n, k)."""
        return Signature({"input": ("n", self.n_tiles)}, {"logits": ("n", len(self.classes))})

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Nodes of the ONNX file, in order."""
        return tuple(dense_layers("mlp_layers", (self.n_tiles, *self.hidden, len(self.classes))))

    def probability(self, scores: NDArray[np.float64], run: RunNetwork) -> float:
        """Softmax of the MLP's logits."""
        ranked = np.sort(scores)[::-1].astype(np.float32)
        return positive_probability(run({"input": ranked[None]})["logits"])

    def build(self) -> "RankingModule":
        """The MLP behind soft-argmax and sorting; its layers are named as in the authors' files."""
        from torch import Tensor, nn  # noqa: PLC0415  prediction does without torch

        from he2her2.models.ranking_module import RankingModule  # noqa: PLC0415

        class RankedMlp(RankingModule):
            def __init__(self, widths: tuple[int, ...]) -> None:
                super().__init__()
                self.mlp_layers = nn.ModuleList([nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)])

            def of_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
                ranked = scores.masked_fill(~mask, 0.0).sort(dim=1, descending=True).values  # (b, m)
                return _dense(self.mlp_layers, ranked)

        return RankedMlp((self.n_tiles, *self.hidden, len(self.classes)))

    def exported(self, module: "nn.Module") -> "nn.Module":
        """The layers alone, for scores that are sorted."""
        from torch import Tensor, nn  # noqa: PLC0415  prediction does without torch

        class Mlp(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.mlp_layers = cast("nn.ModuleList", module.mlp_layers)

            def forward(self, ranked: Tensor) -> Tensor:
                return _dense(self.mlp_layers, ranked)

        return Mlp()


def _dense(layers: "nn.ModuleList", features: "Tensor") -> "Tensor":
    """Map (b, m) to (b, k), with ReLU between the layers."""
    for layer in layers[:-1]:
        features = layer(features).relu()  # (b, hidden)
    logits: Tensor = layers[-1](features)  # (b, k)
    return logits
