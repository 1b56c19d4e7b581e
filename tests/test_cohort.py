"""Many slides: which there are, the one loop over them, and the ledger of what is done."""

import os
import pickle
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from he2her2.cohort import Ledger, SlideEngine, SlideTask, find_slides, require_all
from he2her2.config import Config
from he2her2.errors import (
    AnnotationError,
    He2Her2Error,
    ManifestError,
    MppError,
    OutputError,
    SlideOpenError,
    TissueError,
)
from he2her2.manifest import SlideRow
from he2her2.preprocessing import TooFewTilesError
from he2her2.results import Failure, MadeOf, SlideInputs, plan_run, read_planned
from he2her2.results.tables import write_failures
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
    return find_slides([tmp_path / f"{name}.svs" for name in "abc"]).tasks


def ids_of(*what, **options):
    """The slides that paths stand for."""
    return [task.slide_id for task in find_slides(what, **options).tasks]


def test_a_folder_is_searched_below(tmp_path):
    """As GDC lays a cohort out; other files, and hidden files and folders, are not slides."""
    for name in ("uuid1/b.svs", "uuid2/deep/a.ome.tif", "notes.txt", ".c.svs", ".hidden/d.svs", "e.svs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    assert sorted(ids_of(tmp_path)) == ["a", "b", "e"]
    assert not find_slides([tmp_path]).single
    assert find_slides([tmp_path / "e.svs"]).single
    assert ids_of(tmp_path / "uuid1", tmp_path / "e.svs") == ["b", "e"]
    assert ids_of(tmp_path / "*" / "*.svs") == ["b"]
    assert sorted(ids_of(str(tmp_path / "uuid?"))) == ["a", "b"]


def test_slides_beside_the_results_of_a_run_are_found(tmp_path):
    """With `--out` above `slides`: results are no slides, and the run goes on with all of these."""
    for name in ("run.json", "slides/a.svs", "slides/a/overlay.png", "slides/a/heatmap.ome.tif", "slides/more/b.svs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    assert ids_of(tmp_path) == ids_of(tmp_path / "slides") == ["a", "b"]


def test_what_is_given_once_must_hold_for_every_slide(tmp_path):
    """One picture of a tumour was laid on all slides of a run; a scale beside another one was ignored."""
    for name in "ab":
        (tmp_path / f"{name}.svs").write_text(name)
    (tmp_path / "a.png").write_text("")
    manifest = tmp_path / "m.csv"
    manifest.write_text("slide_id,path,patient_id,mpp\na,a.svs,P1,0.5\nb,b.svs,P2,\n")

    with pytest.raises(He2Her2Error, match=r"a\.png: is one annotation file for 2 slides; give a folder"):
        find_slides([tmp_path / "*.svs"], annotations=tmp_path / "a.png")
    with pytest.raises(He2Her2Error, match=r"--mpp 0\.25, but the manifest states 0\.5 for a; leave one"):
        find_slides([manifest], mpp=0.25)
    (one,) = find_slides([tmp_path / "a.svs"], annotations=tmp_path / "a.png").tasks
    assert one.annotations == tmp_path / "a.png"


def test_a_manifest_stands_for_its_slides(tmp_path):
    """With their names, scales, annotations and patients; IHC is left out and counted."""
    for name in "abc":
        (tmp_path / f"{name}.svs").write_text(name)
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "slide_id,path,patient_id,stain,mpp,annotations\n"
        "first,a.svs,P1,HE,0.5,a.geojson\nsecond,b.svs,P1,,,\nthird,c.svs,P2,IHC,,\n"
    )

    found = find_slides([manifest], mpp=0.5, annotations=tmp_path)

    first, second = found.tasks
    assert first == SlideTask("first", tmp_path / "a.svs", 0.5, tmp_path / "a.geojson")
    assert second == SlideTask("second", tmp_path / "b.svs", 0.5, tmp_path / "second.geojson")
    assert found.patients == {"first": "P1", "second": "P1"}
    assert "rows of another stain than H&E are left out: 1" in found.notes[0]

    manifest.write_text("Slide ID,path,patient,mpp,Stain,HER2 percent\nfirst,a.svs,P1,0.5,HE,7\n")
    assert find_slides([manifest]).tasks == (SlideTask("first", tmp_path / "a.svs", 0.5),)
    assert find_slides([manifest]).notes == (
        f"{manifest}: columns: slide_id from 'Slide ID', patient_id from 'patient', stain from 'Stain'",
        f"{manifest}: columns about HER2 that are not read: HER2 percent",
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: [folder], "no slides among its 0 files"),
        (lambda folder: [folder / "*.svs"], "no file matches"),
        (lambda folder: [_write(folder / "m.csv", "slide_id,path,patient_id\n")], "m.csv: names no slide"),
        (lambda folder: [_write(folder / "a.svs"), folder / "cohrt.csv"], "cohrt.csv: cannot be read"),  # not a slide
        (lambda folder: [_write(folder / "m.csv", "slide_id,path,patient_id,stain\na,a.svs,p,IHC\n")], "no H&E slides"),
        (lambda folder: [_write(folder / "1" / "a.svs"), _write(folder / "2" / "a.tif", "other")], "are named a"),
    ],
)
def test_what_stands_for_no_slides_is_said(tmp_path, make, words):
    """One line."""
    with pytest.raises(He2Her2Error, match=words):
        find_slides(make(tmp_path))


def _write(path, text="slide"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_slide_counts_once_by_any_name(tmp_path):
    """A link beside its slide, a hard link, the same path twice."""
    slide = _write(tmp_path / "a.svs")
    (tmp_path / "b.svs").symlink_to(slide)
    (tmp_path / "c.svs").hardlink_to(slide)

    found = find_slides([tmp_path, slide, tmp_path / "b.svs"])

    assert [task.slide_id for task in found.tasks] == ["a"]
    assert len([note for note in found.notes if "the same file" in note]) >= 2


def test_a_link_gives_way_to_its_file(tmp_path):
    """Whichever name comes first; a link that a manifest names stays."""
    slide = _write(tmp_path / "z.svs")
    link = tmp_path / "a.svs"
    link.symlink_to(slide)
    manifest = _write(tmp_path / "m.csv", "slide_id,path,patient_id\nA,a.svs,P1\n")

    assert [task.path for task in find_slides([tmp_path]).tasks] == [slide]
    assert find_slides([tmp_path]).notes == (f"{link} is the same file as {slide}: one slide",)
    assert [task.path for task in find_slides([slide, manifest]).tasks] == [link]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("S1,a.svs,P1\nS2,a.svs,P2\n", "slides S1 and S2 are one file, .*a.svs"),
        ("S1,a.svs,P1\nS2,link.svs,P2\n", "slides S1 and S2 are one file"),
        ("S1,a.svs,P1\nS1,a.svs,P2\n", "names slide S1 more than once"),
    ],
    ids=["one file", "a link", "one name"],
)
def test_a_manifest_that_gives_one_file_to_two_slides_is_refused(tmp_path, rows, words):
    """Whose slide it is nobody can tell; until now the second was left out without a word."""
    _write(tmp_path / "a.svs")
    (tmp_path / "link.svs").symlink_to(tmp_path / "a.svs")

    with pytest.raises(He2Her2Error, match=words):
        find_slides([_write(tmp_path / "m.csv", f"slide_id,path,patient_id\n{rows}")])


def test_copies_of_a_file_are_told(tmp_path):
    """They are several slides, for a lab may want that; the user hears of each. Empty files are no copies."""
    texts = {
        "a.svs": "x" * 9000,
        "b.svs": "x" * 9000,
        "c.svs": "x" * 8999 + "y",
        "d.svs": "x",
        "e.svs": "",
        "f.svs": "",
    }
    texts |= {f"g{k}.svs": "z" * 9000 for k in range(7)}
    for name, text in texts.items():
        _write(tmp_path / name, text)
    for name in "mn":  # alike, but for the pixels beside them
        _write(tmp_path / f"{name}.mrxs", "")
        _write(tmp_path / name / "Data0000.dat", name if name == "m" else "more")

    found = find_slides([tmp_path])

    assert len(found.tasks) == len(texts) + 2
    (said,) = found.notes
    many = "g0.svs and g1.svs and g2.svs and g3.svs and g4.svs and 2 more"
    assert said.startswith(f"copies of one file count as several slides: a.svs and b.svs; {many} (")


def _dicom(path, uid):
    head = b"\0" * 128 + b"DICM" + b"\x08\0\x16\0UI\x02\x001\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + b"\x20\0\x0e\0UI" + len(uid).to_bytes(2, "little") + uid + path.name.encode())


def test_dicom_under_the_names_of_an_archive(tmp_path):
    """PACS export files by their number; other files that end in a number are none."""
    for name, series in (("1.2.840.10", b"1.5"), ("1.2.840.11", b"1.6"), ("1.2.840.12", b"1.6")):
        _dicom(tmp_path / name, series)
    (tmp_path / "notes.1").write_text("no slide")

    assert ids_of(tmp_path) == ["1.2.840.10", "1.2.840.11"]


@pytest.mark.parametrize(
    ("slide", "part", "other", "write", "contents"),
    [
        ("a.mrxs", "a/Data0000.dat", "b/Data0000.dat", _write, ("x", "xy")),
        ("a.vms", "a(1,0).jpg", "b.jpg", _write, ("x", "xy")),
        ("1.dcm", "2.dcm", "3.dcm", _dicom, (b"1.5", b"1.61")),
    ],
)
def test_what_holds_the_pixels_beside_a_slide_is_part_of_it(tmp_path, slide, part, other, write, contents):
    """Files that were copied again were no change: the slide stayed failed, or kept the result of a damaged part."""
    _write(tmp_path / "a.mrxs")
    _write(tmp_path / "a.vms", "[Virtual Microscope Specimen]\nImageFile=a(0,0).jpg\nImageFile(1,0)=a(1,0).jpg\n")
    _dicom(tmp_path / "1.dcm", b"1.5")
    task = SlideTask("a", tmp_path / slide)
    before = task.inputs
    write(tmp_path / other, contents[1])
    unlike = task.inputs
    write(tmp_path / part, contents[0])

    assert (unlike == before, task.inputs == before) == (True, False)


def test_linked_folders_are_looked_into_once(tmp_path):
    """A site's share is often a link; one that leads up, or to what was seen, is no second copy."""
    for name in ("cohort/a.svs", "share/b.svs"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for link, target in (("site", "../share"), ("again", "../share"), ("up", "..")):
        (tmp_path / "cohort" / link).symlink_to(target)

    assert ids_of(tmp_path / "cohort") == ["a", "b"]


def test_what_is_no_slide_in_a_folder_is_told(tmp_path):
    """By its ending; what lies beside slides anyway is passed over without a word, and so is what is no file."""
    hidden = ("..g.svs", "._a.svs", ".DS_Store")
    for name in ("a.svs", "b.isyntax", "c.isyntax", "c.zvi", "d.svs.gz", "e.xml", "e.opt", "README", *hidden):
        (tmp_path / name).touch()
    (tmp_path / "f.ome.zarr" / "0").mkdir(parents=True)
    (tmp_path / "f.ome.zarr" / "0" / "0.0.0").touch()
    os.mkfifo(tmp_path / "pipe")

    found = find_slides([tmp_path])

    assert [task.slide_id for task in found.tasks] == ["a"]
    others = "2 .isyntax, 1 .zvi, 1 .gz, 1 .zarr, 1 hidden (a name that begins with a dot)"
    (note,) = found.notes
    assert note.endswith(f"no slides, or of formats not read, are passed over: {others}")


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    """As lost+found at the root of a disk: the others are found."""
    (tmp_path / "a.svs").touch()
    (tmp_path / "lost+found").mkdir()
    listed = Path.iterdir

    def iterdir(folder):
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = find_slides([tmp_path])

    assert [task.slide_id for task in found.tasks] == ["a"]
    assert found.notes == (f"{tmp_path / 'lost+found'}: cannot be read, and is passed over",)


def test_a_question_mark_is_part_of_a_files_name(tmp_path):
    """In an address it begins the query."""
    for name in ("HER2? case 12.svs", "HER2? case 13.svs"):
        (tmp_path / name).touch()

    assert ids_of(tmp_path) == ["HER2? case 12", "HER2? case 13"]


def test_a_patient_is_one_however_it_is_written(tmp_path):
    """By the barcode of a slide, in small letters, in another manifest: rules for patients see all of its slides."""
    for name in "abc":
        (tmp_path / f"{name}.svs").touch()
    head = "slide_id,path,patient_id\n"
    one = _write(tmp_path / "one.csv", f"{head}a,a.svs,TCGA-A1-A0SK-01Z-00-DX1\nb,b.svs,tcga-a1-a0sk\n")
    other = _write(tmp_path / "other.csv", f"{head}c,c.svs,TCGA-A1-A0SK-01Z-00-DX2\n")

    assert dict(find_slides([one, other]).patients) == dict.fromkeys("abc", "TCGA-A1-A0SK-01Z-00-DX1")


def test_a_dicom_series_is_one_slide(tmp_path):
    """A file for each level, in one folder, with or without an ending; two series are two slides."""
    for name, uid in (
        ("x/1.dcm", b"1.2"),
        ("x/2.dcm", b"1.2"),
        ("x/3.dcm", b"1.3\0"),
        ("y/I1", b"1.4"),
        ("y/I2", b"1.4"),
    ):
        _dicom(tmp_path / name, uid)
    _write(tmp_path / "y" / "README", "no slide")

    assert ids_of(tmp_path) == ["1", "3", "I1"]


def test_slides_that_refer_to_one_series_are_several(tmp_path):
    """Their own series follows their study; that of what they refer to comes first, and made them one slide."""
    for name, uid in (("1", b"1.2.7\0"), ("2", b"1.2.8\0"), ("3", b"1.2.8\0")):
        _dicom(tmp_path / f"{name}.dcm", b"1.2.99")
        study = b"\x20\0\r\0UI\x04\x001.2\0"
        own = study + b"\x20\0\x0e\0UI" + len(uid).to_bytes(2, "little") + uid
        (tmp_path / f"{name}.dcm").write_bytes((tmp_path / f"{name}.dcm").read_bytes() + own)

    assert ids_of(tmp_path) == ["1", "2"]


def test_annotations_in_dicom_do_not_stand_for_the_slide(tmp_path):
    """They lie in its folder and name its series; the one that came first was taken for the slide, which was lost."""
    for name, kind in (("1", b"66.4\0\0"), ("2", b"91.1\0\0"), ("3", b"77.1.6")):
        _dicom(tmp_path / f"{name}.dcm", b"1.2")
        plain = (tmp_path / f"{name}.dcm").read_bytes()
        uid = b"1.2.840.10008.5.1.4.1.1." + kind
        stated = plain[:132] + b"\x02\0\x02\0UI" + len(uid).to_bytes(2, "little") + uid + plain[132:]
        (tmp_path / f"{name}.dcm").write_bytes(stated)

    found = find_slides([tmp_path])

    assert [task.path.name for task in found.tasks] == ["3.dcm"]
    assert found.notes[0].endswith("passed over: 2 DICOM of no slide (annotations, segmentations, ...)")


def test_dicom_of_implied_types_and_its_directory(tmp_path):
    """Two series whose headers state no types are two slides; a DICOMDIR is none."""
    for name, uid in (("1", b"1.2.7"), ("2", b"1.2.8\0"), ("3", b"1.2.8\0")):
        head = b"\0" * 128 + b"DICM" + b"\x20\0\x0e\0" + len(uid).to_bytes(4, "little") + uid
        (tmp_path / f"{name}.dcm").write_bytes(head + name.encode())
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10")

    assert ids_of(tmp_path) == ["1", "2"]


def test_each_slide_has_the_annotation_file_of_its_name(tmp_path):
    """In a folder; a file that is given is for the slide that is given."""
    for name in ("S1.xml", "S1.svs", "S2.svs"):
        (tmp_path / name).write_text(name)
    first, second = find_slides([tmp_path / "S1.svs", tmp_path / "S2.svs"], annotations=tmp_path).tasks
    (only,) = find_slides([tmp_path / "S2.svs"], annotations=tmp_path / "S1.xml").tasks

    assert first.annotations == only.annotations == tmp_path / "S1.xml"
    assert second.annotations == tmp_path / "S2.geojson"  # named in the message that it is missing


@pytest.mark.parametrize(
    ("slide", "drawn"),
    [("S1.svs", "S1.svs.geojson"), ("S1.ome.tif", "S1.ome.xml"), ("S1.svs", "S1.PNG"), ("S1.ndpi", "S1.ndpi.ndpa")],
)
def test_annotations_may_be_named_for_the_slides_file(tmp_path, slide, drawn):
    """As scripts of QuPath and the scanners' programs name them, whatever the manifest calls the slide."""
    for name in (slide, drawn):
        (tmp_path / name).write_text(name)
    table = _write(tmp_path / "m.csv", f"slide_id,path,patient_id\nP7-A,{slide},P7\n")

    (task,) = find_slides([table], annotations=tmp_path).tasks

    assert task.annotations == tmp_path / drawn


def test_one_annotation_is_not_laid_on_two_slides_of_one_name(tmp_path):
    """Of two sites: each has its own, or none."""
    for name in ("a/S1.svs", "b/S1.svs", "drawn/S1.geojson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    table = _write(tmp_path / "m.csv", "slide_id,path,patient_id\nA1,a/S1.svs,P1\nB1,b/S1.svs,P2\n")

    found = find_slides([table], annotations=tmp_path / "drawn").tasks

    assert [task.annotations for task in found] == [tmp_path / "drawn" / f"{name}.geojson" for name in ("A1", "B1")]


def test_tasks_are_small_and_picklable(slides):
    """They may be sent to another machine."""
    assert pickle.loads(pickle.dumps(slides)) == slides
    assert max(len(pickle.dumps(task)) for task in slides) < 1000


@pytest.mark.parametrize(
    "error",
    [ManifestError(["line 1: twice", "line 2: blank"]), MppError("S1", "no mpp", "pass it"), TooFewTilesError(3, 5)],
)
def test_errors_pass_from_one_process_to_another(error):
    """As they were: a manifest's became a character a line, and one of several arguments broke the pool."""
    sent = pickle.loads(pickle.dumps(error))

    assert (type(sent), str(sent), vars(sent)) == (type(error), str(error), vars(error))


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


def test_a_slide_that_needs_too_much_memory_fails_alone(slides):
    """It ended the command, and so it did each time."""

    def worker(task):
        if task.slide_id == "b":
            raise MemoryError("Unable to allocate 9 TiB")
        return task.slide_id

    a, failure, c = (found for _, found in SlideEngine().run(slides, worker, Ledger(Memory(), "x")))
    assert (a, c) == ("a", "c")
    assert "not enough memory for it (Unable to allocate 9 TiB); give the command more" in str(failure)


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
    run.tables.add(made_up_result(run_digest=run.digest))
    run.tables.add(Failure("b", "b.svs", "tissue", "blank", "scan it"))
    run.tables.write()

    assert (run.folder / "segmentations.csv").read_text().splitlines()[1].startswith("a,a.svs,0.25")
    assert (run.folder / "failures.csv").read_text().splitlines()[1] == "b,b.svs,tissue,blank,scan it,"


def test_a_slide_that_succeeds_at_last_is_no_failure_any_more(run, tmp_path):
    """Rows of earlier commands stay but for those of slides that have a result now."""
    for slide_id in ("a", "b"):
        run.tables.add(Failure(slide_id, f"{slide_id}.svs", "tissue", "blank", "scan it"))
    run.tables.write()
    later = plan_run(run.folder, command=["he2her2"], config=Config(), weights=[], overrides={})
    later.tables.add(made_up_result(run_digest=later.digest))
    later.tables.write()

    rows = (run.folder / "failures.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["slide_id", "b"]


def test_a_failure_of_another_command_is_in_the_table_whoever_writes_last(run, monkeypatch):
    """It comes while this command, the last to write, has read the failures and has yet to write them."""

    def meanwhile(*table):
        monkeypatch.undo()
        write_failures(*table)
        run.failures.write(Failure("b", "b.svs", "tissue", "blank", "scan it"), MadeOf(run.digest, SlideInputs("")))

    monkeypatch.setattr("he2her2.results.run_tables.write_failures", meanwhile)
    run.tables.write()

    assert (run.folder / "failures.csv").read_text().splitlines()[1].startswith("b,b.svs,tissue")


def test_tables_are_not_written_for_ever_while_others_end_slides(run, monkeypatch):
    """A failure of another command comes with every writing: who is at work leaves the rest to the next, or to it."""
    writings: list[str] = []

    def meanwhile(*table):
        write_failures(*table)
        writings.append(f"s{len(writings)}")
        assert len(writings) < 20, "it never ends"
        one = Failure(writings[-1], "b.svs", "tissue", "blank", "scan it")
        run.failures.write(one, MadeOf(run.digest, SlideInputs("")))

    monkeypatch.setattr("he2her2.results.run_tables.write_failures", meanwhile)
    run.tables.add(Failure("b", "b.svs", "tissue", "blank", "scan it"))
    run.tables.write_when_due()
    assert len(writings) == 1
    run.tables.write(lambda: len(writings) == 3)
    assert len(writings) == 3


def test_commands_that_begin_at_once_plan_the_slides_of_both(run, monkeypatch):
    """One reads the table before, and writes it after the other: it lost that one's slides and patients."""
    other = plan_run(run.folder, command=["he2her2"], config=Config(), weights=[], overrides={})
    other = other.for_patients(None, {"b": "P1"})
    run.tables.plan({"a": "a.svs"})
    before = read_planned(run.folder)
    other.tables.plan({"b": "b.svs"})
    monkeypatch.setattr("he2her2.results.run_tables.read_planned", lambda _: before)
    run.tables.plan({"a": "a.svs", "b": "b.svs", "c": "c.svs"})
    monkeypatch.undo()

    other.tables.write()
    assert {name: one.patient_id for name, one in read_planned(run.folder).items()} == {"a": "", "b": "P1", "c": ""}
    other.tables.plan({"d": "d.svs"})
    run.tables._write_planned(before)
    other.tables.write()
    assert read_planned(run.folder).keys() == {"a", "d"}


def test_the_digest_tells_runs_apart(tmp_path):
    """What the user overrode counts as much as settings and weights."""

    def digest(**overrides):
        return plan_run(tmp_path, command=[], config=Config(), weights=[], overrides=overrides).digest

    assert digest(mpp=None) == digest(mpp=None)
    assert digest(mpp=None) != digest(mpp=0.5)
