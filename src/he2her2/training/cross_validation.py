"""Training of a CNN on labelled tiles: of one network, or of one for each fold of a cross-validation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from he2her2.errors import ConfigError
from he2her2.models import CnnRole, CnnSpec, cnn_named
from he2her2.training.classifier import Batch, CnnClassifier, LabelledTiles, TellingTiles
from he2her2.training.fit import fit, load_checkpoint
from he2her2.training.run import Execution
from he2her2.training.sampling import EpochSampler, Order, in_sequence, shuffled
from he2her2.training.settings import Keep, TileTraining, TumourTraining


@dataclass(frozen=True, slots=True, eq=False)
class TileSets:
    """Tiles of one network's training; no patient is in both `train` and another set.

    Attributes:
        train: Tiles that the weights are fitted to.
        val: Tiles that are validated on after every epoch; none keeps the last epoch.
        judged: Tiles that the trained network is evaluated on.
    """

    train: LabelledTiles
    val: LabelledTiles | None = None
    judged: LabelledTiles | None = None

    @property
    def chooses(self) -> bool:
        """True where validation picks the epoch: never by the tiles that a fold is evaluated on."""
        return self.val is not None and self.val is not self.judged


@dataclass(frozen=True, slots=True, eq=False)
class CnnTraining:
    """A CNN and its training.

    Attributes:
        spec: The network.
        settings: Of the training.
        execution: Hardware and messages.
        weights: Initial weights; none draws them from the settings' seed.
        threshold: See `classifier.CnnClassifier`.
        average: See `classifier.CnnClassifier`.
        keep: Rule that picks one of equally good epochs.
        order: Order of an epoch's tiles; none is every tile once, in random order.
    """

    spec: CnnSpec
    settings: TumourTraining | TileTraining
    execution: Execution
    weights: Mapping[str, NDArray[np.float32]] | None = None
    threshold: float | None = None
    average: float = 0.0
    keep: Keep = "lowest-loss"
    order: Callable[[LabelledTiles], Order] | None = None

    def learn(self, tiles: TileSets, folder: Path) -> CnnClassifier:
        """Train one network; it comes back with the weights of the best epoch, or of the last one without validation.

        Args:
            tiles: Training and validation tiles.
            folder: Takes checkpoints and logs.
        """
        settings, workers = self.settings, self.execution.hardware.workers
        module = CnnClassifier(self.spec, settings, self.weights, self.threshold, self.average)
        val = None
        if tiles.val is not None:
            val = self._loader(tiles.val, in_sequence(len(tiles.val)), share=False, workers=workers)
        fitted = fit(
            module,
            self._loader(tiles.train, self._order(tiles.train), workers=workers),
            val,
            folder,
            self.execution,
            epochs=settings.epochs,
            seed=settings.seed,
            keep=self.keep,
        )
        load_checkpoint(module, fitted.best if tiles.chooses else fitted.last)
        return module

    def batches(self, tiles: LabelledTiles) -> Iterator[Batch]:
        """Yield the batches of the first epoch, all of them on every device."""
        yield from self._loader(tiles, self._order(tiles), share=False)

    def logits(self, module: CnnClassifier, tiles: LabelledTiles) -> NDArray[np.float32]:
        """Logits of a trained network, on the CPU: (n, k)."""
        module.eval().to("cpu")
        with torch.inference_mode():
            batches = [module(batch.pixels) for batch in self._loader(tiles, in_sequence(len(tiles)), share=False)]
        found: NDArray[np.float32] = torch.cat(batches).numpy()
        return found

    def cross_validate(
        self, folds: Sequence[Callable[[], TileSets]], everybody: Callable[[], TileSets], out: Path
    ) -> tuple[CnnClassifier, list[NDArray[np.float32]]]:
        """Train one network for each fold, and the one that is kept on all patients.

        Args:
            folds: Draw the tiles of each fold.
            everybody: Draws the tiles of the last network.
            out: Folder of the run.

        Returns:
            The last network, and for each fold the (n, k) logits of the tiles that its network is evaluated on.
        """
        found = []
        for k, draw in enumerate(folds, start=1):
            self.execution.say(f"fold {k} of {len(folds)}")
            tiles = draw()
            assert tiles.judged is not None
            found.append(self.logits(self.learn(tiles, out / "folds" / str(k)), tiles.judged))
        self.execution.say("all patients")
        return self.learn(everybody(), out), found

    def _order(self, tiles: LabelledTiles) -> Order:
        return self.order(tiles) if self.order else shuffled(len(tiles))

    def _loader(self, tiles: LabelledTiles, order: Order, *, share: bool = True, workers: int = 0) -> DataLoader[Batch]:
        sampler = EpochSampler(order, self.settings.batch_size, self.settings.seed, share=share)
        read: Dataset[Any] = TellingTiles(tiles) if workers else tiles
        return DataLoader(read, batch_size=None, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)


def trainable_cnn(name: str, role: CnnRole, crop_px: int | None, folds: int) -> CnnSpec:
    """The CNN of a name, if it can be trained with such crops and folds.

    Raises:
        ConfigError: There is none of that name, or it cannot be trained so.
    """
    spec = cnn_named(name, role)
    side = spec.input.network_px
    if crop_px is not None and crop_px != side:
        _check_crop(spec, crop_px)
    if folds == 1:
        raise ConfigError("--folds 1: one fold leaves nobody to train on; use 2 or more, or 0 for none")
    return spec


def _check_crop(spec: CnnSpec, crop_px: int) -> None:
    side = spec.input.network_px
    if not spec.global_pool or spec.input.side_px != side:
        raise ConfigError(f"training.crop_px: a {spec.name} takes {side} px only; use training.crop_px={side}")
    try:
        _ = replace(spec, input=replace(spec.input, network_px=crop_px)).stage_sides
    except ValueError:
        raise ConfigError(f"training.crop_px: {crop_px} px are too few for a {spec.name}; use 64 or more") from None
    if crop_px > side:
        raise ConfigError(f"training.crop_px: {crop_px} px are more than the {side} px of a tile")
