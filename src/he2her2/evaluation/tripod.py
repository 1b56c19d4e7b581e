"""TRIPOD+AI as a form: what the program knows of a study filled in, the rest left to its authors.

Items in our words, after Collins et al., BMJ 2024;385:e078378, the 27-item checklist for studies that develop or
evaluate a prediction model.
"""

from dataclasses import dataclass

from he2her2.evaluation.evaluate import NOT_A_TEST, PROVENANCE_UNKNOWN, Evaluation
from he2her2.evaluation.words import span

UNKNOWN = "not known to the program"


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the checklist.

    Attributes:
        number: As in the checklist.
        topic: What it asks for.
        answer: What the program knows of it.
    """

    number: str
    topic: str
    answer: str = UNKNOWN


def tripod(evaluation: Evaluation) -> tuple[Item, ...]:
    """The checklist, filled in as far as the run and the manifest tell."""
    e, joined, patients = evaluation, evaluation.joined, evaluation.patients
    rule = "; ".join((f"policy {e.question.policy}", f"split {e.split or 'all slides'}"))
    sites = ", ".join(f"{site.site} ({site.n})" for site in e.sites) or "one, or not stated in the manifest"
    weights = ", ".join(note.name for note in e.run.description.weights) or UNKNOWN
    lost = len(joined.unpredicted)
    return (
        Item("1", "Title", f"Evaluation of a model of HER2 status from H&E slides (run {e.run.name})"),
        Item("2", "Abstract", "first paragraph of this page"),
        Item("3", "Background, intended use, users", "research use only; the medical context is for the authors"),
        Item("4", "Objectives", "evaluation of a model that exists"),
        Item("5a", "Source of the data", f"manifest {e.question.manifest.name}, SHA-256 {e.manifest_sha256[:12]}..."),
        Item("5b", "Dates of the data"),
        Item("6a", "Setting and centres", sites),
        Item(
            "6b", "Eligibility", f"H&E slides of the manifest with a HER2 status ({rule}); clinical criteria: {UNKNOWN}"
        ),
        Item("6c", "Treatments received"),
        Item("7", "Data preparation", "tissue, pen and blur masks, tumour map and tiling as in run.json (config)"),
        Item(
            "8a",
            "Outcome",
            "HER2 status of the manifest; from IHC and ISH by ASCO/CAP 2018 (2023) where it states none",
        ),
        Item("8b", "Outcome assessors", f"{UNKNOWN}; IHC scores differ between readers"),
        Item("8c", "Blinding of the outcome", "the program read no label while predicting; assessors: " + UNKNOWN),
        Item("9a", "Choice of predictors", "pixels of the H&E slide only"),
        Item("9b", "Definition of predictors", f"tile scores of {weights}; coordinates and scores in tiles.h5"),
        Item("9c", "Predictor assessors", "none; deterministic"),
        Item("10", "Sample size", f"{patients.n} patients, {patients.n_positive} positive; justification: {UNKNOWN}"),
        Item("11", "Missing data", f"{lost} labelled slides without prediction, left out and named in exclusions.csv"),
        Item("12", "Analytical methods", "see Methods; every figure with its interval"),
        Item("13", "Class imbalance", "no case is weighted or resampled; " + _positive(evaluation)),
        Item("14", "Fairness", f"figures for each site; by age, ethnicity or other groups: {UNKNOWN}"),
        Item("15", "Model output", f"probability; positive from {patients.threshold:.3g} (run.json)"),
        Item("16", "Training against evaluation data", _apart(evaluation)),
        Item("17", "Ethical approval"),
        Item("18a", "Funding"),
        Item("18b", "Conflicts of interest"),
        Item("18c", "Protocol"),
        Item("18d", "Registration"),
        Item("18e", "Data sharing"),
        Item(
            "18f",
            "Code sharing",
            f"he2her2 {e.run.description.versions.get('he2her2', UNKNOWN)}, Apache-2.0",
        ),
        Item("19", "Patient and public involvement"),
        Item("20a", "Flow of participants", "see Participants; adds up to the manifest's rows"),
        Item("20b", "Characteristics of participants", f"IHC scores and sites only; else {UNKNOWN}"),
        Item("20c", "Comparison with development data", _sentence_of(evaluation, "domain")),
        Item("21", "Model development", "see the weights' cards"),
        Item("22", "Model specification", "weights' SHA-256 and all settings in run.json"),
        Item("23a", "Performance with intervals", f"AUC {span(patients['AUC'])}; see Performance"),
        Item("23b", "Heterogeneity of performance", _sentence_of(evaluation, "sites")),
        Item(
            "24",
            "Model updating",
            "see Operating point, triage, calibration" if e.applied else "none in this evaluation",
        ),
        Item("25", "Interpretation", "for the authors; see What limits these figures"),
        Item("26", "Limitations", "see What limits these figures and Audits"),
        Item(
            "27a", "Handling of poor input", "slides that cannot be read fail with a reason; pen and blur are left out"
        ),
        Item("27b", "User's part", "none; annotated regions only where run.json says so"),
        Item("27c", "Next steps"),
    )


def _positive(evaluation: Evaluation) -> str:
    share = evaluation.patients.n_positive / evaluation.patients.n
    return f"{100 * share:.0f} % are positive, {100 * evaluation.question.wishes.prevalence:.0f} % assumed in a clinic"


def _apart(evaluation: Evaluation) -> str:
    if NOT_A_TEST in evaluation.notices:
        return "NOT apart: the evaluated patients had a say in the weights"
    if PROVENANCE_UNKNOWN in evaluation.cautions:
        return UNKNOWN
    return "no patient in common, by the training's own record"


def _sentence_of(evaluation: Evaluation, name: str) -> str:
    return next(audit.sentence for audit in evaluation.audits if audit.name == name)
