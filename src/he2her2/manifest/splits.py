"""Splits by patient: stratified by label, in given shares or in folds, and on request with whole sites on one side."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from he2her2.errors import ManifestError
from he2her2.labels import Policy
from he2her2.manifest.checks import Label, label_of, near_sites
from he2her2.manifest.rows import SPLITS, Manifest, SlideRow, Split
from he2her2.manifest.stratification import sides_of_groups, stratified_counts


@dataclass(frozen=True, slots=True)
class Patient:
    """A unit of splitting.

    Attributes:
        key: Its key, see `patient_key`.
        label: Label for stratification.
        site: Its laboratory or hospital; its own key where the manifest does not state it.
    """

    key: str
    label: str
    site: str


@dataclass(frozen=True, slots=True)
class SplitCandidates:
    """Patients that can be split, and those that cannot.

    Attributes:
        patients: Those with a label, sorted by key.
        left_out: Names of patients without one; they get no split.
    """

    patients: tuple[Patient, ...]
    left_out: tuple[str, ...]


def patients_of(manifest: Manifest, label: Label = "her2_status", policy: Policy = Policy.GUIDELINE) -> SplitCandidates:
    """Gather a manifest's rows by patient.

    Raises:
        ManifestError: Rows of one patient disagree on the label or the site, a row could not be read, or no patient has
            a label: all problems.
    """
    problems = list(manifest.problems)
    by_key: dict[str, list[SlideRow]] = defaultdict(list)
    for row in manifest.rows:
        by_key[row.patient].append(row)
    patients, left_out = [], []
    for key, rows in sorted(by_key.items()):
        name = rows[0].patient_id
        labels = _different(rows, lambda row: label_of(row, label, policy))
        sites = _different(rows, lambda row: row.site)
        for what, found in ((label, labels), ("site", sites)):
            if len(found) > 1:
                where = ", ".join(str(row.line) for row in rows)
                problems.append(f"lines {where}: patient {name!r} has {what} {' and '.join(map(str, found))}")
        if labels:
            patients.append(Patient(key, labels[0], sites[0] if sites else key))
        else:
            left_out.append(name)
    if not patients:
        problems.append(f"no patient has {label}; there is nothing to stratify by")
    if problems:
        raise ManifestError([f"{manifest.path}: {problem}" for problem in problems])
    return SplitCandidates(tuple(patients), tuple(left_out))


def split_by_shares(
    patients: Sequence[Patient], shares: Mapping[Split, float], *, seed: int, by_site: bool = False
) -> dict[str, Split]:
    """Put every patient on one side.

    Without `by_site` each side's number of patients is within one of its share, every class is on every side where
    the sizes allow it, and each class keeps the shares as well as whole patients can. With `by_site` all patients of
    a site are on one side, and shares and classes are met as well as whole sites can.

    Args:
        patients: The patients.
        shares: Relative size of each split; 0 leaves it out.
        seed: The same gives the same split, whatever the order of `patients`.
        by_site: Keep sites whole.

    Returns:
        Split by patient key.

    Raises:
        ValueError: The shares are not usable.
        ManifestError: There are fewer patients, or sites, than sides, or no sites are stated.

    Example:
        >>> people = [Patient(f"p{i}", "positive" if i < 4 else "negative", "a") for i in range(10)]
        >>> sides = split_by_shares(people, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=0)
        >>> sorted(Counter(sides.values()).items())
        [('test', 2), ('train', 6), ('val', 2)]
    """
    sides = tuple(side for side in SPLITS if shares.get(side, 0) > 0)
    if not sides or any(share < 0 for share in shares.values()):
        raise ValueError(f"shares must be non-negative, and one positive; got {dict(shares)}")
    total = sum(shares[side] for side in sides)
    wanted = [shares[side] / total for side in sides]
    people = sorted(patients, key=lambda patient: patient.key)
    rng = Random(seed)  # noqa: S311  (not cryptography)
    index = _whole_sites(people, wanted, rng) if by_site else _by_label(people, wanted, rng)
    return {patient.key: sides[i] for patient, i in zip(people, index, strict=True)}


def split_in_folds(
    patients: Sequence[Patient], folds: int, *, repeats: int = 1, seed: int = 0, by_site: bool = False
) -> list[list[dict[str, Split]]]:
    """Cross-validation: in fold f, part f tests, part f + 1 validates (from three folds on) and the rest trains.

    Args:
        patients: The patients.
        folds: Number of parts.
        repeats: Number of repetitions, each with another shuffle.
        seed: The same gives the same folds, whatever the order of `patients`.
        by_site: Keep sites whole.

    Returns:
        For each repeat, for each fold, the split by patient key.

    Raises:
        ManifestError: There are fewer patients, or sites, than folds, or no sites are stated.
    """
    people = sorted(patients, key=lambda patient: patient.key)
    rng = Random(seed)  # noqa: S311  (not cryptography)
    return [
        [_fold(people, parts, f, folds) for f in range(folds)]
        for parts in (_parts(people, folds, rng, by_site=by_site) for _ in range(repeats))
    ]


def with_splits(manifest: Manifest, splits: Mapping[str, Split]) -> Manifest:
    """The manifest with new splits; patients that `splits` does not name get none."""
    rows = tuple(replace(row, split=splits.get(row.patient)) for row in manifest.rows)
    return replace(manifest, rows=rows)


def classes_missing(patients: Sequence[Patient], splits: Mapping[str, Split]) -> tuple[str, ...]:
    """One line for each side that lacks a class of the cohort."""
    found = Counter((splits[patient.key], patient.label) for patient in patients)
    classes = sorted({patient.label for patient in patients})
    sides = [side for side in SPLITS if side in set(splits.values())]
    return tuple(f"{side} has no {name} patient" for side in sides for name in classes if not found[side, name])


def site_doubts(rows: Sequence[SlideRow], patients: Sequence[Patient]) -> tuple[str, ...]:
    """Lines on why whole sites may not be on one side: sites written almost alike, and patients without a site.

    Args:
        rows: Slides.
        patients: Their patients that are split.
    """
    n = sum(patient.site == patient.key for patient in patients)
    counted = f"{n} of {len(patients)} patients have no site, and each counts as one"
    missing = (f"{counted}: some may be of sites on another side",) if 0 < n < len(patients) else ()
    return (*near_sites(rows), *missing)


def _different(rows: Sequence[SlideRow], value: Callable[[SlideRow], object]) -> list[str]:
    """The values of rows, each once, in order; None is skipped."""
    return list(dict.fromkeys(str(found) for found in map(value, rows) if found is not None))


def _by_label(people: Sequence[Patient], shares: Sequence[float], rng: Random) -> list[int]:
    """The side of each patient, stratified by label."""
    if len(people) < len(shares):
        raise ManifestError([f"{len(people)} labelled patients cannot fill {len(shares)} splits"])
    by_label = defaultdict(list)
    for i, patient in enumerate(people):
        by_label[patient.label].append(i)
    classes = sorted(by_label)
    numbers = stratified_counts([len(by_label[name]) for name in classes], shares)
    side_of = [0] * len(people)
    for name, row in zip(classes, numbers, strict=True):
        members = by_label[name]
        rng.shuffle(members)
        sides = [side for side, n in enumerate(row) for _ in range(n)]
        for i, side in zip(members, sides, strict=True):
            side_of[i] = side
    return side_of


def _whole_sites(people: Sequence[Patient], shares: Sequence[float], rng: Random) -> list[int]:
    """The side of each patient, with all patients of a site on one side."""
    if all(patient.site == patient.key for patient in people):
        raise ManifestError(["no patient has a site, so sites cannot be kept whole; name the sites in a column site"])
    sites = sorted({patient.site for patient in people})
    if len(sites) < len(shares):
        raise ManifestError([f"{len(sites)} sites cannot fill {len(shares)} splits whole; split without --by-site"])
    classes = sorted({patient.label for patient in people})
    counts = Counter((patient.site, patient.label) for patient in people)
    side_of = sides_of_groups([[counts[site, name] for name in classes] for site in sites], shares, rng)
    by_site = dict(zip(sites, side_of, strict=True))
    return [by_site[patient.site] for patient in people]


def _parts(people: Sequence[Patient], folds: int, rng: Random, *, by_site: bool) -> list[int]:
    """The part of each patient."""
    return (_whole_sites if by_site else _by_label)(people, [1 / folds] * folds, rng)


def _fold(people: Sequence[Patient], parts: Sequence[int], fold: int, folds: int) -> dict[str, Split]:
    """The split in which part `fold` tests."""
    val = (fold + 1) % folds if folds > 2 else None
    sides: dict[int | None, Split] = {val: "val", fold: "test"}
    return {patient.key: sides.get(part, "train") for patient, part in zip(people, parts, strict=True)}
