"""Many slides: which there are, the one loop over them, and the ledger of what is done."""

import pickle
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from he2her2.cohort import Ledger, SlideEngine, SlideTask, list_slides, require_all, slide_tasks
from he2her2.config import Config
from he2her2.errors import AnnotationError, ManifestError, OutputError, SlideOpenError, TissueError
from he2her2.manifest import SlideRow
from he2her2.results import Failure, MadeOf, plan_run
from tests.made_up_results import made_up_result


@dataclass
class Memory:
    """A store in memory."""

    kept: dict[str, tuple[MadeOf, str]] = field(default_factory=dict)

    def read(self, slide_id, made_of):
        """The result, if it was made of the same."""
        found = self.kept.get(slide_id)
        return found[1] if found and found[0] == made_of else None

    def write(self, slide_id, made_of, product):
        """Keep the product in words."""
        self.kept[slide_id] = (made_of, str(product))
        return str(product)

    def discard(self, slide_id):
        """Forget it."""
        self.kept.pop(slide_id, None)


@pytest.fixture
def run(tmp_path):
    """A run of which nothing is done yet."""
    return plan_run(tmp_path / "run", command=["he2her2"], config=Config(), weights=[], overrides={})


@pytest.fixture
def slides(tmp_path):
    """Three small files."""
    for name in "abc":
        (tmp_path / f"{name}.svs").write_text(name)
    return slide_tasks([tmp_path / f"{name}.svs" for name in "abc"])


def test_a_folders_slides_are_listed_by_name(tmp_path):
    """Other files, hidden files and folders are not slides."""
    for name in ("b.svs", "a.ome.tif", "notes.txt", ".c.svs"):
        (tmp_path / name).touch()
    (tmp_path / "d.svs").mkdir()

    assert [path.name for path in list_slides(tmp_path)] == ["a.ome.tif", "b.svs"]
    assert list_slides(tmp_path / "b.svs") == [tmp_path / "b.svs"]


def test_each_slide_has_the_annotation_file_of_its_name(tmp_path):
    """In a folder; a file that is given is for the slide that is given."""
    (tmp_path / "S1.xml").touch()
    first, second = slide_tasks([Path("S1.svs"), Path("S2.svs")], annotations=tmp_path)
    (only,) = slide_tasks([Path("S3.svs")], annotations=tmp_path / "S1.xml")

    assert first.annotations == only.annotations == tmp_path / "S1.xml"
    assert second.annotations == tmp_path / "S2.geojson"  # named in the message that it is missing


def test_tasks_are_small_and_picklable(slides):
    """They may be sent to another machine."""
    assert pickle.loads(pickle.dumps(slides)) == slides
    assert max(len(pickle.dumps(task)) for task in slides) < 1000


def test_results_come_in_order_with_the_failures_among_them(slides):
    """A slide that fails does not stop the others."""

    def worker(task):
        if task.slide_id == "b":
            raise TissueError("b", "blank", "scan it")
        if task.slide_id == "c":
            raise AnnotationError("c.xml: no file")
        return 1

    told = []
    outcomes = [
        found for _, found in SlideEngine(progress=lambda *args: told.append(args)).run(slides, worker, stage="x")
    ]

    assert outcomes[0] == 1
    assert outcomes[1] == Failure("b", str(slides[1].path), "tissue", "blank", "scan it")
    assert (outcomes[2].stage, outcomes[2].reason) == ("annotations", "c.xml: no file")
    assert told == [("x", 1, 3), ("x", 2, 3), ("x", 3, 3)]


def test_threads_keep_the_order(slides):
    """The first slide is the slowest: it waits for the last."""
    last = threading.Event()

    def worker(task):
        if task.slide_id == "c":
            last.set()
        assert last.wait(5)
        return task.slide_id

    assert [found for _, found in SlideEngine(threads=3).run(slides, worker)] == ["a", "b", "c"]


def test_what_is_done_is_not_done_again(slides):
    """Unless the file, the scale given or the configuration changed."""
    store = Memory()
    seen: list[str] = []

    def worker(task):
        seen.append(task.slide_id)
        return task.slide_id

    def results(tasks, configuration="x"):
        seen.clear()
        return [found for _, found in SlideEngine().run(tasks, worker, Ledger(store, configuration))]

    assert results(slides) == ["a", "b", "c"]
    assert seen == ["a", "b", "c"]
    assert results(slides) == ["a", "b", "c"]
    assert seen == []
    slides[1].path.write_text("changed")
    results(slides)
    assert seen == ["b"]
    results([SlideTask("a", slides[0].path, mpp=0.5), *slides[1:]])
    assert seen == ["a"]
    results(slides[1:], "y")
    assert seen == ["b", "c"]


def test_a_failure_takes_the_earlier_result_away(slides):
    """Nothing may pass for the result of a slide that failed; one that cannot be opened may be another slide."""
    store = Memory()
    list(SlideEngine().run(slides, lambda task: task.slide_id, Ledger(store, "x")))

    def fail(task):
        if task.slide_id == "a":
            raise SlideOpenError("a", "no file", "check the path")
        raise TissueError(task.slide_id, "blank", "scan it")

    list(SlideEngine().run(slides, fail, Ledger(store, "y")))

    assert store.kept.keys() == {"a"}


def test_our_own_bug_costs_one_slide(slides, tmp_path):
    """It becomes a failure and its traceback goes to a log; without a log it is a traceback."""

    def worker(task):
        if task.slide_id == "b":
            raise ZeroDivisionError("by zero")
        return task.slide_id

    outcomes = [found for _, found in SlideEngine(log=tmp_path / "errors.log").run(slides, worker)]

    assert (outcomes[0], outcomes[1].stage, outcomes[2]) == ("a", "internal", "c")
    assert "ZeroDivisionError: by zero" in (tmp_path / "errors.log").read_text()
    with pytest.raises(ZeroDivisionError):
        list(SlideEngine().run(slides, worker))


def test_a_place_that_cannot_be_written_stops_the_loop(slides, tmp_path):
    """A full disk concerns every slide, not one."""

    def worker(_):
        raise OutputError("full")

    with pytest.raises(OutputError, match="full"):
        list(SlideEngine(log=tmp_path / "errors.log").run(slides, worker))


def test_all_results_or_every_reason(slides):
    """What a training needs of every slide is there, or one error names each line that lacks it."""
    rows = [SlideRow(line, task.slide_id, task.path, "p") for line, task in enumerate(slides, start=2)]
    failed = Failure("b", "b.svs", "tissue", "blank", "scan it")

    assert require_all(rows, zip(slides, [1, 2, 3], strict=True), "slides fail") == [1, 2, 3]
    with pytest.raises(ManifestError) as caught:
        require_all(rows, zip(slides, [1, failed, failed], strict=True), "slides fail")

    assert caught.value.problems[0] == "2 of 3 slides fail"
    assert caught.value.problems[1] == "line 3: b: blank; scan it"


def test_a_runs_tables_hold_what_was_added(run):
    """Segmentations and failures, each in their table."""
    run.add(made_up_result(run_digest=run.digest))
    run.add(Failure("b", "b.svs", "tissue", "blank", "scan it"))
    run.write_tables()

    assert (run.folder / "segmentations.csv").read_text().splitlines()[1].startswith("a,a.svs,0.25")
    assert (run.folder / "failures.csv").read_text().splitlines()[1] == "b,b.svs,tissue,blank,scan it"


def test_a_slide_that_succeeds_at_last_is_no_failure_any_more(run):
    """Rows of earlier commands stay but for those of slides that have a result now."""
    for slide_id in ("a", "b"):
        run.add(Failure(slide_id, f"{slide_id}.svs", "tissue", "blank", "scan it"))
    run.write_tables()
    run.failures.clear()
    run.add(made_up_result(run_digest=run.digest))
    run.write_tables()

    rows = (run.folder / "failures.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["slide_id", "b"]


def test_the_digest_tells_runs_apart(tmp_path):
    """What the user overrode counts as much as settings and weights."""

    def digest(**overrides):
        return plan_run(tmp_path, command=[], config=Config(), weights=[], overrides=overrides).digest

    assert digest(mpp=None) == digest(mpp=None)
    assert digest(mpp=None) != digest(mpp=0.5)
