"""Plots of an evaluation, as PNG and SVG: each with its intervals, its n and its notices."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from he2her2.evaluation.audits import SiteResult, sensitivity_specificity
from he2her2.evaluation.benefit import NamedCurve
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.plot_style import BAND_ALPHA, BLUE, GREEN, GREY, ORANGE, PINK, Note, canvas, save, wrapped
from he2her2.evaluation.summary import Reliability, Summary
from he2her2.labels import IhcScore
from he2her2.statistics import Curve, Estimate, precision_recall, roc_curve, saved_against_missed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LIMITS = (-0.02, 1.02)
_BINS = 20
_LEAST_BENEFIT = 0.001  # that an axis shows


def plot_roc(cases: Cases, summary: Summary, notices: tuple[str, ...], stem: Path) -> tuple[Path, ...]:
    """ROC with its band, and the run's threshold with both exact intervals."""
    curve = roc_curve(cases.truth, cases.probability, cases.patients)
    sensitivity, specificity = sensitivity_specificity(cases)
    with canvas("Receiver operating characteristic") as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="chance")
        axes.fill_between(curve.x, curve.all_low, curve.all_high, color=BLUE, alpha=BAND_ALPHA / 2, linewidth=0)
        _draw(axes, curve, BLUE, f"AUC {summary['AUC'].text()}")
        false = Estimate("", 1 - specificity.value, 1 - specificity.high, 1 - specificity.low, specificity.n, "")
        _cross(axes, false, sensitivity, f"threshold {summary.threshold:.6g}, exact 95 % intervals")
        _share_axes(axes, "1 - specificity", "sensitivity")
        axes.legend(loc="lower right")
        return save(
            figure,
            Note(_caption(summary, "Bands: pointwise and, paler, simultaneous 95 %, bootstrap by patient."), notices),
            stem,
        )


def plot_precision_recall(cases: Cases, summary: Summary, notices: tuple[str, ...], stem: Path) -> tuple[Path, ...]:
    """Precision over recall with its band, the share of positives as the useless classifier."""
    curve = precision_recall(cases.truth, cases.probability, cases.patients)
    share = cases.n_positive / len(cases)
    with canvas("Precision and recall") as (figure, axes):
        axes.axhline(share, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label=f"chance: {share:.2f} are positive")
        _draw(axes, curve, BLUE, f"average precision {summary['average precision'].text()}", "steps-pre")
        if not math.isnan(summary["PPV"].value):
            label = f"threshold {summary.threshold:.6g}, exact 95 % intervals"
            _cross(axes, summary["sensitivity"], summary["PPV"], label)
        _share_axes(axes, "recall (sensitivity)", "precision (PPV)")
        axes.legend(loc="lower left")
        text = "Band: pointwise 95 %, bootstrap by patient. Precision depends on the share of positives."
        return save(figure, Note(_caption(summary, text), notices), stem)


def plot_saved(
    cases: Cases,
    summary: Summary,
    prevalence: float,
    notices: tuple[str, ...],
    stem: Path,
    chosen: Summary | None = None,
) -> tuple[Path, ...]:
    """IHC tests saved against positives missed, as in the cohort and at the clinic's prevalence.

    Args:
        cases: The patients, of both classes.
        summary: Their figures at the run's threshold.
        prevalence: The clinic's share of positives.
        notices: Shown below the plot.
        stem: Path without ending.
        chosen: Their figures at the operating point chosen on validation patients, if there is one.
    """
    own, clinic = (
        saved_against_missed(cases.truth, cases.probability, cases.patients),
        saved_against_missed(cases.truth, cases.probability, cases.patients, prevalence),
    )
    with canvas("IHC tests saved against positives missed") as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="chance")
        share = cases.n_positive / len(cases)
        _draw(axes, own, BLUE, f"as in these data ({100 * share:.3g} % positive)", "steps-post")
        _draw(axes, clinic, GREEN, f"if {100 * prevalence:g} % were positive", "steps-post")
        _mark(axes, summary, ORANGE, "o", f"threshold {summary.threshold:.6g}, in these data")
        if chosen is not None:
            _mark(axes, chosen, PINK, "D", f"chosen on validation: {chosen.threshold:.6g}, in these data")
        _share_axes(axes, "share of HER2-positive patients missed", "share of patients without IHC")
        axes.legend(loc="lower right")
        text = "A patient called negative gets no IHC. Bands: pointwise 95 %, bootstrap by patient."
        return save(figure, Note(_caption(summary, text), notices), stem)


def plot_benefit(
    curves: Sequence[NamedCurve], summary: Summary, notices: tuple[str, ...], stem: Path
) -> tuple[Path, ...]:
    """Net benefit over the threshold, in these data and in a clinic, against testing everybody and nobody."""
    *own, clinic = curves
    with canvas("Decision curves", size_inch=(9.6, 5.2)) as (figure, axes):
        axes.remove()
        panels = figure.subplots(1, 2)
        panels[0].set_title("Decision curves", pad=12)
        _benefit(panels[0], own, "in these data")
        _benefit(panels[1], [clinic], "in the clinic")
        panels[0].set_ylabel("net benefit: true positives of 1000 patients")
        text = (
            "Threshold t: one positive found is worth (1-t)/t needless tests. Net benefit of testing those whom "
            "the model calls. In the clinic: probabilities moved to its share of positives. Bands: pointwise 95 %, "
            "bootstrap by patient."
        )
        return save(figure, Note(_caption(summary, text), notices), stem)


def _benefit(axes: "Axes", curves: Sequence[NamedCurve], where: str) -> None:
    """Curves of one prevalence."""
    first = curves[0].curve
    axes.axhline(0, color=GREY, linewidth=1, label="test nobody")
    axes.plot(
        first.thresholds, 1000 * first.test_all, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="test everybody"
    )
    for named, colour in zip(curves, (BLUE, ORANGE), strict=False):
        x, model = named.curve.thresholds, named.curve.model
        axes.fill_between(x, 1000 * model.low, 1000 * model.high, color=colour, alpha=BAND_ALPHA, linewidth=0)
        axes.plot(x, 1000 * model.value, color=colour, label=named.name.partition(",")[0])
    highest = max(_LEAST_BENEFIT, *(float(named.curve.model.high.max()) for named in curves))
    axes.set_ylim(-150 * highest, 1400 * highest)
    axes.set_xlabel(f"threshold probability\n{where}, {100 * first.prevalence:.3g} % positive")
    axes.legend(loc="upper right")


def _mark(axes: "Axes", summary: Summary, colour: str, marker: str, label: str) -> None:
    missed, saved = 1 - summary["sensitivity"].value, summary.counts.called_negative / summary.n
    axes.plot([missed], [saved], marker, color=colour, markersize=8, label=label, clip_on=False, zorder=5)


def plot_calibration(
    found: Reliability,
    calibrated: Reliability | None,
    summary: Summary,
    notices: tuple[str, ...],
    stem: Path,
    names: tuple[str, str] = ("as predicted", "corrected on other patients"),
) -> tuple[Path, ...]:
    """Share of positives over the probability, of two sets of probabilities by their names."""
    with canvas("Calibration") as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="as it should be")
        _reliability(axes, found, BLUE, "o", names[0])
        if calibrated is not None:
            _reliability(axes, calibrated, ORANGE, "D", names[1])
        _share_axes(axes, "mean probability of the group", "share of HER2-positive patients")
        # Below the axes: it is wide and would hide groups.
        axes.legend(loc="upper left", bbox_to_anchor=(-0.12, -0.13), borderaxespad=0, fontsize=8.5)
        text = (
            "Groups of about equally many patients, exact 95 % intervals. Line and pointwise band: restricted cubic "
            "spline of the logit. Slope 1 and intercept 0 are right."
        )
        return save(figure, Note(_caption(summary, text), notices), stem)


def _reliability(axes: "Axes", found: Reliability, colour: str, marker: str, name: str) -> None:
    """The groups with their intervals, and the smooth curve with its band."""
    x, y = ([bin_.predicted for bin_ in found.bins], [bin_.observed.value for bin_ in found.bins])
    down, up = ([abs(getattr(b.observed, end) - b.observed.value) for b in found.bins] for end in ("low", "high"))
    smooth = [(point.predicted, point.observed, point.low, point.high) for point in found.line.curve]
    if smooth:
        at, line, low, high = zip(*smooth, strict=True)
        axes.fill_between(at, low, high, color=colour, alpha=BAND_ALPHA, linewidth=0)
        axes.plot(at, line, color=colour, linewidth=1.2)
    axes.errorbar(
        x, y, yerr=[down, up], fmt=marker, color=colour, markersize=6, linewidth=1.4, capsize=3, clip_on=False,
        label=f"{name}: slope {found.line.slope.text()}, intercept {found.line.intercept.text()}",
    )  # fmt: skip


def plot_scores(cases: Cases, summary: Summary, notices: tuple[str, ...], stem: Path) -> tuple[Path, ...]:
    """Histograms of the probabilities of positives and negatives, or of scores on their own scale."""
    noun = cases.scale.noun
    edges = np.linspace(0, 1, _BINS + 1)
    with canvas(f"{noun.capitalize()} of positive and negative patients") as (figure, axes):
        for kept, colour, name, sign in ((cases.truth, ORANGE, "positive", 1), (~cases.truth, BLUE, "negative", -1)):
            heights = np.histogram(cases.probability[kept], edges)[0] * sign
            axes.bar(
                edges[:-1], heights, width=1 / _BINS, align="edge", color=colour, edgecolor="white", linewidth=0.6,
                label=f"{name}, n = {int(kept.sum())}",
            )  # fmt: skip
        axes.axhline(0, color="black", linewidth=0.8)
        axes.axvline(cases.threshold, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.annotate(
            f" threshold {summary.threshold:.6g}", (cases.threshold, 1), xycoords=("data", "axes fraction"), va="top",
            fontsize=9.5, color=GREY,
        )  # fmt: skip
        axes.set_xlim(*_LIMITS)
        axes.xaxis.set_major_formatter(lambda share, _: f"{cases.scale.score(share):.6g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
        axes.set_xlabel(f"{noun} of HER2-positive")
        axes.set_ylabel("patients (positive up, negative down)")
        axes.set_ylim(top=1.3 * max(1.0, axes.get_ylim()[1]))
        axes.legend(loc="upper right")
        return save(figure, Note(_caption(summary, ""), notices), stem)


def plot_confusion(summary: Summary, notices: tuple[str, ...], stem: Path) -> tuple[Path, ...]:
    """Truth against decision, with counts and the share of each row."""
    counts = summary.counts
    matrix = np.array([[counts.tn, counts.fp], [counts.fn, counts.tp]]).round().astype(int)
    title = f"Decisions at the threshold {summary.threshold:.6g}"
    note = Note(_caption(summary, "Counts, and their share of the row."), notices)
    return _plot_matrix(matrix, ("negative", "positive"), title, ("called", "truth: HER2 status"), note, stem)


def plot_score_matrix(summary: Summary, notices: tuple[str, ...], stem: Path) -> tuple[Path, ...]:
    """The four IHC scores against those predicted."""
    assert summary.score_matrix is not None
    names = [str(score) for score in IhcScore]
    text = f"Quadratic kappa {summary['quadratic kappa'].text()}; counts, and their share of the row."
    note = Note(_caption(summary, text, int(summary.score_matrix.sum())), notices)
    return _plot_matrix(
        summary.score_matrix,
        names,
        "IHC score against predicted score",
        ("predicted score", "truth: IHC score"),
        note,
        stem,
    )


def _plot_matrix(
    matrix: NDArray[np.int64],
    names: Sequence[str],
    title: str,
    axis_names: tuple[str, str],
    note: Note,
    stem: Path,
) -> tuple[Path, ...]:
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    with canvas(title) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            text = f"{count}\n{100 * shares[row, column]:.0f} %" if rows[row, 0] else "0"
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=13 if len(names) < 4 else 11)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), [f"{name}\nn = {n}" for name, n in zip(names, rows[:, 0], strict=True)])
        axes.tick_params(length=0)
        axes.set_xlabel(axis_names[0])
        axes.set_ylabel(axis_names[1])
        return save(figure, note, stem)


def plot_forest(
    sites: Sequence[SiteResult], summary: Summary, notices: tuple[str, ...], stem: Path
) -> tuple[Path, ...]:
    """AUC, sensitivity and specificity of each site, and of all, with their intervals."""
    labels = [f"{wrapped(site.site)}\nn = {site.n}, {site.n_positive} positive" for site in sites]
    labels.append(f"all\nn = {summary.n}, {summary.n_positive} positive")
    figures = {
        "AUC": [*(site.auc for site in sites), summary["AUC"]],
        "sensitivity": [*(site.sensitivity for site in sites), summary["sensitivity"]],
        "specificity": [*(site.specificity for site in sites), summary["specificity"]],
    }
    height = 1.9 + 0.75 * len(labels)
    with canvas("Sites", size_inch=(8.2, height)) as (figure, axes):
        axes.remove()
        figure.suptitle("Every site", x=0.02, y=0.985, va="top", ha="left", fontweight="bold", fontsize=12)
        panels = figure.subplots(1, 3, sharey=True)
        y = np.arange(len(labels))[::-1].astype(float)
        for panel, (name, estimates) in zip(panels, figures.items(), strict=True):
            _forest(panel, name, estimates, y)
        panels[0].set_yticks(y, labels)
        text = (
            f"Patient level, threshold {summary.threshold:.6g}. Intervals of 95 %: by DeLong's variance for the AUC, "
            "exact for the rates."
        )
        return save(figure, Note(text, notices), stem)


def _forest(axes: "Axes", name: str, estimates: Sequence[Estimate], y: NDArray[np.float64]) -> None:
    last = len(estimates) - 1
    if name == "AUC":
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for k, (estimate, at) in enumerate(zip(estimates, y, strict=True)):
        colour, marker = (ORANGE, "D") if k == last else (BLUE, "o")
        axes.plot(
            [estimate.low, estimate.high], [at, at], color=colour, linewidth=2, solid_capstyle="butt", clip_on=False
        )
        if not math.isnan(estimate.value):
            axes.plot([estimate.value], [at], marker, color=colour, markersize=7, clip_on=False)
        text = estimate.text()
        axes.annotate(
            text, (0.5, at), xycoords=("axes fraction", "data"), xytext=(0, 8), textcoords="offset points", ha="center",
            fontsize=9, color=colour, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(-0.5, len(estimates) - 0.3)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(name)


def _draw(axes: "Axes", curve: Curve, colour: str, label: str, style: str = "default") -> None:
    """A curve and its band."""
    axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=BAND_ALPHA, linewidth=0)
    axes.plot(*curve.line.T, color=colour, label=label, drawstyle=style)


def _cross(axes: "Axes", x: Estimate, y: Estimate, label: str) -> None:
    """A point with both of its intervals; nothing where one of them is undefined."""
    if math.isnan(x.value) or math.isnan(y.value):
        return
    across, up = ([[abs(e.value - e.low)], [abs(e.high - e.value)]] for e in (x, y))
    axes.errorbar(
        [x.value], [y.value], xerr=across, yerr=up, fmt="o", color=ORANGE, markersize=6, linewidth=1.4, capsize=3,
        label=label, zorder=5,
    )  # fmt: skip


def _share_axes(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlim(*_LIMITS)
    axes.set_ylim(*_LIMITS)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _caption(summary: Summary, text: str, n: int | None = None) -> str:
    if n is not None:
        return f"{n} {summary.title} with both scores. {text}"
    return f"n = {summary.n} {summary.title}, {summary.n_positive} of them HER2-positive. {text}".strip()
