"""Where a field is asked: on a regular grid of a block, or at scattered points."""

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from he2her2.phantom.chance import Floats
from he2her2.phantom.noise import Field, texture, texture_view


class Place(Protocol):
    """Positions in µm; `x` and `y` broadcast to the shape that `read` returns."""

    @property
    def x(self) -> NDArray[Any]:
        """Positions from left to right."""

    @property
    def y(self) -> NDArray[Any]:
        """Positions from top to bottom."""

    def read(self, field: Field) -> Floats:
        """The field's values here."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class GridPlace:
    """All crossings of `xs` and `ys`."""

    xs: NDArray[Any]
    ys: NDArray[Any]

    @property
    def x(self) -> NDArray[Any]:
        """(1, w)."""
        return self.xs[None, :]

    @property
    def y(self) -> NDArray[Any]:
        """(h, 1)."""
        return self.ys[:, None]

    def read(self, field: Field) -> Floats:
        """(h, w) values."""
        return field.grid(self.xs, self.ys)

    def grain(self, name: str, size_um: float) -> Floats:
        """(h, w) texture of grains of about `size_um`: mean 0, sd 1; cheaper than noise, for what is small."""
        px_um = round(float(self.xs[1] - self.xs[0]), 6)
        tile = texture(name, px_um, 0.6 * size_um, 1.6 * size_um)
        x, y = (round(float(axis[0]) / px_um - 0.5) for axis in (self.xs, self.ys))
        return texture_view(tile, x, y, len(self.xs), len(self.ys))


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class PointPlace:
    """Scattered points."""

    x: NDArray[Any]
    y: NDArray[Any]

    def read(self, field: Field) -> Floats:
        """(n,) values."""
        return field.at(self.x, self.y)

    def moved(self, dx: float, dy: float) -> "PointPlace":
        """The same points, shifted."""
        return PointPlace(self.x + dx, self.y + dy)
