"""A training of a second: a tiny network, and patches that differ in brightness."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from he2her2.config import Config
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, Conv
from he2her2.training.classifier import Batch, CnnClassifier
from he2her2.training.fit import fit
from he2her2.training.run import Execution
from he2her2.training.sampling import EpochSampler, alternating, in_sequence
from he2her2.training.settings import Augmentation, Hardware, TumourTraining

TINY = replace(
    COMPACT_TUMOUR_CNN,
    name=Config().networks.tumour_cnn,
    convs=(Conv(4, kernel=3, padding=1, norm=True), Conv(4, kernel=3, padding=1, norm=True)),
)
SETTINGS = TumourTraining(
    epochs=4, batch_size=8, learning_rate=1e-2, average=0.05, augment=Augmentation(dihedral=True, stain=0.1)
)
ON_CPU = Hardware(accelerator="cpu", devices="1")


def bright_and_dark(n: int = 24, side: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, side, side, 3) pixels and (n,) labels: 1 is dark."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(120, 200, (n, side, side, 3), np.uint8) - (60 * labels[:, None, None, None]).astype(np.uint8)
    return pixels, labels


class Tiles(Dataset[Batch]):
    """The patches above; `before` is called with every batch's number, counted from the first ever read."""

    def __init__(self, before=lambda _: None):
        self.pixels, self.labels = bright_and_dark()
        self.before = before
        self.number = 0

    def __getitem__(self, draw):
        self.before(self.number)
        self.number += 1
        index = draw.index
        return Batch(
            torch.from_numpy(self.pixels[index]), torch.from_numpy(self.labels[index]), torch.from_numpy(draw.uniform)
        )


def train_tiny(folder: Path, *, settings=SETTINGS, **options):
    """Train the tiny network; gives it and what is left of the training."""
    module = CnnClassifier(TINY, settings, average=settings.average)
    return module, fit_tiny(module, folder, **options)


def fit_tiny(module: CnnClassifier, folder: Path, *, before=lambda _: None, hardware=ON_CPU, **execution):
    """Train a module on the patches above."""
    data, settings = Tiles(before), module.settings
    train = EpochSampler(alternating(data.labels), settings.batch_size, settings.seed)
    val = EpochSampler(in_sequence(24), settings.batch_size, settings.seed, share=False)
    return fit(
        module,
        DataLoader(data, batch_size=None, sampler=train),
        DataLoader(Tiles(), batch_size=None, sampler=val),
        folder,
        Execution(hardware, **execution),
        epochs=settings.epochs,
        seed=settings.seed,
    )
