"""Commands on slides: `predict`, `segment` and `inspect`."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working
from he2her2.errors import AnnotationError, ConfigError, He2Her2Error

if TYPE_CHECKING:
    from he2her2.cohort import SlideSources
    from he2her2.config import Config
    from he2her2.models import SlideModel
    from he2her2.results import Run

_SAMPLED_TILES = 200


@dataclass(frozen=True, slots=True)
class SlideRun:
    """Request of `predict` or `segment`.

    Attributes:
        out: The run's folder.
        config: The settings.
        weights: Folder of weights, or a name for them.
        verb: The command.
        mpp: µm per level-0 px, over what the files say.
        annotations: A file for one slide, or a folder with a file per slide.
        region_use: Purpose of annotated regions.
        annotation_classes: Classes of annotations that are tumour; by their names if empty.
        overwrite: Take over a folder of another configuration.
        notes: Lines for the user, said once slides and weights are found.
    """

    out: Path
    config: "Config"
    weights: str = "bundled"
    verb: Literal["predict", "segment"] = "predict"
    mpp: float | None = None
    annotations: Path | None = None
    region_use: o.AnnotationsUseName = "intersect"
    annotation_classes: tuple[str, ...] = ()
    overwrite: bool = False
    notes: tuple[str, ...] = ()

    def overrides(self, model: "SlideModel", sources: "SlideSources") -> dict[str, object]:
        """All that can change a result beyond settings, networks and files."""
        annotated = any(task.annotations for task in sources.tasks)
        regions = self.region_use if annotated else None
        classes = {"annotation_classes": self.annotation_classes or "by name"} if annotated else {}
        rules = {"rules": asdict(model.rules)} if model.rules else {}
        return {"verb": self.verb, "mpp": self.mpp, "annotations": regions, **classes, **rules}


def slide_command(verb: Literal["predict", "segment"]) -> Callable[..., None]:
    """The command `predict` or `segment`: they take the same options."""

    def command(  # noqa: PLR0913  # a command's options
        what: o.What,
        *,
        out: o.Out,
        weights: o.WeightsOption = "bundled",
        mpp: o.Mpp = None,
        preset: o.PresetName = "default",
        config: o.ConfigFile = None,
        settings: o.Set = None,
        annotations: o.Annotations = None,
        annotations_use: o.AnnotationsUseOption = "intersect",
        annotation_class: o.AnnotationClasses = None,
        backend: o.Reader = "auto",
        threads: o.Threads = None,
        device: o.RunsOn = "auto",
        precision: o.Arithmetic = "full",
        overwrite: o.OverwriteOption = False,
        as_json: o.Json = False,
    ) -> None:
        effective = effective_settings(preset, config, settings, backend, threads, device, precision)
        effective, notes = _as_trained(effective, weights, config, settings)
        classes = tuple(annotation_class or ())
        asked = SlideRun(out, effective, weights, verb, mpp, annotations, annotations_use, classes, overwrite, notes)
        run_slides(what, asked, as_json=as_json)

    return command


def _as_trained(
    config: "Config", weights: str, file: Path | None, overrides: list[str] | None
) -> tuple["Config", tuple[str, ...]]:
    """The settings, with the weights' own selection and scoring where the user set none, and notes of the changes."""
    from he2her2.config import chosen_keys
    from he2her2.models import settings_of_training

    trained = settings_of_training(config, weights, chosen_keys(file, overrides or []))
    groups = (("selection", asdict(trained.selection), asdict(config.selection)),
              ("scoring", asdict(trained.scoring), asdict(config.scoring)))  # fmt: skip
    changed = [f"{group}.{key}={now[key]}" for group, now, before in groups for key in now if now[key] != before[key]]
    return trained, (f"{', '.join(changed)}: as the weights were trained, by their card",) if changed else ()


def inspect(
    what: o.What,
    *,
    mpp: o.Mpp = None,
    backend: o.Reader = "auto",
    deep: Annotated[bool, typer.Option("--deep", help="Decode every compressed tile, not a sample.")] = False,
    as_json: o.Json = False,
) -> None:
    """Show a slide's format, size, scale and integrity, and how it would be read."""
    from he2her2.cli.printer import print_inspections
    from he2her2.cohort import SlideEngine, SlideTask, find_slides
    from he2her2.results import Failure
    from he2her2.slides import SlideReport, inspect_slide

    def worker(task: SlideTask) -> SlideReport:
        with working(f"checking {task.path.name}"):
            return inspect_slide(task.path, task.mpp, backend, n_check=None if deep else _SAMPLED_TILES)

    sources = find_slides(what, mpp=mpp)
    _say_notes(sources.notes)
    outcomes = [found for _, found in SlideEngine().run(sources.tasks, worker)]
    failures = [found for found in outcomes if isinstance(found, Failure)]
    if failures and sources.single:
        raise He2Her2Error(str(failures[0]))
    reports = [found for found in outcomes if not isinstance(found, Failure)]
    print_inspections(reports, [str(failure) for failure in failures], as_json=as_json)
    if failures:
        raise typer.Exit(1)


def effective_settings(
    preset: o.Preset,
    file: Path | None,
    overrides: list[str] | None,
    backend: o.BackendName = "auto",
    threads: int | None = None,
    device: o.DeviceName = "auto",
    precision: o.PrecisionName = "full",
) -> "Config":
    """The settings of a command: preset, then file, then --set, then options of their own."""
    from he2her2.config import load_config

    named = [f"runtime.backend={backend}"] if backend != "auto" else []
    named += [f"runtime.threads={threads}"] if threads else []
    named += [f"runtime.device={device}"] if device != "auto" else []
    named += [f"runtime.precision={precision}"] if precision != "full" else []
    return load_config(preset, file, [*(overrides or []), *named])


def run_slides(what: Sequence[Path], asked: SlideRun, *, as_json: bool = False) -> None:
    """Predict or segment one slide (its failure is the command's) or many (failures are rows, exit code 1)."""
    from he2her2.cli.printer import Printer
    from he2her2.cohort import Ledger, SlideEngine, SlideWorker, find_slides
    from he2her2.models import load_slide_model
    from he2her2.results import Failure

    if asked.annotations is not None and not asked.annotations.exists():
        raise AnnotationError(f"{asked.annotations}: no such file or folder; check --annotations")
    model = load_slide_model(asked.weights, asked.config)
    sources = find_slides(what, mpp=asked.mpp, annotations=asked.annotations)
    _require_patients(model, sources)
    if asked.annotation_classes and not any(task.annotations for task in sources.tasks):
        raise AnnotationError("--annotation-class chooses among annotations and there are none; give --annotations")
    run = replace(_plan(asked, model, sources), rules=model.rules, patient_of=sources.patients)
    _say_notes((*asked.notes, *sources.notes))
    many = not sources.single
    with Printer(as_json=as_json) as printer:
        worker = SlideWorker(
            model,
            asked.config,
            asked.region_use,
            asked.annotation_classes,
            masks_only=asked.verb == "segment",
            progress=printer.progress,
        )
        engine = SlideEngine(log=run.folder / "errors.log" if many else None)
        if many:
            run.write_description()
        try:
            for task, outcome in engine.run(sources.tasks, worker, Ledger(run.slides, run.digest)):
                if isinstance(outcome, Failure) and not many:
                    raise He2Her2Error(str(outcome))
                run.add(outcome)
                if many:
                    printer.on_slide(task.path, outcome)
        finally:
            if many or run.results:
                run.write_description()
                run.write_tables()
        if many:
            printer.cohort(run)
        else:
            printer.slide(run, run.results[0])
    if run.failures:
        raise typer.Exit(1)


def _require_patients(model: "SlideModel", sources: "SlideSources") -> None:
    """Raise where stored rules hold for patients and nobody says which slides are whose.

    Raises:
        ConfigError: Several slides, one of them without patient, or rules that do not say how slides are combined.
    """
    rules = model.rules
    if sources.single or rules is None or (rules.operating_point is None and rules.triage is None):
        return
    anyway = "or --set stored_rules=false to decide slide by slide at threshold"
    if rules.patient_rule is None:
        raise ConfigError(
            "the weights' decision_rules.json does not record how the slides of a patient are combined, so it cannot "
            f"be applied to several slides; choose the rules again with he2her2 evaluate, {anyway}"
        )
    unknown = [task.slide_id for task in sources.tasks if task.slide_id not in sources.patients]
    if unknown:
        raise ConfigError(
            f"the weights' operating point holds for patients, by the {rules.patient_rule} over all slides of each, "
            f"but the patient of {unknown[0]} is unknown; give a manifest with patient_id, {anyway}"
        )


def _say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say(f"NOTE {note}", error=True)


def _plan(asked: SlideRun, model: "SlideModel", sources: "SlideSources") -> "Run":
    """Describe the run, after a check that its folder can take it."""
    from he2her2.manifest import recorded_patients
    from he2her2.models import weights_source
    from he2her2.results import PREDICTION, SEGMENTATION, NetworkNote, plan_run

    source = weights_source(asked.weights)
    return plan_run(
        asked.out,
        command=sys.argv,
        config=asked.config,
        weights=[NetworkNote.of(card) for card in model.cards.values()],
        overrides=asked.overrides(model, sources),
        told={"weights_folder": asked.weights} | (recorded_patients(source) if isinstance(source, Path) else {}),
        overwrite=asked.overwrite,
        result_file=PREDICTION if asked.verb == "predict" else SEGMENTATION,
    )
