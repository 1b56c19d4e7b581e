"""Manifests of cohorts: reading, checks, labels, splits, and the record of the patients used in training."""

from he2her2.manifest.checks import (
    Label,
    check_consistent,
    contradictions,
    label_of,
    near_patients,
    raise_problems,
    require_usable,
)
from he2her2.manifest.columns import TableColumns, bare_name, match_columns, shown_columns
from he2her2.manifest.counts import count_manifest
from he2her2.manifest.csv_tables import Table, TableRow, is_blank, names_nothing, read_table
from he2her2.manifest.labelled_table import TestColumns, label_tests, write_labelled_table
from he2her2.manifest.manifest_file import (
    BARCODE_DASH,
    MANIFEST_COLUMNS,
    SPLITS,
    Manifest,
    SlideRow,
    Split,
    Stain,
    patient_key,
    read_manifest,
    write_manifest,
)
from he2her2.manifest.near_ids import near_groups, near_misses, pairs_in_words
from he2her2.manifest.splits import (
    Patient,
    classes_missing,
    patients_of,
    split_by_shares,
    split_in_folds,
    with_splits,
)
from he2her2.manifest.used_patients import (
    PATIENTS_FILE,
    hashed_patient,
    patients_record,
    patients_used,
    recorded_patients,
    shared_patients,
    write_patients,
)

__all__ = [
    "BARCODE_DASH",
    "MANIFEST_COLUMNS",
    "PATIENTS_FILE",
    "SPLITS",
    "Label",
    "Manifest",
    "Patient",
    "SlideRow",
    "Split",
    "Stain",
    "Table",
    "TableColumns",
    "TableRow",
    "TestColumns",
    "bare_name",
    "check_consistent",
    "classes_missing",
    "contradictions",
    "count_manifest",
    "hashed_patient",
    "is_blank",
    "label_of",
    "label_tests",
    "match_columns",
    "names_nothing",
    "near_groups",
    "near_misses",
    "near_patients",
    "pairs_in_words",
    "patient_key",
    "patients_of",
    "patients_record",
    "patients_used",
    "raise_problems",
    "read_manifest",
    "read_table",
    "recorded_patients",
    "require_usable",
    "shared_patients",
    "shown_columns",
    "split_by_shares",
    "split_in_folds",
    "with_splits",
    "write_labelled_table",
    "write_manifest",
    "write_patients",
]
