"""Physical units: lengths are micrometres (µm), resolutions are µm per pixel (mpp), areas are mm²; numbers as text."""

import math
import re

from he2her2.errors import quoted

UM_PER_UNIT = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "inch": 25_400.0, "m": 1e6}

_MPP_TOLERANCE = 0.10
"""Native pixels are used when they are within this share of the wanted mpp (HER2SC's 0.23 counts as 0.25)."""

PLAUSIBLE_MPP = (0.05, 10.0)
"""A microscope's level-0 mpp lies between these; other values in a file are a screen's or a printer's."""


_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


def parse_number(text: str) -> float:
    """The number that a text states, with a decimal point or a decimal comma.

    Raises:
        ValueError: It states none, its comma may divide thousands, or it is too large for the machine.

    Example:
        >>> parse_number("0.25"), parse_number("0,25"), parse_number("0,250")
        (0.25, 0.25, 0.25)
    """
    bare = text.strip()
    if not _NUMBER.fullmatch(bare):
        raise ValueError(f"{quoted(bare)} is no number")
    if _THOUSANDS.fullmatch(bare):
        raise ValueError(f"{quoted(bare)} may be a decimal or thousands; write it with a decimal point")
    number = float(bare.replace(",", "."))
    if math.isinf(number):
        raise ValueError(f"{quoted(bare)} is too large a number")
    return number


def probability_text(probability: float, *limits: float | None) -> str:
    """A probability with three decimals, or with as many as show on which side of each limit it lies, at most six.

    Args:
        probability: As predictions write it.
        limits: A threshold, or the limits of a triage; None is none.

    Example:
        >>> probability_text(0.9, 0.5), probability_text(0.4996, 0.5), probability_text(0.499999, 0.5, 0.9)
        ('0.900', '0.4996', '0.499999')
    """
    known = [limit for limit in limits if limit is not None]
    shown = (f"{probability:.{digits}f}" for digits in (3, 4, 5))
    told = (text for text in shown if all((float(text) >= limit) == (probability >= limit) for limit in known))
    return next(told, f"{probability:.6f}")


def is_close_mpp(mpp: float, wanted_mpp: float) -> bool:
    """Check if pixels of `mpp` can be used as pixels of `wanted_mpp` without resampling.

    Example:
        >>> is_close_mpp(0.23, 0.25), is_close_mpp(0.5, 0.25)
        (True, False)
    """
    return abs(mpp - wanted_mpp) <= _MPP_TOLERANCE * wanted_mpp + 1e-9


def area_mm2(n_px: float, px_mpp: float) -> float:
    """Area in mm² of `n_px` pixels of side `px_mpp` µm.

    Example:
        >>> area_mm2(1_000_000, 1.0)
        1.0
    """
    return n_px * px_mpp * px_mpp / 1e6


def in_time(seconds: float) -> str:
    """A duration in the unit that suits it.

    Example:
        >>> in_time(42), in_time(100), in_time(8000), in_time(180_000)
        ('42 s', '2 min', '2.2 h', '2.1 d')
    """
    if seconds < 99.5:
        return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86_400:.1f} d"
