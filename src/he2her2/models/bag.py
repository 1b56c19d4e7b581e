"""A slide's tiles as an aggregator gets them, and what the aggregator makes of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import TileGrid


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Bag:
    """The tiles of one slide: the only input of an aggregator.

    Attributes:
        features: (n, d) float32, the tile CNN's logits or any encoder's features.
        coords_um: (n, 2) float64 centres (x, y) in µm from the slide's top-left corner.
        mask: (n,) bool, False for rows that are padding.
    """

    features: NDArray[np.float32]
    coords_um: NDArray[np.float64]
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, grid: TileGrid, features: NDArray[np.float32]) -> "Bag":
        """Bag of (n) tiles and their (n, d) features, without padding.

        Example:
            >>> grid = TileGrid(np.array([[0, 512]]), side_l0=512, side_px=256, mpp=0.5)
            >>> Bag.of(grid, np.zeros((1, 4), np.float32)).coords_um.tolist()
            [[64.0, 192.0]]
        """
        mpp_l0 = grid.mpp * grid.side_px / grid.side_l0
        centres_l0 = grid.origins_l0.astype(np.float64) + grid.side_l0 / 2
        return cls(features, centres_l0 * mpp_l0, np.ones(len(grid), np.bool_))

    def __len__(self) -> int:
        return len(self.features)

    def take(self, index: NDArray[Any]) -> "Bag":
        """The rows that `index` (positions, also repeated ones, or a bool mask) names, in its order."""
        return Bag(self.features[index], self.coords_um[index], self.mask[index])


@dataclass(frozen=True, slots=True, eq=False)
class Aggregated:
    """Output of an aggregator for one bag.

    Attributes:
        probability: Of HER2-positive.
        scores: (n,) expected IHC score of each tile, in [0, 3]; None from an aggregator that scores no tiles.
        selected: (m,) positions in the bag of the tiles that decided, most important first.
        contributions: (n,) float64, share of each tile in the result: at least 0, summing to 1.
    """

    probability: float
    scores: NDArray[np.float64] | None
    selected: NDArray[np.int64]
    contributions: NDArray[np.float64]
