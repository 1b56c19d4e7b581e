"""The CNNs in torch, for training and for GPUs: any `CnnSpec` of the zoo, from prepared tiles to logits."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from he2her2.models.zoo import NORM_EPSILON, CnnSpec, Conv, dense_widths


class Cnn(nn.Module):
    """Stages of convolution, then a mean over places or flattening, then fully connected layers with ReLU between.

    Its parameters are named as in the authors' files: `conv_layers.i`, `fc_layers.i`; batch norms are `norm_layers.i`.

    Args:
        conv_layers: Of each stage.
        norm_layers: Of each stage: batch norm, or identity for none.
        pools: Of each stage: ReLU and pooling, in the order that is right for the kind of pooling.
        squeeze: From the last stage's (n, c, h, w) to (n, d).
        fc_layers: From (n, d) to (n, k).
    """

    def __init__(
        self,
        conv_layers: Sequence[nn.Conv2d],
        norm_layers: Sequence[nn.Module],
        pools: Sequence[nn.Module],
        squeeze: nn.Module,
        fc_layers: Sequence[nn.Linear],
    ) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(conv_layers)
        self.norm_layers = nn.ModuleList(norm_layers)
        self.pools = nn.ModuleList(pools)
        self.squeeze = squeeze
        self.fc_layers = nn.ModuleList(fc_layers)

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (n, c, h, w) tiles to (n, k) logits."""
        return self.classified(self.features(tiles))

    def features(self, pictures: Tensor) -> Tensor:
        """Map (n, c, h, w) tiles, or larger pictures, to the (n, d, h', w') output of the last stage."""
        features = pictures
        for conv, norm, pool in zip(self.conv_layers, self.norm_layers, self.pools, strict=True):
            features = pool(norm(conv(features)))  # (n, filters, h / 2, w / 2)
        return features

    def classified(self, features: Tensor) -> Tensor:
        """Map the (n, d, h', w') features of tiles to (n, k) logits."""
        features = self.squeeze(features)  # (n, d)
        for layer in self.fc_layers[:-1]:
            features = layer(features).relu()  # (n, hidden)
        logits: Tensor = self.fc_layers[-1](features)  # (n, k)
        return logits


def build_cnn(spec: CnnSpec) -> Cnn:
    """The CNN of a spec, with torch's initial weights."""
    inputs = (spec.input.n_channels, *(conv.channels for conv in spec.convs))
    widths = dense_widths(spec)
    return Cnn(
        [
            nn.Conv2d(n_in, conv.channels, conv.kernel, conv.stride, conv.padding)
            for n_in, conv in zip(inputs, spec.convs, strict=False)
        ],
        [nn.BatchNorm2d(conv.channels, NORM_EPSILON) if conv.norm else nn.Identity() for conv in spec.convs],
        [_pool(conv) for conv in spec.convs],
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if spec.global_pool else nn.Flatten(),
        [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)],
    )


def _pool(conv: Conv) -> nn.Module:
    """ReLU and pooling; max-pooling comes first: the same numbers from a quarter of the work."""
    if conv.pool == "max":
        return nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
    if conv.pool == "l2":
        return nn.Sequential(nn.ReLU(), nn.LPPool2d(2, kernel_size=2, stride=2))
    return nn.ReLU()
