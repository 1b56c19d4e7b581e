"""From a trained module to a folder of weights with its card."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from he2her2.models.card import Card, Metric, Ranking
from he2her2.models.tensors import tensors_of
from he2her2.models.weights import save_weights
from he2her2.models.zoo import Spec


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where weights come from and what they are good for; see `models.card.Card`.

    Attributes:
        data: What they were trained on.
        licence: Of that data.
        recipe: How they were trained.
        metrics: What was measured on them.
        limits: What they must not be used for, and what is known to go wrong.
        notice: One line that every output must show; empty where none is needed.
    """

    data: str
    licence: str
    recipe: str
    metrics: tuple[Metric, ...] = ()
    limits: tuple[str, ...] = ()
    notice: str = ""


def export(
    network: nn.Module, spec: Spec, folder: Path, provenance: Provenance, ranking: Ranking | None = None
) -> Card:
    """Write a trained network: ONNX, safetensors and card; an existing folder is replaced.

    Args:
        network: With exactly the tensors of `spec`.
        spec: Its architecture.
        folder: Named by the network's role, so that its parent serves `predict --weights`.
        provenance: For the card.
        ranking: Of an aggregator: the settings it was trained under.

    Raises:
        ValueError: The network is not that of `spec`, or a weight is not finite.
        OutputError: The folder cannot be written.
    """
    card = Card(
        spec,
        trained=True,
        notice=provenance.notice,
        ranking=ranking,
        training_data=provenance.data,
        training_licence=provenance.licence,
        recipe=provenance.recipe,
        metrics=provenance.metrics,
        limits=provenance.limits,
    )
    return save_weights(folder, card, tensors_of(network))
