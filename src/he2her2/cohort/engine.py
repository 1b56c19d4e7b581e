"""The loop over slides in this process: a task goes to a worker and comes back as a result or a failure, in order.

A task is small and picklable. A worker holds what all slides need, opened networks as a rule, and turns a task into a
product. A ledger knows which tasks are done. Nothing here knows what a product is: predictions, bags of tiles, patches,
verdicts and thumbnails all take this way. Runs of many slides go through `supervisor`, which spreads the same attempts
over processes and machines.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, overload

from he2her2.cohort.attempt import SlideAttempt, unnamable, work_on
from he2her2.cohort.ledger import Ledger
from he2her2.cohort.remote_slides import on_this_machine
from he2her2.cohort.tasks import SlideTask, TaskOutcome, Worker
from he2her2.errors import ManifestError, OutputError, SlideError
from he2her2.files import url_of
from he2her2.manifest import SlideRow
from he2her2.results import Failure
from he2her2.timing import Progress, silent

_P = TypeVar("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class SlideEngine:
    """Works through slides in this process; a slide that fails becomes a `Failure` and never stops the others.

    Attributes:
        progress: Called after each slide with the name of the work, the number of slides done and their total.
        threads: Slides at a time, for work that waits for files rather than computes.
        log: File that takes the traceback of an error of our own; None lets such an error stop the loop.
    """

    progress: Progress = silent
    threads: int = 1
    log: Path | None = None

    @overload
    def run(self, tasks: Sequence[SlideTask], worker: Worker[_R], *, stage: str = ...) -> Iterator[TaskOutcome[_R]]: ...

    @overload
    def run(
        self, tasks: Sequence[SlideTask], worker: Worker[_P], ledger: Ledger[_P, _R], *, stage: str = ...
    ) -> Iterator[TaskOutcome[_R]]: ...

    def run(
        self,
        tasks: Sequence[SlideTask],
        worker: Worker[_P],
        ledger: Ledger[_P, _R] | None = None,
        *,
        stage: str = "slides",
    ) -> Iterator[TaskOutcome[_P | _R]]:
        """Give each task with its result or failure, in the order of the tasks.

        Args:
            tasks: One a slide.
            worker: Makes the product of a task; with several threads they call it at once.
            ledger: Keeps products; a task that it has is not worked on again. None keeps nothing.
            stage: Name of the work, for `progress`.

        Raises:
            OutputError: Results cannot be written.
        """

        def outcome(task: SlideTask) -> _P | _R | Failure:
            return self._attempt(task, worker, ledger)

        with ThreadPoolExecutor(self.threads) if self.threads > 1 else nullcontext() as pool:
            outcomes = map(outcome, tasks) if pool is None else pool.map(outcome, tasks)
            for n_done, (task, found) in enumerate(zip(tasks, outcomes, strict=True), start=1):
                self.progress(stage, n_done, len(tasks))
                yield task, found

    def _attempt(self, task: SlideTask, worker: Worker[_P], ledger: Ledger[_P, _R] | None) -> _P | _R | Failure:
        """The result that the ledger has of a task, or else that of the worker."""
        if failure := unnamable(task):
            return failure
        if url_of(task.path) is not None:
            worker = _fetching(worker)
        try:
            if ledger is None:
                return work_on(task, worker, self.log)[0]
            kept, _ = work_on(task, ledger.find_of, self.log)
            return SlideAttempt(worker, ledger, self.log)(task) if kept is None else kept
        except MemoryError as error:
            reason = f"there is not enough memory for it{f' ({error})' if str(error) else ''}"
            return Failure(task.slide_id, task.source, SlideError.stage, reason, "give the command more memory")


def _fetching(worker: Worker[_P]) -> Worker[_P]:
    """A worker that has the file of a remote slide on this machine while it works."""

    def work(task: SlideTask) -> _P:
        with _temporary_folder() as folder, on_this_machine(task, Path(folder)) as local:
            return worker(local)

    return work


def _temporary_folder() -> TemporaryDirectory[str]:
    """A folder for a fetched slide.

    Raises:
        OutputError: The system has no place for one.
    """
    try:
        return TemporaryDirectory(prefix="he2her2-")
    except OSError as error:
        reason = f"no temporary folder for fetched slides can be written ({error.strerror})"
        raise OutputError(f"{reason}; name a writable folder in TMPDIR") from None


def require_all(rows: Sequence[SlideRow], outcomes: Iterable[TaskOutcome[_R]], problem: str) -> list[_R]:
    """The results of all rows, in order.

    Args:
        rows: Of a manifest.
        outcomes: What became of the tasks of these rows.
        problem: Of the slides that failed, such as "slides give no patches".

    Raises:
        ManifestError: Every slide that failed, with its line, the reason and the remedy.
    """
    results, failures = [], []
    for row, (_, found) in zip(rows, outcomes, strict=True):
        if isinstance(found, Failure):
            failures.append(f"line {row.line}: {found}")
        else:
            results.append(found)
    if failures:
        raise ManifestError([f"{len(failures)} of {len(rows)} {problem}", *failures])
    return results
