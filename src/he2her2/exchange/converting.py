"""From one program's files to another's: what the target can hold is kept bit for bit, what it needs is asked for."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from he2her2.errors import ExchangeError
from he2her2.exchange.clam import clam_files_read
from he2her2.exchange.layouts import Layout, files_to_write, layout_of, read_tiles_file, write_tiles_files
from he2her2.exchange.stored_tiles import StoredTiles
from he2her2.files import check_not_read


@dataclass(frozen=True, slots=True)
class Converted:
    """One slide in another layout.

    Attributes:
        written: The files.
        source: Layout that it came from.
        n_tiles: Its tiles.
        lost: What the layout has no place for, in words.
    """

    written: tuple[Path, ...]
    source: Layout
    n_tiles: int
    lost: tuple[str, ...]


def convert_file(
    path: Path, out: Path, layout: Layout, *, mpp_l0: float | None = None, coords: Path | None = None
) -> Converted:
    """Write a slide's file of tiles in another layout.

    Args:
        path: The file.
        out: Folder of the cohort in the new layout.
        layout: The new layout.
        mpp_l0: µm per level-0 px, over what the file says.
        coords: File of the same tiles' coordinates, which says what a file of features leaves out.

    Raises:
        ExchangeError: The file cannot be read, or does not say what the layout needs.
        OutputError: The new files cannot be written, or would replace those that are read.
    """
    source = layout_of(path)
    tiles = read_tiles_file(path, mpp_l0)
    if coords is not None:
        tiles = _completed(tiles, read_tiles_file(coords, mpp_l0))
    inputs = [*(clam_files_read(path) if source == "clam" else [path]), *([] if coords is None else [coords])]
    for file in files_to_write(out, tiles, layout):
        check_not_read(file, inputs)
    written = write_tiles_files(out, tiles, layout)
    return Converted(tuple(written), source, len(tiles), tuple(_lost(tiles, layout)))


def _completed(tiles: StoredTiles, coords: StoredTiles) -> StoredTiles:
    """Tiles with what the file of their coordinates says.

    Raises:
        ExchangeError: It is of other tiles, or states their side in another unit and the µm per px are unknown.
    """
    if not _same_corners(tiles, coords):
        raise ExchangeError(tiles.slide_id, "the file of coordinates has other tiles", "give that of these features")
    if tiles.corners is None:
        tiles = replace(tiles, corners=coords.corners, unit=coords.unit, stated=coords.stated, layout=coords.layout)
    mpp_l0 = tiles.mpp_l0 or coords.mpp_l0
    return replace(
        tiles,
        side=tiles.side or coords.with_mpp(mpp_l0).in_unit(tiles.unit).side,
        side_px=tiles.side_px or coords.side_px,
        mpp_l0=mpp_l0,
        mpp=tiles.mpp or coords.mpp,
        size_l0=tiles.size_l0 or coords.size_l0,
    )


def _same_corners(tiles: StoredTiles, coords: StoredTiles) -> bool:
    """False if there are others, as far as their units let it be told."""
    if tiles.corners is None or coords.unit != tiles.unit:
        return len(coords) == len(tiles)
    return np.array_equal(coords.places, tiles.corners)


def _lost(tiles: StoredTiles, layout: Layout) -> list[str]:
    """Parts that a layout has no place for."""
    lost = []
    if layout == "wsinfer" and tiles.features is not None:
        lost.append("features")
    if layout == "clam":
        lost += ["µm per px"] * (tiles.mpp_l0 is not None) + ["the encoder's name"] * bool(tiles.encoder)
        lost += ["the size of the tiles, which is unknown"] * (tiles.side is None)
    return lost
