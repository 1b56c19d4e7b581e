"""Networks of one training side by side on one GPU: each step of each is one CUDA graph.

A small network keeps a GPU waiting: of a step's 130 ms nearly all is spent by the processor, which starts some two
thousand kernels one by one. Here all patches lie on the GPU, the whole step (windows, augmentation, forward, backward,
AdamW, moving average) is recorded once for each network and started as a whole, and the networks run in streams of
their own: 230 steps of 256 patches a second on an H200, all networks together. Order, augmentation, rates and
averaging are those of `he2her2 train tumour`, from the same functions; the last batch of an epoch is filled up by its
first patches, so that all have one size.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from he2her2.models import CnnSpec
from he2her2.models.torch_engine import prepare_on_device
from he2her2.models.torch_modules import put_tensors, tensors_of
from he2her2.training.augmentation import augmented_channels
from he2her2.training.classifier import rate_of, share_of_newest
from he2her2.training.sampling import EpochSampler, balanced
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.dataset import ALL_OVER, COVERED, MIDDLE, N_TURNS, invasive_probability, turned
from he2her2.training.tumour.patch_sets import Patches

_X_Y = slice(1, 3)  # the random numbers of a crop, as in `training.tumour.dataset`
_WARM_UP_STEPS = 3  # before a step is recorded, as torch asks for
_N_UNIFORM = 30
_JUDGED_AT_ONCE = 4096

GPU = torch.device("cuda")


@dataclass(frozen=True, slots=True, eq=False)
class OnGpu:
    """All patches, on the GPU.

    Attributes:
        pixels: (n, s, s, 3) uint8.
        slack: (n,) int64.
        labels: (n,) int64.
        sources: (n,) on the CPU.
    """

    pixels: Tensor
    slack: Tensor
    labels: Tensor
    sources: NDArray[np.str_]

    @classmethod
    def of(cls, patches: Patches) -> "OnGpu":
        """Put patches on the GPU."""
        pixels, slack, labels = map(torch.from_numpy, (patches.pixels, patches.slack, patches.labels))
        return cls(pixels.to(GPU), slack.to(GPU), labels.to(GPU), patches.sources)

    def windows(self, index: Tensor, side: int, shift: Tensor) -> Tensor:
        """Windows as of `Patches.windows`: (k, side, side, 3) of (k,) patches, by (k, 2) float64 shifts."""
        off = (shift * self.slack[index, None]).round().long() + (self.pixels.shape[1] - side) // 2
        steps = torch.arange(side, device=GPU)
        x, y = off[:, :1] + steps, off[:, 1:] + steps
        return self.pixels[index[:, None, None], y[:, :, None], x[:, None, :]]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A network to be trained.

    Attributes:
        name: Of the network.
        settings: Of its training.
        chosen: Positions of the patches that it learns from.
        targets: (n, 2) for all patches; none is the label.
    """

    name: str
    settings: TumourTraining
    chosen: NDArray[np.int64]
    targets: NDArray[np.float32] | None = None


class _Network:
    """A network, its training's state on the GPU and the graph of a step."""

    def __init__(self, job: Job, spec: CnnSpec, weights: Mapping[str, NDArray[np.float32]], data: OnGpu) -> None:
        self.job, self._spec, self._data = job, spec, data
        settings = job.settings
        if spec.input.colour != "rgb" or not settings.balance:
            raise ValueError("side by side learn networks of RGB, from balanced sources")
        order = balanced(data.sources[job.chosen], data.labels.cpu().numpy()[job.chosen])
        self._sampler = EpochSampler(order, settings.batch_size, settings.seed)
        self.steps = len(self._sampler)
        total = self.steps * settings.epochs
        rate = rate_of(settings.schedule, total)
        self._rates = np.array([settings.learning_rate * rate(step) for step in range(total)], np.float32)
        self._shares = np.array([share_of_newest(step + 1, settings.average) for step in range(total)], np.float32)
        self.learner = spec.build()
        put_tensors(self.learner, weights)
        convert_conv2d_weight_memory_format(self.learner, torch.channels_last)
        self.learner.to(GPU).train()
        self.cnn = deepcopy(self.learner)
        n = settings.batch_size
        self._index = torch.zeros((self.steps, n), dtype=torch.int64, device=GPU)
        self._uniform = torch.zeros((self.steps, n, _N_UNIFORM), device=GPU)
        self._rate, self._share = torch.zeros(self.steps, device=GPU), torch.zeros(self.steps, device=GPU)
        self._step = torch.zeros(1, dtype=torch.int64, device=GPU)
        self._lr = torch.tensor(settings.learning_rate, device=GPU)
        self._targets = None if job.targets is None else torch.from_numpy(job.targets).to(GPU)
        self.loss = torch.zeros((), device=GPU)
        self._optimizer = torch.optim.AdamW(
            self.learner.parameters(), self._lr, weight_decay=settings.weight_decay, fused=True, capturable=True
        )
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        self._record()

    def _record(self) -> None:
        start = deepcopy(self.learner.state_dict())
        self._stream.wait_stream(torch.cuda.current_stream())
        self.begin(self.draw(0))
        with torch.cuda.stream(self._stream):
            for _ in range(min(_WARM_UP_STEPS, self.steps)):
                self._one_step()
        torch.cuda.synchronize()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._one_step()
        torch.cuda.synchronize()
        with torch.no_grad():
            for module in (self.learner, self.cnn):
                for name, tensor in module.state_dict().items():
                    tensor.copy_(start[name])
            for state in self._optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()
        torch.cuda.synchronize()

    def _one_step(self) -> None:
        settings = self.job.settings
        self._optimizer.zero_grad(set_to_none=True)
        index = self._index.index_select(0, self._step)[0]
        uniform = self._uniform.index_select(0, self._step)[0]
        self._lr.copy_(self._rate.index_select(0, self._step)[0])
        pixels = self._data.windows(index, self._spec.input.network_px, 2 * uniform[:, _X_Y].double() - 1)
        tiles = augmented_channels(pixels, uniform, settings.augment, self._spec.input.colour, settings.crop_px)
        wanted = self._data.labels[index] if self._targets is None else self._targets[index]
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = functional.cross_entropy(self.learner(tiles), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        with torch.no_grad():
            self.loss.add_(loss.detach())
            now = [tensor for tensor in self.learner.state_dict().values() if tensor.is_floating_point()]
            mean = [tensor for tensor in self.cnn.state_dict().values() if tensor.is_floating_point()]
            change = torch._foreach_sub(now, mean)  # noqa: SLF001  as torch.optim.swa_utils does
            torch._foreach_mul_(change, self._share.index_select(0, self._step)[0])
            torch._foreach_add_(mean, change)
            self._step.add_(1)

    def draw(self, epoch: int) -> tuple[Tensor, ...]:
        """An epoch's order, random numbers, rates and shares of the average, on the CPU."""
        self._sampler.set_epoch(epoch)
        n = self.job.settings.batch_size
        draws = list(self._sampler)
        rows = [np.resize(np.arange(len(draw.index)), n) for draw in draws]
        index = np.stack([self.job.chosen[draw.index[row]] for draw, row in zip(draws, rows, strict=True)])
        uniform = np.stack([draw.uniform[row] for draw, row in zip(draws, rows, strict=True)])
        here = slice(epoch * self.steps, (epoch + 1) * self.steps)
        arrays = (index, uniform, self._rates[here], self._shares[here])
        return tuple(torch.from_numpy(array).pin_memory() for array in arrays)

    def begin(self, drawn: tuple[Tensor, ...]) -> None:
        """Begin an epoch that was drawn."""
        with torch.cuda.stream(self._stream):
            for buffer, tensor in zip((self._index, self._uniform, self._rate, self._share), drawn, strict=True):
                buffer.copy_(tensor, non_blocking=True)
            self._step.zero_()
            self.loss.zero_()

    def replay(self) -> None:
        """Do a step."""
        with torch.cuda.stream(self._stream):
            self._graph.replay()

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The averaged weights."""
        return tensors_of(self.cnn)


def train_side_by_side(
    jobs: Sequence[Job],
    spec: CnnSpec,
    weights: Mapping[str, NDArray[np.float32]],
    data: OnGpu,
    say: Callable[[str], None] = print,
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Train all networks; their averaged weights after the last epoch, by name."""
    torch.backends.cudnn.benchmark = True
    networks = [_Network(job, spec, weights, data) for job in jobs]
    drawn = [network.draw(0) for network in networks]
    for epoch in range(max(job.settings.epochs for job in jobs)):
        going = [network for network in networks if epoch < network.job.settings.epochs]
        for network, tensors in zip(going, drawn, strict=True):
            network.begin(tensors)
        for step in range(max(network.steps for network in going)):
            for network in going:
                if step < network.steps:
                    network.replay()
        drawn = [network.draw(epoch + 1) for network in going if epoch + 1 < network.job.settings.epochs]
        torch.cuda.synchronize()
        losses = " ".join(f"{float(network.loss) / network.steps:.4f}" for network in going)
        say(f"epoch {epoch + 1}: loss {losses}")
    return {network.job.name: network.weights() for network in networks}


@torch.inference_mode()
def probability_of(
    weights: Mapping[str, NDArray[np.float32]], spec: CnnSpec, data: OnGpu, index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probability of invasive tumour of (k,) patches as a teacher gives it: `training.tumour.dataset`, turned."""
    torch.backends.cudnn.benchmark = False
    cnn = spec.build()
    put_tensors(cnn, weights)
    convert_conv2d_weight_memory_format(cnn, torch.channels_last)
    cnn.to(GPU).eval()
    side = spec.input.network_px
    wide = data.slack.cpu().numpy()[index] >= side * COVERED
    found = np.empty(len(index))
    for chosen, shifts in ((~wide, [MIDDLE] * N_TURNS), (wide, ALL_OVER)):
        if not chosen.any():
            continue
        views = [_seen(cnn, spec, data, index[chosen], shift, number % N_TURNS) for number, shift in enumerate(shifts)]
        found[chosen] = np.mean(views, axis=0)
    return found


def _seen(
    cnn: nn.Module, spec: CnnSpec, data: OnGpu, index: NDArray[np.int64], shift: tuple[float, float], turn: int
) -> NDArray[np.float64]:
    """Probability of (k,) patches in one window and one turn: (k,)."""
    found = []
    for start in range(0, len(index), _JUDGED_AT_ONCE):
        chosen = torch.from_numpy(index[start : start + _JUDGED_AT_ONCE]).to(GPU)
        where = torch.tensor([shift], dtype=torch.float64, device=GPU).expand(len(chosen), 2)
        pixels = turned(data.windows(chosen, spec.input.network_px, where), turn)
        tiles = prepare_on_device(pixels, spec.input.colour).to(memory_format=torch.channels_last)
        with torch.autocast(tiles.device.type, torch.bfloat16, enabled=tiles.is_cuda):
            logits = cnn(tiles)
        found.append(invasive_probability(logits.float().cpu().numpy()))
    return np.concatenate(found)
