"""A cohort on paper: its manifest, what must be true of it, and how it is split."""

from he2her2.manifest.checks import label_of, require
from he2her2.manifest.patients import patient_key
from he2her2.manifest.provenance import describe_patients, used_for_choice
from he2her2.manifest.table import COLUMNS, Manifest, SlideRow, read_manifest, write_manifest

__all__ = [
    "COLUMNS",
    "Manifest",
    "SlideRow",
    "describe_patients",
    "label_of",
    "patient_key",
    "read_manifest",
    "require",
    "used_for_choice",
    "write_manifest",
]
