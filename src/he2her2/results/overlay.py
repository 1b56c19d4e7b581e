"""`overlay.png`: one picture of what was looked at, what was found and which tiles decided."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

from he2her2.geometry import Rgb, Size
from he2her2.method import Segmentation
from he2her2.results.palette import (
    BLUR_COLOUR,
    PEN_COLOUR,
    SCORE_COLOURS,
    SELECTED_COLOUR,
    TISSUE_COLOUR,
    TUMOUR_COLOUR,
    score_colours,
)
from he2her2.results.rasters import score_raster
from he2her2.results.tiles_h5 import ScoredTiles

PICTURE_PX = 1400
LEGEND_PX = 330
MARGIN_PX = 24
LINE_PX = 26
_FONT = files("he2her2.results") / "fonts" / "DejaVuSans.ttf"  # Pillow's own has no µ and no ²


@dataclass(frozen=True, slots=True)
class Caption:
    """The words on an overlay.

    Attributes:
        title: The slide's name.
        lines: What was found, a line each.
        notices: What must not be overlooked, in red.
    """

    title: str
    lines: tuple[str, ...]
    notices: tuple[str, ...] = ()


def draw_overlay(
    segmentation: Segmentation, tiles: ScoredTiles | None, caption: Caption, photo: Rgb | None = None
) -> Image.Image:
    """Draw the slide with its tissue, tumour, tile scores and selected tiles, a scale bar and a legend.

    Args:
        segmentation: Where tissue and tumour are.
        tiles: The scored tiles, if there are any.
        caption: The words.
        photo: A finer picture of the same field than the segmentation's thumbnail, for a small slide.
    """
    height, width = segmentation.tissue.shape
    scale = PICTURE_PX / max(width, height)
    size = Size(max(1, round(width * scale)), max(1, round(height * scale)))
    picture = _tinted(_resized(segmentation.thumbnail if photo is None else photo, size), segmentation, tiles, size)
    tissue, tumour = (_enlarge(mask, size) for mask in (segmentation.tissue, segmentation.tumour))
    picture[binary_dilation(tissue, iterations=2) & ~tissue] = TISSUE_COLOUR
    picture[tumour & ~binary_erosion(tumour, iterations=2, border_value=1)] = TUMOUR_COLOUR
    if tiles is not None:
        _draw_selected(picture, tiles, scale / segmentation.px_l0)
    sheet = Image.new("RGB", (size.w + LEGEND_PX + 3 * MARGIN_PX, max(size.h, 620) + 2 * MARGIN_PX + 50), "white")
    sheet.paste(Image.fromarray(picture), (MARGIN_PX, MARGIN_PX))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((MARGIN_PX - 1, MARGIN_PX - 1, MARGIN_PX + size.w, MARGIN_PX + size.h), outline=(180, 180, 180))
    _draw_scale_bar(draw, MARGIN_PX, MARGIN_PX + size.h + 16, scale / segmentation.px_mpp, size.w)
    _draw_legend(draw, size.w + 2 * MARGIN_PX, MARGIN_PX, caption, with_tiles=tiles is not None)
    return sheet


def _tinted(picture: Rgb, segmentation: Segmentation, tiles: ScoredTiles | None, size: Size) -> Rgb:
    """The picture with scores, ink and blur laid over it."""
    if tiles is not None:
        raster_size = Size(*segmentation.tissue.shape[::-1])
        scores = _enlarge(score_raster(tiles.grid, tiles.scores, raster_size, segmentation.px_l0), size)
        scored = np.isfinite(scores)
        picture[scored] = np.rint(0.45 * picture[scored] + 0.55 * score_colours(scores[scored]))
    y, x = np.indices((size.h, size.w), sparse=True)
    stripes = (x + y) % 16 < 6
    for mask, colour in ((segmentation.blur, BLUR_COLOUR), (segmentation.pen, PEN_COLOUR)):
        picture[_enlarge(mask, size) & stripes] = colour
    return picture


def _resized(picture: Rgb, size: Size) -> Rgb:
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _enlarge(raster: NDArray[Any], size: Size) -> NDArray[Any]:
    """The raster's nearest values on a finer (or coarser) grid of `size`."""
    rows = (np.arange(size.h) + 0.5) * len(raster) / size.h
    columns = (np.arange(size.w) + 0.5) * raster.shape[1] / size.w
    return np.asarray(raster[rows.astype(np.int64)[:, None], columns.astype(np.int64)])


def _draw_selected(picture: Rgb, tiles: ScoredTiles, px_per_l0: float) -> None:
    """Frame the tiles that decided."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    side = tiles.grid.side_l0 * px_per_l0
    for x, y in tiles.grid.origins_l0[tiles.selected] * px_per_l0:
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline=SELECTED_COLOUR, width=1)
    picture[:] = np.array(canvas)


def scale_bar_um(um_per_px: float, width_px: int) -> float:
    """The longest bar of 1, 2 or 5 times a power of ten µm that fits a quarter of the picture.

    Example:
        >>> scale_bar_um(10.0, 1000)
        2000.0
    """
    longest = width_px * um_per_px / 4
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def _draw_scale_bar(draw: ImageDraw.ImageDraw, x: int, y: int, px_per_um: float, width_px: int) -> None:
    length_um = scale_bar_um(1 / px_per_um, width_px)
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    length_px = round(length_um * px_per_um)
    draw.rectangle((x, y, x + length_px - 1, y + 6), fill="black")
    draw.text((x, y + 12), text, fill="black", font=_font(18))


def _draw_legend(draw: ImageDraw.ImageDraw, x: int, y: int, caption: Caption, *, with_tiles: bool) -> None:
    y = _draw_text(draw, x, y, (caption.title,), 20, "black")
    y = _draw_text(draw, x, y + 8, caption.lines, 16, "black")
    y = _draw_text(draw, x, y + 8, caption.notices, 16, (190, 0, 0)) + 14
    for name, colour in (("tissue", TISSUE_COLOUR), ("tumour", TUMOUR_COLOUR)):
        draw.rectangle((x, y + 3, x + 20, y + 17), outline=colour, width=3)
        draw.text((x + 30, y), name, fill="black", font=_font(16))
        y += LINE_PX
    for name, colour in (("pen ink", PEN_COLOUR), ("out of focus", BLUR_COLOUR)):
        for shift in (4, 12, 20):
            draw.line((x + shift - 4, y + 17, x + shift, y + 3), fill=colour, width=4)
        draw.text((x + 30, y), name, fill="black", font=_font(16))
        y += LINE_PX
    if with_tiles:
        draw.rectangle((x, y + 3, x + 14, y + 17), outline=SELECTED_COLOUR, width=1)
        draw.text((x + 30, y), "selected tile", fill="black", font=_font(16))
        _draw_score_bar(draw, x, y + LINE_PX + 8)


def _draw_score_bar(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.text((x, y), "tile score", fill="black", font=_font(16))
    width = LEGEND_PX - 90
    for step in range(width):
        colour = tuple(int(c) for c in score_colours(np.array(3 * step / (width - 1))))
        draw.line((x + step, y + 24, x + step, y + 40), fill=colour)
    for k, name in enumerate(SCORE_COLOURS):
        draw.text((x + k * (width - 1) / 3, y + 44), name, fill="black", font=_font(15), anchor="ma")


def _draw_text(
    draw: ImageDraw.ImageDraw, x: int, y: int, lines: tuple[str, ...], px: int, colour: str | tuple[int, int, int]
) -> int:
    """Draw lines, wrapped to the legend's width; returns where the next may start."""
    font = _font(px)
    for line in lines:
        rest = line.split()
        while rest:
            fits = max(1, sum(draw.textlength(" ".join(rest[:n]), font) <= LEGEND_PX for n in range(1, len(rest) + 1)))
            draw.text((x, y), " ".join(rest[:fits]), fill=colour, font=font)
            rest = rest[fits:]
            y += px + 6
    return y


@cache
def _font(px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(BytesIO(_FONT.read_bytes()), px)
