"""What `he2her2` can do, a function a verb."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from he2her2 import __version__
from he2her2.cli import options as o
from he2her2.cli.ablating import ablate, import_weights
from he2her2.cli.evaluating import evaluate
from he2her2.cli.manifests import manifest
from he2her2.cli.phantoms import demo, phantom
from he2her2.cli.recalibrating import recalibrate
from he2her2.cli.studies import labels, split
from he2her2.cli.training import train
from he2her2.errors import AnnotationError, SlideError

if TYPE_CHECKING:
    from he2her2.cohort.work import Work
    from he2her2.config import Config

_SAMPLED_TILES = 200

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # rich's help panels would double the start-up time
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it so
    if wanted:
        typer.echo(f"he2her2 {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """HER2 status from an H&E whole-slide image, with the evidence. Research use only."""


def _add_slide_command(verb: str, help_text: str) -> None:
    """`predict` and `segment` take the same options and differ in what `Work` does to a slide."""

    @app.command(verb, help=help_text)
    def command(  # noqa: PLR0913  # a command's options
        slide: o.SlidePath,
        *,
        out: o.Out,
        weights: o.Weights = "bundled",
        mpp: o.Mpp = None,
        preset: o.PresetName = "default",
        config: o.ConfigFile = None,
        settings: o.Set = None,
        annotations: o.Annotations = None,
        annotations_use: o.AnnotationsUse = "intersect",
        backend: o.Reader = "auto",
        threads: o.Threads = None,
        device: o.RunsOn = "auto",
        precision: o.Arithmetic = "full",
        overwrite: o.Overwrite = False,
        as_json: o.Json = False,
    ) -> None:
        effective = _settings(preset, config, settings, backend, threads, device, precision)
        work = _plan(verb, out, effective, weights, mpp, annotations, annotations_use, overwrite=overwrite)
        _run(slide, work, verb, as_json=as_json)


_add_slide_command("predict", "Predict the HER2 status of a slide, or of every slide in a folder.")
_add_slide_command("segment", "Write tissue, quality and tumour masks only, without scoring tiles.")


@app.command()
def inspect(
    slide: o.SlidePath,
    *,
    mpp: o.Mpp = None,
    backend: o.Reader = "auto",
    deep: Annotated[bool, typer.Option("--deep", help="Decode every compressed tile, not a sample.")] = False,
    as_json: o.Json = False,
) -> None:
    """Tell what a slide is, whether it is whole, and what we would do with it and why."""
    from he2her2.cli.console import working
    from he2her2.cli.inspections import print_inspections
    from he2her2.cohort.listing import list_slides
    from he2her2.slides.inspection import inspect_slide

    n_check = None if deep else _SAMPLED_TILES
    reports, failures = [], []
    for path in list_slides(slide):
        try:
            with working(f"checking {path.name}"):
                reports.append(inspect_slide(path, mpp, backend, n_check=n_check))
        except SlideError as error:
            if not slide.is_dir():
                raise
            failures.append(str(error))
    print_inspections(reports, failures, as_json=as_json)
    if failures:
        raise typer.Exit(1)


app.command()(demo)
app.command()(phantom)


@app.command(name="config")
def show_config(*, preset: o.PresetName = "default", config: o.ConfigFile = None, settings: o.Set = None) -> None:
    """Print every setting with its effective value, as TOML that --config takes."""
    from he2her2.config import to_toml

    typer.echo(to_toml(_settings(preset, config, settings, "auto", None)), nl=False)


app.command()(import_weights)
app.command()(ablate)
app.add_typer(train, name="train")
app.command()(labels)
app.add_typer(manifest, name="manifest")
app.command()(split)
app.command()(evaluate)
app.command()(recalibrate)


def predict_slide(slide: Path, out: Path, threads: int | None) -> None:
    """Predict one slide with the bundled weights and default settings."""
    effective = _settings("default", None, None, "auto", threads)
    work = _plan("predict", out, effective, "bundled", None, None, "intersect", overwrite=True)
    _run(slide, work, "predict", as_json=False)


def _settings(
    preset: o.Preset,
    file: Path | None,
    overrides: list[str] | None,
    backend: o.Backend,
    threads: int | None,
    device: o.Device = "auto",
    precision: o.Precision = "full",
) -> "Config":
    """The effective settings: preset, then file, then --set, then options of their own."""
    from he2her2.config import load_config

    named = [f"runtime.backend={backend}"] if backend != "auto" else []
    named += [f"runtime.threads={threads}"] if threads else []
    named += [f"runtime.device={device}"] if device != "auto" else []
    named += [f"runtime.precision={precision}"] if precision != "full" else []
    return load_config(preset, file, [*(overrides or []), *named])


def _plan(
    verb: str,
    out: Path,
    config: "Config",
    weights: str,
    mpp: float | None,
    annotations: Path | None,
    region_use: o.RegionUse,
    *,
    overwrite: bool,
) -> "Work":
    """Check the output folder, load the networks, and say what is to be done to each slide."""
    from dataclasses import asdict

    from he2her2.cohort.work import SlideOptions, Work
    from he2her2.manifest.provenance import patients_behind
    from he2her2.models.slide_model import load_slide_model, weights_source
    from he2her2.results.run import plan_run

    if annotations is not None and not annotations.exists():
        raise AnnotationError(f"{annotations}: no such file or folder; check --annotations")
    model = load_slide_model(weights, config)
    options = SlideOptions(mpp, annotations, region_use)
    cards = [card.summary for card in model.cards.values()]
    run = plan_run(
        out,
        command=sys.argv,
        config=config,
        weights=cards,
        overrides={"verb": verb} | options.digest_parts() | ({"rules": asdict(model.rules)} if model.rules else {}),
        patients=patients_behind(source) if isinstance(source := weights_source(weights), Path) else {},
        overwrite=overwrite,
    )
    return Work(run, model, config, options)


def _run(slide: Path, work: "Work", verb: str, *, as_json: bool) -> None:
    """Work on one slide (its failure is the command's) or on a folder (failures are rows, exit code 1)."""
    from dataclasses import replace

    from he2her2.cli.reports import Printer
    from he2her2.cohort.listing import list_slides
    from he2her2.cohort.work import each_slide

    slides = list_slides(slide)
    with Printer(as_json=as_json) as printer:
        work = replace(work, progress=printer.progress)
        process = getattr(work, verb)
        if not slide.is_dir():
            work.run.records.append(process(slide))
            work.run.write_description()
            work.run.write_tables()
            printer.slide(work.run, work.run.records[0])
            return
        each_slide(slides, process, work.run, printer.on_slide)
        printer.cohort(work.run)
    if work.run.failures:
        raise typer.Exit(1)
