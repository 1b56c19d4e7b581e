"""Regions drawn by hand, from Sedeen, QuPath or ASAP, as polygons in level-0 px and as masks.

All three programs count pixels of the full-resolution picture from its top-left corner, as level 0 does here. (QuPath
crops some MRXS slides to their scanned bounds: `in_slide_frame` moves its regions by that crop.)
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import shapely
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeXml
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import shape

from he2her2.errors import AnnotationError
from he2her2.geometry import Mask, Point, Size

_Drawn: TypeAlias = Iterator[tuple[str, Any]]
"""Names and shapely geometries as they are in the file, valid or not."""

_KNOWN = "give a Sedeen session XML, a QuPath GeoJSON or an ASAP XML"


@dataclass(frozen=True, slots=True)
class Region:
    """An area drawn on a slide.

    Attributes:
        polygon: Valid shapely Polygon or MultiPolygon, with holes, in level-0 px.
        name: Its class, or else its own name, or "".
    """

    polygon: Any
    name: str


def read_annotations(path: Path) -> tuple[Region, ...]:
    """Read the regions of an annotation file; points, lines and text in it are no regions.

    Polygons that cross themselves are repaired (both lobes of an eight are kept).

    Args:
        path: Sedeen session XML, QuPath GeoJSON or ASAP XML, told apart by content.

    Raises:
        AnnotationError: It cannot be read, is none of these, holds no region, or one without area.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}); {_KNOWN}") from None
    drawn = _from_xml if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else _from_json
    try:
        regions = tuple(Region(_valid(polygon, name), name) for name, polygon in drawn(content))
    except _FormatError as error:
        raise AnnotationError(f"{path}: {error}") from None
    if not regions:
        raise AnnotationError(f"{path}: no closed region in it; draw polygons or rectangles around the tumour")
    return regions


def regions_mask(regions: Sequence[Region], size_mask: Size, px_l0: float) -> Mask:
    """Which mask pixels have their centre in any of the regions.

    Args:
        regions: In level-0 px; may reach over the mask.
        size_mask: Width and height of the mask.
        px_l0: Level-0 px per mask px.

    Returns:
        (h, w)

    Example:
        >>> regions_mask([Region(shapely.box(0, 0, 50, 30), "")], Size(3, 2), 32.0).tolist()
        [[True, True, False], [False, False, False]]
    """
    mask: Mask = np.zeros((size_mask.h, size_mask.w), np.bool_)
    for region in regions:
        _fill(mask, region.polygon, px_l0)
    return mask


def in_slide_frame(regions: Sequence[Region], file: Path, scanned_origin_l0: Point) -> tuple[Region, ...]:
    """Regions in the slide's frame: QuPath counts from the scanned part's corner where a format has one (MRXS).

    Args:
        regions: Of the file.
        file: A name that ends in .xml is not QuPath's.
        scanned_origin_l0: Top-left corner of the scanned part; (0, 0) for most formats.
    """
    if file.suffix.lower() == ".xml" or tuple(scanned_origin_l0) == (0, 0):
        return tuple(regions)
    return tuple(replace(region, polygon=translate(region.polygon, *scanned_origin_l0)) for region in regions)


class _FormatError(Exception):
    """What is wrong with a file, without its name."""


def _from_json(content: bytes) -> _Drawn:
    try:
        root = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _FormatError(f"neither XML nor JSON ({error}); {_KNOWN}") from None
    for item in root if isinstance(root, list) else [root]:
        yield from _from_geojson(item)


def _from_geojson(item: Any) -> _Drawn:  # noqa: ANN401  # JSON
    """Regions of a FeatureCollection, a Feature or a bare geometry (RFC 7946)."""
    match item:
        case {"type": "FeatureCollection", "features": [*features]}:
            for feature in features:
                yield from _from_geojson(feature)
        case {"type": "Feature", "geometry": {"type": str()} as geometry}:
            yield from ((_class_name(item.get("properties")), polygon) for _, polygon in _from_geojson(geometry))
        case {"type": "GeometryCollection", "geometries": [*geometries]}:
            for geometry in geometries:
                yield from _from_geojson(geometry)
        case {"type": "Polygon" | "MultiPolygon"}:
            yield "", _shapely_of(item)
        case {"type": "Point" | "MultiPoint" | "LineString" | "MultiLineString"} | {
            "type": "Feature",
            "geometry": None,
        }:
            return
        case _:
            raise _FormatError(f"not GeoJSON: {json.dumps(item)[:60]}; {_KNOWN}")


def _shapely_of(geometry: Any) -> Any:  # noqa: ANN401  # JSON in, untyped shapely out
    try:
        with np.errstate(invalid="ignore"):  # NaN is refused with the region's name later
            return shape(geometry)
    except (ShapelyError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _FormatError(f"a {geometry['type']} has unusable coordinates ({error}); export it again") from None


def _class_name(properties: Any) -> str:  # noqa: ANN401  # JSON
    """QuPath's class, or else the object's own name."""
    match properties:
        case {"classification": {"name": str(name)}} | {"classification": str(name)} | {"name": str(name)}:
            return name
        case _:
            return ""


def _from_xml(content: bytes) -> _Drawn:
    try:
        root = SafeXml.fromstring(content)
    except ParseError as error:
        raise _FormatError(f"broken XML ({error}); export it again") from None
    except DefusedXmlException:
        raise _FormatError("XML with entity declarations, which are unsafe; export it again without them") from None
    if root.tag == "ASAP_Annotations":
        yield from _from_asap(root)
    elif root.find(".//overlays") is not None:
        yield from _from_sedeen(root)
    else:
        raise _FormatError(f"XML of another kind (<{root.tag}>); {_KNOWN}")


def _from_sedeen(root: Element) -> _Drawn:
    """<overlays><graphic type name description><point-list><point>x,y</point>...; an open polyline is no region."""
    for graphic in root.iterfind(".//overlays/graphic"):
        name = graphic.get("description") or graphic.get("name") or ""
        points = [_numbers((node.text or "").split(","), 2, name) for node in graphic.iterfind("point-list/point")]
        kind = graphic.get("type", "").lower()
        if kind in {"polygon", "rectangle", "spline", "ellipse"} or (kind == "polyline" and points[:1] == points[-1:]):
            yield name, _polygon(points, name, is_box=kind == "rectangle")


def _from_asap(root: Element) -> _Drawn:
    """<Annotation Name Type PartOfGroup><Coordinates><Coordinate Order X Y/>...; the group names the class."""
    for annotation in root.iterfind("Annotations/Annotation"):
        own, group = annotation.get("Name", ""), annotation.get("PartOfGroup", "None")
        name = own if group == "None" else group
        nodes = annotation.iterfind("Coordinates/Coordinate")
        vertices = sorted(_numbers([node.get(key, "") for key in ("Order", "X", "Y")], 3, name) for node in nodes)
        points = [vertex[1:] for vertex in vertices]
        if annotation.get("Type") in {"Polygon", "Rectangle", "Spline"}:
            yield name, _polygon(points, name, is_box=annotation.get("Type") == "Rectangle")


def _numbers(texts: Sequence[str], count: int, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, texts))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise _FormatError(f"region '{name}' has an unreadable point '{','.join(texts)}'; export it again")
    return numbers


def _polygon(points: list[tuple[float, ...]], name: str, *, is_box: bool) -> Any:  # noqa: ANN401  # shapely is untyped
    if is_box and len(points) == 2:
        (left, top), (right, bottom) = points
        return shapely.box(left, top, right, bottom)
    if len(points) < 3:
        raise _FormatError(f"region '{name}' has {len(points)} points, which enclose nothing; delete or redraw it")
    return shapely.Polygon(points)


def _valid(polygon: Any, name: str) -> Any:  # noqa: ANN401  # shapely is untyped
    """The polygon, repaired where it crosses itself."""
    if not np.isfinite(shapely.get_coordinates(polygon)).all():
        raise _FormatError(f"region '{name}' has points that are no numbers; export it again")
    whole = shapely.make_valid(polygon)
    parts = [part for part in shapely.get_parts(whole, return_index=False) if part.area > 0]
    if not parts:
        raise _FormatError(f"region '{name}' has no area; delete or redraw it")
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _fill(mask: Mask, polygon: Any, px_l0: float) -> None:  # noqa: ANN401  # shapely is untyped
    """Set the pixels of `mask` whose centres lie in the polygon, row by row by the even-odd rule.

    A centre is inside where an odd number of edges lies to its left; holes and islands need no rule of their own.
    """
    height, width = mask.shape
    starts, ends = _edges(polygon, px_l0)
    first = np.clip(np.ceil(np.minimum(starts[:, 1], ends[:, 1])), 0, height).astype(np.int64)
    after = np.clip(np.ceil(np.maximum(starts[:, 1], ends[:, 1])), 0, height).astype(np.int64)
    n_rows = after - first  # of each edge
    if not n_rows.sum():
        return
    edge = np.repeat(np.arange(len(starts)), n_rows)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first[edge]
    (x0, y0), (x1, y1) = starts[edge].T, ends[edge].T
    columns = np.clip(np.ceil(x0 + (rows - y0) * (x1 - x0) / (y1 - y0)), 0, width).astype(np.int64)
    top, height, left, width = rows.min(), np.ptp(rows) + 1, columns.min(), np.ptp(columns) + 1
    crossings = np.bincount((rows - top) * width + columns - left, minlength=height * width).reshape(height, width)
    mask[top : top + height, left : left + width] |= (crossings.cumsum(axis=1)[:, : mask.shape[1] - left] % 2).astype(
        bool
    )


def _edges(polygon: Any, px_l0: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: ANN401
    """(n, 2) starts and ends of all rings' edges in mask px, pixel centres at whole numbers."""
    rings = shapely.get_rings(shapely.get_parts(polygon))
    corners = [shapely.get_coordinates(ring) / px_l0 - 0.5 for ring in rings]
    return np.concatenate([ring[:-1] for ring in corners]), np.concatenate([ring[1:] for ring in corners])
