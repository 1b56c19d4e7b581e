"""Progress in a log: a line now and then while work goes on, and none afterwards."""

import io
import sys
import threading
import time

import pytest

from he2her2.cli.console import say, working
from he2her2.cli.progress import Pace, Stages, WorkProgress


def test_a_log_gets_lines_even_while_nothing_moves(capsys):
    """Each with the number done and, once something is, the time left."""
    with WorkProgress(line_s=0.1) as show:
        show.progress("slides", 0, 4)
        show.detail("S1 tiles 40 %")
        time.sleep(0.35)
        show.progress("slides", 2, 4)
        time.sleep(0.15)
        show.progress("slides", 4, 4)
        time.sleep(0.25)
    lines = capsys.readouterr().err.splitlines()

    assert len(lines) in (4, 5)
    assert lines[0] == "slides: 0 of 4; S1 tiles 40 %"
    assert lines[-1].startswith("slides: 2 of 4, ")
    assert "s left" in lines[-1]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_log_gets_lines_where_every_stage_is_short(capsys):
    """Such as the epochs of a training: the time runs on from one to the next."""
    show = WorkProgress(line_s=0.2)
    for k in range(8):
        with show:
            show.progress(f"epoch {k}", 1, 2)
            time.sleep(0.1)
            show.progress(f"epoch {k}", 2, 2)
    lines = capsys.readouterr().err.splitlines()

    assert 2 <= len(lines) <= 8
    assert all(line.startswith("epoch ") for line in lines)


def test_quick_work_writes_nothing(capsys):
    """What is done before the first line is due."""
    with WorkProgress() as show:
        for k in range(5):
            show.progress("slides", k, 4)
        show.progress("tissue", 0, 0)

    assert not capsys.readouterr().err


def test_kept_slides_do_not_make_the_rest_look_fast():
    """The pace is that of those that were worked on."""
    pace = Pace(100, done_before=50)
    pace._since -= 60
    assert pace.in_words() == "50 of 100"
    pace.done = 52
    assert pace.in_words() == "52 of 100, 24 min left"


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_a_command_that_fails_says_no_more_of_its_stages(command_line, monkeypatch, error):
    """Its lines end with it: they would go on in the next command of the same process."""

    def fail(**_):
        Stages().progress("epoch 2 of 3", 1, 3)
        raise error

    monkeypatch.setattr("he2her2.cli.app", fail)
    if isinstance(error, OSError):
        with pytest.raises(OSError, match="the disk is gone"):
            command_line("train")
    else:
        assert command_line("train")[0] == 130

    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.parametrize("shown", [WorkProgress, lambda: working("drawing")], ids=["bars", "spinner"])
def test_what_is_said_meanwhile_reaches_the_file_it_is_led_to(monkeypatch, shown):
    """Of `score-ihc slides > readings.txt` on a terminal the bars took the readings along."""

    class Terminal(io.StringIO):
        """A terminal."""

        def isatty(self):
            return True

    for file, lines in ((io.StringIO(), "s1: IHC 0\n"), (Terminal(), "")):
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        with shown():
            say("s1: IHC 0")

        assert file.getvalue() == lines
        assert ("s1: IHC 0" in terminal.getvalue()) == (not lines)
