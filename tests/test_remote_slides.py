"""Slides behind addresses: fetched ahead to a bounded place, deleted after their use, told apart by what lies there."""

import errno
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from he2her2.cohort import SlideEngine, SlideTask, Staging, fetch_manifest, find_slides, read_claims, sweep_staged
from he2her2.cohort.tasks import RemoteFile
from he2her2.errors import He2Her2Error, ManifestError, OutputError
from he2her2.manifest import read_manifest
from he2her2.results import Failure, FileStamp
from tests.made_up_work import alone, kept, left_over, supervise
from tests.tissue_slides import QUICK, write_tissue

_BYTES = 1000


@pytest.fixture
def bucket():
    """An empty store in memory; gives a function that puts a file there."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield lambda name, text: files.pipe(f"/bucket/{name}", text.encode())
    files.store.clear()


class _Quiet(SimpleHTTPRequestHandler):
    """A server that writes no log."""

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def served(tmp_path):
    """A folder on a server of this machine, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Watched(Staging):
    """Notes the most slides that were there at a time."""

    most = 0

    def begin(self, task):
        """Fetch one."""
        super().begin(task)
        self.most = max(self.most, len(self))


def test_thirty_slides_pass_through_a_place_for_three(bucket, tmp_path):
    """Interrupted in the middle and resumed: all have ended, none stays, and the place never holds more."""
    for k in range(30):
        bucket(f"s{k:02}.svs", f"words of {k}".ljust(_BYTES))
    tasks = find_slides(["memory://bucket"]).tasks
    assert [task.source for task in tasks[:2]] == ["memory://bucket/s00.svs", "memory://bucket/s01.svs"]
    run = tmp_path / "run"

    first = _Watched(run / "cache", 3 * _BYTES / 1e9)
    outcomes = supervise(run, tasks, crew=alone, staging=first, stop_after=7)
    assert len(outcomes) == 7
    assert not (run / "cache").exists()
    second = _Watched(run / "cache", 3 * _BYTES / 1e9)
    outcomes |= supervise(run, tasks, crew=alone, staging=second)

    assert first.most == second.most == 3
    assert {name: words.strip() for name, words in kept(run).items()} == {
        f"s{k:02}": f"WORDS OF {k}" for k in range(30)
    }
    assert not (run / "cache").exists()
    assert not left_over(run)


_KILLED = """
import sys
from pathlib import Path
from he2her2.cohort import Staging, find_slides
from tests.made_up_work import alone, supervise
run, tasks = Path(sys.argv[1]), find_slides(sys.argv[2:]).tasks
supervise(run, tasks, crew=alone, staging=Staging(run / "cache", 3e-6))
"""


def test_a_command_on_a_server_is_killed_and_resumed(served, tmp_path):
    """What had ended is not fetched again, and nothing stays in the place for three, which the kill left full."""
    folder, address = served
    names = [f"s{k:02}" for k in range(30)]
    for name in names:
        (folder / f"{name}.svs").write_text("slow 0.1".ljust(_BYTES))
    urls = [f"{address}/{name}.svs" for name in names]
    run, most = tmp_path / "run", 0
    with subprocess.Popen([sys.executable, "-c", _KILLED, run, *urls]) as process:
        until = time.monotonic() + 60
        while len(list((run / "slides").glob("s*.json"))) < 9 and time.monotonic() < until:
            most = max(most, len(list((run / "cache").glob("s*"))))
            time.sleep(0.01)
        process.kill()
    before = {file.name: file.stat().st_mtime_ns for file in (run / "slides").glob("s*.json")}
    assert 9 <= len(before) < 30
    assert 0 < most <= 3
    assert list((run / "cache").iterdir())

    sweep_staged(run / "cache", lambda: {claim.slide_id for claim in read_claims(run) if claim.is_alive})
    staging = _Watched(run / "cache", 3 * _BYTES / 1e9)
    supervise(run, find_slides(urls).tasks, crew=alone, staging=staging)

    assert sorted(kept(run)) == names
    assert {name: (run / "slides" / name).stat().st_mtime_ns for name in before} == before
    assert staging.most == 3
    assert not (run / "cache").exists()
    assert not left_over(run)


def test_slides_of_unknown_size_fill_no_disk(bucket, tmp_path):
    """Of a server that does not state it, all of a cohort were fetched at once; each counts as the largest so far."""
    for k in range(9):
        bucket(f"s{k}.svs", f"words of {k}".ljust(_BYTES))
    found = find_slides(["memory://bucket"]).tasks
    tasks = [replace(task, remote=RemoteFile(task.source, FileStamp(0, 1))) for task in found]

    staging = _Watched(tmp_path / "cache", 3 * _BYTES / 1e9)
    assert len(supervise(tmp_path / "run", tasks, crew=alone, staging=staging)) == 9
    assert staging.most == 3


def test_a_server_that_says_nothing_holds_up_no_end(tmp_path, monkeypatch):
    """It was waited for for two minutes, which batch systems do not give."""
    asked, end = threading.Event(), threading.Event()

    class Silent:
        """A file system of such a server."""

        def get_file(self, *_, **__):
            """Wait."""
            asked.set()
            end.wait(60)

    monkeypatch.setattr("he2her2.cohort.remote_slides._open", lambda url: (Silent(), url))
    staging, url = Staging(tmp_path / "cache", 1.0), "http://silent/a.svs"
    staging.begin(SlideTask("a", Path(url), remote=RemoteFile(url, FileStamp(1, 1))))
    assert asked.wait(10)
    begin = time.monotonic()
    staging.close()
    assert time.monotonic() - begin < 5
    end.set()


def test_what_changed_on_a_server_is_done_again(served, tmp_path):
    """One that tells when a file was changed, and gives it no mark of its own; names are those of the files there."""
    folder, url = served
    for k, words in enumerate(("one", "two")):
        (folder / "a #1.svs").write_text(words)
        os.utime(folder / "a #1.svs", (k, k))
        tasks = find_slides([f"{url}/a%20%231.svs"]).tasks
        assert supervise(tmp_path / "run", tasks, crew=alone, staging=Staging(tmp_path / "cache", 1.0)) == {
            "a #1": words.upper()
        }


def test_a_servers_mark_of_a_file_comes_before_its_time(bucket, monkeypatch):
    """Runs of earlier versions go by it; the time tells seconds, and several servers of one file may tell others."""

    def stamp(mark, time):
        facts = {"size": 3, "ETag": mark, "Last-Modified": time}
        monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", lambda *_, **__: facts)
        return find_slides(["memory://bucket/a.svs"]).tasks[0].inputs.slide

    bucket("a.svs", "one")
    assert stamp("1", "today") == stamp("1", "yesterday") != stamp("2", "today")


def test_what_changed_at_its_address_is_done_again(bucket, tmp_path):
    """What did not is kept without being fetched."""
    run = tmp_path / "run"

    def work():
        staging = _Watched(run / "cache", 1.0)
        found = supervise(run, find_slides(["memory://bucket/*.svs"]).tasks, crew=alone, staging=staging)
        return found, staging.most

    bucket("a.svs", "one")
    bucket("b.svs", "two")
    assert work() == ({"a": "ONE", "b": "TWO"}, 2)
    assert work() == ({"a": "ONE", "b": "TWO"}, 0)
    bucket("a.svs", "other")
    assert work() == ({"a": "OTHER", "b": "TWO"}, 1)


def test_a_slide_that_cannot_be_fetched_fails_alone(served, tmp_path):
    """The server's answer is the reason; the others go on."""
    folder, url = served
    (folder / "a.svs").write_text("a")
    tasks = find_slides([f"{url}/a.svs", f"{url}/none.svs", f"{url}/series.mrxs"]).tasks
    found = supervise(tmp_path / "run", tasks, crew=alone, staging=Staging(tmp_path / "cache", 1.0))

    assert found["a"] == "A"
    missing, series = found["none"], found["series"]
    assert isinstance(missing, Failure)
    assert isinstance(series, Failure)
    assert missing.stage == "open"
    assert missing.reason.startswith(f"{url}/none.svs: cannot be fetched (FileNotFoundError")
    assert "several files" in series.reason


def test_a_system_without_a_place_for_temporary_files_is_told(bucket, monkeypatch):
    """As in containers whose root cannot be written: it was a bug of ours."""

    def no_place(**_):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    bucket("a.svs", "one")
    monkeypatch.setattr("he2her2.cohort.engine.TemporaryDirectory", no_place)
    with pytest.raises(OutputError, match=r"No usable temporary directory found.*; name a writable folder in TMPDIR"):
        list(SlideEngine().run(find_slides(["memory://bucket/a.svs"]).tasks, lambda task: task.slide_id))


def test_addresses_that_hold_no_slides_are_refused(served, bucket):
    """In a line."""
    _, url = served
    bucket("notes.txt", "none")
    with pytest.raises(He2Her2Error, match="no slides among its 1 files"):
        find_slides(["memory://bucket"])
    with pytest.raises(He2Her2Error, match="nothing can be listed there"):
        find_slides([f"{url}/none/"])
    with pytest.raises(He2Her2Error, match="nonesuch"):
        find_slides(["nonesuch://bucket/a.svs"])


def test_a_server_of_slides_is_a_source_like_any_other(served, tmp_path, command_line):
    """For predict, by address or manifest, by one slide or many, and for inspect; tables name the address."""
    folder, url = served
    write_tissue(folder / "a.svs")
    write_tissue(folder / "b.svs")
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"slide_id,path,patient_id\nfirst,{url}/a.svs,P1\nsecond,{url}/b.svs,P2\n")
    run = tmp_path / "run"

    assert "is missing" not in "".join(map(str, command_line("manifest", "check", manifest)))
    code, _, err = command_line("predict", manifest, "--out", run, "--workers", "0", *QUICK)
    assert code == 0, err
    rows = [line.split(",")[:2] for line in (run / "predictions.csv").read_text().splitlines()[1:]]
    assert rows == [["first", f"{url}/a.svs"], ["second", f"{url}/b.svs"]]
    assert not (run / "cache").exists()

    code, out, err = command_line("predict", f"{url}/a.svs", "--out", tmp_path / "one", *QUICK)
    assert code == 0, err
    assert out.startswith("a: HER2")
    code, out, err = command_line("inspect", f"{url}/a.svs")
    assert code == 0, err
    assert "256 x 256" in out


def test_a_cache_may_hold_what_is_not_ours(served, tmp_path, command_line):
    """Slides that a killed command left in it are removed, and nothing else: it may be a user's whole scratch."""
    _, url = served
    other = tmp_path / "scratch" / "thesis" / "data.csv"
    other.parent.mkdir(parents=True)
    other.touch()

    code, _, err = command_line(
        "predict", f"{url}/gone.svs", f"{url}/lost.svs", "--out", tmp_path / "run", "--workers", "0",
        "--cache", tmp_path / "scratch", *QUICK,
    )  # fmt: skip

    assert (code, err.count("cannot be fetched")) == (1, 2)
    assert list((tmp_path / "scratch").rglob("*")) == [other.parent, other]


def test_a_training_has_its_slides_on_this_machine(served, tmp_path):
    """All of a manifest's are fetched once, for work that reads them again and again."""
    folder, url = served
    (folder / "a.svs").write_text("a")
    (tmp_path / "here.svs").write_text("here")
    file = tmp_path / "m.csv"
    file.write_text(f"slide_id,path,patient_id\nfirst,{url}/a.svs,P1\nsecond,here.svs,P2\n")

    fetched = fetch_manifest(read_manifest(file), tmp_path / "fetched")
    (folder / "a.svs").write_text("b")
    again = fetch_manifest(read_manifest(file), tmp_path / "fetched")

    assert [row.path.read_text() for row in read_manifest(fetched.path).rows] == ["a", "here"]
    assert [row.path for row in again.rows] == [row.path for row in fetched.rows]
    assert [row.patient_id for row in fetched.rows] == ["P1", "P2"]
    file.write_text(f"slide_id,path,patient_id\nfirst,{url}/none.svs,P1\n")
    with pytest.raises(ManifestError, match=r"line 2: first: .*cannot be fetched"):
        fetch_manifest(read_manifest(file), tmp_path / "fetched")


def test_manifests_of_one_name_keep_their_slides_apart(bucket, tmp_path):
    """Slides and manifests of two hospitals that name theirs alike; a slide that both list is one file."""
    bucket("ours/1.svs", "our first")
    bucket("theirs/1.svs", "their one")
    fetched = []
    for site, more in (("ours", ""), ("theirs", "2,memory://bucket/ours/1.svs,Q\n")):
        (tmp_path / site).mkdir()
        file = tmp_path / site / "slides.csv"
        file.write_text(f"slide_id,path,patient_id\n1,memory://bucket/{site}/1.svs,P-{site}\n{more}")
        fetched.append(fetch_manifest(read_manifest(file), tmp_path / "fetched").path)

    ours, theirs = ([row.path for row in read_manifest(file).rows] for file in fetched)
    assert [path.read_text() for path in (*ours, *theirs)] == ["our first", "their one", "our first"]
    assert ours == theirs[1:]
    assert [file.name for file in fetched] == ["slides.csv", "slides.csv"]
