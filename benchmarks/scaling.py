"""Time against the number of tiles, without the CNN, whose time per tile is constant.

Without the CNN the test is stricter: its constant share would hide anything that grows faster than the tiles.
"""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import Timings, alternate, status_gb
from benchmarks.phantom_slide import phantom_slide
from benchmarks.results import Found, Setting, Table
from he2her2.config import Selection
from he2her2.evaluation.plot_style import BLUE, GREY, Note, canvas, save
from he2her2.geometry import Mask, Size
from he2her2.models import soft_argmax, top_tiles
from he2her2.models.encoders.cnn import STRIDED_TILE_CNN
from he2her2.models.encoders.pixels import prepare_input
from he2her2.preprocessing import cut_tiles
from he2her2.slides import TileBatch, map_tiles, open_slide

COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000)
QUICK_COUNTS = (4, 16)
COLUMNS = 380
"""Largest number of tiles side by side; the rest goes into more rows."""

THREADS = 2
SELECTION = Selection(top_fraction=1.0, n_tiles=1)


def measure(setting: Setting) -> Found:
    """Measure the seconds at each number of tiles, and the exponent of a power law through them."""
    counts = QUICK_COUNTS if setting.quick else COUNTS
    path = phantom_slide(setting, Size(100_000, 80_000) if not setting.quick else Size(2048, 2048))
    candidates = {str(n): partial(stream, path, n, 4 if setting.quick else COLUMNS) for n in counts}
    timings = alternate(candidates, setting.pick(3, 1), warm_up=False)
    exponent, seconds = fit(timings)
    rows = tuple((n, timings.median(str(n)), timings.rate(str(n), n)) for n in counts)
    plot(setting, counts, [timings.median(str(n)) for n in counts], exponent, seconds)
    title = f"Cutting, reading, lightness, scoring and selection of n tiles, {THREADS} threads (no CNN)"
    table = Table(title, ("tiles", "s", "tiles/s"), rows)
    raw = {"seconds": dict(timings.seconds), "peak_gb": status_gb("VmHWM")}
    return Found({"exponent": exponent}, (table,), raw)


def stream(path: Path, n: int, columns: int) -> None:
    """Do all that `predict` does with n tiles after the tumour is found, except the CNN."""
    with open_slide(path) as slide:
        mask = tumour_of(n, columns, slide.size_l0)
        grid = cut_tiles(mask, slide.size_l0, px_l0=32.0, mpp=0.25, min_tiles=1).grid
        with map_tiles(slide, grid, lightness_of, threads=THREADS) as found:
            logits = np.concatenate(list(found))
    assert len(logits) == n
    top_tiles(soft_argmax(logits, 1.0), SELECTION)


def lightness_of(batch: TileBatch) -> np.ndarray:
    """Replace the CNN by the mean of each tile's pixels, four numbers a tile."""
    tiles = prepare_input(batch.pixels, STRIDED_TILE_CNN.input)
    return np.asarray(tiles.reshape(len(tiles), 4, -1).mean(axis=2))


def tumour_of(n: int, columns: int, size_l0: Size) -> Mask:
    """Make a mask (32 level-0 px per px) that covers exactly n tiles: whole rows and a part of one."""
    mask = np.zeros((-(-size_l0.h // 32), -(-size_l0.w // 32)), bool)
    rows, rest = divmod(n, columns)
    mask[: 8 * rows, : 8 * columns] = True
    mask[8 * rows : 8 * rows + 8, : 8 * rest] = True
    return mask


def fit(timings: Timings) -> tuple[float, float]:
    """Fit a power law to the medians by least squares on logarithmic axes: exponent and factor."""
    counts = np.array([int(name) for name in timings.seconds])
    seconds = np.array([timings.median(name) for name in timings.seconds])
    exponent, offset = np.polyfit(np.log(counts), np.log(seconds), 1)
    return float(exponent), float(np.exp(offset))


def plot(setting: Setting, counts: tuple[int, ...], seconds: list[float], exponent: float, factor: float) -> None:
    """Plot the time against the number of tiles."""
    title = "Time against number of tiles"
    with canvas(title) as (figure, axes):
        axes.loglog(counts, factor * np.array(counts, float) ** exponent, color=GREY)
        axes.loglog(counts, seconds, "o", color=BLUE)
        axes.set(xlabel="tiles", ylabel="seconds")
        caption = f"All but the CNN; medians of alternating runs; the line has the fitted exponent {exponent:.3f}."
        save(figure, Note(caption), setting.plots / "tiles_and_time.png")
