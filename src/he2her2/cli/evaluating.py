"""`he2her2 evaluate`: a run against its labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from he2her2.cli.console import say, working
from he2her2.cli.extras import require_extra

if TYPE_CHECKING:
    from he2her2.evaluation.evaluate import Evaluation

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of he2her2 predict.", show_default=False)]
ManifestPath = Annotated[Path, typer.Option("--manifest", "-m", help="CSV with the labels.", show_default=False)]
OutPath = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)]
SplitName = Annotated[
    Literal["auto", "train", "val", "test", "all"],
    typer.Option(help="Slides to evaluate; auto is test where the manifest has a test split, else all."),
]
PolicyName = Annotated[
    Literal["guideline", "paper"], typer.Option(help="An open 2+ is left out (guideline) or positive (paper).")
]
Rule = Annotated[
    Literal["mean", "max"], typer.Option("--patient", help="A patient's probability: mean or max over the slides.")
]
Compare = Annotated[Path | None, typer.Option(help="Another run over the same slides.", show_default=False)]
Seeds = Annotated[
    list[Path] | None, typer.Option(help="A run with weights of another seed; may be given again.", show_default=False)
]
Validation = Annotated[
    Path | None,
    typer.Option(help="A run over validation slides, to choose on.", show_default="RUN's own slides of split val"),
]
ValidationManifest = Annotated[
    Path | None, typer.Option(help="Their labels, if in another manifest.", show_default=False)
]
MissBudget = Annotated[float, typer.Option("--miss", min=0.001, max=0.999, help="Share of positives to miss, at most.")]
FalseBudget = Annotated[
    float, typer.Option("--false", min=0.001, max=0.999, help="Share of negatives that triage rules in, at most.")
]
Confidence = Annotated[
    float, typer.Option(min=0.5, max=0.999, help="How sure the operating point must keep its promise.")
]
Correction = Annotated[
    Literal["temperature", "isotonic", "none"], typer.Option("--calibration", help="How probabilities are corrected.")
]
Store = Annotated[
    Path | None,
    typer.Option(metavar="WEIGHTS", help="Keep the choice with these weights, for predict.", show_default=False),
]
Reference = Annotated[Path | None, typer.Option(help="A run over slides like the training slides.", show_default=False)]
WeightsOfRun = Annotated[
    str | None, typer.Option("--weights", help="Weights of the run, to redraw tiles.", show_default=False)
]
Prevalence = Annotated[float, typer.Option(min=0.001, max=0.999, help="Share of positives in the clinic.")]
AuditSlides = Annotated[int, typer.Option(min=0, help="Slides that the audits of tiles read, at most.")]
Leaks = Annotated[
    bool,
    typer.Option("--leaks/--no-leaks", help="Look for a patient or the same tissue on two sides of the manifests."),
]
Plots = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every draw.")]


def evaluate(  # noqa: PLR0913  # a command's options
    run: RunPath,
    *,
    manifest: ManifestPath,
    out: OutPath,
    split: SplitName = "auto",
    policy: PolicyName = "guideline",
    patient: Rule = "mean",
    compare: Compare = None,
    seeds: Seeds = None,
    validation: Validation = None,
    validation_manifest: ValidationManifest = None,
    miss: MissBudget = 0.05,
    false: FalseBudget = 0.05,
    confidence: Confidence = 0.95,
    calibration: Correction = "temperature",
    store: Store = None,
    reference: Reference = None,
    weights: WeightsOfRun = None,
    prevalence: Prevalence = 0.15,
    audit_slides: AuditSlides = 200,
    leaks: Leaks = True,
    plots: Plots = True,
    seed: Seed = 0,
) -> None:
    """Measure a predict run against its labels: figures with intervals, plots, audits, and a page to read."""
    require_extra("evaluate", "matplotlib", "sklearn")
    from he2her2.evaluation.choice import Wishes
    from he2her2.evaluation.evaluate import Question
    from he2her2.evaluation.evaluate import evaluate as measure
    from he2her2.evaluation.folder import check_folder, write_evaluation
    from he2her2.evaluation.storing import keep
    from he2her2.labels import Policy

    check_folder(out)
    files = [manifest, *([validation_manifest] if validation_manifest else [])]
    question = Question(
        run,
        manifest,
        split=split,
        policy=Policy(policy),
        rule=patient,
        compare=compare,
        seeds=tuple(seeds or ()),
        validation=validation,
        validation_manifest=validation_manifest,
        wishes=Wishes(miss, false, confidence, prevalence, calibration),
        reference=reference,
        weights=weights,
        audit_slides=audit_slides,
        seed=seed,
        told=_refuse_leaks(files) if leaks and split not in ("train", "val") else (),
    )
    with working("evaluating"):
        evaluation = measure(question)
        write_evaluation(evaluation, out, draw=plots)
        stored = None if store is None else keep(evaluation, store)
    say("\n".join(_lines(evaluation, out / "evaluation.md", stored)))


def _lines(evaluation: "Evaluation", page: Path, stored: Path | None) -> list[str]:
    """What the terminal is told of an evaluation."""
    from he2her2.evaluation.report import abstract, choice_sentences

    lines = [abstract(evaluation), *choice_sentences(evaluation)]
    lines += [f"  refused  {text}" for text in evaluation.applied.choice.refusals] if evaluation.applied else []
    lines += [evaluation.versus.sentence] if evaluation.versus else []
    lines += [f"  caution  {text}" for text in evaluation.cautions]
    lines += [
        f"  {'ALARM' if audit.alarm else 'audit'}    {audit.sentence}" for audit in evaluation.audits if audit.done
    ]
    lines += [f"  page     {page}"]
    lines += [f"  stored   {stored}; predict uses it from now on"] if stored else []
    return lines + [f"  NOTICE   {text}" for text in evaluation.notices]


def _refuse_leaks(files: list[Path]) -> tuple[str, ...]:
    """Refuse a patient, a file or the same tissue on two sides; say what could not be compared."""
    from he2her2.cohort import UNREAD, refuse_leaks
    from he2her2.manifest import read_manifest

    with working("comparing slides"):
        told = refuse_leaks([read_manifest(file) for file in files])
    unread = [line for line in told if line.startswith(UNREAD)]
    rest = tuple(line for line in told if not line.startswith(UNREAD))
    if not unread:
        return rest
    return (*rest, f"{len(unread)} slides could not be read again, so their tissue may be on two sides unseen.")
