"""The tiles of one slide as files of other programs have them: corners, sides, and features where there are any."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ExchangeError
from he2her2.geometry import Size, TileGrid
from he2her2.units import PLAUSIBLE_MPP

Unit: TypeAlias = Literal["px", "um"]
"""Unit of corners and sides: level-0 px, or µm."""

NO_SIDE = "its file does not say how large a tile is", "pass --coords, the folder of the coordinates' files"
_NO_CORNERS = (
    "it has features without coordinates",
    "keep patches/ or h5_files/ beside its folder, or pass --coords, the folder of the coordinates' files",
)
_NO_MPP = "the µm per level-0 px are not in its file", "pass --mpp, or a manifest with the column mpp"


@dataclass(frozen=True, slots=True, eq=False)
class StoredTiles:
    """The tiles of one slide.

    Attributes:
        slide_id: The slide's name.
        corners: (n, 2) top-left corners (x, y): int64 in level-0 px, float32 in µm; None for features whose places are
            nowhere, as in a torch file alone.
        unit: Of corners and side.
        side: Of a tile, in `unit`; None where the file does not say.
        side_px: Side in px of the tile that the encoder was given; None where the file does not say.
        mpp_l0: µm per level-0 px; None where the file does not say.
        features: (n, d) floats of the encoder, of the file's own precision; None for coordinates alone.
        encoder: Its name; empty where the file does not say.
        identity: SHA-256 of all that the encoder's features depend on; empty where the file does not say.
        size_l0: Width and height of the slide in level-0 px.
        overlap_px: Overlap of neighbouring tiles in px of the encoder.
        mpp: µm per px of the tile that the encoder was given, as the file states it or its magnification stands for.
        stated: The file's own attributes, for the same layout to write them again.
        layout: Of the file that states them.
    """

    slide_id: str
    corners: NDArray[Any] | None
    unit: Unit = "px"
    side: float | None = None
    side_px: int | None = None
    mpp_l0: float | None = None
    features: NDArray[Any] | None = None
    encoder: str = ""
    identity: str = ""
    size_l0: Size | None = None
    overlap_px: int = 0
    mpp: float | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)
    layout: str = ""

    def __post_init__(self) -> None:
        """Check that corners and features belong together.

        Raises:
            ExchangeError: Another number of corners than of features, or values that are no numbers.
        """
        if self.features is not None:
            if self.features.ndim != 2 or (self.corners is not None and len(self.features) != len(self.corners)):
                shape, n = self.features.shape, len(self)
                raise ExchangeError(self.slide_id, f"its features are {shape} for {n} tiles", "extract them again")
            if not np.isfinite(self.features).all():
                raise ExchangeError(self.slide_id, "a feature is no number", "extract its features again")
        if self.corners is not None and not (np.abs(self.corners) < _FARTHEST).all():
            raise ExchangeError(self.slide_id, "a coordinate lies on no slide", "extract its tiles again")

    def __len__(self) -> int:
        return len(self.corners) if self.corners is not None else 0 if self.features is None else len(self.features)

    @property
    def places(self) -> NDArray[Any]:
        """The corners.

        Raises:
            ExchangeError: There are none.
        """
        if self.corners is None:
            raise ExchangeError(self.slide_id, *_NO_CORNERS)
        return self.corners

    def with_mpp(self, mpp_l0: float | None) -> "StoredTiles":
        """The same tiles with µm per level-0 px from elsewhere, over what the file says; None changes nothing.

        Raises:
            ExchangeError: They are no microscope's.
        """
        if mpp_l0 is None:
            return self
        low, high = PLAUSIBLE_MPP
        if not low <= mpp_l0 <= high:
            found = f"{mpp_l0:g} µm per level-0 px are no microscope's"
            raise ExchangeError(self.slide_id, found, f"give µm per px, {low} to {high:g}")
        side_px = self.side_px
        if side_px is None and self.unit == "px" and self.side is not None and self.mpp is not None:
            side_px = max(1, round(self.side * mpp_l0 / self.mpp))
        return replace(self, mpp_l0=mpp_l0, side_px=side_px)

    def in_unit(self, unit: Unit) -> "StoredTiles":
        """The same tiles with corners and side in another unit; in px corners are whole ones.

        Raises:
            ExchangeError: There are no corners, the µm per px are unknown, or corners in µm are of no px of that size.
        """
        corners = self.places
        if unit == self.unit:
            return self if unit == "um" else replace(self, corners=np.rint(corners).astype(np.int64))
        if self.mpp_l0 is None:
            raise ExchangeError(self.slide_id, *_NO_MPP)
        if unit == "um":
            side = None if self.side is None else self.side * self.mpp_l0
            return replace(self, corners=(corners * self.mpp_l0).astype(np.float32), unit=unit, side=side)
        side = None if self.side is None else self.side / self.mpp_l0
        whole = _whole_px(corners.astype(np.float64) / self.mpp_l0, side)
        if whole is None:
            found = f"its corners in µm are not whole px of {self.mpp_l0:g} µm"
            raise ExchangeError(self.slide_id, found, "correct --mpp")
        return replace(self, corners=whole, unit=unit, side=side)

    @property
    def tile_um(self) -> float | None:
        """Width of a tile in µm, by its magnification where nothing better is known; None where nothing is."""
        scale = 1.0 if self.unit == "um" else self.mpp_l0
        if scale is not None and self.side is not None:
            return self.side * scale
        return None if self.side_px is None or self.mpp is None else self.side_px * self.mpp

    @property
    def centres_um(self) -> NDArray[np.float64] | None:
        """(n, 2) centres in µm; corners where the side is unknown, None where these or the µm per px are."""
        if self.corners is None or (self.unit == "px" and self.mpp_l0 is None):
            return None
        scale = 1.0 if self.unit == "um" or self.mpp_l0 is None else self.mpp_l0
        return (self.corners.astype(np.float64) + (self.side or 0.0) / 2) * scale

    def grid(self, side_px: int) -> TileGrid:
        """The tiles as a grid that is read at `side_px`.

        Raises:
            ExchangeError: Their side or the µm per px are unknown.
        """
        tiles = self.in_unit("px")
        if tiles.side is None:
            raise ExchangeError(self.slide_id, *NO_SIDE)
        if tiles.mpp_l0 is None:
            raise ExchangeError(self.slide_id, *_NO_MPP)
        return TileGrid(tiles.places, tiles.side, side_px, tiles.side * tiles.mpp_l0 / side_px)


def _whole_px(wide: NDArray[np.float64], side: float | None) -> NDArray[np.int64] | None:
    """Corners in px of (n, 2) corners between px; None where they fit no way of cutting.

    STAMP reads blocks of whole px that hold j x j tiles of a rounded up side, and counts j sides of unrounded µm from a
    block's corner: its coordinates lie up to j px beside the pixels that the encoder saw, which are found again here.
    """
    nearest = np.rint(wide)
    if not len(wide) or np.abs(wide - nearest).max() <= _OFF_PX:
        return nearest.astype(np.int64)
    if side is None or side < 1:
        return None
    whole = np.ceil(side - 1e-6)
    for across in range(2, _MOST_ACROSS):
        block = np.floor((wide + _OFF_PX) / (across * whole))
        within = (wide - block * across * whole) / side
        place = np.rint(within)
        if (np.abs(within - place) * side).max() <= _OFF_PX and place.max() < across:
            return np.asarray(block * across * whole + place * whole, np.int64)
    return None


_OFF_PX = 0.05
"""A corner in float32 µm lies far closer to its px than this, on any slide."""

_MOST_ACROSS = 65  # tiles across a block
_FARTHEST = 1e8  # px or µm; a hundred times the largest slide
