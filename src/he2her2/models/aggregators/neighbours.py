"""Structures from the places of tiles: neighbours, places on a grid, and segments of a slide."""

import numpy as np
import scipy
from numpy.typing import NDArray

_REACH = 1.5 + 1e-9
"""Tiles within so many pitches are neighbours, also where rounding decides: the eight around a tile on a grid."""


def pitch(coords: NDArray[np.float64]) -> float:
    """Usual distance of a tile to its nearest: the median over the (n, 2) centres; 1 where there is one place only.

    Example:
        >>> pitch(np.array([[0.0, 0.0], [64.0, 0.0], [128.0, 0.0]]))
        64.0
    """
    return _pitch(coords, scipy.spatial.cKDTree(coords))


def _pitch(coords: NDArray[np.float64], tree: "scipy.spatial.cKDTree") -> float:
    """The pitch, of centres that are in a tree already."""
    if len(coords) < 2:
        return 1.0
    nearest = tree.query(coords, k=2)[0][:, 1]
    if nearest.all():
        return float(np.median(nearest))
    places = np.unique(coords, axis=0)  # several tiles lie at one place
    return pitch(places)


def neighbour_means(coords: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Neighbours of each tile, and weights by which a sum over them is their mean; a lone tile is its own.

    Args:
        coords: (n, 2) centres, in any unit.

    Returns:
        (n, k) positions and (n, k) weights; rows with fewer than k neighbours end with the tile itself, of weight 0.

    Example:
        >>> index, weight = neighbour_means(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [9.0, 9.0]]))
        >>> index.tolist(), weight.tolist()
        ([[1, 0], [0, 2], [1, 2], [3, 3]], [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    """
    n = len(coords)
    tree = scipy.spatial.cKDTree(coords)
    pairs = tree.query_pairs(_REACH * _pitch(coords, tree), output_type="ndarray").reshape(-1, 2)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    counts = np.bincount(both[:, 0], minlength=n)
    widest = max(1, int(counts.max(initial=0)))
    column = np.arange(len(both)) - np.repeat(np.cumsum(counts) - counts, counts)
    index = np.repeat(np.arange(n)[:, None], widest, axis=1)
    weight = np.zeros((n, widest), np.float32)
    index[both[:, 0], column] = both[:, 1]
    weight[both[:, 0], column] = 1 / counts[both[:, 0]]
    weight[counts == 0, 0] = 1.0
    return index, weight


def grid_neighbours(coords: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Tiles at the nine places of a 3 x 3 window around each tile, on a grid of the usual distance.

    Args:
        coords: (n, 2) centres, in any unit.

    Returns:
        (n, 9) positions, row by row of the window, and (n, 9) 1 where there is a tile, else 0 (and position 0). Of
        several tiles of one place the one nearest to its centre stands for it.
    """
    step = pitch(coords)
    scaled = (coords - coords.min(axis=0, initial=np.inf)) / step  # from the first tile
    cells = np.rint(scaled).astype(np.int64) + 1
    off_centre = np.abs(scaled - np.rint(scaled)).sum(axis=1)
    order = np.lexsort((scaled[:, 0], scaled[:, 1], off_centre))
    width = int(cells[:, 0].max(initial=0)) + 2
    keys, first = np.unique((cells[:, 1] * width + cells[:, 0])[order], return_index=True)
    index = np.zeros((len(coords), 9), np.int64)
    there = np.zeros((len(coords), 9), np.float32)
    for k, (dy, dx) in enumerate((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
        wanted = (cells[:, 1] + dy) * width + cells[:, 0] + dx
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = keys[at] == wanted
        there[:, k] = found
        index[found, k] = order[first[at[found]]]
    index[:, 4], there[:, 4] = np.arange(len(coords)), 1.0
    return index, there


def segment_means(coords: NDArray[np.float64], n_segments: int) -> NDArray[np.float32]:
    """(m, n) matrix that averages tiles over m segments of the slide, cut in raster order; m is at most n.

    Example:
        >>> segment_means(np.array([[0.0, 5.0], [0.0, 0.0], [9.0, 0.0]]), 2).tolist()
        [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]
    """
    n = len(coords)
    raster = np.lexsort((coords[:, 0], coords[:, 1]))
    means = np.zeros((min(n_segments, n), n), np.float32)
    for row, part in zip(means, np.array_split(raster, len(means)), strict=True):
        row[part] = 1 / len(part)
    return means
