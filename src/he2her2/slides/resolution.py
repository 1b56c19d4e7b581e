"""Resolution of a slide: µm per pixel as its metadata state them, checked against each other."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from he2her2.errors import MppError
from he2her2.geometry import Size
from he2her2.units import PLAUSIBLE_MPP

_REMEDY = "pass --mpp (a 40x scan is about 0.25, 20x about 0.5)"
_MAX_ANISOTROPY = 0.05
_MAX_CONTRADICTION = 1.2501
_NOTABLE_CONTRADICTION = 1.05
_MPP_AT_1X = 10.0
_FINEST_BY_CAMERA = 2.5
_MAX_SIDE_MM, _MAX_AREA_MM2 = 200.0, 10_000.0
_LONGEST_NUMBER = 40


@dataclass(frozen=True, slots=True)
class StatedMpp:
    """Resolution that a file states.

    Attributes:
        x: µm per level-0 px across; None where nothing usable is stated.
        y: The same downwards.
        source: Source of the statement, in words ("Aperio metadata", "OME-XML", "--mpp", ...).
        nominal: True for a rounded value (a magnification), of which only large deviations are noted.
        binding: False where this source is known to deviate on sound slides: it never refuses one.
    """

    x: float | None
    y: float | None
    source: str
    nominal: bool = False
    binding: bool = True


UNSTATED = StatedMpp(None, None, "nowhere")


def number_or_none(text: str | None) -> float | None:
    """Parse a number of the metadata, with a decimal point or comma; None where it is none.

    Example:
        >>> number_or_none("0.25"), number_or_none("0,25"), number_or_none("20x"), number_or_none(None)
        (0.25, 0.25, None, None)
    """
    if text is None or len(text.strip()) > _LONGEST_NUMBER:
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def stated_mpp(x: float | None, y: float | None, source: str) -> StatedMpp:
    """Return what a source states; where it states one direction only, pixels are taken for square.

    Example:
        >>> stated_mpp(0.25, None, "OME-XML").y
        0.25
    """
    if x is None and y is None:
        return UNSTATED
    return StatedMpp(y if x is None else x, x if y is None else y, source)


def of_magnification(magnification: float | None, *, binding: bool = True) -> StatedMpp:
    """Return the resolution that a nominal magnification stands for: 40x is 0.25 µm, 20x is 0.5 µm.

    Example:
        >>> of_magnification(40).x
        0.25
    """
    if magnification is None or not (math.isfinite(magnification) and magnification > 0):
        return UNSTATED
    mpp = _MPP_AT_1X / magnification
    return StatedMpp(mpp, mpp, f"magnification {magnification:g}x", nominal=True, binding=binding)


def of_objective(magnification: float | None, stated: StatedMpp, *, binding: bool = True) -> StatedMpp:
    """Return the resolution of a microscope's objective, unless its camera and adapter explain that px are finer.

    At 20x Zeiss has 0.22 µm, 3DHISTECH 0.24 and Olympus 0.27, where a linear sensor has 0.5.

    Example:
        >>> of_objective(20, stated_mpp(0.22, 0.22, "OME-XML")).x, of_objective(20, stated_mpp(1, 1, "OME-XML")).x
        (None, 0.5)
    """
    power = of_magnification(magnification, binding=binding)
    if power.x is None or stated.x is None:
        return power
    return UNSTATED if stated.x <= power.x <= _FINEST_BY_CAMERA * stated.x else power


def of_described_size(described: Size, real: Size, stated: StatedMpp) -> StatedMpp | None:
    """Return the resolution that the pixels have if an image of the described size was reduced to its real size.

    Returns:
        UNSTATED when both sizes agree, or the resolution is unknown; None when the shapes differ: it was cropped.
    """
    across, down = described.w / real.w, described.h / real.h
    if max(abs(across - 1), abs(down - 1)) < 0.02 or stated.x is None or stated.y is None:
        return UNSTATED
    if abs(across / down - 1) > 0.03:
        return None
    source = f"the described size of {described.w} x {described.h} px, where it has {real.w} x {real.h} px"
    return StatedMpp(stated.x * across, stated.y * down, source)


def of_description(description: str, real: Size, stated: StatedMpp) -> tuple[tuple[StatedMpp, ...], tuple[str, ...]]:
    """Return the resolution that follows if an image was reduced from the size that Aperio's description states.

    Returns:
        That resolution, if any, and a caution where the shapes differ.
    """
    head = description.partition("|")[0]
    part = re.search(r"\[-?\d{1,9},-?\d{1,9} (\d{1,9})x(\d{1,9})\]", head)
    whole = re.search(r"^\s*(\d{1,9})x(\d{1,9})\b", head.partition("\n")[2])
    sizes = [Size(int(found[1]), int(found[2])) for found in (part, whole) if found]
    if not sizes or real in sizes or min(sizes[0]) < 1:
        return (), ()
    implied = of_described_size(sizes[0], real, stated)
    if implied is None:
        w, h = sizes[0]
        return (), (f"its description states {w} x {h} px, it has {real.w} x {real.h}; it was cropped or changed",)
    return (implied,), ()


def _is_plausible(mpp: float) -> bool:
    """Check if a microscope makes pixels of `mpp` µm.

    Example:
        >>> _is_plausible(0.25), _is_plausible(264.6)
        (True, False)
    """
    low, high = PLAUSIBLE_MPP
    return math.isfinite(mpp) and low <= mpp <= high


def plausible_or_unstated(x: float | None, y: float | None, source: str) -> StatedMpp:
    """Return a stated resolution if it is plausible for a microscope; other metadata describe a screen or a printer."""
    stated = stated_mpp(x, y, source)
    if stated.x is None or stated.y is None:
        return UNSTATED
    return stated if _is_plausible(stated.x) and _is_plausible(stated.y) else UNSTATED


def settle_mpp(slide_id: str, stated: StatedMpp, given: float | None, others: Sequence[StatedMpp] = ()) -> StatedMpp:
    """Return the resolution to work with: the user's where given, else the file's.

    Args:
        slide_id: The slide.
        stated: Resolution that the file states.
        given: The user's.
        others: Other sources in the file; they must not contradict it unless the user settles the matter.

    Returns:
        A `StatedMpp` with x and y, both plausible.

    Raises:
        MppError: It is unknown or implausible, or pixels are not square, or sources contradict each other.
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
    against = [other for other in others if other.binding and _ratio(stated, other) > _MAX_CONTRADICTION]
    if against:
        raise MppError(slide_id, _contradiction(stated, against), "find out which is right and pass it as --mpp")
    return stated


def scale_contradictions(settled: StatedMpp, stated: StatedMpp, others: Sequence[StatedMpp]) -> tuple[str, ...]:
    """Return a sentence about the sources that contradict the resolution worked with; none where all agree."""
    against = [
        other
        for other in (stated, *others)
        if _ratio(settled, other)
        > (_MAX_CONTRADICTION if other.nominal or settled.source == "--mpp" else _NOTABLE_CONTRADICTION)
    ]
    if not against:
        return ()
    return (f"{_contradiction(settled, against)}; {settled.x:.4g} is used, correct it by --mpp if it is wrong",)


def is_same_scale(one: StatedMpp, other: StatedMpp) -> bool:
    """Check if both are stated, and differ by less than is worth a word."""
    return one.x is not None and other.x is not None and _ratio(one, other) <= _NOTABLE_CONTRADICTION


def require_slide_sized(slide_id: str, size_l0: Size, settled: StatedMpp) -> None:
    """Raise unless a slide of this resolution fits on glass.

    Raises:
        MppError: It is larger than any slide.
    """
    assert settled.x is not None
    assert settled.y is not None
    w, h = size_l0.w * settled.x / 1e3, size_l0.h * settled.y / 1e3
    if max(w, h) > _MAX_SIDE_MM or w * h > _MAX_AREA_MM2:
        reason = f"{settled.x:.4g} µm per pixel ({settled.source}) make it {w:.0f} x {h:.0f} mm, larger than any slide"
        raise MppError(slide_id, reason, _REMEDY)


def _ratio(one: StatedMpp, other: StatedMpp) -> float:
    """Factor between two scales, at least 1; 1 where one is unknown or absurd."""
    sides = (one.x, one.y, other.x, other.y)
    if any(side is None or not math.isfinite(side) or side <= 0 for side in sides):
        return 1.0
    assert one.x and one.y and other.x and other.y  # noqa: PT018
    ratio = math.sqrt(one.x * one.y / (other.x * other.y))
    return max(ratio, 1 / ratio)


def _contradiction(one: StatedMpp, against: Sequence[StatedMpp]) -> str:
    shown = ", ".join(f"{other.x:.4g} by {other.source}" for other in against)
    return f"its µm per pixel contradict each other: {one.x:.4g} by {one.source}, {shown}"
