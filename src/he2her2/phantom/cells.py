"""The cells of a region: where they stand, what they are and what their nuclei look like."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from he2her2.phantom.chance import Floats, Hashes


class Kind(IntEnum):
    """What a cell is."""

    TUMOUR = 0
    STROMAL = 1
    LYMPHOCYTE = 2
    LUMINAL = 3
    MYOEPITHELIAL = 4
    DEBRIS = 5
    RED_CELL = 6
    MITOSIS = 7


class Box(NamedTuple):
    """A rectangle of the slide in µm."""

    x0: float
    y0: float
    x1: float
    y1: float

    def grown(self, by_um: float) -> "Box":
        """The box with `by_um` more on every side."""
        return Box(self.x0 - by_um, self.y0 - by_um, self.x1 + by_um, self.y1 + by_um)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Cells:
    """n cells, one array for each property.

    Attributes:
        x: Centre of the nucleus in µm.
        y: Centre of the nucleus in µm.
        kind: `Kind` as uint8.
        long_um: Half the nucleus's long axis.
        short_um: Half its short axis.
        angle: Direction of the long axis, radians.
        ragged: How far its outline leaves the ellipse.
        dark: Optical density of its haematoxylin.
        coarse: Contrast of its chromatin, 0 to 1; high is vesicular with a rim.
        nucleolus: Strength of its nucleolus, 0 for none.
        reach_um: How far the cell's body reaches from its centre; 0 for cells drawn as nuclei only.
        level: HER2 of its membrane as staining intensity: 0 none, 1 faint, 2 weak to moderate, 3 intense.
        hashes: One number a cell for all further chance.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    kind: NDArray[np.uint8]
    long_um: Floats
    short_um: Floats
    angle: Floats
    ragged: Floats
    dark: Floats
    coarse: Floats
    nucleolus: Floats
    reach_um: Floats
    level: NDArray[np.uint8]
    hashes: Hashes

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """The cells that `which` (positions or a bool mask) names."""
        return type(self)(*(getattr(self, f.name)[which] for f in fields(self)))

    def within(self, box: Box) -> Self:
        """The cells whose centre lies in `box` (left and upper edges included)."""
        return self.take((self.x >= box.x0) & (self.x < box.x1) & (self.y >= box.y0) & (self.y < box.y1))


def join_cells(parts: list[Cells]) -> Cells:
    """All cells of several groups."""
    return Cells(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Cells)))


def make_cells(  # noqa: PLR0913  (a cell's properties)
    kind: Kind,
    x: NDArray[Any],
    y: NDArray[Any],
    hashes: Hashes,
    *,
    long_um: Floats | float,
    short_um: Floats | float,
    angle: Floats | float = 0.0,
    ragged: Floats | float = 0.05,
    dark: Floats | float = 1.4,
    coarse: Floats | float = 0.3,
    nucleolus: Floats | float = 0.0,
    reach_um: Floats | float = 0.0,
) -> Cells:
    """Cells of one kind; a single number holds for all of them."""

    def each(value: Floats | float) -> Floats:
        return np.broadcast_to(np.asarray(value, np.float32), x.shape).copy()

    return Cells(
        np.asarray(x, np.float64),
        np.asarray(y, np.float64),
        np.full(x.shape, kind, np.uint8),
        each(long_um),
        each(short_um),
        each(angle),
        each(ragged),
        each(dark),
        each(coarse),
        each(nucleolus),
        each(reach_um),
        np.zeros(x.shape, np.uint8),
        hashes,
    )
