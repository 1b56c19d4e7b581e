"""The aggregators: from the bag of a slide to its probability. Each kind is one file and one line here."""

from collections.abc import Mapping
from types import MappingProxyType

from he2her2.errors import ConfigError
from he2her2.models.aggregators.base import AggregatorSpec, RankingSettings, RankingSpec, RunNetwork
from he2her2.models.aggregators.gated_attention import ClamSpec, GatedAttentionSpec, SmoothAttentionSpec
from he2her2.models.aggregators.mean_features import MeanFeaturesSpec
from he2her2.models.aggregators.ranked_features import RankedFeaturesSpec
from he2her2.models.aggregators.ranked_mlp import RankedMlpSpec
from he2her2.models.aggregators.selection import soft_argmax, softmax, top_tiles
from he2her2.models.aggregators.tile_class_rules import POSITIVE_FROM, TileClassRuleSpec, tile_classes, tile_counts
from he2her2.models.aggregators.transmil import TransMilSpec

__all__ = [
    "AGGREGATORS",
    "PAPER_MLP",
    "POSITIVE_FROM",
    "AggregatorSpec",
    "RankedFeaturesSpec",
    "RankingSettings",
    "RankingSpec",
    "RunNetwork",
    "aggregator_named",
    "kind_of",
    "soft_argmax",
    "softmax",
    "tile_classes",
    "tile_counts",
    "top_tiles",
]

PAPER_MLP = RankedMlpSpec("mlp", "mlp", n_tiles=300, hidden=(256, 128, 64))  # paper, section 3.3; 118 338 weights

_ALL: tuple[AggregatorSpec, ...] = (
    PAPER_MLP,
    TileClassRuleSpec("mean", "mean", n_tiles=300),
    TileClassRuleSpec("median", "median", n_tiles=300),
    # The released mean differs by `np.round`'s halves to even only at 0.5 and 2.5, which never change the status.
    TileClassRuleSpec("released-median", "lower-median", n_tiles=300),
    GatedAttentionSpec("abmil", "abmil", embed=128, width=64),
    ClamSpec("clam-sb", "clam-sb", embed=128, width=64),
    SmoothAttentionSpec("smooth-abmil", "smooth-abmil", embed=128, width=64),
    TransMilSpec("transmil", "transmil", width=128),
    RankedFeaturesSpec("ranked-features", "ranked-features", hidden=(32,)),
    MeanFeaturesSpec("mean-features", "mean-features"),
)
AGGREGATORS: Mapping[str, AggregatorSpec] = MappingProxyType({spec.name: spec for spec in _ALL})
"""Every aggregator that the settings can name."""


def aggregator_named(name: str) -> AggregatorSpec:
    """The aggregator of that name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in AGGREGATORS:
        raise ConfigError(f"networks.aggregator: there is no '{name}'; choose one of {', '.join(AGGREGATORS)}")
    return AGGREGATORS[name]


def kind_of(rule: object) -> type[AggregatorSpec] | None:
    """The kind of aggregator that calls itself `rule` in a card."""
    return next((type(spec) for spec in _ALL if spec.rule == rule), None)
