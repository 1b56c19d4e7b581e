"""Gallery of a slide: its deciding, median and lowest tiles, apart from each other, at the network's resolution."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import UnreadableRegionError
from he2her2.geometry import Point, Rgb, Size
from he2her2.models import softmax
from he2her2.report.pictures import jpeg_uri
from he2her2.results import ScoredTiles
from he2her2.slides import Slide

_DECIDING, _MEDIAN, _LOWEST = 8, 4, 4
_SURROUNDINGS = 0.25
"""Tissue around a tile that is shown, as a share of its side."""


@dataclass(frozen=True, slots=True)
class GalleryTile:
    """One tile, to look at.

    Attributes:
        label: Its number in the overlay.
        x_l0: Left edge in level-0 px.
        y_l0: Top edge.
        score: Expected IHC score.
        rank: By score among all tiles, 1 the highest.
        attention: Share in the result.
        probabilities: Of the four IHC scores.
        uri: The tile with its surroundings; empty where its pixels cannot be read.
    """

    label: str
    x_l0: int
    y_l0: int
    score: float
    rank: int
    attention: float
    probabilities: tuple[float, ...]
    uri: str


@dataclass(frozen=True, slots=True)
class TileGroup:
    """Tiles of one kind.

    Attributes:
        key: "deciding", "median" or "lowest".
        tiles: Most telling first.
    """

    key: str
    tiles: tuple[GalleryTile, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The tiles to look at, and the scale at which they are shown.

    Attributes:
        groups: By kind.
        side_px: Side of a picture in px; the tile is its centre.
        tile_px: Side of the tile in px.
        tile_l0: The same in level-0 px.
        mpp: µm per px.
    """

    groups: tuple[TileGroup, ...]
    side_px: int
    tile_px: int
    tile_l0: float
    mpp: float

    @property
    def tiles(self) -> list[GalleryTile]:
        """All tiles, group by group."""
        return [tile for group in self.groups for tile in group.tiles]


def choose_tiles(tiles: ScoredTiles) -> dict[str, list[int]]:
    """Positions of the tiles to show, by kind, none overlapping another.

    Deciding ones are selected tiles of the greatest attention, then score; median ones lie nearest to the median
    score of all tiles.
    """
    selected = np.flatnonzero(tiles.selected)
    deciding = selected[np.lexsort((-tiles.scores[selected], -tiles.attention[selected]))]
    middle = np.argsort(np.abs(tiles.scores - np.median(tiles.scores)), kind="stable")
    lowest = np.argsort(tiles.scores, kind="stable")
    taken: list[int] = []
    found = {}
    for key, order, n in (("deciding", deciding, _DECIDING), ("lowest", lowest, _LOWEST), ("median", middle, _MEDIAN)):
        found[key] = _apart(order.tolist(), tiles, n, taken)
        taken += found[key]
    return {key: found[key] for key in ("deciding", "median", "lowest")}


def _apart(order: Iterable[int], tiles: ScoredTiles, n: int, taken: Sequence[int]) -> list[int]:
    """The first `n` of these tiles that overlap neither each other nor those that are taken."""
    origins, side = tiles.grid.origins_l0, tiles.grid.side_l0
    near = np.zeros(len(origins), bool)

    def cover(k: int) -> None:
        near[(np.abs(origins - origins[k]) < side).all(axis=1)] = True

    for k in taken:
        cover(k)
    found: list[int] = []
    for k in order:
        if len(found) == n:
            break
        if not near[k]:
            found.append(k)
            cover(k)
    return found


def read_gallery(tiles: ScoredTiles, slide: Slide | None) -> Gallery:
    """Read the pictures of the tiles to show; without a slide they stay empty."""
    grid = tiles.grid
    margin_px = round(_SURROUNDINGS * grid.side_px)
    side_px = grid.side_px + 2 * margin_px
    margin_l0 = margin_px * grid.side_l0 / grid.side_px
    ranks, probabilities = tiles.ranks, softmax(tiles.logits)
    groups, number = [], 0
    for key, chosen in choose_tiles(tiles).items():
        shown = []
        for k in chosen:
            number += 1
            x, y = grid.origins_l0[k].tolist()
            pixels = None if slide is None else _read(slide, grid.origins_l0[k] - round(margin_l0), side_px, grid.mpp)
            shown.append(
                GalleryTile(
                    str(number),
                    x,
                    y,
                    float(tiles.scores[k]),
                    int(ranks[k]),
                    float(tiles.attention[k]),
                    tuple(probabilities[k].tolist()),
                    "" if pixels is None else jpeg_uri(pixels, 88),
                )
            )
        groups.append(TileGroup(key, tuple(shown)))
    return Gallery(tuple(groups), side_px, grid.side_px, grid.side_l0, grid.mpp)


def _read(slide: Slide, origin: NDArray[np.int64], side_px: int, mpp: float) -> Rgb | None:
    try:
        return slide.read(Point(*origin.tolist()), Size(side_px, side_px), mpp)
    except UnreadableRegionError:
        return None
