"""Alignment of two sections of a block: the turn and the shift that lay the tissue of one on that of the other.

Sections are turned when they are mounted, and now and then laid upside down. All turns are tried on small pictures,
for each the best shift is the peak of a cross-correlation, and the best turns are refined. What is correlated is
the outline of the tissue and, within it, the density of red light, which haematoxylin takes in either stain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from he2her2.geometry import Rgb

SECTION_PX = 224
"""Longest side that pictures of sections need to be aligned by."""

_TRUSTED = 0.66  # agreement; see experiments/results/alignment.md
_SAME_STRUCTURE = 0.4  # outlines of different tissue agree where both are discs or strips
_COARSE = 3  # px of the pictures per px of the first search
_COARSE_TURNS = np.arange(0.0, 360.0, 4.0)
_REFINED = 3  # turns that are looked at again
_STEPS = ((4.0, 1.0), (1.0, 0.25))  # (degrees around the best turn, steps)
_WEIGHTS = (2 / 3, 1 / 3)  # of outline and structure
_MIRROR_BONUS = 0.03  # by which a mirrored section has to agree better, since few are
_GLASS_DENSITY = 0.03
_BRIGHT_DENSITY = 0.06
_TISSUE_SHARE = 0.5  # of the tissue's usual density, from which a pixel is wholly tissue
_SMOOTH_PX = 1.0
_RIM_PX = 3  # of the tissue, which is thinner there in any section


@dataclass(frozen=True, slots=True)
class Alignment:
    """Way from a place on one section to the same place on another.

    Attributes:
        turn: Degrees, clockwise as seen on the screen.
        shift: (x, y), added after the turn; both in the unit of the pictures' px.
        mirrored: x is negated first.
        agreement: Mean of the correlations of outline and structure, at most 1.
        structure: Correlation of the structure alone, without the tissue's rim.
    """

    turn: float
    shift: tuple[float, float]
    mirrored: bool
    agreement: float
    structure: float = 1.0

    @property
    def trusted(self) -> bool:
        """True if the two pictures may be taken for sections of one block."""
        return self.agreement >= _TRUSTED and self.structure >= _SAME_STRUCTURE

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take (n, 2) points to the other section.

        Example:
            >>> Alignment(90.0, (10.0, 0.0), mirrored=False, agreement=1.0)(np.array([[2.0, 0.0]])).tolist()
            [[10.0, 2.0]]
        """
        angle = np.radians(self.turn)
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        mirrored = points * (-1.0 if self.mirrored else 1.0, 1.0)
        moved: NDArray[np.float64] = np.round(mirrored @ turned.T + np.array(self.shift), 9)
        return moved


def align_sections(one: Rgb, other: Rgb) -> Alignment | None:
    """Find how a section lies against another.

    Args:
        one: (h, w, 3) picture of a whole section.
        other: (h, w, 3) of another of the same block, at the same µm per px, in any stain.

    Returns:
        From px of `one` to px of `other`; None where one of them holds no tissue.
    """
    first, second = _maps(one), _maps(other)
    if not first[0].any() or not second[0].any():
        return None
    coarse = _Search(*(_reduced(maps, _COARSE) for maps in (first, second)))
    tried = [coarse.at(turn, mirrored=mirrored) for mirrored in (False, True) for turn in _COARSE_TURNS]
    search = _Search(first, second)
    best = max((_refined(search, start) for start in sorted(tried, key=_rank)[-_REFINED:]), key=_rank)
    return replace(best, structure=_inner_correlation(first[1], second[1], best))


def _refined(search: "_Search", start: Alignment) -> Alignment:
    """The best turn near that of `start`."""
    best = start
    for around, step in _STEPS:
        turns = np.arange(best.turn - around, best.turn + around + step / 2, step)
        best = max((search.at(turn, mirrored=best.mirrored) for turn in turns), key=_rank)
    return best


def _inner_correlation(one: NDArray[np.float32], other: NDArray[np.float32], found: Alignment) -> float:
    """Correlation of the structure of two sections as they lie, each without the rim of its tissue."""
    inner = []
    for structure in (one, other):
        mask = scipy.ndimage.binary_erosion(structure != 0, iterations=_RIM_PX)
        inner.append(np.where(mask, structure - structure[mask].mean(), 0) if mask.any() else structure)
    turned = scipy.ndimage.affine_transform(inner[0], *_pulled(found), other.shape, order=1)
    return float((_unit(turned) * _unit(inner[1])).sum())


def _rank(found: Alignment) -> float:
    return found.agreement - _MIRROR_BONUS * found.mirrored


class _Search:
    """Cross-correlation of one section, turned, with another.

    Args:
        one: Outline and structure of a section, each (h, w).
        other: Of the other.
    """

    def __init__(self, one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> None:
        self._one = one
        self._other = other
        self._side = int(np.ceil(np.hypot(*one[0].shape))) + 2  # holds it at any turn
        size = [scipy.fft.next_fast_len(self._side + n, real=True) for n in other[0].shape]
        self._size = (size[0], size[1])
        self._spectra = [scipy.fft.rfft2(_unit(each), self._size) for each in other]

    def at(self, turn: float, *, mirrored: bool) -> Alignment:
        """The best shift of a turn."""
        framed = self._framed(turn, mirrored=mirrored)
        pull, total = _pulled(framed), np.zeros(self._size, np.float32)
        for each, spectrum, weight in zip(self._one, self._spectra, _WEIGHTS, strict=True):
            turned = scipy.ndimage.affine_transform(each, *pull, (self._side, self._side), order=1)
            total += weight * scipy.fft.irfft2(
                spectrum * np.conj(scipy.fft.rfft2(_unit(turned), self._size)), self._size
            )
        row, column = np.unravel_index(total.argmax(), total.shape)
        lag = [int(i) - n if i >= k else int(i)
               for i, n, k in zip((row, column), self._size, self._other[0].shape, strict=True)]  # fmt: skip
        # the frame's corner goes to `lag`
        shift = framed.shift[0] + lag[1], framed.shift[1] + lag[0]
        return replace(framed, shift=shift, agreement=float(total.max()))

    def _framed(self, turn: float, *, mirrored: bool) -> Alignment:
        """The turn about the section's centre, which comes to lie on that of a frame that holds it at any turn."""
        about = Alignment(float(turn) % 360, (0.0, 0.0), mirrored, 0.0)
        dx, dy = self._side / 2 - about(np.array([self._one[0].shape[::-1]]) / 2)[0]
        return replace(about, shift=(float(dx), float(dy)))


def _pulled(found: Alignment) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset that take (row, column) of the target to those of the source; centres of px lie on halves."""
    angle, shift = np.radians(found.turn), np.array(found.shift)[::-1]
    turned_back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag((1.0, -1.0 if found.mirrored else 1.0)) @ turned_back
    offset = matrix @ (0.5 - shift) - 0.5
    return matrix, offset


def _maps(rgb: Rgb) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Outline of the tissue in [0, 1], and the density of red light within it about its mean, each (h, w)."""
    light = -np.log(rgb.astype(np.float32) + 1)
    light = scipy.ndimage.gaussian_filter(light, (_SMOOTH_PX, _SMOOTH_PX, 0))
    brightness = light.mean(axis=2)
    bright = brightness < np.percentile(brightness, 1) + _BRIGHT_DENSITY
    density = np.clip(light - np.median(light[bright], axis=0), 0, 2)  # against the glass
    dense = density.mean(axis=2) - _GLASS_DENSITY
    tissue = dense > 0
    if not tissue.any():
        return np.zeros_like(dense), np.zeros_like(dense)
    outline = np.clip(dense / (_TISSUE_SHARE * np.median(dense[tissue])), 0, 1)
    red = density[..., 0]
    return outline, np.where(tissue, red - red[tissue].mean(), 0).astype(np.float32)


def _reduced(maps: Sequence[NDArray[np.float32]], by: int) -> tuple[NDArray[np.float32], ...]:
    """Means of squares of `by` px."""

    def shrink(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        h, w = (-(-n // by) for n in picture.shape)
        padded = np.pad(picture, ((0, h * by - picture.shape[0]), (0, w * by - picture.shape[1])))
        means: NDArray[np.float32] = padded.reshape(h, by, w, by).mean(axis=(1, 3))
        return means

    return tuple(map(shrink, maps))


def _unit(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture at length 1."""
    return picture / max(float(np.linalg.norm(picture)), 1e-9)
