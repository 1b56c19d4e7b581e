"""`ablate`: the six methods of Tables 3 and 4."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say
from he2her2.cli.option_groups import CohortTerms, ThreadedSettings, TrainingHardware, grouped, refuse_idle
from he2her2.cli.training import check_leaks, need_training
from he2her2.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@grouped
def ablate(  # noqa: PLR0913  # a command's options
    *,
    train: Annotated[Path, typer.Option("--train", help="H&E slides, splits train and val.", show_default=False)],
    test: Annotated[
        list[str],
        typer.Option("--test", metavar="NAME=CSV", help="A test cohort; may be given twice.", show_default=False),
    ],
    out: o.Out,
    ihc: Annotated[
        Path | None, typer.Option("--ihc", help="IHC slides to learn tile scores from.", show_default=False)
    ] = None,
    tile_weights: Annotated[
        str | None, typer.Option(help="In place of --ihc: folder with a tile_cnn/ that did.", show_default=False)
    ] = None,
    adapt: Annotated[
        bool,
        typer.Option("--adapt", help="First teach tile CNNs H&E tiles by their slide's IHC score; not in the paper."),
    ] = False,
    weights: Annotated[
        str, typer.Option(help="Folder with the tumour_cnn/ that finds tumour, or bundled.")
    ] = "bundled",
    annotations_use: Annotated[
        Literal["intersect", "replace", "ignore"],
        typer.Option(help="Annotations of H&E slides limit the tumour that is found, or replace it."),
    ] = "intersect",
    annotation_class: o.AnnotationClasses = None,
    terms: CohortTerms,
    settings: ThreadedSettings,
    hardware: TrainingHardware,
    workers: o.ReadingProcesses = 0,
) -> None:
    """Train and test the six methods of the paper's Tables 3 and 4; the same command again goes on where it stopped."""
    need_training()
    tests = _tests(test)
    if (ihc is None) == (tile_weights is None):
        raise ConfigError(
            "the tile CNN learns from IHC or is given: pass --ihc CSV, or --tile-weights FOLDER, not both"
        )
    if idle := {"replace": "weights", "ignore": "annotation_class"}.get(annotations_use):
        refuse_idle(idle, where=f"with --annotations-use {annotations_use}")
    from he2her2.ablation import AblationData, StudyFiles, load_ablation
    from he2her2.ablation.ablate import run_ablation
    from he2her2.models import trained_folder

    effective = load_ablation(settings.preset, settings.config, settings.overrides)
    data = AblationData(
        StudyFiles(train, tests, ihc),
        tile_weights=trained_folder(tile_weights) if tile_weights else None,
        adapt=adapt,
        weights=None if annotations_use == "replace" else trained_folder(weights),
        annotations_use=annotations_use,
        annotation_classes=tuple(annotation_class or ()),
        policy=terms.status_policy,
        notice=terms.notice,
        licence=terms.licence,
    )
    data.read()  # whatever is wrong with the manifests is told before their slides are compared
    check_leaks(train, *tests.values(), *([ihc] if ihc else []))
    report = run_ablation(data, out, effective, hardware.execution(workers=workers))
    say(report.read_text("utf-8").rstrip())
    say(f"tables {report.parent / 'tables'}; report {report}")


def _tests(texts: Sequence[str]) -> dict[str, Path]:
    """The test cohorts of NAME=CSV texts."""
    tests: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (equals and path and _NAME.fullmatch(name)):
            raise ConfigError(f"--test '{text}': write it as NAME=CSV, the name of letters, digits, dots and dashes")
        if name in tests:
            raise ConfigError(f"--test: {name} is given twice; name each cohort once")
        tests[name] = Path(path)
    return tests
