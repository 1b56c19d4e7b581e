"""Patches as a network sees them: windows of its side, what each network learns from, and the probability of each."""

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from he2her2.training.classifier import Batch, CnnClassifier, LabelledTiles
from he2her2.training.cross_validation import CnnTraining, TileSets
from he2her2.training.sampling import Draw, Order, balanced
from he2her2.training.tumour.data import NEVER_TRAINED
from he2her2.training.tumour.patch_sets import INVASIVE, Patches

MIDDLE = (0.0, 0.0)
"""Shift of the one window in the middle of each patch."""

ALL_OVER = tuple(product((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0)))
"""Shifts of the windows that cover a wide patch."""

_X_Y = slice(1, 3)  # the random numbers of a crop, as in `augmentation`

N_TURNS = 8
"""Flips and quarter turns of a square."""

HALF_TURN = 2
"""The turn by 180°."""

COVERED = 1 / 16
"""Of the window's side: a patch with less slack is seen in one window."""


class PatchDataset(LabelledTiles):
    """Patches in memory, each seen through a window of the network's side.

    Attributes:
        patches: All of them.
        side: The network's side in px.
        shift: (2,) of all windows, in parts of the slack; none draws each anew, for training.
        turn: One of the eight flips and quarter turns, of all windows; 0 leaves them as they are.
        targets: (n, 2) float32 share of each class to be learned in place of the label; none is the label.
    """

    def __init__(
        self,
        patches: Patches,
        side: int,
        shift: tuple[float, float] | None = None,
        targets: NDArray[np.float32] | None = None,
        turn: int = 0,
    ) -> None:
        self.patches = patches
        self.side = side
        self.shift = shift
        self.turn = turn
        self.targets = targets

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, draw: Draw) -> Batch:
        """Take a batch."""
        chosen = self.patches.take(draw.index)
        shift = 2 * draw.uniform[:, _X_Y].astype(np.float64) - 1 if self.shift is None else np.array(self.shift)
        pixels = turned(torch.from_numpy(chosen.windows(self.side, shift)), self.turn)
        targets = None if self.targets is None else torch.from_numpy(self.targets[draw.index])
        return Batch(pixels, torch.from_numpy(chosen.labels), torch.from_numpy(draw.uniform), targets)


def turned(pixels: Tensor, turn: int) -> Tensor:
    """Squares (n, s, s, 3) in one of their eight flips and quarter turns."""
    pixels = pixels.rot90(turn % 4, (1, 2))
    return pixels.flip(2) if turn >= N_TURNS // 2 else pixels


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


def probability_of(
    training: CnnTraining,
    module: CnnClassifier,
    patches: Patches,
    *,
    turned: bool = False,
    half_turn: bool = False,
) -> NDArray[np.float64]:
    """Probability of invasive tumour of each patch, the mean over windows that cover it: (n,).

    Args:
        training: Of the network.
        module: The network.
        patches: All that are judged.
        turned: Look at a patch's one window in all eight flips and quarter turns, at each of several in another one:
            dearer, and better.
        half_turn: See each window from both sides, as prediction does by `adaptive.half_turn`.
    """
    side = training.spec.input.network_px
    wide = patches.slack >= side * COVERED
    found = np.empty(len(patches))
    for chosen, shifts in ((~wide, [MIDDLE] * (N_TURNS if turned else 1)), (wide, ALL_OVER)):
        if not chosen.any():
            continue
        seen = patches.take(chosen)
        views = [
            PatchDataset(seen, side, shift, turn=number % N_TURNS if turned else 0)
            for number, shift in enumerate(shifts)
        ]
        if half_turn:
            views += [PatchDataset(seen, side, view.shift, turn=view.turn ^ HALF_TURN) for view in views]
        logits = np.stack([training.logits(module, view) for view in views])
        if half_turn:
            logits = logits.reshape(2, len(shifts), *logits.shape[1:]).mean(axis=0)
        found[chosen] = np.mean([invasive_probability(one) for one in logits], axis=0)
    return found


def invasive_probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of invasive tumour from (n, 2) logits: (n,)."""
    found: NDArray[np.float64] = torch.from_numpy(logits).double().softmax(dim=1)[:, INVASIVE].numpy()
    return found
