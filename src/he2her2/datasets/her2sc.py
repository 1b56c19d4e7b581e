"""The HER2 Scoring Contest (Warwick, 2016): a table of IHC scores by case, and H&E and IHC slides (NDPI).

The contest's files are given on registration only, and their exact names could not be verified; known is that each case
has an H&E and an IHC slide, and a score from 0 to 3 with the percentage of complete membrane staining (Qaiser et al.,
Histopathology 2018;72:227-238). So a table may name its columns in many ways (`ALIASES`, or name them), and a slide's
name must hold the case number and the stain as parts of their own (`12_HER2.ndpi`, `HE/case 12.ndpi`), or the user
gives a pattern. There is no ISH: a 2+ is undetermined by the guideline and positive by the paper's policy.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from he2her2.datasets.columns import find_columns
from he2her2.datasets.herohe import case_key
from he2her2.datasets.slide_files import SlideName
from he2her2.datasets.study import LabelledPatient, Study, exclusions_in_order
from he2her2.errors import ConfigError, ManifestError
from he2her2.labels import Policy, decide, parse_ihc
from he2her2.manifest.reading import read_table
from he2her2.manifest.table import Stain

ALIASES: Mapping[str, Sequence[str]] = {
    "case": ("case", "case_no", "case_number", "case_id", "slide", "slide_name", "id", "patient_id"),
    "score": ("her2_score", "score", "ihc_score", "ihc", "gt", "ground_truth", "label"),
}

REASONS = ("no IHC score (the contest keeps those of its test cases)",)

SITE = "her2sc"

_STAINS: Mapping[str, Stain] = {"HER2": "IHC", "IHC": "IHC", "HER2NEU": "IHC", "HE": "HE", "H&E": "HE", "H+E": "HE"}
_PARTS = re.compile(r"[^A-Za-z0-9&+]+")
_CASE = re.compile(r"(?:CASE|SLIDE|PATIENT|NO)?(\d+)")


def read_her2sc(
    table: Path,
    *,
    prefix: str = SITE,
    policy: Policy = Policy.GUIDELINE,
    columns: Mapping[str, str | None] | None = None,
) -> Study:
    """Read the contest's ground truth.

    Args:
        table: The table, as CSV.
        prefix: Put before each case to name the patient.
        policy: What a 2+ is.
        columns: Names of columns that do not go by their usual names, by the keys of `ALIASES`.

    Raises:
        ManifestError: The table cannot be read, a cell means nothing or a case comes twice: all problems.
    """
    read = read_table(table)
    found = find_columns(read, ALIASES, columns or {}, required=("case", "score"))
    patients, unscored, seen = [], [], set[str]()
    for row in read.rows:
        case = _case_of_cell(found.text(row, "case"))
        if not case or case in seen:
            found.problems.append(f"line {row.line}: {f'case {case} comes twice' if case else 'no case'}")
            continue
        seen.add(case)
        score = found.value(row, "score", parse_ihc)
        name = f"{prefix}-{case}"
        if score is None:
            unscored.append(name)
            continue
        decision = decide(score, policy=policy)
        patients.append(
            LabelledPatient(name, case, row.line, score, None, decision.status, decision.stratum, decision.rule, SITE)
        )
    if found.problems:
        raise ManifestError([f"{table}: {problem}" for problem in found.problems])
    exclusions = exclusions_in_order(REASONS, {REASONS[0]: unscored})
    return Study("HER2 Scoring Contest", len(seen), tuple(patients), exclusions)


def name_of(path: Path) -> SlideName | str:
    """What a slide's name says; where it lacks the stain, the name of its folder may tell it.

    Example:
        >>> name_of(Path("12_HER2.ndpi")), name_of(Path("HE/case 07.ndpi"))
        (SlideName(case='12', stain='IHC'), SlideName(case='7', stain='HE'))
        >>> name_of(Path("macro.ndpi"))
        'no case and stain in its name'
    """
    parts, above = (_PARTS.split(text.upper()) for text in (path.stem, path.parent.name))
    stain = next((_STAINS[part] for part in (*parts, *above) if part in _STAINS), None)
    case = next((found[1] for part in parts if part not in _STAINS and (found := _CASE.fullmatch(part))), None)
    return SlideName(case_key(case), stain) if case and stain else "no case and stain in its name"


def namer(pattern: str | None) -> Callable[[Path], SlideName | str]:
    """How slides are named: by a regular expression with the groups `case` and `stain`, or as `name_of` does.

    Raises:
        ConfigError: The pattern is no regular expression, or lacks a group.
    """
    if pattern is None:
        return name_of
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
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
