"""Networks of two trainings in one folder: checked, and with the patients of both."""

import json
import shutil

import pytest

from he2her2.errors import OutputError, WeightsError
from he2her2.evaluation.leakage import provenance_limitations
from he2her2.manifest import hashed_patient, patients_used, write_patients
from he2her2.models import Card, join_weights, read_card, verify
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from tests.made_up_runs import MadeUpSlide, write_labels, write_run

ANN, BOB, CYD = map(hashed_patient, ("p1", "p2", "p3"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The two CNNs, without any record."""
    root = tmp_path_factory.mktemp("networks")
    for spec in (COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN):
        save_weights(root / spec.role, Card(spec, trained=True, notice=""), initial_weights(spec, seed=0))
    return root


@pytest.fixture
def trainings(networks, tmp_path):
    """Two trainings with patients: one keeps them in run.json, the other beside its weights."""
    shutil.copytree(networks / "tumour_cnn", tmp_path / "a" / "weights" / "tumour_cnn")
    (tmp_path / "a" / "run.json").write_text(json.dumps({"training_patients": [ANN], "validation_patients": [BOB]}))
    shutil.copytree(networks / "tile_cnn", tmp_path / "b" / "tile_cnn")
    (tmp_path / "b" / "patients.json").write_text(json.dumps({"training_patients": [CYD], "validation_patients": []}))
    return tmp_path


@pytest.mark.parametrize("place", ["a", "a/weights", "a/weights/tumour_cnn"])
def test_records_are_joined(trainings, place, command_line):
    """Whichever folder of the training is given."""
    code, out, _ = command_line(
        "weights", "join", "--tumour-cnn", trainings / place, "--tile-cnn", trainings / "b", "-o", trainings / "w"
    )

    assert code == 0
    assert "tumour_cnn, tile_cnn; on record are 2 patients of training and 1 of validation" in out
    assert "caution" not in out
    record = json.loads((trainings / "w" / "patients.json").read_text())
    assert sorted(record.pop("networks")) == ["tile_cnn", "tumour_cnn"]
    assert record == {"training_patients": sorted([ANN, CYD]), "validation_patients": [BOB]}
    for role in ("tumour_cnn", "tile_cnn"):
        verify(trainings / "w" / role, read_card(trainings / "w" / role, role))
    assert provenance_limitations(trainings / "w") == ()


def test_a_network_without_record_is_told_and_stays_told(trainings, networks, command_line):
    """By the command, by the record, and by the record of what is trained from it."""
    code, out, _ = command_line(
        "weights", "join", "--tumour-cnn", networks, "--tile-cnn", trainings / "b", "-o", trainings / "w"
    )
    (trainings / "next").mkdir()
    write_patients(trainings / "next", {"training_patients": [ANN], "validation_patients": []}, [trainings / "w"])

    assert code == 0
    assert "caution  the patients of tumour_cnn are not on record" in out
    for folder in ("w", "next"):
        used = patients_used(trainings / folder)
        assert used.unrecorded == ("tumour_cnn",)
        assert CYD in used.trained
        assert "never recorded" in provenance_limitations(trainings / folder)[0]
    assert ANN in patients_used(trainings / "next").trained


def test_a_network_that_was_copied_by_hand_is_told(trainings, networks, tmp_path):
    """The record beside it is of other networks, so its patients are unknown; one of the same bytes is known."""
    join_weights({"tile_cnn": trainings / "b"}, trainings / "w")
    assert patients_used(trainings / "w").complete

    shutil.copytree(networks / "tumour_cnn", trainings / "w" / "tumour_cnn")
    assert patients_used(trainings / "w").unrecorded == ("tumour_cnn",)
    assert "never recorded" in provenance_limitations(trainings / "w")[0]

    shutil.rmtree(trainings / "w" / "tumour_cnn")
    shutil.rmtree(trainings / "w" / "tile_cnn")
    other = initial_weights(STRIDED_TILE_CNN, seed=1)
    save_weights(trainings / "w" / "tile_cnn", Card(STRIDED_TILE_CNN, trained=True, notice=""), other)
    assert patients_used(trainings / "w").unrecorded == ("tile_cnn",)


def test_a_start_without_any_record_is_told(networks, tmp_path):
    """A training cannot vouch for the weights that it started from."""
    write_patients(tmp_path, {"training_patients": [ANN], "validation_patients": []}, [networks])

    assert patients_used(tmp_path).unrecorded == (networks.name,)


def test_the_evaluation_does_not_vouch_for_a_network_without_record(trainings, networks, command_line):
    """Nor does it pass over a patient of one of the joined trainings."""
    join_weights({"tumour_cnn": networks, "tile_cnn": trainings / "b"}, trainings / "w")
    slides = [
        MadeUpSlide(
            f"s{k}", f"p{k}", ("positive", "negative")[k % 2], ("3+", "1+")[k % 2], probability=(0.9, 0.1)[k % 2]
        )
        for k in range(8)
    ]
    run = write_run(trainings / "run", slides, weights_folder=str((trainings / "w").absolute()))
    labels = write_labels(trainings / "m.csv", slides)
    others = write_labels(trainings / "o.csv", [slide for slide in slides if slide.patient_id != "p3"])

    refused, _, error = command_line("evaluate", run, "-m", labels, "-o", trainings / "e", "--no-plots")
    code, out, _ = command_line("evaluate", run, "-m", others, "-o", trainings / "f", "--no-plots")

    assert (refused, code) == (2, 0)
    assert "trained or chosen with 1 of the patients to evaluate (p3)" in error
    assert "a network whose patients were never recorded" in out
    pages = [page.read_text() for page in (trainings / "f").glob("*.md")]
    assert pages
    assert not any("no patient in common, by the training's own record" in page for page in pages)


def test_damaged_and_missing_networks_are_refused(trainings):
    """Nothing is left of the new folder; an old one is never touched."""
    with pytest.raises(WeightsError, match=r"b: holds no tumour_cnn; give a folder with tumour_cnn/"):
        join_weights({"tumour_cnn": trainings / "b"}, trainings / "w")
    (trainings / "b" / "tile_cnn" / "model.onnx").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"model\.onnx: has 0 bytes"):
        join_weights({"tile_cnn": trainings / "b"}, trainings / "w")
    with pytest.raises(OutputError, match="a: is there already; choose another --out"):
        join_weights({"tumour_cnn": trainings / "a"}, trainings / "a")

    assert not (trainings / "w").exists()
