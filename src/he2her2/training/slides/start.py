"""What slide training starts from, and how that is told in cards, reports and run files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from he2her2.config import Config
from he2her2.errors import ConfigError
from he2her2.labels import Policy
from he2her2.models.engines import Engine
from he2her2.models.initial import initial_weights
from he2her2.models.slide_model import load_cnn
from he2her2.models.weights import CARD_FILE, load_tensors, read_card
from he2her2.models.zoo import AggregatorSpec, CnnSpec, network
from he2her2.training.run import fingerprint
from he2her2.training.settings import SlideTraining
from he2her2.training.slides.bags import AnnotationsUse, Bag
from he2her2.training.slides.module import Start


@dataclass(frozen=True, slots=True)
class SlideData:
    """What slides are trained on, and what the training starts from.

    Attributes:
        manifest: H&E slides with a status, in the splits train and val.
        weights: Folder with `tile_cnn/` to start from and `tumour_cnn/` to find tumour with, whichever is needed.
        pretrained: Start from the tile CNN in `weights`; else its weights are drawn from the seed.
        annotations_use: What the manifest's annotations are for.
        policy: Decides a status that the manifest does not state.
        notice: What every output of the weights must say.
        licence: Of the slides, for the cards.
        bags: Folder of bags that several trainings share; none keeps them in the run's own.
    """

    manifest: Path
    weights: Path | None = None
    pretrained: bool = True
    annotations_use: AnnotationsUse = "intersect"
    policy: Policy = Policy.GUIDELINE
    notice: str = ""
    licence: str = "not stated"
    bags: Path | None = None


def load_start(data: SlideData, config: Config, settings: SlideTraining) -> Start:
    """The networks that learn: the tile CNN of `data.weights` or one drawn from the seed, and a fresh aggregator.

    Raises:
        ConfigError: There are no weights to start from, or the settings name an unknown network.
        WeightsError: The weights are missing, damaged, or not of the network that the settings name.
    """
    tile_spec = network(config.networks.tile_cnn, "tile_cnn")
    aggregator_spec = network(config.networks.aggregator, "aggregator")
    assert isinstance(tile_spec, CnnSpec)
    assert isinstance(aggregator_spec, AggregatorSpec)
    aggregator_spec = replace(aggregator_spec, n_tiles=config.selection.n_tiles)
    aggregator_weights = initial_weights(aggregator_spec, settings.seed)
    if not data.pretrained:
        tile_weights = initial_weights(tile_spec, settings.seed)
        return Start(tile_spec, tile_weights, aggregator_spec, aggregator_weights)
    if data.weights is None:
        raise ConfigError(
            "no tile CNN to start from: give --weights FOLDER (or bundled), or --tile-weights none for random weights"
        )
    card = load_cnn(str(data.weights), "tile_cnn", config, "cpu").card
    return Start(tile_spec, load_tensors(data.weights / "tile_cnn", card), aggregator_spec, aggregator_weights)


def load_tumour_cnn(data: SlideData, config: Config) -> Engine | None:
    """The tumour CNN, where tumour is looked for."""
    if data.annotations_use == "replace":
        return None
    if data.weights is None:
        raise ConfigError("no tumour CNN: give --weights FOLDER with tumour_cnn/, or --annotations-use replace")
    return load_cnn(str(data.weights), "tumour_cnn", config)


def inputs(data: SlideData) -> dict[str, Any]:
    """What besides settings changes the result, for `run.json`."""
    used = {"tile_cnn": data.pretrained, "tumour_cnn": data.annotations_use != "replace"}
    roles = [role for role, is_used in used.items() if is_used]
    return {
        "manifest": fingerprint(data.manifest),
        "annotations_use": data.annotations_use,
        "policy": data.policy.value,
        "weights": {role: fingerprint(data.weights / role / CARD_FILE) for role in roles if data.weights},
        "pretrained": data.pretrained,
    }


def notices(data: SlideData) -> tuple[str, ...]:
    """What every output must say: what the user gave, and what the weights said that the training started from."""
    found = [data.notice]
    if data.pretrained and data.weights is not None:
        found.append(read_card(data.weights / "tile_cnn", "tile_cnn").notice)
    return tuple(dict.fromkeys(notice for notice in found if notice))


def data_in_words(data: SlideData, bags: Sequence[Bag]) -> str:
    """What it was trained and validated on."""
    parts = []
    for split, use in (("train", "trained on"), ("val", "validated on")):
        chosen = [bag for bag in bags if bag.row.split == split]
        patients = len({bag.row.patient_id for bag in chosen})
        positive = sum(bag.target for bag in chosen)
        tiles = sum(len(bag.grid) for bag in chosen)
        parts.append(f"{use} {len(chosen)} H&E slides ({positive} positive) of {patients} patients, {tiles} tiles")
    sites = sorted({bag.row.site for bag in bags if bag.row.site})
    return f"{data.manifest.name}: {'; '.join(parts)}" + (f"; sites {', '.join(sites)}" if sites else "")


def recipe_in_words(data: SlideData, config: Config, settings: SlideTraining, n_epochs: int) -> str:
    """How it was trained."""
    start = "the given tile CNN" if data.pretrained else f"random weights (seed {settings.seed})"
    return (
        f"he2her2 train slides, preset {config.preset}, {config.networks.aggregator} aggregator, from {start}; "
        f"{n_epochs} epochs; {json.dumps(asdict(settings), sort_keys=True)}"
    )
