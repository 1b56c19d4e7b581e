"""The picture of a slide with layers to switch: everything in mask px, drawn from the files of the run alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from he2her2.geometry import Mask, Rgb, Size, mask_size
from he2her2.method import thumbnail_on_raster
from he2her2.report.pictures import jpeg_uri, mask_uri, shades_uri
from he2her2.results import (
    BLUR_COLOUR,
    PEN_COLOUR,
    SCORE_COLOURS,
    SELECTED_COLOUR,
    TISSUE_COLOUR,
    TUMOUR_COLOUR,
    RasterFrame,
    ScoredTiles,
    SlideRasters,
    scale_bar,
    score_colours,
    score_raster,
)
from he2her2.slides import Slide

_PHOTO_PX = 1600
_MAP_PX = 800
_SHADES = 64
_HEAT_OPACITY = 150
_MAP_COLOURS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float64)
"""Viridis in five colours, read alike by colour-blind readers."""
_SAMPLE_BINS = len(_MAP_COLOURS)


@dataclass(frozen=True, slots=True)
class Dots:
    """Points of one colour, as the data of an SVG path."""

    colour: str
    path: str


@dataclass(frozen=True, slots=True)
class OverlayLayer:
    """One layer.

    Attributes:
        key: Its name in the page.
        title: In words.
        colour: Of its swatch, in CSS.
        shown: From the beginning.
        uri: A picture over the whole slide; empty for a layer of shapes.
        path: Outlines, as the data of an SVG path.
        dots: Points by colour.
        smooth: The picture is interpolated when enlarged.
    """

    key: str
    title: str
    colour: str
    shown: bool
    uri: str = ""
    path: str = ""
    dots: tuple[Dots, ...] = ()
    smooth: bool = False


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A bar of a round length.

    Attributes:
        px: Its length in mask px.
        text: Its length in words.
    """

    px: float
    text: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """A slide with its layers.

    Attributes:
        size: Width and height in mask px.
        frame: Scale of a mask px.
        photo: The slide; empty where it cannot be read.
        layers: From the bottom up.
        bar: Scale bar.
    """

    size: Size
    frame: RasterFrame
    photo: str
    layers: tuple[OverlayLayer, ...]
    bar: ScaleBar


def draw_layers(
    size: Size, frame: RasterFrame, rasters: SlideRasters, tiles: ScoredTiles | None, photo: Rgb | None
) -> Overlay:
    """Draw the layers of a slide.

    Args:
        size: Width and height of its masks.
        frame: Their scale.
        rasters: Its masks and maps.
        tiles: Its tiles, from `tiles.h5`: the heatmap is drawn from nothing else.
        photo: The slide at any scale; None where it cannot be read.
    """
    layers = (*_score_layers(tiles, size, frame), *_map_layers(rasters, frame), *_mask_layers(rasters))
    selected = () if tiles is None else (_selected_layer(tiles, frame),)
    length, text = scale_bar(frame.mpp, size.w)
    uri = "" if photo is None else jpeg_uri(photo, 82)
    return Overlay(size, frame, uri, layers + selected, ScaleBar(length / frame.mpp, text))


def photograph(slide: Slide, frame: RasterFrame) -> Rgb:
    """Picture of exactly the extent of the masks, its longer side at most 1 600 px."""
    size = mask_size(slide.size_l0, frame.px_l0)
    finer = min(_PHOTO_PX / max(size), frame.px_l0)
    return thumbnail_on_raster(slide, frame.px_l0 / finer, Size(*(max(1, round(n * finer)) for n in size)))


def _score_layers(tiles: ScoredTiles | None, size: Size, frame: RasterFrame) -> Iterator[OverlayLayer]:
    if tiles is None:
        return
    scores = score_raster(tiles.grid, tiles.scores, size, frame.px_l0)
    shades = score_colours(np.linspace(0, 3, _SHADES - 1))
    uri = _heat(scores / 3, shades)
    all_decide = bool(tiles.selected.all())  # each by its attention: frames around all would say nothing
    yield OverlayLayer("scores", "tile scores", "score", shown=not all_decide, uri=uri)
    chosen = tiles.attention[tiles.selected]
    if len(chosen) and not np.allclose(chosen, chosen[0]):
        attention = score_raster(tiles.grid, tiles.attention, size, frame.px_l0)
        uri = _heat(attention / tiles.attention.max(), _map_shades(_SHADES - 1))
        yield OverlayLayer("attention", "attention of tiles", "map", shown=all_decide, uri=uri)


def _map_layers(rasters: SlideRasters, frame: RasterFrame) -> Iterator[OverlayLayer]:
    if rasters.tumour_map is not None:
        values = rasters.tumour_map
        step = max(1, max(values.shape) // _MAP_PX)
        uri = _heat(values[::step, ::step].astype(np.float64), _map_shades(_SHADES - 1))
        yield OverlayLayer("map", "tumour map (HASHI)", "map", shown=False, uri=uri, smooth=True)
    if rasters.samples is not None and len(rasters.samples):
        yield OverlayLayer(
            "samples", f"its {len(rasters.samples)} samples", "map", shown=False, dots=_dots(rasters, frame)
        )


def _mask_layers(rasters: SlideRasters) -> Iterator[OverlayLayer]:
    found = (
        ("blur", "out of focus", rasters.blur, BLUR_COLOUR),
        ("pen", "pen ink", rasters.pen, PEN_COLOUR),
        ("tissue", "tissue", rasters.tissue, TISSUE_COLOUR),
        ("tumour", "tumour", rasters.tumour, TUMOUR_COLOUR),
    )
    for key, title, mask, colour in found:
        if mask is None or (key in ("pen", "blur") and not mask.any()):
            continue
        fine = _finer(mask)
        drawn = _striped(fine) if key in ("pen", "blur") else _edge(fine)
        yield OverlayLayer(key, title, _css(colour), shown=True, uri=mask_uri(drawn, (*colour, 255)))


def _selected_layer(tiles: ScoredTiles, frame: RasterFrame) -> OverlayLayer:
    side = round(tiles.grid.side_l0 / frame.px_l0, 2)
    corners = (tiles.grid.origins_l0[tiles.selected] / frame.px_l0).round(2).tolist()
    path = "".join(f"M{x:g} {y:g}h{side:g}v{side:g}h-{side:g}z" for x, y in corners)
    return OverlayLayer(
        "selected", f"the {len(corners)} tiles that decide", _css(SELECTED_COLOUR), not tiles.selected.all(), path=path
    )


def _heat(values: NDArray[np.float64], shades: NDArray[np.uint8]) -> str:
    """Values in [0, 1] as a half transparent picture, clear where they are NaN."""
    known = np.isfinite(values)
    index = np.zeros(values.shape, np.uint8)
    index[known] = 1 + np.rint(np.clip(values[known], 0, 1) * (len(shades) - 1)).astype(np.uint8)
    palette = np.concatenate([np.zeros((1, 3), np.uint8), shades])
    opacity = np.full(len(palette), _HEAT_OPACITY, np.uint8)
    opacity[0] = 0
    return shades_uri(index, palette, opacity)


def _map_shades(n: int) -> NDArray[np.uint8]:
    at = np.linspace(0, len(_MAP_COLOURS) - 1, n)
    channels = [np.interp(at, np.arange(len(_MAP_COLOURS)), channel) for channel in _MAP_COLOURS.T]
    return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)


def _dots(rasters: SlideRasters, frame: RasterFrame) -> tuple[Dots, ...]:
    """Samples of the map in five colours; a point is a line of no length with round ends."""
    assert rasters.samples is not None
    bins = np.minimum((rasters.samples[:, 2] * _SAMPLE_BINS).astype(int), _SAMPLE_BINS - 1)
    at = (rasters.samples[:, :2] / frame.px_l0).round(1)
    colours = [_css(tuple(colour)) for colour in _MAP_COLOURS.astype(int).tolist()]
    paths = ["".join(f"M{x:g} {y:g}h0" for x, y in at[bins == k].tolist()) for k in range(_SAMPLE_BINS)]
    return tuple(Dots(colour, path) for colour, path in zip(colours, paths, strict=True) if path)


def _finer(mask: Mask) -> Mask:
    """A mask on a grid of about the photograph's px, so that lines are thin."""
    height, width = mask.shape
    scale = _PHOTO_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _edge(mask: Mask) -> Mask:
    """A line along the border of a mask, two px inside it and one outside."""
    return np.asarray(
        scipy.ndimage.binary_dilation(mask) & ~scipy.ndimage.binary_erosion(mask, iterations=2, border_value=1)
    )


def _striped(mask: Mask) -> Mask:
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return np.asarray(mask & ((x + y) % 14 < 4))


def _ramp(colours: NDArray[np.uint8]) -> str:
    return f"linear-gradient(90deg, {', '.join(_css(tuple(colour)) for colour in colours.tolist())})"


def _css(colour: tuple[int, ...]) -> str:
    return f"rgb({', '.join(map(str, colour))})"


COLOURS = {
    "score_ramp": _ramp(score_colours(np.linspace(0, 3, 13))),
    "map_ramp": _ramp(_map_shades(9)),
    "score_colours": [_css(colour) for colour in SCORE_COLOURS.values()],
}
"""Colours of scores and of maps, in CSS, for the legends."""
