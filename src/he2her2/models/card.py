"""The card beside a network's weights: architecture, input, origin, measured figures, intended use."""

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from he2her2.files import digest, problems_in_words
from he2her2.models.aggregators import AggregatorSpec, RankingSettings, kind_of
from he2her2.models.encoders import CnnRole, CnnSpec, InputSpec
from he2her2.rules import Threshold

_CARD_VERSION = 1
UNTRAINED_NOTICE = "untrained weights: the numbers mean nothing"
RESEARCH_USE = "research use only"
UNSTATED_ENCODER = "not stated"
"""Name of the encoder of files of features that do not name it, such as CLAM's."""

_STRICT = ConfigDict(extra="forbid")


Role: TypeAlias = CnnRole | Literal["aggregator"]
"""A network's part in the method; also the name of its folder of weights."""

ROLES: tuple[Role, ...] = ("tumour_cnn", "tile_cnn", "aggregator")
"""All of them, in the order of the method."""

Spec: TypeAlias = CnnSpec | AggregatorSpec


@dataclass(frozen=True, config=_STRICT)
class Metric:
    """One measured figure with its interval.

    Attributes:
        name: Of the figure, such as "balanced accuracy".
        data: Cases that it was measured on, and how they were split.
        n: Number of cases.
        value: The figure.
        low: Lower end of its interval.
        high: Upper end.
        level: Confidence level of the interval.
    """

    name: str
    data: str
    n: Annotated[int, Ge(0), Le(1 << 40)]
    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, config=_STRICT)
class FileNote:
    """SHA-256 of a file in hexadecimal, and its size in bytes."""

    sha256: Annotated[str, Len(64, 64)]
    n_bytes: Annotated[int, Ge(0), Le(1 << 40)]


@dataclass(frozen=True, config=_STRICT)
class EncoderNote:
    """The encoder whose features an aggregator was trained on.

    Attributes:
        name: Its name, or `UNSTATED_ENCODER`.
        sha256: Of all that its features depend on; empty where the files of features do not say.
        tile_um: Width of its tiles in µm, in the middle of the slides'; none where the files do not say.
    """

    name: str
    sha256: str = ""
    tile_um: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True, config=_STRICT)
class Card:
    """Everything about a network but its numbers.

    Attributes:
        network: Its architecture and, for a CNN, its input.
        trained: False for weights drawn from a seed.
        notice: One line that every output must show; empty where none is needed.
        seed: Of untrained weights.
        ranking: Of an aggregator that ranks tiles.
        encoder: Of an aggregator on features; None where its features are the tile CNN's logits.
        threshold: Probability from which a tumour CNN's map is tumour, or an aggregator's slide positive; none where
            nobody chose one.
        training_data: Slides or tiles that it was trained on.
        training_licence: Of that data.
        recipe: Course of the training.
        metrics: Measured figures.
        intended_use: Its purpose.
        limits: Uses that are excluded, and known failures.
        files: Name to note of each file beside the card; none for weights that were never saved.
        version: Of this format.
    """

    network: Spec
    trained: bool
    notice: str
    seed: Annotated[int, Ge(0), Lt(1 << 64)] | None = None
    ranking: RankingSettings | None = None
    encoder: EncoderNote | None = None
    threshold: Threshold | None = None
    training_data: str = "none"
    training_licence: str = "none"
    recipe: str = "none"
    metrics: tuple[Metric, ...] = ()
    intended_use: str = RESEARCH_USE
    limits: tuple[str, ...] = ()
    files: Mapping[str, FileNote] = field(default_factory=dict)
    version: int = _CARD_VERSION

    @property
    def role(self) -> Role:
        """The network's part in the method."""
        return self.network.role

    @property
    def cnn(self) -> CnnSpec:
        """The network, which is a CNN.

        Raises:
            ValueError: It is an aggregator.
        """
        if isinstance(self.network, CnnSpec):
            return self.network
        raise ValueError(f"{self.network.name} is an aggregator: its input is a bag, not tiles")

    @property
    def input(self) -> InputSpec:
        """Input of the CNN; errors are those of `cnn`."""
        return self.cnn.input

    @property
    def summary(self) -> dict[str, Any]:
        """The network as a prediction records it: name, whether trained, seed or hashes, threshold, how it is used."""
        hashes = {name: note.sha256 for name, note in sorted(self.files.items())}
        return {
            "name": self.network.name,
            "trained": self.trained,
            "seed": self.seed,
            "sha256": hashes,
            "threshold": self.threshold,
            "use_sha256": digest(self.network, self.ranking),
        }


def card_from_json(text: str) -> Card:
    """Card of JSON text.

    Raises:
        ValueError: It is no card that this version reads; the message says why in one line.

    Example:
        >>> from he2her2.files import json_text
        >>> from he2her2.models.aggregators import PAPER_MLP
        >>> card = Card(PAPER_MLP, trained=False, notice="", ranking=RankingSettings(0.15, 1000))
        >>> card_from_json(json_text(card)) == card
        True
    """
    try:
        fields = json.loads(text)
    except RecursionError:
        raise ValueError("is not a card: it is nested too deeply") from None
    except ValueError as error:  # also a number of thousands of digits
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(fields, dict) or "version" not in fields:
        raise ValueError("is not a card: it has no version")
    if fields["version"] != _CARD_VERSION:
        raise ValueError(f"has version {fields['version']!r:.80}, this he2her2 reads version {_CARD_VERSION}")
    try:
        if isinstance(fields.get("network"), dict):
            fields["network"] = _network(fields["network"])
        return TypeAdapter(Card).validate_python(fields)
    except ValidationError as error:
        raise ValueError(f"is not a card: {problems_in_words(error)}") from None


def _network(fields: Mapping[str, Any]) -> Spec:
    """The network of its fields, by role and, for an aggregator, by rule."""
    if fields.get("role") != "aggregator":
        return TypeAdapter(CnnSpec).validate_python(fields)
    kind = kind_of(fields.get("rule"))
    if kind is None:
        raise ValueError(
            f"is not a card: network.rule: this he2her2 knows no aggregator {str(fields.get('rule'))!r:.80}"
        )
    return TypeAdapter(kind).validate_python(fields)
