"""The card beside a network's weights: what it is, what it eats, where it comes from, what it may be used for."""

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from annotated_types import Len
from pydantic import ConfigDict, Discriminator, NonNegativeInt, PositiveFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from he2her2.files import json_text
from he2her2.models.zoo import AggregatorSpec, CnnSpec, InputSpec, Role

CARD_VERSION = 1
UNTRAINED_NOTICE = "untrained weights: the numbers mean nothing"
RESEARCH_USE = "research use only"

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Metric:
    """One measured figure with its interval.

    Attributes:
        name: What was measured, such as "balanced accuracy".
        data: On what, and how it was split.
        n: How many cases.
        value: The figure.
        low: Lower end of its interval.
        high: Upper end.
        level: Confidence level of the interval.
    """

    name: str
    data: str
    n: NonNegativeInt
    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, config=_STRICT)
class FileNote:
    """What a file must be: its SHA-256 in hexadecimal and its size in bytes."""

    sha256: Annotated[str, Len(64, 64)]
    n_bytes: NonNegativeInt


@dataclass(frozen=True, config=_STRICT)
class Ranking:
    """The settings that an aggregator was trained under; prediction must use the same.

    Attributes:
        top_fraction: Share of a slide's tiles that is kept.
        beta: Sharpness of soft-argmax.
    """

    top_fraction: PositiveFloat
    beta: PositiveFloat


@dataclass(frozen=True, config=_STRICT)
class Card:
    """Everything about a network but its numbers.

    Attributes:
        network: Its architecture and, for a CNN, its input.
        trained: False for weights drawn from a seed.
        notice: One line that every output must show; empty where none is needed.
        seed: Of untrained weights.
        ranking: For an aggregator.
        training_data: What it was trained on.
        training_licence: Under which licence that data is.
        recipe: How it was trained.
        metrics: What was measured on it.
        intended_use: What it is for.
        limits: What it must not be used for, and what is known to go wrong.
        files: Name to note of each file beside the card; none for weights that were never saved.
        version: Of this format.
    """

    network: Annotated[CnnSpec | AggregatorSpec, Discriminator("role")]
    trained: bool
    notice: str
    seed: NonNegativeInt | None = None
    ranking: Ranking | None = None
    training_data: str = "none"
    training_licence: str = "none"
    recipe: str = "none"
    metrics: tuple[Metric, ...] = ()
    intended_use: str = RESEARCH_USE
    limits: tuple[str, ...] = ()
    files: Mapping[str, FileNote] = field(default_factory=dict)
    version: int = CARD_VERSION

    @property
    def role(self) -> Role:
        """What the network does."""
        return self.network.role

    @property
    def input(self) -> InputSpec:
        """What the CNN eats.

        Raises:
            ValueError: An aggregator eats scores.
        """
        if isinstance(self.network, CnnSpec):
            return self.network.input
        raise ValueError(f"{self.network.name} is an aggregator and eats scores, not tiles")

    @property
    def summary(self) -> dict[str, Any]:
        """What a prediction records of the network: its name, whether trained, seed or hashes."""
        hashes = {name: note.sha256 for name, note in sorted(self.files.items())}
        return {"name": self.network.name, "trained": self.trained, "seed": self.seed, "sha256": hashes}


def card_to_json(card: Card) -> str:
    """Card as JSON text, readable by people.

    Example:
        >>> from he2her2.models.zoo import NETWORKS
        >>> card = Card(NETWORKS["mlp"], trained=False, notice="", ranking=Ranking(0.15, 1000))
        >>> card_from_json(card_to_json(card)) == card
        True
    """
    return json_text(card)


def card_from_json(text: str) -> Card:
    """Card of JSON text.

    Raises:
        ValueError: It is no card that this version reads; the message says why in one line.
    """
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(fields, dict) or "version" not in fields:
        raise ValueError("is not a card: it has no version")
    if fields["version"] != CARD_VERSION:
        raise ValueError(f"has version {fields['version']}, this he2her2 reads version {CARD_VERSION}")
    try:
        return TypeAdapter(Card).validate_python(fields)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise ValueError(f"is not a card: {'; '.join(problems)}") from None
