"""Training of the tile CNN on tiles that inherit their slide's IHC score (paper, 3.2 and 4.2)."""

from he2her2.training.tiles.data import TileData, read_split

__all__ = ["TileData", "read_split"]
