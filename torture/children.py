"""Commands run in children with limits, forked from a process in which the program is loaded already."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import chain, repeat
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

CPU_S = 20
"""Processor time that a command may take."""

WALL_S = 600
_AGAIN_S = 0.05  # a signal that comes just before the wait for a child begins is heard of by the next one only
"""Time by the clock, which only waiting for ever takes, even on a machine that has much else to do."""

MEMORY_BYTES = 2 << 30
"""Resident memory that a command may take."""

_ADDRESSES_BYTES = 12 << 30  # protects the machine; the limit above is counted afterwards
_LOADED = (
    *("he2her2.cli.printer", "he2her2.cohort", "he2her2.models.onnx_engine", "he2her2.results.overlay"),
    *("he2her2.slides.backend_openslide", "he2her2.slides.backend_tiff"),
    *("h5py", "onnx.checker", "onnxruntime", "PIL.PngImagePlugin"),
)
_OUT, _ERR = "stdout.txt", "stderr.txt"


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a child.

    Attributes:
        code: Exit code; None where a signal ended it.
        signal: That signal's number; None where there was none.
        cpu_s: Processor time.
        wall_s: Time by the clock.
        memory_bytes: Highest resident memory.
        out: Standard output.
        err: Standard error.
    """

    code: int | None
    signal: int | None
    cpu_s: float
    wall_s: float
    memory_bytes: int
    out: str = ""
    err: str = ""

    @property
    def hung(self) -> bool:
        """True where it was ended for its time."""
        return self.cpu_s >= CPU_S - 1 or self.wall_s >= WALL_S - 1

    @property
    def flooded(self) -> bool:
        """True where it took too much memory."""
        return self.memory_bytes > MEMORY_BYTES


class Children:
    """Runs command lines of he2her2, one at a time; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Start the process that they are forked from.

        Args:
            folder: For their output.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "torture.children"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, *arguments: object, killed_after_s: float | None = None, killed_by: signal.Signals = signal.SIGKILL
    ) -> Ended:
        """Run `he2her2 ARGUMENTS...` and wait for its end.

        Args:
            arguments: Of the command line.
            killed_after_s: Time by the clock after which it gets a signal; None lets it end.
            killed_by: That signal.
        """
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        kill = {"killed_after_s": killed_after_s, "killed_by": int(killed_by)}
        stdin.write(json.dumps({"arguments": [*map(str, arguments)], "folder": str(self._folder)} | kill) + "\n")
        stdin.flush()
        said: dict[str, Any] = json.loads(stdout.readline())
        return Ended(**said | {"out": _text(self._folder / _OUT), "err": _text(self._folder / _ERR)})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server.stdin is not None:
            self._server.stdin.close()
        if self._server.stdout is not None:
            self._server.stdout.close()
        self._server.wait()


def _text(file: Path) -> str:
    return file.read_text("utf-8", "replace")


def _serve() -> None:
    """Fork a child for each line of standard input, and say how it ended."""
    _load()
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _be_the_child(asked["arguments"], Path(asked["folder"]))
        after_s = asked["killed_after_s"]
        signal.signal(signal.SIGALRM, _killer(pid, signal.SIGKILL if after_s is None else asked["killed_by"]))
        signal.setitimer(signal.ITIMER_REAL, after_s or WALL_S, _AGAIN_S)
        _, status, used = os.wait4(pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        ended = Ended(
            os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            used.ru_utime + used.ru_stime,
            time.monotonic() - start,
            used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        )
        sys.stdout.write(json.dumps(asdict(ended)) + "\n")
        sys.stdout.flush()


def _load() -> None:
    """Import what the commands on slides import; nothing of it starts a thread."""
    for name in _LOADED:
        import_module(name)


def _killer(pid: int, first: int) -> Callable[[int, FrameType | None], None]:
    """Handler that sends a signal to a process, and kills it where it still is when the timer comes again."""
    signals = chain([first], repeat(signal.SIGKILL))

    def kill(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, WALL_S, WALL_S)
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, next(signals))

    return kill


def _be_the_child(arguments: Sequence[str], folder: Path) -> None:
    """Run the command line in this process, within limits, and end."""
    from he2her2.cli import run_here  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES_BYTES, _ADDRESSES_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream, name in ((0, os.devnull), (1, folder / _OUT), (2, folder / _ERR)):
        how = os.O_RDONLY if stream == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(name, how, 0o600), stream)
    sys.argv = ["he2her2", *arguments]
    code: object = 1
    try:
        run_here()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:  # noqa: BLE001  # a traceback is what is looked for
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve()
