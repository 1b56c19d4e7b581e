"""WSInfer's files of coordinates: `patches/<slide>.h5` with (n, 4) corners, widths and heights."""

from pathlib import Path

import h5py
import numpy as np

from he2her2.errors import ExchangeError
from he2her2.exchange.hdf5 import corners_of, number, open_hdf5, read_dataset, write_hdf5
from he2her2.exchange.stored_tiles import NO_SIDE, StoredTiles


def is_wsinfer(file: h5py.File) -> bool:
    """True if an open file is of this layout."""
    return "coords" in file and "patch_spacing_um_px" in file["coords"].attrs


def read_wsinfer(path: Path) -> StoredTiles:
    """Tiles of a file of coordinates; the µm of a tile are stated, those of a level-0 px only up to rounding.

    Raises:
        ExchangeError: It cannot be read, or its tiles are not square and of one size.
    """
    with open_hdf5(path) as file:
        coords, stated = read_dataset(file, "coords", columns=2), dict(file["coords"].attrs)
        corners = corners_of(coords)
    sides = np.unique(coords[:, 2:4])
    if len(sides) > 1:
        raise ExchangeError(path.stem, f"its tiles are of several sizes, {sides[:3].tolist()} px", "cut them alike")
    return StoredTiles(
        path.stem,
        corners,
        side=number({"side": sides[0]}, "side") if len(sides) else number(stated, "patch_size"),
        mpp=number(stated, "patch_spacing_um_px"),
        stated=stated,
        layout="wsinfer",
    )


def write_wsinfer(path: Path, tiles: StoredTiles) -> Path:
    """Write coordinates; features have no place there.

    Raises:
        ExchangeError: The size of the tiles, or the µm per px, are unknown.
        OutputError: It cannot be written.
    """
    tiles = tiles.in_unit("px")
    side_px = tiles.side_px or (None if tiles.side is None else max(1, round(tiles.side)))
    if tiles.side is None or side_px is None:
        raise ExchangeError(tiles.slide_id, *NO_SIDE)
    spacing = (tiles.mpp if tiles.layout == "wsinfer" else None) or tiles.grid(side_px).mpp
    side = round(tiles.side)  # in level-0 px, as WSInfer's attribute is
    rows = np.column_stack([tiles.places, *2 * [np.full(len(tiles), side)]])

    def fill(file: h5py.File) -> None:
        coords = file.create_dataset("coords", data=rows, compression="gzip")
        coords.attrs.update({"patch_size": side, "patch_level": 0, "patch_spacing_um_px": spacing})

    return write_hdf5(path, fill)
