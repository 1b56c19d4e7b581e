"""Scores on a scale of their own: one for all tables of a question, and the user's own in all that is told."""

import json
import re

import numpy as np
import pytest

from he2her2.csv_files import read_csv
from he2her2.evaluation import ScoreReading, evaluate
from he2her2.evaluation.question import Question
from he2her2.evaluation.report import evaluation_lines
from he2her2.evaluation.score_scale import ScoreScale
from he2her2.evaluation.thresholds import Budgets
from he2her2.rules import combine

BUDGETS = Budgets(miss=0.1, false=0.1)
FAR_AWAY = {"any": 800.0, "percent": 99.0, "logit": 12.0}


def study(folder, scale="any", n=300):
    """A table of scores of validation and test slides, its labels, and tables of either alone."""
    rng = np.random.default_rng(0)
    truth = rng.random(n) < 0.4
    scores = rng.normal(size=n) + 2 * truth
    scores = {"any": 20 + 7 * scores, "percent": 40 + 7 * scores, "logit": scores}[scale].round(4)
    scores[-1] = FAR_AWAY[scale]  # of the test slides
    rows = [
        (
            f"s{k}",
            f"{scores[k]}",
            f"s{k}.svs",
            f"P{k}",
            "positive" if truth[k] else "negative",
            "val" if k < n // 2 else "test",
        )
        for k in range(n)
    ]
    for name, kept in (("both", rows), ("val", rows[: n // 2]), ("test", rows[n // 2 :])):
        (folder / f"{name}.csv").write_text("slide_id,score\n" + "".join(f"{row[0]},{row[1]}\n" for row in kept))
        labels = "slide_id,path,patient_id,her2_status,split\n" + "".join(
            f"{','.join((row[0], *row[2:]))}\n" for row in kept
        )
        (folder / f"labels_{name}.csv").write_text(labels)
    return folder


def asked(folder, table, scale="any", threshold=20.0, **options):
    question = Question(
        folder / f"{table}.csv", folder / f"labels_{table}.csv", budgets=BUDGETS,
        reading=ScoreReading(scale=scale, threshold=threshold), **options,
    )  # fmt: skip
    return evaluate(question)


def test_tables_of_a_question_have_one_scale(tmp_path):
    """Rules chosen on a table of their own, and seeds in one, are those of the same scores in one table."""
    study(tmp_path)

    one = asked(tmp_path, "both", seeds=(tmp_path / "both.csv",))
    apart = asked(
        tmp_path, "test", seeds=(tmp_path / "both.csv",),
        validation=tmp_path / "val.csv", validation_manifest=tmp_path / "labels_val.csv",
    )  # fmt: skip

    assert one.applied is not None
    assert apart.applied is not None
    assert apart.applied.choice.point.threshold == one.applied.choice.point.threshold
    assert apart.applied.choice.triage.rule_out_below == one.applied.choice.triage.rule_out_below
    assert apart.applied.here == one.applied.here
    assert apart.applied.calibrated.brier == one.applied.calibrated.brier
    for evaluation in (one, apart):
        (seeds,) = (audit for audit in evaluation.audits if audit.name == "seeds")
        assert {row["sd"] for row in seeds.rows} == {0}


@pytest.mark.parametrize(("scale", "threshold"), [("any", 20.0), ("percent", 45.0), ("logit", 0.5)])
def test_thresholds_are_told_on_the_scale_of_the_scores(tmp_path, command_line, scale, threshold):
    """On the page, in print and in the tables, the run's own as well as those chosen; none is called a probability."""
    study(tmp_path, scale)
    code, said, error = command_line(
        "evaluate", tmp_path / "both.csv", "-m", tmp_path / "labels_both.csv", "-o", tmp_path / "out", "--scale", scale,
        "--threshold", threshold, "--miss", 0.1, "--false", 0.1, "--no-plots",
    )  # fmt: skip

    assert (code, error) == (0, "")
    rows = list(read_csv(tmp_path / "both.csv"))
    scores = {row["slide_id"]: float(row["score"]) for row in rows}
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    point, triage = found["choice"]["choice"]["point"], found["choice"]["choice"]["triage"]
    assert min(abs(score - point["threshold"]) for score in scores.values()) < 1e-3
    assert f"called positive from a score of {point['threshold']:.6g}, so that" in said
    assert f"ruled out below {triage['rule_out_below']:.6g}, ruled in from {triage['rule_in_from']:.6g}, in" in said
    page = (tmp_path / "out" / "evaluation.md").read_text()
    assert triage["clipped"]
    assert "A limit that lay beyond the threshold that calls was moved to it" in said
    assert "A limit that lay beyond the threshold that calls was moved to it" in page
    decisions = re.findall(r"^\| patients(?:, chosen threshold)? \| (\S+) \|", page, re.MULTILINE)
    assert decisions == [f"{threshold:g}", f"{point['threshold']:.6g}"]
    assert "from a probability" not in said + page
    written = list(read_csv(tmp_path / "out" / "slides.csv"))
    assert {row["id"]: float(row["score"]) for row in written} == pytest.approx(
        {name: scores[name] for name in (row["id"] for row in written)}
    )


def test_nobody_is_ruled_in_above_the_highest_score(tmp_path):
    """A limit above all scores is not told as the highest of them."""
    study(tmp_path)
    text = (tmp_path / "both.csv").read_text()
    negative = next(line for line in (tmp_path / "labels_val.csv").read_text().splitlines() if "negative" in line)
    name = negative.partition(",")[0]
    (tmp_path / "both.csv").write_text(re.sub(rf"^{name},.*$", f"{name},900", text, flags=re.MULTILINE))
    question = Question(
        tmp_path / "both.csv", tmp_path / "labels_both.csv", budgets=Budgets(miss=0.1, false=0.013),
        reading=ScoreReading(scale="any", threshold=20.0),
    )  # fmt: skip

    said = evaluation_lines(evaluate(question), tmp_path)

    assert "nobody ruled in, in between referred to IHC" in said


@pytest.mark.parametrize("name", ["probability", "percent", "logit", "any"])
def test_a_score_comes_back(name):
    """The way to numbers in [0, 1] and back changes nothing."""
    scale = ScoreScale.of(name, [0.07, 0.29, 0.9])

    assert [scale.score(float(p)) for p in scale.share([0.07, 0.29, 0.9])] == [0.07, 0.29, 0.9]
    assert (np.diff(scale.share([0.07, 0.29, 0.9])) > 0).all()
    far, one = ScoreScale("logit"), ScoreScale.of("any", [5.0])
    assert [far.score(combine("mean", p)) for p in far.share([-30, -20, 18, 25])] == pytest.approx([-30, -20, 18, 25])
    assert one.score(float(one.share(5.0))) == 5.0
