"""Masks and maps as PNG that state their scale and place, samples of the map, and the tiles' scores as a raster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from he2her2.csv_files import read_csv, write_csv
from he2her2.geometry import Map, Mask, Point, Size, TileGrid, l0_from_mask
from he2her2.preprocessing import AdaptiveMap

_PNG_LEVEL = 3
"""Of zlib: the usual 6 takes twice as long, and saves a tenth at most of a picture of tissue."""


SAMPLES_FILE = "tumour_samples.csv"
_SAMPLE_COLUMNS = ("x_l0", "y_l0", "probability")
_INCH_UM = 25_400.0


@dataclass(frozen=True, slots=True)
class RasterFrame:
    """Scale and place of a raster over a whole slide; its first pixel begins at (0, 0) of level 0.

    Attributes:
        px_l0: Level-0 px per raster px.
        mpp: µm per raster px.
        bounds_l0: Top left corner of the scanned part, which QuPath calls (0, 0).
    """

    px_l0: float
    mpp: float
    bounds_l0: Point

    def png_info(self, meaning: str) -> PngInfo:
        """Text chunks of a PNG: the meaning of its values, and its scale and place."""
        info = PngInfo()
        info.add_text("Description", f"{meaning}; 1 px is {self.px_l0:g} px of level 0, {self.mpp:g} µm")
        info.add_text("px_l0", repr(self.px_l0))
        info.add_text("mpp", repr(self.mpp))
        info.add_text("origin_l0", "0 0")
        info.add_text("bounds_l0", f"{self.bounds_l0.x} {self.bounds_l0.y}")
        return info

    @property
    def dpi(self) -> tuple[float, float]:
        """Px per inch, which a PNG keeps per metre."""
        return _INCH_UM / self.mpp, _INCH_UM / self.mpp


def write_mask(path: Path, mask: Mask, frame: RasterFrame, name: str) -> None:
    """Write a mask as a one-bit PNG: white is inside."""
    info = frame.png_info(f"{name}: white is inside")
    Image.fromarray(mask).save(path, "PNG", optimize=True, dpi=frame.dpi, pnginfo=info)


def write_map(path: Path, values: Map, frame: RasterFrame, name: str) -> None:
    """Write a map in [0, 1] as a 16-bit grey PNG: 65 535 is 1."""
    info = frame.png_info(f"{name}: 65535 is 1")
    picture = Image.fromarray(np.rint(values * 65_535).astype(np.uint16))
    picture.save(path, "PNG", compress_level=_PNG_LEVEL, dpi=frame.dpi, pnginfo=info)


def write_samples(path: Path, sampling: AdaptiveMap, frame: RasterFrame) -> None:
    """Write the samples of a tumour map as CSV: centre in level-0 px and probability, in the order of scoring."""
    centres = l0_from_mask(sampling.points, frame.px_l0).round(1)
    rows = zip(*centres.T.tolist(), sampling.values.round(4).tolist(), strict=True)
    write_csv(path, _SAMPLE_COLUMNS, rows)


@dataclass(frozen=True, slots=True, eq=False)
class SlideRasters:
    """Masks and maps of a slide as its folder holds them; None for each that it lacks.

    Attributes:
        tissue: (h, w) all tissue.
        pen: (h, w) pen ink.
        blur: (h, w) tissue out of focus.
        tumour: (h, w) invasive tumour.
        tumour_map: (h, w) probability of invasive tumour.
        samples: (n, 3) centre (x, y) in level-0 px and probability of each sample of the map, in the order of scoring.
        frame: Scale and place that the tissue mask states.
    """

    tissue: Mask | None
    pen: Mask | None
    blur: Mask | None
    tumour: Mask | None
    tumour_map: Map | None
    samples: NDArray[np.float64] | None
    frame: RasterFrame | None


def read_rasters(folder: Path) -> SlideRasters:
    """Read the masks and maps in a slide's folder.

    Raises:
        ValueError: A file is damaged; the message says which in one line.
    """
    tissue, pen, blur, tumour = (read_mask(folder, name) for name in ("tissue", "pen", "blur", "tumour"))
    frame = read_frame(folder, "tissue")
    return SlideRasters(tissue, pen, blur, tumour, read_map(folder, "tumour_map"), read_samples(folder), frame)


def read_mask(folder: Path, name: str) -> Mask | None:
    """(h, w) a mask in a slide's folder; None where there is none.

    Raises:
        ValueError: Its file is damaged; the message says so in one line.
    """
    values = _read_picture(folder / f"{name}.png")
    return None if values is None else values > 0


def read_map(folder: Path, name: str) -> Map | None:
    """(h, w) a map in [0, 1] in a slide's folder; None where there is none.

    Raises:
        ValueError: Its file is damaged; the message says so in one line.
    """
    values = _read_picture(folder / f"{name}.png")
    return None if values is None else (values / 65_535).astype(np.float32)


def read_frame(folder: Path, name: str) -> RasterFrame | None:
    """Scale and place that a mask or map states; None where there is none, or it is of before they were stated.

    Raises:
        ValueError: Its file is damaged; the message says so in one line.
    """
    file = folder / f"{name}.png"
    if not file.is_file():
        return None
    with _opened(file) as picture:
        info = picture.info
    try:
        x, y = map(int, info["bounds_l0"].split())
        return RasterFrame(float(info["px_l0"]), float(info["mpp"]), Point(x, y))
    except (KeyError, ValueError):
        return None


def _read_picture(file: Path) -> NDArray[Any] | None:
    """(h, w) values of a grey picture; None where there is none."""
    if not file.is_file():
        return None
    with _opened(file) as picture:
        values = np.asarray(picture)
    if values.ndim != 2:
        raise ValueError(f"{file}: is no grey picture; predict the slide again")
    return values


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """The open picture; whatever is wrong with it becomes a ValueError of one line."""
    try:
        with Image.open(file) as picture:
            yield picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: is damaged ({error}); predict the slide again") from None


def read_samples(folder: Path) -> NDArray[np.float64] | None:
    """Samples of the tumour map in a slide's folder, as of `SlideRasters`; None where they were not kept.

    Raises:
        ValueError: Their file is damaged; the message says so in one line.
    """
    file = folder / SAMPLES_FILE
    if not file.is_file():
        return None
    try:
        rows = [[float(row[column]) for column in _SAMPLE_COLUMNS] for row in read_csv(file)]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: is damaged ({error}); predict the slide again") from None
    return np.array(rows, np.float64).reshape(-1, len(_SAMPLE_COLUMNS))


def score_raster(grid: TileGrid, scores: NDArray[np.float64], size: Size, px_l0: float) -> NDArray[np.float64]:
    """Mean score of the tiles over each mask pixel: (h, w), NaN where there is no tile.

    Args:
        grid: (n) tiles on the lattice of the mask.
        scores: (n,) their scores.
        size: Width and height of the mask.
        px_l0: Level-0 px per mask pixel.
    """
    mean = np.full((size.h, size.w), np.nan)
    if not len(grid):
        return mean
    side = round(grid.side_l0 / px_l0)
    corners = np.rint(grid.origins_l0 / px_l0).astype(np.int64)  # (n, 2)
    first = corners.min(axis=0)
    width, height = corners.max(axis=0) - first + side
    # Each tile adds its score at its corners; running sums spread it over the tile (a 2-D difference array).
    total, count = np.zeros((height + 1, width + 1)), np.zeros((height + 1, width + 1), np.int32)
    for dx, dy, sign in ((0, 0, 1), (side, 0, -1), (0, side, -1), (side, side, 1)):
        x, y = (corners - first + (dx, dy)).T
        np.add.at(total, (y, x), sign * scores)
        np.add.at(count, (y, x), sign)
    for raster in (total, count):
        for above, row in pairwise(raster):  # a fifth of the time of cumsum(0)
            np.add(above, row, out=row)
        raster.cumsum(1, out=raster)
    inside = mean[first[1] : first[1] + height, first[0] : first[0] + width]
    h, w = inside.shape
    np.divide(total[:h, :w], count[:h, :w], out=inside, where=count[:h, :w] > 0)
    return mean
