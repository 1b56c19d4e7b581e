"""TCGA-BRCA: its clinical table, whose HER2 fields contradict each other, and its slides, named by barcode.

A patient may have several rows: those of its primary tumour (sample type 01) stand where there are any, and a blank
field contradicts no other. Two traps, each met in the public table:

- The copy number is per cell in some rows and the total over all counted cells in others (185 beside a ratio of 1.1):
  where it would mean more than 10 CEP17 signals per nucleus it is a total, and not used.
- The status by IHC is sometimes the final one, FISH included (score 2+, "Positive", FISH positive).

How fields are reconciled, each use logged where fields contradict each other:

1. IHC: the score, unless its own status contradicts it (score 1+ called positive), then neither; a status without a
   score stands for what it means (negative: 0 or 1+; equivocal: 2+; positive: 3+) but becomes no score in the manifest.
2. ISH: ratio and copies where both are usable (ASCO/CAP 2018 groups), else the stated FISH status, else the ratio.
3. Both go through `labels.apply_guideline`. A positive status by IHC without a score is left open by a negative ISH.
4. A final or derived status of the table is not used; where it differs from that of the tests, a conflict is logged.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from he2her2.datasets.cohort_labels import CohortLabels, Conflict, LabelledPatient, exclusions_in_order
from he2her2.datasets.slide_files import SlideName
from he2her2.datasets.tcga_fields import Her2Fields, bare_word, read_her2_fields
from he2her2.errors import ManifestError
from he2her2.labels import (
    CEP17_PER_CELL,
    Her2Status,
    IhcScore,
    Ish,
    IshCounts,
    IshGroup,
    IshResult,
    Policy,
    Stratum,
    apply_guideline,
    doubt_about,
)
from he2her2.manifest import read_table


class _Reason(StrEnum):
    """Reasons to leave a patient out, in the order of the rules."""

    NO_TEST = "no HER2 test"
    ROWS_DISAGREE = "rows of the same patient that disagree"
    IHC_CONTRADICTS_ITSELF = "IHC score and IHC status contradict each other, and no ISH decides"
    ISH_CONTRADICTS_ITSELF = "ISH fields contradict each other, and IHC does not decide"
    IHC_STATUS_AGAINST_ISH = "IHC status and ISH contradict each other, and there is no IHC score"
    NO_ISH = "IHC equivocal (2+) without ISH"
    NO_RECOUNT = "ISH group 2 to 4 with IHC 2+, and no recount on record"
    NO_IHC = "ISH without IHC, of a group that needs it"
    STRICT = "a conflict, and --strict was asked for"


_PRIMARY = "01"
_SLIDE = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})-(\d{2})[A-Z]-\d{2}-([A-Z]{2})[0-9A-Z]+", re.IGNORECASE)
_STATEMENTS = ("score", "status", "fish", "ratio", "copies", "copies_text", "final")
_WRONG_UNIT = "copies per cell"
_MOST_COPIES = 50.0  # per cell, where no ratio is given
_MEANS = {  # what a status by IHC stands for
    IshResult.NEGATIVE: IhcScore.ZERO,
    IshResult.EQUIVOCAL: IhcScore.TWO,
    IshResult.POSITIVE: IhcScore.THREE,
}


def read_tcga_brca(
    clinical: Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    policy: Policy = Policy.GUIDELINE,
    strict: bool = False,
) -> CohortLabels:
    """Reconcile the HER2 fields of a TCGA-BRCA clinical table.

    Args:
        clinical: The table.
        columns: Names of columns that do not go by their usual names, by the keys of `TCGA_COLUMNS`.
        policy: Whether an equivocal 2+ without ISH is left out or counts as positive.
        strict: Leave out every patient with a conflict, instead of deciding by the rules; a copy number that is a
            total contradicts nothing.

    Raises:
        ManifestError: The table cannot be read, or cells cannot be understood: all of them.
    """
    table = read_table(clinical)
    found, fields = read_her2_fields(table, columns or {})
    if found.problems:
        raise ManifestError([f"{clinical}: {problem}" for problem in found.problems])
    by_patient = defaultdict(list)
    for one in fields:
        by_patient[one.patient_id].append(one)
    patients, conflicts, left_out = [], list[Conflict](), defaultdict[str, list[str]](list)
    for patient_id, rows in by_patient.items():
        result, met = _reconcile(rows, policy)
        if strict and not isinstance(result, _Reason) and any(conflict.conflict != _WRONG_UNIT for conflict in met):
            result = _Reason.STRICT
        if isinstance(result, _Reason):
            left_out[result].append(patient_id)
            met = [replace(conflict, resolution="left out") for conflict in met]
        else:
            patients.append(result)
        conflicts += met
    return CohortLabels(
        "TCGA-BRCA",
        len(by_patient),
        tuple(patients),
        exclusions_in_order([reason.value for reason in _Reason], left_out),
        tuple(conflicts),
        found.notes,
    )


def tcga_slide_name(path: Path) -> SlideName | str:
    """Read the patient from a TCGA slide's name; only diagnostic (DX) H&E slides of primary tumours (01) are used.

    Example:
        >>> tcga_slide_name(Path("TCGA-A1-A0SK-01Z-00-DX1.A44D70FA.svs"))
        SlideName(case='TCGA-A1-A0SK', stain='HE')
        >>> tcga_slide_name(Path("tcga-cr-7395-01a-01-ts1.svs"))
        'frozen section (TS)'
    """
    found = _SLIDE.match(path.name)
    if found is None:
        return "no TCGA slide barcode"
    patient, sample, portion = (part.upper() for part in found.groups())
    if sample != "01":
        return f"no primary tumour (sample type {sample})"
    if portion != "DX":
        return f"frozen section ({portion})"
    return SlideName(patient, "HE")


def _reconcile(rows: Sequence[Her2Fields], policy: Policy) -> tuple[LabelledPatient | _Reason, list[Conflict]]:
    """Label a patient by its rows, or give the reason to leave it out; and the conflicts that were met."""
    rows = [row for row in rows if row.sample == _PRIMARY] or rows
    first = _merged(rows)
    if first is None:
        found = "; ".join(f"line {row.line}: {row!s}" for row in rows)
        return _Reason.ROWS_DISAGREE, [Conflict(rows[0].line, rows[0].patient_id, "rows disagree", found, "left out")]
    if first.nothing:
        return _Reason.NO_TEST, []
    ihc, ihc_conflicts = _ihc(first)
    ish, ish_conflicts = _ish(first)
    conflicts = [*ihc_conflicts, *ish_conflicts]
    decision = apply_guideline(ihc, ish, policy=policy)
    if decision.conflict:
        conflicts.append(_conflict(first, "IHC and ISH", f"by {decision.rule}"))
    if decision.status == Her2Status.UNDETERMINED:
        return _why_open(ihc, ish, ihc_conflicts, ish_conflicts), conflicts
    if decision.conflict and first.score is None:
        return _Reason.IHC_STATUS_AGAINST_ISH, conflicts
    if first.final is not None and first.final.value != decision.status.value:
        conflicts.append(_conflict(first, "tests and the table's own status", f"{decision.status}: {decision.rule}"))
    score = first.score if ihc == first.score else None
    stratum = Stratum.UNDETERMINED if score is None and decision.stratum != Stratum.POSITIVE else decision.stratum
    implied = f"IHC {first.status} without a score"
    rule = decision.rule if score == ihc else decision.rule.replace(f"IHC {ihc}", implied)
    name, site = first.patient_id, first.patient_id.split("-")[1]
    return LabelledPatient(name, name, first.line, score, ish, decision.status, stratum, rule, site), conflicts


def _merged(rows: Sequence[Her2Fields]) -> Her2Fields | None:
    """The fields of all rows of a patient, where a blank states nothing; None where two rows contradict each other."""
    merged = rows[0]
    for row in rows[1:]:
        stated = {name: value for name in _STATEMENTS if (value := getattr(row, name)) not in (None, "")}
        if "copies" in stated and merged.copies == row.copies:
            del stated["copies_text"]  # the same number may be written in two ways
        if any(getattr(merged, name) not in (None, "", value) for name, value in stated.items()):
            return None
        merged = replace(merged, **stated)
    return merged


def _why_open(
    ihc: IhcScore | None, ish: Ish | None, ihc_conflicts: Sequence[Conflict], ish_conflicts: Sequence[Conflict]
) -> _Reason:
    """The reason why the tests leave the status open."""
    if ihc is None and ihc_conflicts:
        return _Reason.IHC_CONTRADICTS_ITSELF
    if ish is None and ish_conflicts:
        return _Reason.ISH_CONTRADICTS_ITSELF
    if ihc != IhcScore.TWO:
        return _Reason.NO_IHC
    return _Reason.NO_RECOUNT if isinstance(ish, IshCounts) else _Reason.NO_ISH


def _ihc(fields: Her2Fields) -> tuple[IhcScore | None, list[Conflict]]:
    """The IHC evidence, and the conflict of score and status."""
    score, status = fields.score, fields.status
    if score is None:
        return None if status is None else _MEANS[status], []
    means = {IhcScore.ONE: IhcScore.ZERO}.get(score, score)  # 0 and 1+ are both negative
    if status is None or _MEANS[status] == means:
        return score, []
    if score == IhcScore.TWO:  # the status may be the final one, FISH included
        conflict = [] if status == fields.fish else [_conflict(fields, "IHC score and IHC status", "the score stands")]
        return score, conflict
    return None, [_conflict(fields, "IHC score and IHC status", "neither is used")]


def _ish(fields: Her2Fields) -> tuple[Ish | None, list[Conflict]]:
    """The ISH evidence, and the conflicts of counts and stated result."""
    conflicts = []
    copies = fields.copies
    if copies is not None and _is_total(copies, fields.ratio):
        conflicts.append(_conflict(fields, _WRONG_UNIT, "a total over all counted cells; not used"))
        copies = None
    if "notamplified" in bare_word(fields.copies_text) and fields.fish == IshResult.POSITIVE:
        return None, [*conflicts, _conflict(fields, "FISH and copies", "neither is used")]
    if fields.ratio is not None and copies is not None:
        counts = IshCounts(fields.ratio, copies)
        if doubt := doubt_about(counts):
            conflicts.append(_conflict(fields, "ratio and copies", f"{doubt}; neither is used"))
            return fields.fish, conflicts
        if fields.fish is not None and fields.fish not in _agrees_with(counts):
            group = f"group {counts.possible_groups[0].value} of ASCO/CAP 2018 by the counts"
            conflicts.append(_conflict(fields, "FISH and counts", group))
        return counts, conflicts
    if fields.fish is not None:
        partial = None if fields.ratio is None else IshCounts(fields.ratio, None)
        if partial is not None and fields.fish not in _agrees_with(partial):
            return None, [*conflicts, _conflict(fields, "FISH and ratio", "neither is used")]
        return fields.fish, conflicts
    only = fields.ratio is not None or copies is not None
    return IshCounts(fields.ratio, copies) if only else None, conflicts


def _agrees_with(counts: IshCounts) -> set[IshResult]:
    """The stated results that go with such counts; any other one is a conflict."""
    states = {
        IshGroup.GROUP_1: {IshResult.POSITIVE},
        IshGroup.GROUP_2: {IshResult.POSITIVE},
        IshGroup.GROUP_3: {IshResult.POSITIVE},
        IshGroup.GROUP_4: {IshResult.EQUIVOCAL, IshResult.NEGATIVE},
        IshGroup.GROUP_5: {IshResult.NEGATIVE},
    }
    if counts.copies is None:  # by a ratio alone; from 1.8 to 2.2 the guideline of 2007 called it equivocal
        ratio = counts.ratio or 0.0
        called = IshResult.POSITIVE if ratio >= 2 else IshResult.NEGATIVE
        return {called, IshResult.EQUIVOCAL} if 1.8 <= ratio <= 2.2 else {called}
    return states[counts.possible_groups[0]]


def _is_total(copies: float, ratio: float | None) -> bool:
    """Check if a copy number counts all nuclei together.

    Example:
        >>> _is_total(185, 1.1), _is_total(21, 10.3), _is_total(6.4, 1.3), _is_total(114, None)
        (True, False, False, True)
    """
    return copies > _MOST_COPIES if not ratio else copies / ratio > CEP17_PER_CELL[1]


def _conflict(fields: Her2Fields, kind: str, resolution: str) -> Conflict:
    return Conflict(fields.line, fields.patient_id, kind, str(fields), resolution)
