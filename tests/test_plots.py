"""The curves behind the plots, and the plots themselves."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from PIL import Image
from scipy.stats import norm
from sklearn import metrics as sk

from he2her2.evaluation import plots, summarise
from he2her2.evaluation.audits import site_results
from he2her2.evaluation.benefit import decision_curves
from he2her2.evaluation.plot_style import Note, canvas, save
from he2her2.evaluation.summary import reliability
from he2her2.statistics import auc, precision_recall, roc_curve, saved_against_missed
from tests.made_up_runs import made_up_cases

NOTICES = ("phantom slides: they prove the machinery, never the medicine",)


def curve_arrays(cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a curve is drawn from."""
    return cases.truth, cases.probability, cases.patients


@given(seed=st.integers(0, 10_000), digits=st.integers(1, 3))
def test_roc_corners_are_scikit_learns(seed, digits):
    """Also with tied scores: same shares of false and true positives."""
    cases = made_up_cases(25, seed=seed)
    cases = replace(cases, probability=cases.probability.round(digits))

    line = roc_curve(*curve_arrays(cases), draws=1).line

    false, true, _ = sk.roc_curve(cases.truth, cases.probability, drop_intermediate=False)
    ours = {(round(x, 9), round(y, 9)) for x, y in line.tolist()}
    assert ours == {(round(x, 9), round(y, 9)) for x, y in zip(false.tolist(), true.tolist(), strict=True)}
    assert np.trapezoid(line[:, 1], line[:, 0]) == pytest.approx(auc(cases.truth, cases.probability))


@given(seed=st.integers(0, 10_000))
def test_precision_recall_corners_are_scikit_learns(seed):
    """Every threshold's recall and precision."""
    cases = made_up_cases(25, seed=seed)

    line = precision_recall(*curve_arrays(cases), draws=1).line

    precision, recall, _ = sk.precision_recall_curve(cases.truth, cases.probability)
    theirs = {(round(x, 9), round(y, 9)) for x, y in zip(recall[:-1].tolist(), precision[:-1].tolist(), strict=True)}
    assert theirs <= {(round(x, 9), round(y, 9)) for x, y in line.tolist()}


@given(seed=st.integers(0, 10_000))
def test_saved_and_missed_are_counted(seed):
    """At each threshold: who is below it is saved a test, and the positives among them are missed."""
    cases = made_up_cases(25, seed=seed)
    corners = {(round(x, 9), round(y, 9)) for x, y in saved_against_missed(*curve_arrays(cases), draws=1).line.tolist()}

    for threshold in cases.probability:
        below = cases.probability <= threshold
        missed, saved = float(below[cases.truth].mean()), float(below.mean())
        assert (round(missed, 9), round(saved, 9)) in corners


def test_at_another_prevalence_the_classes_are_weighted_anew():
    """Saved is p times the missed plus 1 - p times the true negatives."""
    cases = made_up_cases(60)
    missed = saved_against_missed(*curve_arrays(cases), draws=1).line[:, 0]

    all_positive, all_negative, mixed = (
        saved_against_missed(*curve_arrays(cases), p).line[:, 1] for p in (1.0, 0.0, 0.15)
    )

    assert all_positive == pytest.approx(missed)
    assert mixed == pytest.approx(0.15 * missed + 0.85 * all_negative)


@pytest.mark.parametrize("curve", [roc_curve, precision_recall, saved_against_missed])
def test_a_band_holds_its_curve_and_narrows_with_n(curve):
    """A band of many patients lies inside the unit square and is thinner."""
    few, many = (curve(*curve_arrays(made_up_cases(n))) for n in (20, 2000))

    assert (few.low >= 0).all()
    assert (few.high <= 1 + 1e-9).all()
    assert (many.high - many.low).mean() < 0.25 * (few.high - few.low).mean()


def test_eight_patients_in_perfect_order_have_a_wide_band():
    """The band does not collapse to a line where everything is right."""
    cases = replace(made_up_cases(8, share=0.5), truth=np.arange(8) >= 4, probability=np.linspace(0, 1, 8))

    band = roc_curve(*curve_arrays(cases))

    assert band.low[100] < 0.7
    assert band.high[100] == pytest.approx(1)


def test_roc_bands_cover_the_truth():
    """Over 40 cohorts the band at a false-positive share of 0.2 covers the true curve in about 95 %."""
    true = 1 - 0.4364  # Phi(Phi^-1(0.2) + 1) for classes one standard deviation apart
    bands = [roc_curve(*curve_arrays(made_up_cases(60, seed=seed)), draws=200) for seed in range(40)]

    covered = sum(band.low[40] <= true <= band.high[40] for band in bands)

    assert covered >= 34


def test_the_simultaneous_band_holds_the_whole_true_curve():
    """Everywhere at once in about 95 % of 60 cohorts; the pointwise band does so far less often."""
    rng, held = np.random.default_rng(0), np.zeros(2)
    truth = np.arange(100) < 40
    for k in range(60):
        curve = roc_curve(truth, rng.normal(size=100) + truth, np.arange(100).astype(str), seed=k, draws=500)
        true = norm.cdf(norm.ppf(curve.x) + 1)[1:-1]  # both ends are known
        bands = ((curve.all_low, curve.all_high), (curve.low, curve.high))
        held += [((low[1:-1] <= true) & (true <= high[1:-1])).all() for low, high in bands]

    assert held[0] >= 52
    assert held[1] <= 49


def test_the_pointwise_band_lies_within_the_simultaneous_one():
    """Which is wider nearly everywhere."""
    curve = roc_curve(*curve_arrays(made_up_cases(60)))

    assert (curve.all_low <= curve.low).all()
    assert (curve.high <= curve.all_high).all()
    assert (curve.all_high - curve.all_low).sum() > 1.1 * (curve.high - curve.low).sum()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Every plot of a cohort of 48 from two sites, one with the name of a whole institute."""
    folder = tmp_path_factory.mktemp("plots")
    cases = made_up_cases(48, sites=("Institute of Pathology, University Hospital of the North, Campus East", "south"))
    summary = summarise(cases, "patients")
    files = [
        plots.plot_roc(cases, summary, NOTICES, folder / "roc"),
        plots.plot_precision_recall(cases, summary, NOTICES, folder / "pr"),
        plots.plot_saved(cases, summary, 0.15, NOTICES, folder / "saved"),
        plots.plot_scores(cases, summary, NOTICES, folder / "scores"),
        plots.plot_confusion(summary, NOTICES, folder / "confusion"),
        plots.plot_score_matrix(summary, NOTICES, folder / "score_matrix"),
        plots.plot_forest(site_results(cases), summary, NOTICES, folder / "sites"),
        plots.plot_calibration(reliability(cases), reliability(cases), summary, NOTICES, folder / "calibration"),
    ]
    return summary, [file for pair in files for file in pair]


def test_a_model_that_calls_nobody_has_a_plot(tmp_path):
    """Its net benefit is 0 at every threshold, which no axis has to be drawn for."""
    cases = made_up_cases(48)
    cases = replace(cases, probability=np.where(cases.truth, 1e-300, 0.0)).decided_at(0.5)
    curves = decision_curves(cases, None, 0.15)

    assert all(file.is_file() for file in plots.plot_benefit(curves, summarise(cases, "x"), NOTICES, tmp_path / "b"))


def test_every_plot_says_its_n_and_its_notices(drawn):
    """In the SVG text stays text, so it can be read."""
    _, files = drawn

    for file in files[1::2]:
        text = file.read_text()
        assert "n = 48" in text or "48 patients" in text, file.name
        assert f"NOTICE: {NOTICES[0]}" in text, file.name


def test_plots_show_the_figures_of_the_summary(drawn):
    """Label and table cannot differ."""
    summary, files = drawn

    assert f"AUC {summary['AUC'].text()}" in files[1].read_text()
    for count in (summary.counts.tp, summary.counts.fp, summary.counts.tn, summary.counts.fn):
        assert f">{count:.0f}<" in files[9].read_text()


def test_a_long_name_leaves_room_for_the_plot(drawn):
    """In lines of at most 26 letters; in one line the numbers of the panels lay on each other."""
    _, files = drawn
    (sites,) = (file for file in files if file.name == "sites.svg")

    texts = re.findall(r">([^<>]*(?:Pathology|Campus)[^<>]*)<", sites.read_text())
    assert texts
    assert max(map(len, texts)) <= 26


def test_nothing_is_cut_off(drawn):
    """All four borders of every picture are white."""
    _, files = drawn

    for file in files[::2]:
        pixels = np.asarray(Image.open(file).convert("L"))
        borders = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
        assert all((border == 255).all() for border in borders), file.name


def test_the_same_plot_has_the_same_bytes(tmp_path):
    """Neither date nor chance enters a file, nor the user's settings: a dark style, or LaTeX that is not there."""
    made = []
    users: dict[Any, Any] = {"text.usetex": True, "axes.facecolor": "black", "savefig.bbox": "tight"}
    for name in ("a", "b"):
        with rc_context(users if name == "b" else None), canvas("Title") as (figure, axes):
            axes.plot([0, 1], [1, 0])
            made.append([file.read_bytes() for file in save(figure, Note("caption", NOTICES), tmp_path / name)])

    assert made[0] == made[1]


def test_a_constant_predictor_can_be_drawn(tmp_path):
    """No one called positive: no PPV to mark, the rest is drawn."""
    cases = made_up_cases(30)
    cases = replace(cases, probability=np.full(30, 0.2), decided=np.zeros(30, bool))
    summary = summarise(cases, "patients")

    files = plots.plot_precision_recall(cases, summary, (), tmp_path / "pr")

    assert "threshold" not in files[1].read_text()
