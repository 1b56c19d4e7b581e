"""A model soup: a network whose weights are the mean of several trainings (Wortsman et al., 2022).

Trainings that begin at the same pre-trained weights and differ in order and augmentation end in one valley of the loss,
and their mean lies deeper in it than each of them. It costs nothing at prediction. The outputs of a mean network's
layers spread less than those of its parts, so its batch norms are measured anew on one epoch of training tiles.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import update_bn

from he2her2.models.torch_modules import put_tensors, tensors_of
from he2her2.training.classifier import CnnClassifier
from he2her2.training.cross_validation import CnnTraining, TileSets
from he2her2.training.fit import save_checkpoint
from he2her2.training.run import is_first_process
from he2her2.training.settings import LARGEST_SEED, TumourTraining

__all__ = ["learn_soup", "parts_in"]


def parts_in(folder: Path, n: int) -> list[Path]:
    """Folders of the n trainings of a network; its own folder where there is one."""
    return [folder / "soup" / str(k + 1) for k in range(n)] if n > 1 else [folder]


def learn_soup(training: CnnTraining, tiles: TileSets, folder: Path) -> CnnClassifier:
    """Train a network `settings.soup` times, from one seed after the other, and take the mean.

    Args:
        training: Of a tumour network.
        tiles: See `CnnTraining.learn`.
        folder: Takes checkpoints and logs of all trainings, and the mean's checkpoint.
    """
    settings = training.settings
    assert isinstance(settings, TumourTraining)
    if settings.soup == 1:
        return training.learn(tiles, folder)
    found = list[dict[str, NDArray[np.float32]]]()
    for k, own in enumerate(parts_in(folder, settings.soup)):
        training.execution.say(f"training {k + 1} of {settings.soup}")
        seeded = replace(training, settings=replace(settings, seed=(settings.seed + k) % LARGEST_SEED))
        module = seeded.learn(tiles, own)
        found.append(tensors_of(module.cnn))
    put_tensors(module.cnn, {name: _mean([part[name] for part in found]) for name in found[0]})
    module.to("cpu")
    with torch.inference_mode():
        update_bn((module.augmented(batch) for batch in training.batches(tiles.train)), module.cnn)
    if is_first_process():
        save_checkpoint(module, folder / "checkpoints" / "last.ckpt")
    return module


def _mean(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    mean: NDArray[np.float64] = np.mean(arrays, axis=0, dtype=np.float64)
    return mean.astype(np.float32)
