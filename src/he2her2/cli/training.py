"""`he2her2 train`: the three networks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working
from he2her2.cli.extras import require_extra
from he2her2.cli.option_groups import (
    CohortTerms,
    SettingsOptions,
    ThreadedSettings,
    TrainingHardware,
    grouped,
    refuse_idle,
)
from he2her2.errors import ConfigError

if TYPE_CHECKING:
    from he2her2.training import FeatureTraining
    from he2her2.training.slides.feature_training import FeatureData

train = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train the tumour CNN, the tile CNN, and tile CNN with aggregator on slides.",
)

_ManifestFile = Annotated[Path, typer.Option("--manifest", help="CSV of slides; see docs.", show_default=False)]


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


def _with_slides_here(manifest: Path, out: Path) -> Path:
    """The manifest, or where it names slides behind addresses one whose slides have been fetched to `out/fetched`."""
    from he2her2.cli.progress import Stages
    from he2her2.cohort import fetch_manifest
    from he2her2.files import url_of
    from he2her2.manifest import read_manifest

    read = read_manifest(manifest)
    if not any(url_of(row.path) for row in read.rows):
        return manifest
    return fetch_manifest(read, out / "fetched", Stages().progress).path


def check_leaks(*manifests: Path, by_tissue: bool = True) -> None:
    """Refuse a patient, a file or the same tissue on two sides, before anything is trained; see `cohort.leaks`.

    Args:
        manifests: All that is trained and validated with.
        by_tissue: False for slides that need not be there.

    Raises:
        ManifestError: All leaks.
    """
    from he2her2.cohort import refuse_leaks
    from he2her2.manifest import label_doubts, read_manifest

    with working("comparing slides"):
        read = [read_manifest(file) for file in manifests]
        told = refuse_leaks(read, by_tissue=by_tissue)
    notes = (f"{one.path}: {note}" for one in read for note in (*one.notes, *label_doubts(one)))
    for line in (*notes, *told):
        say(f"CAUTION {line}", error=True)


@train.command()
@grouped
def tumour(  # noqa: PLR0913  # a command's options
    *,
    out: o.Out,
    patches: Annotated[
        list[Path] | None,
        typer.Option(
            help="NPZ of patches: patch (or jpeg, offset), invasive, patient, valid (left out); may be given again.",
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
    licence: o.Licence = "not stated",
    notice: o.Notice = "",
    settings: SettingsOptions,
    resume: o.Resume = False,
    hardware: TrainingHardware,
) -> None:
    """Train the tumour CNN, invasive against not, from patches, from annotated slides, or from both."""
    need_training()
    if not manifest:
        refuse_idle("annotation_class", where="without --manifest")
    from he2her2.training.tumour import PatchFile, TumourData
    from he2her2.training.tumour.train import train_tumour

    files = patches or []
    scales: list[float | None] = [*patches_mpp] if patches_mpp else [None] * len(files)
    if len(files) != len(scales):
        raise ConfigError(f"--patches-mpp: {len(scales)} for {len(files)} --patches; give one for each, or none at all")
    sets = tuple(map(PatchFile, files, scales))
    config, training = settings.load_training("tumour")
    manifests = tuple(_with_slides_here(one, out) for one in manifest or ())
    data = TumourData(sets, manifests, licence, notice, tuple(annotation_class or ()))
    finish(train_tumour(data, out, config, training, hardware.execution(resume=resume), folds=folds))


@dataclass(frozen=True)
class _StartOptions:
    """Weights that a training on slides starts from."""

    weights: Annotated[
        str | None,
        typer.Option(
            help="START, weights to start from: a folder with tile_cnn/, which training goes on from, and tumour_cnn/, "
            "which finds the tumour; or bundled. Of two trainings: he2her2 weights join.",
            show_default=False,
        ),
    ] = None
    tile_weights: Annotated[
        Literal["given", "none"], typer.Option(help="given: the tile CNN of --weights; none: random, as an ablation.")
    ] = "given"

    @property
    def folder(self) -> Path | None:
        """Folder of the weights; None where none are given.

        Raises:
            WeightsError: There are none of that name.
        """
        from he2her2.models import trained_folder

        return trained_folder(self.weights) if self.weights else None


@dataclass(frozen=True)
class _FeatureOptions:
    """Options of `train slides --features`; see `training.slides.feature_study.FeatureData`."""

    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder of features, of he2her2 features or another program: trains an aggregator on them alone.",
            show_default=False,
        ),
    ] = None
    aggregator: Annotated[
        str | None,
        typer.Option(
            help="abmil, clam-sb, smooth-abmil, transmil, ranked-features, mean-features, ...", show_default="mlp"
        ),
    ] = None
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of the encoder of the features, copied beside the weights.", show_default=False),
    ] = None
    folds: Annotated[
        int, typer.Option(min=0, help="With --features: cross-validate by patient in so many folds; 0: do not.")
    ] = 0
    repeats: Annotated[int, typer.Option(min=1, help="Of the cross-validation, each with another shuffle.")] = 1
    by_site: Annotated[bool, typer.Option("--by-site", help="Leave whole sites out.")] = False
    choose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B",
            help="With --features: choose a training setting by each fold's validation patients.",
            show_default=False,
        ),
    ] = None

    @property
    def overrides(self) -> list[str]:
        """The aggregator as a setting, where one is named."""
        return [] if self.aggregator is None else [f"networks.aggregator={self.aggregator}"]

    def data(
        self, manifest: Path, terms: CohortTerms, weights: Path | None, aggregator: str, training: "FeatureTraining"
    ) -> "FeatureData":
        """Features and labels of a training with these settings.

        Raises:
            ConfigError: A setting of --choose is none of the training, or a value does not fit it.
        """
        from he2her2.training.slides.feature_training import FeatureData

        assert self.features is not None
        return FeatureData(
            manifest,
            self.features,
            aggregator,
            self.folds,
            self.repeats,
            self.by_site,
            choices=tuple(_choices(text, training) for text in self.choose or ()),
            policy=terms.status_policy,
            notice=terms.notice,
            licence=terms.licence,
            weights=weights,
            encoder=self.encoder,
        )


@train.command()
@grouped
def slides(  # noqa: PLR0913  # a command's options
    *,
    manifest: _ManifestFile,
    out: o.Out,
    start: _StartOptions,
    annotations_use: Annotated[
        Literal["intersect", "replace", "ignore"],
        typer.Option(help="The manifest's annotations limit the tumour that is found, or replace it."),
    ] = "intersect",
    annotation_class: o.AnnotationClasses = None,
    on_features: _FeatureOptions,
    bags: Annotated[
        Path | None, typer.Option(help="Folder of bags that several trainings share.", show_default="OUT/bags")
    ] = None,
    terms: CohortTerms,
    settings: ThreadedSettings,
    resume: o.Resume = False,
    hardware: TrainingHardware,
) -> None:
    """Train tile CNN and aggregator together, from H&E slides with a HER2 status each; or an aggregator on features."""
    need_training()
    if on_features.features is not None:
        refuse_idle("bags", "tile_weights", "annotations_use", "annotation_class", where="beside --features")
        refuse_idle("devices", "strategy", "precision", where="beside --features, which trains on the CPU in 32 bits")
        if hardware.accelerator not in ("auto", "cpu"):
            refuse_idle("accelerator", where="beside --features, which trains on the CPU in 32 bits")
    else:
        refuse_idle("folds", "repeats", "by_site", "choose", "encoder", where="without --features")
    if not on_features.folds:
        refuse_idle("repeats", "by_site", where="without --folds")
    if annotations_use == "ignore":
        refuse_idle("annotation_class", where="with --annotations-use ignore")
    from he2her2.training.slides import SlideData
    from he2her2.training.slides.feature_training import train_on_features
    from he2her2.training.slides.train import train_slides

    running, weights = hardware.execution(resume=resume), start.folder
    if on_features.features is not None:
        if not on_features.folds:
            check_leaks(manifest, by_tissue=False)
        config, training = settings.load_training("features", *on_features.overrides)
        cohort = on_features.data(manifest, terms, weights, config.networks.aggregator, training)
        finish(train_on_features(cohort, out, config, training, running))
        return
    config, training = settings.load_training("slides", *on_features.overrides)
    manifest = _with_slides_here(manifest, out)
    check_leaks(manifest)
    data = SlideData(
        manifest,
        weights=weights,
        pretrained=start.tile_weights == "given",
        annotations_use=annotations_use,
        annotation_classes=tuple(annotation_class or ()),
        policy=terms.status_policy,
        notice=terms.notice,
        licence=terms.licence,
        bags=bags,
    )
    finish(train_slides(data, out, config, training, running))


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
@grouped
def tiles(  # noqa: PLR0913  # a command's options
    *,
    manifest: _ManifestFile,
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
    licence: o.Licence = "not stated",
    notice: o.Notice = "",
    settings: ThreadedSettings,
    resume: o.Resume = False,
    hardware: TrainingHardware,
    workers: o.ReadingProcesses = 0,
) -> None:
    """Train the tile CNN, from tiles that inherit their slide's IHC score."""
    need_training()
    from he2her2.models import trained_folder
    from he2her2.training.tiles import TileData, read_split
    from he2her2.training.tiles.train import train_tiles

    config, training = settings.load_training("tiles")
    data = TileData(
        manifest, stain, trained_folder(init) if init else None, licence, notice, tuple(annotation_class or ())
    )
    read_split(data, folds, training.seed)  # what is wrong with the table comes first: looking at slides takes a while
    data = replace(data, manifest=_with_slides_here(manifest, out))
    check_leaks(data.manifest)
    running = hardware.execution(workers=workers, resume=resume)
    finish(train_tiles(data, out, config, training, running, folds=folds))
