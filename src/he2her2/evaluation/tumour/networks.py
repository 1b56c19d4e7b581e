"""The tumour networks under test, and which of them may judge which patient."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Runtime
from he2her2.errors import EvaluationError
from he2her2.manifest import UsedPatients, hashed_patient, patients_used
from he2her2.models import CnnRole, Engine, load_engine, trained_folder

_FOLDS = 5
_ROLE: CnnRole = "tumour_cnn"
NO_NETWORK = -1
"""In place of a network: patients from whom all of them learned."""


@dataclass(frozen=True, slots=True, eq=False)
class TumourNetwork:
    """A tumour network and the patients that it has seen.

    Attributes:
        folder: Of its weights.
        engine: Runs it.
        used: Patients from whom it learned or with whom it was chosen.
    """

    folder: Path
    engine: Engine
    used: UsedPatients


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Assignment:
    """Networks and folds of n cases.

    Attributes:
        network: (n,) position of the network that judges each; `NO_NETWORK` for none.
        fold: (n,) fold of each, for the rivals: no patient is in two.
        notices: What a reader must know of the independence of the test.
    """

    network: NDArray[np.intp]
    fold: NDArray[np.intp]
    notices: tuple[str, ...]


def open_networks(weights: Sequence[str], runtime: Runtime) -> tuple[TumourNetwork, ...]:
    """Open the tumour networks of folders of weights, or of trainings with folds, whose fold networks count.

    Args:
        weights: Folders with `tumour_cnn/`, or "bundled".
        runtime: Device and precision are used.

    Raises:
        WeightsError: One of them is missing or damaged.
        EvaluationError: They are of different networks.
    """
    given = [(Path(text), trained_folder(text)) for text in weights]
    folders = [one for path, found in given for one in _networks_of(path if found.parent == path else found)]
    networks = tuple(
        TumourNetwork(
            folder, load_engine(folder / _ROLE, _ROLE, runtime.device, runtime.precision), patients_used(folder)
        )
        for folder in folders
    )
    if len({network.engine.card.cnn for network in networks}) > 1:
        names = ", ".join(sorted({network.engine.card.network.name for network in networks}))
        raise EvaluationError(f"the weights are of different networks ({names}); test each kind by itself")
    return networks


def _networks_of(folder: Path) -> list[Path]:
    """The folder itself; or of a training the weights of its folds, or else its weights."""
    if (folder / _ROLE).is_dir():
        return [folder]
    folds = sorted((folder / "folds").glob(f"*/weights/{_ROLE}"), key=lambda path: (len(path.parts[-3]), path))
    return [path.parent for path in folds] or [folder / "weights" if (folder / "weights" / _ROLE).is_dir() else folder]


def assign_networks(networks: Sequence[TumourNetwork], patients: NDArray[np.str_] | None, n: int) -> Assignment:
    """Let each patient be judged by the first network that has not seen him.

    Where a single network is tested it judges all, and a notice says how many it has seen.

    Args:
        networks: Under test.
        patients: (n,) patient of each case; None where nobody knows.
        n: Cases.

    Raises:
        EvaluationError: Several networks, and nobody knows whose the cases are.
    """
    if patients is None:
        if len(networks) > 1:
            raise EvaluationError("no patients are named, so nobody knows which network saw whom; give one --weights")
        fold = np.random.default_rng(0).permutation(n) % _FOLDS
        told = "no patients are named: intervals are by patch and too narrow, and training patients would go unseen"
        return Assignment(np.zeros(n, np.intp), fold.astype(np.intp), (told,))
    names, index = np.unique(patients, return_inverse=True)
    hashes = [hashed_patient(name) for name in names.tolist()]
    if len(networks) == 1:
        seen = sum(one in networks[0].used.hashes for one in hashes)
        return Assignment(np.zeros(n, np.intp), _dealt(names)[index], _told(networks[0], seen, len(names)))
    unseen = np.array([[one not in network.used.hashes for network in networks] for one in hashes])
    judge = np.where(unseen.any(axis=1), unseen.argmax(axis=1), NO_NETWORK)
    left_out = int((judge == NO_NETWORK).sum())
    notices = [f"{left_out} patients are left out: all networks learned from them"] if left_out else []
    unknown = [network.folder.name for network in networks if not network.used.complete]
    if unknown:
        notices.append(f"no record of whom {', '.join(unknown)} learned from: this may be no test")
    return Assignment(judge[index], judge[index], tuple(notices))


def _told(network: TumourNetwork, seen: int, n: int) -> tuple[str, ...]:
    if seen:
        return (f"not a test: {seen} of {n} patients were used in training these weights, so the figures flatter",)
    if not network.used.complete:
        return ("there is no complete record of the patients that these weights learned from: this may be no test",)
    return ()


def _dealt(names: NDArray[np.str_]) -> NDArray[np.intp]:
    """Fold of each patient, by his name alone."""
    order = np.argsort([zlib.crc32(name.encode()) for name in names.tolist()], kind="stable")
    fold = np.empty(len(names), np.intp)
    fold[order] = np.arange(len(names)) % min(_FOLDS, len(names))
    return fold
