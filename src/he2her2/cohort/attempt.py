"""One attempt at one slide: the same in this process, in a worker process and on another machine."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from he2her2.cohort.ledger import Ledger
from he2her2.cohort.tasks import SlideTask, Worker
from he2her2.errors import AnnotationError, OutputError, SlideError
from he2her2.results import Failure, MadeOf

_P = TypeVar("_P")
_R = TypeVar("_R")

_ERROR_STAGES = {"": "open", "focus": "tissue", "cut": "tiling", "tiles": "scoring"}


class UnfinishedSlideError(Exception):
    """Error of a worker in place of a slide's error: it hands over what was found until then.

    Attributes:
        error: The slide's error.
        findings: For `ResultStore.write_unfinished`.
    """

    def __init__(self, error: SlideError | AnnotationError, findings: object) -> None:
        super().__init__(str(error))
        self.error = error
        self.findings = findings


@dataclass(frozen=True, slots=True)
class Product(Generic[_P]):
    """Product of a worker from a slide, before it is kept.

    Attributes:
        made_of: All that it depends on, as it was before the work began.
        made: The product itself, or the reason why there is none.
        findings: Evidence of a slide that failed.
    """

    made_of: MadeOf
    made: _P | Failure
    findings: object | None = None


@dataclass(frozen=True, slots=True)
class SlideAttempt(Generic[_P, _R]):
    """Works on a slide, and keeps the result or the reason why there is none.

    Attributes:
        worker: Makes the product.
        ledger: Keeps it.
        log: File that takes the traceback of an error of our own; None lets such an error pass.
    """

    worker: Worker[_P]
    ledger: Ledger[_P, _R]
    log: Path | None = None

    def __call__(self, task: SlideTask) -> _R | Failure:
        """Do all of it, one after the other.

        Raises:
            OutputError: The result cannot be written.
        """
        return self.keep(task, self.make(task))

    def make(self, task: SlideTask) -> Product[_P]:
        """Let the worker try; whatever stops it but the place for results becomes a failure."""
        made_of = self.ledger.made_of(task.inputs)
        return Product(made_of, *work_on(task, self.worker, self.log))

    def keep(self, task: SlideTask, product: Product[_P]) -> _R | Failure:
        """Write the product, unless another process has done so meanwhile; or the failure with its evidence."""
        made = product.made
        if isinstance(made, Failure):
            return self.ledger.fail(made, product.made_of, product.findings)
        kept, _ = work_on(task, lambda task: self._keep(task, product.made_of, made), self.log)
        return self.ledger.fail(kept, product.made_of) if isinstance(kept, Failure) else kept

    def _keep(self, task: SlideTask, made_of: MadeOf, made: _P) -> _R:
        kept = self.ledger.find(task.slide_id, made_of)
        return self.ledger.keep(task.slide_id, made_of, made) if kept is None else kept


def work_on(task: SlideTask, worker: Worker[_P], log: Path | None) -> tuple[_P | Failure, object | None]:
    """Let a worker try; whatever stops it but the place for results becomes a failure.

    Args:
        task: The slide.
        worker: Makes something of it.
        log: File that takes the traceback of an error of our own; None lets such an error pass.

    Returns:
        What it made, or the failure with the evidence that there is.

    Raises:
        OutputError: Results cannot be written.
        MemoryError: There is not enough memory.
    """
    try:
        return worker(task), None
    except (SlideError, AnnotationError) as error:
        return failure_of(task, error), None
    except UnfinishedSlideError as unfinished:
        return failure_of(task, unfinished.error), unfinished.findings
    except (OutputError, MemoryError):
        raise
    except Exception as error:
        if log is None:
            raise
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{task.path}\n{traceback.format_exc()}\n")
        reason = f"{type(error).__name__}: {error}"
        return Failure(task.slide_id, task.source, "internal", reason, f"this is our bug; please report {log}"), None


def failure_of(task: SlideTask, error: SlideError | AnnotationError) -> Failure:
    """The failure of a slide by an error."""
    if isinstance(error, SlideError):
        return Failure(task.slide_id, task.source, error.stage, error.reason, error.remedy)
    reason, _, remedy = str(error).rpartition("; ")
    if not reason:
        reason, remedy = remedy, "give its regions, or go on without annotations"
    return Failure(task.slide_id, task.source, "annotations", reason, remedy)


def error_stage(stage: str) -> str:
    """Stage of a watch as slides' errors name it.

    Example:
        >>> error_stage("tiles"), error_stage("tumour")
        ('scoring', 'tumour')
    """
    return _ERROR_STAGES.get(stage, stage)


def unnamable(task: SlideTask) -> Failure | None:
    """The failure of a slide whose name cannot name its results; None where it can."""
    if problem := task.name_problem:
        return Failure(task.slide_id, task.source, SlideError.stage, problem, "rename the slide")
    return None
