"""Runs of many slides as a user has them: any number of workers, in any order, in parts, resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from he2her2.cli.runs import _require_unused
from he2her2.cohort import (
    Claims,
    Ledger,
    LocalWorkers,
    SlideJob,
    SlideTask,
    SlideWork,
    Supervisor,
    networks_digest,
    read_status,
)
from he2her2.config import Config, load_config
from he2her2.errors import OutputError, WeightsError
from he2her2.files import write_json
from he2her2.results import Failure, MadeOf, SlideInputs, open_run, plan_run, result_to_record
from he2her2.results.notes import TimingNote
from tests.made_up_results import made_up_her2, made_up_result
from tests.tissue_slides import GLASS, QUICK, SIDE, tissue_pixels, write_tissue

TABLES = ("predictions.csv", "failures.csv")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Three slides, one of them without enough tissue, one blank, and a file that is none."""
    folder = tmp_path_factory.mktemp("slides")
    for name, share in (("a", 0.8), ("b", 0.7), ("small", 0.2)):
        write_tissue(folder / f"{name}.svs", tissue_pixels(share=share))
    write_tissue(folder / "blank.svs", np.full((SIDE, SIDE, 3), GLASS, np.uint8))
    (folder / "text.svs").write_text("no slide")
    return folder


@pytest.fixture
def predict(command_line, slides):
    """Predict the slides; gives code, output and errors."""

    def run(out, *options, what=None):
        return command_line("predict", *(what or [slides]), "--out", out, *QUICK, *options)

    return run


def tables(run):
    return [(run / name).read_bytes() for name in TABLES]


def test_tables_are_the_same_whoever_worked_on_the_slides(predict, slides, tmp_path):
    """In this process, by workers, in another order, in two parts, resumed: equal to the byte."""
    code, out, err = predict(tmp_path / "alone", "--workers", "0")
    assert code == 1
    assert "2 slides done, 3 failed" in out
    expected = tables(tmp_path / "alone")
    assert expected[1].decode().count("\r\n") == 4

    backwards = sorted(slides.iterdir(), reverse=True)
    predict(tmp_path / "workers", "--workers", "2", what=backwards)
    assert tables(tmp_path / "workers") == expected

    parts = tmp_path / "parts"
    predict(parts, "--workers", "0", "--shard", "1/2")
    assert len((parts / "planned.csv").read_text().splitlines()) == 6
    assert tables(parts) != expected
    predict(parts, "--workers", "0", "--shard", "2/2")
    assert tables(parts) == expected

    code, out, err = predict(parts)
    assert code == 1
    assert "2 slides done (2 of them before), 3 failed (3 of them before)" in out
    assert "failed before, not tried again without --retry-failed: 3" in err
    assert tables(parts) == expected
    assert not (parts / "claims").exists()


def test_options_of_workers_hold_for_one_slide(predict, slides, tmp_path):
    """A single slide has a worker, a limit and a scheduler where one is asked for, and the same result and output."""
    one = [slides / "a.svs"]
    _, alone, _ = predict(tmp_path / "alone", "--json", what=one)
    code, by_worker, _ = predict(tmp_path / "worker", "--json", "--workers", "1", what=one)
    assert code == 0
    assert json.loads(by_worker).keys() == json.loads(alone).keys()
    assert tables(tmp_path / "worker")[0] == tables(tmp_path / "alone")[0]
    assert not (tmp_path / "worker" / "claims").exists()

    code, _, err = predict(tmp_path / "limited", "--memory-limit", "0.1", what=one)
    assert code == 2
    assert "its worker needs more than 0.1 GB of memory, twice" in err

    scheduler = tmp_path / "scheduler.json"
    scheduler.write_text("{}")
    code, _, err = predict(tmp_path / "cluster", "--scheduler", scheduler, what=one)
    assert code == 2
    assert "scheduler.json: is no file of a Dask scheduler" in err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--workers", "0", "--memory-limit", "4"), "--memory-limit ends a worker process, and --workers 0 has none"),
        (("--workers", "0", "--time-limit", "4"), "--time-limit ends a worker process, and --workers 0 has none"),
        (("--workers", "2", "--scheduler", "tcp://x:1"), "--workers beside --scheduler, whose workers do the work"),
    ],
)
def test_options_that_cannot_hold_together_are_refused(predict, tmp_path, options, problem):
    """Neither is ignored."""
    code, _, err = predict(tmp_path / "run", *options)

    assert code == 2
    assert f"{problem}; leave one of them out" in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_a_slide_that_fails_leaves_what_was_found(predict, tmp_path):
    """Masks and an overlay up to the stage, named by its row; nothing of a file that cannot be opened."""
    run = tmp_path / "run"
    _, _, err = predict(run, "--workers", "0")
    rows = {line.split(",")[0]: line.split(",")[-1] for line in (run / "failures.csv").read_text().splitlines()[1:]}

    assert rows == {"blank": "slides/blank", "small": "slides/small", "text": ""}
    assert {path.name for path in (run / "slides" / "blank").iterdir()} == {
        "blur.png", "overlay.png", "pen.png", "tissue.png",
    }  # fmt: skip
    assert {"tumour.png", "tumour_map.png"} <= {path.name for path in (run / "slides" / "small").iterdir()}
    assert np.asarray(Image.open(run / "slides" / "small" / "tissue.png")).any()
    assert f"see {run / 'slides' / 'small'}" in err


def names_in(run, table):
    return [line.split(",")[0] for line in (run / table).read_text().splitlines()[1:]]


def test_the_result_of_a_file_that_is_damaged_now_leaves_the_tables(predict, slides, tmp_path):
    """It failed, and is said to have; once the file is there again, its result is, too."""
    run, there = tmp_path / "run", tmp_path / "in"
    there.mkdir()
    for name in "ab":
        shutil.copy2(slides / f"{name}.svs", there)
    predict(run, "--workers", "0", what=[there])
    (there / "a.svs").write_bytes((slides / "a.svs").read_bytes()[:5000])

    code, out, _ = predict(run, "--workers", "0", what=[there])
    found = open_run(run)

    assert (code, "1 slides done" in out, ", 1 failed" in out) == (1, True, True)
    assert (names_in(run, TABLES[0]), names_in(run, TABLES[1])) == (["b"], ["a"])
    assert (found.result("a"), found.evidence("a"), read_status(run).failed) == (None, None, {"open": 1})
    shutil.copy2(slides / "a.svs", there)
    assert predict(run, "--workers", "0", what=[there / "a.svs"])[0] == 0
    predict(run, "--workers", "0", what=[there / "b.svs"])
    assert (names_in(run, TABLES[0]), names_in(run, TABLES[1])) == (["a", "b"], [])


def test_another_slide_of_the_name_does_not_take_the_result_away(predict, slides, tmp_path):
    """It is refused, and the slide that was predicted stays in the tables."""
    other = tmp_path / "other" / "a.svs"
    other.parent.mkdir()
    shutil.copy2(slides / "b.svs", other)
    predict(tmp_path / "run", "--workers", "0", what=[slides / "a.svs", slides / "b.svs"])

    code, _, err = predict(tmp_path / "run", "--workers", "0", what=[other])

    assert code == 2
    assert "another slide of this name" in err
    assert names_in(tmp_path / "run", TABLES[0]) == ["a", "b"]


def test_the_result_by_an_annotation_that_is_damaged_now_is_gone(predict, slides, tmp_path):
    """Nothing of it passes for the result by the file as it is."""
    region = {"type": "Polygon", "coordinates": [[[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE], [0, 0]]]}
    (tmp_path / "a.geojson").write_text(json.dumps(region))
    options = ("--annotations", tmp_path / "a.geojson")
    predict(tmp_path / "run", *options, what=[slides / "a.svs"])
    (tmp_path / "a.geojson").write_text("{")

    code, _, _ = predict(tmp_path / "run", *options, what=[slides / "a.svs"])

    assert code == 2
    assert not (tmp_path / "run/slides/a/prediction.json").exists()
    assert (names_in(tmp_path / "run", TABLES[0]), names_in(tmp_path / "run", TABLES[1])) == ([], ["a"])


@dataclass(frozen=True)
class DiesWhileScoring:
    """The work on slides whose worker is killed once their tiles are to be scored."""

    work: SlideWork

    def __call__(self, progress, *, threads=None):
        """Open the worker."""

        def killing(stage, done, total):
            progress(stage, done, total)
            if stage == "tiles":
                os.kill(os.getpid(), signal.SIGKILL)

        return self.work(killing, threads=threads)


def test_a_slide_whose_worker_is_killed_leaves_what_was_found(slides, tmp_path):
    """Masks, map and overlay up to the stage, as one that fails by itself; a later result takes their place."""
    config = load_config(overrides=[word for word in QUICK if "=" in word])
    run = plan_run(tmp_path / "run", command=[], config=config, weights=[], overrides={})
    work = SlideWork("untrained:0", config, folders=run.slides)
    job = SlideJob(DiesWhileScoring(work), Ledger(run.slides, run.digest, run.failures), run.folder / "errors.log", 1)

    def outcome(job, **options):
        with Claims(run.folder) as claims:
            supervisor = Supervisor(job, LocalWorkers, claims, **options)
            (found,) = supervisor.run([SlideTask("a", slides / "a.svs")])
        return found.found

    failure = outcome(job)
    assert (failure.stage, failure.evidence) == ("scoring", "slides/a")
    assert "killed (SIGKILL)" in failure.reason
    names = {path.name for path in (run.folder / "slides" / "a").iterdir()}
    assert names == {
        "blur.png", "overlay.png", "pen.png", "tissue.png", "tumour.png", "tumour_map.png", "tumour_samples.csv",
    }  # fmt: skip
    assert run.failures.read("a", job.ledger.made_of(SlideTask("a", slides / "a.svs").inputs)) == failure

    assert outcome(replace(job, open_worker=work), retry_failed=True).her2 is not None
    assert "prediction.json" in {path.name for path in (run.folder / "slides" / "a").iterdir()}
    assert not run.failures.has("a")


def test_workers_refuse_weights_that_the_run_did_not_begin_with(monkeypatch):
    """Replaced while it goes on, or an older copy on another machine: results of both stood in one run."""
    found: Any = SimpleNamespace(cards={}, rules=None)
    monkeypatch.setattr("he2her2.cohort.slide_worker.load_slide_model", lambda *_: found)

    assert SlideWork("w", Config(), networks=networks_digest(found))().model is found
    with pytest.raises(WeightsError, match=r"w: are other weights on .* now than those that the run began with; keep"):
        SlideWork("w", Config(), networks="of others")()


def test_a_run_that_is_stopped_ends_cleanly_within_seconds(slides, tmp_path):
    """Workers and all; the same command goes on where it was."""
    if os.name == "nt":
        pytest.skip("no such signals")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "he2her2", "predict", slides, "--out", run, "--workers", "1", *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 60
    while not (run / "slides" / "a" / "prediction.json").exists() and time.monotonic() < until:
        time.sleep(0.02)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert out.endswith("he2her2: stopped\n")
    assert time.monotonic() - begin < 5
    assert (run / "predictions.csv").read_text().splitlines()[1].startswith("a,")
    assert not [path for path in run.rglob("*") if ".draft" in path.name or "claims" in path.name]
    assert json.loads((run / "run.json").read_text())["digest"]


def made_up_run(folder, n_planned, done, failed=()):
    """A run of which some slides have ended."""
    run = plan_run(folder, command=["he2her2"], config=Config(), weights=[], overrides={})
    names = [f"s{k:05}" for k in range(n_planned)]
    run.tables.plan({name: f"{name}.svs" for name in names})
    for name in names[:done]:
        result = made_up_result(slide_id=name, run_digest=run.digest, timing=TIMING, her2=made_up_her2(0.7))
        write_json(run.slides.of(name) / "prediction.json", result_to_record(result))
        run.tables.add(result)
    for name in failed:
        run.failures.write(Failure(name, f"{name}.svs", "tumour", "none", "look"), MadeOf(run.digest, SlideInputs("")))
    run.write_description()
    run.tables.write()
    return run


TIMING = TimingNote({"tissue": 1.0, "tiles": 7.0}, {})


def test_status_tells_how_far_a_run_is(tmp_path, command_line):
    """From the folder alone: counts, what is worked on, rate and time left; in words, a log's line and JSON."""
    run = made_up_run(tmp_path / "run", 10, 3, ["s00003"])
    code, text, _ = command_line("status", run.folder)
    assert (code, text.splitlines()[0]) == (0, "4 of 10 slides, stopped")
    assert "failed     1, 1 at tumour" in text
    assert "most time  tiles, 88 % of the 8 s of a slide" in text
    all_ended = made_up_run(tmp_path / "ended", 2, 1, ["s00001"]).folder
    assert read_status(all_ended).state == "finished"
    record = json.loads((all_ended / "run.json").read_text())
    write_json(all_ended / "run.json", record | {"started": "2999-01-01T00:00:00+00:00"})
    with Claims(all_ended) as claims:
        assert read_status(all_ended).state == "running"  # by --retry-failed
        claims.take("s00001")
        assert read_status(all_ended).seconds is None  # as its machine's clock is ahead

    with Claims(run.folder) as claims:
        assert read_status(run.folder).state == "running"  # although its workers may only be starting
        claims.take("s00004")
        begun = replace(read_status(run.folder), seconds=120.0)
        assert begun.state == "running"
        assert (begun.n_recent, begun.n_left) == (4, 6)
        assert begun.line == "4 of 10 slides, running, 1 failed, 1 being worked on, 120 slides an hour, 3 min left"
        record = json.loads(command_line("status", run.folder, "--json")[1])
        assert (record["state"], record["running"][0]["slide_id"]) == ("running", "s00004")

    command_line("status", tmp_path / "none")
    assert "holds no run" in command_line("status", tmp_path)[2]


def test_status_of_ten_thousand_slides_takes_less_than_a_second(tmp_path):
    """It reads tables and names, and the results of a few only; the table it reads is written in linear time."""
    run = made_up_run(tmp_path / "run", 2_000, 2_000)

    begin = time.perf_counter()
    assert read_status(run.folder).state == "finished"
    assert time.perf_counter() - begin < 0.2 * 3


def test_a_run_that_is_being_made_is_not_taken_over(tmp_path):
    """The two wrote the same tables: those of the one stood beside the settings of the other."""
    run = made_up_run(tmp_path / "run", 1, 1)
    other, same = (
        plan_run(run.folder, command=[], config=Config(), weights=[], overrides=overrides, overwrite=True)
        for overrides in ({"mpp": 1}, {})
    )

    with Claims(run.folder):
        _require_unused(same)
        with pytest.raises(OutputError, match=f"process {os.getpid()} on .* works on it with other settings; end it"):
            _require_unused(other)
        (command,) = (run.folder / "claims").iterdir()
        named = json.loads(command.read_text())
        del named["space"]  # an earlier version's, which cannot be told from one of another machine
        command.write_text(json.dumps(named))
        with pytest.raises(OutputError, match=r"end it first \(if it was killed, three minutes pass"):
            _require_unused(other)
    _require_unused(other)


def test_watching_ends_with_the_run(tmp_path, command_line):
    """A line for a log at each look, and the whole at the end."""
    run = made_up_run(tmp_path / "run", 2, 1)
    finish = threading.Timer(0.5, lambda: made_up_run(run.folder, 2, 2))
    finish.start()
    code, text, _ = command_line("status", run.folder, "--watch", "--every", "0.1")
    finish.join()

    assert code == 0
    assert text.splitlines()[0] == "1 of 2 slides, stopped, 0 failed"
    assert "2 of 2 slides, finished" in text


def test_evaluation_of_a_run_that_goes_on_says_so(tmp_path):
    """On everything that it writes."""
    run = made_up_run(tmp_path / "run", 10, 3)

    assert open_run(run.folder).unfinished == "unfinished run: 3 of its 10 slides have ended"
