"""Training data of the tumour CNN: patch sets and annotated slides, checked before training and split by patient."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ConfigError, ManifestError, PatchError
from he2her2.manifest import (
    Manifest,
    SlideRow,
    Split,
    check_consistent,
    hashed_patient,
    read_manifest,
    require_usable,
)
from he2her2.models import CnnSpec
from he2her2.training.run import fingerprint
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.patch_sets import Patches, PatchFile, patches_of_set

_USED: tuple[Split, ...] = ("train", "val")

TRAINING_ONLY, NEVER_TRAINED = -1, -2
"""In place of a fold: patches that no network is evaluated on, or that none is trained on."""


@dataclass(frozen=True, slots=True)
class TumourData:
    """Training data as the user gives it: a patch set, manifests or both.

    Attributes:
        patches: Patch sets.
        manifests: H&E slides whose annotations show invasive tumour; of those with a split, train and val are used.
        licence: Of the data, for the card.
        notice: Line that every output of the weights must show.
        annotation_classes: Classes of the annotations that are invasive tumour; by their names if empty.
    """

    patches: tuple[PatchFile, ...] = ()
    manifests: tuple[Path, ...] = ()
    licence: str = "not stated"
    notice: str = ""
    annotation_classes: tuple[str, ...] = ()

    def inputs(self, folds: int) -> dict[str, Any]:
        """All but the settings that changes the result, for `run.json`."""
        return {
            "patches": [(fingerprint(patches.path), patches.mpp) for patches in self.patches],
            "manifests": [fingerprint(path) for path in self.manifests],
            "annotation_classes": self.annotation_classes or None,
            "folds": folds,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Training data, checked.

    Attributes:
        sets: Patches of patch sets.
        cohorts: Manifests with those of their slides that patches are drawn from.
    """

    sets: tuple[Patches, ...]
    cohorts: tuple[tuple[Manifest, tuple[SlideRow, ...]], ...]

    @property
    def rows(self) -> tuple[SlideRow, ...]:
        """All slides."""
        return tuple(row for _, rows in self.cohorts for row in rows)

    @property
    def stated(self) -> dict[str, Split | None]:
        """The split that a manifest states for each patient."""
        return {row.patient: row.split for row in self.rows}

    @property
    def patients(self) -> dict[str, list[str]]:
        """Hashed ids of all patients used in training, for `run.json`."""
        names = {str(name) for patches in self.sets for name in np.unique(patches.patients[patches.known])}
        names |= {row.patient for row in self.rows}
        return {"training_patients": sorted(map(hashed_patient, names))}


def read_sources(data: TumourData, spec: CnnSpec) -> Sources:
    """Read and check the patch sets and the manifests.

    Raises:
        ConfigError: Neither was given.
        PatchError: A patch set cannot be used.
        ManifestError: A manifest cannot be used; with all problems of all that was given.
    """
    if not data.patches and not data.manifests:
        raise ConfigError("nothing to train on; give --patches, --manifest or both")
    sets: list[Patches] = []
    cohorts: list[tuple[Manifest, tuple[SlideRow, ...]]] = []
    problems: list[str] = []
    for path in data.manifests:
        try:
            manifest = read_manifest(path)
            cohorts.append((manifest, _annotated_rows(manifest)))
        except ManifestError as error:
            problems += error.problems
    problems += _contradictions(cohorts)
    stems = [patches.path.stem for patches in data.patches]
    problems += [f"two patch sets are named {stem}; rename one" for stem in sorted(set(stems)) if stems.count(stem) > 1]
    for patches in data.patches:
        try:
            sets.append(patches_of_set(patches.path, spec.input, patches.mpp))
        except PatchError as error:
            if not problems and len(data.patches) == 1:
                raise
            problems.append(str(error))
    if problems:
        raise ManifestError(problems)
    return Sources(tuple(sets), tuple(cohorts))


def _contradictions(cohorts: Sequence[tuple[Manifest, tuple[SlideRow, ...]]]) -> Iterator[str]:
    """Yield contradictions of manifests: a slide listed twice, a patient in two splits."""
    slides: dict[Path, str] = {}
    splits: dict[str, tuple[Split | None, str]] = {}
    for manifest, rows in cohorts:
        for row in rows:
            here, patient = f"{manifest.path}: line {row.line}", row.patient
            if (file := row.path.resolve()) in slides:
                yield f"{here}: {row.slide_id} is listed before ({slides[file]}); list it once"
            slides.setdefault(file, here)
            split, there = splits.setdefault(patient, (row.split, here))
            if split != row.split:
                found = f"is in {row.split or 'no split'} here, in {split or 'no split'} before ({there})"
                yield f"{here}: patient {row.patient_id!r} {found}; choose one"


def _annotated_rows(manifest: Manifest) -> tuple[SlideRow, ...]:
    """Slides of a manifest to train on: H&E, of the splits train and val where any slide has a split.

    Raises:
        ManifestError: It has none, contradicts itself, or a slide's files or annotations are missing; all problems.
    """
    slides = manifest.select(stain="HE")
    splits = [split for split in _USED if any(row.split == split for row in slides)]
    rows = tuple(row for row in slides if row.split in splits) if splits else slides
    problems: list[str] = []
    try:
        if splits:
            require_usable(manifest, stain="HE", label=None, splits=splits)
        else:
            check_consistent(manifest)
    except ManifestError as error:
        problems += error.problems
    otherwise = "leave split empty" if splits else "take the line out"
    problems += [
        f"{manifest.path}: line {row.line}: {row.slide_id} has no annotations; give its tumour, or {otherwise}"
        for row in rows
        if row.annotations is None
    ]
    if not rows:
        problems.append(f"{manifest.path}: no H&E slides to train on")
    if problems:
        raise ManifestError(problems)
    return rows


def assign_folds(patches: Patches, folds: int, seed: int) -> NDArray[np.int64]:
    """Assign patients to folds, in random order, each to the one with the fewest patches so far: (n,).

    Patches of unknown patients train every network, or none, as their set states.

    Raises:
        PatchError: There are fewer patients than folds.
    """
    fold = np.where(patches.split == "val", NEVER_TRAINED, TRAINING_ONLY)
    names, whose, counts = np.unique(patches.patients[patches.known], return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise PatchError(f"{len(names)} patients cannot fill {folds} folds; use fewer --folds")
    sizes = np.zeros(folds, np.int64)
    part = np.empty(len(names), np.int64)
    for name in np.random.default_rng(seed).permutation(len(names)):
        part[name] = sizes.argmin()
        sizes[part[name]] += counts[name]
    fold[patches.known] = part[whose]
    return fold


def assign_validation(
    patches: Patches, stated: Mapping[str, str | None], settings: TumourTraining
) -> NDArray[np.int64]:
    """Assign patients to validation (0) or training (-1): (n,).

    Patients are in the split that the manifest or the patch set states. Of the others, and of all where the manifest
    states no `val`, random ones are assigned to validation until they have `val_share` of the patches.
    """
    has_val = "val" in stated.values()
    names, whose, counts = np.unique(patches.patients, return_inverse=True, return_counts=True)
    of_set = dict(zip(patches.patients.tolist(), patches.split.tolist(), strict=True))
    splits = [of_set[str(name)] or (stated.get(str(name)) if has_val else None) for name in names]
    known = np.array([split is not None for split in splits])
    validates = np.array([split == "val" for split in splits])
    free = np.random.default_rng(settings.seed).permutation(np.flatnonzero(~known))
    wanted = settings.val_share * counts[free].sum()
    before = np.cumsum(counts[free]) - counts[free]
    validates[free[(before < wanted) & (np.arange(len(free)) < len(free) - 1)]] = True
    return np.where(validates[whose], 0, TRAINING_ONLY)


def check_folds(patches: Patches, fold: NDArray[np.int64]) -> None:
    """Check that every network has both classes in training and validation.

    Raises:
        PatchError: One has not; with all such folds, or both sides of a single split.
    """
    problems, n_folds = [], int(fold.max(initial=0)) + 1
    for k in range(n_folds):
        for verb, chosen in (("train", (fold != k) & (fold != NEVER_TRAINED)), ("validate", fold == k)):
            found = np.unique(patches.labels[chosen])
            if len(found) < 2:
                what = "no patches" if not len(found) else f"only {('other', 'invasive')[found[0]]} patches"
                problems.append(f"fold {k + 1} has {what} to {verb} on" if n_folds > 1 else f"{what} to {verb} on")
    if not problems:
        return
    if n_folds > 1:
        remedy = "give more patients of both kinds, or use fewer --folds"
    elif patches.known.any():
        remedy = "give more patients of both kinds, or another training.val_share or training.seed"
    else:
        remedy = "mark patches of both kinds as valid in the set, or name the patients"
    raise PatchError(f"{'; '.join(problems)}; {remedy}")
