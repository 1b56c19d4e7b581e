"""The viewer: a tile, twenty viewers at once, the first picture, memory; and `Slide.read`, region by region."""

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import openslide

from benchmarks.measuring import Timings, alternate
from benchmarks.memory import LARGE
from benchmarks.phantom_slide import phantom_slide
from benchmarks.results import Found, Setting, Table
from he2her2.geometry import Point, Size
from he2her2.phantom import TILE_PX
from he2her2.slides import open_slide

VIEWERS = 20
WINDOW = Size(1600, 1000)
REGION_PX = 256
CMU = "slides/CMU-1-Small-Region.svs"


def measure(setting: Setting) -> Found:
    """Measure milliseconds of tiles, seconds to the first picture, and the peak of the server's memory."""
    size = LARGE if not setting.quick else Size(4096, 4096)
    path = phantom_slide(setting, size)
    first = [_first_picture(path) for _ in range(setting.pick(5, 1))]
    with _serving(path) as server:
        slide = Visitor(server.address, path.stem)
        slide.warm_up()
        alone = slide.look(setting.pick(400, 20), seed=0)
        before = server.memory_mb()
        at_once = _at_once(server.address, path.stem, setting.pick(100, 5))
        peak = server.memory_mb()
    figures = {
        "viewer_tile_ms": 1000 * statistics.median(alone),
        "viewer_p95_ms": 1000 * float(np.percentile(at_once, 95)),
        "first_picture_s": statistics.median(first),
        "viewer_mb": peak,
    }
    tables = [_table(size, alone, at_once, first, (before, peak))]
    if (regions := _regions(setting)) is not None:
        figures["read_vs_openslide"] = regions.times_faster("Slide.read", "OpenSlide")
        tables.append(_regions_table(regions, _n_regions(setting)))
    return Found(figures, tuple(tables), {"first_s": first})


class Server:
    """A running `he2her2 view`."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process = process
        self.address = address

    def memory_mb(self) -> float:
        """Resident memory of it and the process that it watches over, MB."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
        return sum(map(_resident_mb, (str(pid), *children)))


def _resident_mb(pid: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no VmRSS of process {pid}")


@contextmanager
def _serving(path: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "he2her2", "view", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Server(process, urlsplit(process.stdout.readline().split()[1]).netloc)
        process.terminate()


class Visitor:
    """One browser's connection, for one slide."""

    def __init__(self, address: str, slide: str) -> None:
        self._connection = http.client.HTTPConnection(address)
        self._slide = f"/api/slides/{quote(slide)}"
        found = json.loads(self.get(self._slide))
        self._version = found["file"]["version"]
        self._levels = found["file"]["levels"]

    def get(self, path: str) -> bytes:
        """The body of an answer."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body[:200])
        return body

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile."""
        return self.get(f"{self._slide}/zoom/{level}/{column}_{row}?v={self._version}")

    def whole(self) -> None:
        """The tiles of a window that shows the whole slide: those of the level that fills it, and the coarsest."""
        self.tile(len(self._levels) - 1, 0, 0)
        fits = [i for i, level in enumerate(self._levels) if level["size"][0] >= WINDOW.w * 0.7]
        level = fits[-1] if fits else 0
        columns, rows = self._n_tiles(level)
        for row in range(rows):
            for column in range(columns):
                self.tile(level, column, row)

    def look(self, n: int, seed: int) -> list[float]:
        """Seconds of each of `n` tiles, anywhere on levels 0 to 4, as one who zooms and pans asks for them."""
        rng = np.random.default_rng(seed)
        seconds = []
        for _ in range(n):
            level = int(rng.integers(0, min(5, len(self._levels))))
            column, row = (int(rng.integers(0, count)) for count in self._n_tiles(level))
            start = time.perf_counter()
            self.tile(level, column, row)
            seconds.append(time.perf_counter() - start)
        return seconds

    def warm_up(self) -> None:
        """Ask for what a first visit asks for."""
        self.get("/")
        self.whole()
        self.look(50, seed=99)

    def _n_tiles(self, level: int) -> tuple[int, int]:
        here = self._levels[level]
        return -(-here["size"][0] // here["tile"][0]), -(-here["size"][1] // here["tile"][1])


def _first_picture(path: Path) -> float:
    """Seconds from the first request to a fresh server until all tiles of the whole slide are there."""
    with _serving(path) as server:
        start = time.perf_counter()
        visitor = Visitor(server.address, path.stem)
        visitor.get("/")
        visitor.get("/static/openseadragon/openseadragon.min.js")
        visitor.whole()
        return time.perf_counter() - start


def _at_once(address: str, slide: str, n: int) -> list[float]:
    """Seconds of each of `n` tiles of all viewers, none of whom pauses; they run in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.viewing", address, slide, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    seconds: list[float] = json.loads(done.stdout)
    return seconds


def _look_together(address: str, slide: str, n: int) -> list[float]:
    visitors = [Visitor(address, slide) for _ in range(VIEWERS)]
    with ThreadPoolExecutor(VIEWERS) as pool:
        found = pool.map(lambda pair: pair[1].look(n, seed=pair[0]), enumerate(visitors))
        return [seconds for of_one in found for seconds in of_one]


def _table(
    size: Size, alone: Sequence[float], at_once: Sequence[float], first: Sequence[float], memory: tuple[float, float]
) -> Table:
    def row(what: str, seconds: Sequence[float]) -> tuple[str | float, ...]:
        return (what, *(1000 * float(np.percentile(seconds, at)) for at in (50, 95, 99)))

    rows = (
        row("one viewer, warm, a tile", alone),
        row(f"{VIEWERS} viewers who never pause, a tile", at_once),
        row("fresh server, first picture of the whole slide", first),
        ("memory of the server, MB: one viewer, then all", memory[0], memory[1], ""),
    )
    title = f"Viewer on loopback, slide of {size.w} x {size.h} px, tiles of {TILE_PX} px of levels 0 to 4 anywhere, ms"
    return Table(title, ("what", "median", "95 %", "99 %"), rows)


def _n_regions(setting: Setting) -> int:
    return setting.pick(1000, 20)


def _regions(setting: Setting) -> Timings | None:
    """Timings of random regions of the CMU slide, each reader opened anew so that its cache is empty at the start."""
    path = Path(os.environ.get("HE2HER2_DATA", "../shared/data")) / CMU
    if not path.is_file():
        return None
    with open_slide(path) as slide:
        size, mpp = slide.size_l0, slide.mpp
    rng = np.random.default_rng(0)
    n = _n_regions(setting)
    across, down = (rng.integers(0, side - REGION_PX, n).tolist() for side in size)
    origins = [Point(x, y) for x, y in zip(across, down, strict=True)]
    candidates = {"Slide.read": partial(_read, path, origins, mpp), "OpenSlide": partial(_read_region, path, origins)}
    return alternate(candidates, setting.pick(7, 1), warm_up=not setting.quick)


def _read(path: Path, origins: Sequence[Point], mpp: float) -> None:
    with open_slide(path) as slide:
        for origin in origins:
            slide.read(origin, Size(REGION_PX, REGION_PX), mpp)


def _read_region(path: Path, origins: Sequence[Point]) -> None:
    with openslide.OpenSlide(path) as slide:
        for origin in origins:
            slide.read_region(origin, 0, (REGION_PX, REGION_PX))


def _regions_table(timings: Timings, n: int) -> Table:
    rows = tuple((name, timings.rate(name, n)) for name in timings.seconds)
    title = f"{n} random regions of {REGION_PX} px of CMU-1-Small-Region.svs, opening included, caches of 32 MB empty"
    return Table(title, ("reader", "regions/s"), rows)


def main() -> None:
    """Look at a slide as all viewers at once, and print the seconds of each tile as JSON."""
    address, slide, n = sys.argv[1:]
    found: Any = _look_together(address, slide, int(n))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
