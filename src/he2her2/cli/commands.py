"""The commands of `he2her2`, put together."""

from typing import Annotated

import typer

from he2her2 import __version__
from he2her2.cli.ablating import ablate
from he2her2.cli.console import say
from he2her2.cli.evaluating import compare_command, evaluate_run, recalibrate_run
from he2her2.cli.features import convert, features
from he2her2.cli.ihc import score_ihc
from he2her2.cli.manifests import manifest
from he2her2.cli.option_groups import SettingsOptions, grouped
from he2her2.cli.phantoms import demo, phantom
from he2her2.cli.planning import plan
from he2her2.cli.reporting import export_run, report_run
from he2her2.cli.run_status import status
from he2her2.cli.slides import inspect, slide_command
from he2her2.cli.studies import labels, split
from he2her2.cli.testing import test
from he2her2.cli.training import train
from he2her2.cli.viewing import view
from he2her2.cli.weights import import_weights, weights

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # rich's help panels would double the start-up time
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it so
    if wanted:
        say(f"he2her2 {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """HER2 status from an H&E whole-slide image, with the evidence. Research use only."""


@app.command(name="config")
@grouped
def show_config(settings: SettingsOptions) -> None:
    """Print every setting with its effective value, as TOML that --config takes."""
    from he2her2.config import to_toml

    say(to_toml(settings.load()).rstrip("\n"))


app.command("predict", help="Predict the HER2 status of slides.")(slide_command("predict"))
app.command("segment", help="Write tissue, quality and tumour masks only, without scoring tiles.")(
    slide_command("segment")
)
for command in (inspect, status, view, demo, phantom, features, convert, import_weights, ablate, labels, split, plan):
    app.command()(command)
app.command("report")(report_run)
app.command("export")(export_run)
app.command("evaluate")(evaluate_run)
app.command("compare")(compare_command)
app.command("score-ihc")(score_ihc)
app.command("recalibrate")(recalibrate_run)
app.add_typer(train, name="train")
app.add_typer(test, name="test")
app.add_typer(manifest, name="manifest")
app.add_typer(weights, name="weights")
