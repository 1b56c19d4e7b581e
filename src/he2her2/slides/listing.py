"""Slides in a folder: by their endings, DICOM series by their content."""

from collections.abc import Iterable, Iterator
from pathlib import Path

SLIDE_ENDINGS = frozenset(
    {".bif", ".btf", ".czi", ".dcm", ".mrxs", ".ndpi", ".qptiff", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms",
     ".vmu", ".zvi"}
)  # fmt: skip
"""Endings of slide files."""

_PREAMBLE = 128
_HEAD = 1 << 16
_SERIES_UID = b"\x20\x00\x0e\x00"  # tag (0020,000E), little endian
_LONGEST_UID = 64
_DIRECTORY = b"1.2.840.10008.1.3.10"  # a DICOMDIR lists other files
_DICOM_ENDINGS = frozenset({".dcm", ""})


def slides_in(folder: Path) -> list[Path]:
    """List the slides in a folder and in the folders below it, sorted; hidden files and folders are skipped.

    So is the evidence of a run of ours, whose heatmaps are no slides. A DICOM series is one slide, and its first file
    stands for it, whether or not its files end in `.dcm`.

    Args:
        folder: The folder.
    """
    files = sorted(_visible_files(folder))
    slides = [path for path in files if path.suffix.lower() in SLIDE_ENDINGS - _DICOM_ENDINGS]
    return sorted([*slides, *_first_of_series(path for path in files if path.suffix.lower() in _DICOM_ENDINGS)])


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink() and not _is_evidence(path):
            yield from _visible_files(path)
        elif not path.is_dir():
            yield path


def _is_evidence(folder: Path) -> bool:
    return folder.name == "slides" and (folder.parent / "run.json").is_file()


def _first_of_series(files: Iterable[Path]) -> list[Path]:
    """The first file of each DICOM series; a file that cannot be understood as DICOM counts for its folder."""
    series: dict[tuple[Path, bytes], Path] = {}
    for path in files:
        uid = _series_uid(path)
        if uid is not None or path.suffix:
            series.setdefault((path.parent, uid or b""), path)
    return list(series.values())


def _series_uid(path: Path) -> bytes | None:
    """Series of a DICOM file; None where it is none, or does not say."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    if _DIRECTORY in head[: 8 * _PREAMBLE]:
        return None
    for tag, width in ((_SERIES_UID + b"UI", 2), (_SERIES_UID, 4)):  # with the type stated, or implied
        _, found, rest = head.partition(tag)
        n_bytes = int.from_bytes(rest[:width], "little")
        if found and n_bytes <= _LONGEST_UID:
            return rest[width : width + n_bytes].rstrip(b"\0 ")
    return b""
