"""The manifest: a CSV that names each slide of a cohort, its patient and its labels."""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, get_args

from he2her2.errors import ManifestError
from he2her2.files import csv_text, write_text
from he2her2.labels import Her2Status, IhcScore, Ish, Policy, apply_guideline, parse_ihc, parse_ish, parse_status
from he2her2.manifest.csv_tables import TableRow, is_blank, read_table

Stain: TypeAlias = Literal["HE", "IHC"]
Split: TypeAlias = Literal["train", "val", "test"]

MANIFEST_COLUMNS = (
    "slide_id",
    "path",
    "patient_id",
    "stain",
    "ihc_score",
    "ish",
    "her2_status",
    "site",
    "split",
    "mpp",
    "annotations",
)
_REQUIRED = MANIFEST_COLUMNS[:3]
SPLITS: tuple[Split, ...] = get_args(Split)

_TCGA = re.compile(r"TCGA[-_. ]([A-Z0-9]{2})[-_. ]([A-Z0-9]{4})(?![A-Z0-9])")
_STAINS: Mapping[str, Stain] = {"HE": "HE", "H&E": "HE", "IHC": "IHC"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One slide of a cohort.

    Attributes:
        line: Line of the manifest, for messages; 0 for a row that is in no file yet.
        slide_id: Its name, unique in the manifest.
        path: Its file; a relative one in the manifest starts from the manifest's folder.
        patient_id: Its patient; all slides of a patient stay in one split.
        stain: H&E or IHC; None where the manifest does not state it.
        ihc_score: IHC score of the patient's tumour.
        ish: Its in situ hybridisation.
        her2_status: Its HER2 status as the manifest states it; see `status`.
        site: Laboratory or hospital.
        split: Use of the slide; None: unused.
        mpp: µm per level-0 px, over that of the file.
        annotations: GeoJSON, ASAP or Sedeen polygons, or a PNG mask of the whole slide (non-zero: inside).
        extra: The manifest's other columns, carried through.
    """

    line: int
    slide_id: str
    path: Path
    patient_id: str
    stain: Stain | None = None
    ihc_score: IhcScore | None = None
    ish: Ish | None = None
    her2_status: Her2Status | None = None
    site: str | None = None
    split: Split | None = None
    mpp: float | None = None
    annotations: Path | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def status(self, policy: Policy = Policy.GUIDELINE) -> Her2Status | None:
        """Return the HER2 status that the manifest states; where it states none, that of the tests.

        Returns:
            None where there is neither a stated status nor a test.
        """
        if self.her2_status in (Her2Status.POSITIVE, Her2Status.NEGATIVE):
            return self.her2_status
        if self.ihc_score is None and self.ish is None:
            return self.her2_status
        return apply_guideline(self.ihc_score, self.ish, policy=policy).status


@dataclass(frozen=True, slots=True)
class Manifest:
    """The slides of a cohort.

    Attributes:
        path: The file; new rows will be relative to its folder.
        rows: Its readable slides, in the file's order.
        problems: Cells that cannot be understood, a line of text each; `require_usable` refuses a manifest with any.
    """

    path: Path
    rows: tuple[SlideRow, ...]
    problems: tuple[str, ...] = ()

    def select(self, *, stain: Stain | None = None, split: Split | None = None) -> tuple[SlideRow, ...]:
        """Return the rows of a stain and of a split, in order; a row without a stain is of any."""
        return tuple(
            row
            for row in self.rows
            if (stain is None or row.stain in (stain, None)) and (split is None or row.split == split)
        )


def patient_key(name: str) -> str:
    """Return the key of a patient: equal for all ways to write its name.

    A TCGA barcode of a sample, portion or slide names the same patient as its first three fields; case and blanks
    are ignored.

    Example:
        >>> patient_key("TCGA-A1-A0SK-01Z-00-DX1"), patient_key("tcga_a1_a0sk"), patient_key(" Case 7 ")
        ('tcga-a1-a0sk', 'tcga-a1-a0sk', 'case 7')
    """
    if barcode := _TCGA.match(name.strip().upper()):
        return f"tcga-{barcode[1]}-{barcode[2]}".lower()
    return " ".join(name.split()).casefold()


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; cells that cannot be understood become `problems`, so that all are reported at once.

    Raises:
        ManifestError: The file cannot be read as a table, or lacks a required column.
    """
    table = read_table(path)
    if missing := [name for name in _REQUIRED if name not in table.columns]:
        columns = ", ".join(table.columns)
        raise ManifestError([f"{path}: has no column {', '.join(missing)}; it has {columns}"])
    problems = list(table.problems)
    rows = [_row(row, path.parent, problems) for row in table.rows]
    return Manifest(path, tuple(row for row in rows if row is not None), tuple(problems))


def write_manifest(manifest: Manifest, path: Path | None = None) -> Path:
    """Write a manifest; a file below its folder is written relative to it, another one in full.

    Args:
        manifest: The manifest.
        path: The file; the manifest's own path by default.

    Raises:
        OutputError: It cannot be written.
    """
    out = path or manifest.path
    write_text(out, _as_csv(manifest.rows, out.parent))
    return out


def _as_csv(rows: Iterable[SlideRow], folder: Path) -> str:
    """Return rows as the text of a manifest that lies in `folder`."""
    rows = tuple(rows)
    extra = tuple(dict.fromkeys(name for row in rows for name in row.extra))
    return csv_text((*MANIFEST_COLUMNS, *extra), (_cells(row, folder) for row in rows))


def _cells(row: SlideRow, folder: Path) -> dict[str, str]:
    def text(value: object) -> str:
        return "" if value is None else str(value)

    return {
        "slide_id": row.slide_id,
        "path": _relative(row.path, folder),
        "patient_id": row.patient_id,
        "stain": text(row.stain),
        "ihc_score": text(row.ihc_score),
        "ish": text(row.ish),
        "her2_status": text(row.her2_status),
        "site": text(row.site),
        "split": text(row.split),
        "mpp": text(row.mpp),
        "annotations": "" if row.annotations is None else _relative(row.annotations, folder),
        **row.extra,
    }


def _relative(path: Path, folder: Path) -> str:
    """`path` from `folder` where it lies below it, else in full."""
    full, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))  # noqa: PTH100  (keeps links as they are)
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else str(full)


def _row(row: TableRow, folder: Path, problems: list[str]) -> SlideRow | None:
    """The slide of a row; None, and a problem, where it lacks a required cell."""

    def value(name: str, parse: Callable[[str], _T]) -> _T | None:
        text = row.cells.get(name, "")
        if is_blank(text):
            return None
        try:
            return parse(text)
        except ValueError as error:
            problems.append(f"line {row.line}: {name}: {error}")
            return None

    slide_id, path, patient_id = (row.cells[name] for name in _REQUIRED)
    blank = [name for name in _REQUIRED if not row.cells[name]]
    if blank:
        problems.append(f"line {row.line}: no {', '.join(blank)}")
    if {"/", "\\"} & set(slide_id) or slide_id.startswith("."):
        problems.append(f"line {row.line}: slide_id: {slide_id!r} cannot name a folder; leave out slashes")
    found = SlideRow(
        row.line,
        slide_id,
        folder / path,
        patient_id,
        stain=value("stain", _stain),
        ihc_score=value("ihc_score", parse_ihc),
        ish=value("ish", parse_ish),
        her2_status=value("her2_status", parse_status),
        site=value("site", str),
        split=value("split", _split),
        mpp=value("mpp", _mpp),
        annotations=value("annotations", lambda text: folder / text),
        extra={name: cell for name, cell in row.cells.items() if name not in MANIFEST_COLUMNS},
    )
    return None if blank else found


def _stain(text: str) -> Stain:
    try:
        return _STAINS[text.upper()]
    except KeyError:
        raise ValueError(f"{text!r} is no stain: use HE or IHC") from None


def _split(text: str) -> Split:
    for split in SPLITS:
        if text.lower() == split:
            return split
    raise ValueError(f"{text!r} is no split: use {', '.join(SPLITS)}, or leave it empty")


def _mpp(text: str) -> float:
    try:
        mpp = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of µm per px") from None
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"{text} is no positive number of µm per px")
    return mpp
