"""Any tool's scores: the same figures as from a run folder, tables as people have them, and what is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from he2her2.errors import EvaluationError, ManifestError
from he2her2.evaluation import ScoreReading, join, open_predictions, read_study_manifest
from he2her2.evaluation.limitations import run_limitations
from he2her2.evaluation.missing import missing_data
from he2her2.labels import Her2Status, IhcScore
from he2her2.statistics import Bounds
from tests.made_up_runs import MadeUpSlide, write_labels, write_run


def cohort(n=40):
    rng = np.random.default_rng(0)
    return [
        MadeUpSlide(
            f"s{k:02d}", f"P-{k // 2:02d}", "positive" if k // 2 % 3 == 0 else "negative", "2+" if k % 4 < 2 else "1+",
            site="AB"[k // 2 % 2], probability=round(float(rng.random()), 6),
        )
        for k in range(n)
    ]  # fmt: skip


def tables(folder, scores, labels="slide_id,path,patient_id,her2_status\na,a.svs,P1,positive\nb,b.svs,P2,negative\n"):
    """A table of scores and one of labels, read."""
    (folder / "scores.csv").write_text(scores)
    (folder / "labels.csv").write_text(labels)
    return folder / "scores.csv", read_study_manifest(folder / "labels.csv", folder / "scores.csv")


def opened(folder, scores, labels=None, **choices):
    path, manifest = tables(folder, scores, *([labels] if labels else []))
    return open_predictions(path, manifest, ScoreReading(**choices))


def test_a_table_is_evaluated_like_the_run_that_it_is_of(tmp_path, command_line):
    """The same figures and cases, by the command line; what needs tiles is said not to be done."""
    slides = cohort()
    slides[5] = replace(slides[5], probability=None)
    run, labels = write_run(tmp_path / "run", slides), write_labels(tmp_path / "labels.csv", slides)
    lines = [f"/data/{s.slide_id}.svs;{s.probability}" for s in slides if s.probability is not None]
    (tmp_path / "scores.csv").write_text("\n".join(["WSI Name;HER2 prob", *lines]))
    found = []
    for what in (run, tmp_path / "scores.csv"):
        out = tmp_path / f"evaluation of {what.name}"
        code, said, error = command_line("evaluate", what, "-m", labels, "-o", out, "--no-leaks", "--no-plots")
        assert (code, error) == (0, "")
        found.append(json.loads((out / "evaluation.json").read_text()))

    assert found[0]["groups"] == found[1]["groups"]
    assert found[0]["missing_data"] == found[1]["missing_data"]
    assert found[0]["reliability"] == found[1]["reliability"]
    assert "read     scores.csv: slides in 'WSI Name', probability in 'HER2 prob'; called positive from 0.5 on" in said
    assert {audit["name"] for audit in found[1]["audits"] if audit["done"]} == {"shortcuts", "sites"}
    why = "Not done: scores of another program have no colours and no tiles."
    assert {audit["name"] for audit in found[1]["audits"] if audit["sentence"] == why} == {
        *("domain", "stability", "heterogeneity")
    }  # fmt: skip


def test_scores_of_patients_are_evaluated_as_such(tmp_path, command_line):
    """Each slide has its patient's score, and no figures of slides are made up."""
    slides = cohort()
    labels = write_labels(tmp_path / "labels.csv", slides)
    rows = [f"p-{k:02d} ,{0.9 if k % 3 == 0 else 0.2},{'pos' if k % 3 == 0 else 'neg'}" for k in range(20)]
    (tmp_path / "preds.csv").write_text("\n".join(["PATIENT,HER2_positive,pred", *rows]))
    out = tmp_path / "out"
    code, said, _ = command_line("evaluate", tmp_path / "preds.csv", "-m", labels, "-o", out, "--no-plots")
    result = json.loads((out / "evaluation.json").read_text())

    assert code == 0
    assert "patients in 'PATIENT', probability in 'HER2_positive'; decisions in 'pred'" in said
    assert result["scores_of"] == "patient"
    assert set(result["groups"]) == {"patients", "patients with IHC 2+"}
    assert result["groups"]["patients"]["figures"]["AUC"]["value"] == 1
    assert not (out / "slides.csv").exists()
    assert "The scores are of patients" in (out / "evaluation.md").read_text()


def test_labels_need_no_slides(tmp_path):
    """A table with a row for each patient, and its status as 1 and 0; how it was read is said."""
    labels = "Case ID,label,IHC\nP1,1,3\nP2,0,0\n"
    found = opened(tmp_path, "case,score\nP1,0.7\nP2,0.4\n", labels)
    numbered = opened(tmp_path, "Case No.,score\nP1,0.7\nP2,0.4\n", labels.replace("Case ID", "Case No"))
    manifest = tables(tmp_path, "", labels)[1]

    assert found.level == numbered.level == "patient"
    assert found.scores == numbered.scores
    assert [row.her2_status for row in manifest.rows] == [Her2Status.POSITIVE, Her2Status.NEGATIVE]
    assert [row.ihc_score for row in manifest.rows] == [IhcScore.THREE, IhcScore.ZERO]
    assert "'label': 1 is read as positive, 0 as negative" in manifest.notes
    with pytest.raises(ManifestError, match="names neither slides nor patients"):
        opened(tmp_path, "case,score\nP1,0.7\n", "label\n1\n")
    with pytest.raises(EvaluationError, match=r"no HER2 status, IHC score .* not read: HER2\.status\.ERBB2; call the"):
        opened(tmp_path, "case,score\nP1,0.7\n", "case,HER2.status.ERBB2\nP1,1\n")


def test_other_scales_keep_order_and_threshold(tmp_path):
    """Per cent and logits become probabilities; numbers of any scale keep their order only."""
    percent = opened(tmp_path, "slide,score\na,70\nb,20\n", scale="percent")
    logit = opened(tmp_path, "slide,score\na,2\nb,-1\n", scale="logit", threshold=-1.5)
    own = opened(tmp_path, "slide,score\na,-3\nb,-11\n", scale="any", threshold=-7)

    assert [p.probability for p in percent.run.predictions.values()] == [0.7, 0.2]
    assert percent.run.threshold == 0.5
    assert [p.probability for p in logit.run.predictions.values()] == pytest.approx([0.8808, 0.2689], abs=1e-4)
    assert [p.status for p in logit.run.predictions.values()] == [Her2Status.POSITIVE] * 2
    assert [p.status for p in own.run.predictions.values()] == [Her2Status.POSITIVE, Her2Status.NEGATIVE]
    assert (own.scale.is_probability, own.threshold, own.run.threshold) == (False, -7, 0.5)


def test_scores_of_any_scale_keep_their_distances(tmp_path):
    """The mean over a patient's slides is that of the scores, also where one lies far from the others."""
    own = opened(tmp_path, "slide,score\na,0\nb,10\nc,1000\n", scale="any", threshold=505)
    a, b, c = (p.probability for p in own.run.predictions.values())

    assert (b - a) / (c - a) == pytest.approx(0.01)
    assert (a + c) / 2 < own.run.threshold


@pytest.mark.parametrize(
    ("scores", "choices", "equal"),
    [
        (lambda logits: np.exp(3 * logits), {"scale": "any", "threshold": 1}, 20),
        (lambda logits: 5 * logits, {"scale": "logit"}, 16),
        (lambda logits: logits, {"scale": "any", "threshold": 0}, 0),
        (lambda logits: 1 / (1 + np.exp(-logits)), {}, 0),
    ],
    ids=["odds", "far logits", "logits of any scale", "probabilities"],
)
def test_scores_that_a_threshold_does_not_tell_apart_are_told(tmp_path, scores, choices, equal):
    """Of odds most: with a large one among them, an operating point called everybody, which nothing told."""
    values = scores(np.linspace(-5, 5, 40))
    table = "slide,score\n" + "".join(f"s{k},{value!r}\n" for k, value in enumerate(values.tolist()))

    said = [note for note in opened(tmp_path, table, LABELS_OF_40, **choices).notes if "CAUTION" in note]

    assert len(said) == bool(equal)
    assert all(f"CAUTION {equal} of the 40 different scores in 'score' count as equal" in one for one in said)


@pytest.mark.parametrize("score", ["0.{}", "{}0%"])
def test_a_threshold_in_per_cent_is_one_of_either_scale(tmp_path, score):
    """It is brought to that of the scores."""
    rows = "".join(f"{name},{score.format(n)},40%\n" for name, n in (("a", 3), ("b", 5)))

    found = opened(tmp_path, f"slide,score,threshold\n{rows}")

    assert found.run.threshold == 0.4
    assert [str(row.status) for row in found.run.predictions.values()] == ["negative", "positive"]


def test_the_tools_own_decisions_are_kept(tmp_path):
    """With the threshold that explains most of them; what none explains is counted."""
    labels = "slide_id,path,patient_id,her2_status\n" + "".join(f"{c},{c}.svs,{c},positive\n" for c in "abcd")
    one = opened(tmp_path, "slide,p_1,Y_hat\na,0.9,1\nb,0.6,1\nc,0.4,0\nd,0.1,0\n", labels)
    none = opened(tmp_path, "slide,p_1,Y_hat\na,0.9,1\nb,0.6,0\nc,0.4,1\nd,0.1,0\n", labels)

    assert one.threshold == 0.6
    assert [p.status.value[:3] for p in one.run.predictions.values()] == ["pos", "pos", "neg", "neg"]
    assert "1 of which no threshold of the score explains" in none.notes[0]
    assert [p.status.value[:3] for p in none.run.predictions.values()] == ["pos", "neg", "pos", "neg"]
    nobody = opened(tmp_path, "slide,p_1,Y_hat\na,0.9,0\nb,0.6,0\nc,0.4,0\nd,0.1,0\n", labels)
    assert nobody.threshold > 0.9
    assert "no threshold" not in nobody.notes[0]
    empty = opened(tmp_path, "slide,p_1,Y_hat\na,0.9,\nb,0.6,\nc,0.4,NA\nd,0.1,\n", labels)
    assert empty.threshold == 0.5


def joined_tables(folder, scores, labels, **choices):
    """A table of scores joined with the labels, and the run that it makes."""
    path, manifest = tables(folder, scores, labels)
    found = open_predictions(path, manifest, ScoreReading(**choices))
    return join(found.run, manifest, scale=found.scale), found.run


def test_decisions_on_patients_of_several_slides_are_kept(tmp_path):
    """A patient is called as the table says, and one without a known status is counted as called."""
    labels = "slide_id,patient_id,her2_status\n"
    labels += "".join(f"{p}{k},{p},{s}\n" for p, s in (("A", "positive"), ("B", "negative"), ("C", "")) for k in "12")
    scores = "patient_id,probability,call\nA,0.4,pos\nB,0.6,neg\nC,0.9,neg\n"
    joined, run = joined_tables(tmp_path, scores, labels)
    missing = missing_data(run, joined)

    assert joined.patients.decided.tolist() == [True, False]
    assert missing.sensitivity == Bounds(0.5, 1)
    assert missing.specificity == Bounds(1, 1)
    labels += "D1,D,\nD2,D,\n"  # whose slides are called differently: the patient's probability decides, not another's
    scores = "slide_id,probability\nA1,0.9\nA2,0.8\nB1,0.1\nB2,0.2\nC1,0.1\nC2,0.3\nD1,0.9\nD2,0.3\n"
    joined, run = joined_tables(tmp_path, scores, labels)
    assert missing_data(run, joined).sensitivity == Bounds(0.5, 1)


def test_a_score_of_a_patient_is_of_slides_without_a_label_too(tmp_path):
    """Nothing is left out of it, also where it is a third, which no number is."""
    labels = "slide_id,patient_id,her2_status\n" + "".join(f"{p}1,{p},positive\n{p}2,{p},\n" for p in "ABCD")
    scores = "patient_id,score\nA,0\nB,1\nC,2\nD,3\n"

    joined, run = joined_tables(tmp_path, scores, labels, scale="any", threshold=1.5)

    assert run.predictions["B2"].probability == 1 / 3
    assert tuple(run_limitations(run, joined)) == ()


@pytest.mark.parametrize(
    ("heading", "score", "choices"),
    [
        ("probability", lambda votes: votes / 7, {}),
        ("score", lambda votes: votes, {"scale": "any"}),
        ("logit", lambda votes: votes - 3.3, {}),
    ],
)
def test_a_patient_whose_slides_lie_at_the_threshold_is_positive(tmp_path, heading, score, choices):
    """As each of the slides is, however many digits the scores have."""
    slides = [(f"s{k}", k // 2) for k in range(8)]
    labels = [f"{name},P{p},{('positive', 'negative')[p % 2]}" for name, p in slides]
    joined, _ = joined_tables(
        tmp_path,
        "\n".join([f"slide_id,{heading}", *(f"{name},{score(p + 1)!r}" for name, p in slides)]),
        "\n".join(["slide_id,patient_id,her2_status", *labels]),
        threshold=score(2),
        **choices,
    )

    assert joined.slides.decided.tolist() == [False] * 2 + [True] * 6
    assert joined.patients.decided.tolist() == [False, True, True, True]


def test_the_column_status_is_no_decision(tmp_path):
    """It may be the label, which would make every tool perfect."""
    found = opened(tmp_path, "slide,prob,status\na,0.3,positive\nb,0.7,negative\n")

    assert [p.status for p in found.run.predictions.values()] == [Her2Status.NEGATIVE, Her2Status.POSITIVE]


def test_the_only_column_of_numbers_is_the_score(tmp_path):
    """Whatever its name."""
    labels = "slide_id,path,patient_id,her2_status\n" + "".join(f"{c},{c}.svs,{c},positive\n" for c in "abcdef")
    rows = "".join(f"{c},{k / 10},fold\n" for k, c in enumerate("abcdef"))
    found = opened(tmp_path, f"slide,TransMIL fold 1,kind\n{rows}", labels)

    assert found.run.predictions["d"].probability == 0.3


SIX = [(f"TCGA-A1-A00{k}-01Z-00-DX1", k % 2, p) for k, p in enumerate((0.1, 0.8, 0.3, 0.9, 0.6, 0.55))]
OF_TOOLS = {  # headings, and a row of name, patient, truth, decision, and the probabilities of both classes
    "CLAM": (",slide_id,Y,Y_hat,p_0,p_1", "7,{s},{y}.0,{call}.0,{q},{p}"),
    "STAMP": ("PATIENT,HER2,pred,HER2_negative,HER2_positive,loss", "{s:.12},{word},{word},{q},{p},0.{y}7"),
    "STAMP, classes 0 and 1": ("PATIENT,HER2,pred,HER2_0,HER2_1,loss", "{s:.12},{y},{call},{q},{p},1.{y}"),
    "Campanella": ("file,target,prediction,probability", "{s},{y},{call},{p}"),
    "HEROHE": ("caseID,soft prediction,hard prediction", "{s:.12},{p},{call}"),
    "Slideflow": ("slide,y_true,y_pred0,y_pred1", "{s},{y},{q},{p}"),
    "Slideflow, patients": ("patient,HER2-y_true,HER2-y_pred0,HER2-y_pred1", "{s:.12},{y},{q},{p}"),
    "TIAToolbox": ("wsi_name,label,logit", "{s}.svs,{y},{logit}"),
    "MONAI": ("image,class_0,class_1", "/data/{s}.svs,{q},{p}"),
    "WSInfer": ("slide;prob_negative;prob_positive", "{s};{q};{p}"),
    "per cent": ("Slide;HER2 score", "{s};{percent} %"),
}


def of_tool(tool):
    """Its table of the six."""
    heading, row = OF_TOOLS[tool]
    rows = [
        row.format(
            s=s, y=y, p=p, q=1 - p, call=int(p > 0.5), word="pos" if p > 0.5 else "neg",
            logit=np.log(p / (1 - p)), percent=f"{100 * p:.1f}".replace(".", ","),
        )
        for s, y, p in SIX
    ]  # fmt: skip
    return "\n".join([heading, *rows])


@pytest.mark.parametrize("tool", OF_TOOLS)
def test_outputs_of_other_tools_are_read_as_they_are(tmp_path, tool):
    """The positive class is found among columns that a program names for itself, and its own decisions are kept."""
    rows = [f"{s[:12]},{s},her2_{'pos' if y else 'neg'}" for s, y, _ in SIX]

    found = opened(tmp_path, of_tool(tool), "\n".join(["case_id,slide_id,label", *rows]))

    predicted = [found.run.predictions[s] for s, _, _ in SIX]
    assert [one.probability for one in predicted] == pytest.approx([p for _, _, p in SIX])
    assert [one.status == Her2Status.POSITIVE for one in predicted] == [p > 0.5 for _, _, p in SIX]


def test_a_label_beside_scores_is_the_label(tmp_path):
    """STAMP names the probability for the label; one table then serves as scores and labels."""
    text = of_tool("STAMP, classes 0 and 1").replace("HER2_1", "HER2_positive")

    path, manifest = tables(tmp_path, text, text)

    assert [row.her2_status == Her2Status.POSITIVE for row in manifest.rows] == [y == 1 for _, y, _ in SIX]
    assert open_predictions(path, manifest).level == "patient"


def test_patients_that_are_written_almost_alike_are_named(tmp_path, command_line):
    """Their scores are lost, and not because a program could not read their slides."""
    slides = [
        MadeUpSlide(f"s{k}", f"P{k:03d}", "positive" if k % 3 else "negative", probability=k / 12) for k in range(12)
    ]
    labels = write_labels(tmp_path / "m.csv", slides)
    rows = [f"{'P-' if k < 2 else 'P'}{k:03d},{0.05 + k / 13:.3f}" for k in range(12)]
    (tmp_path / "s.csv").write_text("\n".join(["patient_id,probability", *rows]))

    code, out, err = command_line("evaluate", tmp_path / "s.csv", "-m", labels, "-o", tmp_path / "out", "--no-plots")

    assert code == 0, err
    assert "2 names are written almost alike in manifest and run ('P000' and 'P-000', 'P001' and 'P-001')" in out


def crossed(prefix=""):
    """Slides 1 to 12, and labels by which they are of the patients 12 to 1."""
    numbers = [str(k) for k in range(1, 13)]
    rows = [f"{k},{k}.svs,{prefix}{13 - int(k)},{'negative' if int(k) % 3 else 'positive'}" for k in numbers]
    return numbers, "\n".join(["slide_id,path,patient_id,her2_status", *rows])


@pytest.mark.parametrize(("heading", "level"), [("patient_id", "patient"), ("Case ID", "patient"), ("slide", "slide")])
def test_a_heading_tells_numbers_of_patients_from_those_of_slides(tmp_path, heading, level):
    """Both are 1 to 12: joined by the other one, each would have somebody else's score."""
    numbers, labels = crossed()
    scores = "\n".join([f"{heading},probability", *(f"{k},0.{int(k):02d}" for k in numbers)])

    found = opened(tmp_path, scores, labels)

    assert found.level == level
    assert found.run.predictions["1"].probability == (0.12 if level == "patient" else 0.01)


def test_numbers_that_may_be_either_are_refused(tmp_path):
    """Nothing says which, unless each patient's slide has its number."""
    numbers, labels = crossed()
    scores = "\n".join(["id,probability", *(f"{k},0.{int(k):02d}" for k in numbers)])
    with pytest.raises(EvaluationError, match="the names in 'id' are those of slides, and of patients of other slides"):
        opened(tmp_path, scores, labels)
    with pytest.raises(EvaluationError, match="and of patients of other slides"):  # two alike are not all
        opened(tmp_path, scores, labels.replace("1.svs,12,", "1.svs,1,").replace("12.svs,1,", "12.svs,12,"))
    alike = re.sub(r"^(\d+),(\d+).svs,\d+", r"\1,\2.svs,\1", labels, flags=re.MULTILINE)

    assert opened(tmp_path, scores, alike).run.predictions["1"].probability == 0.01


def test_a_number_of_a_case_may_be_that_of_a_specimen(tmp_path):
    """The column of slides holds: its rows were taken for those of other patients, and refused."""
    numbers, labels = crossed()
    scores = "\n".join(["slide,Case No,probability", *(f"{k},{k},0.{int(k):02d}" for k in numbers)])

    found = opened(tmp_path, scores, labels)

    assert (found.level, found.run.predictions["1"].probability) == ("slide", 0.01)


@pytest.mark.parametrize("heading", ["patient_id", "Case No"])
def test_the_numbers_of_rows_are_no_slides(tmp_path, heading):
    """They are found among the slides, but not as those of the rows' patients."""
    numbers, labels = crossed("P")
    rows = [f"{k},P{k},0.{int(k):02d}" for k in numbers]

    found = opened(tmp_path, "\n".join([f"id,{heading},probability", *rows]), labels)

    assert found.level == "patient"
    assert found.run.predictions["1"].probability == 0.12


def test_rows_beside_their_patient_are_those_of_his_slides(tmp_path):
    """Each of a patient's slides has a score of its own, and the heading of the slides does not say so."""
    numbers, labels = crossed("P")
    labels = re.sub(r"P(\d+)", lambda found: f"P{int(found[1]) // 2}", labels)
    rows = [f"{k},P{(13 - int(k)) // 2},0.{int(k):02d}" for k in numbers]

    found = opened(tmp_path, "\n".join(["id,patient_id,probability", *rows]), labels)

    assert found.level == "slide"
    assert [found.run.predictions[k].probability for k in ("1", "12")] == [0.01, 0.12]


def test_a_blank_score_is_a_failure_and_an_unknown_slide_is_named(tmp_path):
    """Neither is lost."""
    found = opened(tmp_path, "slide,score\na,\nb,0.5\nc,0.4\n")

    assert list(found.run.failures) == ["a"]
    assert list(found.run.predictions) == ["b", "c"]


LABELS_OF_40 = "slide_id,path,patient_id,her2_status\n" + "".join(
    f"s{k},s{k}.svs,P{k},{'positive' if k % 2 else 'negative'}\n" for k in range(40)
)
NUMBERS_OF_40 = [round(0.02 + k * 7 % 40 / 42, 3) for k in range(40)]


def one_column(heading):
    """A table whose only numbers have this heading."""
    return "\n".join([f"slide,{heading}", *(f"s{k},{p}" for k, p in enumerate(NUMBERS_OF_40))])


@pytest.mark.parametrize(
    "heading",
    [
        *("P(negative)", "her2_negative_probability", "negative_score", "HER2-neg probability", "p(HER2-)"),
        *("P(HER2 -)", "HER2- probability", "HER2\u2212", "HER2 -ve score", "probability_low", "HER2-low probability"),
        *("non_amplified_prob", "nonamplified", "not_her2_positive", "non-HER2 prob", "prob_0", "P(y=0)", "0_prob"),
        *("class_0_prob", "prob_class0", "P(no)", "probNegative", "HER2Negative", "pneg", "1 - p", "1-P(HER2+)"),
        *("prob_1+", "HER2/neu negative", "ERBB2_neg", "probability (negative)", "prawdopodobienstwo negatywne"),
        *("HER2\u9634\u6027\u6982\u7387", "HER2 \u9670\u6027"),
    ],
)
def test_scores_of_the_negative_class_are_refused(tmp_path, heading):
    """However the class is written, unless the user names the column."""
    with pytest.raises(EvaluationError, match="is of the negative class by its name; add the probability of HER2-p"):
        opened(tmp_path, one_column(heading), LABELS_OF_40)

    named = opened(tmp_path, one_column(heading), LABELS_OF_40, score_column=heading)
    assert named.run.predictions["s3"].probability == NUMBERS_OF_40[3]


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("ER_probability", "the oestrogen receptor"),
        ("Estrogen receptor", "the oestrogen receptor"),
        ("er_positive", "the oestrogen receptor"),
        ("PR_probability", "the progesterone receptor"),
        ("Ki67", "Ki-67"),
        ("Ki-67 index", "Ki-67"),
        ("PD-L1", "PD-L1"),
        ("tumor_probability", "tumour"),
        ("uncertainty", "uncertainty"),
        ("HER2 uncertainty", "uncertainty"),
        ("predictive_entropy", "uncertainty"),
        ("epistemic", "uncertainty"),
        ("TNBC_probability", "the subtype or grade"),
        ("tumour_area", "tumour"),
        ("tissue_area", "something else"),
        ("confidence", "the confidence in the class that was called"),
        ("predicted_class_prob", "the confidence in the class that was called"),
        ("max_probability", "the confidence in the class that was called"),
        ("p_value", "something else"),
        ("rank", "something else"),
        ("attention", "something else"),
        ("distance to positive", "something else"),
    ],
)
def test_numbers_of_something_else_are_no_score(tmp_path, heading, kind):
    """Though they are the only ones: what they are taken for is said, and the user may name them all the same."""
    with pytest.raises(EvaluationError, match=f"is taken for {kind} by its name.*name it by --score-column") as caught:
        opened(tmp_path, one_column(heading), LABELS_OF_40)

    assert "\n" not in str(caught.value)
    named = opened(tmp_path, one_column(heading), LABELS_OF_40, score_column=heading)
    assert named.run.predictions["s3"].probability == NUMBERS_OF_40[3]


@pytest.mark.parametrize(
    "heading",
    [
        *("P(positive)", "p(HER2+)", "Pr(HER2+)", "her2_positive_probability", "HER2-score", "HER2 - probability"),
        *("score-HER2", "non_negative_prob", "1 - p_negative", "amplified_prob", "low_mag_prob", "fold10", "ABMIL-UNI"),
        *("CLAM+TransMIL", "HER2", "confidence_positive", "her2_er_model", "non-linear model", "pos_vs_neg"),
        *("attention_mil_score", "HER2\u9633\u6027\u6982\u7387", "weighted_mean_prob", "predicted_probability"),
        *("HER2_positive_area", "stained_area"),
    ],
)
def test_other_headings_are_scores(tmp_path, heading):
    """A word that only looks like the negative class, or like another marker, refuses nothing."""
    assert opened(tmp_path, one_column(heading), LABELS_OF_40).run.predictions["s3"].probability == NUMBERS_OF_40[3]


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("P(negative)", "P(positive)"),
        ("her2_negative_probability", "her2_positive_probability"),
        ("non_amplified_prob", "amplified_prob"),
        ("probability_low", "probability_high"),
        ("class_0_prob", "class_1_prob"),
    ],
)
def test_the_positive_one_of_two_classes_is_the_score(tmp_path, negative, positive):
    """Wherever in the heading the class is named."""
    rows = [f"s{k},{1 - p:.3f},{p}" for k, p in enumerate(NUMBERS_OF_40)]

    found = opened(tmp_path, "\n".join([f"slide,{negative},{positive}", *rows]), LABELS_OF_40)

    assert [one.probability for one in found.run.predictions.values()] == NUMBERS_OF_40


def of_the_called_class(n_positive=12, lowest=0.55, turn="{:.3f}", calls=("negative", "positive")):
    """Forty decisions, each with the probability of what was called."""
    shares = [lowest + (0.99 - lowest) * (k * 7 % 40) / 40 for k in range(40)]
    rows = [f"s{k},{calls[k < n_positive]},{turn.format(share)}" for k, share in enumerate(shares)]
    return "\n".join(["slide,prediction,probability", *rows])


@pytest.mark.parametrize(
    ("table", "choices"),
    [
        (of_the_called_class(), {}),
        (of_the_called_class(3), {}),
        (of_the_called_class(calls=("HER2-", "HER2+")), {}),
        (of_the_called_class(turn="{:.1%}"), {}),
        (of_the_called_class(turn="{:.3f}"), {"scale": "any"}),
        (of_the_called_class(turn="{:.3f}"), {"scale": "logit"}),
        (of_the_called_class(), {"threshold": 0.5}),
        (of_the_called_class().replace("probability", "confidence"), {"score_column": "confidence"}),
        (of_the_called_class().replace("prediction", "class"), {"call_column": "class"}),
    ],
)
def test_the_probability_of_the_called_class_is_no_score(tmp_path, table, choices):
    """Negatives have high ones, too, which no threshold explains; on every scale, and whatever the threshold."""
    said = r"looks like the score of the class that was called.* \(1 - it for those called negative\), or name another"
    with pytest.raises(EvaluationError, match=said) as caught:
        opened(tmp_path, table, LABELS_OF_40, **choices)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("heading", ["class", "result", "diagnosis"])
def test_decisions_under_an_unusual_heading_are_told(tmp_path, heading):
    """They may be labels, so that the score is not refused, but it is not taken without a word."""
    table = of_the_called_class().replace("prediction", heading)

    (said,) = [note for note in opened(tmp_path, table, LABELS_OF_40).notes if "CAUTION" in note]

    assert "'probability' may be the score of the class that was called: it is at least 0.5 everywhere" in said
    assert said.endswith(f"if these are the tool's decisions, and not labels, name them by --call-column {heading!r}.")


@pytest.mark.parametrize(
    "table",
    [
        of_the_called_class(lowest=0.45).replace("prediction", "class"),
        of_the_called_class(calls=("A", "B")).replace("prediction", "class"),
        "\n".join(["slide,class,probability", *(f"s{k},{int(k > 20)},{0.5 + k / 100}" for k in range(40))]),
    ],
    ids=["below one half", "no decisions", "explained"],
)
def test_scores_beside_other_classes_are_taken_without_a_caution(tmp_path, table):
    """Where nothing speaks for the class that was called."""
    assert not any("CAUTION" in note for note in opened(tmp_path, table, LABELS_OF_40).notes)


@pytest.mark.parametrize(
    "table",
    [of_the_called_class(lowest=0.45), of_the_called_class(2), of_the_called_class(0), of_the_called_class(40)],
    ids=["below one half", "two contradictions", "all negative", "all positive"],
)
def test_decisions_that_the_score_does_not_explain_are_kept(tmp_path, table):
    """Unless it is at least one half everywhere and three or more are against every threshold."""
    assert len(opened(tmp_path, table, LABELS_OF_40).run.predictions) == 40


def test_a_minus_sign_is_a_negative_decision(tmp_path):
    """HER2- and HER2+ differ by nothing else."""
    found = opened(tmp_path, "slide,score,call\na,0.3,HER2-\nb,0.6,HER2+\n")

    assert [str(one.status) for one in found.run.predictions.values()] == ["negative", "positive"]


@pytest.mark.parametrize(
    ("scores", "choices", "said"),
    [
        ("slide,score\na,3\nb,-1\n", {}, r"go from -1 to 3, so they are no probabilities; pass --scale percent"),
        ("slide,score\na,0.3\nb,1.0000001\n", {}, r"go from 0.3 to 1.0000001, so they are no probabilities"),
        ("slide,score\na,3\nb,-1\n", {"scale": "percent"}, r"outside 0 to 100"),
        ("slide,score\na,70%\nb,0.8\n", {}, r"1 scores in .score. are in per cent and 1 have no % sign, as 0.8 on"),
        ("slide,logit\na,40\nb,50\nc,1\n", {}, r"40 and 50 in 'logit' would count as equal; pass --scale any"),
        ("slide,score\na,3\nb,4\nc,-1e30\n", {"scale": "any", "threshold": 3.5}, r"go from -1e\+30 to 4: leave those"),
        ("slide,score\na,3\nb,1e999\n", {"scale": "any", "threshold": 3.5}, r"'1e999' is too large a number"),
        ("slide,score\na,0.3\nb,0.4\n", {"threshold": float("nan")}, r"--threshold nan is no number that scores can"),
        ("slide,score,threshold\na,30%,0.5\nb,70%,0.5\n", {}, r"threshold: 0.5 may be a share of 1, and the"),
        ("slide,score\na,3\nb,-1\n", {"scale": "any"}, r"scores of any scale need --threshold, or decisions"),
        ("slide,score\na,1\nb,0\n", {}, r"holds only 0 and 1, decisions rather than scores"),
        ("slide,score\na,0.3\na,0.4\n", {}, r"slide 'a' has several scores \(lines 2 and 3\)"),
        ("slide,score,call\na,0.3,positive\na,0.3,negative\n", {}, r"slide 'a' has several calls \(lines 2 and 3\)"),
        ("slide,score\na,high\nb,0.4\n", {}, r"line 2: score: 'high' is no number"),
        ("slide,x,y\na,0.3,0.2\nb,0.4,0.1\n", {}, r"name it by --score-column; it has slide, x, y"),
        (
            "slide,p_0,p_1,p_2\n" + "".join(f"{c},0.{k}2,0.{k}1,0.{k}4\n" for k, c in enumerate("abcdef")),
            {}, r"p_0, p_1, p_2 may be of 3 classes; add one column",
        ),
        (
            "slide,prob_negative\n" + "".join(f"{c},0.{k}2\n" for k, c in enumerate("abcdef")),
            {}, r"'prob_negative' is of the negative class by its name",
        ),
        ("specimen,score\na,0.3\n", {}, r"no column of slides or patients; name it by --id-column"),
        ("slide,score,call\na,0.3,maybe\n", {}, r"'maybe' is no decision"),
        ("slide,score,threshold\na,0.3,0.5\nb,0.2,0.4\n", {}, r"holds 2 thresholds; pass --threshold"),
        ("slide,score,threshold\na,0.3,0.5\nb,0.2,\n", {}, r"line 3: threshold: holds no threshold; pass --threshold"),
        ("slide,score,threshold\na,0.3,50\n", {}, r"the threshold in 'threshold', 50, is beyond the scores' scale"),
        ("slide,score\na,0.3\n", {"threshold": 50}, r"the threshold that was given, 50, is beyond the scores' scale"),
        ("slide,score,threshold\na,0.3,half\n", {}, r"line 2: threshold: 'half' is no number; pass --threshold"),
        ("slide,score\na,\nb,NA\n", {}, r"every score in 'score' is blank"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, scores, choices, said):
    """With what was found and what to do."""
    path, manifest = tables(tmp_path, scores)
    with pytest.raises(EvaluationError, match=said) as caught:
        open_predictions(path, manifest, ScoreReading(**choices))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--scale", "logit", "--score-column", "no"), "--score-column, --scale"),
        (("--id-column", "no"), "--id-column"),
        (("--call-column", "no"), "--call-column"),
        (("--threshold", "0.1"), "--threshold"),
    ],
)
def test_runs_of_predict_take_no_choices_of_tables(tmp_path, command_line, words, named):
    """They would change nothing; beside a table they are its own."""
    slides = cohort()
    runs = [write_run(tmp_path / name, slides) for name in "ab"]
    labels = ("-m", write_labels(tmp_path / "m.csv", slides), "-o", tmp_path / "out", "--no-plots")
    (tmp_path / "t.csv").write_text("slide,no,x\n" + "".join(f"{s.slide_id},{s.probability},1\n" for s in slides))

    for line in (("evaluate", runs[0]), ("evaluate", runs[0], "--seeds", runs[1]), ("compare", *runs)):
        code, _, error = command_line(*line, *labels, *words)
        assert (code, error.count("\n")) == (2, 1)
        assert f"leave out {named} (for CSVs of scores)" in error
    assert "a run of predict has" not in command_line("compare", runs[0], tmp_path / "t.csv", *labels, *words)[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("evaluate", "none.csv"),
            "none.csv: there is no such file or folder; give a run of",
        ),
        (("compare", "scores.csv", "none"), "none: there is no such file or folder"),
        (("recalibrate", "scores.csv", "--weights", "bundled"), "scores.csv: holds no predictions.csv"),
        (("evaluate", "scores.csv", "--weights", "bundled"), "scores.csv: has no tiles that --weights could redraw"),
    ],
)
def test_the_run_that_is_none_is_named(tmp_path, command_line, monkeypatch, options, said):
    """And not the labels, which are of patients and need no run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores.csv").write_text("patient,score\nP1,0.3\nP2,0.4\nP3,0.6\nP4,0.2\n")
    (tmp_path / "labels.csv").write_text("patient,her2\nP1,negative\nP2,positive\nP3,positive\nP4,negative\n")
    code, _, error = command_line(*options, "-m", "labels.csv", "-o", "out")

    assert (code, error.count("\n")) == (2, 1)
    assert said in error


@pytest.mark.parametrize("heading", ["patient_id", "slide_id"])
def test_accession_numbers_may_hold_a_slash(tmp_path, command_line, heading):
    """No folder is made of the names of another tool's scores; a manifest, whose slides get folders, is refused."""
    names = [f"H23/{k}" for k in range(12)]
    status = ["positive" if k % 3 else "negative" for k in range(12)]
    labels = "".join(f"{name},{name}.svs,{name},{of}\n" for name, of in zip(names, status, strict=True))
    (tmp_path / "manifest.csv").write_text(f"slide_id,path,patient_id,her2_status\n{labels}")
    rows = "".join(f"{name},{of}\n" for name, of in zip(names, status, strict=True))
    (tmp_path / "labels.csv").write_text(f"{heading},her2_status\n{rows}")
    (tmp_path / "scores.csv").write_text(f"{heading},score\n" + "".join(f"{n},0.{k}\n" for k, n in enumerate(names)))
    line = ["evaluate", tmp_path / "scores.csv", "-m", tmp_path / "labels.csv", "-o", tmp_path / "out", "--no-plots"]

    code, said, error = command_line(*line)

    assert (code, error) == (0, "")
    assert "Of 12 patients 8 were HER2-positive" in said
    assert (
        "line 2: slide_id: 'H23/0' cannot name a folder"
        in command_line("manifest", "check", tmp_path / "manifest.csv")[2]
    )
