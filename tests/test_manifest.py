"""Manifests: read as people write them, refused with every problem at once, written so that they read the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2.errors import ManifestError
from he2her2.labels import Her2Status, IhcScore, IshCounts, IshResult, Policy
from he2her2.manifest import (
    MANIFEST_COLUMNS,
    Manifest,
    SlideRow,
    check_consistent,
    contradictions,
    count_manifest,
    hashed_patient,
    label_of,
    patient_key,
    patients_record,
    patients_used,
    read_manifest,
    require_usable,
    shared_patients,
    write_manifest,
    write_patients,
)

HEAD = ",".join(MANIFEST_COLUMNS)

names = st.text(st.characters(categories=["L", "N"], include_characters=" -_,\"'"), min_size=1, max_size=8).map(
    lambda text: f"x{text}y"  # "xxx" would name nobody
)
slide_rows = st.builds(
    SlideRow,
    line=st.just(0),
    slide_id=names,
    path=names.map(lambda name: Path("/slides") / name),
    patient_id=names,
    stain=st.sampled_from(["HE", "IHC", None]),
    ihc_score=st.sampled_from([*IhcScore, None]),
    ish=st.sampled_from([IshResult.POSITIVE, IshCounts(1.99999, 4.0), IshCounts(None, 6.5), None]),
    her2_status=st.sampled_from([*Her2Status, None]),
    site=names | st.none(),
    split=st.sampled_from(["train", "val", "test", None]),
    mpp=st.floats(0.01, 10) | st.none(),
    annotations=names.map(lambda name: Path("/masks") / name) | st.none(),
    extra=st.fixed_dictionaries({"note": names}),
)


@pytest.fixture
def cohort(tmp_path):
    """Write a manifest beside four empty files, `a` to `d`; gives its path."""
    for name in "abcd":
        (tmp_path / f"{name}.svs").touch()

    def write(*rows, head=HEAD):
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join((head, *rows)) + "\n")
        return path

    return write


GOOD = (
    "a,a.svs,p1,HE,0,,negative,x,train,,",
    "b,b.svs,p2,HE,3+,,positive,x,train,0.25,",
    "c,c.svs,p3,HE,2+,negative,,y,val,,",
    "d,d.svs,p4,HE,2+,positive,,y,val,,",
)


def problems_of(path, **demands):
    """What `require` says of a manifest, less its name."""
    with pytest.raises(ManifestError) as caught:
        require_usable(read_manifest(path), **demands)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


@given(rows=st.lists(slide_rows, max_size=5, unique_by=lambda row: row.slide_id))
def test_a_manifest_reads_as_it_was_written(tmp_path_factory, rows):
    """Every value survives, whatever quotes, commas and letters it holds."""
    path = tmp_path_factory.mktemp("manifest") / "manifest.csv"

    write_manifest(Manifest(path, tuple(rows)))
    read = read_manifest(path)

    assert read.problems == ()
    assert [(row.slide_id, row.path, row.ish, row.mpp, row.annotations, row.site) for row in read.rows] == [
        (row.slide_id, row.path, row.ish, row.mpp, row.annotations, row.site) for row in rows
    ]
    assert [(row.ihc_score, row.her2_status, row.split, row.stain, dict(row.extra)) for row in read.rows] == [
        (row.ihc_score, row.her2_status, row.split, row.stain, dict(row.extra)) for row in rows
    ]


def test_a_good_manifest_passes(cohort):
    """Nothing is wrong, so nothing is raised, and every value has its type."""
    manifest = read_manifest(cohort(*GOOD))

    require_usable(manifest, stain="HE", label="her2_status", splits=("train", "val"))

    assert manifest.rows[1] == SlideRow(
        3,
        "b",
        manifest.path.parent / "b.svs",
        "p2",
        "HE",
        IhcScore.THREE,
        None,
        Her2Status.POSITIVE,
        "x",
        "train",
        0.25,
    )
    assert [label_of(row, "her2_status") for row in manifest.rows] == ["negative", "positive", "negative", "positive"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffslide_id,path,patient_id,stain\na,a.svs,p1,H&E\n",
        "slide_id;path;patient_id;stain\r\na;a.svs;p1;he\r\n",
        "slide_id\tpath\tpatient_id\tstain\n a \ta.svs\tp1\tHE\n\t\t\t\n",
        'slide_id , path,patient_id,stain\n"a","a.svs","p1"\n',
    ],
    ids=["byte-order mark", "semicolons", "tabs and a blank row", "blanks and a short row"],
)
def test_a_manifest_may_come_from_any_programme(tmp_path, text):
    """Excel, R and people write CSV in their own ways."""
    path = tmp_path / "manifest.csv"
    path.write_bytes(text.encode())

    manifest = read_manifest(path)

    assert manifest.problems == ()
    assert [(row.slide_id, row.path) for row in manifest.rows] == [("a", tmp_path / "a.svs")]


def test_a_folder_is_no_file_of_a_slide(cohort):
    """It is there, and no slide."""
    path = cohort("a,.,p1,HE,0,,,x,train,,", "b,b.svs,p2,HE,3+,,positive,x,train,,")

    (problem,) = problems_of(path, stain="HE", label=None, splits=("train",))

    assert problem.endswith("is a folder; name a file, of a DICOM series any")


def test_every_problem_is_told_at_once_in_the_order_of_lines(cohort):
    """Bad values, a missing file, a slide named twice, a patient in two splits, no label, one class, an empty split."""
    path = cohort(
        "a,a.svs,p1,HE,9,,,x,train,,",
        "b,gone.svs,p2,HE,3+,,positive,x,train,-1,mask.png",
        "c,c.svs,p1,PAS,0,maybe,weak,y,validation,,",
        "b,b.svs,p3,HE,0,,,y,val,,",
        "d,d.svs,p3,HE,0,,,y,train,,",
        ",d.svs,,HE,0,,,y,train,x,",
        "e/f,d.svs,p9,HE,2+,,,y,train,,",
        "g,d.svs,p8,HE,0,,,y,val,,,,x",
        "h,d.svs,p7,HE,0,,,y,train,250,",
    )

    told = problems_of(path, stain="HE", label="her2_status", splits=("train", "val", "test"))

    assert told == [
        "line 2: ihc_score: '9' is no IHC score: use 0, 1+, 2+ or 3+",
        "line 2: no her2_status; give it, or leave split empty",
        "line 3: mpp: -1 is no positive number of µm per px",
        "lines 3, 5: slide_id 'b' is given 2 times",
        f"line 3: path: {path.parent / 'gone.svs'} is missing",
        f"line 3: annotations: {path.parent / 'mask.png'} is missing",
        "line 4: stain: 'PAS' is no stain: use HE or IHC",
        "line 4: ish: 'maybe' is no ISH result: use positive, negative, equivocal, or counts: ratio 2.3 copies 4.5",
        "line 4: her2_status: 'weak' is no HER2 status: use one of negative, positive, undetermined",
        "line 4: split: 'validation' is no split: use train, val, test, or leave it empty",
        "lines 5, 6: patient 'p3' is in val and train; choose one split",
        "line 7: no slide_id, patient_id",
        "line 7: mpp: 'x' is no number of µm per px",
        "line 8: slide_id: 'e/f' cannot name a folder; give it another",
        "line 8: HER2 status is undetermined (IHC 2+, ISH not given); give ish or her2_status, or leave split empty",
        "line 9: 13 cells under 11 headings; quote cells with commas",
        "line 10: mpp: 250 is no microscope's; give µm per px, 0.05 to 10",
        "split val: all 1 HE slides have her2_status negative; two classes are needed",
        "split test has no HE slides",
    ]


@pytest.mark.parametrize(
    ("demands", "told"),
    [
        ({"stain": "IHC", "label": "ihc_score", "splits": ("train",)}, ["split train has no IHC slides"]),
        ({"stain": "HE", "label": None, "splits": ("test",)}, ["split test has no HE slides"]),
    ],
)
def test_a_manifest_without_the_slides_that_are_needed_is_refused(cohort, demands, told):
    """An empty split is refused for the stain that will be used."""
    assert problems_of(cohort(*GOOD), **demands) == told


def test_a_manifest_without_any_split_is_told_how_to_make_them(cohort):
    """It was told that a split has no slides, as if it had others."""
    rows = [row.replace(",train,", ",,").replace(",val,", ",,").replace(",test,", ",,") for row in GOOD]

    told = problems_of(cohort(*rows), stain="HE", label=None, splits=("train",))

    assert told == ["split train has no HE slides: none has a split; give them with he2her2 split"]


def test_a_split_with_one_class_is_refused(cohort):
    """Nothing can be learnt from, or measured on, one class."""
    rows = [row.replace("positive", "negative") for row in GOOD]

    told = problems_of(cohort(*rows), stain="HE", label="her2_status", splits=("train",))

    assert told == ["split train: all 2 HE slides have her2_status negative; two classes are needed"]


def test_slides_that_are_not_used_need_no_label(cohort):
    """Rows of another stain, or without a split, are left alone."""
    manifest = read_manifest(cohort(*GOOD, "e,gone.svs,p5,HE,,,,,,,", "f,gone.svs,p6,IHC,,,,,train,,"))

    require_usable(manifest, stain="HE", label="her2_status", splits=("train", "val"))


def test_a_policy_decides_what_the_manifest_leaves_open(cohort):
    """A 2+ without ISH is refused by the guideline and positive by the paper's policy; a stated status stands."""
    path = cohort(*GOOD[:2], "c,c.svs,p3,HE,2+,,undetermined,y,val,,", "d,d.svs,p4,HE,2+,,negative,y,val,,")
    demands: dict[str, Any] = {"stain": "HE", "label": "her2_status", "splits": ("train", "val")}

    require_usable(read_manifest(path), **demands, policy=Policy.PAPER)

    assert "undetermined" in problems_of(path, **demands)[0]
    assert [label_of(row, "her2_status", Policy.PAPER) for row in read_manifest(path).rows[2:]] == [
        "positive",
        "negative",
    ]


def test_barcodes_of_one_patient_are_one_patient(cohort):
    """A TCGA slide, sample and patient barcode are told to be on two sides."""
    path = cohort(
        "a,a.svs,TCGA-A1-A0SK-01Z-00-DX1,HE,0,,negative,x,train,,",
        "b,b.svs,tcga_a1_a0sk,HE,3+,,positive,x,test,,",
    )

    with pytest.raises(ManifestError, match="lines 2, 3: patient 'TCGA-A1-A0SK-01Z-00-DX1' is in train and test"):
        check_consistent(read_manifest(path))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("TCGA-A1-A0SK", "TCGA-A1-A0SK-01A-11R-A084-07", True),
        ("TCGA-A1-A0SK", "tcga.a1.a0sk.01", True),
        ("TCGA-A1-A0SK", "TCGA-A1-A0SL", False),
        ("TCGA-A1-A0SK", "TCGA-A2-A0SK", False),
        ("Case  7", "case 7", True),
        ("7", "07", False),
        ("XTCGA-A1-A0SK", "TCGA-A1-A0SK", False),
    ],
)
def test_patient_keys_join_spellings_and_nothing_else(first, second, same):
    """Barcode variants, case and blanks do not make another patient."""
    assert (patient_key(first) == patient_key(second)) is same


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"slide_id,path\na,b\n", "patient_id; it has slide_id, path; rename the one that is meant, or add it"),
        (b"slide_id,path,path,patient_id\n", "has the column 'path' twice"),
        (b'slide_id,path,patient_id\na,"b,c\nd', "line 2: is no CSV"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
        (b"slide_id,path,patient_id\n", "names no slide; give it a row for each"),
    ],
)
def test_what_is_no_manifest_is_told_in_one_line(command_line, tmp_path, content, told):
    """Each with what was found."""
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)

    code, _, err = command_line("manifest", "check", path)

    assert code == 2
    assert err.count("\n") == 1
    assert told in err


def test_a_missing_manifest_is_told(command_line, tmp_path):
    """The file is named."""
    code, _, err = command_line("manifest", "check", tmp_path / "none.csv")

    assert (code, "none.csv: cannot be read" in err) == (2, True)


def test_the_command_line_prints_a_problem_a_line(command_line, cohort):
    """All problems, each behind the programme's name."""
    path = cohort("a,a.svs,p1,HE,9,,,,,,", "b,gone.svs,p2,HE,3+,,,,,,")

    code, _, err = command_line("manifest", "check", path)

    assert code == 2
    assert [line.split(": ", 3)[0] for line in err.splitlines()] == ["he2her2"] * 2
    assert "line 2: ihc_score" in err
    assert "gone.svs is missing" in err


def test_check_counts_splits_sites_and_labels(command_line, cohort):
    """What a manifest holds, per split and per site."""
    code, out, _ = command_line("manifest", "check", cohort(*GOOD))

    assert code == 0
    assert out.splitlines() == [
        "all: 4 slides of 4 patients; HE: 4; IHC 0: 1, 2+: 2, 3+: 1; HER2 negative: 2, positive: 2",
        "split train: 2 slides of 2 patients; HE: 2; IHC 0: 1, 3+: 1; HER2 negative: 1, positive: 1",
        "split val: 2 slides of 2 patients; HE: 2; IHC 2+: 2; HER2 negative: 1, positive: 1",
        "site x: 2 slides of 2 patients; HE: 2; IHC 0: 1, 3+: 1; HER2 negative: 1, positive: 1",
        "site y: 2 slides of 2 patients; HE: 2; IHC 2+: 2; HER2 negative: 1, positive: 1",
    ]


def test_a_patient_with_two_slides_counts_once(cohort):
    """Slides and patients are counted apart."""
    manifest = read_manifest(cohort("a,a.svs,p1,HE,0,,,,,,", "b,b.svs,p1,IHC,0,,,,,,"))

    (whole, unused) = count_manifest(manifest)

    assert (whole.slides, whole.patients, whole.scores, whole.stains) == (2, 1, {"0": 1}, {"HE": 1, "IHC": 1})
    assert unused.name == "split none"


def test_a_status_that_its_tests_contradict_is_doubted(command_line, cohort):
    """It stands, as the manifest states it, and is told."""
    path = cohort(
        *("a,a.svs,p1,HE,0,,positive,,,,", "b,b.svs,p2,HE,3+,negative,positive,,,,", "c,c.svs,p3,HE,3+,,,,,,"),
        "d,d.svs,p4,HE,1+,positive,,,,,",
    )

    code, out, _ = command_line("manifest", "check", path)

    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("CAUTION")] == [
        "CAUTION line 2: stated positive, but IHC 0, ISH not given amount to negative: IHC 0 is negative",
        "CAUTION line 3: IHC 3+, ISH negative contradict each other",
        "CAUTION line 5: IHC 1+, ISH positive contradict each other",
    ]
    assert contradictions(read_manifest(path))[0].startswith("line 2")


def test_patients_named_almost_alike_are_told(command_line, cohort, tmp_path):
    """By the check, and by the split that might put them on two sides."""
    path = cohort(
        "a,a.svs,P-01,HE,0,,negative,,,,",
        "b,b.svs,p1,HE,3+,,positive,,,,",
        "c,c.svs,p2,HE,3+,,positive,,,,",
        "d,d.svs,p3,HE,0,,negative,,,,",
    )
    line = "CAUTION patients 'P-01' (line 2) and 'p1' (line 3) are written almost alike: if they are one, "

    assert line in command_line("manifest", "check", path)[1]
    assert line in command_line("split", path, "--out", tmp_path / "s.csv", "--shares", "0.5,0,0.5")[1]


def test_sites_named_almost_alike_are_told(command_line, cohort, tmp_path):
    """Each would be a site of its own, kept whole by itself."""
    path = cohort(
        "a,a.svs,p1,HE,0,,negative,Ulm,,,",
        "b,b.svs,p2,HE,3+,,positive,ULM ,,,",
        "c,c.svs,p3,HE,3+,,positive,Bern,,,",
        "d,d.svs,p4,HE,0,,negative,,,,",
    )
    line = "CAUTION sites 'Ulm' (line 2) and 'ULM' (line 3) are written almost alike: if they are one, "
    split = ("split", path, "--out", tmp_path / "s.csv", "--shares", "0.5,0,0.5")

    assert line in command_line("manifest", "check", path)[1]
    assert line in command_line(*split, "--by-site")[1]
    assert line not in command_line(*split)[1]


def test_one_file_in_two_splits_is_refused(cohort):
    """However its path is written."""
    path = cohort("a,a.svs,p1,HE,0,,negative,,train,,", "b,./x/../a.svs,p2,HE,3+,,positive,,test,,")

    with pytest.raises(ManifestError, match=r"lines 2, 3: file a.svs is in train and test; choose one split"):
        check_consistent(read_manifest(path))


def test_one_file_of_two_patients_is_refused(cohort):
    """In one split, or in none."""
    path = cohort("a,a.svs,p1,HE,0,,negative,,,,", "b,./a.svs,p2,HE,3+,,positive,,,,", "c,a.svs,P1,HE,0,,negative,,,,")

    with pytest.raises(ManifestError, match=r"lines 2, 3, 4: file a.svs is of patients 'p1' and 'p2'; give each its"):
        check_consistent(read_manifest(path))


def test_one_file_of_two_slides_is_refused(cohort):
    """Of one patient, too, and by a link: `predict` would refuse them."""
    path = cohort("a,a.svs,p1,HE,0,,negative,,,,", "b,b.svs,p1,HE,0,,negative,,,,")
    (path.parent / "b.svs").unlink()
    (path.parent / "b.svs").symlink_to(path.parent / "a.svs")

    with pytest.raises(ManifestError, match=r"lines 2, 3: file a.svs is of slides 'a' and 'b'; give each its own"):
        check_consistent(read_manifest(path))


def test_patients_whose_slides_differ_are_told(command_line, cohort):
    """By the check, as `split` refuses them: in status, stated or by the tests, and in site."""
    path = cohort(
        "a,a.svs,p1,HE,,,positive,A,,,", "b,b.svs,p1,HE,0,,,A,,,", "c,c.svs,p2,HE,0,,,A,,,", "d,d.svs,p2,HE,0,,,B,,,"
    )

    assert [line for line in command_line("manifest", "check", path)[1].splitlines() if "CAUTION" in line] == [
        "CAUTION 1 of 2 patients have slides of more than one HER2 status: p1",
        "CAUTION 1 of 2 patients have slides of more than one site: p2",
    ]


def test_select_takes_rows_of_unknown_stain_as_any(cohort):
    """A manifest without a stain column is of the stain that is asked for."""
    manifest = read_manifest(cohort("a,a.svs,p1,train", "b,b.svs,p2,val", head="slide_id,path,patient_id,split"))

    assert [row.slide_id for row in manifest.select(stain="HE", split="train")] == ["a"]
    assert manifest.select(stain="IHC") == manifest.rows


def test_a_manifest_moves_with_its_slides(cohort, tmp_path):
    """Files below the manifest are written relative to it, others in full."""
    manifest = read_manifest(cohort(*GOOD[:1], "x,/elsewhere/x.svs,p9,,,,,,,,"))

    here = write_manifest(manifest, tmp_path / "copy.csv").read_text()
    there = write_manifest(manifest, tmp_path / "deeper" / "copy.csv")

    assert "a,a.svs," in here
    assert "/elsewhere/x.svs" in here
    assert read_manifest(there).rows[0].path == tmp_path / "a.svs"


def test_a_run_names_the_patients_of_its_choices_without_their_names(cohort, tmp_path):
    """Training and validation patients are on record, hashed, and found again under any spelling."""
    manifest = read_manifest(cohort(*GOOD, "e,a.svs,p5,HE,0,,,,test,,"))
    spelt = replace(manifest.rows[0], patient_id=" P1")
    run = tmp_path / "run"
    (run / "weights" / "tile_cnn").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(patients_record(manifest)))

    used = patients_used(run)

    assert used.hashes == {hashed_patient(name) for name in ("P1", "p2", "p3", "p4")}
    assert used.sources == (run / "run.json",)
    assert "p1" not in (run / "run.json").read_text()
    assert shared_patients((*manifest.rows, spelt), run / "weights" / "tile_cnn") == ("p1", "p2", "p3", "p4")
    assert shared_patients(manifest.rows[4:], run / "weights") == ()


def test_a_prediction_leads_back_to_the_patients_of_its_weights(cohort, tmp_path):
    """A prediction's run names its weights folder, and that its training run."""
    manifest = read_manifest(cohort(*GOOD))
    weights = tmp_path / "training" / "weights"
    weights.mkdir(parents=True)
    (weights.parent / "run.json").write_text(json.dumps(patients_record(manifest)))
    prediction = tmp_path / "prediction"
    prediction.mkdir()
    (prediction / "run.json").write_text(json.dumps({"weights_folder": str(weights)}))

    assert shared_patients(manifest.rows, prediction) == ("p1", "p2", "p3", "p4")


def test_other_weights_where_one_stands_are_not_those_of_a_run(cohort, tmp_path, monkeypatch):
    """A name is no place: another project may have a folder of it."""
    manifest = read_manifest(cohort(*GOOD))
    (tmp_path / "elsewhere" / "weights").mkdir(parents=True)
    write_patients(tmp_path / "elsewhere" / "weights", patients_record(manifest))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(
        json.dumps({"weights_folder": "weights", "command": ["he2her2", "predict", "--weights", "weights"]})
    )
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert not patients_used(tmp_path / "run").hashes


def test_weights_remember_the_patients_of_those_they_started_from(cohort, tmp_path):
    """Also when both folders were copied to where no training run is."""
    manifest = read_manifest(cohort(*GOOD))
    teacher, weights = tmp_path / "teacher", tmp_path / "weights"
    teacher.mkdir()
    weights.mkdir()
    write_patients(teacher, {"training_patients": [hashed_patient("x")], "validation_patients": [hashed_patient("y")]})

    write_patients(weights, patients_record(manifest), [teacher])

    own, used = patients_record(manifest), patients_used(weights)
    assert used.trained == {*own["training_patients"], hashed_patient("x")}
    assert used.hashes - used.trained == {*own["validation_patients"], hashed_patient("y")}


def test_a_folder_without_a_record_proves_nothing(tmp_path):
    """No source is named, so that the caller can say so; a damaged record is refused."""
    assert patients_used(tmp_path).sources == ()
    (tmp_path / "run.json").write_text("{")

    with pytest.raises(ManifestError, match="patients used in these weights are unknown"):
        patients_used(tmp_path)
