"""Compressed tiles that a TIFF leaves out (of zero bytes): on glass they are glass, inside the tissue they are lost.

Scanners leave blank glass out; damage and careless converters leave tissue out. Other levels and pictures of the same
slide show which it was; where none does, the tiles around the gap tell.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from he2her2.slides.codecs import DecodeError
from he2her2.slides.levels import Rect, stained
from he2her2.slides.tiff_header import FileBytes
from he2her2.slides.tiff_image import TiffImage

_STAINED_SHARE = 0.05
_STAINED_SIDE = 0.5
_STAINED_RING = 0.2
_MAX_EVIDENCE_PX = 1 << 26
_MAX_CELL = 16
_BAND_PX = 8
_MAX_BORDER_PX = 1 << 28
_ASPECT_TOLERANCE = 0.02

_Flags: TypeAlias = NDArray[np.bool_]
_Cells: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(h, w) stained and (h, w) known shares of the cells of one picture of the slide."""


def lost_tiles(levels: Sequence[TiffImage], pictures: Sequence[TiffImage], file: FileBytes) -> list[_Flags]:
    """Find the absent tiles that lie inside the tissue.

    Args:
        levels: The pyramid, finest first.
        pictures: Other pictures of the whole slide, such as its thumbnail.
        file: The file's bytes.

    Returns:
        For each level (n,) flags of its tiles in raster order.
    """
    lost = []
    for image in levels:
        unknown = image.absent.copy()
        found = np.zeros_like(unknown)
        if unknown.any():
            for other in _evidence(image, levels, pictures):
                shares, known = _shares(image, _cells(image, other, file))
                seen = unknown & (known >= 0.5)
                found |= seen & (shares >= _STAINED_SHARE * known)
                unknown &= ~seen
                if not unknown.any():
                    break
            else:
                found |= _enclosed(image, unknown, file)
        lost.append(found)
    return lost


def _evidence(image: TiffImage, levels: Sequence[TiffImage], pictures: Sequence[TiffImage]) -> Iterator[TiffImage]:
    """Other images of the whole slide, cheapest first."""
    others = [other for other in (*levels, *pictures) if other is not image]
    for other in sorted(others, key=lambda other: other.size.w * other.size.h):
        across, down = image.size.w / other.size.w, image.size.h / other.size.h
        slack = _ASPECT_TOLERANCE + 1 / other.size.w + 1 / other.size.h
        if other.size.w * other.size.h <= _MAX_EVIDENCE_PX and abs(across / down - 1) <= slack:
            yield other


def _cells(image: TiffImage, other: TiffImage, file: FileBytes) -> tuple[_Cells, float, float]:
    """Stained and known cells of `other`, and px of `image` per cell, across and down."""
    across, down = image.size.w / other.size.w, image.size.h / other.size.h
    fit = min(image.tile.w / across, image.tile.h / down) / 4
    common = math.gcd(other.tile.w, other.tile.h) if not other.striped else 1
    side = math.gcd(common, 1 << max(0, int(math.log2(min(max(fit, 1), _MAX_CELL)))))
    shape = -(-other.size.h // side), -(-other.size.w // side)
    colour, known = np.zeros(shape), np.zeros(shape)
    for index in np.flatnonzero(~other.absent).tolist():
        tile = other.tile_rect(index)
        pixels = np.empty((tile.h, tile.w, 3), np.uint8)
        try:
            other.decode_tile(file, index, pixels)
        except DecodeError:
            continue
        inside = tile.clipped(other.size)
        small = np.asarray(Image.fromarray(pixels[: inside.h, : inside.w]).reduce(side))
        place = slice(tile.y // side, tile.y // side + small.shape[0]), slice(tile.x // side, None)
        colour[place][:, : small.shape[1]] = stained(small)
        known[place][:, : small.shape[1]] = 1
    return (colour, known), across * side, down * side


def _shares(image: TiffImage, evidence: tuple[_Cells, float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) stained and (n,) known share of each tile of `image`."""
    (colour, known), across, down = evidence
    columns = np.arange(image.n_columns) * image.tile.w
    rows = np.arange(image.n_rows) * image.tile.h

    def ends(starts: NDArray[np.int64], side: int, size: int, step: float, n: int) -> NDArray[np.int64]:
        first = np.minimum(starts / step, n - 1).astype(np.int64)
        last = np.ceil(np.minimum(starts + side, size) / step).astype(np.int64)
        return np.stack([first, np.clip(last, first + 1, n)])

    (top, bottom), (left, right) = (
        ends(rows, image.tile.h, image.size.h, down, colour.shape[0]),
        ends(columns, image.tile.w, image.size.w, across, colour.shape[1]),
    )
    area = np.outer(bottom - top, right - left)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        total = sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)]
        total += sums[np.ix_(top, left)] - sums[np.ix_(bottom, left)]
        return np.asarray(total / area).ravel()

    return mean(colour), mean(known)


def _enclosed(image: TiffImage, unknown: _Flags, file: FileBytes) -> _Flags:
    """(n,) tiles of the gaps that stained tiles surround: by one side, or all around the gap."""
    shape = image.n_rows, image.n_columns
    gap = unknown.reshape(shape)
    present = ~image.absent.reshape(shape)
    borders = list(_borders(gap, present))
    sums, counts, side = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    bands: dict[int, dict[tuple[int, int], float | None]] = {}
    n_most = max(8, _MAX_BORDER_PX // (image.tile.w * image.tile.h))
    for row, column, dy, dx in borders[:: -(-len(borders) // n_most) or 1]:
        index = (row + dy) * image.n_columns + column + dx
        if index not in bands:
            bands[index] = _bands(image, index, file)
        share = bands[index][dy, dx]
        if share is not None:
            sums[row, column] += share
            counts[row, column] += 1
            side[row, column] = max(side[row, column], share)
    labels, n = scipy.ndimage.label(gap, np.ones((3, 3)))
    all_labels = np.arange(n + 1)
    around = scipy.ndimage.sum(sums, labels, all_labels) / np.maximum(scipy.ndimage.sum(counts, labels, all_labels), 1)
    return np.asarray(gap & ((around[labels] >= _STAINED_RING) | (side >= _STAINED_SIDE))).ravel()


def _borders(gap: _Flags, present: _Flags) -> Iterator[tuple[int, int, int, int]]:
    """Row and column of each tile of a gap that has a present neighbour, and the step (dy, dx) to it."""
    padded = np.pad(present, 1)
    h, w = gap.shape
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        rows, columns = np.nonzero(gap & padded[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w])
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            yield row, column, dy, dx


def _bands(image: TiffImage, index: int, file: FileBytes) -> dict[tuple[int, int], float | None]:
    """Stained share of a tile's border, by the step from the gap to the tile; None where it cannot be decoded."""
    tile = image.tile_rect(index)
    pixels = np.empty((tile.h, tile.w, 3), np.uint8)
    try:
        image.decode_tile(file, index, pixels)
    except DecodeError:
        return dict.fromkeys(((-1, 0), (1, 0), (0, -1), (0, 1)))
    inside: Rect = tile.clipped(image.size)
    pixels = pixels[: inside.h, : inside.w]
    n = _BAND_PX
    bands = {(-1, 0): pixels[-n:], (1, 0): pixels[:n], (0, -1): pixels[:, -n:], (0, 1): pixels[:, :n]}
    return {
        step: float(stained(np.asarray(Image.fromarray(np.ascontiguousarray(band)).reduce(4))).mean())
        for step, band in bands.items()
    }
