"""Commands on features: `features` extracts them, `convert` brings them from one program's layout to another's."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, say_line
from he2her2.cli.option_groups import RuntimeSettings, grouped, refuse_idle, refuse_idle_annotations
from he2her2.errors import He2Her2Error

if TYPE_CHECKING:
    from he2her2.cli.progress import WorkProgress
    from he2her2.cohort import FeatureFile, FeatureWorker, SlideTask
    from he2her2.results import Failure

_EncoderName = Annotated[
    str,
    typer.Option(
        "--encoder",
        metavar="NAME",
        help="tile-cnn (of --weights), efficientnet-lite0, or a folder with a card.json; see docs/encoders.md.",
        show_default=False,
    ),
]
_Region = Annotated[
    Literal["tumour", "tissue", "annotated"],
    typer.Option(help="Where tiles are cut: tumour that is found, all usable tissue, or annotated tumour alone."),
]
_Coords = Annotated[
    Path | None,
    typer.Option(
        help="Folder of coordinates of TRIDENT, CLAM or WSInfer, in place of cutting.", show_default="cut the region"
    ),
]
_OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)]


@grouped
def features(  # noqa: PLR0913  # a command's options
    what: o.What,
    *,
    encoder: _EncoderName,
    out: _OutFolder,
    region: _Region = "tumour",
    coords: _Coords = None,
    weights: o.WeightsOption = "bundled",
    mpp: o.Mpp = None,
    annotations: o.Annotations = None,
    annotation_class: o.AnnotationClasses = None,
    settings: RuntimeSettings,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Extract the features of slides: one HDF5 file a slide, in TRIDENT's layout."""
    from he2her2.cli.progress import WorkProgress
    from he2her2.cohort import FeatureStore, FeatureWorker, Ledger, SlideEngine, find_slides
    from he2her2.exchange import tiles_files
    from he2her2.manifest import files_of_slides
    from he2her2.models import load_cnn, load_encoder, trained_folder
    from he2her2.results import FAILURES_FILE

    config = settings.load()
    find_tumour = region == "tumour" and coords is None
    _refuse_idle(encoder, region, coords, find_tumour=find_tumour)
    sources = find_slides(what, mpp=mpp, annotations=annotations)
    show = WorkProgress()
    worker = FeatureWorker(
        load_encoder(encoder, trained_folder(weights), config.runtime.device, config.runtime.precision),
        config,
        load_cnn(weights, "tumour_cnn", config) if find_tumour else None,
        region,
        tuple(annotation_class or ()),
        None if coords is None else files_of_slides(tiles_files(coords), {t.slide_id: t.path for t in sources.tasks}),
        show.progress,
    )
    refuse_idle_annotations(sources)
    for note in sources.notes:
        say_line(f"NOTE {note}")
    _begin(out, worker, overwrite=overwrite)
    engine = SlideEngine(log=None if sources.single else out / "errors.log")
    ledger = Ledger(FeatureStore(out, worker.coords, overwrite), worker.configuration)
    with show:
        outcomes = engine.run(sources.tasks, worker, ledger, stage="slides")
        done, n_failed = _told(outcomes, out / FAILURES_FILE, show)
    n_tiles, card = sum(file.n_tiles for file in done), worker.encoder.card
    say(
        f"{len(done)} slides done, {n_failed} failed; {n_tiles} tiles of {card.input.side_px} px at "
        f"{card.input.mpp:g} µm/px, {card.n_features} features of {card.name} each, in {out}"
    )
    if n_failed:
        raise typer.Exit(1)


def _told(
    outcomes: "Iterable[tuple[SlideTask, FeatureFile | Failure]]", failures_file: Path, show: "WorkProgress"
) -> "tuple[list[FeatureFile], int]":
    """Tell each slide as it ends, and list those that fail; the files, and the number of failures.

    Args:
        outcomes: Of the slides.
        failures_file: Table of failures, which keeps those of earlier commands on other slides.
        show: What is cleared between two slides.
    """
    from he2her2.results import Failure, read_failures, write_failures

    done: list[FeatureFile] = []
    n_failed = 0
    listed = read_failures(failures_file)
    for task, outcome in outcomes:
        if isinstance(outcome, Failure):
            n_failed += 1
            listed[task.slide_id] = outcome
            say_line(f"{task.slide_id}: FAILED ({outcome.stage}): {outcome.reason}; {outcome.remedy}")
        else:
            done.append(outcome)
            listed.pop(task.slide_id, None)
            say(f"{task.slide_id}: {outcome.n_tiles} tiles" + (", there already" if outcome.kept else ""))
        write_failures(failures_file, listed.values())
        show.clear()
    return done, n_failed


def _refuse_idle(encoder: str, region: str, coords: Path | None, *, find_tumour: bool) -> None:
    """Refuse options without effect on the tiles that are asked for."""
    if coords is not None:
        refuse_idle("region", "annotations", "annotation_class", where="beside --coords")
    if region == "tissue":
        refuse_idle("annotations", "annotation_class", where="with --region tissue")
    if not find_tumour and encoder != "tile-cnn":
        refuse_idle("weights", where="where another encoder takes tiles and no tumour is looked for")


def _begin(out: Path, worker: "FeatureWorker", *, overwrite: bool) -> None:
    """Describe the run, unless its folder holds features of another encoder or of other settings.

    Raises:
        OutputError: It does, or cannot be written, or is that of the coordinates.
    """
    from dataclasses import asdict

    from he2her2.errors import OutputError
    from he2her2.files import check_not_read, check_writable, read_json, write_json
    from he2her2.results import FAILURES_FILE, RUN_FILE, describe_environment

    check_writable(out)
    for slide_id, coords in (worker.coords or {}).items():
        check_not_read(out / f"{slide_id}.h5", [coords])
    file = out / RUN_FILE
    try:
        other = read_json(file).get("digest") != worker.configuration
    except FileNotFoundError:
        other = any(out.glob("*.h5"))
    except (OSError, ValueError):
        other = True
    if other and not overwrite:
        raise OutputError(
            f"{out}: holds features of another encoder or other settings; choose another --out, or --overwrite"
        )
    out.mkdir(parents=True, exist_ok=True)
    if other:
        (out / FAILURES_FILE).unlink(missing_ok=True)
    encoder = {"card": asdict(worker.encoder.card), "sha256": worker.encoder.identity}
    described = {
        "digest": worker.configuration,
        "encoder": encoder,
        "region": worker.region if worker.coords is None else "coords",
        "config": asdict(worker.config),
    }
    write_json(file, describe_environment(sys.argv) | described, ascii_only=True)


@grouped
def convert(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of files of tiles.", show_default=False)],
    *,
    to: Annotated[
        Literal["trident", "clam", "stamp", "wsinfer"], typer.Option(help="Layout to write.", show_default=False)
    ],
    out: _OutFolder,
    mpp: o.Mpp = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV of the slides, whose mpp is taken: the column's, else the file's.", show_default=False),
    ] = None,
    coords: Annotated[
        Path | None, typer.Option(help="Folder of the coordinates of features that stand alone.", show_default=False)
    ] = None,
) -> None:
    """Convert tiles and features between the layouts of TRIDENT, CLAM, STAMP and WSInfer."""
    from he2her2.cohort import SlideEngine, SlideTask
    from he2her2.exchange import Converted, convert_file, tiles_files
    from he2her2.manifest import files_of_slides
    from he2her2.results import Failure

    if mpp is not None:
        refuse_idle("manifest", where="beside --mpp, which holds for all slides")
    files = tiles_files(folder)
    known = {} if manifest is None else _mpps(manifest, files)
    beside = {} if coords is None else files_of_slides(tiles_files(coords), files)

    def worker(task: SlideTask) -> Converted:
        return convert_file(task.path, out, to, mpp_l0=task.mpp, coords=beside.get(task.slide_id))

    tasks = [SlideTask(slide_id, path, known.get(slide_id, mpp)) for slide_id, path in files.items()]
    outcomes = [found for _, found in SlideEngine().run(tasks, worker)]
    failures = [found for found in outcomes if isinstance(found, Failure)]
    converted = [found for found in outcomes if not isinstance(found, Failure)]
    for failure in failures:
        say_line(f"{failure.slide_id}: FAILED: {failure.reason}; {failure.remedy}")
    sources = ", ".join(sorted({found.source for found in converted})) or "nothing"
    n_tiles = sum(found.n_tiles for found in converted)
    say(f"{len(converted)} slides, {n_tiles} tiles, from {sources} to {to} in {out}; {len(failures)} failed")
    for text in dict.fromkeys(text for found in converted for text in found.lost):
        say(f"  not kept {text}: {to} has no place for it")
    if failures:
        raise typer.Exit(1)


def _mpps(manifest: Path, files: Mapping[str, Path]) -> dict[str, float]:
    """µm per level-0 px by the names of files of tiles: as the manifest says, else as the slides' own files do.

    Raises:
        He2Her2Error: The manifest names none of them.
        ManifestError: It holds cells that cannot be understood.
    """
    from he2her2.cohort import SlideEngine, SlideTask
    from he2her2.manifest import files_of_slides, raise_problems, read_manifest
    from he2her2.results import Failure
    from he2her2.slides import open_slide

    def worker(task: SlideTask) -> float:
        if task.mpp is not None:
            return task.mpp
        with open_slide(task.path) as slide:
            return slide.mpp

    read = read_manifest(manifest)
    raise_problems(read, read.problems)
    rows = {row.slide_id: row for row in read.rows}
    of_rows = files_of_slides(files, {slide_id: row.path for slide_id, row in rows.items()})
    names = {file: name for name, file in files.items()}
    if not of_rows:
        raise He2Her2Error(f"{manifest}: names none of the slides, such as {next(iter(files))}; check slide_id")
    tasks = [SlideTask(names[file], rows[slide_id].path, rows[slide_id].mpp) for slide_id, file in of_rows.items()]
    outcomes = SlideEngine().run(tasks, worker)
    return {task.slide_id: found for task, found in outcomes if not isinstance(found, Failure)}
