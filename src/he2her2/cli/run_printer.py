"""Printed output of a run of many slides: each slide as it ends, and the summary."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from he2her2.cli.console import say, say_json, say_line
from he2her2.cli.printer import DOMAIN_UNKNOWN, patients_in_words, unjoined_in_words, unlike, uses_in_words
from he2her2.cli.progress import WorkProgress
from he2her2.cohort import SlideOutcome
from he2her2.results import RESEARCH_USE_NOTICE, Failure, Run, SlideResult, result_to_record
from he2her2.timing import StreamTimes

_RUNNING_SHOWN = 4


@dataclass(slots=True)
class RunPrinter:
    """Prints slides as they end, and holds of each only what the summary needs.

    Attributes:
        run: The run.
        n_slides: Slides of this command.
        show: Its progress.
        as_json: Print one JSON document at the end, in place of text.
    """

    run: Run
    n_slides: int
    show: WorkProgress
    as_json: bool = False
    done: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    _n_kept: int = 0
    _n_failed_before: int = 0
    _told_kept: bool = False
    _running: dict[str, str] = field(default_factory=dict)
    _notices: set[str] = field(default_factory=set)
    _uses: Counter[str] = field(default_factory=Counter)
    _calls: dict[str, set[str]] = field(default_factory=dict)
    _n_unchecked: int = 0
    _times: StreamTimes = field(default_factory=StreamTimes)

    def on_progress(self, slide_id: str, stage: str, done: int, total: int) -> None:
        """Note how far a slide is; meanwhile the tables catch up with those that have ended."""
        self.run.tables.write_when_due()
        self._say_kept()
        share = f" {done / total:.0%}".replace("%", " %") if total else ""
        self._running[slide_id] = f"{slide_id} {stage}{share}"
        self.show.detail("; ".join(list(self._running.values())[:_RUNNING_SHOWN]))
        self.show.progress("slides", self._n_ended, self.n_slides)

    def on_slide(self, outcome: SlideOutcome[SlideResult]) -> None:
        """Print the outcome of a slide; of those that were kept only their number."""
        found = outcome.found
        self._running.pop(outcome.task.slide_id, None)
        if isinstance(found, Failure):
            self.failures.append(found)
            self._n_failed_before += outcome.kept
        else:
            self.done.append(found.slide_id)
            self._n_kept += outcome.kept
            self._count(found)
        if not outcome.kept:
            self._say_kept()
            self._say_outcome(outcome.task.path, found)
            self.show.progress("slides", self._n_ended, self.n_slides)

    def summary(self) -> None:
        """Print the end of the run."""
        self._say_kept()
        if self.as_json:
            slides = [result_to_record(self.run.slides.load(slide_id)) for slide_id in sorted(self.done)]
            failures = sorted(self.failures, key=lambda failure: failure.slide_id)
            say_json({"slides": slides, "failures": [asdict(one) for one in failures]})
            return
        kept = f" ({self._n_kept} of them before)" if self._n_kept else ""
        before = f" ({self._n_failed_before} of them before)" if self._n_failed_before else ""
        say(f"{len(self.done)} slides done{kept}, {len(self.failures)} failed{before}; tables in {self.run.folder}")
        if patients := self.run.tables.patients:
            say(f"  patients {patients_in_words(patients)}")
        if differ := sorted(patient for patient, found in self._calls.items() if len(found) > 1):
            say(f"  patients {unjoined_in_words(differ)}")
        if self._n_unchecked:
            say(f"  domain   {DOMAIN_UNKNOWN}")
        if self._uses:
            say(f"  regions  {uses_in_words(self._uses, len(self.done))}")
        if self._times.tiles:
            say(f"  speed    {self._times.in_words()}")
        for text in (*sorted(self._notices), RESEARCH_USE_NOTICE):
            say(f"  NOTICE   {text}")

    @property
    def _n_ended(self) -> int:
        return len(self.done) + len(self.failures)

    def _count(self, result: SlideResult) -> None:
        patient = self.run.tables.patient_of.get(result.slide_id)
        if patient and result.her2 is not None and self.run.tables.rules is None:
            self._calls.setdefault(patient, set()).add(str(result.her2.call))
        self._n_unchecked += result.her2 is not None and result.likeness is None
        self._notices.update(result.notices)
        self._uses.update(f"{name}: {use}" for name, use in result.annotations.items())
        if "tiles" in result.timing.streams:
            self._times += result.timing.streams["tiles"].times

    def _say_kept(self) -> None:
        """Say once what an earlier command left, which comes first."""
        if self._told_kept:
            return
        self._told_kept = True
        if self._n_kept and not self.as_json:
            say(f"kept from before: {self._n_kept} of {self.n_slides} slides")
        if self._n_failed_before:
            say(f"failed before, not tried again without --retry-failed: {self._n_failed_before}", error=True)

    def _say_outcome(self, path: Path, found: SlideResult | Failure) -> None:
        if isinstance(found, Failure):
            name = " ".join(path.name.split())
            evidence = f"; see {self.run.folder / found.evidence}" if found.evidence else ""
            say_line(f"{name}: FAILED ({found.stage}): {found.reason}; {found.remedy}{evidence}")
        elif not self.as_json:
            say(f"{found.slide_id}: {unlike(found, short=True)}{found.headline}")
            for text in found.annotation_warnings:
                say(f"{found.slide_id}: CAUTION {text}", error=True)
