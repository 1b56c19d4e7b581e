"""`he2her2 status`: how far a run is."""

from dataclasses import asdict
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import printable, say, say_json
from he2her2.cli.option_groups import grouped, refuse_idle
from he2her2.errors import few_of
from he2her2.units import in_time

if TYPE_CHECKING:
    from he2her2.cohort import RunStatus

_RUNNING_SHOWN = 16


@grouped
def status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of he2her2 predict or segment.", show_default=False)
    ],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until all slides have ended.")] = False,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds between two looks.", show_default="2, in a log 30")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Show how far a run is: slides done, failed and being worked on, rate, time left and bottleneck.

    It reads the run's folder only, so it works from any machine that sees it, while the run goes on or afterwards.
    """
    from rich.console import Console
    from rich.live import Live

    from he2her2.cohort import read_status

    if not watch:
        refuse_idle("every", where="without --watch")
        _print(read_status(run), as_json=as_json, indent=2)
        return
    terminal = Console()
    if as_json or not terminal.is_terminal:
        while (found := read_status(run)).state != "finished":
            if as_json:
                say_json(_as_json(found), indent=None)
            else:
                say(found.line)
            sleep(every or 30)
    else:
        with Live(console=terminal, auto_refresh=False, transient=True) as live:
            while (found := read_status(run)).state != "finished":
                live.update(printable("\n".join(_status_lines(found))), refresh=True)
                sleep(every or 2)
    _print(found, as_json=as_json, indent=None)


def _print(found: "RunStatus", *, as_json: bool, indent: int | None) -> None:
    if as_json:
        say_json(_as_json(found), indent=indent)
    else:
        say("\n".join(_status_lines(found)))


def _status_lines(status: "RunStatus") -> list[str]:
    """A run's progress, a line for each kind of thing."""
    lines = [
        f"{status.n_done + status.n_failed} of {status.n_planned} slides, {status.state}",
        f"  done       {status.n_done}",
        f"  failed     {status.n_failed}"
        + "".join(f", {n} at {stage}" for stage, n in sorted(status.failed.items()) if status.n_failed),
    ]
    running = [f"{claim.slide_id} ({claim.stage or 'begun'}, {claim.host})" for claim in status.running]
    if running:
        lines.append(f"  running    {len(running)}: {few_of(running, _RUNNING_SHOWN)}")
    if status.lost:
        lines.append(f"  stopped at {few_of([claim.slide_id for claim in status.lost], _RUNNING_SHOWN)}")
    if status.slides_per_hour is not None:
        lines.append(f"  rate       {status.slides_per_hour:.3g} slides an hour")
    if status.seconds_left is not None:
        lines.append(f"  time left  {in_time(status.seconds_left)}")
    if status.bottleneck:
        lines.append(f"  most time  {status.bottleneck}")
    if status.state == "stopped":
        lines.append("  give the same command again to go on")
    elif status.n_failed and status.state == "finished":
        lines.append("  see failures.csv; the same command with --retry-failed tries these slides again")
    return lines


def _as_json(status: "RunStatus") -> dict[str, object]:
    return {
        "state": status.state,
        "planned": status.n_planned,
        "done": status.n_done,
        "failed": status.failed,
        "running": [asdict(claim) for claim in status.running],
        "stopped_at": [claim.slide_id for claim in status.lost],
        "slides_per_hour": status.slides_per_hour,
        "seconds_left": status.seconds_left,
        "bottleneck": status.bottleneck,
    }
