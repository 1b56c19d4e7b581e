"""Properties of slides that are no diagnosis: size, colour, pen, blur, tile scores, as the run recorded them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.results import RunFolder, SlideResult
from he2her2.units import area_mm2

COLOUR = ("red", "green", "blue")
PROPERTIES = (
    "slide_mm2", "tissue_mm2", "tumour_mm2", "tile_count", "mpp", "pen_share", "blur_share",
    *COLOUR, *(f"{channel}_spread" for channel in COLOUR), "score_mean", "score_spread",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class SlideProperties:
    """Measured properties of slides, or their means over patients.

    Attributes:
        ids: (n,) slides or patients.
        values: Property to its (n,) values; nan where the run did not record it.
    """

    ids: NDArray[np.str_]
    values: Mapping[str, NDArray[np.float64]]

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
            means[name] = np.divide(total, count, out=np.full(len(names), np.nan), where=count > 0)[at]
        return SlideProperties(wanted, means)


def slide_properties(run: RunFolder, slide_ids: NDArray[np.str_]) -> SlideProperties:
    """The properties of slides as the run recorded them."""
    rows = [_recorded(run.result(slide_id)) for slide_id in slide_ids.tolist()]
    return SlideProperties(slide_ids, {name: np.array([row.get(name, np.nan) for row in rows]) for name in PROPERTIES})


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
