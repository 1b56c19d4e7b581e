"""Leaks between training and test data: a patient, a file or the same tissue on two sides, or a choice made with them.

A side is a split of all manifests together (train, val, test); a manifest without splits is a side of its own. Slides
of one patient on one side, such as H&E and its IHC twin, are no leak.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

from he2her2.cohort.engine import SlideEngine
from he2her2.cohort.likeness import THUMBNAIL_PX, TissuePrint, alike_pairs, print_of
from he2her2.cohort.tasks import SlideTask
from he2her2.errors import ManifestError, MppError
from he2her2.machine import usable_cores
from he2her2.manifest import Manifest, SlideRow, block_groups, near_groups, patients_used, shared_patients
from he2her2.results import Failure, FileStamp
from he2her2.slides import open_slide

UNREAD = "not compared for its tissue: "
"""Beginning of the line of a slide that could not be read."""

NOT_LOOKED_FOR = (
    "serial sections, other cuts or stains of the same block, cut-outs of under half of a slide, slides with too "
    "little tissue to compare"
)
"""Leaks that the search does not see, in words."""

_PROBED = 1 << 16  # bytes at each end of a file
_MOST_KEPT = 512  # prints, of 100 kB each
_ANY_MPP = 0.25  # for a thumbnail of a fixed size in px, any will do


@dataclass(frozen=True, slots=True)
class NamedSlide:
    """A slide as a manifest names it.

    Attributes:
        side: Its split, or its manifest where that knows no splits.
        manifest: File of the manifest.
        row: Its row.
    """

    side: str
    manifest: Path
    row: SlideRow

    def __str__(self) -> str:
        return f"{self.manifest} line {self.row.line} ({self.side}): {self.row.slide_id} of {self.row.patient_id}"


@dataclass(frozen=True, slots=True)
class Leak:
    """Two places that must not be on two sides.

    Attributes:
        kind: "patient", "file" or "tissue".
        first: One place.
        second: The other.
        why: What they share.
    """

    kind: str
    first: NamedSlide
    second: NamedSlide
    why: str

    @property
    def crosses(self) -> bool:
        """True on two sides; otherwise one slide passes for two patients."""
        return self.first.side != self.second.side

    def __str__(self) -> str:
        return f"{self.why}: {self.first}, and {self.second}"


@dataclass(frozen=True, slots=True)
class LeakSearch:
    """Leaks that were found, and a line for each slide whose tissue could not be compared."""

    leaks: tuple[Leak, ...]
    unread: tuple[str, ...]


def refuse_leaks(
    manifests: Sequence[Manifest], *, workers: int | None = None, by_tissue: bool = True
) -> tuple[str, ...]:
    """Raise where a patient, a file or the same tissue is on two sides.

    Args:
        manifests: All that will be trained, validated and tested with.
        workers: Threads that read thumbnails.
        by_tissue: Compare the tissue of all slides, too.

    Returns:
        Warnings: one slide under the names of two patients on one side, patients on two sides whose names are written
        almost alike, and slides that could not be read and so not compared.

    Raises:
        ManifestError: All leaks.
    """
    search = find_leaks(manifests, workers=workers, by_tissue=by_tissue)
    if crossing := [f"leak: {leak}" for leak in search.leaks if leak.crosses]:
        raise ManifestError(crossing)
    doubts = (f"one slide, two patients? {leak}" for leak in search.leaks)
    return (*doubts, *_near_patients(manifests), *search.unread)


def refuse_chosen_with(rows: Iterable[SlideRow], folder: Path) -> tuple[str, ...]:
    """Raise where patients that chose the weights or thresholds are to be evaluated.

    Args:
        rows: Slides to be evaluated.
        folder: A run, or a folder of weights.

    Returns:
        A warning where nothing is on record.

    Raises:
        ManifestError: Every such patient.
    """
    if shared := shared_patients(rows, folder):
        raise ManifestError(
            [f"leak: patient {name} trained or chose the weights or thresholds of {folder}" for name in shared]
        )
    used = patients_used(folder)
    if used.unrecorded:
        names = " and ".join(used.unrecorded)
        return (f"{folder}: the patients of {names} are not on record; a leak cannot be ruled out",)
    if not used.sources:
        return (f"{folder}: nothing says with which patients its weights were chosen; a leak cannot be ruled out",)
    return ()


def find_leaks(manifests: Sequence[Manifest], *, workers: int | None = None, by_tissue: bool = True) -> LeakSearch:
    """Find what two sides share, and slides that pass for two patients on one side.

    Args:
        manifests: All that will be trained, validated and tested with.
        workers: Threads that read thumbnails.
        by_tissue: Compare the tissue of all slides, too.
    """
    places = [place for manifest in _once(manifests) for place in _places(manifest)]
    shared = [*_shared_patients(places), *_shared_files(places)]
    told = {_pair(leak.first, leak.second) for leak in shared}
    if not by_tissue:
        return LeakSearch(tuple(shared), ())
    prints, unread = _prints(places, workers)
    alike = [leak for leak in _alike(places, prints) if _pair(leak.first, leak.second) not in told]
    return LeakSearch((*shared, *alike), tuple(unread))


def _once(manifests: Sequence[Manifest]) -> Iterable[Manifest]:
    """Each manifest file once: the same one given twice is no leak."""
    return {manifest.path.resolve(): manifest for manifest in manifests}.values()


def _places(manifest: Manifest) -> Iterator[NamedSlide]:
    """The slides that are used; rows without a split are so only where no row has one."""
    whole = all(row.split is None for row in manifest.rows)
    for row in manifest.rows:
        if whole or row.split is not None:
            yield NamedSlide(row.split or f"all of {manifest.path}", manifest.path, row)


def _shared_patients(places: Iterable[NamedSlide]) -> Iterator[Leak]:
    """Patients on two sides, told once for each pair of sides."""
    by_patient: dict[str, dict[str, NamedSlide]] = defaultdict(dict)
    for place in places:
        by_patient[place.row.patient].setdefault(place.side, place)
    for sides in by_patient.values():
        for first, second in combinations(sides.values(), 2):
            yield Leak("patient", first, second, "the same patient")


def _near_patients(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Patients on two sides whose names differ only in how they are written, or in what may be a block or a slide."""
    by_key: dict[str, dict[str, NamedSlide]] = defaultdict(dict)
    for manifest in _once(manifests):
        for place in _places(manifest):
            by_key[place.row.patient].setdefault(place.side, place)
    for first, second in _across(near_groups(by_key), by_key):
        yield f"one patient under two names? {first}, and {second}"
    if blocks := [*_across(block_groups(by_key), by_key)]:
        (first, second), n = blocks[0], len(blocks) - 1
        more = f"; {n} more such pair{'s' * (n > 1)}" if n else ""
        yield f"one patient under the names of two blocks or slides? {first}, and {second}{more}"


def _across(
    groups: Iterable[Sequence[str]], places: Mapping[str, Mapping[str, NamedSlide]]
) -> Iterator[tuple[NamedSlide, NamedSlide]]:
    """A pair of places on two sides of each two patients of a group.

    Args:
        groups: Patients that may be one.
        places: Of each patient, by side.
    """
    for group in groups:
        for one, other in combinations(group, 2):
            pairs = ((a, b) for a in places[one].values() for b in places[other].values() if a.side != b.side)
            if pair := next(pairs, None):
                yield pair


def _shared_files(places: Sequence[NamedSlide]) -> Iterator[Leak]:
    """The same file twice, by path or by size and both its ends, unless it is one patient's on one side."""
    by_size: dict[int, list[NamedSlide]] = defaultdict(list)
    for place in places:
        if os.path.isfile(place.row.path):  # noqa: PTH113  (`Path.is_file` raises for a name that is too long)
            by_size[place.row.path.stat().st_size].append(place)
    for group in by_size.values():
        by_ends: dict[bytes, list[NamedSlide]] = defaultdict(list)
        for place in group if len(group) > 1 else ():
            by_ends[_ends(place.row.path)].append(place)
        for same in by_ends.values():
            for first, second in combinations(same, 2):
                if _matters(first, second):
                    yield Leak("file", first, second, "the same file")


def _ends(path: Path) -> bytes:
    """A digest of a file's head and tail."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_PROBED)
        file.seek(max(0, size - _PROBED), os.SEEK_SET)
        tail = file.read(_PROBED)
    return hashlib.sha256(head + tail).digest()


def _prints(places: Sequence[NamedSlide], workers: int | None) -> tuple[dict[Path, TissuePrint], list[str]]:
    """The print of each file, and a line for each that cannot be read."""
    tasks = {place.row.path: SlideTask.of_row(place.row) for place in places}
    engine = SlideEngine(threads=workers or min(8, usable_cores()))
    prints, unread = {}, []
    for task, found in engine.run([*tasks.values()], _print_of):
        if isinstance(found, Failure):
            unread.append(f"{UNREAD}{found}")
        elif not found.comparable:
            unread.append(f"{UNREAD}{task.slide_id}: it shows too little tissue to tell it from another's")
        else:
            prints[task.path] = found
    return prints, unread


def _print_of(task: SlideTask) -> TissuePrint:
    """The print of a slide; a thumbnail of a fixed size in px needs no true scale."""
    try:
        return _print_at(task.path, task.mpp, task.inputs.slide)
    except MppError:
        return _print_at(task.path, _ANY_MPP, task.inputs.slide)


@lru_cache(maxsize=_MOST_KEPT)
def _print_at(path: Path, mpp: float | None, _stamp: FileStamp | None) -> TissuePrint:
    """The print of a file as it is now; the folds of a training ask for the same ones again."""
    with open_slide(path, mpp=mpp) as slide:
        return print_of(slide.thumbnail(max(slide.size_l0) * slide.mpp / THUMBNAIL_PX))


def _alike(places: Sequence[NamedSlide], prints: Mapping[Path, TissuePrint]) -> Iterator[Leak]:
    """The same tissue in two files, unless they are one patient's on one side."""
    seen = [place for place in places if place.row.path in prints]
    for i, j, n in alike_pairs([prints[place.row.path] for place in seen]):
        first, second = seen[i], seen[j]
        same_patient = first.row.patient == second.row.patient
        if _matters(first, second) and not same_patient:
            yield Leak("tissue", first, second, f"the same tissue ({n} landmarks agree)")


def _matters(first: NamedSlide, second: NamedSlide) -> bool:
    """True where two places must not show one slide: on two sides, or as two patients."""
    patients = first.row.patient, second.row.patient
    return first.side != second.side or patients[0] != patients[1]


def _pair(first: NamedSlide, second: NamedSlide) -> frozenset[tuple[Path, int]]:
    return frozenset((place.manifest, place.row.line) for place in (first, second))
