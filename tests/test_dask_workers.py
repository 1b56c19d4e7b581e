"""Workers of a Dask cluster of separate processes: what goes wrong in one costs its slide only."""

import signal
import subprocess
import sys
import time

import pytest

from he2her2.cohort import DaskWorkers, Limits
from he2her2.errors import He2Her2Error
from he2her2.results import Failure
from tests.conftest import REPOSITORY
from tests.made_up_work import attempts_at, kept, left_over, supervise, write_slides

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler, and two workers of one thread with nannies; gives the scheduler's file."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"

    def start(*command):
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *command, "--scheduler-file", file],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    local = ("--host", "127.0.0.1")
    boss = start("scheduler", *local, "--port", "0", "--no-dashboard")
    hands = start(
        "worker", *local, "--nworkers", "2", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard",
        "--local-directory", folder,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    yield file
    for process in (hands, boss):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_cluster_works_as_local_workers_do(scheduler, tmp_path):
    """One killed in the middle of a slide, one that hangs, one out of memory; the others have one attempt each."""
    tasks = write_slides(
        tmp_path / "slides",
        once="dies_once", hangs="hangs", eats="eats", blank="blank",
        a="slow_0.2", b="slow_0.2", c="c", d="d",
    )  # fmt: skip

    def crew(job, _, report):
        return DaskWorkers(job, str(scheduler), report)

    run = tmp_path / "run"
    found = supervise(run, tasks, crew=crew, limits=Limits(minutes=10 / 60, memory_gb=0.45))

    reasons = {name: one.reason.partition(",")[0] for name, one in found.items() if isinstance(one, Failure)}
    assert reasons == {
        "hangs": "no result within 10 s",
        "eats": "its worker needs more than 0.45 GB of memory",
        "blank": "blank",
    }
    assert {one.stage for one in found.values() if isinstance(one, Failure)} == {"scoring", "tissue"}
    assert {task.slide_id: attempts_at(task) for task in tasks} == {
        "once": 2, "hangs": 2, "eats": 2, "blank": 1, "a": 1, "b": 1, "c": 1, "d": 1,
    }  # fmt: skip
    assert kept(run) == {"once": "DIES ONCE", "a": "SLOW 0.2", "b": "SLOW 0.2", "c": "C", "d": "D"}
    assert not left_over(run)


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    """With the address."""
    monkeypatch.setattr("he2her2.cohort.dask_workers._CONNECT_S", 0.2)
    tasks = write_slides(tmp_path / "slides", a="a")
    with pytest.raises(He2Her2Error, match=r"--scheduler tcp://127.0.0.1:9: no Dask scheduler answers"):
        supervise(tmp_path / "run", tasks, crew=lambda job, _, report: DaskWorkers(job, "tcp://127.0.0.1:9", report))
