"""Runs of `predict` and `segment`: one slide in this process, many by workers."""

import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say_line
from he2her2.cli.option_groups import refuse_idle_annotations
from he2her2.errors import AnnotationError, ConfigError, He2Her2Error, OutputError
from he2her2.files import digest
from he2her2.machine import usable_cores

if TYPE_CHECKING:
    from he2her2.cohort import Crew, Report, SlideJob, SlideOutcome, SlideSources, SlideTask, SlideWork
    from he2her2.config import Config
    from he2her2.models import SlideModel
    from he2her2.results import Evidence, Failure, Run, SlideResult

_USUAL_MINUTES = 120.0
_DIGITS = 12


@dataclass(frozen=True)
class Labour:
    """Options on the way of working on many slides; nothing of it changes a result."""

    workers: o.SlideWorkers = None
    scheduler: o.Scheduler = None
    shard: o.Shard = None
    time_limit: o.TimeLimit = None
    memory_limit: o.MemoryLimit = None
    retry_failed: o.RetryFailed = False
    cache: o.Cache = None
    cache_gb: o.CacheGb = 50.0

    def __post_init__(self) -> None:
        """Refuse a shard that is no part of a whole, and what the workers that are asked for cannot do."""
        _ = self.part
        if self.scheduler is not None and self.workers is not None:
            raise typer.BadParameter("--workers beside --scheduler, whose workers do the work; leave one of them out")
        if self.workers == 0 and (self.time_limit or self.memory_limit):
            name = "--memory-limit" if self.memory_limit else "--time-limit"
            raise typer.BadParameter(f"{name} ends a worker process, and --workers 0 has none; leave one of them out")

    @property
    def needs_workers(self) -> bool:
        """True where an option needs workers, or a place for fetched slides, even for one slide."""
        asked = (self.workers, self.scheduler, self.time_limit, self.memory_limit, self.cache)
        return any(value not in (None, 0) for value in asked)

    @property
    def part(self) -> tuple[int, int]:
        """Part of the slides, and number of parts.

        Raises:
            BadParameter: The shard is no such text.

        Example:
            >>> Labour(shard="2/10").part, Labour().part
            ((2, 10), (1, 1))
        """
        if self.shard is None:
            return 1, 1
        part, _, n = self.shard.partition("/")
        if not (part.strip().isdecimal() and n.strip().isdecimal() and 1 <= int(part) <= int(n)):
            raise typer.BadParameter(f"--shard {self.shard}: give a part and the number of parts, from 1/10 to 10/10")
        return int(part), int(n)


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
        labour: How the slides are worked on.
        networks: `networks_digest` of the weights.
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
    labour: Labour = field(default_factory=Labour)
    networks: str = ""

    @property
    def work(self) -> "SlideWork":
        """Request for the workers."""
        from he2her2.cohort import SlideWork

        masks_only = self.verb == "segment"
        classes = self.annotation_classes
        return SlideWork(
            self.weights, self.config, self.region_use, classes, masks_only=masks_only, networks=self.networks
        )

    def overrides(self, model: "SlideModel", sources: "SlideSources") -> dict[str, object]:
        """All that can change a result beyond settings, networks and files."""
        annotated = any(task.annotations for task in sources.tasks)
        regions = self.region_use if annotated else None
        classes = {"annotation_classes": self.annotation_classes or "by name"} if annotated else {}
        rules = {"rules": asdict(model.rules)} if model.rules else {}
        return {"verb": self.verb, "mpp": self.mpp, "annotations": regions, **classes, **rules}


def run_slides(what: Sequence[Path], asked: SlideRun, *, as_json: bool = False) -> None:
    """Predict or segment one slide (its failure is the command's) or many (failures are rows, exit code 1)."""
    from he2her2.cohort import find_slides, networks_digest
    from he2her2.models import load_slide_model

    if asked.annotations is not None and not asked.annotations.exists():
        raise AnnotationError(f"{asked.annotations}: no such file or folder; check --annotations")
    model = load_slide_model(asked.weights, asked.config)
    asked = replace(asked, networks=networks_digest(model))
    sources = find_slides(what, mpp=asked.mpp, annotations=asked.annotations)
    _require_patients(model, sources)
    refuse_idle_annotations(sources)
    run = _plan(asked, model, sources).for_patients(model.rules, sources.patients)
    _require_unused(run)
    say_notes((*asked.notes, *sources.notes))
    if not sources.single or asked.labour.part != (1, 1):
        del model  # the workers open their own
        _run_many(run, asked, sources, as_json=as_json)
    elif asked.labour.needs_workers:
        del model
        _end_one(run, sources, _one_by_workers(run, asked, sources), as_json=as_json)
    else:
        _end_one(run, sources, _one_here(run, asked, model, sources), as_json=as_json)


def _one_here(run: "Run", asked: SlideRun, model: "SlideModel", sources: "SlideSources") -> "SlideResult | Failure":
    """Work on one slide in this process."""
    from he2her2.cli.progress import WorkProgress
    from he2her2.cohort import Ledger, SlideEngine

    with WorkProgress() as show:
        worker = asked.work.with_model(model, show.progress)
        failures = run.failures if run.is_begun else None
        ((_, outcome),) = SlideEngine().run(sources.tasks, worker, Ledger(run.slides, run.digest, failures))
    return outcome


def _one_by_workers(run: "Run", asked: SlideRun, sources: "SlideSources") -> "SlideResult | Failure":
    """Work on one slide as on many, tried again where it failed before."""
    from he2her2.cli.progress import WorkProgress

    alone = replace(asked, labour=replace(asked.labour, retry_failed=True))
    with WorkProgress() as show:

        def on_progress(_: str, stage: str, done: int, total: int) -> None:
            show.progress(stage, done, total)

        with closing(_outcomes(run, alone, sources.tasks, on_progress)) as outcomes:
            (outcome,) = outcomes
    return outcome.found


def _end_one(run: "Run", sources: "SlideSources", outcome: "SlideResult | Failure", *, as_json: bool) -> None:
    """Keep and print the result of one slide; its failure is kept in a run that has begun before.

    Raises:
        He2Her2Error: There is none.
    """
    from he2her2.cli.printer import print_slide
    from he2her2.results import Failure

    if isinstance(outcome, Failure):
        if run.is_begun:
            run.tables.add(outcome)
            run.tables.write()
        seen = f"; what was found until then is in {run.folder / outcome.evidence}" if outcome.evidence else ""
        raise He2Her2Error(f"{outcome}{seen}")
    run.failures.remove(outcome.slide_id)
    run.write_description()
    run.tables.plan({task.slide_id: task.source for task in sources.tasks})
    run.tables.add(outcome)
    run.tables.write()
    print_slide(run, outcome, as_json=as_json)


def _run_many(run: "Run", asked: SlideRun, sources: "SlideSources", *, as_json: bool) -> None:
    """Work on many slides, by workers."""
    from he2her2.cli.progress import WorkProgress
    from he2her2.cli.run_printer import RunPrinter
    from he2her2.cohort import commands_at_work

    part, n_parts = asked.labour.part
    tasks = sorted(sources.tasks, key=lambda task: task.slide_id)
    run.write_description()
    run.tables.plan({task.slide_id: task.source for task in tasks})
    tasks = tasks[part - 1 :: n_parts]
    with WorkProgress() as show:
        printer = RunPrinter(run, len(tasks), show, as_json)
        try:
            with closing(_outcomes(run, asked, tasks, printer.on_progress)) as outcomes:
                for outcome in outcomes:
                    run.tables.add(outcome.found)
                    run.tables.write_when_due()
                    printer.on_slide(outcome)
        finally:
            run.tables.write(lambda: bool(commands_at_work(run.folder)))
    printer.summary()
    if printer.failures:
        raise typer.Exit(1)


def _outcomes(
    run: "Run", asked: SlideRun, tasks: "Sequence[SlideTask]", on_progress: "Report"
) -> "Generator[SlideOutcome[SlideResult], None, None]":
    """The outcomes of slides, as they end."""
    from he2her2.cohort import Claims, Ledger, Limits, SlideJob, Staging, Supervisor, read_claims, sweep_staged

    labour = asked.labour
    work = replace(asked.work, folders=run.slides)
    job = SlideJob(work, Ledger(run.slides, run.digest, run.failures), run.folder / "errors.log")
    minutes = _USUAL_MINUTES if labour.time_limit is None else labour.time_limit
    limits = Limits(minutes or None, labour.memory_limit)
    staging = None
    if any(task.remote for task in tasks):
        place = _place_for_fetched(run.folder, labour.cache)
        sweep_staged(place, lambda: {claim.slide_id for claim in read_claims(run.folder)})
        staging = Staging(place, labour.cache_gb)
    with Claims(run.folder) as claims:
        supervisor = Supervisor(job, partial(_crew, asked), claims, limits, staging, labour.retry_failed, on_progress)
        with closing(supervisor.run(tasks)) as outcomes:
            yield from outcomes


def _place_for_fetched(run: Path, cache: Path | None) -> Path:
    """Folder of this run alone: what lies in it, and nobody works on, is removed at each start."""
    return run / "cache" if cache is None else cache / f"he2her2-{digest(str(run.absolute()))[:_DIGITS]}"


def _crew(
    asked: SlideRun, job: "SlideJob[Evidence, SlideResult]", n_slides: int, report: "Report"
) -> "Crew[SlideResult]":
    """The workers of a run."""
    from he2her2.cohort import DaskWorkers, LocalWorkers, ThisProcess, usual_number
    from he2her2.models import resolve_device

    workers = asked.labour.workers
    if asked.labour.scheduler is not None:
        threads = asked.config.runtime.threads or None  # else those of each worker
        return DaskWorkers(replace(job, threads=threads), asked.labour.scheduler, report)
    if workers == 0:
        return ThisProcess(job, report)
    on_gpus = resolve_device(asked.config.runtime.device) != "cpu"
    n = min(n_slides, workers) if workers else usual_number(n_slides, on_gpus=on_gpus)
    threads = asked.config.runtime.threads or max(1, usable_cores() // n)
    return LocalWorkers(replace(job, threads=threads), n, report)


def _require_unused(run: "Run") -> None:
    """Raise `OutputError` where a run that is to be taken over is still being made: two would write the same tables."""
    from he2her2.cohort import commands_at_work

    if run.takes_over and (commands := commands_at_work(run.folder)):
        where = f"process {commands[0].pid} on {commands[0].host}"
        until = "" if commands[0].is_here else " (if it was killed, three minutes pass until that is seen from here)"
        raise OutputError(
            f"{run.folder}: {where} works on it with other settings; end it first{until}, or choose another --out"
        )


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
            f"the weights' rules hold for patients, by the {rules.patient_rule} over all slides of each, "
            f"but the patient of {unknown[0]} is unknown; give a manifest with patient_id, {anyway}"
        )


def say_notes(notes: Iterable[str]) -> None:
    """Print notes for the user."""
    for note in notes:
        say_line(f"NOTE {note}")


def _place_of(weights: str) -> str:
    """The absolute path of weights, since a run is looked at from elsewhere, too; a name stays a name."""
    return str(Path(weights).absolute()) if Path(weights).is_dir() else weights


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
        told={"weights_folder": _place_of(asked.weights)}
        | (recorded_patients(source) if isinstance(source, Path) else {}),
        overwrite=asked.overwrite,
        result_file=PREDICTION if asked.verb == "predict" else SEGMENTATION,
    )
