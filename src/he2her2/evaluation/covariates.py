"""Covariates of an evaluation: columns of a table, or features, of slides or patients, for audits and subgroups."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import EvaluationError, ExchangeError, quoted
from he2her2.evaluation.named_rows import ID_SYNONYMS, find_rows
from he2her2.evaluation.slide_properties import SlideProperties
from he2her2.exchange import features_of_slide
from he2her2.manifest import (
    Manifest,
    TableRow,
    bare_name,
    files_of_slides,
    is_about_her2,
    is_blank,
    match_columns,
    read_table,
    shown_columns,
)
from he2her2.units import parse_number

_MOST_LEVELS = 50
"""Categories of more names are names of patients, samples or files."""
_BOUND = re.compile(r"[<>≤≥]=?\s*(?=\d)")
_NO_GROUPS = {
    **dict.fromkeys(("her2_status", "ish"), "is the label, or decides it"),
    **dict.fromkeys(("slide_id", "path", "patient_id", "annotations"), "names slides or patients, not groups of them"),
}
"""Columns of a manifest that make no subgroups, and the reason."""

_MOST_OF_A_SLIDE = 0.9  # share of its features that a slide may lack before it is left out
_MOST_OF_A_FEATURE = 0.05  # share of the slides that may lack a feature before it is left out


@dataclass(frozen=True, slots=True)
class Covariates:
    """Covariates by column and slide.

    Attributes:
        numbers: Of each column of numbers, the number of each slide.
        categories: Of each other column, the name of each slide.
        unread: Columns that are neither, and the reason.
        odd: Columns of numbers with other cells, which count as missing, and these.
        notes: How they were read, a sentence each.
    """

    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return (*self.numbers, *self.categories)

    def added_to(self, properties: SlideProperties) -> SlideProperties:
        """The properties of slides with the covariates beside them."""
        ids = properties.ids.tolist()
        numbers = {name: np.array([of.get(s, math.nan) for s in ids]) for name, of in self.numbers.items()}
        categories = {name: np.array([of.get(s, "") for s in ids]) for name, of in self.categories.items()}
        return replace(
            properties,
            values={**properties.values, **numbers},
            categories={**properties.categories, **categories},
        )


def read_covariates(path: Path, manifest: Manifest) -> Covariates:
    """Read a table of covariates, of slides or of patients; columns about HER2 are labels, and left out.

    Raises:
        EvaluationError: It names neither slides nor patients of the manifest, or has no other column.
        ManifestError: It cannot be read as a table.
    """
    table = read_table(path)
    names = match_columns(table, ID_SYNONYMS, ordered=True).names
    columns = list(names.values())
    if not columns:
        raise EvaluationError(f"{path}: names neither slides nor patients; it has {shown_columns(table.columns)}")
    found = find_rows(table, columns, manifest)
    labels = [column for column in table.columns if is_about_her2(column)]
    rest = [column for column in table.columns if column not in {*columns, *labels}]
    first = {slide_id: rows[0] for slide_id, rows in found.rows.items()}
    if not {row.slide_id for row in manifest.rows} & first.keys():
        raise EvaluationError(f"{path}: names no slide or patient of {manifest.path}")
    texts = {column: {slide_id: row.text(column) for slide_id, row in first.items()} for column in rest}
    covariates = _of_texts(texts)
    if not covariates.names:
        raise EvaluationError(f"{path}: has no column of numbers or of up to {_MOST_LEVELS} names to audit with")
    notes = [f"{path.name}: {found.level}s in {found.column!r}; covariates {shown_columns(covariates.names)}."]
    if several := [key for key, rows in found.rows.items() if _differ(rows, rest)]:
        notes.append(
            f"{path.name}: {len(several)} slides have rows that differ, such as {several[0]}; the first is taken."
        )
    if labels:
        notes.append(f"{path.name}: columns about HER2 are no covariates: {shown_columns(labels)}.")
    if covariates.unread:
        unread = [f"{column} ({reason})" for column, reason in covariates.unread.items()]
        notes.append(f"{path.name}: not used: {shown_columns(unread)}.")
    return replace(covariates, notes=(*notes, *_odd_cells(path, covariates.odd)))


def _differ(rows: Sequence[TableRow], columns: Sequence[str]) -> bool:
    """True if rows differ in some of the columns."""
    return any(row.text(column) != rows[0].text(column) for row in rows[1:] for column in columns)


def _of_texts(texts: Mapping[str, Mapping[str, str]]) -> Covariates:
    """Covariates of columns of text: numbers where most cells and most different cells are such, or up to 50 names.

    Args:
        texts: Of each column, the text of each slide.
    """
    numbers: dict[str, Mapping[str, float]] = {}
    categories: dict[str, Mapping[str, str]] = {}
    unread, odd = dict[str, str](), dict[str, str]()
    for column, cells in texts.items():
        filled = {slide_id: text for slide_id, text in cells.items() if not is_blank(text)}
        found = {slide_id: number for slide_id, text in filled.items() if (number := _number(text)) is not None}
        others = [text for slide_id, text in filled.items() if slide_id not in found]
        names = set(filled.values())
        if 2 * len(found) > len(filled) and 2 * len(set(others)) < len(names):
            numbers[column] = found
            if others:
                odd[column] = f"{column} ({len(others)}, such as {quoted(others[0])})"
        elif not filled:
            unread[column] = "is blank"
        elif len(names) <= _MOST_LEVELS:
            categories[column] = filled
        else:
            unread[column] = f"has {len(names)} different names, more than {_MOST_LEVELS}"
    return Covariates(numbers, categories, unread, odd)


def _odd_cells(path: Path, odd: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence on cells of columns of numbers that are none; no sentence without any."""
    return (
        (f"{path.name}: cells that are no numbers count as missing: {shown_columns([*odd.values()])}.",) if odd else ()
    )


def _number(text: str) -> float | None:
    """The number that a cell states; a bound such as ">89" is read as its number.

    Example:
        >>> _number("≥ 3"), _number("> high")
        (3.0, None)
    """
    try:
        return parse_number(_BOUND.sub("", text.strip(), count=1))
    except ValueError:
        return None


def columns_named(names: Sequence[str], covariates: Covariates, manifest: Manifest) -> Covariates:
    """Columns of the covariates or of the manifest, for subgroups of slides.

    Args:
        names: The columns, however they are written.
        covariates: Their columns come first.
        manifest: Its columns, other than those of the label and of names.

    Raises:
        EvaluationError: There is no column of a name, or it makes no groups.
    """
    if not names:
        return Covariates()
    own = _of_texts(_columns_of(manifest))
    numbers, categories = {**own.numbers, **covariates.numbers}, {**own.categories, **covariates.categories}
    unread = {**_NO_GROUPS, **own.unread, **covariates.unread}
    known = {bare_name(name): name for name in (*unread, *numbers, *categories)}
    if unknown := [name for name in names if bare_name(name) not in known]:
        has = shown_columns([*numbers, *categories]) or "none that could be one"
        raise EvaluationError(f"{manifest.path.name} has no column {', '.join(unknown)}; it has {has}")
    chosen = dict.fromkeys(known[bare_name(name)] for name in names)
    if refused := [f"{name} {unread[name]}" for name in chosen if name not in {**numbers, **categories}]:
        raise EvaluationError(f"--by: {', '.join(refused)}; name columns that make groups")
    return Covariates(
        {name: numbers[name] for name in chosen if name in numbers},
        {name: categories[name] for name in chosen if name in categories},
        notes=_odd_cells(manifest.path, {name: own.odd[name] for name in chosen if name in own.odd}),
    )


def _columns_of(manifest: Manifest) -> dict[str, dict[str, str]]:
    """By column of a manifest that may make groups, the text of each slide."""
    texts: dict[str, dict[str, str]] = {}
    for row in manifest.rows:
        fields = {name: getattr(row, name) for name in ("site", "ihc_score", "split", "stain", "mpp")}
        for name, value in {**fields, **row.extra}.items():
            texts.setdefault(name, {})[row.slide_id] = "" if value is None else str(value)
    return texts


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class SlideFeatures:
    """Features of slides.

    Attributes:
        ids: (n,) the slides.
        matrix: (n, d) their features.
        name: Of the features, in words.
        notes: How they were read, a sentence each.
    """

    ids: NDArray[np.str_]
    matrix: NDArray[np.float64]
    name: str
    notes: tuple[str, ...] = ()

    def of_patients(self, slides: NDArray[np.str_], patients: NDArray[np.str_]) -> "SlideFeatures":
        """Means over each patient's slides, of the patients who have any.

        Args:
            slides: (m,) slides.
            patients: (m,) their patients.
        """
        owner = dict(zip(slides.tolist(), patients.tolist(), strict=True))
        kept = np.array([slide_id in owner for slide_id in self.ids.tolist()], bool)
        names, group = np.unique([owner[s] for s in self.ids[kept].tolist()], return_inverse=True)
        total = np.zeros((len(names), self.matrix.shape[1]))
        np.add.at(total, group, self.matrix[kept])
        return SlideFeatures(names, total / np.bincount(group, minlength=len(names))[:, None], self.name)


def read_slide_features(path: Path, manifest: Manifest, slide_ids: NDArray[np.str_]) -> SlideFeatures:
    """Read features of slides: a folder with an h5 file for each slide, or a wide table of numbers.

    Files are found by the names of slides or of their files, see `files_of_slides`; one of tiles' features gives their
    mean. Where some are missing, features and slides are left out so that few slides are: a slide that lacks nearly
    all, then a feature that many slides lack, then the slides that lack others.

    Args:
        path: The folder or the table.
        manifest: The study.
        slide_ids: (n,) the slides that are evaluated.

    Raises:
        EvaluationError: There are none of these slides, or of different lengths.
        ManifestError: It cannot be read as a table.
    """
    notes: tuple[str, ...] = ()
    if path.is_dir():
        named = {file.stem: file for file in sorted(path.glob("*.h5")) if file.is_file()}
        paths = {s: Path(s) for s in slide_ids.tolist()} | {row.slide_id: row.path for row in manifest.rows}
        files = files_of_slides(named, paths)
        found = {s: _h5_features(files[s]) for s in slide_ids.tolist() if s in files}
        if len({len(vector) for vector in found.values()}) > 1:
            raise EvaluationError(f"{path}: its slides have different numbers of features; give those of one encoder")
        names = [f"feature {k}" for k in range(len(next(iter(found.values()), ())))]
        rows = [found.get(s, np.full(len(names), np.nan)) for s in slide_ids.tolist()]
    else:
        table = read_covariates(path, manifest)
        names, notes = list(table.numbers), table.notes
        rows = [np.array([of.get(s, np.nan) for of in table.numbers.values()]) for s in slide_ids.tolist()]
        if table.categories:
            notes = (*notes, f"{path.name}: names are no features: {shown_columns([*table.categories])}.")
    matrix = np.array(rows).reshape(len(slide_ids), len(names))
    kept, columns = _complete(np.isnan(matrix))
    if not kept.any():
        raise EvaluationError(f"{path}: holds no features of an evaluated slide of {manifest.path}")
    if lacking := [name for name, is_kept in zip(names, columns.tolist(), strict=True) if not is_kept]:
        notes = (*notes, f"{path.name}: features that many slides lack are left out: {shown_columns(lacking)}.")
    if left := slide_ids[~kept].tolist():
        n = f"{len(left)} of {len(slide_ids)} slides"
        notes = (
            *notes,
            f"{path.name}: {n} lack features and are left out of the audit of shift: {shown_columns(left)}.",
        )
    return SlideFeatures(slide_ids[kept], matrix[kept][:, columns], f"features of {path.name}", notes)


def _complete(missing: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Slides (n,) and features (d,) to keep so that none is missing.

    Args:
        missing: (n, d) features that slides lack.
    """
    n, d = missing.shape
    slides = missing.sum(axis=1) <= _MOST_OF_A_SLIDE * d if d else np.zeros(n, np.bool_)
    features = missing[slides].sum(axis=0) <= _MOST_OF_A_FEATURE * slides.sum()
    if not features.any():
        features[:] = True
    return slides & ~missing[:, features].any(axis=1), features


def _h5_features(file: Path) -> NDArray[np.float64]:
    """(d,) features of a slide; the mean of those of tiles.

    Raises:
        EvaluationError: The file holds no features.
    """
    try:
        return features_of_slide(file)
    except ExchangeError as error:
        found = f"{file}: holds no features that can be read ({error.reason})"
        raise EvaluationError(f"{found}; give h5 files with a data set 'features'") from None


@dataclass(frozen=True, slots=True)
class SideTables:
    """Facts about the evaluated slides beside the run.

    Attributes:
        covariates: Tried as shortcuts.
        columns: For subgroups.
        features: For the shift between sites; None where none were given.
    """

    covariates: Covariates
    columns: Covariates
    features: SlideFeatures | None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the reading of them."""
        return (*self.covariates.notes, *self.columns.notes, *(self.features.notes if self.features else ()))


def read_side_tables(
    covariates: Path | None, by: Sequence[str], features: Path | None, manifest: Manifest, slide_ids: NDArray[np.str_]
) -> SideTables:
    """Read what a question names beside the run.

    Args:
        covariates: Table of covariates, if any.
        by: Columns for subgroups.
        features: Folder or table of features, if any.
        manifest: The study.
        slide_ids: (n,) the evaluated slides.

    Raises:
        EvaluationError: One cannot be used.
        ManifestError: One cannot be read as a table.
    """
    read = Covariates() if covariates is None else read_covariates(covariates, manifest)
    found = None if features is None else read_slide_features(features, manifest, slide_ids)
    return SideTables(read, columns_named(by, read, manifest), found)
