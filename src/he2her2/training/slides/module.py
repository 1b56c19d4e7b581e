"""Lightning module that trains tile CNN and aggregator on slides with one status each (paper, 3.3 and 4.3)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from he2her2.config import Config, Runtime
from he2her2.errors import ConfigError, DamagedSlideError
from he2her2.geometry import Rgb, TileGrid
from he2her2.labels import Her2Status
from he2her2.method import Decision, decide_on, infer, pace
from he2her2.models import Aggregator, Bag, Card, Engine, RankedFeaturesSpec, RankingSettings, resize
from he2her2.models.aggregators.feature_modules import RankedFeatures
from he2her2.models.export import engine_of
from he2her2.models.onnx_engine import OnnxEngine, max_rows
from he2her2.models.torch_engine import ModuleEngine, prepare_on_device
from he2her2.models.torch_modules import RankingModule, batch_of, put_tensors, run_of
from he2her2.slides import Slide, TileBatch, map_tiles, stream_tiles
from he2her2.statistics import BinaryCounts, accuracy, auc, balanced_accuracy
from he2her2.training.augmentation import augmented_channels
from he2her2.training.classifier import rate_of
from he2her2.training.sampling import Draw
from he2her2.training.settings import Augmentation, SlideTraining
from he2her2.training.slides.backpropagation import (
    SlideGradient,
    aggregator_gradient,
    backpropagate_tiles,
    fill_missing_gradients,
    geometric_beta,
    relative_change,
    tiles_with_gradient,
)
from he2her2.training.slides.bags import LabelledSlide
from he2her2.training.slides.data import InitialNetworks


class SlideModule(LightningModule):
    """A step scores all tiles of the draw's slides, selects the best, and propagates the loss back through them.

    Batch norms keep their running statistics: a slide's tiles are no sample of all tiles. Where the CNN has not changed
    since a slide was scored, as under a frozen CNN or where a saturated soft-argmax passes no gradient, its logits are
    kept and not computed again.

    Args:
        networks: The networks and their initial weights.
        settings: Of the training.
        config: The method's settings; validation decides as prediction does.
        train: Training slides.
        val: Validation slides.
        kept: Logits of a training before this one, of the same slides on the same hardware.
    """

    def __init__(
        self,
        networks: InitialNetworks,
        settings: SlideTraining,
        config: Config,
        train: Sequence[LabelledSlide],
        val: Sequence[LabelledSlide],
        kept: "KeptLogits | None" = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.networks, self.settings, self.config = networks, settings, config
        self.cnn = networks.tile_spec.build()
        put_tensors(self.cnn, networks.tile_weights)
        convert_conv2d_weight_memory_format(self.cnn, torch.channels_last)
        self.cnn.requires_grad_(not settings.freeze_cnn)
        self.aggregator = networks.aggregator_spec.build()
        put_tensors(self.aggregator, networks.aggregator_weights)
        if not any(weight.requires_grad for weight in self.parameters()):
            rule = networks.aggregator_spec.name
            raise ConfigError(f"training.freeze_cnn: a frozen CNN with the {rule} aggregator leaves nothing to train")
        if isinstance(self.aggregator, RankedFeatures):
            self.aggregator.rule = settings.selection
        self._at_start = [weight.detach().clone() for weight in self.cnn.parameters()]
        self._aggregator_at_start = [weight.detach().clone() for weight in self.aggregator.parameters()]
        self._mismatches: list[tuple[float, float]] = []
        self._train_bags, self._val_bags = train, val
        self._kept = kept or KeptLogits()
        self._judged: list[tuple[int, Decision]] = []
        self.train()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002  # as torch calls it
        """Switch to training; the CNN's batch norms keep their running statistics."""
        super().train(mode)
        self.cnn.eval()
        return self

    @property
    def bags(self) -> tuple[LabelledSlide, ...]:
        """Training and validation slides."""
        return (*self._train_bags, *self._val_bags)

    @property
    def beta(self) -> float:
        """Sharpness of soft-argmax in this epoch's training; validation always uses that of prediction."""
        spec, start = self.networks.aggregator_spec, self.settings.beta_start
        end = spec.beta if isinstance(spec, RankedFeaturesSpec) else self.config.scoring.beta
        if start is None:
            return end
        return geometric_beta(start, end, self.current_epoch, self.settings.epochs)

    def transfer_batch_to_device(self, batch: Draw, device: torch.device, dataloader_idx: int) -> Draw:  # noqa: ARG002
        """Leave a draw, which names slides, where it is."""
        return batch

    def training_step(self, draw: Draw, _: int) -> None:
        """One step of Adam, from the summed gradients of the draw's slides."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        uniform = torch.from_numpy(draw.uniform)
        gradients = [self._learn(self._train_bags[i], row) for i, row in zip(draw.index, uniform, strict=True)]
        fill_missing_gradients(self)
        self._share_gradients()
        optimizer.step()
        schedule: Any = self.lr_schedulers()
        schedule.step()
        targets = [self._train_bags[i].target for i in draw.index]
        called = [found.positive >= self.config.positive_from for found in gradients]
        figures = {
            "train_loss": [found.loss for found in gradients],
            "train_accuracy": np.equal(called, targets),
            "gradient_share": [found.share for found in gradients],
            "gradient_at_scores": [found.at_scores for found in gradients],
            "gradient_at_logits": [found.at_logits for found in gradients],
        }
        means = {name: torch.tensor(np.mean(values), dtype=torch.float32) for name, values in figures.items()}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=len(gradients), sync_dist=True)

    def _learn(self, bag: LabelledSlide, uniform: Tensor) -> SlideGradient:
        """Add a slide's gradients."""
        logits = self._logits(bag, uniform)
        selection = self.config.selection
        ranking = RankingSettings(selection.top_fraction, self.beta, selection.spacing)
        selected = self.networks.aggregator_spec.select(logits, ranking)
        chosen = batch_of(Bag.of(bag.grid, logits).take(selected), self.device)
        found = aggregator_gradient(self.aggregator, chosen, bag.target, self.beta)
        if not np.isfinite(found.loss):
            raise ConfigError(f"{bag.row.slide_id}: the training diverged, its loss is {found.loss}; lower the rates")
        learning, gradient = tiles_with_gradient(selected, found.gradient)
        if len(learning) and not self.settings.freeze_cnn:
            grid = bag.grid.take(learning)
            with bag.open(self.config) as slide:
                batches = stream_tiles(slide, grid, **pace(self._runtime))
                backpropagate_tiles(lambda pixels: self._forward(pixels, uniform), batches, gradient)
        return found

    def on_train_epoch_start(self) -> None:
        """Let the aggregator's own soft-argmax follow the epoch's beta."""
        if isinstance(self.aggregator, RankedFeatures):
            self.aggregator.beta = self.beta

    def on_train_epoch_end(self) -> None:
        """Log the epoch's beta, and the relative change of both networks' weights since the beginning."""
        self.log("beta", self.beta)
        self.log("cnn_movement", relative_change(self._at_start, self.cnn.parameters()))
        self.log("aggregator_movement", relative_change(self._aggregator_at_start, self.aggregator.parameters()))

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's decisions; validation selects and scores as prediction does."""
        self._judged.clear()
        self._mismatches.clear()
        spec = self.networks.aggregator_spec
        if isinstance(self.aggregator, RankedFeatures) and isinstance(spec, RankedFeaturesSpec):
            self.aggregator.beta = spec.beta

    def validation_step(self, draw: Draw, _: int) -> None:
        """Decide on slides as prediction does."""
        for i in draw.index:
            bag = self._val_bags[i]
            decision = decide_on(
                bag.row.slide_id, bag.grid, self._logits(bag, None), self._deciding, self.config.positive_from
            )
            loss = functional.cross_entropy(self._of_slide(decision), torch.tensor([bag.target], device=self.device))
            self.log("val_loss", loss, batch_size=1)
            self._judged.append((bag.target, decision))
            if isinstance(self.aggregator, RankedFeatures):
                found = self.aggregator.mismatch(torch.from_numpy(decision.logits).to(self.device))
                self._mismatches += [] if found is None else [found]

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all validation slides."""
        truth = [bool(target) for target, _ in self._judged]
        decided = [decision.status == Her2Status.POSITIVE for _, decision in self._judged]
        counts = BinaryCounts.of(truth, decided)
        figures = {
            "val_accuracy": accuracy(counts),
            "val_balanced_accuracy": balanced_accuracy(counts),
            "val_auc": auc(truth, [decision.probability for _, decision in self._judged]),
        }
        if self._mismatches:
            selection, probability = np.mean(self._mismatches, axis=0).tolist()
            figures |= {"selection_mismatch": selection, "probability_mismatch": probability}
        self.log_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in figures.items()})

    @cached_property
    def _deciding(self) -> Aggregator:
        """The aggregator as it is now, deciding as at prediction."""
        spec, config = self.networks.aggregator_spec, self.config
        card = Card(spec, trained=True, notice="", ranking=spec.ranking_of(config.selection, config.scoring))
        return Aggregator(card, run_of(spec, self.aggregator))

    @torch.no_grad()
    def _of_slide(self, decision: Decision) -> Tensor:
        """Logits (1, 2) of a slide."""
        if isinstance(self.aggregator, RankingModule):
            scores = decision.scores[decision.selected].astype(np.float32)
            row = torch.from_numpy(scores).to(self.device)[None]  # (1, m)
            return self.aggregator.of_scores(row, torch.ones_like(row, dtype=torch.bool))
        logits: Tensor = self.aggregator(*batch_of(Bag.of(decision.grid, decision.logits), self.device))[0]
        return logits

    def _logits(self, bag: LabelledSlide, uniform: Tensor | None) -> NDArray[np.float32]:
        """Logits (n, k) of all tiles of a bag, without a graph."""
        if uniform is not None and self._varies:
            return self._score(bag, uniform)
        return self._kept.get(self.cnn, bag.row.slide_id, lambda: self._score(bag, None))

    @property
    def _varies(self) -> bool:
        return self.settings.augment != Augmentation() or self.settings.crop_px is not None

    def _score(self, bag: LabelledSlide, uniform: Tensor | None) -> NDArray[np.float32]:
        """Read and score all tiles of a slide, in symmetric threads."""
        with bag.open(self.config) as slide, _one_core_a_thread():
            if uniform is None:
                _, logits = infer(slide, bag.grid, self._engine, self._runtime)
            else:
                logits = self._score_augmented(slide, bag.grid, uniform)
        if len(logits) < len(bag.grid):
            found = f"{len(bag.grid) - len(logits)} tiles that could be decoded before cannot be any more"
            raise DamagedSlideError(bag.row.slide_id, found, "copy the file again, then --resume")
        return logits

    def _score_augmented(self, slide: Slide, grid: TileGrid, uniform: Tensor) -> NDArray[np.float32]:
        """Logits of the tiles of a slide, all augmented alike."""
        kind, dtype = self.device.type, self._half

        def see(batch: TileBatch) -> NDArray[np.float32]:
            with torch.no_grad(), torch.autocast(kind, dtype, enabled=dtype is not None):  # a thread inherits none
                seen: NDArray[np.float32] = self._forward(batch.pixels, uniform).float().cpu().numpy()
            return seen

        return np.concatenate([*map_tiles(slide, grid, see, **pace(self._runtime))])

    @property
    def _runtime(self) -> Runtime:
        """Small batches on a CPU: a layer beyond 32 MB doubles the time."""
        found = self.config.runtime
        if self.device.type == "cpu":
            found = replace(found, batch_size=min(found.batch_size, max_rows(self.networks.tile_spec) // 2))
        return found

    @property
    def _half(self) -> torch.dtype | None:
        """Of what this thread computes in 16 bits."""
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    @property
    def _engine(self) -> Engine:
        """The CNN as it is now; overlapping tiles share their convolutions."""
        if self.device.type == "cpu" and self._frozen_engine is not None:
            return self._frozen_engine
        return ModuleEngine(Card(self.networks.tile_spec, trained=True, notice=""), self.cnn, self._half)

    @cached_property
    def _frozen_engine(self) -> OnnxEngine | None:
        """ONNX Runtime for a frozen CNN on a CPU: more than twice the tiles a second of torch."""
        if not self.settings.freeze_cnn:
            return None
        return engine_of(Card(self.networks.tile_spec, trained=True, notice=""), self.networks.tile_weights)

    def _forward(self, pixels: Rgb, uniform: Tensor | None) -> Tensor:
        """Map (n, h, w, 3) tiles to (n, k) logits; all tiles of a slide are augmented alike, as by another scanner."""
        spec = self.networks.tile_spec.input
        tiles = torch.from_numpy(resize(pixels, spec)).to(self.device)
        if uniform is None or not self._varies:
            channels = prepare_on_device(tiles, spec.colour)
        else:
            alike = uniform.to(self.device).expand(len(tiles), -1)
            channels = augmented_channels(tiles, alike, self.settings.augment, spec.colour, self.settings.crop_px)
        logits: Tensor = self.cnn(channels)
        return logits

    def _share_gradients(self) -> None:
        """Sum gradients over devices: a step does not depend on their number."""
        if distributed.is_available() and distributed.is_initialized():
            for weight in self.parameters():
                if weight.grad is not None:
                    distributed.all_reduce(weight.grad)

    def configure_optimizers(self) -> Any:  # noqa: ANN401  # Lightning's union of many
        """Adam with a rate for each network (AdamW where the aggregator's weights decay)."""
        settings = self.settings
        rate = settings.aggregator_rate or settings.learning_rate
        groups = [
            {"params": [*self.aggregator.parameters()], "lr": rate, "weight_decay": settings.weight_decay},
            {"params": [w for w in self.cnn.parameters() if w.requires_grad], "lr": settings.learning_rate},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)
        share = rate_of(settings.schedule, int(self.trainer.estimated_stepping_batches))
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, share)]


class KeptLogits:
    """Logits of slides, valid as long as the network has the same weights; trainings may share them."""

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._logits: dict[str, NDArray[np.float32]] = {}

    def get(self, cnn: nn.Module, slide_id: str, score: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Kept logits of a slide, or else computed ones.

        Args:
            cnn: The network.
            slide_id: The slide.
            score: Computes them.
        """
        now = [tensor.detach() for tensor in cnn.state_dict().values()]
        if len(now) != len(self._weights) or not all(map(_equal, now, self._weights)):
            self._weights = [tensor.clone() for tensor in now]
            self._logits.clear()
        if slide_id not in self._logits:
            self._logits[slide_id] = score()
        return self._logits[slide_id]


def _equal(now: Tensor, before: Tensor) -> bool:
    """Compare two tensors where the first one is: copying a large CNN from a GPU takes longer than scoring a slide."""
    return torch.equal(now, before.to(now.device))


@contextmanager
def _one_core_a_thread() -> Iterator[None]:
    """Limit torch to one core in each of the threads that read and score tiles."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
