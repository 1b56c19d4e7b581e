"""A child process for each command, so that its death by a signal is told in one line.

Decoders of slides are libraries in C: a tile that they cannot survive, or memory that the system does not have, ends
the process at once, and no `except` ever runs.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_OUT_OF_MEMORY = "as a rule the machine has no memory left: use fewer threads or workers, or free some"
_DECODER = (
    "as a rule a library that decodes slides met damage that it does not survive: he2her2 inspect tells how a slide is "
    "read; copy it again, or convert it to a tiled TIFF"
)
_OF_A_DECODER = frozenset({"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV"})


def guarded(run: Callable[[], NoReturn], say: Callable[[str], None]) -> NoReturn:
    """Run a command in a child, and end as it ends.

    Called before anything heavy is loaded, this takes a millisecond. Where processes cannot fork, it runs here.

    Args:
        run: The command; raises SystemExit.
        say: Tells a line to the user.
    """
    if not hasattr(os, "fork"):
        run()
    alive, parent = os.pipe()  # it closes when this process dies, however it does
    awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)  # none is lost between here and `_wait`
    signal.signal(signal.SIGCHLD, _nothing)  # one that is ignored is not waited for, and its child's status is lost
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(parent)
        threading.Thread(target=_end_with_the_parent, args=(alive,), daemon=True).start()
        run()
    os.close(alive)
    status = _wait(child, awaited)
    if os.WIFEXITED(status):
        _end(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if number == signal.SIGINT:  # as Python ends where Ctrl-C went through a library; the child has said that it stops
        _end(128 + number)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    why = f"; {_OUT_OF_MEMORY}" if number == signal.SIGKILL else f"; {_DECODER}" if name in _OF_A_DECODER else ""
    say(f"he2her2: ended by {name}{why}; what was written is whole, and the same command goes on")
    _end(128 + number)


def _end(code: int) -> NoReturn:
    """End at once: all that has to be closed is the child's."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(child: int, awaited: set[signal.Signals]) -> int:
    """Wait for the child's end, and pass signals on, but for Ctrl-C of a terminal, which the child has got already.

    The signals are blocked and waited for: a handler would miss one that comes just before the wait begins.

    Returns:
        The child's status, of `os.waitpid`.
    """
    while True:
        number = signal.sigwait(awaited)
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
        elif number != signal.SIGINT or not _is_in_front():
            os.kill(child, number)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def _is_in_front() -> bool:
    """True if the keys of a terminal reach this process and its child."""
    for stream in range(3):
        with suppress(OSError):  # it is no terminal
            if os.tcgetpgrp(stream) == os.getpgrp():
                return True
    return False


def _end_with_the_parent(alive: int) -> None:
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGKILL)
