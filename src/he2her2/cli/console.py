"""Text to the terminal or a pipe: the one place that prints."""

import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from he2her2.errors import OutputError

AT_END = ExitStack()
"""Calls what must end with a command, however that ends."""

_CONTROL = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_PIPE_CLOSED = 141  # as a shell tells the death by SIGPIPE
_STANDARD_ERROR = 2
_MOST_PROBLEMS = 200
_MOST_ALIKE = 10  # a wrong column makes a problem for each row
_PARTICULARS = re.compile(r"(['\"]).*?\1|\S*[/\d]\S*")  # of one row: what a cell holds, lines, paths


def say(text: str, *, error: bool = False) -> None:
    """Print plain text, on standard error if `error`; characters that would steer a terminal are shown as escapes.

    Raises:
        SystemExit: Who reads has ended, as in `he2her2 ... | head`; no OSError, which could pass for one of a slide.
        OutputError: The file to which standard output leads cannot be written.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        stream.write(f"{printable(text)}\n")
        stream.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is said later, and left in the buffer
        if isinstance(problem, BrokenPipeError):
            raise SystemExit(_PIPE_CLOSED) from None
        if not error:
            reason = f"standard output: cannot be written ({problem.strerror}); free space, or lead it elsewhere"
            raise OutputError(reason) from None


def say_line(text: str) -> None:
    """Print on standard error, on one line whatever the names in it hold: a file's may have line ends."""
    say(one_line(text), error=True)


def open_closed_streams() -> None:
    """Lead standard streams that are closed to the null device: else the next file that is opened has their number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  for this process's life


def say_json(value: object, *, indent: int | None = 2) -> None:
    """Print plain data as JSON in ASCII, which is the same to a program in every locale; on one line without indent."""
    say(json.dumps(value, indent=indent))


def say_problems(problems: Sequence[str]) -> None:
    """Print problems on standard error, a line each, and the number of those that would only flood the terminal."""
    alike = Counter[str]()
    shown = []
    for problem in map(one_line, problems):
        kind = _PARTICULARS.sub("", problem)
        alike[kind] += 1
        if alike[kind] <= _MOST_ALIKE:
            shown.append(problem)
    for problem in shown[:_MOST_PROBLEMS]:
        say(f"he2her2: {problem}", error=True)
    if left := len(problems) - min(len(shown), _MOST_PROBLEMS):
        say(f"he2her2: and {left} more problems like these", error=True)


def printable(text: str) -> str:
    r"""Text whose control characters, but for tabs and line ends, are shown as escapes, which JSON reads.

    Example:
        >>> printable("scanned by \x1b[2J")
        'scanned by \\u001b[2J'
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """Text on one line, printable."""
    return printable(" ".join(text.split()))


def program_name() -> str:
    """The program as the user called it, to be called again."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{sys.executable} -m he2her2"
    on_path = shutil.which(called.name)
    is_same = on_path is not None and called.exists() and Path(on_path).samefile(called)
    return called.name if is_same or not called.is_file() else str(called)


def working(text: str) -> AbstractContextManager[object]:
    """Show that work goes on, while a terminal watches."""
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext()
    spinner = Spinner("dots", printable(text), style="status.spinner")
    return Live(spinner, console=console, transient=True, redirect_stdout=sys.stdout.isatty())  # not from its file
