"""Trivial rivals of a tumour network: what colour, darkness and the mere presence of tissue tell by themselves.

A network that is not above them has not been shown to see tumour. Those that learn do so from pictures that they do not
judge: the part of the set that is there to learn from, or the other folds; shifted pictures are judged by what was
learned from the pictures as they are.
"""

from collections.abc import Callable, Sequence
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

    def take(self, chosen: NDArray[np.bool_]) -> "Looks":
        """Those of some of the pictures."""
        return Looks(self.histogram[chosen], self.density[chosen], self.tissue[chosen])


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
"""Scores the n pictures by their looks: each by what was learned from others."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Lesson:
    """Pictures that rivals learn from, and those that they then judge.

    Attributes:
        looks: Of m pictures as they are.
        tumour: (m,) bool, their truth.
        judged: (n,) bool, the pictures that are judged by what was learned here.
    """

    looks: Looks
    tumour: NDArray[np.bool_]
    judged: NDArray[np.bool_]


def lessons_of_folds(looks: Looks, tumour: NDArray[np.bool_], fold: NDArray[np.intp]) -> list[Lesson]:
    """Each fold learns from the others; nobody can learn where there is one fold.

    Args:
        looks: Of the n pictures as they are.
        tumour: (n,) bool, their truth.
        fold: (n,) their folds, of different patients.
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        return []
    return [Lesson(looks.take(fold != k), tumour[fold != k], fold == k) for k in folds]


def learn_rivals(lessons: Sequence[Lesson]) -> dict[str, Rival]:
    """The rivals by name; those that learn only where every lesson has both classes, between them of every picture."""
    rivals: dict[str, Rival] = {}
    if lessons and all(0 < lesson.tumour.sum() < len(lesson.tumour) for lesson in lessons):
        rivals[HISTOGRAM] = _colour_histogram(lessons)
        rivals[DARKNESS] = _darkness(lessons)
    rivals[ALL_TISSUE] = lambda seen: Scores(seen.tissue, seen.tissue >= _TISSUE_SHARE)
    return rivals


def _colour_histogram(lessons: Sequence[Lesson]) -> Rival:
    """Boosted trees on the histogram; tumour from the share of tumour in the lesson on."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415  (an extra, and slow to load)

    learned = []
    for lesson in lessons:
        trees = HistGradientBoostingClassifier(max_iter=150, random_state=0)
        trees.fit(lesson.looks.histogram, lesson.tumour)
        learned.append((trees, lesson.tumour.mean(), lesson.judged))

    def scored(seen: Looks) -> Scores:
        score, called = np.empty(len(seen.density)), np.empty(len(seen.density), bool)
        for trees, share, judged in learned:
            score[judged] = trees.predict_proba(seen.histogram[judged])[:, 1]
            called[judged] = score[judged] >= share
        return Scores(score, called)

    return scored


def _darkness(lessons: Sequence[Lesson]) -> Rival:
    """Mean optical density; tumour from the density on that divides the lesson best."""
    limits = np.empty(len(lessons[0].judged))
    for lesson in lessons:
        limits[lesson.judged] = best_limit(lesson.looks.density, lesson.tumour)
    return lambda seen: Scores(seen.density, seen.density >= limits)


def best_limit(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The value, of at most 200, from which on calling is most accurate on both classes alike."""
    limits = np.unique(np.quantile(values, np.linspace(0, 1, 200)))
    accuracy = partial(_balanced_accuracy_at, values, truth)
    return float(max(limits.tolist(), key=accuracy))


def _balanced_accuracy_at(values: NDArray[np.float64], truth: NDArray[np.bool_], limit: float) -> float:
    return balanced_accuracy(BinaryCounts.of(truth, values >= limit))
