"""Operating point, triage, calibration: chosen on validation patients, looked at on others, kept, used by predict."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from he2her2.cli.commands import app
from he2her2.errors import EvaluationError
from he2her2.evaluation import Budgets, Question, evaluate, evaluation_lines
from he2her2.evaluation.cases import by_patient
from he2her2.evaluation.leakage import check_disjoint, check_same_model
from he2her2.evaluation.limitations import THRESHOLD_OF_UNKNOWN_LEVEL
from he2her2.evaluation.question import read_labelled_run
from he2her2.evaluation.report import evaluation_page
from he2her2.evaluation.summary import reliability
from he2her2.evaluation.thresholds import apply_rules, choose_rules
from he2her2.manifest import hashed_patient
from he2her2.models import Card, RankingSettings, read_card, read_rules
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from he2her2.results import open_run
from he2her2.results.notes import OperatingPointNote
from he2her2.rules import Arm, combine
from tests.made_up_runs import QUICK, MadeUpSlide, made_up_cases, write_labels, write_run
from tests.tissue_slides import write_tissue

BUDGETS = Budgets(miss=0.1, false=0.1)
N_TILES = 5
PREDICT = (
    "--threads", "1", "--set", f"selection.n_tiles={N_TILES}", "--set", "adaptive.iterations=2",
    "--set", "adaptive.points=20",
)  # fmt: skip

OTHER = {"name": "other", "trained": True, "seed": None, "sha256": {}}


def test_what_was_chosen_is_counted_on_the_test_patients():
    """Missed, saved, and who went to which arm agree with counting by hand."""
    tested = made_up_cases(150, seed=1)

    applied = apply_rules(choose_rules(made_up_cases(200), "200 made-up patients", BUDGETS), tested, 0.15)

    point, triage = applied.choice.point, applied.choice.triage
    assert point is not None
    assert triage is not None
    assert applied.here is not None
    assert applied.triage is not None
    p = tested.probability.round(6)
    assert applied.here.missed.value == (p < point.threshold)[tested.truth].mean()
    assert applied.here.saved.value == (p < point.threshold).mean()
    referred = next(arm for arm in applied.triage.arms if arm.arm is Arm.REFER)
    between = (p >= triage.rule_out_below) & (p < triage.rule_in_from)
    assert (referred.n_positive, referred.n_negative) == (
        (between & tested.truth).sum(),
        (between & ~tested.truth).sum(),
    )
    assert applied.triage.missed.value == (p < triage.rule_out_below)[tested.truth].mean()
    assert applied.triage.alarmed.value == (p >= triage.rule_in_from)[~tested.truth].mean()


@pytest.mark.parametrize("threshold", [0.05, 0.95])
@pytest.mark.parametrize("n", [50, 200])
def test_nobody_is_called_against_the_arm(n, threshold):
    """The triage lies around the chosen threshold, or around the run's where too few patients choose one."""
    choice = choose_rules(made_up_cases(n, threshold=threshold), "made-up patients", BUDGETS)

    assert choice.triage is not None
    assert (choice.point is None) == (n == 50)
    assert choice.triage.holds(threshold if choice.point is None else choice.point.threshold)


def test_too_few_patients_are_refused_for_what_they_are_too_few_for():
    """Twenty positives cannot promise 10 % with 95 % confidence, but can on average."""
    choice = choose_rules(made_up_cases(50), "50 made-up patients", BUDGETS)

    assert choice.point is None
    assert choice.triage is not None
    assert choice.calibration is not None
    assert len(choice.refusals) == 1
    assert "29 are needed" in choice.refusals[0]


@pytest.mark.parametrize("rule", ["mean", "max"])
def test_rules_record_how_slides_are_joined(rule):
    """A threshold on the mean over slides is none on a slide: what it was chosen for is kept and said."""
    choice = choose_rules(made_up_cases(200), "200 made-up patients", BUDGETS, rule, (1, 4))

    for chosen in (choice.point, choice.triage):
        assert chosen is not None
        assert (chosen.patient_rule, chosen.slides_per_patient) == (rule, (1, 4))
        assert chosen.chosen_on == f"200 made-up patients, by the {rule} over their slides (1 to 4 slides each)"
        assert chosen.guaranteed_for.endswith(f"1 to 4 slides each, by the {rule} over their slides")


@pytest.mark.parametrize(("rule", "n_slides"), [("mean", 1), ("mean", 4), ("max", 2)])
def test_the_guarantee_holds_for_patients_of_several_slides(rule, n_slides):
    """Chosen and applied at the level of patients; slide by slide the same thresholds miss more than the budget."""
    kept, by_slide, repeats = 0, 0, 60
    for seed in range(repeats):
        rng = np.random.default_rng((n_slides, seed))
        known, fresh = (several_slides(n, n_slides, rng) for n in (200, 2000))
        point = choose_rules(
            by_patient(known, rule)[0], "x", replace(BUDGETS, calibration="none"), rule, (n_slides, n_slides)
        ).point
        assert point is not None
        missed = [
            not point.is_positive(combine(rule, fresh.probability[fresh.patients == name]))
            for name in np.unique(fresh.patients[fresh.truth])[:300]
        ]
        kept += bool(np.mean(missed) <= BUDGETS.miss)
        by_slide += bool(np.mean(fresh.probability[fresh.truth].round(6) < point.threshold) <= BUDGETS.miss)

    assert kept >= stats.binom.ppf(0.01, repeats, 0.9)  # some luck of 300 fresh positives is in it
    assert n_slides == 1 or by_slide < kept


def several_slides(n, n_slides, rng):
    """Slides of n patients, alike within a patient."""
    owner = np.repeat(np.arange(n), n_slides)
    truth = owner % 2 == 0
    logits = 2.0 * truth - 1 + rng.normal(size=n)[owner] + 0.8 * rng.normal(size=len(owner))
    ids, patients = (np.array([f"{k:05d}" for k in which]) for which in (np.arange(len(owner)), owner))
    cases = made_up_cases(len(owner))
    return replace(
        cases, ids=ids, patients=patients, truth=truth, probability=np.round(1 / (1 + np.exp(-logits)), 6),
        level="slide",
    )  # fmt: skip


def two_slides_each(folder, patient_rule="none", **described):
    """A run over twelve patients of two slides, decided by an operating point that was chosen by a rule."""
    slides = [
        MadeUpSlide(f"s{k}", f"p{k // 2}", "positive" if k < 12 else "negative", probability=0.9 - 0.03 * k)
        for k in range(24)
    ]
    point = None if patient_rule == "none" else OperatingPointNote(0.1, 0.95, 40, "100 patients", patient_rule)
    write_run(folder / "run", slides, operating_point=point, **described)
    write_labels(folder / "m.csv", slides)
    return folder / "run", Question(folder / "run", folder / "m.csv", audit_slides=0)


def test_a_run_decided_by_another_rule_is_refused(tmp_path):
    """What was chosen on the max over slides promises nothing of the mean."""
    run, question = two_slides_each(tmp_path, "max")

    with pytest.raises(EvaluationError, match=r"chosen on the max .* joined by the mean here; pass --patient max"):
        evaluate(question)
    limits = evaluate(replace(question, rule="max")).limitations

    assert any("chosen for the max over a patient's slides" in text for text in limits)
    with pytest.raises(EvaluationError, match="pass --patient max"):
        evaluate(replace(two_slides_each(tmp_path / "plain")[1], compare=run))


def test_a_point_that_records_no_rule_is_a_limitation(tmp_path):
    """Of patients of several slides; a run without an operating point has no promise to speak of."""
    old = evaluate(two_slides_each(tmp_path / "old", None)[1]).limitations
    without = evaluate(two_slides_each(tmp_path / "without")[1]).limitations

    assert THRESHOLD_OF_UNKNOWN_LEVEL in old
    assert not any("operating point" in text for text in without)


def test_one_slide_each_joins_the_same_by_all_rules(tmp_path):
    """Nothing is refused where nothing can differ."""
    slides = [MadeUpSlide(f"s{k}", f"p{k}", "positive" if k < 5 else "negative", probability=0.5) for k in range(9)]
    write_run(tmp_path / "run", slides, operating_point=OperatingPointNote(0.1, 0.95, 40, "100 patients", "max"))

    limits = evaluate(Question(tmp_path / "run", write_labels(tmp_path / "m.csv", slides), audit_slides=0)).limitations

    assert not any("operating point" in text for text in limits)


def test_a_broken_promise_is_noticed():
    """Where the positives of the test look like the validation's negatives the interval lies above the budget."""
    other = made_up_cases(150, gap=-4.0, seed=1)

    applied = apply_rules(choose_rules(made_up_cases(300, gap=4.0), "made-up patients", BUDGETS), other, 0.15)

    assert applied.here is not None
    assert applied.here.promise_broken


def test_correction_helps_where_probabilities_are_too_bold():
    """Logits four times too large: the Brier score falls on patients that had no part in the correction."""
    validation, tested = (bold(made_up_cases(400, gap=1.0, seed=seed)) for seed in (0, 1))

    applied = apply_rules(choose_rules(validation, "made-up patients", BUDGETS), tested, 0.15)

    assert applied.calibrated is not None
    assert applied.calibrated.brier.value < reliability(tested).brier.value - 0.02


def bold(cases):
    odds = (cases.probability / (1 - cases.probability)) ** 4
    return replace(cases, probability=odds / (1 + odds))


def test_a_patient_of_the_test_has_no_vote():
    """Validation and test share nobody; names are compared by their key."""
    tested = made_up_cases(10)
    validation = replace(made_up_cases(10), patients=np.array([f"v{k}" for k in range(9)] + [" S00003 "]))

    with pytest.raises(EvaluationError, match=r"1 patients are both evaluated and used to choose .*\(s00003\)"):
        check_disjoint(tested, validation)


def test_another_models_probabilities_have_no_vote(tmp_path):
    """Weights and settings must be the run's, those that came later as they were then; its threads need not."""
    slides = [MadeUpSlide("s", status="positive", probability=0.5)]
    run = open_run(write_run(tmp_path / "run", slides))
    threads = open_run(
        write_run(tmp_path / "threads", slides, config=replace(QUICK, runtime=replace(QUICK.runtime, threads=3)))
    )
    weights = open_run(
        write_run(
            tmp_path / "weights", slides, weights=[{"name": "other", "trained": True, "seed": None, "sha256": {}}]
        )
    )

    check_same_model(run, threads)

    with pytest.raises(EvaluationError, match="predicted with other weights than"):
        check_same_model(run, weights)
    described = json.loads((run.path / "run.json").read_text())
    del described["config"]["adaptive"]["least_tissue"]
    (run.path / "run.json").write_text(json.dumps(described))
    before = open_run(run.path)
    assert before.config.adaptive.least_tissue == 0
    with pytest.raises(EvaluationError, match="predicted with other settings than"):
        check_same_model(before, threads)
    as_then = replace(QUICK, adaptive=replace(QUICK.adaptive, least_tissue=0.0))
    check_same_model(before, open_run(write_run(tmp_path / "then", slides, config=as_then)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of all three networks, by the names of the settings."""
    folder = tmp_path_factory.mktemp("trained") / "weights"
    for spec in (LITE0_TUMOUR_CNN, STRIDED_TILE_CNN, replace(PAPER_MLP, n_tiles=N_TILES)):
        ranking = RankingSettings(0.15, QUICK.scoring.beta) if spec.role == "aggregator" else None
        save_weights(
            folder / spec.role, Card(spec, trained=True, notice="a toy", ranking=ranking), initial_weights(spec, 1)
        )
    return folder


@pytest.fixture(scope="module")
def study(trained, tmp_path_factory):
    """A run with these weights over 120 validation and 60 test slides, and its manifest."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    slides = []
    for k in range(180):
        positive = k % 2 == 0
        p = round(float(1 / (1 + np.exp(-rng.normal(2.5 * positive - 1.5)))), 6)
        split, status = ("val" if k < 120 else "test"), ("positive" if positive else "negative")
        slides.append(MadeUpSlide(f"s{k}", f"p{k}", status, "3+" if positive else "1+", split=split, probability=p))
    cards = [read_card(trained / role, role).summary for role in ("tumour_cnn", "tile_cnn", "aggregator")]
    write_run(folder / "run", slides, weights=cards)
    write_labels(folder / "manifest.csv", slides)
    return folder


@pytest.fixture(scope="module")
def kept(study, trained):
    """The weights with what `evaluate --store` chose for them, and what it printed."""
    line = ["evaluate", study / "run", "-m", study / "manifest.csv", "-o", study / "out", "--store", trained]
    result = CliRunner().invoke(app, [*map(str, line), "--miss", "0.1", "--false", "0.1"])
    assert result.exit_code == 0, result.output
    return trained, result.output


def test_the_choice_is_printed_written_and_drawn(study, kept):
    """On the run's own slides of split val, without being asked."""
    _, output = kept
    page = (study / "out" / "evaluation.md").read_text()
    found = json.loads((study / "out" / "evaluation.json").read_text())

    assert "Operating point: called positive from a probability of" in output
    for text in (output, page):
        assert text.count("This holds for patients like the validation patients: one slide each, by the mean over") == 2
    assert "Chosen on 120 patients of manifest.csv, run run (60 positive), tested on the 60 evaluated patients" in page
    assert "| refer to IHC |" in page
    assert "![Calibration: share of positives over the probability.](plots/calibration.png)" in page
    assert found["choice"]["choice"]["point"]["n_positive"] == 60
    assert "patients, chosen threshold" in found["groups"]


def test_a_manifest_of_validation_slides_may_name_them_with_their_ending(study, tmp_path):
    """As the manifest of the evaluated slides may."""
    labels = tmp_path / "val.csv"
    labels.write_text(re.sub(r"^(s\d+),", r"\1.svs,", (study / "manifest.csv").read_text(), flags=re.MULTILINE))

    found = read_labelled_run(Question(study / "run", study / "manifest.csv", validation_manifest=labels)).validation

    assert not isinstance(found, str)
    assert len(found.joined.patients) == 120


def test_patients_of_the_training_choose_no_rules(study, tmp_path):
    """Their probabilities are too good, and a guarantee by them would not hold."""
    shutil.copytree(study / "run", tmp_path / "run")
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(
        json.dumps(described | {"training_patients": [hashed_patient("p0")], "validation_patients": []})
    )

    found = evaluate(Question(tmp_path / "run", study / "manifest.csv", audit_slides=0))

    assert found.applied is not None
    assert (found.applied.here, found.applied.triage, found.applied.calibrated) == (None, None, None)
    said = "1 of the 120 validation patients trained the weights (p0), and their probabilities are too good to"
    assert f"  refused  {said}" in evaluation_lines(found, tmp_path)
    assert f"Not chosen: {said}" in evaluation_page(found)


def test_kept_rules_name_their_weights_and_patients(study, kept):
    """Rules are read back for these weights, and the validation patients are marked as having had a vote."""
    folder, _ = kept
    cards = {role: read_card(folder / role, role) for role in ("tumour_cnn", "tile_cnn", "aggregator")}

    rules = read_rules(folder, cards)

    assert rules is not None
    assert rules.operating_point is not None
    assert rules.triage is not None
    assert rules.operating_point.patient_rule == rules.triage.patient_rule == "mean"
    marks = json.loads((folder / "patients.json").read_text())["validation_patients"]
    assert hashed_patient("p0") in marks
    assert hashed_patient("p179") not in marks


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A small slide with tissue on it."""
    return write_tissue(tmp_path_factory.mktemp("slide") / "case.tif")


def test_predict_uses_what_was_kept(kept, slide, tmp_path, command_line):
    """Threshold, arm of the triage and corrected probability are printed and written."""
    folder, _ = kept
    rules = json.loads((folder / "decision_rules.json").read_text())

    code, output, error = command_line("predict", slide, "--out", tmp_path, "--weights", folder, *PREDICT)

    record = json.loads((tmp_path / "slides" / "case" / "prediction.json").read_text())
    row = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert (code, error) == (0, "")
    assert record["threshold"] == rules["operating_point"]["threshold"]
    assert record["status"] == ("positive" if record["probability"] >= record["threshold"] else "negative")
    low, high = rules["triage"]["rule_out_below"], rules["triage"]["rule_in_from"]
    p = record["probability"]
    assert record["triage"]["arm"] == ("rule out" if p < low else "rule in" if p >= high else "refer to IHC")
    assert f"triage   {record['triage']['arm']} (rule out below" in output
    assert "threshold chosen to miss at most 10 % of positives (95 % sure, for patients like 120 patients" in output
    assert output.count("by the mean over their slides (one slide each)") == 2
    assert f",{record['calibrated_probability']},{record['triage']['arm']}," in row


@pytest.mark.parametrize("limits", [(0.9, 0.95), (0.0, 0.01)])
def test_a_kept_triage_that_contradicts_the_threshold_is_refused(kept, slide, tmp_path, command_line, limits):
    """As where the file was edited; one that was written before limits were moved and holds the threshold is read."""
    folder = tmp_path / "weights"
    shutil.copytree(kept[0], folder)
    rules = json.loads((folder / "decision_rules.json").read_text())
    del rules["triage"]["clipped"]
    rules["operating_point"]["threshold"] = 0.5
    rules["triage"] |= {"rule_out_below": 0.5, "rule_in_from": 0.5}
    (folder / "decision_rules.json").write_text(json.dumps(rules))
    line = ("predict", slide, "--weights", folder, *PREDICT)
    code, _, _ = command_line(*line, "--out", tmp_path / "holds")
    rules["triage"] |= dict(zip(("rule_out_below", "rule_in_from"), limits, strict=True))
    (folder / "decision_rules.json").write_text(json.dumps(rules))

    refused, _, error = command_line(*line, "--out", tmp_path / "contradicts")

    assert (code, refused, error.count("\n")) == (0, 2, 1)
    assert "decision_rules.json: patients are called positive from 0.5 on, outside its triage" in error


def test_ones_own_threshold_needs_a_word(kept, slide, tmp_path, command_line):
    """Two thresholds cannot both decide; with the kept rules switched off one's own does."""
    folder, _ = kept
    line = ("predict", slide, "--out", tmp_path, "--weights", folder, *PREDICT, "--set", "threshold=0.4")

    refused, _, error = command_line(*line)
    code, output, _ = command_line(*line, "--set", "stored_rules=false")

    assert (refused, code) == (2, 0)
    assert "add --set stored_rules=false to use yours" in error
    assert "(threshold 0.4)" in output
    assert "triage" not in output


def test_rules_are_part_of_what_a_run_is(kept, slide, tmp_path, command_line):
    """A run with rules and one without do not share a folder."""
    folder, _ = kept
    line = ("predict", slide, "--out", tmp_path, "--weights", folder, *PREDICT)

    command_line(*line)
    (folder / "decision_rules.json").rename(folder / "away.json")
    code, _, error = command_line(*line)
    (folder / "away.json").rename(folder / "decision_rules.json")

    assert code == 2
    assert "holds results of other settings or weights" in error


def test_other_weights_do_not_get_the_rules(study, trained, tmp_path, command_line):
    """The probabilities of one model say nothing of another's."""
    for spec in (LITE0_TUMOUR_CNN, STRIDED_TILE_CNN):
        save_weights(tmp_path / "other" / spec.role, Card(spec, trained=True, notice=""), initial_weights(spec, 2))
    line = (
        "evaluate",
        study / "run",
        "-m",
        study / "manifest.csv",
        "-o",
        tmp_path / "out",
        "--no-plots",
        "--miss",
        "0.1",
    )

    code, _, error = command_line(*line, "--store", tmp_path / "other")

    assert code == 2
    assert "are not the weights that" in error
    assert not (tmp_path / "other" / "decision_rules.json").exists()


@pytest.mark.parametrize(
    ("split", "left_out", "why"),
    [
        ("all", "", "with --split all no rules are chosen, since slides of split val choose them for split test; pass"),
        ("val", "", "with --split val no rules are chosen"),
        ("auto", ",val\n", "no slides of split val were predicted in this run; predict them, too, or give"),
        ("auto", ",test\n", "the manifest has no split test, on which rules could be tested; give --validation RUN"),
    ],
)
def test_without_validation_slides_nothing_is_kept(study, trained, tmp_path, command_line, split, left_out, why):
    """The evaluated slides themselves have no vote; page and error say why there are no others, and what to do."""
    lines = (study / "manifest.csv").read_text().splitlines(keepends=True)
    (tmp_path / "m.csv").write_text("".join(line for line in lines if not left_out or not line.endswith(left_out)))
    line = ("evaluate", study / "run", "-m", tmp_path / "m.csv", "-o", tmp_path / "out", "--no-plots", "--no-leaks")

    code, _, error = command_line(*line, "--split", split, "--store", trained)
    told, _, _ = command_line(*line, "--split", split)

    assert (code, told) == (2, 0)
    assert f"there is nothing to store: {why}" in error
    assert f"Nothing was chosen: {why}" in (tmp_path / "out" / "evaluation.md").read_text()


def test_validation_patients_may_not_be_tested_afterwards(study, kept, tmp_path, command_line):
    """They chose the threshold: another manifest that calls them test is refused."""
    folder, _ = kept
    slides = [MadeUpSlide(f"s{k}", f"p{k}", "positive" if k % 2 else "negative", probability=0.5) for k in range(6)]
    run = write_run(tmp_path / "run", slides, weights_folder=str(folder.absolute()))

    code, _, error = command_line(
        "evaluate", run, "-m", write_labels(tmp_path / "m.csv", slides), "-o", tmp_path / "out"
    )

    assert code == 2
    assert "trained or chosen with 6 of the patients to evaluate" in error
