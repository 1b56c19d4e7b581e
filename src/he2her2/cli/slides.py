"""Commands on slides: `predict`, `segment` and `inspect`."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import working
from he2her2.cli.extras import require_extra
from he2her2.cli.runs import Labour, SlideRun, parse_shard, run_slides, say_notes
from he2her2.errors import He2Her2Error

if TYPE_CHECKING:
    from he2her2.config import Config

_SAMPLED_TILES = 200


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
        workers: o.SlideWorkers = None,
        scheduler: o.Scheduler = None,
        shard: o.Shard = None,
        time_limit: o.TimeLimit = 120.0,
        memory_limit: o.MemoryLimit = None,
        retry_failed: o.RetryFailed = False,
        cache: o.Cache = None,
        cache_gb: o.CacheGb = 50.0,
        overwrite: o.OverwriteOption = False,
        as_json: o.Json = False,
    ) -> None:
        effective = effective_settings(preset, config, settings, backend, threads, device, precision)
        effective, notes = _as_trained(effective, weights, config, settings)
        classes = tuple(annotation_class or ())
        if scheduler is not None:
            require_extra("cluster", "distributed")
        labour = Labour(
            workers, parse_shard(shard), time_limit or None, memory_limit, retry_failed, cache, cache_gb, scheduler
        )
        asked = SlideRun(
            out, effective, weights, verb, mpp, annotations, annotations_use, classes, overwrite, notes, labour
        )
        run_slides(what, asked, as_json=as_json)

    return command


def _as_trained(
    config: "Config", weights: str, file: Path | None, overrides: list[str] | None
) -> tuple["Config", tuple[str, ...]]:
    """The settings, with the weights' own selection and scoring where the user set none, and notes of the changes."""
    from he2her2.config import chosen_keys
    from he2her2.models import settings_of_training

    trained = settings_of_training(config, weights, chosen_keys(file, overrides or []))
    groups = (("networks", asdict(trained.networks), asdict(config.networks)),
              ("selection", asdict(trained.selection), asdict(config.selection)),
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
    say_notes(sources.notes)
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
