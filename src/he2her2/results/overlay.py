"""`overlay.png`: one picture of what was looked at, what was found and which tiles decided."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from zlib import Z_RLE

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from he2her2.geometry import Mask, Rgb, Size
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
_LEGEND_PX = 330
_MARGIN_PX = 24
_LINE_PX = 26
_TINT = 0.55
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
    photo = segmentation.thumbnail if photo is None else photo
    picture = Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR)
    if tiles is not None:
        _tint(picture, tiles, Size(width, height), segmentation.px_l0)
    _mark(picture, segmentation)
    if tiles is not None:
        _draw_selected(picture, tiles, scale / segmentation.px_l0)
    end = _draw_legend(ImageDraw.Draw(Image.new("RGB", (1, 1))), 0, 0, caption, with_tiles=tiles is not None)
    height = max(size.h + 50, 670, end) + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (size.w + _LEGEND_PX + 3 * _MARGIN_PX, height), "white")
    sheet.paste(picture, (_MARGIN_PX, _MARGIN_PX))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((_MARGIN_PX - 1, _MARGIN_PX - 1, _MARGIN_PX + size.w, _MARGIN_PX + size.h), outline=(180, 180, 180))
    _draw_scale_bar(draw, _MARGIN_PX, _MARGIN_PX + size.h + 16, scale / segmentation.px_mpp, size.w)
    _draw_legend(draw, size.w + 2 * _MARGIN_PX, _MARGIN_PX, caption, with_tiles=tiles is not None)
    return sheet


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Write an overlay as PNG: run lengths alone take half the time of zlib's search, and no more bytes of tissue."""
    sheet.save(path, "PNG", compress_level=1, compress_type=Z_RLE)


def _tint(picture: Image.Image, tiles: ScoredTiles, size: Size, px_l0: float) -> None:
    """Lay the tiles' scores over a picture; `size` is that of the masks, which have `px_l0` level-0 px per pixel."""
    scores = score_raster(tiles.grid, tiles.scores, size, px_l0)
    colours = Image.fromarray(score_colours(np.nan_to_num(scores))).resize(picture.size, Image.Resampling.NEAREST)
    picture.paste(Image.blend(picture, colours, _TINT), mask=_enlarged(np.isfinite(scores), picture))


def _mark(picture: Image.Image, segmentation: Segmentation) -> None:
    """Hatch ink and blur, and draw the outlines of tissue and tumour."""
    y, x = np.indices(picture.size[::-1], sparse=True)
    stripes = Image.fromarray((x + y) % 16 < 6)
    for mask, colour in ((segmentation.blur, BLUR_COLOUR), (segmentation.pen, PEN_COLOUR)):
        if mask.any():
            picture.paste(colour, mask=ImageChops.logical_and(_enlarged(mask, picture), stripes))
    tissue, tumour = (np.asarray(_enlarged(mask, picture)) for mask in (segmentation.tissue, segmentation.tumour))
    picture.paste(TISSUE_COLOUR, mask=Image.fromarray(_grown(tissue) & ~tissue))
    picture.paste(TUMOUR_COLOUR, mask=Image.fromarray(_grown(~tumour) & tumour))


def _enlarged(mask: Mask, picture: Image.Image) -> Image.Image:
    """The mask's nearest values on the finer (or coarser) grid of a picture."""
    return Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST)


def _grown(mask: Mask) -> Mask:
    """All pixels within two steps of a mask; shifts take a fifth of the time of scipy's binary dilation."""
    for _ in range(2):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def _draw_selected(picture: Image.Image, tiles: ScoredTiles, px_per_l0: float) -> None:
    """Frame the tiles that decided."""
    draw = ImageDraw.Draw(picture)
    side = tiles.grid.side_l0 * px_per_l0
    for x, y in tiles.grid.origins_l0[tiles.selected] * px_per_l0:
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline=SELECTED_COLOUR, width=1)


def scale_bar(um_per_px: float, width_px: int) -> tuple[float, str]:
    """Length in µm of the longest bar of 1, 2 or 5 times a power of ten that fits a quarter of the picture, in words.

    Example:
        >>> scale_bar(10.0, 1000)
        (2000.0, '2 mm')
    """
    longest = width_px * um_per_px / 4
    power = 10.0 ** np.floor(np.log10(longest))
    length = float(max(step * power for step in (1, 2, 5) if step * power <= longest))
    return length, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"


def _draw_scale_bar(draw: ImageDraw.ImageDraw, x: int, y: int, px_per_um: float, width_px: int) -> None:
    length_um, text = scale_bar(1 / px_per_um, width_px)
    length_px = round(length_um * px_per_um)
    draw.rectangle((x, y, x + length_px - 1, y + 6), fill="black")
    draw.text((x, y + 12), text, fill="black", font=_font(18))


def _draw_legend(draw: ImageDraw.ImageDraw, x: int, y: int, caption: Caption, *, with_tiles: bool) -> int:
    """Draw words and colours; returns where they end."""
    y = _draw_text(draw, x, y, (caption.title,), 20, "black")
    y = _draw_text(draw, x, y + 8, caption.lines, 16, "black")
    y = _draw_text(draw, x, y + 8, caption.notices, 16, (190, 0, 0)) + 14
    for name, colour in (("tissue", TISSUE_COLOUR), ("tumour", TUMOUR_COLOUR)):
        draw.rectangle((x, y + 3, x + 20, y + 17), outline=colour, width=3)
        draw.text((x + 30, y), name, fill="black", font=_font(16))
        y += _LINE_PX
    for name, colour in (("pen ink", PEN_COLOUR), ("out of focus", BLUR_COLOUR)):
        for shift in (4, 12, 20):
            draw.line((x + shift - 4, y + 17, x + shift, y + 3), fill=colour, width=4)
        draw.text((x + 30, y), name, fill="black", font=_font(16))
        y += _LINE_PX
    if with_tiles:
        draw.rectangle((x, y + 3, x + 14, y + 17), outline=SELECTED_COLOUR, width=1)
        draw.text((x + 30, y), "selected tile", fill="black", font=_font(16))
        y = _draw_score_bar(draw, x, y + _LINE_PX + 8)
    return y


def _draw_score_bar(draw: ImageDraw.ImageDraw, x: int, y: int) -> int:
    draw.text((x, y), "tile score", fill="black", font=_font(16))
    width = _LEGEND_PX - 90
    for step in range(width):
        colour = tuple(int(c) for c in score_colours(np.array(3 * step / (width - 1))))
        draw.line((x + step, y + 24, x + step, y + 40), fill=colour)
    for k, name in enumerate(SCORE_COLOURS):
        draw.text((x + k * (width - 1) / 3, y + 44), name, fill="black", font=_font(15), anchor="ma")
    return y + 44 + _LINE_PX


def _draw_text(
    draw: ImageDraw.ImageDraw, x: int, y: int, lines: tuple[str, ...], px: int, colour: str | tuple[int, int, int]
) -> int:
    """Draw lines, wrapped to the legend's width; returns where the next may start."""
    font = _font(px)
    for line in lines:
        rest = line.split()
        while rest:
            fits = sum(draw.textlength(" ".join(rest[:n]), font) <= _LEGEND_PX for n in range(1, len(rest) + 1))
            if not fits:  # a name without blanks goes on in the next line
                word = rest[0]
                fits = 1
                cut = sum(draw.textlength(word[:n], font) <= _LEGEND_PX for n in range(1, len(word)))
                rest[:1] = [word[:cut], word[cut:]]
            draw.text((x, y), " ".join(rest[:fits]), fill=colour, font=font)
            rest = rest[fits:]
            y += px + 6
    return y


@cache
def _font(px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(BytesIO(_FONT.read_bytes()), px)
