"""The benchmarks run: each topic at tiny sizes, so that they cannot rot. What they measure here means nothing."""

import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
from benchmarks import memory
from benchmarks.__main__ import TOPICS, main
from benchmarks.bars import BARS
from benchmarks.measuring import Timings, alternate
from benchmarks.peers.__main__ import PEERS, compare
from benchmarks.results import Found, Setting, Table, bars_table, read_all, update_page, write_found

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Tiny sizes; the phantom is drawn once."""
    work = tmp_path_factory.mktemp("bench")
    return Setting(work, quick=True, plots=work)


@pytest.fixture(scope="module")
def measured(setting):
    """Findings on a topic, measured once."""
    return cache(lambda topic: importlib.import_module(f"benchmarks.{topic}").measure(setting))


@pytest.mark.parametrize(
    "topic",
    [
        "reading",
        "networks",
        "designs",
        "encoding",
        "hashi",
        "scaling",
        "one_slide",
        "training",
        "evaluating",
        "overlap",
        "cohorts",
    ],
)
def test_a_topic_runs(topic, measured):
    """It reports figures and a table, which JSON can hold."""
    found = measured(topic)

    assert found.tables
    assert all(len(row) == len(table.header) for table in found.tables for row in table.rows)
    json.dumps(found.figures)


def test_nothing_is_decoded_twice(measured):
    """The one figure that no machine changes."""
    assert measured("reading").figures["decoded_twice"] == 0


def test_memory_over_slides_is_watched(setting):
    """A slide after the other, each predicted anew."""
    found = memory.predict_many(setting)

    assert len(found["gb"]) == found["slides"] == 2
    assert min(found["gb"]) > 0


def test_the_command_prints_and_leaves_the_page_alone(tmp_path, capsys):
    """A quick run shows tables and writes no results."""
    before = (ROOT / "docs" / "performance.md").read_text()

    code = main(["--quick", "--only", "start", "--work", str(tmp_path), "--out", str(tmp_path / "out")])

    assert code == 0
    assert "he2her2 --help" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert (ROOT / "docs" / "performance.md").read_text() == before


def test_candidates_take_turns():
    """Back and forth, after a warm-up of each."""
    ran: list[str] = []

    timings = alternate({name: lambda name=name: ran.append(name) for name in "ab"}, rounds=2)  # type: ignore[misc]

    assert ran == [*"ab", *"ab", *"ba"]
    assert [len(seconds) for seconds in timings.seconds.values()] == [2, 2]


def test_ratios_are_taken_round_by_round():
    """A machine that slows down between rounds changes no ratio."""
    timings = Timings({"fast": [1.0, 10.0, 3.0], "slow": [2.0, 20.0, 6.0]})

    assert timings.times_faster("fast", "slow") == 2
    assert timings.rate("fast", 6) == 2


def test_the_page_is_filled_between_its_marks(tmp_path):
    """Tables replace what stood there; prose stays; a second time changes nothing."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench:bars -->\nold\n<!-- end -->\nafter\n<!-- bench:start -->\n<!-- end -->\n")
    write_found(
        tmp_path / "out", "start", Found({"start_s": 0.1}, (Table("T", ("a", "b"), (("x", 1234.5),)),)), MACHINE
    )

    update_page(page, read_all(tmp_path / "out"))
    once = page.read_text()
    update_page(page, read_all(tmp_path / "out"))

    assert page.read_text() == once
    assert "old" not in once
    assert once.startswith("before\n")
    assert "| x | 1 234 |" in once
    assert "0.10 s | **met** |" in once


MACHINE = {"when": "2026-01-01T00:00:00", "cpu": "c", "cores": 2, "gpu": "none", "load_1min": 0.0, "versions": {}}


def test_a_missed_bar_is_said_so():
    """Met, missed and not measured are told apart."""
    table = bars_table({"reading": {"figures": {"stream_vs_openslide": 5.9, "stream_vs_bare": 0.8}}})
    verdict = {line.split("|")[1].strip(): line.split("|")[-3:-1] for line in table.splitlines()}

    assert verdict[BARS[0].what][1].strip() == "**not met**"
    assert verdict[BARS[1].what][1].strip() == "**met**"
    assert verdict[BARS[2].what][0].strip() == "not measured"


def test_ours_is_compared_with_the_best_peer():
    """Tiles with the fastest reader, masks with the fastest mask."""
    runs = {
        "he2her2": [{"version": "1", "coordinates": 9, "mask_s": 0.1, "tiles_per_s": 3000}],
        "hs2p": [{"version": "1", "coordinates": 9, "mask_s": 0.2, "tiles_per_s": 300}],
        "wsinfer": [{"version": "1", "coordinates": 9, "mask_s": 2.0, "tiles_per_s": 500}],
        "openslide": [{"version": "1", "coordinates": 9, "mask_s": 0.01, "tiles_per_s": 9000}],
    }

    found = compare(runs, {"histolab": "cannot be installed: no wheels"})

    assert found.figures == {"peers_tiles": 6.0, "peers_mask": 0.5}
    assert any("no wheels" in str(row) for row in found.tables[0].rows)


def test_every_bar_has_a_topic_that_measures_it():
    """And every topic and every peer has its file; the page has a place for each."""
    folder = ROOT / "benchmarks"
    text = "".join(file.read_text() for file in folder.rglob("*.py") if file.name != "bars.py")
    page = (ROOT / "docs" / "performance.md").read_text()

    assert [bar.key for bar in BARS if f'"{bar.key}"' not in text] == []
    assert {*re.findall(r"<!-- bench:(\w+) -->", page)} == {*TOPICS, "bars", "machine", "peers"}
    assert all((folder / f"{topic}.py").exists() for topic in TOPICS)
    assert all((folder / "peers" / f"with_{name}.py").exists() for name in PEERS)
