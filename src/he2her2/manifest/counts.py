"""Counts of a manifest's slides, patients and labels, for each split and site."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from he2her2.labels import Her2Status, IhcScore, Policy
from he2her2.manifest.rows import SPLITS, Manifest, SlideRow

_UNKNOWN = "not given"


@dataclass(frozen=True, slots=True)
class Count:
    """A part of a cohort.

    Attributes:
        name: Name of the part, such as "split train".
        slides: Its slides.
        patients: Its patients.
        stains: Slides by stain.
        scores: Patients by IHC score.
        statuses: Patients by HER2 status; a patient whose slides disagree counts under each.
    """

    name: str
    slides: int
    patients: int
    stains: dict[str, int]
    scores: dict[str, int]
    statuses: dict[str, int]

    def __str__(self) -> str:
        parts = (("", self.stains), ("IHC ", self.scores), ("HER2 ", self.statuses))
        text = "; ".join(f"{what}{', '.join(f'{k}: {n}' for k, n in found.items())}" for what, found in parts)
        return f"{self.name}: {self.slides} slides of {self.patients} patients; {text}"


def _count(name: str, rows: Iterable[SlideRow], policy: Policy = Policy.GUIDELINE) -> Count:
    """Count some rows."""
    rows = tuple(rows)
    return Count(
        name,
        slides=len(rows),
        patients=len({row.patient for row in rows}),
        stains=_tally([str(row.stain or _UNKNOWN) for row in rows], ("HE", "IHC")),
        scores=_patients(rows, lambda row: row.ihc_score, tuple(IhcScore)),
        statuses=_patients(rows, lambda row: row.status(policy), tuple(Her2Status)),
    )


def count_manifest(manifest: Manifest, policy: Policy = Policy.GUIDELINE) -> tuple[Count, ...]:
    """Count the whole manifest, each split that it uses, and each site that it names."""
    rows = manifest.rows
    splits = [split for split in (*SPLITS, None) if any(row.split == split for row in rows)]
    sites = sorted({row.site for row in rows if row.site is not None})
    return (
        _count("all", rows, policy),
        *(_count(f"split {split or 'none'}", [r for r in rows if r.split == split], policy) for split in splits),
        *(_count(f"site {site}", [r for r in rows if r.site == site], policy) for site in sites),
    )


def _patients(rows: Sequence[SlideRow], value: Callable[[SlideRow], object], order: Sequence[str]) -> dict[str, int]:
    pairs = {(row.patient, str(value(row) or _UNKNOWN)) for row in rows}
    return _tally([found for _, found in pairs], order)


def _tally(values: Iterable[str], order: Sequence[str]) -> dict[str, int]:
    """Count each value, in a fixed order."""
    found = Counter(values)
    return {str(name): found[str(name)] for name in (*order, _UNKNOWN) if found[str(name)]}
