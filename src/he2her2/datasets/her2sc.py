"""The HER2 Scoring Contest (Warwick, 2016): a table of IHC scores by case, and H&E and IHC slides (NDPI).

The contest's files are given on registration only, and their exact names could not be verified; known is that each case
has an H&E and an IHC slide, and a score from 0 to 3 with the percentage of complete membrane staining (Qaiser et al.,
Histopathology 2018;72:227-238). So a table may name its columns in many ways (or by `HER2SC_COLUMNS`), and a slide's
name must hold the case number and the stain as parts of their own (`12_HER2.ndpi`, `HE/case 12.ndpi`), or the user
gives a pattern. There is no ISH: a 2+ is undetermined by the guideline and positive by the paper's policy.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from he2her2.datasets.cohort_labels import COLUMN_REMEDY, CohortLabels, LabelledPatient, exclusions_in_order
from he2her2.datasets.herohe import case_key
from he2her2.datasets.slide_files import SlideName
from he2her2.errors import ConfigError, ManifestError
from he2her2.labels import Policy, apply_guideline, parse_ihc
from he2her2.manifest import Stain, match_columns, names_nothing, read_table

HER2SC_COLUMNS: Mapping[str, Sequence[str]] = {
    "case": ("case", "case_no", "case_number", "case_id", "slide", "slide_name", "id", "patient_id"),
    "score": ("her2_score", "score", "ihc_score", "ihc", "gt", "ground_truth", "label"),
}

_EXCLUSIONS = ("no IHC score (the contest keeps those of its test cases)",)

_SITE = "her2sc"

_STAINS: Mapping[str, Stain] = {"HER2": "IHC", "IHC": "IHC", "HER2NEU": "IHC", "HE": "HE", "H&E": "HE", "H+E": "HE"}
_PARTS = re.compile(r"[^A-Za-z0-9&+]+")
_CASE = re.compile(r"(?:CASE|SLIDE|PATIENT|NO)?(\d+)")


def read_her2sc(
    table: Path,
    *,
    prefix: str = _SITE,
    policy: Policy = Policy.GUIDELINE,
    columns: Mapping[str, str | None] | None = None,
) -> CohortLabels:
    """Read the contest's ground truth.

    Args:
        table: The table, as CSV.
        prefix: Put before each case to name the patient.
        policy: Status of a 2+: undetermined, or positive.
        columns: Names of columns that do not go by their usual names, by the keys of `HER2SC_COLUMNS`.

    Raises:
        ManifestError: The table cannot be read, a cell cannot be understood or a case comes twice: all problems.
    """
    read = read_table(table)
    found = match_columns(read, HER2SC_COLUMNS, columns, required=("case", "score"), ordered=True, remedy=COLUMN_REMEDY)
    patients, unscored, seen = [], [], set[str]()
    for row in read.rows:
        case = "" if names_nothing(found.text(row, "case")) else _case_of_cell(found.text(row, "case"))
        if not case or case in seen:
            found.problems.append(f"line {row.line}: {f'case {case} comes twice' if case else 'no case'}")
            continue
        seen.add(case)
        score = found.value(row, "score", parse_ihc)
        name = f"{prefix}-{case}"
        if score is None:
            unscored.append(name)
            continue
        decision = apply_guideline(score, policy=policy)
        patients.append(
            LabelledPatient(name, case, row.line, score, None, decision.status, decision.stratum, decision.rule, _SITE)
        )
    if found.problems:
        raise ManifestError([f"{table}: {problem}" for problem in found.problems])
    exclusions = exclusions_in_order(_EXCLUSIONS, {_EXCLUSIONS[0]: unscored})
    return CohortLabels("HER2 Scoring Contest", len(seen), tuple(patients), exclusions, notes=found.notes)


def _slide_name(path: Path) -> SlideName | str:
    """Read case and stain from a slide's name; where it lacks the stain, from the name of its folder.

    Example:
        >>> _slide_name(Path("12_HER2.ndpi")), _slide_name(Path("HE/case 07.ndpi"))
        (SlideName(case='12', stain='IHC'), SlideName(case='7', stain='HE'))
        >>> _slide_name(Path("macro.ndpi"))
        'no case and stain in its name'
    """
    parts, above = (_PARTS.split(text.upper()) for text in (path.stem, path.parent.name))
    stain = next((_STAINS[part] for part in (*parts, *above) if part in _STAINS), None)
    case = next((found[1] for part in parts if part not in _STAINS and (found := _CASE.fullmatch(part))), None)
    return SlideName(case_key(case), stain) if case and stain else "no case and stain in its name"


def her2sc_slide_namer(pattern: str | None) -> Callable[[Path], SlideName | str]:
    """Return a reader of slide names: by a regular expression with the groups `case` and `stain`, or the usual one.

    Letter case counts in the expression, unless it says `(?i)`.

    Raises:
        ConfigError: The pattern is no regular expression, or lacks a group.
    """
    if pattern is None:
        return _slide_name
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--pattern {pattern}: {error}") from None
    if not {"case", "stain"} <= compiled.groupindex.keys():
        raise ConfigError(f"--pattern {pattern}: needs the groups (?P<case>...) and (?P<stain>...)")

    def name_by_pattern(path: Path) -> SlideName | str:
        found = compiled.search(path.name)
        stain = _STAINS.get(found["stain"].upper()) if found else None
        return SlideName(case_key(found["case"]), stain) if found and stain else "not named by the pattern"

    return name_by_pattern


def _case_of_cell(text: str) -> str:
    """A cell's case: "7", "07" and "Case 7" are one; a slide's name stands for its case."""
    parts = [part for part in _PARTS.split(text.upper()) if part not in _STAINS]
    number = next((found[1] for part in parts if (found := _CASE.fullmatch(part))), None)
    return case_key(number or text)
