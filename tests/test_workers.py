"""Worker processes: what goes wrong in one costs its slide one more attempt, and nothing else."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import Pipe, current_process
from types import SimpleNamespace
from typing import Any

import pytest

from he2her2.cli.runs import SlideRun, _crew
from he2her2.cohort import Claims, Limits, LocalWorkers, Supervisor, ThisProcess, read_claims, usual_number
from he2her2.cohort.crew import Death, DeathCause, Died, Ended, Seat
from he2her2.cohort.local_workers import _Progressed, _WorkerProcess
from he2her2.cohort.supervisor import _Flight
from he2her2.config import load_config
from he2her2.errors import OutputError
from he2her2.machine import process_space
from he2her2.results import Failure
from tests.made_up_work import alone, attempts_at, job_in, kept, left_over, supervise, write_slides


def test_what_goes_wrong_in_a_worker_costs_its_slide_only(tmp_path):
    """Killed, aborted, crashed, hung and out of memory: two attempts and a row each; the others have one attempt."""
    tasks = write_slides(
        tmp_path / "slides",
        dies="dies", once="dies_once", aborts="aborts", more="needs_more", hangs="hangs", eats="eats", blank="blank",
        a="slow_0.2", b="slow_0.2", c="slow_0.2", d="d", e="e",
    )  # fmt: skip

    found = supervise(tmp_path / "run", tasks, limits=Limits(minutes=5 / 60, memory_gb=0.4))

    reasons = {name: one.reason for name, one in found.items() if isinstance(one, Failure)}
    assert reasons == {
        "dies": "its worker was killed (SIGKILL), as systems do when memory runs out, twice, the second time alone",
        "aborts": "its worker was ended by SIGABRT, as a library does by a crash, twice, the second time alone",
        "hangs": "no result within 5 s, twice, the second time alone",
        "eats": "its worker needs more than 0.4 GB of memory, twice, the second time alone",
        "more": "its worker ran out of memory, twice, the second time alone",
        "blank": "blank",
    }
    remedies = {name: one.remedy.partition(";")[0] for name, one in found.items() if isinstance(one, Failure)}
    look = "check it with he2her2 inspect --deep"
    assert {name for name, remedy in remedies.items() if remedy == "give the run more memory"} == {
        "dies",
        "eats",
        "more",
    }
    assert (remedies["aborts"], remedies["hangs"]) == (look, f"{look}, or allow more with --time-limit")
    assert {one.stage for one in found.values() if isinstance(one, Failure)} == {"scoring", "tissue"}
    assert found["once"] == "DIES ONCE"
    assert {task.slide_id: attempts_at(task) for task in tasks} == {
        "dies": 2, "once": 2, "aborts": 2, "more": 2, "hangs": 2, "eats": 2, "blank": 1,
        "a": 1, "b": 1, "c": 1, "d": 1, "e": 1,
    }  # fmt: skip
    assert kept(tmp_path / "run").keys() == found.keys() - reasons.keys()
    assert not left_over(tmp_path / "run")
    assert "Fatal Python error: Aborted" in (tmp_path / "run" / "errors.log").read_text()  # where it crashed


class DiesInWords(ThisProcess[str, str]):
    """A crew whose worker dies at each slide, in words that name the memory of something else."""

    def events(self, timeout_s):
        """The death."""
        task, self._task = self._task, None
        if task is None:
            return super().events(timeout_s)
        return [Died(self._seat, Death("its worker crashed in memory.svs", DeathCause.CRASH), [task.slide_id])]


@pytest.mark.parametrize("was_alone", [True, False])
def test_an_attempt_that_never_began_is_made_again_as_it_was_meant(tmp_path, was_alone):
    """Alone where the slide was to be tried alone, as its failure would say."""
    (task,) = write_slides(tmp_path / "slides", memory="x")
    seat = Seat("one", "here")
    with Claims(tmp_path) as claims:
        supervisor = Supervisor(job_in(tmp_path / "run"), alone, claims)
        flight = _Flight(task, seat, 0.0, alone=was_alone)

        assert not list(supervisor._on_death(flight, Died(seat, Death("it died", DeathCause.CRASH), begun=())))

    assert list(supervisor._alone if was_alone else supervisor._ready) == [task]


def test_hours_in_which_a_job_is_suspended_are_not_its_slides(tmp_path, monkeypatch):
    """Of all slides that were worked on then, the second time was a failure for good."""
    killed: list[Seat] = []
    seat, times = Seat("one", "here"), iter((10.0, 30_000.0, 30_050.0, 30_100.0, 30_130.0))  # suspended after the first
    monkeypatch.setattr("he2her2.cohort.supervisor.monotonic", lambda: next(times))
    crew: Any = SimpleNamespace(kill=killed.append)
    with Claims(tmp_path) as claims:
        supervisor = Supervisor(job_in(tmp_path / "run"), alone, claims, Limits(minutes=2))
        (task,) = write_slides(tmp_path / "slides", a="x")
        supervisor._flights["a"] = _Flight(task, seat, 0.0, begun=True)
        for _ in range(4):
            supervisor._enforce_limits(crew)
        assert not killed
        supervisor._enforce_limits(crew)

    assert killed == [seat]


def test_the_remedy_follows_the_cause_of_a_death(tmp_path):
    """Not the words in which it is told."""
    tasks = write_slides(tmp_path / "slides", memory="x")

    found = supervise(tmp_path / "run", tasks, crew=lambda job, _, report: DiesInWords(job, report))

    failure = found["memory"]
    assert isinstance(failure, Failure)
    assert failure.reason == "its worker crashed in memory.svs, twice, the second time alone"
    assert failure.remedy == "check it with he2her2 inspect --deep; --retry-failed tries it again"


def test_failures_are_kept_until_their_slide_changes_or_they_are_asked_for(tmp_path):
    """The same command again tries no slide that failed; a changed file, or --retry-failed, does."""
    run, tasks = tmp_path / "run", write_slides(tmp_path / "slides", a="blank", b="b")
    crew = alone
    supervise(run, tasks, crew=crew)
    supervise(run, tasks, crew=crew)
    assert [attempts_at(task) for task in tasks] == [1, 1]

    supervise(run, tasks, crew=crew, retry_failed=True)
    assert [attempts_at(task) for task in tasks] == [2, 1]

    tasks[0].path.write_text("mended")
    assert supervise(run, tasks, crew=crew)["a"] == "MENDED"
    assert not list((run / "failures").iterdir())


def test_each_worker_sees_one_gpu(tmp_path, monkeypatch):
    """By default there are as many workers as this process may see, whatever their names; more take turns."""
    names = ["3", "GPU-5f2c", "MIG-7d"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(names))
    assert usual_number(100) == 3
    tasks = write_slides(tmp_path / "slides", **{f"s{k}": "gpu" for k in range(4)})
    crew = LocalWorkers(job_in(tmp_path / "run"), 4, lambda *_: None)
    try:
        while len(crew.idle()) < 4:
            crew.events(0.1)
        for seat, task in zip(crew.idle(), tasks, strict=True):
            crew.send(seat, task)
        n_left = len(tasks)
        while n_left:
            n_left -= sum(isinstance(event, Ended) for event in crew.events(0.1))
    finally:
        crew.close()

    assert sorted(kept(tmp_path / "run").values()) == ["3", "3", "GPU-5f2c", "MIG-7d"]


def test_gpus_count_only_where_networks_run_on_them(tmp_path, monkeypatch):
    """With --device cpu, or without torch, a machine with one GPU would have had one worker for all its cores."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("he2her2.cohort.local_workers.usable_cores", lambda: 2)
    monkeypatch.setattr("he2her2.cohort.LocalWorkers", lambda _job, n, _report: n)
    asked = SlideRun(tmp_path, load_config(overrides=["runtime.device=cpu"]))

    job: Any = job_in(tmp_path / "run")

    n: Any = _crew(asked, job, 100, lambda *_: None)

    assert n == 2


def test_who_replaces_a_dead_worker_takes_its_gpu(tmp_path, monkeypatch):
    """So that none is used twice while another stands idle."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    tasks = write_slides(tmp_path / "slides", bad="dies", **{f"s{k}": "gpu" for k in range(3)})
    crew = LocalWorkers(job_in(tmp_path / "run"), 3, lambda *_: None)

    def wait_for_all():
        until = time.monotonic() + 120
        while len(crew.idle()) < 3 and time.monotonic() < until:
            crew.events(0.1)

    try:
        wait_for_all()
        crew.send(crew.idle()[2], tasks[0])
        while not any(isinstance(event, Died) for event in crew.events(0.1)):
            pass
        wait_for_all()
        for seat, task in zip(crew.idle(), tasks[1:], strict=True):
            crew.send(seat, task)
        n_left = 3
        while n_left:
            n_left -= sum(isinstance(event, Ended) for event in crew.events(0.1))
    finally:
        crew.close()

    assert sorted(kept(tmp_path / "run").values()) == ["0", "1", "2"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_stops_the_run_with_what_is_done_intact(tmp_path, workers):
    """It is no slide's failure."""
    tasks = write_slides(tmp_path / "slides", a="a", b="full", c="slow_5")
    crew = alone if workers == 0 else None

    with pytest.raises(OutputError, match="the disk is full"):
        supervise(tmp_path / "run", tasks, workers=1, crew=crew)

    assert kept(tmp_path / "run") == {"a": "A"}
    assert not (tmp_path / "run" / "failures").exists()
    assert not left_over(tmp_path / "run")


def test_ctrl_c_is_the_supervisors_from_the_start(tmp_path, monkeypatch):
    """A worker that is still loading its libraries would answer it by a traceback."""
    masks = []

    class Process:
        """One that is started only by name."""

        def __init__(self, **_):
            """Take whatever a process takes."""

        def start(self):
            """Note the signals that a process started now would not get."""
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    monkeypatch.setattr("he2her2.cohort.local_workers._SPAWN.Process", Process)
    LocalWorkers(job_in(tmp_path / "run"), 1, lambda *_: None)

    assert masks == [{signal.SIGINT}]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_error_of_who_hears_of_progress_is_no_death(tmp_path):
    """It ends the loop; taken for the death of a worker, it would be waited for without end."""

    def unheard(*_):
        raise OSError("nobody hears")

    crew = LocalWorkers(job_in(tmp_path / "run"), 0, unheard)
    ours, theirs = Pipe()
    seat = Seat("worker", "here")
    crew._workers[seat] = _WorkerProcess(seat, current_process(), ours, None)
    theirs.send(_Progressed("a", "tiles", 1, 2))

    with pytest.raises(OSError, match="nobody hears"):
        crew.events(1)


def test_the_loop_that_is_left_ends_its_workers(tmp_path):
    """At once, whatever they are at, and without a trace."""
    tasks = write_slides(tmp_path / "slides", a="a", b="hangs", c="hangs")
    run = tmp_path / "run"
    begin = time.monotonic()
    with Claims(run) as claims:
        supervisor = Supervisor(job_in(run), lambda job, n, report: LocalWorkers(job, n - 1, report), claims)
        outcomes = supervisor.run(tasks)
        assert next(outcomes).found == "A"
        begin = time.monotonic()
        outcomes.close()

    assert time.monotonic() - begin < 3
    assert not left_over(run)


_TWO = """
import sys
from pathlib import Path
from tests.made_up_work import alone, supervise
from he2her2.cohort import SlideTask
run, slides = Path(sys.argv[1]), Path(sys.argv[2])
tasks = [SlideTask(file.stem, file) for file in sorted(slides.glob("*.svs"))]
found = supervise(run, tasks, crew=alone)
assert len(found) == len(tasks), found
"""


def _process(tmp_path):
    return subprocess.Popen([sys.executable, "-c", _TWO, tmp_path / "run", tmp_path / "slides"])


def test_two_processes_share_a_folder(tmp_path):
    """No slide is worked on twice, and both end with all of them; one that is killed is taken over."""
    tasks = write_slides(tmp_path / "slides", **{f"s{k:02}": "slow_0.3" for k in range(12)})
    first, second = _process(tmp_path), _process(tmp_path)

    assert first.wait(60) == second.wait(60) == 0
    assert [attempts_at(task) for task in tasks] == [1] * 12
    assert not left_over(tmp_path / "run")

    more = write_slides(tmp_path / "slides", x="slow_1", y="slow_1")
    killed, other = _process(tmp_path), None
    try:
        until = time.monotonic() + 30
        while not attempts_at(more[0]) and time.monotonic() < until:
            time.sleep(0.02)
        other = _process(tmp_path)
        killed.send_signal(signal.SIGKILL)
        assert other.wait(60) == 0
    finally:
        for process in filter(None, (killed, other)):
            process.kill()
            process.wait()
    assert kept(tmp_path / "run").keys() >= {"x", "y"}
    assert not left_over(tmp_path / "run")


def test_commands_that_try_failed_slides_again_share_these(tmp_path):
    """Each tried all of them again: of ten array tasks every slide that hangs cost each its time limit."""
    tasks, run = write_slides(tmp_path / "slides", a="blank", b="blank"), tmp_path / "run"
    supervise(run, tasks, crew=alone)
    with Claims(run) as claims:
        outcomes = Supervisor(job_in(run), alone, claims, retry_failed=True).run(tasks)
        assert next(outcomes).task == tasks[0]
        supervise(run, tasks[1:], crew=alone, retry_failed=True)
        (last,) = outcomes

    assert (last.task, last.kept, isinstance(last.found, Failure)) == (tasks[1], True, True)
    assert [attempts_at(task) for task in tasks] == [2, 2]
    supervise(run, tasks, crew=alone, retry_failed=True)
    assert [attempts_at(task) for task in tasks] == [3, 3]


def test_a_claim_of_another_machine_lasts_while_it_gives_signs_of_life(tmp_path):
    """And is taken over once it has given none for a while; so is that of a container, whatever its host's name."""
    with Claims(tmp_path) as claims:
        assert claims.take("a")
        file = tmp_path / "claims" / "a.json"
        file.write_text(file.read_text().replace(process_space(), "elsewhere"))
        with Claims(tmp_path, patience_s=0.3) as others:
            assert not others.take("a")
            for _ in range(5):
                time.sleep(0.1)
                os.utime(file)
                assert not others.take("a")
            time.sleep(0.4)
            assert others.take("a")


def test_a_claim_that_was_taken_over_silences_no_other(tmp_path):
    """As after a machine was suspended: its other slides, and the command itself, still give signs of life."""
    with Claims(tmp_path, patience_s=0.3) as claims:
        assert all(map(claims.take, "ab"))
        (tmp_path / "claims" / "a.json").unlink()
        left = {file: file.stat().st_mtime_ns for file in (tmp_path / "claims").iterdir()}
        until = time.monotonic() + 10
        while silent := [file.name for file, before in left.items() if file.stat().st_mtime_ns == before]:
            assert time.monotonic() < until, silent
            time.sleep(0.02)

        assert len(left) == 2


def test_a_claim_that_a_full_disk_did_not_take_holds_nothing_up(tmp_path):
    """An empty file in its place would be somebody's claim, until it counts as dead after minutes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Claims(tmp_path) as claims:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with pytest.raises(OutputError, match="cannot be written"):
                claims.take("a")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert claims.take("a")


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP])
def test_claims_need_no_links(tmp_path, monkeypatch, error):
    """Some file systems of clusters have none; still only one process gets a slide."""

    def no_links(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", no_links)
    with Claims(tmp_path) as claims, Claims(tmp_path) as others:
        assert claims.take("a")
        assert not others.take("a")
        (claim,) = read_claims(tmp_path)
        others._break("a", replace(claim, token="of a dead one"))  # whose place another had taken just before
        assert list(read_claims(tmp_path)) == [claim]
        monkeypatch.setattr("pathlib.Path.unlink", no_links)  # a disk that is lost ends no command as a bug
        claims.release("a")


def test_a_process_of_the_same_number_is_another(tmp_path, monkeypatch):
    """Numbers come again, and machines are restarted: the claim of one that is gone holds nothing up."""
    with Claims(tmp_path) as claims, Claims(tmp_path) as others:
        assert claims.take("a")
        assert not others.take("a")
        file = tmp_path / "claims" / "a.json"
        file.write_text(file.read_text().replace('"born": "', '"born": "1'))
        monkeypatch.setattr("he2her2.cohort.claims._born", lambda _: "")
        assert not others.take("a")  # where the system hides other users' processes, nobody knows
        monkeypatch.undo()
        assert others.take("a")
