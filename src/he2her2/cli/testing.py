"""`he2her2 test`: networks against truth, beside trivial rivals."""

from pathlib import Path
from typing import Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say
from he2her2.cli.extras import require_extra
from he2her2.cli.option_groups import DeviceSettings, grouped, refuse_idle

test = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Test a network against truth and trivial rivals.")


@test.command("tumour")
@grouped
def tumour_network(
    *,
    weights: Annotated[
        list[str],
        typer.Option(
            help="Folder with tumour_cnn/, bundled, or a training; a training with folds, or several given, judge each "
            "patient by a network that has not seen him."
        ),
    ],
    data: Annotated[
        Path, typer.Option(help="Patch set (NPZ), or manifest whose H&E slides have annotations.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)],
    mpp: Annotated[
        float | None, typer.Option(help="µm per px of a patch set.", show_default="as the file says")
    ] = None,
    shifts: Annotated[bool, typer.Option("--shifts/--no-shifts", help="Go through the shift sheet.")] = True,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the picture.")] = True,
    annotation_class: o.AnnotationClasses = None,
    settings: DeviceSettings,
) -> None:
    """Test a tumour network: AUC, balanced accuracy, Dice, precision, recall with intervals by patient.

    Beside each figure stand trivial rivals: a colour histogram, darkness, all tissue. The shift sheet shows the same
    pictures in other stains, colours, light, focus, compression and scale. Of slides, HASHI is held against a dense map
    of the same network and against the annotation.
    """
    require_extra("evaluate", "matplotlib", "sklearn")
    from he2her2.cli.progress import WorkProgress
    from he2her2.evaluation import check_evaluation_folder
    from he2her2.evaluation.tumour import (
        TUMOUR_TEST_FILE,
        TumourQuestion,
        evaluate_tumour,
        is_patch_set,
        tumour_evaluation_lines,
        write_tumour_evaluation,
    )

    check_evaluation_folder(out, TUMOUR_TEST_FILE)
    if is_patch_set(data):
        refuse_idle("annotation_class", where="on patches: it is of the annotations of slides")
    question = TumourQuestion(tuple(weights), data, settings.load(), mpp, tuple(annotation_class or ()), shifts)
    with WorkProgress() as shown:
        found = evaluate_tumour(question, shown.progress)
    write_tumour_evaluation(found, out, draw=plots)
    say(tumour_evaluation_lines(found, out / "tumour_test.md"))
