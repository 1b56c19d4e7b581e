"""A folder of slides, matched with a cohort's patients by their names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from he2her2.datasets.study import LabelledPatient
from he2her2.errors import ManifestError
from he2her2.labels import Her2Status
from he2her2.manifest.checks import check
from he2her2.manifest.table import Manifest, SlideRow, Split, Stain
from he2her2.slides import slide_id_of
from he2her2.slides.opening import SLIDE_ENDINGS


@dataclass(frozen=True, slots=True)
class SlideName:
    """What a slide's name says.

    Attributes:
        case: Whose it is, as `LabelledPatient.case` says it.
        stain: Its stain.
    """

    case: str
    stain: Stain


@dataclass(frozen=True, slots=True)
class Match:
    """A cohort's slides and patients, matched.

    Attributes:
        manifest: The slides of labelled patients; its paths exist.
        without_slide: Labelled patients for whom there is no slide.
        without_label: Slides of somebody who has no label.
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


def find_slides(folder: Path) -> list[Path]:
    """Every slide in a folder and the folders below it, sorted; of a DICOM series the first file stands for all.

    Raises:
        ManifestError: The folder is missing or holds no slide.
    """
    if not folder.is_dir():
        raise ManifestError([f"{folder}: is no folder of slides"])
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SLIDE_ENDINGS and not path.name.startswith(".") and path.is_file()
    )
    series = {path.parent: path for path in reversed(files) if path.suffix.lower() == ".dcm"}
    slides = [path for path in files if path.suffix.lower() != ".dcm" or series[path.parent] == path]
    if not slides:
        raise ManifestError([f"{folder}: holds no slides ({', '.join(sorted(SLIDE_ENDINGS))})"])
    return slides


def match_slides(
    patients: Sequence[LabelledPatient],
    slides: Iterable[Path],
    name_of: Callable[[Path], SlideName | str],
    out: Path,
    *,
    split: Split | None = None,
    mpp: float | None = None,
) -> Match:
    """Make a manifest of the slides whose names belong to labelled patients.

    Args:
        patients: The labelled patients.
        slides: Slide files.
        name_of: What a file's name says; a text is the reason to leave it out.
        out: Where the manifest will lie.
        split: Of all its rows.
        mpp: Of all its slides, where their files do not say it.

    Raises:
        ManifestError: Two slides have one name, or nothing matches.
    """
    by_case = {patient.case: patient for patient in patients}
    rows, nobody, left_out = list[SlideRow](), list[Path](), dict[str, list[Path]]()
    for path in slides:
        name = name_of(path)
        if isinstance(name, str):
            left_out.setdefault(name, []).append(path)
        elif (patient := by_case.get(name.case)) is None:
            nobody.append(path)
        else:
            row = _row(patient, path.absolute(), name.stain)
            rows.append(replace(row, line=len(rows) + 2, split=split, mpp=mpp))
    manifest = Manifest(out, tuple(rows))
    if not rows:
        raise ManifestError([f"none of the slides' names belongs to a labelled patient, such as {path}"])
    check(manifest)
    seen = {row.patient_id for row in rows}
    return Match(
        manifest,
        tuple(patient.patient_id for patient in patients if patient.patient_id not in seen),
        tuple(nobody),
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
