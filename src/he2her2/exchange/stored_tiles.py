"""The tiles of one slide as files of other programs have them: corners, sides, and features where there are any."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ExchangeError
from he2her2.geometry import Size, TileGrid

Unit: TypeAlias = Literal["px", "um"]
"""Unit of corners and sides: level-0 px, or µm."""

NO_SIDE = "its file does not say how large a tile is", "pass --coords, the folder of the coordinates' files"
_NO_MPP = "the µm per level-0 px are not in its file", "pass --mpp, or a manifest with the column mpp"


@dataclass(frozen=True, slots=True, eq=False)
class StoredTiles:
    """The tiles of one slide.

    Attributes:
        slide_id: The slide's name.
        corners: (n, 2) top-left corners (x, y): int64 in level-0 px, float32 in µm.
        unit: Of corners and side.
        side: Of a tile, in `unit`; None where the file does not say.
        side_px: Side in px of the tile that the encoder was given; None where the file does not say.
        mpp_l0: µm per level-0 px; None where the file does not say.
        features: (n, d) floats of the encoder, of the file's own precision; None for coordinates alone.
        encoder: Its name; empty where the file does not say.
        identity: SHA-256 of all that the encoder's features depend on; empty where the file does not say.
        size_l0: Width and height of the slide in level-0 px.
        overlap_px: Overlap of neighbouring tiles in px of the encoder.
        stated: The file's own attributes, for the same layout to write them again.
    """

    slide_id: str
    corners: NDArray[Any]
    unit: Unit = "px"
    side: float | None = None
    side_px: int | None = None
    mpp_l0: float | None = None
    features: NDArray[Any] | None = None
    encoder: str = ""
    identity: str = ""
    size_l0: Size | None = None
    overlap_px: int = 0
    stated: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that corners and features belong together.

        Raises:
            ExchangeError: Another number of corners than of features, or values that are no numbers.
        """
        if self.features is not None:
            if self.features.ndim != 2 or len(self.features) != len(self.corners):
                shape, n = self.features.shape, len(self.corners)
                raise ExchangeError(self.slide_id, f"its features are {shape} for {n} tiles", "extract them again")
            if not np.isfinite(self.features).all():
                raise ExchangeError(self.slide_id, "a feature is no number", "extract its features again")
        if not np.isfinite(self.corners).all():
            raise ExchangeError(self.slide_id, "a coordinate is no number", "extract its tiles again")

    def __len__(self) -> int:
        return len(self.corners)

    def with_mpp(self, mpp_l0: float | None) -> "StoredTiles":
        """The same tiles with µm per level-0 px from elsewhere, over what the file says; None changes nothing."""
        return self if mpp_l0 is None else replace(self, mpp_l0=mpp_l0)

    def in_unit(self, unit: Unit) -> "StoredTiles":
        """The same tiles with corners and side in another unit.

        Raises:
            ExchangeError: The µm per px are unknown, or corners in µm lie nowhere near whole px of that size.
        """
        if unit == self.unit:
            return self
        if self.mpp_l0 is None:
            raise ExchangeError(self.slide_id, *_NO_MPP)
        if unit == "um":
            side = None if self.side is None else self.side * self.mpp_l0
            return replace(self, corners=(self.corners * self.mpp_l0).astype(np.float32), unit=unit, side=side)
        wide = self.corners.astype(np.float64) / self.mpp_l0
        corners = np.rint(wide)
        if len(wide) and np.abs(wide - corners).max() > _OFF_PX:
            found = f"its corners in µm are not whole px of {self.mpp_l0:g} µm"
            raise ExchangeError(self.slide_id, found, "correct --mpp")
        side = None if self.side is None else self.side / self.mpp_l0
        return replace(self, corners=corners.astype(np.int64), unit=unit, side=side)

    @property
    def centres_um(self) -> NDArray[np.float64] | None:
        """(n, 2) centres in µm; corners where the side is unknown, None where the µm per px are."""
        if self.unit == "px" and self.mpp_l0 is None:
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
        return TileGrid(tiles.corners.astype(np.int64), tiles.side, side_px, tiles.side * tiles.mpp_l0 / side_px)


_OFF_PX = 0.25
"""A corner in float32 µm lies far closer to its px than this, on any slide."""
