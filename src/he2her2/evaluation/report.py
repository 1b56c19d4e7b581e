"""`evaluation.md`: a page that reads like the results section of a paper, with its plots."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from he2her2.evaluation.audits.audit import Audit, Cell
from he2her2.evaluation.cases import Reason
from he2her2.evaluation.evaluate import Evaluation
from he2her2.evaluation.summary import Family, Summary
from he2her2.evaluation.tripod import tripod
from he2her2.evaluation.words import percent, span
from he2her2.files import write_text
from he2her2.statistics.intervals import Estimate

MOST_ROWS = 20
_CAPTIONS = {
    "roc": "Receiver operating characteristic of the patients.",
    "precision_recall": "Precision and recall of the patients.",
    "saved": "IHC tests saved against positives missed.",
    "calibration": "Calibration: share of positives over the probability.",
    "scores": "Probabilities of positive and negative patients.",
    "confusion": "Decisions of the patients.",
    "score_matrix": "IHC score against predicted score.",
    "sites": "Every site.",
}


def write_report(evaluation: Evaluation, plots: Mapping[str, Path], path: Path) -> None:
    """Write the page.

    Args:
        evaluation: What to report.
        plots: PNG of each plot by its name, in or below the page's folder.
        path: Where to.

    Raises:
        OutputError: The place cannot be written.
    """
    sections = (
        _head(evaluation),
        _limits(evaluation),
        _participants(evaluation),
        _performance(evaluation),
        _choice(evaluation),
        _plots(plots, path.parent),
        _comparison(evaluation),
        _audits(evaluation),
        _checklist(evaluation),
        _methods(evaluation),
    )
    text = "\n".join(line for section in sections for line in section)
    write_text(path, text + "\n")


def _head(e: Evaluation) -> Iterator[str]:
    yield f"# Evaluation of {e.run.name}\n"
    for notice in e.notices:
        yield f"> **NOTICE: {notice}**\n"
    yield "> Research use only: not validated for diagnosis.\n"
    yield abstract(e) + "\n"


def abstract(e: Evaluation) -> str:
    """The result in one paragraph."""
    p = e.patients
    split = "all slides" if e.split is None else f"{e.split} split"
    source = f"{e.slides.n} slides, {split} of {e.question.manifest.name}"
    parts = [f"Of {p.n} patients {p.n_positive} {'was' if p.n_positive == 1 else 'were'} HER2-positive ({source})."]
    if math.isnan(p["AUC"].value):
        parts.append("An AUC cannot be given: one of the classes is absent.")
    else:
        parts.append(f"The model ranked them with an AUC of {span(p['AUC'])}.")
    rates = [f"{name} {percent(p[name])}" for name in ("sensitivity", "specificity", "balanced accuracy") if p[name].n]
    parts.append(f"At the threshold {p.threshold:.3g}: {', '.join(rates)}.")
    if e.equivocal.n:
        auc = e.equivocal["AUC"]
        known = "cannot be given" if math.isnan(auc.value) else f"was {span(auc)}"
        parts.append(f"Among the {e.equivocal.n} patients with IHC 2+ the AUC {known}.")
    parts.append("Intervals are 95 %.")
    return " ".join(parts)


def _limits(e: Evaluation) -> Iterator[str]:
    yield "## What limits these figures\n"
    alarms = [audit.sentence for audit in e.audits if audit.alarm]
    for text in (*e.cautions, *alarms):
        yield f"- {text}"
    if not (e.cautions or alarms):
        yield "Nothing that the program looks for was found; what it does not look for is listed under TRIPOD+AI."
    yield ""


def _participants(e: Evaluation) -> Iterator[str]:
    yield "## Participants\n"
    yield "| step | slides |\n|:--|--:|"
    for step, n in e.joined.flow:
        yield f"| {step} | {n if n >= 0 else f'- {-n}'} |" if n else f"| {step} | 0 |"
    strangers = e.joined.count(Reason.NOT_IN_MANIFEST)
    yield (
        f"\nThe {e.slides.n} slides are of {e.slides.n_patients} patients. A patient's probability is the "
        f"{e.question.rule} over the slides."
        + (f" {strangers} slides of the run are not in the manifest." if strangers else "")
        + " Every slide that is left out is named in [exclusions.csv](exclusions.csv).\n"
    )


def _performance(e: Evaluation) -> Iterator[str]:
    yield "## Performance\n"
    groups = [e.patients, e.slides, e.equivocal, *([e.at_choice] if e.at_choice else [])]
    families: tuple[tuple[Family, str], ...] = (
        ("field", "The figures that the field reports"),
        ("paper", "The figures that Oliveira et al. (2020) report, each under its full name"),
    )
    for family, title in families:
        yield f"{title}:\n"
        heads = [f"{group.title} (n = {group.n})" for group in groups]
        yield f"| figure | {' | '.join(heads)} |\n|:--|{'--:|' * len(heads)}"
        names = [name for name, figure in e.patients.figures.items() if figure.family == family]
        for name in names:
            yield f"| {name} | {' | '.join(_cell_of(group, name) for group in groups)} |"
        yield ""
    yield "Decisions:\n"
    yield "| cases | threshold | true positive | false positive | true negative | false negative |"
    yield "|:--|--:|--:|--:|--:|--:|"
    for group in groups:
        c = group.counts
        yield f"| {group.title} | {group.threshold:.3g} | {c.tp:.0f} | {c.fp:.0f} | {c.tn:.0f} | {c.fn:.0f} |"
    r = e.reliability
    yield f"\nOf the patients' probabilities the Brier score is {span(r.brier, 3)}, the calibration error"
    yield f"{span(r.error, 3)}."
    if e.kept is not None:
        yield (
            f"As the calibration kept with the weights corrects them they are {span(e.kept.brier, 3)} and "
            f"{span(e.kept.error, 3)}."
        )
    yield "\nBeside each figure stand its 95 % interval and, where it rests on fewer cases than the column, its n.\n"


def _cell_of(group: Summary, name: str) -> str:
    figure = group.figures.get(name)
    if figure is None or not group.n:
        return "-"
    e = figure.estimate
    n = "" if e.n == group.n else f", n = {e.n}"
    return f"undefined{n}" if math.isnan(e.value) else f"{span(e)}{n}"


def _choice(e: Evaluation) -> Iterator[str]:
    yield "## Operating point, triage, calibration\n"
    if e.applied is None:
        yield (
            "Nothing was chosen: no slides of split val were predicted in this run, and no --validation run was given. "
            "The threshold of the run says nothing of how many positives are missed.\n"
        )
        return
    choice = e.applied.choice
    source = f"{choice.chosen_on} ({choice.n_positive} positive)"
    yield f"Chosen on {source}, looked at on the {e.patients.n} evaluated patients.\n"
    for text in choice.refusals:
        yield f"Not chosen: {text}.\n"
    yield from (f"{text}\n" for text in choice_sentences(e))
    if e.applied.triage is not None:
        yield "Triage of the evaluated patients:\n"
        yield "| arm | share of patients | positive | negative |\n|:--|--:|--:|--:|"
        for arm in e.applied.triage.arms:
            yield f"| {arm.arm} | {percent(arm.share)} | {arm.n_positive} | {arm.n_negative} |"
        yield ""


def choice_sentences(e: Evaluation) -> Iterator[str]:
    """What was chosen and what it does, a sentence or two each."""
    if e.applied is None:
        return
    a, point, triage = e.applied, e.applied.choice.point, e.applied.choice.triage
    prevalence = f"{100 * e.question.wishes.prevalence:.0f} %"
    if point is not None and a.here is not None:
        clinic = "" if a.in_clinic is None else f", {percent(a.in_clinic.saved)} where {prevalence} are positive"
        broken = (
            " The promise is broken here: these patients are not like the validation patients." * a.here.promise_broken
        )
        yield (
            f"Operating point: called positive from a probability of {point.threshold:.3g}, so that at most "
            f"{100 * point.budget:.3g} % of the positives are missed ({point.missed} of {point.n_positive} validation "
            f"positives lie below it; with {100 * point.confidence:.3g} % confidence at most "
            f"{100 * point.miss_upper_bound:.1f} % of those to come do). Here it missed {percent(a.here.missed)} of "
            f"{a.here.missed.n} positives and saved {percent(a.here.saved)} of the IHC tests{clinic}.{broken}"
        )
    if triage is not None and a.triage is not None:
        yield (
            f"Triage: ruled out below {triage.rule_out_below:.3g}, ruled in from {triage.rule_in_from:.3g}, in between "
            f"referred to IHC, so that on average at most {100 * triage.miss_budget:.3g} % of the positives are ruled "
            f"out and {100 * triage.false_budget:.3g} % of the negatives ruled in (conformal risk control). Here "
            f"{percent(a.triage.missed)} of {a.triage.missed.n} positives were ruled out, {percent(a.triage.alarmed)} "
            f"of {a.triage.alarmed.n} negatives ruled in, and {percent(a.triage.arms[1].share)} of the patients "
            "referred."
        )
    if a.calibrated is not None:
        yield (
            f"Calibration: the correction learnt on validation changes the Brier score from "
            f"{span(e.reliability.brier, 3)} to {span(a.calibrated.brier, 3)} and the calibration error from "
            f"{span(e.reliability.error, 3)} to {span(a.calibrated.error, 3)}."
        )


def _plots(plots: Mapping[str, Path], folder: Path) -> Iterator[str]:
    if plots:
        yield "## Plots\n"
    for name, file in plots.items():
        yield f"![{_CAPTIONS[name]}]({file.relative_to(folder).as_posix()})\n"


def _comparison(e: Evaluation) -> Iterator[str]:
    v = e.versus
    if v is None:
        return
    yield f"## {v.first} against {v.second}\n"
    yield v.sentence + "\n"
    yield f"| figure | {v.first} | {v.second} | difference |\n|:--|--:|--:|--:|"
    yield f"| AUC | {span(v.aucs[0])} | {span(v.aucs[1])} | {span(v.auc.estimate, 3)} |"
    for name, estimate in v.rates.items():
        yield f"| {name} | | | {span(estimate, 3)} |"
    yield (
        f"\nPaired on {v.n} patients; {v.only_first} are in {v.first} only and {v.only_second} in {v.second} only. Two "
        "intervals that overlap do not show that there is no difference, nor two that do not overlap how great it is: "
        "the column of differences does.\n"
    )


def _audits(e: Evaluation) -> Iterator[str]:
    yield "## Audits\n"
    for audit in e.audits:
        yield f"### {audit.name.capitalize()}\n"
        yield f"{audit.sentence}\n"
        if audit.rows:
            yield from _table(audit)
        yield f"*{audit.method}*\n"


def _table(audit: Audit) -> Iterator[str]:
    if len(audit.rows) > MOST_ROWS or "slide_id" in audit.rows[0]:
        yield f"Slide by slide: [audit_{audit.name}.csv](audit_{audit.name}.csv).\n"
        return
    columns = list(audit.rows[0])
    yield f"| {' | '.join(column.replace('_', ' ') for column in columns)} |\n|:--|{'--:|' * (len(columns) - 1)}"
    for row in audit.rows:
        yield f"| {' | '.join(_text(row[column]) for column in columns)} |"
    yield ""


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case Estimate():
            return "undefined" if math.isnan(cell.value) else span(cell)
        case float():
            return f"{cell:.3g}"
        case _:
            return str(cell)


def _checklist(e: Evaluation) -> Iterator[str]:
    yield "## TRIPOD+AI\n"
    yield "After Collins et al., BMJ 2024;385:e078378; items in our words.\n"
    yield "| item | asks for | answer |\n|:--|:--|:--|"
    for item in tripod(e):
        yield f"| {item.number} | {item.topic} | {item.answer} |"
    yield ""


def _methods(e: Evaluation) -> Iterator[str]:
    yield "## Methods\n"
    yield (
        "Rates: Clopper-Pearson, on the effective number of cases where patients have several slides (Korn and "
        "Graubard 1998). AUC: score interval on DeLong's variance, patients as clusters (Obuchowski 1997), raised "
        "towards Hanley and McNeil's (1982) where patients are few. All else: Bayesian bootstrap by patient. Figures "
        "that are 0/0 are undefined, not 0.\n"
    )
    used = {figure.estimate.method for group in (e.patients, e.slides) for figure in group.figures.values()}
    yield f"Used here: {'; '.join(sorted(used))}.\n"
    run = e.run.description
    facts: dict[str, object] = {
        "run digest": run.digest or "unknown",
        "settings": f"preset {(run.config or {}).get('preset', 'unknown')}, see run.json",
        "he2her2": run.versions.get("he2her2", "unknown"),
        "manifest": f"{e.question.manifest.name}, SHA-256 {e.manifest_sha256}",
        "label policy": str(e.question.policy),
        "seed of every draw": e.question.seed,
    }
    yield "| fact | value |\n|:--|:--|"
    yield from (f"| {name} | {value} |" for name, value in facts.items())
