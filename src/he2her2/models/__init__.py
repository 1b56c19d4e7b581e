"""The networks: encoders and aggregators, their weights and cards, and the engines that run them.

Some modules are entered directly, since they load torch or ONNX Runtime: `torch_modules`, `torch_engine`,
`onnx_engine`, `export` and `authors_files`.
"""

from he2her2.models.aggregators import (
    AGGREGATORS,
    POSITIVE_FROM,
    AggregatorSpec,
    RankedFeaturesSpec,
    RankingSettings,
    aggregator_named,
    soft_argmax,
    softmax,
    tile_classes,
    tile_counts,
    top_tiles,
)
from he2her2.models.bag import Aggregated, Bag
from he2her2.models.card import RESEARCH_USE, UNTRAINED_NOTICE, Card, EncoderNote, Metric, Role, Spec
from he2her2.models.efficientnet_lite0 import export_lite0, imagenet_weights
from he2her2.models.encoders import (
    CNNS,
    RGB_FROM_HED,
    YUV_FROM_RGB,
    CnnRole,
    CnnSpec,
    Colour,
    InputSpec,
    cnn_named,
    resize,
)
from he2her2.models.engines import Engine, Untrained, load_engine, recoloured
from he2her2.models.feature_encoders import (
    TILE_CNN,
    Encoder,
    load_encoder,
    texture_encoder,
)
from he2her2.models.joining import join_weights
from he2her2.models.slide_model import (
    ENCODER_FOLDER,
    Aggregator,
    SlideModel,
    aggregator_for,
    load_aggregator,
    load_cnn,
    load_slide_model,
    settings_of_training,
    trained_folder,
    weights_in,
    weights_source,
)
from he2her2.models.stored_rules import hashes_of, read_domain, read_rules, write_domain, write_rules
from he2her2.models.weights import CARD_FILE, load_tensors, read_card, verify

__all__ = [
    "AGGREGATORS",
    "CARD_FILE",
    "CNNS",
    "ENCODER_FOLDER",
    "POSITIVE_FROM",
    "RESEARCH_USE",
    "RGB_FROM_HED",
    "TILE_CNN",
    "UNTRAINED_NOTICE",
    "YUV_FROM_RGB",
    "Aggregated",
    "Aggregator",
    "AggregatorSpec",
    "Bag",
    "Card",
    "CnnRole",
    "CnnSpec",
    "Colour",
    "Encoder",
    "EncoderNote",
    "Engine",
    "InputSpec",
    "Metric",
    "RankedFeaturesSpec",
    "RankingSettings",
    "Role",
    "SlideModel",
    "Spec",
    "Untrained",
    "aggregator_for",
    "aggregator_named",
    "cnn_named",
    "export_lite0",
    "hashes_of",
    "imagenet_weights",
    "join_weights",
    "load_aggregator",
    "load_cnn",
    "load_encoder",
    "load_engine",
    "load_slide_model",
    "load_tensors",
    "read_card",
    "read_domain",
    "read_rules",
    "recoloured",
    "resize",
    "settings_of_training",
    "soft_argmax",
    "softmax",
    "texture_encoder",
    "tile_classes",
    "tile_counts",
    "top_tiles",
    "trained_folder",
    "verify",
    "weights_in",
    "weights_source",
    "write_domain",
    "write_rules",
]
