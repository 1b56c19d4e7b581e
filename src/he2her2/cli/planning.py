"""`he2her2 plan`: the patients that a study needs, before it begins."""

from typing import Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, say_json
from he2her2.cli.option_groups import grouped, refuse_idle

_Prevalence = Annotated[float, typer.Option(min=0.001, max=0.999, help="Share of positives in the study.")]
_Auc = Annotated[float, typer.Option(min=0.501, max=0.999, help="AUC that is expected.")]
_Width = Annotated[float, typer.Option("--width", min=0.01, max=0.5, help="Width of the AUC's interval.")]
_Above = Annotated[float, typer.Option(min=0.5, max=0.998, help="Value that the AUC is to be shown to exceed.")]
_Rival = Annotated[
    float | None,
    typer.Option(min=0.5, max=0.998, help="AUC of a rival on the same patients, to be exceeded.", show_default=False),
]
_Correlation = Annotated[float, typer.Option(min=0.0, max=0.99, help="Correlation of the two AUCs.")]
_Miss = Annotated[float, typer.Option(min=0.001, max=0.5, help="Share of positives that may be missed.")]
_TrueMiss = Annotated[
    float | None,
    typer.Option(min=0.0, max=0.5, help="Share that will be missed.", show_default="half of --miss"),
]
_Threshold = Annotated[
    float, typer.Option(min=0.001, max=0.999, help="Threshold probability of the net benefit (decision curve).")
]
_Parameters = Annotated[
    int | None,
    typer.Option(min=1, help="Parameters of a regression that is to be developed.", show_default=False),
]
_Power = Annotated[float, typer.Option(min=0.5, max=0.99, help="Chance to show what is to be shown.")]
_Confidence = Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence of guarantees.")]
_Patients = Annotated[
    int | None,
    typer.Option("--patients", min=2, help="What so many patients would show.", show_default=False),
]


@grouped
def plan(  # noqa: PLR0913  # a command's options
    *,
    prevalence: _Prevalence = 0.15,
    auc: _Auc = 0.8,
    width: _Width = 0.1,
    above: _Above = 0.5,
    rival: _Rival = None,
    correlation: _Correlation = 0.5,
    miss: _Miss = 0.05,
    true_miss: _TrueMiss = None,
    threshold: _Threshold = 0.1,
    parameters: _Parameters = None,
    power: _Power = 0.8,
    confidence: _Confidence = 0.95,
    patients: _Patients = None,
    as_json: o.Json = False,
) -> None:
    """Tell how many patients a study needs for each of its goals, or what a number of patients would show.

    By Riley et al. (2021) for calibration, AUC and net benefit, exact for the share of positives missed.
    """
    from dataclasses import asdict

    from he2her2.evaluation import Plan, needed, plan_lines, shown_by

    if rival is None:
        refuse_idle("correlation", where="without --rival")
    asked = Plan(
        prevalence, auc, width, above, rival, correlation, miss, true_miss, threshold, parameters, power, confidence,
        patients,
    )  # fmt: skip
    if as_json:
        shown = shown_by(asked) if patients is not None else ()
        found = {"plan": asdict(asked), "needed": [asdict(one) for one in needed(asked)]}
        say_json(found | {"shown": [asdict(one) for one in shown]})
        return
    say(plan_lines(asked))
