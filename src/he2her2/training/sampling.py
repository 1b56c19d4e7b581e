"""Order of the cases in each epoch, and the random numbers that augment them: from (seed, epoch, position) only.

So a training that is resumed sees what it would have seen, and so do several devices together.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import Sampler

_N_UNIFORM, _N_COLOUR, _N_COMPRESSION = 8, 19, 3  # random numbers for each case, as `augmentation` needs them

Order: TypeAlias = Callable[[np.random.Generator], NDArray[np.int64]]
"""Positions of an epoch's cases in the order in which they are seen; every epoch has the same number."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Draw:
    """A batch to be read.

    Attributes:
        index: (n,) positions of its cases.
        uniform: (n, 30) random numbers in [0, 1) that augment each case.
    """

    index: NDArray[np.int64]
    uniform: NDArray[np.float32]


def in_sequence(n: int) -> Order:
    """All of `n` cases, always in the same order: for validation."""
    return lambda _: np.arange(n)


def shuffled(n: int) -> Order:
    """All of `n` cases in random order."""
    return lambda rng: rng.permutation(n)


def alternating(labels: NDArray[Any]) -> Order:
    """Classes in turn (0, 1, 0, 1), twice the larger class in all; cases of smaller classes are repeated."""
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    wanted = max(map(len, classes))
    return lambda rng: np.stack([_repeated(cases, wanted, rng) for cases in classes], axis=1).ravel()


def balanced(sources: NDArray[Any], labels: NDArray[Any]) -> Order:
    """As many draws as there are cases: sources by the square root of their size, classes of each equally often."""
    groups = [np.flatnonzero(sources == source) for source in np.unique(sources)]
    parts, shares = list[NDArray[np.int64]](), list[float]()
    for group in groups:
        classes = np.unique(labels[group])
        parts += [group[labels[group] == label] for label in classes]
        shares += [np.sqrt(len(group)) / len(classes)] * len(classes)
    counts = np.rint(np.array(shares) / sum(shares) * len(labels)).astype(int)
    counts[counts.argmax()] += len(labels) - counts.sum()
    drawn = list(zip(parts, counts.tolist(), strict=True))
    return lambda rng: rng.permutation(np.concatenate([_repeated(cases, wanted, rng) for cases, wanted in drawn]))


def _repeated(cases: NDArray[np.int64], wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`wanted` of the cases in random order; none is repeated before all have been used.

    Example:
        >>> sorted(_repeated(np.array([5, 7]), 4, np.random.default_rng(0)).tolist())
        [5, 5, 7, 7]
    """
    rounds = -(-wanted // len(cases))
    return np.concatenate([rng.permutation(cases) for _ in range(rounds)])[:wanted]


class EpochSampler(Sampler[Draw]):
    """Batches of an epoch, for a DataLoader with `batch_size=None` whose dataset reads a whole Draw.

    With several devices each gets every w-th case of a batch, so the batch they see together does not depend on
    their number; the last batch is filled up by its first cases where it cannot be divided evenly.

    Args:
        order: Of the cases.
        batch_size: Cases of a step, over all devices together.
        seed: Of order and augmentation.
        share: Divide the batches among devices; without it each sees them all (validation).
    """

    def __init__(self, order: Order, batch_size: int, seed: int, *, share: bool = True) -> None:
        self._order = order
        self._batch_size = batch_size
        self._seed = seed
        self._share = share
        self._epoch = 0
        self._n = len(order(np.random.default_rng(0)))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(self._n / self._batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch to draw; Lightning calls it."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((self._seed, self._epoch))
        index = self._order(rng)
        uniform = rng.random((len(index), _N_UNIFORM), np.float32)
        later = [  # drawn apart, so that what was drawn before they were there stays the same
            np.random.default_rng((self._seed, self._epoch, k)).random((len(index), n), np.float32)
            for k, n in enumerate((_N_COLOUR, _N_COMPRESSION), start=1)
        ]
        uniform = np.concatenate([uniform, *later], axis=1)
        several = self._share and distributed.is_available() and distributed.is_initialized()
        world, rank = (distributed.get_world_size(), distributed.get_rank()) if several else (1, 0)
        for start in range(0, len(index), self._batch_size):
            rows = np.arange(start, min(start + self._batch_size, len(index)))
            rows = np.resize(rows, -(-len(rows) // world) * world)[rank::world]
            yield Draw(index[rows], uniform[rows])
