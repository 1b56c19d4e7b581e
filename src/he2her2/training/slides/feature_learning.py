"""Training of one aggregator on bags of features: epochs, early stopping, standardisation, the selection's mismatch."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from he2her2.errors import ConfigError
from he2her2.models import AggregatorSpec, Bag
from he2her2.models.torch_modules import initial_weights, put_tensors, tensors_of
from he2her2.training.settings import LARGEST_SEED, FeatureTraining
from he2her2.training.slides.backpropagation import geometric_beta, relative_change

_CLIP = 5.0  # largest norm of a step's gradient
_KEPT_BYTES = 2 << 30
_TILES_AT_ONCE = 4096
_ROWS = 1 << 14

_Scale: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean (d) and deviation (d) of each feature."""

LabelledBag: TypeAlias = tuple[Callable[[], Bag], bool]
"""Reads a slide's bag; and whether the slide is positive."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """A trained aggregator.

    Attributes:
        weights: Its tensors, at the epoch of the lowest validation loss.
        epoch: That epoch, 0 the first.
        history: Figures of each epoch.
        movement: Relative change of its weights up to that epoch.
        selection_mismatch: Where it selects with a relaxation: share of the continuous selection on validation slides
            that is not on the tiles that are selected in prediction, in [0, 1]; None elsewhere.
        probability_mismatch: Mean difference of the two probabilities; None elsewhere.
    """

    weights: Mapping[str, NDArray[np.float32]]
    epoch: int
    history: tuple[Mapping[str, float], ...]
    movement: float
    selection_mismatch: float | None = None
    probability_mismatch: float | None = None

    @property
    def val_loss(self) -> float:
        """The lowest validation loss."""
        return self.history[self.epoch]["val_loss"]


def learn(
    spec: AggregatorSpec, train: Sequence[LabelledBag], val: Sequence[LabelledBag], settings: FeatureTraining, seed: int
) -> Learnt:
    """Train an aggregator; the same seed gives the same weights on any one machine.

    Args:
        spec: The aggregator, for as many features as the bags have.
        train: Training slides.
        val: Validation slides, which pick the epoch.
        settings: Of the training.
        seed: Of initial weights, order and draws.

    Raises:
        ConfigError: The training diverged.
    """
    torch.manual_seed(seed % LARGEST_SEED)
    module = spec.build()
    put_tensors(module, initial_weights(spec, seed))
    scale = _scale_of(train) if settings.standardise and spec.reads_features else None
    start = [weight.detach().clone() for weight in module.parameters()]
    weigh = _class_weights(train) if settings.class_weights else torch.ones(2)
    learner = _Learner(spec, module, settings, weigh, scale, seed)
    history: list[dict[str, float]] = []
    best, weights = -1, tensors_of(module)
    for epoch in range(settings.epochs):
        train_loss = learner.epoch(train, epoch)
        history.append({"train_loss": train_loss, "val_loss": learner.loss(val)})
        if not np.isfinite([*history[-1].values()]).all():
            raise ConfigError(f"the training diverged in epoch {epoch}; lower training.learning_rate")
        if best < 0 or history[-1]["val_loss"] < history[best]["val_loss"]:
            best, weights = epoch, tensors_of(module)
        elif epoch - best >= settings.patience:
            break
    put_tensors(module, weights)
    selection, probability = learner.mismatch(val)
    movement = relative_change(start, module.parameters())
    if scale is not None:
        _fold(module, spec.reads_features, *scale)
    return Learnt(tensors_of(module), best, tuple(history), movement, selection, probability)


class _Learner:
    """An aggregator under training."""

    def __init__(
        self,
        spec: AggregatorSpec,
        module: nn.Module,
        settings: FeatureTraining,
        class_weights: Tensor,
        scale: _Scale | None,
        seed: int,
    ) -> None:
        self.spec, self.module, self.settings = spec, module, settings
        self.class_weights, self.scale = class_weights, scale
        self._bags: dict[Callable[[], Bag], Bag] = {}
        self._whole: dict[Callable[[], Bag], dict[str, Tensor]] = {}
        self._kept_bytes = 0
        self.run = spec.exported(module)
        self.auxiliary = spec.auxiliary()
        self.rng = np.random.default_rng(seed)
        self.beta: float | None = getattr(module, "beta", None)
        if hasattr(module, "rule"):
            cast("Any", module).rule = settings.selection
        parameters = [*module.parameters(), *(self.auxiliary.parameters() if self.auxiliary is not None else ())]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
        )

    def epoch(self, slides: Sequence[LabelledBag], epoch: int) -> float:
        """One pass over the slides; the mean loss."""
        settings = self.settings
        self.module.train()
        if self.beta is not None and settings.beta_start is not None:
            cast("Any", self.module).beta = geometric_beta(settings.beta_start, self.beta, epoch, settings.epochs)
        order, total = self.rng.permutation(len(slides)), 0.0
        for start in range(0, len(order), settings.batch_slides):
            rows = order[start : start + settings.batch_slides]
            self.optimizer.zero_grad()
            for inputs, truth in self._together(slides[i] for i in rows.tolist()):
                loss = self._loss(inputs, truth)
                (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            nn.utils.clip_grad_norm_(self.module.parameters(), _CLIP)
            self.optimizer.step()
        if self.beta is not None:
            cast("Any", self.module).beta = self.beta
        self.module.eval()
        return total / len(slides)

    def _together(self, slides: Iterable[LabelledBag]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Inputs and classes (b) of the slides of a step: those of as many tiles pass together, up to a limit."""
        waiting: dict[int, list[tuple[dict[str, Tensor], bool]]] = defaultdict(list)
        for read, positive in slides:
            inputs = self._inputs(read, draw=True)
            n = inputs["features"].shape[1]
            waiting[n].append((inputs, positive))
            if (len(waiting[n]) + 1) * n > _TILES_AT_ONCE:
                yield _stacked(waiting.pop(n))
        yield from map(_stacked, waiting.values())

    def _inputs(self, read: Callable[[], Bag], *, draw: bool = False) -> dict[str, Tensor]:
        """Inputs of a slide's tiles, or of those that a step sees; kept where memory allows."""
        bag, scaled = self._bag(read)
        most = self.settings.max_tiles
        if draw and most is not None and len(bag) > most:
            drawn = bag.take(np.sort(self.rng.choice(len(bag), most, replace=False)))
            return self._tensors(drawn if scaled else self._scaled(drawn))
        if not scaled:
            return self._tensors(self._scaled(bag))
        if read not in self._whole:
            self._whole[read] = self._tensors(bag)
        return self._whole[read]

    def _bag(self, read: Callable[[], Bag]) -> tuple[Bag, bool]:
        """A slide's bag; and whether its features are scaled, and kept."""
        if read not in self._bags:
            bag = read()
            if self._kept_bytes + bag.features.nbytes > _KEPT_BYTES:
                return bag, False
            self._bags[read] = self._scaled(bag)
            self._kept_bytes += bag.features.nbytes
        return self._bags[read], True

    def _scaled(self, bag: Bag) -> Bag:
        if self.scale is None:
            return bag
        mean, deviation = self.scale
        scaled = np.empty(bag.features.shape, np.float32)
        for rows in _parts(len(bag)):
            scaled[rows] = (bag.features[rows] - mean) / deviation
        return Bag(scaled, bag.coords_um, bag.mask)

    def _tensors(self, bag: Bag) -> dict[str, Tensor]:
        inputs = self.spec.inputs_of(bag)
        return {name: torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.spec.signature.inputs}

    def _loss(self, inputs: Mapping[str, Tensor], truth: Tensor) -> Tensor:
        """Sum of the losses of the bags."""
        logits, contributions = self.run(*inputs.values())
        loss = self._cross_entropy(logits, truth)
        if self.auxiliary is None or not self.settings.instance_weight:
            return loss
        bags = zip(inputs["features"], contributions, truth.tolist(), strict=True)
        instances = [
            self.auxiliary(self.module, features[None], share[None], target) for features, share, target in bags
        ]
        return (1 - self.settings.instance_weight) * loss + self.settings.instance_weight * torch.stack(instances).sum()

    def _cross_entropy(self, logits: Tensor, truth: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits, truth, reduction="none")
        return (losses * self.class_weights[truth]).sum()

    @torch.no_grad()
    def loss(self, slides: Iterable[LabelledBag]) -> float:
        """Mean loss, as prediction decides."""
        losses = []
        for read, positive in slides:
            logits, _ = self.run(*self._inputs(read).values())
            losses.append(float(self._cross_entropy(logits, torch.tensor([int(positive)]))))
        return float(np.mean(losses))

    def mismatch(self, slides: Iterable[LabelledBag]) -> tuple[float | None, float | None]:
        """Mean mismatch of continuous and discrete selection, see `RankedFeatures.mismatch`; None for none."""
        measure = getattr(self.module, "mismatch", None)
        found = [] if measure is None else [measure(self._inputs(read)["features"][0]) for read, _ in slides]
        measured = [one for one in found if one is not None]
        if not measured:
            return None, None
        beside, differences = zip(*measured, strict=True)
        return float(np.mean(beside)), float(np.mean(differences))


def _stacked(bags: Sequence[tuple[Mapping[str, Tensor], bool]]) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and classes (b) of bags of as many tiles; inputs of other sizes, such as neighbours, end with zeros."""
    inputs = {name: _joined([one[name] for one, _ in bags]) for name in bags[0][0]}
    return inputs, torch.tensor([int(positive) for _, positive in bags])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Join (1, ...) tensors to (b, ...), each filled with zeros to the largest size."""
    sizes = [max(size) for size in zip(*(part.shape for part in parts), strict=True)]
    fill = [
        [x for have, want in zip(part.shape[:0:-1], sizes[:0:-1], strict=True) for x in (0, want - have)]
        for part in parts
    ]
    return torch.cat([functional.pad(part, pad) if any(pad) else part for part, pad in zip(parts, fill, strict=True)])


def _class_weights(slides: Sequence[LabelledBag]) -> Tensor:
    """Weights of negative and positive by which both classes weigh the same."""
    n_positive = sum(positive for _, positive in slides)
    counts = torch.tensor([len(slides) - n_positive, n_positive], dtype=torch.float32).clamp(min=1)
    return len(slides) / (2 * counts)


def _scale_of(slides: Sequence[LabelledBag]) -> _Scale:
    """Mean (d) and deviation (d) of each feature over all tiles; a feature that never varies has deviation 1."""
    n, total, squares = 0, np.zeros(1), np.zeros(1)
    for read, _ in slides:
        found = read().features
        for rows in _parts(len(found)):
            features = found[rows].astype(np.float64)
            n, total, squares = n + len(features), total + features.sum(axis=0), squares + (features**2).sum(axis=0)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
    return mean, np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, 1.0)


def _parts(n: int) -> Iterator[slice]:
    """Rows of `n` tiles, some at a time: in double precision a slide of many tiles takes several gigabytes."""
    return (slice(start, start + _ROWS) for start in range(0, n, _ROWS))


def _fold(module: nn.Module, layer: str, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
    """Let the layer that sees the features bring them to mean 0 and deviation 1 itself."""
    linear = cast("nn.Linear", module.get_submodule(layer))
    with torch.no_grad():
        weight = linear.weight.double() / torch.from_numpy(deviation)
        linear.bias.sub_((weight @ torch.from_numpy(mean)).float())
        linear.weight.copy_(weight.float())
