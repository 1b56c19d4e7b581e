"""The paper's baselines in the aggregator's place: mean and median of the selected tiles' classes (section 5.4)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from he2her2.models.zoo import Rule

POSITIVE_FROM = 1.5
"""Classes 0 and 1+ are negative, 2+ and 3+ positive; a value half-way between 1+ and 2+ counts as 2+."""

_MIDDLE: dict[Rule, Callable[[NDArray[np.float64]], float]] = {
    "mean": lambda classes: float(np.mean(classes)),
    "median": lambda classes: float(np.median(classes)),
    "lower-median": lambda classes: float(np.sort(classes)[(len(classes) - 1) // 2]),
}


def baseline_probability(rule: Rule) -> Callable[[NDArray[np.float64]], float]:
    """A baseline as a function from scores to a probability.

    A baseline only decides: its "probability" of HER2-positive is 1.0 or 0.0 and says nothing of how sure it is.

    Args:
        rule: `mean`; `median`, of an even number the mean of the middle two; `lower-median`, the lower of the two.

    Returns:
        Function of (m,) scores in [0, 3].

    Example:
        >>> scores = np.array([1.0, 1.0, 2.0, 2.0])
        >>> baseline_probability("median")(scores), baseline_probability("lower-median")(scores)
        (1.0, 0.0)
    """
    middle = _MIDDLE[rule]
    return lambda scores: float(middle(tile_classes(scores)) >= POSITIVE_FROM)


def tile_classes(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class of each tile: its score to the nearest whole number, halves up.

    Example:
        >>> tile_classes(np.array([0.5, 1.4, 2.5])).tolist()
        [1.0, 1.0, 3.0]
    """
    return np.floor(scores + 0.5)
