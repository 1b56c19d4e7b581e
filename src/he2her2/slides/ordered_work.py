"""Numbered jobs done by symmetric threads, delivered in order, a few ahead of their consumer."""

from collections.abc import Callable, Generator
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class _Board(Generic[T]):
    """What workers and consumer share; it refers to neither, so that a forgotten consumer is collected, and stops."""

    def __init__(self, n_jobs: int, ahead: int) -> None:
        self.n_jobs = n_jobs
        self.ahead = ahead
        self.changed = Condition()
        self.started = 0
        self.delivered = 0
        self.stopped = False
        self.results: dict[int, T | BaseException] = {}

    def next_job(self) -> int | None:
        """The next job, once the consumer is near enough; None when there is nothing left to do."""
        with self.changed:
            while not self.stopped and self.started < self.n_jobs and self.started >= self.delivered + self.ahead:
                self.changed.wait()
            if self.stopped or self.started >= self.n_jobs:
                return None
            self.started += 1
            return self.started - 1

    def put(self, job: int, result: T | BaseException) -> None:
        with self.changed:
            self.results[job] = result
            self.stopped |= isinstance(result, BaseException)
            self.changed.notify_all()

    def take(self, job: int) -> T | BaseException:
        with self.changed:
            while job not in self.results:
                self.changed.wait()
            self.delivered = job + 1
            self.changed.notify_all()
            return self.results.pop(job)

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def in_order(work: Callable[[int], T], n_jobs: int, *, threads: int) -> Generator[T, None, None]:
    """Yield `work(0)`, `work(1)`, ... computed by `threads` threads, at most `threads` + 1 jobs ahead.

    An exception in `work` is raised here, after all results before it; in any case, also when the consumer stops
    early, no thread is left behind.

    Args:
        work: Called once for each number, from several threads at once; must not return an exception.
        n_jobs: How many numbers there are.
        threads: Workers, at least 1.
    """
    board: _Board[T] = _Board(n_jobs, threads + 1)
    workers = [Thread(target=_labour, args=(board, work), daemon=True, name=f"tiles-{i}") for i in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for job in range(n_jobs):
            result = board.take(job)
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        board.stop()
        for worker in workers:
            if worker.ident is not None:
                worker.join()


def _labour(board: _Board[T], work: Callable[[int], T]) -> None:
    while (job := board.next_job()) is not None:
        try:
            result: T | BaseException = work(job)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the results are consumed
            result = error
        board.put(job, result)
