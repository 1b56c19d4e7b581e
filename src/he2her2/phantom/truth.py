"""Truth of a phantom slide, and the files that hold it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.files import atomic
from he2her2.geometry import Map, Mask, Size, mask_size
from he2her2.phantom.anatomy import Anatomy
from he2her2.phantom.cells import CellKind, Cells
from he2her2.phantom.outlines import Artefacts
from he2her2.phantom.random_fields import GridPoints, RasterField
from he2her2.phantom.spec import PhantomSpec

_MASK_PX_L0 = 32.0
"""Level-0 px per mask px, as in a slide's 32x thumbnail."""

_ROWS_PER_BAND = 256


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class TumourCells:
    """All tumour cells of a slide.

    Attributes:
        xy_l0: (n, 2) centres of the nuclei in level-0 px.
        level: (n,) HER2 staining level of the membrane, 0 to 3; on H&E the level that IHC would show.
    """

    xy_l0: NDArray[np.float32]
    level: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class PhantomTruth:
    """Truth of a slide; masks are (h, w) with pixels of 32 level-0 px.

    Attributes:
        spec: Settings.
        tissue: Tissue.
        tumour: Invasive tumour with the stroma between its nests.
        pen: Marker ink.
        folds: Folded tissue.
        blur: Tissue out of focus.
        fat: Fat, which looks like glass between thin walls.
        her2: Mean HER2 level of the tumour cells in each px, 0 to 1 (level / 3); 0 without tumour cells.
        cells: The tumour cells.
        counts: Number of cells of each kind.
    """

    spec: PhantomSpec
    tissue: Mask
    tumour: Mask
    pen: Mask
    folds: Mask
    blur: Mask
    fat: Mask
    her2: Map
    cells: TumourCells
    counts: dict[str, int]


def make_truth(
    spec: PhantomSpec, anatomy: Anatomy, artefacts: Artefacts, cells: TumourCells, n: NDArray[np.int64]
) -> PhantomTruth:
    """Collect the truth of a slide; `n` counts the cells of each `CellKind`."""
    size = mask_size(Size(*spec.size_px), _MASK_PX_L0)
    return PhantomTruth(
        spec=spec,
        tissue=_mask(anatomy.outlines.tissue, size, spec.mpp),
        tumour=_mask(anatomy.outlines.tumour, size, spec.mpp),
        pen=_mask(artefacts.pen, size, spec.mpp),
        folds=_mask(artefacts.folds, size, spec.mpp),
        blur=_mask(artefacts.blur, size, spec.mpp),
        fat=_fat(anatomy, size, spec.mpp),
        her2=_her2_map(cells, size),
        cells=cells,
        counts={kind.name.lower(): int(n[kind]) for kind in CellKind},
    )


def tumour_cells_of(cells: Cells, mpp: float) -> TumourCells:
    """Select the tumour cells among `cells`."""
    own = cells.take((cells.kind == CellKind.TUMOUR) | (cells.kind == CellKind.MITOSIS))
    return TumourCells((np.stack([own.x, own.y], axis=1) / mpp).astype(np.float32), own.level)


def save_truth(truth: PhantomTruth, folder: Path) -> None:
    """Write the truth as `truth.json`, PNG masks and `tumour_cells.npz`; the folder appears complete or not at all.

    Raises:
        OutputError: The folder cannot be written.
    """
    with atomic(folder) as draft:
        draft.mkdir()
        (draft / "truth.json").write_text(json.dumps(_summary(truth), indent=1) + "\n", "utf-8")
        for name in ("tissue", "tumour", "pen", "folds", "blur", "fat"):
            Image.fromarray(getattr(truth, name).astype(np.uint8) * 255).save(draft / f"{name}.png")
        Image.fromarray(np.rint(truth.her2 * 255).astype(np.uint8)).save(draft / "her2.png")
        np.savez(draft / "tumour_cells.npz", xy_l0=truth.cells.xy_l0, level=truth.cells.level)


def _summary(truth: PhantomTruth) -> dict[str, object]:
    """Numbers of `truth.json`."""
    n = max(1, len(truth.cells.level))
    shares = np.bincount(truth.cells.level, minlength=4) / n
    return {
        "phantom": "synthetic tissue; says nothing about patients",
        "spec": truth.spec.as_dict(),
        "ihc_score": truth.spec.ihc_score.value,
        "ish": truth.spec.ish,
        "her2_status": truth.spec.her2_status.value,
        "mask_px_l0": _MASK_PX_L0,
        "cells": truth.counts,
        "share_of_tumour_cells": {
            "unstained": round(float(shares[0]), 4),
            "faint_incomplete": round(float(shares[1]), 4),
            "moderate_complete": round(float(shares[2]), 4),
            "intense_complete": round(float(shares[3]), 4),
        },
        "share_of_slide": {
            "tissue": round(float(truth.tissue.mean()), 4),
            "tumour": round(float(truth.tumour.mean()), 4),
        },
    }


def _mask(raster: RasterField | None, size: Size, mpp: float) -> Mask:
    """Sample a signed distance on the slide's mask grid: True where positive."""
    if raster is None:
        return np.zeros((size.h, size.w), bool)
    xs, ys = ((np.arange(n) + 0.5) * _MASK_PX_L0 * mpp for n in size)
    return np.asarray(raster.grid(xs, ys) > 0)


def _fat(anatomy: Anatomy, size: Size, mpp: float) -> Mask:
    xs, ys = ((np.arange(n) + 0.5) * _MASK_PX_L0 * mpp for n in size)
    mask = np.zeros((size.h, size.w), bool)
    for top in range(0, size.h, _ROWS_PER_BAND):  # in bands: the fields of a large slide are large
        band = GridPoints(xs, ys[top : top + _ROWS_PER_BAND])
        mask[top : top + _ROWS_PER_BAND] = (anatomy.fat(band) > 0) & (anatomy.tissue(band) > 0)
    return mask


def _her2_map(cells: TumourCells, size: Size) -> Map:
    column, row = np.minimum(cells.xy_l0 / _MASK_PX_L0, (size.w - 1, size.h - 1)).astype(np.int64).T
    index = row * size.w + column
    count = np.bincount(index, minlength=size.w * size.h)
    total = np.bincount(index, cells.level / 3, minlength=size.w * size.h)
    return (total / np.maximum(count, 1)).reshape(size.h, size.w).astype(np.float32)
