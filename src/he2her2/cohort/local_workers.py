"""Worker processes of this machine, as a crew."""

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeAlias, TypeVar

from he2her2.cohort.attempt import Product, SlideAttempt
from he2her2.cohort.crew import (
    OUT_OF_MEMORY,
    Begun,
    Computed,
    Death,
    DeathCause,
    Died,
    Ended,
    Event,
    Report,
    Seat,
    SlideJob,
)
from he2her2.cohort.tasks import SlideTask
from he2her2.errors import He2Her2Error, OutputError
from he2her2.machine import usable_cores, usable_memory

_P = TypeVar("_P")
_R = TypeVar("_R")

_SPAWN = get_context("spawn")  # a forked process would share the locks of libraries that threads hold
_STARTS = 3
_PROGRESS_S = 0.2
_LEAVE_S = 1.0
_WORKER_BYTES = 2e9  # of the largest slides
_NO_MEMORY = 77  # exit code
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


@dataclass(frozen=True, slots=True)
class _Ready:
    """A worker has opened its networks."""


@dataclass(frozen=True, slots=True)
class _Progressed:
    """A worker is so far in a stage of a slide."""

    slide_id: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Stopped:
    """No worker can go on: the reason is not the slide's."""

    reason: str
    is_output: bool


_Message: TypeAlias = _Ready | _Progressed | _Stopped | Begun | Computed | Ended[Any]
_Tell: TypeAlias = Callable[[_Message], None]


@dataclass(slots=True)
class _WorkerProcess:
    """A process, and what it is at."""

    seat: Seat
    process: BaseProcess
    connection: "Connection[SlideTask | None, _Message]"
    gpu: str | None
    is_ready: bool = False
    sent: str = ""
    begun: set[str] = field(default_factory=set)


class LocalWorkers(Generic[_P, _R]):
    """Worker processes of this machine; one that dies is replaced."""

    def __init__(self, job: SlideJob[_P, _R], n: int, report: Report) -> None:
        """Start them.

        Args:
            job: What is to be done with each slide.
            n: Number of processes.
            report: Called with their progress.
        """
        self._job = job
        self._report = report
        self._n_started = self._n_failed_starts = 0
        self._workers: dict[Seat, _WorkerProcess] = {}
        job.log.parent.mkdir(parents=True, exist_ok=True)
        gpus: Sequence[str | None] = visible_gpus() or [None]
        for k in range(n):
            self._start(gpus[k % len(gpus)])

    def idle(self) -> list[Seat]:
        """Places of those who are ready and compute nothing."""
        return [seat for seat, worker in self._workers.items() if worker.is_ready and not worker.sent]

    def send(self, seat: Seat, task: SlideTask) -> None:
        """Give a slide to one of them."""
        worker = self._workers[seat]
        worker.sent = task.slide_id
        with suppress(OSError):  # it is dead, which the next events tell
            worker.connection.send(task)

    def events(self, timeout_s: float) -> list[Event[_R]]:
        """Events since the last call; waits for one, but not longer than so many seconds."""
        of_connection = {worker.connection: worker for worker in self._workers.values()}
        found: list[Event[_R]] = []
        for connection in wait(list(of_connection), timeout_s):
            worker = of_connection[connection]  # type: ignore[index]  # they are connections, no sockets
            messages, is_alive = _received(worker.connection)
            for message in messages:
                found += self._on_message(worker, message)
            if not is_alive:
                found.append(self._bury(worker))
        return found

    def memory_of(self, seat: Seat) -> int | None:
        """Memory that a worker takes, in bytes; None where the system does not say."""
        worker = self._workers.get(seat)
        return None if worker is None or worker.process.pid is None else resident_bytes(worker.process.pid)

    def kill(self, seat: Seat) -> None:
        """End a worker by force, after a note in the log of where he is."""
        if (worker := self._workers.get(seat)) is not None and worker.process.pid is not None:
            with suppress(OSError, AttributeError):
                os.kill(worker.process.pid, signal.SIGUSR1)
                worker.process.join(_PROGRESS_S)
            worker.process.kill()

    def close(self) -> None:
        """End all of them: those that are idle by themselves, the others by force."""
        for worker in self._workers.values():
            if worker.sent or worker.begun or not worker.is_ready:
                worker.process.kill()
            else:
                with suppress(OSError):
                    worker.connection.send(None)
        until = monotonic() + _LEAVE_S
        for worker in self._workers.values():
            worker.process.join(max(0.0, until - monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
            for slide_id in worker.begun:
                self._job.ledger.sweep(slide_id)
        self._workers.clear()

    def _start(self, gpu: str | None) -> None:
        """Start one more process, which sees one GPU, or none."""
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(self._job, theirs, gpu), daemon=True)
        with _ctrl_c_blocked():
            process.start()
        theirs.close()
        seat = Seat(f"worker {self._n_started}", "here")
        self._n_started += 1
        self._workers[seat] = _WorkerProcess(seat, process, ours, gpu)

    def _on_message(self, worker: _WorkerProcess, message: _Message) -> list[Event[_R]]:
        if isinstance(message, _Ready):
            worker.is_ready, self._n_failed_starts = True, 0
        elif isinstance(message, _Progressed):
            self._report(message.slide_id, message.stage, message.done, message.total)
        elif isinstance(message, _Stopped):
            raise (OutputError if message.is_output else He2Her2Error)(message.reason)
        else:
            if isinstance(message, Begun):
                worker.begun.add(message.slide_id)
            elif isinstance(message, Computed):
                worker.sent = ""
            else:
                worker.begun.discard(message.slide_id)
            return [message]
        return []

    def _bury(self, worker: _WorkerProcess) -> Died:
        """Note a death, and start another process."""
        worker.process.join()
        worker.connection.close()
        del self._workers[worker.seat]
        death = _death_by(worker.process.exitcode or 0)
        if not worker.is_ready:
            self._n_failed_starts += 1
            if self._n_failed_starts >= _STARTS:
                raise He2Her2Error(
                    f"workers do not start ({death.how}); see {self._job.log}, or go on with --workers 0"
                )
        self._start(worker.gpu)
        return Died(worker.seat, death, tuple(worker.begun))


def _received(connection: "Connection[SlideTask | None, _Message]") -> tuple[list[_Message], bool]:
    """Messages of a worker that have come, and whether it can send more."""
    messages: list[_Message] = []
    try:
        while connection.poll():
            messages.append(connection.recv())
    except (EOFError, OSError):
        return messages, False
    return messages, True


def _death_by(code: int) -> Death:
    """Death of a process with an exit code, which is negative where a signal ended it."""
    if code == _NO_MEMORY:
        return OUT_OF_MEMORY
    if code >= 0:
        return Death(f"its worker ended with exit code {code}", DeathCause.CRASH)
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return Death("its worker was killed (SIGKILL), as systems do when memory runs out", DeathCause.MEMORY)
    return Death(f"its worker was ended by {name}, as a library does by a crash", DeathCause.CRASH)


def _serve(job: SlideJob[_P, _R], connection: "Connection[_Message, SlideTask | None]", gpu: str | None) -> None:
    """Work on slides until there are no more; the whole life of a worker process."""
    _live_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    log = job.log.open("a", encoding="utf-8")
    faulthandler.enable(log)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, log)
    lock = threading.Lock()

    def tell(message: _Message) -> None:
        with lock:
            connection.send(message)

    teller = _Teller(tell)
    try:
        attempt = job.attempt(teller.progress)
    except He2Her2Error as error:
        tell(_Stopped(str(error), is_output=False))
        return
    tell(_Ready())
    with _telling_what_stops_all(tell), ThreadPoolExecutor(1) as writer:
        before: Future[None] | None = None
        while (task := connection.recv()) is not None:
            teller.begin(task.slide_id)
            product = attempt.make(task)
            if before is not None:
                before.result()
            tell(Computed(task.slide_id))
            before = writer.submit(_keep, attempt, task, product, tell)


def _keep(attempt: SlideAttempt[_P, _R], task: SlideTask, product: Product[_P], tell: _Tell) -> None:
    """Write a product while the next slide is read."""
    with _telling_what_stops_all(tell):
        tell(Ended(task.slide_id, attempt.keep(task, product)))


@contextmanager
def _telling_what_stops_all(tell: _Tell) -> Iterator[None]:
    """Tell what is no fault of a slide before this process ends of it."""
    try:
        yield
    except MemoryError:
        os._exit(_NO_MEMORY)
    except OutputError as error:
        tell(_Stopped(str(error), is_output=True))
        os._exit(1)


class _Teller:
    """Tells progress to the supervisor: each stage, and not more than some times a second within it."""

    def __init__(self, tell: _Tell) -> None:
        self._tell = tell
        self._slide_id = self._stage = ""
        self._next = 0.0

    def begin(self, slide_id: str) -> None:
        """Tell that a slide is begun."""
        self._slide_id, self._stage = slide_id, ""
        self._tell(Begun(slide_id))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is."""
        now = monotonic()
        if stage != self._stage or now >= self._next:
            self._stage, self._next = stage, now + _PROGRESS_S
            self._tell(_Progressed(self._slide_id, stage, done, total))


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Start processes that do not get Ctrl-C while they load their libraries; this one gets it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _live_with_parent() -> None:
    """Leave Ctrl-C to the supervisor, and end with it, even where it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    parent = parent_process()
    if parent is None:
        return

    def wait_for_end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


def usual_number(n_slides: int, *, on_gpus: bool = True) -> int:
    """Number of worker processes that suits this machine: one a GPU, or one a core where the memory allows it.

    Args:
        n_slides: There is no use in more workers.
        on_gpus: Whether they run on GPUs, where there are any.
    """
    n_gpus = len(visible_gpus()) if on_gpus else 0
    return max(1, min(n_slides, n_gpus or min(usable_cores(), round(min(usable_memory() / _WORKER_BYTES, 1024)))))


def visible_gpus() -> list[str]:
    """CUDA devices that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() and name.strip() != "-1"]
    return [file.name.removeprefix("nvidia") for file in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def resident_bytes(pid: int) -> int | None:
    """Memory of a process that lies in RAM; None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        told = subprocess.run(  # noqa: S603  # a fixed command
            ["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout
        return int(told) * 1024
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
