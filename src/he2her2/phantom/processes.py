"""Worker processes that draw, and end at once with the command that they draw for."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context


def _nothing() -> None:
    """Prepare nothing."""


def _start(prepare: Callable[..., None], *arguments: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: ours ends the others
    prepare(*arguments)


@contextmanager
def drawing_processes(
    workers: int, prepare: Callable[..., None] = _nothing, *arguments: object
) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of processes. Threads would wait for each other: most of the work holds the interpreter.

    Whatever ends the block early ends them in mid-slide; what they were writing is a draft, which is swept at the next
    writing there.

    Args:
        workers: Number of processes.
        prepare: Called in each before its first task.
        *arguments: Of `prepare`.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=partial(_start, prepare, *arguments))
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
