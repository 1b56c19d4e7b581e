"""Base of the aggregators: data, with a torch module for training and a function of a bag for prediction.

A new aggregator is a subclass of `AggregatorSpec` with a method `build` (see docs/add-an-aggregator.md).
"""

from collections.abc import Callable
from dataclasses import field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, cast

import numpy as np
from annotated_types import Ge, Gt, Le, Len
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.config import Scoring, Selection, Spacing
from he2her2.models.aggregators.selection import soft_argmax, softmax, top_tiles
from he2her2.models.bag import Aggregated, Bag
from he2her2.models.signature import Arrays, Inputs, Layer, Signature

if TYPE_CHECKING:
    from torch import nn

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

RunNetwork: TypeAlias = Callable[[Inputs], Arrays]
"""A network at work: from its inputs to its outputs, by name."""


@dataclass(frozen=True, config=_STRICT)
class RankingSettings:
    """The settings that a ranking aggregator was trained under; prediction must use the same.

    Attributes:
        top_fraction: Share of a slide's tiles that is kept.
        beta: Sharpness of soft-argmax.
        spacing: Rule by which tiles are chosen among these.
    """

    top_fraction: Annotated[float, Gt(0), Le(1)]
    beta: Annotated[float, Gt(0)]
    spacing: Spacing = "even"


@dataclass(frozen=True, config=_STRICT)
class AggregatorSpec:
    """From the bag of a slide to its probability of HER2-positive.

    The torch module of `build` maps features (b, n, d), coords_um (b, n, 2) and a mask (b, n; bool, False = padding) to
    logits (b, k) and contributions (b, n), which are at least 0 and sum to 1 over the tiles of each bag.

    Attributes:
        name: Its name in the settings.
        rule: Kind of aggregator; every subclass has its own.
        classes: Meaning of its logits.
        n_features: Features of a tile; by default the four logits of the tile CNN.
        role: Always "aggregator".
    """

    name: str
    rule: str
    classes: Annotated[tuple[str, ...], Len(2, 64)] = field(default=("negative", "positive"), kw_only=True)
    n_features: Annotated[int, Ge(1), Le(1 << 16)] = field(default=4, kw_only=True)
    role: Literal["aggregator"] = field(default="aggregator", kw_only=True)

    reads_features: ClassVar[str] = ""
    """Name of the linear layer that alone sees the features, so that a standardisation can be folded into it."""

    reads_any_features: ClassVar[bool] = True
    """True where its input may be any encoder's features; False where it must be the tile CNN's logits."""

    reads_places: ClassVar[bool] = False
    """True where it matters where the tiles lie."""

    has_weights: ClassVar[bool] = True
    """True where it learns, and lies in a folder of weights."""

    gives_probability: ClassVar[bool] = True
    """True where its probability is one; else it is 1 for positive and 0 for negative."""

    @property
    def signature(self) -> Signature:
        """Of the ONNX file: one bag of any size."""
        inputs = {"features": (1, "n", self.n_features), "coords_um": (1, "n", 2), "mask": (1, "n")}
        return Signature(inputs, {"logits": (1, len(self.classes)), "contributions": (1, "n")})

    @property
    def layers(self) -> tuple[Layer, ...] | None:
        """Nodes of the ONNX file, in order; None for any plain graph."""
        return None

    def build(self) -> "nn.Module":
        """Torch module with torch's initial weights; import torch inside: prediction does without."""
        raise NotImplementedError

    def auxiliary(self) -> "nn.Module | None":
        """Module that training alone adds to the loss; see `feature_modules.ClusteringLoss`. None for none."""
        return None

    def exported(self, module: "nn.Module") -> "nn.Module":
        """Module of the ONNX file, with the inputs and outputs of `signature`; training passes several bags at once."""
        return module

    def sized_for(self, selection: Selection) -> Self:  # noqa: ARG002  an aggregator of all tiles has no such size
        """The same aggregator with the sizes that follow from the settings."""
        return self

    def ranking_of(self, selection: Selection, scoring: Scoring) -> RankingSettings | None:  # noqa: ARG002  likewise
        """The settings that its weights depend on; None for none."""
        return None

    def select(self, features: NDArray[np.float32], ranking: RankingSettings | None) -> NDArray[np.int64]:  # noqa: ARG002
        """Positions of the tiles that reach the torch module in training: here all."""
        return np.arange(len(features))

    def inputs_of(self, bag: Bag) -> Inputs:
        """Inputs of the ONNX file, from a bag without padding."""
        return {
            "features": bag.features[None],
            "coords_um": bag.coords_um.astype(np.float32)[None],
            "mask": bag.mask[None],
        }

    def aggregate(self, bag: Bag, ranking: RankingSettings | None, run: RunNetwork) -> Aggregated:  # noqa: ARG002
        """Aggregate a bag.

        Args:
            bag: The slide's tiles.
            ranking: The settings that the weights were trained under.
            run: The network.
        """
        tiles = np.flatnonzero(bag.mask)
        found = run(self.inputs_of(bag.take(tiles)))
        contributions = np.zeros(len(bag))
        contributions[tiles] = found["contributions"][0]
        order = np.argsort(-contributions[tiles], kind="stable")
        return Aggregated(positive_probability(found["logits"]), None, tiles[order], contributions)


@dataclass(frozen=True, config=_STRICT)
class RankingSpec(AggregatorSpec):
    """An aggregator that scores tiles by soft-argmax and looks at the best alone (paper, section 3.3).

    Each selected tile contributes 1 / m. Its torch module is a `RankingModule`.

    Attributes:
        n_tiles: Tiles that are selected.
    """

    n_tiles: Annotated[int, Ge(1), Le(10_000_000)]

    reads_any_features: ClassVar[bool] = False

    def sized_for(self, selection: Selection) -> Self:
        """The same aggregator for as many tiles as the settings select."""
        return replace(self, n_tiles=selection.n_tiles)

    def ranking_of(self, selection: Selection, scoring: Scoring) -> RankingSettings:
        """Share of tiles that is kept, the sharpness of their scores, and their spacing."""
        return RankingSettings(selection.top_fraction, scoring.beta, selection.spacing)

    def select(self, features: NDArray[np.float32], ranking: RankingSettings | None) -> NDArray[np.int64]:
        """Positions of the (m,) tiles with the highest scores, best first."""
        assert ranking is not None
        return top_tiles(soft_argmax(features, ranking.beta), self._selection(ranking))

    def aggregate(self, bag: Bag, ranking: RankingSettings | None, run: RunNetwork) -> Aggregated:
        """Score the tiles of a bag, select the best, and make a probability of their scores."""
        assert ranking is not None
        tiles = np.flatnonzero(bag.mask)
        scores = soft_argmax(bag.features, ranking.beta)
        selected = tiles[top_tiles(scores[tiles], self._selection(ranking))]
        contributions = np.zeros(len(bag))
        contributions[selected] = 1 / len(selected)
        return Aggregated(self.probability(scores[selected], run), scores, selected, contributions)

    def _selection(self, ranking: RankingSettings) -> Selection:
        return Selection(ranking.top_fraction, self.n_tiles, ranking.spacing)

    def probability(self, scores: NDArray[np.float64], run: RunNetwork) -> float:
        """Probability of HER2-positive, from the (m,) scores of the selected tiles, best first."""
        raise NotImplementedError


def positive_probability(logits: NDArray[np.float32]) -> float:
    """Probability of the second class, from (1, k) logits."""
    return float(softmax(logits)[0, 1])


def given_module(module: "nn.Module") -> "nn.Module":
    """Module whose forward is the `given` of another: its weights are those of the other, by the same names."""
    from torch import Tensor, nn  # noqa: PLC0415  prediction does without torch

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["_module"] = module
            for name, part in module.named_children():
                self.add_module(name, part)
            for name, weight in module.named_parameters(recurse=False):
                self.register_parameter(name, weight)

        def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = cast("Any", module).given(*inputs)
            return found

    return Given().train(module.training)
