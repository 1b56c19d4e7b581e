"""The CNNs: their sizes by name, and the graph that prediction runs.

A network is data (`CnnSpec`): its input, its layers, its classes. Sizes in the comments are side lengths in px.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Le, Len
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from he2her2.labels import IhcScore
from he2her2.models.encoders.pixels import InputSpec
from he2her2.models.signature import Layer, Signature, dense_layers

if TYPE_CHECKING:
    from torch import nn

    from he2her2.models.encoders.cnn_module import CnnModule

_STRICT = ConfigDict(extra="forbid")

_MOST_KERNEL = 64
_MOST_LAYERS = 64
_WIDEST_TILE_UM = 4096
_LARGEST_LAYER = 1 << 26

_Width: TypeAlias = Annotated[int, Ge(1), Le(1 << 16)]

CnnRole: TypeAlias = Literal["tumour_cnn", "tile_cnn"]
Pool: TypeAlias = Literal["none", "max", "l2"]


@dataclass(frozen=True, config=_STRICT)
class Conv:
    """One stage: convolution, batch norm if `norm`, ReLU if `relu`, 2 x 2 pooling with stride 2 if `pool`, a shortcut.

    Attributes:
        channels: Filters.
        kernel: Side of a filter.
        padding: Zeros around the input.
        norm: Batch normalisation; folded into the convolution in the ONNX file.
        stride: Step of the filters.
        pool: `max`, or `l2` (root of the sum of squares), or `none`.
        groups: Groups of channels that are convolved apart from each other; depthwise where each channel is one.
        relu: Negative values become 0.
        shortcut: The output of the stage so many stages before is added; 0 for none.
    """

    channels: _Width
    kernel: Annotated[int, Ge(1), Le(_MOST_KERNEL)]
    padding: Annotated[int, Ge(0), Le(_MOST_KERNEL)] = 0
    norm: bool = False
    stride: Annotated[int, Ge(1), Le(_MOST_KERNEL)] = 1
    pool: Pool = "max"
    groups: _Width = 1
    relu: bool = True
    shortcut: Annotated[int, Ge(0), Le(_MOST_LAYERS)] = 0


@dataclass(frozen=True, config=_STRICT)
class CnnSpec:
    """A CNN from tiles to logits: stages, then a spatial mean or flattening, then fully connected layers.

    Attributes:
        name: Its name in the settings.
        role: Its part in the method.
        input: Its tiles.
        convs: Its stages.
        global_pool: Mean over all positions in place of flattening.
        hidden: Widths of the hidden fully connected layers, each followed by ReLU.
        classes: Meaning of its logits.
    """

    name: str
    role: CnnRole
    input: InputSpec
    convs: Annotated[tuple[Conv, ...], Len(1, _MOST_LAYERS)]
    global_pool: bool
    hidden: Annotated[tuple[_Width, ...], Len(0, _MOST_LAYERS)]
    classes: Annotated[tuple[str, ...], Len(2, _MOST_LAYERS)]

    def __post_init__(self) -> None:
        """Check that the network can run, and that a tile takes a bounded part of memory and slide."""
        side_um = self.input.side_px * self.input.mpp
        if side_um > _WIDEST_TILE_UM:
            raise ValueError(f"its tiles are {side_um:g} µm wide; at most {_WIDEST_TILE_UM} µm are read at once")
        self._check_groups_and_shortcuts()
        sides = zip(self.convs, self.stage_sides, strict=True)
        largest = max(conv.channels * convolved**2 for conv, (convolved, _) in sides)
        if largest > _LARGEST_LAYER:
            raise ValueError(
                f"a layer has {largest:.2g} values for one tile; at most {_LARGEST_LAYER:.2g} are computed"
            )

    def _check_groups_and_shortcuts(self) -> None:
        shapes = [(conv.channels, side) for conv, (_, side) in zip(self.convs, self.stage_sides, strict=True)]
        for k, (n_in, conv) in enumerate(zip(self.widths, self.convs, strict=False)):
            if n_in % conv.groups or conv.channels % conv.groups:
                raise ValueError(f"stage {k}: {n_in} and {conv.channels} channels are no multiples of {conv.groups}")
            if conv.shortcut and (conv.shortcut > k or shapes[k - conv.shortcut] != shapes[k]):
                raise ValueError(f"stage {k}: there is no output of its shape {conv.shortcut} stages before")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the input and after each stage."""
        return (self.input.n_channels, *(conv.channels for conv in self.convs))

    @property
    def signature(self) -> Signature:
        """Of the ONNX file: from `input` (n, c, s, s) to `logits` (n, k)."""
        side = self.input.network_px
        return Signature({"input": ("n", self.input.n_channels, side, side)}, {"logits": ("n", len(self.classes))})

    @property
    def stage_sides(self) -> list[tuple[int, int]]:
        """Side in px after each stage's convolution, and after its pooling.

        Example:
            >>> PAPER_TILE_CNN.stage_sides
            [(252, 126), (124, 62), (60, 30), (28, 14)]
        """
        sides, side = [], self.input.network_px
        for conv in self.convs:
            convolved = (side + 2 * conv.padding - conv.kernel) // conv.stride + 1
            side = convolved if conv.pool == "none" else convolved // 2
            if side < 1:
                raise ValueError(f"{self.name}: an input of {self.input.network_px} px is too small for its layers")
            sides.append((convolved, side))
        return sides

    @property
    def dense_widths(self) -> tuple[int, ...]:
        """Widths of the fully connected part, from its input to its logits.

        Example:
            >>> PAPER_TILE_CNN.dense_widths
            (25088, 1024, 256, 4)
        """
        side = 1 if self.global_pool else self.stage_sides[-1][1]
        return (side * side * self.convs[-1].channels, *self.hidden, len(self.classes))

    @property
    def window_step(self) -> int | None:
        """Multiple of px by which two tiles may lie apart and share their convolutions.

        A filter then sees in a larger picture what it sees in the tile alone, and pooling meets the same px. None for a
        network that pads, and so sees where its tile ends, and for one whose tiles are resized first.

        Example:
            >>> PAPER_TILE_CNN.window_step, PAPER_TUMOUR_CNN.window_step
            (16, None)
        """
        if self.input.network_px != self.input.side_px or any(conv.padding for conv in self.convs):
            return None
        return math.prod(conv.stride * (1 if conv.pool == "none" else 2) for conv in self.convs)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Nodes of the ONNX file, in order."""
        found, last = list[Layer](), list[int]()  # of each stage, its last layer
        for k, (n_in, conv) in enumerate(zip(self.widths, self.convs, strict=False)):
            name, side = f"conv_layers.{k}", conv.kernel
            shape = (conv.channels, n_in // conv.groups, side, side)
            tensors = {f"{name}.weight": shape, f"{name}.bias": (conv.channels,)}
            window = {"kernel_shape": [side] * 2, "pads": [conv.padding] * 4, "strides": [conv.stride] * 2}
            attributes: dict[str, Any] = {**window, "group": conv.groups}
            found.append(Layer("Conv", attributes, tensors, f"norm_layers.{k}" if conv.norm else ""))
            if conv.relu:
                found.append(Layer("Relu"))
            if conv.pool != "none":
                operator = "MaxPool" if conv.pool == "max" else "LpPool"
                found.append(Layer(operator, {"kernel_shape": [2, 2], "strides": [2, 2]}))
            if conv.shortcut:
                found.append(Layer("Add", added=last[k - conv.shortcut]))
            last.append(len(found) - 1)
        if self.global_pool:
            found.append(Layer("GlobalAveragePool"))
        return (*found, Layer("Flatten"), *dense_layers("fc_layers", self.dense_widths))

    def build(self) -> "CnnModule":
        """Torch module with torch's initial weights and tensors named as in the authors' files."""
        from he2her2.models.encoders.cnn_module import build_cnn  # noqa: PLC0415  loads torch

        return build_cnn(self)

    def exported(self, module: "nn.Module") -> "CnnModule":
        """Module of the ONNX file: the same numbers, with batch norms folded, in the order that ONNX Runtime fuses."""
        from he2her2.models.encoders.cnn_module import CnnModule, exported_cnn  # noqa: PLC0415  loads torch

        assert isinstance(module, CnnModule)
        return exported_cnn(self, module)


IHC_CLASSES = tuple(map(str, IhcScore))
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
DAB_TILE_CNN = replace(  # the same layers, for IHC: it sees brown and blue apart; 132 340 weights
    STRIDED_TILE_CNN,
    name="dab-tile-cnn",
    input=replace(STRIDED_TILE_CNN.input, colour="haematoxylin-dab"),
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


def _bottleneck(n_in: int, n_out: int, kernel: int, stride: int, widening: int = 6) -> tuple[Conv, ...]:
    """Inverted bottleneck (Sandler et al., 2018): widen, filter each channel, narrow; a shortcut if the shape stays."""
    hidden = n_in * widening
    widen = () if widening == 1 else (Conv(hidden, kernel=1, norm=True, pool="none"),)
    each = Conv(hidden, kernel, padding=kernel // 2, norm=True, stride=stride, pool="none", groups=hidden)
    back = len(widen) + 2 if stride == 1 and n_in == n_out else 0
    return (*widen, each, Conv(n_out, kernel=1, norm=True, pool="none", relu=False, shortcut=back))


LITE0_TUMOUR_CNN = CnnSpec(  # EfficientNet-Lite0 (Tan and Le, 2019) up to a sixteenth of the side; 709 074 weights
    name="lite0-tumour-cnn",
    role="tumour_cnn",
    input=InputSpec(mpp=2.0, side_px=64, network_px=64, colour="rgb"),  # 128 µm wide
    convs=(
        Conv(32, kernel=3, padding=1, norm=True, stride=2, pool="none"),  # 64 -> 32
        *_bottleneck(32, 16, kernel=3, stride=1, widening=1),
        *_bottleneck(16, 24, kernel=3, stride=2),  # 32 -> 16
        *_bottleneck(24, 24, kernel=3, stride=1),
        *_bottleneck(24, 40, kernel=5, stride=2),  # 16 -> 8
        *_bottleneck(40, 40, kernel=5, stride=1),
        *_bottleneck(40, 80, kernel=3, stride=2),  # 8 -> 4
        *_bottleneck(80, 80, kernel=3, stride=1),
        *_bottleneck(80, 80, kernel=3, stride=1),
        *_bottleneck(80, 112, kernel=5, stride=1),
        *_bottleneck(112, 112, kernel=5, stride=1),
        *_bottleneck(112, 112, kernel=5, stride=1),
    ),
    global_pool=True,  # 4 x 4 -> 1
    hidden=(),
    classes=TUMOUR_CLASSES,
)
CNNS: Mapping[str, CnnSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            COMPACT_TUMOUR_CNN,
            LITE0_TUMOUR_CNN,
            PAPER_TUMOUR_CNN,
            replace(  # the paper leaves this network to the released code, whose input has 8 bits
                PAPER_TUMOUR_CNN,
                name="released-tumour-cnn",
                input=replace(PAPER_TUMOUR_CNN.input, colour="yuv-uint8"),
            ),
            STRIDED_TILE_CNN,
            DAB_TILE_CNN,
            PAPER_TILE_CNN,
            replace(
                PAPER_TILE_CNN,
                name="released-tile-cnn",
                input=replace(PAPER_TILE_CNN.input, colour="lightness-uint8"),
            ),
        )
    }
)
"""Every CNN that the settings can name."""
