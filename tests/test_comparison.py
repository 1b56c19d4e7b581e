"""`he2her2 compare`: paired tests of several runs, corrected for their number."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from he2her2.errors import EvaluationError
from he2her2.evaluation.comparison import Pair, compare_runs, compare_several
from he2her2.evaluation.comparison_folder import plot_comparison
from he2her2.statistics import aucs_equal, holm
from tests.made_up_runs import MadeUpSlide, made_up_cases, write_labels, write_run
from tests.test_calibration_slope import golden_cases


def three_scores():
    """Truth and three scores without a random draw."""
    truth, p = golden_cases()
    k = np.arange(200)
    second, third = 0.5 + 0.5 * np.sin(1.7 * k) + 0.8 * p, p + 0.6 * ((k * 0.7548776662) % 1)
    return truth, np.stack([p, np.round(second, 6), np.round(third, 6)])


def test_all_aucs_are_tested_as_by_proc():
    """R, pROC 1.18: contrasts of its DeLong variances and covariances; of two it is its roc.test."""
    truth, scores = three_scores()

    assert aucs_equal(truth, scores) == pytest.approx(0.055925383, rel=1e-5)
    assert aucs_equal(truth, scores[:2]) == pytest.approx(0.036744388, rel=1e-5)


def test_a_model_twice_adds_nothing_to_the_test():
    """Its contrast has no variance; equal models have no test at all."""
    truth, scores = three_scores()

    assert aucs_equal(truth, scores[[0, 1, 2, 0]]) == pytest.approx(aucs_equal(truth, scores), rel=1e-6)
    assert np.isnan(aucs_equal(truth, scores[[0, 0]]))
    assert np.isnan(aucs_equal([True, True], [[0.1, 0.2], [0.2, 0.1]]))


def test_aucs_that_surely_differ_are_no_chance():
    """A perfect ranking and none differ without variance, which the contrasts of a third model must not hide."""
    truth, scores = three_scores()

    assert np.isnan(aucs_equal(truth, [truth, np.full(len(truth), 0.5), scores[0]]))


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ("nnnnnn", "The AUCs of a and b cannot be compared: one of the classes is absent; their decisions"),
        ("pnnnnn", "paired DeLong, p unknown, n = 6 patients); their decisions"),
    ],
)
def test_what_few_patients_cannot_tell_is_no_number(statuses, said):
    """Without a class there is no AUC, and with one patient of it no variance."""
    truth = np.array([status == "p" for status in statuses])
    perfect = replace(made_up_cases(6), truth=truth, probability=0.5 * truth + 0.01 * np.arange(6))

    assert said in compare_runs(perfect, replace(perfect, probability=np.full(6, 0.5)), ("a", "b")).sentence


def test_equal_models_are_called_different_in_one_of_twenty():
    """Three scores of the same strength, over 200 cohorts."""
    rng, called = np.random.default_rng(0), 0
    truth = np.arange(120) < 50
    for _ in range(200):
        shared = rng.normal(size=120) + truth
        called += aucs_equal(truth, shared + rng.normal(size=(3, 120))) < 0.05

    assert 3 <= called <= 20


def several():
    truth = made_up_cases(80, seed=1)
    rng = np.random.default_rng(5)
    worse = np.clip(truth.probability + rng.normal(0, 0.2, 80), 0, 1)
    coin = replace(truth, probability=rng.random(80)).decided_at(0.5)
    return {"a": truth, "b": replace(truth, probability=worse).decided_at(0.5), "c": coin.take(np.arange(70))}


def test_pairs_are_those_of_two_runs_with_holms_p():
    """On the patients that all runs have; with the first only there are fewer."""
    runs = several()
    found = compare_several(runs)
    kept = {name: of_run.take(np.arange(70)) for name, of_run in runs.items()}
    alone = [compare_runs(kept[one], kept[two], (one, two)) for one, two in ("ab", "ac", "bc")]

    assert [pair.comparison for pair in found.pairs] == alone
    assert [pair.auc_p for pair in found.pairs] == holm([one.auc.p_value for one in alone])
    assert [pair.mcnemar_p for pair in found.pairs] == holm([one.mcnemar.exact for one in alone])
    assert found.left_out == {"a": 10, "b": 10, "c": 0}
    assert len(compare_several(runs, with_first=True).pairs) == 2


def test_a_difference_is_claimed_after_correction_only():
    """An interval of one pair that excludes 0 is not enough among three."""
    pair = compare_several(several()).pairs[0]
    gap = replace(pair.comparison.auc.estimate, value=0.1, low=0.01, high=0.19)
    one = replace(pair, comparison=replace(pair.comparison, auc=replace(pair.comparison.auc, estimate=gap)))

    assert "not shown to differ: +0.100" in replace(one, auc_p=0.06).sentence
    assert "a ranks patients better than b" in replace(one, auc_p=0.04).sentence
    assert "by Holm for 3 pairs" in one.sentence


def test_many_pairs_are_told_by_run(tmp_path, monkeypatch):
    """A challenge of 21 teams had 210 sentences, and a plot 3.7 m high; the pairs are in the table."""
    found = compare_several(several())
    many = replace(found, pairs=tuple(replace(pair, auc_p=0.01 * (k + 4)) for k in range(8) for pair in found.pairs))

    of_a, of_b, in_all = many.sentences
    monkeypatch.setattr("he2her2.evaluation.comparison_folder.save", lambda figure, *_: figure.get_size_inches())
    heights = [plot_comparison(one, tmp_path)[1] for one in (found, many)]

    assert found.sentences == tuple(pair.sentence for pair in found.pairs)
    assert of_a == "a ranks better than b, c (paired DeLong, p below 0.05 by Holm for 24 pairs)."
    assert of_b.startswith("b ranks better than c (")
    assert in_all.startswith("Of 24 pairs 3 differ in AUC, and ")
    assert heights == pytest.approx([1.4 + 0.62 * 6, 1.4 + 0.62 * 3])


@pytest.mark.parametrize(("p", "claimed"), [(0.076, False), (0.04, True), (float("nan"), False)])
def test_two_runs_are_judged_by_p_as_three_are(p, claimed):
    """An interval of few patients may exclude 0 where the test does not, or the reverse: the test counts."""
    cases = several()
    alone = compare_runs(cases["a"], cases["b"], ("a", "b"))
    gap = replace(alone.auc.estimate, value=0.1, low=0.01, high=0.19)
    alone = replace(alone, auc=replace(alone.auc, estimate=gap, p_value=p))

    assert ("ranks patients better" in alone.sentence) == claimed
    assert alone.sentence == Pair(alone, p, alone.mcnemar.exact, 1).sentence


def test_nobody_is_left_out_without_a_word(tmp_path, command_line):
    """Counts on page and in print, each slide in a table, doubts of labels among what was read: as in an evaluation."""
    slides = [
        MadeUpSlide(f"s{k}", f"p{k // 2}", "positive" if k % 4 < 2 else "negative", probability=round(k / 40, 3))
        for k in range(40)
    ]
    slides[0] = replace(slides[0], status="negative")  # s0 and s1 contradict each other
    slides[4] = replace(slides[4], status="", ihc_score="2+")
    slides[8] = replace(slides[8], status="negative", ihc_score="3+")
    labels = write_labels(
        tmp_path / "labels.csv", [replace(slide, slide_id=f"{slide.slide_id}.svs") for slide in slides]
    )
    runs = [write_run(tmp_path / "a", slides), write_run(tmp_path / "b", slides[:-2])]
    code, said, error = command_line("compare", *runs, "-m", labels, "-o", tmp_path / "out", "--no-plots")
    page = (tmp_path / "out" / "comparison.md").read_text()
    _, told, _ = command_line("evaluate", runs[0], "-m", labels, "-o", tmp_path / "e", "--no-plots", "--no-leaks")

    assert (code, error) == (0, "")
    alike = "label undetermined (equivocal without in situ hybridisation) (1), "
    for name, counts in (("a", alike), ("b", f"{alike}not in the run (2), ")):
        for text in (said, page):
            line = f"lides left out of {name}: {counts}its patient's slides have different labels (4); each is named in"
            assert line in text
    with (tmp_path / "out" / "exclusions.csv").open() as file:
        assert [(row["run"], row["slide_id"]) for row in csv.DictReader(file)][:2] == [("a", "s4"), ("a", "s0")]
    doubts = [line for line in told.splitlines() if line.startswith("  read     labels.csv")]
    assert any("slides are those of the run but for the ending" in line for line in doubts)
    assert all(line in said for line in doubts)


def test_a_patient_whom_runs_have_by_slides_of_other_labels_is_not_paired():
    """A run over the negative block of a patient cannot be right or wrong about the positive one."""
    cases = made_up_cases(10)
    other = replace(cases, truth=cases.truth ^ (np.arange(10) == 3))
    found, pair = compare_several({"x": cases, "y": other}), compare_runs(cases, other, ("x", "y"))

    assert (found.left_out, [summary.n for summary in found.runs]) == ({"x": 1, "y": 1}, [9, 9])
    assert (pair.n, pair.only_first, pair.only_second, pair.mcnemar.only_first) == (9, 1, 1, 0)


def test_a_run_is_compared_with_itself():
    """As `evaluate RUN --compare RUN`, whose names are one."""
    cases = made_up_cases(10)
    found = compare_runs(cases, cases, ("x", "x"))

    assert (found.n, found.only_first, found.only_second, found.rates["accuracy"].value) == (10, 0, 0, 0)


def test_runs_that_share_nobody_are_refused():
    """There is nothing to pair."""
    cases = made_up_cases(10)

    with pytest.raises(EvaluationError, match="x, y share no patient"):
        compare_several({"x": cases.take(np.arange(5)), "y": cases.take(np.arange(5, 10))})


def test_the_command_writes_one_table_and_one_plot(tmp_path, command_line):
    """Of run folders and tables of scores together; what was read, left out and found is printed."""
    rng = np.random.default_rng(0)
    slides = [
        MadeUpSlide(f"s{k}", f"p{k}", "positive" if k % 3 == 0 else "negative", probability=round(float(p), 6))
        for k, p in enumerate(np.clip(rng.normal(0.4, 0.2, 60) + 0.3 * (np.arange(60) % 3 == 0), 0, 1))
    ]
    write_run(tmp_path / "ours", slides)
    labels = write_labels(tmp_path / "labels.csv", slides)
    (tmp_path / "theirs.csv").write_text("patient,prob\n" + "".join(f"p{k},{rng.random():.4f}\n" for k in range(55)))
    out = tmp_path / "out"
    code, said, error = command_line("compare", tmp_path / "ours", tmp_path / "theirs.csv", "-m", labels, "-o", out)
    found = json.loads((out / "comparison.json").read_text())

    assert (code, error) == (0, "")
    assert {path.name for path in out.iterdir()} == {
        *("comparison.md", "comparison.json", "comparison.png", "comparison.svg", "runs.csv", "pairs.csv"),
        "exclusions.csv",
    }  # fmt: skip
    assert "ours ranks patients better than theirs.csv" in said
    assert "5 patients of ours are left out" in said
    assert found["pairs"][0]["n"] == 55
    with (out / "runs.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["ours", "theirs.csv"]
    line = ("compare", tmp_path / "ours", tmp_path / "theirs.csv", "-m", labels, "-o", out, "--no-plots")
    assert command_line(*line)[0] == 0
    code, _, error = command_line("compare", tmp_path / "ours", "-m", labels, "-o", tmp_path / "other")
    assert code == 2
    assert "needs two runs or more" in error
    assert command_line("compare", tmp_path / "ours", tmp_path / "theirs.csv", "-m", labels, "-o", tmp_path)[0] == 2
