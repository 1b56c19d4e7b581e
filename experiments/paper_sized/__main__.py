"""The paper's own way on phantoms, reduced in size only: cohorts, IHC tiles, slides, tests, baselines; resumable.

Preset `paper` as it is (the tile CNN of 26 M weights on lightness, tissue of IHC by score, tiles of 256 px at 0.25 µm,
plain Adam, soft-argmax at β = 1000, 300 tiles among the best 15 % of at least 2 000, the CNN free in slide training,
one slide a step, the first epoch with the best validation accuracy); what is smaller is the number of tiles, slides and
epochs, and Adam's rate is larger by as much as there are fewer steps. The tumour is the phantom's true one: HASHI's
network is not part of what the paper trains. Results go to WORK/results.json; `--page` makes the page of them.

Run: python -m experiments.paper_sized --work FOLDER [--size cpu|gpu|small|tiny] [--accelerator gpu] [--processes 8]
     [--minutes 5]; python -m experiments.paper_sized --page FOLDER/results.json
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time
from typing import Any

from experiments.paper_sized.design import ORDER, SIZES, cohorts_of, manifest_of
from experiments.paper_sized.page import write_page
from experiments.paper_sized.steps import Work, in_time, run_step

from he2her2.files import read_json, write_json
from he2her2.phantom import write_cohort
from he2her2.results import describe_environment
from he2her2.training import Hardware

_FOR_SLIDES = 0.58
"""Share of the time, where it is limited, that is kept for what comes after IHC tiles."""

_TO_FINISH = 25.0
"""Seconds that weights, validation and tests take after a training."""


def main() -> None:
    """Run the study or one step of it, or write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of cohorts, trainings and results; may be reused")
    parser.add_argument("--size", choices=[*SIZES], default="cpu")
    parser.add_argument("--accelerator", default="cpu", help="cpu or gpu")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="cores in all")
    parser.add_argument("--workers", type=int, default=0, help="processes that read IHC tiles")
    parser.add_argument("--minutes", type=float, help="time after which trainings end with what is best so far")
    parser.add_argument("--step", help="one step alone, such as tiles or paper/mlp-pretrained")
    parser.add_argument("--until", type=float, help="of a step: seconds since 1970")
    parser.add_argument("--page", type=Path, help="write the page of these results")
    options = parser.parse_args()
    if options.page is not None:
        write_page(read_json(options.page))
        return
    if options.work is None:
        parser.error("give --work FOLDER")
    until = options.until or (None if options.minutes is None else time() + 60 * options.minutes)
    each = max(1, options.threads // options.processes)
    hardware = Hardware(
        accelerator=options.accelerator, devices="1", precision=options.precision, workers=options.workers
    )
    work = Work(options.work.absolute(), options.size, hardware, each, until)
    if options.step is not None:
        run_step(in_time(work, _TO_FINISH), options.step)
    else:
        run_study(work, options.threads, options.processes)


def run_study(work: Work, cores: int, processes: int) -> None:
    """All steps, those that do not wait for each other at the same time."""
    start = time()
    seconds: dict[str, float] = {}
    about = {"size": work.size, "hardware": work.hardware.accelerator, "precision": work.hardware.precision}
    environment = describe_environment((), ("torch", "lightning", "numpy", "onnxruntime"))
    write_json(work.folder / "about.json", {**about, "environment": environment})
    with ThreadPoolExecutor(processes) as pool, ThreadPoolExecutor(1) as beside:
        draw(work, ["ihc"], cores)
        seconds["drawing IHC"] = time() - start
        tiles = beside.submit(
            begin, in_time(work, 0 if work.until is None else _FOR_SLIDES * (work.until - time())), "tiles"
        )
        cohorts = [name for name in cohorts_of(work.sizes) if name != "ihc"]
        draw(work, cohorts, max(1, cores - 2 * (processes > 1)))
        seconds["drawing H&E"] = time() - start
        list(pool.map(lambda name: begin(work, f"bags/{name}"), cohorts))
        seconds["tumour tiles"] = time() - start
        tiles.result()
        seconds["IHC tiles"] = time() - start
        list(pool.map(lambda step: begin(work, step), ("colour", *ORDER[:3], "gradient", *ORDER[3:])))
        seconds["slides"] = time() - start
    collect(work, seconds)


def draw(work: Work, names: Sequence[str], cores: int) -> None:
    """Draw the missing cohorts."""
    for name in names:
        if not manifest_of(work.folder, name).exists():
            print(f"== drawing {name}", flush=True)
            write_cohort(manifest_of(work.folder, name).parent, cohorts_of(work.sizes)[name], workers=cores)


def begin(work: Work, step: str) -> None:
    """Do a step in a process of its own, unless it is done or there is no time left; its output goes to a log."""
    late = work.until is not None and time() > work.until - 2 * _TO_FINISH
    if work.is_done(step) or (late and step not in ("gradient", "colour")):
        return
    print(f"== {step}", flush=True)
    log = work.folder / "logs" / f"{step.replace('/', '.')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words: list[object] = ["--work", work.folder, "--size", work.size, "--accelerator", work.hardware.accelerator]
    words += ["--precision", work.hardware.precision, "--workers", work.hardware.workers]
    words += ["--threads", work.threads, "--step", step]
    words += [] if work.until is None else ["--until", work.until]
    command = [sys.executable, "-m", "experiments.paper_sized", *map(str, words)]
    with log.open("w") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        print(f"== {step} ended with {code}:\n{log.read_text('utf-8')[-2000:]}", flush=True)


def collect(work: Work, seconds: dict[str, float]) -> None:
    """Write all results as one file."""
    steps = [
        "tiles",
        "gradient",
        "colour",
        *(f"bags/{name}" for name in cohorts_of(work.sizes) if name != "ihc"),
        *ORDER,
    ]
    there: dict[str, Any] = {step: read_json(work.result(step)) for step in steps if work.result(step).is_file()}
    about = read_json(work.folder / "about.json")
    write_json(work.folder / "results.json", {**about, "seconds": seconds, "steps": there})
    missing = [step for step in steps if step not in there]
    print(f"results {work.folder / 'results.json'}; missing: {', '.join(missing) or 'nothing'}", flush=True)


if __name__ == "__main__":
    main()
