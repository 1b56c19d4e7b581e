"""The interface of those who work on slides for a supervisor, and the simplest: this process itself."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from time import sleep
from typing import Generic, Protocol, TypeAlias, TypeVar

from he2her2.cohort.attempt import SlideAttempt
from he2her2.cohort.ledger import Ledger
from he2her2.cohort.tasks import SlideTask, Worker
from he2her2.results import Failure
from he2her2.timing import Progress

_P = TypeVar("_P")
_R = TypeVar("_R")
_P_co = TypeVar("_P_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one worker, which is at one slide at a time.

    Attributes:
        name: Unique among all that there ever were in a crew.
        host: Its machine: workers of one share its memory.
    """

    name: str
    host: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker has begun a slide.

    Attributes:
        slide_id: The slide.
    """

    slide_id: str


@dataclass(frozen=True, slots=True)
class Computed:
    """A worker has computed a slide and only has to write it: he can take the next.

    Attributes:
        slide_id: The slide.
    """

    slide_id: str


@dataclass(frozen=True, slots=True)
class Ended(Generic[_R]):
    """A slide has ended: its result, or its failure, lies in the run's folder.

    Attributes:
        slide_id: The slide.
        outcome: What became of it.
    """

    slide_id: str
    outcome: _R | Failure


class DeathCause(Enum):
    """Cause of a worker's death, as far as it is known: it decides on the remedy."""

    MEMORY = "memory"
    TIME = "time"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Death:
    """Death of a worker.

    Attributes:
        how: In words, for `failures.csv`.
        cause: The known, or the usual one of such a death.
    """

    how: str
    cause: DeathCause


OUT_OF_MEMORY = Death("its worker ran out of memory", DeathCause.MEMORY)
"""Death of a worker that said so itself."""


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is dead, and with him the work on his slides.

    Attributes:
        seat: His place, which is not used again.
        death: How and why.
        begun: Slides that he had begun; one that was only on its way to him is none of them.
    """

    seat: Seat
    death: Death
    begun: Sequence[str]


Event: TypeAlias = Begun | Computed | Ended[_R] | Died

Report: TypeAlias = Callable[[str, str, int, int], None]
"""Called with a slide, the name of a stage, how much of it is done and how much there is."""


class OpenWorker(Protocol[_P_co]):
    """Request for a worker: picklable, so that each process opens the networks for itself."""

    def __call__(self, progress: Progress, *, threads: int | None = None) -> Worker[_P_co]:
        """The worker."""


@dataclass(frozen=True, slots=True)
class SlideJob(Generic[_P, _R]):
    """Work to be done with every slide of a run.

    Attributes:
        open_worker: Opens a worker.
        ledger: Keeps results and failures.
        log: File for tracebacks.
        threads: Of each worker; None for those of the settings.
    """

    open_worker: OpenWorker[_P]
    ledger: Ledger[_P, _R]
    log: Path
    threads: int | None = None

    def sweep_log(self) -> None:
        """Remove the log where nothing was written into it."""
        with suppress(OSError):
            if not self.log.stat().st_size:
                self.log.unlink()

    def attempt(self, progress: Progress) -> SlideAttempt[_P, _R]:
        """Open a worker for attempts."""
        return SlideAttempt(self.open_worker(progress, threads=self.threads), self.ledger, self.log)


class Crew(Protocol[_R]):
    """Workers for a supervisor; a context manager that ends them, at once where they are still at work."""

    def idle(self) -> list[Seat]:
        """Places of those who can take a slide."""

    def send(self, seat: Seat, task: SlideTask) -> None:
        """Give a slide to one of them."""

    def events(self, timeout_s: float) -> list[Event[_R]]:
        """Events since the last call; waits for one, but not longer than so many seconds.

        Raises:
            He2Her2Error: The work cannot go on: workers do not start, or results cannot be written.
        """

    def memory_of(self, seat: Seat) -> int | None:
        """Memory that a worker takes, in bytes; None where nobody knows."""

    def kill(self, seat: Seat) -> None:
        """End a worker by force; `Died` follows."""

    def close(self) -> None:
        """End all workers."""


class ThisProcess(Generic[_P, _R]):
    """A crew of one: each slide is worked on in this process while the supervisor waits."""

    def __init__(self, job: SlideJob[_P, _R], report: Report) -> None:
        """Open the worker.

        Args:
            job: What is to be done with each slide.
            report: Called with its progress.
        """
        self._attempt = job.attempt(self._progress)
        self._report = report
        self._seat = Seat("this process", "here")
        self._task: SlideTask | None = None

    def idle(self) -> list[Seat]:
        """This process, unless it has a slide already."""
        return [self._seat] if self._task is None else []

    def send(self, seat: Seat, task: SlideTask) -> None:
        """Take a slide."""
        assert seat == self._seat
        self._task = task

    def events(self, timeout_s: float) -> list[Event[_R]]:
        """Work on the slide, however long it takes."""
        if self._task is None:
            sleep(timeout_s)
            return []
        task, seat = self._task, self._seat
        try:
            return [Ended(task.slide_id, self._attempt(task))]
        except MemoryError:
            return [Died(seat, Death("this process ran out of memory", DeathCause.MEMORY), [task.slide_id])]
        finally:
            self._task = None

    def _progress(self, stage: str, done: int, total: int) -> None:
        if self._task is not None:
            self._report(self._task.slide_id, stage, done, total)

    def memory_of(self, seat: Seat) -> int | None:
        """Nobody watches."""

    def kill(self, seat: Seat) -> None:
        """Nobody can."""

    def close(self) -> None:
        """Nothing is open."""
