"""Every network by name: the one place that knows sizes. No torch here; torch, ONNX and weights all follow these specs.

A network is data: what it eats (`InputSpec`), its layers, its classes. Sizes in the comments are side lengths in px.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from annotated_types import MinLen
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from he2her2.errors import ConfigError

_STRICT = ConfigDict(extra="forbid")

CnnRole: TypeAlias = Literal["tumour_cnn", "tile_cnn"]
Role: TypeAlias = Literal["tumour_cnn", "tile_cnn", "aggregator"]
"""What a network does in the method; also the name of its folder of weights."""

Colour: TypeAlias = Literal["lightness", "lightness-uint8", "rgb", "yuv"]
Pool: TypeAlias = Literal["none", "max", "l2"]
Rule: TypeAlias = Literal["mlp", "mean", "median", "lower-median"]

Shape: TypeAlias = tuple[int, ...]

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
NORM_EPSILON = 1e-5


@dataclass(frozen=True, config=_STRICT)
class InputSpec:
    """What a CNN eats.

    Attributes:
        mpp: µm per pixel of the tile that is read from the slide.
        side_px: Side of that tile.
        network_px: Side after antialiased resizing; equal to `side_px` for none.
        colour: The channels, all as float32: `lightness` (max + min) / 2 in [0, 1]; `lightness-uint8` the same after
            rounding to 8 bits; `rgb` in [0, 1]; `yuv` by BT.601, Y in [0, 1], U and V around 0.
    """

    mpp: PositiveFloat
    side_px: PositiveInt
    network_px: PositiveInt
    colour: Colour

    @property
    def n_channels(self) -> int:
        """Channels that reach the network."""
        return 1 if self.colour.startswith("lightness") else 3


@dataclass(frozen=True, config=_STRICT)
class Conv:
    """One stage: convolution, batch norm if `norm`, ReLU and 2 x 2 pooling with stride 2 if `pool`.

    Attributes:
        channels: Filters.
        kernel: Side of a filter.
        padding: Zeros around the input.
        norm: Batch normalisation; folded into the convolution in the ONNX file.
        stride: Step of the filters.
        pool: `max`, or `l2` (root of the sum of squares), or `none`.
    """

    channels: PositiveInt
    kernel: PositiveInt
    padding: NonNegativeInt = 0
    norm: bool = False
    stride: PositiveInt = 1
    pool: Pool = "max"


@dataclass(frozen=True, config=_STRICT)
class CnnSpec:
    """A CNN from tiles to logits: stages, then a mean over places or flattening, then fully connected layers.

    Attributes:
        name: Its name in the zoo.
        role: What it does.
        input: What it eats.
        convs: Its stages.
        global_pool: Mean over all places in place of flattening.
        hidden: Widths of the hidden fully connected layers, each followed by ReLU.
        classes: What its logits stand for.
    """

    name: str
    role: CnnRole
    input: InputSpec
    convs: Annotated[tuple[Conv, ...], MinLen(1)]
    global_pool: bool
    hidden: tuple[PositiveInt, ...]
    classes: Annotated[tuple[str, ...], MinLen(2)]


@dataclass(frozen=True, config=_STRICT)
class AggregatorSpec:
    """From the selected tiles' scores to logits of the slide.

    Attributes:
        name: Its name in the zoo.
        rule: `mlp` is a network; the others are baselines on the tiles' classes and have no weights.
        n_tiles: Scores that it eats; a baseline takes any number.
        hidden: Widths of the MLP's hidden layers, each followed by ReLU.
        classes: What its logits stand for.
        role: Always "aggregator".
    """

    name: str
    rule: Rule
    n_tiles: PositiveInt
    hidden: tuple[PositiveInt, ...] = ()
    classes: Annotated[tuple[str, ...], MinLen(2)] = ("negative", "positive")
    role: Literal["aggregator"] = "aggregator"


Spec: TypeAlias = CnnSpec | AggregatorSpec

IHC_CLASSES = ("0", "1+", "2+", "3+")
TUMOUR_CLASSES = ("other", "invasive")

PAPER_TILE_CNN = CnnSpec(  # paper, section 3.2 and figure 5; 26 051 972 weights
    name="paper-tile-cnn",
    role="tile_cnn",
    input=InputSpec(mpp=0.25, side_px=256, network_px=256, colour="lightness"),
    convs=(
        Conv(16, kernel=5),  # 256 -> 252 -> 126
        Conv(32, kernel=3),  # 126 -> 124 -> 62
        Conv(64, kernel=3),  # 62 -> 60 -> 30
        Conv(128, kernel=3),  # 30 -> 28 -> 14
    ),
    global_pool=False,  # 14 * 14 * 128 = 25 088
    hidden=(1024, 256),
    classes=IHC_CLASSES,
)
STRIDED_TILE_CNN = (
    replace(  # the same layers, at half the resolution from the first on: a quarter of the work; 131 940 weights
        PAPER_TILE_CNN,
        name="strided-tile-cnn",
        convs=(
            Conv(16, kernel=5, norm=True, stride=2),  # 256 -> 126 -> 63
            Conv(32, kernel=3, norm=True),  # 63 -> 61 -> 30
            Conv(64, kernel=3, norm=True),  # 30 -> 28 -> 14
            Conv(128, kernel=3, norm=True),  # 14 -> 12 -> 6
        ),
        global_pool=True,  # 6 x 6 -> 1
        hidden=(256,),
    )
)
PAPER_TUMOUR_CNN = CnnSpec(  # CS256-FC256 of HASHI (Cruz-Roa et al., 2018); 144 819 202 weights
    name="paper-tumour-cnn",
    role="tumour_cnn",
    input=InputSpec(mpp=0.25, side_px=512, network_px=101, colour="yuv"),
    convs=(Conv(256, kernel=8, pool="l2"),),  # 101 -> 94 -> 47
    global_pool=False,  # 47 * 47 * 256 = 565 504
    hidden=(256,),
    classes=TUMOUR_CLASSES,
)
COMPACT_TUMOUR_CNN = CnnSpec(  # 389 890 weights; 200 µm wide, as the tiles of the IDC set are
    name="compact-tumour-cnn",
    role="tumour_cnn",
    input=InputSpec(mpp=4.0, side_px=50, network_px=50, colour="rgb"),
    convs=(
        Conv(32, kernel=3, padding=1, norm=True),  # 50 -> 25
        Conv(64, kernel=3, padding=1, norm=True),  # 25 -> 12
        Conv(128, kernel=3, padding=1, norm=True),  # 12 -> 6
        Conv(256, kernel=3, padding=1, norm=True, pool="none"),  # 6
    ),
    global_pool=True,  # 6 x 6 -> 1
    hidden=(),
    classes=TUMOUR_CLASSES,
)
_CNNS = (
    COMPACT_TUMOUR_CNN,
    PAPER_TUMOUR_CNN,
    replace(PAPER_TUMOUR_CNN, name="released-tumour-cnn"),  # the paper leaves this network to the released code
    STRIDED_TILE_CNN,
    PAPER_TILE_CNN,
    replace(PAPER_TILE_CNN, name="released-tile-cnn", input=replace(PAPER_TILE_CNN.input, colour="lightness-uint8")),
)
PAPER_MLP = AggregatorSpec("mlp", "mlp", n_tiles=300, hidden=(256, 128, 64))  # paper, section 3.3; 118 338 weights
_AGGREGATORS = (
    PAPER_MLP,
    AggregatorSpec("mean", "mean", n_tiles=300),
    AggregatorSpec("median", "median", n_tiles=300),
    # The released mean differs by `np.round`'s halves to even only at 0.5 and 2.5, which never change the status.
    AggregatorSpec("released-median", "lower-median", n_tiles=300),
)
NETWORKS: Mapping[str, Spec] = MappingProxyType({spec.name: spec for spec in (*_CNNS, *_AGGREGATORS)})


def network(name: str, role: Role) -> Spec:
    """The network of that name.

    Raises:
        ConfigError: There is none of that name with that role.
    """
    spec = NETWORKS.get(name)
    if spec is None or spec.role != role:
        known = ", ".join(other for other, spec in NETWORKS.items() if spec.role == role)
        raise ConfigError(f"networks.{role}: there is no '{name}'; choose one of {known}")
    return spec


def input_shape(spec: Spec) -> Shape:
    """Shape of one input: (c, s, s) of a CNN, (m,) of an aggregator.

    Example:
        >>> input_shape(PAPER_TILE_CNN), input_shape(NETWORKS["mlp"])
        ((1, 256, 256), (300,))
    """
    if isinstance(spec, AggregatorSpec):
        return (spec.n_tiles,)
    return (spec.input.n_channels, spec.input.network_px, spec.input.network_px)


def stage_sides(spec: CnnSpec) -> list[tuple[int, int]]:
    """Side in px after each stage's convolution, and after its pooling.

    Example:
        >>> stage_sides(PAPER_TILE_CNN)
        [(252, 126), (124, 62), (60, 30), (28, 14)]
    """
    sides, side = [], spec.input.network_px
    for conv in spec.convs:
        convolved = (side + 2 * conv.padding - conv.kernel) // conv.stride + 1
        side = convolved if conv.pool == "none" else convolved // 2
        if side < 1:
            raise ValueError(f"{spec.name}: an input of {spec.input.network_px} px is too small for its layers")
        sides.append((convolved, side))
    return sides


def window_step(spec: CnnSpec) -> int | None:
    """By what multiples of px a tile may lie apart from another for both to share their convolutions.

    A filter then sees in a larger picture what it sees in the tile alone, and pooling meets the same px. None for a
    network that pads, and so sees where its tile ends, and for one whose tiles are resized first.

    Example:
        >>> window_step(PAPER_TILE_CNN), window_step(PAPER_TUMOUR_CNN)
        (16, None)
    """
    if spec.input.network_px != spec.input.side_px or any(conv.padding for conv in spec.convs):
        return None
    return math.prod(conv.stride * (1 if conv.pool == "none" else 2) for conv in spec.convs)


def dense_widths(spec: Spec) -> Shape:
    """Widths of the fully connected part, from its input to its logits; nothing for a baseline.

    Example:
        >>> dense_widths(PAPER_TILE_CNN)
        (25088, 1024, 256, 4)
    """
    if isinstance(spec, AggregatorSpec):
        return (spec.n_tiles, *spec.hidden, len(spec.classes)) if spec.rule == "mlp" else ()
    side = 1 if spec.global_pool else stage_sides(spec)[-1][1]
    return (side * side * spec.convs[-1].channels, *spec.hidden, len(spec.classes))


def tensor_shapes(spec: Spec) -> dict[str, Shape]:
    """Name and shape of every tensor of the weights; names are those of the authors' files.

    Batch norm adds `norm_layers.i.` `weight`, `bias`, `running_mean` and `running_var`.

    Example:
        >>> tensor_shapes(NETWORKS["mlp"])["mlp_layers.3.weight"]
        (2, 64)
    """
    shapes: dict[str, Shape] = {}
    if isinstance(spec, CnnSpec):
        inputs = [spec.input.n_channels, *(conv.channels for conv in spec.convs)]
        for i, conv in enumerate(spec.convs):
            shapes[f"conv_layers.{i}.weight"] = (conv.channels, inputs[i], conv.kernel, conv.kernel)
            shapes[f"conv_layers.{i}.bias"] = (conv.channels,)
            if conv.norm:
                shapes |= {f"norm_layers.{i}.{name}": (conv.channels,) for name in NORM_TENSORS}
    part = dense_part(spec)
    widths = dense_widths(spec)
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        shapes[f"{part}.{i}.weight"] = (n_out, n_in)
        shapes[f"{part}.{i}.bias"] = (n_out,)
    return shapes


def dense_part(spec: Spec) -> str:
    """Name of the fully connected part in the weights."""
    return "mlp_layers" if isinstance(spec, AggregatorSpec) else "fc_layers"


def count_parameters(spec: Spec) -> int:
    """Trainable weights (a batch norm's running statistics are none).

    Example:
        >>> count_parameters(PAPER_TILE_CNN), count_parameters(PAPER_TUMOUR_CNN)
        (26051972, 144819202)
    """
    return sum(math.prod(shape) for name, shape in tensor_shapes(spec).items() if ".running_" not in name)
