"""Thresholds from the scores of patients whose status nobody knows, each with what it takes for granted.

None of these gives a guarantee: where its assumption fails, the threshold is wrong, and unlabelled patients cannot show
that it does.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he2her2.errors import EvaluationError
from he2her2.rules import logit_of
from he2her2.statistics.outcomes import require_share

_ROUNDS = 1000
_STEADY = 1e-9


def threshold_at_share(probability: ArrayLike, share: float) -> float:
    """Threshold that calls this share of the patients positive.

    Assumes that the share of positives among them is known, as from the laboratory's own register, and that the scores
    order patients.

    Args:
        probability: (n,) in [0, 1].
        share: Of positives, in (0, 1).

    Returns:
        Halfway, on the logit scale, between the last patient called positive and the first called negative.

    Raises:
        EvaluationError: Of so few patients the share is none, or all.

    Example:
        >>> round(threshold_at_share([0.5, 0.01, 0.02, 0.5, 0.9, 0.03], 0.5), 3)
        0.15
    """
    scores = np.sort(logit_of(probability))[::-1]
    n_positive = round(share * len(scores))
    if not 0 < n_positive < len(scores):
        raise EvaluationError(f"{share:.3g} of {len(scores)} patients is none or all of them; give more slides")
    return _between(scores[n_positive], scores[n_positive - 1])


def threshold_in_valley(probability: ArrayLike) -> float:
    """Threshold between the two groups of scores, by Otsu's rule on the logit scale: the widest between-class variance.

    Assumes that scores fall into two groups and that these are the negatives and the positives.

    Args:
        probability: (n,) in [0, 1], not all the same.

    Raises:
        EvaluationError: All patients have the same score.

    Example:
        >>> round(threshold_in_valley([0.01, 0.02, 0.02, 0.9, 0.95]), 3)
        0.3
    """
    scores = np.sort(logit_of(probability))
    if scores[0] == scores[-1]:
        raise EvaluationError("all patients have the same score: no threshold can lie between them")
    below = np.arange(1, len(scores))
    sums = np.cumsum(scores)[:-1]
    difference = sums / below - (scores.sum() - sums) / (len(scores) - below)
    k = int(np.argmax(below * (len(scores) - below) * difference**2))
    return _between(scores[k], scores[k + 1])


def share_by_em(probability: ArrayLike, prior: float) -> float:
    """Share of positives among patients by expectation maximisation (Saerens, Latinne and Decaestecker, 2002).

    Assumes that only the share of positives differs from the training: positives look like its positives, negatives
    like its negatives, and the probabilities are calibrated there. Another laboratory's colours break this.

    Args:
        probability: (n,) of HER2-positive, in [0, 1].
        prior: Share of positives for which the probabilities hold, in (0, 1).

    Returns:
        The share, kept within 1 / (2 n) of 0 and 1.

    Example:
        >>> round(share_by_em([0.9] * 2 + [0.1] * 8, 0.5), 3)
        0.125
    """
    require_share(prior, "prior")
    odds = np.exp(logit_of(probability)) * (1 - prior) / prior
    share = prior
    for _ in range(_ROUNDS):
        weighted = odds * share
        found = float(np.mean(weighted / (weighted + 1 - share)))
        if abs(found - share) < _STEADY:
            break
        share = found
    least = 0.5 / len(odds)
    return min(max(share, least), 1 - least)


def threshold_at_prior(prior: float, share: float) -> float:
    """Threshold on probabilities of one share of positives that is 0.5 once corrected to another share (Bayes).

    Args:
        prior: Share for which the probabilities hold.
        share: Share among the patients.

    Example:
        >>> round(threshold_at_prior(0.5, 0.2), 3)
        0.8
    """
    require_share(prior, "prior")
    require_share(share, "share")
    odds = prior / (1 - prior) * (1 - share) / share
    return odds / (1 + odds)


def _between(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Probability halfway between two logits."""
    return float(1 / (1 + np.exp(-(low + high) / 2)))
