"""The three networks of the method, loaded together and checked against the settings."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from he2her2.config import Config, Runtime, settle
from he2her2.domain import Domain
from he2her2.errors import ConfigError, WeightsError
from he2her2.models.aggregators import AggregatorSpec, RankingSettings, RankingSpec, RunNetwork, aggregator_named
from he2her2.models.bag import Aggregated, Bag
from he2her2.models.card import UNSTATED_ENCODER, UNTRAINED_NOTICE, Card, EncoderNote
from he2her2.models.encoders import CnnRole, InputSpec, cnn_named
from he2her2.models.engines import Device, Engine, Untrained, load_engine, untrained_weights
from he2her2.models.feature_encoders import ENCODERS, Encoder, load_encoder, texture_encoder, why_not_of
from he2her2.models.signature import Arrays, Inputs
from he2her2.models.stored_rules import read_domain, read_rules
from he2her2.models.weights import ONNX_FILE, read_card, verify
from he2her2.rules import RULES_FILE, DecisionRules, OperatingPoint

ENCODER_FOLDER = "encoder"
"""Place of a feature encoder in a folder of weights."""

_UNTRAINED_FORM = "untrained:SEED, such as untrained:0"

BUNDLED = "bundled"
"""Names the weights that come with the program: a folder beside this file, of the default preset's networks."""

BUNDLED_IHC = "bundled-ihc"
"""Names the tile CNN for IHC that comes with the program; training on H&E starts from it."""

BUNDLED_IHC_DAB = "bundled-ihc-dab"
"""Names the tile CNN that sees haematoxylin and DAB apart, which scores IHC slides."""


@dataclass(frozen=True, slots=True, eq=False)
class Aggregator:
    """An aggregator that is ready: from a bag to the probability of HER2-positive and what each tile contributed.

    Attributes:
        card: About the network.
        run: The network; never called for a rule without weights.
    """

    card: Card
    run: RunNetwork

    def __call__(self, bag: Bag) -> Aggregated:
        """Aggregate a bag."""
        return self.spec.aggregate(bag, self.card.ranking, self.run)

    @property
    def fixes_n_tiles(self) -> bool:
        """Its weights were trained for a number of tiles, which the settings cannot change."""
        return isinstance(self.spec, RankingSpec) and self.spec.has_weights and self.card.trained

    @property
    def least_tiles(self) -> int:
        """Tiles without which it decides nothing: a ranking one selects so many."""
        return self.spec.n_tiles if isinstance(self.spec, RankingSpec) else 1

    @property
    def spec(self) -> AggregatorSpec:
        """The aggregator as data."""
        assert isinstance(self.card.network, AggregatorSpec)
        return self.card.network


@dataclass(frozen=True, slots=True, eq=False)
class SlideModel:
    """The networks of a prediction: the tumour CNN finds tumour, the tile CNN scores tiles, the aggregator decides.

    Attributes:
        tumour_cnn: Finds tumour.
        tile_cnn: Scores tiles.
        aggregator: Makes a probability of their bag.
        rules: Operating point, triage and calibration, chosen on validation patients; None where none were kept.
        domain: What their training slides look like; None where that was not kept.
        encoder: Gives the features of an aggregator that was trained on them; None where it sees the tile CNN's logits.
        texture_encoder: The tumour CNN up to its last layer, which tells how tissue looks; None for untrained networks,
            and for those that do not pool their maps.
    """

    tumour_cnn: Engine
    tile_cnn: Engine
    aggregator: Aggregator
    rules: DecisionRules | None = None
    domain: Domain | None = None
    encoder: Encoder | None = None
    texture_encoder: Encoder | None = None

    @property
    def tile(self) -> InputSpec:
        """The tiles that decide: the encoder's, else the tile CNN's."""
        return self.tile_cnn.card.input if self.encoder is None else self.encoder.card.input

    @property
    def cards(self) -> dict[str, Card]:
        """The networks' cards, by role."""
        return {part.card.role: part.card for part in (self.tumour_cnn, self.tile_cnn, self.aggregator)}

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that every output must show of these weights, each once."""
        return self.notices_of(self.cards)

    def notices_of(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Lines that outputs of these networks alone must show, each once."""
        found = (self.cards[role].notice for role in roles)
        return tuple(dict.fromkeys(notice for notice in found if notice))

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The kept operating point, which decides the status in place of the settings' threshold."""
        return None if self.rules is None else self.rules.operating_point

    def threshold(self, config: Config) -> float:
        """Probability from which a slide is positive: the operating point's, else the card's, else the settings'."""
        if self.operating_point is not None:
            return self.operating_point.threshold
        kept = self.aggregator.card.threshold if config.stored_rules else None
        return config.positive_from if kept is None else kept


def load_slide_model(weights: str | Path, config: Config, device: Device | None = None) -> SlideModel:
    """Load the networks that the settings name.

    Args:
        weights: A folder with `tumour_cnn/`, `tile_cnn/` and `aggregator/` (which a baseline does not need), "bundled",
            or "untrained:SEED".
        config: The settings.
        device: Of the CNNs, over that of the settings.

    Raises:
        WeightsError: Weights are missing, damaged, or not those of the networks that the settings name, or the
            threshold that calls lies outside the kept triage.
        ConfigError: The settings name an unknown network, selection differs from what the aggregator was trained on, or
            a threshold is set beside a kept operating point.
    """
    model = SlideModel(
        load_cnn(weights, "tumour_cnn", config, device),
        load_cnn(weights, "tile_cnn", config, device),
        load_aggregator(weights, config),
    )
    source = weights_source(weights)
    if isinstance(source, int):
        return model
    note = model.aggregator.card.encoder
    n_features = model.aggregator.spec.n_features
    encoder = None if note is None else _encoder_of(note, n_features, source, config.runtime, device)
    model = replace(
        model,
        domain=read_domain(source, model.cards),
        encoder=encoder,
        texture_encoder=texture_encoder(source / "tumour_cnn"),
    )
    if config.stored_rules:
        model = replace(model, rules=read_rules(source, model.cards))
    _check_threshold(model, config, source)
    return model


def _encoder_of(note: EncoderNote, n_features: int, source: Path, runtime: Runtime, device: Device | None) -> Encoder:
    """The encoder that an aggregator was trained on: the settings', else that beside the weights, else by its name.

    Raises:
        WeightsError: It is not there, or is another.
    """
    beside = source / ENCODER_FOLDER
    name = runtime.encoder or (str(beside) if beside.is_dir() else note.name)
    try:
        trusted = bool(runtime.encoder)
        encoder = load_encoder(name, source, device or runtime.device, runtime.precision, trusted=trusted)
    except WeightsError as error:
        if runtime.encoder or beside.is_dir() or note.name in ENCODERS:
            raise
        unstated = note.name == UNSTATED_ENCODER
        of = (
            "an encoder that their files do not name"
            if unstated
            else f"{note.name}, which does not lie beside it ({error})"
        )
        raise WeightsError(
            f"{source}: its aggregator was trained on features of {of}; pass --set runtime.encoder=FOLDER"
        ) from None
    if reason := why_not_of(encoder, note, n_features):
        raise WeightsError(
            f"{source}: its aggregator was trained on features of another encoder than {name}: {reason}; "
            "pass --set runtime.encoder=FOLDER"
        )
    return encoder


def load_cnn(weights: str | Path, role: CnnRole, config: Config, device: Device | None = None) -> Engine:
    """Load one of the two CNNs alone; arguments and errors are those of `load_slide_model`."""
    source = weights_source(weights)
    runs_on = (device or config.runtime.device, config.runtime.precision)
    spec = cnn_named(getattr(config.networks, role), role)
    if isinstance(source, int):
        return load_engine(Untrained(spec, source), role, *runs_on)
    _check_name(read_card(source / role, role), spec.name, source / role)
    return load_engine(source / role, role, *runs_on)


def load_aggregator(weights: str | Path, config: Config) -> Aggregator:
    """Load the aggregator alone; arguments and errors are those of `load_slide_model`."""
    source = weights_source(weights)
    spec = aggregator_for(config)
    ranking = spec.ranking_of(config.selection, config.scoring)
    if not spec.has_weights:
        return Aggregator(Card(spec, trained=True, notice="", ranking=ranking), _no_network)
    from he2her2.models.onnx_engine import open_session, run_network  # noqa: PLC0415  loads onnxruntime

    if isinstance(source, int):
        card = Card(spec, trained=False, notice=UNTRAINED_NOTICE, seed=source, ranking=ranking)
        drawn = untrained_weights(spec, source)
        from he2her2.models.export import session_of  # noqa: PLC0415  loads torch

        return Aggregator(card, partial(run_network, session_of(spec, drawn)))
    folder = source / "aggregator"
    card = read_card(folder, "aggregator")
    _check_name(card, spec.name, folder)
    _check_ranking(card, spec, ranking, folder)
    verify(folder, card)
    return Aggregator(card, partial(run_network, open_session(folder / ONNX_FILE, card)))


def settings_of_training(config: Config, weights: str, chosen: Collection[str]) -> Config:
    """Take selection and scoring from the card of a ranking aggregator, and the name of one on features, if not set.

    Args:
        config: The settings.
        weights: As for `load_slide_model`.
        chosen: Keys that the user set, such as "selection.n_tiles".

    Raises:
        WeightsError: There is no such folder.
        ConfigError: The card's values are no settings, or the settings name an unknown aggregator.
    """
    source, spec = weights_source(weights), aggregator_for(config)
    if isinstance(source, int) or not (isinstance(spec, RankingSpec) and spec.has_weights):
        return config
    try:
        card = read_card(source / "aggregator", "aggregator")
    except WeightsError:  # which loading the networks will say, in their order
        return config
    if card.encoder is not None and "networks.aggregator" not in chosen:
        return settle(config, {"networks": {"aggregator": card.network.name}})
    if card.ranking is None or not isinstance(card.network, RankingSpec):
        return config
    wanted: dict[str, dict[str, float | str]] = {}
    for key, value in _trained_with(card.network, card.ranking).items():
        if key not in chosen:
            group, name = key.split(".")
            wanted.setdefault(group, {})[name] = value
    return settle(config, wanted)


def _trained_with(spec: RankingSpec, ranking: RankingSettings) -> dict[str, float | str]:
    """Settings that a ranking aggregator's weights depend on, by key."""
    return {
        "selection.n_tiles": spec.n_tiles,
        "selection.top_fraction": ranking.top_fraction,
        "scoring.beta": ranking.beta,
        "selection.spacing": ranking.spacing,
    }


def aggregator_for(config: Config) -> AggregatorSpec:
    """The aggregator that the settings name, in the size that they ask for.

    Raises:
        ConfigError: There is none of that name.
    """
    return aggregator_named(config.networks.aggregator).sized_for(config.selection)


def _no_network(_: Inputs) -> Arrays:
    raise AssertionError("a rule without weights has no network")


def weights_source(weights: str | Path) -> Path | int:
    """Read the `--weights` text: a folder, that of a training or of bundled weights, or the seed of untrained ones.

    Raises:
        WeightsError: It is none of these.

    Example:
        >>> weights_source("untrained:7"), weights_source("bundled").name
        (7, 'bundled')
    """
    weights = str(weights)
    if weights in (BUNDLED, BUNDLED_IHC, BUNDLED_IHC_DAB):
        return Path(__file__).parent / weights
    word, colon, seed = weights.partition(":")
    if word == "untrained":
        if not (colon and seed.isascii() and seed.isdigit()):
            raise WeightsError(f"weights '{weights}': untrained weights need a seed; write {_UNTRAINED_FORM}")
        return int(seed)
    folder = Path(weights)
    if not folder.is_dir():
        raise WeightsError(
            f"weights '{weights}': there is no such folder; give a folder with tumour_cnn/, tile_cnn/ and aggregator/, "
            f"{BUNDLED}, or {_UNTRAINED_FORM}"
        )
    return weights_in(folder)


def weights_in(folder: Path) -> Path:
    """The weights that a folder holds: those that a training left there, or its own."""
    of_training = folder / "weights"
    return of_training if of_training.is_dir() else folder


def trained_folder(weights: str) -> Path:
    """The folder of trained weights, by its path or by the name of bundled ones.

    Raises:
        WeightsError: There is no such folder, or the text asks for untrained weights.
    """
    source = weights_source(weights)
    if isinstance(source, int):
        raise WeightsError(
            f"weights '{weights}': trained ones are needed here; give a folder, {BUNDLED} or {BUNDLED_IHC}"
        )
    return source


def _check_threshold(model: SlideModel, config: Config, folder: Path) -> None:
    """Check that a threshold of the user's own does not meet a kept one, and that the kept triage's limits hold it."""
    kept = model.threshold(config)
    if config.threshold not in (None, kept):
        what = "a threshold" if model.operating_point is None else "an operating point"
        raise ConfigError(
            f"{folder}: comes with {what}, called positive from {kept:g} on, "
            f"and threshold={config.threshold:g} is set; add --set stored_rules=false to use yours"
        )
    triage = None if model.rules is None else model.rules.triage
    if triage is not None and not triage.holds(kept):
        raise WeightsError(
            f"{folder / RULES_FILE}: patients are called positive from {kept:g} on, outside its triage (rule out below "
            f"{triage.rule_out_below:g}, rule in from {triage.rule_in_from:g}), so a call could contradict its arm; "
            "choose the rules again on validation patients (evaluate --store), or add --set stored_rules=false"
        )


def _check_name(card: Card, wanted: str, folder: Path) -> None:
    if card.network.name != wanted:
        raise WeightsError(
            f"{folder}: holds a {card.network.name} where the settings want a {wanted}; "
            f"use other weights, or --set networks.{card.role}={card.network.name}"
        )


def _check_ranking(card: Card, spec: AggregatorSpec, ranking: RankingSettings | None, folder: Path) -> None:
    """Selection and scoring must be those that a ranking aggregator was trained under."""
    if not isinstance(spec, RankingSpec) or ranking is None:
        return
    if card.ranking is None:
        raise WeightsError(f"{folder}: its card does not say top_fraction and beta; train or import it again")
    assert isinstance(card.network, RankingSpec)
    then, now = _trained_with(card.network, card.ranking), _trained_with(spec, ranking)
    differing = [key for key in then if then[key] != now[key]]
    if differing:
        differences = [f"{key} is {now[key]}, trained with {then[key]}" for key in differing]
        remedy = " ".join(f"--set {key}={then[key]}" for key in differing)
        raise ConfigError(
            f"{folder}: the settings differ from the aggregator's ({'; '.join(differences)}); use {remedy}"
        )
