"""A picture of each stage of the method, drawn from the files that a run leaves: `docs/stage-*.jpg`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from he2her2.geometry import Point, Rgb, Size
from he2her2.results import ScoredTiles, SlideRasters, SlideResult, open_run
from he2her2.results.palette import score_colours
from he2her2.slides import Slide, open_slide

GREEN, PURPLE, INK = "#1d7a3c", "#7a1fa2", "#1d1c1a"
_WIDE, _ZOOM_MM = 8.4, 0.62
_MM = 1000.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A slide of a run with all that its stages left."""

    slide: Slide
    photo: Rgb
    rasters: SlideRasters
    tiles: ScoredTiles
    result: SlideResult

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Of the whole slide in mm, as matplotlib wants it."""
        w, h = (side * self.slide.mpp / _MM for side in self.slide.size_l0)
        return 0, w, h, 0

    def in_mm(self, values_l0: NDArray[np.float64]) -> NDArray[np.float64]:
        """Level-0 px in mm."""
        return values_l0 * self.slide.mpp / _MM

    def squares(self, which: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
        """(4, 2) corners of tiles in mm."""
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * self.tiles.grid.side_l0
        return list(self.in_mm(self.tiles.grid.origins_l0[which][:, None] + corners))


def draw_stages(run_folder: Path, slide_id: str, docs: Path) -> None:
    """Write the five pictures; `docs/method.md` shows them."""
    mpl.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "savefig.dpi": 130}
    run = open_run(run_folder)
    result, tiles = run.result(slide_id), run.tiles(slide_id)
    assert result is not None
    assert tiles is not None
    with open_slide(Path(result.inputs.path or result.path)) as slide:
        shown = Shown(slide, slide.thumbnail(4.0), run.rasters(slide_id), tiles, result)
        for name, draw in (("tissue", _tissue), ("tumour", _tumour), ("tiles", _tiles), ("scores", _scores),
                           ("decision", _decision)):  # fmt: skip
            with _figure(docs / f"stage-{name}.jpg") as figure:
                draw(figure, shown)


@contextmanager
def _figure(path: Path) -> Iterator["plt.Figure"]:  # type: ignore[name-defined]
    figure = plt.figure(figsize=(_WIDE, 3.1), layout="constrained")
    yield figure
    figure.savefig(path, pil_kwargs={"quality": 84})
    plt.close(figure)


def _picture(axes: Axes, shown: Shown, title: str, *, photo: bool = True) -> Axes:
    if photo:
        axes.imshow(shown.photo, extent=shown.extent)
    axes.set_title(title, loc="left", color=INK)
    axes.set(xlim=shown.extent[:2], ylim=shown.extent[2:], xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color("#c8c6c0")
    return axes


def _outline(axes: Axes, shown: Shown, mask: NDArray[np.bool_] | None, colour: str) -> None:
    if mask is not None and mask.any():
        axes.contour(mask.astype(float), [0.5], colors=[colour], linewidths=1.3,
                     extent=(*shown.extent[:2], shown.extent[3], shown.extent[2]))  # fmt: skip


def _hatched(axes: Axes, shown: Shown, mask: NDArray[np.bool_] | None) -> None:
    if mask is not None and mask.any():
        axes.contourf(mask.astype(float), [0.5, 1.5], colors="none", hatches=["/////"],
                      extent=(*shown.extent[:2], shown.extent[3], shown.extent[2]))  # fmt: skip


def _tissue(figure: "plt.Figure", shown: Shown) -> None:  # type: ignore[name-defined]
    left, middle, right = figure.subplots(1, 3)
    _picture(left, shown, "the slide")
    _picture(middle, shown, "tissue (green)")
    _outline(middle, shown, shown.rasters.tissue, GREEN)
    _picture(right, shown, "pen ink and blur, left out")
    for mask in (shown.rasters.pen, shown.rasters.blur):
        _hatched(right, shown, mask)


def _tumour(figure: "plt.Figure", shown: Shown) -> None:  # type: ignore[name-defined]
    samples, n_first = shown.rasters.samples, 300
    assert samples is not None
    left, middle, right = figure.subplots(1, 3)
    for axes, n in ((left, n_first), (middle, len(samples))):
        _picture(axes, shown, f"the first {n} samples" if n == n_first else f"all {n}, most at its edges")
        places = shown.in_mm(samples[:n, :2])
        axes.scatter(*places.T, c=samples[:n, 2], s=3, cmap="viridis", vmin=0, vmax=1, linewidths=0)
    _picture(right, shown, "map, and tumour (purple)", photo=False)
    map_ = right.imshow(shown.rasters.tumour_map, extent=shown.extent, cmap="viridis", vmin=0, vmax=1)
    _outline(right, shown, shown.rasters.tumour, "#ff7bff")
    figure.colorbar(map_, ax=right, shrink=0.8, label="probability of tumour")


def _close_up(shown: Shown) -> tuple[float, float]:
    """Corner in mm of the window with the most tiles that decide."""
    places = shown.in_mm(shown.tiles.grid.origins_l0[shown.tiles.selected].astype(float))
    counts = [
        ((places >= place - _ZOOM_MM / 2) & (places < place + _ZOOM_MM / 2)).all(axis=1).sum() for place in places
    ]
    x, y = places[int(np.argmax(counts))] - _ZOOM_MM / 2
    return float(np.clip(x, 0, shown.extent[1] - _ZOOM_MM)), float(np.clip(y, 0, shown.extent[2] - _ZOOM_MM))


def _near(axes: Axes, shown: Shown, title: str) -> Axes:
    x, y = _close_up(shown)
    origin = Point(*(round(side * _MM / shown.slide.mpp) for side in (x, y)))
    side = round(_ZOOM_MM * _MM / 1.0)
    pixels = shown.slide.read(origin, Size(side, side), 1.0)
    axes.imshow(pixels, extent=(x, x + _ZOOM_MM, y + _ZOOM_MM, y))
    axes.set_title(title, loc="left", color=INK)
    axes.set(xlim=(x, x + _ZOOM_MM), ylim=(y + _ZOOM_MM, y), xticks=[], yticks=[], aspect="equal")
    return axes


def _tiles(figure: "plt.Figure", shown: Shown) -> None:  # type: ignore[name-defined]
    left, middle, right = figure.subplots(1, 3)
    _picture(left, shown, "tumour (purple)")
    _outline(left, shown, shown.rasters.tumour, PURPLE)
    x, y = _close_up(shown)
    left.add_patch(Rectangle((x, y), _ZOOM_MM, _ZOOM_MM, fill=False, edgecolor=INK, linewidth=1.2))
    side = shown.tiles.grid.side_l0
    beside = (shown.tiles.grid.origins_l0 % side == 0).all(axis=1)
    _near(middle, shown, f"{shown.result.counts.tiles_without_overlap} tiles fit side by side")
    middle.add_collection(PolyCollection(shown.squares(beside), facecolors="none", edgecolors=INK, linewidths=0.8))
    _near(right, shown, f"with overlap, {len(shown.tiles.scores)}")
    every = np.ones(len(shown.tiles.scores), np.bool_)
    right.add_collection(PolyCollection(shown.squares(every), facecolors="none", edgecolors=INK, linewidths=0.3))
    for axes in (middle, right):
        _outline(axes, shown, shown.rasters.tumour, PURPLE)


def _scores(figure: "plt.Figure", shown: Shown) -> None:  # type: ignore[name-defined]
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.75])
    _near(left, shown, "each tile by its score")
    order = np.argsort(shown.tiles.scores)
    squares = shown.squares(np.ones(len(order), np.bool_))
    colours = score_colours(shown.tiles.scores[order]) / 255
    left.add_collection(PolyCollection([squares[k] for k in order], facecolors=colours, alpha=0.25))
    _outline(left, shown, shown.rasters.tumour, PURPLE)
    right.set_title("four tiles: probability of each IHC score, and the score expected", loc="left", color=INK)
    right.set(xlim=(0, 4), ylim=(0, 1.5), xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    grid = shown.tiles.grid
    for k, quantile in enumerate((0.02, 0.35, 0.7, 0.98)):
        index = order[int(quantile * (len(order) - 1))]
        pixels = shown.slide.read(Point(*grid.origins_l0[index].tolist()), Size(grid.side_px, grid.side_px), grid.mpp)
        right.imshow(pixels, extent=(k + 0.04, k + 0.96, 0.8, 1.46), aspect="auto")
        odds = np.exp(shown.tiles.logits[index] - shown.tiles.logits[index].max())
        odds /= odds.sum()
        for score, share in enumerate(odds):
            right.bar(
                k + 0.14 + 0.24 * score, 0.5 * share, 0.2, bottom=0.13, color=score_colours(np.array(score)) / 255
            )
            right.text(k + 0.14 + 0.24 * score, 0.1, ("0", "1+", "2+", "3+")[score], ha="center", va="top", fontsize=7)
        right.text(k + 0.06, 0.72, f"score {shown.tiles.scores[index]:.2f}", fontsize=8, fontweight="bold", va="center")


def _decision(figure: "plt.Figure", shown: Shown) -> None:  # type: ignore[name-defined]
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    _picture(left, shown, "the tiles that decide")
    left.add_collection(
        PolyCollection(shown.squares(shown.tiles.selected), facecolors="none", edgecolors=INK, linewidths=0.6)
    )
    scores, ranks = shown.tiles.scores, shown.tiles.ranks
    n, top = len(scores), shown.result.config.selection.top_fraction
    right.plot(np.arange(1, n + 1), np.sort(scores)[::-1], color="#8a857c", linewidth=2)
    right.axvspan(0, top * n, color="#f3e9f4")
    right.plot(ranks[shown.tiles.selected], scores[shown.tiles.selected], "|", color=INK, markersize=9)
    right.text(top * n * 1.08, 0.25, f"the best {top:.0%} of {n} tiles; {shown.tiles.selected.sum()} of\n"
               "these, spread evenly, go to the small MLP", color=INK)  # fmt: skip
    her2 = shown.result.her2
    assert her2 is not None
    said = f"probability {her2.probability:.3f}: HER2 {her2.status}"
    right.text(0.98, 0.92, said, transform=right.transAxes, ha="right", fontweight="bold", color="#9c2f17")
    right.set(xlim=(0, n), ylim=(0, 3), xlabel="tiles, highest score first", yticks=range(4))
    right.set_yticklabels(["0", "1+", "2+", "3+"])
    right.set_title("ranked scores", loc="left", color=INK)
    right.spines[["top", "right"]].set_visible(False)
