"""Endpoints beside HER2-positive, and the model at each IHC score."""

import json
from dataclasses import replace

import numpy as np
import pytest

from he2her2.evaluation.endpoints import measure_endpoints, strata_of
from he2her2.labels import Policy, Stratum
from he2her2.manifest import read_labels
from tests.made_up_runs import MadeUpSlide, made_up_cases, write_labels, write_run


def test_strata_follow_score_status_and_faint_staining(tmp_path):
    """Also as a stratum that `he2her2 labels` wrote, or as a spreadsheet's number; what is not stated stays open."""
    rows = [
        *("a,3+,positive,", "b,2+,positive,", "c,2+,negative,", "d,1+,negative,", "e,0,negative,yes"),
        *("f,0,negative,0.0", "g,0,negative,", "h,,negative,", "i,2+,,", "j,3+,negative,"),
    ]  # fmt: skip
    (tmp_path / "l.csv").write_text("\n".join(["patient,IHC,her2_status,Faint staining", *rows]))
    (tmp_path / "s.csv").write_text("patient,IHC,her2_status,stratum\na,0,negative,ultralow\nb,0,negative,null\n")

    assert list(strata_of(read_labels(tmp_path / "l.csv"), Policy.GUIDELINE).values()) == [
        *(Stratum.POSITIVE, Stratum.POSITIVE, Stratum.LOW, Stratum.LOW, Stratum.ULTRALOW),
        *(Stratum.NULL, Stratum.ZERO_OR_ULTRALOW, *[Stratum.UNDETERMINED] * 3),
    ]  # fmt: skip
    assert list(strata_of(read_labels(tmp_path / "s.csv"), Policy.GUIDELINE).values()) == [
        Stratum.ULTRALOW,
        Stratum.NULL,
    ]


def test_strata_follow_the_policy_of_the_evaluation(tmp_path, command_line):
    """A 2+ without in situ hybridisation is positive in the endpoints where it is among the figures."""
    slides = [
        MadeUpSlide(f"s{k}", f"p{k}", ihc_score=("0", "1+", "2+", "3+")[k % 4], probability=round(0.9 - k / 60, 3))
        for k in range(40)
    ]
    run, labels = write_run(tmp_path / "run", slides), write_labels(tmp_path / "labels.csv", slides)
    found = {}
    for policy in ("guideline", "paper"):
        line = ("evaluate", run, "-m", labels, "-o", tmp_path / policy, "--policy", policy, "--no-plots", "--no-leaks")
        assert command_line(*line)[0] == 0
        found[policy] = json.loads((tmp_path / policy / "evaluation.json").read_text())

    positive = [
        (one["groups"]["patients"]["n_positive"], one["endpoints"]["strata"]["positive"]) for one in found.values()
    ]
    assert positive == [(10, 10), (20, 20)]


def test_each_endpoint_has_its_patients(tmp_path):
    """Ultralow against none only where both are stated; a patient of two strata belongs to none."""
    cases = made_up_cases(6, gap=0)
    strata = [Stratum.POSITIVE, Stratum.LOW, Stratum.ULTRALOW, Stratum.NULL, Stratum.ZERO_OR_ULTRALOW]
    by_slide = dict(zip(cases.ids.tolist(), [*strata, Stratum.UNDETERMINED], strict=True))
    found = {one.name: one for one in measure_endpoints(cases, cases, by_slide).endpoints}

    assert {name: (one.n, one.n_positive) for name, one in found.items()} == {
        "HER2-low or positive, against IHC 0": (5, 2),
        "HER2-low, against IHC 0": (4, 1),
        "HER2-ultralow, low or positive, against no staining": (4, 3),
        "HER2-ultralow, against no staining": (2, 1),
    }
    assert all(one.by_score is not None and one.by_score.n == one.n for one in found.values())
    unscored = replace(cases, predicted_score=cases.predicted_score * 0 - 1)
    assert {one.by_score for one in measure_endpoints(unscored, unscored, by_slide).endpoints} == {None}
    two = replace(cases, patients=cases.patients.copy())
    two.patients[1] = two.patients[0]
    kept = cases.take(cases.ids != cases.ids[1])
    assert measure_endpoints(kept, two, by_slide).strata[Stratum.UNDETERMINED] == 2


def test_each_score_has_its_calls_and_its_recall():
    """2+ also by status; the recalls are of predicted scores, and their mean is over scores."""
    cases = made_up_cases(80, gap=3)
    found = measure_endpoints(cases, cases, dict.fromkeys(cases.ids.tolist(), Stratum.UNDETERMINED))
    rows = {row.name: row for row in found.scores}

    assert list(rows) == ["IHC 0", "IHC 1+", "IHC 2+", "IHC 2+, HER2-negative", "IHC 2+, HER2-positive", "IHC 3+"]
    assert sum(rows[f"IHC {score}"].n for score in ("0", "1+", "2+", "3+")) == 80
    assert rows["IHC 3+"].called.value == cases.decided[cases.true_score == 3].mean()
    assert rows["IHC 2+, HER2-negative"].recall is None
    recalls = [(cases.predicted_score == k)[cases.true_score == k].mean() for k in range(4)]
    assert found.macro_recall == pytest.approx(sum(recalls) / 4)
    assert found.endpoints == ()
    half = replace(cases, predicted_score=np.where(np.arange(80) % 2, cases.predicted_score, -1))
    of_half = measure_endpoints(half, half, dict.fromkeys(cases.ids.tolist(), Stratum.LOW)).scores
    of_known = half.take(half.predicted_score >= 0)
    assert [row.recall.value for row in of_half if row.recall] == [
        (of_known.predicted_score == k)[of_known.true_score == k].mean() for k in range(4)
    ]
    without = replace(cases, predicted_score=cases.predicted_score * 0 - 1)
    assert measure_endpoints(without, without, dict.fromkeys(cases.ids.tolist(), Stratum.LOW)).macro_recall is None


def test_the_page_has_them(tmp_path, command_line):
    """With the strata that the labels allow, and what wrong labels could do."""
    scores = ("0", "1+", "2+", "3+")
    slides = [
        MadeUpSlide(f"s{k}", "", "positive" if k % 4 == 3 else "negative", scores[k % 4], probability=0.2 + 0.01 * k)
        for k in range(60)
    ]
    write_run(tmp_path / "run", slides)
    labels = write_labels(tmp_path / "labels.csv", slides)
    code, _, _ = command_line(
        "evaluate", tmp_path / "run", "-m", labels, "-o", tmp_path / "out", "--no-plots", "--no-leaks"
    )
    page = (tmp_path / "out" / "evaluation.md").read_text()
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())

    assert code == 0
    assert "| IHC 3+ | 15 |" in page
    assert "| HER2-low, against IHC 0 | 45 | 30 |" in page
    assert "no column states faint staining" in page
    assert [one["share"] for one in found["wrong_labels"]] == [0.01, 0.02, 0.05, 0.1]
    assert found["endpoints"]["strata"] == {"zero or ultralow": 15, "low": 30, "positive": 15}
