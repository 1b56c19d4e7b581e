"""Output of a finished training: weights with their cards, and a report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from he2her2.files import write_text
from he2her2.models import RESEARCH_USE, Card, EncoderNote, Metric, RankingSettings, Spec
from he2her2.pages import render
from he2her2.results import RESEARCH_USE_NOTICE
from he2her2.statistics import Estimate

if TYPE_CHECKING:
    from torch import nn

REPORT = "report.md"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Origin and limits of trained weights; see `models.card.Card`.

    Attributes:
        data: Training data.
        licence: Of that data.
        recipe: The training in words.
        metrics: Measured figures.
        limits: Uses that the weights are not fit for, and known faults.
        notices: Lines that every output must show.
    """

    data: str
    licence: str
    recipe: str
    metrics: tuple[Metric, ...] = ()
    limits: tuple[str, ...] = (RESEARCH_USE_NOTICE,)
    notices: tuple[str, ...] = ()


def distinct_notices(*notices: str) -> tuple[str, ...]:
    """The notices that are not empty, each once."""
    return tuple(dict.fromkeys(notice for notice in notices if notice))


def card_metrics(figures: Iterable[Estimate], data: str) -> tuple[Metric, ...]:
    """Figures as a card holds them, without those that are undefined.

    Args:
        figures: Measured on the data.
        data: The data and its split, in words.
    """
    return tuple(
        Metric(figure.name, data, figure.n, figure.value, figure.low, figure.high, figure.level)
        for figure in figures
        if not np.isnan(figure.value)
    )


def export(
    network: "nn.Module",
    spec: Spec,
    folder: Path,
    provenance: Provenance,
    ranking: RankingSettings | None = None,
    encoder: EncoderNote | None = None,
    threshold: float | None = None,
) -> Card:
    """Write a trained network: ONNX, safetensors and card; an existing folder is replaced.

    Args:
        network: Module with exactly the tensors of `spec`.
        spec: Its architecture.
        folder: Named by the network's role, so that its parent serves `predict --weights`.
        provenance: For the card.
        ranking: Of an aggregator: the settings it was trained under.
        encoder: Of an aggregator on features: what gave them.
        threshold: Of a tumour CNN: probability from which its map is tumour.

    Raises:
        ValueError: The network is not that of `spec`, or a weight is not finite.
        OutputError: The folder cannot be written.
    """
    from he2her2.models.export import save_weights  # noqa: PLC0415  # it loads torch
    from he2her2.models.torch_modules import tensors_of  # noqa: PLC0415  # as above

    card = Card(
        spec,
        trained=True,
        notice="; ".join(provenance.notices),
        ranking=ranking,
        encoder=encoder,
        threshold=threshold,
        training_data=provenance.data,
        training_licence=provenance.licence,
        recipe=provenance.recipe,
        metrics=provenance.metrics,
        limits=provenance.limits,
    )
    return save_weights(folder, card, tensors_of(network))


def write_report(folder: Path, template: str, provenance: Provenance, **values: object) -> Path:
    """Write `report.md` from a template that extends `training.md`.

    Args:
        folder: Of the run.
        template: Name of the template.
        provenance: Training data, recipe and notices.
        values: What else the template shows.
    """
    report = folder / REPORT
    write_text(report, render(template, provenance=provenance, research_use=RESEARCH_USE, **values))
    return report


def estimate_rows(figures: Iterable[Estimate]) -> list[Sequence[str]]:
    """Rows of a report's table: figure, value with its interval, n."""
    return [(f.name, f.text(3), str(f.n)) for f in figures]
