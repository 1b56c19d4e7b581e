"""Patches as a network sees them: windows of its side, what each network learns from, and the probability of each."""

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from he2her2.training.classifier import Batch, CnnClassifier, LabelledTiles
from he2her2.training.cross_validation import CnnTraining, TileSets
from he2her2.training.sampling import Draw, Order, balanced
from he2her2.training.tumour.data import NEVER_TRAINED
from he2her2.training.tumour.patch_sets import INVASIVE, Patches

MIDDLE = (0.0, 0.0)
"""Shift of the one window in the middle of each patch."""

_X_Y = slice(1, 3)  # the random numbers of a crop, as in `augmentation`
_COVERED = 1 / 16  # of the window's side: a patch with less slack is seen in one window


class PatchDataset(LabelledTiles):
    """Patches in memory, each seen through a window of the network's side.

    Attributes:
        patches: All of them.
        side: The network's side in px.
        shift: (2,) of all windows, in parts of the slack; none draws each anew, for training.
        targets: (n, 2) float32 share of each class to be learned in place of the label; none is the label.
    """

    def __init__(
        self,
        patches: Patches,
        side: int,
        shift: tuple[float, float] | None = None,
        targets: NDArray[np.float32] | None = None,
    ) -> None:
        self.patches = patches
        self.side = side
        self.shift = shift
        self.targets = targets

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, draw: Draw) -> Batch:
        """Take a batch."""
        chosen = self.patches.take(draw.index)
        shift = 2 * draw.uniform[:, _X_Y].astype(np.float64) - 1 if self.shift is None else np.array(self.shift)
        pixels = torch.from_numpy(chosen.windows(self.side, shift))
        targets = None if self.targets is None else torch.from_numpy(self.targets[draw.index])
        return Batch(pixels, torch.from_numpy(chosen.labels), torch.from_numpy(draw.uniform), targets)


def balanced_order(tiles: LabelledTiles) -> Order:
    """Order of the setting `balance`."""
    assert isinstance(tiles, PatchDataset)
    return balanced(tiles.patches.sources, tiles.patches.labels)


def fold_tiles(
    patches: Patches, fold: NDArray[np.int64], k: int, side: int, targets: NDArray[np.float32] | None = None
) -> TileSets:
    """Tiles of the k-th network of a cross-validation; `targets` as of `PatchDataset`, one for each patch."""
    val = PatchDataset(patches.take(fold == k), side, MIDDLE)
    return TileSets(training_tiles(patches, (fold != k) & (fold != NEVER_TRAINED), side, targets), val, val)


def training_tiles(
    patches: Patches, chosen: NDArray[np.bool_], side: int, targets: NDArray[np.float32] | None = None
) -> PatchDataset:
    """Tiles to learn from; `targets` as of `PatchDataset`, one for each of all patches."""
    return PatchDataset(patches.take(chosen), side, targets=None if targets is None else targets[chosen])


def judged_by(fold: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Patches that the k-th network evaluates: its fold; the first one also those that train no network: (n,)."""
    return np.asarray((fold == k) | ((fold == NEVER_TRAINED) & (k == 0)))


def probability_of(training: CnnTraining, module: CnnClassifier, patches: Patches) -> NDArray[np.float64]:
    """Probability of invasive tumour of each patch, the mean over windows that cover it: (n,)."""
    side = training.spec.input.network_px
    middle = invasive_probability(training.logits(module, PatchDataset(patches, side, MIDDLE)))
    wide = patches.slack >= side * _COVERED
    if not wide.any():
        return middle
    found = [
        invasive_probability(training.logits(module, PatchDataset(patches.take(wide), side, shift)))
        for shift in product((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0))
    ]
    middle[wide] = np.mean(found, axis=0)
    return middle


def invasive_probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of invasive tumour from (n, 2) logits: (n,)."""
    found: NDArray[np.float64] = torch.from_numpy(logits).double().softmax(dim=1)[:, INVASIVE].numpy()
    return found
