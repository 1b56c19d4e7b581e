"""TCGA-BRCA: its clinical table, whose HER2 fields contradict each other, and its slides, named by barcode.

Fields, by their names in the BCR biotab files, at GDC, in cBioPortal's `brca_tcga`, at Xena and in tables made from
them: HER2 status by IHC, HER2 IHC score, FISH status, HER2/CEP17 ratio, HER2 copy number, and perhaps a final or
derived status. GDC's table of molecular tests has a row for each test. A patient may have several rows: those of its
primary tumour (sample type 01) stand where there are any, and a blank field contradicts no other. Three traps, each met
in the public table:

- `IHC_Score` (0 to 4) of cBioPortal is not HER2's; it is never read.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from he2her2.datasets.cohort_labels import COLUMN_REMEDY, CohortLabels, Conflict, LabelledPatient, exclusions_in_order
from he2her2.datasets.slide_files import SlideName
from he2her2.errors import ManifestError, quoted
from he2her2.labels import (
    Her2Status,
    IhcScore,
    Ish,
    IshCounts,
    IshGroup,
    IshResult,
    Policy,
    Stratum,
    apply_guideline,
    parse_ihc,
)
from he2her2.manifest import (
    BARCODE_DASH,
    Table,
    TableColumns,
    TableRow,
    bare_name,
    is_blank,
    match_columns,
    read_table,
    shown_columns,
)
from he2her2.units import parse_number

TCGA_COLUMNS: Mapping[str, Sequence[str]] = {
    "patient": (
        *("bcr_patient_barcode", "case_submitter_id", "cases.submitter_id", "submitter_id", "patient_id", "_patient"),
        *("patient_identifier", "patient_barcode", "tcga_id", "sample_id", "bcr_sample_barcode", "sample", "case_id"),
    ),
    "sample": ("sample_id", "bcr_sample_barcode", "sample", "sample_barcode", "sample_identifier"),
    "ihc": ("her2_ihc_score", "her2_immunohistochemistry_level_result"),
    "ihc_status": ("ihc_her2", "her2_status_by_ihc", "lab_proc_her2_neu_immunohistochemistry_receptor_status"),
    "fish": ("her2_fish_status", "lab_procedure_her2_neu_in_situ_hybrid_outcome_type"),
    "ratio": ("her2_cent17_ratio", "her2_neu_chromosone_17_signal_ratio_value"),
    "copies": ("her2_copy_number", "her2_neu_metastatic_breast_carcinoma_copy_analysis_input_total_number"),
    "final": ("her2_final_status", "her2_final_status_nature2012", "her2_clinical", "her2_source"),
}

_TEST_COLUMNS: Mapping[str, Sequence[str]] = {
    "patient": TCGA_COLUMNS["patient"],
    "gene": ("molecular_tests.gene_symbol", "gene_symbol"),
    "result": ("molecular_tests.test_result", "test_result"),
    "test": ("molecular_tests.laboratory_test", "laboratory_test"),
    "method": ("molecular_tests.molecular_analysis_method", "molecular_analysis_method"),
    "score": ("molecular_tests.staining_intensity_value", "staining_intensity_value"),
}
"""Columns of GDC's table of molecular tests."""

_EXCLUSIONS = (
    "no HER2 test",
    "rows of the same patient that disagree",
    "IHC score and IHC status contradict each other, and no ISH decides",
    "ISH fields contradict each other, and IHC does not decide",
    "IHC status and ISH contradict each other, and there is no IHC score",
    "IHC equivocal (2+) without ISH",
    "ISH group 2 to 4 with IHC 2+, and no recount on record",
    "ISH without IHC, of a group that needs it",
    "a conflict, and --strict was asked for",
)

_BARCODE = re.compile(  # of a patient; a sample has its type behind it
    rf"TCGA{BARCODE_DASH}([A-Z0-9]{{2}}){BARCODE_DASH}([A-Z0-9]{{4}})(?:{BARCODE_DASH}(\d\d)|(?![A-Z0-9]))"
)
_PRIMARY = "01"
_SLIDE = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})-(\d{2})[A-Z]-\d{2}-([A-Z]{2})[0-9A-Z]+", re.IGNORECASE)
_STATEMENTS = ("score", "status", "fish", "ratio", "copies", "copies_text", "final")
_WRONG_UNIT = "copies per cell"
_MOST_CEP17 = 10.0  # signals of chromosome 17 per nucleus: far above polysomy
_MOST_COPIES = 50.0  # per cell, where no ratio is given
_NOT_DONE = {"indeterminate", "notevaluated", "notavailable", "unknown", "notperformed", "notapplicable"}
_WORDS = {
    "positive": IshResult.POSITIVE,
    "negative": IshResult.NEGATIVE,
    "equivocal": IshResult.EQUIVOCAL,
    "her2pos": IshResult.POSITIVE,
    "her2neg": IshResult.NEGATIVE,
    "amplified": IshResult.POSITIVE,
    "notamplified": IshResult.NEGATIVE,
}
_MEANS = {  # what a status by IHC stands for
    IshResult.NEGATIVE: IhcScore.ZERO,
    IshResult.EQUIVOCAL: IhcScore.TWO,
    IshResult.POSITIVE: IhcScore.THREE,
}


@dataclass(frozen=True, slots=True)
class _Fields:
    """A row's HER2 fields; None is "not done" or "not reported"."""

    patient_id: str
    line: int
    sample: str = ""
    score: IhcScore | None = None
    status: IshResult | None = None
    fish: IshResult | None = None
    ratio: float | None = None
    copies: float | None = None
    copies_text: str = ""
    final: IshResult | None = None

    @property
    def nothing(self) -> bool:
        """True if no test has a result."""
        return all(value is None for value in (self.score, self.status, self.fish, self.ratio, self.copies))


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
    found, fields = _read_fields(table, columns or {})
    if found.problems:
        raise ManifestError([f"{clinical}: {problem}" for problem in found.problems])
    by_patient = defaultdict(list)
    for one in fields:
        by_patient[one.patient_id].append(one)
    patients, conflicts, left_out = [], list[Conflict](), defaultdict(list)
    for patient_id, rows in by_patient.items():
        result, met = _reconcile(rows, policy)
        if strict and not isinstance(result, str) and any(conflict.conflict != _WRONG_UNIT for conflict in met):
            result = _EXCLUSIONS[-1]
        if isinstance(result, str):
            left_out[result].append(patient_id)
            met = [replace(conflict, resolution="left out") for conflict in met]
        else:
            patients.append(result)
        conflicts += met
    return CohortLabels(
        "TCGA-BRCA",
        len(by_patient),
        tuple(patients),
        exclusions_in_order(_EXCLUSIONS, left_out),
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


def _read_fields(table: Table, given: Mapping[str, str | None]) -> tuple[TableColumns, list[_Fields]]:
    """The HER2 fields of each row, whichever way the table is laid out."""
    given = {"patient": _barcode_column(table), **given}
    tests = match_columns(table, _TEST_COLUMNS, {"patient": given["patient"]}, ordered=True)
    if {"patient", "gene", "result"} <= tests.names.keys():
        return tests, [_fields_of_test(row, tests) for row in table.rows]
    found = match_columns(table, TCGA_COLUMNS, given, required=("patient",), ordered=True, remedy=COLUMN_REMEDY)
    if not set(TCGA_COLUMNS) - {"patient", "sample"} & found.names.keys():
        has = shown_columns(table.columns)
        raise ManifestError(
            [f"{table.path}: has no column of HER2; name yours by --column ihc=NAME and so on; it has {has}"]
        )
    return found, [_fields(row, found) for row in table.rows]


def _barcode_column(table: Table) -> str | None:
    """The best column of patients whose cells are barcodes; a biotab file has `patient_id` of four letters, too."""
    names = {bare_name(name): rank for rank, name in enumerate(TCGA_COLUMNS["patient"])}
    columns = sorted((c for c in table.columns if bare_name(c) in names), key=lambda c: names[bare_name(c)])
    for column in columns:
        cells = [text for row in table.rows if not is_blank(text := row.text(column))]
        if 2 * sum(_BARCODE.match(cell.upper()) is not None for cell in cells) > len(cells):
            return column
    return None


def _fields_of_test(row: TableRow, columns: TableColumns) -> _Fields:
    """Fields of a row of GDC's molecular tests; those of other genes have none."""
    blank = _Fields(columns.value(row, "patient", _patient) or _no_patient(row, columns), row.line)
    if columns.text(row, "gene").upper() not in ("ERBB2", "HER2", "HER2/NEU"):
        return blank
    method = f"{columns.text(row, 'test')} {columns.text(row, 'method')}".lower()
    result = columns.value(row, "result", _word)
    if re.search(r"\b[fcsd]?ish\b|in situ", method):
        return replace(blank, fish=result)
    if re.search(r"\bihc\b|immunohisto", method):
        return replace(blank, status=result, score=columns.value(row, "score", _score))
    columns.problems.append(f"line {row.line}: {quoted(method.strip())} is neither IHC nor ISH")
    return blank


def _fields(row: TableRow, columns: TableColumns) -> _Fields:
    """A row's fields; those that cannot be understood become problems."""
    copies_text = columns.text(row, "copies")
    barcodes = (columns.text(row, name) for name in ("sample", "patient"))
    found = (_BARCODE.match(text.upper()) for text in barcodes)
    return _Fields(
        patient_id=columns.value(row, "patient", _patient) or _no_patient(row, columns),
        line=row.line,
        sample=next((barcode[3] for barcode in found if barcode and barcode[3]), ""),
        score=columns.value(row, "ihc", _score),
        status=columns.value(row, "ihc_status", _word),
        fish=columns.value(row, "fish", _word),
        ratio=columns.value(row, "ratio", _number),
        copies=_number_or_none(copies_text),
        copies_text=copies_text,
        final=columns.value(row, "final", _word),
    )


def _reconcile(rows: Sequence[_Fields], policy: Policy) -> tuple[LabelledPatient | str, list[Conflict]]:
    """Label a patient by its rows, or give the reason to leave it out; and the conflicts that were met."""
    rows = [row for row in rows if row.sample == _PRIMARY] or rows
    first = _merged(rows)
    if first is None:
        found = "; ".join(f"line {row.line}: {_in_words(row)}" for row in rows)
        return _EXCLUSIONS[1], [Conflict(rows[0].line, rows[0].patient_id, "rows disagree", found, "left out")]
    if first.nothing:
        return _EXCLUSIONS[0], []
    ihc, ihc_conflicts = _ihc(first)
    ish, ish_conflicts = _ish(first)
    conflicts = [*ihc_conflicts, *ish_conflicts]
    decision = apply_guideline(ihc, ish, policy=policy)
    if decision.conflict:
        conflicts.append(_conflict(first, "IHC and ISH", f"by {decision.rule}"))
    if decision.status == Her2Status.UNDETERMINED:
        return _why_open(ihc, ish, ihc_conflicts, ish_conflicts), conflicts
    if decision.conflict and first.score is None:
        return _EXCLUSIONS[4], conflicts
    if first.final is not None and first.final.value != decision.status.value:
        conflicts.append(_conflict(first, "tests and the table's own status", f"{decision.status}: {decision.rule}"))
    score = first.score if ihc == first.score else None
    stratum = Stratum.UNDETERMINED if score is None and decision.stratum != Stratum.POSITIVE else decision.stratum
    implied = f"IHC {first.status} without a score"
    rule = decision.rule if score == ihc else decision.rule.replace(f"IHC {ihc}", implied)
    name, site = first.patient_id, first.patient_id.split("-")[1]
    return LabelledPatient(name, name, first.line, score, ish, decision.status, stratum, rule, site), conflicts


def _merged(rows: Sequence[_Fields]) -> _Fields | None:
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
) -> str:
    """The reason why the tests leave the status open."""
    if ihc is None and ihc_conflicts:
        return _EXCLUSIONS[2]
    if ish is None and ish_conflicts:
        return _EXCLUSIONS[3]
    if ihc == IhcScore.TWO:
        return _EXCLUSIONS[5 if ish is None or isinstance(ish, IshResult) else 6]
    return _EXCLUSIONS[7]


def _ihc(fields: _Fields) -> tuple[IhcScore | None, list[Conflict]]:
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


def _ish(fields: _Fields) -> tuple[Ish | None, list[Conflict]]:
    """The ISH evidence, and the conflicts of counts and stated result."""
    conflicts = []
    copies = fields.copies
    if copies is not None and _is_total(copies, fields.ratio):
        conflicts.append(_conflict(fields, _WRONG_UNIT, "a total over all counted cells; not used"))
        copies = None
    if "notamplified" in _bare(fields.copies_text) and fields.fish == IshResult.POSITIVE:
        return None, [*conflicts, _conflict(fields, "FISH and copies", "neither is used")]
    if fields.ratio is not None and copies is not None:
        counts = IshCounts(fields.ratio, copies)
        if fields.fish is not None and fields.fish not in _agrees_with(counts):
            group = f"group {counts.possible_groups[0].value} of ASCO/CAP 2018 by the counts"
            conflicts.append(_conflict(fields, "FISH and counts", group))
        return counts, conflicts
    if fields.fish is not None:
        partial = None if fields.ratio is None else IshCounts(fields.ratio, None)
        if partial is not None and fields.fish not in _agrees_with(partial):
            return None, [*conflicts, _conflict(fields, "FISH and ratio", "neither is used")]
        return fields.fish, conflicts
    if fields.ratio is not None or copies is not None:
        return IshCounts(fields.ratio, copies), conflicts
    return None, conflicts


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
    return copies > _MOST_COPIES if not ratio else copies / ratio > _MOST_CEP17


def _conflict(fields: _Fields, kind: str, resolution: str) -> Conflict:
    return Conflict(fields.line, fields.patient_id, kind, _in_words(fields), resolution)


def _in_words(fields: _Fields) -> str:
    """A row's fields in words."""

    def parts() -> Iterator[str]:
        yield f"IHC score {fields.score or '-'}"
        yield f"IHC status {fields.status or '-'}"
        yield f"FISH {fields.fish or '-'}"
        yield f"ratio {'-' if fields.ratio is None else fields.ratio}"
        yield f"copies {fields.copies_text or '-'}"
        yield f"the table's own status {fields.final or '-'}"

    return ", ".join(parts())


def _patient(text: str) -> str:
    found = _BARCODE.match(text.upper())
    if found is None:
        raise ValueError(f"{quoted(text)} is no TCGA barcode such as TCGA-A1-A0SK")
    return f"TCGA-{found[1]}-{found[2]}"


def _no_patient(row: TableRow, columns: TableColumns) -> str:
    if not columns.text(row, "patient"):
        columns.problems.append(f"line {row.line}: no patient")
    return ""


def _score(text: str) -> IhcScore | None:
    return None if _bare(text) in _NOT_DONE else parse_ihc(text)


def _word(text: str) -> IshResult | None:
    word = _bare(text)
    if word in _NOT_DONE:
        return None
    if word not in _WORDS:
        raise ValueError(f"{quoted(text)} is none of Positive, Negative, Equivocal, Indeterminate")
    return _WORDS[word]


def _number(text: str) -> float | None:
    if _bare(text) in _NOT_DONE:
        return None
    return parse_number(text)


def _number_or_none(text: str) -> float | None:
    """A copy number; the table also has "not amplified" and "<4.0", which are no counts."""
    try:
        return parse_number(text)
    except ValueError:
        return None


def _bare(text: str) -> str:
    """A word without blanks and punctuation; biotab writes "[Not Available]"."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
