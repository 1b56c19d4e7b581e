"""The file of a manifest, a CSV that names each slide of a cohort, its patient and its labels: read and written."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from he2her2.csv_files import csv_text
from he2her2.errors import ManifestError, quoted
from he2her2.files import url_of, write_text
from he2her2.labels import (
    Her2Status,
    IshCounts,
    IshResult,
    counts_of,
    parse_ihc,
    parse_ish,
    parse_status,
    settled_ish,
)
from he2her2.manifest.columns import (
    CEP17_SYNONYMS,
    TEST_SYNONYMS,
    bare_name,
    match_columns,
    shown_columns,
    stain_of,
)
from he2her2.manifest.count_doubts import CountDoubts
from he2her2.manifest.csv_tables import Table, TableRow, is_blank, names_nothing, read_table, uncollected
from he2her2.manifest.near_ids import crowded_names
from he2her2.manifest.rows import SPLITS, Manifest, SlideRow, Split, Stain, folder_name_problem
from he2her2.units import parse_number

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
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "slide_id": ("slide_id", "slide", "slide_name", "image_id"),
    "path": ("path", "slide_path", "file_path", "file", "filename"),
    "patient_id": (
        *("patient_id", "patient", "patient_name", "patient_number", "patient_barcode", "bcr_patient_barcode"),
        *("id_patient", "patient_no", "patient_nr", "no_patient", "n_patient", "numero_patient", "numéro_patient"),
        *("patientennummer", "patienten_id", "paciente", "paciente_id", "id_paciente", "paziente", "id_paziente"),
    ),
    "stain": ("stain", "staining", "stain_type"),
    "site": ("site",),
    "split": ("split", "data_split", "dataset_split"),
    "mpp": (
        "mpp",
        "mpp_um",
        "mpp (um/px)",
        "mpp (µm/px)",
        "mpp_x",
        "mpp0",
        "microns_per_pixel",
        "um_per_px",
        "um_per_pixel",
        "µm_per_px",
        "µm_per_pixel",
        "pixel_size",
        "pixel_size_um",
        "pixel_size (µm)",
    ),
    "annotations": ("annotations", "annotation", "annotation_file", "annotations_file", "annotation_path"),
    "her2_status": ("her2_status", "her2", "status_her2", "her2_result", "her2_final_status"),
    **TEST_SYNONYMS,
    "cep17": CEP17_SYNONYMS,
}
CASE_NUMBERS = ("case_no", "case_number", "case_nr", "complete_tcga_id", "tcga_id")
"""Headings of numbers of patients, which may be those of specimens."""
PATIENT_SYNONYMS = (*_SYNONYMS["patient_id"], "case_id", "case", "submitter_id", "participant", *CASE_NUMBERS)
"""Usual names of the column of patients in labels and scores; in labels `CASE_NUMBERS` where there are no others."""

_LABEL_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "slide_id": (*_SYNONYMS["slide_id"], "wsi", "wsi_name", "image", "file", "filename"),
    "patient_id": PATIENT_SYNONYMS[: -len(CASE_NUMBERS)],
    "her2_status": (*_SYNONYMS["her2_status"], "label", "her2_positive", "target", "ground_truth", "y_true", "truth"),
}
_ONE_AND_ZERO = {
    **dict.fromkeys(("1", "1.0", "True", "true", "TRUE"), Her2Status.POSITIVE),
    **dict.fromkeys(("0", "0.0", "False", "false", "FALSE"), Her2Status.NEGATIVE),
}
_ANY_COUNTS = frozenset({"ratio", "copies"})
"""Names that are of ISH only together: a ratio alone may be of anything."""
_MOST_KNOWN = 1000  # values of a column that are kept
_NO_EXTRA: Mapping[str, str] = {}


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; cells that cannot be understood become `problems`, so that all are reported at once.

    Raises:
        ManifestError: The file cannot be read as a table, or lacks a required column.
    """
    table = read_table(path)
    columns = match_columns(table, _synonyms(table), required=_REQUIRED)
    reader = _RowReader(table, columns.names, path.parent)
    with uncollected():
        rows = [found for row in table.rows if (found := reader.read(row)) is not None]
    unnameable = [(row.line, problem) for row in rows if (problem := folder_name_problem(row.slide_id))]
    names = (f"line {line}: slide_id: {problem}; give it another" for line, problem in unnameable)
    notes = (*columns.notes, *reader.doubts.notes, *crowded_names(row.patient_id for row in rows))
    return Manifest(path, tuple(rows), (*table.problems, *reader.all_problems, *names), notes)


def read_labels(path: Path) -> Manifest:
    """Read a table of labels, which needs no files: a manifest, or a table with one row a slide or a patient.

    Without a column of slides each row is a patient, under the patient's name. A status may be written 1 and 0.

    Raises:
        ManifestError: The file cannot be read as a table, or names neither slides nor patients.
    """
    table = read_table(path)
    synonyms = {**_synonyms(table), **_LABEL_SYNONYMS}
    given = {"her2_status": _label_among_scores(table, synonyms["her2_status"])}
    known = {bare_name(name) for field in ("slide_id", "patient_id") for name in synonyms[field]}
    if not known & {bare_name(column) for column in table.columns}:
        synonyms["patient_id"] = CASE_NUMBERS
    columns = match_columns(table, synonyms, given, remedy="rename the column that is meant")
    names, notes = dict(columns.names), list(columns.notes)
    named = [name for name in ("slide_id", "patient_id") if name in names]
    if not named:
        raise ManifestError([f"{path}: names neither slides nor patients; it has {shown_columns(table.columns)}"])
    if len(named) == 1:
        notes.append(f"no other names than {names[named[0]]!r}: each row is a patient of its own")
    for name in _REQUIRED:
        names.setdefault(name, names[named[0]])
    status, parse = names.get("her2_status"), parse_status
    texts = {row.text(status) for row in table.rows} if status else set()
    if {text for text in texts if not is_blank(text)} <= _ONE_AND_ZERO.keys() and texts:
        notes.append(f"{status!r}: 1 is read as positive, 0 as negative")
        parse = _one_or_zero
    reader = _RowReader(table, names, path.parent, parse)
    rows = [found for row in table.rows if (found := reader.read(row)) is not None]
    return Manifest(path, tuple(rows), (*table.problems, *reader.all_problems), (*notes, *reader.doubts.notes))


def _label_among_scores(table: Table, synonyms: Sequence[str]) -> str | None:
    """Column of the label where another of a usual name holds scores; None where there is no such other."""
    usual = {bare_name(word) for word in synonyms}
    named = [column for column in table.columns if bare_name(column) in usual]
    labels = [column for column in named if not any(_is_fraction(row.text(column)) for row in table.rows)]
    return labels[0] if len(labels) == 1 < len(named) else None


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except ValueError:
        return False


def _one_or_zero(text: str) -> Her2Status:
    return _ONE_AND_ZERO[text]


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
    if (url := url_of(path)) is not None:
        return url
    full, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))  # noqa: PTH100  (keeps links as they are)
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else str(full)


def _synonyms(table: Table) -> Mapping[str, Sequence[str]]:
    """Usual names of the columns of this table."""
    if {bare_name(column) for column in table.columns} >= _ANY_COUNTS:
        return _SYNONYMS
    return {field: known[1:] if field in _ANY_COUNTS else known for field, known in _SYNONYMS.items()}


class _RowReader:
    """Reads the rows of a table as slides.

    Attributes:
        problems: Cells that cannot be understood, a line each.
        doubts: ISH counts that do not go together.
    """

    def __init__(
        self,
        table: Table,
        names: Mapping[str, str],
        folder: Path,
        status: Callable[[str], Her2Status] = parse_status,
    ) -> None:
        self.problems: list[str] = []
        self.doubts = CountDoubts()
        self._folder = folder
        position = {column: i for i, column in enumerate(table.columns)}
        self._required = itemgetter(*(position[names[field]] for field in _REQUIRED))
        own = {names[field] for field in MANIFEST_COLUMNS if field in names}
        self._extra = tuple((column, i) for column, i in position.items() if column not in own)
        parsers: Mapping[str, Callable[[str], Any]] = {
            "stain": _stain,
            "ihc_score": parse_ihc,
            "ish": parse_ish,
            "her2_status": status,
            "site": str,
            "split": _split,
            "mpp": _mpp,
            "annotations": lambda text: folder / text,
            "ratio": parse_number,
            "copies": parse_number,
            "cep17": parse_number,
        }
        self._fields = tuple(
            _Field(field, names[field], position[names[field]], parse)
            for field, parse in parsers.items()
            if field in names
        )

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Problems of cells, and that of counts which are doubtful on most lines."""
        return (*self.problems, *self.doubts.problems)

    def read(self, row: TableRow) -> SlideRow | None:
        """The slide of a row; None, and a problem, where it lacks a required cell."""
        cells = row.values
        slide_id, path, patient_id = self._required(cells)
        named = not (names_nothing(slide_id) or is_blank(path) or names_nothing(patient_id))
        if not named:
            self._name_missing(row.line, slide_id, path, patient_id)
        values = {field.name: value for field in self._fields if (value := self._value(field, row)) is not None}
        cep17 = values.pop("cep17", None)
        if "ratio" in values or "copies" in values:
            counts = self._counts(row.line, values.pop("ratio", None), values.pop("copies", None), cep17)
            self.doubts.about(row.line, counts, cep17)
            ihc, stated = values.get("ihc_score"), values.get("ish")
            self.doubts.beside(row.line, ihc, stated, counts)
            if counts is not None:
                values["ish"] = settled_ish(ihc, counts, stated if isinstance(stated, IshResult) else None)
        elif "ish" in values:
            self.doubts.about(row.line, values["ish"], cep17)
        if not named:
            return None
        extra = {column: cells[i] for column, i in self._extra} if self._extra else _NO_EXTRA
        file = Path(path) if url_of(path) else self._folder / path
        return SlideRow(row.line, slide_id, file, patient_id, extra=extra, **values)

    def _name_missing(self, line: int, slide_id: str, path: str, patient_id: str) -> None:
        """Add the problem of a row without a required cell."""
        missing = (
            (_REQUIRED[0], slide_id, names_nothing(slide_id)),
            (_REQUIRED[1], path, is_blank(path)),
            (_REQUIRED[2], patient_id, names_nothing(patient_id)),
        )
        shown = [f"{field} ({quoted(text)})" if text else field for field, text, is_missing in missing if is_missing]
        self.problems.append(f"line {line}: no {', '.join(shown)}")

    def _value(self, field: "_Field", row: TableRow) -> Any:  # noqa: ANN401  (of the field's type)
        """Value of a cell; None where it is blank or, with a problem, cannot be understood."""
        text = row.values[field.position]
        if text in field.known:
            return field.known[text]
        try:
            value = None if is_blank(text) else field.parse(text)
        except ValueError as error:
            self.problems.append(f"line {row.line}: {field.column}: {error}")
            return None
        if len(field.known) < _MOST_KNOWN:
            field.known[text] = value
        return value

    def _counts(self, line: int, ratio: float | None, copies: float | None, cep17: float | None) -> IshCounts | None:
        """ISH counts that stand in columns of their own."""
        try:
            return counts_of(ratio, copies, cep17)
        except ValueError as error:
            self.problems.append(f"line {line}: {error}")
            return None


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a manifest that a table has.

    Attributes:
        name: The field.
        column: Its column.
        position: Index of the column.
        parse: Reads a cell; `ValueError` where it cannot be understood.
        known: Values of cells that were read already: most columns have few.
    """

    name: str
    column: str
    position: int
    parse: Callable[[str], Any]
    known: dict[str, Any] = field(default_factory=dict)


def _stain(text: str) -> Stain:
    if stain := stain_of(text):
        return stain
    raise ValueError(f"{quoted(text)} is no stain: use HE or IHC")


def _split(text: str) -> Split:
    for split in SPLITS:
        if text.lower() == split:
            return split
    raise ValueError(f"{quoted(text)} is no split: use {', '.join(SPLITS)}, or leave it empty")


def _mpp(text: str) -> float:
    try:
        mpp = parse_number(text)
    except ValueError as error:
        raise ValueError(f"{error} of µm per px" if str(error).endswith("no number") else str(error)) from None
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"{quoted(text)[1:-1]} is no positive number of µm per px")
    return mpp
