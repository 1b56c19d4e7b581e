"""Rows of other people's tables, found by the names of the manifest's slides or patients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from he2her2.evaluation.cases import CaseLevel
from he2her2.manifest import Manifest, Table, TableRow, patient_key, without_ending

ID_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "slide": ("slide_id", "slide", "slide_name", "image_id", "image", "wsi", "wsi_name", "filename", "file", "id"),
    "patient": (
        *("patient_id", "patient", "case_id", "case", "patient_name", "patient_barcode", "bcr_patient_barcode"),
        *("submitter_id", "participant"),
    ),
}
"""Usual headings of a column of slides or patients."""


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Rows of a table by slide.

    Attributes:
        level: Patient where the table names patients, or the manifest does: each slide then has its patient's rows.
        column: The column that names them.
        rows: Rows of each slide; a name that the manifest lacks stands for itself.
    """

    level: CaseLevel
    column: str
    rows: Mapping[str, Sequence[TableRow]]


def find_rows(table: Table, columns: Sequence[str], manifest: Manifest) -> FoundRows:
    """Rows of each slide, by the column and the level at which most rows are found in the manifest.

    Args:
        table: The table.
        columns: Columns that may name slides or patients, at least one.
        manifest: The study.
    """
    finders: Mapping[CaseLevel, Callable[[str], Sequence[str]]] = {
        "slide": slide_finder(manifest),
        "patient": _patient_finder(manifest),
    }
    ways = [(level, column) for column in columns for level in finders]

    def n_found(way: tuple[CaseLevel, str]) -> int:
        return sum(bool(finders[way[0]](row.text(way[1]))) for row in table.rows)

    level, column = max(ways, key=n_found)  # the first of those that find as many
    rows: dict[str, list[TableRow]] = {}
    for row in table.rows:
        for slide_id in finders[level](row.text(column)) or [row.text(column)]:
            rows.setdefault(slide_id, []).append(row)
    by_patient = all(row.slide_id == row.patient_id for row in manifest.rows)
    return FoundRows("patient" if by_patient else level, column, rows)


def slide_finder(manifest: Manifest) -> Callable[[str], Sequence[str]]:
    """Slides that a name stands for: by the slide's name, else by the name of its file without folder and ending."""
    exact = {row.slide_id: [row.slide_id] for row in manifest.rows}
    by_file: dict[str, set[str]] = {}
    for row in manifest.rows:
        for name in {row.slide_id, row.path.name}:
            by_file.setdefault(_file_stem(name), set()).add(row.slide_id)

    def find(name: str) -> Sequence[str]:
        like = by_file.get(_file_stem(name), ())
        return exact.get(name) or (list(like) if len(like) == 1 else [])

    return find


def _file_stem(name: str) -> str:
    return without_ending(PurePath(name.replace("\\", "/")).name)


def _patient_finder(manifest: Manifest) -> Callable[[str], Sequence[str]]:
    """All slides of the patient that a name stands for."""
    slides: dict[str, list[str]] = {}
    for row in manifest.rows:
        slides.setdefault(patient_key(row.patient_id), []).append(row.slide_id)
    return lambda name: slides.get(patient_key(name), [])
