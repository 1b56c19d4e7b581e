"""Inspection of a slide file: its metadata, its damage, and the plan for reading it, as plain data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from he2her2.errors import MppError, UnreadableRegionError
from he2her2.geometry import Size
from he2her2.slides.base import CELL, MAX_LOSS, BaseSlide
from he2her2.slides.blank_tissue import BlankTissue
from he2her2.slides.levels import Rect
from he2her2.slides.listing import all_files_of
from he2her2.slides.opening import Backend, open_slide, why_not_the_tiff_reader
from he2her2.units import PLAUSIBLE_MPP

_TILE_MPP, _MASK_MPP = 0.25, 8.0
"""µm/px at which the method reads a slide by default: tiles, and masks 32 times coarser."""

_UPSAMPLED_FROM = 1.1
_MANY_PX = 10**8
_EXACT_PX = 1 / 256
_READERS = {"tiff": "our reader of tiled TIFF (fast, strict about damaged tiles)", "openslide": "OpenSlide"}


@dataclass(frozen=True, slots=True)
class LevelReport:
    """One level of the pyramid; `mpp` is None while the slide's is unknown."""

    size_px: tuple[int, int]
    downsample: float
    mpp: float | None
    tile_px: tuple[int, int] | None
    codec: str


@dataclass(frozen=True, slots=True)
class TileCheck:
    """Result of decoding compressed tiles.

    Attributes:
        n_tiles: Compressed tiles of all levels.
        n_absent: Left out by the file, and read as white on glass.
        n_checked: Decoded for this report.
        n_corrupt: Of these, the ones that cannot be decoded.
        n_blank: Of these, the ones that are blank, in part at least, where a coarser level shows tissue.
    """

    n_tiles: int
    n_absent: int
    n_checked: int
    n_corrupt: int
    n_blank: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a slide, with its remedy."""

    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SlideReport:
    """Report of `inspect`; JSON-able by `dataclasses.asdict`.

    Attributes:
        backend: Its reader: "tiff" or "openslide".
        mpp: µm per level-0 px; None when unknown.
        mpp_source: Source of the mpp: "Aperio metadata", "OME-XML", "--mpp", ...; "nowhere".
        objective: Nominal magnification, where stated.
        bounds_px: (x, y, w, h) of the scanned part of level 0, where the format states it.
        associated: Names of label, macro and thumbnail pictures.
        plan: How the slide is read and why, in sentences.
        problems: In order of weight; none for a slide that is as it should be.
    """

    slide_id: str
    path: str
    file_bytes: int
    vendor: str
    backend: str
    size_px: tuple[int, int]
    size_mm: tuple[float, float] | None
    mpp: float | None
    mpp_source: str
    objective: float | None
    levels: tuple[LevelReport, ...]
    associated: tuple[str, ...]
    bounds_px: tuple[int, int, int, int] | None
    tiles: TileCheck
    plan: tuple[str, ...]
    problems: tuple[Problem, ...]


def inspect_slide(
    path: Path | str, mpp: float | None = None, backend: Backend = "auto", *, n_check: int | None = 0, seed: int = 0
) -> SlideReport:
    """Inspect a slide: metadata, damage, and how it is read.

    Opening already checks that every directory and every compressed tile lies inside the file.

    Args:
        path: The file.
        mpp: µm per level-0 px; outranks that of the file.
        backend: As for `open_slide`.
        n_check: Compressed tiles of all levels to decode, a seeded sample; None is every one.
        seed: Of that sample.

    Raises:
        SlideOpenError: The file cannot be opened; the error gives the reason.
    """
    problem = None
    try:
        slide = open_slide(path, mpp=mpp, backend=backend)
    except MppError as error:
        problem = Problem(error.reason, error.remedy)
        slide = open_slide(path, mpp=PLAUSIBLE_MPP[0], backend=backend)  # no slide is too large at this
    with slide:
        known_mpp = None if problem else slide.mpp
        tiles = _check_tiles(slide, n_check, seed)
        problems = [problem] if problem else []
        problems += _problems(slide, known_mpp, tiles)
        return SlideReport(
            slide_id=slide.slide_id,
            path=str(slide.path),
            file_bytes=sum(file.stat().st_size for file in all_files_of(slide.path)),
            vendor=slide.vendor,
            backend=slide.backend,
            size_px=slide.size_l0,
            size_mm=None
            if known_mpp is None
            else (slide.size_l0.w * known_mpp / 1e3, slide.size_l0.h * known_mpp / 1e3),
            mpp=known_mpp,
            mpp_source=slide.settled_mpp.source if known_mpp else "nowhere",
            objective=slide.metadata.objective,
            levels=_levels(slide, known_mpp),
            associated=tuple(slide.associated),
            bounds_px=slide.metadata.bounds,
            tiles=tiles,
            plan=tuple(_plan(slide, known_mpp, backend)),
            problems=tuple(problems),
        )


def _levels(slide: BaseSlide, mpp: float | None) -> tuple[LevelReport, ...]:
    return tuple(
        LevelReport(
            level.size, level.downsample, None if mpp is None else mpp * level.downsample, level.tile, level.codec
        )
        for level in slide.levels
    )


def _state(
    slide: BaseSlide, level: int, rect: Rect, blank_tissue: Callable[[int, Size], BlankTissue]
) -> Literal["sound", "blank", "corrupt"]:
    """State of one compressed tile."""
    try:
        pixels = slide.read_level(level, rect)
    except UnreadableRegionError:
        return "corrupt"
    origin = np.rint(np.array([rect.x, rect.y]) * slide.levels[level].downsample).astype(np.int64)
    hidden = blank_tissue(level, Size(rect.w, rect.h)).hidden(pixels[None], origin[None])
    return "blank" if hidden.any() else "sound"


def _cells(slide: BaseSlide) -> Iterator[tuple[int, Rect]]:
    """Every compressed tile of every level, cut at the border."""
    for i, level in enumerate(slide.levels):
        cell = level.tile or CELL
        columns, rows = Rect(0, 0, *level.size).cells(cell)
        for row in rows:
            for column in columns:
                yield i, Rect(column * cell.w, row * cell.h, *cell).clipped(level.size)


def _check_tiles(slide: BaseSlide, n_check: int | None, seed: int) -> TileCheck:
    cells = [level.tile or CELL for level in slide.levels]
    n_tiles = sum(
        -(-level.size.w // cell.w) * -(-level.size.h // cell.h) for level, cell in zip(slide.levels, cells, strict=True)
    )
    n_check = n_tiles if n_check is None else min(n_check, n_tiles)
    chosen = set(np.random.default_rng(seed).choice(n_tiles, n_check, replace=False).tolist())
    blank_tissue = cache(lambda level, size: BlankTissue(slide, size, slide.mpp * slide.levels[level].downsample))
    states = [_state(slide, *cell, blank_tissue) for i, cell in enumerate(_cells(slide)) if i in chosen]
    return TileCheck(n_tiles, slide.metadata.absent_tiles, n_check, states.count("corrupt"), states.count("blank"))


def _problems(slide: BaseSlide, mpp: float | None, tiles: TileCheck) -> Iterator[Problem]:
    if tiles.n_corrupt:
        share = tiles.n_corrupt / tiles.n_checked
        found = f"{tiles.n_corrupt} of {tiles.n_checked} compressed tiles ({100 * share:.1f} %) cannot be decoded"
        many = share > MAX_LOSS
        yield Problem(found, "copy the file again, or scan again" if many else "none needed: they will be left out")
    if tiles.n_blank:
        found = f"{tiles.n_blank} of {tiles.n_checked} compressed tiles are blank where a coarser level shows tissue"
        yield Problem(found, "copy, convert or scan the file again")
    for caution in slide.cautions:
        if mpp is None and caution in slide.scale_cautions:
            continue  # the problem that leaves the mpp unknown tells the same
        yield Problem(*_found_and_remedy(caution))
    n_lost = sum(len(slide.lost_rects(level)) for level in range(len(slide.levels)))
    if tiles.n_absent > n_lost:
        on_glass = f", {tiles.n_absent - n_lost} of them on glass" if n_lost else ""
        yield Problem(f"{tiles.n_absent} compressed tiles are absent{on_glass}", "none needed: they are read as white")
    if mpp is not None and mpp > _TILE_MPP * _UPSAMPLED_FROM:
        found = f"level 0 has {mpp:.3g} µm/px, coarser than the {_TILE_MPP} of tiles, which are enlarged"
        yield Problem(found, "scan at 40x if you can: nuclear detail cannot be made up")
    coarsest = slide.levels[-1].size
    if coarsest.w * coarsest.h > _MANY_PX:
        found = f"its smallest level has {coarsest.w} x {coarsest.h} px"
        yield Problem(found, "none needed: masks read that level in full, which takes longer")
    if slide.drift_px > _EXACT_PX:
        found = "OpenSlide blends neighbouring px of some levels, whose sizes are no whole reductions"
        yield Problem(found, "none needed; the TIFF reader gives the stored px where it can read the file")


def _found_and_remedy(caution: str) -> tuple[str, str]:
    found, _, remedy = caution.partition("; ")
    return found, remedy or "look at the slide before you trust a result"


def _plan(slide: BaseSlide, mpp: float | None, backend: Backend) -> Iterator[str]:
    why = ""
    if backend != "auto":
        why = ", as asked"
    elif slide.backend == "openslide":
        why = f", because {why_not_the_tiff_reader(slide.path)}"
    yield f"Read by {_READERS[slide.backend]}{why}."
    if mpp is None:
        yield "Nothing more before its µm per pixel are known: every step of the method is physical."
        return
    yield f"Take {mpp:.4g} µm per level-0 px, from {slide.settled_mpp.source}."
    yield f"Tiles: {_in_words(slide, _TILE_MPP)}"
    yield f"Masks: {_in_words(slide, _MASK_MPP)}"


def _in_words(slide: BaseSlide, mpp: float) -> str:
    """Describe how pixels of one resolution are made, in a sentence."""
    sampling = slide.sampling(mpp)
    level_mpp = slide.mpp * sampling.downsample
    source = f"level {sampling.level} ({level_mpp:.4g} µm/px)"
    if sampling.native:
        return f"{source} as it is, within 10 % of the {mpp:g} wanted."
    ratio = mpp / level_mpp
    how = f"reduced {ratio:.3g} times" if ratio > 1 else f"enlarged {1 / ratio:.3g} times"
    return f"{source} {how} to {mpp:g} µm/px, because no level is within 10 % of it."
