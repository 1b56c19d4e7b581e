"""A slide's HER2 status from its tiles' logits: the one place where status is decided."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import NotANumberError
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status
from he2her2.models import Aggregated, Bag, soft_argmax
from he2her2.rules import DIGITS, OperatingPoint, is_called


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """A slide's HER2 status and the tiles that it rests on.

    Attributes:
        status: Positive where the probability reaches the threshold.
        probability: Of HER2-positive, rounded as predictions write it: what is below that ranks no two slides.
        grid: (n) the tiles that could be read, in raster order.
        logits: (n, 4) of the tile network.
        scores: (n,) expected IHC score, in [0, 3]: the aggregator's, else the mean class by the tile network.
        selected: (m,) positions in `grid` of the tiles that decided, most important first.
        contributions: (n,) share of each tile in the result, at least 0, summing to 1.
    """

    status: Her2Status
    probability: float
    grid: TileGrid
    logits: NDArray[np.float32]
    scores: NDArray[np.float64]
    selected: NDArray[np.int64]
    contributions: NDArray[np.float64]


def decide_on(
    slide_id: str,
    grid: TileGrid,
    logits: NDArray[np.float32],
    aggregator: Callable[[Bag], Aggregated],
    threshold: float,
    operating_point: OperatingPoint | None = None,
    features: NDArray[np.float32] | None = None,
) -> Decision:
    """Decide on a slide whose tiles have their logits; prediction, training and ablation all decide here.

    Args:
        slide_id: The slide's name.
        grid: (n) tiles.
        logits: (n, 4) of them.
        aggregator: From the bag to the probability of HER2-positive.
        threshold: Positive from this probability on.
        operating_point: Kept beside the weights; decides in place of `threshold`.
        features: (n, d) that the aggregator sees in place of the logits, which then score the tiles for the reader.

    Raises:
        NotANumberError: The aggregator gives no number.
    """
    found = aggregator(Bag.of(grid, logits if features is None else features))
    if not np.isfinite(found.probability):
        raise NotANumberError(slide_id, "the aggregator gives no number as probability", "use other weights")
    probability = round(found.probability, DIGITS)
    if operating_point is not None:
        status = operating_point.status(probability)
    else:
        status = Her2Status.POSITIVE if is_called(probability, threshold) else Her2Status.NEGATIVE
    scores = soft_argmax(logits, beta=1.0) if found.scores is None or features is not None else found.scores
    return Decision(status, probability, grid, logits, scores, found.selected, found.contributions)
