"""`he2her2 report` and `he2her2 export`: a run as pages for people and as files for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working
from he2her2.errors import few_of
from he2her2.machine import usable_cores

if TYPE_CHECKING:
    from he2her2.report import WrittenPages

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
    written = draw_report(run, out, tuple(slide or ()), weights, evaluation, threads)
    failed = f", {written.failed} of slides without a result" if written.failed else ""
    n = len(written.cases)
    say(f"{n} page{'s' * (n != 1)}{failed}")
    if former := written.former:
        shown = few_of(former)
        say(f"CAUTION pages of slides that the run has no longer are still there: {shown}; remove them, or give --out")
    pages = list(written.cases.values())
    say(f"report {pages[0] if n == 1 else written.index or pages[0].parent}")


def draw_report(
    run: Path,
    out: Path | None = None,
    only: tuple[str, ...] = (),
    weights: str | None = None,
    evaluation: Path | None = None,
    threads: int | None = None,
) -> "WrittenPages":
    """Write the pages of a run; arguments are those of the command."""
    from he2her2.evaluation import read_evaluation
    from he2her2.report import PagesRequest, find_weights, write_pages
    from he2her2.results import open_run

    opened = open_run(run, needs_predictions=False)
    found = find_weights(opened, weights)
    if found.missing:
        say(f"NOTE without model cards and checks: {found.missing}; give --weights", error=True)
    shown = None if evaluation is None else read_evaluation(evaluation)
    asked = PagesRequest(opened, found, shown, only, threads or usable_cores())
    with working("drawing pages"):
        return write_pages(asked, out or run / "report")


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
