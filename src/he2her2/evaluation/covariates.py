"""Covariates of an evaluation: columns of a table, or features, of slides or patients, for audits and subgroups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from he2her2.errors import EvaluationError
from he2her2.evaluation.named_rows import ID_SYNONYMS, find_rows
from he2her2.evaluation.slide_properties import SlideProperties
from he2her2.manifest import (
    Manifest,
    TableRow,
    bare_name,
    is_about_her2,
    is_blank,
    match_columns,
    read_table,
    shown_columns,
)
from he2her2.units import parse_number

_MOST_LEVELS = 50
"""Categories of more names are names of patients, samples or files."""

_FEATURES = ("features", "feats")


@dataclass(frozen=True, slots=True)
class Covariates:
    """Covariates by column and slide.

    Attributes:
        numbers: Of each column of numbers, the number of each slide.
        categories: Of each other column, the name of each slide.
        notes: How they were read, a sentence each.
    """

    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return (*self.numbers, *self.categories)

    def only(self, names: Sequence[str], whence: str) -> "Covariates":
        """Some of the columns, by their names, however these are written.

        Raises:
            EvaluationError: There is none of a name.
        """
        known = {bare_name(name): name for name in self.names}
        if unknown := [name for name in names if bare_name(name) not in known]:
            has = shown_columns(self.names) or "none that could be one"
            raise EvaluationError(f"{whence} has no column {', '.join(unknown)}; it has {has}")
        chosen = [known[bare_name(name)] for name in names]
        return Covariates(
            {name: self.numbers[name] for name in chosen if name in self.numbers},
            {name: self.categories[name] for name in chosen if name in self.categories},
        )

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
    covariates = of_texts(texts)
    if not covariates.names:
        raise EvaluationError(f"{path}: has no column of numbers or of up to {_MOST_LEVELS} names to audit with")
    notes = [f"{path.name}: {found.level}s in {found.column!r}; covariates {shown_columns(covariates.names)}."]
    if several := [key for key, rows in found.rows.items() if _differ(rows, rest)]:
        notes.append(
            f"{path.name}: {len(several)} slides have rows that differ, such as {several[0]}; the first is taken."
        )
    if labels:
        notes.append(f"{path.name}: columns about HER2 are no covariates: {shown_columns(labels)}.")
    if left := [column for column in rest if column not in covariates.names]:
        notes.append(f"{path.name}: not used, as blank or of a name for each: {shown_columns(left)}.")
    return replace(covariates, notes=tuple(notes))


def _differ(rows: Sequence[TableRow], columns: Sequence[str]) -> bool:
    """True if rows differ in some of the columns."""
    return any(row.text(column) != rows[0].text(column) for row in rows[1:] for column in columns)


def of_texts(texts: Mapping[str, Mapping[str, str]]) -> Covariates:
    """Covariates of columns of text: numbers, or categories of up to 50 names.

    Args:
        texts: Of each column, the text of each slide.
    """
    numbers: dict[str, Mapping[str, float]] = {}
    categories: dict[str, Mapping[str, str]] = {}
    for column, cells in texts.items():
        filled = {slide_id: text for slide_id, text in cells.items() if not is_blank(text)}
        try:
            if filled:
                numbers[column] = {slide_id: parse_number(text) for slide_id, text in filled.items()}
        except ValueError:
            if len(set(filled.values())) <= _MOST_LEVELS:
                categories[column] = filled
    return Covariates(numbers, categories)


def columns_named(
    names: Sequence[str], covariates: Covariates, manifest: Manifest, slide_ids: NDArray[np.str_]
) -> SlideProperties:
    """Columns of the covariates or of the manifest, for subgroups of slides.

    Args:
        names: The columns, however they are written.
        covariates: Their columns come first.
        manifest: Its own columns, and site and IHC score.
        slide_ids: (n,) the slides.

    Raises:
        EvaluationError: There is no column of a name.
    """
    if not names:
        return SlideProperties(slide_ids, {})
    texts: dict[str, dict[str, str]] = {}
    for row in manifest.rows:
        own: dict[str, str] = {"site": row.site or "", "ihc_score": row.ihc_score or "", **row.extra}
        for name, text in own.items():
            texts.setdefault(name, {})[row.slide_id] = text
    of_manifest = of_texts(texts)
    every = Covariates(
        {**of_manifest.numbers, **covariates.numbers}, {**of_manifest.categories, **covariates.categories}
    )
    return every.only(names, manifest.path.name).added_to(SlideProperties(slide_ids, {}))


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class SlideFeatures:
    """Features of slides.

    Attributes:
        ids: (n,) the slides.
        matrix: (n, d) their features.
        name: Of the features, in words.
    """

    ids: NDArray[np.str_]
    matrix: NDArray[np.float64]
    name: str

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


def read_slide_features(path: Path, manifest: Manifest) -> SlideFeatures:
    """Read features of slides: a folder with an h5 file for each slide, or a wide table of numbers.

    A file of tiles' features gives their mean.

    Raises:
        EvaluationError: There are none of the manifest's slides, or of different lengths.
        ManifestError: It cannot be read as a table.
    """
    known = {row.slide_id for row in manifest.rows}
    if path.is_dir():
        found = {row.slide_id: _h5_features(path / f"{row.slide_id}.h5") for row in manifest.rows}
        vectors = {slide_id: vector for slide_id, vector in found.items() if vector is not None}
    else:
        of_columns = read_covariates(path, manifest).numbers
        whole = known.intersection(*of_columns.values()) if of_columns else set()
        vectors = {s: np.array([of[s] for of in of_columns.values()]) for s in sorted(whole)}
    if not vectors:
        raise EvaluationError(f"{path}: holds no features of a slide of {manifest.path}")
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise EvaluationError(f"{path}: its slides have different numbers of features; give those of one encoder")
    return SlideFeatures(np.array(list(vectors)), np.stack(list(vectors.values())), f"features of {path.name}")


def _h5_features(file: Path) -> NDArray[np.float64] | None:
    """(d,) features of a slide; the mean of those of tiles; None without a file.

    Raises:
        EvaluationError: The file holds no features.
    """
    if not file.is_file():
        return None
    try:
        with h5py.File(file) as h5:
            name = next(name for name in _FEATURES if name in h5)
            values = np.asarray(h5[name][()], np.float64)
    except (OSError, StopIteration, TypeError, ValueError):
        raise EvaluationError(f"{file}: holds no features; give h5 files with a data set 'features'") from None
    return values if values.ndim == 1 else values.reshape(-1, values.shape[-1]).mean(axis=0)
