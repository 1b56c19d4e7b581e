"""Claims on slides: a file for each slide that is being worked on, so that processes share a run's folder.

A claim says who works on the slide and where he is. It is taken by creating its file, which only one process can do,
and ends with the slide. One whose process is dead is taken over: on the same machine that is seen at once; on another
machine, or in another container, it counts as dead once the file has not changed for a while, by the clock of the one
who waits.

Claims save work, and no result depends on them: two processes that both work on a slide write the same.
"""

import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from time import monotonic, time
from typing import Self
from uuid import uuid4

from pydantic import TypeAdapter

from he2her2.errors import OutputError
from he2her2.files import create_text, process_is_alive, write_text
from he2her2.machine import machine_start, process_space

_FOLDER = "claims"
_COMMAND = ".command-"
_LONG_DEAD_S = 86_400
_PATIENCE_S = 180.0  # without a sign of life; then a claim of another machine counts as dead
_NOTE_S = 2.0
_BEATS = 8  # signs of life within the time after which a claim counts as dead


@dataclass(frozen=True, slots=True)
class Claim:
    """A slide that is being worked on.

    Attributes:
        slide_id: Its name.
        host: Machine of the process that has it.
        boot: Start of that machine, to tell it from an earlier one.
        pid: Number of that process.
        born: Start of that process, to tell it from a later one of the same number.
        token: Of this claim alone.
        since: Seconds since 1970.
        stage: Stage of the work.
        space: Space in which the number of that process means something, see `process_space`; "" of earlier versions.
    """

    slide_id: str
    host: str
    boot: str
    pid: int
    born: str
    token: str
    since: float
    stage: str = ""
    space: str = ""

    @classmethod
    def new(cls, slide_id: str) -> Self:
        """A claim of this process."""
        host, space, boot = _here()
        pid = os.getpid()
        return cls(slide_id, host, boot, pid, _born(pid), uuid4().hex, round(time(), 1), space=space)

    @property
    def is_here(self) -> bool:
        """True if its process can be seen from here, or could be before this machine was restarted.

        Some systems hide the processes of other users: one that is there and does not tell its start is as far away.
        """
        if self.space != _here()[1]:
            return False
        is_hidden = self.born and self.boot == _here()[2] and process_is_alive(self.pid) and not _born(self.pid)
        return not is_hidden

    @property
    def is_alive(self) -> bool:
        """True if its process, of this machine, still runs."""
        return self.boot == _here()[2] and process_is_alive(self.pid) and _born(self.pid) == self.born


_CLAIM = TypeAdapter(Claim)


class Claims:
    """Claims of this process on the slides of a run; a context manager that gives back what it still has.

    Attributes:
        folder: Of the claim files.
    """

    def __init__(self, run: Path, *, patience_s: float = _PATIENCE_S) -> None:
        """Begin without any.

        Args:
            run: The run's folder.
            patience_s: Seconds without a sign of life after which a claim of another machine counts as dead.
        """
        self.folder = run / _FOLDER
        self._patience_s = patience_s
        self._command = Claim.new(f"{_COMMAND}{uuid4().hex}")  # none on a slide: it says that this process is there
        self._mine: dict[str, Claim] = {}
        self._noted: dict[str, str] = {}
        self._seen: dict[str, tuple[object, float]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pulse: threading.Thread | None = None

    def __enter__(self) -> Self:
        for claim in read_claims(self.folder.parent):
            if claim.is_here and not claim.is_alive:
                self._break(claim.slide_id, claim)
        self._create(self._command)
        self._pulse = threading.Thread(target=self._beat, name="claims", daemon=True)
        self._pulse.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for slide_id in list(self._mine):
            self.release(slide_id)
        _remove(self._file(self._command.slide_id))
        for file, command in _commands(self.folder):
            if not command.is_alive if command.is_here else time() - _changed(file) / 1e9 > _LONG_DEAD_S:
                _remove(file)
        with suppress(OSError):  # others have claims there
            self.folder.rmdir()

    def take(self, slide_id: str) -> bool:
        """Claim a slide; False where another living process has it.

        Raises:
            OutputError: The folder cannot be written.
        """
        claim = Claim.new(slide_id)
        while not self._create(claim):
            other = read_claim(self._file(slide_id))
            if not self._is_dead(slide_id, other):
                return False
            self._break(slide_id, other)
        with self._lock:
            self._mine[slide_id] = claim
        return True

    def note(self, slide_id: str, stage: str) -> None:
        """Say at which stage a slide of this process is; written within seconds, while it lasts."""
        with self._lock:
            if slide_id in self._mine:
                self._mine[slide_id] = replace(self._mine[slide_id], stage=stage)

    def release(self, slide_id: str) -> None:
        """End the claim of this process on a slide."""
        with self._lock:
            if self._mine.pop(slide_id, None) is not None:
                self._noted.pop(slide_id, None)
                _remove(self._file(slide_id))

    def _file(self, slide_id: str) -> Path:
        return self.folder / f"{slide_id}.json"

    def _create(self, claim: Claim) -> bool:
        """Create the file of a claim; False where there is one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return create_text(self._file(claim.slide_id), json.dumps(asdict(claim)))
        except FileNotFoundError:  # the last of others has just removed the folder
            return self._create(claim)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written ({error.strerror}); free space") from error

    def _is_dead(self, slide_id: str, claim: Claim | None) -> bool:
        """True if the process of a claim is dead; one that cannot be read gives no sign of life but by changing."""
        if claim is not None and claim.is_here:
            return not claim.is_alive
        life = (claim and claim.token, _changed(self._file(slide_id)))
        before, since = self._seen.get(slide_id, (None, 0.0))
        if before != life:
            self._seen[slide_id] = (life, monotonic())
            return False
        return monotonic() - since > self._patience_s

    def _break(self, slide_id: str, dead: Claim | None) -> None:
        """Remove a dead claim, but not one that somebody has put in its place meanwhile."""
        file, aside = self._file(slide_id), self.folder / f".broken-{uuid4().hex}"
        with suppress(FileNotFoundError):
            file.rename(aside)
            found = read_claim(aside)
            if found is not None and (dead is None or found.token != dead.token):
                with suppress(OSError):  # a lost claim costs its slide a second worker, and no result
                    create_text(file, json.dumps(asdict(found)))
            aside.unlink()

    def _beat(self) -> None:
        """Write stages, and give signs of life to other machines."""
        beat_s = self._patience_s / _BEATS
        last = monotonic()
        while not self._ended.wait(min(_NOTE_S, beat_s)):
            alive = monotonic() - last > beat_s
            last = monotonic() if alive else last
            with self._lock:
                for claim in (self._command, *self._mine.values()):
                    with suppress(OSError, OutputError):  # a full disk is met by what writes results
                        self._give_sign(claim, alive=alive)

    def _give_sign(self, claim: Claim, *, alive: bool) -> None:
        """Write a claim's new stage, or else touch its file if it is time."""
        if claim.stage != self._noted.get(claim.slide_id, ""):
            write_text(self._file(claim.slide_id), json.dumps(asdict(claim)))
            self._noted[claim.slide_id] = claim.stage
        elif alive:
            os.utime(self._file(claim.slide_id))


def commands_at_work(run: Path) -> list[Claim]:
    """Commands that work on the slides of a run, as far as can be seen from here, whether or not they have one now."""
    return [command for _, command in _commands(run / _FOLDER) if is_running(run, command)]


def _commands(folder: Path) -> Iterator[tuple[Path, Claim]]:
    for file in folder.glob(f"{_COMMAND}*.json"):
        if (command := read_claim(file)) is not None:
            yield file, command


def read_claims(run: Path) -> Iterator[Claim]:
    """The claims in a run's folder, of living processes and of dead ones."""
    for file in sorted((run / _FOLDER).glob("[!.]*.json")):
        claim = read_claim(file)
        if claim is not None:
            yield claim


def read_claim(file: Path) -> Claim | None:
    """A claim; None where there is none any more, or its process is just writing it."""
    try:
        return _CLAIM.validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None


def _remove(file: Path) -> None:
    """Remove a claim; one that cannot be, as a disk is lost, will be seen to be dead."""
    with suppress(OSError):
        file.unlink()


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


@cache
def _here() -> tuple[str, str, str]:
    """Name of this machine, of the space of its process numbers, and of its start."""
    return platform.node(), process_space(), machine_start()


def _born(pid: int) -> str:
    """Start of a process, as the system counts it; empty where it does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]  # one that has ended and whose parent does not care is a zombie


def is_running(run: Path, claim: Claim) -> bool:
    """True if the process of a claim on a run runs, as far as can be seen from here."""
    if claim.is_here:
        return claim.is_alive
    with suppress(OSError):
        return time() - (run / _FOLDER / f"{claim.slide_id}.json").stat().st_mtime < _PATIENCE_S
    return False
