"""Speed and memory of drawing phantoms.

Run: `python -m benchmarks.phantoms [--json FILE] [--large]`. One process. Bars: at least 4 megapixels of tissue a
second of CPU (encoding included), glass nearly free, the demo's slide (12 000 px square) under 20 s on two cores, and
with `--large` (some minutes) a slide of 100 000 x 80 000 px in less than 1.5 GB.
"""

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from he2her2.phantom import BLOCK_PX, Painter, PhantomSpec, make_spec, write_phantom


def seconds_of(spec: PhantomSpec, folder: Path, workers: int) -> tuple[float, float, float]:
    """Draw one slide: CPU seconds of this process, wall seconds, and megapixels of tissue."""
    wall, cpu = time.perf_counter(), time.process_time()
    truth = write_phantom(folder / "slide.tif", spec, workers=workers)
    spent = time.process_time() - cpu, time.perf_counter() - wall
    (folder / "slide.tif").unlink()
    return *spent, float(truth.tissue.mean()) * spec.size_px[0] * spec.size_px[1] / 1e6


def block_rates(spec: PhantomSpec) -> dict[str, float]:
    """Median megapixels per CPU second of blocks that are all tissue, and of blank blocks."""
    painter = Painter.of(spec)
    rates: dict[str, list[float]] = {"tissue": [], "glass": []}
    columns, rows = (side // BLOCK_PX for side in spec.size_px)
    side = BLOCK_PX * spec.mpp / 8
    for j in range(rows):
        for i in range(columns):
            y, x = int(j * side), int(i * side)
            inside = painter.anatomy.outlines.tissue.values[y : y + int(side), x : x + int(side)] > 0
            kind = "tissue" if inside.all() else "glass" if not inside.any() else None
            if kind is None or len(rates[kind]) >= 12:
                continue
            start = time.process_time()
            painter.draw_block(i, j)
            rates[kind].append(BLOCK_PX**2 / 1e6 / max(time.process_time() - start, 1e-6))
    return {kind: round(float(np.median(values[2:])), 1) for kind, values in rates.items()}


def peak_gb() -> float:
    """Peak memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    numbers: dict[str, float | str] = {"machine": platform.processor() or platform.machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stain in ("HE", "IHC"):
            spec = make_spec(seed=7, size_px=(12_000, 12_000), ihc_score="3+", stain=stain)
            for kind, rate in block_rates(spec).items():
                numbers[f"{stain}_{kind}_block_mp_per_cpu_s"] = rate
            cpu, wall, tissue = seconds_of(spec, folder, 1)
            numbers[f"{stain}_12000px_tissue_mp_per_cpu_s"] = round(tissue / cpu, 2)
            numbers[f"{stain}_12000px_wall_s_1_process"] = round(wall, 2)
        spec = make_spec(seed=7, size_px=(12_000, 12_000), ihc_score="3+")
        numbers["HE_12000px_wall_s_2_processes"] = round(seconds_of(spec, folder, 2)[1], 2)
        numbers["peak_gb_12000px"] = round(peak_gb(), 3)
        if options.large:
            spec = make_spec(seed=7, size_px=(100_000, 80_000), tissue_extent=0.05, ihc_score="3+")
            cpu, wall, tissue = seconds_of(spec, folder, 1)
            numbers["large_wall_s"] = round(wall, 1)
            numbers["large_tissue_mp"] = round(tissue, 1)
            numbers["large_tissue_mp_per_cpu_s"] = round(tissue / cpu, 2)
            numbers["large_peak_gb"] = round(peak_gb(), 3)
    text = json.dumps(numbers, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
