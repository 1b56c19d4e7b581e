"""Workers of a Dask cluster of separate processes: what goes wrong in one costs its slide only."""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from he2her2.cohort import DaskWorkers, Limits
from he2her2.cohort.crew import Ended
from he2her2.errors import He2Her2Error
from he2her2.results import Failure
from tests.conftest import REPOSITORY
from tests.made_up_work import attempts_at, job_in, kept, left_over, supervise, write_slides

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


@pytest.mark.parametrize(("text", "problem"), [(None, "cannot be read"), ("{}", "is no file of a Dask scheduler")])
def test_a_file_that_names_no_scheduler_is_one_line(text, problem, tmp_path, monkeypatch):
    """One that is not there within the time, or holds something else."""
    monkeypatch.setattr("he2her2.cohort.dask_workers._CONNECT_S", 0.2)
    file = tmp_path / "s.json"
    if text is not None:
        file.write_text(text)
    tasks = write_slides(tmp_path / "slides", a="a")
    with pytest.raises(He2Her2Error, match=rf"--scheduler {file}: {problem}.*; dask scheduler --scheduler-file"):
        supervise(tmp_path / "run", tasks, crew=lambda job, _, report: DaskWorkers(job, str(file), report))


class Cluster:
    """A cluster of which every moment is the test's: it carries out an order when told to, and loses what it is told.

    It has the face of Dask's client, and of the worker that an order finds itself in.
    """

    status, state, at_once = "running", SimpleNamespace(nthreads=1), False

    def __init__(self, monkeypatch):
        self.workers = {}
        self.orders = []
        monkeypatch.setattr("distributed.Client", lambda *_, **__: self)
        monkeypatch.setattr("distributed.get_worker", lambda: self)

    def join(self, address):
        """A worker comes."""
        self.workers[address] = {"host": "here", "metrics": {"memory": 0}}

    def carry_out(self, order):
        """A worker works on an order; it may be one that nobody waits for any more."""
        order.future.set(order.work)

    def scheduler_info(self, **_):
        return {"workers": dict(self.workers)}

    def submit(self, function, order, *, workers, **_):
        sent = SimpleNamespace(address=workers[0], work=lambda: function(order), future=Future())
        self.orders.append(sent)
        if self.at_once:
            self.carry_out(sent)
        return sent.future

    def subscribe_topic(self, *_):
        """Progress goes nowhere."""

    log_event = cancel = close = subscribe_topic


class Future:
    """The result of an order, or the error."""

    status = "pending"

    def __init__(self):
        self.listeners = []

    def set(self, work):
        try:
            self.value, self.status = work(), "finished"
        except Exception as error:  # noqa: BLE001
            self.error, self.status = error, "error"
        for tell in self.listeners:
            tell(self)

    def add_done_callback(self, tell):
        self.listeners.append(tell)
        if self.done():
            tell(self)

    def done(self):
        return self.status != "pending"

    def result(self, **_):
        return self.value

    def exception(self):
        return self.error

    def cancel(self, *, force):
        """The cluster hears of it too late."""


@pytest.fixture
def cluster(monkeypatch):
    return Cluster(monkeypatch)


def crew_of(run):
    return DaskWorkers(job_in(run), "tcp://here:1", lambda *_: None)


def events_now(crew):
    """Events, after a look at the workers that there are."""
    crew._look_again = 0.0
    return crew.events(0)


def test_an_order_that_was_given_up_can_never_begin(cluster, tmp_path):
    """A worker that seemed lost takes it up after the slide has gone to another: the slide is begun once."""
    (run, (task,)) = tmp_path / "run", write_slides(tmp_path / "slides", a="a")
    (run / "claims").mkdir(parents=True)
    cluster.join("A")
    crew = crew_of(run)
    (seat,) = crew.idle()
    crew.send(seat, task)
    del cluster.workers["A"]
    assert [(event.seat, event.begun) for event in events_now(crew)] == [(seat, [])]

    cluster.join("B")
    assert not events_now(crew)
    (seat,) = crew.idle()
    crew.send(seat, task)
    for order in cluster.orders:
        cluster.carry_out(order)

    assert attempts_at(task) == 1
    assert events_now(crew) == [Ended("a", "A")]
    crew.close()
    assert not list((run / "claims").iterdir())


def test_an_attempt_that_dask_makes_again_is_refused(cluster, tmp_path):
    """Its worker died in the middle, and Dask gives its order to another before it hears that nobody waits."""
    (run, (task,)) = tmp_path / "run", write_slides(tmp_path / "slides", a="needs_more")
    (run / "claims").mkdir(parents=True)
    cluster.join("A")
    crew = crew_of(run)
    (seat,) = crew.idle()
    crew.send(seat, task)
    with pytest.raises(MemoryError):
        cluster.orders[0].work()
    del cluster.workers["A"]
    assert [event.begun for event in events_now(crew)] == [["a"]]

    cluster.carry_out(cluster.orders[0])

    assert attempts_at(task) == 1
    assert not events_now(crew)


def test_a_result_that_is_lost_with_its_worker_lies_in_the_folder(cluster, tmp_path, monkeypatch):
    """Dask cannot hand it over, and would have it made again: the run goes on, with one attempt."""

    def lost(future, timeout):
        raise TimeoutError

    monkeypatch.setattr(Future, "result", lost)
    tasks = write_slides(tmp_path / "slides", a="a", b="b")
    cluster.join("A")
    cluster.at_once = True

    found = supervise(tmp_path / "run", tasks, crew=lambda job, _, report: DaskWorkers(job, "tcp://here:1", report))

    assert found == {"a": "A", "b": "B"}
    assert [attempts_at(task) for task in tasks] == [1, 1]


@pytest.mark.parametrize("answer", ["OK", "removed", "timed out"])
def test_a_killed_worker_gets_no_slide_while_it_is_still_listed(cluster, tmp_path, answer):
    """Dask says that it was restarted before the old one has left; one that comes back at its address is new."""
    (run, (task,)) = tmp_path / "run", write_slides(tmp_path / "slides", a="a")
    (run / "claims").mkdir(parents=True)
    cluster.join("A")
    cluster.restart_workers = lambda addresses, **_: dict.fromkeys(addresses, answer)
    crew = crew_of(run)
    (seat,) = crew.idle()
    crew.send(seat, task)

    crew.kill(seat)

    assert [event.seat for event in events_now(crew)] == [seat]
    assert crew.idle() == []
    del cluster.workers["A"]
    events_now(crew)
    cluster.join("A")
    events_now(crew)
    assert [one != seat for one in crew.idle()] == [True]
