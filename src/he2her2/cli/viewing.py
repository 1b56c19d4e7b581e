"""The command `view`: a run or slides in the browser."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from he2her2.cli.console import say, say_line
from he2her2.cli.extras import require_extra


def view(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="WHAT...", help="A run's folder; or slides, folders, glob patterns, manifests.", show_default=False
        ),
    ],
    *,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Manifest of the run's slides: H&E and IHC of a patient side by side.", show_default=False),
    ] = None,
    slides: Annotated[
        Path | None, typer.Option(help="Folder of the slides, if they were moved since.", show_default=False)
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder for drawn regions and verdicts.", show_default="RUN/annotations; without a run none"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 for any free one.", show_default="8842 or the next")
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a token here, too: for a machine that others share.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show a run, or slides, in the browser: every tile's score on the slide, regions to draw, verdicts to keep."""
    require_extra("viewer", "starlette", "uvicorn")
    from he2her2.viewer import Reviews, listen, read_catalogue, serve

    reread = partial(read_catalogue, what, manifest=manifest, moved_to=slides)
    catalogue = reread()
    if annotations is None and catalogue.run is not None:
        annotations = catalogue.run.path / "annotations"
    listener = listen(host, port, with_token=token)
    for note in catalogue.notes:
        say_line(f"NOTE {note}")
    n = len(catalogue.slides)
    kept = f"are kept in {annotations}" if Reviews(annotations).writable else "cannot be kept: " + (
        f"{annotations} cannot be written; name another folder with --annotations" if annotations
        else "name a folder with --annotations"
    )  # fmt: skip
    say(f"{catalogue.name}: {n} slide{'s' * (n > 1)}; regions and verdicts {kept}")
    say(f"open {listener.url}   (Ctrl-C stops)")
    if open_page:
        typer.launch(listener.url)
    serve(catalogue, annotations, listener, reread)
