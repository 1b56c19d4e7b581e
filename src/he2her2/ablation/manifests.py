"""Data of an ablation: its manifests, checked together, and its weights; no test patient is used in training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from he2her2.errors import ManifestError, few_of
from he2her2.evaluation import PaperCohort
from he2her2.labels import Policy
from he2her2.manifest import (
    Label,
    Manifest,
    SlideRow,
    Split,
    Stain,
    names_of_patients,
    read_manifest,
    require_usable,
    shared_patients,
)
from he2her2.models import CARD_FILE
from he2her2.training import fingerprint
from he2her2.training.slides import AnnotationsUse

_NAMED: Mapping[str, PaperCohort] = {"her2sc": "HER2SC", "brca": "BRCA", "tcga": "BRCA"}
_COHORTS: tuple[PaperCohort, ...] = get_args(PaperCohort)


@dataclass(frozen=True, slots=True)
class StudyFiles:
    """The manifests of an ablation.

    Attributes:
        train: H&E slides with a status, in the splits train and val.
        tests: H&E slides with a status, by the cohort's name; of a manifest with splits, those of test.
        ihc: IHC slides with a score, in the splits train and val; None where tile weights are given.
    """

    train: Path
    tests: Mapping[str, Path]
    ihc: Path | None = None


@dataclass(frozen=True, slots=True)
class TestCohort:
    """A test cohort.

    Attributes:
        name: Given by the user.
        rows: Its labelled H&E slides.
        paper: The paper's cohort to compare with; None for none.
    """

    name: str
    rows: tuple[SlideRow, ...]
    paper: PaperCohort | None


@dataclass(frozen=True, slots=True)
class Study:
    """Slides of an ablation.

    Attributes:
        ihc_rows: IHC slides of train and val.
        training_rows: H&E slides of train and val.
        tests: The test cohorts.
    """

    ihc_rows: tuple[SlideRow, ...]
    training_rows: tuple[SlideRow, ...]
    tests: tuple[TestCohort, ...]


@dataclass(frozen=True, slots=True)
class AblationData:
    """Manifests and weights of an ablation.

    Attributes:
        files: The manifests.
        tile_weights: Folder with a `tile_cnn/` trained on IHC, in place of training it.
        adapt: Train every tile CNN on H&E tiles, which inherit their slide's IHC score, before training on slides: a
            step of ours that the paper does not have.
        weights: Folder with the `tumour_cnn/` that finds tumour.
        annotations_use: Use of the annotations of H&E slides, in training and test.
        annotation_classes: Classes of annotations that are tumour; by their names if empty.
        policy: Derives a status that a manifest does not state.
        notice: Line that every output must show.
        licence: Of the slides, for the cards.
    """

    files: StudyFiles
    tile_weights: Path | None = None
    adapt: bool = False
    weights: Path | None = None
    annotations_use: AnnotationsUse = "intersect"
    annotation_classes: tuple[str, ...] = ()
    policy: Policy = Policy.GUIDELINE
    notice: str = ""
    licence: str = "not stated"

    def read(self) -> Study:
        """Read and check the manifests, together.

        Raises:
            ManifestError: All problems of all manifests.
        """
        weights = [folder for folder in (self.tile_weights, self.weights) if folder]
        return _read_study(self.files, weights, self.policy, scored=self.adapt)

    @property
    def inputs(self) -> dict[str, Any]:
        """All but the settings that changes the result, for `run.json`."""
        files = self.files
        tumour = self.annotations_use != "replace" and self.weights is not None
        return {
            "ihc": fingerprint(files.ihc),
            "train": fingerprint(files.train),
            "tests": {name: fingerprint(path) for name, path in files.tests.items()},
            "annotations_use": self.annotations_use,
            "annotation_classes": self.annotation_classes or None,
            "adapt": self.adapt,
            "policy": self.policy.value,
            "notice": self.notice,
            "licence": self.licence,
            "tile_cnn": self.tile_weights and fingerprint(self.tile_weights / "tile_cnn" / CARD_FILE),
            "tumour_cnn": fingerprint(self.weights / "tumour_cnn" / CARD_FILE) if tumour and self.weights else None,
        }


def _read_study(files: StudyFiles, weights: Sequence[Path], policy: Policy, *, scored: bool = False) -> Study:
    """Read and check every manifest.

    Args:
        files: The manifests.
        weights: Folders of weights; test patients must not be used in them.
        policy: Derives a status that a manifest does not state.
        scored: Training H&E slides need an IHC score as well.

    Raises:
        ManifestError: All problems of all manifests, patients both in training and test among them.
    """
    problems: list[str] = []
    train = _read(files.train, problems)
    ihc = _read(files.ihc, problems) if files.ihc else None
    tests = {name: _all_tested(_read(path, problems)) for name, path in files.tests.items()}
    if train:
        _check(train, problems, stain="HE", label="her2_status", splits=("train", "val"), policy=policy)
    if train and scored:
        _check(train, problems, stain="HE", label="ihc_score", splits=("train", "val"), policy=policy)
    if ihc:
        _check(ihc, problems, stain="IHC", label="ihc_score", splits=("train", "val"), policy=policy)
    papers = _paper_cohorts(list(tests))
    cohorts = []
    for name, manifest in tests.items():
        if manifest is None:
            continue
        _check(manifest, problems, stain="HE", label="her2_status", splits=("test",), policy=policy)
        cohort = TestCohort(name, manifest.select(stain="HE", split="test"), papers[name])
        problems += _leaks(manifest, cohort.rows, [manifest for manifest in (train, ihc) if manifest], weights)
        cohorts.append(cohort)
    if problems or train is None:
        raise ManifestError(list(dict.fromkeys(problems)))
    return Study(_training_rows(ihc, "IHC") if ihc else (), _training_rows(train, "HE"), tuple(cohorts))


def _paper_cohorts(names: Sequence[str]) -> dict[str, PaperCohort | None]:
    """The paper's cohort to compare each test cohort with: by name; two names without a hint are taken in order.

    Example:
        >>> _paper_cohorts(["brca-like", "home"]), _paper_cohorts(["here", "there"])
        ({'brca-like': 'BRCA', 'home': None}, {'here': 'HER2SC', 'there': 'BRCA'})
    """
    found: dict[str, PaperCohort | None] = dict.fromkeys(names)
    for name in names:
        meant = next((cohort for word, cohort in _NAMED.items() if word in name.lower()), None)
        if meant not in found.values():
            found[name] = meant
    if len(names) == len(_COHORTS) and not any(found.values()):
        return dict(zip(names, _COHORTS, strict=True))
    return found


def _read(path: Path, problems: list[str]) -> Manifest | None:
    try:
        return read_manifest(path)
    except ManifestError as error:
        problems += error.problems
        return None


def _check(
    manifest: Manifest, problems: list[str], *, stain: Stain, label: Label, splits: Sequence[Split], policy: Policy
) -> None:
    try:
        require_usable(manifest, stain=stain, label=label, splits=splits, policy=policy)
    except ManifestError as error:
        problems += error.problems


def _all_tested(manifest: Manifest | None) -> Manifest | None:
    """Assign all rows to the test split where no row has a split."""
    if manifest is None or any(row.split for row in manifest.rows):
        return manifest
    return replace(manifest, rows=tuple(replace(row, split="test") for row in manifest.rows))


def _training_rows(manifest: Manifest, stain: Stain) -> tuple[SlideRow, ...]:
    return (*manifest.select(stain=stain, split="train"), *manifest.select(stain=stain, split="val"))


def _leaks(
    tested: Manifest, rows: Sequence[SlideRow], training: Sequence[Manifest], weights: Sequence[Path]
) -> Iterator[str]:
    """Yield test patients that are used in training or in given weights."""
    names = names_of_patients(rows)
    for manifest in training:
        used = {row.patient for row in manifest.rows if row.split in ("train", "val")}
        if shared := sorted(names[key] for key in names.keys() & used):
            yield f"{tested.path}: {_some(shared)} to be tested, and in train or val of {manifest.path}; choose one"
    for folder in weights:
        if shared_with := shared_patients(rows, folder):
            used_in = f"used in training the weights in {folder}"
            yield f"{tested.path}: {_some(shared_with)} to be tested, and {used_in}; leave them out"


def _some(names: Sequence[str]) -> str:
    shown = few_of(names)
    return f"{len(names)} patients ({shown}) are" if len(names) > 1 else f"patient {shown} is"
