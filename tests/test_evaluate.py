"""`he2her2 evaluate`: cases and their joins, warnings, guards, and a made-up run from folder to page."""

import csv
import functools
import json
import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from he2her2.cli.commands import app
from he2her2.errors import EvaluationError, OutputError
from he2her2.evaluation import (
    Budgets,
    ComparisonQuestion,
    Question,
    ScoreReading,
    check_evaluation_folder,
    evaluate,
    evaluation_lines,
    join,
    summarise,
)
from he2her2.evaluation.cases import ExclusionReason, by_patient
from he2her2.evaluation.comparison import compare_runs
from he2her2.evaluation.limitations import NOT_A_TEST, PHANTOM_NOTICE, limitations, run_limitations
from he2her2.evaluation.report import evaluation_page
from he2her2.evaluation.summary import equivocal
from he2her2.labels import Policy
from he2her2.manifest import hashed_patient, read_manifest
from he2her2.results import open_run
from he2her2.rules import combine
from tests.made_up_runs import MadeUpSlide, made_up_cases, write_labels, write_run

EIGHT = (0.9, 0.8, 0.7, 0.6, 0.55, 0.2, 0.3, 0.95)


def eight_slides():
    """The paper's headline: five positive slides, all found, and one of three negative ones called positive."""
    return [
        MadeUpSlide(f"s{k}", f"p{k}", "positive" if k < 5 else "negative", "3+" if k < 5 else "1+", probability=p)
        for k, p in enumerate(EIGHT)
    ]


def joined_of(folder, slides, **options):
    run = open_run(write_run(folder / "run", slides))
    return join(run, read_manifest(write_labels(folder / "manifest.csv", slides)), **options)


def test_every_slide_is_accounted_for(tmp_path):
    """Each way to be left out is counted once, and the flow adds up to the manifest's rows."""
    good = MadeUpSlide("good", status="positive", probability=0.9)
    slides = [
        good,
        replace(good, slide_id="ihc", stain="IHC"),
        replace(good, slide_id="train", split="train"),
        replace(good, slide_id="unlabelled", status=""),
        replace(good, slide_id="open", status="", ihc_score="2+"),
        replace(good, slide_id="blank", probability=None, failure="no tissue found"),
        replace(good, slide_id="absent", probability=None),
    ]

    joined = joined_of(tmp_path, slides, split="test")

    assert joined.slides.ids.tolist() == ["good"]
    assert [n for _, n in joined.flow] == [7, -1, -1, -1, -1, -1, -1, 1]
    assert {e.slide_id: str(e.reason) for e in joined.exclusions}["open"].startswith("label undetermined")
    assert [e.detail for e in joined.unpredicted] == ["tissue: no tissue found", ""]
    assert joined.lost_patients == ("blank", "absent")


def test_a_slide_outside_the_manifest_is_named(tmp_path):
    """Predictions without a label are counted, not lost."""
    slides = eight_slides()
    run = open_run(write_run(tmp_path / "run", slides))

    joined = join(run, read_manifest(write_labels(tmp_path / "m.csv", slides[1:])))

    assert [(e.slide_id, e.reason) for e in joined.exclusions] == [("s0", ExclusionReason.NOT_IN_MANIFEST)]


@pytest.mark.parametrize(
    "rename",
    [str.upper, lambda name: name.replace("s", "s00"), lambda name: name.replace("s", "S-")],
    ids=["letter case", "zeros", "dash"],
)
def test_slides_that_are_named_almost_alike_are_listed(tmp_path, rename):
    """None is evaluated under another's name; the reader is told which may be the same."""
    slides = eight_slides()
    run = open_run(write_run(tmp_path / "run", slides))
    others = [*slides[:5], *(replace(slide, slide_id=rename(slide.slide_id)) for slide in slides[5:])]

    joined = join(run, read_manifest(write_labels(tmp_path / "m.csv", others)))

    assert joined.near_names == tuple((rename(f"s{k}"), f"s{k}") for k in (5, 6, 7))
    with pytest.raises(EvaluationError, match=r"3 names are written almost alike in manifest and run \("):
        join(run, read_manifest(write_labels(tmp_path / "n.csv", others[5:])))


@pytest.mark.parametrize("in_the_run", [False, True], ids=["in the manifest", "in the run"])
def test_the_ending_of_a_slide_file_makes_no_other_slide(tmp_path, in_the_run, command_line):
    """`s1.svs` is `s1`, which is told; where both are named, neither is taken for the other."""
    slides = eight_slides()
    with_ending = [replace(slide, slide_id=f"{slide.slide_id}.svs") for slide in slides]
    named, predicted = (slides, with_ending) if in_the_run else (with_ending, slides)
    run = write_run(tmp_path / "run", predicted)
    labels = write_labels(tmp_path / "m.csv", named)

    joined = join(open_run(run), read_manifest(labels))
    code, out, _ = command_line("evaluate", run, "--manifest", labels, "--out", tmp_path / "e", "--no-plots")
    both = join(open_run(run), read_manifest(write_labels(tmp_path / "b.csv", [*slides, *with_ending])))

    assert joined.slides.ids.tolist() == [slide.slide_id for slide in predicted]
    assert not joined.exclusions
    assert code == 0
    assert (
        f"8 slides are those of the run but for the ending ({named[0].slide_id!r} is {predicted[0].slide_id!r})" in out
    )
    assert both.count(ExclusionReason.MISSING) == 8


def test_a_slide_that_the_run_has_keeps_its_name(tmp_path):
    """Also where the run has another one that differs by an ending only, whose prediction it would have taken."""
    slides = eight_slides()
    other = replace(slides[0], slide_id=f"{slides[0].slide_id}.svs")
    run = write_run(tmp_path / "run", [*slides, other])

    joined = join(open_run(run), read_manifest(write_labels(tmp_path / "m.csv", [other, *slides[1:]])))

    assert joined.slides.ids.tolist() == [other.slide_id, *(slide.slide_id for slide in slides[1:])]


def test_a_slide_that_is_another_file_in_the_manifest_is_told(tmp_path):
    """The same name for two slides, in run and manifest, joins a prediction to another slide's label."""
    slides = eight_slides()
    run, labels = write_run(tmp_path / "run", slides), write_labels(tmp_path / "m.csv", slides)
    labels.write_text(labels.read_text().replace("s3.tif", "other.tif").replace("s4.tif", "S4.TIF"))

    joined = join(open_run(run), read_manifest(labels))

    assert joined.other_files == (("s3", "other.tif", "s3.tif"),)
    (said,) = run_limitations(open_run(run), joined)
    assert said.startswith("1 slides are other files in the manifest than in the run ('s3': 'other.tif', in the run")


@pytest.mark.parametrize(("use", "said"), [("intersect", ["limited to"]), ("replace", ["taken from"]), (None, [])])
def test_regions_that_were_drawn_limit_the_figures(tmp_path, use, said):
    """A phantom's manifest names its true tumour, and a user may draw it: the run alone did not find it."""
    slides = eight_slides()
    run = open_run(write_run(tmp_path / "run", slides, overrides={"annotations": use}))
    joined = join(run, read_manifest(write_labels(tmp_path / "m.csv", slides)))

    assert [text.split(" was ")[1][:10] for text in run_limitations(run, joined)] == said


def test_slides_that_lack_their_patients_label_are_told(tmp_path):
    """As of merged cells: a patient's probability is then that of some of the slides only."""
    slides = [replace(slide, patient_id=f"P{k // 2}") for k, slide in enumerate(eight_slides())]
    run = open_run(write_run(tmp_path / "run", slides))
    path = tmp_path / "m.csv"
    rows = [
        f"{s.slide_id},{s.slide_id}.tif,{s.patient_id},{'' if k in (1, 3) else 'positive'}"
        for k, s in enumerate(slides)
    ]
    path.write_text("\n".join(["slide_id,path,patient_id,her2_status", *rows]))

    (said,) = run_limitations(run, join(run, read_manifest(path)))
    assert said.startswith(
        "2 slides without a label are left out of the probabilities of their 2 patients, whose other"
    )


def test_a_slide_is_known_by_its_file_too(tmp_path):
    """A spreadsheet that made 1 of S001 still has the file's name."""
    slides = eight_slides()
    run = open_run(write_run(tmp_path / "run", slides))
    path = tmp_path / "m.csv"
    path.write_text("slide_id,path,patient_id,her2_status\n1,x/s1.svs,p1,positive\ns2,s2.svs,p2,negative\n")

    assert join(run, read_manifest(path)).near_names == (("1", "s1"),)


def test_the_papers_policy_counts_an_open_score_as_positive(tmp_path):
    """The guideline leaves it out; the policy is asked for by name."""
    slides = [*eight_slides(), MadeUpSlide("open", ihc_score="2+", probability=0.4)]
    run = open_run(write_run(tmp_path / "run", slides))
    labels = read_manifest(write_labels(tmp_path / "m.csv", slides))

    assert len(join(run, labels).slides) == 8
    assert join(run, labels, policy=Policy.PAPER).slides.truth[-1]


def test_nothing_to_evaluate_is_refused_with_the_reasons(tmp_path):
    """The message counts why."""
    with pytest.raises(EvaluationError, match=r"none of its slides can be evaluated .*\(another split \(8\)\)"):
        joined_of(tmp_path, [replace(slide, split="train") for slide in eight_slides()], split="test")


def test_names_that_do_not_meet_are_shown(tmp_path):
    """One of the manifest and one of the run: `manifest herohe` puts a prefix before the challenge's numbers."""
    slides = eight_slides()
    run = open_run(write_run(tmp_path / "run", slides))
    labels = write_labels(tmp_path / "m.csv", [replace(slide, slide_id=f"herohe-{slide.slide_id}") for slide in slides])

    with pytest.raises(EvaluationError, match=rf"such as 'herohe-{slides[0].slide_id}' and '{slides[0].slide_id}'\)"):
        join(run, read_manifest(labels))


def test_a_slide_named_twice_is_refused(tmp_path):
    """It would count twice."""
    slides = eight_slides()
    run = open_run(write_run(tmp_path / "run", slides))
    labels = read_manifest(write_labels(tmp_path / "m.csv", [*slides, slides[0]]))

    with pytest.raises(EvaluationError, match="names slide s0 more than once"):
        join(run, labels)


def test_patients_are_told_apart_by_their_key(tmp_path):
    """One patient written in two ways is one patient, under the first way."""
    slides = eight_slides()
    slides[1] = replace(slides[1], patient_id=" P0")

    joined = joined_of(tmp_path, slides)

    assert joined.patients.ids.tolist()[:2] == ["p0", "p2"]


@pytest.mark.parametrize(("rule", "expected"), [("mean", 0.5), ("max", 0.8)])
def test_a_patients_probability_follows_the_rule(rule, expected):
    """Mean or greatest of the slides'; one slide's own where there is one."""
    slides = made_up_cases(4, slides_a_patient=2)
    slides = replace(
        slides, truth=np.array([True, True, False, False]), probability=np.array([0.2, 0.8, 0.1, 0.1])
    ).decided_at(0.7)

    patients, _ = by_patient(slides, rule)

    assert patients.probability.tolist() == pytest.approx([expected, 0.1])
    assert patients.decided.tolist() == [expected >= 0.7, False]


def test_patients_of_equal_means_are_tied():
    """Whatever their slides and the order of these: a sum of 0.1, 0.2 and 0.3 is rounded by it, and ranks nobody."""
    cases = made_up_cases(9, slides_a_patient=3)
    cases = replace(cases, probability=np.array([0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.2, 0.2, 0.2]))

    patients, _ = by_patient(replace(cases, truth=np.zeros(9, bool)), "mean")

    assert patients.probability.tolist() == [0.2, 0.2, 0.2]
    assert combine("mean", [1, 1 - 1e-7, 1 - 3e-7]) == combine("mean", [1 - 3e-7, 1, 1 - 1e-7])
    assert combine("mean", [0, 2 / 3]) == combine("mean", [1 / 3])


def test_patients_of_several_slides_are_decided_as_predict_decides_them():
    """On the rounded probability: 0.6999996 is written, and called, as 0.7."""
    slides = made_up_cases(4, slides_a_patient=2)
    probability = np.array([0.7, 0.699999, 0.1, 0.1])
    slides = replace(slides, truth=np.array([True, True, False, False]), probability=probability).decided_at(0.7)

    patients, _ = by_patient(slides, "mean")

    rounded = [round(combine("mean", pair), 6) for pair in probability.reshape(2, 2)]
    assert patients.decided.tolist() == [p >= 0.7 for p in rounded]
    assert patients.decided_at(0.7).decided.tolist() == patients.decided.tolist()


def test_patients_of_the_same_slides_rank_alike_whatever_their_order():
    """Sums of the machine differ in the last digit, by which one of them was above the other."""
    slides = made_up_cases(6, slides_a_patient=3)
    probability = np.array([0.1, 0.2, 0.3, 0.3, 0.2, 0.1])

    patients, _ = by_patient(replace(slides, truth=np.repeat([True, False], 3), probability=probability), "mean")

    assert patients.probability.tolist() == [0.2, 0.2]


def test_the_order_of_the_manifest_changes_no_figure(tmp_path):
    """Audits draw at random: by place, a shortcut's AUC was 0.34 in one order and 0.39 in another."""
    rng = np.random.default_rng(0)
    slides = [
        replace(slide, slide_id=f"s{k}", patient_id=f"p{k}", site="ab"[k % 2], probability=round(rng.random(), 6))
        for k, slide in enumerate(eight_slides() * 3)
    ]
    run = write_run(tmp_path / "run", slides)

    one, other = (
        evaluate(Question(run, write_labels(tmp_path / "m.csv", rows), audit_slides=0)).audits
        for rows in (slides, slides[::-1])
    )

    assert [audit.rows for audit in one] == [audit.rows for audit in other]


def test_a_patient_with_two_labels_is_left_out_and_named(tmp_path):
    """The slides stay; the patient cannot be judged."""
    slides = eight_slides()
    slides[7] = replace(slides[7], patient_id="p0")

    joined = joined_of(tmp_path, slides)

    assert len(joined.slides) == 8
    assert "p0" not in joined.patients.ids.tolist()
    assert joined.count(ExclusionReason.CONFLICT) == 2


def test_a_patient_of_one_slide_keeps_the_runs_decision(tmp_path):
    """A probability is rounded when it is written and may fall below the threshold; the status is what was decided."""
    slides = eight_slides()
    run = write_run(tmp_path / "run", slides, threshold=0.7)
    table = (run / "predictions.csv").read_text().replace("s2.tif,positive,0.7,", "s2.tif,positive,0.699999,")
    (run / "predictions.csv").write_text(table)

    joined = join(open_run(run), read_manifest(write_labels(tmp_path / "m.csv", slides)))

    assert joined.patients.decided[2]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "holds no predictions.csv"),
        ("slide_id,status,probability,threshold\n", "holds no slide"),
        ("slide_id,status,probability,threshold\na,positive,,0.5\n", "slide a has no probability"),
        ("slide_id,status,probability,threshold\na,positive,1.2,0.5\n", "from 0 to 1"),
        ("slide_id,status,probability,threshold\na,positive,high,0.5\n", "give numbers"),
        ("slide_id,status,probability,threshold\na,positive,1,0.5\na,positive,1,0.5\n", "line 3: names slide a twice"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path, table, said):
    """One line says what was found and what to do."""
    if table is not None:
        (tmp_path / "predictions.csv").write_text(table)

    with pytest.raises(EvaluationError, match=said):
        open_run(tmp_path)


def test_several_thresholds_are_refused(tmp_path):
    """Slides of one run were decided in one way."""
    run = write_run(tmp_path / "run", eight_slides())
    (run / "predictions.csv").write_text((run / "predictions.csv").read_text().replace("0.9,0.5", "0.9,0.6"))

    with pytest.raises(EvaluationError, match=r"several thresholds \(0.5, 0.6\)"):
        _ = open_run(run).threshold


@functools.cache
def subgroup():
    return summarise(equivocal(made_up_cases(40)), "with IHC 2+")


def cautions_of(patients, joined):
    return " ".join(limitations(joined, summarise(patients, "patients"), subgroup(), 0.15))


@pytest.fixture
def joined(tmp_path):
    """Eight slides, nothing missing."""
    return joined_of(tmp_path, eight_slides())


def test_a_constant_predictor_is_named(joined):
    """51 of 54 slides called positive is the paper's own case; all of them is a constant."""
    patients = made_up_cases(54, share=14 / 54)
    always = replace(patients, decided=np.ones(54, bool))
    nearly = replace(patients, decided=np.arange(54) >= 2)

    said = cautions_of(always, joined)
    assert "Constant predictor: all 54 patients are called positive" in said
    assert "only counts the positive ones (26 %); balanced accuracy is 0.5 whatever the data." in said
    one_class = always.take(always.truth)
    assert "only counts the positive ones (100 %)." in cautions_of(one_class, joined)
    assert "Almost constant predictor: 52 of 54" in cautions_of(nearly, joined)
    assert "onstant predictor" not in cautions_of(patients, joined)


def test_chance_is_named(joined):
    """An AUC interval that holds 0.5 is said to show nothing; one above does not bring the warning."""
    text = "do not show that the model is better than tossing a coin"

    assert text in cautions_of(made_up_cases(40, gap=0.0), joined)
    assert text not in cautions_of(made_up_cases(40, gap=4.0), joined)


def test_at_few_patients_chance_follows_the_exact_test(joined):
    """Eight patients whose AUC interval excludes 0.5 and whose ranks do not: p = 0.071."""
    truth = np.arange(8) < 5
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.5, 0.2, 0.1])
    cases = made_up_cases(8)
    cases = replace(cases, truth=truth, probability=scores, decided=scores >= 0.5)

    text = cautions_of(cases, joined)

    assert "By the exact Mann-Whitney test (p = 0.071, 8 patients) these data do not show that the model is" in text
    assert "by exact enumeration it holds the truth in as little as 82 %" not in text
    assert "as little as 82 %" in cautions_of(replace(cases, decided=scores >= 0.3), joined)


def test_a_question_takes_paths_as_text_and_refuses_what_is_no_choice(tmp_path):
    """From a notebook: a split of another name left out all slides, and another rule was an error of ours."""
    run = write_run(tmp_path / "run", eight_slides())
    labels = write_labels(tmp_path / "m.csv", eight_slides())
    asked: dict[str, Any] = {"run": str(run), "manifest": str(labels)}
    asked_of_two: dict[str, Any] = {"runs": [str(run)], "manifest": str(labels)}

    assert Question(**asked) == Question(run, labels)
    assert ComparisonQuestion(**asked_of_two) == ComparisonQuestion((run,), labels)
    for option, wrong in (("split", "validation"), ("rule", "median"), ("splits", "test"), ("by", "site")):
        with pytest.raises(ValueError, match=option):
            Question(**asked | {option: wrong})
    for kind, options in (
        (Budgets, {"miss": 5}),
        (Budgets, {"calibration": "platt"}),
        (ScoreReading, {"scale": "all"}),
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            kind(**options)


def test_missing_outcomes_are_a_limitation_with_bounds(tmp_path):
    """Undetermined, unlabelled and unpredicted patients are counted and bounded, and TRIPOD item 11 says so."""
    slides = eight_slides()
    slides += [MadeUpSlide(f"u{k}", ihc_score="2+", probability=0.9) for k in range(2)]
    slides += [MadeUpSlide("v", probability=0.1), MadeUpSlide("w", status="positive", failure="no tissue found")]
    slides += [MadeUpSlide("other", stain="IHC", probability=0.1)]
    run = write_run(tmp_path / "run", slides)

    evaluation = evaluate(Question(run, write_labels(tmp_path / "m.csv", slides), audit_slides=0))

    missing, page = evaluation.missing, evaluation_page(evaluation)
    assert (missing.n, missing.without_outcome, missing.without_prediction, missing.without_both) == (12, 3, 1, 0)
    assert (missing.sensitivity.low, missing.sensitivity.high) == pytest.approx((5 / 7, 8 / 8))
    assert (missing.specificity.low, missing.specificity.high) == pytest.approx((2 / 5, 3 / 4))
    assert "4 of 12 patients are left out: 3 without a known HER2 status" in page
    assert "sensitivity 0.71 to 1.00, specificity 0.40 to 0.75, AUC" in page
    assert "| 11 | Missing data | yes | 3 of 12 patients without a known outcome, 1 without prediction" in page


# Of the published statement: 27 items in 52 parts.
TRIPOD_AI = (
    [*"12", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6b", "6c", "7", "8a", "8b", "8c", "9a", "9b", "9c", "10", "11"]
    + [f"12{part}" for part in "abcdefg"]
    + ["13", "14", "15", "16", "17", *(f"18{part}" for part in "abcdef"), "19", "20a", "20b", "20c", "21", "22"]
    + ["23a", "23b", "24", "25", "26", "27a", "27b", "27c"]
)


def test_the_checklists_have_every_item(tmp_path):
    """TRIPOD+AI and CLAIM, in their order; none is answered but by yes, partly or no."""
    slides = eight_slides()
    run = write_run(tmp_path / "run", slides)

    page = evaluation_page(evaluate(Question(run, write_labels(tmp_path / "m.csv", slides), audit_slides=0)))

    item = re.compile(r"^\| (\d+[a-g]?) \| .+ \| (?:yes|partly|no) \|", re.MULTILINE)
    tripod, claim = (item.findall(page.split(f"## {name}")[1].split("\n## ")[0]) for name in ("TRIPOD+AI", "CLAIM"))
    assert tripod == TRIPOD_AI
    assert claim == [str(k) for k in range(1, 45)]


def test_nothing_missing_is_no_limitation(tmp_path):
    """Bounds are said only where there is something to bound."""
    slides = eight_slides()
    run = write_run(tmp_path / "run", slides)

    evaluation = evaluate(Question(run, write_labels(tmp_path / "m.csv", slides), audit_slides=0))

    assert evaluation.missing.n_missing == 0
    assert not any("left out" in text for text in evaluation.limitations)


@pytest.mark.parametrize("status", ["positive", "negative"])
def test_one_class_prints_no_nan(tmp_path, status):
    """What is undefined is left out of the sentence, and undefined in the tables."""
    slides = [replace(slide, status=status) for slide in eight_slides()]
    run = write_run(tmp_path / "run", slides)

    evaluation = evaluate(Question(run, write_labels(tmp_path / "m.csv", slides), audit_slides=0))

    for text in (evaluation_page(evaluation), evaluation_lines(evaluation, tmp_path)):
        assert not re.search(r"\bnan\b", text)
        assert "At the threshold 0.5: " + ("sensitivity" if status == "positive" else "specificity") in text


def test_a_model_that_ranks_the_wrong_way_round_is_named(joined):
    """An AUC surely below 0.5 is a swapped label, not a bad model."""
    assert "ranks the wrong way round" in cautions_of(made_up_cases(60, gap=-3.0), joined)


def test_few_positives_are_named(joined):
    """With nine right out of nine the interval still reaches down to 0.66."""
    text = cautions_of(made_up_cases(100, share=0.09), joined)

    assert "Too few positive patients (9)" in text
    assert "reach down to 0.66" in text


def test_a_share_of_positives_unlike_the_clinics_is_named(joined):
    """Half positive is not 15 %; 15 % is."""
    text = "in a clinic about 15 %"

    assert text in cautions_of(made_up_cases(100, share=0.5), joined)
    assert text not in cautions_of(made_up_cases(100, share=0.15), joined)
    rare = limitations(joined, summarise(made_up_cases(100, share=0.5), "patients"), subgroup(), 0.004)
    assert "in a clinic about 0.4 %" in "\n".join(rare)
    assert "0.333 % of the patients are positive" in cautions_of(made_up_cases(300, share=1 / 300), joined)


def test_missing_predictions_are_named(tmp_path):
    """With how many of them are positive."""
    slides = eight_slides()
    for k in (0, 5):
        slides[k] = replace(slides[k], probability=None, failure="no tissue found")
    joined = joined_of(tmp_path, slides)

    text = cautions_of(joined.patients, joined)

    assert "2 of 8 labelled slides have no prediction (1 of them positive)" in text
    assert "called wrongly, sensitivity would be 80 % (28 to 99 %) and specificity 33 %" in text


def test_the_subgroup_with_2_plus_is_always_spoken_of(joined):
    """Also when there is nobody in it."""
    nobody = summarise(made_up_cases(40).take(np.arange(0)), "with IHC 2+")

    assert "No patient with IHC 2+" in " ".join(limitations(joined, subgroup(), nobody, 0.15))


def test_two_equal_runs_are_not_shown_to_differ():
    """The difference is 0, and the sentence claims nothing."""
    cases = made_up_cases(60)

    versus = compare_runs(cases, cases, ("one", "two"))

    assert versus.auc.estimate.value == 0
    assert "not shown to differ" in versus.sentence


def test_a_better_run_is_said_to_be_better():
    """By the paired test, whatever the two intervals do."""
    cases = made_up_cases(200, gap=3.0)
    worse = replace(cases, probability=np.random.default_rng(0).random(200))

    versus = compare_runs(worse, cases, ("guess", "model"))

    assert versus.sentence.startswith("model ranks patients better than guess")
    assert versus.aucs[0].value < versus.aucs[1].value


def test_runs_are_compared_on_what_they_share():
    """Cases of one run only are counted."""
    cases = made_up_cases(30)

    versus = compare_runs(cases.take(np.arange(25)), cases.take(np.arange(5, 30)), ("one", "two"))

    assert (versus.n, versus.only_first, versus.only_second) == (20, 5, 5)


def test_runs_without_a_shared_case_are_refused():
    """There is nothing to pair."""
    cases = made_up_cases(10)

    with pytest.raises(EvaluationError, match="share no patient"):
        compare_runs(cases.take(np.arange(5)), cases.take(np.arange(5, 10)), ("one", "two"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A cohort of 40 phantom slides from two sites with tiles, its manifest, and a second run over it."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("study")
    slides = []
    for k in range(40):
        positive = k % 5 < 2
        ihc = str(rng.choice(["2+", "3+"] if positive else ["0", "1+", "2+"]))
        status = "positive" if positive else "negative"
        slides.append(
            MadeUpSlide(
                f"phantom-7-{k:04d}-HE",
                f"phantom-7-{k:04d}",
                status,
                ihc,
                ("north", "south")[k % 2],
                ish=status if ihc == "2+" else "",
                probability=round(float(1 / (1 + np.exp(-rng.normal(1.5 * positive - 0.8)))), 6),
                tissue_mm2=float(rng.uniform(10, 40)),
                colour=tuple(rng.normal((200, 150, 190), 5)),
                scores=np.clip(np.rint(rng.normal(1 + positive, 1, (6, 6))), 0, 3),
            )
        )
    slides[3] = replace(slides[3], probability=None, failure="no tissue found")
    write_run(folder / "run", slides, notices=["untrained weights: the numbers mean nothing"])
    again = [replace(s, probability=s.probability and round(s.probability**1.1, 6)) for s in slides]
    write_run(folder / "again", again)
    write_labels(folder / "manifest.csv", slides)
    return folder


@pytest.fixture(scope="module")
def evaluated(study):
    """The evaluation of the study, by the command line: its output and its folder."""
    out = study / "evaluation"
    line = ["evaluate", study / "run", "--manifest", study / "manifest.csv", "--out", out]
    line += ["--compare", study / "again", "--seeds", study / "again", "--reference", study / "again"]
    result = CliRunner().invoke(app, [str(word) for word in line[:-2]])
    assert result.exit_code == 0, result.output
    return result.output, out


def test_the_command_writes_page_tables_and_plots(evaluated):
    """Everything that the page names is there."""
    _, out = evaluated
    page = (out / "evaluation.md").read_text()

    names = (
        "roc",
        "precision_recall",
        "saved",
        "decision_curve",
        "calibration",
        "scores",
        "confusion",
        "score_matrix",
        "sites",
    )
    assert [f"](plots/{name}.png)" in page for name in names] == [True] * len(names)
    assert {file.name for file in (out / "plots").iterdir()} == {f"{n}.{e}" for n in names for e in ("png", "svg")}
    tables = {"metrics.csv", "slides.csv", "patients.csv", "exclusions.csv", "flow.csv", "evaluation.json"}
    assert tables <= {file.name for file in out.iterdir()}


def test_the_page_reads_like_a_results_section(evaluated):
    """It begins with the notices and the result, and has every section."""
    _, out = evaluated
    page = (out / "evaluation.md").read_text()

    first = "Of 39 patients 16 were HER2-positive (39 slides, test split of manifest.csv). The model ranked them with"
    assert page.index("NOTICE: untrained weights") < page.index(f"NOTICE: {PHANTOM_NOTICE}") < page.index(first)
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    sections = ["What limits these figures", "Participants", "Performance", "Calibration"]
    assert headings[:4] == sections
    assert headings[4].startswith("Decision curve")
    assert headings[5:7] == ["HER2-low, ultralow and each IHC score", "If labels were wrong"]
    assert headings[7:9] == ["Operating point, triage, calibration", "Plots"]
    assert "Nothing was chosen: no slides of split val were predicted in this run" in page
    assert "| failed in the run | - 1 |" in page
    assert "| 17 | Ethical approval | no | not known to the program |" in page
    assert all(page.count(f"Of {n} entries the program answers") == 1 for n in (44, 52))


def test_the_figures_are_those_of_the_table(evaluated):
    """evaluation.json, metrics.csv and the counts of patients.csv agree."""
    _, out = evaluated
    found = json.loads((out / "evaluation.json").read_text())
    with (out / "patients.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (out / "metrics.csv").open() as file:
        metrics = {(row["cases"], row["figure"]): row for row in csv.DictReader(file)}

    hits = sum(row["her2_positive"] == row["called_positive"] == "True" for row in rows)
    patients = found["groups"]["patients"]
    assert patients["counts"]["tp"] == hits
    assert patients["figures"]["sensitivity"]["value"] == hits / 16
    assert float(metrics["patients", "AUC"]["low"]) == patients["figures"]["AUC"]["low"]
    assert set(found["groups"]) == {"patients", "slides", "patients with IHC 2+"}


def test_every_figure_has_an_interval_and_n(evaluated):
    """Low, value and high in order, and the cases that it rests on."""
    _, out = evaluated
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert len(rows) == 24 + 24 + 14
    undefined = [(row["cases"], row["figure"]) for row in rows if row["value"] in ("", "nan")]
    assert undefined == [("patients with IHC 2+", "positive likelihood ratio")]  # no negative is called positive
    for row in rows:
        assert float(row["low"]) <= float(row["high"])
        assert (row["cases"], row["figure"]) in undefined or float(row["low"]) <= float(row["value"]) <= float(
            row["high"]
        )
        assert int(row["n"]) > 0
        assert row["method"]


def test_the_terminal_says_the_result_its_cautions_and_its_notices(evaluated):
    """Whoever reads only the terminal is warned too."""
    output, _ = evaluated

    assert output.startswith("Of 39 patients 16 were HER2-positive")
    assert "caution  " in output
    assert f"NOTICE   {PHANTOM_NOTICE}" in output
    assert "The AUCs of run and again" in output


def test_every_audit_ends_in_one_sentence(evaluated):
    """Done or not, with the reason."""
    _, out = evaluated
    audits = {audit["name"]: audit for audit in json.loads((out / "evaluation.json").read_text())["audits"]}

    first_four = ["shortcuts", "subgroups", "sites", "shift"]
    assert list(audits) == [*first_four, "domain", "stability", "seeds", "heterogeneity"]
    assert all(audit["sentence"].endswith(".") for audit in audits.values())
    assert not audits["stability"]["done"]
    assert "give its weights" in audits["stability"]["sentence"]


def test_the_same_question_has_the_same_answer(study, evaluated, command_line):
    """Draws are seeded: a second evaluation writes the same bytes."""
    _, out = evaluated
    again = study / "evaluation-again"

    code, *_ = command_line(
        "evaluate", study / "run", "-m", study / "manifest.csv", "-o", again, "--compare", study / "again",
        "--seeds", study / "again", "--no-plots",
    )  # fmt: skip

    assert code == 0
    for name in ("evaluation.json", "metrics.csv", "audit_shortcuts.csv", "audit_heterogeneity.csv"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_a_folder_of_something_else_is_not_overwritten(study, tmp_path, command_line):
    """Refused before any work."""
    (tmp_path / "thesis.txt").write_text("years of work")

    code, _, error = command_line("evaluate", study / "run", "-m", study / "manifest.csv", "-o", tmp_path)

    assert (code, (tmp_path / "thesis.txt").read_text()) == (2, "years of work")
    assert "holds something that is no evaluation" in error


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    """Measuring takes minutes, or an hour with the search for leaks."""
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="is a file"):
        check_evaluation_folder(tmp_path / "file" / "evaluation")


def test_without_matplotlib_one_line_names_the_extra(study, tmp_path, command_line, monkeypatch):
    """The core install has no plots; the line says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("he2her2.cli.extras.find_spec", lambda name: None if name == "matplotlib" else object())

    code, _, error = command_line("evaluate", study / "run", "-m", study / "manifest.csv", "-o", tmp_path / "out")

    assert code == 2
    assert error == "he2her2: this command needs matplotlib: pip install 'he2her2[evaluate]'\n"


def test_patients_of_the_training_are_refused(tmp_path, command_line):
    """A test on them would be none; asked for by split, they are shown as what they are."""
    slides = eight_slides()
    run = write_run(tmp_path / "run", slides, training_patients=[hashed_patient("p3")], validation_patients=[])
    labels = write_labels(tmp_path / "m.csv", [replace(slide, split="val") for slide in slides])

    refused, _, error = command_line("evaluate", run, "-m", labels, "-o", tmp_path / "a")
    asked = ("-m", labels, "--split", "val", "--no-plots")
    shown, output, _ = command_line("evaluate", run, "-o", tmp_path / "b", *asked)
    other = write_run(tmp_path / "other", slides)
    compared, beside, _ = command_line("compare", run, other, "-o", tmp_path / "c", *asked)

    assert refused == 2
    assert "trained or chosen with 1 of the patients to evaluate (p3)" in error
    assert shown == compared == 0
    assert f"NOTICE   {NOT_A_TEST}" in output
    assert NOT_A_TEST in beside
    assert NOT_A_TEST in (tmp_path / "c" / "comparison.md").read_text()


@pytest.mark.parametrize(("option", "ending"), [("--compare", ""), ("--compare", ".svs"), ("--seeds", "")])
def test_patients_of_another_runs_training_are_refused(tmp_path, command_line, option, ending):
    """A run that learned from them would seem the better one, or the steadier; its slides may have an ending."""
    slides = eight_slides()
    run = write_run(tmp_path / "run", slides, training_patients=[], validation_patients=[])
    theirs = [replace(slide, slide_id=f"{slide.slide_id}{ending}") for slide in slides]
    other = write_run(tmp_path / "other", theirs, training_patients=[hashed_patient("p3")], validation_patients=[])
    labels = write_labels(tmp_path / "m.csv", slides)

    code, _, error = command_line("evaluate", run, "-m", labels, "-o", tmp_path / "a", option, other, "--no-plots")

    assert code == 2
    assert f"{other}: its weights were trained or chosen with 1 of the patients to evaluate (p3)" in error


def test_the_papers_headline_brings_its_warnings(tmp_path, command_line):
    """Seven of eight right is 0.88 with an interval from 0.47 to 1.00, and few of each class."""
    slides = eight_slides()
    run, labels = write_run(tmp_path / "run", slides), write_labels(tmp_path / "m.csv", slides)

    code, output, _ = command_line("evaluate", run, "-m", labels, "-o", tmp_path / "out", "--no-plots")

    page = (tmp_path / "out" / "evaluation.md").read_text()
    assert code == 0
    assert "| plain accuracy (= support-weighted recall) | 0.88 (0.47 to 1.00) |" in page
    assert "Too few positive patients (5)" in output
    assert "Too few negative patients (3)" in output
    assert "Nothing beside the run says which patients its weights were trained with" in output


def test_one_class_only_is_evaluated_as_far_as_it_goes(tmp_path, command_line):
    """Sensitivity is known, the rest is undefined and drawn nowhere."""
    slides = eight_slides()[:5]
    run, labels = write_run(tmp_path / "run", slides), write_labels(tmp_path / "m.csv", slides)

    code, output, _ = command_line("evaluate", run, "-m", labels, "-o", tmp_path / "out")

    assert code == 0
    assert "An AUC cannot be given" in output
    assert not (tmp_path / "out" / "plots" / "roc.png").exists()
    assert (
        json.loads((tmp_path / "out" / "evaluation.json").read_text())["groups"]["patients"]["figures"]["AUC"]["value"]
        is None
    )
