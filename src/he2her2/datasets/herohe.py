"""HEROHE (ECDP 2020): a table of case numbers and HER2 status, and MIRAX slides named by case number.

Seen in public copies of the training table: cells divided by semicolons; columns `Case` and `HER2 Status` (Negative or
Positive); an extended one has `Immunohistochemistry` (0 to 3) as well. Slides are `<case>.mrxs` with their folder
`<case>/` beside them. The numbering of the test set could not be verified: give each set its own `prefix`, lest its
case 7 pass for that of the training set. Conde-Sousa et al., J Imaging 2022;8:213.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from he2her2.datasets.cohort_labels import COLUMN_REMEDY, CohortLabels, Conflict, LabelledPatient, exclusions_in_order
from he2her2.datasets.slide_files import SlideName
from he2her2.errors import ManifestError
from he2her2.labels import Her2Status, Policy, Stratum, apply_guideline, parse_ihc, parse_status
from he2her2.manifest import match_columns, names_nothing, read_table

HEROHE_COLUMNS: Mapping[str, Sequence[str]] = {
    "case": ("case", "case_id", "slide", "slide_id", "id", "patient_id"),
    "status": ("her2_status", "status", "her2", "result", "label"),
    "ihc": ("immunohistochemistry", "ihc", "ihc_score", "her2_ihc_score"),
}

_EXCLUSIONS = ("no HER2 status",)

_NUMBERED_CASE = re.compile(r"(?:(?:herohe|case|slide|patient|no)[\s._-]*)*0*([0-9]+)(?:[.,]0+)?")


def read_herohe(
    table: Path, *, prefix: str = "herohe", columns: Mapping[str, str | None] | None = None
) -> CohortLabels:
    """Read HEROHE's table.

    Args:
        table: The table.
        prefix: Put before each case number to name the patient.
        columns: Names of columns that do not go by their usual names, by the keys of `HEROHE_COLUMNS`.

    Raises:
        ManifestError: The table cannot be read, a cell cannot be understood or a case comes twice: all problems.
    """
    read = read_table(table)
    found = match_columns(
        read, HEROHE_COLUMNS, columns, required=("case", "status"), ordered=True, remedy=COLUMN_REMEDY
    )
    patients, conflicts, unlabelled, seen = [], [], [], set[str]()
    for row in read.rows:
        case = "" if names_nothing(found.text(row, "case")) else case_key(found.text(row, "case"))
        if not case or case in seen:
            found.problems.append(f"line {row.line}: {f'case {case} comes twice' if case else 'no case'}")
            continue
        seen.add(case)
        status = found.value(row, "status", parse_status)
        score = found.value(row, "ihc", parse_ihc)
        name = f"{prefix}-{case}"
        if status is None or status == Her2Status.UNDETERMINED:
            unlabelled.append(name)
            continue
        by_score = apply_guideline(score, policy=Policy.GUIDELINE)
        if by_score.status not in (status, Her2Status.UNDETERMINED):
            fields = f"IHC {score}, status {status}"
            conflicts.append(Conflict(row.line, name, "IHC score and HER2 status", fields, "the stated status stands"))
        stratum = _stratum(status, by_score.stratum, is_two=score == "2+")
        patients.append(LabelledPatient(name, case, row.line, score, None, status, stratum, "as stated", prefix))
    if found.problems:
        raise ManifestError([f"{table}: {problem}" for problem in found.problems])
    return CohortLabels(
        "HEROHE",
        len(seen),
        tuple(patients),
        exclusions_in_order(_EXCLUSIONS, {_EXCLUSIONS[0]: unlabelled}),
        tuple(conflicts),
        found.notes,
    )


def herohe_slide_name(path: Path) -> SlideName | str:
    """Read case and stain from a HEROHE slide's name.

    Example:
        >>> herohe_slide_name(Path("007.mrxs"))
        SlideName(case='7', stain='HE')
    """
    return SlideName(case_key(path.stem), "HE")


def case_key(text: str) -> str:
    """A case's key: its bare number, as of "Case 7", "007" and a spreadsheet's "7.0"; other names in small letters.

    Example:
        >>> case_key("012"), case_key("Case 12.0"), case_key("Case_A")
        ('12', '12', 'case_a')
    """
    bare = text.strip().casefold()
    numbered = _NUMBERED_CASE.fullmatch(bare)
    return numbered[1] if numbered else bare


def _stratum(status: Her2Status, by_score: Stratum, *, is_two: bool) -> Stratum:
    """The stated status with the score: a 2+ that is negative was so by ISH, which makes it low."""
    if status == Her2Status.POSITIVE:
        return Stratum.POSITIVE
    if is_two:
        return Stratum.LOW
    return Stratum.UNDETERMINED if by_score == Stratum.POSITIVE else by_score
