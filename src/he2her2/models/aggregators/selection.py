"""Scores of tiles by soft-argmax, and selection of the best 15 %, thinned evenly (paper, section 3.3)."""

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Selection


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of (..., k) logits along the last axis, computed stably.

    Example:
        >>> softmax(np.array([[0.0, 0.0], [1e6, 0.0]])).tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    wide = np.asarray(logits, np.float64)
    powers = np.exp(wide - _greatest(wide))
    probabilities: NDArray[np.float64] = powers / reduce(np.add, np.moveaxis(powers, -1, 0))[..., None]
    return probabilities


def _greatest(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 1) greatest of (..., k) logits, class by class: a reduction takes ten times as long for few classes."""
    greatest: NDArray[np.float64] = reduce(np.maximum, np.moveaxis(logits, -1, 0))[..., None]
    return greatest


def soft_argmax(logits: NDArray[Any], beta: float) -> NDArray[np.float64]:
    """Expected class under softmax(beta * logits) (paper, equation 1), stable for any `beta`.

    Args:
        logits: (..., k) of the tile network.
        beta: Sharpness; towards 0 the score nears the mean class, towards infinity the class of the greatest logit.

    Returns:
        (...) scores in [0, k - 1].

    Example:
        >>> soft_argmax(np.array([[0.0, 0.0, 1.0, 0.0]]), beta=1000).tolist()
        [2.0]
    """
    wide = np.asarray(logits, np.float64)
    share = softmax(beta * (wide - _greatest(wide)))
    scores: NDArray[np.float64] = np.minimum(share @ np.arange(wide.shape[-1]), wide.shape[-1] - 1)
    return scores


def top_tiles(scores: NDArray[Any], settings: Selection) -> NDArray[np.int64]:
    """Positions of the tiles that the aggregator gets.

    Scores are sorted from high to low and the top fraction is kept; of more than M = `n_tiles` of these, M evenly
    spaced ones, the first and the last among them. Where the fraction of an almost large enough slide falls short of
    M (a few of its tiles could not be read), the best M are kept.

    Args:
        scores: (n,) finite.
        settings: Fraction, M, and the rule of spacing.

    Returns:
        (M,) positions in `scores`, best first; equal scores in their order, so the chosen *scores* do not depend on
        the order of the tiles.

    Raises:
        ValueError: Fewer than M scores, or one that is not a finite number.

    Example:
        >>> top_tiles(np.array([0.0, 3.0, 1.0, 2.0]), Selection(top_fraction=0.75, n_tiles=2)).tolist()
        [1, 2]
    """
    n_tiles = settings.n_tiles
    if len(scores) < n_tiles:
        raise ValueError(f"{n_tiles} tiles cannot be selected of {len(scores)}; cut the tumour with more overlap")
    if not np.isfinite(scores).all():
        raise ValueError("every score must be a finite number")
    n_top = max(top_count(len(scores), settings.top_fraction), n_tiles)
    ranked = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranks = evenly_spaced(n_top, n_tiles) if settings.spacing == "even" else released_ranks(n_top, n_tiles)
    return ranked[ranks].astype(np.int64)


def top_count(n: int, fraction: float) -> int:
    """Number of tiles in the top fraction of `n`: rounded down, but not because 0.15 has no exact binary form.

    Example:
        >>> top_count(2000, 0.15), top_count(1999, 0.15)
        (300, 299)
    """
    return int(n * fraction * (1 + 1e-12))


def evenly_spaced(n: int, m: int) -> NDArray[np.int64]:
    """`m` distinct positions out of 0 to `n` - 1, as even as whole numbers allow, first and last included.

    One position (m = 1) is the first. Computed in whole numbers, halves rounded up, so it is the same everywhere.

    Example:
        >>> evenly_spaced(10, 4).tolist()
        [0, 3, 6, 9]
    """
    gaps = max(m - 1, 1)
    return (2 * np.arange(m) * (n - 1) + gaps) // (2 * gaps)


def released_ranks(n: int, m: int) -> NDArray[np.int64]:
    """`m` positions out of 0 to `n` - 1 as the released code spaces them.

    The first and the last are taken, and from the second on every (n - 2) / (m - 2)-th but the last, rounded down: the
    ranks lie up to one step off even ones. In floating point as there, where a whole number may come out one lower;
    where there that makes one tile too many, it is left out.

    Example:
        >>> released_ranks(10, 4).tolist(), evenly_spaced(10, 4).tolist()
        ([0, 1, 5, 9], [0, 3, 6, 9])
    """
    if n <= m or m < 3:
        return evenly_spaced(n, m)
    between = np.arange(1, n - 1, (n - 2) / (m - 2))[: m - 2]
    return np.concatenate([[0], between, [n - 1]]).astype(np.int64)


def spread_ranks(n: int, fraction: float, m: int) -> NDArray[np.int64]:
    """`m` ranks spread evenly over the top fraction of `n` tiles; repeated where that has fewer.

    For bags of any size, such as those of other programs; `top_tiles` is for bags that were cut to be large enough.

    Example:
        >>> spread_ranks(100, 0.15, 4).tolist(), spread_ranks(10, 0.15, 4).tolist()
        ([0, 5, 9, 14], [0, 0, 0, 0])
    """
    return evenly_spaced(max(1, top_count(n, fraction)), m).astype(np.int64)
