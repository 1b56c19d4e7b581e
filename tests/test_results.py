"""A slide's result and a run's folder: written, read back, and checked at the door."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2 import __version__
from he2her2.config import Config, load_config
from he2her2.domain import Likeness
from he2her2.errors import EvaluationError, OutputError, SlideOpenError
from he2her2.evaluation.comparison_folder import COMPARISON_FILE
from he2her2.evaluation.tumour.folder import TUMOUR_TEST_FILE
from he2her2.files import read_json, write_json
from he2her2.labels import Her2Status, IhcScore
from he2her2.results import (
    Failure,
    FailureRecords,
    FileStamp,
    MadeOf,
    NetworkNote,
    RunDescription,
    RunFolder,
    SlideFolders,
    SlideInputs,
    open_run,
    plan_run,
    result_of_record,
    result_to_record,
    slides_with_result,
)
from he2her2.results.notes import OperatingPointNote, TriageNote
from he2her2.results.patients import RunPatient
from he2her2.results.slide_folder import caption_of
from he2her2.results.tables import PredictedSlide
from tests.made_up_results import RECORD, made_up_her2, made_up_result
from tests.made_up_runs import MadeUpSlide, write_run

POINT = OperatingPointNote(0.05, 0.95, 40, "100 patients")
TRIAGE = TriageNote("rule out", 0.1, 0.9, 0.05, 0.05, "100 patients")


@given(
    probability=st.floats(0, 1),
    mpp=st.none() | st.floats(0.1, 10),
    annotated=st.booleans(),
    preset=st.sampled_from(["default", "paper", "released-code"]),
    her2=st.booleans(),
    rules=st.booleans(),
)
def test_a_result_comes_back_from_json(probability, mpp, annotated, preset, her2, rules):
    """Every part of it, as the same types."""
    finding = made_up_her2(probability)
    if rules:
        finding = replace(finding, calibrated_probability=probability / 2, operating_point=POINT, triage=TRIAGE)
    stamp = FileStamp(7, 12)
    result = made_up_result(
        her2=finding if her2 else None,
        config=load_config(preset),
        preset=preset,
        inputs=SlideInputs("/a.svs", stamp, stamp if annotated else None, mpp),
        run_digest="x",
    )

    assert result_of_record(json.loads(json.dumps(result_to_record(result)))) == result


def test_the_parts_of_a_decision_lie_beside_those_of_the_slide():
    """As they always did: who reads `prediction.json` finds status and probability at its top."""
    record = result_to_record(made_up_result(her2=made_up_her2(0.75)))

    assert (record["status"], record["probability"], record["threshold"]) == (Her2Status.POSITIVE, 0.75, 0.5)
    assert "calibrated_probability" not in record
    assert "her2" not in record
    assert "status" not in result_to_record(made_up_result())


def test_a_result_of_before_the_form_had_a_number_is_read():
    """Its keys were the same."""
    assert "format" not in RECORD
    assert result_of_record(RECORD).format == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format"),
        ({"status": "positive"}, "her2.probability"),
        ({"slide": {}}, "slide.mpp"),
        ({"surprise": 1}, "surprise"),
        ({"area_mm2": {"tissue": -1, "usable": 1, "tumour": 1}}, "area_mm2.tissue"),
        ({"config": {"threshold": math.inf}}, "config.threshold"),
    ],
)
def test_a_result_of_another_kind_is_refused(change, words):
    """One line that names the key."""
    with pytest.raises(ValueError, match=words) as caught:
        result_of_record(RECORD | change)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[], "a", None, 3])
def test_no_object_is_no_result(values):
    """Whatever JSON a file holds."""
    with pytest.raises(ValueError, match="no result"):
        result_of_record(values)


def test_what_a_result_was_made_of_tells_whether_it_is_done(tmp_path):
    """Another configuration, another file or another scale is another result; damage is none."""
    slides = SlideFolders(tmp_path)
    made_of = MadeOf("x", SlideInputs("/a.svs", FileStamp(7, 12)))
    result = made_up_result(her2=made_up_her2(0.5), run_digest="x", inputs=made_of.inputs)
    file = slides.of("a") / "prediction.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(result_to_record(result)))

    assert slides.read("a", made_of) == result
    assert slides.read("a", replace(made_of, configuration="y")) is None
    assert slides.read("a", replace(made_of, inputs=SlideInputs("/a.svs", FileStamp(7, 13)))) is None
    assert slides.read("a", replace(made_of, inputs=replace(made_of.inputs, mpp=0.5))) is None
    assert slides.read("b", made_of) is None
    file.write_text(file.read_text()[:100])
    assert slides.read("a", made_of) is None


@pytest.mark.parametrize("stamp", [None, FileStamp(0, 0), FileStamp(7, 0)])
def test_a_slide_of_which_a_server_tells_no_time_is_not_known_at_another_address(tmp_path, stamp):
    """Any slide of the name and size passed for it; of links that are signed anew each day only the query differs."""
    slides, made_of = SlideFolders(tmp_path), MadeOf("x", SlideInputs("https://one/a.svs?signed=1", stamp))
    result = made_up_result(her2=made_up_her2(0.5), run_digest="x", inputs=made_of.inputs)
    write_json(slides.of("a") / "prediction.json", result_to_record(result))

    assert slides.read("a", replace(made_of, inputs=SlideInputs("https://one/a.svs?signed=2", stamp))) == result
    with pytest.raises(SlideOpenError, match="another slide of this name, https://one"):
        slides.read("a", replace(made_of, inputs=SlideInputs("https://two/a.svs", stamp)))


def test_a_slide_that_a_later_command_was_given_elsewhere_is_found(tmp_path):
    """Its result is kept where its mount moved: pages and viewer said that it cannot be opened any more."""
    file = tmp_path / "a.svs"
    file.write_text("slide")
    plan_run(tmp_path, command=[], config=Config(), weights=[], overrides={}).tables.plan({"a": str(file)})
    result = made_up_result(inputs=SlideInputs("/gone/a.svs", FileStamp.of(file)))
    run = RunFolder(tmp_path, RunDescription(), {}, {})

    assert run.slide_file(result) == file
    file.write_text("another")
    assert run.slide_file(result) == Path("/gone/a.svs")


def test_a_folder_of_another_run_says_what_is_other(tmp_path):
    """Settings by their names; after an update of the program it said "other settings or weights", too."""

    def plan(config, mpp=None):
        return plan_run(tmp_path, command=[], config=config, weights=[], overrides={"mpp": mpp})

    plan(Config()).write_description()
    other = Config(threshold=0.3, runtime=replace(Config().runtime, threads=3))

    with pytest.raises(OutputError, match=r"holds results of other settings or weights \(mpp, threshold\); choose"):
        plan(other, 0.5)
    record = read_json(tmp_path / "run.json")
    write_json(tmp_path / "run.json", record | {"digest": "", "versions": {"he2her2": "0.0.1"}})
    with pytest.raises(OutputError, match=rf"holds results of he2her2 0\.0\.1, and this is {__version__}; choose"):
        plan(Config())
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(OutputError, match="holds results of other settings or weights; choose"):
        plan(Config())


def test_a_run_is_read_as_it_was_written(tmp_path):
    """Tables, description and slides, typed."""
    slides = [
        MadeUpSlide("a", probability=0.75, colour=(1.0, 2.0, 3.0)),
        MadeUpSlide("b", failure="no tissue"),
    ]
    network = {"name": "mlp", "trained": True, "seed": None, "sha256": {"model.onnx": "0"}}

    run = open_run(write_run(tmp_path / "run", slides, notices=["phantoms", "untrained"], weights=[network]))

    predicted = run.predictions["a"]
    assert (predicted.status, predicted.probability, predicted.threshold) == (Her2Status.POSITIVE, 0.75, 0.5)
    assert math.isnan(predicted.calibrated_probability)
    assert run.notices == ("phantoms", "untrained")
    assert (run.failures["b"].stage, run.failures["b"].reason) == ("tissue", "no tissue")
    assert run.description.weights == (NetworkNote("mlp", True, None, {"model.onnx": "0"}),)
    assert run.config.selection.n_tiles == 12
    found = run.result("a")
    assert found is not None
    assert found.colour.mean == (1.0, 2.0, 3.0)
    assert run.result("b") is None


def _change_row(folder, **cells):
    file = folder / "predictions.csv"
    with file.open(newline="") as text:
        (row,) = csv.DictReader(text)
    file.write_text(",".join(row) + "\n" + ",".join((row | cells).values()) + "\n")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"probability": "1.5"}, "probability '1.5'"),
        ({"probability": "nan"}, "probability 'nan'"),
        ({"threshold": "half"}, "threshold 'half'"),
        ({"status": "maybe"}, "maybe"),
        ({"status": ""}, "has no status"),
        ({"tile_score": "4+"}, "4+"),
        ({"slide_id": ""}, "without slide_id"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(tmp_path, cells, words):
    """With the table and the slide."""
    folder = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.75)])
    _change_row(folder, **cells)

    with pytest.raises(EvaluationError) as caught:
        open_run(folder)

    assert words in str(caught.value)
    assert "predictions.csv" in str(caught.value)


@pytest.mark.parametrize("text", ["junk", "[]", '{"weights": 3}', '{"weights": [{"name": 1}]}', '{"versions": []}'])
def test_a_description_that_makes_no_sense_is_refused(tmp_path, text):
    """One line; a missing one is only unknown."""
    folder = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.75)])
    (folder / "run.json").write_text(text)

    with pytest.raises(EvaluationError, match=r"run\.json") as caught:
        open_run(folder)

    assert "\n" not in str(caught.value)
    (folder / "run.json").unlink()
    assert open_run(folder).description.digest is None


def test_a_damaged_result_is_named(tmp_path):
    """Evaluation says which slide to predict again."""
    folder = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.75)])
    (folder / "slides" / "a" / "prediction.json").write_text("{}")

    with pytest.raises(EvaluationError, match="slide a"):
        open_run(folder).result("a")


def test_a_result_that_was_changed_is_no_result():
    """Nobody's edit passes for a prediction."""
    record = json.loads(json.dumps(result_to_record(made_up_result(her2=made_up_her2(0.25)))))

    assert result_of_record(record).her2 is not None
    with pytest.raises(ValueError, match="changed after it was written"):
        result_of_record(record | {"status": "positive"})


def test_a_call_that_was_changed_in_the_table_is_told(tmp_path):
    """The table is no second truth beside the result."""
    folder = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.75)])
    table = folder / "predictions.csv"
    table.write_text(table.read_text().replace("positive", "negative"))

    with pytest.raises(EvaluationError, match=r"slide a is positive, probability 0\.75.* changed, says negative, prob"):
        open_run(folder).result("a")


def test_a_table_that_a_spreadsheet_saved_with_semicolons_counts_no_slide(tmp_path):
    """Its lines are no names of slides; whoever reads the calls says what to do."""
    folder = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.75)])
    table = folder / "predictions.csv"
    saved = table.read_text()
    table.write_text(saved + "," * saved.splitlines()[0].count(",") + "\n")  # an empty row below

    assert slides_with_result(folder) == {*open_run(folder).predictions} == {"a"}
    table.write_text(saved.replace(",", ";"))

    assert slides_with_result(folder) == set()
    with pytest.raises(EvaluationError, match=r"no column slide_id.; save it so, or move it away and give the same"):
        open_run(folder)


def test_the_headline_calls_as_the_triage_does():
    """On the terminal and the overlay as on the page; a slide unlike the training slides is said to be so first."""
    her2 = made_up_her2(0.4996)
    refer = replace(her2, triage=replace(TRIAGE, arm="refer to IHC"))
    unlike = made_up_result(her2=refer, likeness=Likeness(9.0, 5.0, "blue 154"))

    assert her2.headline == "HER2 negative, probability 0.4996 (threshold 0.5)"
    assert replace(her2, triage=TRIAGE).headline.startswith("HER2 negative, rule out, probability 0.4996")
    assert refer.headline == "refer to IHC, probability 0.4996 (threshold 0.5)"
    assert caption_of(unlike).lines[0].startswith("UNLIKE the training slides of these weights (blue 154")
    assert caption_of(unlike).lines[1] == refer.headline
    negative = PredictedSlide("a", Her2Status.NEGATIVE, 0.1, 0.5, triage="rule out")
    referred = replace(negative, triage="refer to IHC")
    assert [RunPatient("P", {"a": negative, "b": one}, None).disagree for one in (negative, referred)] == [False, True]


def test_a_slide_without_all_its_files_is_not_done(tmp_path):
    """A deleted or shortened file makes the slide be predicted again."""
    slides, made_of = SlideFolders(tmp_path), MadeOf("x", SlideInputs("/a.svs"))
    slides.of("a").mkdir(parents=True)
    tiles = slides.of("a") / "tiles.h5"
    tiles.write_text("tiles")
    result = made_up_result(run_digest="x", inputs=made_of.inputs, files={"tiles.h5": 5})
    (slides.of("a") / "prediction.json").write_text(json.dumps(result_to_record(result)))

    assert slides.read("a", made_of) == result
    assert slides.changed(result) == ()
    tiles.write_text("tile")
    assert slides.read("a", made_of) is None
    assert slides.changed(result) == ("tiles.h5",)
    tiles.unlink()
    assert slides.read("a", made_of) is None


def _no_tiles(file):
    for name in [*file]:
        del file[name]


def _external(file):
    del file["scores"]
    file["scores"] = h5py.ExternalLink("/etc/passwd", "x")


def _huge(file):
    for name, shape, kind in (("coords", (10**12, 2), "i8"), ("scores", (10**12,), "f8")):
        attrs = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, shape, kind, chunks=True).attrs.update(attrs)


def _nan(file):
    file["scores"][0] = np.nan


def _text(file):
    del file["scores"]
    file["scores"] = "none"


@pytest.mark.parametrize("change", [_no_tiles, _external, _huge, _nan, _text, None])
def test_a_damaged_tiles_file_is_one_line(tmp_path, change):
    """Empty, in another file, larger than any slide, not numbers, cut: nothing of it is used."""
    slide = MadeUpSlide("a", probability=0.75, scores=np.ones((4, 5)))
    file = write_run(tmp_path / "run", [slide]) / "slides" / "a" / "tiles.h5"
    if change is None:
        file.write_bytes(file.read_bytes()[:1000])
    else:
        with h5py.File(file, "r+") as opened:
            change(opened)

    with pytest.raises(EvaluationError, match=r"tiles\.h5") as caught:
        open_run(tmp_path / "run").tiles("a")

    assert "\n" not in str(caught.value)


def test_predictions_of_other_programs_need_four_columns(tmp_path):
    """Any tool's scores in such a table can be evaluated."""
    (tmp_path / "predictions.csv").write_text("slide_id,status,probability,threshold\na,negative,0.25,0.5\n")

    run = open_run(tmp_path)

    assert run.predictions["a"].tile_score is None
    assert run.predictions["a"].notices == ()
    assert run.threshold == 0.5


def test_tile_scores_are_ihc_scores(tmp_path):
    """As the labels have them."""
    text = "slide_id,status,probability,threshold,tile_score\na,negative,0.25,0.5,2+\n"
    (tmp_path / "predictions.csv").write_text(text)

    assert open_run(tmp_path).predictions["a"].tile_score is IhcScore.TWO


@pytest.mark.parametrize("text", ["junk", "[]", "{}", '{"digest": "other"}'])
def test_a_folder_of_another_run_is_not_taken_over(tmp_path, text):
    """Unless asked for."""

    def plan(*, overwrite):
        return plan_run(tmp_path, command=[], config=Config(), weights=[], overrides={}, overwrite=overwrite)

    (tmp_path / "run.json").write_text(text)

    with pytest.raises(OutputError, match="--overwrite"):
        plan(overwrite=False)
    assert plan(overwrite=True).folder == tmp_path


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("run.json", {"digest": "x", "encoder": {"card": {}}}, "the features of he2her2 features"),
        ("run.json", {"kind": "tumour", "training": {}}, r"a training of he2her2 train tumour.*--weights .*weights$"),
        ("run.json", {"kind": "features", "training": {}}, "he2her2 train slides --features.*its folder out-of-fold"),
        ("run.json", {"kind": "ablation", "training": {}}, "an ablation of he2her2 ablate"),
        ("evaluation.json", {}, "evaluation.json of he2her2 evaluate"),
        (COMPARISON_FILE, {}, "comparison.json of he2her2 compare"),
        (TUMOUR_TEST_FILE, {}, "tumour_test.json of he2her2 test tumour"),
        ("tile_cnn/card.json", {}, "weights, not a run; .*--weights"),
        ("S1.h5", {}, r"tiles or features \(.h5\), not a run"),
    ],
)
def test_a_folder_of_another_command_is_refused(tmp_path, command_line, file, content, problem):
    """Whatever takes a run says in one line what the folder is, and what to run, also where it has a table of a run."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    row = "S1,S1.svs,tumour,none,look,"
    (tmp_path / "failures.csv").write_text(f"slide_id,path,stage,reason,remedy,evidence\n{row}\n")

    with pytest.raises(EvaluationError, match=f"^{tmp_path}: holds .*{problem}"):
        open_run(tmp_path, needs_predictions=False)
    for words in (("report", tmp_path), ("export", tmp_path, "--out", tmp_path / "out"), ("status", tmp_path)):
        code, _, err = command_line(*words)
        assert code == 2
        assert "he2her2 predict" in err
    assert not (tmp_path / "report").exists()


def test_a_run_of_which_no_slide_has_ended_is_refused(tmp_path):
    """A report of it would be an empty page."""
    (tmp_path / "run.json").write_text("{}")

    with pytest.raises(EvaluationError, match="no slide of this run has ended; he2her2 status"):
        open_run(tmp_path, needs_predictions=False)


def test_the_file_of_a_failed_slide_is_found_from_any_folder(tmp_path, monkeypatch):
    """Its table names it as the command did; in another folder that is no file, or that of another slide."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.svs").touch()
    failure, file = Failure("a", "a.svs", "tissue", "blank", "scan it"), tmp_path / "here" / "a.svs"
    records = FailureRecords(tmp_path / "run")
    records.write(failure, MadeOf("", SlideInputs(str(file))))
    monkeypatch.chdir(tmp_path / "there")

    assert records.located({"a": failure})["a"].path == str(file)
    other = replace(failure, path="b.svs")  # of another attempt than the record's
    assert records.located({"a": other}) == {"a": other}


def test_results_replace_no_folder_of_something_else(tmp_path):
    """With `--out` above `slides`, the folder of a slide's results would be the one with its pixels (MRXS)."""
    folders = SlideFolders(tmp_path)
    evidence: Any = None
    pixels = folders.of("a") / "Data0001.dat"
    pixels.parent.mkdir(parents=True)
    pixels.touch()

    with pytest.raises(OutputError, match="holds something that is no result"):
        folders.write("a", MadeOf("", SlideInputs("a.mrxs")), evidence)
    folders.discard("a")

    assert pixels.exists()
