"""Trivial rivals of a tumour network: what colour, darkness and the mere presence of tissue tell by themselves.

A network that is not above them has not been shown to see tumour. Those that learn do so from the other folds, of other
patients; shifted pictures are judged by what was learned from the pictures as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.geometry import Rgb
from he2her2.preprocessing import optical_density, stained_pixels
from he2her2.statistics import BinaryCounts, balanced_accuracy

HISTOGRAM, DARKNESS, ALL_TISSUE = "colour histogram", "tissue darkness", "all tissue"

_BINS = 16
_TISSUE_SHARE = 0.5


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Looks:
    """Features that the rivals see of n pictures.

    Attributes:
        histogram: (n, 48) shares of pixels in 16 bins each of hue, saturation and value.
        density: (n,) mean optical density.
        tissue: (n,) share of stained pixels.
    """

    histogram: NDArray[np.float64]
    density: NDArray[np.float64]
    tissue: NDArray[np.float64]

    @classmethod
    def of(cls, pixels: Rgb) -> "Looks":
        """Look at (n, h, w, 3) pictures."""
        density = optical_density(pixels).mean(axis=(1, 2, 3), dtype=np.float64)
        tissue = stained_pixels(pixels).mean(axis=(1, 2))
        histogram = [_histogram(picture) for picture in pixels]
        return cls(np.reshape(histogram, (len(pixels), 3 * _BINS)), density, tissue)

    @classmethod
    def joined(cls, parts: "list[Looks]") -> "Looks":
        """Looks at several lots of pictures as one, in their order."""
        return cls(
            np.concatenate([part.histogram for part in parts]),
            np.concatenate([part.density for part in parts]),
            np.concatenate([part.tissue for part in parts]),
        )


def _histogram(picture: Rgb) -> NDArray[np.float64]:
    values = np.asarray(Image.fromarray(picture).convert("HSV")).reshape(-1, 3)
    counts = [np.bincount(channel // (256 // _BINS), minlength=_BINS) for channel in values.T]
    return np.concatenate(counts) / len(values)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Scores:
    """Scores of one scorer for n pictures.

    Attributes:
        score: (n,) higher is more likely tumour.
        called: (n,) bool, called tumour.
    """

    score: NDArray[np.float64]
    called: NDArray[np.bool_]


Rival: TypeAlias = Callable[[Looks], Scores]
"""Scores pictures by their looks: each by what was learned from the other folds."""


def learn_rivals(looks: Looks, tumour: NDArray[np.bool_], fold: NDArray[np.intp]) -> dict[str, Rival]:
    """The rivals by name; the colour histogram only where there are two folds, each with both classes in the others.

    Args:
        looks: Of the pictures as they are.
        tumour: (n,) their truth.
        fold: (n,) their folds, of different patients.
    """
    rivals: dict[str, Rival] = {}
    others = [tumour[fold != k] for k in np.unique(fold)]
    if len(others) > 1 and all(0 < truth.sum() < len(truth) for truth in others):
        rivals[HISTOGRAM] = _colour_histogram(looks, tumour, fold)
        rivals[DARKNESS] = _darkness(looks, tumour, fold)
    rivals[ALL_TISSUE] = lambda seen: Scores(seen.tissue, seen.tissue >= _TISSUE_SHARE)
    return rivals


def _colour_histogram(looks: Looks, tumour: NDArray[np.bool_], fold: NDArray[np.intp]) -> Rival:
    """Boosted trees on the histogram; tumour from the share of tumour in the other folds on."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415  (an extra, and slow to load)

    trees, shares = {}, {}
    for k in np.unique(fold).tolist():
        others = fold != k
        trees[k] = HistGradientBoostingClassifier(max_iter=150, random_state=0)
        trees[k].fit(looks.histogram[others], tumour[others])
        shares[k] = tumour[others].mean()

    def scored(seen: Looks) -> Scores:
        score, called = np.empty(len(fold)), np.empty(len(fold), bool)
        for k, model in trees.items():
            own = fold == k
            score[own] = model.predict_proba(seen.histogram[own])[:, 1]
            called[own] = score[own] >= shares[k]
        return Scores(score, called)

    return scored


def _darkness(looks: Looks, tumour: NDArray[np.bool_], fold: NDArray[np.intp]) -> Rival:
    """Mean optical density; tumour from the density on that divides the other folds best."""
    limits = np.empty(len(fold))
    for k in np.unique(fold):
        limits[fold == k] = best_limit(looks.density[fold != k], tumour[fold != k])
    return lambda seen: Scores(seen.density, seen.density >= limits)


def best_limit(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The value, of at most 200, from which on calling is most accurate on both classes alike."""
    limits = np.unique(np.quantile(values, np.linspace(0, 1, 200)))
    accuracy = partial(_balanced_accuracy_at, values, truth)
    return float(max(limits.tolist(), key=accuracy))


def _balanced_accuracy_at(values: NDArray[np.float64], truth: NDArray[np.bool_], limit: float) -> float:
    return balanced_accuracy(BinaryCounts.of(truth, values >= limit))
