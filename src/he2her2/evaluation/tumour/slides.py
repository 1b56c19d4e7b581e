"""A tumour network on annotated slides: HASHI's mask and a dense map against the annotation, and trivial rivals."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.cohort import SlideEngine, SlideTask, require_all
from he2her2.config import Config
from he2her2.datasets import PatchSet
from he2her2.errors import AnnotationError, EvaluationError, ManifestError
from he2her2.evaluation.tumour.networks import NO_NETWORK, TumourNetwork, assign_networks
from he2her2.evaluation.tumour.rivals import ALL_TISSUE, DARKNESS
from he2her2.geometry import Mask, Rgb, Size, TileGrid, l0_from_mask, windows_about
from he2her2.manifest import SlideRow, check_consistent, patient_key, read_manifest
from he2her2.method import (
    as_seen,
    find_tumour,
    infer,
    native_mpp,
    pace,
    require_readable,
    segment_slide,
    tumour_threshold,
)
from he2her2.models import Engine, InputSpec, cnn_named, recoloured, softmax
from he2her2.preprocessing import optical_density
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.statistics import BinaryCounts, Estimate, auc, f1, mean_interval, ppv, sensitivity
from he2her2.timing import Progress, silent

HASHI, DENSE = "HASHI", "dense map"

_DENSE_POINTS = 4000
_WINDOWS = 300
_MOSTLY = 0.5
_LIMITS = np.round(np.arange(0.15, 1.51, 0.05), 2)
"""Mean optical densities from which on the rival calls tissue tumour."""


def dice(counts: BinaryCounts) -> float:
    """Dice coefficient of a mask and the annotation; 1 where both are empty."""
    return f1(counts) if counts.positives + counts.called_positive else 1.0


def _precision(counts: BinaryCounts) -> float:
    """Share of what is called tumour that is; where nothing is called 1 if nothing is tumour, else 0."""
    return ppv(counts) if counts.called_positive else float(not counts.positives)


def share_called(counts: BinaryCounts) -> float:
    """Share that is called tumour; nan of nothing."""
    return counts.called_positive / counts.n if counts.n else math.nan


_METRICS: Mapping[str, Callable[[BinaryCounts], float]] = {
    "Dice": dice,
    "precision": _precision,
    "recall": sensitivity,
    "share called": share_called,
}


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class SlideTrial:
    """One annotated slide, all inside its usable tissue.

    Attributes:
        slide_id: Its name.
        patient: By `patient_key`.
        tumour_share: Share of the usable tissue that is annotated.
        masks: Counts of mask px of HASHI's mask, and of all tissue.
        dark: Counts of mask px called by each of `_LIMITS`.
        dense: Counts of the dense map's points.
        agreement: Share of the dense map's points where HASHI's mask says the same.
        samples: Points that HASHI scored.
        spacing_um: Between the dense map's points.
        windows: (n, s, s, 3) what the network sees at random points of the dense map.
        labels: (n,) bool, the annotation covers more than half of what the window shows of the slide.
        auc: Of the network on all windows of the dense map by that label; nan where all are alike.
    """

    slide_id: str
    patient: str
    tumour_share: float
    masks: Mapping[str, BinaryCounts]
    dark: tuple[BinaryCounts, ...]
    dense: BinaryCounts
    agreement: float
    samples: int
    spacing_um: float
    windows: Rgb
    labels: NDArray[np.bool_]
    auc: float


@dataclass(frozen=True, slots=True)
class SlideFigures:
    """Mean figures of one way to call tumour, over slides.

    Attributes:
        name: Of the way.
        figures: Dice, precision, recall and the share of the tissue that is called tumour, by name; recall is of the
            slides that have tumour, and missing where none has.
    """

    name: str
    figures: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class SlideTrials:
    """Result of a test on annotated slides.

    Attributes:
        slides: Each of them.
        figures: Mean figures of HASHI, the dense map and the rivals.
        agreement: Mean share of points where HASHI's mask and the dense map agree.
        windows: Windows of all slides as labelled pictures.
        notices: What a reader must know.
    """

    slides: tuple[SlideTrial, ...]
    figures: tuple[SlideFigures, ...]
    agreement: Estimate
    windows: PatchSet
    notices: tuple[str, ...]


def evaluate_slides(
    manifest_file: Path,
    networks: Sequence[TumourNetwork],
    config: Config,
    *,
    annotation_classes: Sequence[str] = (),
    progress: Progress = silent,
) -> SlideTrials:
    """Find the tumour of annotated slides by HASHI and by a dense map, and hold both against the annotation.

    Args:
        manifest_file: Its H&E slides with annotations are used.
        networks: Under test; each patient is judged by one that has not seen him.
        config: Of the method; `adaptive.threshold` decides, or else that of the card.
        annotation_classes: Classes of the annotations that are tumour; by their names if empty.
        progress: Called after every slide.

    Raises:
        ManifestError: It cannot be used, has no annotated slides, or some of them fail; with all reasons.
        EvaluationError: Every patient was used in training all of the networks.
    """
    rows = _annotated_rows(manifest_file)
    patients = np.array([row.patient for row in rows])
    assigned = assign_networks(networks, patients, len(rows))
    kept = [row for row, k in zip(rows, assigned.network.tolist(), strict=True) if k != NO_NETWORK]
    if not kept:
        raise EvaluationError(f"{manifest_file}: all networks learned from all of its patients")
    engines = {
        row.slide_id: networks[k].engine
        for row, k in zip(rows, assigned.network.tolist(), strict=True)
        if k != NO_NETWORK
    }
    worker = _SlideTester(engines, {row.slide_id: row.patient_id for row in kept}, config, tuple(annotation_classes))
    outcomes = SlideEngine(progress).run([SlideTask.of_row(row) for row in kept], worker, stage="slides")
    slides = tuple(require_all(kept, outcomes, f"slides of {manifest_file} cannot be tested"))
    spec = networks[0].engine.card.input
    return SlideTrials(
        slides, _all_figures(slides), _agreement(slides), _windows(manifest_file, slides, spec), assigned.notices
    )


def _annotated_rows(manifest_file: Path) -> list[SlideRow]:
    manifest = read_manifest(manifest_file)
    check_consistent(manifest, files=False)
    rows = [row for row in manifest.select(stain="HE") if row.annotations is not None]
    if not rows:
        raise ManifestError([f"{manifest_file}: no H&E slide has annotations; its column annotations names the files"])
    return rows


@dataclass(frozen=True, slots=True)
class _SlideTester:
    """Tests the network on a slide.

    Attributes:
        engines: By slide_id, the network that judges it.
        patients: By slide_id.
        config: Of the method.
        annotation_classes: Classes of the annotations that are tumour; by their names if empty.
    """

    engines: Mapping[str, Engine]
    patients: Mapping[str, str]
    config: Config
    annotation_classes: tuple[str, ...]

    def __call__(self, task: SlideTask) -> SlideTrial:
        """Figures of a slide."""
        config, engine = self.config, self.engines[task.slide_id]
        annotation = task.read_annotation(self.annotation_classes)
        assert annotation is not None, f"{task.slide_id}: only annotated slides are tested"
        with open_slide(task.path, mpp=task.mpp, backend=config.runtime.backend) as slide:
            tile = cnn_named(config.networks.tile_cnn, "tile_cnn").input
            seen = segment_slide(slide, tile, config, tumour_cnn=None)
            height, width = seen.tissue.shape
            raster = (Size(width, height), seen.px_l0, slide.frame)
            truth, usable = annotation.mask(*raster), seen.usable & ~annotation.doubtful(*raster)
            if not usable.any():
                raise AnnotationError("all of its tissue is left out by its annotations, which say ignore or the like")
            engine = recoloured(engine, seen.recolour)
            found = find_tumour(slide, engine, seen.usable, seen.px_l0, config)
            rng = np.random.default_rng(zlib.crc32(task.slide_id.encode()))
            dense = _score_densely(slide, engine, usable, seen.px_l0, config, rng)
        threshold = tumour_threshold(engine.card, config.adaptive)
        hashi = found.map >= threshold
        density = optical_density(seen.thumbnail).mean(axis=-1)
        y, x = dense.rows, dense.columns
        called = dense.probability >= threshold
        tumour = _share_within(truth, dense.windows, seen.px_l0) > _MOSTLY
        return SlideTrial(
            task.slide_id,
            patient_key(self.patients[task.slide_id]),
            float(truth[usable].mean()),
            {
                HASHI: BinaryCounts.of(truth[usable], hashi[usable]),
                ALL_TISSUE: BinaryCounts.of(truth[usable], usable[usable]),
            },
            tuple(BinaryCounts.of(truth[usable], density[usable] >= limit) for limit in _LIMITS.tolist()),
            BinaryCounts.of(truth[y, x], called),
            float((hashi[y, x] == called).mean()),
            len(found.points),
            dense.step * seen.px_mpp,
            dense.pixels if seen.recolour is None else seen.recolour(dense.pixels),
            tumour[dense.shown],
            auc(tumour, dense.probability),
        )


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _DenseMap:
    """Probabilities at the points of a square lattice within the usable tissue.

    Attributes:
        rows: (n,) of the points, in mask px.
        columns: (n,) the same.
        probability: (n,)
        step: Mask px between points.
        windows: Of the points, inside the slide.
        shown: (m,) positions of the points whose windows were kept.
        pixels: (m, s, s, 3) of these windows.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    probability: NDArray[np.float64]
    step: int
    windows: TileGrid
    shown: NDArray[np.intp]
    pixels: Rgb


def _score_densely(
    slide: Slide, engine: Engine, usable: Mask, px_l0: float, config: Config, rng: np.random.Generator
) -> _DenseMap:
    """Score a lattice of at most about `_DENSE_POINTS` points, and keep the pixels of some windows.

    Raises:
        DamagedSlideError: More than 1 % of the windows cannot be decoded.
    """
    spec = engine.card.input
    mpp = native_mpp(slide, spec, config.tiling)
    side_l0 = spec.side_px * mpp / slide.mpp
    step = max(1, math.ceil(math.sqrt(np.count_nonzero(usable) / _DENSE_POINTS)))
    rows, columns = np.nonzero(usable)
    on_lattice = (rows % step == 0) & (columns % step == 0)
    rows, columns = rows[on_lattice], columns[on_lattice]
    centres = np.stack([columns, rows], axis=1) + 0.5
    origins = windows_about(l0_from_mask(centres, px_l0), side_l0, slide.size_l0)
    grid = TileGrid(origins, side_l0, spec.side_px, mpp)
    readable, logits = infer(slide, grid, as_seen(engine, config.adaptive), config.runtime)
    require_readable(slide, len(readable), len(grid), 1)
    chosen = np.sort(rng.permutation(readable)[:_WINDOWS])
    batches = list(
        map_tiles(slide, grid.take(chosen), lambda batch: (batch.index, batch.pixels), **pace(config.runtime))
    )
    at = np.concatenate([index for index, _ in batches])
    return _DenseMap(
        rows[readable],
        columns[readable],
        softmax(logits)[:, 1].astype(np.float64),
        step,
        grid.take(readable),
        np.searchsorted(readable, chosen[at]),
        np.concatenate([pixels for _, pixels in batches]),
    )


def _share_within(mask: Mask, windows: TileGrid, px_l0: float) -> NDArray[np.float64]:
    """Share (n,) of each window that a mask covers; what the window shows beyond the mask does not count."""
    sums = np.pad(mask.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    ends = np.stack([windows.origins_l0, windows.origins_l0 + windows.side_l0]) / px_l0
    (left, top), (right, bottom) = np.clip(np.rint(ends).astype(np.int64), 0, mask.shape[::-1]).transpose(0, 2, 1)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(inside / np.maximum(1, (right - left) * (bottom - top)))


def _all_figures(slides: Sequence[SlideTrial]) -> tuple[SlideFigures, ...]:
    ways: dict[str, list[BinaryCounts]] = {
        HASHI: [slide.masks[HASHI] for slide in slides],
        DENSE: [slide.dense for slide in slides],
        ALL_TISSUE: [slide.masks[ALL_TISSUE] for slide in slides],
    }
    if dark := _dark_by_others(slides):
        ways[DARKNESS] = dark
    patients = np.array([slide.patient for slide in slides])
    return tuple(SlideFigures(way, _figures(counts, patients)) for way, counts in ways.items())


def _figures(counts: Sequence[BinaryCounts], patients: NDArray[np.str_]) -> dict[str, Estimate]:
    """Mean figures over slides."""
    has_tumour = np.array([one.positives > 0 for one in counts])
    found = {}
    for name, metric in _METRICS.items():
        chosen = has_tumour if name == "recall" else np.ones(len(counts), np.bool_)
        values = [
            0.0 if math.isnan(metric(one)) else metric(one) for one, used in zip(counts, chosen, strict=True) if used
        ]
        if values:
            found[name] = mean_interval(values, patients[chosen], name=name, between=(0, 1))
    return found


def _dark_by_others(slides: Sequence[SlideTrial]) -> list[BinaryCounts]:
    """Darkness with the limit of the best mean Dice on other patients' slides; empty with one patient only."""
    patients = np.array([slide.patient for slide in slides])
    if len(np.unique(patients)) < 2:
        return []
    each = np.array([[dice(counts) for counts in slide.dark] for slide in slides])
    best = [int(each[patients != patient].mean(axis=0).argmax()) for patient in patients.tolist()]
    return [slide.dark[k] for slide, k in zip(slides, best, strict=True)]


def _agreement(slides: Sequence[SlideTrial]) -> Estimate:
    patients = [slide.patient for slide in slides]
    return mean_interval([slide.agreement for slide in slides], patients, name="agreement", between=(0, 1))


def _windows(manifest_file: Path, slides: Sequence[SlideTrial], spec: InputSpec) -> PatchSet:
    return PatchSet(
        manifest_file.stem,
        spec.mpp,
        spec.side_px,
        spec.side_px,
        np.concatenate([slide.labels for slide in slides]),
        np.concatenate([np.full(len(slide.labels), slide.patient) for slide in slides]),
        np.concatenate([slide.windows for slide in slides]),
    )
