"""Settings of the trainings, with the presets of the paper, of its released code, and ours.

They are read like those of the method (`config`): from the table `training` of the same TOML file, and from
`--set training.key=value`. Importing them does not load torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from he2her2.config import OR_NONE, PRESETS, Config, gather, settle, take_preset
from he2her2.errors import ConfigError

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Kind: TypeAlias = Literal["tumour", "tiles", "slides", "features"]
"""The network that is trained; `features` is an aggregator on features that are there."""

Schedule: TypeAlias = Literal["constant", "cosine"]
"""Learning rate: constant, or rising for a tenth of the steps and then falling to 0 along half a cosine."""

SelectionRule: TypeAlias = Literal["hard", "straight-through", "perturbed"]
"""How gradients pass the selection of tiles in training: through the selected scores alone, a soft sort, or noise."""

LARGEST_SEED = 1 << 63
"""Seeds are below it; what is derived from one is taken modulo it."""

_Seed: TypeAlias = Annotated[int, Ge(0), Lt(LARGEST_SEED)]
_IntOrNone: TypeAlias = Annotated[PositiveInt | None, OR_NONE]
_FloatOrNone: TypeAlias = Annotated[PositiveFloat | None, OR_NONE]

Keep: TypeAlias = Literal["first", "last", "lowest-loss", "last-epoch"]
"""Epoch that is kept: of those with the best validation accuracy the first, the last or that of the lowest loss; or the
very last epoch, whatever its accuracy."""


Start: TypeAlias = Literal["random", "imagenet"]
"""Initial weights: drawn from the seed, or EfficientNet-Lite0's of ImageNet (an extra) for networks of its stages."""


@dataclass(frozen=True, config=_STRICT)
class Augmentation:
    """Random changes of training tiles, drawn for each tile; validation tiles are never changed.

    Attributes:
        dihedral: Use the eight flips and quarter turns, equally often.
        brightness: Largest shift of values in [0, 1], up or down.
        contrast: Deviations from the tile's mean are scaled by 1 ± up to this value.
        stain: Haematoxylin and eosin (or DAB) are each scaled by 1 ± up to this value (Tellez et al., 2018).
        stain_vectors: The colour of each stain, a unit vector of optical density, is changed by up to this value in
            each channel, so that a tile is stained as by another laboratory.
        lab: Mean and spread of a tile in LAB are drawn anew (as RandStainNA, Shen et al., 2022): at 1 the means move by
            up to 12, 9 and 9, the spreads are scaled by exp(±0.25).
        grey: Share of tiles without any colour.
        blur: Half of the tiles are blurred by a Gaussian of up to this standard deviation, in px.
        zoom: Tiles are enlarged or reduced by a factor of up to exp(±this value).
        jpeg: Share of tiles compressed as JPEG of a quality from 20 to 95, half of them at half the resolution.
    """

    dihedral: bool = False
    brightness: Annotated[float, Ge(0), Le(0.5)] = 0.0
    contrast: Annotated[float, Ge(0), Le(0.9)] = 0.0
    stain: Annotated[float, Ge(0), Le(0.9)] = 0.0
    stain_vectors: Annotated[float, Ge(0), Le(0.3)] = 0.0
    lab: Annotated[float, Ge(0), Le(3)] = 0.0
    grey: Annotated[float, Ge(0), Le(0.5)] = 0.0
    blur: Annotated[float, Ge(0), Le(4)] = 0.0
    zoom: Annotated[float, Ge(0), Le(0.5)] = 0.0
    jpeg: Annotated[float, Ge(0), Le(1)] = 0.0


_MILD = Augmentation(dihedral=True, brightness=0.05, contrast=0.1, stain=0.1)


@dataclass(frozen=True, config=_STRICT)
class TumourTraining:
    """Training of the tumour CNN: invasive tumour against everything else.

    Attributes:
        epochs: Passes over the patches.
        batch_size: Patches of a step, over all devices together.
        learning_rate: Of Adam; its highest where the schedule varies it.
        schedule: Of the learning rate.
        weight_decay: Of AdamW; 0 is Adam.
        average: Decay of the moving average of the weights, which is kept; 0 keeps the weights themselves.
        seed: Of initial weights, order, augmentation, splits and patch positions.
        augment: Augmentation of patches.
        crop_px: Side of random crops for training; none is the whole input.
        patches_per_slide: Patches drawn from each slide of a manifest, half of them invasive where there is enough
            tumour.
        glass_share: Share of a slide's patches drawn from glass, which HASHI samples as well.
        balance: Draw sources in proportion to the square root of their patches, and both classes of each equally often,
            in place of every patch once.
        start: Initial weights.
        distil: Share of each label that is taken from teachers in a cross-validation: networks that have seen neither
            the patch's patient nor those that its pupil is evaluated on (`tumour.teaching`). 0 trains none.
        teacher_epochs: Passes of a teacher over its patches; 0 is as many as its pupils'.
        soup: Trainings whose mean each network is (`tumour.soup`), from as many seeds; teachers are trained once.
        calibrate_on: Sources (names of patch sets, sites of manifests) on which a cross-validation sets the probability
            to be 0.5 where both errors together are fewest; none leaves the probability as it is learned.
        val_share: Share of the patches used for validation, by whole patients, where neither folds nor a manifest
            define a split.
    """

    epochs: PositiveInt = 16
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 2e-3
    schedule: Schedule = "cosine"
    weight_decay: NonNegativeFloat = 1e-2
    average: Annotated[float, Ge(0), Lt(1)] = 0.998
    seed: _Seed = 0
    augment: Augmentation = field(default_factory=lambda: replace(_MILD, brightness=0.1, contrast=0.2, stain=0.2))
    crop_px: _IntOrNone = None
    patches_per_slide: PositiveInt = 400
    glass_share: Annotated[float, Ge(0), Le(0.5)] = 0.05
    balance: bool = False
    start: Start = "random"
    distil: Annotated[float, Ge(0), Lt(1)] = 0.0
    teacher_epochs: NonNegativeInt = 0
    soup: Annotated[int, Ge(1), Le(32)] = 1
    calibrate_on: tuple[str, ...] = ()
    val_share: Annotated[float, Gt(0), Le(0.5)] = 0.15


@dataclass(frozen=True, config=_STRICT)
class TileTraining:
    """Training of the tile CNN on IHC tiles that inherit their slide's score (paper, 3.2 and 4.2).

    Attributes:
        epochs: Passes over the tiles.
        batch_size: Tiles of a step, over all devices together.
        learning_rate: Of Adam; its highest where the schedule varies it.
        schedule: Of the learning rate.
        weight_decay: Of AdamW; 0 is Adam.
        seed: Of initial weights, order, augmentation and choice of tiles.
        augment: Augmentation of tiles.
        crop_px: Side of random crops for training, for globally pooled networks only; none is the whole tile.
        tiles_per_class: Training tiles of each class.
        val_tiles_per_class: Validation tiles of each class.
        tissue_by_score: Find tissue by brightness on slides of 0 and 1+ and by saturation on those of 2+ and 3+, as the
            paper does; else by brightness on all IHC slides, so that tiles never depend on the score.
        keep: Epoch that is kept. Keeping the best one is a choice of ours under every preset: the paper says so of the
            slide stage only; "last-epoch" takes the validation tiles for nothing but the log.
    """

    epochs: PositiveInt = 24
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3
    schedule: Schedule = "cosine"
    weight_decay: NonNegativeFloat = 1e-2
    seed: _Seed = 0
    augment: Augmentation = field(default_factory=lambda: _MILD)
    crop_px: _IntOrNone = 128
    tiles_per_class: PositiveInt = 2000
    val_tiles_per_class: PositiveInt = 624
    tissue_by_score: bool = False
    keep: Keep = "lowest-loss"


@dataclass(frozen=True, config=_STRICT)
class SlideTraining:
    """Training of tile CNN and aggregator on H&E slides with one status each (paper, 3.3 and 4.3).

    Attributes:
        epochs: Passes over the slides.
        learning_rate: Of Adam; its highest where the schedule varies it.
        aggregator_rate: The aggregator's own learning rate; none is `learning_rate`.
        schedule: Of the learning rates.
        weight_decay: Of AdamW, on the aggregator alone; 0 is Adam.
        seed: Of initial weights, order and augmentation.
        augment: Augmentation of tiles.
        crop_px: Side of random crops for training; none is the whole tile.
        accumulate: Slides whose gradients are summed for a step.
        alternate: Negative and positive slides take turns, those of the smaller class are repeated.
        keep: Epoch that is kept.
        freeze_cnn: Keep the tile CNN fixed; only the aggregator learns.
        move_norms: Move the tile CNN's batch norms to tumour tiles of the training slides first, as `weights adapt
            --alpha 1` moves them to those of another laboratory: the aggregator then learns from what it will see.
        beta_start: Sharpness of soft-argmax in the first epoch; it rises geometrically to `scoring.beta`, or to the own
            of ranked-features. None: always that.
        selection: How gradients pass the selection of tiles of ranked-features, see `FeatureTraining.selection`.
    """

    epochs: PositiveInt = 60
    learning_rate: PositiveFloat = 3e-4
    aggregator_rate: _FloatOrNone = None
    schedule: Schedule = "cosine"
    weight_decay: NonNegativeFloat = 1e-2
    seed: _Seed = 0
    augment: Augmentation = field(default_factory=Augmentation)
    crop_px: _IntOrNone = None
    accumulate: PositiveInt = 2
    alternate: bool = True
    keep: Keep = "lowest-loss"
    freeze_cnn: bool = False
    move_norms: bool = False
    beta_start: _FloatOrNone = None
    selection: SelectionRule = "hard"


@dataclass(frozen=True, config=_STRICT)
class FeatureTraining:
    """Training of an aggregator on features that an encoder gave.

    Attributes:
        epochs: Most passes over the slides.
        patience: Stop after so many epochs without a lower validation loss.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        batch_slides: Slides of a step.
        max_tiles: Tiles of a slide that a training step sees, drawn anew each time; none is all. Validation sees all.
        class_weights: Both classes weigh the same, whatever their numbers.
        standardise: Bring each feature to mean 0 and deviation 1 over the training tiles; folded into the weights.
        instance_weight: Share of a loss on instances, where the aggregator has one (clam-sb).
        selection: How gradients pass the selection of tiles, where the aggregator selects (ranked-features): `hard`
            through the selected scores alone, `straight-through` a soft sort, or `perturbed` by noise.
        beta_start: Sharpness of soft-argmax in the first epoch, where the aggregator has one; it rises geometrically to
            the aggregator's own. None: always that.
        seed: Of initial weights, order and draws.
    """

    epochs: PositiveInt = 60
    patience: PositiveInt = 10
    learning_rate: PositiveFloat = 3e-4
    weight_decay: NonNegativeFloat = 1e-2
    batch_slides: PositiveInt = 8
    max_tiles: _IntOrNone = 4096
    class_weights: bool = True
    standardise: bool = True
    instance_weight: Annotated[float, Ge(0), Lt(1)] = 0.3
    selection: SelectionRule = "hard"
    beta_start: _FloatOrNone = None
    seed: _Seed = 0


@dataclass(frozen=True, config=_STRICT)
class Hardware:
    """Hardware of a training, in Lightning's words; on CPUs of one kind the result is the same.

    Attributes:
        accelerator: cpu, gpu, mps, ... or auto.
        devices: Their number, their indices, or auto.
        strategy: Such as ddp, or auto.
        precision: 32-true, 16-mixed or bf16-mixed.
        workers: Processes that read pixels; 0 reads in the training process.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    strategy: str = "auto"
    precision: str = "32-true"
    workers: NonNegativeInt = 0


Settings: TypeAlias = TumourTraining | TileTraining | SlideTraining | FeatureTraining

_PAPER_RATE = 1e-5
_PLAIN = Augmentation()

_PAPER_TILES = TileTraining(  # paper, section 4.2
    epochs=200,
    batch_size=128,
    learning_rate=_PAPER_RATE,
    schedule="constant",
    weight_decay=0,
    augment=_PLAIN,
    crop_px=None,
    tiles_per_class=7591,
    val_tiles_per_class=624,
    tissue_by_score=True,
    keep="first",
)
_PAPER_SLIDES = SlideTraining(  # paper, section 4.3
    epochs=150,
    learning_rate=_PAPER_RATE,
    schedule="constant",
    weight_decay=0,
    augment=_PLAIN,
    crop_px=None,
    accumulate=1,
    alternate=False,
    keep="first",
    beta_start=None,
)
_RELEASED_SLIDES = replace(_PAPER_SLIDES, learning_rate=1e-3, accumulate=2, alternate=True, keep="last")
_PAPER_TUMOUR = TumourTraining(  # the paper used a trained tumour network: all but the architecture is our choice
    epochs=20,
    batch_size=128,
    learning_rate=1e-4,
    schedule="constant",
    weight_decay=0,
    average=0,
    augment=Augmentation(dihedral=True),
)

TRAININGS: Mapping[Kind, Mapping[str, Settings]] = MappingProxyType(
    {
        "tumour": {"default": TumourTraining(), "paper": _PAPER_TUMOUR, "released-code": _PAPER_TUMOUR},
        "tiles": {"default": TileTraining(), "paper": _PAPER_TILES, "released-code": _PAPER_TILES},
        "slides": {"default": SlideTraining(), "paper": _PAPER_SLIDES, "released-code": _RELEASED_SLIDES},
        "features": dict.fromkeys(PRESETS, FeatureTraining()),
    }
)
"""Training settings by network and preset."""


def load_training(
    kind: Kind, preset: str = "default", file: Path | None = None, overrides: Sequence[str] = ()
) -> tuple[Config, Any]:
    """Load the settings of the method and of a training, from one preset, one file and one list of overrides.

    Args:
        kind: The network that is trained.
        preset: A name of `config.PRESETS`; a file's `preset` key takes precedence.
        file: TOML with any part of `Config`, and training values in its table `training`.
        overrides: Such as "training.epochs=3" or "selection.n_tiles=100".

    Returns:
        The method's settings, and a TumourTraining, TileTraining, SlideTraining or FeatureTraining.

    Raises:
        ConfigError: An unknown preset or key, or a value of the wrong type or range; all problems in one line.
    """
    wanted = gather(file, overrides)
    name = take_preset(wanted, preset, file)
    training = wanted.pop("training", {})
    if not isinstance(training, dict):
        raise ConfigError("training: is a group of settings; write it as training.epochs=3")
    config = settle(PRESETS[name], wanted, file)
    if config.normalisation != "none":
        raise ConfigError("normalisation: is of predictions; a training varies colours by training.augment instead")
    return config, settle(TRAININGS[kind][name], training, file, "training.")
