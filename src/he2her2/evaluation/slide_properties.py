"""Properties of slides that are no diagnosis: size, colour, pen, blur, tile scores, as the run recorded them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from he2her2.manifest import Manifest
from he2her2.results import RunFolder, SlideResult
from he2her2.units import area_mm2

SEVERAL = "several"
"""Site or other name of a patient whose slides have different ones: no site and no subgroup."""
COLOUR = ("red", "green", "blue")
FILE_VENDOR = "vendor of the file"
STATED = ("slide type", "scanner")
_STATED = {
    **dict.fromkeys(("slidetype", "sampletype", "sectiontype", "preparation", "experimentalstrategy"), STATED[0]),
    **dict.fromkeys(("scanner", "scannermodel", "scannername", "scannertype", "scannerid"), STATED[1]),
}
PROPERTIES = (
    "slide_mm2", "tissue_mm2", "tumour_mm2", "tile_count", "mpp", "pen_share", "blur_share",
    *COLOUR, *(f"{channel}_spread" for channel in COLOUR), "score_mean", "score_spread",
)  # fmt: skip
_DIGITS = 12  # of a mean
_MOST_DECIMALS = 300  # beyond them rounding overflows
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class SlideProperties:
    """Measured properties of slides, or their means over patients.

    Attributes:
        ids: (n,) slides or patients.
        values: Property to its (n,) values; nan where the run did not record it.
        categories: Property to its (n,) names; empty where unknown, `SEVERAL` where a patient's slides differ.
    """

    ids: NDArray[np.str_]
    values: Mapping[str, NDArray[np.float64]]
    categories: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def matrix(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(n, k) values of some properties."""
        return np.stack([self.values[name] for name in names], axis=1) if names else np.empty((len(self.ids), 0))

    def of_patients(self, patients: NDArray[np.str_], wanted: NDArray[np.str_]) -> "SlideProperties":
        """Mean over each patient's slides.

        Args:
            patients: (n,) patient of every slide.
            wanted: (p,) the patients, in this order.
        """
        names, group = np.unique(patients, return_inverse=True)
        at = np.searchsorted(names, wanted)
        means = {}
        for name, values in self.values.items():
            known = ~np.isnan(values)
            total = np.bincount(group, np.where(known, values, 0.0), len(names))
            count = np.bincount(group, known, len(names))
            mean = np.divide(total, count, out=np.full(len(names), np.nan), where=count > 0)[at]
            means[name] = np.round(mean, _decimals(values[known]))
        shared = {name: _shared(values, group, len(names))[at] for name, values in self.categories.items()}
        return SlideProperties(wanted, means, shared)


def _decimals(values: NDArray[np.float64]) -> int:
    """Decimals of means of values: so many that only rounding is lost, by which the number of slides could be told.

    Example:
        >>> _decimals(np.array([0.2498])), _decimals(np.array([-30_000.0])), _decimals(np.array([]))
        (12, 7, 12)
    """
    most = np.abs(values).max(initial=0.0)
    return min(_MOST_DECIMALS, _DIGITS - (int(np.ceil(np.log10(most))) if most else 0))


def _shared(values: NDArray[np.str_], group: NDArray[np.intp], n_groups: int) -> NDArray[np.str_]:
    """(n_groups,) the name that all members of a group have which have one; `SEVERAL` where they differ."""
    names: list[set[str]] = [set() for _ in range(n_groups)]
    for k, value in zip(group.tolist(), values.tolist(), strict=True):
        names[k].add(value)
    return np.array([shared(of, "", SEVERAL) for of in names], np.str_)


def shared(values: Iterable[_T], blank: _T, several: _T) -> _T:
    """The value that all have which are not blank.

    Args:
        values: Of a patient's slides.
        blank: Returned where all are.
        several: Returned where they differ.

    Example:
        >>> shared(["A", "", "A"], "", SEVERAL), shared(["A", "", "B"], "", SEVERAL)
        ('A', 'several')
    """
    known = {*values} - {blank}
    return known.pop() if len(known) == 1 else several if known else blank


def is_one(names: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(n,) True where the name is known, and one."""
    return ~np.isin(names, ("", SEVERAL))


def slide_properties(
    run: RunFolder, slide_ids: NDArray[np.str_], stated: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> SlideProperties:
    """The properties of slides as the run recorded them, and as the manifest states them.

    Args:
        run: With the slides' results.
        slide_ids: (n,) the slides.
        stated: By property, such as "scanner", its name for each slide.
    """
    results = [run.result(slide_id) for slide_id in slide_ids.tolist()]
    rows = [_recorded(result) for result in results]
    categories = {name: np.array([of.get(s, "") for s in slide_ids.tolist()]) for name, of in stated.items()}
    categories[FILE_VENDOR] = np.array(["" if result is None else result.slide.vendor for result in results])
    values = {name: np.array([row.get(name, np.nan) for row in rows]) for name in PROPERTIES}
    return SlideProperties(slide_ids, values, categories)


def stated_properties(manifest: Manifest) -> dict[str, dict[str, str]]:
    """Slide type and scanner of each slide, where the manifest has such columns, however their heading is written."""
    found: dict[str, dict[str, str]] = {}
    for row in manifest.rows:
        for heading, value in row.extra.items():
            name = _STATED.get("".join(c for c in heading.casefold() if c.isalnum()))
            if name is not None:
                found.setdefault(name, {})[row.slide_id] = value.strip()
    return found


def _recorded(result: SlideResult | None) -> dict[str, float]:
    """Properties of one result; none where it is gone, none of tiles where they were not scored."""
    if result is None:
        return {}
    slide, area, quality = result.slide, result.area_mm2, result.quality
    found = {
        "slide_mm2": area_mm2(slide.width * slide.height, slide.mpp),
        "tissue_mm2": area.tissue,
        "tumour_mm2": area.tumour,
        "tile_count": float(result.counts.tiles_without_overlap),
        "mpp": slide.mpp,
        "pen_share": quality.pen_share,
        "blur_share": quality.blur_share,
    }
    return found | result.domain_features
