"""The death of a command by a signal: one line, and no process that goes on."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from he2her2.cli import _stop_on_signals, run_here

SCRIPT = "from he2her2.cli import console, guard, main; from he2her2 import labels; import os, signal, sys, time\n"
PATCH = "import he2her2.cli; he2her2.cli.app = lambda **_: ({}); main()"
SLOW = "fork = os.fork; os.fork = lambda: (pid := fork(), time.sleep(0.5 * (pid > 0)))[0]\n"  # to begin to wait
SLEEP = "[time.sleep(0.1) for _ in range(600)]"  # one sleep of a minute would miss a signal that comes just before it


def start(command, before=""):
    """A command line whose work is an expression."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + before + PATCH.format(command), "predict"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGABRT, "a library that decodes slides met damage"),
        (signal.SIGSEGV, "a library that decodes slides met damage"),
        (signal.SIGKILL, "no memory left"),
        (signal.SIGUSR1, "what was written is whole"),
    ],
)
def test_a_death_by_a_signal_is_one_line(number, words):
    """And the exit code of shells."""
    process = start(f"os.kill(os.getpid(), {int(number)})")

    out, err = process.communicate()

    assert (process.returncode, out, err.count("\n")) == (128 + number, "", 1)
    assert err.startswith(f"he2her2: ended by {number.name}; ")
    assert words in err


def test_a_command_that_was_stopped_says_so_once():
    """Python ends by SIGINT where the interruption went through a library that loads: a second line was told."""
    process = start("(signal.signal(signal.SIGINT, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGINT))")

    out, err = process.communicate()

    assert (process.returncode, out, err) == (130, "", "")


def test_memory_that_runs_out_is_no_bug(monkeypatch, capsys):
    """Two in place of 70, and a line in place of a traceback."""

    def work(**_):
        raise MemoryError

    monkeypatch.setattr("he2her2.cli.app", work)
    monkeypatch.setattr("he2her2.cli._stop_on_signals", lambda: None)
    with pytest.raises(SystemExit, match="2"):
        run_here()
    assert capsys.readouterr().err.startswith("he2her2: memory ran out; free some")


@pytest.mark.parametrize(("command", "code"), [("print('done')", 0), ("sys.exit(1)", 1), ("3", 3)])
def test_the_end_of_a_command_is_its_own(command, code):
    """Exit code and output pass."""
    process = start(command)

    out, err = process.communicate()

    assert (process.returncode, err) == (code, "")
    assert out == ("done\n" if code == 0 else "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ending_a_command_ends_its_work(number):
    """A signal to the process that was started reaches the one that works, which says that it stopped.

    Also where its terminal is closed: then a run's tables stayed as they were, and its claims behind.
    """
    process = start(f"print('ready', flush=True), {SLEEP}")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(number)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (130, "he2her2: stopped\n")


def test_who_answers_sigterm_answers_a_closed_terminal(monkeypatch):
    """As the viewer's server does, which ended in a traceback."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    answers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    answered = []
    try:
        _stop_on_signals()
        signal.signal(signal.SIGTERM, lambda number, _: answered.append(number))
        signal.raise_signal(signal.SIGHUP)
    finally:
        for number, answer in answers.items():
            signal.signal(number, answer)

    assert answered == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_wait_is_not_lost(number):
    """The work is ready while the process that watches it has not begun to wait."""
    process = start(f"print('ready', flush=True), {SLEEP}", before=SLOW)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(number)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (130, "he2her2: stopped\n")


def test_who_ignores_the_end_of_children_learns_how_it_ends():
    """Some programs start others so: the child's status would be thrown away."""
    script = SCRIPT + SLOW + "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + PATCH.format("sys.exit(3)")

    command = [sys.executable, "-c", script, "predict"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    assert (ended.returncode, ended.stderr) == (3, "")


def test_killing_a_command_kills_its_work():
    """SIGKILL cannot be passed on; the work must not go on behind a new start."""
    process = start(f"print(os.getpid(), flush=True), {SLEEP}")
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    assert worker != process.pid

    process.kill()
    process.wait()
    process.communicate(timeout=20)

    for _ in range(200):
        if not is_alive(worker):
            return
        time.sleep(0.05)
    raise AssertionError("the work goes on")


def is_alive(pid):
    """Whether a process runs; one that waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
