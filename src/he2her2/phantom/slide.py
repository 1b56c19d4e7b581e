"""One phantom slide, from its dials to its file."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import Size
from he2her2.phantom.anatomy import Anatomy, draw_anatomy
from he2her2.phantom.artefacts import Artefacts, draw_artefacts
from he2her2.phantom.block import Window, draw_block
from he2her2.phantom.cells import Cells, Kind
from he2her2.phantom.chance import key_of
from he2her2.phantom.membranes import Expression, draw_expression
from he2her2.phantom.noise import Noise, Raster
from he2her2.phantom.scanner import DEFOCUS_UM, FOLD_SHIFT_UM, expose, see
from he2her2.phantom.sites import SITES, Optics
from he2her2.phantom.spec import PhantomSpec
from he2her2.phantom.stains import Dyes, LightTable, draw_dyes
from he2her2.phantom.truth import PhantomTruth, TumourCells, make_truth, tumour_cells_of
from he2her2.phantom.writer import BLOCK_PX, TILE_PX, Block, encode_block, write_pyramid

_SHADES = 256
"""The lamp's brightness is told apart in steps of one part in so many."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _Drawn:
    """A finished block and the cells whose centre lies in it."""

    block: Block
    cells: TumourCells
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class _Glass:
    """A block of empty slide."""

    pixels: NDArray[np.uint8]
    block: Block


@dataclass(slots=True)
class Painter:
    """Draws any block of one slide."""

    spec: PhantomSpec
    anatomy: Anatomy
    artefacts: Artefacts
    expression: Expression
    dyes: Dyes
    optics: Optics
    quality: int
    _tables: dict[int, LightTable] = field(default_factory=dict)
    _glass: dict[int, _Glass] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: PhantomSpec) -> "Painter":
        """Draw the slide's anatomy.

        Raises:
            PhantomError: The dials leave no room for tissue or tumour.
        """
        anatomy, site = draw_anatomy(spec), SITES[spec.site]
        return cls(
            spec,
            anatomy,
            draw_artefacts(spec, anatomy.layout),
            draw_expression(spec, anatomy),
            draw_dyes(spec),
            site.optics if spec.stain == "HE" else site.ihc_optics,
            spec.jpeg_quality or site.jpeg_quality,
        )

    def block(self, i: int, j: int) -> _Drawn:
        """Draw the block in column `i` and row `j`; only its part that is not glass costs time."""
        block = Window(i * BLOCK_PX, j * BLOCK_PX, BLOCK_PX, BLOCK_PX, self.spec.mpp)
        shade = self._shade(block)
        core = self._busy_part(block)
        if core is None:
            none = TumourCells(np.zeros((0, 2), np.float32), np.zeros(0, np.uint8))
            return _Drawn(self._blank(shade).block, none, np.zeros(len(Kind), np.int64))
        pixels, own = self.pixels(core, shade)
        if core != block:
            whole = self._blank(shade).pixels.copy()
            whole[core.y - block.y : core.y - block.y + core.h, core.x - block.x : core.x - block.x + core.w] = pixels
            pixels = whole
        counts = np.bincount(own.kind, minlength=len(Kind))
        return _Drawn(encode_block(pixels, self.quality), tumour_cells_of(own, self.spec.mpp), counts)

    def pixels(self, core: Window, shade: int = _SHADES) -> tuple[NDArray[np.uint8], Cells]:
        """RGBX of a window, and the cells whose centre lies in it."""
        margin = self._margin_px(core)
        window = Window(core.x - margin, core.y - margin, core.w + 2 * margin, core.h + 2 * margin, core.mpp)
        drawn = draw_block(self.anatomy, self.expression, window, self.spec.stain)
        fine = window.fine_grid
        planes = (drawn.first, drawn.second)
        see(planes, fine, self.optics, self.artefacts, core.mpp)
        light = expose(planes, fine, self._table(shade), self.optics, self.artefacts, (window.x, window.y), core.mpp)
        inner = slice(margin, margin + core.h), slice(margin, margin + core.w)
        return np.ascontiguousarray(light[inner]), drawn.cells.within(core.box)

    def _margin_px(self, core: Window) -> int:
        """How far beyond a window its surroundings must be drawn for optics and folds."""
        reach_um = 1.6
        if _is_near(self.artefacts.folds, core, 20):
            reach_um = 1.6 + FOLD_SHIFT_UM
        if _is_near(self.artefacts.blur, core, 60):
            reach_um = max(reach_um, 3 * DEFOCUS_UM)
        return int(np.ceil(reach_um / self.spec.mpp / 2)) * 2

    def _busy_part(self, block: Window) -> Window | None:
        """The smallest window of whole tiles that holds the block's tissue and ink; None on blank glass."""
        busy = [
            (x, y)
            for y in range(block.y, block.y + block.h, TILE_PX)
            for x in range(block.x, block.x + block.w, TILE_PX)
            if any(
                _is_near(raster, Window(x, y, TILE_PX, TILE_PX, block.mpp), 40)
                for raster in (self.anatomy.layout.tissue, self.artefacts.pen)
            )
        ]
        if not busy:
            return None
        xs, ys = zip(*busy, strict=True)
        return Window(min(xs), min(ys), max(xs) + TILE_PX - min(xs), max(ys) + TILE_PX - min(ys), block.mpp)

    def _shade(self, core: Window) -> int:
        """Brightness of the lamp over a block, in steps of 1 / `_SHADES`."""
        lamp = Noise(key_of(self.spec.seed, "lamp", self.spec.site), 0.6 * max(self.spec.size_um))
        value = lamp.at(np.array([core.box.x0]), np.array([core.box.y0]))[0]
        return round(float(_SHADES * (1 + 0.006 * np.clip(value, -2, 2))))

    def _table(self, shade: int) -> LightTable:
        if shade not in self._tables:
            self._tables[shade] = LightTable(self.dyes, shade / _SHADES)
        return self._tables[shade]

    def _blank(self, shade: int) -> _Glass:
        if shade not in self._glass:
            window = Window(0, 0, BLOCK_PX, BLOCK_PX, self.spec.mpp)
            empty = np.zeros((BLOCK_PX, BLOCK_PX), np.float32), np.zeros((BLOCK_PX, BLOCK_PX), np.float32)
            clean = Artefacts(None, None, None, self.artefacts.ink)
            light = expose(empty, window.fine_grid, self._table(shade), self.optics, clean, (0, 0), self.spec.mpp)
            self._glass[shade] = _Glass(light, encode_block(light, self.quality))
        return self._glass[shade]


def _is_near(raster: Raster | None, window: Window, reach_um: float) -> bool:
    """Whether what `raster` tells the distance to lies within `reach_um` of a window."""
    if raster is None:
        return False
    x0, y0, x1, y1 = (int(v // raster.px_um) for v in window.box.grown(reach_um))
    near = raster.values[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)]
    return bool((near > -reach_um).any())


def write_phantom(path: Path, spec: PhantomSpec, *, workers: int = 1) -> PhantomTruth:
    """Write one phantom slide; it appears under `path` whole or not at all.

    Args:
        path: Where to; a pyramidal TIFF that every slide reader opens as Aperio's.
        spec: The dials; the same ones give the same bytes.
        workers: Processes that draw blocks at a time; never changes a byte. A script that asks for more than one
            needs the usual `if __name__ == "__main__":`.

    Returns:
        What is true of the slide; `save_truth` writes it down.

    Raises:
        PhantomError: The dials leave no room for tissue or tumour.
        OutputError: The place cannot be written.
    """
    painter = Painter.of(spec)
    size = Size(*spec.size_px)
    cells: list[TumourCells] = []
    counts = np.zeros(len(Kind), np.int64)

    def blocks() -> Iterator[Block]:
        for drawn in _in_order(painter, size, workers):
            cells.append(drawn.cells)
            np.add(counts, drawn.counts, out=counts)
            yield drawn.block

    write_pyramid(Path(path), size, spec.mpp, painter.quality, blocks())
    xy = np.concatenate([part.xy_l0 for part in cells])
    everything = TumourCells(xy, np.concatenate([part.level for part in cells]))
    return make_truth(spec, painter.anatomy, painter.artefacts, everything, counts)


def _in_order(painter: Painter, size: Size, workers: int) -> Iterator[_Drawn]:
    """All blocks row by row, drawn by `workers` processes at once, at most a few ahead."""
    places = [(i, j) for j in range(-(-size.h // BLOCK_PX)) for i in range(-(-size.w // BLOCK_PX))]
    if workers == 1:
        yield from (painter.block(i, j) for i, j in places)
        return
    # Threads would wait for each other: most of the work is short calls that hold the interpreter.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_take, initargs=(painter,)) as pool:
        ahead: deque[Future[_Drawn]] = deque()
        try:
            for place in places:
                ahead.append(pool.submit(_draw_taken, place))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_taken: list[Painter] = []
"""The slide that this worker process draws."""


def _take(painter: Painter) -> None:
    _taken[:] = [painter]


def _draw_taken(place: tuple[int, int]) -> _Drawn:
    return _taken[0].block(*place)
