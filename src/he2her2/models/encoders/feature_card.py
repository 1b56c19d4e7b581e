"""The card of a feature encoder: what it is given, what it gives, and which files make it run."""

import json
import re
from dataclasses import field
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Len
from pydantic import ConfigDict, Discriminator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from he2her2.files import problems_in_words
from he2her2.models.encoders.pixels import InputSpec

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_VERSION = 1
_IS_TIMMS_OWN = re.compile(r"[\w.-]+").fullmatch  # not "hf-hub:...", nor a path
_LEADS_ELSEWHERE = frozenset({"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"})
"""Options of `timm.create_model` that name a file or an address, which it may unpickle."""

_Mean: TypeAlias = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, config=_STRICT)
class OnnxModel:
    """A file that ONNX Runtime runs: one input (n, c, s, s), its first output (n, d).

    Attributes:
        sha256: Of the file; none accepts any.
        file: Beside the card.
    """

    kind: Literal["onnx"]
    sha256: Annotated[str, Len(64, 64)] | None = None
    file: str = "model.onnx"


@dataclass(frozen=True, config=_STRICT)
class TimmModel:
    """A model of the library timm, which the user installs.

    Attributes:
        name: As `timm.create_model` takes it.
        weights: File beside the card, safetensors or torch; none for those that timm has on this machine.
        options: For `timm.create_model`; a text such as "timm.layers.SwiGLUPacked" or "torch.nn.SiLU" is the class.
        pooling: Features of a model that gives a token a patch: the class token, the mean of the patches, or both one
            after the other; none for a model that pools itself.
    """

    kind: Literal["timm"]
    name: str
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pooling: Literal["class", "mean", "class+mean"] | None = None


@dataclass(frozen=True, config=_STRICT)
class HubModel:
    """A model of a local torch.hub repository: the card's folder holds its hubconf.py, whose code runs.

    Attributes:
        entry: Function of hubconf.py.
        weights: File beside the card, safetensors or torch; none where the entry loads them.
        options: For the function.
    """

    kind: Literal["hub"]
    entry: str
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class FeatureCard:
    """Card of a feature encoder.

    Attributes:
        name: Of the encoder; files of features carry it.
        input: Its tiles.
        n_features: Numbers that it gives for a tile.
        model: What runs.
        mean: Of each channel of RGB in [0, 1], subtracted.
        std: Of each channel; divides what is left.
        licence: Of the weights.
        source: Where they come from.
        version: Of this format.
    """

    name: Annotated[str, Len(1, 100)]
    input: InputSpec
    n_features: Annotated[int, Ge(1), Le(1 << 16)]
    model: Annotated[OnnxModel | TimmModel | HubModel, Discriminator("kind")]
    mean: tuple[_Mean, _Mean, _Mean] = (0.0, 0.0, 0.0)
    std: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]] = (1.0, 1.0, 1.0)
    licence: str = "not stated"
    source: str = "not stated"
    version: int = _VERSION

    @property
    def runs_code(self) -> bool:
        """True where building the model may run what its author wrote: Python, or a pickle that timm is led to."""
        if isinstance(self.model, TimmModel):
            return not _IS_TIMMS_OWN(self.model.name) or not _LEADS_ELSEWHERE.isdisjoint(self.model.options)
        return isinstance(self.model, HubModel)

    def __post_init__(self) -> None:
        """Check that means and deviations are those of the input's channels."""
        if self.input.n_channels == 1 and (self.mean, self.std) != ((0.0,) * 3, (1.0,) * 3):
            raise ValueError("mean and std are of three channels, and its input has one")


def feature_card_from_json(text: str) -> FeatureCard:
    """Card of JSON text.

    Raises:
        ValueError: It is no card that this version reads; the message says why in one line.

    Example:
        >>> from he2her2.files import json_text
        >>> tile = InputSpec(0.5, 256, 224, "rgb")
        >>> card = FeatureCard("mine", tile, 384, OnnxModel("onnx"))
        >>> feature_card_from_json(json_text(card)) == card
        True
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(fields, dict) or fields.get("version", _VERSION) != _VERSION:
        raise ValueError(f"is no card of an encoder of version {_VERSION}")
    try:
        return TypeAdapter(FeatureCard).validate_python(fields)
    except ValidationError as error:
        raise ValueError(problems_in_words(error)) from None
