"""Slides to work on: from slide files, folders, glob patterns and manifests to tasks."""

import os
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

from he2her2.cohort.remote_slides import is_pattern, urls_of, with_stamps
from he2her2.cohort.tasks import SlideTask
from he2her2.errors import He2Her2Error, few_of
from he2her2.files import file_identity, url_of
from he2her2.manifest import Stain, files_of_slides, patient_key, raise_problems, read_manifest
from he2her2.results import FileStamp
from he2her2.slides import SLIDE_ENDINGS, look_in, slide_id_of

_ANNOTATION_ENDINGS = (".geojson", ".json", ".xml", ".session.xml", ".annotations", ".ndpi.ndpa", ".ndpa", ".png")
_TABLE_ENDINGS = frozenset({".csv", ".tsv", ".txt"})
_END = 1 << 12  # bytes of a file's ends that are compared


@dataclass(frozen=True, slots=True)
class SlideSources:
    """The slides that a command was given.

    Attributes:
        tasks: One a slide, in order.
        single: True for one slide that was named itself, whose failure is the command's.
        patients: Patient of each slide whose manifest names one.
        notes: Lines for the user: slides that were given twice, rows of another stain.
    """

    tasks: tuple[SlideTask, ...]
    single: bool
    patients: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_slides(
    what: Sequence[Path | str], *, mpp: float | None = None, annotations: Path | None = None, stain: Stain | None = "HE"
) -> SlideSources:
    """Find the slides that paths stand for.

    Args:
        what: Slides, folders (searched below, too), glob patterns such as `cohort/*/*.svs`, and manifests (CSV); all
            but the last may be addresses (`s3://`, `gs://`, `https://`).
        mpp: µm per level-0 px, over what files say; a manifest may not state another.
        annotations: Annotation file of a single slide, or a folder with a file of each slide's name; a manifest's own
            outrank it.
        stain: Of the rows of manifests that are taken; None takes all.

    Raises:
        He2Her2Error: A path holds no slides, two slides have one name, one annotation file is given for several, or
            `mpp` is not what a manifest states.
        ManifestError: A manifest cannot be used.
    """
    found: list[SlideTask] = []
    patients: dict[str, str] = {}
    notes: list[str] = []
    for item in map(Path, what):
        if is_table(item):
            found += _of_manifest(item, stain, patients, notes)
        else:
            found += [SlideTask(_name_of(path), path) for path in _paths(item, notes)]
    single = len(what) == 1 and len(found) == 1 and found[0].path == Path(what[0])
    once = _each_once(found, patients, notes)
    _check_options(once, mpp, annotations)
    notes += _copies_in_words(once)
    tasks = with_stamps(once)
    drawn = _annotations_of(tasks, annotations)
    return SlideSources(
        tuple(
            replace(
                task,
                mpp=mpp if task.mpp is None else task.mpp,
                annotations=task.annotations or drawn.get(task.slide_id),
            )
            for task in tasks
        ),
        single,
        patients,
        tuple(notes),
    )


def is_table(item: Path) -> bool:
    """True for a manifest, one that is not there as well: it is no slide that fails."""
    named = item.suffix.lower() in _TABLE_ENDINGS and url_of(item) is None
    return named and (item.is_file() or not (item.exists() or is_pattern(item)))


def _check_options(tasks: Sequence[SlideTask], mpp: float | None, annotations: Path | None) -> None:
    """Check that what is given once for all slides may hold for each of them.

    Raises:
        He2Her2Error: It may not.
    """
    if annotations is not None and not annotations.is_dir() and len(tasks) > 1:
        raise He2Her2Error(
            f"{annotations}: is one annotation file for {len(tasks)} slides; give a folder with a file of each slide's "
            "name, or a manifest with a column annotations"
        )
    other = next((task for task in tasks if mpp is not None and task.mpp not in (None, mpp)), None)
    if other is not None:
        raise He2Her2Error(
            f"--mpp {mpp:g}, but the manifest states {other.mpp:g} for {other.slide_id}; leave one of them out"
        )


def _annotations_of(tasks: Sequence[SlideTask], annotations: Path | None) -> Mapping[str, Path]:
    """The file given, or the files of a folder that are named for each slide or its file, which may be missing."""
    if annotations is None or not annotations.is_dir():
        return {} if annotations is None else {task.slide_id: annotations for task in tasks}
    there = sorted(annotations.iterdir())
    endings = {
        path: max(filter(path.name.lower().endswith, _ANNOTATION_ENDINGS), key=len, default="") for path in there
    }
    named: dict[str, Path] = {}
    for ending in _ANNOTATION_ENDINGS:  # of several files of a name the first kind counts
        for path in there:
            if endings[path] == ending:
                named.setdefault(path.name[: -len(ending)], path)
    missing = {task.slide_id: annotations / f"{task.slide_id}{_ANNOTATION_ENDINGS[0]}" for task in tasks}
    return missing | files_of_slides(named, {task.slide_id: task.path for task in tasks})


def _of_manifest(file: Path, stain: Stain | None, patients: dict[str, str], notes: list[str]) -> list[SlideTask]:
    """Tasks of a manifest's slides, of a stain if one is given; a row that does not state its own is taken for it."""
    manifest = read_manifest(file)
    raise_problems(manifest, manifest.problems)
    notes.extend(f"{file}: {note}" for note in manifest.notes)
    if not manifest.rows:
        raise He2Her2Error(f"{file}: names no slide; give it a row for each below the headings")
    rows, name = manifest.rows if stain is None else manifest.select(stain=stain), "H&E" if stain == "HE" else stain
    if not rows:
        raise He2Her2Error(f"{file}: has no {name} slides among its {len(manifest.rows)} rows; check the column stain")
    if twice := [slide_id for slide_id, n in Counter(row.slide_id for row in rows).items() if n > 1]:
        raise He2Her2Error(f"{file}: names slide {few_of(twice)} more than once; keep one row of each")
    if n_other := len(manifest.rows) - len(rows):
        notes.append(f"{file}: rows of another stain than {name} are left out: {n_other}")
    names = {patient_key(name): name for name in reversed(patients.values())}  # as each patient was written first
    patients.update({row.slide_id: names.setdefault(row.patient, row.patient_id) for row in rows})
    return [SlideTask.of_row(row) for row in rows]


def _name_of(path: Path) -> str:
    """Name of a slide; that of an address ends where its query begins, and a web address writes blanks as `%20`."""
    if (url := url_of(path)) is None:
        return slide_id_of(path)
    name = path.name.partition("?")[0]
    return slide_id_of(Path(unquote(name) if url.startswith(("http:", "https:")) else name))


def _paths(item: Path, notes: list[str]) -> list[Path]:
    """The slide that a path is, or the slides of a folder or of a glob pattern; `notes` takes what was passed over."""
    if (url := url_of(item)) is not None:
        return [Path(one) for one in urls_of(url)]
    if item.is_dir():
        content = look_in(item)
        if content.others:
            endings = few_of([f"{n} {ending}" for ending, n in Counter(content.others).most_common()])
            notes.append(f"{item}: files that are no slides, or of formats not read, are passed over: {endings}")
        notes += (f"{folder}: cannot be read, and is passed over" for folder in content.closed)
        if not content.slides:
            n = sum(not path.is_dir() for path in item.rglob("*"))
            endings = ", ".join(sorted(SLIDE_ENDINGS))
            raise He2Her2Error(f"{item}: no slides among its {n} files; slides end in {endings}")
        return list(content.slides)
    if item.exists() or not is_pattern(item):
        return [item]
    base = Path(item.anchor) if item.is_absolute() else Path()
    pattern = item.relative_to(item.anchor)
    matches = [path for path in sorted(base.glob(str(pattern))) if not _is_hidden(path.relative_to(base))]
    if not matches:
        raise He2Her2Error(f"{item}: no file matches; check the pattern")
    return [path for match in matches for path in (_paths(match, notes) if match.is_dir() else [match])]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _each_once(tasks: Iterable[SlideTask], named: Container[str], notes: list[str]) -> list[SlideTask]:
    """Tasks of different files; the same file given twice is one slide, two files of one name are a mistake.

    Of a file and links to it the file is taken, unless a manifest names a link.

    Args:
        tasks: Slides as they were given.
        named: Slides that manifests name.
        notes: Takes a line for each path that is left out.

    Raises:
        He2Her2Error: Several files have the name of one slide, or a manifest names one file as several slides.
    """
    by_file: dict[object, list[SlideTask]] = defaultdict(list)
    for task in tasks:
        by_file[file_identity(task.path)].append(task)
    by_name: dict[str, list[SlideTask]] = defaultdict(list)
    for same in by_file.values():
        names = list(dict.fromkeys(task.slide_id for task in same if task.slide_id in named))
        if len(names) > 1:
            raise He2Her2Error(f"slides {' and '.join(names[:2])} are one file, {same[0].path}; correct the manifest")
        kept = min(same, key=lambda task: (task.slide_id not in named, task.path.is_symlink()))
        by_name[kept.slide_id].append(kept)
        others = dict.fromkeys(task.path for task in same if task.path != kept.path)
        notes += (f"{url_of(path) or path} is the same file as {kept.source}: one slide" for path in others)
    twice = sorted(name for name, same in by_name.items() if len(same) > 1)
    if twice:
        where = few_of([task.source for task in by_name[twice[0]]])
        raise He2Her2Error(
            f"several slides are named {few_of(twice)} ({where}); "
            "give every slide its own name, or a manifest with a slide_id for each"
        )
    return [task for same in by_name.values() for task in same]


def _copies_in_words(tasks: Iterable[SlideTask]) -> Iterator[str]:
    """A caution about files that are copies of each other: of one size, not empty, with the same bytes at both ends."""
    by_size: dict[int, list[SlideTask]] = defaultdict(list)
    for task in tasks:
        stamp = FileStamp.of_slide(task.path)  # MRXS files may be alike where the pixels beside them are not
        if stamp is not None:
            by_size[stamp.bytes].append(task)
    alike: dict[tuple[int, bytes, bytes], list[SlideTask]] = defaultdict(list)
    for size, same in by_size.items():
        for task in same if size and len(same) > 1 else ():
            with suppress(OSError), task.path.open("rb") as file:
                head = file.read(_END)
                file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
                alike[size, head, file.read(_END)].append(task)
    copies = [same for same in alike.values() if len(same) > 1]
    if copies:
        shown = few_of([few_of([task.path.name for task in same], between=" and ") for same in copies], between="; ")
        yield f"copies of one file count as several slides: {shown} (same size, same bytes at both ends)"
