"""Common part of the peers' scripts: find the tissue and its tiles, read 1 000 tiles, print seconds. No he2her2 here.

A script runs as `python -m benchmarks.peers.with_NAME SLIDE N`, in the peer's environment, on one processor.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

TILE_PX = 256
MPP = 0.25
COLUMNS = 36
WARM_UP = 20

Origin = tuple[int, int]


def origins(n: int) -> list[Origin]:
    """The level-0 corners of the n tiles that everyone reads, in raster order, on the slide's own grid of tiles."""
    return [(TILE_PX * (i % COLUMNS), TILE_PX * (i // COLUMNS)) for i in range(n)]


def run(package: str, find: Callable[[Path], int], read: Callable[[Path, Iterable[Origin]], int]) -> None:
    """Time a peer and print what it took.

    Args:
        package: Its name, for its version.
        find: Makes the tissue mask and the coordinates of the tiles in it; gives their number.
        read: Opens the slide and reads the tiles as arrays; gives their number.
    """
    slide, n = Path(sys.argv[1]), int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    find(slide)  # what is loaded at first use is not what is measured
    read(slide, origins(WARM_UP))
    start = perf_counter()
    found = find(slide)
    masked = perf_counter()
    assert read(slide, origins(n)) == n
    done = perf_counter()
    print(json.dumps({
        "version": version(package), "coordinates": found, "mask_s": masked - start, "tiles_per_s": n / (done - masked),
    }))  # fmt: skip
