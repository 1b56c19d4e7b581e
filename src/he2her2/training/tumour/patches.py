"""Labelled patches drawn from annotated slides."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he2her2.cohort import SlideEngine, SlideTask, require_all
from he2her2.config import Config
from he2her2.geometry import Mask, Rgb, TileGrid, l0_from_mask, mask_size
from he2her2.manifest import Manifest, SlideRow
from he2her2.method import find_tissue, native_mpp, pace, require_readable, thumbnail_on_raster
from he2her2.models import InputSpec, resize
from he2her2.preprocessing import Annotation
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.timing import Progress, silent
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.patch_sets import INVASIVE, OTHER, Patches, concatenate

_MASK_MPP = 8.0  # µm per pixel of the masks on which patch centres are drawn

_SLIDES = "slides"  # source of patches of slides without a site


def draw_patches(
    manifest: Manifest,
    rows: Sequence[SlideRow],
    spec: InputSpec,
    config: Config,
    settings: TumourTraining,
    progress: Progress = silent,
    *,
    annotation_classes: Sequence[str] = (),
) -> Patches:
    """Draw patches from annotated slides; those of a slide do not depend on the other slides.

    Args:
        manifest: Named in messages.
        rows: Its H&E slides, each with annotations of its invasive tumour.
        spec: Input of the network.
        config: Tissue, quality and runtime are used.
        settings: Number of patches and share of glass.
        progress: Called after every slide.
        annotation_classes: Classes of the annotations that are invasive tumour; by their names if empty.

    Raises:
        ManifestError: All slides without patches, each with its reason.
    """
    tasks = [SlideTask.of_row(row) for row in rows]
    outcomes = SlideEngine(progress).run(
        tasks, _PatchDrawer(spec, config, settings, tuple(annotation_classes)), stage="drawing patches"
    )
    drawn = require_all(rows, outcomes, f"slides of {manifest.path} give no patches")
    return concatenate([_of_slide(row, *found) for row, found in zip(rows, drawn, strict=True)])


def _of_slide(row: SlideRow, pixels: Rgb, labels: NDArray[np.int64]) -> Patches:
    n = len(labels)
    patients, sources = np.full(n, row.patient), np.full(n, row.site or _SLIDES)
    return Patches(pixels, labels, patients, sources, np.zeros(n, np.int64), np.full(n, "", "<U5"))


@dataclass(frozen=True, slots=True)
class _PatchDrawer:
    """Draws the patches of a slide.

    Attributes:
        spec: Input of the network.
        config: Tissue, quality and runtime are used.
        settings: Number of patches and share of glass.
        annotation_classes: Classes of the annotations that are invasive tumour; by their names if empty.
    """

    spec: InputSpec
    config: Config
    settings: TumourTraining
    annotation_classes: tuple[str, ...]

    def __call__(self, task: SlideTask) -> tuple[Rgb, NDArray[np.int64]]:
        """Pixels (n, s, s, 3) and labels (n,) of a slide's patches."""
        spec, config = self.spec, self.config
        annotation = task.read_annotation(self.annotation_classes)
        assert annotation is not None, f"{task.slide_id}: annotations are checked before"
        rng = np.random.default_rng((self.settings.seed, zlib.crc32(task.slide_id.encode())))
        with open_slide(task.path, mpp=task.mpp, backend=config.runtime.backend) as slide:
            mpp = native_mpp(slide, spec, config.tiling)
            side_l0 = spec.side_px * mpp / slide.mpp
            centres, labels = _draw_centres(slide, annotation, config, self.settings, rng)
            origins = np.rint(centres - side_l0 / 2).astype(np.int64)
            raster = np.lexsort((origins[:, 0], origins[:, 1]))  # in raster order each compressed tile is decoded once
            grid = TileGrid(origins[raster], side_l0, spec.side_px, mpp)
            index, pixels = _read(slide, grid, spec, config)
        return pixels, labels[raster][index]


def _draw_centres(
    slide: Slide, annotation: Annotation, config: Config, settings: TumourTraining, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw centres (n, 2) of patches in level-0 px, with their labels (n,)."""
    px_l0 = _MASK_MPP / slide.mpp
    size = mask_size(slide.size_l0, px_l0)
    tissue, pen = find_tissue(thumbnail_on_raster(slide, px_l0, size), config.tissue, config.quality)
    usable = tissue & ~pen if config.quality.apply else tissue
    raster = (size, px_l0, slide.frame)
    inside, doubtful = annotation.mask(*raster), annotation.doubtful(*raster)
    n_glass = round(settings.glass_share * settings.patches_per_slide)
    n_each = (settings.patches_per_slide - n_glass) // 2
    other, glass = usable & ~(inside | doubtful), ~(tissue | pen | inside | doubtful)
    wanted = ((usable & inside, n_each), (other, n_each), (glass, n_glass))
    drawn = [_draw_points(mask, n, rng) for mask, n in wanted]
    labels = np.repeat([INVASIVE, OTHER, OTHER], [len(points) for points in drawn])
    return l0_from_mask(np.concatenate(drawn), px_l0), labels


def _draw_points(mask: Mask, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw up to `n` points (x, y) in different pixels of a mask, uniformly within their pixel: (m, 2) in mask px."""
    rows, columns = np.nonzero(mask)
    chosen = rng.permutation(len(rows))[:n]
    return np.stack([columns[chosen], rows[chosen]], axis=1) + rng.random((len(chosen), 2))


def _read(slide: Slide, grid: TileGrid, spec: InputSpec, config: Config) -> tuple[NDArray[np.int64], Rgb]:
    """Read patches: positions of those that can be decoded, and their pixels at the network's input size.

    Raises:
        DamagedSlideError: More than 1 % cannot be decoded.
    """
    batches = list(
        map_tiles(slide, grid, lambda batch: (batch.index, resize(batch.pixels, spec)), **pace(config.runtime))
    )
    none = np.empty((0, spec.network_px, spec.network_px, 3), np.uint8)
    index = np.concatenate([np.empty(0, np.int64), *(index for index, _ in batches)])
    require_readable(slide, len(index), len(grid), what="patches")
    return index, np.concatenate([none, *(pixels for _, pixels in batches)])
