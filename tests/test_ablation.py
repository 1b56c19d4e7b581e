"""The six methods of Tables 3 and 4 by one command: its tables, its resuming, what it refuses."""

import csv
import io
import re
import sys
import zlib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from experiments.reproduce import COHORTS, FOUND, STUDIES, control
from hypothesis import assume, given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from he2her2.ablation import ablate as ablation
from he2her2.ablation import manifests
from he2her2.ablation.methods import METHODS, PROPOSED, load_ablation
from he2her2.ablation.results import CohortResults, _our_row, compare_methods, method_rows
from he2her2.ablation.tables import _methods_table, _rows_csv, _tile_table
from he2her2.ablation.verdicts import _results, _Verdict
from he2her2.cli import run_here
from he2her2.cli.commands import app
from he2her2.cohort import SlideTask
from he2her2.evaluation import TABLE_1
from he2her2.evaluation.paper_tables import PAPER_ROWS
from he2her2.labels import Her2Status, Policy
from he2her2.manifest import SlideRow, hashed_patient, patients_used
from he2her2.models import UNTRAINED_NOTICE, aggregators, encoders, read_card
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.encoders.cnn import STRIDED_TILE_CNN, Conv
from he2her2.phantom import load_cohort
from he2her2.results import open_run
from he2her2.statistics import exact_binomial
from he2her2.training import Execution, Hardware
from he2her2.training.settings import load_training
from he2her2.training.slides.train import train_slides
from tests.conftest import REPOSITORY
from tests.tissue_slides import tissue_pixels, write_tissue

EXPERIMENTS = REPOSITORY / "experiments"
TINY_TILE = replace(
    STRIDED_TILE_CNN,
    input=replace(STRIDED_TILE_CNN.input, side_px=64, network_px=64),
    convs=(Conv(4, kernel=5, norm=True), Conv(4, kernel=3, norm=True)),
    hidden=(4,),
)
TINY_MLP = replace(PAPER_MLP, hidden=(4,))
TINY_CNNS = {**encoders.CNNS, TINY_TILE.name: TINY_TILE}
TINY_AGGREGATORS = {**aggregators.AGGREGATORS, TINY_MLP.name: TINY_MLP}


def make_tiny(patch):
    """Let the settings' networks be tiny ones."""
    patch.setattr(encoders, "CNNS", TINY_CNNS)
    patch.setattr(aggregators, "AGGREGATORS", TINY_AGGREGATORS)


SIDE = 512
COLUMNS = ("slide_id", "path", "patient_id", "stain", "ihc_score", "her2_status", "split", "annotations")
QUICK = (
    "--annotations-use", "replace", "--threads", "2", "--accelerator", "cpu",
    "--set", "selection.n_tiles=5", "--set", "tissue.blur_px=1",
    "--set", "training.tiles.epochs=1", "--set", "training.tiles.crop_px=32", "--set", "training.slides.epochs=2",
    "--set", "training.tiles.tiles_per_class=8", "--set", "training.tiles.val_tiles_per_class=8",
    "--notice", "phantoms, no meaning",
)  # fmt: skip
ADAPT = ("--adapt", *(f"--set=training.adapt.{key}" for key in ("epochs=1", "crop_px=32", "tiles_per_class=8")))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Manifests of a few tiny slides."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "broken.svs").write_bytes(b"no slide")
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(folder / "all.png")
    write_study(folder, "ihc", "IHC", ["0", "3+", "0", "3+"], ["train", "train", "val", "val"])
    write_study(folder, "he", "HE", ["0", "3+", "0", "3+"], ["train", "train", "val", "val"])
    write_study(folder, "here", "HE", ["0", "3+", "1+"], ["test"] * 3)
    write_study(folder, "there", "HE", ["0", "3+", "3+"], [""] * 3, last="broken.svs")
    return folder


def write_study(folder, name, stain, scores, splits, *, last=None):
    """A manifest with a tiny slide for each row."""
    files = [f"{name}{i}.svs" for i in range(len(scores))]
    for file in files:
        write_tissue(folder / file, tissue_pixels(SIDE, share=0.9, seed=zlib.crc32(file.encode())))
    files[-1] = last or files[-1]
    write_manifest(folder / f"{name}.csv", stain, scores, splits, files)


def write_manifest(path, stain, scores, splits, files, patients=None):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i, (score, split) in enumerate(zip(scores, splits, strict=True)):
            status = "positive" if score == "3+" else "negative"
            patient = (patients or {}).get(i, f"{path.stem}-{i}")
            writer.writerow([f"{path.stem}{i}", files[i], patient, stain, score, status, split, "all.png"])


class Run:
    """A run that was stopped in its third training, then went on, then was asked for once more."""

    def __init__(self, study, out):
        self.out = out
        with pytest.MonkeyPatch.context() as patch:
            make_tiny(patch)
            self.stopped = self.command(patch, study, stop_at="mean-pretrained")
            self.before = written(out)
            self.code, self.text, self.said = self.command(patch, study)
            self.after = written(out)
            self.again, _, self.said_again = self.command(patch, study)

    def command(self, patch, study, stop_at=None):
        def train_or_stop(data, folder, *rest, **options):
            if folder.name == stop_at:
                raise KeyboardInterrupt
            return train_slides(data, folder, *rest, **options)

        patch.setattr(ablation, "train_slides", train_or_stop)
        patch.setattr(sys, "argv", ["he2her2", *map(str, arguments(study, self.out, *ADAPT))])
        with (
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
            pytest.raises(SystemExit) as s,
        ):
            run_here()
        return s.value.code or 0, out.getvalue(), err.getvalue()

    def table(self, name):
        return (self.out / "tables" / f"{name}.md").read_text("utf-8")

    def records(self, name):
        with (self.out / "tables" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def arguments(study, out, *more, train="he.csv", here="here.csv"):
    return (
        "ablate", "--train", study / train, "--ihc", study / "ihc.csv", "--out", out, *QUICK, *more,
        "--test", f"here={study / here}", "--test", f"there={study / 'there.csv'}",
    )  # fmt: skip


def written(folder):
    """When each file was written, but for what describes the command."""
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / "run.json")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def run(study, tmp_path_factory):
    return Run(study, tmp_path_factory.mktemp("ablation") / "run")


@pytest.fixture
def refused(command_line, study, tmp_path, monkeypatch):
    """What a command line that must not begin says."""
    make_tiny(monkeypatch)

    def say(*more, **files):
        code, _, err = command_line(*arguments(study, tmp_path / "new", *more, **files))
        assert code == 2
        return err

    return say


def test_the_tables_are_in_the_papers_layout(run):
    """Methods in the paper's order under their headings, the paper's row below each of ours."""
    assert run.code == 0, run.said
    lines = run.table("table3").splitlines()
    first = [line.split("|")[1].strip() for line in lines if line.startswith("|")]

    assert first == [
        "Method", ":--",
        "**MLP aggregation**", "proposed method", "", "w/out pretrained CNN weights", "",
        "**Median aggregation**", "w/out pretrained CNN weights", "", "w/pretrained CNN weights", "",
        "**Mean aggregation**", "w/out pretrained CNN weights", "", "w/pretrained CNN weights", "",
    ]  # fmt: skip
    assert sum("paper, HER2SC" in line for line in lines) == 6
    assert sum("paper, BRCA" in line for line in run.table("table4").splitlines()) == 6


def test_every_cell_has_n_and_an_interval(run):
    """In every row of ours and of the paper."""
    for name, n in (("table3", 3), ("table4", 2)):
        ours = [line.split("|")[3:9] for line in run.table(name).splitlines() if "| ours |" in line]

        assert len(ours) == 6
        for cells in ours:
            assert all(re.fullmatch(rf" [\d.]+ \[[\d.]+, [\d.]+\] n={n} ", text) for text in cells), cells


def test_the_figures_are_those_of_the_predictions(run, study):
    """What a table says can be counted again from `predictions.csv`."""
    truth = {"here0": 0, "here1": 1, "here2": 0}
    rows = {(row["aggregation"], row["pretrained"]): row for row in run.records("table3") if row["source"] == "ours"}

    assert len(rows) == len(METHODS)
    for method in METHODS:
        with (run.out / "tests" / "here" / method.key / "predictions.csv").open(newline="") as file:
            said = {row["slide_id"]: int(row["status"] == "positive") for row in csv.DictReader(file)}
        row = rows[method.aggregation, str(method.pretrained)]
        pairs = [(truth[name], said[name]) for name in truth]
        assert [pairs.count(cell) for cell in ((1, 1), (0, 1), (0, 0), (1, 0))] == [
            int(float(row[cell])) for cell in ("tp", "fp", "tn", "fn")
        ]


def test_a_constant_method_is_called_so(run):
    """One epoch on four slides teaches nobody: some method says the same of all."""
    notes = {row["note"] for row in run.records("table3") if row["source"] == "ours"}

    assert notes & {"constant: calls all 3 slides negative", "constant: calls all 3 slides positive"}


def test_a_slide_that_fails_is_a_row(run):
    """It is counted in the table's heading, and its reason is told."""
    with (run.out / "tests" / "there" / "mean-pretrained" / "failures.csv").open(newline="") as file:
        (failure,) = csv.DictReader(file)

    assert failure["slide_id"] == "there2"
    assert "is not a slide" in failure["reason"]
    assert "2 slides of 2 patients, 1 positive; 1 more failed and are not counted" in run.table("table4")


def test_every_table_is_there(run):
    """As Markdown and as CSV, and all of them in the report that the command prints."""
    names = {"table1", "table2", "table3", "table4", "comparisons", "gradient"}
    files = {path.name for path in (run.out / "tables").iterdir()}

    assert {f"{name}.{ending}" for name in names for ending in ("md", "csv")} == files
    assert (run.out / "report.md").read_text("utf-8").strip() in run.text
    assert all("phantoms, no meaning" in run.table(name) for name in names)
    assert "| **3+** |" in run.table("table1")
    assert len(run.records("comparisons")) == 2 * (len(METHODS) - 1)
    assert len(run.records("gradient")) == len(METHODS)


def test_a_stopped_run_goes_on(run):
    """What was done before the stop is not done again."""
    kept = {name for name in run.before if name.startswith(("bags", "tiles", "methods/mlp-pretrained"))}

    assert run.stopped[0] == 130
    assert "methods/mlp-pretrained/done.txt" in kept
    assert "methods/mean-pretrained/done.txt" not in run.before
    assert {name: run.after[name] for name in kept} == {name: run.before[name] for name in kept}
    assert "training the tile CNN on IHC" not in run.said


@pytest.mark.parametrize(("corrected", "left"), [(False, {"begun.txt", "checkpoint"}), (True, {"begun.txt"})])
def test_a_step_that_was_begun_with_other_slides_is_begun_anew(tmp_path, corrected, left):
    """Its checkpoints were gone on with after an annotation had been corrected."""
    slide, annotations, folder = tmp_path / "s.svs", tmp_path / "s.png", tmp_path / "step"
    slide.write_text("slide")
    annotations.write_text("tumour")
    task = SlideTask("s", slide, annotations=annotations)
    anything: Any = SimpleNamespace(configuration="settings")
    steps = ablation._Trainings(anything, tmp_path, anything, anything, anything, anything, Execution(Hardware()))

    def stopped():
        (folder / "checkpoint").write_text("half done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps._once("training", folder, [task], "random", stopped)
    if corrected:
        annotations.write_text("corrected")
    seen = []
    steps._once("training", folder, [task], "random", lambda: seen.extend(folder.iterdir()))

    assert {path.name for path in seen} == left


def test_the_same_command_again_writes_nothing(run):
    """Every file of the finished run stays as it is."""
    assert run.again == 0, run.said_again
    assert written(run.out) == run.after


def test_adapted_networks_learned_from_h_and_e(run):
    """Those that were pre-trained went on from their weights, the others began with it."""
    recipes = {
        name: read_card(run.out / "start" / name / "tile_cnn", "tile_cnn").recipe
        for name in ("pretrained", "from-scratch")
    }

    assert "from the weights in" in recipes["pretrained"]
    assert "from random weights" in recipes["from-scratch"]
    assert "then H&E tiles by their slide's score (not in the paper)" in run.text


def test_other_settings_are_refused(run, study, command_line, monkeypatch):
    """The line names what differs."""
    make_tiny(monkeypatch)

    code, _, err = command_line(*arguments(study, run.out, *ADAPT, "--set", "training.slides.epochs=3"))

    assert code == 2
    assert "training.slides.epochs was 2, now 3" in err


def test_a_frozen_cnn_that_was_given(run, study, command_line, monkeypatch, tmp_path):
    """Only MLPs learn; mean and median keep the tile CNN that was given, or the random one, and say so."""
    make_tiny(monkeypatch)
    given = run.out / "tiles" / "weights"
    tests = ("--test", f"here={study / 'here.csv'}")
    frozen = ("--set", "training.slides.freeze_cnn=true", "--tile-weights", given)

    code, text, err = command_line(
        "ablate", "--train", study / "he.csv", *tests, "--out", tmp_path, *QUICK[: QUICK.index("--notice")], *frozen
    )

    assert code == 0, err
    kept = read_card(tmp_path / "methods" / "mean-pretrained" / "weights" / "tile_cnn", "tile_cnn")
    assert read_card(given / "tile_cnn", "tile_cnn") == kept
    assert not read_card(tmp_path / "methods" / "median-from-scratch" / "weights" / "tile_cnn", "tile_cnn").trained
    assert "Table 1" not in text
    with (tmp_path / "tables" / "gradient.csv").open(newline="") as file:
        assert [float(row["cnn_movement"]) for row in csv.DictReader(file)] == [0, 0]
    with (tmp_path / "tests" / "here" / "mean-from-scratch" / "predictions.csv").open(newline="") as file:
        assert {row["notices"] for row in csv.DictReader(file)} == {UNTRAINED_NOTICE}


def test_evaluate_reads_what_is_left(run):
    """Each method's folder of a cohort is a run of predictions, with the patients that it must not be evaluated on."""
    folder = open_run(run.out / "tests" / "here" / PROPOSED.key)

    assert folder.predictions.keys() == {"here0", "here1", "here2"}
    assert folder.threshold == 0.5
    marks = patients_used(run.out / "tests" / "here" / PROPOSED.key).hashes
    assert {hashed_patient(f"{name}-{i}") for name in ("he", "ihc") for i in range(4)} == marks


def test_a_patient_who_teaches_and_tests_is_refused(refused, study):
    """Be it in H&E or in IHC."""
    write_manifest(
        study / "leak.csv", "HE", ["0", "3+"], ["test"] * 2, ["here0.svs", "here1.svs"], {0: "he-1", 1: "IHC-2"}
    )

    message = refused(here="leak.csv")

    assert "leak.csv: patient he-1 is to be tested, and in train or val of" in message
    assert "leak.csv: patient IHC-2 is to be tested, and in train or val of" in message


def test_every_manifests_problems_are_told_at_once(refused, study, tmp_path):
    """Before anything begins, one a line."""
    write_manifest(study / "bad.csv", "HE", ["0", "0", "5+", "3+"], ["train", "train", "val", "test"], ["none.svs"] * 4)

    message = refused(train="bad.csv", here="missing.csv")

    assert "bad.csv: line 4: ihc_score" in message
    assert "bad.csv: split train: all 2 HE slides have her2_status negative" in message
    assert "missing.csv: cannot be read" in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (("--test", "here=x.csv"), "here is given twice"),
        (("--test", "x.csv"), "write it as NAME=CSV"),
        (("--test", "a/b=x.csv"), "write it as NAME=CSV"),
        (("--tile-weights", "x"), "pass --ihc CSV, or --tile-weights FOLDER, not both"),
        (
            ("--set", "training.epochs=3"),
            "training.epochs: an ablation has several trainings; write training.tiles.KEY",
        ),
        (("--set", "training.slides.epoch=3"), "training.slides.epoch: is no setting"),
        (("--set", "networks.aggregator=mean"), "mean does not learn"),
        (("--annotations-use", "intersect", "--weights", "none"), "weights 'none': there is no such folder"),
    ],
)
def test_what_cannot_be_is_refused(refused, more, found):
    """In one line, before anything is read."""
    message = refused(*more)

    assert found in message
    assert message.count("\n") == 1


def test_one_file_holds_both_trainings(tmp_path):
    """And the released code's median is that of its preset."""
    file = tmp_path / "a.toml"
    file.write_text('preset = "released-code"\n[training.tiles]\nepochs = 7\n[training.slides]\nepochs = 5\n')

    settings = load_ablation(file=file, overrides=["training.slides.seed=3"])

    assert (settings.tiles.epochs, settings.slides.epochs, settings.slides.seed) == (7, 5, 3)
    assert {method.config(settings.config).networks.aggregator for method in METHODS} == {
        "mlp", "released-median", "mean",
    }  # fmt: skip


def results_of(truth, decided):
    """Results in which the methods decide as the columns say."""
    n = len(truth)
    return CohortResults(
        "here",
        "HER2SC",
        np.array([f"p{i}" for i in range(n)]),
        np.array(truth, bool),
        dict(zip(METHODS, np.array(decided, bool), strict=True)),
        dict(zip(METHODS, np.array(decided, float), strict=True)),
        0,
    )


@settings(max_examples=5)
@given(table=arrays(bool, (7, 20)))
def test_the_figures_are_scikit_learns(table):
    """Of any decisions in which both classes occur."""
    truth, decided = table[0], table[1:]
    assume(0 < truth.sum() < len(truth))
    method = METHODS[2]
    said = decided[2]

    found = _our_row(results_of(truth, decided), method).estimates

    weighted = precision_recall_fscore_support(truth, said, average="weighted", zero_division=0)
    wanted = {
        "balanced accuracy": balanced_accuracy_score(truth, said),
        "plain accuracy": accuracy_score(truth, said),
        "precision": weighted[0],
        "recall": weighted[1],
        "F1": weighted[2],
        "AUC": roc_auc_score(truth, said),
    }
    assert {name: pytest.approx(value) for name, value in wanted.items()} == {n: e.value for n, e in found.items()}
    assert all(e.low <= e.value <= e.high and e.n == 20 for e in found.values())


def test_the_papers_rows_print_what_the_paper_printed():
    """Every digit stands beside the figure that it was, also where it is a misprint."""
    table = _methods_table(results := results_of([True, False], np.eye(6, 2)), method_rows(results))

    rows = [row for row in PAPER_ROWS if row.table == 3]
    assert len(rows) == table.count("paper, HER2SC")
    for row in rows:
        for text in row.printed.values():
            assert f"(printed {text})" in table
    assert "86.8 [48.0, 97.2] n=8 (printed 86.7)" in table  # the misprint of F1


def test_the_proposed_method_is_compared_with_each_other():
    """McNemar's exact p-value is the binomial test of the slides on which the two differ."""
    truth = np.ones(12, bool)
    decided = np.ones((6, 12), bool)
    decided[0, :1] = False  # the proposed method misses one
    decided[3, 1:8] = False  # median, pre-trained, misses seven others

    found = {one.method.key: one for one in compare_methods(results_of(truth, decided))}

    one = found["median-pretrained"]
    assert (one.only_proposed, one.only_other) == (7, 1)
    assert one.exact == pytest.approx(binomtest(1, 8).pvalue)
    assert one.difference.value == pytest.approx(0.5)
    assert len(found) == 5


def test_table_1_stands_as_the_paper_has_it():
    """A row for each prediction, a column for each true class, the paper's counts in brackets."""
    matrix = np.arange(16).reshape(4, 4)

    lines = _tile_table(matrix, exact_binomial(30, 120), "toys").splitlines()

    assert "| **1+** | 1 (132) | 5 (384) | 9 (159) | 13 (0) |" in lines
    assert TABLE_1[0, 1] == 132
    assert "Accuracy 25.0 [17.5, 33.7] n=120" in lines[0]


def test_slides_of_a_patient_are_grouped_however_it_is_written():
    """A barcode of the slide, letter case: intervals of four patients would be too narrow for two."""
    names = ("TCGA-A1-A0SK-01Z-00-DX1", "tcga-a1-a0sk-01Z-00-DX2", "P 1", "p  1 ")
    rows = [
        SlideRow(k, f"s{k}", Path("s.svs"), name, "HE", her2_status=Her2Status.POSITIVE) for k, name in enumerate(names)
    ]
    verdicts = [dict.fromkeys(METHODS, _Verdict(Her2Status.POSITIVE, 0.9, 5))] * 4

    found = _results(manifests.TestCohort("here", tuple(rows), None), rows, verdicts, 0, Policy.GUIDELINE)

    assert found.about.startswith("here: 4 slides of 2 patients")


def test_a_cohort_of_which_every_slide_fails():
    """Its table says so in place of figures."""
    empty = replace(results_of([], np.zeros((6, 0))), n_failed=4)

    table = _methods_table(empty, method_rows(empty))

    assert "0 slides of 0 patients, 0 positive; 4 more failed" in table
    assert "undefined n=0" in table
    assert "undefined [" not in table
    assert "constant: calls all 0" not in table


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("reduced/*.toml")), ids=lambda file: file.stem)
def test_reduced_settings_are_whole(file):
    """Every file of the reduced reproduction is a cohort's settings or an ablation's settings."""
    if file.stem in COHORTS:
        assert load_cohort(file).n > 20
    else:
        assert load_ablation(file=file).slides.freeze_cnn


def test_the_full_recipe_is_the_papers():
    """The files at full scale say what the presets say, and not a digit else."""
    paper = load_ablation("paper")

    assert load_ablation(file=EXPERIMENTS / "tables2to4.toml") == paper
    assert load_training("tiles", file=EXPERIMENTS / "table1.toml") == (paper.config, paper.tiles)


def test_the_reproduction_runs_commands_that_exist():
    """Its three ablations read the cohorts that it draws, and write to folders of their own."""
    words = [study.command(Path("work"), 2) for study in STUDIES]

    assert [line[-1] for line in words] == ["work/paper", "work/adapted", "work/signal-0"]
    assert {study.train for study in STUDIES} | {name for s in STUDIES for name in s.tests} | {"ihc"} == {*COHORTS}
    options = typer.main.get_group(app).commands["ablate"].params
    known = {name for option in options for name in option.opts}
    assert {word for line in words for word in line if word.startswith("--")} <= known


def test_a_control_that_finds_something_is_told(tmp_path):
    """The guard can fail: an AUC interval without 0.5 in it is named."""
    truth = [i % 2 == 0 for i in range(30)]
    results = replace(results_of(truth, [truth, *[[True] * 30] * 5]), name="signal-0", paper=None)
    (tmp_path / "signal-0" / "tables").mkdir(parents=True)
    (tmp_path / "signal-0" / "tables" / "methods-signal-0.csv").write_text(_rows_csv(method_rows(results)))

    sentences = control(tmp_path)

    assert sum(FOUND in sentence for sentence in sentences) == 1
    assert "AUC 1.00" in sentences[0]
