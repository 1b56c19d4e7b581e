"""`he2her2 evaluate`, `compare` and `recalibrate`: predictions against labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working
from he2her2.cli.extras import require_extra
from he2her2.cli.option_groups import grouped, refuse_idle

if TYPE_CHECKING:
    from he2her2.evaluation import Budgets, ScoreReading

_RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of he2her2 predict.", show_default=False)]
_RunOrScores = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Folder of he2her2 predict, or a CSV with any tool's scores.", show_default=False
    ),
]
_ManifestPath = Annotated[Path, typer.Option("--manifest", "-m", help="CSV with the labels.", show_default=False)]
_Rule = Annotated[
    Literal["mean", "max"],
    typer.Option(
        "--patient", help="A patient's probability: mean or max over the slides; kept with the rules for predict."
    ),
]
_Compare = Annotated[Path | None, typer.Option(help="Another run over the same slides.", show_default=False)]
_Seeds = Annotated[
    list[Path] | None, typer.Option(help="A run with weights of another seed; may be given again.", show_default=False)
]
_Prevalence = Annotated[float, typer.Option(min=0.001, max=0.999, help="Share of positives in the clinic.")]
_AuditSlides = Annotated[int, typer.Option(min=0, help="Most slides that the audits of tiles read.")]
_Leaks = Annotated[
    bool,
    typer.Option("--leaks/--no-leaks", help="Search for a patient or the same tissue in two splits."),
]
_Plots = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of every draw.")]
_Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN RUN...", help="Folders of he2her2 predict, or CSVs with any tool's scores.", show_default=False
    ),
]
_WithFirst = Annotated[bool, typer.Option("--with-first", help="Compare each run with the first only.")]
_TrainedWeights = Annotated[str, typer.Option("--weights", help="Weights of the run: a folder, or bundled.")]
_SiteOut = Annotated[Path, typer.Option("--out", "-o", help="Folder for the site's weights.", show_default=False)]
_Site = Annotated[
    str | None, typer.Option(help="Only slides of this site in the manifest's column.", show_default="all slides")
]


@dataclass(frozen=True)
class _CaseOptions:
    """Labels, the cases to evaluate with them, and the folder to write."""

    manifest: _ManifestPath
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)]
    split: Annotated[
        Literal["auto", "train", "val", "test", "all"],
        typer.Option(help="Slides to evaluate; auto is test where the manifest has a test split, else all."),
    ] = "auto"
    policy: o.PolicyOption = "guideline"
    patient: _Rule = "mean"


@dataclass(frozen=True)
class _ScoreOptions:
    """Columns and scale of a CSV of scores; see `evaluation.ScoreReading`."""

    id_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Scores of a CSV: its slides or patients.", show_default="by usual names"),
    ] = None
    score_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Its scores, higher for more likely positive.", show_default="by usual names"
        ),
    ] = None
    call_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Its decisions.", show_default="by usual names")
    ] = None
    scale: Annotated[
        Literal["auto", "probability", "percent", "logit", "any"],
        typer.Option(help="Scale of its scores; any: only order and threshold count."),
    ] = "auto"
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Positive from this score on.", show_default="the table's, its decisions, or probability 0.5"
        ),
    ] = None

    @property
    def reading(self) -> "ScoreReading":
        """The request to read it."""
        from he2her2.evaluation import ScoreReading

        return ScoreReading(self.id_column, self.score_column, self.call_column, self.scale, self.threshold)


@dataclass(frozen=True)
class _RuleOptions:
    """Validation slides, and the decision rules that are chosen on them; see `evaluation.Budgets`."""

    validation: Annotated[
        Path | None,
        typer.Option(help="A run over validation slides, to choose on.", show_default="RUN's own slides of split val"),
    ] = None
    validation_manifest: Annotated[
        Path | None, typer.Option(help="Their labels, if in another manifest.", show_default=False)
    ] = None
    miss: Annotated[
        float, typer.Option("--miss", min=0.001, max=0.999, help="Largest share of positives that may be missed.")
    ] = 0.05
    false: Annotated[
        float,
        typer.Option("--false", min=0.001, max=0.999, help="Largest share of negatives that triage may rule in."),
    ] = 0.05
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Confidence of the operating point's guarantee.")
    ] = 0.95
    calibration: Annotated[
        Literal["temperature", "isotonic", "none"], typer.Option("--calibration", help="Correction of probabilities.")
    ] = "temperature"
    store: Annotated[
        Path | None,
        typer.Option(metavar="WEIGHTS", help="Keep the rules beside these weights, for predict.", show_default=False),
    ] = None

    def budgets(self, prevalence: float) -> "Budgets":
        """Error budgets of the rules, for a clinic with this share of positives."""
        from he2her2.evaluation import Budgets

        return Budgets(self.miss, self.false, self.confidence, prevalence, self.calibration)


@dataclass(frozen=True)
class _AuditOptions:
    """Data of the audits beside the run itself; see `evaluation.Question`."""

    reference: Annotated[
        Path | None, typer.Option(help="A run over slides like those of training.", show_default=False)
    ] = None
    covariates: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="Covariates of slides or patients, each tried as a shortcut.", show_default=False
        ),
    ] = None
    features: Annotated[
        Path | None,
        typer.Option(help="Features of slides (a folder of h5, or a CSV), for shifts of sites.", show_default=False),
    ] = None
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Subgroups by this column; may be given again.", show_default=False),
    ] = None
    weights: Annotated[
        str | None, typer.Option("--weights", help="Weights of the run, to redraw tiles.", show_default=False)
    ] = None


@grouped
def evaluate_run(  # noqa: PLR0913  # a command's options
    run: _RunOrScores,
    *,
    cases: _CaseOptions,
    compare: _Compare = None,
    seeds: _Seeds = None,
    rules: _RuleOptions,
    audits: _AuditOptions,
    prevalence: _Prevalence = 0.15,
    audit_slides: _AuditSlides = 200,
    leaks: _Leaks = True,
    plots: _Plots = True,
    seed: _Seed = 0,
    scores: _ScoreOptions,
) -> None:
    """Measure predictions against labels: figures with intervals, plots, audits, and a page to read.

    RUN is a folder of predict, or a CSV with a score for each slide or patient by any tool. Its columns are found by
    their usual names, or named here; which were taken is printed. The labels may then be any table, too.
    """
    require_extra("evaluate", "matplotlib")
    from he2her2.evaluation import (
        Question,
        check_evaluation_folder,
        evaluate,
        evaluation_lines,
        store_rules,
        write_evaluation,
    )
    from he2her2.labels import Policy
    from he2her2.models import weights_in

    check_evaluation_folder(cases.out)
    files = [cases.manifest, *([rules.validation_manifest] if rules.validation_manifest else [])]
    question = Question(
        run,
        cases.manifest,
        split=cases.split,
        policy=Policy(cases.policy),
        rule=cases.patient,
        compare=compare,
        seeds=tuple(seeds or ()),
        validation=rules.validation,
        validation_manifest=rules.validation_manifest,
        budgets=rules.budgets(prevalence),
        reference=audits.reference,
        covariates=audits.covariates,
        features=audits.features,
        by=tuple(audits.by or ()),
        weights=audits.weights,
        audit_slides=audit_slides,
        seed=seed,
        reading=scores.reading,
        leak_notes=_leak_notes(files, run, cases.split) if leaks else (),
    )
    with working("evaluating"):
        evaluation = evaluate(question)
        write_evaluation(evaluation, cases.out, draw=plots)
        stored = None if rules.store is None else store_rules(evaluation, weights_in(rules.store))
    say(evaluation_lines(evaluation, cases.out / "evaluation.md", stored))


def _leak_notes(files: list[Path], run: Path, split: str) -> tuple[str, ...]:
    """Raise if a patient, a file or the same tissue is in two splits; return notes on slides that were not compared.

    There is nothing to find for scores without slides, and for other splits than test.
    """
    if split in ("train", "val") or not run.is_dir():
        refuse_idle("leaks", where="on a CSV of scores, or on split train or val")
        return ()
    from he2her2.cohort import UNREAD, refuse_leaks
    from he2her2.manifest import read_manifest

    with working("comparing slides"):
        notes = refuse_leaks([read_manifest(file) for file in files])
    unread = [line for line in notes if line.startswith(UNREAD)]
    rest = tuple(line for line in notes if not line.startswith(UNREAD))
    if not unread:
        return rest
    return (*rest, f"{len(unread)} slides could not be read again, so their tissue may be on two sides unseen.")


@grouped
def compare_command(
    runs: _Runs,
    *,
    cases: _CaseOptions,
    first: _WithFirst = False,
    plots: _Plots = True,
    scores: _ScoreOptions,
) -> None:
    """Compare runs on the same patients by paired tests, corrected for their number: one table, one plot."""
    require_extra("evaluate", "matplotlib")
    from he2her2.evaluation import (
        COMPARISON_FILE,
        ComparisonQuestion,
        check_evaluation_folder,
        compare_folders,
        comparison_lines,
        write_comparison,
    )
    from he2her2.labels import Policy

    check_evaluation_folder(cases.out, COMPARISON_FILE)
    asked = ComparisonQuestion(
        tuple(runs), cases.manifest, cases.split, Policy(cases.policy), cases.patient, scores.reading, first
    )
    with working("comparing"):
        found = compare_folders(asked)
        write_comparison(found, cases.out, draw=plots)
    say(comparison_lines(found, cases.out / "comparison.md"))


def recalibrate_run(
    run: _RunPath,
    *,
    manifest: _ManifestPath,
    weights: _TrainedWeights,
    out: _SiteOut,
    site: _Site = None,
    policy: o.PolicyOption = "guideline",
    patient: _Rule = "mean",
) -> None:
    """Fit the probabilities to a new site from few of its labelled slides; predict with the weights written to OUT.

    Only patients of split val, or without split, are used: those of train and test would flatter or leak. A correction
    that does not help patients left out of it is refused. HER2 status does not change: it follows the threshold on the
    uncorrected probability.
    """
    from he2her2.evaluation import patients_of_site, recalibrate_weights, recalibration_lines, write_recalibrated
    from he2her2.labels import Policy
    from he2her2.manifest import raise_problems, read_manifest
    from he2her2.models import trained_folder
    from he2her2.results import open_run

    folder, predicted, labels = trained_folder(weights), open_run(run), read_manifest(manifest)
    raise_problems(labels, labels.problems)
    of_site = patients_of_site(predicted, labels, site, policy=Policy(policy), rule=patient)
    patients = of_site.cases
    name = f"{len(patients)} patients of {manifest.name}" + (f", site {site}" if site else "")
    found = recalibrate_weights(predicted, folder, patients, name)
    write_recalibrated(found, patients, folder, out)
    say(recalibration_lines(found, of_site, out))
