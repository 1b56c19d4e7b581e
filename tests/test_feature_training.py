"""`he2her2 train slides --features`: folds by patient, resumed to the bit, and a run that `evaluate` takes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from he2her2.config import load_config
from he2her2.csv_files import read_csv
from he2her2.errors import ManifestError
from he2her2.exchange import StoredTiles, write_tiles_files
from he2her2.labels import Policy
from he2her2.manifest import SlideRow, hashed_patient, patients_used, split_in_folds, write_patients
from he2her2.models import AGGREGATORS, Bag, load_aggregator, load_encoder, read_card, trained_folder
from he2her2.results import open_run
from he2her2.training import Execution, FeatureTraining, Hardware
from he2her2.training.slides import feature_study
from he2her2.training.slides.feature_data import read_feature_cohort
from he2her2.training.slides.judgement import figures_by_patient
from tests.test_features import onnx_encoder

N = 24
QUICK = (
    "--set", "training.epochs=6", "--set", "training.patience=3", "--set", "training.learning_rate=3e-3",
    "--accelerator", "cpu",
)  # fmt: skip


def write_cohort(folder, layout="trident", encoder="uni", n=N, skip=(), identity="", width=6):
    """Two slides a patient; positive ones have a few telling tiles. No slide file is needed."""
    rng = np.random.default_rng(0)
    lines = ["slide_id,path,patient_id,stain,her2_status,site,mpp,split"]
    for k in range(n):
        status = "positive" if (k // 2) % 2 else "negative"
        name, split = f"S{k}", "val" if k % 8 in (6, 7) or k % 8 in (4, 5) else "train"
        lines.append(f"{name},{name}.svs,P{k // 2},HE,{status},site{(k // 2) % 4},0.5,{split}")
        features = rng.normal(size=(20, width)).astype(np.float32)
        features[:5, 1] += 4 * (status == "positive")
        corners = np.array([(x * 256, y * 256) for x in range(5) for y in range(4)], np.int64)
        tiles = StoredTiles(name, corners, side=256, side_px=256, mpp_l0=0.5, features=features, encoder=encoder)
        tiles = replace(tiles, identity=identity)
        if k not in skip:
            write_tiles_files(folder / "features", tiles, layout)
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    place = folder / "features" / f"features_{encoder}" if layout == "trident" else folder / "features"
    return folder / "manifest.csv", place


def trained(command_line, folder, out, *options, **cohort):
    manifest, features = write_cohort(folder, **cohort)
    return command_line(
        "train", "slides", "--manifest", manifest, "--features", features, "--out", out, *QUICK, *options
    )


@pytest.mark.parametrize(
    ("layout", "name"), [("trident", "abmil"), ("stamp", "smooth-abmil"), ("clam", "mean-features")]
)
def test_out_of_fold_predictions_are_a_run(tmp_path, command_line, layout, name):
    """From any program's features to `evaluate`: every slide once a repeat, and the mean over repeats."""
    options = ("--aggregator", name, "--folds", "3", "--repeats", "2")

    code, out, err = trained(command_line, tmp_path, tmp_path / "run", *options, layout=layout)

    assert code == 0, err
    assert "AUC" in out
    mean, *repeats = (
        open_run(tmp_path / "run" / place).predictions for place in ("out-of-fold", "repeats/1", "repeats/2")
    )
    assert set(mean) == {f"S{k}" for k in range(N)}
    for slide_id, row in mean.items():
        each = [one[slide_id].probability for one in repeats]
        assert row.probability == pytest.approx(np.mean(each), abs=1e-5)
    assert any(one[slide_id].probability != repeats[0][slide_id].probability for one in repeats for slide_id in one)
    code, out, err = command_line(
        "evaluate", tmp_path / "run" / "out-of-fold", "--manifest", tmp_path / "manifest.csv", "--out", tmp_path / "e",
        "--split", "all", "--no-leaks", "--no-plots",
    )  # fmt: skip
    assert code == 0, err


def test_no_patient_is_on_two_sides(tmp_path, command_line):
    """The slides of a fold's patients are tested together, and every slide in one fold."""
    trained(command_line, tmp_path, tmp_path / "run", "--aggregator", "mean-features", "--folds", "4")

    folds = [json.loads(path.read_text())["probabilities"] for path in (tmp_path / "run" / "folds").iterdir()]

    patients = [{int(name[1:]) // 2 for name in fold} for fold in folds]
    assert sum(map(len, folds)) == N
    assert sum(map(len, patients)) == N / 2


def row_added(was, now):
    """A second row of the first slide, with other words."""
    return lambda text: text + text.splitlines()[1].replace(was, now) + "\n"


def of_two_sites(text):
    """Sites of one class each."""
    return text.replace("site2", "site0").replace("site3", "site1")


@pytest.mark.parametrize(
    ("change", "options", "found"),
    [
        (row_added("P0,HE,negative", "P9,HE,positive"), "--folds 3", "lines 2, 26: slide_id 'S0' is given 2 times"),
        (row_added("S0,S0.svs", "s0,s0.svs"), "--folds 3", "lines 2, 26: slide_id 'S0' is given 2 times"),
        (
            row_added("S0,S0.svs,P0,HE,negative,site0,0.5,train", "S24,S24.svs,P0,HE,negative,site0,0.5,val"),
            "--folds 3",
            "choose one split",
        ),
        (row_added(",0.5,", ",500,"), "--folds 3", "500 is no microscope's"),
        (of_two_sites, "--folds 2 --by-site", "repeat 1, fold 1 has no"),  # it would predict one class: an AUC of 0
        (of_two_sites, "--folds 2 --choose weight_decay=0,1", "use --folds 3 or more"),
        (of_two_sites, "--choose class_weights=true,false", "changes the loss that chooses"),
        (of_two_sites, "--choose epochs=1,2 --choose training.epochs=3", "--choose epochs: is given several times"),
        (of_two_sites, "--precision bf16-mixed", "--precision: no effect"),
        (of_two_sites, "--accelerator gpu", "--accelerator: no effect"),
        (
            lambda text: text.replace("S1.svs,P0,HE,negative,site0", "S1.svs,P0,HE,negative,site1"),
            "--folds 2 --by-site",  # the second slide's site would be on two sides of a fold
            "slides of patient 'P0' are of sites site0 and site1",
        ),
    ],
)
def test_what_cannot_be_learned_is_told_before_any_training(tmp_path, command_line, change, options, found):
    """A table that contradicts itself, folds without a class, options without effect."""
    manifest, features = write_cohort(tmp_path)
    manifest.write_text(change(manifest.read_text()))
    words = ("--manifest", manifest, "--features", features, "--aggregator", "mean-features", *options.split())

    code, _, error = command_line("train", "slides", *words, "--out", tmp_path / "run")

    assert code == 2
    assert found in " ".join(error.split())
    assert not (tmp_path / "run").exists()


def test_folds_that_validate_on_one_class_are_told(tmp_path, command_line):
    """Their epoch is the one that calls most of that class; so are patients of split test, who are in folds as all."""
    manifest, features = write_cohort(tmp_path)
    lines = manifest.read_text().splitlines()
    few = [
        line.replace("positive", "negative") if line.split(",")[2] in ("P7", "P9", "P11") else line for line in lines
    ]
    manifest.write_text("\n".join(few).replace(",site0,0.5,train", ",site0,0.5,test") + "\n")
    words = ("--manifest", manifest, "--features", features, "--folds", "4", "--out", tmp_path / "run", *QUICK)

    code, _, err = command_line("train", "slides", *words, "--aggregator", "mean-features")

    assert code == 0
    assert "CAUTION 1 of 4 folds validate on one class only" in err
    assert "CAUTION --folds trains on all patients, 3 of split test among them" in err


def test_sites_that_may_be_one_are_told(tmp_path, monkeypatch):
    """Two ways to write one site are two sites, which folds by site may part."""
    manifest, features = write_cohort(tmp_path)
    manifest.write_text(manifest.read_text().replace("P5,HE,positive,site1", "P5,HE,positive,Site 1"))
    data = feature_study.FeatureData(manifest, features, "mean-features", folds=3, by_site=True)
    cohort = read_feature_cohort(manifest, features, Policy.GUIDELINE)
    study, said = feature_study.FeatureStudy(data, cohort, FeatureTraining(), AGGREGATORS["mean-features"]), list[str]()
    monkeypatch.setattr(feature_study.FeatureStudy, "splits_of_folds", [])

    study.cross_validate(tmp_path, Execution(Hardware(), say=said.append))

    assert len(said) == 1
    assert "sites 'site1' (line 4) and 'Site 1' (line 12) are written almost alike" in said[0]


def test_tiles_all_at_one_place_have_no_neighbours(tmp_path, command_line):
    """Every tile would be a neighbour of every other: memory by the square of their number."""
    manifest, features = write_cohort(tmp_path)
    with h5py.File(features / "S3.h5", "r+") as file:
        file["coords"][:] = 0
    words = ("--manifest", manifest, "--features", features, "--out", tmp_path / "run", *QUICK)

    code, _, err = command_line("train", "slides", *words, "--aggregator", "smooth-abmil")

    assert code == 0
    assert "S3: its 20 tiles lie at 1 places; extract its coordinates again" in err


def test_an_encoder_that_has_seen_the_patients_is_told(tmp_path, command_line):
    """Out-of-fold predictions rest on features of a tile CNN that was trained with their patients."""
    weights = tmp_path / "weights"
    shutil.copytree(trained_folder("bundled") / "tile_cnn", weights / "tile_cnn")
    write_patients(weights, {"training_patients": [hashed_patient("P0")], "validation_patients": []})
    identity = load_encoder("tile-cnn", weights, "cpu").identity
    manifest, features = write_cohort(tmp_path, encoder="tile-cnn", identity=identity)
    words = ("--manifest", manifest, "--features", features, "--aggregator", "mean-features", "--folds", "2", *QUICK)

    code, out, err = command_line("train", "slides", *words, "--weights", weights, "--out", tmp_path / "run")

    assert code == 0
    assert "trained or chosen with 1 of these patients (P0)" in err
    assert "CAUTION of 2 folds none is left to validate: training slides pick the epoch" in err
    assert "trained or chosen with 1 of these patients (P0)" in out
    assert patients_used(tmp_path / "run" / "out-of-fold").hashes == {hashed_patient("P0")}
    assert command_line("train", "slides", *words, "--out", tmp_path / "without")[0] == 0
    assert patients_used(tmp_path / "without" / "out-of-fold").unrecorded == ("tile-cnn",)
    code, _, err = command_line("train", "slides", *words, "--weights", "bundled-ihc", "--out", tmp_path / "other")
    assert (code, "another tile CNN gave the features" in err) == (2, True)


def test_figures_are_by_patient_however_it_is_written():
    """Slides of a patient are no evidence of their own."""
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.random(20) < 0.5, 2)
    probability = rng.random(40)
    one, other = (
        [SlideRow(k, f"s{k}", Path("s.svs"), name.format(k // 2, k % 2 + 1)) for k in range(40)]
        for name in ("TCGA-A1-A{:03}", "TCGA-A1-A{:03}-01Z-00-DX{}")
    )

    figures = [
        figures_by_patient(rows, truth.tolist(), probability.tolist(), (probability > 0.5).tolist())
        for rows in (one, other)
    ]

    assert figures[0] == figures[1]
    assert [figure.name for figure in figures[0]] == ["AUC", "accuracy", "balanced accuracy"]


def test_figures_rank_as_the_run_writes():
    """Probabilities that are one in the run's table are one here: `evaluate` finds the same AUC."""
    rows = [SlideRow(k, f"S{k}", Path("S.svs"), f"P{k}") for k in range(4)]
    probability = [0.52177264, 0.52177263, 0.52177264, 0.52177263]

    area, *_ = figures_by_patient(rows, [True, False, True, False], probability, [True] * 4)

    assert area.value == 0.5


def test_a_file_on_two_sides_is_refused_as_without_features(tmp_path, command_line):
    """Under the names of two patients; labels that contradict each other are told."""
    manifest, features = write_cohort(tmp_path)
    (tmp_path / "S0.svs").write_text("a slide")
    first, *rest = manifest.read_text().splitlines()[1:]
    copy = first.replace("S0,", "S0b,", 1).replace(",P0,", ",other,").replace(",train", ",val")
    twice = rest[0].replace("negative", "positive")
    shutil.copy(features / "S0.h5", features / "S0b.h5")
    command = (
        "train",
        "slides",
        "--manifest",
        manifest,
        "--features",
        features,
        "--aggregator",
        "mean-features",
        *QUICK,
    )

    manifest.write_text("\n".join([manifest.read_text().splitlines()[0], first, copy, *rest]) + "\n")
    code, _, error = command_line(*command, "--out", tmp_path / "leak")
    manifest.write_text("\n".join([manifest.read_text().splitlines()[0], first, twice, *rest[1:]]) + "\n")
    told = command_line(*command, "--out", tmp_path / "told")[2]

    assert code == 2
    assert "leak: the same file" in error
    assert "1 of 12 patients have slides of more than one HER2 status: P0" in told


def test_labels_that_say_nothing_are_not_learned(tmp_path, command_line, monkeypatch):
    """A slide's own label never reaches its prediction: flipped in the test fold, the probabilities stay."""
    manifest, features = write_cohort(tmp_path)
    options = ("--features", features, "--aggregator", "abmil", "--folds", "3", *QUICK)
    command_line("train", "slides", "--manifest", manifest, "--out", tmp_path / "a", *options)
    tested = json.loads((tmp_path / "a" / "folds" / "repeat-1-fold-1.json").read_text())["probabilities"]
    flips = {"positive": "negative", "negative": "positive"}
    lines = manifest.read_text().splitlines()
    for i, line in enumerate(lines):
        cells = line.split(",")
        if cells[0] in tested:
            cells[4] = flips[cells[4]]
            lines[i] = ",".join(cells)
    folds: dict[str, object] = {}

    def as_before(patients, *args, **kwargs):
        return folds["kept"]

    def keep(patients, *args, **kwargs):
        folds["kept"] = split_in_folds(patients, *args, **kwargs)
        return folds["kept"]

    monkeypatch.setattr(feature_study, "split_in_folds", keep)
    command_line("train", "slides", "--manifest", manifest, "--out", tmp_path / "b", *options)
    flipped = tmp_path / "flipped.csv"
    flipped.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(feature_study, "split_in_folds", as_before)
    command_line("train", "slides", "--manifest", flipped, "--out", tmp_path / "c", *options)

    again = json.loads((tmp_path / "c" / "folds" / "repeat-1-fold-1.json").read_text())["probabilities"]
    assert again == tested


def test_a_stopped_training_goes_on(tmp_path, command_line):
    """Folds that are done stay; the others come out as they would have."""
    manifest, features = write_cohort(tmp_path)
    options = ("--features", features, "--aggregator", "ranked-features", "--folds", "3", *QUICK)
    words = ("train", "slides", "--manifest", manifest, "--out", tmp_path / "run", *options)
    command_line(*words)
    file = tmp_path / "run" / "folds" / "repeat-1-fold-2.json"
    before, table = file.read_text(), (tmp_path / "run" / "out-of-fold" / "predictions.csv").read_text()
    file.unlink()

    refused, _, err = command_line(*words)
    code, _, _ = command_line(*words, "--resume")
    other, _, err2 = command_line(*words, "--resume", "--set", "training.seed=5")

    assert refused == 2
    assert "--resume" in err
    assert code == 0
    assert file.read_text() == before
    assert (tmp_path / "run" / "out-of-fold" / "predictions.csv").read_text() == table
    assert other == 2
    assert "training.seed was 0, now 5" in err2


_VICTIM = """
import os, signal, sys, threading, time
from he2her2.cli import run_here
from he2her2.training import Execution, FeatureTraining, Hardware
from he2her2.training.slides import feature_study
from he2her2.training.slides.feature_data import read_feature_cohort
written, wait = feature_study.write_json, float(sys.argv.pop(1))

def write_json(*words):
    if not threading.active_count() > 1:
        threading.Timer(wait, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    written(*words)

feature_study.write_json = write_json
feature_study.FeatureStudy.final = lambda self: time.sleep(600)  # however late the signal, it meets a training
run_here()
"""


def test_killed_at_random_it_comes_out_the_same(tmp_path, command_line):
    """SIGKILL after the first fold, the same command again: every fold, prediction and weight to the byte."""
    manifest, features = write_cohort(tmp_path)
    options = ("--features", features, "--aggregator", "abmil", "--folds", "3", "--repeats", "2", *QUICK)
    words = [str(word) for word in ("train", "slides", "--manifest", manifest, *options, "--out")]
    wait = str(int.from_bytes(os.urandom(1)) / 255 * 0.2)
    victim = subprocess.run([sys.executable, "-c", _VICTIM, wait, *words, tmp_path / "a"], check=False)

    command_line(*words, tmp_path / "a", "--resume")
    command_line(*words, tmp_path / "b")

    names = ("folds/*.json", "out-of-fold/predictions.csv", "repeats/*/predictions.csv", "weights/**/*")
    one, other = (
        {
            path.relative_to(run): path.read_bytes()
            for name in names
            for path in run.glob(name)
            if path.is_file() and path.name != "card.json"
        }
        for run in (tmp_path / "a", tmp_path / "b")
    )
    assert victim.returncode == -signal.SIGKILL
    assert len(one) == 6 + 1 + 2 + 3
    assert one == other


def test_the_kept_weights_predict(tmp_path, command_line):
    """By ONNX Runtime, with the encoder and the patients on record."""
    trained(command_line, tmp_path, tmp_path / "run", "--aggregator", "abmil", "--folds", "3")
    aggregator = load_aggregator(
        str(tmp_path / "run" / "weights"), load_config(overrides=["networks.aggregator=abmil"])
    )
    rng = np.random.default_rng(5)
    found = []
    for shift in (0, 4):
        features = rng.normal(size=(30, 6)).astype(np.float32)
        features[:6, 1] += shift
        found.append(aggregator(Bag(features, rng.uniform(0, 1000, (30, 2)), np.ones(30, bool))))

    card = aggregator.card
    record = json.loads((tmp_path / "run" / "weights" / "patients.json").read_text())
    assert card.encoder is not None
    assert card.encoder.name == "uni"
    assert found[1].probability > found[0].probability
    assert found[1].contributions[:6].sum() > 0.3
    assert len(record["training_patients"]) + len(record["validation_patients"]) == N / 2
    assert hashed_patient("P0") in record["training_patients"] + record["validation_patients"]


def test_settings_are_chosen_by_validation_patients(tmp_path, command_line):
    """A rate at which nothing is learned loses; each fold says what it chose."""
    code, out, _ = trained(
        command_line, tmp_path, tmp_path / "run", "--aggregator", "mean-features", "--folds", "3",
        "--choose", "learning_rate=1e-7,1e-2",
    )  # fmt: skip

    chosen = [json.loads(path.read_text())["chosen"] for path in (tmp_path / "run" / "folds").iterdir()]
    assert code == 0
    assert chosen == [{"learning_rate": 0.01}] * 3
    assert "learning_rate=0.01" in out


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--aggregator", "magic"), "there is no 'magic'"),
        ((), "mlp: ranks the logits of the tile CNN; on features use one of abmil"),
        (("--aggregator", "abmil", "--choose", "learning_rate"), "write it as learning_rate"),
        (("--aggregator", "abmil", "--choose", "speed=1,2"), "training.speed"),
        (("--aggregator", "abmil", "--folds", "20"), "12 labelled patients cannot fill 20"),
    ],
)
def test_what_cannot_be_trained_is_one_line(tmp_path, command_line, options, found):
    """Unknown names, unfit values, too few patients."""
    code, _, err = trained(command_line, tmp_path, tmp_path / "run", *options)

    assert code == 2
    assert found in err
    assert err.count("\n") <= 2


def test_slides_without_features_are_named(tmp_path, command_line):
    """They are rows of failures.csv and stand in the report."""
    code, out, err = trained(
        command_line, tmp_path, tmp_path / "run", "--aggregator", "mean-features", "--folds", "3", skip=(3,)
    )

    (row,) = read_csv(tmp_path / "run" / "out-of-fold" / "failures.csv")
    assert code == 0
    assert "CAUTION S3" in err
    assert "1 labelled slides have no features" in out
    assert row["slide_id"] == "S3"


def test_features_of_two_encoders_do_not_mix(tmp_path, command_line):
    """Their numbers mean different things."""
    manifest, features = write_cohort(tmp_path)
    other = StoredTiles(
        "S1", np.zeros((3, 2), np.int64), side=256, features=np.zeros((3, 9), np.float32), encoder="uni"
    )
    write_tiles_files(tmp_path / "features", other, "trident")

    code, _, err = command_line(
        "train",
        "slides",
        "--manifest",
        manifest,
        "--features",
        features,
        "--aggregator",
        "abmil",
        "--out",
        tmp_path / "r",
    )

    assert code == 2
    assert "several encoders (S0 has 6 of uni; S1 has 9 of uni)" in err


def test_the_encoder_is_stated_where_the_files_do_not(tmp_path, command_line):
    """CLAM's never do, and no encoder was that of the features; one of other tiles is refused before any training."""
    manifest, features = write_cohort(tmp_path, layout="clam", width=5)
    near, far = onnx_encoder(tmp_path / "near", side_px=256), onnx_encoder(tmp_path / "far", side_px=64)
    words = ("train", "slides", "--manifest", manifest, "--features", features, "--aggregator", "mean-features")
    quick = ("--set", "training.epochs=1", "--accelerator", "cpu", "--encoder")

    code, _, err = command_line(*words, *quick, near, "--out", tmp_path / "run")
    refused, _, why = command_line(*words, *quick, far, "--out", tmp_path / "other")

    assert code == 0, err
    note = read_card(tmp_path / "run" / "weights" / "aggregator", "aggregator").encoder
    assert note is not None
    assert (note.name, note.sha256, note.tile_um) == ("small", load_encoder(str(near), None, "cpu").identity, 128)
    assert "CAUTION the features do not say where tiles were cut" in " ".join(err.split())
    assert refused == 2
    assert "of tiles 128 µm wide, and its card's are 32 µm wide" in why


def test_features_of_two_magnifications_do_not_mix(tmp_path, command_line):
    """One encoder sees cells in one, and glands in the other; TRIDENT states it without µm."""
    manifest, features = write_cohort(tmp_path)
    with h5py.File(features / "S1.h5", "r+") as file:
        for name in ("mpp", "mpp_level0"):
            del file["coords"].attrs[name]
        file["coords"].attrs["target_magnification"] = 10
    manifest.write_text(manifest.read_text().replace(",0.5,", ",,"))

    code, _, err = command_line(
        "train", "slides", "--manifest", manifest, "--features", features, "--aggregator", "abmil",
        "--out", tmp_path / "r",
    )  # fmt: skip

    assert code == 2
    assert "several magnifications (tiles of S0 are 128 µm wide, of S1 256 µm); keep one a folder" in err


def test_torch_files_without_coordinates_train_what_needs_none(tmp_path, command_line):
    """CLAM's users keep pt_files alone at times; an aggregator of places names what it lacks."""
    manifest, features = write_cohort(tmp_path, layout="clam")
    for place in ("h5_files", "patches"):
        shutil.rmtree(features / place)
    command = (
        "train", "slides", "--manifest", manifest, "--features", features, *QUICK, "--folds", 3, "--aggregator",
    )  # fmt: skip

    code, out, _ = command_line(*command, "mean-features", "--out", tmp_path / "mean")
    refused, _, err = command_line(*command, "transmil", "--out", tmp_path / "transmil")

    assert code == 0
    assert "AUC" in out
    assert refused == 2
    assert "has features of none of the 24 labelled slides" in err
    assert "S0: it has features without coordinates; keep patches/ or h5_files/ beside" in err


def test_features_are_found_by_the_slides_own_files(tmp_path):
    """TRIDENT calls those of S0.ome.tif S0.ome, whatever the manifest calls the slide; of no slide they are named."""
    manifest, features = write_cohort(tmp_path)
    for file in list(features.iterdir()):
        file.rename(file.with_suffix(".ome.h5"))
    text = manifest.read_text()
    manifest.write_text(re.sub(r"S(\d+),S(\d+).svs", r"slide-\1,S\1.ome.tif", text))

    found = read_feature_cohort(manifest, features, Policy.GUIDELINE)
    manifest.write_text(re.sub(r"S(\d+),S(\d+).svs", r"T\1,T\1.svs", text))

    assert {slide.row.slide_id: slide.path.name for slide in found.slides}["slide-7"] == "S7.ome.h5"
    with pytest.raises(ManifestError, match=r"such as T0; its files are named such as S0\.ome"):
        read_feature_cohort(manifest, features, Policy.GUIDELINE)


def test_without_folds_the_splits_of_the_manifest_hold(tmp_path, command_line):
    """Validation picks the epoch, and the report says that it flatters."""
    code, out, err = trained(command_line, tmp_path, tmp_path / "run", "--aggregator", "abmil")

    assert code == 0, err
    assert "their figures flatter" in out
    assert (tmp_path / "run" / "weights" / "aggregator" / "model.onnx").is_file()
    assert not (tmp_path / "run" / "out-of-fold").exists()
