"""Drawing of one phantom slide, from its settings to its file."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from he2her2.geometry import Size
from he2her2.phantom.anatomy import Anatomy, draw_anatomy
from he2her2.phantom.cells import CellKind, Cells
from he2her2.phantom.expression import Her2Expression, draw_expression
from he2her2.phantom.outlines import Artefacts, draw_artefacts
from he2her2.phantom.painting import Window, draw_tissue
from he2her2.phantom.processes import drawing_processes
from he2her2.phantom.pyramid import BLOCK_PX, TILE_PX, EncodedBlock, encode_block, write_pyramid
from he2her2.phantom.random_fields import NoiseField, RasterField, key_of
from he2her2.phantom.scanner import DEFOCUS_UM, FOLD_SHIFT_UM, ColourTable, apply_optics, scan
from he2her2.phantom.sites import SITES, Dyes, Optics, draw_dyes
from he2her2.phantom.spec import PhantomSpec
from he2her2.phantom.truth import PhantomTruth, TumourCells, make_truth, tumour_cells_of

if TYPE_CHECKING:
    from concurrent.futures import Future

_BRIGHTNESS_STEPS = 256
"""Steps of the lamp's brightness; one colour table each."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _DrawnBlock:
    """Drawn block and the cells whose centre lies in it."""

    encoded: EncodedBlock
    cells: TumourCells
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds an array
class _BlankBlock:
    """Block of empty slide."""

    rgbx: NDArray[np.uint8]
    encoded: EncodedBlock


@dataclass(slots=True)
class Painter:
    """Painter of one slide: draws any window or block of it."""

    spec: PhantomSpec
    anatomy: Anatomy
    artefacts: Artefacts
    expression: Her2Expression
    dyes: Dyes
    optics: Optics
    quality: int
    _tables: dict[int, ColourTable] = field(default_factory=dict)
    _blanks: dict[int, _BlankBlock] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: PhantomSpec) -> "Painter":
        """Draw the slide's anatomy, artefacts and dyes.

        Raises:
            PhantomError: The settings leave no room for tissue or tumour.
        """
        anatomy, site = draw_anatomy(spec), SITES[spec.site]
        return cls(
            spec,
            anatomy,
            draw_artefacts(spec, anatomy.outlines),
            draw_expression(spec, anatomy),
            draw_dyes(spec),
            site.optics if spec.stain == "HE" else site.ihc_optics,
            spec.jpeg_quality or site.jpeg_quality,
        )

    def draw_block(self, i: int, j: int) -> _DrawnBlock:
        """Draw the block in column `i` and row `j`; only tissue and ink take time."""
        block = Window(i * BLOCK_PX, j * BLOCK_PX, BLOCK_PX, BLOCK_PX, self.spec.mpp)
        brightness = self._brightness(block)
        core = self._busy_part(block)
        if core is None:
            none = TumourCells(np.zeros((0, 2), np.float32), np.zeros(0, np.uint8))
            return _DrawnBlock(self._blank(brightness).encoded, none, np.zeros(len(CellKind), np.int64))
        pixels, own = self.pixels(core, brightness)
        if core != block:
            whole = self._blank(brightness).rgbx.copy()
            whole[core.y - block.y : core.y - block.y + core.h, core.x - block.x : core.x - block.x + core.w] = pixels
            pixels = whole
        counts = np.bincount(own.kind, minlength=len(CellKind))
        return _DrawnBlock(encode_block(pixels, self.quality), tumour_cells_of(own, self.spec.mpp), counts)

    def pixels(self, core: Window, brightness: int = _BRIGHTNESS_STEPS) -> tuple[NDArray[np.uint8], Cells]:
        """Draw a window: (h, w, 4) RGBX, and the cells whose centre lies in it."""
        margin = self._margin_px(core)
        window = Window(core.x - margin, core.y - margin, core.w + 2 * margin, core.h + 2 * margin, core.mpp)
        drawn = draw_tissue(self.anatomy, self.expression, window, self.spec.stain)
        fine = window.fine_grid
        planes = (drawn.first, drawn.second)
        apply_optics(planes, fine, self.optics, self.artefacts, core.mpp)
        rgbx = scan(planes, fine, self._table(brightness), self.optics, self.artefacts, (window.x, window.y), core.mpp)
        inner = slice(margin, margin + core.h), slice(margin, margin + core.w)
        return np.ascontiguousarray(rgbx[inner]), drawn.cells.within(core.box)

    def _margin_px(self, core: Window) -> int:
        """Margin around a window, px, that optics and folds need."""
        reach_um = 1.6
        if _is_near(self.artefacts.folds, core, 20):
            reach_um = 1.6 + FOLD_SHIFT_UM
        if _is_near(self.artefacts.blur, core, 60):
            reach_um = max(reach_um, 3 * DEFOCUS_UM)
        return int(np.ceil(reach_um / self.spec.mpp / 2)) * 2

    def _busy_part(self, block: Window) -> Window | None:
        """Smallest window of whole tiles with all tissue and ink of the block; None on blank glass."""
        busy = [
            (x, y)
            for y in range(block.y, block.y + block.h, TILE_PX)
            for x in range(block.x, block.x + block.w, TILE_PX)
            if any(
                _is_near(raster, Window(x, y, TILE_PX, TILE_PX, block.mpp), 40)
                for raster in (self.anatomy.outlines.tissue, self.artefacts.pen)
            )
        ]
        if not busy:
            return None
        xs, ys = zip(*busy, strict=True)
        return Window(min(xs), min(ys), max(xs) + TILE_PX - min(xs), max(ys) + TILE_PX - min(ys), block.mpp)

    def _brightness(self, core: Window) -> int:
        """Brightness of the lamp over a block, in steps of 1 / `_BRIGHTNESS_STEPS`."""
        lamp = NoiseField(key_of(self.spec.seed, "lamp", self.spec.site), 0.6 * max(self.spec.size_um))
        value = lamp.at(np.array([core.box.x0]), np.array([core.box.y0]))[0]
        return round(float(_BRIGHTNESS_STEPS * (1 + 0.006 * np.clip(value, -2, 2))))

    def _table(self, brightness: int) -> ColourTable:
        if brightness not in self._tables:
            self._tables[brightness] = ColourTable(self.dyes, brightness / _BRIGHTNESS_STEPS)
        return self._tables[brightness]

    def _blank(self, brightness: int) -> _BlankBlock:
        if brightness not in self._blanks:
            window = Window(0, 0, BLOCK_PX, BLOCK_PX, self.spec.mpp)
            empty = np.zeros((BLOCK_PX, BLOCK_PX), np.float32), np.zeros((BLOCK_PX, BLOCK_PX), np.float32)
            clean = Artefacts(None, None, None, self.artefacts.ink)
            rgbx = scan(empty, window.fine_grid, self._table(brightness), self.optics, clean, (0, 0), self.spec.mpp)
            self._blanks[brightness] = _BlankBlock(rgbx, encode_block(rgbx, self.quality))
        return self._blanks[brightness]


def _is_near(raster: RasterField | None, window: Window, reach_um: float) -> bool:
    """Test if a signed distance exceeds `-reach_um` anywhere within `reach_um` of a window."""
    if raster is None:
        return False
    x0, y0, x1, y1 = (int(v // raster.px_um) for v in window.box.grown(reach_um))
    near = raster.values[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)]
    return bool((near > -reach_um).any())


def write_phantom(path: Path, spec: PhantomSpec, *, workers: int = 1) -> PhantomTruth:
    """Write one phantom slide; the file appears complete or not at all.

    Args:
        path: File to write: a pyramidal TIFF that slide readers open as Aperio's.
        spec: Settings; the same settings give the same bytes.
        workers: Processes that draw blocks at the same time; does not change the bytes. A script that uses more
            than one needs the usual `if __name__ == "__main__":`.

    Returns:
        The slide's truth; `save_truth` writes it.

    Raises:
        PhantomError: The settings leave no room for tissue or tumour.
        OutputError: The file cannot be written.
    """
    painter = Painter.of(spec)
    size = Size(*spec.size_px)
    cells: list[TumourCells] = []
    counts = np.zeros(len(CellKind), np.int64)

    def blocks() -> Iterator[EncodedBlock]:
        for drawn in _draw_blocks(painter, size, workers):
            cells.append(drawn.cells)
            np.add(counts, drawn.counts, out=counts)
            yield drawn.encoded

    write_pyramid(Path(path), size, spec.mpp, painter.quality, blocks())
    xy = np.concatenate([part.xy_l0 for part in cells])
    everything = TumourCells(xy, np.concatenate([part.level for part in cells]))
    return make_truth(spec, painter.anatomy, painter.artefacts, everything, counts)


def _draw_blocks(painter: Painter, size: Size, workers: int) -> Iterator[_DrawnBlock]:
    """Yield all blocks row by row, drawn by `workers` processes, at most a few ahead."""
    blocks = [(i, j) for j in range(-(-size.h // BLOCK_PX)) for i in range(-(-size.w // BLOCK_PX))]
    if workers == 1:
        yield from (painter.draw_block(i, j) for i, j in blocks)
        return
    with drawing_processes(workers, _start_worker, painter) as pool:
        ahead: deque[Future[_DrawnBlock]] = deque()
        for i, j in blocks:
            ahead.append(pool.submit(_draw_worker_block, i, j))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


_worker_painter: list[Painter] = []
"""Painter of the slide that this worker process draws."""


def _start_worker(painter: Painter) -> None:
    _worker_painter[:] = [painter]


def _draw_worker_block(i: int, j: int) -> _DrawnBlock:
    return _worker_painter[0].draw_block(i, j)
