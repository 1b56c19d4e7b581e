"""From the logits of a slide's tiles to its HER2 status: score, select, aggregate. Pure functions of arrays."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Config
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status
from he2her2.models.scoring import soft_argmax
from he2her2.models.selection import top_tiles


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """A slide's HER2 status and the tiles that it rests on.

    Attributes:
        status: Positive where the probability reaches the threshold.
        probability: Of HER2-positive.
        grid: (n) the tiles that could be read, in raster order.
        logits: (n, 4) of the tile network.
        scores: (n,) expected IHC score, in [0, 3].
        selected: (m,) positions in `grid` of the tiles that decided, highest score first.
    """

    status: Her2Status
    probability: float
    grid: TileGrid
    logits: NDArray[np.float32]
    scores: NDArray[np.float64]
    selected: NDArray[np.int64]


def decide_on(
    grid: TileGrid, logits: NDArray[np.float32], aggregate: Callable[[NDArray[np.float64]], float], config: Config
) -> Decision:
    """Decide on a slide whose tiles have been seen by the tile network.

    Prediction, training and evaluation all decide here.

    Args:
        grid: (n) tiles.
        logits: (n, 4) of them.
        aggregate: From the (m,) scores of the selected tiles to the probability of HER2-positive.
        config: The settings.
    """
    scores = soft_argmax(logits, config.scoring.beta)
    selected = top_tiles(scores, config.selection)
    probability = aggregate(scores[selected])
    status = Her2Status.POSITIVE if probability >= config.threshold else Her2Status.NEGATIVE
    return Decision(status, probability, grid, logits, scores, selected)
