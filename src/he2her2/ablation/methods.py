"""The six methods of Tables 3 and 4, and the settings that train them: one file, one list of overrides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from he2her2.config import PRESETS, Config, gather, settle, take_preset
from he2her2.errors import ConfigError
from he2her2.evaluation import PaperAggregation
from he2her2.models import aggregator_for
from he2her2.training import TRAININGS, SlideTraining, TileTraining

_TABLES = ("tiles", "adapt", "slides")


@dataclass(frozen=True, slots=True)
class Method:
    """Aggregation of tiles to a slide, with or without a tile CNN pre-trained on IHC.

    Attributes:
        aggregation: Rule from tiles to a slide.
        pretrained: Begin slide training with the IHC weights.
    """

    aggregation: PaperAggregation
    pretrained: bool

    @property
    def proposed(self) -> bool:
        """True for the paper's own method."""
        return self.aggregation == "mlp" and self.pretrained

    @property
    def key(self) -> str:
        """Its name in paths, such as "mlp-pretrained"."""
        return f"{self.aggregation}-{'pretrained' if self.pretrained else 'from-scratch'}"

    @property
    def title(self) -> str:
        """Its name in the paper's tables."""
        if self.proposed:
            return "proposed method"
        return "w/pretrained CNN weights" if self.pretrained else "w/out pretrained CNN weights"

    def config(self, config: Config) -> Config:
        """The settings with this method's aggregator."""
        return replace(config, networks=replace(config.networks, aggregator=self.aggregator(config)))

    def aggregator(self, config: Config) -> str:
        """The aggregator's name in the zoo: the settings' own, and the released code's median for its preset."""
        if self.aggregation == "mlp":
            return config.networks.aggregator
        released = self.aggregation == "median" and config.preset == "released-code"
        return "released-median" if released else self.aggregation


METHODS: tuple[Method, ...] = (
    Method("mlp", pretrained=True),
    Method("mlp", pretrained=False),
    Method("median", pretrained=False),
    Method("median", pretrained=True),
    Method("mean", pretrained=False),
    Method("mean", pretrained=True),
)
"""In the paper's order."""

PROPOSED = METHODS[0]


@dataclass(frozen=True, slots=True)
class AblationSettings:
    """Settings of an ablation.

    Attributes:
        config: The method's settings, with a trained aggregator.
        tiles: Training of the tile CNN on IHC.
        adapt: Training of the tile CNN on H&E tiles, where wanted.
        slides: Training of each method on H&E slides.
    """

    config: Config
    tiles: TileTraining
    adapt: TileTraining
    slides: SlideTraining

    @property
    def trainings(self) -> "Trainings":
        """Settings of all trainings."""
        return Trainings(self.tiles, self.adapt, self.slides)


@dataclass(frozen=True, slots=True)
class Trainings:
    """Settings of the trainings of an ablation, as `run.json` holds them."""

    tiles: TileTraining
    adapt: TileTraining
    slides: SlideTraining


def load_ablation(preset: str = "default", file: Path | None = None, overrides: Sequence[str] = ()) -> AblationSettings:
    """Load the settings of the method and of all trainings, from one preset, one file and one list of overrides.

    Args:
        preset: A name of `config.PRESETS`; a file's `preset` key takes precedence.
        file: TOML with any part of `Config`, and training values in its tables `training.tiles`, `training.adapt` and
            `training.slides`.
        overrides: Such as "training.slides.epochs=3" or "selection.n_tiles=100".

    Raises:
        ConfigError: An unknown preset or key, a value of the wrong type or range, or an aggregator that does not learn.

    Example:
        >>> load_ablation("paper", overrides=["training.tiles.epochs=3"]).tiles.epochs
        3
    """
    wanted = gather(file, overrides)
    name = take_preset(wanted, preset, file)
    training = wanted.pop("training", {})
    unknown = [key for key in training if key not in _TABLES] if isinstance(training, dict) else ["training"]
    if unknown or not all(isinstance(value, dict) for value in training.values()):
        wrong = f"training.{unknown[0]}" if unknown else "training"
        raise ConfigError(
            f"{wrong}: an ablation has several trainings; write training.tiles.KEY or training.slides.KEY"
        )
    config = settle(PRESETS[name], wanted, file)
    spec = aggregator_for(config)
    if not spec.has_weights:
        raise ConfigError(f"networks.aggregator: {spec.name} does not learn; the ablation adds mean and median")
    tiles, slides = TRAININGS["tiles"][name], TRAININGS["slides"][name]
    assert isinstance(tiles, TileTraining)
    assert isinstance(slides, SlideTraining)
    return AblationSettings(
        config,
        settle(tiles, training.get("tiles", {}), file, "training.tiles."),
        settle(tiles, training.get("adapt", {}), file, "training.adapt."),
        settle(slides, training.get("slides", {}), file, "training.slides."),
    )
