"""What a person reads: progress on standard error, answers on standard output, as text or as JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from he2her2.cli.console import say
from he2her2.results.run import Failure, Run
from he2her2.results.slide_result import RESEARCH_USE, Record
from he2her2.timing import StreamTimes

_STAGES = {"focus": "checking focus", "tumour": "finding tumour", "tiles": "scoring tiles"}


class Printer:
    """Progress bars while a terminal watches, and the answer at the end."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._slide = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(_STAGES.get(stage, stage), total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def on_slide(self, path: Path, result: Record | Failure) -> None:
        """Say how a slide of many went."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        if isinstance(result, Failure):
            say(f"{' '.join(path.name.split())}: FAILED ({result.stage}): {result.reason}; {result.remedy}", error=True)
        elif not self._as_json:
            say(f"{result['slide_id']}: {_headline(result)}")

    def slide(self, run: Run, record: Record) -> None:
        """Print one slide's result."""
        if self._as_json:
            say(json.dumps(record, indent=2, ensure_ascii=False))
            return
        area, quality, counts = record["area_mm2"], record["quality"], record["counts"]
        lines = [
            f"{record['slide_id']}: {_headline(record)}",
            f"  tissue   {area['tissue']:.2f} mm² (pen {quality['pen_share']:.1%}, blur {quality['blur_share']:.1%})",
            f"  tumour   {area['tumour']:.2f} mm²",
        ]
        if "status" in record:
            per_score = ", ".join(f"{n} x {score}" for score, n in record["tiles"]["per_score"].items())
            lines.append(f"  tiles    {counts['scored']} scored ({per_score}), {counts['selected']} selected")
        lines += _rules(record)
        lines += _speed([record])
        folder = run.slide_folder(record["slide_id"])
        lines += [f"  evidence {folder}", f"  overlay  {folder / 'overlay.png'}"]
        lines += [f"  warning  {text}" for text in record.get("warnings", [])]
        lines += [f"  NOTICE   {text}" for text in (*record["notices"], RESEARCH_USE)]
        say("\n".join(lines))

    def cohort(self, run: Run) -> None:
        """Print what became of a folder of slides."""
        if self._as_json:
            found = {"slides": run.records, "failures": [asdict(failure) for failure in run.failures]}
            say(json.dumps(found, indent=2, ensure_ascii=False))
            return
        notices = sorted({notice for record in run.records for notice in record["notices"]})
        say(f"{len(run.records)} slides done, {len(run.failures)} failed; tables in {run.folder}")
        for line in _speed(run.records):
            say(line)
        for text in (*notices, RESEARCH_USE):
            say(f"  NOTICE   {text}")


def _rules(record: Record) -> list[str]:
    """What the rules kept beside the weights say of a slide."""
    lines = []
    if "calibrated_probability" in record:
        lines.append(f"  calibrated probability {record['calibrated_probability']:.3f}")
    if point := record.get("operating_point"):
        lines.append(
            f"  threshold chosen to miss at most {100 * point['budget']:.3g} % of positives "
            f"({100 * point['confidence']:.3g} % sure, on {point['chosen_on']})"
        )
    if triage := record.get("triage"):
        lines.append(
            f"  triage   {triage['arm']} (rule out below {triage['rule_out_below']:.3g}, rule in from "
            f"{triage['rule_in_from']:.3g}, on {triage['chosen_on']})"
        )
    return lines


def _speed(records: Sequence[Record]) -> list[str]:
    """How fast tiles were scored, and what limited it; nothing where none were."""
    parts = [record["timing"]["streams"]["tiles"] for record in records if "timing" in record]
    times = sum(map(StreamTimes.of_record, parts), StreamTimes())
    return [f"  speed    {times.in_words()}"] if times.tiles else []


def _headline(record: Record) -> str:
    if "status" not in record:
        return f"tumour {record['area_mm2']['tumour']:.2f} mm² in {record['area_mm2']['usable']:.2f} mm² of tissue"
    return f"HER2 {record['status']}, probability {record['probability']:.3f} (threshold {record['threshold']:g})"
