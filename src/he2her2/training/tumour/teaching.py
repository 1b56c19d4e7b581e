"""Targets from teachers: networks of the same training that have not seen a patch's patient say what the patch is.

Labels of patches are noisy: a square of 200 µm has one label, and borders are drawn by hand. A network that learns them
for long learns the noise. So a share of each target comes from a teacher (distillation, Hinton et al., 2015), and each
teacher is asked about nothing that it has learned from (cross-fitting). The network of a fold may learn nothing of its
fold's patients by way of a teacher either: its teachers have seen neither them nor the patch's patient. So there is a
teacher for each pair of folds, and one for each fold alone; the network that is kept, which nothing is evaluated on,
hears the mean of all that have not seen the patch's patient. A teacher looks at patches in all flips and turns.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import OutputError, PatchError
from he2her2.files import atomic
from he2her2.training.cross_validation import CnnTraining, TileSets
from he2her2.training.run import is_first_process
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.data import NEVER_TRAINED, TRAINING_ONLY
from he2her2.training.tumour.dataset import probability_of, training_tiles
from he2her2.training.tumour.patch_sets import INVASIVE, OTHER, Patches

Teacher: TypeAlias = tuple[int, int]
"""The two parts that it has not seen; the same one twice for a teacher that has seen all but one."""

TEACHERS_FOLDER = "teachers"
FEWEST_FOLDS = 3
"""A teacher leaves out two, and learns from the others."""

_ANSWERS = "probability.npz"


def teachers_of(n_folds: int) -> Sequence[Teacher]:
    """All teachers of a cross-validation.

    Example:
        >>> teachers_of(3)
        [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    """
    return list(combinations_with_replacement(range(n_folds), 2))


def of_teachers(settings: TumourTraining) -> TumourTraining:
    """Settings of the teachers, from those of their pupils."""
    return replace(settings, epochs=settings.teacher_epochs or settings.epochs)


def parts_of(fold: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Part of each patch: its fold; one by chance where it trains every network, since its patient is unknown: (n,)."""
    part = fold.copy()
    free = np.flatnonzero(fold == TRAINING_ONLY)
    n_folds = int(fold.max()) + 1
    part[np.random.default_rng(seed).permutation(free)] = np.arange(len(free)) % n_folds
    return part


def check_teachers(patches: Patches, fold: NDArray[np.int64], seed: int) -> None:
    """Check that every teacher has both classes to learn from.

    Raises:
        PatchError: One has not.
    """
    part = parts_of(fold, seed)
    for teacher in teachers_of(int(fold.max()) + 1):
        if len(np.unique(patches.labels[learned_by(part, teacher)])) < 2:
            left_out = " and ".join(str(p + 1) for p in sorted(set(teacher)))
            raise PatchError(
                f"without fold {left_out} there are no patches of both kinds to teach from; "
                "give more patients, use more --folds, or set training.distil to 0"
            )


def teach(training: CnnTraining, patches: Patches, fold: NDArray[np.int64], folder: Path) -> NDArray[np.float64]:
    """Train the teachers and ask them.

    Args:
        training: Of their pupils, and but for the epochs of every teacher.
        patches: All of them.
        fold: (n,) fold of each, as of `data.assign_folds`.
        folder: Takes their checkpoints, and their answers, which a training that goes on reads again.

    Returns:
        (K + 1, n) probability of invasive tumour for the network of each fold, and last for the one that is kept; NaN
        for patches that the network does not learn from.

    Raises:
        OutputError: The answers of before are damaged.
    """
    answers = folder / _ANSWERS
    if training.execution.resume and answers.exists():
        return _read(answers, (int(fold.max()) + 2, len(patches)))
    settings = training.settings
    assert isinstance(settings, TumourTraining)
    part, teachers = parts_of(fold, settings.seed), teachers_of(int(fold.max()) + 1)
    teaching = replace(training, settings=of_teachers(settings))
    said = dict(_said(teaching, patches, part, teachers, folder))
    taught = assemble(said, fold, part)
    if is_first_process():
        with atomic(answers) as draft:
            np.savez_compressed(draft, probability=taught)
    return taught


def _said(
    training: CnnTraining, patches: Patches, part: NDArray[np.int64], teachers: Sequence[Teacher], folder: Path
) -> Iterator[tuple[Teacher, NDArray[np.float64]]]:
    """Yield each teacher with its probability for the patches of its parts, NaN for all others: (n,)."""
    side = training.spec.input.network_px
    for number, teacher in enumerate(teachers, start=1):
        training.execution.say(f"teacher {number} of {len(teachers)}")
        learned, asked = learned_by(part, teacher), np.isin(part, teacher)
        first, second = teacher
        module = training.learn(TileSets(training_tiles(patches, learned, side)), folder / f"{first + 1}-{second + 1}")
        probability = np.full(len(patches), np.nan)
        probability[asked] = probability_of(training, module, patches.take(asked), turned=True)
        yield teacher, probability


def learned_by(part: NDArray[np.int64], teacher: Teacher) -> NDArray[np.bool_]:
    """Patches that a teacher learns from: (n,)."""
    return ~np.isin(part, (*teacher, NEVER_TRAINED))


def assemble(
    said: Mapping[Teacher, NDArray[np.float64]], fold: NDArray[np.int64], part: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Answers by network: (K + 1, n), as `teach` returns them."""
    n_folds = int(fold.max()) + 1
    taught = np.full((n_folds + 1, len(fold)), np.nan)
    for p in range(n_folds):
        here = part == p
        for k in range(n_folds):  # patches of part k itself train network k where they have no fold
            learns = here & (fold != k)
            taught[k, learns] = said[min(k, p), max(k, p)][learns]
        taught[n_folds, here] = np.mean([said[min(k, p), max(k, p)][here] for k in range(n_folds)], axis=0)
    return taught


def targets(labels: NDArray[np.int64], taught: NDArray[np.float64], share: float) -> NDArray[np.float32]:
    """Targets (n, 2) that are the label but for a `share`, which is the teachers' (n,) probability.

    Example:
        >>> targets(np.array([1, 0]), np.array([0.5, 0.0]), 0.5)
        array([[0.25, 0.75],
               [1.  , 0.  ]], dtype=float32)
    """
    invasive = (1 - share) * (labels == INVASIVE) + share * taught
    both = np.empty((len(labels), 2), np.float32)
    both[:, INVASIVE], both[:, OTHER] = invasive, 1 - invasive
    return both


def _read(answers: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        with answers.open("rb") as file, np.load(file) as stored:
            found: NDArray[np.float64] = stored["probability"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise OutputError(f"{answers}: is damaged ({error}); delete it, and the teachers are asked again") from None
    if found.shape != shape:
        raise OutputError(f"{answers}: is of another training; delete it, and the teachers are asked again")
    return found
