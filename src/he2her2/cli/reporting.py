"""`he2her2 report` and `he2her2 export`: a run as pages for people and as files for other programs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working

_RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of he2her2 predict or segment.", show_default=False)
]
_Slides = Annotated[
    list[str] | None,
    typer.Option("--slide", metavar="ID", help="Only this slide; may be given again.", show_default="all"),
]


def report_run(
    run: _RunPath,
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.", show_default="RUN/report")] = None,
    slide: _Slides = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of the run, for model cards and checks.", show_default="where the run found them"),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of he2her2 evaluate, to show its figures and plots.", show_default=False)
    ] = None,
    threads: o.Threads = None,
) -> None:
    """Write a page for each slide and one for the run: single HTML files that open offline and print."""
    from he2her2.evaluation import read_evaluation
    from he2her2.report import PagesRequest, find_weights, write_pages
    from he2her2.results import open_run

    opened = open_run(run, needs_predictions=False)
    asked = PagesRequest(
        opened,
        find_weights(opened, weights),
        None if evaluation is None else read_evaluation(evaluation),
        tuple(slide or ()),
        threads or os.cpu_count() or 1,
    )
    with working("drawing pages"):
        written = write_pages(asked, out or run / "report")
    failed = f", {written.failed} of them of slides without a result" if written.failed else ""
    if asked.weights.missing:
        say(f"NOTE without model cards and checks: {asked.weights.missing}; give --weights", error=True)
    say(f"{len(written.cases)} pages{failed}")
    if len(written.cases) == 1:
        say(f"report {next(iter(written.cases.values()))}")
    else:
        say(f"report {written.index or next(iter(written.cases.values())).parent}")


def export_run(
    run: _RunPath,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)],
    slide: _Slides = None,
    all_tiles: Annotated[
        bool, typer.Option("--all-tiles", help="Every tile in the GeoJSON, not only those that decide.")
    ] = False,
) -> None:
    """Write a GeoJSON for QuPath and a heatmap (OME-TIFF) of each slide, from its tiles.h5."""
    from he2her2.results import export_slide, open_run

    opened = open_run(run)
    names = slide or sorted(opened.predictions)
    for name in names:
        for file in export_slide(opened, name, out, all_tiles=all_tiles):
            say(str(file))
