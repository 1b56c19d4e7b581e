"""Outlines as they lie in a file, and the shapes that they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import affine_transform

from he2her2.preprocessing.annotations.classes import in_short

_Ring: TypeAlias = NDArray[np.float64]
"""(n, 2) corners x, y."""

OutlineKind: TypeAlias = Literal["polygon", "rectangle", "ellipse"]

_FARTHEST_L0 = 1e8  # ten times the widest slide
_QUARTER = 64  # edges of a quarter of an ellipse
_FLAT = 1e-9  # of a ring's length
_RIGHT_ANGLE = 0.02  # cosine


@dataclass(frozen=True, slots=True)
class Drawn:
    """An object of an annotation file, not yet checked.

    Attributes:
        group: Its class, group or layer; "" without one.
        polygons: Of each polygon its rings, of each ring its points; the first ring is the outside, others are holes.
        own: Names of its own.
        kind: What the points are: corners, or two opposite corners of a box around it.
        is_hole: It is cut out of the other regions of its class.
    """

    group: str
    polygons: Sequence[Any]
    own: tuple[str, ...] = ()
    kind: OutlineKind = "polygon"
    is_hole: bool = False


class OutlineError(Exception):
    """An outline that encloses nothing, or whose points cannot be read."""


def shape_of(drawn: Drawn) -> Any:  # noqa: ANN401  # shapely is untyped
    """The shapely Polygon or MultiPolygon of an object; it may cross itself, see `masks`.

    Raises:
        OutlineError: It has no area, or points that are no numbers.
    """
    try:
        polygons = [[_ring(points) for points in rings] for rings in drawn.polygons]
    except TypeError:
        raise OutlineError("has unusable coordinates") from None
    if drawn.kind != "polygon":
        polygons = [[_rectangle(ring) if drawn.kind == "rectangle" else _ellipse(ring)] for (ring,) in polygons]
    shapes = [_polygon(rings) for rings in polygons if rings]
    if not shapes:
        raise OutlineError("has no area")
    return shapes[0] if len(shapes) == 1 else shapely.MultiPolygon(shapes)


def _ring(points: Any) -> _Ring:  # noqa: ANN401  # JSON, or texts of XML
    """The points as numbers; GeoJSON may give a third one, which is left out."""
    try:
        ring = np.array([(float(point[0]), float(point[1])) for point in points]).reshape(-1, 2)
    except (ValueError, OverflowError, IndexError, KeyError):
        raise OutlineError(f"has an unreadable point '{_unreadable(points)}'") from None
    if not np.isfinite(ring).all():
        raise OutlineError(f"has an unreadable point '{_unreadable(points)}'; its coordinates are no numbers")
    if np.abs(ring).max(initial=0) > _FARTHEST_L0:
        raise OutlineError(f"reaches beyond any slide, to {np.abs(ring).max():.3g} px")
    return ring


def _unreadable(points: Sequence[Any]) -> str:
    """The first point that is no two numbers, shortened."""
    for point in points:
        try:
            x, y = float(point[0]), float(point[1])
        except (ValueError, OverflowError, IndexError, KeyError, TypeError):
            break
        if not np.isfinite([x, y]).all():
            break
    values = point[:3] if isinstance(point, Sequence) else [point]
    return in_short(",".join(str(value)[:20] for value in values))


def _polygon(rings: Sequence[_Ring]) -> Any:  # noqa: ANN401  # shapely is untyped
    outside, *holes = rings
    if not _has_width(outside):
        n = len(np.unique(outside, axis=0))
        few = "has 1 point, which encloses" if n == 1 else f"has {n} points, which enclose"
        raise OutlineError(f"{few} nothing" if n < 3 else "has no area")
    return shapely.Polygon(outside, [hole for hole in holes if _has_width(hole)])


def _has_width(ring: _Ring) -> bool:
    """False where all points lie on one line."""
    if len(ring) < 3:
        return False
    x, y = (ring - ring[0]).T
    farthest = int((x**2 + y**2).argmax())
    across = np.abs(x * y[farthest] - y * x[farthest]).max()
    return bool(across > _FLAT * (x[farthest] ** 2 + y[farthest] ** 2))


def _rectangle(corners: _Ring) -> _Ring:
    """Corners of a box by two opposite ones; other numbers of corners are all of them."""
    if len(corners) != 2:
        return corners
    (left, top), (right, bottom) = corners
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _ellipse(points: _Ring) -> _Ring:
    """Outline of an ellipse in a box of two or four corners, or through four ends of its axes; else the points."""
    points = points[:-1] if len(points) == 5 and (points[0] == points[-1]).all() else points
    if len(points) not in {2, 4}:
        return points
    corners = _rectangle(points)
    sides, diagonals = (
        (corners[1] - corners[0], corners[3] - corners[0]),
        (corners[2] - corners[0], corners[3] - corners[1]),
    )
    is_upright = all(side.min() == 0 or side.max() == 0 for side in sides)
    is_box = is_upright or not _is_right_angle(*diagonals)
    (a, d), (b, e) = (side / 2 for side in (sides if is_box else diagonals))
    circle = shapely.Point(0, 0).buffer(1, quad_segs=_QUARTER)
    return np.asarray(shapely.get_coordinates(affine_transform(circle, (a, b, d, e, *corners.mean(axis=0)))))


def _is_right_angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool(abs(one @ other) <= _RIGHT_ANGLE * np.linalg.norm(one) * np.linalg.norm(other))
