"""Way from a slide to the patient's other stain: found from the tissue, or set by a reviewer and kept."""

import cmath
import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self, TypeAlias

from annotated_types import Ge, Le
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from he2her2.errors import AnnotationError, UnreadableRegionError
from he2her2.files import problems_in_words
from he2her2.preprocessing import SECTION_PX, align_sections
from he2her2.slides import Slide

How: TypeAlias = Literal["kept", "found", "centred"]

_MOST_PX = 64_000_000  # of the coarsest level: a slide without a pyramid would be read whole


@dataclass(frozen=True, slots=True)
class SectionPair:
    """Way from a place on one slide to the same place on another, both in µm from the top left.

    Attributes:
        turn: Degrees, clockwise as seen on the screen.
        scale: µm of the other slide per µm of the first.
        mirrored: x is negated first.
        dx: Added last, in µm.
        dy: Added last, in µm.
        how: Kept by a reviewer, found from the tissue, or centre on centre.
        agreement: Of the tissue on both, where it was looked for; at most 1.
    """

    turn: float
    scale: float
    mirrored: bool
    dx: float
    dy: float
    how: How
    agreement: float | None = None

    @property
    def back(self) -> Self:
        """The way back.

        Example:
            >>> SectionPair(90.0, 2.0, False, 10.0, 0.0, "kept").back
            SectionPair(turn=-90.0, scale=0.5, mirrored=False, dx=-0.0, dy=5.0, how='kept', agreement=None)
        """
        factor = cmath.rect(self.scale, math.radians(self.turn))
        shift = complex(self.dx, self.dy)
        moved = shift.conjugate() / factor.conjugate() if self.mirrored else -shift / factor
        turn = self.turn if self.mirrored else -self.turn
        return replace(self, turn=turn, scale=1 / self.scale, dx=round(moved.real, 6), dy=round(moved.imag, 6))


_Shift: TypeAlias = Annotated[float, Ge(-1e8), Le(1e8)]  # a hundred metres


class _Asked(TypedDict):
    turn: FiniteFloat
    scale: Annotated[float, Ge(1e-3), Le(1e3)]
    mirrored: bool
    dx: _Shift
    dy: _Shift


_ASKED: TypeAdapter[Any] = TypeAdapter(_Asked | None)


def pair_of_json(body: bytes) -> SectionPair | None:
    """A pair that a reviewer set; None takes it back.

    Raises:
        AnnotationError: It is something else.
    """
    try:
        asked = _ASKED.validate_json(body)
    except ValidationError as error:
        raise AnnotationError(f"this does not say how two slides lie ({problems_in_words(error)})") from None
    return None if asked is None else SectionPair(**asked, how="kept")


def kept_pair(**cells: str) -> SectionPair:
    """A pair of a table of such pairs.

    Raises:
        ValidationError: It makes no sense.
    """
    return SectionPair(**_ASKED.validate_strings(cells), how="kept")


def find_pair(one: Slide, other: Slide, *, to_scale: bool) -> SectionPair:
    """Place of a slide's tissue on another's; centre on centre where they do not agree.

    Args:
        one: A slide.
        other: Another of the patient.
        to_scale: The µm per px of both are known.
    """
    extents = [(slide.size_l0.w * slide.mpp, slide.size_l0.h * slide.mpp) for slide in (one, other)]
    shift = [(b - a) / 2 for a, b in zip(*extents, strict=True)]
    centred = SectionPair(0.0, 1.0, mirrored=False, dx=shift[0], dy=shift[1], how="centred")
    if not to_scale or any(math.prod(slide.levels[-1].size) > _MOST_PX for slide in (one, other)):
        return centred
    mpp = max(*(max(extent) / SECTION_PX for extent in extents), one.mpp, other.mpp)
    try:
        pictures = [slide.thumbnail(mpp) for slide in (one, other)]
    except UnreadableRegionError:
        return centred
    found = align_sections(*pictures)
    if found is None or not found.trusted:
        return replace(centred, agreement=None if found is None else round(found.agreement, 3))
    return SectionPair(
        found.turn, 1.0, found.mirrored, found.shift[0] * mpp, found.shift[1] * mpp, "found", round(found.agreement, 3)
    )
