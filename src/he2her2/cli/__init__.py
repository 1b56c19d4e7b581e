"""The command line: parse, call, print. Heavy imports wait inside the commands, so that `--help` is instant."""

import io
import signal
import sys
from typing import cast

import typer

from he2her2.cli.commands import app
from he2her2.errors import He2Her2Error, ManifestError

_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])  # typer keeps its parent private

_INTERRUPTED = 130


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2, our own bug is a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # batch systems end with it: as Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without µ gets a question mark
    try:
        code = app(standalone_mode=False) or 0
    except _UsageError as error:
        sys.stderr.write(_usage(error))
        raise SystemExit(2) from None
    except ManifestError as error:
        sys.stderr.writelines(f"he2her2: {' '.join(problem.split())}\n" for problem in error.problems)
        raise SystemExit(2) from None
    except He2Her2Error as error:
        sys.stderr.write(f"he2her2: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        sys.stderr.write("he2her2: stopped\n")
    raise SystemExit(code)


def _usage(error: Exception) -> str:
    """One line for a mistyped command; the help page for a command without arguments."""
    text: str = error.format_message()  # type: ignore[attr-defined]
    return f"{text}\n" if "\n" in text else f"he2her2: {text.rstrip('.')}; see --help\n"
