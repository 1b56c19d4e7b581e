"""Annotations of a slide: polygons of Sedeen, QuPath or ASAP, or a PNG mask; read from a file, rastered as a mask.

All three programs count pixels of the full-resolution picture from its top-left corner, as level 0 does here. QuPath
alone crops some MRXS slides to their scanned bounds, and counts from their corner.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import shapely
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeXml
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import shape

from he2her2.errors import AnnotationError
from he2her2.geometry import Mask, Point, Size, l0_from_mask

_Drawn: TypeAlias = Iterator[tuple[str, Any]]
"""Names and shapely geometries as they are in the file, valid or not."""

_KNOWN = "give a Sedeen session XML, a QuPath GeoJSON, an ASAP XML or a PNG mask"
_CORNER = Point(0, 0)
_PNG = b"\x89PNG"
_SHAPE_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Region:
    """An area drawn on a slide.

    Attributes:
        polygon: Valid shapely Polygon or MultiPolygon, with holes, in level-0 px.
        name: Its class, or else its own name, or "".
    """

    polygon: Any
    name: str


@dataclass(frozen=True, slots=True)
class DrawnRegions:
    """Polygons drawn on a slide.

    Attributes:
        regions: At least one, in level-0 px.
        from_bounds: Counted from the corner of the scanned bounds (QuPath), not from that of level 0.
    """

    regions: tuple[Region, ...]
    from_bounds: bool = False

    def mask(self, size: Size, px_l0: float, size_l0: Size, bounds_origin_l0: Point = _CORNER) -> Mask:  # noqa: ARG002
        """Raster the regions on a mask of the whole slide; a pixel belongs to them if its centre does.

        Args:
            size: Width and height of the mask.
            px_l0: Level-0 px per mask px.
            size_l0: Width and height of the slide.
            bounds_origin_l0: Top-left corner of the slide's scanned part; (0, 0) for most formats.

        Returns:
            (h, w)

        Example:
            >>> drawn = DrawnRegions((Region(shapely.box(0, 0, 50, 30), ""),))
            >>> drawn.mask(Size(3, 2), 32.0, Size(96, 64)).tolist()
            [[True, True, False], [False, False, False]]
        """
        offset = tuple(bounds_origin_l0) if self.from_bounds else (0, 0)
        mask: Mask = np.zeros((size.h, size.w), np.bool_)
        for region in self.regions:
            _fill(mask, translate(region.polygon, *offset) if any(offset) else region.polygon, px_l0)
        return mask


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class PaintedMask:
    """A picture of a whole slide in which the annotated pixels are painted.

    Attributes:
        pixels: (h, w) of any resolution; True is annotated.
        file: The picture, for messages.
    """

    pixels: Mask
    file: Path

    def mask(self, size: Size, px_l0: float, size_l0: Size, bounds_origin_l0: Point = _CORNER) -> Mask:  # noqa: ARG002
        """Resample the picture to a mask of the whole slide, each pixel by its centre; see `DrawnRegions.mask`.

        Raises:
            AnnotationError: The picture's shape is not the slide's.
        """
        self._check_shape(size_l0)
        height, width = self.pixels.shape
        rows, y_inside = _nearest(size.h, px_l0, size_l0.h, height)
        columns, x_inside = _nearest(size.w, px_l0, size_l0.w, width)
        return np.asarray(self.pixels[np.ix_(rows, columns)] & y_inside[:, None] & x_inside[None, :])

    def _check_shape(self, size_l0: Size) -> None:
        """Raise unless the picture is as wide for its height as the slide, but for a rounded-up last pixel."""
        height, width = self.pixels.shape
        across, down = size_l0.w / width, size_l0.h / height  # level-0 px per px of the picture
        slack = _SHAPE_TOLERANCE + 1 / min(width, height)
        if abs(across / down - 1) > slack:
            raise AnnotationError(
                f"{self.file}: is {width} x {height} px where its slide is {size_l0.w} x {size_l0.h}; "
                "give a mask of the whole slide, at any resolution"
            )


Annotation: TypeAlias = DrawnRegions | PaintedMask
"""What was annotated on a slide; `mask` rasters it."""


def read_annotation(file: Path) -> Annotation:
    """Read an annotation file; its format is recognised by its content.

    Points, lines and text are skipped. Polygons that cross themselves are repaired (both lobes of an eight are kept).

    Args:
        file: Sedeen session XML, QuPath GeoJSON, ASAP XML, or a PNG that covers the whole slide at any resolution (0 is
            outside; transparency does not count).

    Raises:
        AnnotationError: It cannot be read, is none of these, holds no region, or one without area.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read ({error.strerror}); {_KNOWN}") from None
    if content.startswith(_PNG):
        return PaintedMask(_painted(file), file)
    is_xml = content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    drawn = _from_xml if is_xml else _from_json
    try:
        regions = tuple(Region(_valid(polygon, name), name) for name, polygon in drawn(content))
    except _FormatError as error:
        raise AnnotationError(f"{file}: {error}") from None
    if not regions:
        raise AnnotationError(f"{file}: no closed region in it; draw polygons or rectangles around the tumour")
    return DrawnRegions(regions, from_bounds=not is_xml)


def _painted(file: Path) -> Mask:
    """(h, w) of the pixels that are not 0 in some colour."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB") if picture.mode in ("LA", "RGBA", "PA") else picture)
    except Image.DecompressionBombError:
        raise AnnotationError(f"{file}: is too large for a mask; make it 8 µm per px or so") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise AnnotationError(f"{file}: cannot be read as a picture ({error}); export the mask again") from None
    return np.asarray(pixels != 0) if pixels.ndim == 2 else np.asarray((pixels != 0).any(axis=2))


def _nearest(n: int, px_l0: float, side_l0: int, n_painted: int) -> tuple[NDArray[np.int64], Mask]:
    """The picture's pixel at the centre of each of `n` mask px along a side, and whether that is on the slide."""
    centre_l0 = l0_from_mask(np.arange(n) + 0.5, px_l0)
    found = np.floor(centre_l0 * n_painted / side_l0).astype(np.int64)
    return np.clip(found, 0, n_painted - 1), centre_l0 < side_l0


class _FormatError(Exception):
    """A file's fault, without the file's name."""


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
    scikit-image and Pillow draw edges into both neighbours: `test_neighbours_that_share_an_edge_share_no_pixel`.
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
