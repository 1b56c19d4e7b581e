"""QuPath's GeoJSON, and that of other programs (RFC 7946)."""

import json
import re
from collections.abc import Iterator
from typing import Any

from he2her2.preprocessing.annotations.outlines import Drawn

_NOT_DRAWN = {"detection", "cell", "tile", "root", "tma_core", "tmacore"}  # of QuPath's objects
_LINES = {"Point", "MultiPoint", "LineString", "MultiLineString"}
_GEOMETRIES = {"Polygon", "MultiPolygon", "GeometryCollection", *_LINES}
_CLASS_KEYS = ("classification", "class", "label", "category", "classname")
_OTHER_CLASS_KEYS = (
    *("pathclass", "classtitle", "classlabel", "annotationclass", "annotationtype", "annotationlabel", "kind"),
    *("regionclass", "regiontype", "tissueclass", "tissuetype", "tissue", "type", "group", "term", "terms", "layer"),
)  # of TIAToolbox, Cytomine, Supervisely, exports of tables, ...
_SHAPES = {
    *("polygon", "multipolygon", "rectangle", "ellipse", "circle", "freehand", "freeform", "spline", "brush", "wand"),
    *("shape", "area", "region", "roi", "annotation", "feature", "manual"),
}  # what such a key may also say
_MAX_DEPTH = 64


class FormatError(Exception):
    """A file's fault, without the file's name."""


def drawn_in_geojson(content: bytes) -> Iterator[Drawn]:
    """Objects of a FeatureCollection, a list of Features, a Feature or a bare geometry; points and lines are skipped.

    Raises:
        FormatError: It is no GeoJSON, or holds no annotation but objects that a program found.
    """
    try:
        root = json.loads(content)
    except UnicodeDecodeError:
        is_json = content.startswith((b"{", b"["))
        found = "JSON in another encoding than UTF-8; save it as UTF-8" if is_json else "neither XML nor JSON"
        raise FormatError(found) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"neither XML nor JSON ({str(error)[:80]})") from None
    n_drawn = n_found = 0
    for feature in _features(root):
        kind, geometry = _kind(feature), feature.get("geometry")
        if kind in _NOT_DRAWN:
            n_found += 1
        elif geometry is not None:
            n_drawn += 1
            yield from _drawn(geometry, feature.get("properties"))
    if n_found and not n_drawn:
        raise FormatError(f"holds {n_found} detections, cells or tiles and no annotation; export the annotations")


def _features(root: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # JSON
    """The Features, one after the other; a bare geometry is one without properties."""
    left = [(root, 0)]
    while left:
        item, depth = left.pop()
        match item:
            case [*items] if depth < _MAX_DEPTH:
                left += [(one, depth + 1) for one in reversed(items)]
            case {"type": "FeatureCollection", "features": [*items]} if depth < _MAX_DEPTH:
                left += [(one, depth + 1) for one in reversed(items)]
            case {"type": "Feature", "geometry": {"type": str()} | None}:
                yield item
            case {"type": str(kind)} if kind in _GEOMETRIES:
                yield {"geometry": item}
            case _:
                raise FormatError(f"not GeoJSON: it holds {_described(item)}")


def _drawn(geometry: Any, properties: Any) -> Iterator[Drawn]:  # noqa: ANN401  # JSON
    """The areas of a geometry."""
    group, name = _class_name(properties), properties.get("name") if isinstance(properties, dict) else None
    own = (name,) if isinstance(name, str) else ()
    left = [(geometry, 0)]
    while left:
        item, depth = left.pop()
        match item:
            case {"type": "GeometryCollection", "geometries": [*geometries]} if depth < _MAX_DEPTH:
                left += [(one, depth + 1) for one in reversed(geometries)]
            case {"type": "Polygon"}:
                rings = item.get("coordinates")
                yield Drawn(group, [rings], own, "ellipse" if _is_boxed_ellipse(item, rings) else "polygon")
            case {"type": "MultiPolygon"}:
                polygons = item.get("coordinates")
                yield Drawn(group, polygons if isinstance(polygons, list) else [polygons], own)
            case {"type": str(kind)} if kind in _LINES:
                pass
            case _:
                raise FormatError(f"not GeoJSON: it holds {_described(item)}")


def _is_boxed_ellipse(geometry: dict[str, Any], rings: Any) -> bool:  # noqa: ANN401  # JSON
    """True where QuPath gives the box of an ellipse rather than its outline."""
    if geometry.get("isEllipse") is not True or not isinstance(rings, list):
        return False
    return [len(ring) if isinstance(ring, list) else 0 for ring in rings] == [5]


def _kind(feature: dict[str, Any]) -> str:
    """QuPath's kind of an object, in the spelling of version 0.3 and later; "" if there is none."""
    properties = feature.get("properties")
    stated = properties.get("objectType", properties.get("object_type")) if isinstance(properties, dict) else None
    older = str(feature.get("id", ""))  # such as PathCellObject
    if isinstance(stated, str):
        return stated.casefold().replace(" ", "_")
    return older[4:-6].casefold() if older.startswith("Path") and older.endswith("Object") else ""


def _class_name(properties: Any) -> str:  # noqa: ANN401  # JSON
    """The class in QuPath's ways of writing it, or under another program's key, however that is written."""
    if not isinstance(properties, dict):
        return ""
    by_key = {re.sub(r"[\s_-]", "", key).casefold(): value for key, value in reversed(properties.items())}
    named = {key: _name_in(by_key[key]) for key in (*_CLASS_KEYS, *_OTHER_CLASS_KEYS) if key in by_key}
    return next((name for key, name in named.items() if name and (key in _CLASS_KEYS or not _is_shape(name))), "")


def _name_in(value: Any) -> str:  # noqa: ANN401  # JSON
    """A name, or those of a list; "" where there is none."""
    match value:
        case {"names": [*names]} | [*names]:
            return ": ".join(filter(None, map(_one_name, names[:8])))
        case _:
            return _one_name(value)


def _one_name(value: Any) -> str:  # noqa: ANN401  # JSON
    """A text or number as text, or what an object calls so; "" for anything else."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("name", "label", "title", "value") if key in value), None)
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"[:80]
    return str(value)[:80] if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _is_shape(name: str) -> bool:
    return name.strip().casefold() in _SHAPES


def _described(item: Any) -> str:  # noqa: ANN401  # JSON
    """An item in a few words."""
    if isinstance(item, dict):
        kind = item.get("type")
        return f"an object of type {kind[:40]!r}" if isinstance(kind, str) else "an object without a type"
    return "lists without end" if isinstance(item, list) else f"the value {str(item)[:40]!r}"
