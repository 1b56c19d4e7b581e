"""Commands ended at random moments: nothing that was done is lost, and a new start ends as if nothing had happened."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.made_up_runs import MadeUpSlide, write_labels, write_run

from he2her2.phantom import make_spec, write_phantom
from torture.children import Children
from torture.endings import Ending, Tally
from torture.slides import SETTINGS

PREDICT_SLIDE, PREDICT_FOLDER, SEGMENT_FOLDER = "predict a slide", "predict a folder", "segment a folder"
EVALUATE = "evaluate"
COMMANDS = (PREDICT_SLIDE, PREDICT_FOLDER, SEGMENT_FOLDER, EVALUATE)

_SEEDS = (8, 5, 8, 5)
_SIDE = 1280
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_STOPPED = 130
_FLEETING = frozenset({"seconds", "timing", "provenance", "sha256"})
_LATEST = 1.1  # of the undisturbed time


@dataclass(frozen=True, slots=True)
class Work:
    """A command that is killed.

    Attributes:
        arguments: The command, but for its output folder.
        done: Files that are whole results: once there, they stay as they are.
    """

    arguments: tuple[object, ...]
    done: str


def torture_kills(
    n: int,
    work: Path,
    *,
    seed: int = 0,
    names: Sequence[str] = COMMANDS,
    report: Callable[[int, Tally], None] = lambda *_: None,
) -> Tally:
    """Kill commands and start them again.

    Args:
        n: How many kills.
        work: Folder for slides and runs.
        seed: Of moments and signals.
        names: Commands that are killed, in turns.
        report: Called after each kill with the number done and the endings so far.

    Returns:
        The endings by command: answered where all that was there stayed and the end was that of an undisturbed run.
    """
    shutil.rmtree(work, ignore_errors=True)
    tally, rng = Tally(), np.random.default_rng(seed)
    commands = {name: command for name, command in _commands(work).items() if name in names}
    with Children(work / "output") as children:
        undisturbed = {}
        for name, command in commands.items():
            ended = children.run(*command.arguments, "--out", work / "right" / name)
            if ended.code != 0:
                raise AssertionError(f"{name} does not run undisturbed: {ended}")
            undisturbed[name] = content(work / "right" / name), ended.wall_s
        for i in range(n):
            name = list(commands)[i % len(commands)]
            out = work / "killed" / name / "run"
            faults = list(_kill(children, commands[name], out, undisturbed[name][1], rng))
            if rng.integers(3) == 0 or i >= n - len(commands):
                faults += _finish(children, commands[name], out, undisturbed[name][0])
            tally.add(name, Ending.LOST if faults else Ending.ANSWERED, f"kill {i} of seed {seed}: {'; '.join(faults)}")
            report(i + 1, tally)
    return tally


def _commands(work: Path) -> dict[str, Work]:
    folder = work / "slides"
    folder.mkdir(parents=True)
    for i, phantom in enumerate(_SEEDS):
        spec = make_spec(seed=phantom, ihc_score="3+", signal=1.0, size_px=(_SIDE, _SIDE))
        write_phantom(folder / f"s{i}.tif", spec, workers=1)
    rng = np.random.default_rng(0)
    slides = [
        MadeUpSlide(f"s{i}", f"p{i}", "positive" if i % 2 else "negative", probability=round(float(p), 6))
        for i, p in enumerate(rng.uniform(0.1, 0.9, 60))
    ]
    write_run(work / "evaluated", slides)
    labels = write_labels(work / "labels.csv", slides)
    return {
        PREDICT_SLIDE: Work(("predict", folder / "s0.tif", *SETTINGS), "slides/*/prediction.json"),
        PREDICT_FOLDER: Work(("predict", folder, *SETTINGS), "slides/*/prediction.json"),
        SEGMENT_FOLDER: Work(("segment", folder, *SETTINGS), "slides/*/segmentation.json"),
        EVALUATE: Work(("evaluate", work / "evaluated", "-m", labels), "evaluation.json"),
    }


def _kill(
    children: Children, command: Work, out: Path, undisturbed_s: float, rng: np.random.Generator
) -> Iterator[str]:
    """Start a command, kill it, and yield what is wrong then."""
    before = {path: path.read_bytes() for path in out.glob(command.done)}
    how = _SIGNALS[rng.integers(len(_SIGNALS))]
    moment_s = float(rng.uniform(0.01, _LATEST)) * undisturbed_s
    ended = children.run(*command.arguments, "--out", out, killed_after_s=moment_s, killed_by=how)
    if "Traceback" in ended.err:
        yield f"a traceback after {how.name}: {ended.err[-300:]}"
    if ended.code not in (None, 0, _STOPPED):
        yield f"exit code {ended.code} after {how.name}: {ended.err[-300:]}"
    if command.arguments[0] != "evaluate":  # which is replaced as a whole
        gone = [path.name for path, old in before.items() if not path.exists() or path.read_bytes() != old]
        if gone:
            yield f"lost {', '.join(gone)}"
    for path in out.glob(command.done):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            yield f"half of {path}"


def _finish(children: Children, command: Work, out: Path, right: Mapping[str, str]) -> Iterator[str]:
    """Let a command end; yield what differs from an undisturbed run, and begin anew."""
    ended = children.run(*command.arguments, "--out", out)
    if ended.code != 0:
        yield f"does not end well: {ended.err[-300:]}"
    found = content(out)
    for name in sorted(right.keys() | found.keys()):
        if right.get(name) != found.get(name):
            how = "differs" if name in right and name in found else "is missing" if name in right else "is left"
            yield f"{name} {how}"
    shutil.rmtree(out)


def content(out: Path) -> dict[str, str]:
    """Hashes of a run's files, by name, drafts among them; without times, and without the command's description."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and name != "run.json":
            data = path.read_bytes()
            if path.name in ("prediction.json", "segmentation.json"):
                record = {key: value for key, value in json.loads(data).items() if key not in _FLEETING}
                data = json.dumps(record).encode()
            found[name] = hashlib.sha256(data).hexdigest()
    drafts = {str(path.relative_to(out.parent)): "draft" for path in out.parent.glob(".draft-*")}
    return found | drafts


def lines(tally: Tally) -> Iterator[str]:
    """The part's table."""
    yield f"commands killed at random moments: {tally.total()}"
    yield from tally.lines()
