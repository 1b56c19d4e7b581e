"""`tiles.geojson`: the tumour's outline and tiles with their measurements, as QuPath objects."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPolygon, affinity, box, unary_union
from shapely.geometry import mapping

from he2her2.geometry import Mask, Point
from he2her2.labels import IhcScore
from he2her2.models import tile_classes
from he2her2.results.palette import SCORE_COLOURS, SELECTED_COLOUR, TUMOUR_COLOUR
from he2her2.results.rasters import RasterFrame
from he2her2.results.tiles_h5 import ScoredTiles

_Feature = dict[str, Any]


_SELECTED_CLASS = "HER2 selected"
"""QuPath class of the tiles that decided; the others have the class of their IHC score."""


def write_geojson(
    path: Path, tumour: Mask, frame: RasterFrame, tiles: ScoredTiles | None, *, all_tiles: bool = False
) -> None:
    """Write a FeatureCollection that QuPath opens by drag and drop.

    Selected tiles have a class of their own, to be switched on and off; the others have that of their IHC score.

    Args:
        path: Where to.
        tumour: (h, w) tumour mask.
        frame: Its scale; coordinates are counted from its bounds, as QuPath does.
        tiles: The scored tiles, if there are any.
        all_tiles: Write every tile, not only the selected ones: 0.4 kB each, which QuPath opens up to some 100 000.
    """
    features = [_tumour_feature(tumour, frame.px_l0, frame.bounds_l0)]
    if tiles is not None:
        features += _tile_features(tiles, frame.bounds_l0, all_tiles=all_tiles)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":")), "utf-8")


def outline(mask: Mask) -> MultiPolygon:
    """The mask's outline as polygons with holes, in mask px; pixel (x, y) covers [x, x + 1] x [y, y + 1].

    Example:
        >>> outline(np.array([[True, True], [False, True]])).area
        3.0
    """
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    merged = unary_union(box(starts, rows, ends, rows + 1))
    return merged if isinstance(merged, MultiPolygon) else MultiPolygon([] if merged.is_empty else [merged])


def _tumour_feature(tumour: Mask, px_l0: float, offset_l0: Point) -> _Feature:
    shape = affinity.affine_transform(outline(tumour), (px_l0, 0, 0, px_l0, -offset_l0.x, -offset_l0.y))
    return {
        "type": "Feature",
        "geometry": mapping(shape),
        "properties": {
            "objectType": "annotation",
            "name": "he2her2 tumour",
            "classification": {"name": "Tumor", "color": TUMOUR_COLOUR},
            "isLocked": True,
        },
    }


def _tile_features(tiles: ScoredTiles, offset_l0: Point, *, all_tiles: bool) -> list[_Feature]:
    origins = tiles.grid.origins_l0 - np.asarray(offset_l0)
    ihc_scores = [list(IhcScore)[k] for k in tile_classes(tiles.scores).astype(int)]
    measured = _measurements(tiles)
    wanted = np.arange(len(tiles.grid)) if all_tiles else np.flatnonzero(tiles.selected)
    rows = zip(*(values[wanted].tolist() for values in measured.values()), strict=True)
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [_square(origins[k].tolist(), tiles.grid.side_l0)]},
            "properties": {
                "objectType": "tile",
                "classification": _selected() if tiles.selected[k] else _scored(ihc_scores[k]),
                "measurements": dict(zip(measured, row, strict=True)),
            },
        }
        for k, row in zip(wanted.tolist(), rows, strict=True)
    ]


def _measurements(tiles: ScoredTiles) -> dict[str, NDArray[Any]]:
    """(n,) values of each measurement of a tile, by the name that QuPath shows."""
    logits = zip(map(str, IhcScore), tiles.logits.T.astype(float).round(4), strict=False)
    return {
        "HER2 score": tiles.scores.round(4),
        "HER2 rank": tiles.ranks,
        "Attention": tiles.attention.round(8),
        **{f"Logit {name}": values for name, values in logits},
        "Selected": tiles.selected.astype(int),
    }


def _square(origin: Sequence[int], side: float) -> list[list[float]]:
    left, top = origin
    right, bottom = round(left + side, 2), round(top + side, 2)
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def _selected() -> dict[str, Any]:
    return {"name": _SELECTED_CLASS, "color": SELECTED_COLOUR}


def _scored(ihc_score: IhcScore) -> dict[str, Any]:
    return {"name": f"HER2 {ihc_score}", "color": SCORE_COLOURS[ihc_score]}
