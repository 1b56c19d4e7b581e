"""`he2her2 train`: the three networks."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working
from he2her2.cli.extras import require_extra
from he2her2.cli.progress import WorkProgress
from he2her2.errors import ConfigError

if TYPE_CHECKING:
    from he2her2.training import Execution, FeatureTraining

train = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train the tumour CNN, the tile CNN, and tile CNN with aggregator on slides.",
)

Resume = Annotated[bool, typer.Option("--resume", help="Go on where a stopped training was; begin where none was.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another training in the folder.")]
Accelerator = Annotated[str, typer.Option(help="cpu, gpu, mps, ...; for Lightning.")]
Devices = Annotated[str, typer.Option(help="How many devices, or which; for Lightning.")]
Strategy = Annotated[str, typer.Option(help="Such as ddp; for Lightning.")]
TrainingPrecision = Annotated[str, typer.Option(help="Such as 16-mixed or bf16-mixed; for Lightning.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read pixels; 0 reads in the training process.")]
ManifestFile = Annotated[Path, typer.Option("--manifest", help="CSV of slides; see docs.", show_default=False)]
Licence = Annotated[str, typer.Option(help="Licence of the data, for the card.", show_default="not stated")]
Notice = Annotated[str, typer.Option(help="What every output of the weights must say.", show_default=False)]


class Stages:
    """Progress of a training's stages, gone when a stage is done: then Lightning has the terminal to itself."""

    def __init__(self) -> None:
        self._stage = ""
        self._show: WorkProgress | None = None

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage, in the first of several processes."""
        from he2her2.training import is_first_process

        if not is_first_process() or not total:
            return
        if stage != self._stage or self._show is None:
            self._stop()
            self._stage, self._show = stage, WorkProgress().__enter__()
        self._show.progress(stage, done, total)
        if done >= total:
            self._stop()

    def _stop(self) -> None:
        if self._show is not None:
            self._show.__exit__(None, None, None)
        self._stage, self._show = "", None


def finish(report: Path) -> None:
    """Print a training's report, in the process that wrote it."""
    from he2her2.training import is_first_process

    if is_first_process():
        say(report.read_text("utf-8").rstrip())
        say(f"weights {report.parent / 'weights'}; report {report}")


def need_training() -> None:
    """Refuse where the libraries of the extra `train` are not installed.

    Raises:
        ConfigError: One of them is missing.
    """
    require_extra("train", "torch", "lightning", "tensorboardX")


def with_slides_here(manifest: Path, out: Path) -> Path:
    """The manifest, or where it names slides behind addresses one whose slides have been fetched to `out/fetched`."""
    from he2her2.cohort import fetch_manifest
    from he2her2.files import url_of
    from he2her2.manifest import read_manifest

    read = read_manifest(manifest)
    if not any(url_of(row.path) for row in read.rows):
        return manifest
    return fetch_manifest(read, out / "fetched" / manifest.stem, Stages().progress).path


def check_leaks(*manifests: Path) -> None:
    """Refuse a patient, a file or the same tissue on two sides, before anything is trained; see `cohort.leaks`.

    Raises:
        ManifestError: All leaks.
    """
    from he2her2.cohort import refuse_leaks
    from he2her2.manifest import read_manifest

    with working("comparing slides"):
        read = [read_manifest(file) for file in manifests]
        told = refuse_leaks(read)
    for line in (*(f"{one.path}: {note}" for one in read for note in one.notes), *told):
        say(f"CAUTION {line}", error=True)


def execution(
    accelerator: str,
    devices: str,
    strategy: str,
    precision: str,
    *,
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> "Execution":
    """Hardware and messages of a command's training: of several processes only the first one prints.

    `workers` stays 0 where patches lie in memory, or threads read a slide's tiles.
    """
    from he2her2.training import Execution, Hardware, is_first_process

    def tell(text: str) -> None:
        if is_first_process():
            say(text, error=True)

    hardware = Hardware(accelerator, devices, strategy, precision, workers)
    return Execution(hardware, sys.argv, resume, overwrite, Stages().progress, tell)


@train.command()
def tumour(  # noqa: PLR0913  # a command's options
    *,
    out: o.Out,
    patches: Annotated[
        list[Path] | None,
        typer.Option(
            help="NPZ of patches: patch (or jpeg, offset), invasive, patient (or valid); may be given again.",
            show_default=False,
        ),
    ] = None,
    patches_mpp: Annotated[
        list[float] | None,
        typer.Option(help="µm per px, one for each --patches.", show_default="the network's"),
    ] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(help="CSV of H&E slides whose annotations show tumour; may be given again.", show_default=False),
    ] = None,
    annotation_class: o.AnnotationClasses = None,
    folds: Annotated[int, typer.Option(min=0, help="Cross-validate by patient in so many folds; 0: do not.")] = 0,
    licence: Licence = "not stated",
    notice: Notice = "",
    preset: o.PresetName = "default",
    config: o.ConfigFile = None,
    settings: o.Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    accelerator: Accelerator = "auto",
    devices: Devices = "auto",
    strategy: Strategy = "auto",
    precision: TrainingPrecision = "32-true",
) -> None:
    """Train the tumour CNN, invasive against not, from patches, from annotated slides, or from both."""
    need_training()
    from he2her2.training import load_training
    from he2her2.training.tumour import PatchFile, TumourData
    from he2her2.training.tumour.train import train_tumour

    files = patches or []
    scales: list[float | None] = [*patches_mpp] if patches_mpp else [None] * len(files)
    if len(files) != len(scales):
        raise ConfigError(f"--patches-mpp: {len(scales)} for {len(files)} --patches; give one for each, or none at all")
    sets = tuple(map(PatchFile, files, scales))
    effective, training = load_training("tumour", preset, config, settings or [])
    report = train_tumour(
        TumourData(
            sets,
            tuple(with_slides_here(one, out) for one in manifest or ()),
            licence,
            notice,
            tuple(annotation_class or ()),
        ),
        out,
        effective,
        training,
        execution(accelerator, devices, strategy, precision, resume=resume, overwrite=overwrite),
        folds=folds,
    )
    finish(report)


@train.command()
def slides(  # noqa: PLR0913  # a command's options
    *,
    manifest: ManifestFile,
    out: o.Out,
    weights: Annotated[
        str | None,
        typer.Option(
            help="START, weights to start from: a folder with tile_cnn/, which training goes on from, and tumour_cnn/, "
            "which finds the tumour; or bundled. Of two trainings: he2her2 weights join.",
            show_default=False,
        ),
    ] = None,
    tile_weights: Annotated[
        Literal["given", "none"], typer.Option(help="given: the tile CNN of --weights; none: random, as an ablation.")
    ] = "given",
    annotations_use: Annotated[
        Literal["intersect", "replace", "ignore"],
        typer.Option(help="The manifest's annotations limit the tumour that is found, or replace it."),
    ] = "intersect",
    annotation_class: o.AnnotationClasses = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder of features, of he2her2 features or another program: trains an aggregator on them alone.",
            show_default=False,
        ),
    ] = None,
    aggregator: Annotated[
        str | None,
        typer.Option(
            help="abmil, clam-sb, smooth-abmil, transmil, ranked-features, mean-features, ...", show_default="mlp"
        ),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of the encoder of the features, copied beside the weights.", show_default=False),
    ] = None,
    folds: Annotated[
        int, typer.Option(min=0, help="With --features: cross-validate by patient in so many folds; 0: do not.")
    ] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Of the cross-validation, each with another shuffle.")] = 1,
    by_site: Annotated[bool, typer.Option("--by-site", help="Leave whole sites out.")] = False,
    choose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B",
            help="With --features: choose a training setting by each fold's validation patients.",
            show_default=False,
        ),
    ] = None,
    bags: Annotated[
        Path | None, typer.Option(help="Folder of bags that several trainings share.", show_default="OUT/bags")
    ] = None,
    policy: o.PolicyOption = "guideline",
    licence: Licence = "not stated",
    notice: Notice = "",
    preset: o.PresetName = "default",
    config: o.ConfigFile = None,
    settings: o.Set = None,
    threads: o.Threads = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    accelerator: Accelerator = "auto",
    devices: Devices = "auto",
    strategy: Strategy = "auto",
    precision: TrainingPrecision = "32-true",
) -> None:
    """Train tile CNN and aggregator together, from H&E slides with a HER2 status each; or an aggregator on features."""
    need_training()
    named = [f"runtime.threads={threads}"] if threads else []
    if aggregator is not None:
        named.append(f"networks.aggregator={aggregator}")
    running = execution(accelerator, devices, strategy, precision, resume=resume, overwrite=overwrite)
    if features is not None:
        asked = _FeatureOptions(
            manifest, features, folds, repeats, by_site, tuple(choose or ()), policy, notice, licence, weights, encoder
        )
        finish(_train_on_features(asked, out, preset, config, [*(settings or []), *named], running))
        return
    if folds or by_site or choose or repeats > 1:
        raise ConfigError("--folds, --repeats, --by-site and --choose are for --features")
    from he2her2.labels import Policy
    from he2her2.models import trained_folder
    from he2her2.training import load_training
    from he2her2.training.slides import SlideData
    from he2her2.training.slides.train import train_slides

    manifest = with_slides_here(manifest, out)
    check_leaks(manifest)
    effective, training = load_training("slides", preset, config, [*(settings or []), *named])
    data = SlideData(
        manifest,
        weights=trained_folder(weights) if weights else None,
        pretrained=tile_weights == "given",
        annotations_use=annotations_use,
        annotation_classes=tuple(annotation_class or ()),
        policy=Policy(policy),
        notice=notice,
        licence=licence,
        bags=bags,
    )
    report = train_slides(
        data,
        out,
        effective,
        training,
        running,
    )
    finish(report)


@dataclass(frozen=True, slots=True)
class _FeatureOptions:
    """Options of `train slides --features`; see `training.slides.feature_study.FeatureData`."""

    manifest: Path
    features: Path
    folds: int
    repeats: int
    by_site: bool
    choose: tuple[str, ...]
    policy: str
    notice: str
    licence: str
    weights: str | None
    encoder: Path | None


def _train_on_features(
    asked: _FeatureOptions, out: Path, preset: str, config: Path | None, settings: list[str], running: "Execution"
) -> Path:
    """Train an aggregator on features; returns the report."""
    from he2her2.labels import Policy
    from he2her2.models import trained_folder
    from he2her2.training import load_training
    from he2her2.training.slides.feature_training import FeatureData, train_on_features

    effective, training = load_training("features", preset, config, settings)
    data = FeatureData(
        asked.manifest,
        asked.features,
        effective.networks.aggregator,
        asked.folds,
        asked.repeats,
        asked.by_site,
        choices=tuple(_choices(text, training) for text in asked.choose),
        policy=Policy(asked.policy),
        notice=asked.notice,
        licence=asked.licence,
        weights=trained_folder(asked.weights) if asked.weights else None,
        encoder=asked.encoder,
    )
    return train_on_features(data, out, effective, training, running)


def _choices(text: str, training: "FeatureTraining") -> tuple[str, tuple[Any, ...]]:
    """Setting and values of a --choose text.

    Raises:
        ConfigError: It is no setting of the training, or a value does not fit it.
    """
    from he2her2.config import gather, settle

    key, equals, values = text.partition("=")
    key = key.removeprefix("training.")
    if not equals or not values:
        raise ConfigError(f"--choose '{text}': write it as learning_rate=1e-4,1e-3")
    settled = [
        settle(training, gather(None, [f"training.{key}={value}"])["training"], None, "training.")
        for value in values.split(",")
    ]
    return key, tuple(getattr(one, key) for one in settled)


@train.command()
def tiles(  # noqa: PLR0913  # a command's options
    *,
    manifest: ManifestFile,
    out: o.Out,
    stain: Annotated[
        Literal["IHC", "HE"], typer.Option(help="HE: tiles of H&E slides inherit the IHC score, to adapt to H&E.")
    ] = "IHC",
    init: Annotated[
        str | None,
        typer.Option(help="Weights to start from: a folder with tile_cnn/, or bundled-ihc.", show_default="random"),
    ] = None,
    annotation_class: o.AnnotationClasses = None,
    folds: Annotated[
        int,
        typer.Option(min=0, help="Leave patients without a split out in turn, in so many folds; if all have one, all."),
    ] = 0,
    licence: Licence = "not stated",
    notice: Notice = "",
    preset: o.PresetName = "default",
    config: o.ConfigFile = None,
    settings: o.Set = None,
    threads: o.Threads = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    accelerator: Accelerator = "auto",
    devices: Devices = "auto",
    strategy: Strategy = "auto",
    precision: TrainingPrecision = "32-true",
    workers: Workers = 0,
) -> None:
    """Train the tile CNN, from tiles that inherit their slide's IHC score."""
    need_training()
    from he2her2.models import trained_folder
    from he2her2.training import load_training
    from he2her2.training.tiles import TileData, read_split
    from he2her2.training.tiles.train import train_tiles

    named = [f"runtime.threads={threads}"] if threads else []
    effective, training = load_training("tiles", preset, config, [*(settings or []), *named])
    data = TileData(
        manifest, stain, trained_folder(init) if init else None, licence, notice, tuple(annotation_class or ())
    )
    read_split(data, folds, training.seed)  # what is wrong with the table comes first: looking at slides takes a while
    data = replace(data, manifest=with_slides_here(manifest, out))
    check_leaks(data.manifest)
    report = train_tiles(
        data,
        out,
        effective,
        training,
        execution(accelerator, devices, strategy, precision, workers=workers, resume=resume, overwrite=overwrite),
        folds=folds,
    )
    finish(report)
