"""Workers of a Dask cluster, as a crew: on this machine or on many, by SLURM, Kubernetes or hand.

Dask only carries slides to workers. A worker gets one slide at a time, and a slide is bound to its worker: Dask would
give the slides of a dead worker to the next one by itself, three times, and would suspect those that merely waited.
Every attempt has a ticket, a file that its worker takes to begin and that we take back to give it up: so none is made
twice whatever Dask does, and one that never began is not held against its slide. Workers need he2her2, the run's folder
and the slides at the same paths.
"""

import logging
import math
import pickle
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any, Generic, TypeVar
from uuid import uuid4

from he2her2 import __version__
from he2her2.cohort.attempt import SlideAttempt
from he2her2.cohort.crew import OUT_OF_MEMORY, Begun, Death, DeathCause, Died, Ended, Event, Report, Seat, SlideJob
from he2her2.cohort.tasks import SlideTask
from he2her2.errors import He2Her2Error, OutputError
from he2her2.files import draft_of, read_json

_P = TypeVar("_P")
_R = TypeVar("_R")

_LOOK_S = 1.0
_RESTART_S = 10.0
_LEAVES_S = 30.0  # by then a worker at the address of a killed one is a new one
_PROGRESS_S = 1.0
_CONNECT_S = 30
_FILE_S = 0.2
_GATHER_S = 60.0
_LOST = Death("its worker was lost: killed, out of memory, or its machine is gone", DeathCause.MEMORY)


@dataclass(frozen=True, slots=True)
class _Order:
    """One attempt at a slide, as it is sent.

    Attributes:
        job: Pickled `SlideJob`: workers keep what they opened for it.
        task: The slide.
        ticket: File without which the attempt does not begin.
        topic: Under which its progress is told.
        version: Of he2her2 here.
    """

    job: bytes
    task: SlideTask
    ticket: Path
    topic: str
    version: str


@dataclass(slots=True)
class _Sent:
    """An order that has been sent."""

    seat: Seat
    address: str
    ticket: Path
    future: Any


class DaskWorkers(Generic[_P, _R]):
    """The workers of a cluster, as they come and go."""

    def __init__(self, job: SlideJob[_P, _R], scheduler: str, report: Report) -> None:
        """Connect.

        Args:
            job: What is to be done with each slide.
            scheduler: Address of the scheduler, or its file.
            report: Called with the progress of workers.

        Raises:
            He2Her2Error: There is no such scheduler.
        """
        from distributed import Client  # noqa: PLC0415  # an extra

        logging.getLogger("distributed").setLevel(logging.ERROR)
        self._job, self._pickled, self._report, self._scheduler = job, pickle.dumps(job), report, scheduler
        try:
            self._client = Client(_address(scheduler), timeout=_CONNECT_S, set_as_default=False, name="he2her2")
        except (OSError, ValueError, TimeoutError) as error:
            raise He2Her2Error(
                f"--scheduler {scheduler}: no Dask scheduler answers ({error}); check the address"
            ) from None
        self._news: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._topic = f"he2her2-{uuid4().hex}"
        self._client.subscribe_topic(self._topic, lambda event: self._news.put(("progress", event[1])))
        self._seats: dict[str, Seat] = {}
        self._memory: dict[str, int] = {}
        self._killed: dict[str, float] = {}
        self._sent: dict[str, _Sent] = {}
        self._n_seats = 0
        self._look_again = 0.0
        self._look()

    def idle(self) -> list[Seat]:
        """Places of workers that have no slide."""
        busy = {sent.seat for sent in self._sent.values()}
        return [seat for seat in self._seats.values() if seat not in busy]

    def send(self, seat: Seat, task: SlideTask) -> None:
        """Give a slide to a worker, and to no other."""
        address = next(address for address, one in self._seats.items() if one == seat)
        ticket = draft_of(self._job.log.parent / "claims" / "ticket")
        try:
            ticket.touch()
        except OSError as error:
            raise OutputError(f"{ticket.parent}: cannot be written ({error.strerror}); free space") from error
        order = _Order(self._pickled, task, ticket, self._topic, __version__)
        future = self._client.submit(
            work_on_order,
            order,
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=f"{task.slide_id}-{ticket.name}",
        )
        self._sent[task.slide_id] = _Sent(seat, address, ticket, future)
        future.add_done_callback(lambda _: self._news.put(("done", task.slide_id)))

    def events(self, timeout_s: float) -> list[Event[_R]]:
        """Events since the last call; waits for one, but not longer than so many seconds."""
        found: list[Event[_R]] = []
        with suppress(Empty):
            self._take(self._news.get(timeout=timeout_s) if timeout_s else self._news.get_nowait(), found)
            while True:
                self._take(self._news.get_nowait(), found)
        if monotonic() > self._look_again:
            self._look()
            gone = {sent.seat for sent in self._sent.values()} - set(self._seats.values())
            found += [self._bury(seat) for seat in gone]
        return found

    def memory_of(self, seat: Seat) -> int | None:
        """Memory of a worker, as it told its scheduler last."""
        return next((self._memory.get(address) for address, one in self._seats.items() if one == seat), None)

    def kill(self, seat: Seat) -> None:
        """Have a worker restarted by its nanny; the one that is killed gets no slide while it is still listed."""
        address = next((address for address, one in self._seats.items() if one == seat), None)
        if address is None:
            return
        try:
            done = self._client.restart_workers([address], timeout=_RESTART_S, raise_for_error=False)
            restarted = done.get(address) == "OK"
        except (ValueError, TimeoutError, OSError):
            restarted = False
        self._killed[address] = monotonic() + _LEAVES_S if restarted else math.inf
        self._seats.pop(address, None)

    def close(self) -> None:
        """Leave the cluster; a worker that is at a slide ends it, and its result will be found."""
        with suppress(Exception):  # whatever has become of the cluster
            self._client.cancel([sent.future for sent in self._sent.values()], force=True)
        for slide_id in list(self._sent):
            self._forget(slide_id)
        with suppress(Exception):
            self._client.close(timeout=2)

    def _look(self) -> None:
        """See which workers there are."""
        self._look_again = monotonic() + _LOOK_S
        if self._client.status != "running":
            raise He2Her2Error(f"the scheduler {self._scheduler} is lost; give the same command again to go on")
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError, RuntimeError):
            return  # the next look will tell
        now = monotonic()
        # Dask says that a worker was restarted while it still lists the old one, which must get no slide.
        self._killed = {address: until for address, until in self._killed.items() if address in workers and now < until}
        usable = {
            address: facts
            for address, facts in workers.items()
            if facts.get("status", "running") in ("running", "paused") and address not in self._killed
        }
        self._memory = {address: int(facts["metrics"].get("memory", 0)) for address, facts in usable.items()}
        self._seats = {
            address: self._seats.get(address) or self._new_seat(facts["host"]) for address, facts in usable.items()
        }

    def _new_seat(self, host: str) -> Seat:
        self._n_seats += 1
        return Seat(f"worker {self._n_seats}", host)

    def _take(self, news: tuple[str, Any], found: list[Event[_R]]) -> None:
        kind, what = news
        if kind == "progress":
            slide_id, stage, done, total = what
            if slide_id in self._sent and stage is None:
                found.append(Begun(slide_id))
            elif slide_id in self._sent:
                self._report(slide_id, stage, done, total)
            return
        sent = self._sent.get(what)
        if sent is None or not sent.future.done():
            return
        if sent.future.status == "finished":
            try:
                found.append(Ended(what, sent.future.result(timeout=_GATHER_S)))
            except Exception:  # noqa: BLE001  # lost with its worker, however Dask says so; it lies in the run's folder
                found.append(self._bury(sent.seat))
                return
            self._forget(what)
        elif sent.future.status == "error":
            found.append(self._on_error(sent, what, sent.future.exception()))
        else:  # Dask gave it up
            found.append(self._bury(sent.seat))

    def _on_error(self, sent: _Sent, slide_id: str, error: BaseException) -> Died:
        if isinstance(error, _NoTicketError):
            return self._bury(sent.seat)
        if isinstance(error, MemoryError):
            self._forget(slide_id)
            return Died(sent.seat, OUT_OF_MEMORY, [slide_id])
        if isinstance(error, He2Her2Error):
            raise error
        name = type(error).__name__
        if name == "KilledWorker":
            return self._bury(sent.seat)
        raise He2Her2Error(f"worker {sent.address}: {name}: {error}; install this he2her2 on all workers")

    def _bury(self, seat: Seat) -> Died:
        """Note that the worker of a seat is dead, with the slides that he had begun."""
        slides = [slide_id for slide_id, sent in self._sent.items() if sent.seat == seat]
        begun = [slide_id for slide_id in slides if not _take_back(self._sent[slide_id].ticket)]
        for slide_id in slides:
            if slide_id in begun:
                with suppress(OSError):
                    self._report(slide_id, _begun(self._sent[slide_id].ticket).read_text("utf-8"), 0, 0)
            with suppress(Exception):
                self._sent[slide_id].future.cancel(force=True)
            self._forget(slide_id)
        self._seats = {address: one for address, one in self._seats.items() if one != seat}
        return Died(seat, _LOST, begun)

    def _forget(self, slide_id: str) -> None:
        """Forget an attempt; whoever has its order still cannot begin it."""
        ticket = self._sent.pop(slide_id).ticket
        for file in (ticket, _begun(ticket)):
            file.unlink(missing_ok=True)


def _address(scheduler: str) -> str:
    """Address of a scheduler, which may be given by its file; one that was just started has yet to write it.

    Raises:
        He2Her2Error: There is no such file, or it is another one.
    """
    file = Path(scheduler)
    if file.suffix != ".json" and not file.is_file():
        return scheduler
    until = monotonic() + _CONNECT_S
    while not file.is_file() and monotonic() < until:
        sleep(_FILE_S)
    try:
        return str(read_json(file)["address"])
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (ValueError, KeyError):
        problem = "is no file of a Dask scheduler"
    raise He2Her2Error(f"--scheduler {scheduler}: {problem}; dask scheduler --scheduler-file writes one")


class _NoTicketError(Exception):
    """An attempt is made again by Dask after the death of the worker that made it first, or after we gave it up."""


def _begun(ticket: Path) -> Path:
    """File that a ticket becomes once its attempt has begun; it says at which stage that is."""
    return ticket.with_suffix(".begun")


def _take_back(ticket: Path) -> bool:
    """Keep an attempt from beginning, wherever its order still is; False where it has begun."""
    try:
        ticket.unlink()
    except FileNotFoundError:
        return False
    return True


_OPENED: dict[bytes, SlideAttempt[Any, Any]] = {}
_AT: dict[str, Callable[[str, int, int], None]] = {}


def work_on_order(order: _Order) -> Any:  # noqa: ANN401  # whatever the job makes of a slide
    """Work on a slide; runs in a worker of the cluster.

    Raises:
        He2Her2Error: No worker like this one can work on any slide.
    """
    from distributed import get_worker  # noqa: PLC0415  # an extra

    worker, host = get_worker(), socket.gethostname()
    if order.version != __version__:
        raise He2Her2Error(f"the worker on {host} has he2her2 {__version__}, not {order.version}; install the same")
    try:
        order.ticket.rename(begun := _begun(order.ticket))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and order.ticket.parent.is_dir():
            raise _NoTicketError from None
        found = f"the worker on {host} cannot write into {order.ticket.parent} ({error.strerror})"
        raise OutputError(f"{found}; the run's folder must be on a file system that all workers share") from None
    told = 0.0
    stage_told = ""

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal told, stage_told
        if stage != stage_told:
            _note(begun, stage)
        if stage != stage_told or monotonic() > told:
            stage_told, told = stage, monotonic() + _PROGRESS_S
            worker.log_event(order.topic, (order.task.slide_id, stage, done, total))

    worker.log_event(order.topic, (order.task.slide_id, None, 0, 0))
    _AT["now"] = progress
    if order.job not in _OPENED:
        _OPENED.clear()  # networks of an earlier run
        job: SlideJob[Any, Any] = pickle.loads(order.job)  # noqa: S301  # of our own client, as all that Dask carries
        _OPENED[order.job] = replace(job, threads=job.threads or worker.state.nthreads).attempt(_report_now)
    return _OPENED[order.job](order.task)


def _note(begun: Path, stage: str) -> None:
    """Note the stage of an attempt, for the case that this worker dies; nothing where nobody waits for it any more."""
    with suppress(OSError), begun.open("r+", encoding="utf-8") as file:
        file.write(stage)
        file.truncate()


def _report_now(stage: str, done: int, total: int) -> None:
    """Report the progress of the slide that this worker is at."""
    _AT["now"](stage, done, total)
