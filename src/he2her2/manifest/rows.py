"""A manifest in memory: its slides, each with its patient and labels."""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from he2her2.errors import quoted
from he2her2.labels import Her2Status, IhcScore, Ish, Policy, apply_guideline

Stain: TypeAlias = Literal["HE", "IHC"]
Split: TypeAlias = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = get_args(Split)

BARCODE_DASH = r"[-_.\s\u2010-\u2015\u2212]"
"""Separators that people write between the parts of a TCGA barcode, as a regular expression."""

_LONGEST_NAME = 200  # bytes; file systems allow 255, and drafts have longer names than results
_TCGA = re.compile(rf"TCGA{BARCODE_DASH}([A-Z0-9]{{2}}){BARCODE_DASH}([A-Z0-9]{{4}})(?![A-Z0-9])")


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One slide of a cohort.

    Attributes:
        line: Line of the manifest, for messages; 0 for a row that is in no file yet.
        slide_id: Its name, unique in the manifest.
        path: Its file; a relative one in the manifest starts from the manifest's folder; or an address.
        patient_id: Its patient; all slides of a patient stay in one split.
        stain: H&E or IHC; None where the manifest does not state it.
        ihc_score: IHC score of the patient's tumour.
        ish: Its in situ hybridisation.
        her2_status: Its HER2 status as the manifest states it; see `status`.
        site: Laboratory or hospital.
        split: Use of the slide; None: unused.
        mpp: µm per level-0 px, over that of the file.
        annotations: Polygons of QuPath, ASAP, ImageScope, HALO, Sedeen or NDP.view, or a PNG mask of the whole slide
            (non-zero: inside). Classes of polygons that are not tumour by name are not used, see
            `preprocessing.annotations`.
        extra: The manifest's other columns, carried through.
    """

    line: int
    slide_id: str
    path: Path
    patient_id: str
    stain: Stain | None = None
    ihc_score: IhcScore | None = None
    ish: Ish | None = None
    her2_status: Her2Status | None = None
    site: str | None = None
    split: Split | None = None
    mpp: float | None = None
    annotations: Path | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def patient(self) -> str:
        """Key of its patient, equal however the manifest writes the name: slides are grouped by it."""
        return patient_key(self.patient_id)

    def status(self, policy: Policy = Policy.GUIDELINE) -> Her2Status | None:
        """Return the HER2 status that the manifest states; where it states none, that of the tests.

        Returns:
            None where there is neither a stated status nor a test.
        """
        if self.her2_status in (Her2Status.POSITIVE, Her2Status.NEGATIVE):
            return self.her2_status
        if self.ihc_score is None and self.ish is None:
            return self.her2_status
        return apply_guideline(self.ihc_score, self.ish, policy=policy).status


@dataclass(frozen=True, slots=True)
class Manifest:
    """The slides of a cohort.

    Attributes:
        path: The file; new rows will be relative to its folder.
        rows: Its readable slides, in the file's order.
        problems: Cells that cannot be understood, a line of text each; `require_usable` refuses a manifest with any.
        notes: Columns found under other names, columns that look like ours and are not read, lines that are no rows.
    """

    path: Path
    rows: tuple[SlideRow, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def select(self, *, stain: Stain | None = None, split: Split | None = None) -> tuple[SlideRow, ...]:
        """Return the rows of a stain and of a split, in order; a row without a stain is of any."""
        return tuple(
            row
            for row in self.rows
            if (stain is None or row.stain in (stain, None)) and (split is None or row.split == split)
        )


def names_of_patients(rows: Iterable[SlideRow]) -> dict[str, str]:
    """Name of each patient by its key, as it is written first."""
    return {row.patient: row.patient_id for row in reversed([*rows])}


def folder_name_problem(slide_id: str) -> str | None:
    """Reason why a slide's name cannot name its folder of results; None where it can.

    Example:
        >>> folder_name_problem("a/b"), folder_name_problem("TCGA-A1-A0SK")
        ("'a/b' cannot name a folder", None)
    """
    if not slide_id or slide_id.startswith(".") or {"/", "\\", "\0"} & set(slide_id):
        return f"{quoted(slide_id)} cannot name a folder"
    n_bytes = len(os.fsencode(slide_id))
    if n_bytes > _LONGEST_NAME:
        return f"{quoted(slide_id)} has {n_bytes} bytes, more than the {_LONGEST_NAME} that a folder's may have here"
    return None


def patient_key(name: str) -> str:
    """Return the key of a patient: equal for all ways to write its name.

    A TCGA barcode of a sample, portion or slide names the same patient as its first three fields; case, blanks and the
    Unicode form of a letter with an accent are ignored.

    Example:
        >>> patient_key("TCGA-A1-A0SK-01Z-00-DX1"), patient_key("tcga_a1_a0sk"), patient_key(" Case 7 ")
        ('tcga-a1-a0sk', 'tcga-a1-a0sk', 'case 7')
    """
    if barcode := _TCGA.match(name.strip().upper()):
        return f"tcga-{barcode[1]}-{barcode[2]}".lower()
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    return " ".join(name.split()).casefold()
