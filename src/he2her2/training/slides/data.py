"""Slides that a slide training is given, and the networks that it begins with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Config
from he2her2.errors import ConfigError
from he2her2.labels import Policy
from he2her2.models import (
    CARD_FILE,
    AggregatorSpec,
    CnnSpec,
    Encoder,
    Engine,
    aggregator_for,
    cnn_named,
    load_cnn,
    load_tensors,
    read_card,
    texture_encoder,
    verify,
)
from he2her2.training.report import distinct_notices
from he2her2.training.run import fingerprint
from he2her2.training.settings import SlideTraining
from he2her2.training.slides.bags import AnnotationsUse


@dataclass(frozen=True, slots=True)
class SlideData:
    """Slides, and the weights that their training begins with.

    Attributes:
        manifest: H&E slides with a status, in the splits train and val.
        weights: Folder with the `tile_cnn/` to begin with and the `tumour_cnn/` that finds tumour, as needed.
        pretrained: Begin with the tile CNN in `weights`; else its weights are drawn from the seed.
        annotations_use: Use of the manifest's annotations.
        annotation_classes: Their classes that are tumour; by their names if empty.
        policy: Derives a status that the manifest does not state.
        notice: Line that every output of the weights must show.
        licence: Of the slides, for the cards.
        bags: Folder of tiles that several trainings share; none keeps them in the run's own.
    """

    manifest: Path
    weights: Path | None = None
    pretrained: bool = True
    annotations_use: AnnotationsUse = "intersect"
    annotation_classes: tuple[str, ...] = ()
    policy: Policy = Policy.GUIDELINE
    notice: str = ""
    licence: str = "not stated"
    bags: Path | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices of the outputs: the user's, and that of the initial weights."""
        given = self.weights if self.pretrained else None
        return distinct_notices(self.notice, read_card(given / "tile_cnn", "tile_cnn").notice if given else "")

    @property
    def inputs(self) -> dict[str, Any]:
        """All but the settings that changes the result, for `run.json`."""
        used = {"tile_cnn": self.pretrained, "tumour_cnn": self.annotations_use != "replace"}
        roles = [role for role, is_used in used.items() if is_used]
        return {
            "manifest": fingerprint(self.manifest),
            "annotations_use": self.annotations_use,
            "annotation_classes": self.annotation_classes or None,
            "policy": self.policy.value,
            "weights": {role: fingerprint(self.weights / role / CARD_FILE) for role in roles if self.weights},
            "pretrained": self.pretrained,
        }


@dataclass(frozen=True, slots=True, eq=False)
class InitialNetworks:
    """The networks that are trained, and their initial weights.

    Attributes:
        tile_spec: The tile CNN.
        tile_weights: Its weights, pre-trained or drawn from a seed.
        aggregator_spec: The aggregator.
        aggregator_weights: Its weights; empty for a rule, which has none.
    """

    tile_spec: CnnSpec
    tile_weights: Mapping[str, NDArray[np.float32]]
    aggregator_spec: AggregatorSpec
    aggregator_weights: Mapping[str, NDArray[np.float32]]


def initial_networks(data: SlideData, config: Config, settings: SlideTraining) -> InitialNetworks:
    """The tile CNN of `data.weights`, or one drawn from the seed, and an untrained aggregator.

    Raises:
        ConfigError: There are no weights to begin with, or the settings name an unknown network.
        WeightsError: The weights are missing, damaged, or not of the network that the settings name.
    """
    from he2her2.models.torch_modules import initial_weights  # noqa: PLC0415  # it loads torch

    tile_spec = cnn_named(config.networks.tile_cnn, "tile_cnn")
    aggregator_spec = aggregator_for(config)
    if not data.pretrained:
        tile_weights: Mapping[str, NDArray[np.float32]] = initial_weights(tile_spec, settings.seed)
    elif data.weights is None:
        raise ConfigError(
            "no tile CNN to start from: give --weights FOLDER (or bundled), or --tile-weights none for random weights"
        )
    else:
        card = load_cnn(str(data.weights), "tile_cnn", config, "cpu").card
        tile_weights = load_tensors(data.weights / "tile_cnn", card)
    return InitialNetworks(tile_spec, tile_weights, aggregator_spec, initial_weights(aggregator_spec, settings.seed))


def load_texture_encoder(weights: Path | None) -> Encoder | None:
    """The tumour CNN of a folder of weights up to its last layer; None where there is none, or it pools no maps.

    It is wanted also where annotations replace the tumour CNN: that goes beside the trained networks, and tells in
    prediction whether a slide looks like the training slides.

    Raises:
        WeightsError: It is damaged.
    """
    folder = None if weights is None else weights / "tumour_cnn"
    if folder is None or not folder.is_dir():
        return None
    verify(folder, read_card(folder, "tumour_cnn"))
    return texture_encoder(folder)


def load_tumour_cnn(weights: Path | None, annotations_use: AnnotationsUse, config: Config) -> Engine | None:
    """The tumour CNN of a folder of weights; none where annotations replace it.

    Raises:
        ConfigError: It is needed, and no folder is given.
        WeightsError: It is missing, damaged, or not the network that the settings name.
    """
    if annotations_use == "replace":
        return None
    if weights is None:
        raise ConfigError("no tumour CNN: give --weights FOLDER with tumour_cnn/, or --annotations-use replace")
    return load_cnn(str(weights), "tumour_cnn", config)
