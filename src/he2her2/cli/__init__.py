"""The command line: parse, call, print. Heavy imports wait inside the commands, so that `--help` is instant."""

import io
import math
import re
import signal
import sys
import traceback
from functools import partial
from threading import Timer, main_thread
from time import monotonic
from types import FrameType
from typing import NoReturn, cast

import typer

from he2her2.cli.commands import app
from he2her2.cli.console import AT_END, one_line, open_closed_streams, say, say_problems
from he2her2.cli.guard import guarded
from he2her2.errors import He2Her2Error, ManifestError, plainly

__all__ = ["main", "run_here"]

_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])  # typer keeps its parent private

_EMPTY_OPTION = re.compile(r"--[^=]+=")  # as a path it would be the current folder
_BUG = 70  # EX_SOFTWARE of sysexits
_INTERRUPTED = 130
_TOGETHER_S = 1.0
_SOON_S = 0.05


def main() -> NoReturn:
    """Run the command line in a child process, whose death by a signal is one line, too."""
    open_closed_streams()
    guarded(_run, partial(say, error=True))


def _run() -> NoReturn:
    """Run the command line in this process; the code of a bug of ours is not that of slides that have failed."""
    try:
        run_here()
    except Exception:  # noqa: BLE001  # whatever it is
        traceback.print_exc()
    raise SystemExit(_BUG)


def run_here() -> NoReturn:
    """Run the command line in this process: a user's mistake is one line and exit code 2, our bug a traceback."""
    _stop_on_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without µ gets a question mark
    try:
        if any(not word or _EMPTY_OPTION.fullmatch(word) for word in sys.argv[1:]):
            raise typer.BadParameter("An argument is empty; check the shell variables in the command")
        with AT_END:
            code = app(standalone_mode=False) or 0
    except _UsageError as error:
        say(_usage(error), error=True)
        raise SystemExit(2) from None
    except ManifestError as error:
        say_problems(error.problems)
        raise SystemExit(2) from None
    except He2Her2Error as error:
        say(f"he2her2: {one_line(str(error))}", error=True)
        raise SystemExit(2) from None
    except MemoryError:
        say("he2her2: memory ran out; free some, allow more, or use fewer threads or workers", error=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        say("he2her2: stopped", error=True)
    raise SystemExit(code)


def _stop_on_signals() -> None:
    """Let signals that end a command raise KeyboardInterrupt, but those that whoever started it has it ignore."""
    stop = _Stop()
    sys.unraisablehook = stop.after_all
    signal.signal(signal.SIGTERM, stop)  # of batch systems
    for name, answer in (("SIGINT", stop), ("SIGHUP", _as_sigterm)):  # the latter of a terminal that is closed
        number = getattr(signal, name, None)  # Windows lacks it
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, answer)


def _as_sigterm(_number: int, _frame: FrameType | None) -> None:
    """Raise SIGTERM, which servers and trainings answer in their own way."""
    signal.raise_signal(signal.SIGTERM)


class _Stop:
    """Handler that raises KeyboardInterrupt, once for signals that come together.

    Batch systems signal every process of a job, and the parent passes its signal on: the second would end the tidying
    up after the first.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._usual = sys.unraisablehook

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if monotonic() - self._last > _TOGETHER_S:
            self._last = monotonic()
            raise KeyboardInterrupt

    def after_all(self, lost: "sys.UnraisableHookArgs") -> None:
        """Raise it anew where Python has dropped it, as in the callbacks by which it ends an import."""
        if lost.exc_type is not KeyboardInterrupt:
            self._usual(lost)
            return
        self._last = -math.inf
        Timer(_SOON_S, signal.pthread_kill, (main_thread().ident, signal.SIGTERM)).start()


def _usage(error: Exception) -> str:
    """One line for a mistyped command; the help page for a command without arguments."""
    text = plainly(error.format_message())  # type: ignore[attr-defined]
    return text if "\n" in text else f"he2her2: {text.rstrip('.')}; see --help"
