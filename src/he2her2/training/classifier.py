"""A CNN that learns the classes of tiles: invasive tumour or not, or IHC scores."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.data import Dataset

from he2her2.errors import He2Her2Error
from he2her2.models import CnnSpec
from he2her2.models.torch_engine import prepare_on_device
from he2her2.models.torch_modules import initial_weights, put_tensors
from he2her2.training.augmentation import augmented_channels
from he2her2.training.sampling import Draw
from he2her2.training.settings import Schedule, TileTraining, TumourTraining

_WARM_UP = 0.1  # share of the steps in which the learning rate rises
_AVERAGE_DELAY = 10  # after n steps the average holds about n / 10 of them, until its decay is reached


class Batch(NamedTuple):
    """Some tiles with their classes.

    Attributes:
        pixels: (n, s, s, 3) uint8, at the network's side.
        labels: (n,) int64 class of each.
        uniform: (n, 30) float32 random numbers in [0, 1) for augmentation.
        targets: (n, k) float32 share of each class to be learned in place of the label; none is the label.
    """

    pixels: Tensor
    labels: Tensor
    uniform: Tensor
    targets: Tensor | None = None


class LabelledTiles(Dataset[Batch], ABC):
    """Tiles with classes, which give a `Batch` for a `sampling.Draw`."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of tiles."""

    @abstractmethod
    def __getitem__(self, draw: Draw) -> Batch:
        """Read a batch."""


class TellingTiles(Dataset[Batch | He2Her2Error]):
    """Tiles that give an error in place of a batch: of one that a reading process raises torch makes a traceback.

    `CnnClassifier` raises it.
    """

    def __init__(self, tiles: LabelledTiles) -> None:
        self._tiles = tiles

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self._tiles)

    def __getitem__(self, draw: Draw) -> Batch | He2Her2Error:
        """Read a batch, if it can be read."""
        try:
            return self._tiles[draw]
        except He2Her2Error as error:
            return error


class CnnClassifier(LightningModule):
    """Cross-entropy, Adam, accuracy; `val_accuracy` is the mean of the classes' accuracies (balanced accuracy).

    Args:
        spec: The network.
        settings: Of the training.
        weights: Initial weights; none draws them from the settings' seed.
        threshold: Probability from which the second of two classes is predicted; none predicts the more probable one.
        average: Decay of the moving average (Polyak's) of the weights, which is validated and kept; the decay is lower
            at first. 0 keeps the weights themselves.

    Attributes:
        cnn: The network that is validated and kept.
        learner: The network that the optimizer changes; `cnn` itself where nothing is averaged.
    """

    confusion: Tensor

    def __init__(
        self,
        spec: CnnSpec,
        settings: TumourTraining | TileTraining,
        weights: Mapping[str, NDArray[np.float32]] | None = None,
        threshold: float | None = None,
        average: float = 0.0,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.settings = settings
        self.threshold = threshold
        self.cnn = spec.build()
        put_tensors(self.cnn, weights if weights is not None else initial_weights(spec, settings.seed))
        convert_conv2d_weight_memory_format(self.cnn, torch.channels_last)
        self.average = average
        if average:
            self._learner = deepcopy(self.cnn)
            self.cnn.requires_grad_(requires_grad=False)
        n_classes = len(spec.classes)
        self.register_buffer("confusion", torch.zeros(n_classes, n_classes, dtype=torch.int64), persistent=False)

    @property
    def learner(self) -> nn.Module:
        """The network that the optimizer changes."""
        return self._learner if self.average else self.cnn

    def on_before_batch_transfer(self, batch: Batch | He2Her2Error, dataloader_idx: int) -> Batch:  # noqa: ARG002  # Lightning's
        """Raise an error that came in place of a batch, see `TellingTiles`."""
        if isinstance(batch, He2Her2Error):
            raise batch
        return batch

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (n, s, s, 3) uint8 pixels to (n, k) logits."""
        logits: Tensor = self.cnn(prepare_on_device(pixels, self.spec.input.colour))
        return logits

    def augmented(self, batch: Batch) -> Tensor:
        """Input of the network (n, c, h, w) from a batch, each tile augmented by its random numbers."""
        settings = self.settings
        colour = self.spec.input.colour
        return augmented_channels(batch.pixels, batch.uniform, settings.augment, colour, settings.crop_px)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of a batch, its tiles augmented."""
        tiles = self.augmented(batch)
        loss = functional.cross_entropy(self.learner(tiles), batch.labels if batch.targets is None else batch.targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(tiles), sync_dist=True)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, *_: object) -> None:
        """Update the average, running statistics of batch norm included."""
        if not self.average:
            return
        share = share_of_newest(self.global_step, self.average)
        pairs = zip(self.cnn.state_dict().values(), self.learner.state_dict().values(), strict=True)
        for mean, now in pairs:
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)

    def on_validation_epoch_start(self) -> None:
        """Reset the confusion matrix."""
        self.confusion.zero_()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Add a batch to the confusion matrix."""
        logits = self(batch.pixels)
        k = logits.shape[1]
        cells = batch.labels * k + self._decide(logits)
        self.confusion += torch.bincount(cells, minlength=k * k).view(k, k)
        loss = functional.cross_entropy(logits, batch.labels)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(logits))

    def _decide(self, logits: Tensor) -> Tensor:
        """Predicted class of each of (n, k) logits: (n,)."""
        if self.threshold is None:
            return logits.argmax(dim=1)
        return (logits.softmax(dim=1)[:, 1] >= self.threshold).long()

    def on_validation_epoch_end(self) -> None:
        """Log the balanced accuracy over the classes that occur."""
        counts = self.confusion.sum(dim=1)
        there = counts > 0
        accuracy = (self.confusion.diagonal()[there] / counts[there]).mean()
        self.log("val_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:  # noqa: ANN401  # Lightning's union of many
        """Adam (AdamW where weights decay), its rate set before every step."""
        settings = self.settings
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=settings.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)
        by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of(settings.schedule, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}


def share_of_newest(step: int, average: float) -> float:
    """Share of the newest weights in their moving average after step 1, 2, ...; it falls to 1 - `average`."""
    return 1 - min(average, (1 + step) / (_AVERAGE_DELAY + step))


def rate_of(schedule: Schedule, total: int) -> Callable[[int], float]:
    """Learning rate as a share of its highest value, for each of `total` steps."""
    if schedule == "constant":
        return lambda _: 1.0
    warm = max(1, round(_WARM_UP * total))

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm + 1) / (total - warm + 1))))

    return share
