"""`heatmap.ome.tif`: the tiles' scores as a pyramidal OME-TIFF, coloured for the eye and as numbers."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import tifffile
from numpy.typing import NDArray

from he2her2.geometry import Rgb, Size
from he2her2.results.palette import score_colours
from he2her2.results.rasters import RasterFrame, score_raster
from he2her2.results.tiles_h5 import ScoredTiles

_TILE_PX = 256
_SMALLEST_PX = 512
_GLASS = 255
_CHANNELS = ("HER2 score", "Attention")


def write_heatmap(path: Path, tiles: ScoredTiles, size: Size, frame: RasterFrame) -> None:
    """Write the heatmap of scored tiles: two images of the slide's extent, each a pyramid with its µm per px.

    The first is RGB in the colours of the overlay, white where there is no tile. The second holds float32 channels,
    score and attention, each the mean over the tiles above a pixel and NaN where there is none.

    Args:
        path: File to write.
        tiles: Scored tiles, on the lattice of the raster.
        size: Width and height of the raster.
        frame: Its scale.
    """
    values = np.stack(
        [
            score_raster(tiles.grid, of_tiles, size, frame.px_l0).astype(np.float32)
            for of_tiles in (tiles.scores, tiles.attention)
        ]
    )  # (2, h, w)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        identity = {"UUID": str(UUID(hashlib.sha256(values.tobytes()).hexdigest()[:32]))}  # not another one each time
        pictures = [coloured(level[0]) for level in _halved(values)]
        _write_pyramid(tiff, pictures, "rgb", frame.mpp, {"axes": "YXS", "Name": "HER2 score, coloured"} | identity)
        named = {"axes": "CYX", "Name": "HER2 score and attention", "Channel": {"Name": list(_CHANNELS)}}
        _write_pyramid(tiff, list(_halved(values)), "minisblack", frame.mpp, named)


def coloured(scores: NDArray[np.floating]) -> Rgb:
    """(h, w, 3) colours of (h, w) scores; white where they are NaN."""
    known = np.isfinite(scores)
    picture = np.full((*scores.shape, 3), _GLASS, np.uint8)
    picture[known] = score_colours(scores[known])
    return picture


def _write_pyramid(
    tiff: tifffile.TiffWriter, levels: list[NDArray[Any]], photometric: str, mpp: float, metadata: dict[str, Any]
) -> None:
    physical = {"PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"}
    for k, level in enumerate(levels):
        per_cm = 1e4 / (mpp * 2**k)
        tiff.write(
            level,
            photometric=photometric,
            compression="adobe_deflate",
            tile=(_TILE_PX, _TILE_PX),
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            **({"subfiletype": 1} if k else {"subifds": len(levels) - 1, "metadata": physical | metadata}),
        )


def _halved(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The (c, h, w) raster and its halves, until one is small; a pixel is the mean of the known ones below it."""
    yield values
    while max(values.shape[1:]) > _SMALLEST_PX:
        c, h, w = values.shape
        padded = np.full((c, h + h % 2, w + w % 2), np.nan, np.float32)
        padded[:, :h, :w] = values
        cells = padded.reshape(c, len(padded[0]) // 2, 2, -1, 2)
        known = np.isfinite(cells)
        count = known.sum(axis=(2, 4))
        total = np.where(known, cells, 0).sum(axis=(2, 4))
        values = np.divide(total, count, out=np.full(total.shape, np.nan, np.float32), where=count > 0)
        yield values
