"""Slides in a folder: by their endings, DICOM series by their content."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SLIDE_ENDINGS = frozenset(
    {".bif", ".btf", ".czi", ".dcm", ".mrxs", ".ndpi", ".qptiff", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms",
     ".vmu"}
)  # fmt: skip
"""Endings of slide files."""

_COMPANIONS = frozenset(
    {"", ".annotations", ".csv", ".dat", ".db", ".geojson", ".ini", ".jpeg", ".jpg", ".json", ".md", ".ndpa", ".ngr",
     ".opt", ".pdf", ".png", ".tsv", ".txt", ".xlsx", ".xml"}
)  # fmt: skip
"""Endings of what lies beside slides, and is passed over without a word."""

_LISTS = (".vms", ".vmu")
"""Endings of files that name those that hold the pixels."""

_ZARR = ".zarr"  # a slide that is a folder of thousands of files, and of no format that is read
_PREAMBLE = 128
_HEAD = 1 << 16
_SERIES_UID = b"\x20\x00\x0e\x00"  # tag (0020,000E), little endian
_STUDY_BEFORE = re.compile(rb"\x20\0\r\0(?:UI..|....)[0-9. \0]{0,64}(?=\x20\0\x0e\0)", re.DOTALL)
"""The study (0020,000D) where the series follows: references to other series, which come first, have none."""

_LONGEST_UID = 64
_KIND = b"\x02\0\x02\0UI"  # tag (0002,0002) of the file's own header: what is in it
_SLIDE_KIND = b"1.2.840.10008.5.1.4.1.1.77.1.6"
_DIRECTORY_KIND = b"1.2.840.10008.1.3.10"  # a DICOMDIR lists other files
_OTHER_DICOM = "DICOM of no slide (annotations, segmentations, ...)"
_HIDDEN = "hidden (a name that begins with a dot)"
_MAYBE_DICOM = re.compile(r"\.dcm|(?:\.\d+)?", re.IGNORECASE)  # archives name files by numbers


@dataclass(frozen=True, slots=True)
class FolderContent:
    """Slides of a folder, and what was passed over.

    Attributes:
        slides: Sorted; a DICOM series is one slide, and its first file stands for it.
        others: Number of files of each ending that is of no slide we know, and of nothing that lies beside slides; of
            DICOM files that hold something else; and of hidden files with the ending of a slide.
        closed: Folders that cannot be read.
    """

    slides: tuple[Path, ...]
    others: Mapping[str, int]
    closed: tuple[Path, ...]


def look_in(folder: Path) -> FolderContent:
    """Find the slides in a folder and in the folders below it, also by links; hidden files and folders are skipped.

    So is the evidence of a run of ours, whose heatmaps are no slides.

    Args:
        folder: The folder.
    """
    closed: list[Path] = []
    found = sorted(_files(folder, {os.path.realpath(folder)}, closed))
    files = [path for path in found if not path.name.startswith(".")]
    maybe_dicom = [path for path in files if _MAYBE_DICOM.fullmatch(path.suffix)]
    others = [path for path in files if path.suffix.lower() not in SLIDE_ENDINGS and path not in set(maybe_dicom)]
    slides = {path for path in files if path.suffix.lower() in SLIDE_ENDINGS} - set(maybe_dicom)
    endings = Counter(path.suffix.lower() for path in others if path.suffix.lower() not in _COMPANIONS)
    endings.update([_HIDDEN] * (len(found) - len(files)))
    return FolderContent(tuple(sorted([*slides, *_first_of_series(maybe_dicom, endings)])), endings, tuple(closed))


def slides_in(folder: Path) -> list[Path]:
    """List the slides in a folder and in the folders below it, sorted; see `look_in`."""
    return list(look_in(folder).slides)


def all_files_of(slide: Path) -> list[Path]:
    """The file of a slide, and those that hold its pixels beside it: of MRXS, VMS, VMU and DICOM.

    Args:
        slide: Its file; of a DICOM series any.
    """
    ending, beside = slide.suffix.lower(), set[Path]()
    with suppress(OSError):
        if ending == ".mrxs":
            beside.update(slide.with_suffix("").iterdir())
        elif ending in _LISTS:
            values = (line.partition("=")[2].strip() for line in _head(slide).decode(errors="replace").splitlines())
            beside.update(slide.parent / name for name in values if name)
        elif _MAYBE_DICOM.fullmatch(ending) and (uid := _series_uid(_head(slide))):
            series = _series_in(slide.parent, slide.parent.stat().st_mtime_ns)
            beside.update(file for file, its_uid in series.items() if its_uid == uid)
        return [slide, *sorted(file for file in beside if file.is_file() and file != slide)]
    return [slide]


@lru_cache(maxsize=32)
def _series_in(folder: Path, _changed_ns: int) -> Mapping[Path, bytes | None]:
    """Series of each file of a folder that may be DICOM of a slide; read once for all slides in it."""
    heads = ((path, _head(path)) for path in folder.iterdir() if _MAYBE_DICOM.fullmatch(path.suffix))
    return {path: _series_uid(head) for path, head in heads if _value(head, _KIND, 2) in (None, _SLIDE_KIND)}


def _files(folder: Path, seen: set[str], closed: list[Path]) -> Iterator[Path]:
    """Files, and links that lead nowhere; of hidden files those named as slides, but what macOS keeps beside files.

    A folder that was seen is not entered again, as by a link to one above.
    """
    try:
        found = sorted(folder.iterdir(), key=lambda path: (path.is_symlink(), path))
    except OSError:
        closed.append(folder)
        return
    for path in found:
        if path.name.startswith("."):
            if path.suffix.lower() in SLIDE_ENDINGS and not path.name.startswith("._") and path.is_file():
                yield path
        elif path.suffix.lower() == _ZARR:
            yield path
        elif path.is_dir():
            place = os.path.realpath(path)
            if place not in seen and not _is_evidence(path):
                seen.add(place)
                yield from _files(path, seen, closed)
        elif path.is_file() or (path.is_symlink() and not path.exists()):
            yield path


def _is_evidence(folder: Path) -> bool:
    """True for the folder of a slide in a run; the slides themselves may lie beside it."""
    slides = folder.absolute().parent
    return slides.name == "slides" and (slides.parent / "run.json").is_file() and (folder / "overlay.png").is_file()


def _first_of_series(files: Iterable[Path], others: Counter[str]) -> list[Path]:
    """The first file of each DICOM series; a file that cannot be understood as DICOM counts for its folder.

    Files of annotations and the like lie in the folder of their slide and may state its series; `others` counts them.
    """
    series: dict[tuple[Path, bytes], Path] = {}
    for path in files:
        head = _head(path)
        kind = _value(head, _KIND, 2)
        if kind not in (None, _SLIDE_KIND):
            others.update([_OTHER_DICOM] * (kind != _DIRECTORY_KIND))
            continue
        uid = _series_uid(head)
        if uid is not None or path.suffix.lower() == ".dcm":
            series.setdefault((path.parent, uid or b""), path)
    return list(series.values())


def _head(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _series_uid(head: bytes) -> bytes | None:
    """Series of a DICOM file; None where it is none, or does not say."""
    if head[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    own = _STUDY_BEFORE.search(head)
    head = head if own is None else head[own.end() :]
    stated, implied = _value(head, _SERIES_UID + b"UI", 2), _value(head, _SERIES_UID, 4)
    return stated or implied or b""


def _value(head: bytes, before: bytes, width: int) -> bytes | None:
    """The identifier behind a tag, whose length has `width` bytes; None where there is none."""
    _, found, rest = head.partition(before)
    n_bytes = int.from_bytes(rest[:width], "little")
    return rest[width : width + n_bytes].rstrip(b"\0 ") if found and n_bytes <= _LONGEST_UID else None
