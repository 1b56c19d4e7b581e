"""Labelled patches for the tumour CNN, from a patch set or drawn from annotated slides.

Patches are small (7.5 kB for the compact network), so they are read once, at the network's input size, and kept in
memory; nothing is written.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.cohort import SlideEngine, SlideTask, require_all
from he2her2.config import Config
from he2her2.errors import DamagedSlideError, PatchError
from he2her2.geometry import Mask, Rgb, TileGrid, l0_from_mask, mask_size
from he2her2.manifest import Manifest, SlideRow, names_nothing, patient_key
from he2her2.method import MAX_UNREADABLE_SHARE, find_tissue, native_mpp, pace, thumbnail_on_raster
from he2her2.models import InputSpec, resize
from he2her2.preprocessing import Annotation
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.timing import Progress, silent
from he2her2.training.settings import TumourTraining

OTHER, INVASIVE = 0, 1
_MASK_MPP = 8.0  # µm per pixel of the masks on which patch centres are drawn

_SLIDES = "slides"  # source of patches of slides without a site

_NEEDED = ("patch", "invasive", "patient")
_TOO_NARROW = 0.98


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Patches:
    """Labelled patches.

    Attributes:
        pixels: (n, s, s, 3) uint8, at the network's input size.
        labels: (n,) int64: 1 is invasive tumour, 0 is not.
        patients: (n,) patient of each, by `patient_key`.
        sources: (n,) source of each: the patch set, or the slide's site.
    """

    pixels: Rgb
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    sources: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[Any]) -> "Patches":
        """The patches at `index` (positions or a bool mask), in its order."""
        return Patches(self.pixels[index], self.labels[index], self.patients[index], self.sources[index])

    def in_words(self) -> str:
        """Number, patients, sources and classes of the patches."""
        sources = [f"{source}: {(self.sources == source).sum()}" for source in np.unique(self.sources)]
        n_patients = len(np.unique(self.patients))
        share = f"{self.labels.mean():.0%} invasive"
        return f"{len(self)} patches of {n_patients} patients ({', '.join(sources)}), {share}"


def concatenate(parts: Sequence[Patches]) -> Patches:
    """Patches of several sets as one, in their order."""
    return Patches(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.patients for part in parts]),
        np.concatenate([part.sources for part in parts]),
    )


def read_patch_set(file: Path, spec: InputSpec, mpp: float | None = None) -> Patches:
    """Read a patch set: `patch` (n, h, h, 3) uint8, `invasive` (n,) of 0 and 1, `patient` (n,).

    Args:
        file: NPZ; further arrays in it are ignored.
        spec: Input of the network. Wider patches are cut to its field of view about their centre, and resampled.
        mpp: µm per px of the patches; none is the network's.

    Raises:
        PatchError: It cannot be read or used; all problems in one message.
    """
    arrays = _read_npz(file)
    problems = list(_problems(arrays, spec, mpp or spec.mpp))
    if problems:
        raise PatchError(f"{file}: {'; '.join(problems)}")
    pixels = _at_network_size(arrays["patch"], mpp or spec.mpp, spec)
    patients = np.array([patient_key(name) for name in _names(arrays["patient"])])
    return Patches(pixels, arrays["invasive"].astype(np.int64), patients, np.full(len(pixels), file.stem))


def _read_npz(file: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with file.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise PatchError(f"{file}: is a single array; give an NPZ with {', '.join(_NEEDED)}")
            return {name: found[name] for name in _NEEDED if name in found}
    except OSError as error:
        raise PatchError(f"{file}: cannot be read ({error.strerror or error}); give an NPZ of patches") from None
    except (ValueError, BadZipFile, EOFError, zlib.error) as error:
        raise PatchError(f"{file}: is no NPZ of plain arrays ({error}); write it with numpy.savez") from None


def _problems(arrays: Mapping[str, NDArray[Any]], spec: InputSpec, mpp: float) -> Iterator[str]:
    """Yield all problems of a patch set."""
    if missing := [name for name in _NEEDED if name not in arrays]:
        yield f"has no array {', '.join(missing)}"
    lengths = {name: array.shape[:1] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        yield f"its arrays differ in length ({', '.join(f'{name} {n}' for name, n in lengths.items())})"
    if "patch" in arrays:
        yield from _picture_problems(arrays["patch"], spec, mpp)
    if "invasive" in arrays:
        yield from _label_problems(arrays["invasive"])
    if "patient" in arrays:
        patients = arrays["patient"]
        if patients.ndim != 1 or patients.dtype.kind not in "iuUS":
            yield f"patient is {patients.shape} {patients.dtype} where (n,) numbers or names are needed"
        elif unnamed := [i for i, name in enumerate(_names(patients)) if names_nothing(name)]:
            yield f"{len(unnamed)} patches have no patient, the first is patch {unnamed[0]}"
        elif len(np.unique(patients)) < 2:
            yield "all patches are of one patient; at least two are needed to keep training and validation apart"


def _names(patients: NDArray[Any]) -> list[str]:
    """The (n,) patients of a patch set as text."""
    if patients.dtype.kind == "S":
        patients = np.char.decode(patients, "utf-8", "replace")
    return [str(name) for name in patients.tolist()]


def _picture_problems(patch: NDArray[Any], spec: InputSpec, mpp: float) -> Iterator[str]:
    if patch.ndim != 4 or patch.dtype != np.uint8 or patch.shape[3:] != (3,) or patch.shape[1] != patch.shape[2]:
        yield f"patch is {patch.shape} {patch.dtype} where (n, h, h, 3) uint8 is wanted"
        return
    field, wanted = patch.shape[1] * mpp, spec.side_px * spec.mpp
    if field < _TOO_NARROW * wanted:
        yield f"its patches are {field:g} µm wide at {mpp:g} µm/px, the network sees {wanted:g} µm; check --patches-mpp"


def _label_problems(invasive: NDArray[Any]) -> Iterator[str]:
    if invasive.ndim != 1 or invasive.dtype.kind not in "iub" or not np.isin(invasive, (OTHER, INVASIVE)).all():
        yield f"invasive is {invasive.shape} {invasive.dtype} where (n,) of 0 and 1 is wanted"
    elif len(classes := np.unique(invasive)) < 2:
        only = "is empty" if not len(classes) else f"holds only {'invasive' if classes[0] else 'other'} patches"
        yield f"it {only}; both classes are needed"


def _at_network_size(patches: Rgb, mpp: float, spec: InputSpec) -> Rgb:
    """Cut patches to the network's field of view about their centre and resample them: (n, h, h, 3) to (n, s, s, 3).

    Args:
        patches: At least 98 % as wide as the field of view, which is taken for all of it.
        mpp: Their µm per px.
        spec: Input of the network.
    """
    side = patches.shape[1]
    if side == spec.side_px and abs(mpp / spec.mpp - 1) < 1e-6:
        return resize(patches, spec)
    half = min(spec.side_px * spec.mpp / mpp, side) / 2
    box = (side / 2 - half, side / 2 - half, side / 2 + half, side / 2 + half)
    size = (spec.network_px, spec.network_px)
    small = [Image.fromarray(patch).resize(size, Image.Resampling.BILINEAR, box=box) for patch in patches]
    return np.stack([np.asarray(patch) for patch in small])


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
    return Patches(pixels, labels, np.full(n, patient_key(row.patient_id)), np.full(n, row.site or _SLIDES))


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
    raster = (size, px_l0, slide.size_l0, slide.bounds_origin_l0)
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
    n_lost = len(grid) - len(index)
    if n_lost > MAX_UNREADABLE_SHARE * len(grid):
        found = f"{n_lost} of {len(grid)} patches cannot be decoded"
        raise DamagedSlideError(slide.slide_id, found, "copy the file again, or leave the slide out")
    return index, np.concatenate([none, *(pixels for _, pixels in batches)])
