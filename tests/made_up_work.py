"""Work on slides that do not exist, by workers that go wrong as their slide's file tells them."""

import ctypes
import json
import os
import signal
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from he2her2.cohort import Claims, Ledger, Limits, LocalWorkers, SlideJob, SlideTask, Supervisor, ThisProcess
from he2her2.errors import OutputError, TissueError
from he2her2.files import digest, read_json, write_json
from he2her2.results import Failure, FailureRecords
from he2her2.timing import Progress, silent


@dataclass(frozen=True, slots=True)
class Shelf:
    """A store of words: a JSON file for each slide."""

    folder: Path

    def read(self, slide_id, made_of):
        """The words, if they were made of the same."""
        try:
            found = read_json(self._file(slide_id))
        except (OSError, ValueError):
            return None
        return found["words"] if found["made_of"] == digest(made_of) else None

    def write(self, slide_id, made_of, product):
        """Keep the words."""
        write_json(self._file(slide_id), {"made_of": digest(made_of), "words": product})
        return product

    def discard(self, slide_id):
        """Forget them."""
        self._file(slide_id).unlink(missing_ok=True)

    def write_unfinished(self, failure, findings):
        """Nothing is found on such slides."""
        del failure, findings
        return ""

    def unfinished(self, slide_id):
        """Neither on those whose worker died."""
        del slide_id
        return ""

    def sweep(self, slide_id):
        """Remove drafts."""
        for draft in self.folder.glob(f".draft-*.{slide_id}.json"):
            draft.unlink()

    def _file(self, slide_id):
        return self.folder / f"{slide_id}.json"


@dataclass(frozen=True, slots=True)
class OpenReader:
    """Request for a `Reader`."""

    def __call__(self, progress=silent, *, threads=None):
        """Open one."""
        del threads
        return Reader(progress)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a slide's file, which says what goes wrong; notes each attempt beside it."""

    progress: Progress

    def __call__(self, task: SlideTask) -> str:
        """The words of the file in capitals."""
        words = task.path.read_text()
        with task.path.with_suffix(".attempts").open("a") as file:
            file.write(f"{os.getpid()}\n")
        attempt = len(task.path.with_suffix(".attempts").read_text().splitlines())
        self.progress("tiles", 1, 2)
        _end_process(words, attempt)
        if words == "needs more":
            raise MemoryError
        if words == "gpu":
            return os.environ["CUDA_VISIBLE_DEVICES"]
        if words == "hangs":
            time.sleep(600)
        if words == "eats":
            hoard = bytearray(400_000_000)
            time.sleep(600)
            del hoard
        if words == "blank":
            raise TissueError(task.slide_id, "blank", "scan it")
        if words == "full":
            raise OutputError("the disk is full")
        if words.startswith("slow"):
            time.sleep(float(words.split()[1]))
        return words.upper()


def _end_process(words: str, attempt: int) -> None:
    """End this process if the words say so, in the ways of systems and libraries."""
    if words == "dies" or (words == "dies once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if words == "aborts":
        os.abort()
    if words == "crashes":
        ctypes.string_at(0)


def write_slides(folder: Path, **words: str) -> list[SlideTask]:
    """Files by the slides' names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in words.items():
        (folder / f"{name}.svs").write_text(text.replace("_", " "))
    return [SlideTask(name, folder / f"{name}.svs") for name in words]


def attempts_at(task: SlideTask) -> int:
    """Number of times that a worker began a slide."""
    try:
        return len(task.path.with_suffix(".attempts").read_text().splitlines())
    except FileNotFoundError:
        return 0


def job_in(run: Path) -> SlideJob[str, str]:
    """The work in a run's folder."""
    run.mkdir(parents=True, exist_ok=True)
    return SlideJob(OpenReader(), Ledger(Shelf(run / "slides"), "x", FailureRecords(run)), run / "errors.log")


def alone(job, n, report):
    """A crew of this process."""
    assert n
    return ThisProcess(job, report)


def supervise(
    run: Path, tasks, workers=2, limits=None, crew=None, stop_after=None, **options
) -> dict[str, str | Failure]:
    """Work through slides; gives results and failures by slide."""
    make = crew or (lambda job, n, report: LocalWorkers(job, min(n, workers), report))
    with ExitStack() as stack:
        claims = stack.enter_context(Claims(run))
        supervisor = Supervisor(job_in(run), make, claims, limits or Limits(), **options)
        outcomes = stack.enter_context(closing(supervisor.run(tasks)))
        return {outcome.task.slide_id: outcome.found for outcome in islice(outcomes, stop_after)}


def left_over(run: Path) -> list[str]:
    """Drafts and claims that are left in a run."""
    return sorted(
        str(path.relative_to(run)) for path in run.rglob("*") if ".draft" in path.name or "claims" in str(path)
    )


def kept(run: Path) -> dict[str, str]:
    """The words that a run has."""
    return {file.stem: json.loads(file.read_text())["words"] for file in (run / "slides").glob("*.json")}
