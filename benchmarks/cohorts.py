"""Runs of many slides: workers against one worker and against threads, and what the run itself costs a slide."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from benchmarks.measuring import status_gb
from benchmarks.phantom_slide import phantom_slide
from benchmarks.results import Found, Setting, Table
from he2her2.cohort import (
    Claims,
    Crew,
    Ledger,
    LocalWorkers,
    Report,
    SlideJob,
    SlideTask,
    SlideWork,
    Supervisor,
    ThisProcess,
    Worker,
    read_status,
)
from he2her2.config import Config, load_config
from he2her2.files import atomic, write_json
from he2her2.geometry import Size
from he2her2.results import MadeOf, Run, SlideFolders, SlideResult, plan_run, result_to_record
from he2her2.timing import Progress

CORES = 2
SIZE = Size(12_000, 12_000)
SLIDES = 24
"""Of a run: at the end of a shorter one a worker waits longer for the last slide of the other than in a cohort."""
COUNTS = (1_000, 2_000, 5_000, 10_000)
QUICK_COUNTS = (10, 30)
_QUICK = ("tiling.min_tiles=50", "adaptive.iterations=2", "adaptive.points=20")


def measure(setting: Setting) -> Found:
    """Measure the throughput of real slides, and the cost of made-up ones."""
    costs, figures = _costs(setting)
    throughput, efficiency = _throughput(setting)
    return Found({"workers_efficiency": efficiency, **figures}, (throughput, costs))


@dataclass(frozen=True, slots=True)
class _Design:
    """A way of sharing slides among processes and threads.

    Attributes:
        workers: Worker processes; 0: this process.
        threads: Of each.
        cores: That they may use, all together.
    """

    workers: int
    threads: int
    cores: int = CORES


_ONE, _TWO, _APART = "1 worker held to 1 core", "2 workers, 1 thread each", "2 runs of 1 worker, nothing shared"
_DESIGNS = {
    _ONE: _Design(1, 1, cores=1),
    _TWO: _Design(CORES, 1),
    "2 threads": _Design(0, CORES),
}


@dataclass(frozen=True, slots=True)
class _Pace:
    """The throughput of a design.

    Attributes:
        rate: Slides a second, once workers are ready.
        busy: Cores of the machine that did something.
        own: Share of the workers' time that is the slides' own.
    """

    rate: float
    busy: float
    own: float


def _throughput(setting: Setting) -> tuple[Table, float]:
    """Slides an hour by each design, in turns; the rate of two workers against twice that of one with a core.

    A worker writes while it reads the next slide, so that one alone takes more than a core if it may.
    """
    n, rounds = setting.pick(SLIDES, 2), setting.pick(3, 1)
    path = _slide(setting)
    names = (_ONE, _TWO) if setting.quick else (*_DESIGNS, _APART)
    paces: dict[str, list[_Pace]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in [*paces][:: 1 if turn % 2 == 0 else -1]:
            if name == _APART:
                paces[name].append(_apart(path, n, quick=setting.quick))
            else:
                paces[name].append(_predict(path, n, _DESIGNS[name], quick=setting.quick))
    rows = tuple(
        (
            name,
            3600 * median(pace.rate for pace in found),
            median(pace.rate / one.rate / CORES for pace, one in zip(found, paces[_ONE], strict=True)),
            median(pace.busy for pace in found),
            median(pace.own for pace in found),
        )
        for name, found in paces.items()
    )
    title = f"{n} slides of {SIZE.w} px square; shares of {CORES} times one worker with a core of its own"
    header = ("design", "slides/h", "share", "cores busy", "slides' own times, of the workers'")
    return Table(title, header, rows), next(row[2] for row in rows if row[0] == _TWO)


def _slide(setting: Setting) -> Path:
    return phantom_slide(setting, SIZE if not setting.quick else Size(2048, 2048))


def _predict(path: Path, n: int, design: _Design, *, quick: bool, core: int = 0) -> _Pace:
    config = load_config(overrides=[f"runtime.threads={design.threads}", *(_QUICK if quick else ())])
    begun: list[tuple[float, float]] = []

    def crew(job: SlideJob[Any, SlideResult], n_slides: int, report: Report) -> Crew[SlideResult]:
        assert n_slides == n
        if not design.workers:
            return ThisProcess(job, report)
        with _cores(design.cores, core):  # processes keep what they are born with
            crew = LocalWorkers(job, design.workers, report)
        while len(crew.idle()) < design.workers:  # the clock starts once all are ready
            crew.events(0.1)
        return crew

    work = SlideWork("bundled", config)
    with _run(config) as run:
        job = SlideJob(work, Ledger(run.slides, run.digest, run.failures), run.folder / "errors.log")
        tasks = [SlideTask(f"s{k}", path) for k in range(n)]
        with Claims(run.folder) as claims:
            supervisor = Supervisor(job, crew, claims, on_progress=lambda *_: begun.append((perf_counter(), _busy_s())))
            with closing(supervisor.run(tasks)) as outcomes:
                found = [outcome.found for outcome in outcomes]
        wall, busy = perf_counter() - begun[0][0], _busy_s() - begun[0][1]
    seconds = sum(one.seconds for one in found if isinstance(one, SlideResult))
    return _Pace(n / wall, busy / wall, seconds / wall / max(1, design.workers))


def _apart(path: Path, n: int, *, quick: bool) -> _Pace:
    """The pace of runs that go on at the same time, one a core, each with its share of the slides."""
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(_predict, path, n // CORES, _DESIGNS[_ONE], quick=quick, core=k) for k in range(CORES)]
        found = [run.result() for run in runs]
    return _Pace(sum(one.rate for one in found), mean(one.busy for one in found), mean(one.own for one in found))


@contextmanager
def _cores(n: int, first: int) -> Iterator[None]:
    """Hold processes that are started meanwhile to some of the cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[first : first + n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def _busy_s() -> float:
    """Seconds that the cores of this machine have worked, all together; not a number where the system does not say."""
    file = Path("/proc/stat")
    if not file.exists():
        return math.nan
    user, nice, system = map(int, file.read_text("ascii").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _run(config: Config) -> Iterator[Run]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield plan_run(folder / "run", command=[], config=config, weights=[], overrides={})
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class _Results:
    """Slides' folders that hold the result alone.

    Attributes:
        folders: Of the run.
    """

    folders: SlideFolders

    def read(self, slide_id: str, made_of: MadeOf) -> SlideResult | None:
        """As of any slide."""
        return self.folders.read(slide_id, made_of)

    def write(self, slide_id: str, made_of: MadeOf, product: SlideResult) -> SlideResult:
        """Write the result."""
        result = replace(product, run_digest=made_of.configuration, inputs=made_of.inputs)
        with atomic(self.folders.of(slide_id)) as draft:
            draft.mkdir()
            write_json(draft / self.folders.result_file, result_to_record(result))
        return result

    def discard(self, slide_id: str) -> None:
        """Forget a slide."""
        self.folders.discard(slide_id)


def _costs(setting: Setting) -> tuple[Table, dict[str, float]]:
    """Seconds that runs of made-up slides take, when they are made and when they are finished."""
    config = load_config(overrides=_QUICK)
    result = _a_result(setting, config)
    counts = COUNTS if not setting.quick else QUICK_COUNTS
    rounds = setting.pick(3, 1)
    found: dict[int, list[tuple[float, ...]]] = {n: [] for n in counts}
    for turn in range(rounds):  # a disk that writes back what came before meets other counts each time
        for n in counts[:: 1 if turn % 2 == 0 else -1]:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # none sees the memory of another
                found[n].append(pool.submit(_cost, n, config, result).result())
    rows = [(n, *map(median, zip(*costs, strict=True))) for n, costs in found.items()]
    exponent = float(np.polyfit(np.log(counts), np.log([n * each for n, each, *_ in rows]), 1)[0])
    header = (
        "slides", "made, ms each", "CPU, ms each", "finished run, s", "s per 1 000", "status, s", "memory grew, MB",
    )  # fmt: skip
    last = rows[-1]
    figures = {
        "overhead_ms": last[1], "finished_s": last[4], "status_s": last[5], "cohort_exponent": exponent,
        "cohort_growth_mb": last[6],
    }  # fmt: skip
    title = f"Runs of made-up slides: the ledger, claims and tables alone; medians of {rounds}"
    return Table(title, header, tuple(rows)), figures


def _cost(n: int, config: Config, result: SlideResult) -> tuple[float, ...]:
    """A row of the table but for the number of slides."""
    tasks = [SlideTask(f"s{k:05}", Path(f"s{k:05}.svs")) for k in range(n)]
    with _run(config) as run:
        busy = process_time()
        made, memory = _timed(run, tasks, result)
        busy = process_time() - busy
        again, _ = _timed(run, tasks, result)
        start = perf_counter()
        assert not read_status(run.folder).n_left
        return 1e3 * made / n, 1e3 * busy / n, again, 1e3 * again / n, perf_counter() - start, 1e3 * memory


def _a_result(setting: Setting, config: Config) -> SlideResult:
    """A real result."""
    path = _slide(setting)
    worker = SlideWork("bundled", config)()
    return worker(SlideTask("s", path)).result


def _timed(run: Run, tasks: list[SlideTask], result: SlideResult) -> tuple[float, float]:
    """Seconds of a command on a run, and the memory that it took on the way, GB."""

    def work(task: SlideTask) -> SlideResult:
        return replace(result, slide_id=task.slide_id, path=task.source)

    def open_worker(progress: Progress, *, threads: int | None = None) -> Worker[SlideResult]:
        del progress, threads
        return work

    ledger = Ledger(_Results(run.slides), run.digest, run.failures)
    job = SlideJob(open_worker, ledger, run.folder / "errors.log")
    tables = replace(run.tables)
    before, start = status_gb("VmRSS"), perf_counter()
    tables.plan({task.slide_id: task.source for task in tasks})
    with Claims(run.folder) as claims:
        supervisor = Supervisor(job, lambda job, _, report: ThisProcess(job, report), claims)
        with closing(supervisor.run(tasks)) as outcomes:
            for outcome in outcomes:
                tables.add(outcome.found)
                tables.write_when_due()
        tables.write()
    return perf_counter() - start, max(0.0, status_gb("VmRSS") - before)
