"""Rows of other people's tables, found by the names of the manifest's slides or patients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias

from he2her2.errors import EvaluationError
from he2her2.evaluation.cases import CaseLevel
from he2her2.manifest import (
    CASE_NUMBERS,
    PATIENT_SYNONYMS,
    Manifest,
    Table,
    TableRow,
    bare_name,
    patient_key,
    without_ending,
)

ID_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "slide": ("slide_id", "slide", "slide_name", "image_id", "image", "wsi", "wsi_name", "filename", "file", "id"),
    "patient": ("patient_id", "patient", "case_id", "case", *PATIENT_SYNONYMS),
}
"""Usual headings of a column of slides or patients."""

_ANY_ID = "id"
_OTHER: Mapping[CaseLevel, CaseLevel] = {"slide": "patient", "patient": "slide"}

_Found: TypeAlias = dict[tuple[CaseLevel, str], list[Sequence[str]]]
"""Slides of each row, by the level and the column of their names."""


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

    Names such as 1, 2, 3 are found at both levels, as those of different slides: there a heading that says slide or
    patient decides, and a slide must be of the patient whom its row names. A number of a case beside a column of slides
    may be that of a specimen: it names a patient where the manifest names nothing else.

    Args:
        table: The table.
        columns: Columns that may name slides or patients, at least one.
        manifest: The study.

    Raises:
        EvaluationError: Names are found at both levels, as those of different slides, and the heading says neither.
    """
    finders: Mapping[CaseLevel, Callable[[str], Sequence[str]]] = {
        "slide": slide_finder(manifest),
        "patient": _patient_finder(manifest),
    }
    found = {
        (level, column): [find(row.text(column)) for row in table.rows]
        for column in columns
        for level, find in finders.items()
    }
    by_patient = all(row.slide_id == row.patient_id for row in manifest.rows)
    may_be_specimens = not by_patient and "slide" in map(_level_of, columns)
    for column in [column for column in columns if _level_of(column) == "patient"]:
        if not (may_be_specimens and bare_name(column) in map(bare_name, CASE_NUMBERS)):
            _leave_out_others(found, column)
    n_found = {way: sum(map(bool, slides)) for way, slides in found.items()}
    ways = [way for way in found if not _is_of_the_other_level(way, n_found)]
    level, column = max(ways, key=n_found.__getitem__)  # the first of those that find as many
    rival = (_OTHER[level], column)
    if rival in ways and 2 * n_found[rival] >= n_found[level, column] and _differ(found[level, column], found[rival]):
        raise EvaluationError(
            f"{table.path}: the names in {column!r} are those of slides, and of patients of other slides; call the "
            "column slide_id or patient_id"
        )
    rows: dict[str, list[TableRow]] = {}
    for row, slides in zip(table.rows, found[level, column], strict=True):
        for slide_id in slides or [row.text(column)]:
            rows.setdefault(slide_id, []).append(row)
    return FoundRows("patient" if by_patient else level, column, rows)


def _level_of(column: str) -> CaseLevel | None:
    """Level that a heading names; None for others, such as "id"."""
    for level, usual in ID_SYNONYMS.items():
        if bare_name(column) in {bare_name(word) for word in usual if word != _ANY_ID}:
            return "slide" if level == "slide" else "patient"
    return None


def _leave_out_others(found: _Found, column: str) -> None:
    """Leave out the slides of a row that are not among those of the patient in a column."""
    of_patient = found["patient", column]
    for level, other in found:
        if level == "slide" and other != column:
            found[level, other] = [
                slides if not own or set(slides) <= set(own) else []
                for slides, own in zip(found[level, other], of_patient, strict=True)
            ]


def _is_of_the_other_level(way: tuple[CaseLevel, str], n_found: Mapping[tuple[CaseLevel, str], int]) -> bool:
    """True where the heading names the other level, and at least half as many rows are found there."""
    level, column = way
    other = _OTHER[level]
    return _level_of(column) == other and 2 * n_found[other, column] >= n_found[way] > 0


def _differ(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> bool:
    return any(first and second and set(first) != set(second) for first, second in zip(one, other, strict=True))


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
