"""Likeness of the tissue on two slides: landmarks of their thumbnails, matched, and counted where they fit together.

Landmarks are SIFT's (Lowe, 2004), on the optical density of red light, which is haematoxylin's for the most part: a
turned, mirrored, cropped, scaled, restained, inked or enlarged copy keeps most of them. Two slides are alike where
enough of them agree on one place, scale and angle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from he2her2.geometry import Mask, Rgb

THUMBNAIL_PX = 1024
"""Longest side of the thumbnails that landmarks are taken from; the scale itself does not matter."""

ALIKE = 8
"""Landmarks that agree from which two slides count as the same tissue; see experiments/results/slide_likeness.md."""

FEWEST = 3 * ALIKE
"""Landmarks from which a slide can be compared."""

_SIDE_PX = 512
_MOST = 200
_QUICK = 80  # landmarks of a slide that a first, quick comparison looks at
_QUICK_LIKENESS = 0.955  # of its third best match; 1 % of other tissue reaches it, every copy did
_QUICK_RANK = 3
_RATIO = 0.85
_FIRST_ERROR, _ERROR = 0.04, 0.015  # of the side, before and after the fit
_SCALE_RATIO, _TURN = 1.6, 0.4
_LARGEST_SCALE = 4.0
_LEAST_SPREAD = 0.04
_REFINEMENTS = 3
_BLOCK = 2000  # slides that are compared with one at a time
_SMALLEST_PX = 16
_MOST_DENSE = 4.0
_GLASS = 0.06


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """Landmarks of a slide, the largest first.

    Attributes:
        place: (n,) positions in px, as complex numbers.
        size: (n,) sizes in px.
        angle: (n,) orientations.
        kind: (n, 128) descriptors of length 1, in half precision: a cohort has thousands of prints.
    """

    place: NDArray[np.complex128]
    size: NDArray[np.float64]
    angle: NDArray[np.float64]
    kind: NDArray[np.float16]

    def __len__(self) -> int:
        """Number of landmarks."""
        return len(self.place)


@dataclass(frozen=True, slots=True, eq=False)
class TissuePrint:
    """Landmarks of a slide as it is, and of its mirror image."""

    plain: Landmarks
    mirrored: Landmarks

    @property
    def comparable(self) -> bool:
        """True if there is enough tissue to tell it from other tissue."""
        return len(self.plain) >= FEWEST


def print_of(thumbnail: Rgb) -> TissuePrint:
    """Find the landmarks of a slide.

    Args:
        thumbnail: (h, w, 3) of the whole slide.
    """
    smooth = scipy.ndimage.gaussian_filter(_density(_tissue_only(thumbnail)), 1.0)
    tissue = smooth[smooth > _GLASS]
    if min(smooth.shape) < _SMALLEST_PX or not tissue.size:
        return TissuePrint(_NONE, _NONE)
    return _landmarks(np.clip(smooth / (_MOST_DENSE * np.median(tissue)), 0, 1))


def likeness(one: TissuePrint, other: TissuePrint) -> int:
    """Number of landmarks that agree on one place, scale and angle; those of the mirror image if they are more."""
    return max(_agreeing(one.plain, other.plain), _agreeing(one.mirrored, other.plain))


def alike_pairs(prints: Sequence[TissuePrint]) -> Iterator[tuple[int, int, int]]:
    """Find all pairs of slides that show the same tissue.

    Args:
        prints: One a slide.

    Yields:
        Two indices, the smaller first, and the number of landmarks that agree.
    """
    for start in range(1, len(prints), _BLOCK):
        block = prints[start : start + _BLOCK]
        kinds = [one.plain.kind[:_QUICK].astype(np.float32) for one in block]
        pool, first = np.concatenate(kinds), np.cumsum([0, *map(len, kinds)])
        for i, one in enumerate(prints[: start + len(block) - 1]):
            skipped = max(0, i + 1 - start)
            candidates = _may_be_alike(one, pool[first[skipped] :], first[skipped:-1] - first[skipped])
            for j in (np.flatnonzero(candidates) + start + skipped).tolist():
                if (n := likeness(one, prints[j])) >= ALIKE:
                    yield i, j, n


def _may_be_alike(one: TissuePrint, pool: NDArray[np.float32], first: NDArray[np.intp]) -> Mask:
    """(n,) slides with a few landmarks that look like those of `one`, wherever they lie.

    Args:
        one: A slide.
        pool: (k, 128) descriptors of the other slides, one after the other.
        first: (n,) index of the first descriptor of each.
    """
    found = np.zeros(len(first), np.bool_)
    for marks in (one.plain, one.mirrored):
        kind = marks.kind[:_QUICK].astype(np.float32)
        matches = np.maximum.reduceat(kind @ pool.T, first, axis=1)  # (q, n)
        rank = len(matches) - _QUICK_RANK
        found |= np.partition(matches, rank, axis=0)[rank] >= _QUICK_LIKENESS
    return found


def _agreeing(one: Landmarks, other: Landmarks) -> int:
    """Number of landmarks that one turn, scale and shift takes to their matches."""
    i, j = _matches(one, other)
    if len(i) < _QUICK_RANK:
        return 0
    here, there = one.place[i], other.place[j]
    scale, turn = other.size[j] / one.size[i], other.angle[j] - one.angle[i]
    moves = scale * np.exp(1j * turn)  # (n,) each match alone says how to get from here to there
    misses = np.abs(moves[:, None] * (here - here[:, None]) + there[:, None] - there)
    ratio = scale / scale[:, None]
    agree = (misses < _FIRST_ERROR * _SIDE_PX) & (ratio < _SCALE_RATIO) & (ratio > 1 / _SCALE_RATIO)
    agree &= np.abs(np.angle(np.exp(1j * (turn - turn[:, None])))) < _TURN
    agree &= ((scale < _LARGEST_SCALE) & (scale > 1 / _LARGEST_SCALE))[:, None]
    best = agree[agree.sum(axis=1).argmax()]
    for _ in range(_REFINEMENTS):
        if best.sum() < _QUICK_RANK:
            return 0
        best = _misses_of_fit(here, there, best) < _ERROR * _SIDE_PX
    spread = np.abs(here[best] - here[best].mean()).mean() if best.any() else 0.0
    return int(best.sum()) if spread > _LEAST_SPREAD * _SIDE_PX else 0


def _matches(one: Landmarks, other: Landmarks) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of landmarks that are each other's nearest by kind, and much nearer than the next."""
    if min(len(one), len(other)) < _QUICK_RANK:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    cosines = one.kind.astype(np.float32) @ other.kind.astype(np.float32).T  # (n, m)
    j = cosines.argmax(axis=1)
    second, first = np.partition(cosines, cosines.shape[1] - 2, axis=1)[:, -2:].T
    first_angle, second_angle = (np.arccos(np.clip(cosine, -1, 1)) for cosine in (first, second))
    good = (first_angle < _RATIO * second_angle) & (cosines.argmax(axis=0)[j] == np.arange(len(j)))
    return np.flatnonzero(good), j[good]


def _misses_of_fit(here: NDArray[np.complex128], there: NDArray[np.complex128], used: Mask) -> NDArray[np.float64]:
    """(n,) px between the matches and where the least-squares similarity of the used ones takes the landmarks."""
    from_, to = here[used], there[used]
    around, moved = from_ - from_.mean(), to - to.mean()
    turn = (around.conj() * moved).sum() / max(float((np.abs(around) ** 2).sum()), 1e-9)
    misses: NDArray[np.float64] = np.abs(turn * (here - from_.mean()) + to.mean() - there)
    return misses


def _density(rgb: Rgb) -> NDArray[np.float32]:
    """(h, w) optical density of red light against the brightest of the picture."""
    red = rgb[..., 0].astype(np.float32) + 1
    density: NDArray[np.float32] = np.clip(-np.log(red / np.percentile(red, 99)), 0, 2.5)
    return density


def _tissue_only(thumbnail: Rgb) -> Rgb:
    """The part that holds tissue, reduced to a fixed size: a small biopsy counts as much as a large section."""
    dense = scipy.ndimage.binary_opening(_density(thumbnail) > _GLASS, iterations=2)
    part = scipy.ndimage.find_objects(dense.astype(np.uint8))
    cut = thumbnail[part[0]] if part and part[0] is not None else thumbnail
    scale = _SIDE_PX / max(cut.shape[:2])
    size = max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))
    return np.asarray(Image.fromarray(np.ascontiguousarray(cut)).resize(size, Image.Resampling.BOX))


def _landmarks(picture: NDArray[np.float32]) -> TissuePrint:
    """The largest landmarks of a picture, described in it and in its mirror image."""
    from skimage.feature import SIFT  # noqa: PLC0415  loads slowly

    found: Any = SIFT(upsampling=1, n_octaves=4, c_dog=0.01)
    try:
        found.detect(picture)
    except RuntimeError:  # there is no landmark
        return TissuePrint(_NONE, _NONE)
    largest = np.argsort(-found.sigmas, kind="stable")[:_MOST]
    for name in ("positions", "scales", "sigmas", "octaves", "orientations"):  # describing all takes longest
        setattr(found, name, getattr(found, name)[largest])
    plain = _described(found, picture)
    found.positions = np.stack([found.positions[:, 0], picture.shape[1] - 1 - found.positions[:, 1]], axis=1)
    found.orientations = -found.orientations % (2 * np.pi)
    return TissuePrint(plain, _described(found, np.ascontiguousarray(picture[:, ::-1])))


def _described(found: Any, picture: NDArray[np.float32]) -> Landmarks:  # noqa: ANN401  # scikit-image is untyped
    found.extract(picture)
    kind = np.sqrt(found.descriptors.astype(np.float32))
    kind /= np.maximum(np.linalg.norm(kind, axis=1, keepdims=True), 1e-6)
    place = found.positions @ np.array([1, 1j])  # rows and columns; angles count from the rows' axis, too
    return Landmarks(place, found.sigmas.copy(), found.orientations.copy(), kind.astype(np.float16))


_NONE = Landmarks(np.empty(0, complex), np.empty(0), np.empty(0), np.empty((0, 128), np.float16))
