"""Folder of a training, and its execution: begun, resumed or replaced on purpose only, never two trainings in one."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from he2her2.cohort import SlideTask
from he2her2.config import Config
from he2her2.errors import ConfigError, He2Her2Error, OutputError
from he2her2.files import check_writable, digest, read_json, sha256_of, write_json
from he2her2.results import LIBRARIES, RUN_FILE, describe_environment
from he2her2.timing import Progress, silent
from he2her2.training.settings import Hardware, Kind

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_OF_TRAINING = ("checkpoints", "logs", "weights", "folds", "teachers", "soup", "repeats", "out-of-fold")
_OF_ABLATION = ("bags", "tiles", "adapted", "start", "methods", "tests", "tables")
_TILE_TABLES = (
    f"{name}_{of}.csv" for name in ("confusion", "figures", "slides") for of in ("validation", "test", "left_out")
)
_RESULTS = ("report.md", "predictions.csv", "val_predictions.csv", *_TILE_TABLES)


def _unheard(_: str) -> None:
    """Say it to nobody."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Hardware of a training, use of its folder, and its messages; none of it changes the weights.

    Attributes:
        hardware: Devices and precision.
        command: The command line, for `run.json`.
        resume: Go on with the same training, or begin where there is none.
        overwrite: Replace another training in the folder.
        progress: Called with the progress of reading slides.
        say: Called with each line for the user.
        until: Time, in seconds since 1970, after which no epoch shall end: training stops before the one that would,
            with what is best so far, and can be resumed. None trains all epochs.
    """

    hardware: Hardware
    command: Sequence[str] = ()
    resume: bool = False
    overwrite: bool = False
    progress: Progress = silent
    say: Callable[[str], None] = _unheard
    until: float | None = None


def begin_run(
    folder: Path,
    kind: Kind | Literal["ablation"],
    execution: Execution,
    *,
    config: Config,
    settings: "DataclassInstance",
    inputs: Mapping[str, Any],
    patients: Mapping[str, Any] | None = None,
) -> None:
    """Check that a training may use its folder, and write `run.json` there.

    Args:
        folder: Of the run.
        kind: The network that is trained.
        execution: Hardware, resuming and overwriting; a training may be resumed on other hardware.
        config: The method's settings.
        settings: The training's settings, or those of an ablation's two trainings.
        inputs: All else that changes the result: files by `fingerprint`, folds.
        patients: Hashed ids of the patients used in training, by `manifest.patients_record`.

    Raises:
        OutputError: The folder cannot be written, or holds something else.
        ConfigError: The training to resume had other settings or data; the message names every difference.
    """
    if not is_first_process():
        return
    check_writable(folder)
    wanted = _plain({"kind": kind, "config": config.method(), "training": asdict(settings), "inputs": dict(inputs)})
    there = _read(folder / RUN_FILE)
    if there is not None and "training" not in there:
        raise OutputError(f"{folder}: holds results of another command; choose another --out")
    if there is not None and not execution.overwrite:
        _check_same(folder, there, wanted, resume=execution.resume)
    else:
        if there is not None:
            _remove_training(folder, there.get("kind"))
        _check_free(folder, _folders_of(kind))
    environment = describe_environment(execution.command, (*LIBRARIES, "torch", "lightning"))
    found = environment | {"run_on": asdict(execution.hardware)} | wanted | dict(patients or {})
    write_json(folder / RUN_FILE, found, ascii_only=True)


def _folders_of(kind: object) -> Sequence[str]:
    """Folders that a training of a kind makes in its own."""
    return _OF_ABLATION if kind == "ablation" else _OF_TRAINING


def _remove_training(folder: Path, kind: object) -> None:
    """Remove what a training of a kind left: nothing of it may be resumed, or read as of the next one."""
    for name in _folders_of(kind):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _RESULTS:
        (folder / name).unlink(missing_ok=True)


def _check_free(folder: Path, names: Sequence[str]) -> None:
    if taken := [name for name in names if (folder / name).exists()]:
        raise OutputError(
            f"{folder}: holds {', '.join(taken)}, and no {RUN_FILE} of its training; choose another --out"
        )


@contextmanager
def undone_if_refused(folder: Path) -> Iterator[None]:
    """Remove `run.json` of a training whose data turn out to be unusable; one that has trained already keeps it.

    So the same command, with other data or settings, begins it.
    """
    try:
        yield
    except He2Her2Error:
        if is_first_process() and not any((folder / name).exists() for name in _OF_TRAINING):
            (folder / RUN_FILE).unlink(missing_ok=True)
        raise


def is_first_process() -> bool:
    """True in the process that writes the files that several processes of one training share."""
    from lightning.pytorch.utilities import rank_zero_only  # noqa: PLC0415  # it loads torch

    return int(getattr(rank_zero_only, "rank", 0)) == 0


def fingerprint(path: Path | None) -> dict[str, str] | None:
    """Name and SHA-256 of an input file, which may be moved but not changed."""
    return None if path is None else {"file": path.name, "sha256": sha256_of(path)}


def fingerprint_slides(tasks: Iterable[SlideTask]) -> str:
    """SHA-256 of slides' sizes and of their annotations, which may be moved but not changed."""
    return digest({task.slide_id: _contents(task) for task in tasks})


def _contents(task: SlideTask) -> tuple[int | None, str | None]:
    """Bytes of a slide, None where it is no single file; SHA-256 of its annotation, None without one."""
    slide, annotations = task.inputs.slide, task.annotations
    drawn = sha256_of(annotations) if annotations is not None and annotations.is_file() else None
    return None if slide is None else slide.bytes, drawn


def _check_same(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any], *, resume: bool) -> None:
    if not resume:
        raise OutputError(f"{folder}: holds a training; --resume goes on with it, --overwrite replaces it")
    differences = list(_differences({key: there.get(key) for key in wanted}, wanted))
    if differences:
        raise ConfigError(
            f"{folder}: cannot resume another training ({'; '.join(differences)}); use its settings, or --overwrite"
        )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield each key whose value differs, as "training.epochs was 3, now 5"."""
    for key in dict.fromkeys([*was, *now]):
        before, after = was.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key} was {before}, now {after}"


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """The value as JSON gives it back: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _read(path: Path) -> dict[str, Any] | None:
    """Read what an earlier run wrote; None where there was none.

    Raises:
        OutputError: The file was not written by he2her2.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be understood ({error}); choose another --out") from None
