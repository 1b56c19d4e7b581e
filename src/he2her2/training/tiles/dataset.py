"""Tiles that the tile CNN is trained on: found in tissue and annotated regions, drawn evenly, read when needed.

No tile is ever written: only positions are kept, and pixels are read from the slides in every epoch.
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from he2her2.cohort import SlideEngine, SlideTask, require_all
from he2her2.config import Config
from he2her2.errors import TilingError, few_of
from he2her2.geometry import Point, Size, TileGrid, mask_size
from he2her2.labels import IhcScore
from he2her2.manifest import SlideRow
from he2her2.method import TissueRule, cut_region, pace, require_readable, segment_slide
from he2her2.models import InputSpec, resize
from he2her2.preprocessing import TooFewTilesError, tissue_mask, weak_tissue_mask
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.timing import Progress, silent
from he2her2.training.classifier import Batch, LabelledTiles
from he2her2.training.sampling import Draw

SCORES = tuple(IhcScore)
_MAX_OPEN_SLIDES = 64
_NO_TILES = "slides give no tiles"
_NAMED = 5
_WEAK = (IhcScore.ZERO, IhcScore.ONE)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class SlideTiles:
    """Tiles of one slide, all of which inherit its score.

    Attributes:
        row: The slide.
        grid: Positions of the tiles.
        n_in_tissue: Tiles that the tissue holds, those under ink and out of focus among them.
    """

    row: SlideRow
    grid: TileGrid
    n_in_tissue: int = 0

    def __len__(self) -> int:
        return len(self.grid)

    @property
    def label(self) -> int:
        """Class of every tile: the position of the slide's score among 0, 1+, 2+, 3+."""
        assert self.row.ihc_score is not None
        return SCORES.index(self.row.ihc_score)

    def take(self, index: NDArray[Any]) -> "SlideTiles":
        """The tiles at `index`."""
        return replace(self, grid=self.grid.take(index))


@dataclass(frozen=True, slots=True)
class DrawnTiles:
    """Tiles of a set, equally many of every class.

    Attributes:
        slides: Slides with their drawn tiles, by slide_id; slides without any are left out.
        per_class: Tiles of each class.
        wanted: Tiles of each class that the settings ask for.
    """

    slides: tuple[SlideTiles, ...]
    per_class: int
    wanted: int

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return sum(map(len, self.slides))

    @property
    def missing(self) -> tuple[IhcScore, ...]:
        """Scores without a tile."""
        there = {slide.row.ihc_score for slide in self.slides}
        return tuple(score for score in SCORES if score not in there)

    def in_words(self) -> str:
        """Such as "247 tiles of each of 4 scores (fewer than the 624 wanted), from 14 slides of 14 patients"."""
        scores = f"each of {n} scores" if (n := len(SCORES) - len(self.missing)) > 1 else "one score"
        fewer = f" (fewer than the {self.wanted} wanted)" if self.per_class < self.wanted else ""
        lack = f" (none of {', '.join(self.missing)})" if self.missing else ""
        patients = len({slide.row.patient for slide in self.slides})
        slides = f"{len(self.slides)} slides of {patients} patients"
        return f"{self.per_class} tiles of {scores}{lack}{fewer}, from {slides}"


def find_tiles(
    rows: Sequence[SlideRow],
    spec: InputSpec,
    config: Config,
    *,
    tissue_by_score: bool,
    annotation_classes: Sequence[str] = (),
    progress: Progress = silent,
) -> tuple[SlideTiles, ...]:
    """Cut slides into tiles that lie wholly in tissue and in the annotated regions, without overlap (paper, 3.1.1).

    Args:
        rows: The slides; annotations, where there are any, limit the tissue.
        spec: Input of the network.
        config: Tissue, quality and tiling are used.
        tissue_by_score: See `settings.TileTraining`.
        annotation_classes: Classes of the annotations that are tumour; by their names if empty.
        progress: Called after every slide.

    Raises:
        ManifestError: All slides that cannot be read, or that have no tile.
    """
    rules = {row.slide_id: _tissue_rule(row, by_score=tissue_by_score) for row in rows}
    tasks = [SlideTask.of_row(row) for row in rows]
    finder = _TileFinder(spec, config, rules, tuple(annotation_classes))
    outcomes = SlideEngine(progress).run(tasks, finder, stage="looking for tiles")
    found = require_all(rows, outcomes, _NO_TILES)
    return tuple(SlideTiles(row, grid, n_in_tissue) for row, (grid, n_in_tissue) in zip(rows, found, strict=True))


def few_of_many(slides: Sequence[SlideTiles]) -> str | None:
    """One line about slides that keep fewer than half of their tissue's tiles; None where there is none."""
    poor = [slide for slide in slides if 2 * len(slide) < slide.n_in_tissue]
    if not poor:
        return None
    named = few_of([f"{slide.row.slide_id} {len(slide)} of {slide.n_in_tissue}" for slide in poor], _NAMED)
    return (
        f"{len(poor)} of {len(slides)} slides keep fewer than half of their tiles, the rest lies under pen ink or "
        f"out of focus: {named}; look at them with `he2her2 segment`, "
        "or pass --set quality.apply=false"
    )


@dataclass(frozen=True, slots=True)
class _TileFinder:
    """Cuts a slide into tiles.

    Attributes:
        spec: Input of the network.
        config: Tissue, quality and tiling are used.
        tissue_rules: Rule of each slide that tells tissue from glass.
        annotation_classes: Classes of the annotations that are tumour; by their names if empty.
    """

    spec: InputSpec
    config: Config
    tissue_rules: Mapping[str, TissueRule]
    annotation_classes: tuple[str, ...]

    def __call__(self, task: SlideTask) -> tuple[TileGrid, int]:
        """Tiles of a slide (one is enough where none fit side by side), and the number that its tissue holds."""
        spec, config = self.spec, self.config
        with open_slide(task.path, mpp=task.mpp, backend=config.runtime.backend) as slide:
            annotation = task.read_annotation(self.annotation_classes)
            rule = self.tissue_rules[task.slide_id]
            found = segment_slide(slide, spec, config, tumour_cnn=None, annotation=annotation, tissue_rule=rule)
            tissue = found.tissue
            if annotation is not None:
                size = mask_size(slide.size_l0, found.px_l0)
                tissue = tissue & annotation.mask(size, found.px_l0, slide.frame)
            try:
                tiling = cut_region(slide, found, found.tumour, spec, config.tiling)
                in_tissue = cut_region(slide, found, tissue, spec, config.tiling)
            except TooFewTilesError:
                side_um = spec.side_px * found.px_mpp / config.tiling.mask_downsample
                reason = f"no tile ({side_um:.0f} µm) fits into the {found.area_mm2(found.tumour):.2f} mm² left of it"
                raise TilingError(slide.slide_id, reason, "mark larger regions, or leave the slide out") from None
        n_tiles = len(tiling.grid) if tiling.n_plain else 1
        return tiling.grid.take(np.arange(n_tiles)), in_tissue.n_plain


def _tissue_rule(row: SlideRow, *, by_score: bool) -> TissueRule:
    """Rule that finds a slide's tissue: H&E by saturation; IHC by brightness, or as the paper does (3.1.1).

    Saturation misses most of a 2+ slide: brown membranes and blue nuclei in one mask px average to grey.
    """
    weak = row.stain == "IHC" and (not by_score or row.ihc_score in _WEAK)
    return weak_tissue_mask if weak else tissue_mask


def open_row(row: SlideRow, config: Config) -> Slide:
    """Open the slide of a row."""
    return open_slide(row.path, mpp=row.mpp, backend=config.runtime.backend)


def draw_tiles(slides: Sequence[SlideTiles], per_class: int, seed: int) -> DrawnTiles:
    """Draw equally many tiles of every class, spread evenly over the class's slides.

    Where a class has fewer tiles than wanted, every class gives as few. A slide's tiles depend on its name, their
    number and the seed, never on the order of the slides.

    Args:
        slides: Of any number of classes.
        per_class: Tiles wanted of each class.
        seed: Of the random choice within a slide.
    """
    by_name = sorted(slides, key=lambda slide: slide.row.slide_id)
    classes = [[slide for slide in by_name if slide.label == label] for label in range(len(SCORES))]
    there = [found for found in classes if found]
    least = min((sum(map(len, found)) for found in there), default=0)
    count = min(per_class, least)
    drawn = []
    for found in there:
        shares = _even_shares(np.array([len(slide) for slide in found]), count)
        drawn += [_some(slide, int(share), seed) for slide, share in zip(found, shares, strict=True) if share]
    return DrawnTiles(tuple(sorted(drawn, key=lambda slide: slide.row.slide_id)), count, per_class)


def _even_shares(available: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Number to take of each, as equal as the available numbers allow.

    Raises:
        ValueError: Fewer are available than wanted.

    Example:
        >>> _even_shares(np.array([2, 10, 10]), 13).tolist()
        [2, 5, 6]
    """
    if wanted > available.sum():
        raise ValueError(f"{wanted} wanted of {available.sum()}")
    shares = np.zeros(len(available), np.int64)
    left = wanted
    for rank, i in enumerate(np.argsort(available, kind="stable")):  # the smallest first
        shares[i] = min(int(available[i]), left // (len(available) - rank))
        left -= int(shares[i])
    return shares


def _some(slide: SlideTiles, count: int, seed: int) -> SlideTiles:
    rng = np.random.default_rng((seed, zlib.crc32(slide.row.slide_id.encode())))
    return slide.take(np.sort(rng.permutation(len(slide))[:count]))


def readable_tiles(drawn: DrawnTiles, config: Config, progress: Progress = silent) -> DrawnTiles:
    """Decode every tile once and leave out those that cannot be; the classes stay equally large.

    Raises:
        ManifestError: All slides of which more than 1 % of the tiles cannot be decoded.
    """
    rows = [tiles.row for tiles in drawn.slides]
    checker = _TileChecker({tiles.row.slide_id: tiles.grid for tiles in drawn.slides}, config)
    outcomes = SlideEngine(progress).run([SlideTask.of_row(row) for row in rows], checker, stage="checking tiles")
    readable = require_all(rows, outcomes, _NO_TILES)
    if sum(map(len, readable)) == drawn.n_tiles:
        return drawn
    kept = [tiles.take(index) for tiles, index in zip(drawn.slides, readable, strict=True)]
    return replace(draw_tiles(kept, drawn.per_class, 0), wanted=drawn.wanted)


@dataclass(frozen=True, slots=True)
class _TileChecker:
    """Decodes the drawn tiles of a slide.

    Attributes:
        grids: Tiles by slide_id.
        config: Runtime is used.
    """

    grids: Mapping[str, TileGrid]
    config: Config

    def __call__(self, task: SlideTask) -> NDArray[np.int64]:
        """Positions of a slide's tiles that can be decoded."""
        grid, runtime = self.grids[task.slide_id], self.config.runtime
        with open_slide(task.path, mpp=task.mpp, backend=runtime.backend) as slide:
            batches = list(map_tiles(slide, grid, lambda batch: batch.index, **pace(runtime)))
            require_readable(slide, sum(map(len, batches)), len(grid), what="tiles")
        return np.concatenate(batches)


class TileDataset(LabelledTiles):
    """Tiles of many slides, read from the slides a batch at a time; the slides used last stay open.

    Args:
        slides: With their tiles.
        spec: Input of the network.
        config: Slide reader and its threads.

    Attributes:
        labels: (n,) class of each tile.
        slide: (n,) position of its slide.
    """

    def __init__(self, slides: Sequence[SlideTiles], spec: InputSpec, config: Config) -> None:
        counts = [len(slide) for slide in slides]
        self.slides = tuple(slides)
        self.labels = np.repeat(np.array([slide.label for slide in slides], np.int64), counts)
        self.slide = np.repeat(np.arange(len(slides)), counts)
        self._within = np.concatenate([np.arange(0), *map(np.arange, counts)])
        self._spec = spec
        self._open = _OpenSlides(config)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> Batch:
        """Read a batch."""
        side = self._spec.side_px
        pixels = np.empty((len(draw.index), side, side, 3), np.uint8)
        for i, out in zip(draw.index.tolist(), pixels, strict=True):
            tiles = self.slides[self.slide[i]]
            x, y = tiles.grid.origins_l0[self._within[i]].tolist()
            out[...] = self._open.get(tiles.row).read(Point(x, y), Size(side, side), tiles.grid.mpp)
        labels = torch.from_numpy(self.labels[draw.index])
        return Batch(torch.from_numpy(resize(pixels, self._spec)), labels, torch.from_numpy(draw.uniform))


class _OpenSlides:
    """Open slides of one process; the one unused for longest is closed where there are too many."""

    def __init__(self, config: Config, limit: int = _MAX_OPEN_SLIDES) -> None:
        self._config = config
        self._limit = limit
        self._slides: OrderedDict[str, Slide] = OrderedDict()
        self._process = os.getpid()

    def get(self, row: SlideRow) -> Slide:
        """The open slide of a row."""
        if self._process != os.getpid():  # a forked process must not share the files' positions
            self._slides, self._process = OrderedDict(), os.getpid()
        if row.slide_id not in self._slides:
            self._slides[row.slide_id] = open_row(row, self._config)
            if len(self._slides) > self._limit:
                self._slides.popitem(last=False)[1].close()
        self._slides.move_to_end(row.slide_id)
        return self._slides[row.slide_id]

    def close(self) -> None:
        """Close them all."""
        while self._slides:
            self._slides.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """State without open slides: another process opens its own."""
        return self.__dict__ | {"_slides": OrderedDict()}
