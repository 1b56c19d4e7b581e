"""Attention on features: gated (ABMIL), with CLAM's clustering loss, and smoothed over neighbouring tiles."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Le, Lt
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.models.aggregators.base import AggregatorSpec, given_module
from he2her2.models.aggregators.neighbours import neighbour_means
from he2her2.models.bag import Bag
from he2her2.models.signature import Inputs, Signature

if TYPE_CHECKING:
    from torch import nn

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Width = Annotated[int, Ge(1), Le(1 << 14)]
_Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, config=_STRICT)
class _AttentionSpec(AggregatorSpec):
    """Parts that all kinds of attention have.

    Attributes:
        embed: Width of a tile after the first layer.
        width: Of the attention's hidden layer.
        dropout: In training.
    """

    embed: _Width
    width: _Width
    dropout: _Share = 0.25

    def build(self) -> "nn.Module":
        """A `GatedAttention`."""
        from he2her2.models.aggregators.feature_modules import GatedAttention  # noqa: PLC0415  prediction does without torch

        return GatedAttention(self.n_features, self.embed, self.width, len(self.classes), self.dropout)


@dataclass(frozen=True, config=_STRICT)
class GatedAttentionSpec(_AttentionSpec):
    """Gated attention pooling (Ilse et al., ICML 2018)."""

    rule: Literal["abmil"]

    reads_features: ClassVar[str] = "embed"


@dataclass(frozen=True, config=_STRICT)
class ClamSpec(_AttentionSpec):
    """CLAM with a single attention branch (Lu et al., 2021): gated attention, taught to tell its ends apart.

    Attributes:
        n_instances: Tiles of most, and of least attention, that the clustering loss looks at.
    """

    rule: Literal["clam-sb"]
    reads_features: ClassVar[str] = "embed"
    n_instances: Annotated[int, Ge(1), Le(1024)] = 8

    def auxiliary(self) -> "nn.Module":
        """The clustering loss."""
        from he2her2.models.aggregators.feature_modules import ClusteringLoss  # noqa: PLC0415  prediction does without torch

        return ClusteringLoss(self.embed, len(self.classes), self.n_instances)


@dataclass(frozen=True, config=_STRICT)
class SmoothAttentionSpec(_AttentionSpec):
    """Gated attention smoothed over neighbours, how much is learned (Castro-Macías et al., NeurIPS 2024).

    Attributes:
        steps: Of smoothing; so many tiles far it reaches.
    """

    rule: Literal["smooth-abmil"]
    reads_features: ClassVar[str] = "attention.embed"
    reads_places: ClassVar[bool] = True
    steps: Annotated[int, Ge(1), Le(64)] = 10

    @property
    def signature(self) -> Signature:
        """Of the ONNX file: a bag with the neighbours of each tile, and the weights of their mean."""
        return Signature(
            {"features": (1, "n", self.n_features), "neighbours": (1, "n", "k"), "weights": (1, "n", "k")},
            {"logits": (1, len(self.classes)), "contributions": (1, "n")},
            frozenset({"neighbours"}),
        )

    def inputs_of(self, bag: Bag) -> Inputs:
        """Features, neighbours and weights."""
        index, weight = neighbour_means(bag.coords_um)
        return {"features": bag.features[None], "neighbours": index[None], "weights": weight[None]}

    def build(self) -> "nn.Module":
        """A `SmoothAttention`."""
        from he2her2.models.aggregators.feature_modules import SmoothAttention  # noqa: PLC0415  prediction does without torch

        return SmoothAttention(self.n_features, self.embed, self.width, len(self.classes), self.dropout, self.steps)

    def exported(self, module: "nn.Module") -> "nn.Module":
        """The network behind the search for neighbours."""
        return given_module(module)
