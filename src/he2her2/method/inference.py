"""Inference of a CNN over the tiles of a slide, streamed from the file and never stored."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Runtime
from he2her2.errors import NotANumberError
from he2her2.geometry import Size, TileGrid
from he2her2.machine import usable_cores
from he2her2.models import Encoder, Engine
from he2her2.preprocessing import Blocks, share_blocks
from he2her2.slides import BlankTissue, Slide, TileBatch, TileMapping, map_tiles
from he2her2.timing import StreamTimes

Scored: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""(n,) positions of tiles in their grid, and their (n, k) logits, or (n, d) features."""


def infer(
    slide: Slide,
    grid: TileGrid,
    engine: Engine,
    runtime: Runtime,
    done: Callable[[int], None] = lambda _: None,
    spent: Callable[[StreamTimes], None] = lambda _: None,
) -> Scored:
    """Positions of the readable tiles of a grid, and their logits.

    Where tiles overlap, squares that hold many of them are read and convolved once.

    Args:
        slide: Where the tiles are read.
        grid: The tiles.
        engine: The network.
        runtime: Threads and batch size.
        done: Called with the number of tiles done.
        spent: Called at the end with the times of the threads.

    Raises:
        NotANumberError: A logit is nan or infinite.
    """
    found = [(np.empty(0, np.int64), np.empty((0, len(engine.card.network.classes)), np.float32))]

    def collect(stream: TileMapping[Scored]) -> None:
        n_before = n_done = sum(len(positions) for positions, _ in found)
        with stream:
            for scored in stream:
                found.append(scored)
                n_done += len(scored[0])
                done(n_done)
        spent(replace(stream.times, tiles=n_done - n_before))

    rest = np.arange(len(grid))
    blocks = blocks_of(grid, engine)
    if blocks is not None:
        blank = BlankTissue(slide, Size(grid.side_px, grid.side_px), grid.mpp)
        see = partial(_see_blocks, engine, blocks, blank)
        collect(map_tiles(slide, blocks.grid, see, **pace(runtime) | {"batch_size": 1}))
        rest = np.setdiff1d(rest, np.concatenate([positions for positions, _ in found]))  # damaged, or blank in part
    if blocks is None or len(rest):
        tiles = grid.take(rest)
        collect(map_tiles(slide, tiles, lambda batch: (rest[batch.index], engine(batch.pixels)), **pace(runtime)))
    done(len(grid))
    positions = np.concatenate([positions for positions, _ in found])
    order = np.argsort(positions)
    logits = np.concatenate([logits for _, logits in found])[order]
    n_bad = np.count_nonzero(~np.isfinite(logits).all(axis=1))
    if n_bad:
        card = engine.card
        reason = f"the {card.role} ({card.network.name}) gives {n_bad} of {len(logits)} tiles a value that is no number"
        raise NotANumberError(slide.slide_id, reason, "use other weights or, on a GPU, --precision full")
    return positions[order], logits


def encode(
    slide: Slide,
    grid: TileGrid,
    encoder: Encoder,
    runtime: Runtime,
    done: Callable[[int], None] = lambda _: None,
    spent: Callable[[StreamTimes], None] = lambda _: None,
) -> Scored:
    """Positions of the readable tiles of a grid, and their (n, d) features; arguments are those of `infer`.

    Raises:
        NotANumberError: A feature is nan or infinite.
    """
    found = [(np.empty(0, np.int64), np.empty((0, encoder.card.n_features), np.float32))]
    n_done = 0
    with map_tiles(slide, grid, lambda batch: (batch.index, encoder(batch.pixels)), **pace(runtime)) as stream:
        for encoded in stream:
            found.append(encoded)
            n_done += len(encoded[0])
            done(n_done)
    spent(replace(stream.times, tiles=n_done))
    features = np.concatenate([features for _, features in found])
    if not np.isfinite(features).all():
        reason = f"the encoder {encoder.card.name} gives a tile a value that is no number"
        raise NotANumberError(slide.slide_id, reason, "use other weights or, on a GPU, --precision full")
    return np.concatenate([positions for positions, _ in found]), features


def blocks_of(grid: TileGrid, engine: Engine) -> Blocks | None:
    """Squares of overlapping tiles that a network can convolve as one, with the same result; None where it cannot."""
    step = engine.card.cnn.window_step
    return None if step is None else share_blocks(grid, step)


def _see_blocks(engine: Engine, blocks: Blocks, blank: BlankTissue, batch: TileBatch) -> Scored:
    """Positions of the tiles in a batch of squares, and their logits; without tiles that are blank in the tissue.

    These are far smaller than their square, of which they hide too little to be seen.
    """
    found = []
    for square, k in zip(batch.pixels, batch.index.tolist(), strict=True):
        corners = blocks.corners_px[k]
        kept = ~blank.hidden_parts(square, blocks.grid.origins_l0[k], corners)
        found.append((blocks.positions[k][kept], engine.windows(square, corners)[kept]))
    return np.concatenate([positions for positions, _ in found]), np.concatenate([logits for _, logits in found])


def pace(runtime: Runtime) -> dict[str, int]:
    """Batch size and threads of a stream of tiles; no choice of them changes a result."""
    return {"batch_size": runtime.batch_size, "threads": runtime.threads or usable_cores()}
