"""The page of a run: what was called, what failed, and a table of all slides to sort and filter."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from he2her2.evaluation import WrittenEvaluation
from he2her2.pages import render
from he2her2.report.case import Page
from he2her2.report.pictures import svg_uri
from he2her2.report.weights import FoundWeights
from he2her2.results import Failure, PredictedSlide, RunFolder, RunPatient, SlideResult
from he2her2.rules import Arm

CASES_FOLDER = "cases"
_PEN_OR_BLUR = 0.2
_DOT_ROWS = 40


@dataclass(frozen=True, slots=True)
class Row:
    """A slide in the table.

    Attributes:
        slide_id: Its name.
        href: Of its page, from the cohort's.
        thumbnail: Small picture; empty where the slide cannot be read.
        result: Its result; None where it failed, or the run keeps no evidence of its slides.
        failure: Why it failed; None where it has a result.
        call: Its row in `predictions.csv`; None where it was not called.
    """

    slide_id: str
    href: str
    thumbnail: str
    result: SlideResult | None
    failure: Failure | None
    call: PredictedSlide | None

    @classmethod
    def of(cls, page: Page, call: PredictedSlide | None) -> "Row":
        """The row of a page."""
        result = page.outcome if isinstance(page.outcome, SlideResult) else None
        failure = page.outcome if isinstance(page.outcome, Failure) else None
        return cls(page.slide_id, _case_href(page.slide_id), page.thumbnail, result, failure, None if failure else call)

    @property
    def unlike(self) -> bool:
        """True if the slide is unlike the training slides."""
        return self.result is not None and self.result.likeness is not None and self.result.likeness.unlike

    @property
    def spoilt(self) -> bool:
        """True if much of its tissue is under ink or out of focus, or tiles cannot be decoded."""
        if self.result is None:
            return False
        quality = self.result.quality
        return max(quality.pen_share, quality.blur_share) > _PEN_OR_BLUR or self.result.counts.unreadable > 0

    @property
    def kinds(self) -> str:
        """Words by which the table is filtered."""
        if self.failure is not None:
            return "failed"
        status = "" if self.call is None else "refer" if self.call.triage == Arm.REFER else str(self.call.status)
        found = (status, "unlike" * self.unlike, "quality" * self.spoilt)
        return " ".join(word for word in found if word)


@dataclass(frozen=True)
class Cohort:
    """Content of the page.

    Attributes:
        run: The run.
        rows: Its slides, by name.
        weights: Those of the run.
        evaluation: Of the run, if one is shown.
    """

    run: RunFolder
    rows: tuple[Row, ...]
    weights: FoundWeights
    evaluation: WrittenEvaluation | None

    @cached_property
    def results(self) -> list[SlideResult]:
        """Of the slides that have one."""
        return [row.result for row in self.rows if row.result is not None]

    @cached_property
    def hrefs(self) -> Mapping[str, str]:
        """Address of the page of each slide that has one; a name may be too long for a file."""
        return {row.slide_id: row.href for row in self.rows if row.href}

    @cached_property
    def counts(self) -> Counter[str]:
        """Slides of each kind by which the table is filtered."""
        return Counter(kind for row in self.rows for kind in row.kinds.split())

    @cached_property
    def arms(self) -> Counter[str]:
        """Slides in each arm of the triage."""
        return Counter(row.call.triage for row in self.called if row.call is not None and row.call.triage)

    @cached_property
    def patients(self) -> list[RunPatient]:
        """Those on whom the stored rules decided."""
        return [patient for patient in self.run.slides_of_patients.values() if patient.result is not None]

    @cached_property
    def patient_calls(self) -> Counter[str]:
        """Patients by arm of the triage, or by status where there is none; "no result" where no slide has one."""
        found = [one.result for one in self.patients if one.result is not None]
        return Counter(str(one.triage or one.status or "no result") for one in found)

    @cached_property
    def called(self) -> list[Row]:
        """The slides that were called."""
        return [row for row in self.rows if row.call is not None]

    @cached_property
    def failures(self) -> Mapping[str, list[Failure]]:
        """Slides that failed, by stage, the most frequent first."""
        failed = [row.failure for row in self.rows if row.failure is not None]
        stages = Counter(failure.stage for failure in failed)
        return {stage: [one for one in failed if one.stage == stage] for stage, _ in stages.most_common()}

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """Notices of weights and slides, each once."""
        of_results = (notice for result in self.results for notice in result.notices)
        return tuple(dict.fromkeys((*of_results, *self.run.notices)))

    @cached_property
    def thresholds(self) -> list[float]:
        """From which slides were called positive: one, unless the run was made in parts."""
        return sorted({row.call.threshold for row in self.called if row.call is not None})

    @cached_property
    def dots(self) -> list[tuple[float, int, Row]]:
        """Probability, height in a stack, and slide, of each slide that was called."""
        stacks: Counter[int] = Counter()
        found = []
        for row in self.called:
            assert row.call is not None
            column = int(row.call.probability * 100)
            found.append((row.call.probability, min(stacks[column], _DOT_ROWS), row))
            stacks[column] += 1
        return found


def _case_href(slide_id: str) -> str:
    """Address of a slide's page, from the cohort's."""
    return f"{CASES_FOLDER}/{quote(slide_id)}.html"


def cohort_page(
    run: RunFolder,
    pages: Sequence[Row],
    weights: FoundWeights,
    evaluation: WrittenEvaluation | None,
    **told: object,
) -> str:
    """The page of a run.

    Args:
        run: The run.
        pages: Its slides.
        weights: Those of the run.
        evaluation: Of the run, to be shown.
        told: What the template shows beside the cohort: when the page was made.
    """
    cohort = Cohort(run, tuple(sorted(pages, key=lambda row: row.slide_id)), weights, evaluation)
    plots = {} if evaluation is None else {name: svg_uri(svg) for name, svg in evaluation.plots.items()}
    return render("cohort.html", cohort=cohort, plots=plots, **told)
