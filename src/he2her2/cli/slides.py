"""Commands on slides: `predict`, `segment` and `inspect`."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say_json, working
from he2her2.cli.extras import require_extra
from he2her2.cli.option_groups import RuntimeSettings, ThreadedSettings, grouped
from he2her2.cli.runs import Labour, SlideRun, run_slides, say_notes
from he2her2.errors import He2Her2Error

if TYPE_CHECKING:
    from he2her2.config import Config

_SAMPLED_TILES = 200


def slide_command(verb: Literal["predict", "segment"]) -> Callable[..., None]:
    """The command `predict` or `segment`: they take the same options."""

    @grouped
    def command(  # noqa: PLR0913  # a command's options
        what: o.What,
        *,
        out: o.Out,
        weights: o.WeightsOption = "bundled",
        mpp: o.Mpp = None,
        annotations: o.Annotations = None,
        annotations_use: o.AnnotationsUseOption = "intersect",
        annotation_class: o.AnnotationClasses = None,
        settings: RuntimeSettings,
        labour: Labour,
        overwrite: o.OverwriteOption = False,
        as_json: o.Json = False,
    ) -> None:
        config, notes = as_trained(settings, weights)
        classes = tuple(annotation_class or ())
        if labour.scheduler is not None:
            require_extra("cluster", "distributed")
        asked = SlideRun(
            out, config, weights, verb, mpp, annotations, annotations_use, classes, overwrite, notes, labour
        )
        run_slides(what, asked, as_json=as_json)

    return command


def as_trained(settings: ThreadedSettings, weights: str) -> tuple["Config", tuple[str, ...]]:
    """The settings, with the weights' own selection and scoring where the user set none, and notes of the changes."""
    from he2her2.config import chosen_keys
    from he2her2.models import settings_of_training

    config = settings.load()
    trained = settings_of_training(config, weights, chosen_keys(settings.config, settings.overrides))
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
    from he2her2.cli.printer import print_inspection
    from he2her2.cohort import SlideEngine, SlideTask, find_slides
    from he2her2.results import Failure
    from he2her2.slides import SlideReport, inspect_slide

    def worker(task: SlideTask) -> SlideReport:
        with working(f"checking {task.path.name}"):
            report = inspect_slide(task.path, task.mpp, backend, n_check=None if deep else _SAMPLED_TILES)
        return replace(report, slide_id=task.slide_id, path=task.source)  # not as its file is named

    sources = find_slides(what, mpp=mpp)
    say_notes(sources.notes)
    reports: list[SlideReport] = []
    failures: list[str] = []
    for _, found in SlideEngine().run(sources.tasks, worker):
        if isinstance(found, Failure):
            if sources.single:
                raise He2Her2Error(str(found))
            failures.append(str(found))
        else:
            reports.append(found)
        if not as_json:
            print_inspection(found)
    if as_json:
        say_json({"slides": [asdict(report) for report in reports], "failures": failures})
    if failures:
        raise typer.Exit(1)
