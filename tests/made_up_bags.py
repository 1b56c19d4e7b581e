"""Bags whose tiles have wanted scores, for tests of what aggregates them."""

import numpy as np

from he2her2.models import Bag


def logits_of_scores(scores: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """(n, 4) logits that soft-argmax at `beta` scores as the (n,) `scores` in [0, 3], to float32."""
    share = np.clip(1 - np.abs(np.asarray(scores, float)[:, None] - np.arange(4)), 0, 1)  # (n, 4), between two classes
    logits: np.ndarray = (np.log(np.maximum(share, 1e-300)) / beta).astype(np.float32)
    return logits


def bag_of_scores(scores: np.ndarray, beta: float = 1.0) -> Bag:
    """A bag of tiles in a row."""
    n = len(scores)
    coords_um = np.stack([64.0 * np.arange(n), np.zeros(n)], axis=1)
    return Bag(logits_of_scores(scores, beta), coords_um, np.ones(n, bool))
