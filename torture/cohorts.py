"""Runs of many slides whose processes are killed at random moments: the end is that of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from he2her2.phantom import make_spec, write_phantom
from torture.endings import Ending, Tally
from torture.kills import content
from torture.slides import SETTINGS

KINDS = ("one command", "two commands", "a Dask cluster")
"""Kinds of runs."""

_SIDE = 1280
_PATIENCE_S = 3600
_SETTINGS = (*map(str, SETTINGS), "--set", "adaptive.points=25")
_SEEDS = (8, 5)  # of phantoms that have a tumour large enough
_KEEPS_WORKERS = 0.5  # share of kills that spare the command itself


@dataclass(slots=True)
class Cohort:
    """Slides, the commands that work on them at once, and a cluster if they use one.

    Attributes:
        slides: Their folder.
        n_commands: Commands on the same run folder.
        options: Of each.
        cluster: Processes whose children are killed as well.
    """

    slides: Path
    n_commands: int
    options: tuple[str, ...]
    cluster: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, run: Path) -> list[subprocess.Popen[bytes]]:
        """Start the commands."""
        words = [sys.executable, "-m", "he2her2", "predict", str(self.slides), "--out", str(run)]
        return [
            subprocess.Popen(
                [*words, *self.options, *_SETTINGS],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            for _ in range(self.n_commands)
        ]


def torture_cohorts(
    n: int,
    work: Path,
    *,
    seed: int = 0,
    n_slides: int = 60,
    kinds: Sequence[str] = KINDS,
    report: Callable[[int, Tally], None] = lambda *_: None,
) -> Tally:
    """Kill commands and workers, resume each time, and compare every end with that of an undisturbed run.

    Args:
        n: How many kills.
        work: Folder for slides and runs.
        seed: Of moments and victims.
        n_slides: Slides of the cohort.
        kinds: Of runs, one after the other.
        report: Called after each kill with the number done and the endings so far.

    Returns:
        The endings by kind of run and by who was killed first.
    """
    shutil.rmtree(work, ignore_errors=True)
    slides = _phantoms(work / "slides", n_slides)
    rng, tally = np.random.default_rng(seed), Tally()
    alone = Cohort(slides, 1, ("--workers", "2"))
    begin = time.monotonic()
    _wait(alone.start(work / "right"))
    whole_s = time.monotonic() - begin
    right = content(work / "right")
    with ExitStack() as stack:
        cohorts = {"one command": alone, "two commands": Cohort(slides, 2, ("--workers", "1"))}
        if "a Dask cluster" in kinds:
            cluster = _cluster(work / "cluster", stack)
            options = ("--scheduler", str(work / "cluster" / "s.json"))
            cohorts["a Dask cluster"] = Cohort(slides, 1, options, cluster)
        for i in range(n):
            name = kinds[i % len(kinds)]
            run = work / "killed" / name.replace(" ", "-")
            who, faults = _kill(cohorts[name], run, whole_s, rng)
            if i >= n - len(kinds) or rng.integers(6) == 0:
                faults += _finish(cohorts[name], run, right)
            words = f"kill {i} of seed {seed}: {'; '.join(faults)}"
            tally.add(f"{name}: {who}", Ending.LOST if faults else Ending.ANSWERED, words)
            report(i + 1, tally)
    return tally


def _phantoms(folder: Path, n: int) -> Path:
    """Slides; the pixels of a few, each again and again by another name."""
    folder.mkdir(parents=True)
    drawn = []
    for seed in _SEEDS:
        spec = make_spec(seed=seed, ihc_score="3+", signal=1.0, size_px=(_SIDE, _SIDE))
        drawn.append(folder / f"drawn{seed}.tif")
        write_phantom(drawn[-1], spec, workers=1)
    for k in range(n):
        shutil.copyfile(drawn[k % len(drawn)], folder / f"s{k:02}.tif")
    for file in drawn:
        file.unlink()
    (folder / "broken.svs").write_text("no slide")
    return folder


def _cluster(folder: Path, stack: ExitStack) -> list[subprocess.Popen[bytes]]:
    """A scheduler, and a nanny with two workers, which end with the stack."""
    folder.mkdir()
    file = folder / "s.json"
    words = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    log = stack.enter_context((folder / "log.txt").open("wb"))
    started = [
        subprocess.Popen([*words, *kind, *local], stdout=log, stderr=log, start_new_session=True)
        for kind in (
            ["scheduler", "--port", "0"],
            ["worker", "--nworkers", "2", "--nthreads", "1", "--memory-limit", "0", "--local-directory", str(folder)],
        )
    ]
    for process in started:
        stack.callback(_end, process)
    return started[1:]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill(cohort: Cohort, run: Path, whole_s: float, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Start the commands, kill a process at a random moment and later all; who was killed first, and what is wrong."""
    commands = cohort.start(run)
    _sleep(float(rng.uniform(0.05, 0.6)) * whole_s, commands)
    workers = [pid for process in (*commands, *cohort.cluster) for pid in _workers(process.pid)]
    who = "a worker" if workers and rng.uniform() < _KEEPS_WORKERS else "commands"
    if who == "a worker":
        _kill_pid(workers[rng.integers(len(workers))])
        _sleep(float(rng.uniform(0.05, 0.3)) * whole_s, commands)
    for process in commands:
        _kill_pid(process.pid)
    errors = [process.communicate()[1] for process in commands]
    return who, [f"a traceback: {text.decode(errors='replace')[-300:]}" for text in errors if b"Traceback" in text]


def _finish(cohort: Cohort, run: Path, right: Mapping[str, str]) -> Iterator[str]:
    """Let the commands end; yield what differs from an undisturbed run, and begin anew."""
    commands = cohort.start(run)
    try:
        yield from (f"exit code {code}" for code in _wait(commands) if code != 1)  # one slide is broken
    except subprocess.TimeoutExpired:
        for process in commands:
            _kill_pid(process.pid)
        yield f"no end within {_PATIENCE_S} s"
    found = content(run)
    for name in sorted(right.keys() | found.keys()):
        if right.get(name) != found.get(name):
            how = "differs" if name in right and name in found else "is missing" if name in right else "is left"
            yield f"{name} {how}"
    shutil.rmtree(run)


def _wait(commands: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    for process in commands:
        process.communicate(timeout=_PATIENCE_S)
    return [process.returncode for process in commands]


def _sleep(seconds: float, commands: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait, but not for commands that have ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(process.poll() is None for process in commands):
        time.sleep(0.02)


def _kill_pid(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _workers(pid: int) -> list[int]:
    """Processes below one that work on slides: neither commands, nor nannies, nor Python's own helper."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child.pid)
    return found


def lines(tally: Tally) -> Iterator[str]:
    """The part's table."""
    yield f"processes of runs of many slides killed at random moments: {tally.total()}"
    yield from tally.lines()
