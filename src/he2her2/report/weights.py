"""The weights of a run, found again for its report: their cards, their domain and the aggregator that decided."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from he2her2.domain import Domain
from he2her2.errors import He2Her2Error
from he2her2.evaluation import check_weights
from he2her2.models import ROLES, Aggregator, Card, load_aggregator, read_domain, weights_source
from he2her2.results import RunFolder


@dataclass(frozen=True, slots=True, eq=False)
class FoundWeights:
    """Weights of a run.

    Attributes:
        cards: By role, in the order of the method; empty where the weights are not at hand.
        aggregator: Decided; None where it cannot be run.
        domain: What their training slides look like, if they say.
        missing: Why they are not at hand; empty where they are.
    """

    cards: Mapping[str, Card] = field(default_factory=dict)
    aggregator: Aggregator | None = None
    domain: Domain | None = None
    missing: str = ""

    @property
    def sees_features(self) -> bool:
        """True if the aggregator decides by an encoder's features, which a run does not keep."""
        return self.aggregator is not None and self.aggregator.card.encoder is not None


def find_weights(run: RunFolder, weights: str | None = None) -> FoundWeights:
    """Find the weights of a run by their hashes: where the run says that they lay, or else the bundled ones.

    Args:
        run: The run.
        weights: Folder that the user names.

    Raises:
        He2Her2Error: The folder that the user names cannot be used, or holds other weights.
    """
    if weights is not None:
        return _load(run, weights)
    reasons = []
    for candidate in _candidates(run):
        try:
            return _load(run, candidate)
        except He2Her2Error as error:
            places = (run.path, weights_source("bundled"), candidate)
            reasons.append(_without_folders(str(error), *map(str, places)))
    return FoundWeights(missing=reasons[0])


def _without_folders(text: str, *places: str) -> str:
    """A sentence with names for paths: pages are passed on, and folders name users.

    Example:
        >>> _without_folders("/home/me/W: are not the weights of run", "/home/me/W", "run")
        'W: are not the weights of run'
    """
    for place in filter(os.path.isabs, places):
        text = text.replace(place, Path(place).name)
    return text


def _candidates(run: RunFolder) -> Iterator[str]:
    yield from dict.fromkeys((run.description.weights_folder or "bundled", "bundled"))


def _load(run: RunFolder, weights: str) -> FoundWeights:
    source = weights_source(weights)
    if not isinstance(source, Path):
        return FoundWeights(aggregator=load_aggregator(weights, run.config), missing="they are untrained")
    cards = check_weights(run, source)
    aggregator = load_aggregator(weights, run.config)
    by_role = {role: card for role, card in (cards | {"aggregator": aggregator.card}).items() if card.files}
    return FoundWeights(
        {role: by_role[role] for role in ROLES if role in by_role}, aggregator, read_domain(source, cards)
    )
