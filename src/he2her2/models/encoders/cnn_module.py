"""Torch modules of the CNNs: one that is trained, and one whose layers stand as ONNX Runtime fuses them."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torch import Tensor, autograd, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from he2her2.models.encoders.cnn import CnnSpec, Conv

__all__ = ["CnnModule", "build_cnn", "exported_cnn"]


class CnnModule(nn.Module):
    """A CNN, called as a whole or in its two parts.

    Attributes:
        conv_layers: Convolution of each stage.
        norm_layers: Its batch norm, or identity.
        pools: Its ReLU and pooling.
        squeeze: Mean over all positions, or flattening.
        fc_layers: The fully connected part.
    """

    def __init__(
        self,
        convs: Iterable[nn.Module],
        norms: Iterable[nn.Module],
        pools: Iterable[nn.Module],
        shortcuts: Sequence[int],
        squeeze: nn.Module,
        dense: Iterable[nn.Module],
    ) -> None:
        super().__init__()
        self.conv_layers, self.norm_layers = nn.ModuleList(convs), nn.ModuleList(norms)
        self.pools, self.squeeze, self.fc_layers = nn.ModuleList(pools), squeeze, nn.ModuleList(dense)
        self._shortcuts = shortcuts

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (n, c, h, w) tiles to (n, k) logits."""
        return self.classified(self.features(tiles))

    def features(self, pictures: Tensor) -> Tensor:
        """Map (n, c, h, w) tiles, or larger pictures, to the (n, d, h', w') output of the last stage."""
        outputs = [pictures]
        stages = zip(self.conv_layers, self.norm_layers, self.pools, self._shortcuts, strict=True)
        for conv, norm, pool, back in stages:
            features = pool(norm(conv(outputs[-1])))  # (n, filters, h / 2, w / 2)
            outputs.append(features + outputs[-back] if back else features)
        return outputs[-1]

    def classified(self, features: Tensor) -> Tensor:
        """Map the (n, d, h', w') features of tiles to (n, k) logits."""
        features = self.squeeze(features)  # (n, d)
        for layer in self.fc_layers[:-1]:
            features = layer(features).relu()  # (n, hidden)
        logits: Tensor = self.fc_layers[-1](features)  # (n, k)
        return logits


def build_cnn(spec: "CnnSpec") -> CnnModule:
    """The module that is trained."""
    return CnnModule(
        [
            nn.Conv2d(n_in, conv.channels, conv.kernel, conv.stride, conv.padding, groups=conv.groups)
            for n_in, conv in zip(spec.widths, spec.convs, strict=False)
        ],
        [nn.BatchNorm2d(conv.channels) if conv.norm else nn.Identity() for conv in spec.convs],
        [_pool_and_relu(conv) for conv in spec.convs],
        [conv.shortcut for conv in spec.convs],
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if spec.global_pool else nn.Flatten(),
        [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(spec.dense_widths)],
    )


def exported_cnn(spec: "CnnSpec", cnn: CnnModule) -> CnnModule:
    """The module of the ONNX file: batch norms are folded into the convolutions, and ReLU comes before pooling."""
    convs = [
        fuse_conv_bn_eval(deepcopy(conv).double(), deepcopy(norm).double()).float()  # rounded once
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        else conv
        for conv, norm in zip(cnn.conv_layers, cnn.norm_layers, strict=True)
    ]
    norms, pools = [nn.Identity()] * len(convs), [_relu_and_pool(conv) for conv in spec.convs]
    shortcuts = [conv.shortcut for conv in spec.convs]
    return CnnModule(convs, norms, pools, shortcuts, cnn.squeeze, cnn.fc_layers).eval()


def _pool_and_relu(conv: "Conv") -> nn.Module:
    """ReLU and pooling for training; max-pooling comes first: the same numbers from a quarter of the work."""
    relu = nn.ReLU() if conv.relu else nn.Identity()
    if conv.pool == "max":
        return nn.Sequential(nn.MaxPool2d(2), relu)
    if conv.pool == "l2":
        return nn.Sequential(relu, nn.LPPool2d(2, kernel_size=2, stride=2))
    return relu


def _relu_and_pool(conv: "Conv") -> nn.Module:
    """ReLU and pooling for ONNX Runtime, which fuses a convolution with the ReLU after it."""
    relu = nn.ReLU() if conv.relu else nn.Identity()
    if conv.pool == "max":
        return nn.Sequential(relu, nn.MaxPool2d(2))
    if conv.pool == "l2":
        return nn.Sequential(relu, _L2Pool())
    return relu


class _L2Pool(nn.Module):
    """`nn.LPPool2d`, which torch exports as nine nodes, as the one node that it is."""

    def forward(self, maps: Tensor) -> Tensor:
        pooled: Tensor = _L2PoolNode.apply(maps)  # type: ignore[no-untyped-call]
        return pooled


class _L2PoolNode(autograd.Function):
    @staticmethod
    def forward(_: Any, maps: Tensor) -> Tensor:  # noqa: ANN401  torch's context
        return functional.lp_pool2d(maps, 2.0, kernel_size=2, stride=2)

    @staticmethod
    def symbolic(graph: Any, maps: Any) -> Any:  # noqa: ANN401  torch's graph
        return graph.op("LpPool", maps, kernel_shape_i=[2, 2], strides_i=[2, 2], p_i=2)
