"""The folder of a report: a page a slide and one for the run, each a file that needs no other."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from he2her2.cohort import SlideEngine, SlideTask
from he2her2.errors import EvaluationError
from he2her2.evaluation import WrittenEvaluation
from he2her2.files import check_writable, write_text
from he2her2.report.case import Page, case_page, failed_page
from he2her2.report.cohort import CASES_FOLDER, Row, cohort_page
from he2her2.report.weights import FoundWeights
from he2her2.results import Failure, RunFolder

_INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class WrittenPages:
    """A report on disk.

    Attributes:
        index: Page of the run; None where only some slides were asked for.
        cases: Page of each slide.
        failed: Slides without a result, which have a page too.
        former: Names of pages that were there, of slides that the run has no longer.
    """

    index: Path | None
    cases: dict[str, Path]
    failed: int
    former: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PagesRequest:
    """Run to report on, and what its pages shall hold.

    Attributes:
        run: The run.
        weights: Those of the run.
        evaluation: Of the run, to be shown.
        only: Slides whose pages are made; all slides and the page of the run if empty.
        threads: Slides at a time.
    """

    run: RunFolder
    weights: FoundWeights
    evaluation: WrittenEvaluation | None = None
    only: Collection[str] = ()
    threads: int = 1


def write_pages(asked: PagesRequest, out: Path) -> WrittenPages:
    """Write the pages of a run; those that are there already are replaced.

    Args:
        asked: The run, and what is shown of it.
        out: Folder to write.

    Raises:
        EvaluationError: A slide that is asked for is not in the run, the evaluation is of another run, or the table of
            patients is damaged.
        OutputError: The folder cannot be written.
    """
    run, made = asked.run, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    names = sorted({*run.predictions, *run.segmented, *run.failures})
    if unknown := sorted(set(asked.only) - set(names)):
        raise EvaluationError(f"{run.path}: has no slide {unknown[0]}; see its predictions.csv and failures.csv")
    if asked.evaluation is not None and not asked.evaluation.is_of(run):
        raise EvaluationError(f"{asked.evaluation.folder}: is no evaluation of {run.path}; give its own")
    _ = run.slides_of_patients  # a damaged table of patients is refused before anything is drawn
    check_writable(out)

    def write_case(task: SlideTask) -> Row:
        call = run.predictions.get(task.slide_id)
        if call is not None and task.slide_id not in run.failures and run.evidence(task.slide_id) is None:
            return Row(task.slide_id, "", "", None, None, call)  # of a run that keeps no evidence of its slides
        page = _page(run, task.slide_id, asked.weights, made=made, index="" if asked.only else f"../{_INDEX}")
        write_text(out / CASES_FOLDER / f"{task.slide_id}.html", page.html)
        return Row.of(page, call)

    tasks = [SlideTask(name, Path(name)) for name in names if not asked.only or name in asked.only]
    outcomes = SlideEngine(threads=asked.threads).run(tasks, write_case, stage="pages")
    rows = [
        Row(task.slide_id, "", "", None, found, None)
        if isinstance(found, Failure)
        else found  # its name can name no file
        for task, found in outcomes
    ]
    index = None if asked.only else out / _INDEX
    if index is not None:
        write_text(index, cohort_page(run, rows, asked.weights, asked.evaluation, made=made))
    cases = {row.slide_id: out / CASES_FOLDER / f"{row.slide_id}.html" for row in rows if row.href}
    former = sorted({page.stem for page in (out / CASES_FOLDER).glob("*.html")} - set(names))
    return WrittenPages(index, cases, sum(row.failure is not None for row in rows), tuple(former))


def _page(run: RunFolder, slide_id: str, weights: FoundWeights, **told: object) -> Page:
    """The page of a slide; damaged evidence is a failure like others, which has a page."""
    failure = run.failures.get(slide_id)
    try:
        result = None if failure else run.result(slide_id)
        if result is not None:
            return case_page(run, result, weights, **told)
        reason = "its result in the run is gone"
    except EvaluationError as error:
        reason = str(error)
    missing = Failure(slide_id, "", "evidence", reason, "predict the slide again")
    return failed_page(run, failure or missing, **told)
