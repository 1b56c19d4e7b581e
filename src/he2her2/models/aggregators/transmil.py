"""TransMIL: self-attention of all tiles, with an encoding of their places (Shao et al., NeurIPS 2021)."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.models.aggregators.base import AggregatorSpec, given_module
from he2her2.models.aggregators.neighbours import grid_neighbours, segment_means
from he2her2.models.bag import Bag
from he2her2.models.signature import Inputs, Signature

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TransMilSpec(AggregatorSpec):
    """A transformer over the tiles.

    Attributes:
        width: Of a token; a multiple of `heads`.
        heads: Of the attention.
        landmarks: Segments of the slide that stand for all tiles in the attention.
    """

    rule: Literal["transmil"]
    reads_features: ClassVar[str] = "embed"
    reads_places: ClassVar[bool] = True
    width: Annotated[int, Ge(8), Le(1 << 12)]
    heads: Annotated[int, Ge(1), Le(64)] = 4
    landmarks: Annotated[int, Ge(1), Le(1024)] = 32

    def __post_init__(self) -> None:
        """Check that heads divide the width."""
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads")

    @property
    def signature(self) -> Signature:
        """Of the ONNX file: a bag with the tiles around each, and the segments of the slide."""
        return Signature(
            {
                "features": (1, "n", self.n_features),
                "places": (1, "n", 9),
                "there": (1, "n", 9),
                "segments": (1, "m", "n"),
            },
            {"logits": (1, len(self.classes)), "contributions": (1, "n")},
            frozenset({"places"}),
        )

    def inputs_of(self, bag: Bag) -> Inputs:
        """Features, windows and segments."""
        places, there = grid_neighbours(bag.coords_um)
        segments = segment_means(bag.coords_um, self.landmarks)
        return {
            "features": bag.features[None],
            "places": places[None],
            "there": there[None],
            "segments": segments[None],
        }

    def build(self) -> "nn.Module":
        """A `TransMil`."""
        from he2her2.models.aggregators.feature_modules import TransMil  # noqa: PLC0415  prediction does without torch

        return TransMil(self.n_features, self.width, len(self.classes), self.heads, self.landmarks)

    def exported(self, module: "nn.Module") -> "nn.Module":
        """The network behind the windows and segments."""
        return given_module(module)
