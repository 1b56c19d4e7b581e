"""One phantom slide, from its dials to its file."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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
from he2her2.phantom.noise import Noise
from he2her2.phantom.scanner import DEFOCUS_UM, expose, see
from he2her2.phantom.sites import SITES, Optics
from he2her2.phantom.spec import PhantomSpec
from he2her2.phantom.stains import Dyes, LightTable, draw_dyes
from he2her2.phantom.truth import PhantomTruth, TumourCells, make_truth, tumour_cells_of
from he2her2.phantom.writer import BLOCK_PX, Block, encode_block, write_pyramid

_SHADES = 512
"""The lamp's brightness is told apart in steps of one part in so many."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _Drawn:
    """A finished block and the cells whose centre lies in it."""

    block: Block
    cells: TumourCells
    counts: NDArray[np.int64]


@dataclass(slots=True)
class Painter:
    """Draws any block of one slide; safe for several threads."""

    spec: PhantomSpec
    anatomy: Anatomy
    artefacts: Artefacts
    expression: Expression
    dyes: Dyes
    optics: Optics
    quality: int
    _tables: dict[int, LightTable] = field(default_factory=dict)
    _glass: dict[int, Block] = field(default_factory=dict)

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
        """Draw the block in column `i` and row `j`."""
        x, y, mpp = i * BLOCK_PX, j * BLOCK_PX, self.spec.mpp
        core = Window(x, y, BLOCK_PX, BLOCK_PX, mpp)
        shade = self._shade(core)
        none = TumourCells(np.zeros((0, 2), np.float32), np.zeros(0, np.uint8))
        if self._is_glass(core):
            return _Drawn(self._blank(shade), none, np.zeros(len(Kind), np.int64))
        pixels, own = self.pixels(core, shade)
        return _Drawn(
            encode_block(pixels, self.quality), tumour_cells_of(own, mpp), np.bincount(own.kind, minlength=len(Kind))
        )

    def pixels(self, core: Window, shade: int = _SHADES) -> tuple[NDArray[np.uint8], Cells]:
        """RGBX of a window, and the cells whose centre lies in it."""
        margin = self._margin_px()
        window = Window(core.x - margin, core.y - margin, core.w + 2 * margin, core.h + 2 * margin, core.mpp)
        drawn = draw_block(self.anatomy, self.expression, window, self.spec.stain)
        fine = window.fine_grid
        planes = (drawn.first, drawn.second)
        see(planes, fine, self.optics, self.artefacts, core.mpp)
        light = expose(planes, fine, self._table(shade), self.optics, self.artefacts, (window.x, window.y), core.mpp)
        inner = slice(margin, margin + core.h), slice(margin, margin + core.w)
        return np.ascontiguousarray(light[inner]), drawn.cells.within(core.box)

    def _margin_px(self) -> int:
        """How far beyond a block its surroundings must be drawn for optics and folds."""
        reach_um = 1.6
        if self.artefacts.blur is not None:
            reach_um = 3 * DEFOCUS_UM
        margin = int(np.ceil(reach_um / self.spec.mpp / 2)) * 2
        return max(margin, 40) if self.artefacts.folds is not None else margin

    def _is_glass(self, core: Window) -> bool:
        """Whether a block holds neither tissue nor ink."""
        box = core.box.grown(60)
        for raster in (self.anatomy.layout.tissue, self.artefacts.pen):
            if raster is None:
                continue
            x0, y0, x1, y1 = (int(v // raster.px_um) for v in box)
            if (raster.values[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)] > -40).any():
                return False
        return True

    def _shade(self, core: Window) -> int:
        """Brightness of the lamp over a block, in steps of 1 / `_SHADES`."""
        lamp = Noise(key_of(self.spec.seed, "lamp", self.spec.site), 0.6 * max(self.spec.size_um))
        value = lamp.at(np.array([core.box.x0]), np.array([core.box.y0]))[0]
        return round(float(_SHADES * (1 + 0.006 * np.clip(value, -2, 2))))

    def _table(self, shade: int) -> LightTable:
        if shade not in self._tables:
            self._tables[shade] = LightTable(self.dyes, shade / _SHADES)
        return self._tables[shade]

    def _blank(self, shade: int) -> Block:
        if shade not in self._glass:
            window = Window(0, 0, BLOCK_PX, BLOCK_PX, self.spec.mpp)
            empty = np.zeros((BLOCK_PX, BLOCK_PX), np.float32), np.zeros((BLOCK_PX, BLOCK_PX), np.float32)
            clean = Artefacts(None, None, None, self.artefacts.ink)
            light = expose(empty, window.fine_grid, self._table(shade), self.optics, clean, (0, 0), self.spec.mpp)
            self._glass[shade] = encode_block(light, self.quality)
        return self._glass[shade]


def write_phantom(path: Path, spec: PhantomSpec, *, threads: int = 1) -> PhantomTruth:
    """Write one phantom slide; it appears under `path` whole or not at all.

    Args:
        path: Where to; a pyramidal TIFF that every slide reader opens as Aperio's.
        spec: The dials; the same ones give the same bytes.
        threads: Blocks drawn at a time; never changes a byte.

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
        for drawn in _in_order(painter, size, threads):
            cells.append(drawn.cells)
            np.add(counts, drawn.counts, out=counts)
            yield drawn.block

    write_pyramid(Path(path), size, spec.mpp, painter.quality, blocks())
    xy = np.concatenate([part.xy_l0 for part in cells])
    everything = TumourCells(xy, np.concatenate([part.level for part in cells]))
    return make_truth(spec, painter.anatomy.layout, painter.artefacts, everything, counts)


def _in_order(painter: Painter, size: Size, threads: int) -> Iterator[_Drawn]:
    """All blocks row by row, drawn by `threads` at once, at most a few ahead."""
    places = ((i, j) for j in range(-(-size.h // BLOCK_PX)) for i in range(-(-size.w // BLOCK_PX)))
    if threads == 1:
        yield from (painter.block(i, j) for i, j in places)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[_Drawn]] = deque()
        try:
            for i, j in places:
                ahead.append(pool.submit(painter.block, i, j))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()
