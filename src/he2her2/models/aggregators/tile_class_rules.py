"""The paper's baselines in the aggregator's place: mean and median of the selected tiles' classes (section 5.4)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.labels import IhcScore
from he2her2.models.aggregators.base import RankingSpec, RunNetwork

if TYPE_CHECKING:
    from he2her2.models.ranking_module import RankingModule

_STRICT = ConfigDict(extra="forbid")

_TileClassRule: TypeAlias = Literal["mean", "median", "lower-median"]

POSITIVE_FROM = 1.5
"""Classes 0 and 1+ are negative, 2+ and 3+ positive; a value half-way between 1+ and 2+ counts as 2+."""

_TIE = 1e-4  # a value of exactly 1.5 is positive; smaller than any step of a mean of under 10 000 classes

_MIDDLE: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "mean": lambda classes: float(np.mean(classes)),
    "median": lambda classes: float(np.median(classes)),
    "lower-median": lambda classes: float(np.sort(classes)[(len(classes) - 1) // 2]),
}


@dataclass(frozen=True, config=_STRICT)
class TileClassRuleSpec(RankingSpec):
    """A rule on the classes of the selected tiles, without weights.

    It only decides: its "probability" of HER2-positive is 1.0 or 0.0 and says nothing of how sure it is.

    Attributes:
        rule: `mean`; `median`, of an even number the mean of the middle two; `lower-median`, the lower of the two.

    Example:
        >>> scores = np.array([2.0, 2.0, 1.0, 1.0])
        >>> [TileClassRuleSpec(rule, rule, n_tiles=4).probability(scores) for rule in ("median", "lower-median")]
        [1.0, 0.0]
    """

    rule: _TileClassRule

    has_weights: ClassVar[bool] = False
    gives_probability: ClassVar[bool] = False

    def probability(self, scores: NDArray[np.float64], run: RunNetwork | None = None) -> float:  # noqa: ARG002  no network
        """1.0 where the middle of the tiles' classes is positive, else 0.0."""
        return float(_MIDDLE[self.rule](tile_classes(scores)) >= POSITIVE_FROM)

    def build(self) -> "RankingModule":
        """The same decision for training, as the margin to `POSITIVE_FROM`, either way.

        Going forward, scores are rounded to classes; going backward, the gradient passes as if they were not
        (straight-through), so that the tile CNN can be trained.
        """
        import torch  # noqa: PLC0415  prediction does without torch
        from torch import Tensor  # noqa: PLC0415

        from he2her2.models.ranking_module import RankingModule  # noqa: PLC0415

        def middle(classes: Tensor) -> Tensor:
            if self.rule == "mean":
                return classes.mean()
            if self.rule == "lower-median":
                return classes.median()
            ranked = classes.sort().values
            return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2

        class TileClasses(RankingModule):
            def of_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
                classes = scores + ((scores + 0.5).floor() - scores).detach()  # (b, m)
                middles = torch.stack([middle(row[kept]) for row, kept in zip(classes, mask, strict=True)])  # (b,)
                margin = middles - POSITIVE_FROM + _TIE  # (b,)
                return torch.stack([-margin, margin], dim=1)  # (b, 2)

        return TileClasses()


def tile_counts(scores: NDArray[np.float64]) -> list[int]:
    """Number of tiles of each IHC score.

    Args:
        scores: (n,) expected scores, in [0, 3].

    Example:
        >>> tile_counts(np.array([0.2, 2.5, 2.6]))
        [1, 0, 0, 2]
    """
    counts: list[int] = np.bincount(tile_classes(scores).astype(np.int64), minlength=len(IhcScore)).tolist()
    return counts


def tile_classes(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class of each tile: its score to the nearest whole number, halves up.

    Example:
        >>> tile_classes(np.array([0.5, 1.4, 2.5])).tolist()
        [1.0, 1.0, 3.0]
    """
    return np.floor(scores + 0.5)
