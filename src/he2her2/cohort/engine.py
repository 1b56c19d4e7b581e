"""The one loop over slides: a task goes to a worker and comes back as a result or a failure.

A task is small and picklable. A worker holds what all slides need, opened networks as a rule, and turns a task into a
product. A ledger knows which tasks are done. Nothing here knows what a product is: predictions, bags of tiles, patches,
verdicts and thumbnails all take this way, and nothing in it depends on the process that a worker runs in.
"""

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias, TypeVar, overload

from he2her2.cohort.ledger import Ledger
from he2her2.errors import AnnotationError, ManifestError, OutputError, SlideError
from he2her2.manifest import SlideRow
from he2her2.preprocessing import Annotation, read_annotation
from he2her2.results import Failure, FileStamp, SlideInputs
from he2her2.timing import Progress, silent

_P = TypeVar("_P")
_R = TypeVar("_R")

_MAX_NAME_BYTES = 200  # file systems allow 255, and drafts have longer names than results


@dataclass(frozen=True, slots=True)
class SlideTask:
    """One slide to be worked on.

    Attributes:
        slide_id: Its name.
        path: Its file.
        mpp: µm per level-0 px, over what the file says.
        annotations: File of its annotated regions.
    """

    slide_id: str
    path: Path
    mpp: float | None = None
    annotations: Path | None = None

    @classmethod
    def of_row(cls, row: SlideRow) -> Self:
        """The task of a manifest's row."""
        return cls(row.slide_id, row.path, row.mpp, row.annotations)

    def read_annotation(self, chosen: Sequence[str] = ()) -> Annotation | None:
        """Its annotated regions; None where it has no file of them.

        Args:
            chosen: Classes that are tumour; by their names if empty.

        Raises:
            AnnotationError: They cannot be used.
        """
        return None if self.annotations is None else read_annotation(self.annotations, chosen, self.path)

    @property
    def inputs(self) -> SlideInputs:
        """The files as they are now, to notice when they change."""
        annotations = None if self.annotations is None else FileStamp.of(self.annotations)
        return SlideInputs(str(self.path.absolute()), FileStamp.of(self.path), annotations, self.mpp)


Worker: TypeAlias = Callable[[SlideTask], _P]
"""From a task to what it makes of the slide; raises `SlideError` or `AnnotationError` where it can make nothing."""

TaskOutcome: TypeAlias = tuple[SlideTask, _R | Failure]
"""A task and what became of it."""


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
        if problem := _name_problem(task.slide_id):
            return Failure(task.slide_id, str(task.path), SlideError.stage, problem, "rename the slide")
        if ledger is None:
            return self._work(task, worker)
        made_of = ledger.made_of(task.inputs)
        kept = self._work(task, lambda task: ledger.find(task.slide_id, made_of))
        if kept is not None:
            return kept
        product = self._work(task, worker)
        if not isinstance(product, Failure):
            return ledger.keep(task.slide_id, made_of, product)
        if product.stage != SlideError.stage:  # where it cannot even be opened, it may not be the slide that was kept
            ledger.discard(task.slide_id)
        return product

    def _work(self, task: SlideTask, worker: Worker[_P]) -> _P | Failure:
        """Let the worker try; whatever stops it but the place for results becomes a failure."""
        try:
            return worker(task)
        except SlideError as error:
            return Failure(task.slide_id, str(task.path), error.stage, error.reason, error.remedy)
        except AnnotationError as error:
            reason, _, remedy = str(error).rpartition("; ")
            if not reason:
                reason, remedy = remedy, "give its regions, or go on without annotations"
            return Failure(task.slide_id, str(task.path), "annotations", reason, remedy)
        except OutputError:
            raise
        except Exception as error:
            if self.log is None:
                raise
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{task.path}\n{traceback.format_exc()}\n")
            reason = f"{type(error).__name__}: {error}"
            return Failure(
                task.slide_id, str(task.path), "internal", reason, f"this is our bug; please report {self.log}"
            )


def _name_problem(slide_id: str) -> str | None:
    """Reason why a slide's name cannot name its folder of results; None where it can."""
    if slide_id.startswith(".") or not slide_id or {"/", "\\", "\0"} & set(slide_id):
        return f"its name, {slide_id!r}, cannot name a folder"
    n_bytes = len(os.fsencode(slide_id))
    if n_bytes > _MAX_NAME_BYTES:
        return f"its name has {n_bytes} bytes, more than the {_MAX_NAME_BYTES} that a folder's may have here"
    return None


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
