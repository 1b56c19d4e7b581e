"""The loop over the slides of a run, over any workers: nothing is lost, nothing done twice, nothing waits for ever.

The run's folder is the only truth: a slide has ended once its result or its failure lies there. Workers may be killed,
run out of memory or hang. That costs the slide that they were at one more attempt, alone on its machine, and after
that a failure that names the stage; it costs other slides nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Generic, TypeVar

from he2her2.cohort.attempt import error_stage, failure_of, unnamable, work_on
from he2her2.cohort.claims import Claims
from he2her2.cohort.crew import Begun, Computed, Crew, Death, DeathCause, Died, Ended, Event, Report, Seat, SlideJob
from he2her2.cohort.remote_slides import Staging
from he2her2.cohort.tasks import SlideTask
from he2her2.files import url_of
from he2her2.results import Failure
from he2her2.units import in_time

_P = TypeVar("_P")
_R = TypeVar("_R")

_ATTEMPTS = 2
_TICK_S = 0.5
_FETCH_TICK_S = 0.1
_START_S = 600.0  # for a worker that has its first slide and still opens the networks
_ELSEWHERE_S = 1.0
_STOPPED_S = 60.0
_GB = 1e9
_REMEDIES = {
    DeathCause.MEMORY: "give the run more memory",
    DeathCause.TIME: "check it with he2her2 inspect --deep, or allow more with --time-limit",
    DeathCause.CRASH: "check it with he2her2 inspect --deep",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each slide; one that passes them is tried again, alone, and then fails.

    Attributes:
        minutes: On the clock; None for none.
        memory_gb: Memory of the worker that is at it; None for none.
    """

    minutes: float | None = None
    memory_gb: float | None = None


@dataclass(frozen=True, slots=True)
class SlideOutcome(Generic[_R]):
    """Outcome of a slide.

    Attributes:
        task: The slide.
        found: Its result, or why there is none.
        kept: True where it was there already, by an earlier command or another process.
    """

    task: SlideTask
    found: _R | Failure
    kept: bool


@dataclass(slots=True)
class _Flight:
    """A slide that a worker is at."""

    task: SlideTask
    seat: Seat
    since: float
    stage: str = ""
    begun: bool = False
    alone: bool = False  # on its machine
    killed: Death | None = None  # why its worker was killed by us


@dataclass(slots=True)
class Supervisor(Generic[_P, _R]):
    """Gives the slides of a run to workers and sees them end.

    Attributes:
        job: What is to be done with each.
        make_crew: Opens the workers, for at most so many slides; called once there is something to do.
        claims: Of this process.
        limits: Of each slide.
        staging: Place for remote slides; None where there are none.
        retry_failed: Try again what failed before, unless another process does.
        on_progress: Called with the progress within slides.
    """

    job: SlideJob[_P, _R]
    make_crew: Callable[[SlideJob[_P, _R], int, Report], Crew[_R]]
    claims: Claims
    limits: Limits = Limits()
    staging: Staging | None = None
    retry_failed: bool = False
    on_progress: Report = lambda *_: None
    _waiting: deque[SlideTask] = field(default_factory=deque)
    _remote: deque[SlideTask] = field(default_factory=deque)
    _ready: deque[SlideTask] = field(default_factory=deque)  # claimed, with their files on this machine
    _alone: deque[SlideTask] = field(default_factory=deque)
    _elsewhere: deque[SlideTask] = field(default_factory=deque)
    _flights: dict[str, _Flight] = field(default_factory=dict)
    _deaths: dict[str, int] = field(default_factory=dict)
    _failed_ns: dict[str, int] = field(default_factory=dict)  # of slides to be tried again
    _look_elsewhere: float = 0.0
    _looked: float = math.inf  # at the limits

    def run(self, tasks: Sequence[SlideTask]) -> Generator[SlideOutcome[_R], None, None]:
        """Give what became of each slide, as they end: first those that had ended before.

        Raises:
            OutputError: Results cannot be written.
            He2Her2Error: Workers do not start.
        """
        for task in tasks:
            if failure := unnamable(task):
                yield SlideOutcome(task, failure, kept=False)
            elif (found := self._ended_before(task, retry_failed=self.retry_failed)) is not None:
                yield SlideOutcome(task, found, kept=True)
            else:
                self._failed_ns[task.slide_id] = self.job.ledger.failed_ns(task.slide_id)
                self._queue_of(task).append(task)
        n_left = len(self._waiting) + len(self._remote)
        if not n_left:
            self.job.sweep_log()  # of a command that was killed
            return
        crew = self.make_crew(self.job, n_left, self._on_progress)
        try:
            while self._is_unfinished:
                yield from self._stage()
                yield from self._hand_out(crew)
                for event in crew.events(self._tick_s):
                    yield from self._on_event(event)
                self._enforce_limits(crew)
        finally:
            crew.close()
            self.job.sweep_log()
            if self.staging is not None:
                self.staging.close()

    @property
    def _is_unfinished(self) -> bool:
        queues = (self._waiting, self._remote, self._ready, self._alone, self._elsewhere, self._flights, self._staged)
        return any(queues)

    @property
    def _staged(self) -> int:
        return 0 if self.staging is None else len(self.staging)

    @property
    def _tick_s(self) -> float:
        return _FETCH_TICK_S if self._staged else _TICK_S

    def _queue_of(self, task: SlideTask) -> deque[SlideTask]:
        """Queue in which a slide waits that nobody has claimed."""
        return self._remote if url_of(task.path) is not None else self._waiting

    def _stage(self) -> Iterator[SlideOutcome[_R]]:
        """Take what has been fetched, and fetch more, as far as there is room."""
        if self.staging is None:
            return
        for task, error in self.staging.arrived():
            if error is None:
                self._ready.append(task)
            else:
                failure = failure_of(task, error)
                yield self._ended(task, self.job.ledger.fail(failure, self.job.ledger.made_of(task.inputs)))
        while self._remote and self.staging.has_room(self._remote[0]):
            task = self._remote.popleft()
            outcome = self._claim(task)
            if isinstance(outcome, SlideOutcome):
                yield outcome
            elif outcome:
                self.claims.note(task.slide_id, "fetching")
                self.staging.begin(task)

    def _ended(self, task: SlideTask, found: _R | Failure) -> SlideOutcome[_R]:
        """The outcome of a slide that this process had claimed."""
        if self.staging is not None:
            self.staging.drop(task.slide_id)
        self.claims.release(task.slide_id)
        return SlideOutcome(task, found, kept=False)

    def _ended_before(self, task: SlideTask, *, retry_failed: bool) -> _R | Failure | None:
        """The result or the failure that the run's folder has of a slide."""
        kept, _ = work_on(task, self.job.ledger.find_of, self.job.log)
        if kept is not None or retry_failed:
            return kept
        return self.job.ledger.failure_of(task)

    def _hand_out(self, crew: Crew[_R]) -> Iterator[SlideOutcome[_R]]:
        """Give slides to idle workers; those that other processes have ended meanwhile are given at once."""
        for seat in crew.idle():
            if any(flight.alone and flight.seat.host == seat.host for flight in self._flights.values()):
                continue
            if self._ready:
                self._send(crew, seat, self._ready.popleft())
                continue
            while self._waiting:
                task = self._waiting.popleft()
                outcome = self._claim(task)
                if isinstance(outcome, SlideOutcome):
                    yield outcome
                elif outcome:
                    self._send(crew, seat, task)
                    break
            else:
                if self._alone and not any(one.seat.host == seat.host for one in self._flights.values()):
                    self._send(crew, seat, self._alone.popleft(), alone=True)
        if self._elsewhere and monotonic() > self._look_elsewhere:
            yield from self._see_what_others_ended()
            self._look_elsewhere = monotonic() + _ELSEWHERE_S

    def _claim(self, task: SlideTask) -> SlideOutcome[_R] | bool:
        """True with the claim on a slide; False where another process has it; its outcome where one has ended it."""
        if not self.claims.take(task.slide_id):
            self._elsewhere.append(task)
            return False
        is_failed_before = self.job.ledger.failed_ns(task.slide_id) == self._failed_ns[task.slide_id]
        found = self._ended_before(task, retry_failed=self.retry_failed and is_failed_before)
        if found is None:
            return True
        self.claims.release(task.slide_id)
        return SlideOutcome(task, found, kept=True)

    def _send(self, crew: Crew[_R], seat: Seat, task: SlideTask, *, alone: bool = False) -> None:
        self._flights[task.slide_id] = _Flight(task, seat, monotonic(), alone=alone)
        crew.send(seat, task)

    def _see_what_others_ended(self) -> Iterator[SlideOutcome[_R]]:
        """Give the slides that another process has ended; take over those of one that is dead."""
        for _ in range(len(self._elsewhere)):
            task = self._elsewhere.popleft()
            outcome = self._claim(task)  # where the other one has it still, it goes back
            if isinstance(outcome, SlideOutcome):
                yield outcome
            elif outcome:
                self.claims.release(task.slide_id)
                self._queue_of(task).append(task)

    def _on_progress(self, slide_id: str, stage: str, done: int, total: int) -> None:
        flight = self._flights.get(slide_id)
        if flight is not None:
            if stage != flight.stage:
                flight.stage = stage
                self.claims.note(slide_id, stage)
            self.on_progress(slide_id, stage, done, total)

    def _on_event(self, event: Event[_R]) -> Iterator[SlideOutcome[_R]]:
        if isinstance(event, Ended):
            flight = self._flights.pop(event.slide_id, None)
            if flight is not None:
                yield self._ended(flight.task, event.outcome)
        elif isinstance(event, Begun):
            if event.slide_id in self._flights:
                self._flights[event.slide_id].since, self._flights[event.slide_id].begun = monotonic(), True
        elif isinstance(event, Computed):
            if event.slide_id in self._flights:
                self._on_progress(event.slide_id, "writing", 0, 0)
        else:
            for flight in [one for one in self._flights.values() if one.seat == event.seat]:
                del self._flights[flight.task.slide_id]
                yield from self._on_death(flight, event)

    def _on_death(self, flight: _Flight, died: Died) -> Iterator[SlideOutcome[_R]]:
        """Try a slide again, alone, or let it fail."""
        task, slide_id = flight.task, flight.task.slide_id
        if slide_id not in died.begun:
            (self._alone if flight.alone else self._ready).append(task)
            return
        self.job.ledger.sweep(slide_id)
        found = self._ended_before(task, retry_failed=True)
        self._deaths[slide_id] = self._deaths.get(slide_id, 0) + 1
        if found is None and self._deaths[slide_id] < _ATTEMPTS:
            self._alone.append(replace(task, again=True))
            return
        if found is None:
            made_of = self.job.ledger.made_of(task.inputs)
            found = self.job.ledger.fail_dead(self._failure(flight, flight.killed or died.death), made_of)
        yield self._ended(task, found)

    def _failure(self, flight: _Flight, death: Death) -> Failure:
        reason = f"{death.how}, twice, the second time alone"
        remedy = f"{_REMEDIES[death.cause]}; --retry-failed tries it again"
        return Failure(flight.task.slide_id, flight.task.source, error_stage(flight.stage), reason, remedy)

    def _enforce_limits(self, crew: Crew[_R]) -> None:
        """Kill the workers of slides that pass the limits; time in which this process itself was stopped is not theirs.

        Batch systems suspend all processes of a job, for hours.
        """
        minutes, memory_gb = self.limits.minutes, self.limits.memory_gb
        now = monotonic()
        stopped_s = now - self._looked if now - self._looked > _STOPPED_S else 0.0
        self._looked = now
        for flight in self._flights.values():
            flight.since += min(stopped_s, now - flight.since)
            if flight.killed:
                continue
            allowed_s = 60 * (minutes or math.inf) + (0 if flight.begun else _START_S)
            if now - flight.since > allowed_s:
                flight.killed = Death(f"no result within {in_time(60 * (minutes or 0))}", DeathCause.TIME)
            elif memory_gb is not None and (crew.memory_of(flight.seat) or 0) > memory_gb * _GB:
                how = f"its worker needs more than {memory_gb:g} GB of memory"
                flight.killed = Death(how, DeathCause.MEMORY)
            if flight.killed:
                crew.kill(flight.seat)
