"""Which slides a tile training learns from, is judged by, and leaves out; and the weights that it starts from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ManifestError, WeightsError
from he2her2.manifest import Manifest, SlideRow, patient_key, read_manifest, require
from he2her2.manifest.provenance import patient_mark, used_for_choice
from he2her2.manifest.splits import patients_of, split_in_folds
from he2her2.manifest.table import Split, Stain
from he2her2.models.weights import CARD_FILE, load_tensors, read_card, verify
from he2her2.models.zoo import CnnSpec
from he2her2.training.run import fingerprint

_ROLE: Literal["tile_cnn"] = "tile_cnn"


@dataclass(frozen=True, slots=True)
class TileData:
    """What a tile CNN is trained on, and what it starts from.

    Attributes:
        manifest: Slides with an IHC score.
        stain: Of the slides; H&E tiles inherit the IHC score of their patient's tumour, to adapt to H&E.
        init: Weights to start from: a folder with `tile_cnn/`, or that folder itself; none draws them from the seed.
        licence: Of the slides, for the card.
        notice: What every output of the weights must say.
    """

    manifest: Path
    stain: Stain = "IHC"
    init: Path | None = None
    licence: str = "not stated"
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """What each slide is for; no patient is in two parts.

    Attributes:
        train: Always trains.
        val: Chooses the epoch.
        test: Is judged at the end.
        folds: Each is left out once, and judged by the network that learned without it.
    """

    train: tuple[SlideRow, ...]
    val: tuple[SlideRow, ...]
    test: tuple[SlideRow, ...] = ()
    folds: tuple[tuple[SlideRow, ...], ...] = ()

    @property
    def pool(self) -> tuple[SlideRow, ...]:
        """All that are left out once."""
        return tuple(row for fold in self.folds for row in fold)

    @property
    def rows(self) -> tuple[SlideRow, ...]:
        """All slides."""
        return (*self.train, *self.val, *self.test, *self.pool)


def part_rows(data: TileData, n_folds: int, seed: int) -> Parts:
    """Say what each slide is for.

    Without folds that is its split, and train and val are needed. With folds, patients without a split are left out in
    turn, or, where every slide has one, those of train and val; slides of test are then not used.

    Args:
        data: What the tile CNN is trained on.
        n_folds: How many folds; 0 for none.
        seed: Of the folds.

    Raises:
        ManifestError: All that is wrong with the manifest.
    """
    manifest = read_manifest(data.manifest)
    if n_folds:
        return _in_folds(manifest, data.stain, n_folds, seed)
    test = manifest.select(stain=data.stain, split="test")
    splits: list[Split] = ["train", "val", *(["test"] if test else [])]  # type: ignore[list-item]
    require(manifest, stain=data.stain, label="ihc_score", splits=splits)
    train, val = (manifest.select(stain=data.stain, split=split) for split in splits[:2])
    return Parts(train, val, test)


def _in_folds(manifest: Manifest, stain: Stain, n_folds: int, seed: int) -> Parts:
    """Patients left out in turn; those who always train or validate stay where they are."""
    slides = manifest.select(stain=stain)
    free = tuple(row for row in slides if row.split is None and row.ihc_score is not None)
    pool = free or tuple(row for row in slides if row.split in ("train", "val"))
    train, val = (tuple(row for row in slides if free and row.split == split) for split in ("train", "val"))
    learning = tuple(replace(row, split="train") for row in (*train, *pool))
    splits: list[Split] = ["train", "val"] if val else ["train"]
    checked = replace(manifest, rows=(*learning, *val))
    problems = [*_always_and_left_out(manifest, train, pool)]
    try:
        require(checked, stain=stain, label="ihc_score", splits=splits)
    except ManifestError as error:
        problems += error.problems
    if problems:
        raise ManifestError(problems)
    cohort = patients_of(replace(manifest, rows=pool), "ihc_score")
    dealt = split_in_folds(cohort.patients, n_folds, seed=seed)[0]
    folds = tuple(tuple(row for row in pool if fold[patient_key(row.patient_id)] == "test") for fold in dealt)
    return Parts(train, val, (), folds)


def _always_and_left_out(manifest: Manifest, train: Sequence[SlideRow], pool: Sequence[SlideRow]) -> Iterator[str]:
    """Patients of whom one slide always trains and another is to be left out."""
    always = {patient_key(row.patient_id) for row in train}
    for row in pool:
        if patient_key(row.patient_id) in always:
            found = f"patient {row.patient_id!r} has other slides in train; choose one split"
            yield f"{manifest.path}: line {row.line}: {found}"


def load_start(data: TileData, spec: CnnSpec, parts: Parts) -> dict[str, NDArray[np.float32]] | None:
    """The weights to start from; none where they are to be drawn.

    Raises:
        WeightsError: They are missing, damaged, or not of this network.
        ManifestError: They have learned from patients who shall judge.
    """
    folder = start_folder(data)
    if folder is None:
        return None
    card = read_card(folder, _ROLE)
    if card.network != spec:
        raise WeightsError(
            f"{folder}: holds a {card.network.name} where a {spec.name} is to be trained; "
            f"use other weights, or --set networks.tile_cnn={card.network.name}"
        )
    verify(folder, card)
    _refuse_leak(folder, parts)
    return load_tensors(folder, card)


def start_folder(data: TileData) -> Path | None:
    """Where the weights to start from lie."""
    if data.init is None:
        return None
    return data.init / _ROLE if (data.init / _ROLE).is_dir() else data.init


def inputs(data: TileData, n_folds: int) -> dict[str, Any]:
    """What besides settings changes the result, for `run.json`."""
    folder = start_folder(data)
    return {
        "manifest": fingerprint(data.manifest),
        "stain": data.stain,
        "init": None if folder is None else fingerprint(folder / CARD_FILE),
        "folds": n_folds,
    }


def notices(data: TileData) -> tuple[str, ...]:
    """What every output must say: what the user gave, and what the weights say that the training starts from."""
    folder = start_folder(data)
    found = [data.notice, read_card(folder, _ROLE).notice if folder else ""]
    return tuple(dict.fromkeys(notice for notice in found if notice))


def _refuse_leak(folder: Path, parts: Parts) -> None:
    """Whoever judges must have had no say in the weights to start from; whoever validates must not have taught them."""
    used = used_for_choice(folder)
    problems = [
        *_shared("judge", (*parts.test, *parts.pool), used.marks, folder),
        *_shared("validate", parts.val, used.trained, folder),
    ]
    if problems:
        raise ManifestError(problems)


def _shared(verb: str, rows: Sequence[SlideRow], marks: frozenset[str], folder: Path) -> list[str]:
    names = sorted({row.patient_id for row in rows if patient_mark(row.patient_id) in marks})
    if not names:
        return []
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"{folder}: was trained with {len(names)} patients who are to {verb} here ({shown}); use other weights"]
