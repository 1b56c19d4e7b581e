"""`tiles.h5`: TRIDENT's coordinates, so that peers' tools open it, with scores, logits and selection beside them."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import Size, TileGrid
from he2her2.units import is_close_mpp

_POWERS = (80, 60, 40, 20, 10, 5)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTiles:
    """The tiles of one slide with what the network said of them.

    Attributes:
        grid: (n) tiles in raster order.
        scores: (n,) expected IHC score, in [0, 3].
        logits: (n, 4) of the tile network.
        selected: (n,) whether the tile decided.
    """

    grid: TileGrid
    scores: NDArray[np.float64]
    logits: NDArray[np.float32]
    selected: NDArray[np.bool_]


def write_tiles(
    path: Path, tiles: ScoredTiles, *, slide_id: str, size_l0: Size, mpp_l0: float, overlap_px: int
) -> None:
    """Write the tiles to one HDF5 file.

    `coords` is (n, 2) int64 level-0 px with TRIDENT's attributes; magnifications follow from µm/px (10 µm/px is 1x).
    """
    grid = tiles.grid
    with h5py.File(path, "w", track_order=True) as file:
        coords = file.create_dataset("coords", data=grid.origins_l0.astype(np.int64))
        coords.attrs.update(
            {
                "patch_size": grid.side_px,
                "patch_size_level0": round(grid.side_l0),
                "level0_magnification": _magnification(mpp_l0),
                "target_magnification": _magnification(grid.mpp),
                "overlap": overlap_px,
                "name": slide_id,
                "savetodir": slide_id,
                "level0_width": size_l0.w,
                "level0_height": size_l0.h,
                "mpp": grid.mpp,
                "mpp_level0": mpp_l0,
                "side_level0": grid.side_l0,
            }
        )
        file.create_dataset("scores", data=tiles.scores)
        file.create_dataset("logits", data=tiles.logits)
        file.create_dataset("selected", data=tiles.selected)


def read_tiles(path: Path) -> ScoredTiles:
    """Read what `write_tiles` wrote."""
    with h5py.File(path) as file:
        attrs = file["coords"].attrs
        grid = TileGrid(
            file["coords"][:], float(attrs["side_level0"]), int(attrs["patch_size"]), mpp=float(attrs["mpp"])
        )
        return ScoredTiles(grid, file["scores"][:], file["logits"][:], file["selected"][:])


def _magnification(mpp: float) -> float:
    """Objective power that µm/px stand for by custom, within 10 %; 10 / mpp beyond.

    Example:
        >>> _magnification(0.23), _magnification(0.5), _magnification(0.35)
        (40, 20, 28.57)
    """
    custom = (power for power in _POWERS if is_close_mpp(mpp, 10.0 / power))
    return next(custom, round(10.0 / mpp, 2))
