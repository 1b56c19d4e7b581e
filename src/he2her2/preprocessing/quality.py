"""Marker ink and blur, as masks. Callers exclude them from the tissue mask."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

from he2her2.geometry import Mask, Rgb

Sharpness: TypeAlias = NDArray[np.float32]
"""(h, w, 2) raster: mean squared differences of neighbouring px, and of px two apart; NaN where nothing was read."""

_SPECK_PX = 8
"""Ink in fewer mask px than this (500 µm²) is a speck, not a stroke."""

_FRINGE_PX = 2
"""A stroke fades out over about 16 µm."""

_Density: TypeAlias = NDArray[np.float32]
"""(h, w) optical density of one channel."""

_INK_EXCESS = 0.17
"""Share of the whole density by which blue and green ink absorb red more than green; counterstain stays below."""

_FAINT_SHARE = 0.25
"""Least share of blue px with less excess than this, of a counterstained slide."""

_EOSIN_SHARE = 0.05
"""Pink px of a slide without eosin, at most, as a share of its blue ones."""

_LEAST_DETAIL = 40.0
"""Mean squared difference over 2 µm, in grey levels, below which nothing is in focus: noise and JPEG stay under 15,
72 µm of sharp H&E have 440 and more, of the palest sharp IHC 50."""

_LEAST_STRUCTURE = 0.8
"""Grey levels by which half of a piece's thumbnail must differ from itself, smoothed: less is no structure."""

_STRUCTURE_UM = 16

_BORDER_UM = 32
"""A tissue mask reaches about so far onto the glass."""

_WINDOW_UM = 72
"""Blur is decided over a window so wide: several nuclei, whatever lies between them."""


def pen_mask(rgb: Rgb) -> Mask:
    """Find the ink of markers, on glass or tissue: green, blue, red or black.

    By Beer and Lambert's law a dye absorbs R, G and B in proportions of its own, whatever its amount (Ruifrok and
    Johnston, Anal Quant Cytol Histol 23, 2001), so each colour is a range of shares of the summed optical density:

    - green and blue ink absorb red more than green, which neither haematoxylin on H&E, eosin nor DAB does; the blue
      counterstain of immunohistochemistry does so a little, and is told by the lack of eosin (`_is_counterstain`);
    - red ink absorbs hardly any red, even less than most blood, and much blue;
    - black ink absorbs all three alike and much, as neither stain nor a mixture of them does; over red ink it is darker
      than any stain.

    A stroke is what fulfils its colour's lenient rule and is joined to enough px that fulfil the strict one. Red ink
    over tissue has the colour of blood: it is found only where it is joined to red ink on glass.

    Args:
        rgb: (h, w, 3) thumbnail of about 8 µm/px.

    Example:
        >>> green_ink, tissue = [30, 160, 130], [200, 120, 170]
        >>> int(pen_mask(np.array([[green_ink] * 9 + [tissue] * 9], np.uint8)).sum())  # and 2 px of fringe
        11
    """
    red, green, blue = (_DENSITY[rgb[..., channel]] for channel in range(3))
    total = red + green + blue
    excess = red - green
    cold = _strokes((excess > 0.08 * total) & (total > 0.3), (excess > 0.06 * total) & (total > 0.2))
    if _is_counterstain(cold, red, green, blue):
        cold = _strokes((excess > _INK_EXCESS * total) & (total > 0.3), (excess > 0.15 * total) & (total > 0.2))
    pure = (red < 0.1 * total) & (blue > 0.37 * total) & (total > 0.5)
    over_tissue = (red < 0.22 * total) & (blue > 0.33 * total) & (total > 1.2)
    warm = _strokes(pure & (red < 0.065 * total) & (total > 1.0), pure | over_tissue)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    dusky = (total > 2.1) & (green > 0.42 * total) & (green - blue < 0.12 * total)
    grey = (spread < 0.15 * total) & (total > 0.9)
    black = _strokes((grey & (spread < 0.08 * total) & (total > 1.8)) | dusky, grey)
    ink = cold | warm | black
    return np.asarray(scipy.ndimage.binary_dilation(ink, iterations=_FRINGE_PX)) if ink.any() else ink


def sharpness(rgb: Rgb, cell_px: int = 8) -> Sharpness:
    """Measure in square cells how much brightness changes from pixel to pixel, and over two pixels.

    Cells look only at their own pixels, so a slide may be measured in regions of any size.

    Args:
        rgb: (h, w, 3) pixels of about 1 µm.
        cell_px: Side of a cell, at least 3; one cell is one mask px where the pixels are `cell_px` times finer.

    Returns:
        (h // cell_px, w // cell_px, 2); pixels beyond the last whole cell are left out.

    Raises:
        ValueError: `cell_px` is under 3.

    Example:
        >>> ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], (8, 8, 3))
        >>> sharpness(ramp).tolist()
        [[[1.0, 4.0]]]
    """
    if cell_px < 3:
        raise ValueError(f"cell_px must be at least 3, got {cell_px}")
    rows, columns = rgb.shape[0] // cell_px, rgb.shape[1] // cell_px
    whole = rgb[: rows * cell_px, : columns * cell_px].astype(np.float32)
    grey: NDArray[np.float32] = (whole[..., 0] + 2 * whole[..., 1] + whole[..., 2]) / np.float32(4)
    cells = grey.reshape(rows, cell_px, columns, cell_px)
    return np.stack([_difference(cells, apart) for apart in (1, 2)], axis=-1)


def _relative_sharpness(measured: Sharpness, tissue: Mask, px_mpp: float) -> NDArray[np.float32]:
    """Measure the sharpness of the tissue around each mask pixel, independent of its contrast.

    The ratio of both differences, each summed over the tissue within 72 µm. A smooth picture changes half as much over
    one pixel as over two, so the squares' ratio falls to 1/4; sharp tissue has detail as fine as the pixels, and the
    ratio lies at 0.36 to 0.6. Pale stroma has small differences, but not a small ratio.

    Args:
        measured: (h, w, 2) of `sharpness`.
        tissue: (h, w)
        px_mpp: µm per mask px.

    Returns:
        (h, w), 1 where there is nothing to measure.
    """
    window = _window_px(px_mpp)
    read = tissue & np.isfinite(measured[..., 0])
    near, far = (
        scipy.ndimage.uniform_filter(
            np.where(read, measured[..., apart], 0).astype(np.float64), window, mode="constant"
        )
        for apart in range(2)
    )
    seen = far > 1e-3
    ratio: NDArray[np.float32] = np.where(seen, near / np.where(seen, far, 1), 1).astype(np.float32)
    return ratio


def _flat(measured: Sharpness, tissue: Mask, px_mpp: float) -> Mask:
    """(h, w) where the tissue within 72 µm has no detail above the camera's noise, its step to the glass left aside."""
    inner = _inner(tissue, px_mpp) & np.isfinite(measured[..., 1])
    far, there = (
        scipy.ndimage.uniform_filter(raster, _window_px(px_mpp), mode="constant")
        for raster in (np.where(inner, measured[..., 1], 0).astype(np.float64), inner.astype(np.float64))
    )
    seen = there > 1e-6
    return np.asarray(tissue & seen & (far < _LEAST_DETAIL * there))


def _inner(tissue: Mask, px_mpp: float) -> Mask:
    """(h, w) tissue that lies off its border."""
    return np.asarray(scipy.ndimage.binary_erosion(tissue, iterations=max(1, round(_BORDER_UM / px_mpp))))


def smear_mask(rgb: Rgb, measured: Sharpness, tissue: Mask, px_mpp: float) -> Mask:
    """Find stain on glass: coloured, but without a structure at any scale, neither fine nor, in the thumbnail, coarse.

    Tissue that is far out of focus keeps its coarse structure, and is no smear. A smear's soft border is part of it.

    Args:
        rgb: (h, w, 3) thumbnail.
        measured: (h, w, 2) of `sharpness`.
        tissue: (h, w)
        px_mpp: µm per mask px.

    Returns:
        (h, w): True only inside the tissue.
    """
    flat = _flat(measured, tissue, px_mpp)
    if not flat.any():
        return flat
    grey = (rgb[..., 0].astype(np.float64) + 2.0 * rgb[..., 1] + rgb[..., 2]) / 4
    inner = _inner(tissue, px_mpp)
    weight = inner.astype(np.float64)
    smoothed, near = (
        scipy.ndimage.gaussian_filter(raster, _STRUCTURE_UM / px_mpp) for raster in (grey * weight, weight)
    )
    structure = np.abs(grey - smoothed / np.where(inner, near, 1))  # a slope across the smear is none
    labels, n_pieces = scipy.ndimage.label(flat, structure=np.ones((3, 3)))
    inner_labels = np.where(inner, labels, 0)
    plain = np.zeros(n_pieces + 1, np.bool_)
    pieces = np.setdiff1d(inner_labels, [0])
    plain[pieces] = np.asarray(scipy.ndimage.median(structure, inner_labels, pieces)) < _LEAST_STRUCTURE
    return np.asarray(plain[labels])


def _window_px(px_mpp: float) -> int:
    """Odd side in mask px of the window over which blur is decided."""
    return 2 * round(_WINDOW_UM / px_mpp / 2 - 0.5) + 1


def blur_mask(measured: Sharpness, tissue: Mask, px_mpp: float, min_sharpness: float) -> Mask:
    """Find tissue that is out of focus.

    Args:
        measured: (h, w, 2) of `sharpness`.
        tissue: (h, w)
        px_mpp: µm per mask px.
        min_sharpness: In (0.25, 1), of `_relative_sharpness`; at 0.30 a Gaussian blur with a sigma of 1.5 µm is found,
            and of sharp tissue less than 1 % is taken for it.

    Returns:
        (h, w): True only inside the tissue.
    """
    return np.asarray(tissue & (_relative_sharpness(measured, tissue, px_mpp) < min_sharpness))


def out_of_focus(measured: Sharpness, tissue: Mask, px_mpp: float, min_sharpness: float) -> Mask:
    """Find tissue that is smooth (`blur_mask`) or without any detail above the camera's noise, to the rims of pieces.

    Far out of focus noise is all that changes from pixel to pixel, and its ratio is that of sharp tissue. Of a piece
    of tissue that is mostly so, what is left and narrower than 72 µm is out of focus too: at its rim the step to the
    glass is detail.

    Returns:
        (h, w): True only inside the tissue.
    """
    blurred = blur_mask(measured, tissue, px_mpp, min_sharpness) | _flat(measured, tissue, px_mpp)
    left = tissue & ~blurred
    broad = scipy.ndimage.binary_opening(left, iterations=max(1, round(_BORDER_UM / px_mpp)))
    return np.asarray(blurred | (left & ~broad & _pieces_with_most(blurred, tissue)))


def _pieces_with_most(part: Mask, whole: Mask) -> Mask:
    """The connected pieces of a mask of which more than half lies in another."""
    if not part.any():
        return part
    labels, n_pieces = scipy.ndimage.label(whole, structure=np.ones((3, 3)))
    inside, all_px = (np.bincount(labels[mask & whole], minlength=n_pieces + 1) for mask in (part, whole))
    return np.asarray((2 * inside > all_px)[labels] & whole)


@dataclass(frozen=True, slots=True)
class QualityShares:
    """Shares of the tissue under ink and out of focus.

    Attributes:
        pen: Under ink, in [0, 1].
        blur: Out of focus, in [0, 1]; may overlap with ink.
        usable: Neither, in [0, 1].
    """

    pen: float
    blur: float
    usable: float


def quality_shares(tissue: Mask, pen: Mask, blur: Mask) -> QualityShares:
    """Compute the shares of the tissue under ink and out of focus, of three masks of one shape; 0 without tissue.

    Example:
        >>> tissue, pen, blur = (np.array([mask], bool) for mask in ([1, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0]))
        >>> quality_shares(tissue, pen, blur).blur
        0.6666666666666666
    """
    area = max(1, int(tissue.sum()))
    parts = (tissue & pen, tissue & blur, tissue & ~pen & ~blur)
    return QualityShares(*(int(mask.sum()) / area for mask in parts))


_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density, -log10 of the transmitted light, of every uint8."""


def _is_counterstain(cold: Mask, red: _Density, green: _Density, blue: _Density) -> bool:
    """Tell whether what has the colour of blue ink is the tissue itself, counterstained with blue haematoxylin.

    Ink absorbs red more than green by a fifth of the whole and more, counterstain by a tenth or so. Where a good part
    of the blue is as faint as this, and there is hardly any eosin beside it, it is the stain of an IHC slide. On H&E,
    whose tissue is pink, blue is ink.
    """
    n_cold = np.count_nonzero(cold)
    total = red + green + blue
    faint = np.count_nonzero(cold & (red - green < _INK_EXCESS * total))
    eosin = np.count_nonzero(~cold & (total > 0.2) & (green > 0.44 * total) & (blue < 0.36 * total))
    return bool(faint > _FAINT_SHARE * n_cold and eosin < _EOSIN_SHARE * faint)


def _strokes(core: Mask, lenient: Mask) -> Mask:
    """The connected parts of core and lenient together that hold enough core."""
    if not core.any():
        return core
    labels, n_parts = scipy.ndimage.label(core | lenient, structure=np.ones((3, 3)))
    kept = np.bincount(labels[core], minlength=n_parts + 1) >= _SPECK_PX
    return np.asarray(kept[labels])


def _difference(cells: NDArray[np.float32], apart: int) -> NDArray[np.float32]:
    """Mean squared difference of pixels so far apart, along rows plus along columns; (h, side, w, side) to (h, w)."""
    across, down = cells[..., apart:] - cells[..., :-apart], cells[:, apart:] - cells[:, :-apart]
    squares = np.einsum("hywx,hywx->hw", across, across) + np.einsum("hywx,hywx->hw", down, down)
    n_pairs = cells.shape[1] * (cells.shape[1] - apart)
    return np.asarray(squares / n_pairs, np.float32)
