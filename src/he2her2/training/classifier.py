"""A CNN that learns the classes of tiles: invasive tumour or not, or IHC scores. The same training serves both."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from he2her2.models.cnn import Cnn, build_cnn
from he2her2.models.initial import initial_weights
from he2her2.models.tensors import put_tensors
from he2her2.models.torch_engine import prepare_on_device
from he2her2.models.zoo import CnnSpec
from he2her2.training.augmentation import varied_channels
from he2her2.training.settings import Schedule, TileTraining, TumourTraining

WARM_UP = 0.1
_FOLLOWS = 10  # after n steps the average holds about n / 10 of them, until its decay is reached


class Batch(NamedTuple):
    """Some tiles with their classes.

    Attributes:
        pixels: (n, s, s, 3) uint8, at the network's side.
        labels: (n,) int64 class of each.
        chance: (n, 8) float32, what augmentation makes of each.
    """

    pixels: Tensor
    labels: Tensor
    chance: Tensor


class CnnClassifier(LightningModule):
    """Cross-entropy, Adam, accuracy; `val_accuracy` is the mean of the classes' accuracies (balanced accuracy).

    Args:
        spec: The network.
        settings: How it is trained.
        start: Weights to start from; none draws them from the settings' seed.
        threshold: Of two classes, the second is decided for from this probability on; none: the more probable one.
        average: Decay of the moving average (Polyak's) of the weights that learn, which validates and is kept; at first
            it forgets faster. 0 keeps the weights that learn.

    Attributes:
        cnn: The network that validates and is kept.
        learner: The network that the steps move; `cnn` itself where nothing is averaged.
    """

    confusion: Tensor

    def __init__(
        self,
        spec: CnnSpec,
        settings: TumourTraining | TileTraining,
        start: Mapping[str, NDArray[np.float32]] | None = None,
        threshold: float | None = None,
        average: float = 0.0,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.settings = settings
        self.threshold = threshold
        self.cnn = build_cnn(spec)
        put_tensors(self.cnn, start if start is not None else initial_weights(spec, settings.seed))
        convert_conv2d_weight_memory_format(self.cnn, torch.channels_last)
        self.average = average
        if average:
            self._learner = deepcopy(self.cnn)
            self.cnn.requires_grad_(requires_grad=False)
        n_classes = len(spec.classes)
        self.register_buffer("confusion", torch.zeros(n_classes, n_classes, dtype=torch.int64), persistent=False)

    @property
    def learner(self) -> Cnn:
        """The network that the steps move."""
        return self._learner if self.average else self.cnn

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (n, s, s, 3) uint8 pixels to (n, k) logits."""
        logits: Tensor = self.cnn(prepare_on_device(pixels, self.spec.input.colour))
        return logits

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of a batch, each tile varied by its chance."""
        settings = self.settings
        colour = self.spec.input.colour
        tiles = varied_channels(batch.pixels, batch.chance, settings.augment, colour, settings.crop_px)
        loss = functional.cross_entropy(self.learner(tiles), batch.labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(tiles), sync_dist=True)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, *_: object) -> None:
        """Let the average follow, running statistics of batch norm included."""
        if not self.average:
            return
        share = 1 - min(self.average, (1 + self.global_step) / (_FOLLOWS + self.global_step))
        pairs = zip(self.cnn.state_dict().values(), self.learner.state_dict().values(), strict=True)
        for mean, now in pairs:
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self.confusion.zero_()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count a batch's decisions."""
        logits = self(batch.pixels)
        k = logits.shape[1]
        cells = batch.labels * k + self._decide(logits)
        self.confusion += torch.bincount(cells, minlength=k * k).view(k, k)
        loss = functional.cross_entropy(logits, batch.labels)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(logits))

    def _decide(self, logits: Tensor) -> Tensor:
        """The class of each of (n, k) logits: (n,)."""
        if self.threshold is None:
            return logits.argmax(dim=1)
        return (logits.softmax(dim=1)[:, 1] >= self.threshold).long()

    def on_validation_epoch_end(self) -> None:
        """Log the mean of the classes' accuracies, of the classes that occur."""
        counts = self.confusion.sum(dim=1)
        there = counts > 0
        accuracy = (self.confusion.diagonal()[there] / counts[there]).mean()
        self.log("val_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:  # noqa: ANN401  # Lightning's union of many
        """Adam (AdamW where weights decay), its rate set before every step."""
        settings = self.settings
        return adam(self, settings.learning_rate, settings.weight_decay, settings.schedule)


def adam(module: LightningModule, learning_rate: float, weight_decay: float, schedule: Schedule) -> Any:  # noqa: ANN401
    """Adam (AdamW where weights decay) over all that can be trained, for `configure_optimizers`."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay)
    total = int(module.trainer.estimated_stepping_batches)
    by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of(schedule, total))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}


def rate_of(schedule: Schedule, total: int) -> Callable[[int], float]:
    """The learning rate's share of its highest value, for each of `total` steps."""
    if schedule == "constant":
        return lambda _: 1.0
    warm = max(1, round(WARM_UP * total))

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm + 1) / (total - warm + 1))))

    return share
