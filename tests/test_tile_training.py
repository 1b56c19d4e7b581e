"""`train tiles` end to end: learned, judged like the paper's Table 1, left out, resumed, refused, told plainly."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from he2her2.errors import ManifestError
from he2her2.labels import IhcScore
from he2her2.manifest import SlideRow, hashed_patient, patients_used
from he2her2.method import infer
from he2her2.models import Card, encoders, load_cnn, load_tensors, read_card
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from he2her2.statistics import exact_binomial, kappa_interval, rate
from he2her2.training.classifier import CnnClassifier
from he2her2.training.cross_validation import CnnTraining
from he2her2.training.report import Provenance, estimate_rows
from he2her2.training.run import Execution
from he2her2.training.settings import Hardware, load_training
from he2her2.training.tiles import train as training
from he2her2.training.tiles.data import TileData, read_split
from he2her2.training.tiles.dataset import draw_tiles, find_tiles, open_row
from he2her2.training.tiles.judgement import JudgedTiles, confusion_rows
from tests.labelled_slides import TINY
from tests.scored_slides import QUICK, SCORES, changed, quick_config, write_scored

NOTICE = "trained on toys: no clinical meaning"
LEARN = (
    "training.epochs=16",
    "training.learning_rate=0.02",
    "training.batch_size=12",
    "training.crop_px=48",
    "training.augment.stain=0",
    "training.tiles_per_class=24",
    "training.val_tiles_per_class=10",
)
BRIEF = ("training.epochs=1", "training.tiles_per_class=6", "training.val_tiles_per_class=4")
FLAT = replace(TINY, name="flat-tile-cnn", global_pool=False)
CNNS = {**encoders.CNNS, TINY.name: TINY, FLAT.name: FLAT}
CPU = Hardware(accelerator="cpu")


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    """The tiny CNN is in the zoo, and one that flattens."""
    monkeypatch.setattr(encoders, "CNNS", CNNS)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Slides of each score that train, validate and test."""
    return write_scored(tmp_path_factory.mktemp("cohort"), ["train", "val", "test"])


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """Two slides of each score without a split, but for 3+, of which there is one."""
    manifest = write_scored(tmp_path_factory.mktemp("loose"), ["", ""])
    return changed(manifest, "s1-3,s1-3.svs,p-s1-3,IHC,3+,,\n", "", "loose.csv")


@pytest.fixture(scope="module")
def learned(cohort, tmp_path_factory):
    """What a training leaves: its folder and what was said."""
    folder = tmp_path_factory.mktemp("learned")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoders, "CNNS", CNNS)
        config, settings = load_training("tiles", overrides=[*QUICK, *LEARN])
        data = TileData(cohort, licence="CC0", notice=NOTICE)
        training.train_tiles(data, folder, config, settings, Execution(CPU, say=said.append))
    return folder, said


@pytest.fixture
def train(command_line, tmp_path):
    """Train by command line; gives exit code, standard output, standard error and the run's folder."""

    def run(manifest, *options, overrides=BRIEF, out="run"):
        settings = [part for setting in (*QUICK, *LEARN, *overrides) for part in ("--set", setting)]
        words = ("--manifest", manifest, "--out", tmp_path / out, "--accelerator", "cpu", *settings, *options)
        return *command_line("train", "tiles", *words), tmp_path / out

    return run


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.reader(file))


def weights_of(run):
    folder = run / "weights" / "tile_cnn"
    return load_tensors(folder, read_card(folder, "tile_cnn"))


def figure(run, name, of="test"):
    rows = {row[0]: row for row in table(run / f"figures_{of}.csv")}
    return [float(cell) for cell in rows[name][1:4]]


def test_it_learns_what_can_be_seen(learned):
    """Darker slides have higher scores; slides that nothing saw are scored right, with intervals that say how few."""
    value, low, high = figure(learned[0], "tile accuracy")
    slides = figure(learned[0], "slide accuracy, majority")

    assert value > 0.8
    assert low < value <= high
    assert slides[1] < 0.5 < slides[0]


def test_tables_are_laid_out_like_the_paper_s(learned):
    """A row for each prediction, a column for each truth; every class has as many tiles."""
    heading, *rows = table(learned[0] / "confusion_test.csv")
    counts = np.array([[int(cell) for cell in row[1:]] for row in rows])

    assert heading == ["prediction / truth", *SCORES]
    assert [row[0] for row in rows] == list(SCORES)
    assert counts.sum(axis=0).tolist() == [10] * 4
    assert counts.trace() / counts.sum() == figure(learned[0], "tile accuracy")[0]


def test_the_report_says_what_a_reader_must_know(learned):
    """Both sets, whose figures flatter, intervals by patient, the notice; and how many tiles there were."""
    folder, said = learned
    text = (folder / "report.md").read_text("utf-8")

    assert "40 tiles of 4 slides of 4 patients, who also picked the epoch: the figures flatter" in text
    assert "40 tiles of 4 slides of 4 patients, used neither for training nor to pick the epoch" in text
    assert "| prediction / truth | 0 | 1+ | 2+ | 3+ |" in text
    assert f"NOTICE: {NOTICE}" in text
    assert "training: 24 tiles of each of 4 scores, from 4 slides of 4 patients" in said


def test_a_figure_of_no_case_is_undefined_in_the_report():
    """The tables show no nan with an interval from 0 to 1, and no share as 1.000 that is less."""
    rows = estimate_rows([exact_binomial(0, 0, name="recall of 3+"), exact_binomial(2999, 3000, name="accuracy")])

    assert rows == [("recall of 3+", "undefined", "0"), ("accuracy", "0.9997 (0.998 to 1.000)", "3000")]


def test_the_card_says_where_the_weights_come_from(learned):
    """Data, licence, notice, limits, and each figure with its interval."""
    card = read_card(learned[0] / "weights" / "tile_cnn", "tile_cnn")
    accuracy = next(metric for metric in card.metrics if metric.name == "tile accuracy" and "neither" in metric.data)

    assert (card.network, card.training_licence, card.notice) == (TINY, "CC0", NOTICE)
    assert "24 tiles of each of 4 scores" in card.training_data
    assert [accuracy.value, accuracy.low, accuracy.high] == pytest.approx(figure(learned[0], "tile accuracy"), abs=1e-6)
    assert any("not validated" in limit for limit in card.limits)


def test_the_weights_predict_as_the_report_says(learned, cohort):
    """The engine of prediction finds the same classes on the tiles of the test slides."""
    config = quick_config()
    _, settings = load_training("tiles", overrides=LEARN)
    rows = read_split(TileData(cohort), 0, seed=0).test
    tiles = find_tiles(rows, TINY.input, config, tissue_by_score=False)
    engine = load_cnn(str(learned[0] / "weights"), "tile_cnn", config, "cpu")

    found = {}
    for slide in draw_tiles(tiles, settings.val_tiles_per_class, settings.seed).slides:
        with open_row(slide.row, config) as opened:
            logits = infer(opened, slide.grid, engine, config.runtime)[1]
        found[slide.row.slide_id] = np.bincount(logits.argmax(axis=1), minlength=4).tolist()

    told = {row[0]: [int(cell) for cell in row[7:]] for row in table(learned[0] / "slides_test.csv")[1:]}
    assert told == found


def test_the_command_line(train, cohort):
    """Prints the report; a second training in the folder is refused."""
    code, out, err, run = train(cohort, "--licence", "CC0")
    again = train(cohort)

    assert code == 0
    assert out.startswith("# Tile CNN")
    assert str(run / "weights") in out
    assert "looking for tiles on 12 slides" in err
    assert again[0] == 2
    assert "--resume goes on with it" in again[2]


def test_a_network_never_saw_whom_it_judges(train, loose, monkeypatch):
    """Each patient is left out once; the network that is kept learned from all."""
    learned: list[set[str]] = []
    judged: list[set[str]] = []
    learn, logits = CnnTraining.learn, CnnTraining.logits
    monkeypatch.setattr(CnnTraining, "learn", lambda self, sets, out: note(learned, sets.train, learn(self, sets, out)))
    monkeypatch.setattr(CnnTraining, "logits", lambda self, m, tiles: note(judged, tiles, logits(self, m, tiles)))

    def note(where, tiles, result):
        where.append({slide.row.patient_id for slide in tiles.slides})
        return result

    code, _, _, run = train(loose, "--folds", "3")

    assert code == 0
    everybody = {f"p-s{i}-{k}" for i in range(2) for k in range(4)} - {"p-s1-3"}
    assert set().union(*judged) == learned[3] == everybody
    assert sum(len(left_out) for left_out in judged) == len(everybody)
    assert not any(seen & left_out for seen, left_out in zip(learned, judged, strict=False))
    assert len({(run / "folds" / str(k + 1) / "checkpoints" / "last.ckpt").read_bytes() for k in range(3)}) == 3
    told = json.loads((run / "run.json").read_text("utf-8"))
    assert told["training_patients"] == sorted(hashed_patient(name) for name in everybody)


def test_a_fold_without_a_score_is_told(train, loose):
    """The only slide of 3+ is judged by a network that was never shown 3+; report and card tell it from the rest."""
    _, out, _, run = train(loose, "--folds", "3")
    column = [int(row[4]) for row in table(run / "confusion_left_out.csv")[1:]]
    card = read_card(run / "weights" / "tile_cnn", "tile_cnn")

    assert out.count("no slide of 3+ to train on, so that it cannot be found") == 1
    assert "cross-validated by patient in 3 folds, each network after its last epoch" in out
    assert sum(column) == 4
    assert column[3] == 0
    assert not any("never saw" in limit for limit in card.limits)


def test_those_with_a_split_stay_where_they_are(loose):
    """They train, or choose the epoch, in every fold; only those without are left out."""
    text = "s0-0,s0-0.svs,p-s0-0,IHC,0,"
    other = "s0-1,s0-1.svs,p-s0-1,IHC,1+,"
    third = "s0-2,s0-2.svs,p-s0-2,IHC,2+,"
    manifest = changed(changed(loose, text, f"{text}train", "kept.csv"), other, f"{other}val", "kept.csv")
    manifest = changed(manifest, third, f"{third}val", "kept.csv")

    parts = read_split(TileData(manifest), 2, seed=0)

    assert [row.slide_id for row in parts.train] == ["s0-0"]
    assert [row.slide_id for row in parts.val] == ["s0-1", "s0-2"]
    assert sorted(row.slide_id for row in parts.pool) == ["s0-3", "s1-0", "s1-1", "s1-2"]


def test_a_patient_who_always_trains_is_not_left_out(loose):
    """Another slide of the patient would tell."""
    text = "s0-0,s0-0.svs,p-s0-0,IHC,0,"
    manifest = changed(changed(loose, text, f"{text}train", "both.csv"), "p-s1-0", "p-s0-0", "both.csv")

    with pytest.raises(ManifestError, match="line 6: patient 'p-s0-0' has other slides in train"):
        read_split(TileData(manifest), 2, seed=0)


def test_where_all_have_a_split_all_but_the_test_are_left_out(cohort):
    """Nothing is asked of the test slides."""
    parts = read_split(TileData(cohort), 4, seed=0)

    assert not parts.train + parts.val + parts.test
    assert {row.split for row in parts.pool} == {"train", "val"}
    assert len(parts.pool) == 8


def test_a_stopped_training_goes_on_to_the_same_weights(train, cohort, monkeypatch):
    """Stopped in the midst of an epoch and resumed, it ends bit for bit where an unbroken one does."""
    overrides = (*BRIEF, "training.epochs=3", "training.augment.brightness=0.1")
    whole = train(cohort, overrides=overrides, out="whole")[3]
    step, n_steps = CnnClassifier.training_step, 0

    def stop(module, batch, i):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 4:
            raise KeyboardInterrupt
        return step(module, batch, i)

    with monkeypatch.context() as patched:
        patched.setattr(CnnClassifier, "training_step", stop)
        code = train(cohort, overrides=overrides, out="broken")[0]
    resumed = train(cohort, "--resume", overrides=overrides, out="broken")

    assert (code, resumed[0]) == (130, 0)
    assert all((weights_of(resumed[3])[name] == tensor).all() for name, tensor in weights_of(whole).items())


def test_every_problem_of_the_manifest_is_told_before_any_training(train, cohort):
    """A missing file, an unknown score, a patient in two splits, a slide without score."""
    bad = changed(cohort, "s0-0.svs,p-s0-0,IHC,0,", "gone.svs,p-s0-0,IHC,0,", "bad.csv")
    bad = changed(bad, "IHC,2+,train", "IHC,5+,train", "bad.csv")
    bad = changed(bad, "p-s1-3", "p-s0-3", "bad.csv")

    code, _, err, run = train(bad)

    assert code == 2
    assert "gone.svs is missing" in err
    assert "'5+' is no IHC score" in err
    assert "patient 'p-s0-3' is in train and val" in err
    assert not run.exists()


def test_slides_without_tiles_are_told_before_any_training(train, cohort):
    """All of them, and the folder is as free as before."""
    (cohort.parent / "broken.svs").write_bytes(b"II*\0 this is no slide")
    (cohort.parent / "text.svs").write_text("no slide either", "utf-8")
    bad = changed(changed(cohort, "s0-0.svs", "broken.svs", "bad.csv"), "s1-1.svs", "text.svs", "bad.csv")

    code, _, err, run = train(bad)

    assert code == 2
    assert [word in err for word in ("2 of 12 slides", "line 2: s0-0: ", "line 7: s1-1: ")] == [True] * 3
    assert not (run / "checkpoints").exists()
    assert not (run / "run.json").exists()


def test_one_class_is_refused(train, cohort):
    """There is nothing to tell apart."""
    code, _, err, _ = train(changed(cohort, ",IHC,1+,train", ",IHC,0,train", "one.csv").with_name("one.csv"))
    assert code == 0, err

    lines = [line for line in cohort.read_text("utf-8").splitlines() if "train" not in line or ",0,train" in line]
    only = cohort.with_name("only.csv")
    only.write_text("\n".join(lines) + "\n", "utf-8")
    code, _, err, _ = train(only, out="only")

    assert code == 2
    assert "split train: all 1 IHC slides have ihc_score 0; two classes are needed" in err


def test_it_can_start_from_other_weights(train, cohort, tmp_path):
    """With hardly any learning the weights stay what they were; their notice stays with them."""
    start = initial_weights(TINY, seed=5)
    save_weights(tmp_path / "start" / "tile_cnn", Card(TINY, trained=True, notice=NOTICE), start)

    code, _, err, run = train(
        cohort,
        "--init",
        tmp_path / "start",
        overrides=(*BRIEF, "training.learning_rate=1e-9", "training.weight_decay=0"),
    )

    assert code == 0, err
    moved = max(np.abs(weights_of(run)[name] - start[name]).max() for name in start if "running" not in name)
    assert moved < 1e-6
    assert read_card(run / "weights" / "tile_cnn", "tile_cnn").notice == NOTICE


def test_weights_that_know_the_judges_are_refused(train, cohort, learned, tmp_path):
    """Whoever trained the weights to start from cannot validate; whoever chose their epoch cannot judge."""
    copied = tmp_path / "ours"
    shutil.copytree(learned[0] / "weights", copied)
    swapped = changed(changed(cohort, ",train,", ",x,", "swap.csv"), ",val,", ",train,", "swap.csv")
    swapped = changed(changed(swapped, ",test,", ",val,", "swap.csv"), ",x,", ",test,", "swap.csv")

    same = train(cohort, "--init", learned[0] / "weights" / "tile_cnn", out="same")
    refused = [train(swapped, "--init", folder) for folder in (learned[0] / "weights", copied, copied / "tile_cnn")]

    assert same[0] == 0
    assert patients_used(same[3] / "weights").complete
    for code, _, err, _ in refused:
        assert code == 2
        assert "4 patients who are to be evaluated here (p-s0-0, p-s0-1, p-s0-2, p-s0-3)" in err


def test_weights_of_another_network_are_refused(train, cohort, tmp_path):
    """Their name, and what to do."""
    save_weights(tmp_path / "flat", Card(FLAT, trained=True, notice=""), initial_weights(FLAT, seed=0))

    code, _, err, _ = train(cohort, "--init", tmp_path / "flat")

    assert code == 2
    assert "holds a flat-tile-cnn where a tiny-tile-cnn is to be trained" in err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("networks.tile_cnn=flat-tile-cnn",), "a flat-tile-cnn takes 64 px only; use training.crop_px=64"),
        (("training.crop_px=4",), "4 px are too few"),
        (("training.crop_px=80",), "80 px are more than the 64 px of a tile"),
        (("training.crop_px=0",), "training.crop_px"),
    ],
)
def test_crops_that_do_not_suit_the_network(train, cohort, overrides, words):
    """Refused in one line, before anything is looked at."""
    code, _, err, run = train(cohort, overrides=overrides)

    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not run.exists()


def test_a_network_that_flattens_learns_from_whole_tiles(train, cohort):
    """Asked for no crops."""
    assert train(cohort, overrides=(*BRIEF, "networks.tile_cnn=flat-tile-cnn", "training.crop_px=64"))[0] == 0


def test_tiles_of_h_and_e_inherit_the_ihc_score(train, cohort):
    """The same table, of the other stain; the IHC slides are then none of its business."""
    stained = changed(cohort, ",IHC,", ",HE,", "he.csv")

    code, out, _, _ = train(stained, "--stain", "HE")
    other = train(stained, out="other")

    assert code == 0
    assert "Data: HE tiles" in out
    assert other[0] == 2
    assert "split train has no IHC slides" in other[2]


def test_more_folds_than_patients(train, loose):
    """One line."""
    code, _, err, _ = train(loose, "--folds", "9")

    assert code == 2
    assert "7 labelled patients cannot fill 9 splits" in err


def judged(truth, decided, slide, n_slides):
    rows = tuple(
        SlideRow(i, f"s{i}", Path(), patient_id=f"p{i // 2}", ihc_score=IhcScore.ZERO) for i in range(n_slides)
    )
    truth, decided = np.array(truth), np.array(decided)
    return JudgedTiles("test", "apart", rows, np.array(slide), truth, decided, decided.astype(float))


def test_figures_are_those_of_the_evaluation():
    """Tile accuracy, recall and kappa by patient; slides by majority and by mean."""
    rng = np.random.default_rng(0)
    slide = np.repeat(np.arange(6), 5)
    truth = slide % 4
    decided = np.where(rng.random(30) < 0.7, truth, rng.integers(0, 4, 30))
    patients = [f"p{i // 2}" for i in slide]

    found = {estimate.name: estimate for estimate in judged(truth, decided, slide, 6).figures}

    accuracy = rate(truth == decided, patients)
    kappa = kappa_interval(truth, decided, 4, patients)
    recall = rate(decided[truth == 1] == 1, [p for p, t in zip(patients, truth, strict=True) if t == 1])
    assert (found["tile accuracy"].value, found["tile accuracy"].low) == (accuracy.value, accuracy.low)
    assert (found["tile quadratic kappa"].value, found["tile quadratic kappa"].high) == (kappa.value, kappa.high)
    assert found["tile recall of 1+"].low == recall.low
    assert found["slide accuracy, mean score"].n == 6


def test_a_slide_is_what_most_of_its_tiles_are_or_their_mean():
    """3, 3, 0, 0, 0: the majority says 0, the mean of 1.2 says 1+."""
    slides = judged([0] * 5, [3, 3, 0, 0, 0], [0] * 5, 1).by_slide

    assert (slides.majority.tolist(), slides.rounded.tolist()) == ([0], [1])
    assert slides.mean.tolist() == pytest.approx([1.2])


def test_predictions_are_rows_and_truth_is_columns():
    """Two tiles of 3+ are taken for 0: first row, last column."""
    rows = confusion_rows(np.array([3, 3]), np.array([0, 0]))

    assert rows[0] == ["0", "0", "0", "0", "2"]


def test_a_network_that_says_one_thing_is_called_out(tmp_path):
    """Its accuracy alone would look like something."""
    constant = judged([0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], 2)

    report = training._write_report(tmp_path, [constant], Provenance("toys", "CC0", "none"))

    assert "It calls every tile 0: it has learned nothing." in report.read_text("utf-8")
