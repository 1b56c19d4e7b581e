"""`tiles.geojson`: the tumour's outline and every tile with its score, as QuPath objects."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shapely import MultiPolygon, affinity, box, unary_union
from shapely.geometry import mapping

from he2her2.geometry import Mask, Point
from he2her2.labels import IhcScore
from he2her2.models import tile_classes
from he2her2.results.palette import SCORE_COLOURS, TUMOUR_COLOUR
from he2her2.results.tiles_h5 import ScoredTiles

_Feature = dict[str, Any]


def write_geojson(path: Path, tumour: Mask, px_l0: float, tiles: ScoredTiles | None, offset_l0: Point) -> None:
    """Write a FeatureCollection that QuPath opens by drag and drop.

    Args:
        path: Where to.
        tumour: (h, w) tumour mask.
        px_l0: Level-0 px per mask pixel.
        tiles: The scored tiles, if there are any.
        offset_l0: What QuPath calls (0, 0): the slide's bounds where its format has some (MRXS), else zero.
    """
    features = [_tumour_feature(tumour, px_l0, offset_l0)]
    if tiles is not None:
        features += _tile_features(tiles, offset_l0)
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


def _tile_features(tiles: ScoredTiles, offset_l0: Point) -> list[_Feature]:
    origins = tiles.grid.origins_l0 - np.asarray(offset_l0)
    classes = tile_classes(tiles.scores).astype(int)
    ihc_scores = list(IhcScore)
    return [
        _tile_feature(origin, tiles.grid.side_l0, score, ihc_scores[k], chosen=chosen)
        for origin, score, k, chosen in zip(
            origins.tolist(), tiles.scores.tolist(), classes.tolist(), tiles.selected.tolist(), strict=True
        )
    ]


def _tile_feature(
    origin: Sequence[int], side_l0: float, score: float, ihc_score: IhcScore, *, chosen: bool
) -> _Feature:
    left, top = origin
    right, bottom = round(left + side_l0, 2), round(top + side_l0, 2)
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "classification": {"name": f"HER2 {ihc_score}", "color": SCORE_COLOURS[ihc_score]},
            "measurements": {"HER2 score": round(score, 4), "Selected": int(chosen)},
        },
    }
