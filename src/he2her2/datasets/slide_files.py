"""A folder of slides, matched with a cohort's patients by their names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from he2her2.datasets.cohort_labels import LabelledPatient
from he2her2.errors import ManifestError, quoted
from he2her2.labels import Her2Status
from he2her2.manifest import Manifest, SlideRow, Split, Stain, check_consistent
from he2her2.slides import SLIDE_ENDINGS, slide_id_of, slides_in


@dataclass(frozen=True, slots=True)
class SlideName:
    """Case and stain of a slide, from its file name.

    Attributes:
        case: The case, as in `LabelledPatient.case`.
        stain: Its stain.
    """

    case: str
    stain: Stain


@dataclass(frozen=True, slots=True)
class SlideMatch:
    """A cohort's slides and patients, matched.

    Attributes:
        manifest: Slides of labelled patients; its files exist.
        without_slide: Labelled patients for whom there is no slide.
        without_label: Slides of patients without a label.
        left_out: Files of another kind, by reason.
    """

    manifest: Manifest
    without_slide: tuple[str, ...]
    without_label: tuple[Path, ...]
    left_out: Mapping[str, tuple[Path, ...]]

    def lines(self) -> tuple[str, ...]:
        """The count of everything that was left out, and what remains."""
        rows = self.manifest.rows
        n = len({row.patient_id for row in rows})
        return (
            *(f"{-len(paths):6d} files: {reason}" for reason, paths in self.left_out.items()),
            f"{-len(self.without_label):6d} slides of nobody with a label",
            f"{-len(self.without_slide):6d} labelled patients without a slide",
            f"{len(rows):6d} slides of {n} patients in the manifest",
        )


def match_slides(
    patients: Sequence[LabelledPatient],
    folder: Path,
    slide_name: Callable[[Path], SlideName | str],
    out: Path,
    *,
    split: Split | None = None,
) -> SlideMatch:
    """Make a manifest of the slides whose names belong to labelled patients.

    Args:
        patients: The labelled patients.
        folder: Folder of the slides, which may lie in folders below it.
        slide_name: Reads a file's name; a text is the reason to leave the file out.
        out: File of the manifest.
        split: Split of all rows.

    Raises:
        ManifestError: The folder is missing or holds no slides, two slides have one name, or nothing matches.
    """
    if not folder.is_dir():
        raise ManifestError([f"{folder}: is no folder of slides"])
    slides = slides_in(folder)
    if not slides:
        raise ManifestError([f"{folder}: holds no slides ({', '.join(sorted(SLIDE_ENDINGS))})"])
    by_case = {patient.case: patient for patient in patients}
    rows, unlabelled, left_out = list[SlideRow](), list[Path](), dict[str, list[Path]]()
    for path in slides:
        name = slide_name(path)
        if isinstance(name, str):
            left_out.setdefault(name, []).append(path)
        elif (patient := by_case.get(name.case)) is None:
            unlabelled.append(path)
        else:
            row = _row(patient, path.absolute(), name.stain)
            rows.append(replace(row, line=len(rows) + 2, split=split))
    manifest = Manifest(out, tuple(rows))
    if not rows:
        cases = f"; those of patients are such as {quoted(patients[0].case)}" if patients else ""
        raise ManifestError([f"none of the slides' names belongs to a labelled patient, such as {path}{cases}"])
    check_consistent(manifest)
    seen = {row.patient_id for row in rows}
    return SlideMatch(
        manifest,
        tuple(patient.patient_id for patient in patients if patient.patient_id not in seen),
        tuple(unlabelled),
        {reason: tuple(paths) for reason, paths in sorted(left_out.items())},
    )


def _row(patient: LabelledPatient, path: Path, stain: Stain) -> SlideRow:
    return SlideRow(
        line=0,
        slide_id=slide_id_of(path),
        path=path,
        patient_id=patient.patient_id,
        stain=stain,
        ihc_score=patient.ihc_score,
        ish=patient.ish,
        her2_status=Her2Status(patient.status),
        site=patient.site,
        extra={"stratum": str(patient.stratum), "rule": patient.rule},
    )
