"""`tiles.h5`: TRIDENT's coordinates, so that peers' tools open it, with scores, logits, selection and attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from he2her2.exchange import StoredTiles, trident_attributes
from he2her2.geometry import Size, TileGrid

_MOST = 16  # numbers a tile in a column that is shown
_OWN = frozenset({"scores", "logits", "selected", "attention"})
TILES_FILE = "tiles.h5"
_MAX_TILES = 50_000_000  # a slide of 500 000 px square, its tiles overlapping by half, holds 15 million


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTiles:
    """The tiles of one slide with their scores.

    Attributes:
        grid: (n) tiles in raster order.
        scores: (n,) expected IHC score, in [0, 3].
        logits: (n, 4) of the tile network.
        selected: (n,) True for a tile that decided.
        attention: (n,) share of each tile in the result, at least 0, summing to 1.
    """

    grid: TileGrid
    scores: NDArray[np.float64]
    logits: NDArray[np.float32]
    selected: NDArray[np.bool_]
    attention: NDArray[np.float64]

    @property
    def ranks(self) -> NDArray[np.int64]:
        """(n,) rank of each tile by score, 1 the highest; equal scores in raster order."""
        ranks = np.empty(len(self.scores), np.int64)
        ranks[np.argsort(-self.scores, kind="stable")] = np.arange(1, len(ranks) + 1)
        return ranks


def write_tiles(
    path: Path, tiles: ScoredTiles, *, slide_id: str, size_l0: Size, mpp_l0: float, overlap_px: int
) -> None:
    """Write the tiles to one HDF5 file.

    `coords` is (n, 2) int64 level-0 px with TRIDENT's attributes.
    """
    grid = tiles.grid
    cut = StoredTiles(
        slide_id,
        grid.origins_l0.astype(np.int64),
        side=grid.side_l0,
        side_px=grid.side_px,
        mpp_l0=mpp_l0,
        size_l0=size_l0,
        overlap_px=overlap_px,
    )
    with h5py.File(path, "w", track_order=True) as file:
        coords = file.create_dataset("coords", data=cut.corners)
        coords.attrs.update({**trident_attributes(cut), "mpp": grid.mpp})
        file.create_dataset("scores", data=tiles.scores)
        file.create_dataset("logits", data=tiles.logits)
        file.create_dataset("selected", data=tiles.selected)
        file.create_dataset("attention", data=tiles.attention)


def read_tiles(path: Path) -> ScoredTiles:
    """Read a file of `write_tiles`.

    Raises:
        ValueError: It is damaged, or holds something else; the message says so in one line.
    """
    with _opened(path) as file:
        grid = _grid(file)
        n = len(grid)
        logits = _read(file, "logits", (n, *file["logits"].shape[1:2]), "f")
        scores, selected = _read(file, "scores", (n,), "f"), _read(file, "selected", (n,), "b")
        if "attention" in file:
            attention = _read(file, "attention", (n,), "f")
        else:  # of before it was kept, when each selected tile had the same share
            attention = selected / max(np.count_nonzero(selected), 1)
        return ScoredTiles(grid, scores, logits, selected, attention)


def read_tile_columns(path: Path) -> tuple[TileGrid, dict[str, NDArray[Any]], tuple[str, ...]]:
    """Read all that a file of `write_tiles`, or one of its layout, says of its tiles.

    Returns:
        The (n) tiles; each column of numbers by name, (n,) or (n, k) with a few k, features left out; and the names of
        columns of others that hold values which are no numbers.

    Raises:
        ValueError: It is damaged, or holds something else; the message says so in one line.
    """
    with _opened(path) as file:
        grid = _grid(file)
        found = {name: data for name, data in file.items() if name != "coords" and isinstance(data, h5py.Dataset)}
        columns = {
            name: _read(file, name, data.shape, data.dtype.kind, finite=name in _OWN)
            for name, data in found.items()
            if data.dtype.kind in "fibu" and data.shape[:1] == (len(grid),) and data.ndim in (1, 2)
            if 0 < np.prod(data.shape[1:]) <= _MOST
        }
    unusable = tuple(name for name, values in columns.items() if not np.isfinite(values).all())
    return grid, {name: values for name, values in columns.items() if name not in unusable}, unusable


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The open file; whatever is wrong with it becomes a ValueError of one line."""
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError, AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: is damaged ({' '.join(str(error).split())}); predict the slide again") from None


def _grid(file: h5py.File) -> TileGrid:
    attrs, shape = file["coords"].attrs, (file["coords"].shape[0], 2)
    return TileGrid(
        _read(file, "coords", shape, "i"),
        float(attrs["side_level0"]),
        int(attrs["patch_size"]),
        mpp=float(attrs["mpp"]),
    )


def _read(file: h5py.File, name: str, shape: tuple[int, ...], kind: str, *, finite: bool = True) -> NDArray[Any]:
    """A dataset of a shape and kind, no larger than a slide allows, in this file itself, its values `finite`."""
    link, data = file.get(name, getlink=True), file[name]
    if not isinstance(link, h5py.HardLink) or data.external or data.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if data.shape != shape or data.dtype.kind != kind or len(data) > _MAX_TILES:
        raise ValueError(f"{name} is {data.shape} {data.dtype} for {shape[0]} tiles")
    values: NDArray[Any] = data[:]
    if finite and kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is no number")
    return values
