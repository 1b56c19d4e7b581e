"""The mean of the tiles' features through one layer: what any other aggregator has to beat."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.models.aggregators.base import AggregatorSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MeanFeaturesSpec(AggregatorSpec):
    """Logistic regression on the mean of the features; every tile contributes alike."""

    rule: Literal["mean-features"]

    reads_features: ClassVar[str] = "classify"

    def build(self) -> "nn.Module":
        """A `MeanFeatures`."""
        from he2her2.models.aggregators.feature_modules import MeanFeatures  # noqa: PLC0415  prediction does without torch

        return MeanFeatures(self.n_features, len(self.classes))
