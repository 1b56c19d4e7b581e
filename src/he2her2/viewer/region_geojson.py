"""Regions of a slide as GeoJSON: what the viewer can show and keep, read from text and shifted."""

from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Len, MaxLen, MinLen
from pydantic import ConfigDict, Discriminator, FiniteFloat, TypeAdapter
from typing_extensions import TypedDict

_Position: TypeAlias = Annotated[list[FiniteFloat], Len(2, 3)]
_Line: TypeAlias = Annotated[list[_Position], MinLen(2)]
_Ring: TypeAlias = Annotated[list[_Position], MinLen(4)]
_Polygon: TypeAlias = Annotated[list[_Ring], MinLen(1)]


class _PointShape(TypedDict):
    type: Literal["Point"]
    coordinates: _Position


class _LineShape(TypedDict):
    type: Literal["LineString", "MultiPoint"]
    coordinates: list[_Position]


class _LinesShape(TypedDict):
    type: Literal["MultiLineString"]
    coordinates: list[_Line]


class _PolygonShape(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    type: Literal["Polygon"]
    coordinates: _Polygon


class _MultiPolygonShape(TypedDict):
    type: Literal["MultiPolygon"]
    coordinates: list[_Polygon]


_Shape: TypeAlias = Annotated[
    _PointShape | _LineShape | _LinesShape | _PolygonShape | _MultiPolygonShape, Discriminator("type")
]


class _Feature(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    type: Literal["Feature"]
    geometry: _Shape
    properties: dict[str, Any]


class _Collection(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    type: Literal["FeatureCollection"]
    features: Annotated[list[_Feature], MaxLen(20_000)]


_COLLECTION, _JSON = TypeAdapter(_Collection), TypeAdapter[Any](Any)


def read_regions(text: str | bytes, *, of_a_file: bool = False) -> dict[str, Any]:
    """A FeatureCollection whose numbers are finite: NaN, which QuPath writes where it measured nothing, becomes null.

    Args:
        text: A FeatureCollection.
        of_a_file: May also be a list of features, as QuPath writes it.

    Raises:
        ValidationError: It is something else.
    """
    found = _JSON.validate_json(_JSON.dump_json(_JSON.validate_json(text)))
    whole = {"type": "FeatureCollection", "features": found} if of_a_file and isinstance(found, list) else found
    return dict(_COLLECTION.validate_python(whole))


def moved(collection: dict[str, Any], dx: int, dy: int) -> dict[str, Any]:
    """A FeatureCollection whose points are shifted by px, to hundredths."""
    features = [
        feature
        | {"geometry": feature["geometry"] | {"coordinates": _shifted(feature["geometry"]["coordinates"], dx, dy)}}
        for feature in collection["features"]
    ]
    return collection | {"features": features}


def _shifted(coordinates: Any, dx: int, dy: int) -> Any:  # noqa: ANN401  # GeoJSON
    if coordinates and isinstance(coordinates[0], float | int):
        x, y, *rest = coordinates
        return [round(x + dx, 2), round(y + dy, 2), *rest]
    return [_shifted(one, dx, dy) for one in coordinates]
