"""The manifests of an ablation, read and checked together: who learns, who is tested, and that nobody is both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from he2her2.errors import ManifestError
from he2her2.evaluation import PaperCohort
from he2her2.labels import Policy
from he2her2.manifest import (
    Label,
    Manifest,
    SlideRow,
    Split,
    Stain,
    patient_key,
    read_manifest,
    require_usable,
    shared_patients,
)

_NAMED: Mapping[str, PaperCohort] = {"her2sc": "HER2SC", "brca": "BRCA", "tcga": "BRCA"}
_SHOWN = 5
COHORTS: tuple[PaperCohort, ...] = get_args(PaperCohort)


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
class Cohort:
    """A test cohort.

    Attributes:
        name: As the user calls it.
        rows: Its labelled H&E slides.
        paper: The paper's cohort that stands beside it; None for none.
    """

    name: str
    rows: tuple[SlideRow, ...]
    paper: PaperCohort | None


@dataclass(frozen=True, slots=True)
class Study:
    """What learns and what is tested.

    Attributes:
        ihc_rows: IHC slides of train and val.
        training_rows: H&E slides of train and val.
        tests: The test cohorts.
    """

    ihc_rows: tuple[SlideRow, ...]
    training_rows: tuple[SlideRow, ...]
    tests: tuple[Cohort, ...]


def read_study(files: StudyFiles, weights: Sequence[Path], policy: Policy, *, scored: bool = False) -> Study:
    """Read and check every manifest.

    Args:
        files: The manifests.
        weights: Folders of weights that will be used; whoever had a say in them must not be tested.
        policy: Decides a status that a manifest does not state.
        scored: The H&E slides that train need an IHC score as well.

    Raises:
        ManifestError: All that is wrong with all of them, a patient who both teaches and tests among it.
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
    papers = paper_cohorts(list(tests))
    cohorts = []
    for name, manifest in tests.items():
        if manifest is None:
            continue
        _check(manifest, problems, stain="HE", label="her2_status", splits=("test",), policy=policy)
        cohort = Cohort(name, manifest.select(stain="HE", split="test"), papers[name])
        problems += _leaks(manifest, cohort.rows, [teaching for teaching in (train, ihc) if teaching], weights)
        cohorts.append(cohort)
    if problems or train is None:
        raise ManifestError(list(dict.fromkeys(problems)))
    return Study(_learning(ihc, "IHC") if ihc else (), _learning(train, "HE"), tuple(cohorts))


def paper_cohorts(names: Sequence[str]) -> dict[str, PaperCohort | None]:
    """Beside which of the paper's cohorts each test cohort is put: by its name; two that tell nothing, in order.

    Example:
        >>> paper_cohorts(["brca-like", "home"]), paper_cohorts(["here", "there"])
        ({'brca-like': 'BRCA', 'home': None}, {'here': 'HER2SC', 'there': 'BRCA'})
    """
    found: dict[str, PaperCohort | None] = dict.fromkeys(names)
    for name in names:
        meant = next((cohort for word, cohort in _NAMED.items() if word in name.lower()), None)
        if meant not in found.values():
            found[name] = meant
    if len(names) == len(COHORTS) and not any(found.values()):
        return dict(zip(names, COHORTS, strict=True))
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
    """A manifest that knows no splits is tested whole."""
    if manifest is None or any(row.split for row in manifest.rows):
        return manifest
    return replace(manifest, rows=tuple(replace(row, split="test") for row in manifest.rows))


def _learning(manifest: Manifest, stain: Stain) -> tuple[SlideRow, ...]:
    return (*manifest.select(stain=stain, split="train"), *manifest.select(stain=stain, split="val"))


def _leaks(
    tested: Manifest, rows: Sequence[SlideRow], teaching: Sequence[Manifest], weights: Sequence[Path]
) -> Iterator[str]:
    """Patients of a test cohort who have a say in what is tested."""
    names = {patient_key(row.patient_id): row.patient_id for row in rows}
    for manifest in teaching:
        taught = {patient_key(row.patient_id) for row in manifest.rows if row.split in ("train", "val")}
        if shared := sorted(names[key] for key in names.keys() & taught):
            yield f"{tested.path}: {_some(shared)} to be tested, and in train or val of {manifest.path}; choose one"
    for folder in weights:
        if shared_with := shared_patients(rows, folder):
            yield f"{tested.path}: {_some(shared_with)} to be tested, and chose the weights in {folder}; leave them out"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} patients ({shown}) are" if len(names) > 1 else f"patient {shown} is"
