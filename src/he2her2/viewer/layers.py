"""Layers over a slide, from the files of its evidence: masks, the tumour map, its samples and the tiles' numbers."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.errors import EvaluationError
from he2her2.geometry import TileGrid, mask_size
from he2her2.preprocessing import read_annotation
from he2her2.results import (
    BLUR_COLOUR,
    PEN_COLOUR,
    TILES_FILE,
    TISSUE_COLOUR,
    TUMOUR_COLOUR,
    SlideResult,
    read_frame,
    read_map,
    read_mask,
    read_samples,
    read_tile_columns,
)
from he2her2.slides import Slide

_MASKS = {
    "tissue": ("Tissue", TISSUE_COLOUR),
    "tumour": ("Tumour", TUMOUR_COLOUR),
    "pen": ("Pen ink", PEN_COLOUR),
    "blur": ("Out of focus", BLUR_COLOUR),
}
_MAP = "tumour_map"
_SHADES = 256
_ANNOTATED_COLOUR = (0, 90, 160)
_ANNOTATED_PX = 4000
ANNOTATIONS = "annotations"
"""Key of the layer of annotated regions that a manifest names."""

_TITLES = {
    "scores": "Tile score",
    "attention": "Attention",
    "contributions": "Contribution",
    "contribution": "Contribution",
    "selected": "Selected tiles",
    "logits": "Logits",
}


@dataclass(frozen=True, slots=True)
class PictureLayer:
    """A picture over the whole slide.

    Attributes:
        key: Name of its file.
        title: In words.
        px_l0: Level-0 px per px of it.
        colour: Of what it shows.
    """

    key: str
    title: str
    px_l0: float
    colour: tuple[int, int, int]


def picture_layers(folder: Path, result: SlideResult | None) -> list[PictureLayer]:
    """The masks and the map that a slide's folder holds and whose scale is known."""
    titled = {**_MASKS, _MAP: ("Tumour map", TUMOUR_COLOUR)}
    found = []
    for key, (title, colour) in titled.items():
        px_l0 = _scale(folder, key, result)
        if px_l0:
            found.append(PictureLayer(key, title, px_l0, colour))
    return found


def picture(folder: Path, key: str) -> bytes:
    """A mask or the map as a PNG to lay over the slide: transparent where there is nothing.

    Raises:
        KeyError: There is no such layer.
        EvaluationError: Its file is damaged.
    """
    if key not in _MASKS and key != _MAP:
        raise KeyError(key)
    try:
        values = read_map(folder, key) if key == _MAP else read_mask(folder, key)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    if values is None:
        raise KeyError(key)
    return _shaded(values, TUMOUR_COLOUR) if key == _MAP else _flat(values.astype(bool), _MASKS[key][1])


def samples(folder: Path) -> list[tuple[float, float, float]]:
    """Samples of the tumour map: x, y in level-0 px and probability; none where they were not kept.

    Raises:
        EvaluationError: Their file is damaged.
    """
    try:
        found = read_samples(folder)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    return [] if found is None else list(map(tuple, found.tolist()))


def annotation_picture(file: Path, slide: Slide, px_l0: float) -> bytes:
    """The tumour of an annotation file as `picture` gives a mask.

    Raises:
        AnnotationError: The file cannot be used.
    """
    annotation = read_annotation(file, slide=slide.path)
    size = mask_size(slide.size_l0, px_l0)
    return _flat(annotation.mask(size, px_l0, slide.frame), _ANNOTATED_COLOUR)


def annotation_layer(slide: Slide) -> PictureLayer:
    """Description of that picture, which is at most so many px wide and high as a screen needs."""
    px_l0 = max(1.0, max(slide.size_l0) / _ANNOTATED_PX)
    return PictureLayer(ANNOTATIONS, "Annotated tumour", px_l0, _ANNOTATED_COLOUR)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class TileLayer:
    """The scored tiles of a slide.

    Attributes:
        grid: (n) tiles.
        columns: Their numbers by name, (n,) or (n, k).
        unusable: Names of other columns, whose values are not all numbers.
    """

    grid: TileGrid
    columns: Mapping[str, NDArray[Any]]
    unusable: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """Description that a page needs to draw it, but for the numbers."""
        return {
            "n": len(self.grid),
            "side_l0": self.grid.side_l0,
            "side_px": self.grid.side_px,
            "mpp": self.grid.mpp,
            "columns": [
                {
                    "name": name,
                    "title": _TITLES.get(name, name.replace("_", " ").capitalize()),
                    "width": 1 if values.ndim == 1 else values.shape[1],
                    "low": float(values.min()) if values.size else 0.0,
                    "high": float(values.max()) if values.size else 0.0,
                }
                for name, values in self.columns.items()
            ],
        }

    def column(self, name: str) -> bytes:
        """A column in raster order of the tiles as little-endian float32; `origins` are x and y in level-0 px.

        Raises:
            KeyError: There is no such column.
        """
        values = self.grid.origins_l0 if name == "origins" else self.columns[name]
        return np.ascontiguousarray(values, dtype="<f4").tobytes()


def tile_layer(folder: Path) -> TileLayer | None:
    """The tiles of a slide's folder; None where there are none.

    Raises:
        EvaluationError: Their file is damaged.
    """
    file = folder / TILES_FILE
    if not file.is_file():
        return None
    try:
        return TileLayer(*read_tile_columns(file))
    except ValueError as error:
        raise EvaluationError(str(error)) from None


def _scale(folder: Path, key: str, result: SlideResult | None) -> float | None:
    """Level-0 px per px of a mask, as it says itself or as the result does; None where there is no sound one."""
    if not (folder / f"{key}.png").is_file():
        return None
    try:
        frame = read_frame(folder, key)
    except ValueError:
        return None
    if frame is not None:
        return frame.px_l0
    return result.mask.px_l0 if result else None


def _flat(mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> bytes:
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *colour])
    return _png(image, bits=1, transparency=0)


def _shaded(values: NDArray[Any], colour: tuple[int, int, int]) -> bytes:
    """A map in [0, 1] whose opacity is its value."""
    image = Image.fromarray(np.rint(values * (_SHADES - 1)).astype(np.uint8), "P")
    image.putpalette([*colour] * _SHADES)
    return _png(image, transparency=bytes(range(_SHADES)))


def _png(image: Image.Image, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=3, **options)
    return data.getvalue()
