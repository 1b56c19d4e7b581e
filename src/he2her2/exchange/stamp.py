"""STAMP's files: `<slide>.h5` with `feats` and `coords` in µm."""

from pathlib import Path

import h5py
import numpy as np

from he2her2.errors import ExchangeError, quoted
from he2her2.exchange.hdf5 import number, open_hdf5, read_corners, read_features, text, write_hdf5
from he2her2.exchange.stored_tiles import NO_SIDE, StoredTiles

_KIND = "feat_type"
_OURS = "2.0.0"  # of the layout: the first with coordinates in µm


def is_stamp(file: h5py.File) -> bool:
    """True if an open file is of this layout."""
    return "feats" in file


def read_stamp(path: Path) -> StoredTiles:
    """Tiles of a file of tile features.

    Raises:
        ExchangeError: It cannot be read, holds features of whole slides, or is so old that its unit is not stated.
    """
    with open_hdf5(path) as file:
        stated = dict(file.attrs)
        kind, unit = text(stated, _KIND), text(stated, "unit")
        if kind not in ("", "tile") or "coords" not in file:
            found = f"holds features of {quoted(kind) if kind else 'a slide'}, not of tiles"
            raise ExchangeError(path.stem, found, "give STAMP's tile features")
        if unit != "um":
            raise ExchangeError(
                path.stem, "does not say that its coordinates are µm", "extract it with STAMP 2 or later"
            )
        side_px = number(stated, "tile_size_px")
        return StoredTiles(
            path.stem,
            read_corners(file),
            unit="um",
            side=number(stated, "tile_size_um") or number(stated, "tile_size"),
            side_px=None if side_px is None else round(side_px),
            features=read_features(file, "feats"),
            encoder=text(stated, "extractor"),
            stated=stated,
            layout="stamp",
        )


def write_stamp(path: Path, tiles: StoredTiles) -> Path:
    """Write features with their corners in µm; they keep their precision.

    Raises:
        ExchangeError: There are no features, the µm per px are unknown, or the size of the tiles is.
        OutputError: It cannot be written.
    """
    if tiles.features is None:
        raise ExchangeError(
            tiles.slide_id, "STAMP keeps features, and these are coordinates alone", "choose another --to"
        )
    metric = tiles.in_unit("um")
    if metric.side is None:
        raise ExchangeError(tiles.slide_id, *NO_SIDE)
    attributes = {
        "stamp_version": _OURS,
        "extractor": tiles.encoder or "unknown",
        "unit": "um",
        "tile_size_um": metric.side,
        "tile_size_px": tiles.side_px or 0,
        "code_hash": "",
        _KIND: "tile",
    }

    def fill(file: h5py.File) -> None:
        file.create_dataset("coords", data=metric.places.astype(np.float32))
        file.create_dataset("feats", data=tiles.features)
        file.attrs.update(tiles.stated if tiles.layout == "stamp" else attributes)

    return write_hdf5(path, fill)
