"""Outcomes of cases (truth, decisions), probabilities of them, and shares, whose values are checked."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def outcomes(values: ArrayLike, name: str = "truth") -> NDArray[np.bool_]:
    """Return outcomes as bool.

    Args:
        values: (n,) bool, or 0 and 1.
        name: Of the values, for the message.

    Raises:
        ValueError: They are something else, of which Python would make bool without a word: the words "negative" and
            "positive", the classes -1 and 1, and nan are all true.

    Example:
        >>> outcomes([1, 0]).tolist()
        [True, False]
    """
    found = np.asarray(values)
    strange = [] if found.dtype == np.bool_ else [one for one in found.ravel().tolist() if one not in (0, 1)]
    if strange:
        raise ValueError(f"{name} must be bool, or 0 and 1, got {strange[0]!r}")
    return found.astype(np.bool_)


def outcomes_and_probabilities(
    truth: ArrayLike, probability: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return (n,) outcomes and their probabilities.

    Raises:
        ValueError: Truth is no list of outcomes, the lists differ in length, or a probability is nan or outside [0, 1].
    """
    true, p = outcomes(truth), np.asarray(probability, dtype=np.float64)
    if true.ndim != 1 or true.shape != p.shape:
        raise ValueError(f"truth and probability must be equally long lists, got shapes {true.shape} and {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a probability is nan or outside [0, 1]")
    return true, p


def require_share(value: float, name: str) -> None:
    """Raise ValueError unless a value is a share in [0, 1], as one in per cent is not."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share in [0, 1], got {value}")
