"""Style of plots: one size, colours that colour-blind readers tell apart, n and notices on every plot."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from he2her2.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6B6B6B"
"""Okabe and Ito's colours, for text and lines on white."""

BAND_ALPHA = 0.18
SIZE_INCH = (6.4, 5.6)
_DPI = 160
_CAPTION_WIDTH = 88
_NAME_WIDTH, _MOST_NAME_LINES = 26, 3
_SETTINGS: dict[Any, Any] = {  # matplotlib names the keys by a type of 300 literals
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 9.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "he2her2",
}


@dataclass(frozen=True, slots=True)
class Note:
    """Text below a plot.

    Attributes:
        caption: Content and n.
        notices: Such as phantoms, untrained weights, not a test set.
    """

    caption: str
    notices: tuple[str, ...] = ()


def wrapped(name: str) -> str:
    """A name beside a plot in lines short enough to leave room for the plot."""
    return textwrap.fill(name, _NAME_WIDTH, max_lines=_MOST_NAME_LINES, placeholder=" …")


@contextmanager
def canvas(title: str, *, size_inch: tuple[float, float] = SIZE_INCH) -> Iterator[tuple["Figure", "Axes"]]:
    """A figure with one pair of axes, in our style whatever the user's is, without a display; closed afterwards."""
    from matplotlib import rc_context, rcdefaults, rcParams  # noqa: PLC0415  (an extra, and slow to load)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with rc_context():
        rcdefaults()  # LaTeX or a dark style of the user's are not for these words and colours
        rcParams.update(_SETTINGS)
        figure = Figure(figsize=size_inch, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(title, pad=12)
        yield figure, axes


def save(figure: "Figure", note: Note, stem: Path) -> tuple[Path, ...]:
    """Write PNG and SVG with the note below the plot.

    Raises:
        OutputError: The place cannot be written.
    """
    lines = textwrap.wrap(note.caption, _CAPTION_WIDTH)
    notices = [line for notice in note.notices for line in textwrap.wrap(f"NOTICE: {notice}", _CAPTION_WIDTH)]
    height = 0.19 * (len(lines) + len(notices)) + 0.1
    width, plot_height = figure.get_size_inches()
    figure.set_size_inches(width, plot_height + height)
    share = height / (plot_height + height)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.01, share, 0.98, 1 - share - 0.01))  # type: ignore[call-arg]
    _write_lines(figure, lines, notices, share)
    files = []
    for ending, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        file = stem.with_suffix(ending)
        with atomic(file) as draft:
            figure.savefig(draft, dpi=_DPI, metadata=metadata)
        figure.set_layout_engine("none")  # it lies as it should: no need to lay it out again
        files.append(file)
    return tuple(files)


def _write_lines(figure: "Figure", lines: Sequence[str], notices: Sequence[str], top: float) -> None:
    step = 0.19 / float(figure.get_size_inches()[1])
    for k, text in enumerate([*lines, *notices]):
        is_notice = k >= len(lines)
        figure.text(
            0.02,
            top - (k + 0.9) * step,
            text,
            fontsize=9,
            color=ORANGE if is_notice else "#333333",
            fontweight="bold" if is_notice else "normal",
            va="baseline",
        )
