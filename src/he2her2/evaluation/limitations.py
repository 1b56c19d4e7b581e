"""Limitations of an evaluation in words, and the notices that every page and plot carries."""

import math
from collections.abc import Iterator

from he2her2.evaluation.cases import ExclusionReason, Joined, near_names_in_words
from he2her2.evaluation.missing import MissingData
from he2her2.evaluation.summary import Summary
from he2her2.evaluation.thresholds import stored_patient_rule
from he2her2.labels import Her2Status
from he2her2.manifest import Split
from he2her2.pages import p_value_in_words
from he2her2.results import RunFolder
from he2her2.rules import combine
from he2her2.statistics import ExactTests, accuracy, exact_binomial

PHANTOM_NOTICE = "phantom slides: they prove the machinery, never the medicine"
NOT_A_TEST = "not a test: these patients trained or chose the weights"
PROVENANCE_UNKNOWN = (
    "Nothing beside the run says which patients its weights were trained with, so nobody can exclude that some of them "
    "are evaluated here."
)
PROVENANCE_PARTLY_UNKNOWN = (
    "The run's weights hold a network whose patients were never recorded (networks_without_record in patients.json), "
    "so nobody can exclude that some of them are evaluated here."
)
THRESHOLD_OF_UNKNOWN_LEVEL = (
    "The operating point that the run was predicted with does not record how a patient's slides were joined when it "
    "was chosen: for patients of several slides its guarantee is not known to hold. Choose it again (evaluate --store)."
)
_PHANTOM_PREFIX = "phantom-"
_FEW = 10
_WIDE = 0.2
_FAR_FROM_CLINIC = 1.5
_SIGNIFICANT = 0.05


def run_notices(run: RunFolder, joined: Joined, split: Split | None, *, trained_with: bool) -> tuple[str, ...]:
    """Notices of a run: slides that have not ended, untrained or phantom weights, phantom slides, no test set.

    Args:
        run: The predict run.
        joined: The evaluated cases.
        split: Their split; None is all.
        trained_with: True if some of the patients trained or chose the weights.
    """
    found = [*([run.unfinished] if run.unfinished else []), *run.notices]
    if any(name.startswith(_PHANTOM_PREFIX) for name in joined.slides.ids.tolist()):
        found.append(PHANTOM_NOTICE)
    if split in ("train", "val") or trained_with:
        found.append(NOT_A_TEST)
    return tuple(dict.fromkeys(found))


def run_limitations(run: RunFolder, joined: Joined) -> tuple[str, ...]:
    """Limitations that follow from the regions and the operating point of a run, and from its files."""
    return (*_other_files(joined), *_half_labelled(run, joined), *_drawn_regions(run), *_stored_threshold(run, joined))


def _other_files(joined: Joined) -> Iterator[str]:
    if joined.other_files:
        slide_id, named, predicted = joined.other_files[0]
        yield (
            f"{len(joined.other_files)} slides are other files in the manifest than in the run ({slide_id!r}: "
            f"{named!r}, in the run {predicted!r}): their labels may be those of other slides."
        )


def _half_labelled(run: RunFolder, joined: Joined) -> Iterator[str]:
    """Slides without a label of patients whose other slides have one, as where a table's cells were merged."""
    of_patient = dict(zip(joined.patients.ids.tolist(), joined.patients.probability.tolist(), strict=True))
    unlabelled = [
        e
        for e in joined.exclusions
        if e.reason is ExclusionReason.UNLABELLED and e.slide_id in run.predictions and e.patient_id in of_patient
        # where scores are of patients these are equal
        if combine(joined.rule, [run.predictions[e.slide_id].probability]) != of_patient[e.patient_id]
    ]
    if unlabelled:
        n = len({e.patient_id for e in unlabelled})
        yield (
            f"{len(unlabelled)} slides without a label are left out of the probabilities of their {n} patients, whose "
            "other slides have one: give each slide its patient's label, for predict joins all slides of a patient."
        )


def _drawn_regions(run: RunFolder) -> Iterator[str]:
    if use := run.description.overrides.get("annotations"):
        what = "taken from" if use == "replace" else "limited to"
        yield (
            f"The tumour of slides with annotations was {what} the regions that are drawn there: the figures do not "
            "hold for slides in which nobody draws the tumour."
        )


def _stored_threshold(run: RunFolder, joined: Joined) -> tuple[str, ...]:
    chosen = stored_patient_rule(run, joined)
    if chosen is None:
        return ()
    if chosen == "unrecorded":
        return (THRESHOLD_OF_UNKNOWN_LEVEL,)
    text = f"The run's operating point was chosen for the {chosen} over a patient's slides: "
    return (text + "its guarantee holds for the figures of patients, not for those of slides.",)


def missing_limitations(found: MissingData) -> tuple[str, ...]:
    """Limitations that follow from patients without outcome or prediction; none where all have both."""
    if not found.n_missing:
        return ()
    kinds = (
        (found.without_outcome, "without a known HER2 status (no label, undetermined, or labels that contradict)"),
        (found.without_prediction, "without a prediction"),
        (found.without_both, "without both"),
    )
    who = ", ".join(f"{n} {what}" for n, what in kinds if n)
    bounds = ", ".join(
        f"{name} {bound.low:.2f} to {bound.high:.2f}"
        for name, bound in (
            ("sensitivity", found.sensitivity),
            ("specificity", found.specificity),
            ("AUC", found.auc),
        )
    )
    text = f"{found.n_missing} of {found.n} patients are left out: {who}. The figures hold for the others. "
    return (text + f"From the worst to the best that the missing ones could be: {bounds} (sampling comes on top).",)


def limitations(joined: Joined, patients: Summary, subgroup: Summary, prevalence: float) -> tuple[str, ...]:
    """Limitations of the patients' figures, a sentence or two each.

    Args:
        joined: The cases, and the slides left out.
        patients: Figures of all patients.
        subgroup: Figures of those with IHC 2+.
        prevalence: Share of positives in the clinic.
    """
    return (
        *_constant(patients),
        *_small(patients),
        *_chance(patients),
        *_prevalence(patients, prevalence),
        *_lost(joined, patients),
        *_conflicts(joined),
        *_subgroup(subgroup),
    )


def _constant(of: Summary) -> Iterator[str]:
    called = round(of.counts.called_positive)
    what = "positive" if 2 * called > of.n else "negative"
    if of.counts.constant and of.n:
        share = accuracy(of.counts)
        balanced = "; balanced accuracy is 0.5 whatever the data" if 0 < of.n_positive < of.n else ""
        yield (
            f"Constant predictor: all {of.n} {of.title} are called {what} at the threshold {of.threshold:.6g}. Plain "
            f"accuracy then only counts the {what} ones ({100 * share:.0f} %){balanced}."
        )
    elif of.n >= _FEW and min(called, of.n - called) <= 0.05 * of.n:
        yield (
            f"Almost constant predictor: {called} of {of.n} {of.title} are called positive; plain accuracy mostly "
            f"counts the {what} ones."
        )


def _small(of: Summary) -> Iterator[str]:
    n_positive, n_negative = of.n_positive, of.n - of.n_positive
    for n, what in ((n_positive, "positive"), (n_negative, "negative")):
        if n == 0:
            yield f"No {what} {of.title}: AUC, and every rate of the {what} ones, cannot be known."
        elif n < _FEW:
            yield (
                f"Too few {what} {of.title} ({n}): even with none of them wrong, the interval of their rate would "
                f"reach down to {exact_binomial(n, n).low:.2f}."
            )
    auc = of["AUC"]
    if min(n_positive, n_negative) >= _FEW and auc.high - auc.low > _WIDE:
        yield (f"The AUC's interval is {auc.high - auc.low:.2f} wide: {of.n} {of.title} do not settle how good it is.")


def _chance(of: Summary) -> Iterator[str]:
    auc, balanced = of["AUC"], of["balanced accuracy"]
    if of.exact is not None:
        yield from _exact_chance(of, of.exact)
    elif auc.low <= 0.5 <= auc.high and not math.isnan(auc.value):
        yield (
            f"The AUC's interval ({auc.low:.2f} to {auc.high:.2f}) holds 0.5: these data do not show that the model is "
            "better than tossing a coin."
        )
    if auc.high < 0.5:
        yield f"The AUC lies below 0.5 ({auc.low:.2f} to {auc.high:.2f}): the model ranks the wrong way round."
    if of.exact is None and not auc.low <= 0.5 and balanced.low <= 0.5 <= balanced.high and not of.counts.constant:
        yield (
            f"The ranking is better than chance, the decisions at the threshold {of.threshold:.6g} are not shown to be "
            f"(balanced accuracy {balanced.low:.2f} to {balanced.high:.2f}): choose an operating point on validation "
            "data."
        )


def _exact_chance(of: Summary, exact: ExactTests) -> Iterator[str]:
    """Chance by exact tests, which hold where patients are few and intervals may not."""
    auc = of["AUC"]
    if exact.mann_whitney >= _SIGNIFICANT:
        beside = "holds 0.5" if auc.low <= 0.5 <= auc.high else "does not hold 0.5, but is approximate for so few"
        yield (
            f"By the exact Mann-Whitney test ({p_value_in_words(exact.mann_whitney)}, {of.n} {of.title}) these data do "
            f"not show that the model is better than tossing a coin; the AUC's interval ({auc.low:.3f} to "
            f"{auc.high:.3f}) {beside}."
        )
    elif exact.fisher >= _SIGNIFICANT and auc.value > 0.5 and not of.counts.constant:
        yield (
            f"The ranking is better than chance (exact Mann-Whitney {p_value_in_words(exact.mann_whitney)}), the "
            f"decisions at the threshold {of.threshold:.6g} are not shown to be (Fisher's exact "
            f"{p_value_in_words(exact.fisher)}): choose an operating point on validation data."
        )
    if min(of.counts.tp, of.counts.fp, of.counts.tn, of.counts.fn) == 0:
        yield (
            "With so few patients and a sensitivity or specificity of 0 or 1 the interval of balanced accuracy is too "
            "short: by exact enumeration it holds the truth in as little as 82 % of cohorts in place of 95 %."
        )


def _prevalence(of: Summary, prevalence: float) -> Iterator[str]:
    if not of.n:
        return
    share = exact_binomial(of.n_positive, of.n)
    outside = not share.low <= prevalence <= share.high
    ratio = share.value / prevalence
    if outside and not 1 / _FAR_FROM_CLINIC < ratio < _FAR_FROM_CLINIC:
        yield (
            f"{100 * share.value:.3g} % of the {of.title} are positive, in a clinic about "
            f"{100 * prevalence:g} %: PPV, NPV, accuracy, F1 and average precision do not carry over; PPV and NPV "
            "are recomputed below."
        )


def _lost(joined: Joined, of: Summary) -> Iterator[str]:
    lost, n = joined.unpredicted, len(joined.unpredicted) + len(joined.slides)
    if not lost:
        return
    n_positive = sum(e.truth is Her2Status.POSITIVE for e in lost)
    yield (
        f"{len(lost)} of {n} labelled slides have no prediction ({n_positive} of them positive): the figures hold for "
        "slides that the program can read."
    )
    if near := near_names_in_words(joined.near_names):
        yield f"{near}."
    if joined.lost_patients:
        truth = {e.patient_id: e.truth for e in lost}
        positive = sum(truth[name] is Her2Status.POSITIVE for name in joined.lost_patients)
        negative = len(joined.lost_patients) - positive
        found = exact_binomial(of.counts.tp, of.counts.positives + positive, name="sensitivity")
        right = exact_binomial(of.counts.tn, of.counts.negatives + negative, name="specificity")
        yield (
            f"{len(joined.lost_patients)} patients have no prediction at all. Were all of them called wrongly, "
            f"sensitivity would be {found.percent()} and specificity {right.percent()}."
        )


def _conflicts(joined: Joined) -> Iterator[str]:
    names = sorted({e.patient_id for e in joined.exclusions if e.reason is ExclusionReason.CONFLICT})
    if names:
        yield (
            f"{len(names)} patients have slides with different labels and are left out at patient level: "
            f"{', '.join(names)}."
        )


def _subgroup(of: Summary) -> Iterator[str]:
    if not of.n:
        yield "No patient with IHC 2+ and a known status: how the model does where it is needed most is not known."
    elif not 0 < of.n_positive < of.n:
        what = "positive" if of.n_positive else "negative"
        yield f"All {of.n} patients with IHC 2+ are {what}: the model's ranking among them is not known."
