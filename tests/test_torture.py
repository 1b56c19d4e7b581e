"""The tortures of `make torture` at reduced size, and that each of them notices what it looks for."""

import signal

import pytest
from torture.children import CPU_S, MEMORY_BYTES, Children, Ended
from torture.cohorts import torture_cohorts
from torture.endings import Ending, Tally
from torture.kills import EVALUATE, PREDICT_SLIDE, content, torture_kills
from torture.parsers import torture_parsers, tried
from torture.slides import KINDS, plain_ending, torture_slides

from he2her2.errors import ConfigError


def test_mutated_slides_break_nothing(tmp_path):
    """One of each kind; the sound ones are all answered."""
    tally, _ = torture_slides(6, tmp_path, seed=5)

    assert tally.broken == []
    assert tally.total() == 6
    assert set(tally.counts) == set(KINDS)


def test_broken_files_break_no_parser(tmp_path):
    """A few for each."""
    tally = torture_parsers(135, tmp_path, first=7)

    assert tally.broken == []
    assert tally.total() == 135
    assert tally.total(Ending.ANSWERED) > 0


def test_killed_commands_lose_nothing(tmp_path):
    """Two of the four commands, once each; both end as if nothing had happened."""
    tally = torture_kills(2, tmp_path, seed=2, names=(PREDICT_SLIDE, EVALUATE))

    assert tally.broken == []
    assert {name: sum(endings.values()) for name, endings in tally.counts.items()} == {PREDICT_SLIDE: 1, EVALUATE: 1}


def test_killed_cohorts_lose_nothing(tmp_path):
    """Two commands on one folder; one of their workers and both of them are killed."""
    tally = torture_cohorts(1, tmp_path, seed=3, n_slides=2, kinds=("two commands",))

    assert tally.broken == []
    assert tally.total() == 1


REFUSED = Ended(2, None, 1.0, 1.0, 10**8, "", "he2her2: a: is damaged; copy it again\n")


@pytest.mark.parametrize(
    ("ended", "ending"),
    [
        (REFUSED, Ending.REFUSED),
        (Ended(0, None, 1.0, 1.0, 10**8), Ending.ANSWERED),
        (Ended(1, None, 1.0, 1.0, 10**8, "", "Traceback (most recent call last):\nValueError: x\n"), Ending.CRASHED),
        (Ended(2, None, 1.0, 1.0, 10**8, "", "he2her2: a: is damaged\nand more\n"), Ending.CRASHED),
        (Ended(2, None, 1.0, 1.0, 10**8, "", "he2her2: a \x1b[2J\n"), Ending.CRASHED),
        (Ended(2, None, 1.0, 1.0, 10**8), Ending.CRASHED),
        (Ended(None, signal.SIGABRT, 1.0, 1.0, 10**8), Ending.CRASHED),
        (Ended(None, signal.SIGXCPU, CPU_S, 30.0, 10**8), Ending.HUNG),
        (Ended(0, None, 1.0, 1.0, MEMORY_BYTES + 1), Ending.FLOODED),
    ],
)
def test_an_ending_is_recognised(ended, ending):
    """One printable line is a refusal; everything else that is no answer breaks a promise."""
    assert plain_ending(ended)[0] is ending


def test_a_child_is_measured_and_limited(tmp_path):
    """Its exit code, what it says, its memory, and the signal that it is given."""
    with Children(tmp_path) as children:
        asked = children.run("labels", "--ihc", "3+", "--json")
        refused = children.run("predict", tmp_path / "none.svs", "--out", tmp_path / "run")
        killed = children.run("predict", tmp_path / "none.svs", "--out", tmp_path / "run", killed_after_s=0.001)

    assert (asked.code, asked.signal, '"positive"' in asked.out) == (0, None, True)
    assert plain_ending(refused)[0] is Ending.REFUSED
    assert 10**7 < refused.memory_bytes < MEMORY_BYTES
    assert killed.signal == signal.SIGKILL


def test_a_parser_that_raises_is_noticed(tmp_path):
    """As is one that refuses without a word; our own error is a refusal."""

    def raising(error):
        def parse(_):
            raise error

        return tried(parse, tmp_path)[0]

    assert raising(KeyError("x")) is Ending.CRASHED
    assert raising(ConfigError(" ")) is Ending.CRASHED
    assert raising(ConfigError("settings: no such key")) is Ending.REFUSED
    assert tried(lambda _: None, tmp_path)[0] is Ending.ANSWERED


def test_what_a_kill_leaves_is_noticed(tmp_path):
    """A draft within a run, one beside it, and a changed file."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "a.csv").write_text("1")
    before = content(run)

    (run / ".draft-0-1-2.b").touch()
    (tmp_path / ".draft-0-1-2.run").touch()
    (run / "a.csv").write_text("2")
    after = content(run)

    assert len(after) == len(before) + 2
    assert after["a.csv"] != before["a.csv"]


def test_a_tally_counts_and_names_what_broke():
    """Its table has a row for each kind, and the sum."""
    tally = Tally()
    for ending in (Ending.REFUSED, Ending.ANSWERED, Ending.SILENT, Ending.HUNG):
        tally.add("JPEG", ending, "number 3")
    tally.add("OME", Ending.REFUSED, "number 4")

    assert tally.broken == ["hung: JPEG: number 3"]
    assert [line.split() for line in tally.lines()] == [
        ["tried", "refused", "answered", "silent", "crashed", "hung"],
        ["JPEG", "4", "1", "1", "1", "0", "1"],
        ["OME", "1", "1", "0", "0", "0", "0"],
        ["all", "5", "2", "1", "1", "0", "1"],
        ["hung:", "JPEG:", "number", "3"],
    ]
