"""The paper's rule on features: a linear head scores tiles, the best 15 % are ranked, a small MLP decides."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Len
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.models.aggregators.base import (
    AggregatorSpec,
    RankingSettings,
    RunNetwork,
    given_module,
    positive_probability,
)
from he2her2.models.aggregators.selection import spread_ranks
from he2her2.models.bag import Aggregated, Bag
from he2her2.models.signature import Inputs, Signature

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class RankedFeaturesSpec(AggregatorSpec):
    """Ranked scores of features through fully connected layers (paper, sections 3.3 and 6).

    Attributes:
        hidden: Widths of the hidden layers, each followed by ReLU.
        n_tiles: Ranks that the MLP sees.
        top_fraction: Share of the tiles that they are spread over.
        beta: Sharpness of soft-argmax over the head's four classes.
    """

    rule: Literal["ranked-features"]
    reads_features: ClassVar[str] = "score"
    hidden: Annotated[tuple[Annotated[int, Ge(1), Le(1 << 14)], ...], Len(0, 16)]
    n_tiles: Annotated[int, Ge(1), Le(100_000)] = 32
    top_fraction: Annotated[float, Gt(0), Le(1)] = 0.15
    beta: Annotated[float, Gt(0)] = 1.0

    @property
    def signature(self) -> Signature:
        """Of the ONNX file: a bag with the ranks that decide."""
        inputs = {"features": (1, "n", self.n_features), "ranks": (1, self.n_tiles)}
        return Signature(inputs, {"logits": (1, len(self.classes)), "scores": (1, "n")}, frozenset({"ranks"}))

    def inputs_of(self, bag: Bag) -> Inputs:
        """Features and ranks."""
        ranks = spread_ranks(len(bag), self.top_fraction, self.n_tiles)
        return {"features": bag.features[None], "ranks": ranks[None]}

    def aggregate(self, bag: Bag, ranking: RankingSettings | None, run: RunNetwork) -> Aggregated:  # noqa: ARG002
        """Score the tiles of a bag, and decide on the best; each rank contributes 1 / m."""
        tiles = np.flatnonzero(bag.mask)
        inputs = self.inputs_of(bag.take(tiles))
        found = run(inputs)
        scores = np.zeros(len(bag))
        scores[tiles] = found["scores"][0]
        ranks = inputs["ranks"][0]
        ranked = tiles[np.argsort(-scores[tiles], kind="stable")]
        contributions = np.bincount(ranked[ranks], minlength=len(bag)) / len(ranks)
        selected = ranked[np.unique(ranks)]
        return Aggregated(positive_probability(found["logits"]), np.clip(scores, 0, 3), selected, contributions)

    def build(self) -> "nn.Module":
        """A `RankedFeatures`."""
        from he2her2.models.aggregators.feature_modules import RankedFeatures  # noqa: PLC0415  prediction does without torch

        sizes = self.n_features, self.hidden, len(self.classes), self.top_fraction, self.n_tiles
        module = RankedFeatures(*sizes)
        module.beta = self.beta
        return module

    def exported(self, module: "nn.Module") -> "nn.Module":
        """The network behind the ranks."""
        return given_module(module)
