"""Weights for a new site: few labelled slides correct the probabilities, by the command, down to `predict`."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from he2her2.evaluation import patients_of_site
from he2her2.evaluation.cases import join
from he2her2.evaluation.evaluation import _kept
from he2her2.evaluation.recalibration import _combined, _left_out_in_turn, recalibrate_weights
from he2her2.labels import Policy
from he2her2.manifest import patients_record, patients_used, read_manifest
from he2her2.models import Card, RankingSettings, Role, hashes_of, read_card, write_rules
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from he2her2.results import PatientResult, open_run
from he2her2.results.patients import write_patient_results
from he2her2.rules import DecisionRules, IsotonicCalibration, LogitCalibration
from tests.made_up_runs import QUICK, MadeUpSlide, write_labels, write_run
from tests.tissue_slides import write_tissue

N_TILES = 5
ROLES: tuple[Role, ...] = ("tumour_cnn", "tile_cnn", "aggregator")
FIRST = LogitCalibration(0.5, 0.25, "the first site")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights with a calibration of the site that they were made at."""
    folder = tmp_path_factory.mktemp("trained") / "weights"
    for spec in (LITE0_TUMOUR_CNN, STRIDED_TILE_CNN, replace(PAPER_MLP, n_tiles=N_TILES)):
        ranking = RankingSettings(0.15, QUICK.scoring.beta) if spec.role == "aggregator" else None
        save_weights(folder / spec.role, Card(spec, trained=True, notice="", ranking=ranking), initial_weights(spec, 1))
    cards: dict[str, Card] = {role: read_card(folder / role, role) for role in ROLES}
    write_rules(folder, DecisionRules(hashes_of(cards), calibration=FIRST))
    return folder


@pytest.fixture(scope="module")
def study(weights, tmp_path_factory):
    """A run over slides of two sites, both classes called far too positive in the north; the last 60 are the test."""
    folder, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    slides = []
    for k in range(90):
        positive, site = k % 3 == 0, ("south" if k < 10 else "north")
        p = round(float(1 / (1 + np.exp(-rng.normal(2.0 * positive + 1.0)))), 6)
        status = "positive" if positive else "negative"
        slides.append(
            MadeUpSlide(f"s{k}", f"p{k}", status, site=site, split="val" if k < 30 else "test", probability=p)
        )
    cards = [read_card(weights / role, role).summary for role in ROLES]
    write_run(folder / "run", slides, weights=cards)
    write_labels(folder / "manifest.csv", slides)
    return folder


def line(study, weights, out, *more):
    return ("recalibrate", study / "run", "-m", study / "manifest.csv", "--weights", weights, "-o", out, *more)


def test_predict_uses_what_a_site_taught(study, weights, tmp_path, command_line):
    """Weights of its own for the site: `predict` corrects by both calibrations, the first weights stay as they were."""
    before = (weights / "decision_rules.json").read_bytes()
    slide, out = write_tissue(tmp_path / "case.tif"), tmp_path / "north"

    code, output, error = command_line(*line(study, weights, out, "--site", "north"))
    predicted, _, _ = command_line(
        "predict", slide, "--out", tmp_path / "run", "--weights", out, "--threads", "1",
        "--set", f"selection.n_tiles={N_TILES}", "--set", "adaptive.iterations=2", "--set", "adaptive.points=20",
    )  # fmt: skip

    assert (code, error, predicted) == (0, "", 0)
    assert "Calibrated on 20 patients of manifest.csv, site north (6 positive)" in output
    assert "used     20 of 80 patients: those of split val or of no split" in output
    assert "60 have slides of split train or test, 0 without label or prediction" in output
    assert "status   follows the uncorrected probability, positive from 0.5 on; corrected, this threshold is" in output
    rule = json.loads((out / "decision_rules.json").read_text())["calibration"]
    record = json.loads((tmp_path / "run" / "slides" / "case" / "prediction.json").read_text())
    expected = LogitCalibration(rule["slope"], rule["shift"], "")(record["probability"])
    assert record["calibrated_probability"] == pytest.approx(float(expected), abs=1e-6)
    threshold = LogitCalibration(rule["slope"], rule["shift"], "")(record["threshold"])
    assert record["calibrated_threshold"] == pytest.approx(float(threshold), abs=1e-6)
    assert (record["status"] == "positive") == (record["calibrated_probability"] >= record["calibrated_threshold"])
    assert rule["shift"] < FIRST.shift
    assert (weights / "decision_rules.json").read_bytes() == before


def test_weights_without_rules_are_recalibrated(study, weights, tmp_path):
    """Their site's calibration is the only one."""
    shutil.copytree(weights, tmp_path / "bare")
    (tmp_path / "bare" / "decision_rules.json").unlink()
    run, manifest = open_run(study / "run"), read_manifest(study / "manifest.csv")
    patients = patients_of_site(run, manifest, None, policy=Policy.GUIDELINE, rule="mean").cases

    found = recalibrate_weights(run, tmp_path / "bare", patients, "a site")

    assert found.rules.calibration == found.learned
    assert found.after.value < found.before.value


@pytest.fixture
def recalibrated(weights, tmp_path, command_line):
    """Exit code, output and errors of the command on validation patients: whether positive, and the probability."""

    def run(patients):
        slides = [
            MadeUpSlide(f"s{k}", f"p{k}", "positive" if positive else "negative", split="val", probability=p)
            for k, (positive, p) in enumerate(patients)
        ]
        cards = [read_card(weights / role, role).summary for role in ROLES]
        made, labels = write_run(tmp_path / "run", slides, weights=cards), write_labels(tmp_path / "m.csv", slides)
        return command_line("recalibrate", made, "-m", labels, "--weights", weights, "-o", tmp_path / "out")

    return run


WORSE = "makes the probabilities of patients left out worse"


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        ([(k % 2, 0.4) for k in range(4)], WORSE),  # the others are mostly of the other class, and teach the wrong
        *(
            ([(k < p, 0.7) for k in range(p + n)], f"{p} positive and {n} negative were found, and at least 2 of each")
            for p, n in ((1, 0), (0, 1), (1, 1), (1, 30), (30, 1), (0, 30))  # none is left of a class to learn from
        ),
    ],
)
def test_patients_who_cannot_teach_are_refused(recalibrated, tmp_path, patients, words):
    """In one line, and nothing is written."""
    code, _, error = recalibrated(patients)

    assert code == 2
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_of_each_class_teach(recalibrated):
    """The fewest: all called far too positive, and the correction helps each of them."""
    code, said, error = recalibrated([(True, 0.99), (True, 0.98), (False, 0.9), (False, 0.91)])

    assert (code, error) == (0, "")
    assert "Calibrated on 4 patients of m.csv (2 positive)" in said


@pytest.mark.parametrize("rare", [False, True])
def test_the_others_are_always_of_both_classes(monkeypatch, rare):
    """Two of a class never leave in one fold, wherever they stand."""
    truth = np.full(45, not rare)
    truth[[3, 23]] = rare
    seen = []

    def fit(true, p, *, chosen_on):
        seen.append(set(true.tolist()))
        return LogitCalibration(1.0, 0.0, chosen_on)

    monkeypatch.setattr("he2her2.evaluation.recalibration.recalibrate_site", fit)
    _left_out_in_turn(truth, np.full(45, 0.5))

    assert seen == [{False, True}] * 20


def test_patients_who_taught_had_a_say(study, weights, tmp_path, command_line):
    """They are on record with the site's weights, so that an evaluation refuses them; those of the test have none."""
    command_line(*line(study, weights, tmp_path / "north"))

    marks = patients_used(tmp_path / "north").hashes
    manifest = read_manifest(study / "manifest.csv")
    assert marks == set(patients_record(manifest)["validation_patients"])


def test_a_kept_calibration_corrects_patients_and_not_their_slides(tmp_path):
    """The mean of corrected slides is not what `patients.csv` has, and was judged in its place.

    Between slides a curve with a step is not known: the table has it.
    """
    p = np.random.default_rng(0).beta(0.5, 0.5, 40).round(6)
    slides = [
        MadeUpSlide(f"s{k}", f"p{k // 2}", ("positive", "negative")[k % 4 < 2], probability=p[k]) for k in range(40)
    ]
    run = open_run(write_run(tmp_path / "run", slides))
    corrected = {
        name: replace(row, calibrated_probability=round(float(FIRST(row.probability)), 6))
        for name, row in run.predictions.items()
    }
    joined = join(run, read_manifest(write_labels(tmp_path / "manifest.csv", slides)))

    found = _kept(replace(run, predictions=corrected), joined)

    assert found is not None
    assert found.probability == pytest.approx(FIRST(p.reshape(-1, 2).mean(axis=1)), abs=1e-5)
    assert _kept(run, joined) is None
    step = IsotonicCalibration((0.4, 0.405), (0.1, 0.9), "the first site")
    mean = p.reshape(-1, 2).mean(axis=1)
    table = [
        PatientResult(f"p{k}", None, m, None, float(step(m)), None, "mean", 2, 0, guaranteed=False)
        for k, m in enumerate(mean)
    ]
    write_patient_results(run.path / "patients.csv", table)
    stepped = {
        name: replace(row, calibrated_probability=float(step(row.probability))) for name, row in corrected.items()
    }

    found = _kept(replace(run, predictions=stepped), joined)

    assert found is not None
    assert found.probability == pytest.approx(step(mean), abs=1e-5)


def test_what_a_site_taught_is_measured_on_its_other_patients(study, weights, tmp_path, command_line):
    """Slides predicted with the site's weights: the page tells what their correction is worth beside the raw one."""
    command_line(*line(study, weights, tmp_path / "north", "--site", "north"))
    rule = json.loads((tmp_path / "north" / "decision_rules.json").read_text())["calibration"]
    correct = LogitCalibration(rule["slope"], rule["shift"], "")
    table = study / "run" / "predictions.csv"
    rows = [row.split(",") for row in table.read_text().splitlines()]
    at = rows[0].index("probability")
    again = write_run(tmp_path / "run", [MadeUpSlide("s", probability=0.5)], weights=[])
    text = [",".join([*rows[0], "calibrated_probability"])]
    text += [",".join([*row, f"{float(correct(float(row[at]))):.6f}"]) for row in rows[1:]]
    (again / "predictions.csv").write_text("\n".join(text) + "\n")

    code, _, error = command_line(
        "evaluate", again, "-m", study / "manifest.csv", "-o", tmp_path / "out", "--no-plots", "--calibration", "none"
    )

    assert (code, error) == (0, "")
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["kept_calibration"]["brier"]["value"] < found["reliability"]["brier"]["value"] - 0.05
    assert "corrected by the calibration kept with the weights |" in (tmp_path / "out" / "evaluation.md").read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--site", "west"), "has no slide of site west; its sites are north, south"),
        (("--weights", "untrained:1"), "trained ones are needed here"),
    ],
)
def test_what_cannot_teach_is_one_line(study, weights, tmp_path, command_line, more, told):
    """The site's name or the weights are wrong, and nothing is written."""
    code, _, error = command_line(*line(study, weights, tmp_path / "out", *more))

    assert code == 2
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_test_patients_never_teach(study, weights, tmp_path, command_line):
    """A manifest of test slides only has nobody to learn from."""
    slides = [MadeUpSlide(f"s{k}", f"p{k}", "positive", probability=0.5) for k in range(5)]
    write_labels(tmp_path / "manifest.csv", slides)

    code, _, error = command_line(
        "recalibrate", study / "run", "-m", tmp_path / "manifest.csv", "--weights", weights, "-o", tmp_path / "out"
    )

    assert code == 2
    assert "all patients of its 5 slides have slides of split train or test, which are no calibration patients" in error


def test_a_patient_with_a_test_slide_never_teaches(study):
    """Of split val is another slide of his, or one of another site."""
    manifest = read_manifest(study / "manifest.csv")
    rows = [replace(row, patient_id="p29") if row.slide_id in ("s40", "s5") else row for row in manifest.rows]

    site = patients_of_site(
        open_run(study / "run"), replace(manifest, rows=tuple(rows)), "north", policy=Policy.GUIDELINE, rule="mean"
    )

    assert (site.n, site.n_train_or_test, len(site.cases)) == (79, 60, 19)
    assert "p29" not in site.cases.ids.tolist()


def test_patients_of_the_training_never_teach(study, weights, tmp_path, command_line):
    """Probabilities of those whom the network knows are too good."""
    trained = tmp_path / "trained"
    command_line(*line(study, weights, trained))
    record = json.loads((trained / "patients.json").read_text())
    (trained / "patients.json").write_text(json.dumps({"training_patients": record["validation_patients"]}))

    code, _, error = command_line(*line(study, trained, tmp_path / "out"))

    assert code == 2
    assert "were trained with 30 of these patients" in error


@pytest.mark.parametrize(
    "first",
    [None, FIRST, IsotonicCalibration((0.1, 0.4, 0.9), (0.0, 0.5, 1.0), "x")],
    ids=["none", "temperature", "isotonic"],
)
def test_two_corrections_are_one(first):
    """What is kept does what both do, one after the other; a curve does so at its knots."""
    then, p = LogitCalibration(0.7, -1.0, "y"), np.array([0.1, 0.4, 0.9])
    expected = then(p if first is None else first(p))

    assert _combined(first, then)(p) == pytest.approx(expected, abs=1e-9)


def test_nobody_corrects_himself():
    """Where all others are positive, the one negative is corrected upwards."""
    truth, p = np.array([True] * 9 + [False]), np.full(10, 0.5)

    found = _left_out_in_turn(truth, p)

    assert found[-1] == found.max() > 0.5
