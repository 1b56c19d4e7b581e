"""Resolution of a slide: µm per pixel as its metadata state them, checked."""

import math
from dataclasses import dataclass

from he2her2.errors import MppError
from he2her2.units import PLAUSIBLE_MPP

_REMEDY = "pass --mpp (a 40x scan is about 0.25, 20x about 0.5)"
_MAX_ANISOTROPY = 0.05


@dataclass(frozen=True, slots=True)
class StatedMpp:
    """Resolution that a file states.

    Attributes:
        x: µm per level-0 px across; None where nothing usable is stated.
        y: The same downwards.
        source: Source of the statement, in words ("Aperio metadata", "OME-XML", "--mpp", ...).
    """

    x: float | None
    y: float | None
    source: str


UNSTATED = StatedMpp(None, None, "nowhere")


def number_or_none(text: str | None) -> float | None:
    """Parse a number of the metadata; None where it is none.

    Example:
        >>> number_or_none("0.25"), number_or_none("20x"), number_or_none(None)
        (0.25, None, None)
    """
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _is_plausible(mpp: float) -> bool:
    """Check if a microscope makes pixels of `mpp` µm.

    Example:
        >>> _is_plausible(0.25), _is_plausible(264.6)
        (True, False)
    """
    low, high = PLAUSIBLE_MPP
    return math.isfinite(mpp) and low <= mpp <= high


def plausible_or_unstated(x: float, y: float, source: str) -> StatedMpp:
    """Return a stated resolution if it is plausible for a microscope; other metadata describe a screen or a printer."""
    return StatedMpp(x, y, source) if _is_plausible(x) and _is_plausible(y) else UNSTATED


def settle_mpp(slide_id: str, stated: StatedMpp, given: float | None) -> StatedMpp:
    """Return the resolution to work with: the user's where given, else the file's.

    Returns:
        A `StatedMpp` with x and y, both plausible.

    Raises:
        MppError: It is unknown or implausible, or pixels are not square.
    """
    low, high = PLAUSIBLE_MPP
    if given is not None:
        if not _is_plausible(given):
            raise MppError(slide_id, f"--mpp {given:g} is no microscope's", f"pass µm per pixel, {low} to {high:g}")
        return StatedMpp(given, given, "--mpp")
    if stated.x is None or stated.y is None:
        raise MppError(slide_id, "no µm per pixel in its metadata", _REMEDY)
    if not (_is_plausible(stated.x) and _is_plausible(stated.y)):
        reason = f"its metadata say {stated.x:g} x {stated.y:g} µm per pixel, which no microscope makes"
        raise MppError(slide_id, reason, _REMEDY)
    if abs(stated.x - stated.y) > _MAX_ANISOTROPY * min(stated.x, stated.y):
        reason = f"its pixels are not square ({stated.x:g} x {stated.y:g} µm)"
        raise MppError(slide_id, reason, "resample the slide to square pixels, or pass --mpp if its metadata are wrong")
    return stated
