"""Progress on standard error: a bar while a terminal watches, else a line now and then for a log."""

import sys
import threading
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from he2her2.cli.console import AT_END, say
from he2her2.units import in_time

_LINE_S = 30.0
"""Seconds between two lines of a log, at most."""

_WORDS = {
    "tissue": "finding tissue",
    "focus": "checking focus",
    "tumour": "finding tumour",
    "cut": "cutting tiles",
    "tiles": "scoring tiles",
}


class Pace:
    """Speed at which a number of things gets done, and time that the rest takes."""

    def __init__(self, total: int, done_before: int = 0) -> None:
        """Begin now.

        Args:
            total: How many there are.
            done_before: How many of them needed no work.
        """
        self.total, self.done, self._before = total, done_before, done_before
        self._since = monotonic()

    def in_words(self) -> str:
        """Number done, rate and time left.

        Example:
            >>> Pace(800, 13).in_words()
            '13 of 800'
        """
        n, seconds = self.done - self._before, monotonic() - self._since
        text = f"{self.done} of {self.total}"
        if n <= 0 or self.done >= self.total:
            return text
        return f"{text}, {in_time(seconds * (self.total - self.done) / n)} left"


class WorkProgress:
    """Progress of work that has stages; a context manager.

    A terminal gets a bar for each stage. A log gets a line at least every half minute, even while nothing moves and
    where no stage takes that long.
    """

    def __init__(self, *, line_s: float = _LINE_S) -> None:
        """Begin without a stage.

        Args:
            line_s: Seconds between two lines of a log.
        """
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # above the bars; else it would leave its file or pipe for them
            disable=not sys.stderr.isatty(),
        )
        self._line_s = line_s
        self._due = monotonic() + line_s
        self._tasks: dict[str, TaskID] = {}
        self._stages: dict[str, Pace] = {}
        self._detail = ""
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._pulse: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._ended.clear()
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        self._ended.set()
        if (pulse := self._pulse) is not None:
            pulse.join()
        self._bars.stop()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; one of which there is nothing yet is passed over."""
        if total <= 0:
            return
        if not self._bars.disable:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(_WORDS.get(stage, stage), total=total)
            self._bars.update(self._tasks[stage], completed=done, total=total)
            return
        with self._lock:
            pace = self._stages.get(stage)
            if pace is None or done < pace.done:
                pace = self._stages[stage] = Pace(total, done)
            pace.done, pace.total = done, total
            if done >= total:
                del self._stages[stage]
            elif self._pulse is None:
                self._pulse = threading.Thread(target=self._write_lines, name="progress", daemon=True)
                self._pulse.start()

    def detail(self, text: str) -> None:
        """Say what is going on within the stages."""
        self._detail = text

    def clear(self) -> None:
        """Forget all stages: the next ones are of something else."""
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()
        with self._lock:
            self._stages.clear()

    def _write_lines(self) -> None:
        """Write a line for each stage now and then, as long as there are any."""
        while True:
            has_ended = self._ended.wait(max(0.0, self._due - monotonic()))
            with self._lock:
                lines = [f"{_WORDS.get(stage, stage)}: {pace.in_words()}" for stage, pace in self._stages.items()]
                if has_ended or not lines:
                    self._pulse = None
                    return
            self._due = monotonic() + self._line_s
            detail = f"; {self._detail}" if self._detail else ""
            for line in lines:
                say(f"{line}{detail}", error=True)


class Stages:
    """Progress of a training's stages, gone when a stage is done: then Lightning has the terminal to itself."""

    def __init__(self) -> None:
        self._stage = ""
        self._show = WorkProgress()
        AT_END.callback(self._stop)  # a stage that fails is never reported as done

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage, in the first of several processes."""
        from he2her2.training import is_first_process

        if not is_first_process() or not total:
            return
        if stage != self._stage:
            self._stop()
            self._stage = stage
            self._show.__enter__()
        self._show.progress(stage, done, total)
        if done >= total:
            self._stop()

    def _stop(self) -> None:
        if self._stage:
            self._show.__exit__(None, None, None)
        self._stage = ""
