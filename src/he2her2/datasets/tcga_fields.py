"""The HER2 fields of a TCGA-BRCA clinical table, row by row, whichever of its publishers laid it out.

Fields, by their names in the BCR biotab files, at GDC, in cBioPortal's `brca_tcga`, at Xena and in tables made from
them: HER2 status by IHC, HER2 IHC score, FISH status, HER2/CEP17 ratio, HER2 copy number, and perhaps a final or
derived status. GDC's table of molecular tests has a row for each test. `IHC_Score` (0 to 4) of cBioPortal is not
HER2's; it is never read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from he2her2.datasets.cohort_labels import COLUMN_REMEDY
from he2her2.errors import ManifestError, quoted
from he2her2.labels import IhcScore, IshResult, parse_ihc
from he2her2.manifest import (
    BARCODE_DASH,
    Table,
    TableColumns,
    TableRow,
    bare_name,
    is_blank,
    match_columns,
    shown_columns,
)
from he2her2.units import parse_number

_NAMES: Mapping[str, Sequence[str]] = {
    "patient": (
        *("bcr_patient_barcode", "case_submitter_id", "cases.submitter_id", "submitter_id", "patient_id", "_patient"),
        *("patient_identifier", "patient_barcode", "tcga_id", "complete_tcga_id", "sample_id", "bcr_sample_barcode"),
        *("sample", "case_id"),
    ),
    "sample": ("sample_id", "bcr_sample_barcode", "sample", "sample_barcode", "sample_identifier"),
    "ihc": ("her2_ihc_score", "her2_immunohistochemistry_level_result"),
    "ihc_status": ("ihc_her2", "her2_status_by_ihc", "lab_proc_her2_neu_immunohistochemistry_receptor_status"),
    "fish": ("her2_fish_status", "lab_procedure_her2_neu_in_situ_hybrid_outcome_type"),
    "ratio": ("her2_cent17_ratio", "her2_neu_chromosone_17_signal_ratio_value"),
    "copies": ("her2_copy_number", "her2_neu_breast_carcinoma_copy_analysis_input_total_number"),  # not of a metastasis
    "final": ("her2_final_status", "her2_final_status_nature2012", "her2_clinical", "her2_source"),
}
TCGA_COLUMNS: Mapping[str, Sequence[str]] = {
    field: (*names, *(f"patient.{name}" for name in names)) for field, names in _NAMES.items()
}
"""Field to the names that its column has; Firehose puts "patient." before them."""

_TEST_COLUMNS: Mapping[str, Sequence[str]] = {
    "patient": TCGA_COLUMNS["patient"],
    "gene": ("molecular_tests.gene_symbol", "gene_symbol"),
    "result": ("molecular_tests.test_result", "test_result"),
    "test": ("molecular_tests.laboratory_test", "laboratory_test"),
    "method": ("molecular_tests.molecular_analysis_method", "molecular_analysis_method"),
    "score": ("molecular_tests.staining_intensity_value", "staining_intensity_value"),
}
"""Columns of GDC's table of molecular tests."""

_BARCODE = re.compile(  # of a patient; a sample has its type behind it
    rf"TCGA{BARCODE_DASH}([A-Z0-9]{{2}}){BARCODE_DASH}([A-Z0-9]{{4}})(?:{BARCODE_DASH}(\d\d)|(?![A-Z0-9]))"
)
_NOT_DONE = {"indeterminate", "notevaluated", "notavailable", "unknown", "notperformed", "notapplicable"}
_GENES = ("ERBB2", "HER2", "HER2/NEU")
_COUNTED = ("copynumberreported", "testvaluereported")  # of GDC's results
_WORDS = {
    "positive": IshResult.POSITIVE,
    "negative": IshResult.NEGATIVE,
    "equivocal": IshResult.EQUIVOCAL,
    "her2pos": IshResult.POSITIVE,
    "her2neg": IshResult.NEGATIVE,
    "amplified": IshResult.POSITIVE,
    "notamplified": IshResult.NEGATIVE,
}


@dataclass(frozen=True, slots=True)
class Her2Fields:
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

    def __str__(self) -> str:
        """The fields in words."""
        ratio, copies = "-" if self.ratio is None else self.ratio, self.copies_text or "-"
        return (
            f"IHC score {self.score or '-'}, IHC status {self.status or '-'}, FISH {self.fish or '-'}, ratio {ratio}, "
            f"copies {copies}, the table's own status {self.final or '-'}"
        )


def read_her2_fields(table: Table, given: Mapping[str, str | None]) -> tuple[TableColumns, list[Her2Fields]]:
    """The HER2 fields of each row, whichever way the table is laid out."""
    barcodes = _barcode_column(table)
    if barcodes is None and given.get("patient") is None and _is_transposed(table):
        raise ManifestError([f"{table.path}: its patients are columns, as in Firehose's tables; transpose it"])
    given = {"patient": barcodes, **given}
    tests = match_columns(table, _TEST_COLUMNS, {"patient": given["patient"]}, ordered=True)
    if {"patient", "gene", "result"} <= tests.names.keys():
        fields = [_fields_of_test(row, tests) for row in table.rows]
        if n := sum(_is_count(row, tests) for row in table.rows):
            note = (
                f"{n} rows of HER2 report a count, which is not read from a table of molecular tests; biotab has them"
            )
            tests = replace(tests, notes=(*tests.notes, note))
        return tests, fields
    found = match_columns(table, TCGA_COLUMNS, given, required=("patient",), ordered=True, remedy=COLUMN_REMEDY)
    if not set(TCGA_COLUMNS) - {"patient", "sample", "final"} & found.names.keys():
        advice = "name yours by --column ihc=NAME and so on; a table of the status alone can be the labels of evaluate"
        has = shown_columns(table.columns)
        raise ManifestError([f"{table.path}: has no column of a HER2 test, IHC or FISH; {advice}; it has {has}"])
    return found, [_fields(row, found) for row in table.rows]


def _is_transposed(table: Table) -> bool:
    """True where headings, or the cells of a row, are mostly barcodes."""
    lines = (table.columns, *(row.values for row in table.rows))
    return any(2 * sum(_BARCODE.match(cell.upper()) is not None for cell in cells) > len(cells) > 2 for cells in lines)


def _barcode_column(table: Table) -> str | None:
    """The best column of patients whose cells are barcodes; a biotab file has `patient_id` of four letters, too."""
    names = {bare_name(name): rank for rank, name in enumerate(TCGA_COLUMNS["patient"])}
    columns = sorted((c for c in table.columns if bare_name(c) in names), key=lambda c: names[bare_name(c)])
    for column in columns:
        cells = [text for row in table.rows if not is_blank(text := row.text(column))]
        if 2 * sum(_BARCODE.match(cell.upper()) is not None for cell in cells) > len(cells):
            return column
    return None


def _fields_of_test(row: TableRow, columns: TableColumns) -> Her2Fields:
    """Fields of a row of GDC's molecular tests; those of other genes have none."""
    blank = Her2Fields(columns.value(row, "patient", _patient) or _no_patient(row, columns), row.line)
    if columns.text(row, "gene").upper() not in _GENES or _is_count(row, columns):
        return blank
    method = f"{columns.text(row, 'test')} {columns.text(row, 'method')}".lower()
    result = columns.value(row, "result", _word)
    if re.search(r"\b[fcsd]?ish\b|in situ", method):
        return replace(blank, fish=result)
    if re.search(r"\bihc\b|immunohisto", method):
        return replace(blank, status=result, score=columns.value(row, "score", _score))
    columns.problems.append(f"line {row.line}: {quoted(method.strip())} is neither IHC nor ISH")
    return blank


def _is_count(row: TableRow, columns: TableColumns) -> bool:
    """True of a test of HER2 whose result stands in another column, as a number."""
    return columns.text(row, "gene").upper() in _GENES and bare_word(columns.text(row, "result")) in _COUNTED


def _fields(row: TableRow, columns: TableColumns) -> Her2Fields:
    """A row's fields; those that cannot be understood become problems."""
    copies_text = columns.text(row, "copies")
    barcodes = (columns.text(row, name) for name in ("sample", "patient"))
    found = (_BARCODE.match(text.upper()) for text in barcodes)
    return Her2Fields(
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
    return None if bare_word(text) in _NOT_DONE else parse_ihc(text)


def _word(text: str) -> IshResult | None:
    word = bare_word(text)
    if word in _NOT_DONE:
        return None
    if word not in _WORDS:
        raise ValueError(f"{quoted(text)} is none of Positive, Negative, Equivocal, Indeterminate")
    return _WORDS[word]


def _number(text: str) -> float | None:
    if bare_word(text) in _NOT_DONE:
        return None
    return parse_number(text)


def _number_or_none(text: str) -> float | None:
    """A copy number; the table also has "not amplified" and "<4.0", which are no counts."""
    try:
        return parse_number(text)
    except ValueError:
        return None


def bare_word(text: str) -> str:
    """A word without blanks and punctuation; biotab writes "[Not Available]"."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
