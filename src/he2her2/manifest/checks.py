"""Checks of a manifest before anything runs; all problems are reported at once."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from he2her2.errors import ManifestError, few_of, quoted
from he2her2.files import file_identity, url_of
from he2her2.labels import Her2Status, IhcScore, Policy, apply_guideline
from he2her2.manifest.near_ids import block_groups, near_groups
from he2her2.manifest.rows import Manifest, SlideRow, Split, Stain
from he2her2.units import PLAUSIBLE_MPP

_SHOWN = 5

Label: TypeAlias = Literal["ihc_score", "her2_status"]

_ENDS = 3
_LONGEST_PATH = 500


def label_of(row: SlideRow, label: Label, policy: Policy = Policy.GUIDELINE) -> IhcScore | Her2Status | None:
    """Return the label of a slide, for training or evaluation; None where the manifest leaves it open."""
    if label == "ihc_score":
        return row.ihc_score
    status = row.status(policy)
    return None if status == Her2Status.UNDETERMINED else status


def require_usable(
    manifest: Manifest,
    *,
    stain: Stain,
    label: Label | None,
    splits: Sequence[Split],
    policy: Policy = Policy.GUIDELINE,
) -> None:
    """Raise unless a manifest can be used: consistent, with files, and with labels in every split.

    Args:
        manifest: The cohort.
        stain: Stain of the slides that will be used.
        label: Label that they must have; None: no label.
        splits: The splits that will be used; each needs slides, and of more than one class.
        policy: Derives a status that the manifest does not state.

    Raises:
        ManifestError: All problems: cells that cannot be understood, a slide named twice, a patient in two splits;
            and of the slides that will be used, missing files, missing labels, an empty split and one with a single
            class.
    """
    used = [row for row in manifest.select(stain=stain) if row.split in splits]
    problems = [*manifest.problems, *_inconsistencies(manifest.rows), *_missing_files(used)]
    problems += _not_labelled(used, label, policy) if label else ()
    for split in splits:
        problems += _poor_split(manifest, split, stain, label, policy)
    raise_problems(manifest, problems)


def check_consistent(manifest: Manifest, *, files: bool = True) -> None:
    """Raise if a manifest contradicts itself, names missing files or no slide, whatever its use.

    Args:
        manifest: The cohort.
        files: False for slides that need not be there: their files are not looked at.

    Raises:
        ManifestError: All problems.
    """
    rows = manifest.rows
    empty = [] if rows or manifest.problems else ["names no slide; give it a row for each below the headings"]
    of_files = [*_files_of_several(rows), *_missing_files(rows)] if files else []
    raise_problems(manifest, [*manifest.problems, *_inconsistencies(rows), *of_files, *empty])


def contradictions(manifest: Manifest) -> tuple[str, ...]:
    """List the rows whose stated status contradicts their tests, and those whose tests contradict each other."""
    found = []
    for row in manifest.rows:
        stated = row.her2_status
        tests = None if row.ihc_score is None and row.ish is None else apply_guideline(row.ihc_score, row.ish)
        if tests is None:
            continue
        if stated not in (None, tests.status) and Her2Status.UNDETERMINED not in (stated, tests.status):
            found.append(f"line {row.line}: stated {stated}, but {_tests(row)} amount to {tests.status}: {tests.rule}")
        elif tests.conflict:
            found.append(f"line {row.line}: {_tests(row)} contradict each other")
    return tuple(found)


def label_doubts(manifest: Manifest) -> tuple[str, ...]:
    """Lines about labels and sites that cannot all be true, one for each kind: said wherever labels are used."""
    found = []
    if against := contradictions(manifest):
        found.append(f"{len(against)} of {len(manifest.rows)} rows contradict themselves, such as {against[0]}")
    return (*found, *differing_patients(manifest))


def differing_patients(manifest: Manifest) -> tuple[str, ...]:
    """Lines about patients whose slides differ in what a patient has once: HER2 status and site."""
    return (
        *_differing("HER2 status", manifest.rows, lambda row: label_of(row, "her2_status")),
        *_differing("site", manifest.rows, lambda row: row.site),
    )


def _differing(what: str, rows: Sequence[SlideRow], value: Callable[[SlideRow], str | None]) -> Iterator[str]:
    """A line that names the patients of whom several values are known; no line without any."""
    values: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if (found := value(row)) is not None:
            values[row.patient].setdefault(found, row.patient_id)
    if several := sorted(min(of_patient.values()) for of_patient in values.values() if len(of_patient) > 1):
        named = few_of(several)
        yield f"{len(several)} of {len(values)} patients have slides of more than one {what}: {named}"


def near_patients(rows: Iterable[SlideRow]) -> tuple[str, ...]:
    """List patients whose names differ only in letter case, zeros, blanks, dashes or Unicode form, with their lines.

    A line more tells of those whose names differ only in what may be a block or a slide.
    """
    first = {row.patient: (row.line, row.patient_id) for row in reversed([*rows])}
    found = _written_alike("patients", first)
    if blocks := block_groups(first):
        named = " and ".join(quoted(first[key][1]) for key in blocks[0])
        more = f"; {len(blocks) - 1} more such groups" if len(blocks) > 1 else ""
        found += (f"patients {named} may be blocks or slides of one patient: if so, give them one name{more}",)
    return found


def near_sites(rows: Iterable[SlideRow]) -> tuple[str, ...]:
    """List sites whose names differ only so, with their lines: each would be a site of its own."""
    return _written_alike("sites", {row.site: (row.line, row.site) for row in reversed([*rows]) if row.site})


def _written_alike(what: str, first: Mapping[str, tuple[int, str]]) -> tuple[str, ...]:
    """A line for each group of names that are nearly the same.

    Args:
        what: The names' bearers.
        first: Line and text at which each comes first.
    """
    found = []
    for group in near_groups(first):
        named = [f"{quoted(text)} (line {line})" for line, text in sorted(first[key] for key in group)]
        found.append(f"{what} {' and '.join(named)} are written almost alike: if they are one, give them one name")
    return tuple(found)


def raise_problems(manifest: Manifest, problems: Sequence[str]) -> None:
    """Raise `ManifestError` if there are problems, sorted by the manifest's lines."""
    if problems:
        raise ManifestError([f"{manifest.path}: {problem}" for problem in sorted(problems, key=_line)])


def _line(problem: str) -> int:
    """The first line that a problem names; those of the whole manifest come last."""
    number = problem.removeprefix("line ").removeprefix("lines ").split(":")[0].split(",")[0].split(" ")[0]
    return int(number) if number.isdigit() else 2**63


def _inconsistencies(rows: Sequence[SlideRow]) -> Iterator[str]:
    """Slides named twice, scales that no microscope has, and patients and files in two splits."""
    yield from _twice(rows)
    low, high = PLAUSIBLE_MPP
    for row in rows:
        if row.mpp is not None and not low <= row.mpp <= high:
            yield f"line {row.line}: mpp: {row.mpp:g} is no microscope's; give µm per px, {low:g} to {high:g}"
    yield from _on_two_sides(rows)
    yield from _files_on_two_sides(rows)


def _twice(rows: Sequence[SlideRow]) -> Iterator[str]:
    by_name = defaultdict(list)
    for row in rows:
        by_name[row.slide_id.casefold()].append(row)
    for found in by_name.values():
        if len(found) > 1:
            yield f"{_lines(found)}: slide_id {found[0].slide_id!r} is given {len(found)} times"


def _on_two_sides(rows: Sequence[SlideRow]) -> Iterator[str]:
    by_patient = defaultdict(list)
    for row in rows:
        if row.split is not None:
            by_patient[row.patient].append(row)
    for found in by_patient.values():
        splits = list(dict.fromkeys(str(row.split) for row in found))
        if len(splits) > 1:
            yield f"{_lines(found)}: patient {found[0].patient_id!r} is in {' and '.join(splits)}; choose one split"


def _files_on_two_sides(rows: Sequence[SlideRow]) -> Iterator[str]:
    by_file = defaultdict(list)
    for row in rows:
        if row.split is not None:
            by_file[os.path.normpath(row.path)].append(row)
    for found in by_file.values():
        splits = list(dict.fromkeys(str(row.split) for row in found))
        if len(splits) > 1 and len({row.patient for row in found}) > 1:
            yield f"{_lines(found)}: file {found[0].path.name} is in {' and '.join(splits)}; choose one split"


def _files_of_several(rows: Sequence[SlideRow]) -> Iterator[str]:
    """Files of several slides, of which all but one are mistaken; those of patients in two splits are told as such."""
    by_file = defaultdict(list)
    for row in rows:
        by_file[file_identity(row.path)].append(row)
    for found in by_file.values():
        patients: dict[str, str] = {}
        for row in found:
            patients.setdefault(row.patient, row.patient_id)
        slides = dict.fromkeys(row.slide_id for row in found)
        if len(patients) > 1 and len({row.split for row in found} - {None}) < 2:
            named = few_of([*map(quoted, patients.values())], _SHOWN, between=" and ")
            yield f"{_lines(found)}: file {found[0].path.name} is of patients {named}; give each its own"
        elif len(patients) == 1 < len(slides):
            named = few_of([*map(quoted, slides)], _SHOWN, between=" and ")
            yield f"{_lines(found)}: file {found[0].path.name} is of slides {named}; give each its own"


def _missing_files(rows: Sequence[SlideRow]) -> Iterator[str]:
    for row in rows:
        # `Path.exists` raises for a name that is too long for the system.
        if not url_of(row.path) and not os.path.exists(row.path):  # noqa: PTH110
            yield f"line {row.line}: path: {_shown(row.path)} is missing"
        elif os.path.isdir(row.path):  # noqa: PTH112
            yield f"line {row.line}: path: {_shown(row.path)} is a folder; name a file, of a DICOM series any"
        if row.annotations is not None and not os.path.exists(row.annotations):  # noqa: PTH110
            yield f"line {row.line}: annotations: {_shown(row.annotations)} is missing"


def _shown(path: Path) -> str:
    """A path for a message; quoted and cut short where it cannot be a file's."""
    return str(path) if len(str(path)) < _LONGEST_PATH else quoted(str(path))


def _not_labelled(rows: Sequence[SlideRow], label: Label, policy: Policy) -> Iterator[str]:
    for row in rows:
        if label_of(row, label, policy) is not None:
            continue
        if label == "her2_status" and row.status(policy) is not None:
            yield (
                f"line {row.line}: HER2 status is undetermined ({_tests(row)}); give ish or her2_status, "
                "or leave split empty"
            )
        else:
            yield f"line {row.line}: no {label}; give it, or leave split empty"


def _tests(row: SlideRow) -> str:
    return f"IHC {row.ihc_score or 'not given'}, ISH {row.ish or 'not given'}"


def _poor_split(manifest: Manifest, split: Split, stain: Stain, label: Label | None, policy: Policy) -> Iterator[str]:
    """Report a split that is empty or holds a single class."""
    rows = manifest.select(stain=stain, split=split)
    if not rows:
        there = manifest.select(stain=stain)
        undivided = bool(there) and not any(row.split for row in there)
        yield f"split {split} has no {stain} slides" + (": none has a split; give them with he2her2 split" * undivided)
    elif label:
        classes = {found for row in rows if (found := label_of(row, label, policy)) is not None}
        if len(classes) == 1:
            only = next(iter(classes))
            yield f"split {split}: all {len(rows)} {stain} slides have {label} {only}; two classes are needed"


def _lines(rows: Sequence[SlideRow]) -> str:
    numbers = [str(row.line) for row in rows]
    shown = numbers if len(numbers) <= 2 * _ENDS else [*numbers[:_ENDS], "...", *numbers[-_ENDS:]]
    return f"lines {', '.join(shown)}" if len(numbers) > 1 else f"line {numbers[0]}"
