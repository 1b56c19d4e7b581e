"""HASHI: time of a map update against full-resolution `griddata`, and their agreement."""

from dataclasses import replace
from functools import partial

import numpy as np
from scipy.interpolate import griddata
from threadpoolctl import threadpool_limits

from benchmarks.hashi_curves import score_of
from benchmarks.measuring import alternate
from benchmarks.results import Found, Setting, Table
from he2her2.config import PRESETS
from he2her2.geometry import Map, Size
from he2her2.preprocessing import adaptive_map
from he2her2.preprocessing.adaptive import SamplePoints, SampleValues, interpolate, raster

THRESHOLD = 0.24
COARSE = 8


def measure(setting: Setting) -> Found:
    """Measure the seconds of an update after 2 000 samples of a disc, on a mask of 3 000 x 2 500 px; one core."""
    size = Size(setting.pick(3000, 300), setting.pick(2500, 250))
    across, down = size.w / 3000, size.h / 2500
    score = score_of("disc", 0, 0)
    settings = PRESETS["paper"].adaptive
    if setting.quick:
        settings = replace(settings, iterations=3, points=20)
    found = adaptive_map(lambda points: score(points / (across, down)), size, settings)
    points, values = found.points, found.values
    candidates = {
        "Clough-Tocher on a coarse grid, enlarged (ours, coarse = 8)": partial(_ours, points, values, "cubic", size),
        "linear on a coarse grid, enlarged (ours, preset default)": partial(_ours, points, values, "linear", size),
        "`griddata` cubic at full resolution (the released way)": partial(_full, points, values, size),
    }
    with threadpool_limits(1, user_api="blas"):
        timings = alternate(candidates, setting.pick(5, 1), warm_up=False)
        coarse, full = _ours(points, values, "cubic", size), _full(points, values, size)
    ours, _, released = candidates
    figures = {
        "hashi_vs_griddata": timings.times_faster(ours, released),
        "hashi_dice": dice(coarse, full),
    }
    rows = tuple((name, timings.median(name), timings.times_faster(name, released)) for name in candidates)
    title = f"A map of {size.w} x {size.h} px from {len(points)} samples"
    return Found(figures, (Table(title, ("surface", "s", "times faster"), rows),), {"seconds": dict(timings.seconds)})


def _ours(points: SamplePoints, values: SampleValues, surface: str, size: Size) -> Map:
    return raster(interpolate(points, values, "cubic" if surface == "cubic" else "linear"), size, COARSE)


def _full(points: SamplePoints, values: SampleValues, size: Size) -> Map:
    at = np.meshgrid(np.arange(size.w) + 0.5, np.arange(size.h) + 0.5)
    heights = griddata(points, values, tuple(at), method="cubic")
    return np.asarray(np.clip(np.nan_to_num(heights), 0, 1), np.float32)


def dice(a: Map, b: Map) -> float:
    """Of the two tumour masks."""
    ours, theirs = a >= THRESHOLD, b >= THRESHOLD
    return float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
