"""The encoders: from tiles to logits or features. Each family is one file; `CNNS` names the networks."""

from he2her2.errors import ConfigError
from he2her2.models.encoders.cnn import (
    CNNS,
    IHC_CLASSES,
    TUMOUR_CLASSES,
    CnnRole,
    CnnSpec,
)
from he2her2.models.encoders.feature_card import (
    FeatureCard,
    HubModel,
    OnnxModel,
    TimmModel,
    feature_card_from_json,
)
from he2her2.models.encoders.pixels import (
    RGB_FROM_HED,
    STAINS_FROM_DENSITY,
    YUV_FROM_RGB,
    YUV_UINT8_FROM_RGB,
    Colour,
    InputSpec,
    network_pixels,
    prepare_input,
    resize,
)

__all__ = [
    "CNNS",
    "IHC_CLASSES",
    "RGB_FROM_HED",
    "STAINS_FROM_DENSITY",
    "TUMOUR_CLASSES",
    "YUV_FROM_RGB",
    "YUV_UINT8_FROM_RGB",
    "CnnRole",
    "CnnSpec",
    "Colour",
    "FeatureCard",
    "HubModel",
    "InputSpec",
    "OnnxModel",
    "TimmModel",
    "cnn_named",
    "feature_card_from_json",
    "network_pixels",
    "prepare_input",
    "resize",
]


def cnn_named(name: str, role: CnnRole) -> CnnSpec:
    """The CNN of that name.

    Raises:
        ConfigError: There is none of that name with that role.
    """
    spec = CNNS.get(name)
    if spec is None or spec.role != role:
        known = ", ".join(other for other, spec in CNNS.items() if spec.role == role)
        raise ConfigError(f"networks.{role}: there is no '{name}'; choose one of {known}")
    return spec
