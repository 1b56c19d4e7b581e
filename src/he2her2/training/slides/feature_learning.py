"""Training of one aggregator on bags of features: epochs, early stopping, standardisation, the selection's mismatch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from he2her2.training.settings import FeatureTraining
from he2her2.training.slides.backpropagation import geometric_beta, relative_change

_CLIP = 5.0  # largest norm of a step's gradient
_KEPT_BYTES = 2 << 30

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
    torch.manual_seed(seed)
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
        self._kept: dict[Callable[[], Bag], dict[str, Tensor]] = {}
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
            for i in rows.tolist():
                read, positive = slides[i]
                loss = self._loss(self._inputs(read, draw=True), positive)
                (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            nn.utils.clip_grad_norm_(self.module.parameters(), _CLIP)
            self.optimizer.step()
        if self.beta is not None:
            cast("Any", self.module).beta = self.beta
        self.module.eval()
        return total / len(slides)

    def _inputs(self, read: Callable[[], Bag], *, draw: bool = False) -> dict[str, Tensor]:
        """Inputs of a slide's tiles, or of those that a step sees; kept where memory allows."""
        if read in self._kept:
            return self._kept[read]
        bag, most = read(), self.settings.max_tiles
        if draw and most is not None and len(bag) > most:
            return self._tensors(bag.take(np.sort(self.rng.choice(len(bag), most, replace=False))))
        inputs = self._tensors(bag)
        n_bytes = sum(tensor.nbytes for tensor in inputs.values())
        if self._kept_bytes + n_bytes <= _KEPT_BYTES and (most is None or len(bag) <= most):
            self._kept[read] = inputs
            self._kept_bytes += n_bytes
        return inputs

    def _tensors(self, bag: Bag) -> dict[str, Tensor]:
        if self.scale is not None:
            mean, deviation = self.scale
            bag = Bag(((bag.features - mean) / deviation).astype(np.float32), bag.coords_um, bag.mask)
        inputs = self.spec.inputs_of(bag)
        return {name: torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.spec.signature.inputs}

    def _loss(self, inputs: Mapping[str, Tensor], positive: bool) -> Tensor:  # noqa: FBT001  a label
        logits, contributions = self.run(*inputs.values())
        loss = self._cross_entropy(logits, positive)
        if self.auxiliary is None or not self.settings.instance_weight:
            return loss
        instances: Tensor = self.auxiliary(self.module, inputs["features"], contributions, int(positive))
        return (1 - self.settings.instance_weight) * loss + self.settings.instance_weight * instances

    def _cross_entropy(self, logits: Tensor, positive: bool) -> Tensor:  # noqa: FBT001  a label
        target = torch.tensor([int(positive)])
        return functional.cross_entropy(logits, target) * self.class_weights[int(positive)]

    @torch.no_grad()
    def loss(self, slides: Iterable[LabelledBag]) -> float:
        """Mean loss, as prediction decides."""
        losses = (self._cross_entropy(self.run(*self._inputs(read).values())[0], positive) for read, positive in slides)
        return float(np.mean([float(loss) for loss in losses]))

    def mismatch(self, slides: Iterable[LabelledBag]) -> tuple[float | None, float | None]:
        """Mean mismatch of continuous and discrete selection, see `RankedFeatures.mismatch`; None for none."""
        measure = getattr(self.module, "mismatch", None)
        found = [] if measure is None else [measure(self._inputs(read)["features"][0]) for read, _ in slides]
        measured = [one for one in found if one is not None]
        if not measured:
            return None, None
        beside, differences = zip(*measured, strict=True)
        return float(np.mean(beside)), float(np.mean(differences))


def _class_weights(slides: Sequence[LabelledBag]) -> Tensor:
    """Weights of negative and positive by which both classes weigh the same."""
    n_positive = sum(positive for _, positive in slides)
    counts = torch.tensor([len(slides) - n_positive, n_positive], dtype=torch.float32).clamp(min=1)
    return len(slides) / (2 * counts)


def _scale_of(slides: Sequence[LabelledBag]) -> _Scale:
    """Mean (d) and deviation (d) of each feature over all tiles; a feature that never varies has deviation 1."""
    n, total, squares = 0, np.zeros(1), np.zeros(1)
    for read, _ in slides:
        features = read().features.astype(np.float64)
        n, total, squares = n + len(features), total + features.sum(axis=0), squares + (features**2).sum(axis=0)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
    return mean, np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, 1.0)


def _fold(module: nn.Module, layer: str, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
    """Let the layer that sees the features bring them to mean 0 and deviation 1 itself."""
    linear = cast("nn.Linear", module.get_submodule(layer))
    with torch.no_grad():
        weight = linear.weight.double() / torch.from_numpy(deviation)
        linear.bias.sub_((weight @ torch.from_numpy(mean)).float())
        linear.weight.copy_(weight.float())
