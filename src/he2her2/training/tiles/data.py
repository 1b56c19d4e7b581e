"""Training data of the tile CNN: slides of its splits or folds, and initial weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ManifestError, WeightsError, few_of
from he2her2.manifest import (
    Manifest,
    SlideRow,
    Split,
    Stain,
    hashed_patient,
    patients_among,
    patients_of,
    patients_used,
    read_manifest,
    require_usable,
    split_in_folds,
)
from he2her2.models import CARD_FILE, CnnSpec, load_tensors, read_card, verify
from he2her2.training.report import distinct_notices
from he2her2.training.run import fingerprint

_ROLE: Literal["tile_cnn"] = "tile_cnn"


@dataclass(frozen=True, slots=True)
class TileData:
    """Slides that a tile CNN is trained on, and its initial weights.

    Attributes:
        manifest: Slides with an IHC score.
        stain: Of the slides; H&E tiles inherit the IHC score of their patient's tumour, to adapt to H&E.
        init: Initial weights: a folder with `tile_cnn/`, or that folder itself; none draws them from the seed.
        licence: Of the slides, for the card.
        notice: Line that every output of the weights must show.
        annotation_classes: Classes of the annotations that are tumour; by their names if empty.
    """

    manifest: Path
    stain: Stain = "IHC"
    init: Path | None = None
    licence: str = "not stated"
    notice: str = ""
    annotation_classes: tuple[str, ...] = ()

    @property
    def init_folder(self) -> Path | None:
        """Folder of the initial weights."""
        if self.init is None:
            return None
        return self.init / _ROLE if (self.init / _ROLE).is_dir() else self.init

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices of the outputs: the user's, and that of the initial weights."""
        folder = self.init_folder
        return distinct_notices(self.notice, read_card(folder, _ROLE).notice if folder else "")

    def inputs(self, folds: int) -> dict[str, Any]:
        """All but the settings that changes the result, for `run.json`."""
        folder = self.init_folder
        return {
            "manifest": fingerprint(self.manifest),
            "stain": self.stain,
            "annotation_classes": self.annotation_classes or None,
            "init": None if folder is None else fingerprint(folder / CARD_FILE),
            "folds": folds,
        }


@dataclass(frozen=True, slots=True)
class TileSplit:
    """Slides of a training by their use; no patient has two.

    Attributes:
        train: Training slides of every network.
        val: Validation slides, which pick the epoch.
        test: Test slides.
        folds: Folds of a cross-validation.
    """

    train: tuple[SlideRow, ...]
    val: tuple[SlideRow, ...]
    test: tuple[SlideRow, ...] = ()
    folds: tuple[tuple[SlideRow, ...], ...] = ()

    @property
    def pool(self) -> tuple[SlideRow, ...]:
        """Slides of all folds."""
        return tuple(row for fold in self.folds for row in fold)

    @property
    def patients(self) -> dict[str, list[str]]:
        """Hashed ids of the patients used in training, for `run.json`."""
        uses = {"training_patients": (*self.train, *self.pool), "validation_patients": self.val}
        return {use: sorted({hashed_patient(row.patient_id) for row in rows}) for use, rows in uses.items()}

    @property
    def rows(self) -> tuple[SlideRow, ...]:
        """All slides."""
        return (*self.train, *self.val, *self.test, *self.pool)


def read_split(data: TileData, n_folds: int, seed: int) -> TileSplit:
    """Read the manifest and assign each slide to its use.

    Without folds that is its split, and train and val are needed. With folds, patients without a split are left out in
    turn, or, where every slide has one, those of train and val; slides of test are then not used.

    Args:
        data: Slides.
        n_folds: Number of folds; 0 for none.
        seed: Of the folds.

    Raises:
        ManifestError: The manifest cannot be used; with all its problems.
    """
    manifest = read_manifest(data.manifest)
    if n_folds:
        return _in_folds(manifest, data.stain, n_folds, seed)
    test = manifest.select(stain=data.stain, split="test")
    splits: list[Split] = ["train", "val", *(["test"] if test else [])]  # type: ignore[list-item]
    require_usable(manifest, stain=data.stain, label="ihc_score", splits=splits)
    train, val = (manifest.select(stain=data.stain, split=split) for split in splits[:2])
    return TileSplit(train, val, test)


def _in_folds(manifest: Manifest, stain: Stain, n_folds: int, seed: int) -> TileSplit:
    """Assign patients to folds; those with a split keep it."""
    slides = manifest.select(stain=stain)
    free = tuple(row for row in slides if row.split is None and row.ihc_score is not None)
    pool = free or tuple(row for row in slides if row.split in ("train", "val"))
    train, val = (tuple(row for row in slides if free and row.split == split) for split in ("train", "val"))
    learning = tuple(replace(row, split="train") for row in (*train, *pool))
    splits: list[Split] = ["train", "val"] if val else ["train"]
    checked = replace(manifest, rows=(*learning, *val))
    problems = [*_patients_in_both(manifest, train, pool)]
    try:
        require_usable(checked, stain=stain, label="ihc_score", splits=splits)
    except ManifestError as error:
        problems += error.problems
    if problems:
        raise ManifestError(problems)
    cohort = patients_of(replace(manifest, rows=pool), "ihc_score")
    assigned = split_in_folds(cohort.patients, n_folds, seed=seed)[0]
    folds = tuple(tuple(row for row in pool if fold[row.patient] == "test") for fold in assigned)
    return TileSplit(train, val, (), folds)


def _patients_in_both(manifest: Manifest, train: Sequence[SlideRow], pool: Sequence[SlideRow]) -> Iterator[str]:
    """Yield patients with slides both in train and in a fold."""
    always = {row.patient for row in train}
    for row in pool:
        if row.patient in always:
            found = f"patient {row.patient_id!r} has other slides in train; choose one split"
            yield f"{manifest.path}: line {row.line}: {found}"


def load_weights(data: TileData, spec: CnnSpec, split: TileSplit) -> dict[str, NDArray[np.float32]] | None:
    """Initial weights; none where they are drawn from the seed.

    Raises:
        WeightsError: They are missing, damaged, or not of this network.
        ManifestError: They were trained with patients who are to validate or to be evaluated.
    """
    folder = data.init_folder
    if folder is None:
        return None
    card = read_card(folder, _ROLE)
    if card.network != spec:
        raise WeightsError(
            f"{folder}: holds a {card.network.name} where a {spec.name} is to be trained; "
            f"use other weights, or --set networks.tile_cnn={card.network.name}"
        )
    verify(folder, card)
    _check_leaks(folder, split)
    return load_tensors(folder, card)


def _check_leaks(folder: Path, split: TileSplit) -> None:
    """Raise unless evaluated patients were not used for the initial weights, and validation patients not trained on."""
    used = patients_used(folder)
    problems = [
        *_shared("be evaluated", (*split.test, *split.pool), used.hashes, folder),
        *_shared("validate", split.val, used.trained, folder),
    ]
    if problems:
        raise ManifestError(problems)


def _shared(verb: str, rows: Sequence[SlideRow], hashes: frozenset[str], folder: Path) -> list[str]:
    if not (names := patients_among(rows, hashes)):
        return []
    found = f"was trained with {len(names)} patients who are to {verb} here ({few_of(names)})"
    return [f"{folder}: {found}; use other weights"]
