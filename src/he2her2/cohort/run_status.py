"""Progress of a run, read from its folder alone: whoever works on it, and on whatever machine."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import time

from he2her2.cohort.claims import Claim, commands_at_work, is_running, read_claims
from he2her2.errors import EvaluationError
from he2her2.results import (
    FAILURES_FILE,
    PREDICTION,
    SEGMENTATION,
    FailureRecords,
    SlideFolders,
    read_description,
    read_failures,
    read_planned,
    refuse_other_folder,
    slides_with_result,
)
from he2her2.timing import StreamTimes
from he2her2.units import in_time

_SAMPLE = 20
"""Newest slides whose times are added up."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Progress of a run.

    Attributes:
        n_planned: Slides that its commands were given.
        n_done: Slides with a result.
        failed: Slides that failed, by stage.
        running: Slides that are being worked on.
        has_command: Whether a command is there that works on slides, or is about to.
        lost: Slides whose process is dead; the same command takes them up again.
        seconds: Since its last command began; None where nobody knows, or the clock of its machine is ahead.
        n_recent: Slides that have ended since.
        bottleneck: Where the time of the newest slides went, in words; empty where none has ended.
    """

    n_planned: int
    n_done: int
    failed: dict[str, int]
    running: tuple[Claim, ...]
    has_command: bool
    lost: tuple[Claim, ...]
    seconds: float | None
    n_recent: int
    bottleneck: str

    @property
    def n_failed(self) -> int:
        """Slides that failed."""
        return sum(self.failed.values())

    @property
    def n_left(self) -> int:
        """Slides that have not ended."""
        return max(0, self.n_planned - self.n_done - self.n_failed)

    @property
    def slides_per_hour(self) -> float | None:
        """Rate since the last command began; None where nothing has ended or nobody works."""
        if not self.running or not self.n_recent or not self.seconds:
            return None
        return 3600 * self.n_recent / self.seconds

    @property
    def seconds_left(self) -> float | None:
        """Until all have ended, at that rate; None where it is unknown."""
        rate = self.slides_per_hour
        return 3600 * self.n_left / rate if rate and self.n_left else None

    @property
    def state(self) -> str:
        """State: running, also where failed slides are tried again; finished, or stopped before its end."""
        if self.running or self.has_command:
            return "running"
        return "stopped" if self.n_left else "finished"

    @property
    def line(self) -> str:
        """All in a line, for a log."""
        parts = [f"{self.n_done + self.n_failed} of {self.n_planned} slides", self.state, f"{self.n_failed} failed"]
        if self.running:
            parts.append(f"{len(self.running)} being worked on")
        if self.slides_per_hour is not None:
            parts.append(f"{self.slides_per_hour:.3g} slides an hour")
        if self.seconds_left is not None:
            parts.append(f"{in_time(self.seconds_left)} left")
        return ", ".join(parts)


def read_status(run: Path) -> RunStatus:
    """Read how far a run is.

    Raises:
        EvaluationError: The folder holds no run of many slides.
    """
    refuse_other_folder(run)
    planned, failed = read_planned(run), read_failures(run / FAILURES_FILE)
    done = slides_with_result(run)
    ends = _ends(run)
    known = ends.keys() & planned.keys() if planned else ends.keys()  # others are of a run whose folder was taken over
    for slide_id in known - done - failed.keys():  # since the tables were written
        done |= {slide_id} if _has_result(run, slide_id) else set()
    if not planned and not done and not failed:
        raise EvaluationError(f"{run}: holds no run; give the --out folder of he2her2 predict or segment")
    claims = list(read_claims(run))
    running = tuple(claim for claim in claims if is_running(run, claim))
    began, now = _began(run), time()
    return RunStatus(
        n_planned=len(planned.keys() | done | failed.keys()),
        n_done=len(done),
        failed=dict(Counter(failure.stage for name, failure in failed.items() if name not in done)),
        running=running,
        has_command=bool(commands_at_work(run)),
        lost=tuple(claim for claim in claims if claim not in running),
        seconds=None if began is None or began > now else now - began,
        n_recent=0 if began is None else sum(end >= began for end in ends.values()),
        bottleneck=_bottleneck(run, sorted(done & ends.keys(), key=lambda name: ends[name])[-_SAMPLE:]),
    )


def _ends(run: Path) -> dict[str, float]:
    """Time at which each slide ended, in seconds since 1970."""
    ends: dict[str, float] = {}
    for folder, ending in ((run / "slides", ""), (FailureRecords(run).folder, ".json")):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    with suppress(OSError):
                        ends[entry.name.removesuffix(ending)] = entry.stat().st_mtime
    return ends


def _has_result(run: Path, slide_id: str) -> bool:
    folder = SlideFolders(run).of(slide_id)
    return (folder / PREDICTION).is_file() or (folder / SEGMENTATION).is_file()


def _began(run: Path) -> float | None:
    """Time at which the last command on a run began."""
    with suppress(ValueError, EvaluationError):
        return datetime.fromisoformat(read_description(run).started).timestamp()
    return None


def _bottleneck(run: Path, slide_ids: Sequence[str]) -> str:
    """Stage that took most of the time of some slides, and what limited it."""
    seconds: Counter[str] = Counter()
    times, n = StreamTimes(), 0
    for slide_id in slide_ids:
        for kind in (PREDICTION, SEGMENTATION):
            with suppress(OSError, ValueError):
                result = SlideFolders(run, kind).load(slide_id)
                n += 1
                seconds.update(result.timing.stages_s)
                times += sum((stream.times for stream in result.timing.streams.values()), StreamTimes())
    total = sum(seconds.values())
    if not n or not total:
        return ""
    stage, most = seconds.most_common(1)[0]
    limit = f", limited by {times.limit}" if times.limit else ""
    return f"{stage}, {most / total:.0%} of the {in_time(total / n)} of a slide{limit}".replace("%", " %")
