"""Rules that were chosen on patients are applied to patients: by all slides of each, as a manifest names them."""

import csv
import shutil
from dataclasses import replace

import pytest

from he2her2 import pages
from he2her2.cli.progress import WorkProgress
from he2her2.cli.run_printer import RunPrinter
from he2her2.cohort import SlideOutcome, SlideTask
from he2her2.config import Config
from he2her2.domain import Likeness
from he2her2.files import write_json
from he2her2.labels import Her2Status
from he2her2.models import hashes_of, load_slide_model, trained_folder, write_rules
from he2her2.results import PatientResult, open_run, plan_run, read_planned, result_to_record
from he2her2.results.patients import read_patient_results
from he2her2.rules import Arms, ShareEstimate, Triage, combine
from tests.made_up_results import made_up_her2, made_up_result
from tests.test_operating import some_rules
from tests.tissue_slides import tissue_pixels, write_tissue

SETTINGS = ("adaptive.iterations=2", "adaptive.points=20", "adaptive.threshold=0.001")  # noise is no tumour
QUICK = ("--workers", "0", "--threads", "2", *(word for setting in SETTINGS for word in ("--set", setting)))


def rules_for(patient_rule, slides=(1, 2), threshold=0.5):
    """Stored rules that join slides so, or do not say how."""
    rules = some_rules()
    point = replace(rules.operating_point, threshold=threshold, patient_rule=patient_rule, slides_per_patient=slides)
    share = ShareEstimate(0.3, 0.2, 0.4)
    arms = Arms(share, share, share)
    triage = Triage(0.2, 0.9, 0.1, 0.1, 0.95, 50, 50, arms, 0.15, "simulated", patient_rule, slides)
    return replace(rules, operating_point=point, triage=triage, calibration=None)


@pytest.mark.parametrize(("rule", "status"), [("mean", Her2Status.NEGATIVE), ("max", Her2Status.POSITIVE)])
def test_a_patient_is_called_by_all_slides(rule, status):
    """The same slides, joined by the rule that was chosen."""
    result = PatientResult.of("P1", rules_for(rule), [0.1, 0.6], failed=0)

    assert (result.status, result.probability) == (status, combine(rule, [0.1, 0.6]))
    assert (result.slides, result.failed, result.guaranteed) == (2, 0, True)


@pytest.mark.parametrize(
    ("probabilities", "failed", "unlike"), [([0.1, 0.6, 0.7], 0, 0), ([0.1], 1, 0), ([], 2, 0), ([0.1, 0.6], 0, 1)]
)
def test_a_guarantee_is_for_patients_like_those_of_the_choice(probabilities, failed, unlike):
    """More slides than any of theirs, a slide that failed, or one unlike the training slides: no guarantee."""
    assert not PatientResult.of("P1", rules_for("mean"), probabilities, failed, unlike).guaranteed


def test_slides_unlike_the_training_slides_are_counted(tmp_path):
    """Nothing is known of how the networks do on these: their patient's promise was said to hold."""
    planned = plan_run(tmp_path / "run", command=[], config=Config(), weights=[], overrides={})
    tables = planned.for_patients(rules_for("mean"), {"a": "P1", "b": "P1", "c": "P2"}).tables
    for name, distance in (("a", 9.0), ("b", 1.0), ("c", 1.0)):
        likeness = Likeness(distance, 6.0, "blue")
        tables.add(made_up_result(slide_id=name, her2=made_up_her2(0.4), likeness=likeness))
    tables.write()

    found = read_patient_results(tmp_path / "run" / "patients.csv")

    assert [(one.patient_id, one.unlike, one.guaranteed) for one in found] == [("P1", 1, False), ("P2", 0, True)]
    with (tmp_path / "run" / "patients.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[1]
    del row["unlike"]  # as it was before they were counted
    template = pages._ENVIRONMENT.from_string("{% import 'page_parts.html' as parts %}{{ parts.guarantee(found) }}")
    said = [template.render(found=one) for one in (found[1], PatientResult.of_row(row))]
    assert ["none is unlike" in text for text in said] == [True, False]


def test_a_patient_without_result_has_no_status():
    """Nor a probability or an arm."""
    result = PatientResult.of("P1", rules_for("mean"), [], failed=2)

    assert (result.status, result.triage) == (None, None)
    assert result.probability != result.probability


def test_a_command_without_a_manifest_forgets_no_patient(tmp_path):
    """A slide that is given again by its path alone is still the patient's; a corrected manifest is believed."""
    run = plan_run(tmp_path / "run", command=[], config=Config(), weights=[], overrides={})
    for patient_of, expected in (({"a": "P1"}, "P1"), ({}, "P1"), ({"a": "P2"}, "P2")):
        replace(run.tables, patient_of=patient_of).plan({"a": "a.svs"})
        assert read_planned(run.folder)["a"].patient_id == expected


def test_a_patient_is_called_by_the_slides_of_all_commands(tmp_path):
    """Their manifests may name other patients, further slides of one, or none: nobody is lost, or called by a part."""

    def command(slide_id, probability, patient_of):
        planned = plan_run(tmp_path / "run", command=[], config=Config(), weights=[], overrides={})
        run = planned.for_patients(rules_for("mean"), patient_of)
        run.tables.plan(dict.fromkeys(patient_of or [slide_id], "a.svs"))
        result = made_up_result(slide_id=slide_id, run_digest=run.digest, her2=made_up_her2(probability))
        write_json(run.slides.of(slide_id) / "prediction.json", result_to_record(result))
        run.tables.add(result)
        run.tables.write()
        return [(one.patient_id, one.probability, one.slides) for one in run.tables.patients]

    assert command("a", 0.1, {"a": "P1"}) == [("P1", 0.1, 1)]
    assert command("b", 0.8, {"b": "P2"}) == [("P1", 0.1, 1), ("P2", 0.8, 1)]
    assert command("c", 0.5, {"c": "p1"}) == [("P1", 0.3, 2), ("P2", 0.8, 1)]
    assert command("b", 0.9, {}) == [("P1", 0.3, 2), ("P2", 0.9, 1)]
    assert command("d", 0.6, {"d": "P2", "e": "P2"}) == [("P1", 0.3, 2)]  # e has not ended


@pytest.mark.parametrize(
    ("rules", "called", "words"),
    [
        (None, (0.1, 0.9), "  patients 1 has slides that are called differently, and no stored rule joins them: P1"),
        (None, (0.1, 0.2), None),
        (some_rules(), (0.1, 0.9), None),  # they decide, and their own line says how
    ],
)
def test_slides_of_a_patient_that_differ_are_told(tmp_path, capsys, rules, called, words):
    """At the end of the run, where nothing joins them."""
    planned = plan_run(tmp_path / "run", command=[], config=Config(), weights=[], overrides={})
    run = planned.for_patients(rules, {"a": "P1", "b": "P1"})
    printer = RunPrinter(run, 3, WorkProgress())
    for name, probability in zip("abc", (*called, 0.9), strict=True):
        found = made_up_result(slide_id=name, her2=made_up_her2(probability))
        printer.on_slide(SlideOutcome(SlideTask(name, tmp_path / name), found, kept=True))

    printer.summary()

    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  patients")]
    assert told == ([words] if words else [])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The bundled networks in a folder of one's own."""
    folder = tmp_path_factory.mktemp("weights") / "weights"
    shutil.copytree(trained_folder("bundled"), folder)
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three slides of two patients, and one that is none, with a manifest."""
    folder = tmp_path_factory.mktemp("cohort")
    for seed, name in enumerate("abc"):
        write_tissue(folder / f"{name}.svs", tissue_pixels(3072, 0.95, seed))
    (folder / "d.svs").write_text("no slide")
    lines = ["slide_id,path,patient_id", "a,a.svs,P1", "b,b.svs,P1", "c,c.svs,P2", "d,d.svs,P2"]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder


def store(weights, rules):
    """Put rules beside the networks."""
    cards = load_slide_model(str(weights), Config(stored_rules=False)).cards
    write_rules(weights, replace(rules, weights=hashes_of(cards)))


def test_predict_applies_the_rules_to_the_patients_of_a_manifest(command_line, weights, cohort, tmp_path):
    """`patients.csv` has a row a patient; the slides' own rows say where to look."""
    store(weights, rules_for("mean"))

    code, told, err = command_line("predict", cohort / "m.csv", "--out", tmp_path, "--weights", weights, *QUICK)

    assert code == 1, err  # d failed
    assert "  patients 2 by the mean of their slides: " in told
    with (tmp_path / "predictions.csv").open(newline="") as file:
        slides = {row["slide_id"]: row for row in csv.DictReader(file)}
    with (tmp_path / "patients.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    mean = (float(slides["a"]["probability"]) + float(slides["b"]["probability"])) / 2
    assert float(first["probability"]) == pytest.approx(mean, abs=1e-6)
    assert first["status"] == ("positive" if mean >= 0.5 else "negative")
    assert (first["slides"], first["failed"], first["unlike"]) == ("2", "0", "2")  # to the bundled weights
    assert (second["slides"], second["failed"], second["guaranteed"]) == ("1", "1", "no")
    assert "patients.csv" in slides["a"]["warnings"]
    assert list(open_run(tmp_path).slides_of_patients["P2"].slides) == ["c", "d"]


@pytest.mark.parametrize(
    ("rule", "what", "words"),
    [("mean", ["."], "the patient of a is unknown"), (None, ["m.csv"], "does not record how")],
)
def test_rules_for_patients_need_patients(command_line, weights, cohort, tmp_path, rule, what, words):
    """Slides of nobody, or rules that do not say how slides are joined: refused, with the way out."""
    store(weights, rules_for(rule, None if rule is None else (1, 2)))
    given = [cohort / name for name in what]

    code, _, err = command_line("predict", *given, "--out", tmp_path / "run", "--weights", weights, *QUICK)

    assert (code, err.count("\n")) == (2, 1)
    assert words in err
    assert "stored_rules=false" in err
    assert not (tmp_path / "run").exists()


def test_a_single_slide_is_its_patients_only_one(command_line, weights, cohort, tmp_path):
    """It is decided, and told for whom that holds."""
    store(weights, rules_for("max"))

    code, out, _ = command_line("predict", cohort / "a.svs", "--out", tmp_path, "--weights", weights, *QUICK)

    assert code == 0
    assert "by the max of their slides" in out
    assert not (tmp_path / "patients.csv").exists()
